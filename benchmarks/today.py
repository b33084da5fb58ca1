"""How it is done today: one seed at a time, a published SAM around torchdiffeq, in an ordinary loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytorch_optimizer
import torch
import torchdiffeq
from torch import Tensor, nn

import hybridsam_lite as hs
from benchmarks.problems import RATES, Problem
from hybridsam_lite.device import cpu_threads
from hybridsam_lite.hybrid import as_prediction
from hybridsam_lite.train import _Batches

__all__ = ["gradient", "loop", "published_solver"]


@contextmanager
def published_solver(module: str | None) -> Iterator[None]:
    """In one module, torchdiffeq's fixed-step rk4 in the place of `hs.odeint`."""
    if module is None:
        yield
        return

    def odeint(rhs: Callable[..., Tensor], y0: Tensor, t: Tensor, method: str = "rk4", substeps: int = 1) -> Tensor:
        options = {"step_size": float(t[1] - t[0]) / substeps} if substeps > 1 else None
        return torchdiffeq.odeint(rhs, y0, t, method=method, options=options)

    with mock.patch(f"{module}.odeint", odeint):
        yield


def gradient(model: nn.Module, batch: hs.Data) -> Tensor:
    """The mean squared error, after its backward pass."""
    loss = ((as_prediction(model(batch.inputs)).value - batch.target) ** 2).mean()
    loss.backward()
    return loss


def loop(
    problem: Problem, seed: int, steps: int, *, sam: bool, threads: int, callback: Callable[[Tensor], Any]
) -> nn.Module:
    """Train one seed; `callback` gets the loss of each step. The batches are those of `hs.fit`."""
    torch.manual_seed(seed)
    model = problem.model()
    groups = hs.param_groups(model, **RATES)
    adam = torch.optim.Adam
    optimizer: Any = pytorch_optimizer.SAM(groups, adam, rho=problem.rho) if sam else adam(groups)
    batches = _Batches(len(problem.train), problem.batch_size, [seed], torch.device("cpu"))
    with cpu_threads(threads), published_solver(problem.solver):
        for step in range(steps):
            batch = problem.train.take(batches.at(step)[0])

            def closure(batch: hs.Data = batch) -> Tensor:
                optimizer.zero_grad()
                return gradient(model, batch)

            loss = closure()
            optimizer.step(*([closure] if sam else []))
            callback(loss.detach())
    return model
