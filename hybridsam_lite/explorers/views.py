"""What an explorer shows at one state, as plain data: a sentence, and panels of marks; and its picture.

The page's script draws the same data (`explorer.js`), so that both show the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Any

from hybridsam_lite.plots.look import SPARE, STYLE, style
from hybridsam_lite.widgets.parts import figure as new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GUESSED", "arrow", "axis", "line", "number", "panel", "picture_of", "points", "rule", "signed", "view"]

Mark = dict[str, Any]
Panel = dict[str, Any]
View = dict[str, Any]
HIGH = 3.6  # inches, of a picture with two panels
CROWDED = 24  # characters of all tick labels together
DIGITS = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))  # of the ticks between powers of ten, few first
GUESSED = SPARE[0]  # colour of the reader's guess


def number(x: float) -> str:
    """Three significant digits, as the page's script writes them.

    >>> number(1234.5), number(0.30000000000000004), number(-2e-6), number(float("nan"))
    ('1230', '0.3', '-2e-6', 'unknown')
    """
    if not math.isfinite(x):
        return "unknown"
    if x == 0:
        return "0"
    rounded = Context(prec=3, rounding=ROUND_HALF_UP).create_decimal(Decimal(float(x)))
    if -4 <= rounded.adjusted() < 6:
        return f"{rounded.normalize():f}"
    digits, _, exponent = f"{rounded.normalize():e}".partition("e")
    return f"{digits}e{int(exponent)}"


def signed(x: float) -> str:
    """`number` with its sign.

    >>> signed(0.5), signed(-0.5)
    ('+0.5', '-0.5')
    """
    return ("+" if x >= 0 else "") + number(x)


def axis(
    label: str, low: float, high: float, *, log: bool = False, ticks: Sequence[tuple[float, str]] | None = None
) -> dict[str, Any]:
    """An axis; `ticks` are places and their texts, by default round numbers.

    Raises:
        ValueError: if a logarithmic axis does not start above zero.
    """
    if log and not 0 < low < high:
        raise ValueError(f"axis {label!r}: expected 0 < low < high of a logarithmic axis, got {low:g} and {high:g}")
    if log and ticks is None:
        ticks = between_powers(low, high)
    out: dict[str, Any] = {"label": label, "range": [low, high], "log": log}
    return out if ticks is None else out | {"ticks": [list(tick) for tick in ticks]}


def between_powers(low: float, high: float) -> list[tuple[float, str]] | None:
    """Ticks of a logarithmic axis on which fewer than two powers of ten lie; None for a longer one.

    >>> between_powers(4e-4, 6e-3)
    [(0.0005, '5e-4'), (0.001, '1e-3'), (0.002, '2e-3'), (0.005, '5e-3')]
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)

    def multiples(digits: Sequence[float]) -> list[float]:
        found = (float(f"{digit}e{e}") for e in exponents for digit in digits)
        return [x for x in found if low * (1 - 1e-9) <= x <= high * (1 + 1e-9)]

    if len(multiples((1,))) > 1:
        return None
    enough = (found for digits in DIGITS if len(found := multiples(digits)) > 1)
    return [(x, _brief(x)) for x in next(enough, [low, math.sqrt(low * high), high])]


def _brief(x: float) -> str:
    """`number`, or with an exponent where that is shorter: there is room for some five letters."""
    text, digits = number(x), f"{x:.2e}".partition("e")
    power = f"{float(digits[0]):g}e{int(digits[2])}"
    return power if len(text) > 4 and len(power) < len(text) else text


def line(
    at: Iterable[Sequence[float]],
    color: str,
    name: str = "",
    *,
    dash: bool = False,
    width: float = 1.8,
    opacity: float = 1,
) -> Mark:
    """A line through the points (x, y) of `at`; `name` puts it into the legend."""
    return {
        "kind": "line", "at": _pairs(at), "color": color, "name": name, "dash": dash, "width": width,
        "opacity": opacity,
    }  # fmt: skip


