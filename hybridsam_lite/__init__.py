"""hybridsam_lite: learning deep hybrid models with sharpness-aware minimization.

    import hybridsam_lite as hs

See the README for a first example and the book for the method.
"""

from importlib.metadata import PackageNotFoundError, version

from hybridsam_lite import tasks
from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp, param_groups, roles
from hybridsam_lite.integrate import SolverError, odeint
from hybridsam_lite.methods import (
    ERM,
    FunctionNorm,
    Method,
    SharpnessAware,
    WeightDecay,
    parse_method,
)
from hybridsam_lite.runs import Runs
from hybridsam_lite.sam import SAM, perturbation, sam_gradients
from hybridsam_lite.theta import Fixed, Interval, Positive, Real, Theta
from hybridsam_lite.train import fit

try:
    __version__ = version("hybridsam-lite")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

__all__ = [
    "ERM",
    "SAM",
    "Data",
    "Fixed",
    "FunctionNorm",
    "HybridModel",
    "Interval",
    "Method",
    "Positive",
    "Prediction",
    "Real",
    "Runs",
    "SharpnessAware",
    "SolverError",
    "Theta",
    "WeightDecay",
    "fit",
    "mlp",
    "odeint",
    "param_groups",
    "parse_method",
    "perturbation",
    "roles",
    "sam_gradients",
    "tasks",
]
