"""What each method makes of theta on problems small enough to be solved on paper."""

import math

import pytest
import torch
from torch import nn

import hybridsam_lite as hs
from hybridsam_lite.stack import Stack


def half_mean_square(prediction, target):
    return ((prediction - target) ** 2).mean() / 2


def fit(model, data, methods, steps, lr, optimizer=torch.optim.SGD, **options):
    """Full batch, one seed, a constant rate unless told otherwise; theta of each method by its label."""
    given = {"lr": lr, "theta_lr": lr, "lr_end": 1.0, "max_norm": None, "optimizer": optimizer, "seeds": [0]}
    given |= {"loss": half_mean_square, "dtype": torch.float64, "progress": False, "methods": methods}
    return hs.fit(model, data, steps=steps, **{**given, **options})


# Toy A: y = c x, model theta x + u v x. All theta = c - u v fit; the flattest has u = v = 0

C = 2.0
X = torch.tensor([1.0, -1.0])


class ToyA(hs.HybridModel):
    def __init__(self, theta=0.5, u=1.6, v=0.9):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=theta, scale=1.0))
        self.u, self.v = nn.Parameter(torch.tensor(u)), nn.Parameter(torch.tensor(v))

    def forward(self, x):
        physics, network = self.theta.k * x, self.u * self.v * x
        return hs.Prediction(physics + network, network, physics)


# rho = 0.4: 1 / (lr m rho^2) is 62 steps of 0.1, and the theory wants many more than that.
STAY = ["erm", "usam:rho=0.4", "funcsam:rho=0.4", "swa:start=0.5"]
GO = [
    "sam:rho=0.4",
    "sam:rho=0.4,perturb=all",
    "sam:rho=0.4,theta_grad=clean",
    "sam:rho=0.4,every=2",
    "sam:rho=0.4,part=0.5",
    "sam:rho=0.4,schedule=warmup",
    "asam:rho=0.4",
    "fisher:rho=0.4",
    "groupsam:rho=0.4,rho_theta=0.4",
    "groupsam:rho=0.4,rho_theta=0.4,norm=per_group",
    "msam:rho=0.4,beta=0.5",
    "noise:rho=0.4",
    "wd:lam=0.16",
    "fn:mu=0.1",
    "jac:mu=0.1",
    "aphynity:lam=1",
    "orth:mu=1",
    "pho:mu=1",
    "twostage:first=0.5",
]


@pytest.mark.parametrize("method", STAY)
def test_without_noise_these_stay_where_plain_training_arrives(method):
    # 0.514 is where gradient flow meets the valley; a bounce before it is reached shifts by 0.01.
    assert fit(ToyA, (X, C * X), [method], 300, 0.1).frame["theta.k"][0] == pytest.approx(0.514, abs=0.01)


@pytest.mark.parametrize("method", GO)
def test_these_end_where_the_network_is_off(method):
    # A constant step leaves a bounce of order lr rho = 0.04 and, with it, as much of the network.
    assert fit(ToyA, (X, C * X), [method], 1000, 0.1).frame["theta.k"][0] == pytest.approx(C, abs=0.06)


def test_joint_and_per_group_radii_pull_differently():
    # With w = (u, v), the drift is m rho^2 w for phi alone and for one ellipsoid (theta's share of the radius
    # and the larger misfit at its end cancel), but m rho (rho + rho_theta / |w|) w for a product of balls,
    # which reaches w = 0 in finite time.
    labels = ["groupsam:rho=0.4,rho_theta=0.4", "groupsam:rho=0.4,rho_theta=0.4,norm=per_group", "sam:rho=0.4"]
    runs = fit(ToyA, (X, C * X), labels, 150, 0.1)
    joint, product, phi = ((m.state["u"] ** 2 + m.state["v"] ** 2).sqrt() for m in runs.members)
    assert joint == pytest.approx(phi, rel=0.25)  # of higher order in lr and rho, from 1.84 at the start
    assert product < joint / 5


def test_the_gradient_norm_moves_theta_only_as_far_as_its_steps_bounce():
    # The penalty is zero in the whole valley; its kink makes steps of size lr bounce, which drifts at a rate
    # of order lr. SAM's drift over a given lr * steps does not depend on lr. Seen: 0.113, 0.033; 1.14, 1.02.
    moved = {}
    for lr, steps in ((0.1, 100), (0.025, 400)):
        plain, *found = fit(ToyA, (X, C * X), ["erm", "gnorm:mu=0.2", "sam:rho=0.4"], steps, lr).frame["theta.k"]
        moved[lr] = [theta - plain for theta in found]
    assert moved[0.025][0] < 0.4 * moved[0.1][0] < 0.1 * moved[0.1][1]
    assert moved[0.025][1] > 0.8 * moved[0.1][1]


# Two features: y = theta x + beta z with E xz = kappa; the network is u v x + w t z

KAPPA = 0.6


