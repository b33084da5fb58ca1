"""Explore settings: what a method's strength does to theta and to the validation loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hybridsam_lite.plots.look import COLORS, method_of, style, with_unit
from hybridsam_lite.plots.settings import theta_against_setting
from hybridsam_lite.plots.tables import Rows, finished, table_of, theta_column
from hybridsam_lite.widgets.parts import figure as new_figure
from hybridsam_lite.widgets.parts import ipywidgets
from hybridsam_lite.widgets.parts import picture as as_picture
from hybridsam_lite.widgets.parts import said as as_said

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compare", "draw_setting", "rho_explorer", "settings_of"]


def settings_of(runs: Rows) -> dict[str, tuple[str, list[float]]]:
    """Method -> the name of its setting and the values that were run, increasing; 0 stands for plain training.

    >>> rows = [{"label": f"sam:rho={rho}", "settings": {"rho": rho}} for rho in (0.2, 0.1)]
    >>> settings_of([*rows, {"label": "erm", "settings": {}}])
    {'sam': ('rho', [0.0, 0.1, 0.2])}
    """
    table = table_of(runs)
    found: dict[str, tuple[str, set[float]]] = {}
    for label, settings in zip(table["label"], table["settings"], strict=True):
        key, value = next(iter(settings.items()), ("", None))
        if isinstance(value, (int, float)) and label != f"erm:{key}={value:g}":
            found.setdefault(method_of(label), (key, set()))[1].add(float(value))
    if not found:
        raise ValueError("no method here has a setting to explore, as sam:rho=0.1 and wd:lam=1 have")
    plain = {0.0} if (table["label"] == "erm").any() else set()
    return {method: (key, sorted(values | plain)) for method, (key, values) in found.items()}


def _at(table: pd.DataFrame, method: str, setting: str, value: float) -> pd.DataFrame:
    own = table["label"].map(method_of) == method
    rows = table[own & table["settings"].map(lambda settings: settings.get(setting) == value)]
    return table[table["label"] == "erm"] if rows.empty and value == 0 else rows


def compare(
    runs: Rows, method: str, value: float, *, truth: float | None = None, name: str | None = None, unit: str = ""
) -> str:
    """What a method's setting does to theta and the validation loss, against the next weaker one, in words.

    >>> rows = [{"label": f"sam:rho={r}", "settings": {"rho": r}, "theta.g": g, "val_loss": r}
    ...         for r, g in ((0.1, 9.0), (0.1, 9.2), (0.2, 9.8), (0.2, 9.8))]
    >>> compare(rows, "sam", 0.2)
    'rho = 0.2: median g 9.8, seeds 9.8 to 9.8; validation loss 2.0e-01.
     Against rho = 0.1: median moved by +0.7, range of seeds times 0, validation loss times 2.'
    """
    table = table_of(runs)
    name, theta = theta_column(table, name)
    setting, values = settings_of(table)[method]
    weaker = [v for v in values if v < value][-1:]
    middles, widths, losses = [], [], []
    text = ""
    for v in (value, *weaker):
        rows = _at(table, method, setting, v)
        if rows.empty:
            raise ValueError(f"{method} was not run with {setting}={v:g}; run: {', '.join(f'{x:g}' for x in values)}")
        ok = rows[finished(rows)]
        lost = len(rows) - len(ok)
        if v == value and lost:
            text = f" {lost} of {len(rows)} diverged and are left out."
        if ok.empty:
            return f"{setting} = {v:g}: all {len(rows)} members diverged."
        found = theta[ok.index]
        middles.append(float(found.median()))
        widths.append(float(found.max() - found.min()))
        losses.append(float(ok["val_loss"].astype(float).median()))
        if v == value:
            ends = f"seeds {found.min():.4g} to {found.max():.4g}"
    off = "" if truth is None else f" ({middles[0] - truth:+.2g} from the truth)"
    middle = f"{middles[0]:.4g} {unit}".strip()
    out = f"{setting} = {value:g}: median {name} {middle}{off}, {ends}; validation loss {losses[0]:.1e}.{text}"
    if weaker:
        times = [f"times {a / b:.2g}" if b else "no longer zero" for a, b in ((widths[0], widths[1]), losses)]
        against = f"{setting} = {weaker[0]:g}" + (" (plain training)" if weaker[0] == 0 else "")
        out += f" Against {against}: median moved by {middles[0] - middles[1]:+.2g}, "
        out += f"range of seeds {times[0]}, validation loss {times[1]}."
    return out


def draw_setting(
    runs: Rows, method: str, value: float, *, truth: float | None = None, name: str | None = None, unit: str = ""
) -> Figure:
    """One method's `theta_against_setting`, beside plain training, with one setting marked."""
    table = table_of(runs)
    setting, values = settings_of(table)[method]
    mine = table[(table["label"].map(method_of) == method) | (table["label"] == "erm")]
    figure = new_figure()
    with style():
        ax = theta_against_setting(mine, truth, setting, name, unit, ax=figure.subplots())
        ticks = dict(zip(values, sorted(set(np.concatenate([line.get_xdata() for line in _points(ax)]))), strict=False))
        ax.axvline(ticks.get(value, value), color=COLORS["data"], linewidth=14, alpha=0.2, zorder=0)
    return figure


def _points(ax: Any) -> list[Any]:
    return [line for line in ax.lines if line.get_transform() == ax.transData]


def rho_explorer(runs: Rows, *, truth: float | None = None, name: str | None = None, unit: str = "") -> Any:
    """A slider over the settings of each method: theta of all seeds, validation loss, and what changes.

    Args:
        runs: what `hs.fit` returned, its frame, or run records of one problem.
        truth, name, unit: of theta, as in `hs.plots`.

    Returns:
        An ipywidgets box; the last value of a notebook cell shows it.

    Raises:
        ImportError: without ipywidgets.
        ValueError: if no method has a setting.

    >>> rows = [{"label": f"sam:rho={r}", "settings": {"rho": r}, "theta.g": 9 + r, "val_loss": r, "seed": 0,
    ...          "status": "ok"} for r in (0.1, 0.2)]
    >>> rho_explorer(rows).children[0].children[1].description
    'rho'
    """
    widgets, table = ipywidgets(), table_of(runs)
    name, theta = theta_column(table, name)
    grids = settings_of(table)
    known: Any = {"truth": truth, "name": name, "unit": unit}
    method = widgets.Dropdown(options=list(grids), description="method")
    first_name, first = grids[method.value]
    slider = widgets.SelectionSlider(
        options=[(f"{v:g}", v) for v in first], description=first_name, continuous_update=False
    )
    text, picture, seeds = (widgets.HTML() for _ in range(3))

    def new_method(_: Any) -> None:
        setting, values = grids[method.value]
        slider.unobserve(show, "value")
        slider.options, slider.description = [(f"{v:g}", v) for v in values], setting
        slider.observe(show, "value")
        show(None)

    def show(_: Any) -> None:
        said = compare(table, method.value, slider.value, **known)
        text.value = as_said(said)
        picture.value = as_picture(draw_setting(table, method.value, slider.value, **known), said)
        rows = _at(table, method.value, grids[method.value][0], slider.value)
        shown = rows[["seed", "val_loss", "status"]].assign(theta=theta[rows.index])
        shown = shown.rename(columns={"theta": with_unit(name, unit), "val_loss": "validation loss"})
        seeds.value = shown.to_html(index=False, float_format="{:.4g}".format, border=0)

    method.observe(new_method, "value")
    slider.observe(show, "value")
    show(None)
    return widgets.VBox([widgets.HBox([method, slider]), text, picture, seeds])
