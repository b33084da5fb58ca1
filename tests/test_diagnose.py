"""Diagnosis: checked against dense matrices, closed forms and examples whose verdict is known."""

import copy
import math
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import nn

import hybridsam_lite as hs
from hybridsam_lite import plots
from hybridsam_lite.curvature import lanczos

MODULE = sys.modules["hybridsam_lite.information"]  # hs.information is the function


def half(prediction, target):
    return ((prediction - target) ** 2).mean() / 2


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


class Waves(hs.HybridModel):
    """Two thetas and a network, additive."""

    def __init__(self, width=4, depth=2):
        super().__init__()
        self.theta = hs.Theta(k=hs.Positive(init=(0.5, 2.0), unit="N/m"), w=hs.Real(init=(0.5, 2.0)))
        self.net = hs.mlp(1, [width] * depth, 1, last_scale=1.0)

    def forward(self, x):
        physics, network = self.theta.k * torch.sin(self.theta.w * x), self.net(x)
        return hs.Prediction(physics + network, network=network, physics=physics)


class Linear(hs.HybridModel):
    """theta a + psi phi."""

    def __init__(self, phi, theta=0.0):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=theta, scale=1.0))
        self.phi = nn.Parameter(torch.as_tensor(phi).clone())

    def forward(self, inputs):
        return self.theta.k * inputs["a"] + inputs["psi"] @ self.phi


class ToyA(hs.HybridModel):
    """(theta + u v) x."""

    def __init__(self, u, v, theta):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=theta, scale=1.0))
        self.u, self.v = nn.Parameter(torch.tensor(float(u))), nn.Parameter(torch.tensor(float(v)))

    def forward(self, x):
        return (self.theta.k + self.u * self.v) * x


X = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
M = (X**2).mean().item()


def waves(seed=0, n=20, width=4, depth=2):
    torch.manual_seed(seed)
    model = Waves(width, depth).double()
    x = torch.randn(n, 1, dtype=torch.float64)
    return model, (x, torch.sin(2 * x) + 0.1 * torch.randn_like(x))


def dense(model, data, loss):
    """Jacobian by role (theta in units of its range) and the Hessian in phi, by torch.func."""
    x, y = data
    params = {name: p.detach() for name, p in model.named_parameters()}
    role = hs.roles(model)
    phi = {n: p for n, p in params.items() if role[n] == "phi"}
    sizes = [p.numel() for p in phi.values()]

    def predict(p):
        return torch.func.functional_call(model, p, (x,)).value

    def flat_loss(v):
        parts = dict(zip(phi, v.split(sizes), strict=True))
        return loss(predict({**params, **{n: parts[n].reshape(p.shape) for n, p in phi.items()}}), y)

    rows = torch.func.jacrev(lambda p: predict(p).flatten())(params)
    jp = torch.cat([rows[n].reshape(y.numel(), -1) for n in phi], 1)
    columns = []
    for name in model.theta:
        c, raw = model.theta.constraints[name], params[f"theta.raw.{name}"]
        slope = torch.func.grad(c.forward)(raw)
        columns.append(rows[f"theta.raw.{name}"].flatten() / slope * c.unit_of_change)
    hessian = torch.func.jacrev(torch.func.jacrev(flat_loss))(torch.cat([p.flatten() for p in phi.values()]))
    return jp, torch.stack(columns, 1), hessian


# Curvature


@pytest.mark.parametrize("seed", range(5))
def test_eigenvalue_and_trace_agree_with_dense_matrices(seed):
    model, data = waves(seed)
    jp, _, hessian = dense(model, data, lambda p, y: 2 * half(p, y))
    at = hs.Landscape(model, data)
    for form, matrix in (("hessian", hessian), ("gauss-newton", 2 * jp.T @ jp / 20)):
        found = hs.spectrum(at, form=form, probes=1000)
        # Lanczos stops at a residual of 1e-6 of the eigenvalue; the error is its square over the gap
        assert found.top == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-8)
        assert found.trace == pytest.approx(matrix.trace().item(), rel=1e-10)
        assert found.trace_error == 0.0
        v = found.vector
        assert (matrix @ v - found.top * v).norm() <= found.top_error * 1.1 + 1e-12
        guess = hs.spectrum(at, form=form, probes=30, seed=seed)
        assert guess.form == form
        # 4 standard errors, estimated from 30 probes
        assert abs(guess.trace - found.trace) < 4 * guess.trace_error


