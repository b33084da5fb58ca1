"""Scientific parameters: transforms, initial values, ownership, names, optimizer groups."""

import copy
import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hybridsam_lite as hs
from hybridsam_lite.theta import Constraint

DTYPES = [torch.float32, torch.float64]


class Line(hs.HybridModel):
    def __init__(self, theta: hs.Theta | None = None):
        super().__init__()
        self.theta = theta or hs.Theta(k=hs.Positive(init=(0.5, 2.0), unit="1/s"))
        self.net = hs.mlp(1, [4], 1)

    def forward(self, x):
        return self.theta.k * x + self.net(x)


def round_trip(constraint: Constraint, value: torch.Tensor) -> torch.Tensor:
    return constraint.forward(constraint.inverse(value))


scales = st.floats(-8, 8).map(lambda exponent: 10.0**exponent)
ratios = st.floats(-4, 4).map(lambda exponent: 10.0**exponent)
signs = st.sampled_from([-1.0, 1.0])


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60)
@given(scale=scales, ratio=ratios, sign=signs)
def test_real_round_trip(dtype, scale, ratio, sign):
    value = torch.tensor(sign * scale * ratio, dtype=dtype)
    back = round_trip(hs.Real(init=scale), value)
    # one division and one product: each rounds once
    torch.testing.assert_close(back, value, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60)
@given(scale=scales, ratio=ratios)
def test_positive_round_trip(dtype, scale, ratio):
    value = torch.tensor(scale * ratio, dtype=dtype)
    back = round_trip(hs.Positive(init=scale), value)
    assert back > 0
    # raw = log(1e-4) = -9.2 is rounded to eps * 9.2, and the exponential passes that on
    torch.testing.assert_close(back, value, rtol=32 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60)
@given(center=signs, width=scales, fraction=st.floats(0.001, 0.999))
def test_interval_round_trip(dtype, center, width, fraction):
    low, high = center * width, center * width + width
    value = torch.tensor(low + fraction * width, dtype=dtype)
    back = round_trip(hs.Interval(low, high), value)
    # absolute, in units of the width: value - low cancels
    assert abs(back - value) <= 16 * torch.finfo(dtype).eps * width


@settings(max_examples=30)
@given(raw=st.floats(-30, 30), scale=scales)
def test_inverse_undoes_forward_in_double_precision(raw, scale):
    x = torch.tensor(raw, dtype=torch.float64)
    for constraint in (hs.Real(init=scale), hs.Positive(init=scale)):
        torch.testing.assert_close(constraint.inverse(constraint.forward(x)), x, rtol=1e-9, atol=1e-9)


CONSTRAINTS = [hs.Real(init=2.0), hs.Positive(init=1e-3), hs.Interval(-1.0, 3.0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("raw", [0.0, 1e-30, 20.0, -20.0, 100.0, -100.0, 1e6, -1e6, 1e30, -1e30])
def test_gradients_are_finite_at_huge_raws(constraint, raw, dtype):
    x = torch.tensor(raw, dtype=dtype, requires_grad=True)
    value = constraint.forward(x)
    (gradient,) = torch.autograd.grad(value, x)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient)
    assert gradient >= 0


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-12])
def test_gradients_are_finite_and_nonzero_near_the_bounds(gap):
    theta = hs.Theta(p=hs.Positive(), a=hs.Interval(0.0, 1.0), b=hs.Interval(-1.0, 0.0)).double()
    theta.set(p=gap, a=gap, b=-gap)
    sum(theta.values().values()).backward()
    for raw in theta.raw.values():
        assert torch.isfinite(raw.grad)
        assert raw.grad > 0


def test_positive_is_linear_above_its_scale():
    k = hs.Positive(init=2.0)
    x = torch.tensor([20.0, 40.0], dtype=torch.float64)
    # softplus(20) - 20 = 2e-9
    torch.testing.assert_close(k.forward(x), 2.0 * x, rtol=1e-8, atol=0)


def test_positive_is_smooth_in_double_precision():
    # torch's softplus jumps by 2e-9 at 20 unless told otherwise
    x = torch.tensor([20.0, 21.0, 30.0], dtype=torch.float64)
    expected = x + torch.log1p(torch.exp(-x))
    torch.testing.assert_close(hs.Positive().forward(x), expected, rtol=1e-15, atol=0)


