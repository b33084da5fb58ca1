"""Input that cannot work, or that hides a mistake: an error or a report that says what to do, never a silent result."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hybridsam_lite as hs
from hybridsam_lite.checks import mean_squared_error, probe

X = torch.linspace(-1, 1, 12)[:, None]
Y = 2 * X + torch.sin(5 * X)
FEW = settings(max_examples=40, derandomize=True)


class Line(hs.HybridModel):
    def __init__(self, outputs=1):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=(0.0, 1.0)))
        self.net = hs.mlp(1, [4], outputs)

    def forward(self, x):
        return self.theta.k * x + self.net(x)


def fit(model=Line, data=(X, Y), val=None, **options):
    quick = {"methods": ["sam:rho=0.1"], "seeds": [0], "steps": 3, "progress": False}
    return hs.fit(model, data, val, **{**quick, **options})


def squared(prediction, target):
    """What everybody writes."""
    return ((prediction - target) ** 2).mean()


def equal(first, second):
    return all(torch.equal(x, second.state[n]) for n, x in first.state.items())


# Losses and shapes


@pytest.mark.parametrize("loss", [squared, lambda p, t: (p - t).abs().mean(), lambda p, t: (p - t).square().sum()])
@pytest.mark.parametrize("tail", [(1,), (1, 3)])
def test_a_loss_that_pairs_all_samples_with_all_is_refused(loss, tail):
    class Wide(Line):
        def forward(self, x):
            return super().forward(x).view(-1, *[1] * len(tail)).expand(-1, *tail)

    target = Y.view(-1, *[1] * (len(tail) - 1)).expand(-1, *tail[1:])
    with pytest.raises(ValueError, match=r"fit: loss gets .*every prediction is compared with every target; reshape"):
        fit(Wide, (X, target), loss=loss)


@pytest.mark.parametrize("loss", [nn.functional.mse_loss, nn.L1Loss(), nn.HuberLoss()])
def test_torchs_own_losses_warn_which_is_an_error_here(loss):
    with pytest.raises(ValueError, match=r"fit: loss fails for .* \(2, 1\) and a target of shape \(2,\).*broadcasting"):
        fit(data=(X, Y[:, 0]), loss=loss)
    with pytest.raises(ValueError, match=r"diagnose: loss fails for a prediction of shape \(2, 1\)"):
        hs.diagnose(Line(), (X, Y[:, 0]), loss=loss)


@pytest.mark.parametrize(
    ("loss", "outputs", "target"),
    [
        (lambda p, t: (p[:, 0] - t).abs().mean(), 1, Y[:, 0]),
        (lambda p, t: squared(p.squeeze(-1), t), 1, Y[:, 0]),
        (lambda p, t: nn.functional.poisson_nll_loss(p[:, 0], t), 1, Y[:, 0].abs()),
        (lambda p, t: nn.functional.binary_cross_entropy(p[:, 0].sigmoid(), t), 1, (Y[:, 0] > 0).float()),
        (lambda p, t: (p[:, 1] + (p[:, 0] - t) ** 2 / p[:, 1].exp()).mean(), 2, Y[:, 0]),  # a Gaussian's likelihood
        (lambda p, t: (p[:, 1:] + (p[:, :1] - t) ** 2 / p[:, 1:].exp()).mean(), 2, Y),
        (lambda p, t: p.square().mean(), 1, torch.zeros(12)),  # a residual; the target is for show
        (nn.CrossEntropyLoss(), 3, torch.arange(12) % 3),
    ],
)
def test_losses_that_pair_each_sample_with_its_target_are_accepted(loss, outputs, target):
    assert fit(lambda: Line(outputs), (X, target), loss=loss).frame.status[0] == "ok"


@FEW
@given(
    st.lists(st.integers(1, 4), min_size=0, max_size=3),
    st.lists(st.integers(1, 4), min_size=0, max_size=3),
    st.sampled_from([mean_squared_error, squared]),
)
def test_shapes_train_together_only_if_no_sample_meets_anothers_target(shape, target_shape, loss):
    """For any two shapes: refused, or the loss is the mean of the losses of single samples."""

    class Shaped(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.rand(shape))

        def forward(self, x):
            return x.view(-1, *[1] * len(shape)) * self.w

    x = torch.tensor([0.3, -1.0, 2.0, 0.7, 1.3])
    data = hs.Data(x, torch.rand(5, *target_shape, generator=torch.Generator().manual_seed(0)))
    model = Shaped()
    refused = None
    try:
        probe([model], data, loss, [hs.ERM()])
    except ValueError as error:
        refused = str(error)
    if refused is not None:
        assert shape != target_shape
        assert any(word in refused for word in ("must match", "loss fails", "every target"))
        return
    assert loss is squared or shape == target_shape
    prediction = model(data.inputs)
    each = [loss(p, y) for p, y in zip(prediction.split(1), data.target.split(1), strict=True)]
    torch.testing.assert_close(loss(prediction, data.target), torch.stack(each).mean())


@pytest.mark.parametrize(
    ("loss", "target", "message"),
    [
        (lambda p, t: 0.0, Y, "must return a scalar tensor, got float"),
        (lambda p, t: squared(p, t).item(), Y, "must return a scalar tensor, got float"),
        (lambda p, t: (p - t) ** 2, Y, r"must return a scalar tensor, got shape \(2, 1\)"),
        (lambda p, t: squared(p.detach(), t), Y, "does not depend on any trainable parameter; look for .detach()"),
        (lambda p, t: torch.tensor(squared(p, t).item()), Y, "does not depend on any trainable parameter"),
        (lambda p, t: squared(p, t).long(), Y, r"must return a real number, got torch\.int64"),
        (squared, Y.to(torch.complex64), r"must return a real number, got torch\.complex"),
        (squared, Y > 0, r"loss fails for .*\(torch\.bool\): Subtraction"),
        (squared, Y[:, :, None].expand(-1, 5, 1), r"\(2, 1\) and a target of shape \(2, 5, 1\) .*must match"),
        ("mse", Y, "loss fails for .* not callable"),
        (None, Y, "loss fails for .* not callable"),
    ],
)
def test_losses_that_cannot_work(loss, target, message):
    with pytest.raises(ValueError, match=f"fit: .*{message}"):
        fit(data=(X, target), loss=loss)
    with pytest.raises(ValueError, match=f"diagnose: .*{message}"):
        hs.diagnose(Line(), (X, target), loss=loss)


def test_an_output_without_a_graph_is_refused():
    class Cut(Line):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(ValueError, match="fit: the loss of Cut does not depend on any trainable parameter"):
        fit(Cut)


def test_validation_targets_of_another_shape_are_not_broadcast():
    for vectorize in (True, False):
        with pytest.raises(ValueError, match=r"prediction has shape \(12, 1\), the target \(12,\); they must be equal"):
            fit(val=(X, Y[:, 0]), vectorize=vectorize)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.arange(12)[:, None], RuntimeError, r"gets one argument, a tensor \(2, 1\) torch\.int64; .*\.float\(\)"),
        (X.expand(-1, 2), RuntimeError, r"does not run on 2 samples: .*a tensor \(2, 2\) torch\.float32$"),
        ({"x": X}, TypeError, r"one argument, a dict: x \(2, 1\) torch\.float32$"),
    ],
)
def test_inputs_that_the_model_does_not_take(inputs, error, message):
    with pytest.raises(error, match=message):
        fit(data=(inputs, Y))
    with pytest.raises(error, match="does not run"):
        hs.diagnose(Line(), (inputs, Y))


def test_a_model_of_two_arguments_or_with_another_key():
    class Two(Line):
        def forward(self, x, t):
            return super().forward(x) * t

    class Key(Line):
        def forward(self, inputs):
            return super().forward(inputs["z"])

    for model, inputs, message in (
        (Two, X, "positional argument: 't'.*one argument"),
        (Key, {"x": X}, "'z'.*a dict: x"),
    ):
        with pytest.raises(TypeError, match=message):
            fit(model, (inputs, Y))


def test_whole_numbers_as_targets_are_compared_as_numbers():
    whole = torch.arange(12)[:, None]
    first, second = (fit(data=(X, y), lr=0.1).members[0] for y in (whole, whole.float()))
    assert equal(first, second)


# theta without effect


class Unused(Line):
    def forward(self, x):
        return self.net(x)


class Cut(Line):
    def forward(self, x):
        return self.theta.k.detach() * x + self.net(x)


class One(hs.HybridModel):
    """Uses one of two."""

    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=1.0), m=hs.Real(init=1.0))
        self.net = hs.mlp(1, [4], 1)

    def forward(self, x):
        return self.theta.k * x + self.net(x)


@pytest.mark.parametrize(("model", "name"), [(Unused, "k"), (Cut, "k"), (One, "m")])
def test_a_theta_that_is_not_used_is_reported(model, name):
    with pytest.warns(UserWarning, match=rf"fit: theta\.{name} of {model.__name__} does not influence") as caught:
        runs = fit(model, seeds=range(3))
    assert len(caught) == 1  # not for each seed
    assert caught[0].filename == __file__
    assert len(set(runs.history[f"theta.{name}"][runs.history.seed == 0])) == 1
    report = hs.diagnose(runs.model(0), (X, Y), profiles=[])  # no warning: it says so itself
    assert f"{name} does not influence the prediction" in str(report)


class Silent(Line):
    """The gradient of theta is zero at the start, because the network's last layer is."""

    def __init__(self):
        super().__init__()
        self.net = hs.mlp(1, [4], 1, last_scale=0.0)

    def forward(self, x):
        return self.net(self.theta.k * x)