def test_the_traces_standard_error_is_right():
    # 100 estimates scatter as their own standard error says, within 4 / sqrt(2 * 100) of it
    model, data = waves(1)
    at = hs.Landscape(model, data)
    exact = hs.spectrum(at, probes=1000).trace
    z = [(s.trace - exact) / s.trace_error for s in (hs.spectrum(at, probes=20, seed=k) for k in range(100))]
    assert np.std(z) == pytest.approx(1.0, abs=0.28)


def test_gauss_newton_is_used_near_interpolation_only():
    model, (x, y) = waves()
    assert hs.spectrum(hs.Landscape(model, (x, y))).form == "hessian"
    fitted = model(x).value.detach() + 1e-6
    assert hs.spectrum(hs.Landscape(model, (x, fitted))).form == "gauss-newton"


def test_lanczos_finds_a_repeated_top_eigenvalue_and_a_zero_operator():
    matrix = torch.diag(torch.tensor([2.0, 2.0, 1.0, -3.0], dtype=torch.float64))
    start = torch.ones(4, dtype=torch.float64)
    assert lanczos(lambda v: matrix @ v, start, 10)[0] == pytest.approx(2.0, rel=1e-12)
    assert lanczos(torch.zeros_like, start, 10)[0] == 0.0


# Sharpness


def exact_gap(at, psi, r, rho):
    """max over |e| <= rho of |r + psi e|^2 / (2n) minus |r|^2 / (2n), by the secular equation."""
    lam, vectors = np.linalg.eigh(psi.T @ psi)
    b = vectors.T @ (psi.T @ r)
    length = lambda mu: np.linalg.norm(b / (mu - lam))  # noqa: E731
    mu = brentq(lambda mu: length(mu) - rho, lam[-1] * (1 + 1e-13), lam[-1] + 2 * np.linalg.norm(b) / rho + 1)
    e = vectors @ (b / (mu - lam))
    return (np.sum((r + psi @ e) ** 2) - np.sum(r**2)) / (2 * len(r))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rho", [0.05, 0.5, 3.0])
def test_ascent_reaches_the_exact_maximum_of_a_quadratic_and_never_exceeds_it(seed, rho):
    torch.manual_seed(seed)
    a, psi, phi, y = torch.randn(12), torch.randn(12, 3), torch.randn(3), torch.randn(12)
    model = Linear(phi, 0.7)
    at = hs.Landscape(model, ({"a": a, "psi": psi}, y), loss=half)
    found = hs.sharpness(at, rho=rho)
    r = (0.7 * a + psi @ phi - y).double().numpy()
    exact = exact_gap(at, psi.double().numpy(), r, rho)
    assert found.one_step <= found.gap <= exact * (1 + 1e-6)  # 0.7 was rounded to single precision
    assert found.gap == pytest.approx(exact, rel=1e-3)
    if rho == 3.0:
        assert found.gap > found.one_step  # one step does not see the curvature


def test_multi_start_beats_one_step_where_the_gradient_misleads():
    # at the bottom there is a gradient of rounding size only, and one step goes anywhere
    model, (x, _) = waves(2)
    at = hs.Landscape(model, (x, model(x).value.detach() + 1e-9), loss=half)
    found = hs.sharpness(at, rho=1e-3)
    # quadratic at this radius up to a relative error of order rho
    assert found.gap == pytest.approx(hs.spectrum(at).top * 1e-6 / 2, rel=0.01)
    assert found.gap > found.one_step


