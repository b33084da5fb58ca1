"""How to train: each method is a small frozen dataclass.

`base` says what a method is; `penalties`, `sharpness` and `staged` hold the methods; `parse` makes them
from labels. Float fields may differ between the members of one stack; everything else is structure and is
shared by a stack.
"""

from hybridsam_lite.methods.base import ERM, Method, Moment, Outcome, Problem
from hybridsam_lite.methods.parse import METHODS, nearest, parse_method
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

__all__ = [
    "ERM",
    "METHODS",
    "SWA",
    "Aphynity",
    "Dropout",
    "EarlyStopping",
    "FisherSAM",
    "FunctionNorm",
    "FunctionalSAM",
    "GradientNorm",
    "GroupSAM",
    "JacobianNorm",
    "Method",
    "Moment",
    "MomentumSAM",
    "OnlineOrthogonalization",
    "Orthogonality",
    "Outcome",
    "PhysicsOnly",
    "Problem",
    "RandomPerturbation",
    "SharpnessAware",
    "TwoStage",
    "UnnormalizedSAM",
    "WeightDecay",
    "nearest",
    "parse_method",
]