class Amortized(hs.HybridModel):
    """Has no global theta at all."""

    def __init__(self):
        super().__init__()
        self.net = hs.mlp(1, [4], 1)

    def forward(self, x):
        return hs.Prediction(self.net(x), theta={"k": self.net(x)[:, 0]})


@pytest.mark.parametrize("model", [Silent, Amortized, lambda: hs.mlp(1, [4], 1)])
def test_a_zero_gradient_by_chance_and_models_without_theta_raise_no_alarm(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = fit(model)
    assert runs.frame.status[0] == "ok"


# Radii


@settings(max_examples=6, derandomize=True)
@given(st.floats(1e6, 1e38))
def test_a_huge_rho_harms_its_own_member_only(rho):
    """It diverges, or is finite throughout; the other members cannot tell."""
    calm, wild = ["erm", "sam:rho=0.1"], hs.SharpnessAware(rho)
    alone = fit(methods=calm, val=(X, Y))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*diverged and were frozen", category=RuntimeWarning)
        runs = fit(methods=[*calm, wild, hs.SharpnessAware(rho, adaptive=True)], val=(X, Y))
    for before, after in zip(alone.members, runs.members[:2], strict=True):
        assert all(torch.allclose(x, after.state[n], atol=1e-6) for n, x in before.state.items())  # vmap's rounding
        assert after.status == "ok"
    for member in runs.members[2:]:
        assert all(torch.isfinite(x).all() for x in member.state.values())
        assert (member.status == "diverged") == (member.steps < 3)


def test_a_rho_of_a_million_that_overflows_is_marked_as_diverged():
    class Exponential(Line):
        def forward(self, x):
            return self.theta.k * x + self.net(x).exp()

    with pytest.warns(RuntimeWarning, match=r"1 of 2 members diverged and were frozen: sam:rho=1e\+06 seed 0"):
        runs = fit(Exponential, (X, Y - 9), methods=["erm", "sam:rho=1e6"])  # the loss rises towards exp(large)
    assert list(runs.frame.status) == ["ok", "diverged"]


@FEW
@given(st.one_of(st.floats(max_value=0, exclude_max=True), st.just(math.nan), st.just(math.inf)))
def test_a_rho_that_is_no_radius_is_refused_everywhere(rho):
    model = Line()
    with pytest.raises(ValueError, match="rho must be a finite number >= 0, got"):
        hs.SAM(model, torch.optim.SGD(model.parameters(), lr=0.1), rho=rho)
    with pytest.raises(ValueError, match="rho must be a finite number >= 0, got"):
        hs.SharpnessAware(rho)
    with pytest.raises(ValueError, match="rho"):
        fit(methods=[f"sam:rho={rho}"])
    with pytest.raises(ValueError, match="rho must be a positive number"):
        hs.diagnose(model, (X, Y), rho=rho)


@FEW
@given(
    st.integers(0, 5),
    st.integers(1, 4),
    st.floats(0, 1e6),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_a_perturbation_has_the_radius_that_was_asked_for(size, count, rho, dtype, adaptive):
    generator = torch.Generator().manual_seed(size)
    params = {str(i): torch.rand(size, i + 1, generator=generator, dtype=dtype) + 0.5 for i in range(count)}
    grads = {n: torch.randn(p.shape, generator=generator, dtype=dtype) for n, p in params.items()}
    e = hs.perturbation(params, grads, rho, adaptive)
    relative = [(e[n] / p if adaptive else e[n]).flatten() for n, p in params.items()]
    assert torch.cat(relative).norm().item() == pytest.approx(rho if size else 0.0, rel=1e-5)


@pytest.mark.parametrize("max_norm", ["1", math.nan, 0, [1.0]])
def test_the_wrappers_max_norm_is_checked(max_norm):
    model = Line()
    with pytest.raises(ValueError, match="max_norm must be a positive number or None, got"):
        hs.SAM(model, torch.optim.SGD(model.parameters(), lr=0.1), max_norm=max_norm)


# Data


@FEW
@given(st.integers(1, 5), st.integers(0, 4), st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
def test_a_value_that_is_not_finite_is_found_wherever_it_is(samples, where, value, in_target):
    x, y = torch.rand(samples, 1), torch.rand(samples, 1)
    (y if in_target else x)[where % samples] = value
    message = f"{'target' if in_target else 'inputs'} holds 1 NaN or infinite values of {samples}"
    for call in (lambda: fit(data=(x, y)), lambda: fit(val=(x, y)), lambda: hs.diagnose(Line(), (x, y))):
        with pytest.raises(ValueError, match=message):
            call()


@settings(max_examples=12, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 9), st.sampled_from([0.0, 1.0, -1e6]))
def test_few_samples_constant_targets_and_large_batches_train(samples, batch_size, constant):
    x, y = torch.linspace(-1, 1, samples)[:, None], torch.full((samples, 1), constant)
    runs = fit(data=(x, y), val=(x, y), batch_size=batch_size)
    assert runs.frame.status[0] == "ok"
    assert math.isfinite(runs.frame.val_loss[0])


@pytest.mark.parametrize("target", [torch.zeros(12, 1), torch.ones(12, 1)])
def test_a_diagnosis_on_constant_targets(target):
    torch.manual_seed(0)
    report = hs.diagnose(Line(), (X, target), steps=3)
    assert math.isfinite(report.loss)
    assert [v.label for v in report.verdicts] == ["k"]


def test_one_sample_has_no_diagnosis():
    with pytest.raises(ValueError, match="got 1 sample, expected at least 2; cut a long series"):
        hs.diagnose(Line(), (X[:1], Y[:1]))


# Models


class Bare(hs.HybridModel):
    """theta alone, and a network without parameters."""

    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=1.0))
        self.net = nn.Sequential(nn.Tanh())

    def forward(self, x):
        return self.theta.k * x + self.net(x)


