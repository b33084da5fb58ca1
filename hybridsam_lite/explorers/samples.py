"""What a model infers for each sample, against the truth: the hatch of the wind tunnel, for one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from hybridsam_lite.explorers.explorer import Control, Explorer, Guess, asked
from hybridsam_lite.explorers.views import View, axis, line, number, panel, points, rule, signed, view
from hybridsam_lite.plots.look import COLORS, color, with_unit

__all__ = ["agreement", "inferred", "mean_curve"]

BINS = 12
DRAWN = 250  # samples of one label in the figure; all of them are in the numbers


def mean_curve(true: Any, found: Any, bins: int = BINS) -> tuple[Any, Any]:
    """Means of true and found values in bins of equal width of the true ones; empty bins are left out.

    >>> mean_curve([0.0, 1.0, 9.0, 10.0], [1.0, 3.0, 5.0, 7.0], bins=2)
    (array([0.5, 9.5]), array([2., 6.]))
    """
    true, found = np.asarray(true, float), np.asarray(found, float)
    width = (true.max() - true.min()) / bins or 1.0
    place = np.minimum(((true - true.min()) / width).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, x, minlength=bins)[count > 0] for x in (true, found)]
    return sums[0] / count[count > 0], sums[1] / count[count > 0]


def agreement(true: Any, found: Any) -> dict[str, float]:
    """How well found values agree with true ones.

    Returns:
        mean error (mean |found - true|), bias (mean found - true), correlation (NaN if one does not vary), and
        blind: the mean error of an answer that is the median of the true ones, whatever the sample.

    >>> agreement([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])["bias"]
    1.0
    """
    true, found = np.asarray(true, float), np.asarray(found, float)
    varies = true.std() > 0 and found.std() > 0
    return {
        "mean error": float(np.abs(found - true).mean()),
        "bias": float((found - true).mean()),
        "correlation": float(np.corrcoef(true, found)[0, 1]) if varies else math.nan,
        "blind": float(np.abs(true - np.median(true)).mean()),
    }


def by_seed(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The samples of each seed; without a column seed all belong to one."""
    return [of for _, of in rows.groupby("seed", sort=False)] if "seed" in rows else [rows]


def inferred(
    table: pd.DataFrame,
    name: str = "theta",
    unit: str = "",
    *,
    start: str | None = None,
    predict: bool | Guess = False,
) -> Explorer:
    """Choose a method's setting: inferred against true theta for each sample, and the mean curve of each seed.

    Args:
        table: one row per sample; columns label ("sam:rho=0.1", or "sam:rho=0.1, centred" of several models), true
            and found, and seed if there are several: each has its own mean curve and correlation.
        name, unit: of theta, for the axes.
        start: the label at the beginning, by default the first.
        predict: ask for a guess first; see `hs.explorers`.

    Returns:
        An `Explorer`.

    Raises:
        ValueError: for missing columns, numbers that are not finite, or an unknown `start`.

    >>> table = pd.DataFrame({"label": "erm", "true": [0.0, 1.0, 2.0], "found": [1.0, 2.0, 3.0]})
    >>> inferred(table, "hatch", "degrees")
    Explorer(inferred against true: erm: hatch is off by 1 degrees in the mean, with a bias of +1. ...)
    """
    missing = [column for column in ("label", "true", "found") if column not in table]
    if missing or table.empty:
        raise ValueError(
            f"inferred: expected a table with the columns label, true and found and at least one row; "
            f"missing: {', '.join(missing) or 'rows'}"
        )
    table = table.astype({"true": float, "found": float})
    if not np.isfinite(table[["true", "found"]]).all(axis=None):
        raise ValueError("inferred: true and found must be finite; leave diverged runs out, and say how many they were")
    labels = list(dict.fromkeys(table["label"]))
    start = labels[0] if start is None else start
    if start not in labels:
        raise ValueError(f"inferred: start {start!r} is none of {', '.join(labels)}")
    groups = {label: table[table["label"] == label] for label in labels}
    seeds = {label: by_seed(rows) for label, rows in groups.items()}
    scores = {label: agreement(rows["true"], rows["found"]) for label, rows in groups.items()}
    order = {label: [agreement(of["true"], of["found"])["correlation"] for of in seeds[label]] for label in labels}
    tints = {label: color(label.partition(",")[0], [one.partition(",")[0] for one in labels]) for label in labels}
    low, high = (float(f(table[["true", "found"]].to_numpy())) for f in (np.min, np.max))
    pad = 0.04 * (high - low) or 1.0
    ends = low - pad, high + pad
    worst = max(s for score in scores.values() for s in (score["mean error"], score["blind"]))

    def at(state: dict[str, Any]) -> View:
        label = state["label"]
        rows, score, tint = groups[label], scores[label], tints[label]
        every = math.ceil(len(rows) / DRAWN)
        drawn = rows.iloc[::every]
        of = f" The figure shows {len(drawn)} of {len(rows)} samples." if every > 1 else ""
        each = f", one for each of {len(order[label])} seeds" if len(order[label]) > 1 else ""
        text = (
            f"{label}: {name} is off by {_with(score['mean error'], unit)} in the mean, with a bias of "
            f"{signed(score['bias'])}. Its correlation with the truth is {', '.join(map(number, order[label]))}{each}. "
            f"One answer for all samples would be off by {number(score['blind'])}.{of}"
        )
        places = [(i, str(i + 1)) for i in range(len(labels))]
        return view(
            text,
            panel(
                axis(with_unit(f"true {name}", unit), *ends),
                axis(with_unit(f"inferred {name}", unit), *ends),
                line([(ends[0], ends[0]), (ends[1], ends[1])], COLORS["truth"], "truth", dash=True, width=1),
                points(zip(drawn["true"], drawn["found"], strict=True), tint, "samples", size=3, opacity=0.6),
                *(
                    line(zip(*mean_curve(of["true"], of["found"]), strict=True), COLORS["hybrid"], "mean", width=2.6)
                    for of in seeds[label]
                ),
            ),
            panel(
                axis("number in the list", -0.5, len(labels) - 0.5, ticks=places),
                axis(with_unit("mean error", unit), 0, 1.08 * worst or 1.0),
                rule(COLORS["data"], "one answer for all", y=score["blind"], dash=False),
                *(points([(i, scores[one]["mean error"])], tints[one], size=5) for i, one in enumerate(labels)),
                points([(labels.index(label), score["mean error"])], tint, size=9),
            ),
        )  # fmt: skip

    question = Guess(
        f"By how much is the inferred {name} off in the mean with {start}? (One answer for all samples would be off by "
        f"{_with(scores[start]['blind'], unit)}.)",
        scores[start]["mean error"], 0.0, 4 * worst or 1.0, unit, panel=1,
    )  # fmt: skip
    texts = tuple(f"{i + 1}. {label}" for i, label in enumerate(labels))
    rows = pd.DataFrame(
        {
            "label": texts, "mean error": [scores[one]["mean error"] for one in labels],
            "bias": [scores[one]["bias"] for one in labels],
            "correlation": [", ".join(f"{x:.2f}" for x in order[one]) for one in labels],
        }
    )  # fmt: skip
    return Explorer(
        "inferred against true",
        f"Left: inferred {name} against the true one, a point for each sample, the mean curve of each seed, and a "
        "dashed line where both are equal. Right: the mean error of each label, and a line at that of one answer for "
        "all samples.",
        (Control("label", "trained with", tuple(labels), start, texts, choice=True),), at, rows,
        asked(predict, question),
    )  # fmt: skip


def _with(x: float, unit: str) -> str:
    return f"{number(x)} {unit}".rstrip()
