"""What the controls are made of: figures and sentences as HTML."""

from __future__ import annotations

import base64
import io
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hybridsam_lite.plots.look import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "ipywidgets", "picture", "said"]


def ipywidgets() -> Any:
    """The optional requirement, or an error that says how to get it."""
    try:
        return import_module("ipywidgets")
    except ImportError as error:
        raise ImportError('the widgets need ipywidgets: pip install "hybridsam-lite[book]"') from error


def figure(height: float = STYLE["figure.figsize"][1]) -> Figure:
    """A figure that no pyplot session holds on to, nor shows twice."""
    from matplotlib.figure import Figure

    return Figure(figsize=(STYLE["figure.figsize"][0], height), dpi=STYLE["figure.dpi"], layout="constrained")


def picture(drawn: Figure, text: str) -> str:
    """HTML of a figure, with a text for those who do not see it."""
    file = io.BytesIO()
    drawn.savefig(file, format="png")
    code = base64.b64encode(file.getvalue()).decode()
    return f'<img style="max-width:100%;width:640px" alt="{escape(text)}" src="data:image/png;base64,{code}">'


def said(text: str) -> str:
    """HTML that a screen reader speaks when it changes."""
    return f'<div role="status" style="line-height:1.5">{escape(text)}</div>'