def test_a_network_without_parameters_can_only_be_fitted_plainly():
    assert fit(Bare, methods=["erm"]).frame.status[0] == "ok"
    with pytest.raises(ValueError, match=r"acts on the network's weights, but Bare has no .*use hs\.ERM"):
        fit(Bare)
    model = Bare()
    with pytest.raises(ValueError, match="nothing to perturb"):
        hs.SAM(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="diagnose: Bare has no phi"):
        hs.diagnose(Bare(), (X, Y))


def test_a_start_that_is_not_a_number_is_marked_as_diverged():
    def poisoned():
        model = Line()
        with torch.no_grad():
            model.net[0].weight.fill_(math.nan)
        return model

    with pytest.warns(RuntimeWarning, match="1 of 1 members diverged"):
        assert fit(poisoned).frame.status[0] == "diverged"


# Arguments


@pytest.mark.parametrize("seeds", [[True], [1, True], "01", [1.0], [math.nan], [None], torch.arange(2)])
def test_seeds_that_are_no_integers(seeds):
    with pytest.raises(ValueError, match=r"seeds must be integers >= 0|seeds holds duplicates"):
        fit(seeds=seeds)


def test_seeds_of_numpy_are_integers():
    assert list(fit(seeds=np.arange(2)).frame.seed) == [0, 1]


