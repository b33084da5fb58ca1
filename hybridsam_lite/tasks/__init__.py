"""The book's experiments as ready-made tasks.

task = hs.tasks.get("pendulum", preset="quick")
runs = task.fit(["erm", "asam:rho=1"], seeds=range(4))
task.score(runs)
"""

from __future__ import annotations

import os
from dataclasses import replace

from hybridsam_lite.methods import nearest
from hybridsam_lite.tasks import (
    duffing,
    gallery,
    light_tunnel,
    pendulum,
    pendulum_images,
    reaction_diffusion,
    wind_tunnel,
)
from hybridsam_lite.tasks.base import PRESETS, Task

__all__ = ["LISTED", "PRESETS", "Task", "default_preset", "get", "names", "variants"]

_MODULES = {
    "pendulum": pendulum,
    "duffing": duffing,
    "reaction_diffusion": reaction_diffusion,
    "pendulum_images": pendulum_images,
    "wind_tunnel": wind_tunnel,
    "light_tunnel": light_tunnel,
}
_KNOWN = {**_MODULES, "gallery": gallery}
# What a public listing gives for the results of arXiv 2602.06837, as we read it: an absolute theta error (light_tunnel:
# a mean cosine). It does not say to which method and variant a number belongs; Duffing's may be 100 times smaller.
LISTED = {
    "pendulum": 0.0034, "duffing": 0.0132, "reaction_diffusion": 2.79e-4, "pendulum_images": 0.0504,
    "wind_tunnel": 0.019, "light_tunnel": 0.98,
}  # fmt: skip
DATA = ("stand-in", "real")  # of the tasks in MEASURED; the others are simulated
_MEASURED = {"wind_tunnel": wind_tunnel, "light_tunnel": light_tunnel}


def names() -> list[str]:
    """Names of the book's six experiments; beside them there is "gallery", whose variants are chapter 19's entries.

    >>> names()
    ['pendulum', 'duffing', 'reaction_diffusion', 'pendulum_images', 'wind_tunnel', 'light_tunnel']
    """
    return list(_MODULES)


def variants(name: str) -> dict[str, str]:
    """Variant -> one-line description; the first is the default.

    >>> list(variants("duffing"))
    ['C1', 'C2', 'C3', 'residual']
    """
    if not isinstance(name, str) or name not in _KNOWN:
        raise ValueError(f"unknown task {name!r}{nearest(name, _KNOWN)}; expected one of: {', '.join(_KNOWN)}")
    return _KNOWN[name].VARIANTS


def default_preset() -> str:
    """The preset to use when none is named: HYBRIDSAM_PRESET, or "quick"."""
    return os.environ.get("HYBRIDSAM_PRESET") or "quick"


def get(name: str, *, preset: str | None = None, variant: str | None = None, data: str | None = None) -> Task:
    """Build a task: its data, its model and how to train it.

    Args:
        name: see `names()`, or "gallery".
        preset: "smoke" (seconds), "quick" (a minute or two on two cores) or "full" (the archived
            results); by default HYBRIDSAM_PRESET or "quick". It changes sizes, never the science.
        variant: see `variants(name)`.
        data: "stand-in" (simulated in place of measurements, the default) or "real" (downloaded once), for the
            tasks whose data were measured: wind_tunnel and light_tunnel.

    Raises:
        ValueError: unknown name, preset, variant or data; the nearest known one is suggested.

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
    return replace(_build(name, chosen, size, data), listed=LISTED.get(name))


def _build(name: str, chosen: str, size: str, data: str | None) -> Task:
    if name in _MEASURED:
        if data not in (None, *DATA):
            raise ValueError(f"unknown data {data!r}{nearest(data, DATA)}; expected one of: {', '.join(DATA)}")
        return _MEASURED[name].build(chosen, size, data or DATA[0])
    if data is not None:
        raise ValueError(
            f"task {name!r} is simulated and takes no data; only {', '.join(_MEASURED)} have measured data"
        )
    return _KNOWN[name].build(chosen, size)
