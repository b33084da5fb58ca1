"""Tasks: the check values of the protocols, reproducible data, and no leak of the truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchdiffeq

import hybridsam_lite as hs
from hybridsam_lite.tasks import base, duffing, pendulum

EVERY = [(name, variant) for name in hs.tasks.names() for variant in hs.tasks.variants(name)]


# --- pendulum ----------------------------------------------------------------------------------------


def test_pendulum_trajectory_of_seed_zero():
    states = pendulum.damped([0])[0]
    assert states[0] == pytest.approx([0.42093, 1.85562], abs=5e-6)
    for time, expected in ((5, (-1.22478, -0.23463)), (10, (0.12810, -0.77493)), (19.5, (0.04448, 0.29339))):
        # The listed values have five digits; the solver's relative tolerance is 1e-10.
        assert states[round(time / pendulum.DT)] == pytest.approx(expected, abs=1.2e-5)


def test_pendulum_physics_alone_is_biased():
    """The projection trap: without a network, the best omega2 for the derivative is 1.071, not 1.0966."""
    states = pendulum.damped(range(25)).reshape(-1, 2)
    q, v = states.T
    acceleration = -pendulum.OMEGA2 * np.sin(q) - pendulum.DAMPING * v
    omega2 = (-np.sin(q) @ acceleration) / (np.sin(q) @ np.sin(q))
    assert omega2 == pytest.approx(1.071, abs=1e-3)


@pytest.mark.parametrize(("solver", "error"), [("classic", 4.0e-6), ("3/8 rule", 2.4e-6)])
def test_half_second_steps_are_too_coarse(solver, error):
    """With steps of 0.5 s even the true model is wrong by this much and prefers a shifted omega2."""
    states = torch.tensor(pendulum.damped(range(25)))
    t = torch.arange(pendulum.POINTS, dtype=torch.float64) * pendulum.DT

    def mse(omega2: float) -> float:
        def rhs(_, y):
            return torch.cat([y[..., 1:], -omega2 * torch.sin(y[..., :1]) - pendulum.DAMPING * y[..., 1:]], -1)

        if solver == "classic":
            y = hs.odeint(rhs, states[:, 0], t, method="rk4")
        else:
            y = torchdiffeq.odeint(rhs, states[:, 0], t, method="rk4")
        return float(((y.transpose(0, 1) - states) ** 2).mean())

    assert mse(pendulum.OMEGA2) == pytest.approx(error, rel=0.03)
    shifts = np.linspace(0, 1.2e-3, 25)
    best = shifts[np.argmin([mse(pendulum.OMEGA2 + s) for s in shifts])]
    assert 4e-4 <= best <= 7.5e-4


def test_quarter_second_steps_are_fine_enough():
    """What the task uses: the true right-hand side reproduces a window to 1e-4."""
    task = hs.tasks.get("pendulum", preset="smoke")

    class Truth(torch.nn.Module):
        def forward(self, y):
            return -pendulum.DAMPING * y[..., 1:]

    model = task.model()
    model.theta.set(omega2=pendulum.OMEGA2)
    model.net = Truth()
    loss = ((model(task.test.inputs).value - task.test.target) ** 2).mean()
    assert loss < 1e-8


def test_forced_pendulum_first_item():
    generator = np.random.default_rng(1234)
    ranges = ((-1.57, 1.57), (0.785, 3.14), (0, 0.8), (0, 40), (3.14, 6.28))
    first = [generator.uniform(*r, 1000)[0] for r in ranges]
    assert first == pytest.approx([1.49684, 2.80352, 0.62409, 32.2986, 4.99737], rel=3e-6)  # six digits
    observed, w = pendulum.forced(1000, 1234)
    assert w[0] == pytest.approx(2.80352, abs=5e-6)
    assert observed.shape == (1000, 50)
    assert abs(observed[0, 0] - 1.49684) < 5 * pendulum.A3_NOISE


def test_forced_pendulum_network_tells_all_times_apart():
    """The drive has an unknown frequency: no two instants may look alike to the network."""
    model, seen = pendulum.ForcedPendulum(width=8), []
    model.inner.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, model.codes + 2 :].clone()))
    model(torch.zeros(1, pendulum.A3_POINTS))
    stages = torch.stack(seen).unique(dim=0)
    # Every grid point, and the half steps of RK4 between them: 50 + 49 (the last digits may differ by rounding).
    assert len(stages.mul(1e4).round().unique(dim=0)) == 2 * pendulum.A3_POINTS - 1


def test_controlled_pendulum_torque_is_limited_and_swings_up():
    states = pendulum.controlled(10, seed=0)
    torque = pendulum.swing_up_torque(states[..., 0], states[..., 1])
    assert np.abs(torque).max() <= 2
    assert (np.cos(states[:, -20:, 0]) > 0.9).any(axis=1).sum() >= 5  # most get near the top in ten seconds


# --- duffing -----------------------------------------------------------------------------------------


def projection(variant: str, x0: np.ndarray) -> list[float]:
    """theta of the smallest network: physics alone fitted to the acceleration, least squares."""
    gamma, omega = duffing.FORCING.get(variant, (0.0, 1.0))
    states = duffing.simulate_duffing(x0, gamma, omega)
    x, v = states[..., 0], states[..., 1]
    force = gamma * np.cos(omega * np.arange(duffing.POINTS) * duffing.DT)
    acceleration = force - duffing.DELTA * v - duffing.ALPHA * x - duffing.BETA * x**3
    terms = {"alpha": x, "beta": x**3, "delta": v}
    columns = np.stack([-terms[name].ravel() for name in duffing.THETA[variant]], axis=1)
    return np.linalg.lstsq(columns, acceleration.ravel(), rcond=None)[0].tolist()


@pytest.mark.parametrize(
    ("variant", "expected"), [("C1", (0.995, 0.999)), ("C2", (2.475, 0.096)), ("C3", (0.585, 1.021, 0.039))]
)
def test_duffing_smallest_network_theta(variant, expected):
    x0 = np.random.default_rng(0).uniform(-2, 2, (50, 2))
    assert projection(variant, x0) == pytest.approx(expected, abs=6e-4)  # the listed digits


def test_duffing_confounding_grows_with_amplitude():
    listed = {0.25: 1.03, 0.5: 1.11, 1.0: 1.39, 2.0: 2.28}
    unit = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    found = {radius: projection("C2", radius * unit)[0] for radius in listed}
    # The listed values come from another sample; alpha varies by about 5 % between samples of this size.
    assert found == pytest.approx(listed, rel=0.06)
    assert list(found.values()) == sorted(found.values())


def test_duffing_cubic_looks_linear():
    x = duffing.simulate_duffing(np.random.default_rng(0).uniform(-2, 2, (50, 2)))[..., 0].ravel()
    assert np.corrcoef(x, x**3)[0, 1] == pytest.approx(0.844, abs=5e-4)


def test_duffing_true_model_reproduces_the_windows():
    clean = duffing.simulate_duffing(np.random.default_rng(1).uniform(-2, 2, (5, 2)))
    data = base.windows(clean, duffing.DT, duffing.WINDOW)
    model = duffing.Duffing(("alpha", "beta", "delta"), width=4)
    model.theta.set(alpha=duffing.ALPHA, beta=duffing.BETA, delta=duffing.DELTA)
    torch.nn.init.zeros_(model.net[-1].weight)
    torch.nn.init.zeros_(model.net[-1].bias)
    assert ((model(data.inputs).value - data.target) ** 2).mean() < 1e-7


# --- all tasks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_every_variant_trains_and_is_scored(name, variant):
    task = hs.tasks.get(name, preset="smoke", variant=variant)
    nested = task.predict(task.model()).network is None
    methods = [hs.ERM(), hs.SharpnessAware(0.05), *([] if nested else [hs.FunctionNorm(0.1)])]
    runs = task.fit(methods, seeds=[0], progress=False, steps=3)
    frame = task.score(runs)
    assert set(frame["status"]) == {"ok"}
    assert np.isfinite(frame["theta_error"]).all()
    assert np.isfinite(frame["test_loss"]).all()
    assert all(set(hat) == set(task.theta_true) for hat in frame["theta_hat"])
    assert set(task.units) == set(task.theta_true)


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_data_are_reproduced_bitwise_and_parts_differ(name, variant):
    first, second = (hs.tasks.get(name, preset="smoke", variant=variant) for _ in range(2))
    prints = [getattr(first, part).fingerprint() for part in ("train", "val", "test")]
    assert prints == [getattr(second, part).fingerprint() for part in ("train", "val", "test")]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_the_truth_does_not_reach_training(name, variant):
    """With NaN for a truth, training gives the same parameters, bit for bit."""
    task = hs.tasks.get(name, preset="smoke", variant=variant)
    blind = replace(task, theta_true=dict.fromkeys(task.theta_true, math.nan))
    states = [t.fit(["asam:rho=0.5"], seeds=[3], steps=2, progress=False).members[0].state for t in (task, blind)]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_presets_change_sizes_only(name, variant):
    smoke, quick = (hs.tasks.get(name, preset=p, variant=variant) for p in ("smoke", "quick"))
    assert smoke.theta_true.keys() == quick.theta_true.keys()
    assert smoke.units == quick.units
    science = [{k: v for k, v in t.training.items() if k not in ("steps", "batch_size")} for t in (smoke, quick)]
    assert science[0] == science[1]
    assert smoke.test.target.shape[1:] == quick.test.target.shape[1:]


def test_names_that_do_not_exist_get_a_suggestion(monkeypatch):
    with pytest.raises(ValueError, match="did you mean 'pendulum'"):
        hs.tasks.get("pendulm")
    with pytest.raises(ValueError, match=r"no variant 'C9'.*it has: C1, C2, C3, residual"):
        hs.tasks.get("duffing", variant="C9")
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        hs.tasks.get("duffing", preset="smok")
    monkeypatch.setenv("HYBRIDSAM_PRESET", "smoke")
    assert hs.tasks.get("duffing").preset == "smoke"


def test_windows_line_up_with_the_series():
    series = np.arange(2 * 10 * 1, dtype=float).reshape(2, 10, 1)
    data = base.windows(series, 0.5, length=3, stride=2)
    assert data.inputs["x0"].flatten().tolist() == [0, 2, 4, 6, 10, 12, 14, 16]
    assert data.inputs["t0"].flatten().tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert data.target[1].flatten().tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match="too few for windows of 10"):
        base.windows(series, 0.5, length=10)


def test_simulation_that_fails_says_so():
    with pytest.raises(RuntimeError, match="DOP853 failed"), np.errstate(all="ignore"):
        base.simulate(lambda t, x: x**3, np.full((1, 1), 10.0), np.array([0.0, 1.0]))


def test_with_truth_fixes_theta():
    task = hs.tasks.get("duffing", preset="smoke").with_truth()
    runs = task.fit(["erm"], seeds=[0], steps=3, progress=False)
    assert runs.theta(0) == pytest.approx({"alpha": 1.0, "beta": 1.0}, rel=1e-6)
    assert not any(p.requires_grad for p in task.model().theta.parameters())
    with pytest.raises(ValueError, match="inferred for each sample"):
        hs.tasks.get("pendulum", preset="smoke", variant="A3").with_truth()
