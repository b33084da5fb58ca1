"""The one place that knows about devices, threads and random states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = [
    "cpu_threads",
    "kept_random_state",
    "mixed_precision",
    "name_of",
    "out_of_memory",
    "random_state",
    "resolve",
    "seed",
    "set_random_state",
]


def resolve(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on; "auto" takes a CUDA GPU if there is one, else the CPU.

    Raises:
        ValueError: if the name is unknown or the device is not there.

    >>> resolve("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()  # "meta" has no values
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        there = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(
            f"device {str(device)!r} cannot be used ({reason}); expected one of: {', '.join(there)}"
        ) from error
    return found


def name_of(device: torch.device) -> str:
    """A device's name for records: "cpu" or the GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads; small networks are fastest with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def mixed_precision(device: torch.device) -> bool:
    """Whether `torch.autocast` is on for this kind of device."""
    return torch.is_autocast_enabled(device.type)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch was refused memory, by a GPU or (an ordinary RuntimeError) by the CPU's allocator."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def random_state() -> list[Tensor]:
    """The state of torch's global generators: the CPU's and, once used, the GPUs'."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return states


def set_random_state(states: list[Tensor]) -> None:
    """Put the generators back to what `random_state` returned."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


def seed(value: int) -> None:
    """Seed these generators; `torch.manual_seed` would also note the call stack for GPUs that are not there: slow."""
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """On exit, also through an exception, the generators are what they were on entry."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
