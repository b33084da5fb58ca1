"""What a method must say, and the training problem it is asked about."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hybridsam_lite.gradients import Derivative
from hybridsam_lite.hybrid import Prediction
from hybridsam_lite.sam import Tensors

__all__ = ["ERM", "Method", "Moment", "Names", "Outcome", "Problem"]

Names = dict[str, dict[str, Any]]  # of a method on the command line -> the fields that each name fixes


class Moment(NamedTuple):
    """Where training is: plain numbers, the same for all members of a stack."""

    step: int
    steps: int

    @property
    def done(self) -> float:
        """The share of the steps that has been taken."""
        return self.step / self.steps

    def generator(self, device: torch.device) -> torch.Generator:
        """Random numbers of this step, apart from those that the model draws."""
        return torch.Generator(device).manual_seed(self.step)


class Outcome(NamedTuple):
    """What a pass through the model leaves behind, besides the objective."""

    loss: Tensor  # the data loss
    buffers: Tensors  # after the pass
    value: Tensor  # the prediction


@dataclass(frozen=True)
class Problem:
    """One member's training problem in one step: a pure function of its parameters.

    Calling it with params (name -> tensor) returns (objective, `Outcome`).

    Attributes:
        method: decides the objective.
        phi: names of the network's weights; all other parameters are theta.
        hyper, state: the member's numbers: settings of the method, and what it remembers.
        moment: the step, and how many there are.
        inputs, target: the batch, sample axis first, except for the inputs named in `shared`.
        predict: (params, inputs) -> prediction, and the buffers after it.
        compare: (prediction's value, target) -> data loss.
        derivative: makes of a function like this one its gradients: params -> (gradients, (objective, `Outcome`)).
    """

    method: Method
    phi: Collection[str]
    hyper: Tensors
    state: Tensors
    moment: Moment
    inputs: Any
    target: Tensor
    shared: Collection[str]
    predict: Callable[[Tensors, Any], tuple[Prediction, Tensors]]
    compare: Callable[[Tensor, Tensor], Tensor]
    derivative: Derivative

    def __call__(self, params: Tensors) -> tuple[Tensor, Outcome]:
        prediction, buffers = self.predict(params, self.inputs)
        loss = self.compare(prediction.value, self.target)
        objective = self.method.objective(loss, prediction, params, self)
        kept = {n: b.detach() for n, b in buffers.items()}
        return objective, Outcome(loss.detach(), kept, prediction.value.detach())

    def part(self, share: float) -> Problem:
        """The same problem on the first samples of the (shuffled) batch only."""
        count = max(1, round(share * len(self.target)))
        named = self.inputs if isinstance(self.inputs, dict) else {"": self.inputs}
        cut = {n: x if n in self.shared else x[:count] for n, x in named.items()}
        return replace(self, inputs=cut if isinstance(self.inputs, dict) else cut[""], target=self.target[:count])


@dataclass(frozen=True)
class Method:
    """How to train: a description without state, its fields the settings.

    A method says what is minimized (`objective`) or, if that is not all, with which gradient (`gradients`).
    One that remembers something keeps it per member in tensors: `begin`, `remember`, `settle`, `finish`.
    Float fields may differ between the members of one stack, except for those named in `common`; all
    other fields are structure and the same throughout a stack.
    """

    names: ClassVar[Names] = {}
    common: ClassVar[tuple[str, ...]] = ()  # float fields that all members of a stack share
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}  # field -> words that it may hold
    needs_phi: ClassVar[bool] = False  # whether it acts on network weights
    needs_theta: ClassVar[bool] = False  # whether it acts on global scientific parameters
    needs_network: ClassVar[bool] = False  # whether it uses Prediction.network
    switches_off: ClassVar[bool] = False  # whether it sets the network's weights to zero

    def __post_init__(self) -> None:
        for f in fields(self):
            value: Any = getattr(self, f.name)  # whatever the caller gave
            where = f"{type(self).__name__}: {f.name} must be"
            if f.type in ("float", float):
                if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                    raise ValueError(f"{where} a finite number >= 0, got {value!r}")
                object.__setattr__(self, f.name, float(value))
            elif f.type in ("int", int) and not (type(value) is int and value > 0):
                raise ValueError(f"{where} a positive integer, got {value!r}")
            elif f.name in self.choices and value not in self.choices[f.name]:
                raise ValueError(f"{where} one of {self.choices[f.name]}, got {value!r}")

    @property
    def name(self) -> str:
        """Short name, as on the command line."""
        return next(n for n, fixed in self.names.items() if all(getattr(self, k) == v for k, v in fixed.items()))

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that tell two variants of the method apart: the first, and what is not as usual."""
        free = [f for f in fields(self) if f.name not in self.names[self.name]]
        return {f.name: getattr(self, f.name) for f in free if f is free[0] or getattr(self, f.name) != f.default}

    @property
    def label(self) -> str:
        """Name and settings, as on the command line: "asam:rho=1"."""
        given = [f"{k}={_short(v) if isinstance(v, float) else v}" for k, v in self.settings.items()]
        return self.name + (":" + ",".join(given) if given else "")

    @property
    def hyper(self) -> dict[str, float]:
        """The numbers that may differ between members of a stack."""
        numbers = [f.name for f in fields(self) if f.type in ("float", float) and f.name not in self.common]
        return {n: getattr(self, n) for n in numbers}

    @property
    def structure(self) -> tuple[Any, ...]:
        """Methods with the same structure can be trained in one stack."""
        static = tuple((f.name, getattr(self, f.name)) for f in fields(self) if f.name not in self.hyper)
        return (type(self).__name__, *static)

    @property
    def effort(self) -> float:
        """How many times the steps of the protocol it asks for; the learning rate's cosine is stretched."""
        return 1.0

    @property
    def stop_after(self) -> int | None:
        """Validations without progress after which a member stops, if it says so."""
        return None

    def refuse(self, prediction: Prediction) -> str | None:
        """Why a model that returns this cannot be trained so, and what to do; None if it can."""
        if self.needs_network and prediction.network is None:
            return (
                "needs the network's own output, but forward returns no Prediction.network (a nested model has "
                "none). Return hs.Prediction(value, network=...) if the network's share can be told apart; "
                "otherwise use hs.SharpnessAware or hs.WeightDecay, which need only phi"
            )
        return None

    def objective(self, loss: Tensor, prediction: Prediction, params: Tensors, problem: Problem) -> Tensor:
        """What is minimized, from the data loss of one member; a scalar."""
        return loss

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        """Gradients of one member for all `params`, and the outcome of the first pass."""
        grads, (_, outcome) = problem.derivative(problem)(params)
        return grads, outcome

    def begin(self, params: Tensors, phi: Collection[str], hyper: Tensors) -> Tensors:
        """What is remembered at first; all tensors, here and below, have the member as first axis."""
        return {}

    def remember(self, problem: Problem, grads: Tensors, outcome: Outcome) -> Tensors:
        """The state after a gradient, of one member."""
        return problem.state

    def settle(self, params: Tensors, state: Tensors, phi: Collection[str], moment: Moment) -> tuple[Tensors, Tensors]:
        """Parameters and state after the optimizer's step, entry by entry, of all members."""
        return params, state

    def finish(self, params: Tensors, state: Tensors) -> Tensors:
        """The parameters that a completed training returns, of all members."""
        return params


@dataclass(frozen=True)
class ERM(Method):
    """Empirical risk minimization: the data loss, nothing else.

    `steps=2` takes twice the protocol's steps: as many gradients as sharpness-aware minimization.

    >>> ERM().label, ERM(steps=2).label
    ('erm', 'erm:steps=2')
    """

    names: ClassVar[Names] = {"erm": {}}
    common: ClassVar[tuple[str, ...]] = ("steps",)
    steps: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps == 0:
            raise ValueError("ERM: steps is a multiple of the protocol's steps and must be > 0, got 0.0")

    @property
    def settings(self) -> dict[str, Any]:
        return {"steps": self.steps} if self.steps != 1 else {}

    @property
    def effort(self) -> float:
        return self.steps


def _short(x: float) -> str:
    """The shortest text that reads back as the same number: 1 rather than 1.0."""
    return f"{x:g}" if float(f"{x:g}") == x else repr(x)
