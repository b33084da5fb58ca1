"""What a method's strength does to theta and to the validation loss, from runs or run records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from hybridsam_lite.explorers.explorer import Control, Explorer, Guess, asked
from hybridsam_lite.explorers.views import View, axis, line, number, panel, points, rule, view
from hybridsam_lite.plots.look import COLORS, color, marker, with_unit
from hybridsam_lite.plots.settings import by_setting
from hybridsam_lite.plots.tables import Rows, finished, table_of, theta_column
from hybridsam_lite.widgets.settings import compare, settings_of

__all__ = ["course_of", "theta_against_setting"]

Course = list[dict[str, Any]]


def course_of(table: pd.DataFrame, theta: pd.Series[float], method: str, setting: str, values: list[float]) -> Course:
    """For each value of a method's setting: theta of the seeds, medians of theta and loss, how many diverged."""
    out, rows = [], by_setting(table, setting)
    for value in values:
        here = rows[rows["_x"] == value]
        own = here["_curve"] == method
        here = here[own if own.any() else here["_curve"] == "erm"]
        ok = here[finished(here)]
        seeds, losses = theta[ok.index].to_numpy(float), ok["val_loss"].to_numpy(float)
        out.append(
            {
                "value": value, "seeds": seeds.tolist(), "median": _median(seeds), "loss": _median(losses),
                "low": min(seeds, default=math.nan), "high": max(seeds, default=math.nan),
                "diverged": len(here) - len(ok), "plain": not own.any(),
            }
        )  # fmt: skip
    return out


def _median(values: Any) -> float:
    return float(np.median(values)) if len(values) else math.nan


