"""How to train: each method is a small frozen dataclass.

A method says what is minimized (`objective`) and with which gradient (`gradients`). Its float fields may
differ between the members of one stack; everything else is structure and is shared by a stack.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from hybridsam_lite.hybrid import Prediction
from hybridsam_lite.sam import Tensors, sam_gradients

__all__ = ["ERM", "FunctionNorm", "Method", "SharpnessAware", "WeightDecay", "parse_method"]

Loss = Callable[[Tensors], Any]


@dataclass(frozen=True)
class Method(ABC):
    """What a method must say; subclasses are plain descriptions without state."""

    needs_network: ClassVar[bool] = False  # whether the objective uses Prediction.network
    needs_phi: ClassVar[bool] = False  # whether it acts on network weights

    def __post_init__(self) -> None:
        for name in self.hyper:
            value: Any = getattr(self, name)  # whatever the caller gave
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                raise ValueError(f"{type(self).__name__}: {name} must be a finite number >= 0, got {value!r}")
            object.__setattr__(self, name, float(value))

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, as on the command line."""

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that tell two variants of the method apart."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def label(self) -> str:
        """Name and settings, as on the command line: "asam:rho=1"."""
        given = [f"{k}={_short(v) if isinstance(v, float) else v}" for k, v in self.settings.items()]
        return self.name + (":" + ",".join(given) if given else "")

    @property
    def hyper(self) -> dict[str, float]:
        """The numbers that may differ between members of a stack."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.type in ("float", float)}

    @property
    def structure(self) -> tuple[Any, ...]:
        """Methods with the same structure can be trained in one stack."""
        static = tuple((f.name, getattr(self, f.name)) for f in fields(self) if f.name not in self.hyper)
        return (type(self).__name__, *static)

    def objective(self, loss: Tensor, prediction: Prediction, phi: Tensors, hyper: Tensors) -> Tensor:
        """What is minimized, from the data loss of one member; a scalar."""
        return loss

    def gradients(self, loss: Loss, params: Tensors, phi: Collection[str], hyper: Tensors) -> tuple[Tensors, Any]:
        """Gradients of one member for all `params`, and what `loss` returned at the clean point."""
        return torch.func.grad_and_value(loss, has_aux=True)(params)


@dataclass(frozen=True)
class ERM(Method):
    """Empirical risk minimization: the data loss, nothing else.

    >>> ERM().label
    'erm'
    """

    @property
    def name(self) -> str:
        return "erm"


@dataclass(frozen=True)
class WeightDecay(Method):
    """Ridge penalty on phi (never theta): loss + lam/2 |phi|^2.

    Source: Krogh and Hertz, "A simple weight decay can improve generalization", NeurIPS 1991.

    >>> WeightDecay(1e-3).label
    'wd:lam=0.001'
    """

    needs_phi: ClassVar[bool] = True
    lam: float = 1e-3

    @property
    def name(self) -> str:
        return "wd"

    def objective(self, loss: Tensor, prediction: Prediction, phi: Tensors, hyper: Tensors) -> Tensor:
        squares = torch.stack([(w * w).sum() for w in phi.values()])
        return loss + hyper["lam"] / 2 * squares.sum()


@dataclass(frozen=True)
class FunctionNorm(Method):
    """Penalty on the network's output: loss + mu mean f_nn^2; needs `Prediction.network`.

    Source: Takeishi and Kalousis, "Physics-integrated variational autoencoders", NeurIPS 2021
    (arXiv 2102.13156), and the objective of APHYNITY (arXiv 2010.04456) with a fixed multiplier.

    >>> FunctionNorm(0.1).label
    'fn:mu=0.1'
    """

    needs_network: ClassVar[bool] = True
    mu: float = 1e-2

    @property
    def name(self) -> str:
        return "fn"

    def objective(self, loss: Tensor, prediction: Prediction, phi: Tensors, hyper: Tensors) -> Tensor:
        assert prediction.network is not None  # refused before training
        return loss + hyper["mu"] * (prediction.network**2).mean()


@dataclass(frozen=True)
class SharpnessAware(Method):
    """Sharpness-aware minimization on phi: SAM, or ASAM with `adaptive=True`.

    Args:
        rho: radius of the disturbance; good values for ASAM are about ten times SAM's.
        adaptive: measure the disturbance relative to each weight's size.
        perturb: "phi", or "all" to disturb theta too.
        theta_grad: where theta's gradient is taken, "perturbed" or "clean" (see `hs.SAM`).

    Source: arXiv 2010.01412 (SAM), arXiv 2102.11600 (ASAM); see `hybridsam_lite.sam`.

    >>> SharpnessAware(rho=1, adaptive=True).label
    'asam:rho=1'
    """

    needs_phi: ClassVar[bool] = True
    rho: float = 0.05
    adaptive: bool = False
    perturb: str = "phi"
    theta_grad: str = "perturbed"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, allowed in (("perturb", ("phi", "all")), ("theta_grad", ("perturbed", "clean"))):
            if getattr(self, field) not in allowed:
                raise ValueError(f"SharpnessAware: {field} must be one of {allowed}, got {getattr(self, field)!r}")
        if self.perturb == "all" and self.theta_grad == "clean":
            raise ValueError("SharpnessAware: theta_grad='clean' contradicts perturb='all'; choose one")

    @property
    def name(self) -> str:
        return "asam" if self.adaptive else "sam"

    @property
    def settings(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"rho": self.rho}
        if self.perturb != "phi":
            shown["perturb"] = self.perturb
        if self.theta_grad != "perturbed":
            shown["theta_grad"] = self.theta_grad
        return shown

    def gradients(self, loss: Loss, params: Tensors, phi: Collection[str], hyper: Tensors) -> tuple[Tensors, Any]:
        theta = [n for n in params if n not in phi]
        return sam_gradients(
            loss,
            params,
            list(params) if self.perturb == "all" else phi,
            hyper["rho"],
            self.adaptive,
            clean=theta if self.theta_grad == "clean" else (),
            has_aux=True,
        )


_BY_NAME: dict[str, Callable[..., Method]] = {
    "erm": ERM,
    "wd": WeightDecay,
    "fn": FunctionNorm,
    "sam": SharpnessAware,
    "asam": lambda **settings: SharpnessAware(adaptive=True, **settings),
}
_SETTINGS: dict[str, dict[str, type]] = {
    "erm": {},
    "wd": {"lam": float},
    "fn": {"mu": float},
    "sam": {"rho": float, "perturb": str, "theta_grad": str},
    "asam": {"rho": float, "perturb": str, "theta_grad": str},
}


def parse_method(text: str) -> Method:
    """A method from its label: "erm", "sam:rho=0.1", "asam:rho=1,theta_grad=clean", "wd:lam=1e-3".

    Raises:
        ValueError: unknown name or setting (the nearest known one is suggested), or a bad value.

    >>> parse_method("asam:rho=1").label
    'asam:rho=1'
    """
    name, _, rest = text.strip().partition(":")
    if name not in _BY_NAME:
        raise ValueError(f"unknown method {name!r}{nearest(name, _BY_NAME)}; expected one of: {', '.join(_BY_NAME)}")
    known = _SETTINGS[name]
    settings: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if key not in known:
            allowed = f"its settings are: {', '.join(known)}" if known else "it has no settings"
            raise ValueError(f"method {name!r} has no setting {key!r}{nearest(key, known)}; {allowed}")
        if key in settings:
            raise ValueError(f"method {text!r} sets {key!r} twice")
        try:
            settings[key] = known[key](value) if equals else float("nan")
        except ValueError:
            settings[key] = float("nan")
        if settings[key] != settings[key]:
            raise ValueError(
                f"method {text!r}: {key} needs a {'number' if known[key] is float else 'word'}, got {value!r}"
            )
    try:
        return _BY_NAME[name](**settings)
    except ValueError as error:
        raise ValueError(f"method {text!r}: {error}") from error


def _short(x: float) -> str:
    """The shortest text that reads back as the same number: 1 rather than 1.0."""
    return f"{x:g}" if float(f"{x:g}") == x else repr(x)


def nearest(word: str, known: Collection[str]) -> str:
    """A suggestion for a misspelt word, or nothing.

    >>> nearest("asm", ["asam", "erm"])
    " (did you mean 'asam'?)"
    """
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
