"""The loss in a plane: theta, and a direction of phi that can make up for it or that leads to another model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridsam_lite.curvature import lanczos
from hybridsam_lite.landscape import Landscape, ThetaEntry
from hybridsam_lite.likelihood import find
from hybridsam_lite.plots.look import COLORS, axes, color, legend_above, marker, style, truth_line, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Surface", "loss_surface", "surface"]

RIDGE = 1e-3  # price of a step in phi, as a fraction of the largest curvature
ITERATIONS = 200  # of conjugate gradients
TOGETHER = 2**17  # entries of predictions that are computed at once


@dataclass(frozen=True)
class Surface:
    """The loss over one theta and one direction of all other parameters.

    Attributes:
        entry: which number of theta, and its trained value.
        thetas: its values, in its unit, shape (columns,).
        steps: how far along the direction, shape (rows,).
        losses: shape (rows, columns); infinite where the model's solver fails.
        value: the trained model's loss, at (entry.value, 0).
        direction: what a step of 1 is, in words.
        points: label -> (theta, step) of other models, projected onto the plane.
    """

    entry: ThetaEntry
    thetas: np.ndarray
    steps: np.ndarray
    losses: np.ndarray
    value: float
    direction: str
    points: dict[str, tuple[float, float]] = field(default_factory=dict)


def surface(
    at: Landscape,
    name: str | None = None,
    *,
    other: nn.Module | None = None,
    models: Mapping[str, nn.Module] | None = None,
    size: int = 31,
) -> Surface:
    """The loss in the plane of one theta and the direction in which phi makes up for it, or of another model.

    Without `other`, a step of 1 is the change of phi that, to first order, leaves the prediction as it is when
    theta rises by its range (least squares, with a small price on the size of the step): phi's flattest way
    through a change of theta. A valley along the diagonal is a theta that the data do not determine.
    With `other`, a step of 1 leads from all other parameters of this model to those of the other one.

    Args:
        at: the model and data.
        name: label of the entry of theta, as in `at.entries`; may be left out if there is only one.
        other: another model of the same class. On the line between two networks of different seeds the loss
            mostly has a wall, for the same function can be written with its units in any order.
        models: label -> model, to be shown in the plane at their theta and their projection on the direction.
        size: points along each axis.

    Returns:
        A `Surface`.

    Raises:
        ValueError: for an unknown name, no phi, or models with other parameters.

    Source: ours; the direction is that of the Schur complement in `hs.information`. For planes through
    trained models see Garipov et al., NeurIPS 2018 (arXiv 1802.10026).

    >>> import hybridsam_lite as hs
    >>> class Line(hs.HybridModel):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.theta = hs.Theta(k=hs.Real(init=1.0))
    ...         self.w = torch.nn.Parameter(torch.tensor(2.0))
    ...     def forward(self, x):
    ...         return (self.theta.k + self.w) * x
    >>> x = torch.tensor([1.0, -1.0])
    >>> found = surface(Landscape(Line(), (x, 3 * x)), size=3)
    >>> bool(found.losses[0, 0] < 1e-5 < found.losses[0, 2])                  # w makes up for k, along the diagonal
    True
    """
    if not (isinstance(size, int) and size > 1):
        raise ValueError(f"surface: size must be an integer > 1, points along each axis, got {size!r}")
    k = find(at, name)
    entry, origin = at.entries[k], torch.cat([at.vector("phi"), at.theta])
    index = len(at.phi) + k
    down, up = entry.reach
    low, high, steps = entry.value - down, entry.value + up, np.linspace(-1, 1, size)
    if other is None:
        along = _makes_up(at, k)
        words = f"step of phi (1 makes up for {entry.label} + {entry.range:.3g})"
    else:
        along = _flat(at, other) - origin
        there = _theta(entry, origin[index] + along[index])
        along[index] = 0.0
        pad = 0.25 * abs(there - entry.value) or 0.25 * min(down, up)
        low, high = (_beyond(entry, f(entry.value, there), sign * pad) for f, sign in ((min, -1), (max, 1)))
        steps, words = np.linspace(-0.25, 1.25, size), "step from this model (0) to the other (1)"
    thetas = np.linspace(low, high, size)
    raw = entry.constraint.inverse(torch.tensor(thetas, dtype=torch.float64)).to(origin)
    plane = origin + torch.tensor(steps).to(origin)[:, None, None] * along
    plane = plane.expand(size, size, -1).clone()
    plane[:, :, index] = raw
    losses = _losses(at, plane.reshape(size * size, -1)).reshape(size, size)
    points = {}
    for label, model in (models or {}).items():
        away = _flat(at, model) - origin
        step = (away @ along / (along @ along)).item() if along.any() else 0.0
        points[label] = (_theta(entry, origin[index] + away[index]), step)
    return Surface(entry, thetas, steps, losses.cpu().numpy(), at.value, words, points)


def _beyond(entry: ThetaEntry, value: float, pad: float) -> float:
    """A value beyond this one, by no more than theta's constraint admits."""
    while not entry.constraint.admits(value + pad):
        pad /= 2
    return value + pad


def _theta(entry: ThetaEntry, raw: Tensor) -> float:
    return entry.constraint.forward(raw).item()


