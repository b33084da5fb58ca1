"""Reaction-diffusion: the protocol's check values, data against another solver, boundaries, no leak of the truth."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import hybridsam_lite as hs
from hybridsam_lite.tasks import base
from hybridsam_lite.tasks import reaction_diffusion as rd

VARIANTS = list(rd.VARIANTS)


@cache
def series(variant):
    return rd.fields(variant, 24, seed=0)


def truth(variant):
    """The true right-hand side, in the precision of the state."""

    def rhs(t, x):
        diffusion = torch.tensor(rd.DIFFUSION[variant], dtype=x.dtype)[:, None, None] / rd.PIXEL[variant] ** 2
        return diffusion * rd.laplacian(x, rd.PADDING[variant]) + rd.reaction(x)

    return rhs


class Reaction(torch.nn.Module):
    def forward(self, x):
        return rd.reaction(x)


def true_model(variant):
    model = rd.ReactionDiffusion(variant)
    model.theta.set(**dict(zip(rd.START, rd.DIFFUSION[variant], strict=True)))
    model.net = Reaction()
    return model


# --- check values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "ratio", "limit"), [("B1", 1.201, 0.29), ("B2", 1.28, 0.27)])
def test_diffusion_number_and_stability_of_rk4(variant, ratio, limit):
    number = rd.DIFFUSION[variant][1] / rd.PIXEL[variant] ** 2
    assert number == pytest.approx(ratio, abs=5e-4)
    noise = torch.rand(1, 1, rd.SIZE, rd.SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def roughness(step):  # the fastest mode grows or falls by 3 % a step when the step is 1 % off the limit
        t = torch.arange(300, dtype=torch.float64) * step
        x = hs.odeint(lambda t, x: number * rd.laplacian(x, rd.PADDING[variant]), noise, t)[-1]
        return float(rd.laplacian(x, rd.PADDING[variant]).abs().max())

    assert roughness(limit - 0.005) < 1 < roughness(limit + 0.005)


@pytest.mark.parametrize(("variant", "difference"), [("B1", 2.4e-3), ("B2", 3.2e-3)])
def test_rk4_at_a_tenth_is_this_far_from_a_hundredth(variant, difference):
    x0 = torch.from_numpy(series(variant)[:, 0])
    t = torch.arange(rd.POINTS[variant], dtype=torch.float64) * rd.DT
    coarse, fine = (hs.odeint(truth(variant), x0, t, substeps=n) for n in (1, 10))
    # The largest of half a million deviations: it differs by some percent between samples.
    assert float((coarse - fine).abs().max()) == pytest.approx(difference, rel=0.15)


def test_standard_deviation_over_pixels():
    frames = series("B1")[:, [0, 1, 5, 10, 15]]
    u, v = frames.std(axis=(-1, -2)).mean(0).T
    # 24 series; U's slow patches differ between series, which leaves a standard error of 0.002 at the end.
    assert u == pytest.approx([0.289, 0.257, 0.185, 0.154, 0.149], abs=6e-3)
    assert v == pytest.approx([0.287, 0.172, 0.062, 0.056, 0.065], abs=3e-3)


def projection(variant):
    """theta of the smallest network: diffusion alone fitted to the derivative on all frames, least squares."""
    x = torch.from_numpy(series(variant)).flatten(0, 1)
    lap = rd.laplacian(x, rd.PADDING[variant]) / rd.PIXEL[variant] ** 2
    rate = truth(variant)(0, x)
    return ((lap * rate).sum((0, 2, 3)) / (lap**2).sum((0, 2, 3))).tolist()


def test_diffusion_alone_is_biased():
    """The projection trap. The tolerance is the difference between samples of this size (1 %)."""
    assert projection("B1") == pytest.approx([1.20e-3, 5.61e-3], rel=0.015)
    assert projection("B2")[0] == pytest.approx(5.5e-4, rel=0.03)


# --- data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_data_agree_with_an_independent_solver(variant):
    """DOP853 and numpy's own padding: no shared code. Data are stored in single precision (6e-8)."""
    mode = {"B1": "edge", "B2": "wrap"}[variant]
    a, b = (d / rd.PIXEL[variant] ** 2 for d in rd.DIFFUSION[variant])

    def lap(x):
        p = np.pad(x, 1, mode=mode)
        return p[1:-1, 2:] + p[1:-1, :-2] + p[2:, 1:-1] + p[:-2, 1:-1] - 4 * x

    def rhs(t, state):
        u, v = state.reshape(2, rd.SIZE, rd.SIZE)
        return np.stack([a * lap(u) + u - u**3 - 5e-3 - v, b * lap(v) + u - v]).reshape(1, -1)

    t = np.arange(6) * rd.DT
    exact = base.simulate(rhs, series(variant)[0, 0].reshape(1, -1), t).reshape(6, 2, rd.SIZE, rd.SIZE)
    # B1: RK4 at 0.01 errs by 2e-7. B2: RK45 with a relative tolerance of 1e-6.
    assert np.abs(series(variant)[0, :6] - exact).max() < {"B1": 5e-7, "B2": 5e-6}[variant]


