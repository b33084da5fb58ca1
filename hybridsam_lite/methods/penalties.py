"""Methods that add a penalty to the data loss, or put a constraint on the network's share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hybridsam_lite.device import random_state, set_random_state
from hybridsam_lite.hybrid import Prediction
from hybridsam_lite.methods.base import Method, Names, Outcome, Problem
from hybridsam_lite.sam import Tensors

__all__ = [
    "Aphynity",
    "Dropout",
    "FunctionNorm",
    "JacobianNorm",
    "OnlineOrthogonalization",
    "Orthogonality",
    "WeightDecay",
]


@dataclass(frozen=True)
class WeightDecay(Method):
    """Ridge penalty on phi (never theta): loss + lam/2 |phi|^2.

    Source: Krogh and Hertz, "A simple weight decay can improve generalization", NeurIPS 1991.

    >>> WeightDecay(1e-3).label
    'wd:lam=0.001'
    """

    names: ClassVar[Names] = {"wd": {}}
    needs_phi: ClassVar[bool] = True
    lam: float = 1e-3

    def objective(self, loss: Tensor, prediction: Prediction, params: Tensors, problem: Problem) -> Tensor:
        return ridge(loss, params, problem.phi, problem.hyper["lam"])


def ridge(loss: Tensor, params: Tensors, phi: Collection[str], lam: float | Tensor) -> Tensor:
    """The loss + lam/2 |phi|^2."""
    squares = torch.stack([(params[n] * params[n]).sum() for n in phi])
    return loss + lam / 2 * squares.sum()


@dataclass(frozen=True)
class FunctionNorm(Method):
    """Penalty on the network's output: loss + mu mean f_nn^2; needs `Prediction.network`.

    Source: Takeishi and Kalousis, "Physics-integrated variational autoencoders", NeurIPS 2021
    (arXiv 2102.13156), and the objective of APHYNITY (arXiv 2010.04456) with a fixed multiplier.

    >>> FunctionNorm(0.1).label
    'fn:mu=0.1'
    """

    names: ClassVar[Names] = {"fn": {}}
    needs_network: ClassVar[bool] = True
    mu: float = 1e-2

    def objective(self, loss: Tensor, prediction: Prediction, params: Tensors, problem: Problem) -> Tensor:
        assert prediction.network is not None  # refused before training
        return loss + problem.hyper["mu"] * (prediction.network**2).mean()


@dataclass(frozen=True)
class JacobianNorm(FunctionNorm):
    """Penalty on the network's slope in its inputs: loss + mu mean |J s|^2, J = d f_nn / d inputs.

    s holds each input's standard deviation in the batch, so that mu does not depend on units. |J s|^2 is
    estimated by a difference quotient over 0.001 in one random direction per sample and step; inputs that
    all samples share, or that are no floating-point numbers, are held fixed.

    Source: Hoffman, Roberts and Yaida, "Robust learning with Jacobian regularization", arXiv 1908.02729,
    whose random projections are those of the output.

    >>> JacobianNorm(0.1).label
    'jac:mu=0.1'
    """

    names: ClassVar[Names] = {"jac": {}}

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        step, source, randomness = 1e-3, problem.moment.generator(problem.target.device), random_state()

        def shifted(name: str, x: Tensor) -> Tensor:
            if name in problem.shared or not x.is_floating_point():
                return x
            direction = torch.randn(x.shape, generator=source, dtype=x.dtype, device=x.device)
            return x + step * x.std(0, correction=0, keepdim=True) * direction

        single = not isinstance(problem.inputs, dict)
        named = {"inputs": problem.inputs} if single else problem.inputs
        nearby = {n: shifted(n, x) for n, x in named.items()}

        def slope(p: Tensors, inputs: Any) -> tuple[Prediction, Tensors]:
            here, buffers = problem.predict(p, inputs)
            set_random_state(randomness)  # the same dropout masks
            there, _ = problem.predict(p, nearby["inputs"] if single else nearby)
            assert here.network is not None and there.network is not None  # refused before  # noqa: PT018
            return here._replace(network=(there.network - here.network) / step), buffers

        return super().gradients(replace(problem, predict=slope), params)


@dataclass(frozen=True)
class Dropout(Method):
    """Each entry of phi's weight matrices is zero with probability p in a step, the others 1 / (1 - p) times.

    Weights rather than activations, so that any model works as it is; vectors (biases) are kept. The
    members of a step share the uniform numbers behind the masks. Validation sees all weights; the
    reported training loss does not.

    Source: Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.

    >>> Dropout(0.2).label
    'dropout:p=0.2'
    """

    names: ClassVar[Names] = {"dropout": {}}
    needs_phi: ClassVar[bool] = True
    p: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p >= 1:
            raise ValueError(f"Dropout: p is a probability < 1, got {self.p}")

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        source, p = problem.moment.generator(problem.target.device), problem.hyper["p"]

        def mask(w: Tensor) -> Tensor:
            kept = torch.rand(w.shape, generator=source, device=w.device) >= p
            return (kept / (1 - p)).to(w.dtype)

        masks = {n: mask(params[n]) for n in problem.phi if params[n].ndim > 1}

        def masked(at: Tensors) -> Any:
            return problem({**at, **{n: at[n] * m for n, m in masks.items()}})

        grads, (_, outcome) = problem.derivative(masked)(params)
        return grads, outcome


@dataclass(frozen=True)
class Aphynity(Method):
    """The smallest network that fits: min mean f_nn^2 subject to loss = 0, by a growing multiplier.

    Minimizes multiplier * loss + mean f_nn^2; after each step the multiplier grows by tau * loss. Noisy
    data cannot be fitted exactly, so the multiplier then grows to the end and the penalty fades.

    Args:
        lam: the multiplier at the start.
        tau: its growth rate.

    Source: Yin et al., APHYNITY, ICLR 2021 (arXiv 2010.04456), with one gradient step per
    update of the multiplier.

    >>> Aphynity(lam=10).label
    'aphynity:lam=10'
    """

    names: ClassVar[Names] = {"aphynity": {}}
    needs_network: ClassVar[bool] = True
    lam: float = 1.0
    tau: float = 1.0

    def begin(self, params: Tensors, phi: Collection[str], hyper: Tensors) -> Tensors:
        return {"multiplier": hyper["lam"].clone()}

    def objective(self, loss: Tensor, prediction: Prediction, params: Tensors, problem: Problem) -> Tensor:
        assert prediction.network is not None  # refused before training
        return problem.state["multiplier"] * loss + (prediction.network**2).mean()

    def remember(self, problem: Problem, grads: Tensors, outcome: Outcome) -> Tensors:
        return {"multiplier": problem.state["multiplier"] + problem.hyper["tau"] * outcome.loss}


@dataclass(frozen=True)
class Orthogonality(Method):
    """Penalty on the part of the network's output that lies along the physics.

    Minimizes loss + mu |P f_nn|^2 / N, where P f = f_phys <f_phys, f> / |f_phys|^2 and N counts entries:
    the squared overlap <f_phys, f_nn>^2, normalized by us so that mu does not depend on the size of the
    physics. Needs `Prediction.network` and `Prediction.physics` of one shape.

    Source: OrthoReg (arXiv 2606.19145), which penalizes the overlap of the two parts.

    >>> Orthogonality(0.1).label
    'orth:mu=0.1'
    """

    names: ClassVar[Names] = {"orth": {}}
    needs_network: ClassVar[bool] = True
    mu: float = 1.0

    def refuse(self, prediction: Prediction) -> str | None:
        network, physics = prediction.network, prediction.physics
        if network is not None and (physics is None or physics.shape != network.shape):
            got = "none" if physics is None else f"shapes {tuple(physics.shape)} and {tuple(network.shape)}"
            return (
                f"needs Prediction.physics and Prediction.network of one shape, got {got}; "
                "use hs.FunctionNorm, which needs only the network's output, or hs.SharpnessAware"
            )
        return super().refuse(prediction)

    def objective(self, loss: Tensor, prediction: Prediction, params: Tensors, problem: Problem) -> Tensor:
        network, physics = prediction.network, prediction.physics
        assert network is not None and physics is not None  # refused before training  # noqa: PT018
        overlap, size = (physics * network).sum(), (physics**2).sum()
        return loss + problem.hyper["mu"] * overlap**2 / (size + torch.finfo(size.dtype).tiny) / network.numel()


@dataclass(frozen=True)
class OnlineOrthogonalization(Method):
    """The network may only add what theta cannot: f_nn - P f_nn, P the projector on d physics / d theta.

    In each step the loss is that of physics + f_nn - P f_nn, so that theta fits as if there were no
    network (for a linear theta: least squares) and the network fits the rest. P is that of the batch, from
    central differences over 0.02 in theta's unconstrained units.
    The trained model is an ordinary one, whose network adds its P f_nn too; mu |P f_nn|^2 / N drives it
    to zero. Needs a prediction that is the sum of `Prediction.physics` and `Prediction.network`.

    Source: Rügamer, "A new PHO-rmula for improved performance of semi-structured networks", ICML 2023
    (arXiv 2306.00522), which projects once after training; projecting in each step, and mu, are ours.

    >>> OnlineOrthogonalization().label
    'pho:mu=1'
    """

    names: ClassVar[Names] = {"pho": {}}
    needs_network: ClassVar[bool] = True
    needs_theta: ClassVar[bool] = True
    mu: float = 1.0

    def refuse(self, prediction: Prediction) -> str | None:
        value, network, physics = prediction.value, prediction.network, prediction.physics
        if network is None:
            return super().refuse(prediction)
        if physics is None or not (physics.shape == network.shape == value.shape):
            added = False
        else:
            scale = (physics.abs() + network.abs()).amax()
            added = bool((value - physics - network).abs().amax() <= 8 * torch.finfo(value.dtype).eps * scale)
        if not added:
            return (
                "needs a prediction that is the sum of Prediction.physics and Prediction.network, which this one "
                "is not; use hs.Orthogonality or hs.FunctionNorm, or hs.SharpnessAware, which needs only phi"
            )
        return None

    def gradients(self, problem: Problem, params: Tensors) -> tuple[Tensors, Outcome]:
        def physics(name: str, change: Tensor) -> Tensor:
            found = problem.predict({**params, name: params[name] + change}, problem.inputs)[0].physics
            assert found is not None  # refused before training
            return found.flatten()

        columns = []
        for name, p in params.items():
            if name not in problem.phi:
                for unit in 1e-2 * torch.eye(p.numel(), dtype=p.dtype, device=p.device):
                    change = unit.view(p.shape)
                    columns.append((physics(name, change) - physics(name, -change)) / 2e-2)
        return super().gradients(replace(problem, state={"columns": torch.stack(columns, 1)}), params)

    def objective(self, loss: Tensor, prediction: Prediction, params: Tensors, problem: Problem) -> Tensor:
        assert prediction.network is not None  # refused before training
        network, precision = prediction.network, torch.promote_types(prediction.network.dtype, torch.float32)
        columns, flat = problem.state["columns"].to(precision), network.flatten().to(precision)
        gram, small = columns.T @ columns, torch.finfo(precision)
        ridge = small.eps * gram.trace() + small.tiny  # theta may have no effect on a batch
        weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), columns.T @ flat)
        along = (columns @ weights).view_as(network).to(network.dtype)
        return problem.compare(prediction.value - along, problem.target) + problem.hyper["mu"] * (along**2).mean()