def theta_against_setting(
    runs: Rows,
    truth: float | None = None,
    name: str | None = None,
    unit: str = "",
    *,
    start: str | None = None,
    predict: bool | Guess = False,
) -> Explorer:
    """Choose a method and its setting: theta of all seeds, the median, and the validation loss.

    Args:
        runs: what `hs.fit` returned, its frame, or run records of one problem.
        truth: theta's true value, drawn as a line.
        name: which theta; may be left out if there is only one.
        unit: for the axis.
        start: the label at the beginning, "sam:rho=0.1"; by default the middle setting of the first method.
        predict: ask for a guess first; see `hs.explorers`.

    Returns:
        An `Explorer`.

    Raises:
        ValueError: if no method has a setting, or `start` is not among them.

    >>> rows = [{"label": f"sam:rho={r}", "settings": {"rho": r}, "theta.g": 9 + r, "val_loss": r, "seed": 0,
    ...          "status": "ok"} for r in (0.1, 0.2)]
    >>> theta_against_setting(rows, truth=9.81)
    Explorer(theta against the setting: rho = 0.2: median g 9.2 (-0.61 from the truth), ...)
    """
    table = table_of(runs).reset_index(drop=True)
    name, theta = theta_column(table, name)
    grids = settings_of(table)
    courses = {method: course_of(table, theta, method, *grid) for method, grid in grids.items()}
    first = next(iter(grids))
    begin = {method: values[len(values) // 2] for method, (_, values) in grids.items()}
    if start is not None:
        labels: dict[str, tuple[str, float]] = {}
        for method, (setting, _) in grids.items():
            rows = by_setting(table, setting)
            rows = rows[rows["_curve"] == method]
            labels |= dict(zip(rows["label"], ((method, x) for x in rows["_x"]), strict=True))
        if start not in labels:
            raise ValueError(f"theta_against_setting: start {start!r} is none of {', '.join(labels)}")
        first, begin[labels[start][0]] = labels[start]
    controls = [Control("method", "method", tuple(grids), first, choice=True)] if len(grids) > 1 else []
    for method, (setting, values) in grids.items():
        when = ("method", method) if len(grids) > 1 else None
        controls.append(Control(f"{method} {setting}", setting, tuple(values), begin[method], when=when))
    lines = _Lines(courses, truth, with_unit(name, unit))

    def at(state: dict[str, Any]) -> View:
        method = state.get("method", first)
        setting, values = grids[method]
        value = state[f"{method} {setting}"]
        text = compare(table, method, value, truth=truth, name=name, unit=unit)
        return view(text, *lines.panels(method, setting, values.index(value)))

    setting, values = grids[first]
    answer = courses[first][values.index(begin[first])]["median"]
    low, high = lines.reach
    question = Guess(
        f"The median {name} over the seeds of {first} with {setting} = {number(begin[first])}: what will it be?"
        + ("" if truth is None else f" (The truth is {number(truth)}.)"),
        answer, low - (high - low), high + (high - low), unit, panel=0,
    )  # fmt: skip
    summary = [
        {
            "method": "plain training" if one["plain"] else f"{method} {key} {number(one['value'])}",
            f"median {name}": one["median"], "seeds": f"{one['low']:.4g} to {one['high']:.4g}",
            "val. loss": f"{one['loss']:.1e}", "diverged": one["diverged"],
        }
        for method, (key, _) in grids.items()
        for one in courses[method]
    ]  # fmt: skip
    shown = pd.DataFrame(summary).drop_duplicates()
    shown = shown if shown["diverged"].any() else shown.drop(columns="diverged")
    return Explorer(
        "theta against the setting",
        f"Left: {name} against the setting, a point for each seed and a line through the medians"
        + (", with a dashed line at the truth" if truth is not None else "")
        + ". Right: the median validation loss against the setting. The chosen setting is marked.",
        tuple(controls), at, shown, asked(predict, question),
    )  # fmt: skip


class _Lines:
    """The two panels; their axes are the same for all settings of all methods."""

    def __init__(self, courses: dict[str, Course], truth: float | None, label: str) -> None:
        self.courses, self.truth, self.label = courses, truth, label
        thetas = [x for course in courses.values() for one in course for x in one["seeds"]]
        thetas = [x for x in [*thetas, *([] if truth is None else [truth])] if math.isfinite(x)]
        losses = [one["loss"] for course in courses.values() for one in course if math.isfinite(one["loss"])]
        if not thetas or not losses:
            raise ValueError("theta_against_setting: every run diverged; nothing to show")
        pad = 0.05 * (max(thetas) - min(thetas)) or 0.05 * abs(thetas[0]) or 0.05
        self.reach = min(thetas) - pad, max(thetas) + pad
        self.log = min(losses) > 0
        self.losses = (min(losses) / 1.5, max(losses) * 1.5) if self.log else (min(losses), 1.05 * max(losses) + 1e-12)

    def panels(self, method: str, setting: str, chosen: int) -> list[dict[str, Any]]:
        course = self.courses[method]
        tint, shape = color(method, list(self.courses)), marker(method)
        ticks = [(i, number(one["value"])) for i, one in enumerate(course)]
        x = axis(setting, -0.5, len(course) - 0.5, ticks=ticks)
        plain = [(i, y) for i, one in enumerate(course) for y in one["seeds"] if one["plain"]]
        seeds = [(i, y) for i, one in enumerate(course) for y in one["seeds"] if not one["plain"]]
        middle = [(i, one["median"]) for i, one in enumerate(course) if one["seeds"]]
        loss = [(i, one["loss"]) for i, one in enumerate(course) if one["seeds"]]
        one = course[chosen]
        here = [(chosen, one["median"])] if one["seeds"] else []
        band = rule(COLORS["data"], x=chosen, dash=False)
        return [
            panel(
                x,
                axis(self.label, *self.reach),
                *([] if self.truth is None else [rule(COLORS["truth"], "truth", y=self.truth)]),
                band,
                *([points(plain, COLORS["erm"], "plain training", size=4, opacity=0.7)] if plain else []),
                points(seeds, tint, method, shape=shape, size=4, opacity=0.5),
                line(middle, tint, "median"),
                points(here, tint, shape=shape, size=9),
            ),
            panel(
                x,
                axis("validation loss", *self.losses, log=self.log),
                band,
                line(loss, tint),
                points(loss, tint, shape=shape),
                points([(chosen, one["loss"])] if one["seeds"] else [], tint, shape=shape, size=9),
            ),
        ]