class TwoFeatures(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=1.0, scale=1.0))
        self.weights = nn.Parameter(torch.tensor([0.1, 0.1, 1.0, 1.0]))

    def forward(self, x):
        u, v, w, t = self.weights
        network = u * v * x[:, :1] + w * t * x[:, 1:]
        return hs.Prediction(self.theta.k * x[:, :1] + network, network, self.theta.k * x[:, :1])


def two_features():
    x, other = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    z = KAPPA * x + math.sqrt(1 - KAPPA**2) * other  # E x^2 = E z^2 = 1, E xz = KAPPA, exactly
    inputs = torch.stack([x, z], 1)
    return inputs, (x + z)[:, None]


@pytest.mark.parametrize("kind", ["wd", "noise"])
def test_the_bias_of_flatness_with_two_features(kind):
    sizes = [0.15, 0.2]
    # Gaussian noise of size s on 4 weights has length 2 s, and acts as a weight decay of s^2.
    labels = [f"wd:lam={s**2:.6g}" if kind == "wd" else f"noise:rho={2 * s:.6g}" for s in sizes]
    runs = fit(TwoFeatures, two_features(), labels, 1500, 0.4, lr_end=0.01)
    for found, s in zip(runs.frame["theta.k"], sizes, strict=True):
        expected = KAPPA * s**2 / (1 - KAPPA**2)
        assert found - 1 == pytest.approx(expected, rel=0.02 if kind == "wd" else 0.1)


# A network that is linear in its weights: y = theta a + psi phi, a in the range of psi


class LinearNetwork(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=0.3, scale=1.0))
        self.phi = nn.Parameter(torch.tensor([0.2, -0.1, 0.4]))

    def forward(self, inputs):
        physics, network = self.theta.k * inputs["a"], inputs["psi"] @ self.phi
        return hs.Prediction(physics + network, network, physics)


def linear():
    generator = torch.Generator().manual_seed(0)
    psi, noise = (torch.randn(12, k, generator=generator, dtype=torch.float64) for k in (3, 1))
    a = psi @ torch.tensor([0.5, -1.0, 0.8], dtype=torch.float64)
    y = 1.3 * a + psi @ torch.tensor([0.7, 0.2, -0.6], dtype=torch.float64) + 0.3 * noise[:, 0]
    return {"a": a, "psi": psi}, y


def least_squares():
    inputs, y = linear()
    return (inputs["a"] @ y / (inputs["a"] @ inputs["a"])).item()


@pytest.mark.parametrize(
    "methods",
    [["fn:mu=0.1", "fn:mu=1", "fn:mu=10"], ["pho:mu=1"], ["orth:mu=1"], ["twostage:first=0.5"], ["aphynity"]],
    ids=lambda m: m[0].partition(":")[0],
)
def test_least_squares_of_the_physics_alone(methods):
    runs = fit(LinearNetwork, linear(), methods, 800, 0.05, torch.optim.Adam, lr_end=0.001)
    for found in runs.frame["theta.k"]:
        assert found == pytest.approx(least_squares(), abs=1e-3)


def test_two_stage_leaves_theta_alone_in_the_second_stage_and_fits_the_rest():
    (inputs, y), history = linear(), {"validate_every": 50}
    runs = fit(LinearNetwork, (inputs, y), ["twostage:first=0.5"], 1200, 0.05, torch.optim.Adam, **history)
    theta = runs.history.query("step >= 600")["theta.k"]
    assert theta.nunique() == 1
    assert theta.iloc[0] == pytest.approx(least_squares(), abs=1e-6)
    rest = y - theta.iloc[0] * inputs["a"]
    phi = torch.linalg.lstsq(inputs["psi"], rest).solution
    torch.testing.assert_close(runs.model(0).phi.detach(), phi, atol=1e-3, rtol=0)


def test_flatness_in_phi_selects_nothing_where_the_network_is_linear():
    # theta / lr_theta - alpha'phi / lr_phi is conserved, so with a rate that goes to zero (and the bounce
    # with it) all end in the same point of the line of solutions.
    methods = ["erm", "sam:rho=0.3", "sam:rho=1", "usam:rho=0.3", "asam:rho=0.3"]
    plain, *sharp = fit(LinearNetwork, linear(), methods, 600, 0.1, lr_end=0.0).frame["theta.k"]
    assert sharp == pytest.approx([plain] * 4, abs=1e-4)
    assert abs(plain - least_squares()) > 0.05


def test_the_average_is_the_mean_of_the_iterates(monkeypatch):
    iterates, step = [], Stack.step

    def watched(self, *arguments):
        losses = step(self, *arguments)
        iterates.append({n: p.clone() for n, p in self.params.items()})
        return losses

    monkeypatch.setattr(Stack, "step", watched)
    runs = fit(ToyA, (X, C * X), ["swa:start=0.3"], 11, 0.1)
    assert len(iterates) == 11
    for name, x in runs.members[0].state.items():
        mean = torch.stack([i[name][0] for i in iterates[4:]]).mean()  # from step 0.3 * 11 on
        torch.testing.assert_close(x, mean, rtol=1e-12, atol=0)
