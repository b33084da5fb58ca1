"""The book's experiments as ready-made tasks.

task = hs.tasks.get("pendulum", preset="quick")
runs = task.fit(["erm", "asam:rho=1"], seeds=range(4))
task.score(runs)
"""

from __future__ import annotations

import os

from hybridsam_lite.methods import nearest
from hybridsam_lite.tasks import duffing, pendulum
from hybridsam_lite.tasks.base import PRESETS, Task

__all__ = ["PRESETS", "Task", "default_preset", "get", "names", "variants"]

_MODULES = {"pendulum": pendulum, "duffing": duffing}


def names() -> list[str]:
    """Names of all tasks.

    >>> names()
    ['pendulum', 'duffing']
    """
    return list(_MODULES)


def variants(name: str) -> dict[str, str]:
    """Variant -> one-line description; the first is the default.

    >>> list(variants("duffing"))
    ['C1', 'C2', 'C3', 'residual']
    """
    if name not in _MODULES:
        raise ValueError(f"unknown task {name!r}{nearest(name, _MODULES)}; expected one of: {', '.join(_MODULES)}")
    return _MODULES[name].VARIANTS


def default_preset() -> str:
    """The preset to use when none is named: HYBRIDSAM_PRESET, or "quick"."""
    return os.environ.get("HYBRIDSAM_PRESET") or "quick"


def get(name: str, *, preset: str | None = None, variant: str | None = None) -> Task:
    """Build a task: its data, its model and how to train it.

    Args:
        name: see `names()`.
        preset: "smoke" (seconds), "quick" (a minute or two on two cores) or "full" (the archived
            results); by default HYBRIDSAM_PRESET or "quick". It changes sizes, never the science.
        variant: see `variants(name)`.

    Raises:
        ValueError: unknown name, preset or variant; the nearest known one is suggested.

    >>> task = get("pendulum", preset="smoke")
    >>> task.theta_true, len(task.train)
    ({'omega2': 1.0966227112321507}, 108)
    """
    known = variants(name)
    chosen = next(iter(known)) if variant is None else variant
    if chosen not in known:
        raise ValueError(f"task {name!r} has no variant {chosen!r}{nearest(chosen, known)}; it has: {', '.join(known)}")
    size = default_preset() if preset is None else preset
    if size not in PRESETS:
        raise ValueError(f"unknown preset {size!r}{nearest(size, PRESETS)}; expected one of: {', '.join(PRESETS)}")
    return _MODULES[name].build(chosen, size)
