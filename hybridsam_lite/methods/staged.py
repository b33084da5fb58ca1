"""Methods that differ from plain training in when it stops, in which order it fits, and what it keeps."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch

from hybridsam_lite.methods.base import Method, Moment, Names, Outcome, Problem
from hybridsam_lite.sam import Tensors, partial_gradient

__all__ = ["SWA", "EarlyStopping", "PhysicsOnly", "TwoStage"]


@dataclass(frozen=True)
class EarlyStopping(Method):
    """Plain training that stops at the best validation loss; needs validation data.

    Args:
        patience: validations without progress after which a member stops and its best state is kept.

    Source: Prechelt, "Early stopping - but when?", in Neural Networks: Tricks of the Trade, 1998.

    >>> EarlyStopping(3).label
    'early:patience=3'
    """

    names: ClassVar[Names] = {"early": {}}
    patience: int = 5

    @property
    def stop_after(self) -> int | None:
        return self.patience


@dataclass(frozen=True)
class PhysicsOnly(Method):
    """No network: all of phi is zero from the first step on, which switches an `hs.mlp` off; theta is fitted alone.

    Where the physics lacks something, theta absorbs it: the projection that a vanishing network leads to.

    Source: the scientific model as it is, the classical baseline.

    >>> PhysicsOnly().label
    'physics'
    """

    names: ClassVar[Names] = {"physics": {}}
    needs_phi: ClassVar[bool] = True
    needs_theta: ClassVar[bool] = True
    switches_off: ClassVar[bool] = True

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        zeros = {n: torch.zeros_like(params[n]) for n in problem.phi}
        theta = [n for n in params if n not in zeros]
        grads, (_, outcome) = partial_gradient(problem, {**params, **zeros}, theta, has_aux=True)
        return {**zeros, **grads}, outcome

    def settle(self, params: Tensors, state: Tensors, phi: Collection[str], moment: Moment) -> tuple[Tensors, Tensors]:
        return {n: torch.zeros_like(p) if n in phi else p for n, p in params.items()}, state


@dataclass(frozen=True)
class TwoStage(Method):
    """First theta with the network off, then the network with theta frozen.

    In the first stage all of phi is taken to be zero, which switches an `hs.mlp` off, wherever in the
    model it sits; for a linear theta this is least squares. phi's own start is kept for the second stage.
    A model whose network does something with zero weights is refused, as far as `Prediction.network`
    tells. Validation sees the model with phi, so the history of the first stage is not that of its fit.

    Args:
        first: share of the steps in the first stage.

    Source: the classical order (fit the physics, then model its residuals), as a baseline.

    >>> TwoStage().label
    'twostage:first=0.5'
    """

    names: ClassVar[Names] = {"twostage": {}}
    common: ClassVar[tuple[str, ...]] = ("first",)
    needs_phi: ClassVar[bool] = True
    needs_theta: ClassVar[bool] = True
    switches_off: ClassVar[bool] = True
    first: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.first < 1:
            raise ValueError(f"TwoStage: first is a share of the steps, > 0 and < 1, got {self.first}")

    def _trains(self, name: str, phi: Collection[str], moment: Moment) -> bool:
        return (name in phi) == (moment.done >= self.first)

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        trained = [n for n in params if self._trains(n, problem.phi, problem.moment)]
        zeros = {n: torch.zeros_like(p) for n, p in params.items() if n not in trained}
        off = {n: z for n, z in zeros.items() if n in problem.phi}
        grads, (_, outcome) = partial_gradient(problem, {**params, **off}, trained, has_aux=True)
        return {**zeros, **grads}, outcome

    def begin(self, params: Tensors, phi: Collection[str], hyper: Tensors) -> Tensors:
        return {n: p.clone() for n, p in params.items()}

    def settle(self, params: Tensors, state: Tensors, phi: Collection[str], moment: Moment) -> tuple[Tensors, Tensors]:
        kept = {n: p.clone() if self._trains(n, phi, moment) else state[n] for n, p in params.items()}
        return kept, kept  # whatever momentum or decay the optimizer adds to what is frozen is undone


@dataclass(frozen=True)
class SWA(Method):
    """Stochastic weight averaging: the mean of the iterates of the last part of training.

    Buffers (batch statistics) stay those of the last step, and so does the history; the learning rate is
    the protocol's. A member that `patience` stops keeps its best state instead.

    Args:
        start: share of the steps after which averaging begins.

    Source: Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018
    (arXiv 1803.05407), with a constant or falling rate in place of their cycles.

    >>> SWA(0.75).label
    'swa:start=0.75'
    """

    names: ClassVar[Names] = {"swa": {}}
    common: ClassVar[tuple[str, ...]] = ("start",)
    start: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.start < 1:
            raise ValueError(f"SWA: start is a share of the steps, >= 0 and < 1, got {self.start}")

    def begin(self, params: Tensors, phi: Collection[str], hyper: Tensors) -> Tensors:
        return {n: p.clone() for n, p in params.items()}

    def settle(self, params: Tensors, state: Tensors, phi: Collection[str], moment: Moment) -> tuple[Tensors, Tensors]:
        count = moment.step - math.ceil(self.start * moment.steps) + 1
        if count < 1:
            return params, state
        return params, {n: p.clone() if count == 1 else state[n] + (p - state[n]) / count for n, p in params.items()}

    def finish(self, params: Tensors, state: Tensors) -> Tensors:
        return state
