"""Data: what is accepted, what is refused and why, and what a batch holds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hybridsam_lite as hs
from hybridsam_lite.data import as_data, fingerprint


def grid(samples=4):
    inputs = {"x0": torch.arange(2.0 * samples).view(samples, 2), "t": torch.linspace(0, 1, 5)}
    return hs.Data(inputs, torch.arange(10.0 * samples).view(samples, 5, 2), shared=("t",))


def test_shared_inputs_are_not_sampled():
    data = grid()
    part = data.take(torch.tensor([3, 1]))
    assert len(data) == 4
    assert len(part) == 2
    assert torch.equal(part.inputs["x0"], data.inputs["x0"][[3, 1]])
    assert torch.equal(part.target, data.target[[3, 1]])
    assert torch.equal(part.inputs["t"], data.inputs["t"])
    assert data.in_dims() == ({"x0": 0, "t": None}, 0)


def test_a_bare_input_can_be_shared():
    t = torch.linspace(0, 1, 5)
    data = hs.Data(t, torch.zeros(3, 5), shared=["inputs"])
    assert torch.equal(data.take(torch.tensor([0])).inputs, t)
    assert data.in_dims() == (None, 0)
    assert hs.Data(t, torch.zeros(5)).in_dims() == (0, 0)


@settings(derandomize=True, max_examples=40)
@given(
    samples=st.integers(1, 6),
    shape=st.lists(st.integers(0, 3), max_size=2),
    index=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16]),
)
def test_a_batch_replaces_the_sample_axis(samples, shape, index, dtype):
    x = torch.arange(samples).view(samples, *[1] * len(shape)).expand(samples, *shape).to(dtype)
    at = torch.tensor(index) % samples
    for where in (at, at[None].expand(3, -1)):
        part = hs.Data(x, x).take(where)
        assert part.inputs.shape == part.target.shape == (*where.shape, *shape)
        assert torch.equal(part.inputs, x[where])


@settings(derandomize=True, max_examples=40)
@given(inputs=st.integers(0, 3), target=st.integers(0, 3))
def test_samples_must_agree_and_exist(inputs, target):
    x, y = torch.zeros(inputs, 2), torch.zeros(target)
    if inputs == target > 0:
        assert len(hs.Data(x, y)) == inputs
    else:
        with pytest.raises(ValueError, match=rf"'inputs': {inputs}, 'target': {target}"):
            hs.Data(x, y)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["x0", "t", "target"])
def test_values_that_are_not_finite_are_refused(value, place):
    data = grid()
    tensors = {**data.inputs, "target": data.target}
    tensors[place] = tensors[place].clone()
    tensors[place].view(-1)[1] = value
    target = tensors.pop("target")
    with pytest.raises(ValueError, match=f"{place} holds 1 NaN or infinite values of"):
        hs.Data(tensors, target, shared=("t",))


@pytest.mark.parametrize(
    ("inputs", "target", "shared", "error", "message"),
    [
        (np.zeros((2, 1)), torch.zeros(2), (), TypeError, r"got ndarray; use torch\.as_tensor"),
        ({"x": np.zeros(2)}, torch.zeros(2), (), TypeError, r"x must be a tensor, got ndarray"),
        (torch.zeros(2), np.zeros(2), (), TypeError, r"target must be a tensor, got ndarray"),
        (torch.zeros(2), None, (), TypeError, "target must be a tensor, got NoneType"),
        ([torch.zeros(2)], torch.zeros(2), (), TypeError, "got list"),
        (torch.zeros(2), torch.tensor(0.0), (), ValueError, "'target': 0"),
        (torch.zeros(2), torch.zeros(2), ("t",), ValueError, "shared names 't'.*are: inputs"),
        ({"x": torch.zeros(2)}, torch.zeros(2), ("t",), ValueError, "shared names 't'.*are: x"),
        ({"target": torch.zeros(2)}, torch.zeros(2), (), ValueError, "choose another"),
        ({"t": torch.zeros(5)}, torch.zeros(2), (), ValueError, r"name inputs .* in shared="),
    ],
)
def test_data_that_cannot_work_are_refused(inputs, target, shared, error, message):
    with pytest.raises(error, match=message):
        hs.Data(inputs, target, shared=shared)


def test_only_floating_point_changes_its_precision():
    inputs = {"x": torch.zeros(2), "label": torch.tensor([0, 1])}
    data = hs.Data(inputs, torch.zeros(2)).to("cpu", torch.float64)
    assert [x.dtype for x in (*data.inputs.values(), data.target)] == [
        torch.float64,
        torch.int64,
        torch.float64,
    ]


def test_moved_data_carry_no_graph():
    x = torch.zeros(2, requires_grad=True)
    data = hs.Data(x * 2, x).to("cpu")
    assert not data.inputs.requires_grad
    assert not data.target.requires_grad


def test_a_pair_is_accepted_and_anything_else_is_not():
    x, y = torch.zeros(3, 1), torch.ones(3)
    for pair in ((x, y), [x, y], ({"x": x}, y)):
        assert torch.equal(as_data(pair).target, y)
    data = grid()
    assert as_data(data) is data
    for other in (None, x, (x,), (x, y, ("t",)), {"x": x}):
        with pytest.raises(TypeError, match=r"expected hs\.Data or an"):
            as_data(other)
    with pytest.raises(TypeError, match=r"target must be a tensor, got ndarray"):
        as_data((x, np.zeros(3)))


def test_the_fingerprint_sees_every_change():
    data = grid()
    changes = [
        hs.Data(data.inputs, data.target + 1e-6, shared=("t",)),
        hs.Data({**data.inputs, "t": data.inputs["t"].double()}, data.target, shared=("t",)),
        hs.Data({"x1": data.inputs["x0"], "t": data.inputs["t"]}, data.target, shared=("t",)),
        data.take(torch.tensor([1, 0, 2, 3])),
        data.take(torch.arange(3)),
    ]
    square = {"x": torch.zeros(2, 2), "t": torch.zeros(2, 2)}
    changes += [hs.Data(square, torch.zeros(2)), hs.Data(square, torch.zeros(2), shared=("t",))]
    assert len({d.fingerprint() for d in (data, *changes)}) == 1 + len(changes)
    assert grid().fingerprint() == data.fingerprint()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.complex64])
def test_every_dtype_has_a_fingerprint(dtype):
    x = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).to(dtype)
    assert fingerprint({"x": x}) == fingerprint({"x": x.clone()})
    assert fingerprint({"x": x}) != fingerprint({"x": x.T})
    assert fingerprint({"x": x[0, 0]}) != fingerprint({"x": x[0, 1]})


@pytest.mark.parametrize("shared", [3, None, 1.5])
def test_shared_are_names(shared):
    with pytest.raises(TypeError, match=r"shared must be names of inputs, such as \('t',\), got"):
        hs.Data(torch.zeros(2), torch.zeros(2), shared=shared)


def test_one_shared_name_needs_no_tuple():
    data = hs.Data({"x": torch.zeros(2), "time": torch.zeros(5)}, torch.zeros(2), shared="time")
    assert data.shared == ("time",)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2, 2).to_sparse(), "must be an ordinary tensor with values, got torch.sparse_coo"),
        (torch.zeros(2, 2, device="meta"), "must be an ordinary tensor with values, got meta"),
        (torch.zeros(2, 2).to(torch.float8_e4m3fn), "with which torch cannot compute"),
    ],
)
def test_tensors_without_ordinary_values(tensor, message):
    with pytest.raises(TypeError, match=message):
        hs.Data(tensor, torch.zeros(2))


def test_names_of_inputs_are_texts():
    with pytest.raises(TypeError, match="the names of inputs must be texts, got 3"):
        hs.Data({3: torch.zeros(2)}, torch.zeros(2))
