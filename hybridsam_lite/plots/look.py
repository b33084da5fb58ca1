"""The book's one plotting style: a colour for each concept, and what all figures share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["COLORS", "HEIGHT", "MARKERS", "SPARE", "STYLE", "WIDTH", "color", "style", "use_style"]

COLORS = {
    "data": "#5A5A5A", "truth": "#000000",
    "physics": "#0060A0", "network": "#B98A00", "hybrid": "#009E73",
    "erm": "#8A8A8A", "wd": "#3D9AD1", "fn": "#332288", "sam": "#D55E00", "asam": "#882255",
}  # fmt: skip
SPARE = ("#7B68EE", "#661100")  # for methods that have no colour of their own
MARKERS = {"erm": "o", "wd": "s", "fn": "^", "sam": "D", "asam": "v"}

WIDTH, HEIGHT = 6.4, 3.2  # inches: every figure is as wide as the text
INCHES_PER_LETTER = 0.08  # about, in ticks and legends
STYLE: Any = {
    "axes.axisbelow": True, "axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.6,
    "axes.spines.right": False, "axes.spines.top": False,
    "figure.constrained_layout.use": True, "figure.figsize": (WIDTH, HEIGHT),
    "figure.dpi": 144, "savefig.dpi": 144, "figure.facecolor": "white", "image.cmap": "cividis",
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": "medium",
    "legend.fontsize": "small", "legend.frameon": False,
    "lines.linewidth": 1.6, "lines.markersize": 5,
}  # fmt: skip


def style() -> AbstractContextManager[None]:
    """The book's style, for the figures of one `with` block.

    >>> with style():
    ...     import matplotlib
    ...     matplotlib.rcParams["figure.figsize"]
    [6.4, 3.2]
    """
    import matplotlib

    return matplotlib.rc_context(STYLE)


def use_style() -> None:
    """Make the book's style the default for this session; in a notebook, keep figures uncropped.

    >>> use_style()
    """
    import matplotlib

    matplotlib.rcParams.update(STYLE)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):  # notebooks crop figures by default, each to another width
        inline = import_module("matplotlib_inline.config").InlineBackend.instance(parent=shell)
        inline.print_figure_kwargs = {"bbox_inches": None}


def color(label: str, others: Sequence[str] = ()) -> str:
    """Colour of a concept or of a method's label; `others` are all labels of the same figure.

    >>> color("asam:rho=1") == COLORS["asam"]
    True
    """
    name = method_of(label)
    if name in COLORS:
        return COLORS[name]
    strangers = [other for other in dict.fromkeys(map(method_of, others)) if other not in COLORS]
    return SPARE[strangers.index(name) % len(SPARE) if name in strangers else 0]


def marker(label: str) -> str:
    """Marker of a method's label."""
    return MARKERS.get(method_of(label), "P")


def method_of(label: str) -> str:
    """A label's method: "asam" of "asam:rho=1"."""
    return label.partition(":")[0]


def axes(ax: Axes | None) -> Axes:
    """`ax`, or that of a new figure."""
    import matplotlib.pyplot as plt

    return plt.subplots()[1] if ax is None else ax


def truth_line(ax: Axes, truth: float | None, *, vertical: bool = False) -> None:
    """A dashed line at theta's true value, if there is one."""
    if truth is not None:
        draw = ax.axvline if vertical else ax.axhline
        draw(truth, color=COLORS["truth"], linestyle="--", linewidth=1, label="truth")


def legend_above(ax: Axes) -> None:
    """The legend over the axes, where it hides no data, with as many columns as there is room for."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        place: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        column = 0.5 + INCHES_PER_LETTER * max(map(len, labels))
        ax.legend(handles, labels, ncols=max(1, int(width(ax) / column)), handlelength=1.6, **place)


def few_ticks(axis: Axis) -> None:
    """Of a logarithmic axis that spans less than a decade, a few round numbers instead of all the minor ticks."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    low, high = sorted(axis.get_view_interval())
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter("{x:.4g}")
        axis.set_minor_locator(NullLocator())


def dash(label: str, others: Sequence[str]) -> str:
    """Of several labels with one colour, each gets a line of its own."""
    alike = [other for other in dict.fromkeys(others) if color(other, others) == color(label, others)]
    return ("-", "--", "-.", ":")[alike.index(label) % 4]


def width(ax: Axes) -> float:
    """Width in inches, before the layout is settled."""
    return float(ax.get_position().width * ax.figure.bbox.width / ax.figure.dpi)


def with_unit(name: str, unit: str) -> str:
    """An axis label: "g [m/s^2]"."""
    return f"{name} [{unit}]" if unit else name
