"""What `fit` checks before it trains: everything that can be wrong with its arguments is found here."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridsam_lite.data import Data, Inputs
from hybridsam_lite.hybrid import Prediction, as_prediction, check_initialized, roles
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
MOST_EFFORT = 1e6  # times the protocol's steps


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all entries; the shapes must be equal."""
    if prediction.shape != target.shape:  # would be broadcast
        raise ValueError(
            f"mean squared error: the prediction has shape {tuple(prediction.shape)}, the target "
            f"{tuple(target.shape)}; they must be equal: reshape the target"
        )
    return ((prediction - target) ** 2).mean()


def check_plan(methods: Sequence[Method | str], seeds: Iterable[int]) -> list[tuple[Method, int]]:
    """The members to train: every method with every seed."""
    if isinstance(methods, (str, Method)):
        methods = [methods]
    if not isinstance(methods, Sequence):
        raise TypeError(f"fit: methods must be a list, such as ['erm', 'sam:rho=0.1'], got {methods!r}")
    parsed = [parse_method(m) if isinstance(m, str) else m for m in methods]
    if not isinstance(seeds, Iterable):
        raise TypeError(f"fit: seeds must be several integers, such as range(8), got {seeds!r}")
    chosen: list[Any] = list(seeds)
    if not all(isinstance(s, (int, np.integer)) and s is not True and 0 <= s < 2**63 for s in chosen):
        raise ValueError(f"fit: seeds must be integers >= 0 (and < 2**63), got {chosen}")
    for method in parsed:
        if not isinstance(method, Method):
            raise TypeError(f"fit: methods must be methods or labels such as 'sam:rho=0.1', got {method!r:.60}")
        if not (method.effort <= MOST_EFFORT and (method.stop_after or 0) < 2**31):
            raise ValueError(f"fit: {method.label:.60} would never end; take fewer steps, or less patience")
    for name, given in (("methods", [m.label for m in parsed]), ("seeds", chosen)):
        if not given:
            raise ValueError(f"fit: {name} is empty; give at least one")
        if len(set(given)) != len(given):
            raise ValueError(f"fit: {name} holds duplicates: {given}")
    return [(m, int(s)) for m in parsed for s in chosen]


def check_dtype(dtype: Any, who: str) -> None:
    """A real floating-point type with which torch computes."""
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype.itemsize > 1):
        raise TypeError(f"{who}: dtype must be torch.float32, torch.float64 or another real type, got {dtype!r:.60}")


def check_counts(**counts: Any) -> None:
    """Positive integers that fit into 32 bits, or None."""
    for name, value in counts.items():
        if value is not None and not (
            isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 < value < 2**31
        ):
            raise ValueError(f"fit: {name} must be a positive integer, got {value!r:.60}")


def check_rates(**rates: Any) -> None:
    """Positive numbers in the range of single precision, or None."""
    for name, value in rates.items():
        if value is not None and not (
            isinstance(value, (int, float, np.integer, np.floating))
            and not isinstance(value, bool)
            and 0 < value < 1e38
        ):
            raise ValueError(f"fit: {name} must be a positive number, got {value!r:.60}")


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


def probe(models: list[nn.Module], data: Data, loss: LossFunction, methods: list[Method], who: str = "fit") -> int:
    """Run an untrained model on two and on three samples; returns the prediction's sample axis.

    Everything that can be wrong with a model's output is found here, before training, and told on behalf
    of `who`. A model whose physics blows up at its very start is passed over: training will mark it as
    diverged.
    """
    for model in models:
        check_initialized(model, who)
        try:
            return _probe_one(copy.deepcopy(model).eval(), data, loss, methods, who)
        except FloatingPointError as error:
            failure = error
    raise failure


def _probe_one(model: nn.Module, data: Data, loss: LossFunction, methods: list[Method], who: str) -> int:
    role_of, name = roles(model), type(model).__name__
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(f"{who}: {name} has no trainable parameter")
    missing = {
        "phi": "acts on the network's weights, but {} has no trainable parameter outside hs.Theta; use hs.ERM",
        "theta": "acts on global scientific parameters, but {} has no trainable one inside hs.Theta; use "
        "hs.SharpnessAware or hs.WeightDecay, which need only phi",
    }
    for method in methods:
        for role, needed in (("phi", method.needs_phi), ("theta", method.needs_theta)):
            if needed and role not in {role_of[n] for n in trained}:
                raise ValueError(f"{who}: {type(method).__name__} {missing[role].format(name)}")
    for path, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and (module.sparse or module.max_norm is not None):
            raise ValueError(
                f"{who}: {path!r} is an embedding with sparse gradients, or one that changes its weights itself; "
                "make it without sparse=True and max_norm"
            )
    parts = [data.take(torch.arange(count, device=data.target.device) % len(data)) for count in (2, 3)]
    predictions = [_predict(model, part.inputs, who) for part in parts]
    axis = _sample_axis([p.value.shape for p in predictions], parts[0].target.shape, loss, who)
    aligned = [p.value.movedim(axis, 0) for p in predictions]
    for value, part in zip(aligned, parts, strict=True):
        _check_loss(loss, value.detach(), part.target, who)
    with torch.enable_grad():
        reached = _leaves(loss(aligned[0], parts[0].target))
    if not reached & {id(p) for p in trained.values()}:
        raise ValueError(
            f"{who}: the loss of {name} does not depend on any trainable parameter; look for .detach(), .item(), "
            "torch.no_grad or NumPy in the model and in the loss"
        )
    for method in methods:
        reason = method.refuse(predictions[0])
        if reason is not None:
            raise ValueError(f"{who}: {type(method).__name__} cannot train {name}: it {reason}")
    off = [m for m in methods if m.switches_off]
    if off and not _separable(model, parts[1].inputs, role_of):
        raise ValueError(
            f"{who}: {type(off[0]).__name__} switches the network off by zero weights, but the network of "
            f"{name} then returns something else than zero, or theta has no effect on the "
            "prediction any more; use hs.OnlineOrthogonalization, hs.FunctionNorm or hs.SharpnessAware"
        )
    unused = [n for n, p in trained.items() if role_of[n] == "theta" and id(p) not in reached]
    if unused and methods:  # a diagnosis says so itself
        names = ", ".join(unused).replace(".raw.", ".")
        warnings.warn(
            f"{who}: {names} of {name} does not influence the prediction, so that training cannot move it; "
            "is it used in forward, and not cut off by .detach() or .item()?",
            stacklevel=4,
        )
    return axis


