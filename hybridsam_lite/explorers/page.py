"""An explorer as HTML: a picture, a table, the data and a script that needs neither a network nor a kernel.

The picture and the table stand in the page as they are; the script replaces the picture by controls and a figure.
If scripts are off, or fail, nothing is replaced. There are no ids: any number of explorers can share a page.
"""

from __future__ import annotations

import json
import math
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hybridsam_lite.explorers.views import GUESSED
from hybridsam_lite.plots.look import COLORS

if TYPE_CHECKING:
    from hybridsam_lite.explorers.explorer import Explorer

__all__ = ["html", "payload"]

DIGITS = 6  # of the numbers in states computed beforehand


def html(explorer: Explorer) -> str:
    """The explorer as a piece of HTML."""
    rows = explorer.table.to_html(index=False, border=0, float_format="{:.4g}".format)
    return "\n".join(
        (
            f'<div class="hs-explorer" data-kind="{escape(explorer.kind)}">',
            f"<style>{_source('explorer.css')}</style>",
            f'<div class="hs-static">{explorer.picture(explorer.start)}</div>',
            f"<details><summary>In numbers</summary>{rows}</details>",
            f'<script type="application/json">{explorer.payload}</script>',
            f"<script>{_script(explorer.kind)}</script>",
            "</div>",
        )
    )


def payload(explorer: Explorer) -> str:
    """What the script reads: controls, question, and the states computed beforehand or the data to compute them."""
    out: dict[str, Any] = {
        "title": explorer.title,
        "about": explorer.about,
        "colors": COLORS,
        "controls": [
            {
                "name": c.name, "label": c.label, "values": list(c.values), "texts": list(c.texts),
                "start": c.values.index(c.start), "choice": c.choice, "play": c.play,
                "when": None if c.when is None else list(c.when),
            }
            for c in explorer.controls
        ],
        "data": dict(explorer.data),
    }  # fmt: skip
    if explorer.guess is not None:
        g = explorer.guess
        out["guess"] = {
            "question": g.question, "answer": g.answer, "low": g.low, "high": g.high, "unit": g.unit,
            "panel": g.panel, "axis": g.axis, "color": GUESSED,
        }  # fmt: skip
    if explorer.kind == "frames":
        out["data"] = _frames(explorer)
    text = json.dumps(_plain(out), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c")  # no text can end the script element


def _frames(explorer: Explorer) -> dict[str, Any]:
    """All states; what several of them share is written once and referred to by its place."""
    shared: dict[str, int] = {}

    def place(part: Any) -> int:
        return shared.setdefault(json.dumps(_plain(part, DIGITS)), len(shared))

    frames = {}
    for key, state in explorer.states().items():
        shown = explorer.at(state)
        frames[key] = {
            "text": shown["text"],
            "panels": [
                {"x": place(one["x"]), "y": place(one["y"]), "marks": [place(mark) for mark in one["marks"]]}
                for one in shown["panels"]
            ],
        }
    return {"frames": frames, "shared": [json.loads(part) for part in shared]}


def _plain(value: Any, digits: int = 17) -> Any:
    """Numbers with so many digits, and null for those that JSON does not have."""
    if isinstance(value, dict):
        return {str(k): _plain(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, digits) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        short = float(f"{value:.{digits}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    return value


@cache
def _source(name: str) -> str:
    return (files("hybridsam_lite.explorers") / name).read_text(encoding="utf-8")


def _script(kind: str) -> str:
    """The shared script and that of this kind, in a scope of their own."""
    return f'(() => {{\n"use strict";\n{_source("explorer.js")}\n{_source(f"{kind}.js")}\nstart("{kind}", at);\n}})();'
