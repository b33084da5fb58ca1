"""Gradients of one member's loss by ordinary autograd, alone or for a whole stack under `torch.func.vmap`.

`torch.func.grad` sends every operation, forward and backward, through one more layer of Python and dispatch. For the
small networks of hybrid models that layer is much of the time. Here the ordinary autograd of torch records what
happens below `vmap`: a member's loss depends on no other member's parameters, so that the gradient of the sum of all
losses holds every member's own gradient, and the backward pass runs without any layer at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Derivative", "by_autograd", "under_vmap"]

Tensors = dict[str, Tensor]
Loss = Callable[[Tensors], tuple[Tensor, Any]]
Derivative = Callable[[Loss], Callable[[Tensors], tuple[Tensors, tuple[Tensor, Any]]]]


def by_autograd(loss: Loss) -> Callable[[Tensors], tuple[Tensors, tuple[Tensor, Any]]]:
    """What `torch.func.grad_and_value(loss, has_aux=True)` returns, outside of any transform.

    >>> by_autograd(lambda p: (p["w"] ** 2, "aux"))({"w": torch.tensor(3.0)})
    ({'w': tensor(6.)}, (tensor(9.), 'aux'))
    """

    def derivative(at: Tensors) -> tuple[Tensors, tuple[Tensor, Any]]:
        with torch.enable_grad():
            leaves = {n: x.detach().requires_grad_() for n, x in at.items()}
            value, aux = loss(leaves)
        return dict(zip(at, _gradient(value, tuple(leaves.values())), strict=True)), (value.detach(), aux)

    return derivative


def under_vmap(loss: Loss) -> Callable[[Tensors], tuple[Tensors, tuple[Tensor, Any]]]:
    """The same for a function that `torch.func.vmap` runs, directly and not within another transform.

    >>> square = under_vmap(lambda p: (p["w"] ** 2, p["w"].detach()))
    >>> torch.func.vmap(square)({"w": torch.tensor([3.0, 4.0])})
    ({'w': tensor([6., 8.])}, (tensor([ 9., 16.]), tensor([3., 4.])))
    """

    def derivative(at: Tensors) -> tuple[Tensors, tuple[Tensor, Any]]:
        leaves = _Leaves.apply(*at.values())  # type: ignore[no-untyped-call]
        with torch.enable_grad():
            value, aux = loss(dict(zip(at, leaves, strict=True)))
        value, *grads = _Gradients.apply(value, *leaves)  # type: ignore[no-untyped-call]
        return dict(zip(at, grads, strict=True)), (value, aux)

    return derivative


def _gradient(total: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if not total.requires_grad:  # it depends on none of them
        return tuple(torch.zeros_like(x) for x in leaves)
    return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)


class _Below(torch.autograd.Function):
    """A step that is taken below vmap, with the member as first axis of each tensor."""

    @staticmethod
    def forward(*tensors: Tensor) -> Any:
        raise RuntimeError("gradients.under_vmap: expected to run directly under torch.func.vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing: autograd never sees this step."""


def _stacked(x: Tensor, axis: int | None, members: int) -> Tensor:
    return x.expand(members, *x.shape) if axis is None else x.movedim(axis, 0)


class _Leaves(_Below):
    """The same values, from where autograd begins to record."""

    @staticmethod
    def vmap(info: Any, axes: tuple[int | None, ...], *tensors: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        stacked = (_stacked(x, axis, info.batch_size) for x, axis in zip(tensors, axes, strict=True))
        return tuple(x.detach().requires_grad_() for x in stacked), (0,) * len(tensors)


class _Gradients(_Below):
    """Of the members' losses, with respect to the leaves; and the losses."""

    @staticmethod
    def vmap(
        info: Any, axes: tuple[int | None, ...], value: Tensor, *leaves: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        grads = _gradient(value.sum(), leaves)
        return (_stacked(value, axes[0], info.batch_size).detach(), *grads), (0,) * (1 + len(leaves))
