"""Many small tensors as parts of a few large ones, and a module as a function of such tensors.

What an optimizer does entry by entry takes one operation for all weights instead of one for each layer. For the small
networks of hybrid models the number of operations is what a step costs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Packed", "Pure"]

Tensors = dict[str, Tensor]


class Packed:
    """Tensors of the shapes (members, ...), side by side in one of the shape (members, entries) for each kind.

    Attributes:
        wholes: kind -> tensor (members, entries); one of a single dtype for each kind and dtype.
        parts: name -> its view (members, ...) of a whole. What changes the one changes the other.

    >>> packed = Packed({"w": torch.zeros(2, 3), "b": torch.ones(2), "theta": torch.zeros(2)}, lambda n: len(n) > 1)
    >>> {kind: tuple(whole.shape) for (kind, _), whole in packed.wholes.items()}
    {False: (2, 4), True: (2, 1)}
    >>> _ = packed.wholes[False, torch.float32].fill_(5.0)
    >>> packed.parts["b"]
    tensor([5., 5.])
    """

    def __init__(self, tensors: Mapping[str, Tensor], kind: Callable[[str], Hashable]) -> None:
        self._names: dict[Any, list[str]] = {}
        for name, x in tensors.items():
            self._names.setdefault((kind(name), x.dtype), []).append(name)
        self.wholes = self.pack(tensors)
        views = {n: v for k, whole in self.wholes.items() for n, v in self._views(self._names[k], whole, tensors)}
        self.parts: Tensors = {n: views[n] for n in tensors}

    @staticmethod
    def _views(names: list[str], whole: Tensor, like: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        sizes = [like[n][0].numel() for n in names]
        return [(n, part.view(like[n].shape)) for n, part in zip(names, whole.split(sizes, dim=1), strict=True)]

    def pack(self, tensors: Mapping[str, Tensor]) -> dict[Any, Tensor]:
        """The same names' other tensors (gradients, say), side by side like these."""
        return {
            key: torch.cat([tensors[n].reshape(len(tensors[n]), -1) for n in names], dim=1)
            for key, names in self._names.items()
        }


class Pure:
    """A module as a function of its parameters and buffers: `torch.func.functional_call`, with the places known.

    Tied tensors have several places, a module that is used twice has one; each place gets what its name holds.

    Args:
        module: is left as it was after each call.

    Raises:
        TypeError: for `nn.DataParallel`, whose copies would have the module's own tensors.

    >>> line = nn.Linear(1, 1)
    >>> Pure(line)({"weight": torch.tensor([[2.0]]), "bias": torch.tensor([1.0])}, torch.tensor([3.0]))
    (tensor([7.]), {})
    """

    def __init__(self, module: nn.Module) -> None:
        if isinstance(module, nn.DataParallel):
            raise TypeError("nn.DataParallel copies the model's own parameters; pass the model itself (its .module)")
        self.module = module
        self.buffers = [n for n, _ in module.named_buffers()]
        self._places: list[tuple[dict[str, Tensor | None], str, str]] = []
        first: dict[int, str] = {}
        for path, part in module.named_modules():
            for held in (part._parameters, part._buffers):
                for key, x in held.items():
                    if x is not None:
                        name = first.setdefault(id(x), f"{path}.{key}" if path else key)
                        self._places.append((held, key, name))

    def __call__(self, tensors: Mapping[str, Tensor], inputs: Any) -> tuple[Any, Tensors]:
        """The output, and the buffers after it."""
        before = [held[key] for held, key, _ in self._places]
        after: dict[str, Tensor | None] = {}
        try:
            for held, key, name in self._places:
                held[key] = tensors[name]
            output = self.module(inputs)
            for held, key, name in self._places:
                after.setdefault(name, held[key])
        finally:
            for (held, key, _), x in zip(self._places, before, strict=True):
                held[key] = x
        return output, {n: after[n] for n in self.buffers}  # type: ignore[misc]
