"""The loss of one model on one data set as a function of two flat vectors, phi and theta.

All derivatives are products with vectors, by double backward passes through one stored graph; no matrix
of the size of phi is ever built. `curvature` and `diagnose` stand on this.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hybridsam_lite.checks import LossFunction, mean_squared_error, probe
from hybridsam_lite.data import Data, Inputs, as_data
from hybridsam_lite.device import kept_random_state
from hybridsam_lite.hybrid import Prediction, as_prediction, roles
from hybridsam_lite.theta import Constraint, Interval, Real, Theta, entry_labels

__all__ = ["Landscape", "Product", "ThetaEntry", "of_landscape"]

Product = Callable[[Tensor], Tensor]
P = ParamSpec("P")
R = TypeVar("R")

INTERPOLATION = 0.01  # loss / loss of the best constant, below which the Gauss-Newton form is used


@dataclass(frozen=True)
class ThetaEntry:
    """One number of theta: its label, value and unit, and what counts as a typical change ("its range").

    The range is half the width of an `hs.Interval`, the constraint's `unit_of_change` of another
    `hs.Theta` entry, and the size of the value itself (1 if zero) in a model without `hs.Theta`.
    """

    label: str
    value: float
    slope: float  # d value / d coordinate of the flat vector
    range: float
    step: float  # the range in units of the coordinate: 1 with hs.Theta, whose raw numbers are scaled already
    unit: str
    constraint: Constraint

    @property
    def reach(self) -> tuple[float, float]:
        """How far one may go down and up: the range, or 95 % of the way to a bound."""
        low, high = -math.inf, math.inf
        if isinstance(self.constraint, Interval):
            low, high = self.constraint.low, self.constraint.high
        elif not self.constraint.admits(0.0):
            low = 0.0
        return min(self.range, 0.95 * (self.value - low)), min(self.range, 0.95 * (high - self.value))


class Landscape:
    """A model's loss on data as a function of two flat vectors, phi and theta.

    Works on a copy of the model, in evaluation mode: the model itself is left as it is.

    Args:
        model: any module; frozen parameters are constants.
        data: `hs.Data` or an (inputs, target) pair, at least two samples.
        theta: names of theta in a model written without `hs.Theta`, as in `hs.roles`.
        loss: (prediction, target) -> scalar, sample axis first.
        dtype: precision of the computation, whatever the model's own.

    Attributes:
        phi, theta: the trained parameters, shapes (p,) and (q,); theta as the optimizer sees it.
        entries: what each number of theta is, a list of `ThetaEntry`.
        value: the loss at the trained parameters.

    Raises:
        ValueError, TypeError: for data, names, parameters or outputs that cannot work.

    >>> import hybridsam_lite as hs
    >>> _ = torch.manual_seed(0)
    >>> x = torch.linspace(-1, 1, 8)[:, None]
    >>> at = Landscape(hs.mlp(1, [4], 1), (x, 2 * x), theta=["2.bias"])
    >>> at.phi.shape, [entry.label for entry in at.entries]
    (torch.Size([12]), ['2.bias'])
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data | tuple[Inputs, Tensor],
        *,
        theta: Sequence[str] = (),
        loss: LossFunction = mean_squared_error,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"diagnose needs a model, an nn.Module, got {type(model).__name__}")
        if isinstance(theta, str):
            raise TypeError(f"diagnose: theta is a list of names, got {theta!r}; use theta=[{theta!r}]")
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"diagnose: dtype must be torch.float32 or torch.float64, got {dtype!r:.60}")
        data = as_data(data)
        if len(data) < 2:
            raise ValueError(
                "diagnose: got 1 sample, expected at least 2; cut a long series into windows that each are a sample"
            )
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for name, p in named.items():
            if p.is_complex():
                raise ValueError(
                    f"diagnose: parameter {name!r} is complex, expected real numbers; "
                    "register the real and imaginary part as two parameters"
                )
            if not torch.isfinite(p).all():
                raise ValueError(f"diagnose: parameter {name!r} is not finite; this model diverged, take another")
        role_of = roles(model, theta)
        with kept_random_state():
            self.model = copy.deepcopy(model).eval().to(dtype)
            self._data = data.to(next((p.device for p in named.values()), torch.device("cpu")), dtype)
            self._loss = loss
            self._fixed = {
                n: x.detach()
                for n, x in (*self.model.named_parameters(), *self.model.named_buffers())
                if n not in named
            }
            self.names = {role: [n for n in named if role_of[n] == role] for role in ("phi", "theta")}
            self._shapes = {n: p.shape for n, p in named.items()}
            self._axis = self._check()
            moving = {n: p.detach() for n, p in self.model.named_parameters() if n in named}
            self.phi, self.theta = (self._flat(moving, role) for role in ("phi", "theta"))
            self.entries = _describe(model, {n: moving[n] for n in self.names["theta"]})
            with torch.no_grad():
                self.output_shape = self.output(self.phi, self.theta).shape
                first, again = (self.loss(self.phi, self.theta) for _ in range(2))
        self.value = first.item()
        if not math.isfinite(self.value):
            raise FloatingPointError(f"diagnose: the loss is {self.value}; this model diverged, take another")
        if again.item() != self.value:
            raise ValueError(
                "diagnose: two evaluations of the model differ, although it is in evaluation mode; "
                "switch its random numbers off when `self.training` is False"
            )

    def _check(self) -> int:
        """The prediction's sample axis; what is wrong with a prediction is found here."""
        try:
            return probe([self.model], self._data, self._loss, [])
        except ValueError as error:
            raise ValueError(f"diagnose: {str(error).removeprefix('fit: ')}") from error
        except RuntimeError as error:
            raise RuntimeError(
                f"diagnose: the model does not run in {self._data.target.dtype}: {error}; if it is written for another "
                "precision, pass dtype=torch.float32"
            ) from error

    def _flat(self, named: dict[str, Tensor], role: str) -> Tensor:
        parts = [named[n].reshape(-1) for n in self.names[role]]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=self._data.target.dtype)

    def named(self, phi: Tensor, theta: Tensor) -> dict[str, Tensor]:
        """Name -> parameter, cut from the flat vectors."""
        found = {}
        for role, flat in (("phi", phi), ("theta", theta)):
            sizes = [self._shapes[n].numel() for n in self.names[role]]
            for name, part in zip(self.names[role], flat.split(sizes), strict=True):
                found[name] = part.reshape(self._shapes[name])
        return found

    def prediction(self, phi: Tensor, theta: Tensor) -> Prediction:
        """The model's prediction on the data at given parameters."""
        state = {**self._fixed, **self.named(phi, theta)}
        return as_prediction(functional_call(self.model, state, (self._data.inputs,)))

    def output(self, phi: Tensor, theta: Tensor) -> Tensor:
        """The predicted value, sample axis first."""
        return self.aligned(self.prediction(phi, theta).value)

    def aligned(self, value: Tensor) -> Tensor:
        """A predicted value with the sample axis first."""
        return value.movedim(self._axis, 0)

    def loss(self, phi: Tensor, theta: Tensor) -> Tensor:
        """The loss at given parameters; infinite where the model's solver fails."""
        try:
            return self._loss(self.output(phi, theta), self.target)
        except FloatingPointError:
            return (phi.sum() + theta.sum()) * 0 + math.inf

    @property
    def interpolates(self) -> bool:
        """Whether the loss is below 1 % of that of the mean target, so that residuals hardly bend it."""
        if self.output_shape != self.target.shape:
            return False
        mean = self.target.mean(0, keepdim=True).expand_as(self.target)
        return self.value < INTERPOLATION * self._loss(mean, self.target).item()

    @property
    def target(self) -> Tensor:
        """The data's target, in the precision of the computation."""
        return self._data.target

    def vector(self, role: str) -> Tensor:
        """The trained phi or theta, flat; an error if there is none."""
        if role not in ("phi", "theta"):
            raise ValueError(f"role must be 'phi' or 'theta', got {role!r}")
        found = self.phi if role == "phi" else self.theta
        if not len(found):
            where = (
                "outside of hs.Theta"
                if role == "phi"
                else "in an hs.Theta; or name some: theta=['physics.k'] (theta inferred per sample has none)"
            )
            raise ValueError(
                f"diagnose: {type(self.model).__name__} has no {role}: expected a trainable parameter {where}. "
                f"It has: {', '.join(self._shapes)}"
            )
        return found

    def scale(self, role: str, adaptive: bool = False) -> Tensor:
        """What a step of 1 along each coordinate is, in the flat vector's units.

        For theta its range; for phi 1; for both the coordinate's own size if `adaptive`.
        """
        if adaptive:
            return self.vector(role).abs()
        if role == "phi":
            return torch.ones_like(self.phi)
        return torch.tensor([entry.step for entry in self.entries], dtype=torch.float64).to(self.vector("theta"))

    @contextmanager
    def _tracked(self) -> Iterator[tuple[Tensor, Tensor]]:
        with torch.enable_grad(), kept_random_state():
            yield self.phi.clone().requires_grad_(), self.theta.clone().requires_grad_()

    def gradient(self, role: str, phi: Tensor, theta: Tensor) -> tuple[Tensor, float]:
        """Gradient of the loss for one role at given parameters, and the loss."""
        with torch.enable_grad(), kept_random_state():
            at = {"phi": phi.detach(), "theta": theta.detach()}
            at[role] = at[role].clone().requires_grad_()
            value = self.loss(at["phi"], at["theta"])
            return _grad(value, at[role]), value.item()

    def joint_gradient(self, x: Tensor) -> tuple[Tensor, float]:
        """Gradient of the loss by (phi, theta) in one vector, and the loss."""
        with torch.enable_grad(), kept_random_state():
            x = x.detach().clone().requires_grad_()
            value = self.loss(x[: len(self.phi)], x[len(self.phi) :])
            return _grad(value, x), value.item()

    @cached_property
    def _linear(self) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
        """The graph of the prediction, and of its derivative's transpose as a function of a dual vector."""
        with self._tracked() as (phi, theta):
            f = self.output(phi, theta).reshape(-1)
            dual = torch.zeros_like(f, requires_grad=True)
            pulled = torch.autograd.grad(f, [phi, theta], dual, create_graph=True, materialize_grads=True)
        return f, phi, theta, dual, list(pulled)

    def theta_columns(self, part: Callable[[Prediction], Tensor]) -> Tensor:
        """Derivative of a part of the prediction by theta, in units of its ranges, (entries of the part, q)."""
        with self._tracked() as (phi, theta):
            f = part(self.prediction(phi, theta)).reshape(-1)
            dual = torch.zeros_like(f, requires_grad=True)
            pulled = torch.zeros_like(theta)
            if f.requires_grad:
                (pulled,) = torch.autograd.grad(f, theta, dual, create_graph=True, materialize_grads=True)
            steps = torch.tensor([e.range / e.slope if e.slope else 0.0 for e in self.entries], dtype=torch.float64).to(
                theta
            )
            return torch.stack([_grad(pulled, dual, v) for v in torch.diag(steps)], 1)

    def pull(self, role: str, u: Tensor) -> Tensor:
        """J'u: the derivative's transpose times a vector of the size of the prediction."""
        f, phi, theta, _, _ = self._linear
        return _grad(f, phi if role == "phi" else theta, u)

    def push(self, role: str, v: Tensor) -> Tensor:
        """Jv: how the prediction changes along a direction of phi or theta."""
        _, _, _, dual, pulled = self._linear
        return _grad(pulled[role == "theta"], dual, v)

    @cached_property
    def _slope_graph(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with self._tracked() as (phi, theta):
            value = self.loss(phi, theta)
            grads = torch.autograd.grad(value, [phi, theta], create_graph=True, materialize_grads=True)
        return {"phi": phi, "theta": theta}, dict(zip(("phi", "theta"), grads, strict=True))

    def hessian(self, role: str) -> Product:
        """The Hessian of the loss in one role, as a function v -> Hv."""
        at, grads = self._slope_graph
        return lambda v: _grad(grads[role], at[role], v)

    def gauss_newton(self, role: str) -> Product:
        """The Gauss-Newton form, v -> J'AJv with A the loss's second derivative by the prediction."""
        return lambda v: self.pull(role, self.loss_curvature(self.push(role, v)))

    def loss_curvature(self, u: Tensor) -> Tensor:
        """Au: the second derivative of the loss by the prediction, times a vector of its size."""
        f, grad = self._loss_graph
        return _grad(grad, f, u)

    @cached_property
    def _loss_graph(self) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            f = self._linear[0].detach().clone().requires_grad_()
            value = self._loss(f.reshape(self.output_shape), self.target)
            return f, torch.autograd.grad(value, f, create_graph=True)[0]

    @property
    def predicted(self) -> Tensor:
        """The prediction at the trained parameters, sample axis first."""
        return self._linear[0].detach().reshape(self.output_shape)


def of_landscape(function: Callable[P, R]) -> Callable[P, R]:
    """Refuses calls whose first argument is no `Landscape`, and says how to make one."""

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0] if args else kwargs.get("at")
        if not isinstance(first, Landscape):
            name, got = function.__name__, type(first).__name__
            raise TypeError(f"{name}: expected a Landscape, got {got}; use hs.{name}(hs.Landscape(model, data), ...)")
        return function(*args, **kwargs)

    return checked