def test_values_respect_their_bounds_whatever_the_optimizer_does():
    theta = hs.Theta(k=hs.Positive(), angle=hs.Interval(0.0, 45.0))
    optimizer = torch.optim.SGD(theta.parameters(), lr=10.0)
    for _ in range(20):
        optimizer.zero_grad()
        (theta.k + theta.angle).backward()
        optimizer.step()
        assert theta.k > 0
        assert 0 <= theta.angle <= 45


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (hs.Real(init=-3.0), 3.0),
        (hs.Real(init=(1.0, 5.0)), 2.0),
        (hs.Real(), 1.0),
        (hs.Real(init=7.0, scale=0.1), 0.1),
        (hs.Positive(init=(1.0, 5.0)), 3.0),
        (hs.Positive(scale=0.1), 0.1),
    ],
)
def test_a_raw_step_is_worth_the_range(constraint, expected):
    far = torch.tensor([50.0, 51.0], dtype=torch.float64)
    assert float(constraint.forward(far).diff()) == pytest.approx(expected)


# Initial values


def test_init_ranges_are_drawn_from_torchs_generator():
    constraint = hs.Positive(init=(0.2, 1.7), shape=(200,))
    torch.manual_seed(3)
    first, second = hs.Theta(k=constraint).k, hs.Theta(k=constraint).k
    torch.manual_seed(3)
    again = hs.Theta(k=constraint).k
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    # 200 uniform draws leave less than a tenth of the range empty at either end (p < 1e-8)
    assert 0.2 <= first.min() < 0.35
    assert 1.55 < first.max() <= 1.7 + 1e-6


def test_a_number_is_the_initial_value():
    theta = hs.Theta(a=hs.Real(init=-2.5), b=hs.Positive(init=0.3), c=hs.Interval(0, 45, init=10.0))
    values = {n: v.item() for n, v in theta.values().items()}
    assert values == pytest.approx({"a": -2.5, "b": 0.3, "c": 10.0}, rel=1e-6)


def test_an_interval_without_init_starts_in_its_middle_half():
    torch.manual_seed(0)
    angle = hs.Theta(angle=hs.Interval(0.0, 40.0, shape=(100,))).angle
    assert angle.min() >= 10.0
    assert angle.max() <= 30.0


def test_vector_parameters():
    theta = hs.Theta(k=hs.Positive(shape=(3,)))
    theta.set(k=torch.tensor([0.1, 1.0, 10.0]))
    torch.testing.assert_close(theta.k.detach(), torch.tensor([0.1, 1.0, 10.0]))
    assert "[0.1, 1.0, 10.0]" in repr(theta)


def test_default_dtype_is_respected():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        theta = hs.Theta(g=hs.Fixed(9.81), k=hs.Positive(init=0.1))
    finally:
        torch.set_default_dtype(before)
    assert theta.g.item() == 9.81
    assert theta.k.dtype == torch.float64
    assert theta.k.item() == pytest.approx(0.1, rel=1e-14)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: hs.Positive(init=0.0), "outside of the positive numbers"),
        (lambda: hs.Positive(init=(-1.0, 1.0)), "outside of the positive numbers"),
        (lambda: hs.Real(init=math.inf), "init must be finite, got inf"),
        (lambda: hs.Real(init=math.nan), "init must be finite, got nan"),
        (lambda: hs.Real(init=(2.0, 1.0)), "low <= high"),
        (lambda: hs.Real(init=(1.0, 2.0, 3.0)), r"a number or \(low, high\)"),
        (lambda: hs.Real(init=[1.0, 2.0]), r"a number or \(low, high\), got \[1.0, 2.0\]"),
        (lambda: hs.Real(init=None), r"a number or \(low, high\), got None"),
        (lambda: hs.Real(scale=0.0), "scale must be a positive number, got 0.0"),
        (lambda: hs.Positive(scale=-1.0), "scale must be a positive number, got -1.0"),
        (lambda: hs.Interval(1.0, 1.0), "low < high, got low=1.0, high=1.0"),
        (lambda: hs.Interval(0.0, math.inf), "finite low < high"),
        (lambda: hs.Interval(0.0, 1.0, init=1.0), r"outside of the open interval \(0, 1\)"),
    ],
)
def test_impossible_constraints_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# Theta as a container


def test_units_are_printed():
    theta = hs.Theta(omega2=hs.Positive(init=0.5, unit="1/s^2"), n=hs.Real(init=2.0))
    assert repr(theta) == "Theta(omega2=0.5 1/s^2 (Positive), n=2 (Real))"
    assert theta.units == {"omega2": "1/s^2", "n": ""}


def test_iteration_names_and_length():
    theta = hs.Theta(a=hs.Real(), g=hs.Fixed(9.81))
    assert list(theta) == ["a", "g"]
    assert len(theta) == 2
    assert list(theta.values()) == ["a", "g"]


