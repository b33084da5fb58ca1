"""The picture of the README and the landing page: theta lost and found, from the archived runs.

`python -m tools.hero` draws book/_static/hero.svg. The file carries a hash of the records that it
shows, and a test checks that it is the archive's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from hybridsam_lite.results import read_records

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT / "book" / "results" / "pendulum.jsonl"
PICTURE = ROOT / "book" / "_static" / "hero.svg"
SHOWN = {"erm": "plain training", "sam:rho=0.1": "SAM", "asam:rho=2": "ASAM"}


def shown() -> list[dict[str, Any]]:
    """The records in the picture: the pendulum at the full preset, three methods."""
    rows = read_records(ARCHIVE)
    return [r for r in rows if (r["variant"], r["preset"]) == ("A1", "full") and r["label"] in SHOWN]


def digest(rows: list[dict[str, Any]]) -> str:
    """What the picture shows, as a hash."""
    content = [[r["label"], r["seed"], r["theta_hat"], r["theta_true"]] for r in rows]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def draw() -> None:
    """Draw the picture."""
    import matplotlib as mpl

    from hybridsam_lite import plots

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "hybridsam"  # the same input gives the same file
    rows = shown()
    truth = rows[0]["theta_true"]["omega2"]
    ax = plots.theta_by_method(pd.DataFrame(rows), truth=truth, name="omega2", unit="1/s²")
    ax.set_xticks(range(len(SHOWN)), list(SHOWN.values()))
    ax.set_ylabel("squared frequency found [1/s²]")
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.savefig(PICTURE, metadata={"Date": None, "Description": digest(rows)})


if __name__ == "__main__":
    draw()
