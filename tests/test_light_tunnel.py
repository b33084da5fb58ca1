"""Light tunnel: check values of the image models, the stand-in, the hybrid model and the score."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import hybridsam_lite as hs
from hybridsam_lite.tasks import chambers, light_tunnel

BLACK = torch.zeros(1, 3)


def drawn(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours and alphas as in the real experiment."""
    generator = np.random.default_rng(seed)
    rgb = torch.as_tensor(generator.integers(0, 256, (count, 3)) / 255)
    return rgb, light_tunnel.alpha_of(*generator.uniform(-180, 180, (2, count)))[:, None]


def test_hexagon_has_525_pixels():
    assert int(light_tunnel.hexagon().sum()) == 525


def test_f3_of_white_light():
    """Before clipping, at alpha = 0, 1/2, 1; the listed values have three digits."""
    light = light_tunnel.transmitted(torch.ones(3, 3), torch.tensor([[0.0], [0.5], [1.0]]))
    expected = torch.tensor([[0.053, 0.255, 0.772], [0.409, 0.685, 1.093], [0.764, 1.115, 1.415]])
    torch.testing.assert_close(light, expected, atol=5.1e-4, rtol=0)
    assert light_tunnel.color_f3(torch.ones(1, 3), torch.ones(1, 1)).max() == 1


def test_bars():
    """Scores without any learning: guesses, and what the physics alone would give.

    The mean of 100 000 cosines has a standard error of 0.0005; the listed values came from another sample.
    """
    rgb, alpha = drawn(100_000)
    seen = light_tunnel.color_f3(rgb, alpha)
    guesses = {
        0.798: drawn(100_000, seed=1)[0],
        0.893: torch.ones_like(rgb),
        0.899: seen,
        0.919: seen @ torch.linalg.inv(light_tunnel.MIXING.double()).T,
    }
    for expected, guess in guesses.items():
        assert float(light_tunnel.cosine(guess, rgb).mean()) == pytest.approx(expected, abs=2.5e-3)


def test_score_is_an_angle():
    red = torch.tensor([[1.0, 0.0, 0.0]])
    assert light_tunnel.angle({"color": 0.1 * red}, {"color": red}) == 0  # brightness does not matter
    assert light_tunnel.angle({"color": red.roll(1, -1)}, {"color": red}) == pytest.approx(90)
    assert light_tunnel.angle({"color": red}, {"color": BLACK}) == pytest.approx(90)  # no direction: as if wrong
    listed = torch.tensor([[0.98, (1 - 0.98**2) ** 0.5, 0.0]])
    assert light_tunnel.angle({"color": listed}, {"color": red}) == pytest.approx(11.5, abs=0.05)


@pytest.mark.filterwarnings("ignore:Arrays of 2-dimensional vectors:DeprecationWarning")  # the package's own
def test_physics_agrees_with_the_package(capsys):
    package = pytest.importorskip(
        "causalchamber.simulators.lt", reason="needs the package causalchamber (extra 'chambers') to compare with"
    )
    generator = np.random.default_rng(0)
    levels, angles = generator.integers(0, 256, (30, 3)), generator.uniform(-180, 180, (30, 2))
    table = pd.DataFrame(np.hstack([levels, angles]), columns=["red", "green", "blue", "pol_1", "pol_2"])
    rgb, alpha = torch.as_tensor(levels / 255), light_tunnel.alpha_of(*angles.T)[:, None]
    place = {"center_x": 0.5, "center_y": 0.5, "radius": light_tunnel.RADIUS, "offset": 0, "image_size": 64}
    balance = {"w_r": 2.65625, "w_g": 1.0, "w_b": 1.77344}
    camera = {"S": light_tunnel.MIXING.double().numpy() / np.array([list(balance.values())]).T, **balance}
    leak = {
        name: x.double().numpy()[:, None] for name, x in (("Tp", light_tunnel.PARALLEL), ("Tc", light_tunnel.CROSSED))
    }
    pairs = [
        (package.ModelF1(**place), light_tunnel.color_f1),
        (package.ModelF2(**camera, exposure=0.8, **place), light_tunnel.color_f2),
        (package.ModelF3(**camera, exposure=2.5, **leak, **place), light_tunnel.color_f3),
    ]
    for model, color in pairs:
        expected = model.simulate_from_inputs(table).transpose(0, 3, 1, 2)
        ours = color(rgb, alpha)[:, :, None, None] * light_tunnel.hexagon()
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4)  # single precision is good to 1e-6


def test_stand_in_is_reproducible_and_like_f3_inside():
    first, again, other = (light_tunnel.stand_in(60, seed) for seed in (1, 1, 2))
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["images"] != other["images"]).any()
    assert first["images"].shape == (60, 3, 64, 64)
    rgb = torch.as_tensor(np.stack([first[name] for name in ("red", "green", "blue")], axis=1) / 255)
    alpha = light_tunnel.alpha_of(first["pol_1"], first["pol_2"])[:, None]
    images = torch.as_tensor(first["images"]) / 255
    # In the middle the edge and the vignette have no part; noise 0.01 is averaged over 36 pixels of 60 images.
    gap = images[:, :, 29:35, 29:35].mean((2, 3)) - light_tunnel.color_f3(rgb, alpha)
    assert gap.abs().max() < 0.02
    # Outside, where F3 is black, there is a glow that fades.
    near, far = images[:, :, 32, 50].mean(), images[:, :, 32, 60].mean()
    assert near > 2 * far > 0.005


