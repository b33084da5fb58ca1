"""Figures over time: how training went, and what models predict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hybridsam_lite.plots.look import COLORS, axes, color, dash, few_ticks, legend_above, style, truth_line, with_unit
from hybridsam_lite.plots.tables import theta_column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hybridsam_lite.runs import Runs

__all__ = ["history", "trajectories"]

LETTERS = 28  # of a line in the legend of a narrow figure


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
    train_loss, val_loss and theta.<name>. The validation loss is shown if there is one. Where all theta is
    inferred per sample the second axes stay empty.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> table = pd.DataFrame({"member": 0, "label": "erm", "step": [1, 2], "train_loss": [1.0, 0.1],
    ...                       "val_loss": [1.1, 0.2], "theta.g": [9.0, 9.5]})
    >>> [a.get_ylabel() for a in history(table)]
    ['validation loss', 'g']
    """
    import matplotlib.pyplot as plt

    table = (runs if isinstance(runs, pd.DataFrame) else runs.history).reset_index(drop=True)
    none = name is None and not any(str(c).startswith("theta.") for c in table)
    name, values = ("theta", pd.Series(math.nan, table.index)) if none else theta_column(table, name)
    kind = "train_loss" if table["val_loss"].isna().all() else "val_loss"
    labels = list(dict.fromkeys(table["label"]))
    with style():
        left, right = plt.subplots(1, 2)[1] if ax is None else ax
        for _, run in table.groupby(["label", "member"], sort=False):
            label = str(run["label"].iloc[0])
            line: dict[str, Any] = {"color": color(label, labels), "linestyle": dash(label, labels)}
            line |= {"alpha": 0.8, "linewidth": 1.2}
            text = fill(label, LETTERS)
            new = text not in left.get_legend_handles_labels()[1]
            seen = run.dropna(subset=[kind])  # not every row of a live table has been validated
            left.plot(seen["step"], seen[kind], label=text if new else None, **line)
            right.plot(run["step"], values[run.index], **line)
        truth_line(right, truth)
        left.set(xlabel="step", yscale="log")
        left.set_ylabel("training loss" if kind == "train_loss" else "validation loss")
        right.set(xlabel="step", ylabel=with_unit(name, unit))
        if none:
            right.text(0.5, 0.5, "inferred per sample", ha="center", transform=right.transAxes)
            right.set(xticks=[], yticks=[], xlabel="")
        few_ticks(left.yaxis)
        left.legend()
        if truth is not None:
            right.legend()
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
        ax = axes(ax)
        ax.plot(_array(t), _array(target), ".", color=COLORS["data"], label="data")
        for i, (label, values) in enumerate(predictions.items()):
            tint = color(label, list(predictions))
            ax.plot(_array(t), _array(values), dashes[i % 4], color=tint, label=label)
        ax.set(xlabel=with_unit("t", time_unit), ylabel=with_unit(name, unit))
        legend_above(ax)
    return ax


def _array(x: Any) -> np.ndarray[Any, Any]:
    """A one-dimensional array from a list, an array or a tensor, also one with a gradient."""
    array = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, dtype=float)
    if array.ndim != 1:
        raise ValueError(f"trajectories: expected one quantity, shape (time,); got {array.shape}")
    return array
