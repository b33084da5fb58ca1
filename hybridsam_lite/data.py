"""Training data: inputs and target with a common sample axis."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Data", "as_data", "fingerprint"]

Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Data:
    """Inputs and target; the first axis of each tensor is the sample, except for what is shared.

    Args:
        inputs: a tensor (sample, ...) or a dict of tensors, handed to the model's forward.
        target: what the prediction is compared with, (sample, ...).
        shared: names of inputs that are the same for all samples (a time grid, for example).

    Raises:
        ValueError: unequal numbers of samples, no samples, NaN or infinity, or an unknown shared name.

    >>> data = Data({"x0": torch.zeros(10, 2), "t": torch.linspace(0, 1, 5)}, torch.zeros(10, 5, 2), shared=("t",))
    >>> len(data), data.take(torch.tensor([3, 4])).target.shape
    (10, torch.Size([2, 5, 2]))
    """

    inputs: Inputs
    target: Tensor
    shared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.shared, (str, Iterable)):
            raise TypeError(f"Data: shared must be names of inputs, such as ('t',), got {self.shared!r:.60}")
        object.__setattr__(self, "shared", (self.shared,) if isinstance(self.shared, str) else tuple(self.shared))
        if not isinstance(self.inputs, (Tensor, Mapping)):
            raise TypeError(
                f"Data: inputs must be a tensor or a dict of tensors, got {type(self.inputs).__name__}; "
                "use torch.as_tensor"
            )
        named = self._named()
        if odd := [name for name in named if not isinstance(name, str)]:
            raise TypeError(f"Data: the names of inputs must be texts, got {odd[0]!r:.60}")
        if "target" in named:
            raise ValueError("Data: the input name 'target' is taken by the target; choose another")
        for name, x in {**named, "target": self.target}.items():
            if not isinstance(x, Tensor):
                raise TypeError(f"Data: {name} must be a tensor, got {type(x).__name__}; use torch.as_tensor")
            if x.layout is not torch.strided or x.is_meta:
                kind = "meta" if x.is_meta else str(x.layout)
                raise TypeError(f"Data: {name} must be an ordinary tensor with values, got {kind}; use .to_dense()")
            try:
                bad = int((~torch.isfinite(x)).sum())
            except (RuntimeError, NotImplementedError) as error:
                raise TypeError(f"Data: {name} has the type {x.dtype}, with which torch cannot compute") from error
            if bad:
                raise ValueError(
                    f"Data: {name} holds {bad} NaN or infinite values of {x.numel()}; remove or fill them first"
                )
        for name in self.shared:
            if name not in named:
                raise ValueError(
                    f"Data: shared names {name!r:.60}, which is not an input; inputs are: {', '.join(named)}"
                )
        counts = {name: (x.shape[0] if x.ndim else 0) for name, x in named.items() if name not in self.shared}
        counts["target"] = self.target.shape[0] if self.target.ndim else 0
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise ValueError(
                f"Data: the first axis is the sample and must agree and not be empty, got {counts}; "
                "name inputs without a sample axis in shared=(...)"
            )

    def _named(self) -> Mapping[str, Tensor]:
        return self.inputs if isinstance(self.inputs, Mapping) else {"inputs": self.inputs}

    def _map(self, per_sample: object, on_shared: object) -> Data:
        def apply(name: str, x: Tensor) -> Tensor:
            return (on_shared if name in self.shared else per_sample)(x)  # type: ignore[operator]

        inputs: Inputs
        if isinstance(self.inputs, Tensor):
            inputs = apply("inputs", self.inputs)
        else:
            inputs = {name: apply(name, x) for name, x in self.inputs.items()}
        copy = object.__new__(Data)  # already checked
        for field, value in (
            ("inputs", inputs),
            ("target", apply("target", self.target)),
            ("shared", self.shared),
        ):
            object.__setattr__(copy, field, value)
        return copy

    def __len__(self) -> int:
        return self.target.shape[0]

    def take(self, index: Tensor) -> Data:
        """The samples at `index`, of any shape: the sample axis is replaced by index's axes."""
        return self._map(lambda x: x[index], lambda x: x)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Data:
        """A copy on a device; `dtype`, if given, is applied to the floating-point tensors."""

        def move(x: Tensor) -> Tensor:
            return x.detach().to(device, dtype if x.is_floating_point() else None)

        return self._map(move, move)

    def in_dims(self) -> tuple[int | dict[str, int | None] | None, int]:
        """`torch.func.vmap`'s axes for (inputs, target), when samples were taken per member."""
        dims = {name: None if name in self.shared else 0 for name in self._named()}
        return (dims["inputs"] if isinstance(self.inputs, Tensor) else dims), 0

    def fingerprint(self) -> str:
        """A hash of the content, to recognize the data when a run is resumed."""
        return fingerprint({**self._named(), "target": self.target}, str(sorted(self.shared)))


def fingerprint(tensors: Mapping[str, Tensor], *more: str) -> str:
    """A hash of named tensors, whatever their dtype, and of further text."""
    digest = hashlib.sha256("|".join(more).encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"{name}{tuple(x.shape)}{x.dtype}".encode())
        digest.update(x.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def as_data(data: Data | tuple[Inputs, Tensor]) -> Data:
    """Accept a (inputs, target) pair in place of `Data`."""
    if isinstance(data, Data):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return Data(data[0], data[1])
    raise TypeError(f"expected hs.Data or an (inputs, target) pair, got {type(data).__name__}")
