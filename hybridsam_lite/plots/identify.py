"""Figures of what the data say about theta: the profile likelihood and the whole diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hybridsam_lite.plots.look import COLORS, axes, few_ticks, legend_above, style, truth_line, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hybridsam_lite.diagnose import Report
    from hybridsam_lite.likelihood import Profile

__all__ = ["diagnosis", "profile"]


def profile(curve: Profile, truth: float | None = None, *, ax: Axes | None = None) -> Axes:
    """Profile likelihood of one theta: the loss over it, with everything else refitted.

    `curve` is what `hs.profile` returned. Values under the dotted limit are not ruled out by the data:
    the shaded range, which goes to the end of the grid where it is open.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> import torch, hybridsam_lite as hs
    >>> x = torch.linspace(-1, 1, 8)[:, None]
    >>> at = hs.Landscape(hs.mlp(1, [2], 1), (x, 2 * x), theta=["2.bias"])
    >>> profile(hs.profile(at, steps=5)).get_xlabel()
    '2.bias'
    """
    with style():
        ax = axes(ax)
        _draw_profile(ax, curve, truth)
        few_ticks(ax.yaxis)
        legend_above(ax)
    return ax


def _draw_profile(ax: Axes, curve: Profile, truth: float | None) -> None:
    inside = max(curve.low, curve.grid[0]), min(curve.high, curve.grid[-1])
    ax.axvspan(*inside, color=COLORS["hybrid"], alpha=0.15, label="not ruled out")
    ax.plot(curve.grid, curve.losses, "o-", color=COLORS["hybrid"], markersize=3)
    ax.axhline(curve.threshold, color=COLORS["data"], linestyle=":", label="limit")
    ax.plot(curve.entry.value, curve.reference, "D", color=COLORS["physics"], label="trained")
    truth_line(ax, truth, vertical=True)
    ax.set(xlabel=with_unit(curve.entry.label, curve.entry.unit), ylabel="loss, all else refitted", yscale="log")


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
        left.set(title="profile", xlabel=name, ylabel="loss, all else refitted")
        if name in report.profiles:
            _draw_profile(left, report.profiles[name], truth)
            left.margins(y=0.3)  # room for the legend above the curve
            few_ticks(left.yaxis)
            left.legend(loc="upper center", ncols=2, fontsize="x-small")
        else:
            left.text(0.5, 0.5, "no profile", ha="center", va="center", transform=left.transAxes)
        _draw_intervals(middle, report, list(known).index(name))
        parts = {"network": report.shares.network, "physics": report.shares.physics}
        for part, size in parts.items():
            if size is not None:
                right.bar(part, size, color=COLORS[part])
        if report.shares.network is None:
            right.text(0.5, 0.5, "nested:\nnot defined", ha="center", va="center", transform=right.transAxes)
        if not any(parts.values()):
            right.set(xticks=[], yticks=[])
        right.set(title="shares", ylabel="root mean square")
        for ax in (middle, right):
            ax.grid(axis="x", visible=False)
            ax.tick_params(axis="x", labelsize="small", labelrotation=30)
    return [left, middle, right]


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
