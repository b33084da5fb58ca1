"""Wind tunnel: the check values of the protocol, the package's own models, and what confounds the hatch."""

import numpy as np
import pytest
import torch

import hybridsam_lite as hs
from hybridsam_lite.tasks import wind_tunnel as tunnel

# Sample -> pressure above the ambient in Pa, with the hatch closed, half open and open; three decimals are given.
SHOWN = (0, 4, 5, 8, 12, 24, 25, 30, 49)
PRESSURE = {
    0.0: (-4.489, -3.920, -3.442, -1.077, 3.263, 12.887, 10.989, 5.275, -0.278),
    0.5: (-3.143, -2.744, -2.410, -0.754, 2.284, 9.021, 7.692, 3.692, -0.195),
    1.0: (-1.796, -1.568, -1.377, -0.431, 1.305, 5.155, 4.396, 2.110, -0.111),
}


def fans():
    t, load_in, load_out = tunnel.impulse()
    return tunnel.fan_pressure(tunnel.fan_speed(load_in, t), tunnel.fan_speed(load_out, t))


def test_speed_of_the_intake_fan():
    t, load_in, load_out = tunnel.impulse()
    rpm = tunnel.fan_speed(load_in, t) * 60 / (2 * np.pi)
    expected = [300.0, 292.3, 509.1, 720.6, 1119.8, 1787.7, 2751.4, 2577.5, 1958.9, 1026.2]
    assert rpm[[0, 4, 5, 6, 8, 12, 24, 25, 30, 49]] == pytest.approx(expected, abs=0.051)
    assert tunnel.fan_speed(load_out, t)[0] * 60 / (2 * np.pi) == pytest.approx(1500, abs=0.01)
    assert pytest.approx(5.268701549401565e-8, rel=1e-12) == tunnel.DRAG


@pytest.mark.parametrize("hatch", PRESSURE)
def test_pressure(hatch):
    assert tunnel.tunnel_pressure(hatch, fans())[list(SHOWN)] == pytest.approx(PRESSURE[hatch], abs=5.1e-4)


def test_pressure_falls_with_the_hatch():
    closed, opened = (tunnel.tunnel_pressure(h, fans())[24] for h in (0.0, 1.0))
    assert (closed - opened) / tunnel.OPEN == pytest.approx(0.1718, abs=5e-5)


def test_physics_agrees_with_the_package():
    models = pytest.importorskip("causalchamber.models", reason="the extra `chambers` is not installed")
    t, load_in, load_out = tunnel.impulse()
    speeds = [
        models.model_a2(
            load, tunnel.INERTIA, lambda x: tunnel.TORQUE * np.maximum(tunnel.L_MIN, x) ** 3, tunnel.DRAG,
            max(load[0], tunnel.L_MIN) * tunnel.W_MAX, t,
        )
        for load in (load_in, load_out)
    ]  # fmt: skip
    for hatch in PRESSURE:
        theirs = models.model_c3(
            *speeds, hatch * 45, 0.0, tunnel.S_MAX, tunnel.W_MAX, tunnel.Q_MAX, tunnel.R0, tunnel.BETA
        )
        assert tunnel.tunnel_pressure(hatch, fans()) == pytest.approx(theirs, rel=1e-4)


def test_the_hatch_is_a_gain():
    """Any two curves of the physics are multiples of each other: a network's gain explains the hatch away."""
    curves = tunnel.tunnel_pressure(np.linspace(0, 1, 5)[:, None], fans())
    assert np.linalg.matrix_rank(curves, tol=1e-9 * np.abs(curves).max()) == 1


def test_physics_alone_is_biased_on_the_stand_in():
    """Least squares for each curve: 0.25 of the range, no better than the constant one half."""
    curves, fans, hatch = tunnel.stand_in(1500, 23).values()
    b = fans - fans[:, :1]
    gain = (curves * b).sum(1) / (b * b).sum(1)
    found = np.clip((1 - tunnel.R0 - gain) / tunnel.BETA, 0, 1)
    assert np.abs(found - hatch).mean() == pytest.approx(0.25, abs=0.03)  # the protocol's two digits, another seed
    assert np.abs(0.5 - hatch).mean() == pytest.approx(0.25, abs=0.01)


def test_stand_in_is_reproducible_and_noisy():
    curves, _, hatch = tunnel.stand_in(400, 5).values()
    assert np.array_equal(curves, tunnel.stand_in(400, 5)["curves"])
    assert not curves[:, 0].any()
    assert 0 <= hatch.min() < 0.02 < 0.98 < hatch.max() <= 1
    # A reading's noise and the first one's: the variance around the mean curve of equal hatches is twice 0.2^2.
    residual = curves[:, 49] - np.polyval(np.polyfit(hatch, curves[:, 49], 1), hatch)
    assert residual.std() == pytest.approx(tunnel.NOISE * np.sqrt(2), rel=0.12)


@pytest.mark.parametrize("variant", tunnel.VARIANTS)
def test_models_tell_what_the_physics_and_the_network_did(variant):
    task = hs.tasks.get("wind_tunnel", preset="smoke", variant=variant)
    assert task.origin == "stand-in"
    prediction = task.model()(task.test.inputs)
    assert prediction.value.shape == (20, 50)
    assert prediction.theta["hatch"].shape == (20,)
    assert bool(((prediction.theta["hatch"] > 0) & (prediction.theta["hatch"] < 1)).all())
    assert (prediction.network is None) == variant.startswith("nested")
    if variant == "residual":
        torch.testing.assert_close(prediction.value, prediction.physics + prediction.network)


def test_penalties_on_the_network_refuse_the_nested_model():
    task = hs.tasks.get("wind_tunnel", preset="smoke", variant="nested")
    with pytest.raises(ValueError, match="FunctionNorm cannot train WindTunnel"):
        task.fit(["fn:mu=0.1"], seeds=[0], progress=False)


def test_the_linear_path_starts_as_the_identity():
    """Before training, the prediction is the physics, up to the small output layer of the network."""
    task = hs.tasks.get("wind_tunnel", preset="smoke", variant="nested-linear")
    model = task.model()
    torch.nn.init.zeros_(model.net[-1].weight)
    torch.nn.init.zeros_(model.net[-1].bias)
    prediction = model(task.test.inputs)
    torch.testing.assert_close(prediction.value, prediction.physics, rtol=1e-5, atol=1e-4)


def test_real_data_go_the_same_way(monkeypatch):
    """Impulses as the loader returns them: the task takes the same physics, differences and units."""
    t, load_in, load_out = tunnel.impulse()
    hatch = np.linspace(0, 45, 90)
    pressure = 101325 + tunnel.tunnel_pressure(hatch[:, None] / 45, fans())
    repeated = {name: np.tile(x, (90, 1)) for name, x in (("load_in", load_in), ("load_out", load_out), ("time", t))}
    real = {"hatch": hatch, "pressure_downwind": pressure, "pressure_ambient": np.full((90, 50), 101325.0), **repeated}
    monkeypatch.setattr(tunnel.chambers, "impulses", lambda: real)
    monkeypatch.setitem(tunnel.SAMPLES, "smoke", (50, 20, 20))
    task = hs.tasks.get("wind_tunnel", preset="smoke", variant="residual", data="real")
    assert task.origin == "real"
    assert [len(part) for part in (task.train, task.val, task.test)] == [50, 20, 20]
    physics = tunnel.tunnel_pressure(task.theta_true["hatch"].numpy()[:, None], task.test.inputs["fans"].numpy())
    assert task.test.target.numpy() == pytest.approx(physics - physics[:, :1], abs=1e-4)  # single precision of 17 Pa
