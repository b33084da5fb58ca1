"""What `fit` checks before it trains: everything that can be wrong with its arguments is found here."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import Prediction, as_prediction, roles
from hybridsam_lite.methods import Method, parse_method
from hybridsam_lite.theta import Theta

__all__ = [
    "LossFunction",
    "check_counts",
    "check_entrywise",
    "check_plan",
    "check_rates",
    "mean_squared_error",
    "probe",
]

LossFunction = Callable[[Tensor, Tensor], Tensor]


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all entries; the shapes must be equal."""
    return ((prediction - target) ** 2).mean()


def check_plan(methods: Sequence[Method | str], seeds: Iterable[int]) -> list[tuple[Method, int]]:
    """The members to train: every method with every seed."""
    if isinstance(methods, (str, Method)):
        methods = [methods]
    parsed = [parse_method(m) if isinstance(m, str) else m for m in methods]
    if not isinstance(seeds, Iterable):
        raise TypeError(f"fit: seeds must be several integers, such as range(8), got {seeds!r}")
    chosen: list[Any] = list(seeds)
    if not all(isinstance(s, (int, np.integer)) and 0 <= s < 2**63 for s in chosen):
        raise ValueError(f"fit: seeds must be integers >= 0 (and < 2**63), got {chosen}")
    for method in parsed:
        if not isinstance(method, Method):
            raise TypeError(f"fit: methods must be methods or labels such as 'sam:rho=0.1', got {method!r}")
    for name, given in (("methods", [m.label for m in parsed]), ("seeds", chosen)):
        if not given:
            raise ValueError(f"fit: {name} is empty; give at least one")
        if len(set(given)) != len(given):
            raise ValueError(f"fit: {name} holds duplicates: {given}")
    return [(m, int(s)) for m in parsed for s in chosen]


def check_counts(**counts: Any) -> None:
    """Positive integers, or None."""
    for name, value in counts.items():
        if value is not None and not (isinstance(value, (int, np.integer)) and value > 0):
            raise ValueError(f"fit: {name} must be a positive integer, got {value!r}")


def check_rates(**rates: Any) -> None:
    """Positive finite numbers, or None."""
    for name, value in rates.items():
        if value is not None and not (isinstance(value, (int, float)) and 0 < value < math.inf):
            raise ValueError(f"fit: {name} must be a positive number, got {value!r}")


def check_same_theta(models: dict[int, nn.Module]) -> None:
    """A stack has one description of theta (bounds, scale, initial range) for all its members."""
    described = {
        seed: [dict(m.constraints) for m in model.modules() if isinstance(m, Theta)] for seed, model in models.items()
    }
    first = next(iter(described))
    for seed, constraints in described.items():
        if constraints != described[first]:
            raise ValueError(
                f"fit: the model of seed {seed} has theta {constraints}, which are not those of seed {first}, "
                f"{described[first]}; to start each seed elsewhere give a range, init=(low, high)"
            )


def check_entrywise(
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
) -> None:
    """Refuse an optimizer with which one member's gradient would change another member's step.

    Raises:
        TypeError: if `optimizer` makes no optimizer.
        ValueError: if its step is not entry by entry.
    """
    ends = []
    for others in (0.0, 1.0):
        torch.manual_seed(0)
        weights, grad = torch.ones(2, 3, 3), torch.rand(2, 3, 3)
        made = optimizer([{"params": [weights], "lr": 0.1, "base_lr": 0.1}])
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(f"fit: optimizer must make a torch.optim.Optimizer, got {type(made).__name__}")
        for _ in range(2):
            weights.grad = torch.stack([grad[0], others * grad[1]])
            made.step()
        ends.append(weights[0].clone())
    if not torch.equal(*ends):
        raise ValueError(
            f"fit: {type(made).__name__} does not act entry by entry, so that the members of a stack would "
            "influence each other; use an optimizer such as Adam, AdamW, RMSprop or SGD"
        )


