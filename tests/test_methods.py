"""Methods: labels, settings, structure, and the gradients they stand for."""

import dataclasses
import math
import re

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hybridsam_lite as hs
from hybridsam_lite.gradients import by_autograd
from hybridsam_lite.methods import METHODS, Moment, Problem, nearest

LABELS = [
    ("erm", hs.ERM()),
    ("physics", hs.PhysicsOnly()),
    ("wd:lam=0.001", hs.WeightDecay()),
    ("fn:mu=0.5", hs.FunctionNorm(0.5)),
    ("sam:rho=0.05", hs.SharpnessAware()),
    ("asam:rho=1", hs.SharpnessAware(1, adaptive=True)),
    ("sam:rho=0.1,perturb=all", hs.SharpnessAware(0.1, perturb="all")),
    ("asam:rho=2,theta_grad=clean", hs.SharpnessAware(2, adaptive=True, theta_grad="clean")),
    ("sam:rho=0.1,every=5,part=0.25,schedule=warmup", hs.SharpnessAware(0.1, every=5, part=0.25, schedule="warmup")),
    ("erm:steps=2", hs.ERM(2)),
    ("aphynity:lam=1,tau=10", hs.Aphynity(tau=10)),
    ("jac:mu=0.1", hs.JacobianNorm(0.1)),
    ("dropout:p=0.2", hs.Dropout(0.2)),
    ("orth:mu=1", hs.Orthogonality()),
    ("pho:mu=0.5", hs.OnlineOrthogonalization(0.5)),
    ("twostage:first=0.25", hs.TwoStage(0.25)),
    ("early:patience=3", hs.EarlyStopping(3)),
    ("swa:start=0.5", hs.SWA()),
    ("fisher:rho=0.05,damping=0.1", hs.FisherSAM(damping=0.1)),
    ("funcsam:rho=0.1", hs.FunctionalSAM(0.1)),
    ("usam:rho=0.1", hs.UnnormalizedSAM(0.1)),
    ("msam:rho=0.1,beta=0.5", hs.MomentumSAM(0.1, 0.5)),
    ("groupsam:rho=0.1,rho_theta=0.2,norm=per_group", hs.GroupSAM(0.1, 0.2, "per_group")),
    ("noise:rho=0.1,sides=1", hs.RandomPerturbation(0.1, 1)),
    ("gnorm:mu=0.1", hs.GradientNorm(0.1)),
]


@pytest.mark.parametrize(("label", "method"), LABELS)
def test_labels_go_both_ways(label, method):
    assert method.label == label
    assert hs.parse_method(f" {label} ") == method
    assert method.name == label.partition(":")[0]


def test_every_method_has_a_name_a_label_and_a_source():
    assert {m.name for _, m in LABELS} == {name for kind in METHODS for name in kind.names}
    for kind in METHODS:
        assert kind.__name__ in hs.__all__
        assert kind is hs.ERM or "Source:" in kind.__doc__
        for name in kind.names:
            assert hs.parse_method(name).name == name
            assert hs.parse_method(hs.parse_method(name).label) == hs.parse_method(name)