@pytest.mark.parametrize("methods", [None, 3, {"sam": 0.1}, {"sam"}])
def test_methods_are_a_list(methods):
    with pytest.raises(TypeError, match=r"methods must be a list, such as \['erm', 'sam:rho=0.1'\], got"):
        fit(methods=methods)


@pytest.mark.parametrize("methods", ["", [""], ["SAM"], ["sam:rho"], ["sam:rho=x"]])
def test_labels_that_are_no_methods(methods):
    with pytest.raises(ValueError, match="method"):
        fit(methods=methods)


@pytest.mark.parametrize("count", [0, -1, 2.5, None])
@pytest.mark.parametrize("name", ["steps", "starts", "draws", "probes"])
def test_counts_of_a_diagnosis_are_positive(name, count):
    at = hs.Landscape(Line(), (X, Y))
    call = hs.spectrum if name == "probes" else hs.sharpness
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, got"):
        call(at, **{name: count})


@pytest.mark.parametrize("name", ["gradients", "spectrum", "sharpness", "information", "shares", "profile"])
def test_a_measure_of_the_landscape_says_how_to_make_one(name):
    model, data = hs.mlp(1, [4], 1), (torch.zeros(8, 1), torch.zeros(8, 1))
    with pytest.raises(TypeError, match=rf"expected a Landscape, got Sequential; use hs\.{name}\(hs\.Landscape"):
        getattr(hs, name)(model, data)


