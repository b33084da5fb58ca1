"""Two passes through a model that see the same buffers and the same random numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hybridsam_lite.device import random_state, set_random_state

__all__ = ["Replay", "copy_buffers", "restore_buffers"]

Buffers = list[tuple[nn.Module, str, Tensor, Tensor]]


def copy_buffers(model: nn.Module) -> Buffers:
    """Owner, name, tensor and a copy of its values, for each buffer."""
    return [(m, n, b, b.clone()) for m in model.modules() for n, b in m.named_buffers(recurse=False)]


def restore_buffers(buffers: Buffers) -> None:
    """Put back what `copy_buffers` returned."""
    for owner, name, buffer, before in buffers:
        buffer.copy_(before)
        setattr(owner, name, buffer)  # a forward pass may have put another tensor in its place


class Replay:
    """Runs the second round of forward passes as the first: same buffers, same random states.

    A forward pre-hook on the model: it notes the buffers before the first pass (spectral norm computes
    with its buffers and changes them) and the random state before each. Its copies and pickles are
    inert, so that a trained model can be copied and saved whole.
    """

    states: list[list[Tensor]]
    buffers: Buffers
    position: int | None  # None while recording

    def __init__(self) -> None:
        self.inert = False
        self.forget()

    def __call__(self, module: nn.Module, _: Any) -> None:
        if self.inert or not (module.training and torch.is_grad_enabled()):
            return
        if self.position is None:
            if not self.states:
                self.buffers = copy_buffers(module)
            self.states.append(random_state())
        elif self.position < len(self.states):
            set_random_state(self.states[self.position])
            self.position += 1

    def rewind(self) -> None:
        """Start the second round."""
        self.position = 0
        with torch.no_grad():
            restore_buffers(self.buffers)

    def forget(self) -> None:
        """Start recording a new first round."""
        self.states, self.buffers, self.position = [], [], None

    @staticmethod
    def forget_all(model: nn.Module) -> None:
        """The model's weights have changed: whatever was noted of earlier passes, by any hook, is stale."""
        for hook in model._forward_pre_hooks.values():
            if isinstance(hook, Replay):
                hook.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"inert": True}