def probe(models: list[nn.Module], data: Data, loss: LossFunction, methods: list[Method]) -> int:
    """Run an untrained model on two and on three samples; returns the prediction's sample axis.

    Everything that can be wrong with a model's output is found here, before training. A model whose
    physics blows up at its very start is passed over: training will mark it as diverged.
    """
    for model in models:
        try:
            return _probe_one(copy.deepcopy(model).eval(), data, loss, methods)
        except FloatingPointError as error:
            failure = error
    raise failure


@torch.no_grad()
def _probe_one(model: nn.Module, data: Data, loss: LossFunction, methods: list[Method]) -> int:
    role_of = roles(model)
    trained = {role_of[n] for n, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(f"fit: {type(model).__name__} has no trainable parameter")
    missing = {
        "phi": "acts on the network's weights, but {} has no trainable parameter outside hs.Theta; use hs.ERM",
        "theta": "acts on global scientific parameters, but {} has no trainable one inside hs.Theta; use "
        "hs.SharpnessAware or hs.WeightDecay, which need only phi",
    }
    for method in methods:
        for role, needed in (("phi", method.needs_phi), ("theta", method.needs_theta)):
            if needed and role not in trained:
                raise ValueError(f"fit: {type(method).__name__} {missing[role].format(type(model).__name__)}")
    predictions: list[Prediction] = []
    for count in (2, 3):
        part = data.take(torch.arange(count, device=data.target.device) % len(data))
        predictions.append(as_prediction(model(part.inputs)))
    two, three = (p.value for p in predictions)
    axes = [i for i, (a, b) in enumerate(zip(two.shape, three.shape, strict=False)) if (a, b) == (2, 3)]
    target = (2, *data.target.shape[1:])
    fits = two.ndim == three.ndim and len(axes) == 1
    if fits and loss is mean_squared_error:  # another loss may compare other shapes (class scores with labels)
        fits = tuple(two.movedim(axes[0], 0).shape) == target
    if not fits:
        raise ValueError(
            f"fit: for 2 samples the model predicts shape {tuple(two.shape)}, for 3 {tuple(three.shape)}, but "
            f"the target of 2 samples has shape {target}; exactly one axis must count samples, and the others "
            "must match the target's"
        )
    value = loss(
        two.movedim(axes[0], 0),
        data.take(torch.arange(2, device=data.target.device) % len(data)).target,
    )
    if not isinstance(value, Tensor) or value.ndim != 0:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"fit: loss must return a scalar tensor, got {got}; take the mean")
    for method in methods:
        reason = method.refuse(predictions[0])
        if reason is not None:
            raise ValueError(f"fit: {type(method).__name__} cannot train {type(model).__name__}: it {reason}")
    off = [m for m in methods if m.switches_off]
    if off and not _separable(model, part.inputs, role_of):
        raise ValueError(
            f"fit: {type(off[0]).__name__} switches the network off by zero weights, but the network of "
            f"{type(model).__name__} then returns something else than zero, or theta has no effect on the "
            "prediction any more; use hs.OnlineOrthogonalization, hs.FunctionNorm or hs.SharpnessAware"
        )
    return axes[0]


def _separable(model: nn.Module, inputs: Any, role_of: dict[str, str]) -> bool:
    """Whether zero weights leave physics that depends on theta, and nothing of the network."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for n, p in trained.items():
        if role_of[n] == "phi":
            p.zero_()
    with torch.enable_grad():
        prediction = as_prediction(model(inputs))
        mixed = prediction.value.flatten() @ torch.arange(1.0, prediction.value.numel() + 1).to(prediction.value)
    if prediction.network is not None and bool(prediction.network.any()):
        return False
    theta = [p for n, p in trained.items() if role_of[n] == "theta"]
    slopes = torch.autograd.grad(mixed, theta, allow_unused=True) if mixed.requires_grad else ()
    return any(s is not None and bool(s.any()) for s in slopes)