@pytest.mark.parametrize("name", ["steps", "batch_size", "threads", "validate_every"])
@pytest.mark.parametrize("count", [True, 2**31, 10**30, "3"])
def test_counts_are_integers_of_32_bits(name, count):
    with pytest.raises(ValueError, match=f"fit: {name} must be a positive integer, got"):
        fit(**{name: count})


@pytest.mark.parametrize("name", ["lr", "theta_lr", "max_norm"])
@pytest.mark.parametrize("rate", [True, 1e300, 10**400, math.nan, "0.1"])
def test_rates_are_numbers_that_single_precision_holds(name, rate):
    with pytest.raises(ValueError, match=f"fit: {name} must be a positive number, got"):
        fit(**{name: rate})


def test_rates_of_numpy_are_numbers():
    assert fit(lr=np.float32(0.1)).frame.status[0] == "ok"


@pytest.mark.parametrize("label", ["erm:steps=1e308", "erm:steps=1e15", "early:patience=99999999999999999999"])
def test_methods_that_would_never_end(label):
    with pytest.raises(ValueError, match="would never end; take fewer steps, or less patience"):
        fit(methods=[label], val=(X, Y))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": torch.int64}, "dtype must be torch.float32"),
        ({"dtype": "float32"}, "dtype must be torch.float32"),
        ({"dtype": torch.float8_e4m3fn}, "dtype must be torch.float32"),
        ({"checkpoint": 3}, "checkpoint must be the path of a folder"),
        ({"checkpoint": "\0"}, "checkpoint must be the path of a folder"),
        ({"callback": 3}, "callback must be a function"),
    ],
)
def test_what_fit_cannot_use_is_named(options, words):
    with pytest.raises(TypeError, match=words):
        hs.fit(lambda: nn.Linear(1, 1), (X, X), methods=["erm"], seeds=[0], steps=1, progress=False, **options)


@pytest.mark.parametrize(
    "call",
    [
        lambda: hs.diagnose(nn.Linear(1, 1), (X, X), seed=None),
        lambda: hs.diagnose(nn.Linear(1, 1), (X, X), dtype=0.0),
        lambda: hs.diagnose(nn.Linear(1, 1), (X, X), dtype=torch.float16),
        lambda: hs.diagnose(nn.Linear(1, 1), (X, X), profiles=3),
        lambda: hs.diagnose(nn.Linear(1, 1), (X, X), profiles="0.bias"),
        lambda: hs.seed_spread(3),
        lambda: hs.intervals(nn.Linear(1, 1), (X, X), theta=["bias"], runs=0.1),
    ],
)
def test_what_looks_at_models_says_what_it_expects(call):
    with pytest.raises(TypeError, match=r"must be|expected"):
        call()


@pytest.mark.parametrize("name", ["steps", "batch_size", "threads"])
def test_what_has_no_default_meaning_is_not_none(name):
    with pytest.raises(ValueError, match=f"{name}.* must be positive integers, got None"):
        fit(**{name: None})


def test_names_that_are_no_texts_are_no_names():
    with pytest.raises(ValueError, match=r"unknown task \[\]"):
        hs.tasks.get([])
    assert hs.exercises.check([], print).status == "wrong"