def test_toy_a_has_the_closed_forms():
    u, v, c, rho = 1.5, 0.75, 2.0, 0.3
    at = hs.Landscape(ToyA(u, v, c - u * v), (X, c * X), loss=half)
    found = hs.spectrum(at)
    assert found.top == pytest.approx(M * (u**2 + v**2), rel=1e-12)
    assert found.trace == pytest.approx(M * (u**2 + v**2), rel=1e-12)
    assert hs.spectrum(at, "theta").top == pytest.approx(M, rel=1e-12)
    assert at.entries[0].range == 1.0
    for lam in (1e-3, 1.0, 1e3):
        s = hs.information(at, lam=lam)
        # m lam / (lam + m |w|^2), to rounding times the condition number of the 4 x 4 system
        assert s.matrix.item() == pytest.approx(M * lam / (lam + M * (u**2 + v**2)), rel=1e-9)
        assert s.bound == pytest.approx(s.matrix.item() / M, rel=1e-9)
    angle = np.linspace(0, 2 * np.pi, 100_001)
    change = (u + rho * np.cos(angle)) * (v + rho * np.sin(angle)) - u * v
    # the maximum is flat in the angle: the grid misses 1e-9 of it; 15 steps leave less than 1e-6
    assert hs.sharpness(at, rho=rho).gap == pytest.approx(M / 2 * (change**2).max(), rel=1e-6)


def test_the_adaptive_gap_does_not_change_when_a_scale_moves_between_weights():
    gaps = [
        [hs.sharpness(hs.Landscape(ToyA(u, v, 1.0), (X, 2 * X)), rho=0.1, adaptive=a).gap for a in (True, False)]
        for u, v in ((1.0, 1.0), (10.0, 0.1))
    ]
    assert gaps[0][0] == pytest.approx(gaps[1][0], rel=1e-6)  # as single-precision weights are
    assert gaps[1][1] > 20 * gaps[0][1]


def test_gaussian_sharpness_of_a_linear_network_is_the_trace():
    torch.manual_seed(0)
    psi, rho = torch.randn(12, 5, dtype=torch.float64), 0.4
    at = hs.Landscape(Linear(torch.zeros(5)), ({"a": torch.ones(12), "psi": psi}, torch.randn(12)), loss=half)
    found = hs.sharpness(at, rho=rho, draws=400)
    exact = rho**2 / 5 * (psi**2).sum().item() / 24
    # antithetic pairs leave out the gradient's part; 4 standard errors
    assert abs(found.gaussian - exact) < 4 * found.gaussian_error
    assert found.gaussian_error < 0.1 * exact


def test_thetas_sharpness_is_in_units_of_its_range():
    model = nn.Linear(1, 1, bias=False)
    data = (X[:, None], 200.0 * X[:, None])

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.k, self.net = nn.Parameter(torch.tensor(200.0)), copy.deepcopy(model)

        def forward(self, x):
            return self.k * x + 0 * self.net(x)

    found = hs.sharpness(hs.Landscape(Plain(), data, theta=["k"]), "theta", rho=0.05)
    # the value itself is the range of a plain parameter: rho is five per cent of 200
    assert found.gap == pytest.approx(M * 10.0**2, rel=1e-12)


def test_a_solver_that_fails_within_the_ball_makes_the_gap_infinite():
    class Brittle(ToyA):
        def forward(self, x):
            if self.u > 1.01:
                raise hs.SolverError("blew up")
            return super().forward(x)

    assert hs.sharpness(hs.Landscape(Brittle(1.0, 1.0, 1.0), (X, 1.5 * X)), rho=0.1).gap == math.inf


# Information about theta


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("direct", [True, False])
def test_information_agrees_with_dense_gauss_newton(seed, direct, monkeypatch):
    monkeypatch.setattr(MODULE, "DENSE", 512 if direct else 0)
    model, data = waves(seed)
    jp, jt, _ = dense(model, data, half)
    lam = 10.0 ** (seed % 5 - 3)
    hpp, htp, htt = (a.T @ b / 20 for a, b in ((jp, jp), (jt, jp), (jt, jt)))
    exact = htt - htp @ torch.linalg.solve(hpp + lam * torch.eye(len(hpp)).double(), htp.T)
    found = hs.information(hs.Landscape(model, data), lam=lam)
    assert (found.matrix - exact).abs().max() <= 1e-6 * exact.abs().max()
    assert (found.known - htt).abs().max() <= 1e-12 * htt.abs().max()
    assert found.top == pytest.approx(torch.linalg.eigvalsh(hpp)[-1].item(), rel=1e-5)
    # the bound, on a random network
    slack = torch.linalg.eigvalsh(found.matrix - htt * found.bound)
    assert slack[0] >= -1e-6 * exact.abs().max()
    ranges = torch.tensor([c.unit_of_change for c in model.theta.constraints.values()], dtype=torch.float64)
    assert torch.allclose(found.physical * ranges * ranges[:, None], found.matrix)
    variance = found.noise**2 / 20 * torch.linalg.inv(exact).diagonal()
    assert found.sd == pytest.approx(variance.sqrt().tolist(), rel=1e-5)
    assert found.sd_physical == pytest.approx((variance.sqrt() * ranges).tolist(), rel=1e-5)
    assert all(0 <= r <= 1 + 1e-9 for r in found.retained)


