"""Explore a loss over theta and one direction of phi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from hybridsam_lite.checks import LossFunction, mean_squared_error
from hybridsam_lite.data import Data, Inputs
from hybridsam_lite.landscape import Landscape
from hybridsam_lite.plots.look import COLORS, few_ticks, style, with_unit
from hybridsam_lite.plots.surfaces import Surface, loss_surface, surface
from hybridsam_lite.widgets.parts import figure as new_figure
from hybridsam_lite.widgets.parts import ipywidgets
from hybridsam_lite.widgets.parts import picture as as_picture
from hybridsam_lite.widgets.parts import said as as_said

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["describe_point", "draw_point", "landscape"]


def describe_point(found: Surface, row: int, column: int) -> str:
    """One point of a surface in words: its loss, and the best theta at this step of phi."""
    loss, theta, label = found.losses[row, column], found.thetas[column], found.entry.label
    where = f"{label} = {theta:.4g} {found.entry.unit}".rstrip() + f", step {found.steps[row]:.2f} of phi: "
    if not np.isfinite(found.losses[row]).any():
        return where + "the loss is infinite, as it is for every theta at this step."
    ratio = f", {loss / found.value:.3g} times the trained model's" if found.value > 0 else ""
    value = f"loss {loss:.3g}{ratio}." if np.isfinite(loss) else "the loss is infinite."
    return where + value + f" At this step it is lowest at {label} = {found.thetas[np.argmin(found.losses[row])]:.4g}."


def draw_point(found: Surface, row: int, column: int, truth: float | None = None) -> Figure:
    """A surface with one of its points marked, and the loss over theta at this step of phi."""
    figure = new_figure(3.6)
    with style():
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
        loss_surface(found, truth, ax=left)
        left.axhline(found.steps[row], color="white", linewidth=0.8)
        left.plot(found.thetas[column], found.steps[row], "P", color="white", markeredgecolor="black", markersize=10)
        section = np.where(np.isfinite(found.losses[row]), found.losses[row], np.nan)
        right.plot(found.thetas, section, color=COLORS["hybrid"])
        right.plot(found.thetas[column], section[column], "P", color="white", markeredgecolor="black", markersize=10)
        right.set(xlabel=with_unit(found.entry.label, found.entry.unit), ylabel=f"loss at step {found.steps[row]:.2f}")
        finite = found.losses[np.isfinite(found.losses) & (found.losses > 0)]
        right.set(yscale="log", ylim=(0.7 * finite.min(), 1.4 * finite.max()))
        few_ticks(right.yaxis)
    return figure


def landscape(
    model: nn.Module,
    data: Data | tuple[Inputs, Tensor],
    *,
    name: str | None = None,
    theta: Sequence[str] = (),
    loss: LossFunction = mean_squared_error,
    other: nn.Module | None = None,
    models: Mapping[str, nn.Module] | None = None,
    truth: float | None = None,
    size: int = 31,
) -> Any:
    """Sliders over theta and over a direction of phi, on the surface of the loss.

    Args:
        model: a trained model.
        data: `hs.Data` or an (inputs, target) pair; a few hundred samples are enough.
        name: label of the theta to move; may be left out if there is only one.
        theta, loss: as in `hs.diagnose`.
        other, models, size: as in `hs.plots.surface`.
        truth: theta's true value, drawn as a line.

    Returns:
        An ipywidgets box; the last value of a notebook cell shows it.

    Raises:
        ImportError: without ipywidgets.

    >>> import torch, hybridsam_lite as hs
    >>> x = torch.linspace(-1, 1, 8)[:, None]
    >>> landscape(hs.mlp(1, [2], 1), (x, x), theta=["2.bias"], size=5).children[0].children[0].description
    '2.bias'
    """
    widgets = ipywidgets()
    found = surface(Landscape(model, data, theta=theta, loss=loss), name, other=other, models=models, size=size)
    middles = [int(np.abs(found.thetas - found.entry.value).argmin()), int(np.abs(found.steps).argmin())]
    labels = [[f"{v:.4g}" for v in found.thetas], [f"{v:.2f}" for v in found.steps]]
    sliders = [
        widgets.SelectionSlider(
            options=list(zip(texts, range(size), strict=True)),
            value=at,
            description=label,
            continuous_update=False,
            style={"description_width": "initial"},
        )
        for texts, at, label in zip(labels, middles, (found.entry.label, "step of phi"), strict=True)
    ]
    text, picture = widgets.HTML(), widgets.HTML()

    def show(_: Any) -> None:
        column, row = (slider.value for slider in sliders)
        said = describe_point(found, row, column)
        text.value, picture.value = as_said(said), as_picture(draw_point(found, row, column, truth), said)

    for slider in sliders:
        slider.observe(show, "value")
    show(None)
    return widgets.VBox([widgets.HBox(sliders, layout={"flex_flow": "row wrap"}), text, picture])