def _flat(at: Landscape, model: nn.Module) -> Tensor:
    """Another model's parameters as one vector, in the order of `at`."""
    named = dict(model.named_parameters())
    names = [n for role in ("phi", "theta") for n in at.names[role]]
    parts = [named[n].detach().reshape(-1).to(at.phi) for n in names if n in named]
    flat = torch.cat(parts) if parts else at.phi[:0]
    if len(flat) != len(at.phi) + len(at.theta):
        raise ValueError(
            f"surface: expected a model with {len(at.phi) + len(at.theta)} trained parameters, named as in this one, "
            f"got {type(model).__name__} with {len(flat)} such; compare models of the same class"
        )
    return flat


def _makes_up(at: Landscape, k: int) -> Tensor:
    """The step (phi, theta) that makes up for a change of theta by its range, by conjugate gradients."""
    unit = torch.zeros_like(at.theta)
    unit[k] = at.scale("theta")[k]
    b = -at.pull("phi", at.loss_curvature(at.push("theta", unit)))
    product = at.gauss_newton("phi")
    start = torch.randn(len(b), generator=torch.Generator().manual_seed(0)).to(b)
    price = RIDGE * lanczos(product, start, 30)[0]
    x, r = torch.zeros_like(b), b.clone()
    d, rr = r.clone(), r @ r
    for _ in range(ITERATIONS):
        if rr <= 1e-12 * (b @ b):
            break
        hd = product(d) + price * d
        alpha = rr / (d @ hd)
        x, r = x + alpha * d, r - alpha * hd
        before, rr = rr, r @ r
        d = r + rr / before * d
    return torch.cat([x, torch.zeros_like(at.theta)])


@torch.no_grad()
def _losses(at: Landscape, points: Tensor) -> Tensor:
    """The loss at each row; all at once where `torch.func.vmap` can run the model."""

    def one(x: Tensor) -> Tensor:
        return at.loss(x[: len(at.phi)], x[len(at.phi) :])

    try:
        found = torch.cat([torch.func.vmap(one)(part) for part in points.split(max(1, TOGETHER // at.target.numel()))])
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        found = torch.stack([one(x) for x in points])
    return found.nan_to_num(nan=float("inf"))


def loss_surface(found: Surface, truth: float | None = None, *, ax: Axes | None = None) -> Axes:
    """Contours of the loss over theta and a direction of phi, and where trained models lie.

    `found` is what `surface` returned. Models other than the one it was made around lie near the
    plane, not in it: the colour below them is not their loss.

    >>> import matplotlib; matplotlib.use("Agg")
    >>> import hybridsam_lite as hs
    >>> x = torch.linspace(-1, 1, 8)[:, None]
    >>> at = hs.Landscape(hs.mlp(1, [2], 1), (x, 2 * x), theta=["2.bias"])
    >>> loss_surface(surface(at, size=5)).get_xlabel()
    '2.bias'
    """
    from matplotlib.colors import LogNorm

    finite = found.losses[np.isfinite(found.losses)]
    positive = finite[finite > 0]
    if not len(positive):
        raise ValueError("loss_surface: the loss is nowhere finite and positive in this plane; nothing to draw")
    # Eight decades at the most: an exact minimum would otherwise take all the colours.
    high = float(np.quantile(positive, 0.98))
    low = max(float(positive.min()), 1e-8 * high)
    levels = np.geomspace(low, max(high, 1.001 * low), 18)
    shown = np.clip(np.where(np.isfinite(found.losses), found.losses, np.inf), low, levels[-1])
    with style():
        ax = axes(ax)
        filled = ax.contourf(found.thetas, found.steps, shown, levels, norm=LogNorm(low, levels[-1]))
        ax.contour(found.thetas, found.steps, shown, levels[::3], colors="white", linewidths=0.4, alpha=0.6)
        here = (found.entry.value, 0.0)
        points = found.points if here in found.points.values() else {"trained": here, **found.points}
        for label, (theta, step) in points.items():
            tint = COLORS["physics"] if label == "trained" else color(label, list(found.points))
            look: Any = {"color": tint, "markeredgecolor": "white", "markersize": 9, "linestyle": ""}
            ax.plot(theta, step, marker="*" if label == "trained" else marker(label), label=label, **look)
        ax.set(xlim=(found.thetas[0], found.thetas[-1]), ylim=(found.steps[0], found.steps[-1]))
        if truth is not None and not found.thetas[0] <= truth <= found.thetas[-1]:
            ax.plot([], [], "--", color=COLORS["truth"], linewidth=1, label=f"truth: {truth:.4g}, outside")
        else:
            truth_line(ax, truth, vertical=True)
        ax.set_xlabel(with_unit(found.entry.label, found.entry.unit))
        ax.set_ylabel(_broken(found.direction))
        ax.grid(visible=False)
        bar = ax.figure.colorbar(filled, ax=ax, label="loss")
        decades = np.arange(np.ceil(np.log10(low)), np.log10(levels[-1]) + 1e-9)
        bar.set_ticks(list(10.0**decades) if len(decades) > 1 else list(levels[[0, 9, -1]]))
        bar.ax.yaxis.set_major_formatter("{x:.0e}" if len(decades) > 1 else "{x:.3g}")
        bar.minorticks_off()
        legend_above(ax)
    return ax


def _broken(text: str, width: int = 26) -> str:
    """A long axis label on several lines."""
    from textwrap import fill

    return fill(text, width)
