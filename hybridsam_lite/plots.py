"""The one plotting style of the book: a colour for each concept, and the figures that return.

Figures have a white ground of their own and colours with a contrast of at least 3 to it, so that
they read the same on a light and on a dark page. Within the concepts, and within the methods,
colours stay apart for the common kinds of colour blindness; methods also differ in their markers.

Arguments that return: `truth` is the true value, drawn as a line; `name` says which theta, and may
be left out if there is only one; `unit` goes on the axis; `ax` is where to draw, by default a new
figure. Matplotlib is imported by the functions that draw, not with the library.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hybridsam_lite.diagnose import Report
    from hybridsam_lite.runs import Runs

__all__ = ["COLORS", "MARKERS", "color", "diagnosis", "history", "style", "theta_against_setting"]
__all__ += ["theta_by_method", "trajectories", "use_style"]

COLORS = {
    "data": "#5A5A5A", "truth": "#000000",
    "physics": "#0060A0", "network": "#B98A00", "hybrid": "#009E73",
    "erm": "#8A8A8A", "wd": "#3D9AD1", "fn": "#332288", "sam": "#D55E00", "asam": "#882255",
}  # fmt: skip
SPARE = ("#7B68EE", "#661100")  # for methods that have no colour of their own
MARKERS = {"erm": "o", "wd": "s", "fn": "^", "sam": "D", "asam": "v"}

WIDTH, HEIGHT = 6.4, 3.2  # inches: every figure is as wide as the text
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
    name = _method(label)
    if name in COLORS:
        return COLORS[name]
    strangers = [other for other in dict.fromkeys(map(_method, others)) if other not in COLORS]
    return SPARE[strangers.index(name) % len(SPARE) if name in strangers else 0]


def theta_by_method(
    frame: pd.DataFrame,
    truth: float | None = None,
    name: str | None = None,
    unit: str = "",
    *,
    error: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Every seed's theta as a point, a bar at the median, one column for each label.

    `frame` has a column label and either theta.<name> (as in `Runs.frame`) or theta_hat (numbers,
    or dicts by name); with `error`, theta_error is shown on a logarithmic axis instead. Rows whose
    status is "diverged" are counted below their label, not drawn.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> table = pd.DataFrame({"label": ["erm", "erm", "sam:rho=0.1"], "theta.g": [8.0, 11.0, 9.8]})
    >>> theta_by_method(table, truth=9.81, unit="m/s^2").get_ylabel()
    'g [m/s^2]'
    """
    name, values = _column(frame, name, "theta_error" if error else "theta_hat")
    ok, labels, ticks = _finished(frame), list(dict.fromkeys(frame["label"])), []
    with style():
        ax = _axes(ax)
        for i, label in enumerate(labels):
            mine, tint = frame["label"] == label, color(label, labels)
            shown = values[mine & ok].to_numpy()
            # Spread by order, not at random: the same table gives the same figure.
            across = i + 0.18 * (np.linspace(-1, 1, len(shown)) if len(shown) > 1 else 0 * shown)
            ax.plot(across, shown, MARKERS.get(_method(label), "P"), color=tint, alpha=0.75)
            if len(shown):
                ax.plot([i - 0.3, i + 0.3], [np.median(shown)] * 2, color=tint, linewidth=2.4)
            lost = int((mine & ~ok).sum())
            ticks.append(label.replace(":", "\n") + (f"\n({lost} diverged)" if lost else ""))
        if error:
            ax.set_yscale("log")
        else:
            _line_at(ax, truth)
        ax.set_xticks(range(len(ticks)), ticks)
        ax.grid(axis="x", visible=False)
        ax.set_ylabel(_with_unit(f"error of {name}" if error else name, unit))
    return ax