@settings(derandomize=True, max_examples=400)
@given(
    st.one_of(
        st.text(max_size=20),
        st.from_regex(r"(erm|wd|fn|sam|asam|swa|noise|groupsam|fisher)(:[a-z_]{0,10}=?[-+.e0-9a-z]{0,6},?){0,3}"),
        st.from_regex(r"(wd:lam|fn:mu|a?sam:rho)=[-+.e0-9_infa]{0,8}", fullmatch=True),
    )
)
@example("sam:rho=1e400")
@example("sam:rho=nan")
@example("sam:perturb")
@example("sam:perturb=all,theta_grad=clean")
@example("wd:lam=١")
def test_any_text_is_a_method_or_a_value_error(text):
    try:
        method = hs.parse_method(text)
    except ValueError:
        return
    assert isinstance(method, hs.Method)
    assert all(0 <= v < math.inf for v in method.hyper.values())


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("", "unknown method ''; expected one of: erm, physics, wd, fn, sam, asam, jac, dropout"),
        ("asm", "unknown method 'asm' (did you mean 'asam'?)"),
        ("SAM", "unknown method 'SAM'"),
        ("sam:roh=1", "has no setting 'roh' (did you mean 'rho'?); its settings are: rho"),
        ("erm:rho=1", "method 'erm' has no setting 'rho'; its settings are: steps"),
        ("asam:adaptive=1", "method 'asam' has no setting 'adaptive'"),
        ("sam:every=2.5", "every needs a whole number, got '2.5'"),
        ("sam:every=0", "every must be a positive integer, got 0"),
        ("sam:part=0", "part is a share of the batch, > 0 and <= 1, got 0.0"),
        ("sam:part=1.5", "part is a share of the batch"),
        ("sam:part=0.5,theta_grad=clean", "is not that of the batch; choose one"),
        ("sam:schedule=linear", "schedule must be one of ('constant', 'warmup', 'cosine'), got 'linear'"),
        ("groupsam:norm=max", "norm must be one of ('joint', 'per_group'), got 'max'"),
        ("dropout:p=1", "p is a probability < 1, got 1.0"),
        ("fisher:damping=0", "damping must be > 0"),
        ("msam:beta=1", "beta must be < 1, got 1.0"),
        ("noise:sides=3", "sides must be 1 or 2, got 3"),
        ("erm:steps=0", "steps is a multiple of the protocol's steps and must be > 0"),
        ("twostage:first=1", "first is a share of the steps, > 0 and < 1, got 1.0"),
        ("swa:start=1", "start is a share of the steps, >= 0 and < 1, got 1.0"),
        ("early:patience=0", "patience must be a positive integer, got 0"),
        ("sam:rho=1,rho=2", "sets 'rho' twice"),
        ("sam:rho", "rho needs a number, got ''"),
        ("sam:rho=big", "rho needs a number, got 'big'"),
        ("sam:perturb", "perturb needs a word, got ''"),
        ("sam:rho=-1", "rho must be a finite number >= 0, got -1.0"),
        ("sam:rho=inf", "rho must be a finite number >= 0, got inf"),
        ("sam:perturb=theta", "perturb must be one of ('phi', 'all'), got 'theta'"),
        ("sam:perturb=all,theta_grad=clean", "contradicts perturb='all'; choose one"),
    ],
)
def test_bad_labels_say_what_is_wrong(label, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        hs.parse_method(label)


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, "0.1", None, (1,)])
@pytest.mark.parametrize("method", [hs.WeightDecay, hs.FunctionNorm, hs.SharpnessAware])
def test_bad_numbers_are_refused(method, value):
    with pytest.raises(ValueError, match=rf"{method.__name__}: .* must be a finite number >= 0"):
        method(value)


def test_methods_are_values():
    assert hs.SharpnessAware(1) == hs.SharpnessAware(1.0)
    assert len({hs.ERM(), hs.ERM(), hs.WeightDecay(0.1), hs.WeightDecay(0.2)}) == 3
    with pytest.raises(AttributeError):
        hs.ERM().lam = 1.0


def test_only_numbers_may_differ_within_a_structure():
    structure = hs.SharpnessAware(0.1).structure
    assert structure == hs.SharpnessAware(0.9).structure
    others = [
        hs.ERM(),
        hs.WeightDecay(),
        hs.FunctionNorm(),
        hs.SharpnessAware(0.1, adaptive=True),
        hs.SharpnessAware(0.1, perturb="all"),
        hs.SharpnessAware(0.1, theta_grad="clean"),
    ]
    assert len({structure, *(m.structure for m in others)}) == 1 + len(others)
    assert hs.SharpnessAware(0.1, theta_grad="clean").settings == {
        "rho": 0.1,
        "theta_grad": "clean",
    }


def problem(method, phi, calls=None, step=0):
    """Loss theta |phi|^2 / 2 with f_nn = phi, as the method sees it in the given step of ten."""

    def predict(p, inputs):
        if calls is not None:
            calls.append(len(inputs))
        value = torch.stack([p["theta"] * (p["phi"] ** 2).sum() / 2])
        return hs.Prediction(value, network=p["phi"], physics=p["theta"] * torch.ones(2)), {}

    hyper = {k: torch.tensor(v) for k, v in method.hyper.items()}
    params = {"theta": torch.tensor(1.0), "phi": torch.tensor(phi)}
    return params, Problem(
        method, ["phi"], hyper, method.begin(params, ["phi"], hyper), Moment(step, 10),
        inputs=torch.zeros(8), target=torch.zeros(8), shared=(), predict=predict,
        compare=lambda value, target: value.sum(), derivative=by_autograd,
    )  # fmt: skip


