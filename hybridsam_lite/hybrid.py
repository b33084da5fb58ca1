"""Hybrid models: who is theta, who is phi, and what physics and network each contributed.

Every trainable parameter of a model has exactly one role. Parameters inside a `Theta` are "theta"
(scientific), all others are "phi" (network weights, and encoders too: whatever is not science).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hybridsam_lite.theta import Theta

__all__ = ["HybridModel", "Prediction", "as_prediction", "mlp", "roles"]


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
            not written with `hs.Theta`.

    Raises:
        ValueError: if a parameter has two roles, or a name in `theta` matches no parameter.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> roles(net, theta=["0"])
    {'0.weight': 'theta', '1.weight': 'phi'}
    """
    inside = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, Theta)
        for name, _ in module.named_parameters(remove_duplicate=False)
    }
    every = dict(model.named_parameters(remove_duplicate=False))
    for given in theta:
        matched = {n for n in every if n == given or n.startswith(given + ".")}
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


def param_groups(model: nn.Module, lr: float, theta_lr: float, theta: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Optimizer groups: phi at `lr`, theta at `theta_lr` and never weight-decayed.

    Args:
        model: the model; frozen parameters are left out.
        lr: learning rate of phi.
        theta_lr: learning rate of theta, per step and in units of each parameter's range.
        theta: as in `roles`.

    >>> groups = param_groups(nn.Linear(1, 1), lr=1e-3, theta_lr=1e-2)
    >>> [(g["role"], g["lr"]) for g in groups]
    [('phi', 0.001)]
    """
    role_of = roles(model, theta)
    by_role: dict[str, list[nn.Parameter]] = {"phi": [], "theta": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_role[role_of[name]].append(parameter)
    groups: list[dict[str, Any]] = [{"params": by_role["phi"], "lr": lr, "role": "phi"}]
    groups.append({"params": by_role["theta"], "lr": theta_lr, "weight_decay": 0.0, "role": "theta"})
    return [g for g in groups if g["params"]]


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
