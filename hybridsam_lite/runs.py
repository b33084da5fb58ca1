"""What `fit` returns: the trained members, their table and their history."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hybridsam_lite.methods import Method
from hybridsam_lite.theta import theta_values

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Member", "Runs", "number"]


def number(x: Tensor) -> float | list[float]:
    """A scalar or (nested) list, for tables."""
    return float(x) if x.ndim == 0 else x.tolist()


@dataclass(frozen=True)
class Member:
    """One trained model: how it was trained and how it ended."""

    method: Method
    seed: int
    status: str
    steps: int
    seconds: float  # its share of its stack's time
    val_loss: float
    state: dict[str, Tensor]


class Runs:
    """The trained members of one `fit`, in the order methods x seeds.

    Attributes:
        members: list of `Member`.
        history: pandas table, one row per member and validation: step, train_loss, val_loss, theta.<name>.
        device: name of the device they were trained on.
        protocol: steps, batch_size, lr, theta_lr and lr_end that `fit` was given.
    """

    def __init__(
        self,
        template: nn.Module,
        members: list[Member],
        history: pd.DataFrame,
        sample_axis: int,
        device: str,
        protocol: dict[str, float],
    ) -> None:
        self._template, self.members, self.history = template, members, history
        self.sample_axis, self.device, self.protocol = sample_axis, device, protocol

    def __len__(self) -> int:
        return len(self.members)

    def model(self, i: int) -> nn.Module:
        """The i-th trained model: an ordinary module on the CPU, in evaluation mode."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"there are {len(self)} members, no number {i}")
        model = copy.deepcopy(self._template)
        with torch.no_grad():  # by name: a state dict lists tied weights twice, and leaves some buffers out
            for name, x in (*model.named_parameters(), *model.named_buffers()):
                x.copy_(self.members[i].state[name])
        return model

    def theta(self, i: int) -> dict[str, float | list[float]]:
        """The i-th member's global scientific parameters."""
        return {n: number(v) for n, v in theta_values(self._template, self.members[i].state).items()}

    @property
    def frame(self) -> pd.DataFrame:
        """One row per member: method, label, settings, seed, theta.<name>, val_loss, status, steps, seconds."""
        import pandas as pd

        rows = []
        for i, m in enumerate(self.members):
            rows.append(
                {"method": m.method.name, "label": m.method.label, "settings": m.method.settings, "seed": m.seed,
                 **{f"theta.{n}": v for n, v in self.theta(i).items()},
                 "val_loss": m.val_loss, "status": m.status, "steps": m.steps, "seconds": m.seconds}
            )  # fmt: skip
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        counts = Counter(m.status for m in self.members).most_common()
        return f"Runs({len(self)} members: {', '.join(f'{n} {s}' for s, n in counts)})"