def gradients(method, phi=(3.0, 4.0), **options):
    params, posed = problem(method, phi, **options)
    grads, outcome = method.gradients(posed, params)
    assert outcome.loss == 12.5 or isinstance(method, (hs.RandomPerturbation, hs.MomentumSAM, hs.TwoStage))
    return grads


@pytest.mark.parametrize(
    ("method", "theta_grad", "factor"),
    [
        (hs.ERM(), 12.5, 1.0),
        (hs.WeightDecay(0.5), 12.5, 1.5),  # never theta
        (hs.FunctionNorm(0.5), 12.5, 1.5),  # d/dphi mu mean(phi^2) = mu phi, for two entries
        (hs.SharpnessAware(0.5), 5.5**2 / 2, 1.1),  # phi moves from norm 5 to 5.5
        (hs.SharpnessAware(0.5, theta_grad="clean"), 12.5, 1.1),
        (hs.Aphynity(lam=2.0), 25.0, 3.0),  # 2 L + mean(phi^2)
        (hs.UnnormalizedSAM(0.5), 7.5**2 / 2, 1.5),  # phi moves by half its gradient, phi
        (hs.FisherSAM(0.5, damping=1e6), 5.5**2 / 2, 1.1),  # no Fisher information: SAM
        (hs.GroupSAM(0.5), 5.5**2 / 2, 1.1),  # theta's radius is 0 and its gradient outside of the norm
        (hs.GroupSAM(0.5, norm="per_group"), 5.5**2 / 2, 1.1),
        (hs.FunctionalSAM(0.5), 5.5**2 / 2, 1.1),  # the loss is linear in the prediction, so its slope stays
        (hs.MomentumSAM(0.5), 12.5, 1.0),  # nothing remembered yet
        (hs.GradientNorm(0.1), 12.5 + 0.1 * 5, 1 + 0.1 / 5),  # mu |g| = mu theta |phi|
        (hs.EarlyStopping(), 12.5, 1.0),
        (hs.SWA(), 12.5, 1.0),
    ],
)
def test_gradients_in_closed_form(method, theta_grad, factor):
    grads = gradients(method)
    # A difference quotient over 0.001 is off by about 1e-4 in single precision.
    close = {"rtol": 0, "atol": 2e-3} if isinstance(method, hs.GradientNorm) else {}
    torch.testing.assert_close(grads["theta"], torch.tensor(theta_grad), **close)
    torch.testing.assert_close(grads["phi"], factor * torch.tensor([3.0, 4.0]), **close)


def test_perturbing_all_moves_theta_too():
    # g = (|phi|^2 / 2, phi) = (12.5, 3, 4), and d/dphi = (theta + e_theta) (phi + e_phi).
    e = 0.5 * torch.tensor([12.5, 3.0, 4.0]) / torch.tensor([12.5, 3.0, 4.0]).norm()
    grads = gradients(hs.SharpnessAware(0.5, perturb="all"))
    torch.testing.assert_close(grads["phi"], (1 + e[0]) * (torch.tensor([3.0, 4.0]) + e[1:]))


def test_adaptive_measures_relative_to_each_weight():
    # e = rho T^2 g / |T g| with T = |phi| and g = phi.
    phi = torch.tensor([3.0, 4.0])
    e = 0.5 * phi**3 / (phi**2).norm()
    torch.testing.assert_close(gradients(hs.SharpnessAware(0.5, adaptive=True))["phi"], phi + e)


def test_the_ellipsoid_of_the_fisher_information_in_closed_form():
    # g = phi = (3, 4), mean g^2 = 12.5: F = (g^2 / 12.5 + 1) / 2, and e = rho F^-1 g / sqrt(g'F^-1 g).
    g = torch.tensor([3.0, 4.0])
    fisher = (g**2 / 12.5 + 1) / 2
    e = 0.5 * g / fisher / (g @ (g / fisher)).sqrt()
    torch.testing.assert_close(gradients(hs.FisherSAM(0.5))["phi"], g + e)
    torch.testing.assert_close((e * fisher * e).sum().sqrt(), torch.tensor(0.5))


