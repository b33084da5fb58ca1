"""Methods: labels, settings, structure, and the gradients they stand for."""

import math
import re

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hybridsam_lite as hs
from hybridsam_lite.methods import nearest

LABELS = [
    ("erm", hs.ERM()),
    ("wd:lam=0.001", hs.WeightDecay()),
    ("fn:mu=0.5", hs.FunctionNorm(0.5)),
    ("sam:rho=0.05", hs.SharpnessAware()),
    ("asam:rho=1", hs.SharpnessAware(1, adaptive=True)),
    ("sam:rho=0.1,perturb=all", hs.SharpnessAware(0.1, perturb="all")),
    ("asam:rho=2,theta_grad=clean", hs.SharpnessAware(2, adaptive=True, theta_grad="clean")),
]


@pytest.mark.parametrize(("label", "method"), LABELS)
def test_labels_go_both_ways(label, method):
    assert method.label == label
    assert hs.parse_method(f" {label} ") == method
    assert method.name == label.partition(":")[0]


@settings(derandomize=True, deadline=None, max_examples=400)
@given(
    st.one_of(
        st.text(max_size=20),
        st.from_regex(r"(erm|wd|fn|sam|asam)(:[a-z_]{0,10}=?[-+.e0-9a-z]{0,6},?){0,3}"),
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
        ("", "unknown method ''; expected one of: erm, wd, fn, sam, asam"),
        ("asm", "unknown method 'asm' (did you mean 'asam'?)"),
        ("SAM", "unknown method 'SAM'"),
        ("sam:roh=1", "has no setting 'roh' (did you mean 'rho'?); its settings are: rho"),
        ("erm:rho=1", "method 'erm' has no setting 'rho'; it has no settings"),
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


def gradients(method, theta=1.0, phi=(3.0, 4.0)):
    """Gradients of theta |phi|^2 / 2 with f_nn = phi, by the method."""
    params = {"theta": torch.tensor(theta), "phi": torch.tensor(phi)}
    hyper = {k: torch.tensor(v) for k, v in method.hyper.items()}

    def loss(p):
        data_loss = p["theta"] * (p["phi"] ** 2).sum() / 2
        prediction = hs.Prediction(p["phi"], network=p["phi"])
        value = method.objective(data_loss, prediction, {"phi": p["phi"]}, hyper)
        return value, data_loss

    grads, (_, data_loss) = method.gradients(loss, params, ["phi"], hyper)
    assert data_loss == theta * 12.5  # never the penalized or the perturbed one
    return grads


@pytest.mark.parametrize(
    ("method", "theta_grad", "factor"),
    [
        (hs.ERM(), 12.5, 1.0),
        (hs.WeightDecay(0.5), 12.5, 1.5),  # never theta
        (hs.FunctionNorm(0.5), 12.5, 1.5),  # d/dphi mu mean(phi^2) = mu phi, for two entries
        (hs.SharpnessAware(0.5), 5.5**2 / 2, 1.1),  # phi moves from norm 5 to 5.5
        (hs.SharpnessAware(0.5, theta_grad="clean"), 12.5, 1.1),
    ],
)
def test_gradients_in_closed_form(method, theta_grad, factor):
    grads = gradients(method)
    torch.testing.assert_close(grads["theta"], torch.tensor(theta_grad))
    torch.testing.assert_close(grads["phi"], factor * torch.tensor([3.0, 4.0]))


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


def test_the_nearest_word_is_close():
    assert nearest("roh", ["rho", "lam"]) == " (did you mean 'rho'?)"
    assert nearest("xyz", ["rho", "lam"]) == ""