def test_a_bare_number_is_refused():
    with pytest.raises(TypeError, match=r"k=1.0 is not a constraint; expected hs.Real.*k=hs.Real"):
        hs.Theta(k=1.0)


@pytest.mark.parametrize(
    "name",
    ["forward", "training", "half", "set", "claim", "units", "values", "raw", "keys", "get"],
)
def test_names_that_clash_are_refused(name):
    with pytest.raises(ValueError, match=f"the name '{name}' is taken"):
        hs.Theta(**{name: hs.Real()})


@pytest.mark.parametrize("name", ["a.b", "", "2k", "k m", "_owner"])
def test_names_that_are_no_attributes_are_refused(name):
    with pytest.raises(ValueError, match="cannot be used as an attribute"):
        hs.Theta(**{name: hs.Real()})


@pytest.mark.parametrize("name", ["k", "omega2", "D", "T", "alpha_1", "g", "rate", "c"])
def test_usual_names_work(name):
    theta = hs.Theta(**{name: hs.Positive(init=0.5)})
    assert getattr(theta, name).item() == pytest.approx(0.5)


def test_unknown_names_list_the_known_ones():
    theta = hs.Theta(k=hs.Real(), m=hs.Real())
    with pytest.raises(AttributeError, match="no parameter 'q'; it has: k, m"):
        _ = theta.q
    with pytest.raises(ValueError, match="no parameter 'q'; it has: k, m"):
        theta.set(q=1.0)


def test_assignment_points_to_set():
    theta = hs.Theta(k=hs.Real())
    with pytest.raises(AttributeError, match=r"use theta.set\(k=...\)"):
        theta.k = 2.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1.0, "theta.k=-1.0 is outside of the positive numbers"),
        (0.0, "outside of the positive numbers"),
        (math.nan, "outside of the positive numbers"),
        (math.inf, "outside of the positive numbers"),
        ([1.0, 2.0], r"theta.k has shape \(\), got a value of shape \(2,\)"),
    ],
)
def test_set_refuses_what_does_not_fit_and_changes_nothing(value, message):
    theta = hs.Theta(k=hs.Positive(init=0.5))
    before = theta.raw["k"].clone()
    with pytest.raises(ValueError, match=message):
        theta.set(k=value)
    assert torch.equal(theta.raw["k"], before)


def test_set_keeps_the_parameter_that_the_optimizer_holds():
    theta = hs.Theta(k=hs.Positive())
    raw, pointer = theta.raw["k"], theta.raw["k"].data_ptr()
    assert theta.set(k=3.0) is theta
    assert theta.raw["k"] is raw
    assert raw.data_ptr() == pointer
    assert theta.k.item() == pytest.approx(3.0)


def test_fixed_is_never_trained():
    model = Line(hs.Theta(k=hs.Fixed(2.0), m=hs.Real(init=1.0)))
    model.requires_grad_(True)  # a usual call after transfer learning
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    (model(torch.ones(4, 1)).sum() * model.theta.m).backward()
    optimizer.step()
    assert model.theta.k.item() == 2.0
    assert model.theta.m.item() != 1.0


def test_theta_survives_state_dict():
    torch.manual_seed(0)
    first, second = Line(), Line()
    assert first.theta.k.item() != second.theta.k.item()
    second.load_state_dict(first.state_dict())
    assert second.theta.k.item() == first.theta.k.item()


# Two models never share a theta


def test_two_models_never_share_a_theta():
    first = Line()
    with pytest.raises(ValueError, match="two models never share a theta"):
        Line(first.theta)


def test_a_theta_may_be_used_again_once_its_model_is_gone():
    theta = hs.Theta(k=hs.Real())
    model = Line(theta)
    del model
    assert Line(theta).theta is theta


def test_a_copied_model_owns_its_own_theta():
    model = Line()
    twin = copy.deepcopy(model)
    twin.theta.set(k=5.0)
    assert twin.theta.k.item() == pytest.approx(5.0)
    assert model.theta.k.item() < 2.1
    with pytest.raises(ValueError, match="two models never share a theta"):
        Line(twin.theta)


def test_a_loaded_model_owns_its_own_theta():
    model = Line()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded.theta.k, model.theta.k)
    assert loaded.theta.raw["k"] is not model.theta.raw["k"]
    with pytest.raises(ValueError, match="two models never share a theta"):
        Line(loaded.theta)


