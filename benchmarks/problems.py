"""The training problems, the same for both ways to solve them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

import hybridsam_lite as hs
from hybridsam_lite.live import Training

__all__ = ["NAMES", "RATES", "Problem", "build", "stack"]

RATES = {"lr": 1e-3, "theta_lr": 1e-2}


@dataclass(frozen=True)
class Problem:
    """A model, its data and SAM's radius.

    Attributes:
        name: task and variant.
        model: builds a new model.
        train: the data.
        batch_size: samples of a step.
        rho: SAM's radius, for all parameters: the published SAM knows no theta.
        solver: the module in which the model looks up `odeint`, or None.
    """

    name: str
    model: Callable[[], nn.Module]
    train: hs.Data
    batch_size: int
    rho: float
    solver: str | None


# task, variant, rho, whether there is an equation to solve; all at the preset quick
_PROBLEMS = (
    ("pendulum", "A1", 0.05, True),
    ("reaction_diffusion", "B1", 0.05, True),
    ("wind_tunnel", "nested", 0.05, False),
)
NAMES = tuple(name for name, *_ in _PROBLEMS)


def build(name: str) -> Problem:
    """The problem of a name in NAMES."""
    _, variant, rho, solves = _PROBLEMS[NAMES.index(name)]
    task = hs.tasks.get(name, variant=variant, preset="quick")
    solver = f"hybridsam_lite.tasks.{name}" if solves else None
    return Problem(f"{name} {variant}", task.model, task.train, task.training["batch_size"], rho, solver)


def stack(
    problem: Problem, members: int, steps: int, *, sam: bool, threads: int, callback: Callable[[Training], Any]
) -> hs.Runs:
    """Train the seeds 0, 1, ... together by `hs.fit`: constant rates, no clipping, no validation, as in the loop."""
    method = f"sam:rho={problem.rho},perturb=all" if sam else "erm"
    return hs.fit(
        problem.model, problem.train, methods=[method], seeds=range(members), steps=steps,
        batch_size=problem.batch_size, **RATES, lr_end=1.0, max_norm=None, threads=threads, device="cpu",
        progress=False, callback=callback,
    )  # fmt: skip
