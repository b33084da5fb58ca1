"""hybridsam_lite: learning deep hybrid models with sharpness-aware minimization.

    import hybridsam_lite as hs

See the README for a first example and the book for the method.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING

from hybridsam_lite.curvature import gradients, sharpness, spectrum
from hybridsam_lite.data import Data
from hybridsam_lite.diagnose import Report, diagnose, seed_spread
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp, param_groups, roles
from hybridsam_lite.information import information, shares
from hybridsam_lite.integrate import SolverError, odeint
from hybridsam_lite.landscape import Landscape
from hybridsam_lite.likelihood import profile
from hybridsam_lite.methods import (
    ERM,
    SWA,
    Aphynity,
    Dropout,
    EarlyStopping,
    FisherSAM,
    FunctionalSAM,
    FunctionNorm,
    GradientNorm,
    GroupSAM,
    JacobianNorm,
    Method,
    MomentumSAM,
    OnlineOrthogonalization,
    Orthogonality,
    PhysicsOnly,
    RandomPerturbation,
    SharpnessAware,
    TwoStage,
    UnnormalizedSAM,
    WeightDecay,
    parse_method,
)
from hybridsam_lite.runs import Runs
from hybridsam_lite.sam import SAM, perturbation, sam_gradients
from hybridsam_lite.select import select
from hybridsam_lite.theta import Fixed, Interval, Positive, Real, Theta
from hybridsam_lite.train import fit
from hybridsam_lite.uncertainty import intervals

if TYPE_CHECKING:
    from hybridsam_lite import exercises, explorers, plots, tasks, widgets

try:
    __version__ = version("hybridsam-lite")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

__all__ = [
    "ERM",
    "SAM",
    "SWA",
    "Aphynity",
    "Data",
    "Dropout",
    "EarlyStopping",
    "FisherSAM",
    "Fixed",
    "FunctionNorm",
    "FunctionalSAM",
    "GradientNorm",
    "GroupSAM",
    "HybridModel",
    "Interval",
    "JacobianNorm",
    "Landscape",
    "Method",
    "MomentumSAM",
    "OnlineOrthogonalization",
    "Orthogonality",
    "PhysicsOnly",
    "Positive",
    "Prediction",
    "RandomPerturbation",
    "Real",
    "Report",
    "Runs",
    "SharpnessAware",
    "SolverError",
    "Theta",
    "TwoStage",
    "UnnormalizedSAM",
    "WeightDecay",
    "diagnose",
    "exercises",
    "explorers",
    "fit",
    "gradients",
    "information",
    "intervals",
    "mlp",
    "odeint",
    "param_groups",
    "parse_method",
    "perturbation",
    "plots",
    "profile",
    "roles",
    "sam_gradients",
    "seed_spread",
    "select",
    "shares",
    "sharpness",
    "spectrum",
    "tasks",
    "widgets",
]

_WHEN_ASKED_FOR = ("exercises", "explorers", "plots", "tasks", "widgets")  # a start-up needs none of them


def __getattr__(name: str) -> ModuleType:
    if name in _WHEN_ASKED_FOR:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHEN_ASKED_FOR})