def test_a_theta_inside_a_plain_module_is_not_shared_either():
    class Physics(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = hs.Theta(k=hs.Real())

    class Model(hs.HybridModel):
        def __init__(self, physics):
            super().__init__()
            self.physics = physics
            self.net = nn.Linear(1, 1)

    model = Model(Physics())
    with pytest.raises(ValueError, match="two models never share a theta"):
        Model(model.physics)
    Model(copy.deepcopy(model.physics))


def test_a_model_of_models_is_not_a_second_model():
    class Outer(hs.HybridModel):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

    outer = Outer(Line())
    assert hs.roles(outer)["inner.theta.raw.k"] == "theta"
    assert hs.roles(copy.deepcopy(outer)) == hs.roles(outer)


# The optimizer's groups


def test_theta_is_never_decayed():
    torch.manual_seed(0)
    model = Line(hs.Theta(k=hs.Positive(init=3.0), m=hs.Real(init=2.0)))
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(hs.param_groups(model, lr=0.1, theta_lr=0.1), weight_decay=0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("theta."), name


def test_param_groups_have_roles_and_rates():
    model = Line(hs.Theta(k=hs.Real(), g=hs.Fixed(9.81)))
    phi, theta = hs.param_groups(model, lr=1e-3, theta_lr=1e-2)
    assert (phi["role"], phi["lr"], len(phi["params"])) == ("phi", 1e-3, 4)
    assert (theta["role"], theta["lr"], theta["weight_decay"]) == ("theta", 1e-2, 0.0)
    assert [p is model.theta.raw["k"] for p in theta["params"]] == [True]


def test_theta_works_under_functional_call_and_vmap():
    torch.manual_seed(0)
    models = [Line() for _ in range(3)]
    params, _ = torch.func.stack_module_state(models)
    x = torch.linspace(0, 1, 5)[:, None]
    stacked = torch.func.vmap(lambda p: torch.func.functional_call(models[0], p, (x,)))(params)
    looped = torch.stack([m(x) for m in models])
    torch.testing.assert_close(stacked, looped, rtol=1e-6, atol=1e-6)


def test_set_changes_all_or_nothing():
    theta = hs.Theta(a=hs.Real(init=1.0), b=hs.Positive(init=1.0))
    with pytest.raises(ValueError, match="outside of the positive numbers"):
        theta.set(a=5.0, b=-1.0)
    assert theta.a.item() == 1.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: hs.Real(init=10**400), ValueError, "init must be a number"),
        (lambda: hs.Real(scale="1"), ValueError, "scale must be a positive number"),
        (lambda: hs.Real(scale=10**400), ValueError, "scale must be a positive number"),
        (lambda: hs.Real(unit=None), TypeError, "unit must be a text, got None"),
        (lambda: hs.Real(shape=3), ValueError, "shape must be a tuple of whole numbers >= 0, got 3"),
        (lambda: hs.Real(shape=(-1,)), ValueError, "shape must be a tuple"),
        (lambda: hs.Real(shape=(2.5,)), ValueError, "shape must be a tuple"),
        (lambda: hs.Real(shape=(10**12,)), ValueError, "shape must be a tuple"),
        (lambda: hs.Interval(False, 1.0), ValueError, "expected finite low < high"),
        (lambda: hs.Interval("a", 1), ValueError, "expected finite low < high"),
        (lambda: hs.Interval(0, 10**400), ValueError, "expected finite low < high"),
    ],
)
def test_descriptions_that_are_none(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_shape_may_be_a_list():
    assert hs.Theta(k=hs.Real(shape=[2, 3])).k.shape == (2, 3)


@pytest.mark.parametrize(
    "constraint",
    [hs.Real(init=1e300), hs.Positive(init=1e-300), hs.Fixed(init=-1e40), hs.Interval(1e10, 1e10 + 1)],
)
def test_a_start_that_single_precision_cannot_hold_is_refused_and_double_takes_it(constraint):
    """Before, the parameter was silently infinite, zero, or on its bound."""
    with pytest.raises(
        ValueError, match=r"theta\.k=.* for torch\.float32: it would be outside of .*choose another unit"
    ):
        hs.Theta(k=constraint)
    torch.set_default_dtype(torch.float64)
    try:
        assert constraint.admits(hs.Theta(k=constraint).k.item())
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("value", ["x", None, b"", {}, 1j, [1, [2]], object(), torch.zeros(1, dtype=torch.complex64)])
def test_set_takes_numbers_only_and_changes_nothing_else(value):
    theta = hs.Theta(k=hs.Real(init=1.0), m=hs.Positive(init=1.0))
    with pytest.raises(TypeError, match=r"theta\.m must be a number or a tensor of numbers, got"):
        theta.set(k=2.0, m=value)
    with pytest.raises(ValueError, match="too large, too small or too near a bound"):
        theta.set(m=1e300)
    assert (theta.k.item(), theta.m.item()) == (1.0, 1.0)