@pytest.mark.parametrize("variant", light_tunnel.VARIANTS)
def test_model(variant):
    task = light_tunnel.build(variant, "smoke")
    torch.manual_seed(0)
    model, images = task.model(), task.test.inputs
    prediction = model(images)
    assert prediction.value.shape == images.shape == prediction.physics.shape
    assert prediction.theta["color"].shape == (20, 3)
    assert ((prediction.theta["color"] > 0) & (prediction.theta["color"] < 1)).all()
    assert (prediction.network is None) == variant.startswith("nested")
    color = (light_tunnel.color_f3 if variant.endswith("F3") else light_tunnel.color_f1)(
        prediction.theta["color"], prediction.theta["alpha"][:, None]
    )
    # The physics at the model's size is the physics at the camera's size, averaged over blocks.
    whole = color[:, :, None, None] * light_tunnel.hexagon()
    torch.testing.assert_close(prediction.physics, light_tunnel.shrink(whole, images.shape[-1]))


def test_the_network_handles_channels_apart():
    """A channel of the output depends on that channel of y_sci only: no permutation of colours can be undone."""
    model = light_tunnel.LightTunnel("F1", nested=True, side=8, width=8)
    z = torch.zeros(1, 3, light_tunnel.CODES)

    def decode(y):
        return model.net(torch.cat([y, z, model.channel[None]], -1))

    jacobian = torch.autograd.functional.jacobian(decode, torch.rand(1, 3, 64)).sum((2, 5))[0, :, 0]
    assert (jacobian.diagonal().abs() > 0).all()
    assert torch.equal(jacobian, torch.diag(jacobian.diagonal()))
    same = decode(torch.rand(1, 1, 64).expand(1, 3, 64))
    assert not torch.equal(same[:, 0], same[:, 1])  # but it is told which channel it has


def test_smoke_run_scores_angle_and_cosine():
    task = light_tunnel.build("nested", "smoke")
    frame = task.score(task.fit(["erm", "asam:rho=0.5"], seeds=[0, 1], progress=False, device="cpu"))
    assert (frame.status == "ok").all()
    for error, metrics in zip(frame.theta_error, frame.metrics, strict=True):
        assert 5 < error < 60
        # The cosine of the mean angle is at least the mean cosine (the cosine is concave up to 90 degrees).
        assert metrics["cosine"] <= np.cos(np.deg2rad(error)) + 1e-9
        assert metrics["cosine"] > 0.5
    repeated = task.score(task.fit(["erm"], seeds=[1], progress=False, device="cpu"))
    assert repeated.theta_error[0] == pytest.approx(frame.theta_error[1], rel=1e-4)  # other sums in a smaller stack


def test_no_label_reaches_training():
    task = light_tunnel.build("residual", "smoke")
    blind = dataclasses.replace(task, theta_true={"color": torch.full((20, 3), torch.nan)})
    seen, unseen = (t.fit(["erm"], seeds=[0], progress=False, device="cpu") for t in (task, blind))
    for a, b in zip(seen.model(0).parameters(), unseen.model(0).parameters(), strict=True):
        assert torch.equal(a, b)


def test_physics_can_be_fitted_to_its_own_images():
    """A sanity check of gradients through F1: with F1's images the network is not needed to predict well."""
    rgb, alpha = (x.float() for x in drawn(300))
    mask = light_tunnel.shrink(light_tunnel.hexagon()[None, None], 8)[0, 0]
    images = light_tunnel.color_f1(rgb, alpha)[:, :, None, None] * mask
    train, val = ((x, x) for x in images.split(200))
    runs = hs.fit(
        lambda: light_tunnel.LightTunnel("F1", False, 8, 32), train, val,
        methods=["erm"], seeds=[0], steps=600, progress=False, device="cpu",
    )  # fmt: skip
    assert runs.members[0].val_loss < 0.05 * float(images.var())


def test_stand_in_is_said_to_be_one():
    task = light_tunnel.build("residual", "smoke")
    assert task.origin == "stand-in"
    assert "hybridsam run light_tunnel --data real" in task.notes
    assert "0.98 is a cosine" in task.notes


def test_real_data(monkeypatch):
    """Real images are split at random, always alike, into parts that do not overlap."""
    every = light_tunnel.stand_in(100, 5)
    every["red"] = np.arange(100.0)
    monkeypatch.setattr(chambers, "camera_images", lambda side: every)
    first, again = (light_tunnel.build("nested", "smoke", data="real") for _ in range(2))
    assert first.origin == "real"
    assert "CC BY 4.0" in first.notes
    assert "stand-in" not in first.notes
    assert torch.equal(first.train.target, again.train.target)
    assert [len(part) for part in (first.train, first.val, first.test)] == [40, 20, 20]
    images = light_tunnel.shrink(torch.as_tensor(every["images"]) / 255, light_tunnel.MODEL_SIDE)
    numbers = (255 * first.theta_true["color"][:, 0]).round().long()
    assert torch.equal(first.test.target, images[numbers])  # truths belong to their images
    used = torch.cat([part.target for part in (first.train, first.val, first.test)])
    assert len(torch.unique(used.flatten(1), dim=0)) == 80
    monkeypatch.setattr(light_tunnel, "SAMPLES", {"smoke": (90, 20, 20)})
    with pytest.raises(chambers.RealDataError, match="100 images, expected at least 130"):
        light_tunnel.build("nested", "smoke", data="real")


def test_unknown_data_is_refused():
    with pytest.raises(ValueError, match="expected one of: stand-in, real"):
        light_tunnel.build("nested", "smoke", data="simulated")