@pytest.mark.parametrize("norm", ["joint", "per_group"])
def test_an_ellipsoid_and_a_product_of_balls_in_closed_form(norm):
    # g_theta = 12.5, |g_phi| = 5, and the gradient at the new point is (|phi|^2 / 2, theta phi).
    rho, rho_theta, g_theta, g_phi = 0.5, 0.2, 12.5, 5.0
    length = math.hypot(rho * g_phi, rho_theta * g_theta)
    theta, phi = 1 + rho_theta, g_phi + rho
    if norm == "joint":
        theta, phi = 1 + rho_theta**2 * g_theta / length, g_phi + rho**2 * g_phi / length
    grads = gradients(hs.GroupSAM(rho, rho_theta, norm))
    torch.testing.assert_close(grads["theta"], torch.tensor(phi**2 / 2))
    torch.testing.assert_close(grads["phi"], theta * phi / 5 * torch.tensor([3.0, 4.0]))


def test_one_ellipsoid_of_equal_radii_is_sam_on_all():
    ours, all_of_it = gradients(hs.GroupSAM(0.3, 0.3)), gradients(hs.SharpnessAware(0.3, perturb="all"))
    for name, g in ours.items():
        torch.testing.assert_close(g, all_of_it[name])


def test_orthogonality_penalizes_the_squared_part_along_the_physics():
    # f = (3, 4) along (1, 1): |P f|^2 / 2 = 49 / 4; its gradient in phi is (7/2, 7/2), none in theta.
    grads = gradients(hs.Orthogonality(2.0))
    torch.testing.assert_close(grads["phi"], torch.tensor([3.0, 4.0]) + 7)
    torch.testing.assert_close(grads["theta"], torch.tensor(12.5))


def test_the_slope_of_a_linear_network_is_penalized_in_the_mean():
    # f = w x with x of standard deviations s: mu E (sum_i w_i s_i v_i)^2 = mu sum_i (w_i s_i)^2.
    x = torch.tensor([[1.0, 2.0], [-1.0, 2.0], [1.0, -2.0], [-1.0, -2.0]], dtype=torch.float64).repeat(8, 1)
    method, w = hs.JacobianNorm(0.5), torch.tensor([3.0, 4.0], dtype=torch.float64)
    _, posed = problem(method, (3.0, 4.0))

    def predict(p, inputs):
        network = inputs["x"] @ p["phi"] + inputs["shift"].sum()
        return hs.Prediction(0 * network, network), {}

    mean = torch.zeros(2, dtype=torch.float64)
    inputs = {"x": x, "shift": torch.arange(3.0).double()}
    for step in range(200):
        moment = Moment(step, 200)
        now = dataclasses.replace(posed, inputs=inputs, predict=predict, moment=moment, shared=("shift",))
        mean += method.gradients(now, {"phi": w})[0]["phi"] / 200
    # 6400 draws of squares that vary by sqrt(2) of themselves: 2 %, three times that.
    torch.testing.assert_close(mean, 2 * 0.5 * w * torch.tensor([1.0, 4.0]).double(), rtol=0.06, atol=0)


def test_dropped_weights_get_no_gradient_and_the_others_are_scaled():
    method, seen = hs.Dropout(0.25), []
    _, posed = problem(method, (3.0, 4.0))
    params = {"weight": torch.ones(40, 50), "bias": torch.ones(50)}

    def predict(p, inputs):
        seen.append(p)
        return hs.Prediction(p["weight"].sum() + p["bias"].sum()), {}

    grads, _ = method.gradients(dataclasses.replace(posed, phi=list(params), predict=predict), params)
    assert torch.equal(grads["bias"], torch.ones(50))
    values, counts = grads["weight"].unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.0, 4 / 3]))
    # 2000 draws: a quarter of them within four standard deviations of a binomial count.
    assert counts[0].item() == pytest.approx(500, abs=4 * math.sqrt(2000 * 0.25 * 0.75))


def test_random_disturbances_have_the_radius_and_come_in_pairs():
    phi = torch.tensor([3.0, 4.0])
    moved = [gradients(hs.RandomPerturbation(0.5, sides=1), step=k)["phi"] - phi for k in range(3)]
    for e in moved:
        torch.testing.assert_close(e.norm(), torch.tensor(0.5))
    assert not torch.equal(moved[0], moved[1])
    # The mean over a pair of a linear gradient is the clean one.
    torch.testing.assert_close(gradients(hs.RandomPerturbation(0.5))["phi"], phi)
    before = torch.get_rng_state()
    gradients(hs.RandomPerturbation(0.5))
    assert torch.equal(torch.get_rng_state(), before)  # the model's own draws stay those of ERM


