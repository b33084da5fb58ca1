"""Scientific parameters: named, with a unit, bounds, a transform, and an initial value or range.

A constraint (`Real`, `Positive`, `Interval`, `Fixed`) is a small immutable description. `Theta` turns
a set of them into one module whose attributes are the constrained values:

    theta = Theta(omega2=Positive(init=(0.2, 1.7), unit="1/s^2"))
    theta.omega2            # a positive tensor, differentiable

What the optimizer sees is an unconstrained "raw" number in units of the parameter's own range, so
that one learning rate suits a diffusion constant of 1e-3 and a stiffness of 1e3 alike.
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = ["Constraint", "Fixed", "Interval", "Positive", "Real", "Theta", "theta_values"]

Init = float | tuple[float, float]
LARGEST = 2**31  # entries of a parameter


def _real(value: Any, otherwise: float) -> float:
    """A real number as a float; `otherwise` for anything else, or if it is too large for one."""
    try:
        right = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        return float(value) if right else otherwise
    except OverflowError:
        return otherwise


@dataclass(frozen=True)
class Constraint(ABC):
    """One scientific parameter: where it starts, where it may go, and what it is measured in.

    Args:
        init: a number, or a range `(low, high)` from which each new model draws uniformly with
            torch's global generator.
        unit: the unit, as text, for tables and figures.
        shape: shape of the parameter; `()` for a scalar.
        scale: the size of a typical change; by default taken from `init`.

    Raises:
        ValueError: if the initial value or range does not satisfy the constraint.
    """

    init: Init = 0.0
    unit: str = ""
    shape: tuple[int, ...] = ()
    scale: float | None = None

    def __post_init__(self) -> None:
        low, high = self.init_range
        name = type(self).__name__
        if not isinstance(self.unit, str):
            raise TypeError(f"{name}: unit must be a text, got {self.unit!r:.60}")
        if not (
            isinstance(self.shape, (tuple, list))
            and all(isinstance(n, (int, np.integer)) and n >= 0 for n in self.shape)
            and math.prod(map(int, self.shape)) <= LARGEST
        ):
            raise ValueError(f"{name}: shape must be a tuple of whole numbers >= 0, got {self.shape!r:.60}")
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name}: init must be finite, got {self.init!r}")
        if low > high:
            raise ValueError(f"{name}: init range must be (low, high) with low <= high, got {self.init!r}")
        if self.scale is not None and not 0 < _real(self.scale, math.nan) < math.inf:
            raise ValueError(f"{name}: scale must be a positive number, got {self.scale!r}")
        for value in (low, high):
            if not self.admits(value):
                raise ValueError(f"{name}: init {self.init!r} is outside of {self.describe()}")

    @property
    def init_range(self) -> tuple[float, float]:
        """The initial range; a single number is the range of width zero."""
        ends = self.init if isinstance(self.init, tuple) else (self.init, self.init)
        try:
            low, high = (float(end) for end in ends)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ValueError(f"init must be a number or (low, high), got {self.init!r}") from None
        return low, high

    @property
    def unit_of_change(self) -> float:
        """What a step of 1 in the raw parameter is worth, roughly: `scale`, or else the initial range."""
        if self.scale is not None:
            return self.scale
        low, high = self.init_range
        return (high - low) / 2 or abs(low) or 1.0

    def admits(self, value: float) -> bool:
        """Whether the constraint allows this value."""
        return math.isfinite(value)

    def describe(self) -> str:
        """The admissible set, in words."""
        return "the real numbers"

    @abstractmethod
    def forward(self, raw: Tensor) -> Tensor:
        """Map the unconstrained `raw` to the parameter's value (any shape)."""

    @abstractmethod
    def inverse(self, value: Tensor) -> Tensor:
        """Map a value to its unconstrained `raw` (any shape)."""

    def draw(self) -> Tensor:
        """An initial value of shape `shape`, drawn with torch's global generator."""
        low, high = self.init_range
        return low + (high - low) * torch.rand(self.shape)


@dataclass(frozen=True)
class Real(Constraint):
    """Any real number.

    >>> Real(init=2.0, unit="m").inverse(torch.tensor(3.0))
    tensor(1.5000)
    """

    def forward(self, raw: Tensor) -> Tensor:
        return raw * self.unit_of_change

    def inverse(self, value: Tensor) -> Tensor:
        return value / self.unit_of_change


