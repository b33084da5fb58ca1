"""Figures over methods and their settings: where theta goes, at which loss, and what `hs.select` makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hybridsam_lite.plots.look import (
    COLORS,
    INCHES_PER_LETTER,
    axes,
    color,
    dash,
    few_ticks,
    legend_above,
    marker,
    method_of,
    style,
    truth_line,
    width,
    with_unit,
)
from hybridsam_lite.plots.tables import Rows, finished, table_of, theta_column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hybridsam_lite.select import Choice

__all__ = ["by_setting", "corner", "l_curve", "place_of_zero", "theta_against_setting", "theta_by_method"]


def theta_by_method(
    runs: Rows,
    truth: float | None = None,
    name: str | None = None,
    unit: str = "",
    *,
    error: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Every seed's theta as a point, a bar at the median, one column for each label.

    `runs` has a label and either theta.<name> (as in `Runs.frame`) or theta_hat (numbers, or dicts by
    name); with `error`, theta_error is shown on a logarithmic axis instead. Rows whose status is
    "diverged" are counted below their label, not drawn.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> table = pd.DataFrame({"label": ["erm", "erm", "sam:rho=0.1"], "theta.g": [8.0, 11.0, 9.8]})
    >>> theta_by_method(table, truth=9.81, unit="m/s^2").get_ylabel()
    'g [m/s^2]'
    """
    frame = table_of(runs)
    name, values = theta_column(frame, name, "theta_error" if error else "theta_hat")
    ok, labels, ticks = finished(frame), list(dict.fromkeys(frame["label"])), []
    with style():
        ax = axes(ax)
        for i, label in enumerate(labels):
            mine, tint = frame["label"] == label, color(label, labels)
            shown = values[mine & ok].to_numpy()
            # Spread by order, not at random: the same table gives the same figure.
            across = i + 0.18 * (np.linspace(-1, 1, len(shown)) if len(shown) > 1 else 0 * shown)
            ax.plot(across, shown, marker(label), color=tint, alpha=0.75)
            if len(shown):
                ax.plot([i - 0.3, i + 0.3], [np.median(shown)] * 2, color=tint, linewidth=2.4)
            lost = int((mine & ~ok).sum())
            ticks.append(label + (f":({lost} diverged)" if lost else ""))
        if error:
            ax.set_yscale("log")
            few_ticks(ax.yaxis)
        elif truth is not None:
            truth_line(ax, truth)
            ax.legend()
        letters = max(len(part) for tick in ticks for part in tick.split(":"))
        if letters * INCHES_PER_LETTER < width(ax) / len(ticks):
            ax.set_xticks(range(len(ticks)), [tick.replace(":", "\n") for tick in ticks])
        else:
            texts = [tick.replace(":(", " (") for tick in ticks]
            ax.set_xticks(range(len(ticks)), texts, rotation=40, ha="right", rotation_mode="anchor")
        ax.grid(axis="x", visible=False)
        ax.set_ylabel(with_unit(f"error of {name}" if error else name, unit))
    return ax