def points(
    at: Iterable[Sequence[float]], color: str, name: str = "", *, shape: str = "o", size: float = 5, opacity: float = 1
) -> Mark:
    """Points (x, y); `shape` is one of matplotlib's o, s, ^, v, D, P and x, `size` in points."""
    return {
        "kind": "points", "at": _pairs(at), "color": color, "name": name, "shape": shape, "size": size,
        "opacity": opacity,
    }  # fmt: skip


def rule(color: str, name: str = "", *, x: float | None = None, y: float | None = None, dash: bool = True) -> Mark:
    """A line across the panel, at x or at y."""
    return {"kind": "rule", "x": x, "y": y, "color": color, "name": name, "dash": dash}


def arrow(start: Sequence[float], end: Sequence[float], color: str, name: str = "") -> Mark:
    """An arrow between two points (x, y)."""
    return {"kind": "arrow", "at": _pairs([start, end]), "color": color, "name": name}


def panel(x: dict[str, Any], y: dict[str, Any], *marks: Mark) -> Panel:
    """Two axes, and marks in the order in which they are drawn."""
    return {"x": x, "y": y, "marks": list(marks)}


def view(text: str, *panels: Panel) -> View:
    """What is shown: in words, and in one or two panels side by side."""
    return {"text": text, "panels": list(panels)}


def _pairs(at: Iterable[Sequence[float]]) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in at]


def picture_of(shown: View) -> Figure:
    """The static picture of a view, in the style of `hs.plots`."""
    with style():
        figure = new_figure(HIGH if len(shown["panels"]) > 1 else STYLE["figure.figsize"][1])
        for ax, one in zip(figure.subplots(1, len(shown["panels"]), squeeze=False)[0], shown["panels"], strict=True):
            _draw(ax, one)
        named: dict[str, Any] = {}
        for ax in figure.axes:
            handles, labels = ax.get_legend_handles_labels()
            named |= dict(zip(labels, handles, strict=True))
        if named:
            place: Any = {"loc": "outside upper left", "ncols": 4, "handlelength": 1.6}
            figure.legend(list(named.values()), list(named), **place)
    return figure


def _draw(ax: Axes, one: Panel) -> None:
    for mark in one["marks"]:
        _draw_mark(ax, mark)
    for name in "xy":
        own = one[name]
        set_scale, set_limits, set_label = (getattr(ax, f"set_{name}{what}") for what in ("scale", "lim", "label"))
        set_scale("log" if own["log"] else "linear")
        set_limits(*own["range"])
        set_label(own["label"])
        if "ticks" in own:
            getattr(ax, f"set_{name}ticks")(*zip(*own["ticks"], strict=True))
            getattr(ax, f"set_{name}ticks")([], minor=True)
            if name == "x" and sum(len(text) for _, text in own["ticks"]) > CROWDED:
                ax.tick_params(axis="x", labelsize=7, rotation=35)


def _draw_mark(ax: Axes, mark: Mark) -> None:
    look: Any = {"color": mark["color"], "label": mark["name"] or None}
    if mark["kind"] == "rule":
        draw, where = (ax.axhline, mark["y"]) if mark["x"] is None else (ax.axvline, mark["x"])
        draw(where, linewidth=1, linestyle="--" if mark["dash"] else "-", **look)
        return
    x, y = zip(*mark["at"], strict=True) if mark["at"] else ((), ())
    if mark["kind"] == "line":
        ax.plot(x, y, "--" if mark["dash"] else "-", linewidth=mark["width"], alpha=mark["opacity"], **look)
    elif mark["kind"] == "points":
        ax.plot(x, y, mark["shape"], markersize=mark["size"], alpha=mark["opacity"], **look)
    else:
        ax.plot([], [], linewidth=2, **look)
        ends: Any = {"arrowstyle": "-|>", "color": mark["color"], "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", mark["at"][1], mark["at"][0], arrowprops=ends)
