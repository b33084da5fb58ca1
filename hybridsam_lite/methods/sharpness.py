"""Sharpness-aware minimization, its relatives, and the controls it is compared with."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hybridsam_lite.device import random_state, set_random_state
from hybridsam_lite.hybrid import Prediction
from hybridsam_lite.methods.base import Method, Names, Outcome, Problem
from hybridsam_lite.methods.penalties import ridge
from hybridsam_lite.sam import Tensors, partial_gradient, perturbation, sam_gradients, two_passes

__all__ = [
    "FisherSAM",
    "FunctionalSAM",
    "GradientNorm",
    "GroupSAM",
    "MomentumSAM",
    "RandomPerturbation",
    "SharpnessAware",
    "UnnormalizedSAM",
]


SCHEDULES: dict[str, Callable[[float], float]] = {  # share of the steps done -> share of rho
    "constant": lambda done: 1.0,
    "warmup": lambda done: min(1.0, 5 * done),  # in the first fifth of the steps
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),  # down to zero
}


@dataclass(frozen=True)
class SharpnessAware(Method):
    """Sharpness-aware minimization on phi: SAM, or ASAM with `adaptive=True`.

    Args:
        rho: radius of the disturbance; good values for ASAM are about ten times SAM's.
        adaptive: measure the disturbance relative to each weight's size.
        perturb: "phi", or "all" to disturb theta too.
        theta_grad: where theta's gradient is taken, "perturbed" or "clean" (see `hs.SAM`).
        every: disturb in every k-th step only; plain steps, at half the cost, in between.
        part: the share of the batch from which the disturbance is computed; the reported training
            loss is then that part's.
        schedule: rho over the steps: "constant", "warmup" (rises in the first fifth) or "cosine" (falls
            to zero).
        lam: weight decay of phi in both passes, loss + lam/2 |phi|^2; the same for all members of a stack.

    Source: arXiv 2010.01412 (SAM), arXiv 2102.11600 (ASAM); see `hybridsam_lite.sam`.

    >>> SharpnessAware(rho=1, adaptive=True).label
    'asam:rho=1'
    """

    names: ClassVar[Names] = {"sam": {"adaptive": False}, "asam": {"adaptive": True}}
    common: ClassVar[tuple[str, ...]] = ("part", "lam")
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "perturb": ("phi", "all"),
        "theta_grad": ("perturbed", "clean"),
        "schedule": tuple(SCHEDULES),
    }
    needs_phi: ClassVar[bool] = True
    rho: float = 0.05
    adaptive: bool = False
    perturb: str = "phi"
    theta_grad: str = "perturbed"
    every: int = 1
    part: float = 1.0
    schedule: str = "constant"
    lam: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.perturb == "all" and self.theta_grad == "clean":
            raise ValueError("SharpnessAware: theta_grad='clean' contradicts perturb='all'; choose one")
        if not 0 < self.part <= 1:
            raise ValueError(f"SharpnessAware: part is a share of the batch, > 0 and <= 1, got {self.part}")
        if self.part < 1 and self.theta_grad == "clean":
            raise ValueError("SharpnessAware: with part < 1 the clean gradient is not that of the batch; choose one")

    def objective(self, loss: Tensor, prediction: Prediction, params: Tensors, problem: Problem) -> Tensor:
        return ridge(loss, params, problem.phi, self.lam) if self.lam else loss

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        if problem.moment.step % self.every:
            return super().gradients(problem, params)
        theta = [n for n in params if n not in problem.phi]
        grads, (_, outcome) = sam_gradients(
            problem,
            params,
            list(params) if self.perturb == "all" else problem.phi,
            problem.hyper["rho"] * SCHEDULES[self.schedule](problem.moment.done),
            self.adaptive,
            clean=theta if self.theta_grad == "clean" else (),
            has_aux=True,
            ascent=problem.part(self.part) if self.part < 1 else None,
        )
        return grads, outcome


@dataclass(frozen=True)
class _Ascent(Method, ABC):
    """A method that differs from SAM in where it moves phi to before the second gradient."""

    needs_phi: ClassVar[bool] = True

    @abstractmethod
    def move(self, params: Tensors, grads: Tensors, problem: Problem) -> Tensors:
        """Name -> disturbance, from the gradient at the clean point."""

    def disturbed(self, params: Tensors, problem: Problem) -> Collection[str]:
        """Names of what is moved."""
        return problem.phi

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        def move(at: Tensors, grads: Tensors) -> Tensors:
            return self.move(at, grads, problem)

        _, grads, (_, outcome) = two_passes(problem, params, self.disturbed(params, problem), move, has_aux=True)
        return grads, outcome


@dataclass(frozen=True)
class UnnormalizedSAM(_Ascent):
    """SAM with e = rho g instead of rho g / |g|: no pull along a valley once the data are fitted.

    Source: Dai, Ahn and Sra, "The crucial role of normalization in sharpness-aware minimization",
    NeurIPS 2023 (arXiv 2305.15287).

    >>> UnnormalizedSAM(0.1).label
    'usam:rho=0.1'
    """

    names: ClassVar[Names] = {"usam": {}}
    rho: float = 0.05

    def move(self, params: Tensors, grads: Tensors, problem: Problem) -> Tensors:
        return {n: problem.hyper["rho"].to(g.dtype) * g for n, g in grads.items()}


@dataclass(frozen=True)
class FisherSAM(_Ascent):
    """SAM in an ellipsoid e'Fe <= rho^2, with the diagonal F_i = (g_i^2 / mean g^2 + damping) / (1 + damping).

    g is the gradient of the batch. Both normalizations are ours: F has mean 1, so that rho means the same
    as in SAM, and damping -> infinity is SAM. Without damping the sharpness would be nearly constant and
    select nothing.

    Source: Kim et al., "Fisher SAM", ICML 2022 (arXiv 2206.04920).

    >>> FisherSAM(0.1, damping=0.5).label
    'fisher:rho=0.1,damping=0.5'
    """

    names: ClassVar[Names] = {"fisher": {}}
    rho: float = 0.05
    damping: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.damping == 0:
            raise ValueError("FisherSAM: damping must be > 0, or weights without gradient could move anywhere")

    def move(self, params: Tensors, grads: Tensors, problem: Problem) -> Tensors:
        count, damping = sum(g.numel() for g in grads.values()), problem.hyper["damping"]
        unit = perturbation(params, grads, math.sqrt(count))  # g / root mean square g
        fisher = {n: (u**2 + damping.to(u.dtype)) / (1 + damping.to(u.dtype)) for n, u in unit.items()}
        root = {n: f.sqrt() for n, f in fisher.items()}
        ball = perturbation(params, {n: u / root[n] for n, u in unit.items()}, problem.hyper["rho"])
        return {n: b / root[n] for n, b in ball.items()}  # F^-1/2 of the ball's step is the ellipsoid's


@dataclass(frozen=True)
class GroupSAM(_Ascent):
    """SAM on phi and theta with a radius for each.

    Args:
        rho, rho_theta: radii of phi and of theta (theta in its unconstrained units).
        norm: "joint": one ellipsoid, e_b = rho_b^2 g_b / sqrt(sum_c rho_c^2 |g_c|^2); "per_group": a
            product of balls, e_b = rho_b g_b / |g_b|. They are different algorithms: in a product each
            group moves by its full radius, however little the loss depends on it.

    Source: the first-order maximizers of `hybridsam_lite.sam` on the two sets.

    >>> GroupSAM(0.1, 0.01, norm="per_group").label
    'groupsam:rho=0.1,rho_theta=0.01,norm=per_group'
    """

    names: ClassVar[Names] = {"groupsam": {}}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"norm": ("joint", "per_group")}
    rho: float = 0.05
    rho_theta: float = 0.0
    norm: str = "joint"

    def disturbed(self, params: Tensors, problem: Problem) -> Collection[str]:
        return list(params)

    def move(self, params: Tensors, grads: Tensors, problem: Problem) -> Tensors:
        rho, rho_theta = problem.hyper["rho"], problem.hyper["rho_theta"]
        if self.norm == "per_group":
            theta = {n: g for n, g in grads.items() if n not in problem.phi}
            phi = {n: g for n, g in grads.items() if n in problem.phi}
            return {**perturbation(params, phi, rho), **perturbation(params, theta, rho_theta)}
        radius = {n: (rho if n in problem.phi else rho_theta).to(g.dtype) for n, g in grads.items()}
        unit = perturbation(params, {n: radius[n] * g for n, g in grads.items()}, 1.0)
        return {n: radius[n] * u for n, u in unit.items()}


@dataclass(frozen=True)
class FunctionalSAM(Method):
    """SAM through the network's Jacobian only: gradient J(phi + e)' l'(f(phi)), the loss's slope l' clean.

    For the squared error the gradient is zero as soon as the data are fitted.

    Source: Singh et al., "Avoiding spurious sharpness minimization broadens applicability of SAM", ICML
    2025 (arXiv 2502.02407).

    >>> FunctionalSAM(0.1).label
    'funcsam:rho=0.1'
    """

    names: ClassVar[Names] = {"funcsam": {}}
    needs_phi: ClassVar[bool] = True
    rho: float = 0.05

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        randomness = random_state()
        first, (_, outcome) = partial_gradient(problem, params, problem.phi, has_aux=True)
        slope = torch.func.grad(lambda value: problem.compare(value, problem.target))(outcome.value)

        def along_slope(value: Tensor, target: Tensor) -> Tensor:
            return (value * slope).sum()

        e = perturbation(params, first, problem.hyper["rho"])
        set_random_state(randomness)
        linear = replace(problem, compare=along_slope)
        grads, _ = problem.derivative(linear)({**params, **{n: params[n] + e[n] for n in e}})
        return grads, outcome


@dataclass(frozen=True)
class MomentumSAM(Method):
    """SAM whose disturbance follows a running average of gradients: one gradient per step.

    e = -rho m / |m|, where m is the average of the gradients at the disturbed points: near a valley the
    gradients alternate, so that against the average is uphill. The reported training loss is the one at
    the disturbed weights.

    Args:
        rho: radius of the disturbance.
        beta: m <- beta m + (1 - beta) g.

    Source: Becker, Altrock and Risse, "Momentum-SAM", arXiv 2401.12033; on phi only, and with an average
    in place of the optimizer's momentum.

    >>> MomentumSAM(0.1).label
    'msam:rho=0.1'
    """

    names: ClassVar[Names] = {"msam": {}}
    needs_phi: ClassVar[bool] = True
    rho: float = 0.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta >= 1:
            raise ValueError(f"MomentumSAM: beta must be < 1, got {self.beta}")

    def begin(self, params: Tensors, phi: Collection[str], hyper: Tensors) -> Tensors:
        return {n: torch.zeros_like(params[n]) for n in phi}

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        e = perturbation(params, problem.state, problem.hyper["rho"])
        return super().gradients(problem, {**params, **{n: params[n] - e[n] for n in e}})

    def remember(self, problem: Problem, grads: Tensors, outcome: Outcome) -> Tensors:
        beta = problem.hyper["beta"]
        return {n: beta.to(m.dtype) * m + (1 - beta.to(m.dtype)) * grads[n] for n, m in problem.state.items()}


@dataclass(frozen=True)
class RandomPerturbation(Method):
    """The gradient at phi + e for a random e of length rho: SAM's control of equal radius.

    Args:
        rho: length of e. Over p weights it equals, on average, Gaussian noise of standard deviation
            rho / sqrt(p).
        sides: 2 takes the mean gradient at phi + e and phi - e, at SAM's cost; 1 that at phi + e.

    The members of a step share the direction. The reported training loss is the one at the disturbed
    weights.

    Source: the control is ours; for noise as an explicit regularizer see arXiv 2007.07368.

    >>> RandomPerturbation(0.1).label
    'noise:rho=0.1'
    """

    names: ClassVar[Names] = {"noise": {}}
    needs_phi: ClassVar[bool] = True
    rho: float = 0.05
    sides: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sides > 2:
            raise ValueError(f"RandomPerturbation: sides must be 1 or 2, got {self.sides}")

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        def draw(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=source, dtype=like.dtype, device=like.device)

        source = problem.moment.generator(problem.target.device)
        e = perturbation(params, {n: draw(params[n]) for n in problem.phi}, problem.hyper["rho"])
        randomness = random_state()
        grads, outcome = super().gradients(problem, {**params, **{n: params[n] + e[n] for n in e}})
        if self.sides == 1:
            return grads, outcome
        set_random_state(randomness)
        others, other = super().gradients(problem, {**params, **{n: params[n] - e[n] for n in e}})
        return {n: (g + others[n]) / 2 for n, g in grads.items()}, outcome._replace(
            loss=(outcome.loss + other.loss) / 2
        )


@dataclass(frozen=True)
class GradientNorm(Method):
    """Penalty on the size of phi's gradient: loss + mu |dloss/dphi|.

    The penalty's gradient mu H g / |g| is a difference quotient over a step of length 0.001 along g, so
    that any model works whose gradient can be taken once. The penalty vanishes wherever the data are
    fitted; unlike SAM it therefore selects nothing there.

    Source: Zhao, Zhang and Hu, "Penalizing gradient norm for efficiently improving generalization in
    deep learning", ICML 2022 (arXiv 2202.03599), where the length of the step is a setting.

    >>> GradientNorm(0.1).label
    'gnorm:mu=0.1'
    """

    names: ClassVar[Names] = {"gnorm": {}}
    needs_phi: ClassVar[bool] = True
    mu: float = 0.05

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        step = 1e-3

        def move(at: Tensors, grads: Tensors) -> Tensors:
            return perturbation(at, grads, step)

        first, second, (_, outcome) = two_passes(problem, params, problem.phi, move, also=list(params), has_aux=True)
        mu = problem.hyper["mu"]
        return {n: g + mu.to(g.dtype) * (second[n] - g) / step for n, g in first.items()}, outcome