def history(
    runs: Runs | pd.DataFrame,
    truth: float | None = None,
    name: str | None = None,
    unit: str = "",
    *,
    ax: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """How runs went: the loss and theta against the step, on the two axes that are returned.

    `runs` is what `hs.fit` returned, or a table like its `history`: columns member, label, step,
    train_loss, val_loss and theta.<name>. The validation loss is shown if there is one.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> table = pd.DataFrame({"member": 0, "label": "erm", "step": [1, 2], "train_loss": [1.0, 0.1],
    ...                       "val_loss": [1.1, 0.2], "theta.g": [9.0, 9.5]})
    >>> [a.get_ylabel() for a in history(table)]
    ['validation loss', 'g']
    """
    import matplotlib.pyplot as plt

    table = runs if isinstance(runs, pd.DataFrame) else runs.history
    name, values = _column(table, name, "theta_hat")
    kind = "train_loss" if table["val_loss"].isna().all() else "val_loss"
    labels = list(dict.fromkeys(table["label"]))
    with style():
        left, right = plt.subplots(1, 2)[1] if ax is None else ax
        for _, run in table.groupby(["label", "member"], sort=False):
            label = str(run["label"].iloc[0])
            line: dict[str, Any] = {"color": color(label, labels), "alpha": 0.8, "linewidth": 1.2}
            new = label not in left.get_legend_handles_labels()[1]
            left.plot(run["step"], run[kind], label=label if new else None, **line)
            right.plot(run["step"], values[run.index], **line)
        _line_at(right, truth)
        left.set(xlabel="step", yscale="log")
        left.set_ylabel("training loss" if kind == "train_loss" else "validation loss")
        right.set(xlabel="step", ylabel=_with_unit(name, unit))
        left.legend()
    return [left, right]


def trajectories(
    t: Any,
    target: Any,
    predictions: Mapping[str, Any],
    name: str = "",
    unit: str = "",
    *,
    time_unit: str = "s",
    ax: Axes | None = None,
) -> Axes:
    """One measured quantity against time, and what models predict for it.

    `t`, `target` and each value of `predictions` have shape (time,); its keys are labels of methods
    or of concepts ("hybrid", "physics", ...). `name` is the quantity's.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> trajectories([0, 1], [1, 0], {"erm": [0.9, 0.1]}, name="angle", unit="rad").get_xlabel()
    't [s]'
    """
    dashes = ("-", "--", "-.", ":")
    with style():
        ax = _axes(ax)
        ax.plot(_array(t), _array(target), ".", color=COLORS["data"], label="data")
        for i, (label, values) in enumerate(predictions.items()):
            tint = color(label, list(predictions))
            ax.plot(_array(t), _array(values), dashes[i % 4], color=tint, label=label)
        ax.set(xlabel=_with_unit("t", time_unit), ylabel=_with_unit(name, unit))
        ax.legend()
    return ax


def theta_against_setting(
    frame: pd.DataFrame,
    truth: float | None = None,
    setting: str = "rho",
    name: str | None = None,
    unit: str = "",
    *,
    ax: Axes | None = None,
) -> Axes:
    """Theta over a method's setting; dotted, at the right, the validation loss: select by that.

    `frame` has the columns label, settings (dicts), val_loss, and theta as in `theta_by_method`.
    Methods without the setting (ERM) are lines at their median; diverged rows are left out.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> table = pd.DataFrame({"label": ["sam:rho=0.1", "sam:rho=0.2"], "val_loss": [0.1, 0.2],
    ...                       "settings": [{"rho": 0.1}, {"rho": 0.2}], "theta.g": [9.0, 9.8]})
    >>> theta_against_setting(table, truth=9.81).get_xscale()
    'log'
    """
    name, values = _column(frame, name, "theta_hat")
    x = frame["settings"].map(lambda settings: settings.get(setting, np.nan)).astype(float)
    table = pd.DataFrame({"x": x, "theta": values, "loss": frame["val_loss"]})
    table["method"] = frame["label"].map(_method)
    with style():
        ax = _axes(ax)
        right = ax.twinx()
        for key, rows in table[_finished(frame)].groupby("method", sort=False):
            method = str(key)
            tint = color(method, list(table["method"]))
            if rows["x"].isna().all():
                ax.axhline(rows["theta"].median(), color=tint, label=method)
                continue
            middle = rows.groupby("x")[["theta", "loss"]].median()
            ax.plot(rows["x"], rows["theta"], MARKERS.get(method, "P"), color=tint, alpha=0.35)
            ax.plot(middle.index, middle["theta"], color=tint, label=method)
            right.plot(middle.index, middle["loss"], ":", color=tint, linewidth=1.2)
        _line_at(ax, truth)
        ax.set(xscale="log", xlabel=setting, ylabel=_with_unit(name, unit))
        right.set(yscale="log", ylabel="validation loss (dotted)")
        right.spines["right"].set_visible(True)
        right.grid(visible=False)
        ax.legend()
    return ax


def diagnosis(report: Report, name: str | None = None, truth: float | None = None) -> Sequence[Axes]:
    """What `hs.diagnose` found about one theta, on three axes.

    Left, the loss over theta with everything else refitted. Middle, theta's 95 % interval if the network
    were known, if it adapts at the price lam, and if it is refitted freely (at least this, if hatched),
    with the limit below which theta counts as determined. Right, what network and physics contribute.
    `name` is by default the first theta that is not determined.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> import torch, hybridsam_lite as hs
    >>> x = torch.linspace(-1, 1, 8)[:, None]
    >>> report = hs.diagnose(hs.mlp(1, [2], 1), (x, 2 * x), theta=["2.bias"], steps=5)
    >>> [ax.get_title() for ax in diagnosis(report)]
    ['profile', '95 % interval', 'shares']
    """
    import matplotlib.pyplot as plt

    known = {v.label: v for v in report.verdicts}
    first = next((v.label for v in report.verdicts if not v.determined), report.verdicts[0].label)
    name = first if name is None else name
    if name not in known:
        raise ValueError(f"name={name!r}, but the report has theta: {', '.join(known)}")
    with style():
        figure, (left, middle, right) = plt.subplots(1, 3, width_ratios=(2, 1.3, 1))
        word = "is" if known[name].determined else "is not"
        figure.suptitle(f"{name} {word} determined by this data and model", fontsize="medium")
        _draw_profile(left, report, name, truth)
        _draw_intervals(middle, report, list(known).index(name))
        parts = {"network": report.shares.network, "physics": report.shares.physics}
        for part, size in parts.items():
            if size is not None:
                right.bar(part, size, color=COLORS[part])
        if report.shares.network is None:
            right.text(0.5, 0.5, "nested:\nnot defined", ha="center", va="center", transform=right.transAxes)
        right.set(title="shares", ylabel="root mean square")
        for ax in (middle, right):
            ax.grid(axis="x", visible=False)
            ax.tick_params(axis="x", labelsize="small", labelrotation=30)
    return [left, middle, right]


def _draw_profile(ax: Axes, report: Report, name: str, truth: float | None) -> None:
    curve = report.profiles.get(name)
    ax.set(title="profile", xlabel=name, ylabel="loss, all else refitted")
    if curve is None:
        ax.text(0.5, 0.5, "no profile", ha="center", va="center", transform=ax.transAxes)
        return
    inside = max(curve.low, curve.grid[0]), min(curve.high, curve.grid[-1])
    ax.axvspan(*inside, color=COLORS["hybrid"], alpha=0.15, label="not ruled out")
    ax.plot(curve.grid, curve.losses, "o-", color=COLORS["hybrid"], markersize=3)
    ax.axhline(curve.threshold, color=COLORS["data"], linestyle=":", label="limit")
    ax.plot(curve.entry.value, curve.reference, "D", color=COLORS["physics"], label="trained")
    ax.set(xlabel=_with_unit(name, curve.entry.unit), yscale="log")
    if truth is not None:
        ax.axvline(truth, color=COLORS["truth"], linestyle="--", linewidth=1, label="truth")
    ax.margins(y=0.3)  # room for the legend above the curve
    ax.legend(loc="upper center", ncols=2, fontsize="x-small")


def _draw_intervals(ax: Axes, report: Report, k: int) -> None:
    from hybridsam_lite.diagnose import LIMIT, NORMAL

    found = report.information
    widths = {"known": NORMAL * found.sd_known[k], "adapts": NORMAL * found.sd[k]}
    curve = report.profiles.get(found.entries[k].label)
    if curve is not None:
        widths["refitted"] = curve.half_width
    for label, width in widths.items():
        is_open = not np.isfinite(width)
        least = 1.0 if curve is None else (curve.grid[-1] - curve.grid[0]) / 2 / curve.entry.range
        shown = max(100 * (least if is_open else width), 1e-6)
        tint = COLORS["physics" if label == "known" else "hybrid"]
        ax.bar(label, shown, color=tint, edgecolor="white", hatch="//" if is_open else None)
    ax.axhline(100 * LIMIT, color=COLORS["data"], linestyle=":")
    ax.set(title="95 % interval", ylabel="± % of the range", yscale="log", xlabel="network")


def _axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    return plt.subplots()[1] if ax is None else ax


def _line_at(ax: Axes, truth: float | None) -> None:
    if truth is not None:
        ax.axhline(truth, color=COLORS["truth"], linestyle="--", linewidth=1, label="truth")
        ax.legend()


def _method(label: str) -> str:
    return label.partition(":")[0]


def _with_unit(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _finished(frame: pd.DataFrame) -> pd.Series[bool]:
    return frame.get("status", pd.Series("ok", frame.index)) != "diverged"


def _array(x: Any) -> np.ndarray[Any, Any]:
    """A one-dimensional array from a list, an array or a tensor, also one with a gradient."""
    array = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, dtype=float)
    if array.ndim != 1:
        raise ValueError(f"trajectories: expected one quantity, shape (time,); got {array.shape}")
    return array


def _column(frame: pd.DataFrame, name: str | None, kind: str) -> tuple[str, pd.Series[float]]:
    """Name and values of one scalar theta (or its error), from runs or from task records."""
    found: dict[str, Any] = {}
    if kind in frame:
        dicts = frame[kind].map(lambda value: isinstance(value, Mapping)).all()
        found = {name or "theta": frame[kind]}
        if dicts:
            found = {str(k): frame[kind].map(lambda v, k=k: v.get(k)) for k in frame[kind].iloc[0]}
    elif kind == "theta_hat":
        found = {str(c)[6:]: frame[c] for c in frame if str(c).startswith("theta.")}
    name = next(iter(found)) if name is None and len(found) == 1 else name
    if name not in found:
        raise ValueError(f"name={name!r}, but the table has theta: {', '.join(found) or 'none'}")
    try:
        return name, found[name].astype(float)
    except (TypeError, ValueError):
        raise ValueError(f"theta {name!r} is not one number in each row; take one entry") from None
