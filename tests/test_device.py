"""Devices, threads and random states."""

import pytest
import torch

from hybridsam_lite import device as devices


def test_auto_is_a_device_that_computes():
    assert torch.ones(2, device=devices.resolve("auto")).sum().item() == 2
    assert devices.resolve(torch.device("cpu")) == torch.device("cpu")
    assert devices.name_of(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "cpuu", "meta", None, 2.5])
def test_a_device_that_cannot_compute_is_refused_with_those_that_can(name):
    with pytest.raises(ValueError, match=r"cannot be used .*expected one of: auto, cpu"):
        devices.resolve(name)


def test_threads_are_given_back_also_after_an_error():
    before = torch.get_num_threads()
    with devices.cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), devices.cpu_threads(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before


def test_the_random_state_is_given_back_also_after_an_error():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with devices.kept_random_state():
        torch.manual_seed(6)
        torch.rand(7)
    with pytest.raises(RuntimeError, match="less than"), devices.kept_random_state():
        torch.randint(2, 1, (int(torch.rand(1)),))
    assert torch.equal(torch.rand(3), expected)


def test_a_random_state_can_be_replayed():
    state = devices.random_state()
    first = torch.randn(4)
    devices.set_random_state(state)
    assert torch.equal(first, torch.randn(4))
