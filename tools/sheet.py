"""The one-page summary as HTML: what the method is, and what the archive says about where it helps.

`make pdf` prints it. Its numbers are computed here from book/results; sheet.html holds the words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from hybridsam_lite.results import paired_bootstrap, read_records
from hybridsam_lite.select import strongest
from hybridsam_lite.sweep import GRIDS, TUNING
from hybridsam_lite.tasks import LISTED

TEMPLATE = Path(__file__).with_name("sheet.html")
PRESETS = ("smoke", "quick", "full")
SMALL = 0.05  # a change of the error that is not worth a colour
METHODS = {"sam": "SAM", "asam": "ASAM", "wd": "weight decay"}
# The method, for one tensor theta and a list phi; a test compares it with the library's step.
STEP = """\
g = torch.autograd.grad(loss(theta, phi), phi)
norm = torch.sqrt(sum((part**2).sum() for part in g)) + 1e-12
worst = [p + rho * part / norm for p, part in zip(phi, g)]
g_theta, *g_phi = torch.autograd.grad(loss(theta, worst), [theta, *worst])
theta = theta - lr * g_theta
phi = [p - lr * part for p, part in zip(phi, g_phi)]"""


def compared(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of one problem's records those of a fair comparison: settings chosen blindly, seeds not used for the choice."""
    final = [row for row in records if row["stage"] == "final"]
    if final:
        return final
    tuning = [row for row in records if row["seed"] in TUNING]
    tried = {row["label"] for row in tuning}
    kept = {"erm"}
    for name in METHODS:
        grid = [label for label in GRIDS[name] if label in tried]
        if grid:
            kept.add(strongest([row for row in tuning if row["label"] in ("erm", *grid)], grid))
    return [row for row in records if row["label"] in kept and row["seed"] not in TUNING]


def line(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A row of the table: plain training's error, and the methods' errors as multiples of it, paired by seed.

    None if fewer than five seeds can be compared.
    """
    table = pd.DataFrame(compared(records))
    if "erm" not in set(table.get("label", ())):
        return None
    errors = table.pivot_table(index="seed", columns="label", values="theta_error")
    cells = {}
    for name, title in METHODS.items():
        # The method's setting without further options.
        mine = [label for label in map(str, errors) if label.startswith(f"{name}:") and "," not in label]
        pairs = errors[["erm", *mine]].dropna()
        if len(mine) == 1 and len(pairs) >= 5:
            middle, low, high = np.exp(paired_bootstrap(np.log((pairs[mine[0]] / pairs["erm"]).to_numpy())))
            verdict = "same" if low <= 1 <= high or abs(middle - 1) < SMALL else "helps" if middle < 1 else "harms"
            cells[title] = {"times": float(middle), "low": float(low), "high": float(high), "verdict": verdict}
    if not cells:
        return None
    first = records[0]
    return {
        **{name: first[name] for name in ("task", "variant", "preset", "data")},
        "seeds": len(errors),
        "error": float(errors["erm"].median()),
        "cells": cells,
    }


def lines(archive: Path) -> list[dict[str, Any]]:
    """The table: for each task the largest preset at which methods can be compared, in the book's order."""
    found = []
    for task in LISTED:
        path = archive / f"{task}.jsonl"
        records = read_records(path) if path.is_file() else []
        problem = ["variant", "preset"]
        records = sorted(records, key=lambda row: (row["variant"], -PRESETS.index(row["preset"])))
        groups = [list(rows) for _, rows in groupby(records, key=lambda row: [row[name] for name in problem])]
        rows = [row for row in map(line, groups) if row]
        if rows:
            found.append(rows[0])
    return found


def html(known: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], style: str, built: str) -> str:
    """The sheet.

    Args:
        known: title, version, licence and address of the book.
        rows: from `lines`.
        style: fonts, as CSS.
        built: address of the rendered book, for the picture.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    shown = {"rows": rows, "methods": list(METHODS.values()), "step": STEP, "small": SMALL}
    return template.render(**known, **shown, style=style, built=built)