def test_windows_are_pairs_of_frames_and_mostly_early():
    counted = np.arange(14 * 16, dtype=float).reshape(14, 16, 1, 1, 1)
    data = rd.frame_pairs(counted)
    before = data.inputs["x0"].reshape(14, 4) - 16 * torch.arange(14)[:, None]
    assert torch.equal(before[:, :3], torch.arange(3.0).expand(14, 3))
    assert before[:, 3].tolist() == [*range(3, 15), 3, 4]  # every later start, and none past the last frame
    assert torch.equal(data.target.flatten(), data.inputs["x0"].flatten() + 1)
    assert data.inputs["t"].tolist() == pytest.approx([0, 0.1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_data_are_reproduced_bitwise_and_parts_differ(variant):
    prints = [
        [getattr(task, part).fingerprint() for part in ("train", "val", "test")]
        for task in (rd.build(variant, "smoke"), rd.build(variant, "smoke"))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints[0])) == 3


# --- model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_true_equation_reproduces_the_windows_up_to_the_edges(variant):
    """What a crop with invented neighbours would break. RK4 at 0.1 errs by 2.7e-4 (root mean square)."""
    data = rd.frame_pairs(series(variant))
    with torch.no_grad():
        error = (true_model(variant)(data.inputs).value - data.target).squeeze(1)
    assert error.square().mean().sqrt() < 4e-4
    edge = torch.ones(rd.SIZE, rd.SIZE, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    inside, outside = (error[..., mask].square().mean().sqrt() for mask in (~edge, edge))
    assert outside < 1.2 * inside


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_solver_hardly_shifts_theta(variant):
    """With the true reaction, least squares on the windows moves theta by 0.1 % (a) and 0.7 % (b) at most."""
    data = rd.frame_pairs(series(variant))
    model, true = true_model(variant), torch.tensor(rd.DIFFUSION[variant])

    def predict(step):
        model.double().theta.set(a=float(true[0]) + step[0], b=float(true[1]) + step[1])
        with torch.no_grad():
            return model({k: x.double() for k, x in data.inputs.items()}).value.flatten()

    at_truth, size = predict((0.0, 0.0)), 1e-6
    slopes = torch.stack([(predict(s) - at_truth) / size for s in ((size, 0.0), (0.0, size))], 1)
    shift = torch.linalg.lstsq(slopes, (data.target.flatten() - at_truth)[:, None]).solution.flatten()
    assert (shift.abs() / true).tolist() == pytest.approx([0, 0], abs=7e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_network_respects_the_boundary(variant):
    """Periodic: shifting the fields shifts the prediction. No flux: an even field looks at each edge."""
    torch.manual_seed(0)
    model = rd.ReactionDiffusion(variant)
    x = torch.rand(1, 2, rd.SIZE, rd.SIZE)

    def step(x):
        return model({"x0": x, "t": torch.tensor([0.0, rd.DT])}).value[:, 0]

    if variant == "B2":
        assert torch.allclose(step(x.roll((5, 7), (-2, -1))), step(x).roll((5, 7), (-2, -1)), atol=1e-6)
    else:  # the field and its mirror images, one of each, are periodic
        even = torch.cat([x, x.flip(-1)], -1)
        even = torch.cat([even, even.flip(-2)], -2)
        mirrored = rd.laplacian(even, "circular")[..., : rd.SIZE, : rd.SIZE]
        assert torch.allclose(rd.laplacian(x, "replicate"), mirrored, atol=1e-6)
        flat = step(torch.full_like(x, 0.3))  # the network's three paddings add nothing of their own
        assert torch.allclose(flat, flat[..., 16:17, 16:17].expand_as(flat), atol=1e-6)


def test_prediction_holds_the_parts_at_every_start():
    torch.manual_seed(0)
    model = rd.ReactionDiffusion("B1", width=4)
    x0, t = torch.rand(3, 2, rd.SIZE, rd.SIZE), torch.arange(4) * rd.DT
    prediction = model({"x0": x0, "t": t})
    assert prediction.value.shape == prediction.network.shape == prediction.physics.shape == (3, 3, 2, 32, 32)
    assert torch.allclose(prediction.network[:, 0], model.net(x0), atol=1e-6)
    assert torch.allclose(prediction.network[:, 1], model.net(prediction.value[:, 0]), atol=1e-6)
    expected = model.theta.b / rd.PIXEL["B1"] ** 2 * rd.laplacian(prediction.value[:, 1], "replicate")[:, 1]
    assert torch.allclose(prediction.physics[:, 2, 1], expected, atol=1e-6)


def test_the_physics_cannot_be_told_from_the_network():
    """The confounding is perfect: a convolution of the network's first layer equals the Laplacian."""
    torch.manual_seed(0)
    layer = rd.ReactionDiffusion("B1").net[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[0, 0] = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    x = torch.rand(2, 2, rd.SIZE, rd.SIZE)
    assert torch.allclose(layer(x)[:, 0], rd.laplacian(x, "replicate")[:, 0], atol=1e-5)


def test_theta_starts_in_its_range_and_can_cross_it():
    starts = []
    for seed in range(50):
        torch.manual_seed(seed)
        starts.append([v.item() for v in rd.ReactionDiffusion("B1", width=1).theta.values().values()])
    drawn = np.array(starts)
    for column, (low, high) in zip(drawn.T, rd.START.values(), strict=True):
        assert low * (1 - 1e-5) <= column.min() < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < column.max() <= high * (1 + 1e-5)
    # Adam moves a raw parameter by at most its rate a step; the cosine halves the sum of the rates.
    reach = 0.5 * 1e-2 * rd.TRAINING["quick"]["steps"]
    for name, constraint in rd.ReactionDiffusion("B1", width=1).theta.constraints.items():
        low, high = (float(constraint.inverse(torch.tensor(end))) for end in rd.START[name])
        assert high - low < reach, name


# --- training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_trains_in_a_stack_and_is_scored(variant):
    task = rd.build(variant, "smoke")
    runs = task.fit([hs.ERM(), hs.SharpnessAware(0.05), hs.FunctionNorm(0.1)], seeds=[0], progress=False, steps=3)
    frame = task.score(runs)
    assert set(frame["status"]) == {"ok"}
    assert np.isfinite(frame[["theta_error", "test_loss"]].to_numpy()).all()
    looped = task.fit([hs.ERM()], seeds=[0], progress=False, steps=3, vectorize=False)
    # Another order of summation in single precision, over three steps of Adam.
    assert looped.members[0].val_loss == pytest.approx(runs.members[0].val_loss, rel=1e-4)
    assert task.test.target.shape[1:] == (rd.HORIZON, 2, rd.SIZE, rd.SIZE)


def test_the_truth_does_not_reach_training():
    task = rd.build("B1", "smoke")
    blind = replace(task, theta_true=dict.fromkeys(task.theta_true, float("nan")))
    states = [t.fit(["asam:rho=0.5"], seeds=[3], steps=2, progress=False).members[0].state for t in (task, blind)]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
