"""Hybrid models: who is theta, who is phi, and what physics and network each contributed.

Every trainable parameter of a model has exactly one role. Parameters inside a `Theta` are "theta"
(scientific), all others are "phi" (network weights, and encoders too: whatever is not science).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hybridsam_lite.theta import Theta

__all__ = ["HybridModel", "Prediction", "as_prediction", "check_initialized", "mlp", "roles"]

WRAPPING = re.compile(r"\b(_orig_mod|module|parametrizations)\.|\.original\d*$")


class Prediction(NamedTuple):
    """What a hybrid model returns: the prediction and, optionally, its parts.

    Args:
        value: the prediction, any shape with one sample axis.
        network: what the network contributed, for penalties and shares (none in nested models).
        physics: what the scientific model contributed.
        theta: name -> per-sample scientific parameters, shape (sample, ...), if theta is amortized.

    >>> Prediction(torch.zeros(2, 3)).network is None
    True
    """

    value: Tensor
    network: Tensor | None = None
    physics: Tensor | None = None
    theta: dict[str, Tensor] | None = None


def as_prediction(output: Tensor | Prediction) -> Prediction:
    """Wrap a bare tensor; pass a `Prediction` through."""
    if isinstance(output, Prediction):
        return output
    if isinstance(output, Tensor):
        return Prediction(output)
    raise TypeError(
        f"a model must return a Tensor or hs.Prediction, got {type(output).__name__}; "
        "return hs.Prediction(value, network=...) to pass the parts along"
    )


class _Checked(type):
    """Checks the roles once the outermost __init__ has finished."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        model = super().__call__(*args, **kwargs)
        roles(model)
        _claim(model)
        return model


def _claim(model: nn.Module) -> None:
    """Make the model the owner of the thetas inside that have none yet."""
    for module in model.modules():
        if isinstance(module, Theta):
            module.claim(model)


class HybridModel(nn.Module, metaclass=_Checked):
    """An `nn.Module` whose parameters inside `hs.Theta` are theta and all others phi.

    Subclass it as you would `nn.Module`; `forward(inputs)` takes a tensor or a dict of tensors and
    returns a tensor or a `Prediction`. Roles are checked when construction has finished.

    Raises:
        ValueError: if a parameter would have two roles, or a `Theta` is shared by two models.

    >>> class Line(HybridModel):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.theta = Theta(slope=__import__("hybridsam_lite").Real(init=1.0))
    ...         self.net = mlp(1, [8], 1)
    ...     def forward(self, x):
    ...         return Prediction(self.theta.slope * x + self.net(x), network=self.net(x))
    >>> sorted(set(roles(Line()).values()))
    ['phi', 'theta']
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Theta):
            value.claim(self)
        super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _claim(self)  # a copy or a loaded model owns its copy of theta


def roles(model: nn.Module, theta: Sequence[str] = ()) -> dict[str, str]:
    """Name of each parameter -> "theta" or "phi".

    Args:
        model: any module; a `HybridModel` or a plain one.
        theta: further names (or prefixes of names: submodules) that are theta, for models that were
            not written with `hs.Theta`. What `torch.compile`, `DataParallel` and parametrizations add
            to a name may be left out.

    Raises:
        ValueError: if a parameter has two roles, or a name in `theta` matches no parameter.
        TypeError: if `model` is no module, or `theta` no list of names.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> roles(net, theta=["0"])
    {'0.weight': 'theta', '1.weight': 'phi'}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"roles belong to a model, an nn.Module, got {type(model).__name__}; pass the model itself")
    if isinstance(theta, str) or not (isinstance(theta, Sequence) and all(isinstance(n, str) for n in theta)):
        name = theta if isinstance(theta, str) else "physics.k"
        raise TypeError(f"theta is a list of names, got {theta!r}; use theta=[{name!r}]")
    inside = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, Theta)
        for name, _ in module.named_parameters(remove_duplicate=False)
    }
    every = dict(model.named_parameters(remove_duplicate=False))
    for given in theta:
        matched = {n for n in every if f"{n}.".startswith(f"{given}.")}
        matched = matched or {n for n in every if f"{_plain(n)}.".startswith(f"{_plain(given)}.")}
        if not matched:
            raise ValueError(f"theta={given!r} names no parameter; the model has: {', '.join(every)}")
        inside |= matched
    seen: dict[int, tuple[str, str]] = {}
    assigned: dict[str, str] = {}
    for name, parameter in every.items():
        role = "theta" if name in inside else "phi"
        first_name, first_role = seen.setdefault(id(parameter), (name, role))
        if first_role != role:
            raise ValueError(
                f"parameter {name!r} ({role}) is the same tensor as {first_name!r} ({first_role}); "
                "each parameter must have exactly one role: use the constrained value "
                "(self.theta.<name>) instead of registering the raw parameter again"
            )
        if first_name == name:
            assigned[name] = role
    return assigned


