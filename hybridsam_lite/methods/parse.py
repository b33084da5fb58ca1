"""Methods from their labels, as on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from hybridsam_lite.methods.base import ERM, Method
from hybridsam_lite.methods.penalties import (
    Aphynity,
    Dropout,
    FunctionNorm,
    JacobianNorm,
    OnlineOrthogonalization,
    Orthogonality,
    WeightDecay,
)
from hybridsam_lite.methods.sharpness import (
    FisherSAM,
    FunctionalSAM,
    GradientNorm,
    GroupSAM,
    MomentumSAM,
    RandomPerturbation,
    SharpnessAware,
    UnnormalizedSAM,
)
from hybridsam_lite.methods.staged import SWA, EarlyStopping, PhysicsOnly, TwoStage

__all__ = ["METHODS", "nearest", "parse_method"]

METHODS: tuple[type[Method], ...] = (
    *(ERM, PhysicsOnly, WeightDecay, FunctionNorm, SharpnessAware),
    *(JacobianNorm, Dropout, Aphynity, Orthogonality, OnlineOrthogonalization, TwoStage, EarlyStopping, SWA),
    *(FisherSAM, FunctionalSAM, UnnormalizedSAM, MomentumSAM, GroupSAM, RandomPerturbation, GradientNorm),
)
_BY_NAME = {name: (kind, fixed) for kind in METHODS for name, fixed in kind.names.items()}
_KINDS: dict[Any, type] = {"float": float, "int": int, "str": str}


def parse_method(text: str) -> Method:
    """A method from its label: "erm", "sam:rho=0.1", "asam:rho=1,theta_grad=clean", "wd:lam=1e-3".

    Raises:
        ValueError: unknown name or setting (the nearest known one is suggested), or a bad value.

    >>> parse_method("asam:rho=1").label
    'asam:rho=1'
    """
    if not isinstance(text, str):
        raise TypeError(f"a method's label is a text such as 'sam:rho=0.1', got {text!r:.60}")
    name, _, rest = text.strip().partition(":")
    text, shown = f"{text:.80}", f"{name:.80}"
    if name not in _BY_NAME:
        raise ValueError(f"unknown method {shown!r}{nearest(name, _BY_NAME)}; expected one of: {', '.join(_BY_NAME)}")
    kind, fixed = _BY_NAME[name]
    known = {f.name: _KINDS[f.type] for f in fields(kind) if f.name not in fixed}
    settings: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if key not in known:
            shown, there = f"{key:.80}", ", ".join(known)
            raise ValueError(
                f"method {name!r} has no setting {shown!r}{nearest(key, known)}; its settings are: {there}"
            )
        if key in settings:
            raise ValueError(f"method {text!r} sets {key!r} twice")
        try:
            settings[key] = known[key](value) if equals else None
        except ValueError:
            settings[key] = None
        if settings[key] is None or settings[key] != settings[key]:
            needed = {float: "a number", int: "a whole number", str: "a word"}[known[key]]
            raise ValueError(f"method {text!r}: {key} needs {needed}, got {value[:80]!r}")
    try:
        return kind(**fixed, **settings)
    except ValueError as error:
        raise ValueError(f"method {text!r}: {error!s:.300}") from error


def nearest(word: str, known: Collection[str]) -> str:
    """A suggestion for a misspelt word, or nothing.

    >>> nearest("asm", ["asam", "erm"])
    " (did you mean 'asam'?)"
    """
    if not isinstance(word, str):
        return ""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
