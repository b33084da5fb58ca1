"""Roles of parameters, predictions, and the small network builder."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import hybridsam_lite as hs
from hybridsam_lite.hybrid import as_prediction


class Line(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(k=hs.Positive(init=1.0))
        self.net = hs.mlp(1, [4], 1)

    def forward(self, x):
        return hs.Prediction(self.theta.k * x + self.net(x), network=self.net(x))


def test_parameters_inside_theta_are_theta_and_all_others_phi():
    assert hs.roles(Line()) == {
        "theta.raw.k": "theta",
        "net.0.weight": "phi",
        "net.0.bias": "phi",
        "net.2.weight": "phi",
        "net.2.bias": "phi",
    }


def test_a_nested_theta_is_found():
    model = nn.Sequential(nn.Linear(1, 1), nn.ModuleDict({"physics": hs.Theta(k=hs.Real())}))
    assert hs.roles(model)["1.physics.raw.k"] == "theta"


def test_a_bare_theta_is_a_model():
    assert hs.roles(hs.Theta(k=hs.Real())) == {"raw.k": "theta"}


def test_theta_names_for_plain_modules():
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    by_module = hs.roles(model, theta=["0"])
    assert by_module == {"0.weight": "theta", "0.bias": "theta", "1.weight": "phi", "1.bias": "phi"}
    assert hs.roles(model, theta=["1.bias"])["1.bias"] == "theta"
    assert hs.roles(model, theta=["1.bias"])["1.weight"] == "phi"


def test_a_theta_name_is_no_mere_prefix():
    model = nn.Module()
    model.net = nn.Linear(1, 1)
    model.net2 = nn.Linear(1, 1)
    assert hs.roles(model, theta=["net"])["net2.weight"] == "phi"


def test_a_theta_name_without_parameter_lists_what_there_is():
    with pytest.raises(ValueError, match=r"theta='omega' names no parameter.*weight, bias"):
        hs.roles(nn.Linear(1, 1), theta=["omega"])


def test_a_parameter_with_two_roles_is_named():
    class Confused(hs.HybridModel):
        def __init__(self):
            super().__init__()
            self.theta = hs.Theta(k=hs.Real())
            self.weight = self.theta.raw["k"]

    with pytest.raises(ValueError, match=r"'theta.raw.k' \(theta\) is the same tensor as 'weight' \(phi\)"):
        Confused()


def test_tied_weights_with_two_roles_are_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert hs.roles(model) == {"0.weight": "phi", "0.bias": "phi", "1.bias": "phi"}
    with pytest.raises(ValueError, match=r"'1.weight' \(theta\) is the same tensor as '0.weight' \(phi\)"):
        hs.roles(model, theta=["1"])


def test_roles_are_checked_after_the_outermost_init():
    class Parent(Line):
        def __init__(self):
            super().__init__()
            self.copy_of_raw = self.theta.raw["k"]

    with pytest.raises(ValueError, match="each parameter must have exactly one role"):
        Parent()


def test_a_shared_module_with_a_theta_has_one_role():
    class Physics(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = hs.Theta(k=hs.Real())

    class Model(hs.HybridModel):
        def __init__(self):
            super().__init__()
            self.first = Physics()
            self.second = self.first
            self.net = nn.Linear(1, 1)

    assert hs.roles(Model()) == {
        "first.theta.raw.k": "theta",
        "net.weight": "phi",
        "net.bias": "phi",
    }


def test_shared_modules_are_optimized_once():
    layer = nn.Linear(2, 2)
    groups = hs.param_groups(nn.Sequential(layer, nn.Tanh(), layer), lr=0.1, theta_lr=0.1)
    assert [len(g["params"]) for g in groups] == [2]


def test_parametrized_weights_are_phi():
    model = Line()
    parametrizations.weight_norm(model.net[0])
    role_of = hs.roles(model)
    assert role_of["net.0.parametrizations.weight.original0"] == "phi"
    assert set(role_of.values()) == {"theta", "phi"}


def test_frozen_parameters_have_a_role_but_are_not_optimized():
    model = Line()
    model.net[0].weight.requires_grad_(False)
    assert hs.roles(model)["net.0.weight"] == "phi"
    held = [p for g in hs.param_groups(model, 0.1, 0.1) for p in g["params"]]
    assert all(p is not model.net[0].weight for p in held)
    assert len(held) == 4


def test_param_groups_take_theta_names_of_plain_modules():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    phi, theta = hs.param_groups(model, lr=0.1, theta_lr=0.2, theta=["0"])
    assert phi["params"][0] is model[1].weight
    assert theta["params"][0] is model[0].weight
    assert theta["weight_decay"] == 0.0


def test_a_copied_model_has_the_same_roles_and_other_tensors():
    model = Line()
    twin = copy.deepcopy(model)
    assert hs.roles(twin) == hs.roles(model)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in twin.parameters()}


def test_a_prediction_has_optional_parts():
    prediction = Line()(torch.ones(3, 1))
    assert prediction.value.shape == prediction.network.shape == (3, 1)
    assert prediction.physics is None
    assert prediction.theta is None


def test_as_prediction_wraps_a_tensor_and_passes_a_prediction_through():
    x = torch.ones(2)
    assert as_prediction(x).value is x
    prediction = hs.Prediction(x, network=x)
    assert as_prediction(prediction) is prediction


@pytest.mark.parametrize("output", [(torch.ones(2), torch.ones(2)), None, {"value": torch.ones(2)}])
def test_as_prediction_says_what_it_got(output):
    with pytest.raises(TypeError, match=f"Tensor or hs.Prediction, got {type(output).__name__}"):
        as_prediction(output)


def test_mlp_starts_small():
    torch.manual_seed(0)
    net = hs.mlp(2, [16, 16], 3)
    torch.manual_seed(0)
    large = hs.mlp(2, [16, 16], 3, last_scale=1.0)
    x = torch.randn(50, 2)
    assert net(x).shape == (50, 3)
    # the seed is the same, so the output layer's factor 0.1 is the only difference
    torch.testing.assert_close(net(x), 0.1 * large(x))
    assert not hs.mlp(2, [16], 1, last_scale=0.0)(x).any()


def test_mlp_without_hidden_layers_is_linear():
    assert [type(m) for m in hs.mlp(2, [], 1)] == [nn.Linear]


@pytest.mark.parametrize("sizes", [(0, [4], 1), (2, [4, -1], 1), (2, [4.0], 1), (2, [4], 0)])
def test_mlp_refuses_impossible_sizes(sizes):
    with pytest.raises(ValueError, match="sizes must be positive integers"):
        hs.mlp(*sizes)