@dataclass(frozen=True)
class Positive(Constraint):
    """A number above zero, through a softplus that is linear for values above its scale.

    The softplus keeps the gradient finite everywhere (an exponential does not), and far from zero a
    step changes the value by as much as the raw number times the scale.

    >>> p = Positive(init=0.5)
    >>> round(float(p.forward(p.inverse(torch.tensor(0.3)))), 6)
    0.3
    """

    init: Init = 1.0

    @property
    def unit_of_change(self) -> float:
        if self.scale is not None:
            return self.scale
        low, high = self.init_range
        return (low + high) / 2

    def admits(self, value: float) -> bool:
        return math.isfinite(value) and value > 0

    def describe(self) -> str:
        return "the positive numbers"

    def forward(self, raw: Tensor) -> Tensor:
        return softplus(raw, threshold=40.0) * self.unit_of_change  # exact in double precision too

    def inverse(self, value: Tensor) -> Tensor:
        v = value / self.unit_of_change
        return v + torch.log(-torch.expm1(-v))  # inverse softplus, stable for small and large v


@dataclass(frozen=True)
class Interval(Constraint):
    """A number strictly between `low` and `high`, through a sigmoid.

    Without `init` the start is drawn from the middle half of the interval.

    >>> angle = Interval(0.0, 45.0, unit="degree")
    >>> float(angle.forward(torch.tensor(0.0)))
    22.5
    """

    low: float = 0.0
    high: float = 1.0
    init: Init = math.nan

    def __init__(
        self,
        low: float,
        high: float,
        init: Init | None = None,
        unit: str = "",
        shape: tuple[int, ...] = (),
    ) -> None:
        if not -math.inf < _real(low, math.nan) < _real(high, math.nan) < math.inf:
            raise ValueError(f"Interval: expected finite low < high, got low={low!r}, high={high!r}")
        if init is None:
            quarter = (high - low) / 4
            init = (low + quarter, high - quarter)
        for name, value in {"low": low, "high": high, "init": init, "unit": unit, "shape": shape}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "scale", None)
        self.__post_init__()

    def admits(self, value: float) -> bool:
        return self.low < value < self.high

    def describe(self) -> str:
        return f"the open interval ({self.low:g}, {self.high:g})"

    def forward(self, raw: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * torch.sigmoid(raw)

    def inverse(self, value: Tensor) -> Tensor:
        return torch.logit((value - self.low) / (self.high - self.low))


@dataclass(frozen=True)
class Fixed(Constraint):
    """A known constant: part of theta, never trained.

    >>> float(Theta(g=Fixed(9.81, unit="m/s^2")).g)
    9.8100004196...
    """

    def forward(self, raw: Tensor) -> Tensor:
        return raw.detach()  # also if somebody unfreezes all parameters of the model

    def inverse(self, value: Tensor) -> Tensor:
        return value


class Theta(nn.Module):
    """A set of named scientific parameters; attribute access gives their constrained values.

    Args:
        **constraints: name -> `Real`, `Positive`, `Interval` or `Fixed`.

    Raises:
        TypeError: if a value is not a constraint (a bare number, for example).
        ValueError: if a name is not usable as an attribute.

    >>> _ = torch.manual_seed(0)
    >>> theta = Theta(omega2=Positive(init=0.5, unit="1/s^2"), damping=Interval(0, 1, init=0.25))
    >>> theta
    Theta(omega2=0.5 1/s^2 (Positive), damping=0.25 (Interval))
    >>> theta.omega2
    tensor(0.5000, grad_fn=<MulBackward0>)
    """

    constraints: dict[str, Constraint]

    def __init__(self, **constraints: Constraint) -> None:
        super().__init__()
        for name, constraint in constraints.items():
            if not isinstance(constraint, Constraint):
                raise TypeError(
                    f"Theta: {name}={constraint!r} is not a constraint; "
                    f"expected hs.Real, hs.Positive, hs.Interval or hs.Fixed, e.g. {name}=hs.Real(init=...)"
                )
            if not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"Theta: the name {name!r} cannot be used as an attribute; choose another")
            if name in _TAKEN or name in self.__dict__:
                raise ValueError(f"Theta: the name {name!r} is taken by Theta or torch; choose another")
        self.constraints = dict(constraints)
        self.raw = nn.ParameterDict()
        self.fixed = nn.ParameterDict()
        for name, constraint in constraints.items():
            value = constraint.draw()
            raw = constraint.inverse(value.double()).to(torch.get_default_dtype())
            _check_reached(name, value, constraint, raw)
            free = not isinstance(constraint, Fixed)
            (self.raw if free else self.fixed)[name] = nn.Parameter(raw, requires_grad=free)

    def __getattr__(self, name: str) -> Any:
        constraints = self.__dict__.get("constraints", {})
        if name in constraints:
            constraint = constraints[name]
            store = self.fixed if isinstance(constraint, Fixed) else self.raw
            return constraint.forward(store[name])
        try:
            return super().__getattr__(name)
        except AttributeError:
            known = ", ".join(constraints) or "none"
            raise AttributeError(f"Theta has no parameter {name!r}; it has: {known}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("constraints", {}):
            raise AttributeError(f"theta.{name} cannot be assigned; use theta.set({name}=...) to change its value")
        super().__setattr__(name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self.constraints)

    def __len__(self) -> int:
        return len(self.constraints)

    def values(self) -> dict[str, Tensor]:
        """Name -> constrained value, differentiable."""
        return {name: getattr(self, name) for name in self.constraints}

    @property
    def units(self) -> dict[str, str]:
        """Name -> unit."""
        return {name: c.unit for name, c in self.constraints.items()}

    @torch.no_grad()
    def set(self, **values: float | Tensor) -> Theta:
        """Set values in place (not an optimization step), all or, if one is refused, none; returns self.

        >>> Theta(k=Positive()).set(k=2.0).k.item()
        2.0
        """
        new_raw: list[tuple[Tensor, Tensor]] = []
        for name, value in values.items():
            if name not in self.constraints:
                raise ValueError(f"Theta has no parameter {name!r}; it has: {', '.join(self.constraints)}")
            constraint = self.constraints[name]
            store = self.fixed if isinstance(constraint, Fixed) else self.raw
            new = _number(name, value)
            if new.ndim and new.shape != store[name].shape:
                raise ValueError(
                    f"theta.{name} has shape {tuple(store[name].shape)}, got a value of shape {tuple(new.shape)}"
                )
            new = new.expand(store[name].shape)
            if not all(constraint.admits(v) for v in new.flatten().tolist()):
                raise ValueError(f"theta.{name}={value!r} is outside of {constraint.describe()}")
            raw = constraint.inverse(new).to(store[name].dtype)
            _check_reached(name, value, constraint, raw)
            new_raw.append((store[name], raw))
        for raw, new in new_raw:
            raw.copy_(new)
        return self

    def claim(self, owner: nn.Module) -> None:
        """Mark `owner` as the model that this theta belongs to; a second model is refused.

        A model that contains the owner is not a second model.
        """
        known = self.__dict__.get("_owner")
        current = known and known()
        if current is not None and all(current is not module for module in owner.modules()):
            raise ValueError(
                "this Theta already belongs to another model; two models never share a theta. "
                "Build a new hs.Theta(...) inside the model's __init__"
            )
        if current is None:
            self.__dict__["_owner"] = weakref.ref(owner)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_owner"}  # copies start unowned

    def __repr__(self) -> str:
        parts = []
        for name, constraint in self.constraints.items():
            value = getattr(self, name).detach()
            text = f"{value.item():.4g}" if value.ndim == 0 else str([float(f"{v:.4g}") for v in value.flatten()])
            unit = f" {constraint.unit}" if constraint.unit else ""
            parts.append(f"{name}={text}{unit} ({type(constraint).__name__})")
        return f"Theta({', '.join(parts)})"


def _number(name: str, value: Any) -> Tensor:
    """A value for `Theta.set`, in double precision."""
    try:
        found = torch.as_tensor(value)
        if found.is_complex():
            raise TypeError("it is complex")
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"theta.{name} must be a number or a tensor of numbers, got {value!r:.60}") from error


