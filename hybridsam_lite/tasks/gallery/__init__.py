"""Eighteen ways to compose a scientific model and a network, each a task with a known theta.

`tasks.get("gallery", variant="additive")` builds one; `CARDS["additive"]` says what it is. Each entry is a module of
its own with a CARD and `build(preset)`. The sizes are small on purpose: what is compared is the composition.
"""

from __future__ import annotations

from importlib import import_module

from hybridsam_lite.tasks.base import Task
from hybridsam_lite.tasks.gallery.card import Card

__all__ = ["CARDS", "VARIANTS", "Card", "build"]

_NAMES = (
    "additive", "multiplicative", "output_residual", "nested_decoder", "closure", "amortized",
    "wildcard", "rankings", "euler_gradient", "battery", "exported_unit", "reduced_component",
    "two_stage", "explicit_simplicity", "merging", "next_experiment", "partial_model", "boosted",
)  # fmt: skip
_ENTRIES = {name: import_module(f"{__name__}.{name}") for name in _NAMES}
CARDS: dict[str, Card] = {name: module.CARD for name, module in _ENTRIES.items()}
VARIANTS = {name: f"{card.title}: {card.missing} unknown; theta: {card.theta}" for name, card in CARDS.items()}


def build(variant: str, preset: str) -> Task:
    """The task of an entry at a preset."""
    task: Task = _ENTRIES[variant].build(preset)
    return task
