"""What the entries share: sizes of the presets, splits of the data, and the form of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridsam_lite.data import Data
from hybridsam_lite.tasks.base import Array, Task

__all__ = ["PARTS", "STEPS", "entry", "generators", "relative_error", "tensors"]

PARTS = ("train", "val", "test")
STEPS = {"smoke": 10, "quick": 1500, "full": 6000}


def generators() -> dict[str, np.random.Generator]:
    """Random numbers for each part of the data, always the same.

    >>> list(generators())
    ['train', 'val', 'test']
    """
    return {part: np.random.default_rng(seed) for part, seed in zip(PARTS, (11, 12, 13), strict=True)}


def tensors(**arrays: Array) -> dict[str, Tensor]:
    """Arrays as float32 tensors, by name.

    >>> tensors(x=np.zeros(2))["x"].dtype
    torch.float32
    """
    return {name: torch.as_tensor(np.asarray(value), dtype=torch.float32) for name, value in arrays.items()}


def relative_error(estimates: dict[str, Tensor], truths: dict[str, Tensor]) -> float:
    """theta_error where components differ in scale: the mean of |estimate - truth| / truth, over samples too.

    >>> relative_error({"k": torch.tensor([1.0, 3.0])}, {"k": torch.tensor([2.0, 2.0])})
    0.5
    """
    return float(torch.stack([(estimates[n] / truths[n] - 1).abs().mean() for n in truths]).mean())


def entry(
    name: str,
    preset: str,
    data: dict[str, Data],
    model: Callable[[], nn.Module],
    theta_true: Mapping[str, float | Tensor],
    units: dict[str, str],
    training: dict[str, Any] | None = None,
    **more: Any,
) -> Task:
    """The task of one entry; `training` adds to the gallery's protocol, `more` are further fields of `Task`."""
    protocol = {"steps": STEPS[preset], "batch_size": 32, **(training or {})}
    return Task(
        name="gallery", variant=name, preset=preset, train=data["train"], val=data["val"], test=data["test"],
        model=model, theta_true=dict(theta_true), units=units, training=protocol, **more,
    )  # fmt: skip
