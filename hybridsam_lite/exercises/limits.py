"""Run a check for a limited time, and leave torch as it was."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from hybridsam_lite.exercises.asking import TimeUp

__all__ = ["limited"]


def limited(work: Callable[[], None], seconds: float) -> None:
    """Do the work in a thread of its own, and give it up after some seconds.

    A thread, because it works everywhere: also in a notebook on Windows and outside of the main thread. What does
    not give way to the exception that is sent to it goes on in the background.

    Raises:
        TimeoutError: if the time is up.
        Exception: what the work raised.
    """
    raised: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    with _torch_as_it_was():
        worker = threading.Thread(target=target, daemon=True)
        worker.start()
        try:
            worker.join(seconds)
        finally:
            late = worker.is_alive()
            if late and worker.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(TimeUp))
                worker.join(1.0)
    if late or (raised and isinstance(raised[0], TimeUp)):
        raise TimeoutError
    if raised:
        raise raised[0]


@contextmanager
def _torch_as_it_was() -> Iterator[None]:
    """Double precision, so that a student's `torch.eye(3)` fits, and a fixed seed; then everything as before."""
    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_rng_state(state)
