"""Parameters in few tensors, and a module as a function of them."""

import pytest
import torch
from torch import nn

from hybridsam_lite.packed import Packed, Pure


def test_wholes_and_parts_are_the_same_numbers_by_kind_and_dtype():
    x = {
        "w": torch.arange(12.0).view(2, 3, 2),
        "theta": torch.tensor([1.0, 2.0]),
        "double": torch.ones(2, 4, dtype=torch.float64),
        "none": torch.zeros(2, 0),
        "b": torch.ones(2, 1),
    }
    packed = Packed(x, lambda name: "theta" if name == "theta" else "phi")
    assert {key: tuple(whole.shape) for key, whole in packed.wholes.items()} == {
        ("phi", torch.float32): (2, 7),
        ("theta", torch.float32): (2, 1),
        ("phi", torch.float64): (2, 4),
    }
    assert list(packed.parts) == list(x)
    assert all(torch.equal(packed.parts[n], v) and packed.parts[n].shape == v.shape for n, v in x.items())
    packed.wholes["phi", torch.float32][1] = -1.0
    assert torch.equal(packed.parts["w"][0], x["w"][0])
    assert packed.parts["w"][1].eq(-1).all()
    assert packed.parts["b"][1] == -1
    packed.parts["theta"][0] = 7.0
    assert packed.wholes["theta", torch.float32][0] == 7
    others = packed.pack({n: 2 * v for n, v in packed.parts.items()})
    assert all(torch.equal(others[key], 2 * whole) for key, whole in packed.wholes.items())


class Counting(nn.Module):
    """Tied weights, one layer used twice, a buffer changed in place and one that is replaced."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight
        self.again = self.b
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2))
        self.register_buffer("nothing", None)

    def forward(self, x):
        self.calls += 1
        self.last = x.mean(0)
        return self.again(torch.tanh(self.b(self.a(x))))


def test_a_module_is_called_with_other_tensors_and_left_as_it_was():
    torch.manual_seed(0)
    module, other, x = Counting(), Counting(), torch.randn(5, 2)
    own = {n: t.clone() for n, t in module.state_dict().items()}
    named = {n: t.detach().clone() for n, t in (*other.named_parameters(), *other.named_buffers())}
    output, buffers = Pure(module)(named, x)
    assert torch.equal(output, other(x))
    assert set(buffers) == {"calls", "last"}
    assert buffers["calls"] == 1
    assert torch.equal(buffers["last"], x.mean(0))
    assert all(torch.equal(t, own[n]) for n, t in module.state_dict().items())
    assert module.b.weight is module.a.weight
    assert isinstance(module.a.weight, nn.Parameter)


def test_a_module_whose_forward_fails_is_left_as_it_was():
    module = nn.Linear(2, 2)
    own = module.weight
    with pytest.raises(RuntimeError):
        Pure(module)({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, torch.zeros(3))
    assert module.weight is own
    with pytest.raises(KeyError, match="bias"):
        Pure(module)({"weight": torch.zeros(2, 2)}, torch.zeros(2))
    assert module.weight is own
