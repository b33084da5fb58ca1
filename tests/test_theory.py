"""What flatness can and cannot do, checked numerically (the book's chapter on theory)."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

import hybridsam_lite as hs

# Theorem 1: exact SAM is blind along directions in which the network is linear


def worst_loss(r, psi, rho):
    """max over |e| <= rho of |r - psi e|^2 / (2n), exactly, by the secular equation.

    The maximum of a convex function lies on the sphere, where (mu - A) e = -b with A = psi'psi,
    b = psi'r and mu >= lambda_max(A).
    """
    lam, vectors = np.linalg.eigh(psi.T @ psi)
    b = vectors.T @ (psi.T @ r)

    def length(mu):
        return np.linalg.norm(b / (mu - lam))

    top = lam[-1]
    nearly = top * (1 + 1e-13)
    if length(nearly) > rho:
        mu = brentq(lambda mu: length(mu) - rho, nearly, top + 2 * np.linalg.norm(b) / rho + 1, xtol=1e-15)
        e = -b / (mu - lam)
    else:  # the hard case: b has no part along the top eigenvector, which fills up the radius
        e = np.zeros_like(b)
        e[:-1] = -b[:-1] / (top - lam[:-1])
        e[-1] = np.sqrt(max(0.0, rho**2 - e @ e))
    return np.sum((r - psi @ (vectors @ e)) ** 2) / (2 * len(r))


@pytest.fixture
def linear():
    """y = 1.3 a + psi phi + noise with a in the range of psi: theta is not identified."""
    rng = np.random.default_rng(0)
    psi, alpha = rng.normal(size=(12, 3)), rng.normal(size=3)
    a = psi @ alpha
    y = 1.3 * a + psi @ rng.normal(size=3) + 0.3 * rng.normal(size=12)
    return y, a, psi, alpha


def test_the_exact_maximum_beats_a_random_search(linear):
    y, _, psi, _ = linear
    rng = np.random.default_rng(1)
    e = rng.normal(size=(200_000, 3))
    e *= 0.5 / np.linalg.norm(e, axis=1, keepdims=True)
    for r in (y, y - psi @ np.linalg.lstsq(psi, y, rcond=None)[0]):
        found = (np.sum((r - e @ psi.T) ** 2, axis=1) / (2 * len(r))).max()
        exact = worst_loss(r, psi, 0.5)
        # 200,000 points on a sphere miss its maximum by about 1e-4
        assert found <= exact * (1 + 1e-12)
        assert found == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("rho", [0.05, 0.5, 3.0])
def test_the_exact_sam_objective_is_constant_along_the_erm_line_and_larger_off_it(linear, rho):
    y, a, psi, alpha = linear
    phi0 = np.linalg.lstsq(psi, y, rcond=None)[0]

    def objective(theta, phi):
        return worst_loss(y - theta * a - psi @ phi, psi, rho)

    on = [objective(theta, phi0 - alpha * theta) for theta in (-3.0, 0.0, 1.3, 4.0, 50.0)]
    # residuals agree to rounding, 1e-16 * |50 a|
    assert on == pytest.approx([on[0]] * len(on), rel=1e-12)
    # Theorem 1 in numbers: the best loss plus rho^2 lambda_max / 2n
    best = np.sum((y - psi @ phi0) ** 2) / 24
    assert on[0] == pytest.approx(best + rho**2 * np.linalg.norm(psi, 2) ** 2 / 24, rel=1e-12)
    rng = np.random.default_rng(2)
    for _ in range(200):
        theta = rng.normal()
        off = rng.normal(size=3) * 10.0 ** rng.uniform(-3, 0)
        assert objective(theta, phi0 - alpha * theta + off) > on[0]


class LinearNetwork(hs.HybridModel):
    """theta a + psi phi: both parts linear."""

    def __init__(self, phi, theta=0.0):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=theta, scale=1.0))
        self.phi = nn.Parameter(torch.as_tensor(phi).clone())

    def forward(self, inputs):
        return self.theta.k * inputs["a"] + inputs["psi"] @ self.phi


def train(model, opt, inputs, y, steps):
    def closure():
        opt.zero_grad()
        loss = ((model(inputs) - y) ** 2).mean() / 2
        loss.backward()
        return loss

    for _ in range(steps):
        opt.step(closure)
    return model.theta.k.item()


def as_tensors(linear):
    y, a, psi, alpha = (torch.from_numpy(x) for x in linear)
    return y, {"a": a, "psi": psi}, alpha


@pytest.mark.parametrize("ratio", [0.01, 1.0, 10.0])
def test_gradient_descent_ends_where_the_learning_rates_say(linear, ratio):
    y, inputs, alpha = as_tensors(linear)
    phi0 = torch.linalg.lstsq(inputs["psi"], y).solution
    model = LinearNetwork(torch.zeros(3, dtype=torch.float64)).double()
    # stable: below 2 / lambda_max of the preconditioned Hessian
    curvature = torch.linalg.matrix_norm(inputs["psi"], 2) ** 2 / 12
    lr = 1.0 / (curvature * (1 + ratio * alpha @ alpha)).item()
    groups = hs.param_groups(model, lr=lr, theta_lr=ratio * lr)
    found = train(model, torch.optim.SGD(groups), inputs, y, steps=1500)
    expected = ratio * alpha @ phi0 / (1 + ratio * alpha @ alpha)
    # the slowest mode has died out; what remains is rounding
    assert found == pytest.approx(expected.item(), rel=1e-8)


def test_sam_conserves_what_gradient_descent_conserves(linear):
    # theta / lr_theta - alpha'phi / lr_phi: SAM on phi cannot choose theta here either
    y, inputs, alpha = as_tensors(linear)
    model = LinearNetwork(torch.ones(3, dtype=torch.float64), theta=0.3).double()
    opt = hs.SAM(model, torch.optim.SGD(hs.param_groups(model, lr=0.02, theta_lr=0.05)), rho=0.3)

    def conserved():
        return (model.theta.k / 0.05 - alpha @ model.phi / 0.02).item()

    before, theta = conserved(), model.theta.k.item()
    train(model, opt, inputs, y, steps=200)
    assert abs(model.theta.k.item() - theta) > 0.05
    # 200 steps of rounding at 1e-16 of about 100
    assert conserved() == pytest.approx(before, rel=1e-11)


# Toy A: y = c x, model theta x + u v x. All theta = c - u v fit; the flattest has u = v = 0

C = 2.0


class ToyA(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=0.5, scale=1.0))
        self.u, self.v = nn.Parameter(torch.tensor(1.6)), nn.Parameter(torch.tensor(0.9))

    def forward(self, x):
        return (self.theta.k + self.u * self.v) * x


def toy_a(make, steps, **sam):
    model = ToyA()
    opt = make(model.parameters())
    if sam:
        opt = hs.SAM(model, opt, **sam)
    x = torch.tensor([1.0, -1.0])
    return train(model, opt, x, C * x, steps), (model.u * model.v).item()


# 1 / (lr m rho^2) is 62 steps for SGD; the theory wants many more than that
OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1), {"rho": 0.4}, 800),
    "adam": (lambda p: torch.optim.Adam(p, lr=1e-2), {"rho": 0.3}, 2000),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sam_ends_at_the_flattest_theta_and_erm_stays(name):
    make, sam, steps = OPTIMIZERS[name]
    erm, product = toy_a(make, steps)
    # ERM goes straight to the nearby valley: |theta - 0.5| is the initial misfit's share
    assert erm == pytest.approx(0.5, abs=0.06)
    assert erm + product == pytest.approx(C, abs=1e-4)
    theta, product = toy_a(make, steps, **sam)
    # a constant step size leaves a bounce of order lr rho
    assert theta == pytest.approx(C, abs=0.03)
    assert product == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("rho", [0.1, 0.7])
def test_toy_as_exact_objective_has_its_minimum_at_zero(rho):
    # theta is profiled out: (dmax - dmin)^2 / 8, d the change of u v on the ball (on its boundary,
    # for u v is a saddle)
    angle = np.linspace(0, 2 * np.pi, 2001)
    e1, e2 = rho * np.cos(angle), rho * np.sin(angle)

    def objective(u, v):
        d = (u + e1) * (v + e2) - u * v
        return (d.max() - d.min()) ** 2 / 8

    # the angles are 0.003 apart, which costs their square
    assert objective(0.0, 0.0) == pytest.approx(rho**4 / 8, rel=1e-4)
    rng = np.random.default_rng(0)
    for u, v in rng.normal(size=(200, 2)):
        p, d = abs(u + v) / 2**0.5, abs(u - v) / 2**0.5
        bound = (rho * (p + d) + rho**2) ** 2 / 8
        assert objective(u, v) >= bound * (1 - 1e-4)
        assert objective(u, v) > objective(0.0, 0.0)


# The effective-information bound


class TwoThetas(hs.HybridModel):
    def __init__(self, width, depth):
        super().__init__()
        self.theta = hs.Theta(k=hs.Positive(init=(0.5, 2.0)), w=hs.Real(init=(0.5, 2.0)))
        self.net = hs.mlp(1, [width] * depth, 1, last_scale=1.0)

    def forward(self, x):
        return self.theta.k * torch.sin(self.theta.w * x) + self.net(x)


@pytest.mark.parametrize("seed", range(50))
def test_a_flat_phi_block_bounds_the_information_about_theta(seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = TwoThetas(int(rng.integers(1, 9)), int(rng.integers(1, 4))).double()
    n, lam = int(rng.integers(2, 30)), 10.0 ** rng.uniform(-4, 2)
    x = torch.randn(n, 1, dtype=torch.float64)
    params = {name: p.detach() for name, p in model.named_parameters()}
    rows = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)).flatten())(params)

    def jacobian(role):
        names = [name for name, r in hs.roles(model).items() if r == role]
        return torch.cat([rows[name].reshape(n, -1) for name in names], 1)

    jt, jp = jacobian("theta"), jacobian("phi")
    htt, htp, hpp = jt.T @ jt / n, jt.T @ jp / n, jp.T @ jp / n
    information = htt - htp @ torch.linalg.solve(hpp + lam * torch.eye(len(hpp)).double(), htp.T)
    dual = jt.T @ torch.linalg.solve(torch.eye(n) + jp @ jp.T / (n * lam), jt) / n
    flattest = torch.linalg.eigvalsh(hpp)[-1]
    # the difference cancels: rounding times the condition number of hpp + lam I
    bound = 1e-14 * htt.norm() * (1 + flattest / lam)
    assert (information - dual).abs().max() <= bound
    slack = torch.linalg.eigvalsh(dual - htt * lam / (lam + flattest))
    assert slack[0] >= -1e-12 * htt.norm()