def check_initialized(model: nn.Module, who: str) -> None:
    """Refuse, on behalf of `who`, a model whose parameters have no values yet.

    >>> check_initialized(nn.LazyLinear(1), "fit")
    Traceback (most recent call last):
    ValueError: fit: parameter 'weight' has no value yet (a lazy module); run the model on some data once before
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            missing, remedy = "a lazy module", "run the model on some data once before"
        elif parameter.is_meta:
            missing, remedy = "on the meta device", "use model.to_empty(device=...) and load its weights before"
        else:
            continue
        raise ValueError(f"{who}: parameter {name!r} has no value yet ({missing}); {remedy}")


def _plain(name: str) -> str:
    """A parameter's name without what `torch.compile`, `DataParallel` and parametrizations add to it."""
    return WRAPPING.sub("", name)


def param_groups(model: nn.Module, lr: float, theta_lr: float, theta: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Optimizer groups: phi at `lr`, theta at `theta_lr` and never weight-decayed.

    Args:
        model: the model; frozen parameters are left out.
        lr: learning rate of phi.
        theta_lr: learning rate of theta, per step and in units of each parameter's range.
        theta: as in `roles`; give the same to `hs.SAM`.

    Raises:
        ValueError: if a learning rate is negative or not finite.

    >>> groups = param_groups(nn.Linear(1, 1), lr=1e-3, theta_lr=1e-2)
    >>> [(g["role"], g["lr"]) for g in groups]
    [('phi', 0.001)]
    """
    for what, rate in (("lr", lr), ("theta_lr", theta_lr)):
        if not 0 <= rate < math.inf:  # the optimizer would not look at it
            raise ValueError(f"param_groups: {what} must be a finite number >= 0, got {rate!r}")
    role_of = roles(model, theta)
    by_role: dict[str, list[nn.Parameter]] = {"phi": [], "theta": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_role[role_of[name]].append(parameter)
    groups: list[dict[str, Any]] = [{"params": by_role["phi"], "lr": lr, "role": "phi"}]
    groups.append({"params": by_role["theta"], "lr": theta_lr, "weight_decay": 0.0, "role": "theta"})
    return [g for g in groups if g["params"]]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of `torch.compile` and `DataParallel`."""
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or hasattr(model, "_orig_mod"):
        model = model.get_submodule("_orig_mod" if hasattr(model, "_orig_mod") else "module")
    return model


def named_groups(
    model: nn.Module, groups: Sequence[dict[str, Any]], theta: Sequence[str]
) -> tuple[dict[Tensor, str], dict[str, str]]:
    """Names of a model's parameters and their roles; refuses optimizer groups that do not go with them."""
    names: dict[Tensor, str] = {p: n for n, p in model.named_parameters()}
    role_of = roles(model, theta)
    held = [(p, g.get("role")) for g in groups for p in g["params"]]
    strangers = [tuple(p.shape) for p, _ in held if p not in names]
    if strangers:
        raise ValueError(
            f"the optimizer holds parameters that are not the model's, of shapes {strangers}; "
            "make them parameters of the model first"
        )
    for p, role in held:
        if role in ("phi", "theta") and role != role_of[names[p]]:
            raise ValueError(
                f"the optimizer's groups have {names[p]!r} as {role}, but it is {role_of[names[p]]} with "
                f"theta={list(theta)}; give hs.param_groups and hs.SAM the same theta=[...]"
            )
    return names, role_of


def mlp(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    activation: type[nn.Module] = nn.Tanh,
    last_scale: float = 0.1,
) -> nn.Sequential:
    """A multilayer perceptron whose output layer starts small.

    A small start keeps the network out of the saturated, spuriously flat region and lets the
    physics explain the data first.

    Args:
        inputs: size of the last axis of the input.
        hidden: widths of the hidden layers.
        outputs: size of the last axis of the output.
        activation: class of the activation.
        last_scale: factor on the default initialization of the output layer; 0 starts at zero.

    >>> mlp(2, [64, 64], 1)(torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    """
    sizes = [inputs, *hidden, outputs]
    if any(not isinstance(s, int) or s < 1 for s in sizes):
        raise ValueError(f"mlp: sizes must be positive integers, got {sizes}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    net = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter in net[-1].parameters():
            parameter.mul_(last_scale)
    return net