def theta_against_setting(
    runs: Rows,
    truth: float | None = None,
    setting: str = "rho",
    name: str | None = None,
    unit: str = "",
    *,
    choice: Choice | Mapping[str, Choice] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Theta over a method's setting, and on the right axis, dotted, the validation loss.

    Points are seeds, lines their medians, bands the quartiles. Plain training, or a setting of 0, has a place
    of its own at the left. Crosses at the bottom count members that diverged, which are left out of the curves.
    Methods with other settings are not shown.

    `runs` has label, settings (dicts), val_loss, and theta as in `theta_by_method`; `choice` is what
    `hs.select` answered, or one entry of it: a line at the setting that it chose.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> table = pd.DataFrame({"label": ["erm", "sam:rho=0.1", "sam:rho=0.2"], "val_loss": [0.1, 0.1, 0.2],
    ...                       "settings": [{}, {"rho": 0.1}, {"rho": 0.2}], "theta.g": [8.0, 9.0, 9.8]})
    >>> ax = theta_against_setting(table, truth=9.81)
    >>> ax.get_xscale(), [tick.get_text() for tick in ax.get_xticklabels()]
    ('log', ['0', '0.1', '0.2'])
    """
    frame = table_of(runs)
    name, values = theta_column(frame, name)
    table = by_setting(frame.assign(_theta=values), setting)
    shown = table[finished(table)]
    zero = place_of_zero(table["_x"])
    with style():
        ax = axes(ax)
        right = ax.twinx()
        curves = list(dict.fromkeys(table["_curve"]))
        answers = [] if choice is None else choice.values() if isinstance(choice, Mapping) else [choice]
        chosen = {answer.method: answer.value for answer in answers if answer.setting == setting}
        for curve in curves:
            rows = shown[shown["_curve"] == curve].assign(_x=lambda rows: rows["_x"].replace(0.0, zero))
            label = curve
            if curve in chosen:
                value = chosen[curve]
                label += " (undecided)" if value is None else f" ({value:g} selected)"
                if value is not None:
                    ax.axvline(value, color=color(curve, curves), linestyle=(0, (5, 2)), linewidth=1.2)
            _draw_curve(ax, right, rows, curve, curves, label)
        lost = table[~finished(table)].groupby("_x").size()
        for x, count in lost.items():
            place: Any = {"transform": ax.get_xaxis_transform(), "color": COLORS["truth"]}
            at = zero if x == 0 else float(str(x))
            ax.plot(at, 0.03, "x", label="diverged" if x == lost.index[0] else None, **place)
            ax.annotate(f"{count}", (at, 0.03), xycoords=place["transform"], xytext=(5, -3), textcoords="offset points")
        truth_line(ax, truth)
        ax.set(xscale="log", xlabel=setting, ylabel=with_unit(name, unit))
        _name_settings(ax, sorted(set(table["_x"].dropna())), zero)
        positive = (shown["val_loss"] > 0).any()
        right.set(yscale="log" if positive else "linear", ylabel="validation loss (dotted)")
        right.spines["right"].set_visible(True)
        right.grid(visible=False)
        legend_above(ax)
    return ax


def _draw_curve(ax: Axes, right: Axes, rows: pd.DataFrame, curve: str, curves: Sequence[str], label: str) -> None:
    """One method: seeds, median and quartiles of theta, and the median loss."""
    tint, line = color(curve, curves), dash(curve, curves)
    if rows["_x"].isna().all():
        ax.axhline(rows["_theta"].median(), color=tint, linestyle=line, label=label)
        return
    ax.plot(rows["_x"], rows["_theta"], marker(curve), color=tint, alpha=0.35, markersize=4)
    by = rows.groupby("_x")
    q1, middle, q3 = (by["_theta"].quantile(q) for q in (0.25, 0.5, 0.75))
    if len(middle) > 1:
        ax.fill_between(middle.index, q1, q3, color=tint, alpha=0.18, linewidth=0)
        ax.plot(middle.index, middle, line, color=tint, marker=marker(curve), label=label)
    else:
        ends = np.abs(np.array([middle - q1, q3 - middle]))
        ax.errorbar(middle.index, middle, ends, color=tint, marker=marker(curve), capsize=5, label=label)
    right.plot(by["val_loss"].median(), ":", color=tint, linewidth=1.2, marker="o", markersize=3.5, fillstyle="none")


def by_setting(table: pd.DataFrame, setting: str) -> pd.DataFrame:
    """The rows to show, with the columns _x (the setting; 0 for plain training) and _curve (method and variant)."""
    rows: list[tuple[float, Any]] = []
    for label, settings in zip(table["label"], table["settings"], strict=True):
        value = settings.get(setting)
        others = ",".join(f"{k}={v}" for k, v in settings.items() if k != setting)
        if isinstance(value, (int, float)):
            rows.append((float(value), method_of(label) + (f":{others}" if others else "")))
        else:  # plain training; or a setting that was changed while it was trained, which has no one place
            rows.append((0.0 if label == "erm" else math.nan, label if not settings or setting in settings else None))
    out = table.assign(_x=[x for x, _ in rows], _curve=[curve for _, curve in rows])
    out = out[out["_curve"].notna()].astype({"_curve": str})
    if not (out["_x"] > 0).any():
        raise ValueError(
            f"no method here has the setting {setting!r} as a number; got: {', '.join(set(table['label']))}"
        )
    return out


def place_of_zero(x: pd.Series[float]) -> float:
    """Where a logarithmic axis shows 0: one step left of the smallest setting."""
    own = sorted(set(x[x > 0]))
    return own[0] ** 2 / own[1] if len(own) > 1 else own[0] / 10


def _name_settings(ax: Axes, own: list[float], zero: float) -> None:
    """Ticks at the settings that were run, and a line that sets 0 apart from the logarithmic part."""
    from matplotlib.ticker import NullLocator

    places, texts = [x or zero for x in own], [f"{x:.3g}" for x in own]
    inches = width(ax) / (math.log(places[-1] / places[0]) or 1.0)
    named: list[int] = []
    for i, place in enumerate(places):  # only as many as can be read side by side
        letters = (len(texts[i]) + len(texts[named[-1]])) / 2 + 1 if named else 0
        if math.log(place / places[named[-1] if named else i]) * inches >= letters * INCHES_PER_LETTER:
            named.append(i)
    ax.set_xticks([places[i] for i in named], [texts[i] for i in named])
    ax.xaxis.set_minor_locator(NullLocator())
    if own[0] == 0:
        ax.axvline(math.sqrt(zero * own[1]), color=COLORS["data"], linewidth=0.8, linestyle=(0, (1, 3)))


def l_curve(
    runs: Rows,
    against: str = "rho",
    loss: str = "val_loss",
    *,
    ax: Axes | None = None,
) -> Axes:
    """What a method pays for what it buys: the loss over a sharpness, a penalty or its setting.

    Points are medians over seeds, joined in the order of the setting, which is written beside them or
    below; a ring marks the corner (see `corner`), between the best loss and the strongest setting if `against` is the
    setting. Members that diverged are left out.

    Args:
        runs: with label, settings and the columns that are drawn.
        against: a setting ("rho", "lam"), or a column, such as a sharpness that you have added.
        loss: a column; of what `hs.fit` returned "train_loss" is one too.
        ax: where to draw.

    Source: Hansen and O'Leary, SIAM J. Sci. Comput. 14, 1993.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> table = pd.DataFrame({"label": [f"sam:rho={r}" for r in (1, 2, 4)], "val_loss": [1.0, 1.1, 9.0],
    ...                       "settings": [{"rho": r} for r in (1, 2, 4)], "sharpness": [9.0, 1.0, 0.8]})
    >>> l_curve(table, "sharpness").get_xlabel()
    'sharpness'
    """
    frame = table_of(runs)
    if loss not in frame:
        raise ValueError(f"l_curve: no column {loss!r}; the table has: {', '.join(map(str, frame))}")
    strengths = [key for row in frame["settings"] for key in list(row)[:1]]
    by_column = against in frame
    if not strengths or not (by_column or against in strengths):
        raise ValueError(f"l_curve: {against!r} is neither a column nor a setting; settings: {sorted(set(strengths))}")
    wanted = list(dict.fromkeys(strengths)) if by_column else [against]
    with style():
        ax = axes(ax)
        tables = {key: by_setting(frame[finished(frame)], key) for key in wanted}
        curves = [c for table in tables.values() for c in dict.fromkeys(table["_curve"])]
        for table in tables.values():
            for curve, rows in table[table["_x"] > 0 if not by_column else table["_x"].notna()].groupby("_curve"):
                points = (
                    rows.assign(_at=rows[against] if by_column else rows["_x"]).groupby("_x")[["_at", loss]].median()
                )
                if str(curve) not in ax.get_legend_handles_labels()[1]:
                    _draw_l(ax, points.astype(float), str(curve), curves, start_at_best=not by_column)
        ax.set(xscale="log", yscale="log", xlabel=against)
        ax.set_ylabel({"val_loss": "validation loss", "train_loss": "training loss"}.get(loss, loss))
        if not by_column:
            _name_settings(ax, sorted({x for x in tables[against]["_x"] if x > 0}), 0.0)
        legend_above(ax)
    return ax


def _draw_l(ax: Axes, points: pd.DataFrame, curve: str, curves: Sequence[str], *, start_at_best: bool) -> None:
    x, y = points.iloc[:, 0].to_numpy(), points.iloc[:, 1].to_numpy()
    tint = color(curve, curves)
    ax.plot(x, y, color=tint, marker=marker(curve), label=curve)
    for setting, at in zip(points.index, zip(x, y, strict=True), strict=True):
        if setting > 0 and not start_at_best:
            ax.annotate(f"{setting:g}", at, xytext=(4, 4), textcoords="offset points", fontsize="x-small")
    first = int(y.argmin()) if start_at_best else 0
    found = corner(x[first:], y[first:])
    if found is not None:
        ring: Any = {"fillstyle": "none", "markersize": 13, "markeredgewidth": 1.6}
        new = "corner" not in ax.get_legend_handles_labels()[1]
        label = "corner" if new else None
        ax.plot(x[first + found], y[first + found], "o", color=COLORS["truth"], label=label, **ring)


def corner(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> int | None:
    """Where a curve turns: the point of log y over log x furthest below the chord between its ends.

    None if there are fewer than three points, none is below the chord, or a number is not positive.

    Source: Satopää et al., Finding a "kneedle" in a haystack, ICDCS Workshops 2011 (chord).

    >>> corner([1, 10, 100], [1.0, 1.1, 100.0])
    1
    """
    both = np.array([x, y], dtype=float)
    if both.shape[1] < 3 or not (np.isfinite(both).all() and (both > 0).all()) or both[0, 0] == both[0, -1]:
        return None
    u, v = np.log(both)
    below = v[0] + (v[-1] - v[0]) * (u - u[0]) / (u[-1] - u[0]) - v
    best = int(below[1:-1].argmax()) + 1
    return best if below[best] > 1e-12 else None