def _grad(y: Tensor, x: Tensor, v: Tensor | None = None) -> Tensor:
    """J'v of y(x); zero where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(y, x, v, retain_graph=True, materialize_grads=True)[0].detach()


def _describe(model: nn.Module, values: dict[str, Tensor]) -> list[ThetaEntry]:
    """One `ThetaEntry` for each number of theta, in the order of the flat vector."""
    known: dict[str, tuple[str, Constraint]] = {}
    thetas = [(path, m) for path, m in model.named_modules() if isinstance(m, Theta)]
    bare = [name for _, m in thetas for name in m.constraints]
    for path, module in thetas:
        for name, constraint in module.constraints.items():
            label = name if bare.count(name) == 1 else f"{path}.{name}"
            known[f"{path}.raw.{name}".lstrip(".")] = (label, constraint)
    entries = []
    for name, raw in values.items():
        label, constraint = known.get(name) or (name, Real())
        raw = raw.clone().requires_grad_()
        with torch.enable_grad():
            value = constraint.forward(raw)
            slopes = _grad(value.sum(), raw).reshape(-1).tolist()
        for entry, v, slope in zip(entry_labels(label, raw.shape), value.reshape(-1).tolist(), slopes, strict=True):
            entries.append(_entry(entry, v, slope, constraint, name in known))
    return entries


def _entry(label: str, value: float, slope: float, constraint: Constraint, described: bool) -> ThetaEntry:
    if not described:  # without hs.Theta: Real() is the identity
        size = abs(value) or 1.0
        return ThetaEntry(label, value, slope, size, size, "", constraint)
    width = (constraint.high - constraint.low) / 2 if isinstance(constraint, Interval) else constraint.unit_of_change
    return ThetaEntry(label, value, slope, width, 1.0, constraint.unit, constraint)
