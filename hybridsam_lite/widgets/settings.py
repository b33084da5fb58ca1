"""Explore settings: what a method's strength does to theta and to the validation loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from hybridsam_lite.plots.look import COLORS, method_of, style, with_unit
from hybridsam_lite.plots.settings import by_setting, place_of_zero, theta_against_setting
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

    A method with further settings that are not as usual is another one: "sam:theta_grad=clean".

    >>> rows = [{"label": f"sam:rho={rho}", "settings": {"rho": rho}} for rho in (0.2, 0.1)]
    >>> settings_of([*rows, {"label": "erm", "settings": {}}])
    {'sam': ('rho', [0.0, 0.1, 0.2])}
    """
    table = table_of(runs)
    plain = {0.0} if (table["label"] == "erm").any() else set()
    found: dict[str, tuple[str, list[float]]] = {}
    first = [next(iter(settings.items()), ("", None)) for settings in table["settings"]]
    for key in dict.fromkeys(key for key, value in first if isinstance(value, (int, float)) and value > 0):
        for curve, rows in by_setting(table, key).groupby("_curve", sort=False):
            if method_of(str(curve)) != "erm" and rows["_x"].notna().any():
                found.setdefault(str(curve), (key, sorted(set(rows["_x"].dropna()) | plain)))
    if not found:
        raise ValueError("no method here has a setting to explore, as sam:rho=0.1 and wd:lam=1 have")
    return found


class _Outcome(NamedTuple):
    """Of the members with one setting, without those that diverged."""

    middle: float
    low: float
    high: float
    loss: float
    kept: int
    members: int


def _at(table: pd.DataFrame, method: str, setting: str, value: float) -> pd.DataFrame:
    """The members of a method with one setting; at 0 those of plain training, if the method has none itself."""
    rows = by_setting(table, setting)
    rows = rows[rows["_x"] == value]
    own = rows["_curve"] == method
    return rows[own if own.any() else rows["_curve"] == "erm"]


def _outcome(rows: pd.DataFrame, theta: pd.Series[float]) -> _Outcome:
    ok = rows[finished(rows)]
    values = theta[ok.index]
    loss = ok["val_loss"].astype(float).median()
    return _Outcome(values.median(), values.min(), values.max(), loss, len(ok), len(rows))


def compare(
    runs: Rows, method: str, value: float, *, truth: float | None = None, name: str | None = None, unit: str = ""
) -> str:
    """What a method's setting does to theta and the validation loss, against the next weaker one, in words.

    >>> rows = [{"label": f"sam:rho={r}", "settings": {"rho": r}, "theta.g": g, "val_loss": r}
    ...         for r, g in ((0.1, 9.0), (0.1, 9.2), (0.2, 9.8), (0.2, 9.9))]
    >>> compare(rows, "sam", 0.2)
    'rho = 0.2: median g 9.85, seeds 9.8 to 9.9; validation loss 2.0e-01.
     Against rho = 0.1: median moved by +0.75, range of seeds times 0.5, validation loss times 2.'
    """
    table = table_of(runs)
    name, theta = theta_column(table, name)
    setting, values = settings_of(table)[method]
    if value not in values:
        raise ValueError(f"{method} was not run with {setting}={value:g}; run: {', '.join(f'{x:g}' for x in values)}")
    outcomes = {v: _outcome(_at(table, method, setting, v), theta) for v in values if v <= value}
    here = outcomes.pop(value)
    if not here.kept:
        return f"{setting} = {value:g}: all {here.members} members diverged."
    off = "" if truth is None else f" ({here.middle - truth:+.2g} from the truth)"
    middle = f"{here.middle:.4g} {unit}".strip()
    loss = f"validation loss {here.loss:.1e}" if math.isfinite(here.loss) else "no validation loss"
    out = f"{setting} = {value:g}: median {name} {middle}{off}, seeds {here.low:.4g} to {here.high:.4g}; {loss}."
    if here.kept < here.members:
        out += f" {here.members - here.kept} of {here.members} diverged and are left out."
    weaker = [v for v, outcome in outcomes.items() if outcome.kept][-1:]
    for v in weaker:
        there = outcomes[v]
        changes = [f"median moved by {here.middle - there.middle:+.2g}"]
        for what, now, before in (
            ("range of seeds", here.high - here.low, there.high - there.low),
            ("validation loss", here.loss, there.loss),
        ):
            changes += [f"{what} times {now / before:.2g}"] if before > 0 and math.isfinite(now) else []
        out += f" Against {setting} = {v:g}{'' if v else ' (plain training)'}: {', '.join(changes)}."
    return out


def draw_setting(
    runs: Rows, method: str, value: float, *, truth: float | None = None, name: str | None = None, unit: str = ""
) -> Figure:
    """One method's `theta_against_setting`, beside plain training, with one setting marked."""
    table = table_of(runs)
    setting, _ = settings_of(table)[method]
    rows = by_setting(table, setting)
    rows = rows[rows["_curve"].isin([method, "erm"])]
    figure = new_figure()
    with style():
        ax = theta_against_setting(table.loc[rows.index], truth, setting, name, unit, ax=figure.subplots())
        at = value or place_of_zero(rows["_x"])
        ax.axvline(at, color=COLORS["data"], linewidth=14, alpha=0.2, zorder=0)
    return figure


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
    slider = widgets.SelectionSlider(options=[("", 0.0)], continuous_update=False)
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
    new_method(None)
    return widgets.VBox([widgets.HBox([method, slider], layout={"flex_flow": "row wrap"}), text, picture, seeds])