def _check_reached(name: str, value: Any, constraint: Constraint, raw: Tensor) -> None:
    """Refuse a value that the precision of the raw parameter turns into infinity, or into a bound."""
    if not raw.is_meta and not all(map(constraint.admits, constraint.forward(raw).flatten().tolist())):
        shown = value.flatten().tolist()[:3] if isinstance(value, Tensor) else value
        raise ValueError(
            f"theta.{name}={shown!r:.60} is too large, too small or too near a bound for {raw.dtype}: it would be "
            f"outside of {constraint.describe()}; choose another unit, or torch.set_default_dtype(torch.float64)"
        )


_TAKEN = {"raw", "fixed", "constraints", *dir(Theta), *dir(nn.ParameterDict)}


def theta_values(model: nn.Module, params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name -> constrained value for every `Theta` in `model`, from the given raw parameters.

    Names are bare ("omega2") if unique in the model, else prefixed by the path of their `Theta`.
    """
    found: list[tuple[str, str, Tensor]] = []
    for path, module in model.named_modules():
        if isinstance(module, Theta):
            prefix = path + "." if path else ""
            for name, constraint in module.constraints.items():
                store = "fixed" if isinstance(constraint, Fixed) else "raw"
                found.append((path, name, constraint.forward(params[f"{prefix}{store}.{name}"].detach())))
    bare = [name for _, name, _ in found]
    return {name if bare.count(name) == 1 else f"{path}.{name}": value for path, name, value in found}


def entry_labels(name: str, shape: Sequence[int]) -> list[str]:
    """What each number of a parameter is called, in the order of the flattened tensor.

    >>> entry_labels("k", ()), entry_labels("k", (1, 2))
    (['k'], ['k[0,0]', 'k[0,1]'])
    """
    if math.prod(shape) == 1:
        return [name]
    return [f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]