def test_momentum_remembers_gradients_and_moves_against_them():
    method = hs.MomentumSAM(0.5, beta=0.75)
    params, posed = problem(method, (3.0, 4.0))
    grads, outcome = method.gradients(posed, params)
    state = method.remember(posed, grads, outcome)
    torch.testing.assert_close(state["phi"], 0.25 * torch.tensor([3.0, 4.0]))
    again, _ = method.gradients(dataclasses.replace(posed, state=state), params)
    torch.testing.assert_close(again["phi"], torch.tensor([2.7, 3.6]))


def test_the_multiplier_grows_by_the_loss():
    method = hs.Aphynity(lam=2, tau=10)
    params, posed = problem(method, (3.0, 4.0))
    assert method.remember(posed, *method.gradients(posed, params)) == {"multiplier": 2 + 10 * 12.5}


def passes(method, steps=10):
    """Samples that go through the model in each step."""
    counted = []
    for step in range(steps):
        calls = []
        gradients(method, calls=calls, step=step)
        counted.append(calls)
    return counted


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (hs.ERM(), [[8]] * 10),
        (hs.SharpnessAware(), [[8, 8]] * 10),
        (hs.SharpnessAware(every=4), [[8, 8] if k % 4 == 0 else [8] for k in range(10)]),
        (hs.SharpnessAware(part=0.25), [[2, 8]] * 10),
        (hs.SharpnessAware(part=0.01), [[1, 8]] * 10),
        (hs.MomentumSAM(), [[8]] * 10),
        (hs.RandomPerturbation(), [[8, 8]] * 10),
        (hs.RandomPerturbation(sides=1), [[8]] * 10),
        (hs.FisherSAM(), [[8, 8]] * 10),
        (hs.GroupSAM(), [[8, 8]] * 10),
        (hs.FunctionalSAM(), [[8, 8]] * 10),
        (hs.UnnormalizedSAM(), [[8, 8]] * 10),
        (hs.GradientNorm(), [[8, 8]] * 10),
        (hs.JacobianNorm(), [[8, 8]] * 10),
        (hs.Dropout(), [[8]] * 10),
        (hs.TwoStage(), [[8]] * 10),
        (hs.SWA(), [[8]] * 10),
    ],
)
def test_cost_in_passes(method, expected):
    assert passes(method) == expected


def test_a_part_of_the_batch_leaves_shared_inputs_whole():
    _, posed = problem(hs.SharpnessAware(), (3.0, 4.0))
    posed = dataclasses.replace(posed, inputs={"x": torch.arange(8), "t": torch.arange(3)}, shared=("t",))
    part = posed.part(0.5)
    assert part.inputs["x"].tolist() == [0, 1, 2, 3]
    assert len(part.inputs["t"]) == 3
    assert len(part.target) == 4


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", {0: 1, 5: 1, 9: 1}),
        ("warmup", {0: 0, 1: 0.5, 2: 1, 9: 1}),
        ("cosine", {0: 1, 5: 0.5, 9: (1 + math.cos(0.9 * math.pi)) / 2}),
    ],
)
def test_the_radius_follows_its_schedule(schedule, shares):
    for step, share in shares.items():
        grads = gradients(hs.SharpnessAware(0.5, schedule=schedule), step=step)
        torch.testing.assert_close(grads["phi"].norm(), torch.tensor(5 + 0.5 * share))


def test_the_nearest_word_is_close():
    assert nearest("roh", ["rho", "lam"]) == " (did you mean 'rho'?)"
    assert nearest("xyz", ["rho", "lam"]) == ""


@pytest.mark.parametrize("label", [None, 3, b"erm", ["erm"]])
def test_a_label_is_a_text(label):
    with pytest.raises(TypeError, match=r"a method's label is a text such as 'sam:rho=0\.1', got"):
        hs.parse_method(label)


@pytest.mark.parametrize("label", ["x" * 10_000, "sam:" + "x" * 10_000, "sam:rho=" + "x" * 10_000,
                                   "sam:rho=1,schedule=" + "x" * 10_000])  # fmt: skip
def test_a_long_label_has_a_short_message(label):
    with pytest.raises(ValueError, match="method") as caught:
        hs.parse_method(label)
    assert len(str(caught.value)) < 1000