def test_information_does_not_depend_on_the_losss_scale_but_on_its_weights():
    model, data = waves(3)
    weights = torch.linspace(0.1, 2.0, 20, dtype=torch.float64)[:, None]
    losses = [half, lambda p, y: ((p - y) ** 2).sum(), lambda p, y: (weights[: len(p)] * (p - y) ** 2).mean()]
    found = [hs.information(hs.Landscape(model, data, loss=loss), lam=0.01) for loss in losses]
    assert torch.allclose(found[0].matrix, found[1].matrix)
    jp, jt, _ = dense(model, data, half)
    root = (weights / weights.sum()).sqrt()
    jp, jt = root * jp, root * jt
    exact = jt.T @ torch.linalg.solve(torch.eye(20).double() + jp @ jp.T / 0.01, jt)
    assert torch.allclose(found[2].matrix, exact, rtol=1e-6)
    assert all(f.weighted for f in found)
    rooted = hs.information(hs.Landscape(model, data, loss=lambda p, y: half(p, y).sqrt()), lam=0.01)
    assert not rooted.weighted
    assert torch.allclose(rooted.matrix, found[0].matrix)


def linear_toy(overlap):
    torch.manual_seed(0)
    psi, a = torch.randn(30, 3, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    if overlap:
        a = psi @ torch.randn(3, dtype=torch.float64)
    y = 1.3 * a + psi @ torch.tensor([1.0, -2.0, 0.5]).double() + 0.01 * torch.randn(30, dtype=torch.float64)
    joint = torch.linalg.lstsq(torch.cat([a[:, None], psi], 1), y, driver="gelsd").solution
    model = Linear(joint[1:], joint[0].item()).double()
    model.theta.set(k=joint[0])
    return model, ({"a": a, "psi": psi}, y)


def test_information_vanishes_if_the_network_can_imitate_the_physics_and_is_full_if_it_cannot():
    model, data = linear_toy(overlap=True)
    a, psi = data[0]["a"], data[0]["psi"]
    found = hs.information(hs.Landscape(model, data), lam=1e-9)
    assert found.retained[0] < 1e-7
    model, data = linear_toy(overlap=False)
    a, psi = data[0]["a"], data[0]["psi"]
    left = a - psi @ torch.linalg.lstsq(psi, a).solution
    found = hs.information(hs.Landscape(model, data), lam=1e-9)
    assert found.matrix.item() == pytest.approx((left @ left / 30).item(), rel=1e-6)


def test_the_default_lam_gives_the_linear_gaussian_posterior():
    model, data = linear_toy(overlap=True)
    found = hs.information(hs.Landscape(model, data))
    a, psi = data[0]["a"], data[0]["psi"]
    prior = (model.phi.detach() ** 2).mean()
    # theta's variance given y with phi ~ N(0, s^2) and noise tau^2, no prior on theta
    covariance = found.noise**2 * torch.eye(30).double() + prior * psi @ psi.T
    variance = 1 / (a @ torch.linalg.solve(covariance, a))
    assert found.sd[0] == pytest.approx(variance.sqrt().item(), rel=1e-6)


def test_a_product_of_thetas_is_named_as_undetermined():
    class Product(hs.HybridModel):
        def __init__(self):
            super().__init__()
            self.theta = hs.Theta(k=hs.Real(init=1.0), m=hs.Real(init=2.0))
            self.net = hs.mlp(1, [2], 1)

        def forward(self, x):
            return self.theta.k * self.theta.m * x + 0 * self.net(x)

    report = hs.diagnose(Product(), (X[:, None], 2 * X[:, None] + 0.1), steps=5)
    found = report.information
    # in units of the ranges, which are the values, both have the same effect
    assert found.combinations == ["0.71 k - 0.71 m", "0.71 k + 0.71 m"] or found.combinations[0] == "- 0.71 k + 0.71 m"
    assert found.eigenvalues[0].abs() < 1e-12 * found.eigenvalues[1]
    assert found.sd == [math.inf, math.inf]
    assert not any(v.determined for v in report.verdicts)
    assert "another theta has the same effect" in str(report)


# Profile likelihood


def test_the_profile_of_a_linear_model_is_the_exact_one_and_gives_its_interval():
    model, data = linear_toy(overlap=False)
    a, psi = data[0]["a"], data[0]["psi"]
    at = hs.Landscape(model, data)
    curve = hs.profile(at, grid=[1.2, 1.25, 1.35, 1.4])
    assert curve.grid == sorted([1.2, 1.25, 1.35, 1.4, at.entries[0].value])
    for k, loss in zip(curve.grid, curve.losses, strict=True):
        rest = data[1] - k * a
        rest = rest - psi @ torch.linalg.lstsq(psi, rest).solution
        assert loss == pytest.approx((rest @ rest / 30).item(), rel=1e-6)
    assert curve.threshold == pytest.approx(at.value * math.exp(3.841 / 30), rel=1e-9)
    assert 1.25 < curve.low < at.entries[0].value < curve.high < 1.35
    looped = hs.profile(at, grid=[1.2, 1.25, 1.35, 1.4], vectorize=False)
    assert (curve.vectorized, looped.vectorized) == (True, False)
    assert looped.losses == pytest.approx(curve.losses, rel=1e-6)
    assert math.isfinite(hs.profile(at).half_width)


def test_a_profile_refits_the_other_thetas_and_loops_where_vmap_cannot_run():
    class Branching(hs.HybridModel):
        def __init__(self):
            super().__init__()
            self.theta = hs.Theta(k=hs.Real(init=1.0), b=hs.Real(init=1.0))
            self.net = hs.mlp(1, [2], 1)

        def forward(self, x):
            if self.theta.k > -100:  # a decision that depends on data
                return (self.theta.k + self.theta.b) * x + 0.0 * self.net(x)
            return x

    curve = hs.profile(hs.Landscape(Branching(), (X[:, None], 2 * X[:, None])), "k", steps=50)
    assert not curve.vectorized
    assert max(curve.losses) < 1e-12  # b makes up for k
    assert curve.half_width == math.inf


def test_a_profile_keeps_to_thetas_bounds():
    model, data = waves()
    at = hs.Landscape(model, data)
    k = at.entries[0]
    assert min(hs.profile(at, "k", steps=1).grid) > 0
    assert hs.profile(at, "k", steps=1).grid[-1] == pytest.approx(k.value + k.range)
    with pytest.raises(ValueError, match=r"\[-1.0\].*positive"):
        hs.profile(at, "k", grid=[-1.0])
    with pytest.raises(ValueError, match="expected one of: k, w"):
        hs.profile(at)
    with pytest.raises(ValueError, match="steps must be a positive integer, got 0"):
        hs.profile(at, "k", steps=0)


def test_a_trained_loss_above_the_refitted_ones_widens_the_interval():
    model, data = linear_toy(overlap=False)
    with torch.no_grad():
        model.phi += 0.1
    at = hs.Landscape(model, data)
    curve = hs.profile(at)
    assert curve.threshold == curve.reference == at.value
    assert curve.half_width > 0.01


# The report


def test_the_verdict_flips_between_a_determined_and_an_undetermined_example():
    reports = [hs.diagnose(*linear_toy(overlap)) for overlap in (False, True)]
    assert [r.verdicts[0].determined for r in reports] == [True, False]
    assert "k is determined by this data and model, because" in str(reports[0])
    text = str(reports[1])
    assert "k is NOT determined by this data and model, because" in text
    assert "the network can take over its effect" in text
    assert "values from below" in text
    assert "above" in text


def test_a_theta_that_does_nothing_is_named_as_such():
    class Idle(ToyA):
        def forward(self, x):
            return self.u * self.v * x + (self.theta.k - self.theta.k) * x**2

    report = hs.diagnose(Idle(1.0, 2.0, 1.0), (X, 2.1 * X))
    assert not report.verdicts[0].determined
    assert "k does not influence the prediction" in str(report)
    assert report.profiles == {}
    assert report.information.sd == [math.inf]
    with_unused = nn.Sequential(nn.Linear(1, 1))
    with_unused.register_parameter("k", nn.Parameter(torch.tensor(1.0)))
    report = hs.diagnose(with_unused, (X[:, None], X[:, None]), theta=["k"])
    assert "k does not influence the prediction" in str(report)
    plots.diagnosis(report)


def test_shares_and_overlap_of_additive_parts():
    model, data = waves(4)
    found = hs.shares(hs.Landscape(model, data))
    parts = model(data[0])
    f, s = parts.network.detach().flatten(), parts.physics.detach().flatten()
    assert found.network == pytest.approx((f**2).mean().sqrt().item())
    assert found.ratio == pytest.approx((f.norm() / s.norm()).item())
    assert found.cosine == pytest.approx((f @ s / f.norm() / s.norm()).item())
    _, jt, _ = dense(model, data, half)
    projected = jt @ torch.linalg.lstsq(jt, f).solution
    assert found.overlap == pytest.approx((projected.norm() / f.norm()).item())


def test_nested_and_plain_models_with_several_parameters_as_theta():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.physics = nn.ParameterDict({"k": torch.tensor([1.0, 0.0]), "m": torch.tensor(2.0)})
            self.net = hs.mlp(1, [3], 1)

        def forward(self, x):
            k = self.physics["k"]
            return torch.tanh(k[0] * x + self.net(x)) * self.physics["m"] + k[1]

    torch.manual_seed(0)
    report = hs.diagnose(Nested(), (X[:, None], torch.sin(X[:, None])), theta=["physics"], steps=5)
    labels = [e.label for e in report.information.entries]
    assert labels == ["physics.k[0]", "physics.k[1]", "physics.m"]
    assert [e.range for e in report.information.entries] == [1.0, 1.0, 2.0]
    assert report.shares == hs.diagnose(Nested(), (X[:, None], X[:, None]), theta=["physics"], profiles=[]).shares
    assert "nested, not defined" in str(report)
    assert list(report.profiles) == labels


def test_gradients_and_the_angle():
    model, data = waves(5)
    at = hs.Landscape(model, data)
    found = hs.gradients(at, rho=0.5)
    params = dict(model.named_parameters())
    phi = [n for n, r in hs.roles(model).items() if r == "phi"]
    theta = [n for n, r in hs.roles(model).items() if r == "theta"]

    def grads(state):
        return torch.func.grad(lambda p: half(torch.func.functional_call(model, p, (data[0],)).value, data[1]) * 2)(
            {n: p.detach() for n, p in state.items()}
        )

    clean = grads(params)
    assert found.phi == pytest.approx(torch.cat([clean[n].flatten() for n in phi]).norm().item(), rel=1e-9)
    e = hs.perturbation({n: params[n] for n in phi}, {n: clean[n] for n in phi}, 0.5)
    turned = grads({n: p + e[n] if n in e else p for n, p in params.items()})
    a, b = (torch.stack([g[n] for n in theta]) for g in (clean, turned))
    assert found.theta == pytest.approx(a.norm().item(), rel=1e-9)
    assert math.cos(math.radians(found.angle)) == pytest.approx((a @ b / a.norm() / b.norm()).item(), rel=1e-6)


class Noisy(nn.Module):
    """Buffers, dropout, batch normalization and a frozen parameter."""

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Parameter(torch.tensor(3.0), requires_grad=False)
        self.net = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, x):
        return self.k * x + self.frozen * self.net(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_diagnosis_leaves_the_model_and_the_random_state_bitwise_unchanged(dtype):
    torch.manual_seed(0)
    model = Noisy().to(dtype).train()
    x = torch.randn(10, 1, dtype=dtype)
    (model(x) ** 2).mean().backward()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    pointers = [p.data_ptr() for p in model.parameters()]
    state = torch.get_rng_state()
    report = hs.diagnose(model, (x, torch.sin(x)), theta=["k"], steps=5)
    again = hs.diagnose(model, (x, torch.sin(x)), theta=["k"], steps=5)
    assert str(report) == str(again)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(m.training for m in model.modules())
    assert pointers == [p.data_ptr() for p in model.parameters()]
    for n, t in model.state_dict().items():
        assert torch.equal(t, before[n])
        assert t.dtype == before[n].dtype
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(grads)
    for n, g in grads.items():
        assert torch.equal(dict(model.named_parameters())[n].grad, g)


def test_single_precision_and_a_recurrent_layer():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.k = nn.Parameter(torch.tensor(1.0))
            self.cell, self.out = nn.GRU(1, 3, batch_first=True), nn.Linear(3, 1)

        def forward(self, x):
            return self.k * x + self.out(self.cell(x)[0])

    torch.manual_seed(0)
    model, x = Recurrent(), torch.randn(6, 5, 1)
    data = (x, x + 0.5 * torch.randn(6, 5, 1))
    single, double = (
        hs.diagnose(model, data, theta=["k"], lam=0.1, dtype=dtype, steps=3) for dtype in (torch.float32, torch.float64)
    )
    # rounding, 1e-7 times a condition number of about 10
    assert single.information.matrix.item() == pytest.approx(double.information.matrix.item(), rel=1e-5)
    assert single.spectra[0].top == pytest.approx(double.spectra[0].top, rel=1e-4)


def test_the_report_reads_and_its_figure_shows_the_numbers():
    model, data = waves()
    report = hs.diagnose(model, data, steps=10)
    text = str(report)
    for part in ("lam =", "N/m", "Gaussian", "hessian form", "Profile of k", "cosine", "This says nothing about bias"):
        assert part in text
    left, middle, right = report.plot()
    assert left.get_xlabel() == "k [N/m]"
    found = report.information
    shown = [196 * found.sd_known[0], 196 * found.sd[0]]
    assert [p.get_height() for p in middle.patches][:2] == pytest.approx(shown)
    heights = [p.get_height() for p in right.patches]
    assert heights == pytest.approx([report.shares.network, report.shares.physics])
    with pytest.raises(ValueError, match="theta: k, w"):
        plots.diagnosis(report, name="z")


# Spread over seeds


@pytest.fixture(scope="module")
def trained():
    task = hs.tasks.get("pendulum", preset="smoke")
    return task, task.fit(["erm", "sam:rho=0.1"], seeds=range(4), steps=5, progress=False)


def test_seed_spread_keeps_the_members_that_fit_equally_well(trained):
    task, runs = trained
    table = hs.seed_spread(runs, ratio=1.5)
    assert list(table["label"]) == ["erm", "sam:rho=0.1"]
    for _, row in table.iterrows():
        members = runs.frame[runs.frame["label"] == row["label"]]
        kept = members[members["val_loss"] <= 1.5 * members["val_loss"].min()]["theta.omega2"]
        assert (row["members"], row["kept"]) == (4, len(kept))
        assert row["mean"] == pytest.approx(kept.mean())
        assert row["low"] == kept.min()
        assert math.isnan(row["sd"]) if len(kept) < 2 else row["sd"] == pytest.approx(kept.std())
    by_error = hs.seed_spread(runs, task.val)
    best = runs.frame[:4]["val_loss"].idxmin()
    each = ((runs.model(best)(task.val.inputs).value - task.val.target) ** 2).mean((1, 2))
    limit = each.mean() + each.std() / len(each) ** 0.5
    assert by_error["threshold"][0] == pytest.approx(limit.item(), rel=1e-4)  # fit averages in another order


def test_seed_spread_names_the_entries_of_a_matrix_as_the_diagnosis_does():
    class Matrix(hs.HybridModel):
        def __init__(self):
            super().__init__()
            self.theta, self.net = hs.Theta(k=hs.Real(init=(0.0, 1.0), shape=(2, 2))), hs.mlp(2, [3], 2)

        def forward(self, x):
            return x @ self.theta.k + self.net(x)

    data = (torch.randn(8, 2), torch.randn(8, 2))
    runs = hs.fit(Matrix, data, data, methods=["erm"], seeds=[0, 1], steps=1, progress=False)
    labels = [e.label for e in hs.Landscape(runs.model(0), data).entries]
    assert list(hs.seed_spread(runs, ratio=1e6)["theta"]) == labels == ["k[0,0]", "k[0,1]", "k[1,0]", "k[1,1]"]


def test_seed_spread_needs_a_validation_loss(trained):
    task, runs = trained
    with pytest.raises(ValueError, match=r"ratio must be at least 1, got 0\.5"):
        hs.seed_spread(runs, ratio=0.5)
    without = hs.fit(task.model, task.train, methods=["erm"], seeds=[0], steps=1, progress=False)
    with pytest.raises(ValueError, match="no member has a validation loss"):
        hs.seed_spread(without)


# Bad input


def fine():
    return ToyA(1.0, 1.0, 1.0), (X, 2 * X)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, d: hs.diagnose(m, (X, X * math.nan)), ValueError, "target holds 4 NaN"),
        (lambda m, d: hs.diagnose(m, (X[:1], X[:1])), ValueError, "got 1 sample, expected at least 2"),
        (lambda m, d: hs.diagnose(m, d, lam=0), ValueError, "lam must be a positive number.*got 0"),
        (lambda m, d: hs.diagnose(m, d, lam=-1.0), ValueError, "got -1.0"),
        (lambda m, d: hs.diagnose(m, d, rho=0), ValueError, "rho must be a positive number.*got 0"),
        (lambda m, d: hs.diagnose(m, d, theta=["g"]), ValueError, "theta='g' names no parameter"),
        (lambda m, d: hs.diagnose(m, d, theta="u"), TypeError, r"use theta=\['u'\]"),
        (lambda m, d: hs.diagnose(m, d, profiles=["g"]), ValueError, "no theta 'g'; expected one of: k"),
        (lambda m, d: hs.diagnose(ToyA, d), TypeError, "needs a model"),
        (lambda m, d: hs.diagnose(m, d, theta=["u", "v"]), ValueError, "has no phi"),
        (lambda m, d: hs.diagnose(nn.Linear(1, 1), (X[:, None], X[:, None])), ValueError, "has no theta"),
        (lambda m, d: hs.diagnose(m, d, loss=lambda p, y: p - y), ValueError, "diagnose: loss must return a scalar"),
        (lambda m, d: hs.diagnose(m, (X, X[:, None])), ValueError, "diagnose: for 2 samples"),
        (lambda m, d: hs.spectrum(hs.Landscape(m, d), form="exact"), ValueError, "got 'exact'"),
        (lambda m, d: hs.spectrum(hs.Landscape(m, d), "psi"), ValueError, "role must be 'phi' or 'theta', got 'psi'"),
        (lambda m, d: hs.diagnose(ToyA(math.nan, 1, 1), d), ValueError, "'u' is not finite"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call(*fine())


@given(st.one_of(st.floats(max_value=0), st.just(math.nan), st.just(math.inf), st.text()))
def test_any_lam_and_rho_that_are_not_positive_numbers_are_refused(bad):
    at = hs.Landscape(*fine())
    with pytest.raises(ValueError, match="lam must be a positive number"):
        hs.information(at, lam=bad)
    with pytest.raises(ValueError, match="rho must be a positive number"):
        hs.sharpness(at, rho=bad)


def test_complex_parameters_random_models_and_other_precisions_are_refused():
    class Complex(ToyA):
        def __init__(self):
            super().__init__(1.0, 1.0, 1.0)
            self.z = nn.Parameter(torch.tensor(1.0 + 1.0j))

    with pytest.raises(ValueError, match="'z' is complex, expected real"):
        hs.diagnose(Complex(), fine()[1])

    class Random(ToyA):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x))

    with pytest.raises(ValueError, match="two evaluations of the model differ"):
        hs.diagnose(Random(1.0, 1.0, 1.0), fine()[1])

    class Single(ToyA):
        def forward(self, x):
            return (super().forward(x)[:, None] @ torch.ones(1, 1))[:, 0]

    with pytest.raises(RuntimeError, match=r"pass dtype=torch\.float32"):
        hs.diagnose(Single(1.0, 1.0, 1.0), fine()[1])
    assert hs.diagnose(Single(1.0, 1.0, 1.0), fine()[1], dtype=torch.float32, steps=5).loss == 0.0


class OneWeight(torch.nn.Module):
    """A wave of its only weight: the ascent's first step leads back to where it started."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return torch.sin(3 * self.w) * x


def test_an_ascent_that_lands_on_its_centre_goes_on():
    x = torch.tensor([[1.0], [-1.0]])
    # The worst prediction within reach is sin = -1, off by 2 from the target x: a loss of 4.
    at = hs.Landscape(OneWeight(), (x, x))
    assert hs.sharpness(at, rho=2.0).gap == pytest.approx(4.0 - at.value, rel=1e-2)