def _predict(model: nn.Module, inputs: Inputs, who: str) -> Prediction:
    with torch.enable_grad():
        try:
            output = model(inputs)
        except (RuntimeError, TypeError, LookupError) as error:
            named = inputs if isinstance(inputs, dict) else {"a tensor": inputs}
            given = ", ".join(f"{n} {tuple(x.shape)} {x.dtype}" for n, x in named.items())
            whole = "" if all(x.is_floating_point() for x in named.values()) else "; turn whole numbers into .float()"
            raise (RuntimeError if isinstance(error, RuntimeError) else TypeError)(
                f"{who}: {type(model).__name__} does not run on 2 samples: {error!r}; its forward gets one argument, "
                f"{'a dict: ' if isinstance(inputs, dict) else ''}{given}{whole}"
            ) from error
    return as_prediction(output)


def _sample_axis(predicted: list[torch.Size], target: torch.Size, loss: LossFunction, who: str) -> int:
    """The one axis that counts samples, from the shapes predicted for two and for three, and the target of two."""
    two, three = predicted
    axes = [i for i, counts in enumerate(zip(two, three, strict=False)) if counts == (2, 3)]
    fits = len(two) == len(three) and len(axes) == 1
    if fits and loss is mean_squared_error:  # another loss may compare other shapes (class scores with labels)
        fits = (2, *two[: axes[0]], *two[axes[0] + 1 :]) == tuple(target)
    if not fits:
        raise ValueError(
            f"{who}: for 2 samples the model predicts shape {tuple(two)}, for 3 {tuple(three)}, but "
            f"the target of 2 samples has shape {tuple(target)}; exactly one axis must count samples, and the others "
            "must match the target's"
        )
    return axes[0]


@torch.no_grad()
def _check_loss(loss: LossFunction, prediction: Tensor, target: Tensor, who: str) -> None:
    """Refuse a loss that is no real scalar, or that compares every prediction with every target."""
    given = f"a prediction of shape {tuple(prediction.shape)} and a target of shape {tuple(target.shape)}"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Using a target size")  # torch's own losses, before they broadcast
        try:
            value = loss(prediction, target)
        except (RuntimeError, TypeError, ValueError, UserWarning) as error:
            raise ValueError(f"{who}: loss fails for {given} ({target.dtype}): {error}") from error
    if not isinstance(value, Tensor) or value.ndim != 0:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{who}: loss must return a scalar tensor, got {got}; take the mean")
    if not value.is_floating_point():
        raise ValueError(f"{who}: loss must return a real number, got {value.dtype}")
    if _crosses(loss, prediction, target):
        raise ValueError(
            f"{who}: loss gets {given} and broadcasts them, so that every prediction is compared with every target; "
            "reshape the target like the prediction"
        )


def _crosses(loss: LossFunction, prediction: Tensor, target: Tensor) -> bool:
    """Whether broadcasting pairs all samples with all: then the order of the targets does not matter."""
    if prediction.ndim == target.ndim or not target.is_floating_point():
        return False
    try:
        torch.broadcast_shapes(*((10007, *x.shape[1:]) for x in (prediction, target)))  # for any number of samples
    except RuntimeError:
        return False
    rising = torch.linspace(0.25, 0.75, len(target)).to(target)  # numbers that most losses take
    p, t = (rising.view(-1, *[1] * (x.ndim - 1)).expand(x.shape) for x in (prediction, target))
    paired, crossed, other = loss(p, t), loss(p, t.flip(0)), loss(p, t / 2)
    return torch.allclose(paired, crossed) and not torch.allclose(paired, other)


def _leaves(value: Tensor) -> set[int]:
    """The ids of the parameters that a value was computed from, whatever their derivative."""
    found, seen, todo = {id(value)}, set(), [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found.add(id(getattr(node, "variable", None)))
            todo += [following for following, _ in node.next_functions]
    return found


@torch.no_grad()
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
