"""Do archived records come out again? Run a few of them once more and compare.

The same seed on the same machine and versions gives the same numbers to the last bit if the same members are trained
together. In a stack of another size, on another machine or with other versions sums are rounded differently, and a
training of thousands of steps carries that on: losses and thetas then agree to some digits, not to all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hybridsam_lite import tasks
from hybridsam_lite.results import records
from hybridsam_lite.sweep import ORACLE

__all__ = ["Verdict", "again", "verify"]

Row = dict[str, Any]
PROTOCOL = frozenset(("steps", "batch_size", "lr", "theta_lr", "lr_end"))  # what a record may change


@dataclass(frozen=True)
class Verdict:
    """One record and its repetition.

    Attributes:
        record, repeated: run records.
        difference: the largest relative difference among validation loss, test loss and the entries of theta_hat.
        agrees: whether it is at most the tolerance, and both ended in the same status.
    """

    record: Row
    repeated: Row
    difference: float
    agrees: bool


def again(record: Row) -> Row:
    """Train a record's member once more, by the protocol that it holds.

    Raises:
        ValueError: if its task, data or method are not to be had.

    >>> task = tasks.get("duffing", preset="smoke")
    >>> first = records(task, task.fit(["erm"], [3], progress=False))[0]
    >>> again(first)["theta_hat"] == first["theta_hat"]
    True
    """
    if unknown := sorted(set(record["protocol"]) - PROTOCOL):
        raise ValueError(f"verify: no protocol has {unknown[0]!r:.40}; expected {', '.join(sorted(PROTOCOL))}")
    data = None if record["data"] == "simulated" else record["data"]
    task = tasks.get(record["task"], preset=record["preset"], variant=record["variant"], data=data)
    task = replace(task, training={**task.training, **record["protocol"]})
    oracle = record["label"] == ORACLE
    trained, labels = (task.with_truth(), ["erm"]) if oracle else (task, [record["label"]])
    (row,) = records(task, trained.fit(labels, [record["seed"]], progress=False), record["stage"])
    return {**row, "method": ORACLE, "label": ORACLE} if oracle else row


def verify(rows: Sequence[Row], *, count: int = 3, seed: int = 0, tolerance: float = 0.05) -> Iterator[Verdict]:
    """Repeat `count` records, drawn at random by `seed`, one after the other.

    Args:
        rows: run records, of any tasks.
        count: how many; all of them if there are fewer.
        seed: of the draw.
        tolerance: largest relative difference at which a number counts as reproduced.

    Raises:
        ValueError: if there is nothing to repeat.
    """
    if not rows or count < 1 or not tolerance >= 0:
        raise ValueError(f"verify: expected records, count >= 1, tolerance >= 0; got {len(rows)}, {count}, {tolerance}")
    drawn = np.random.default_rng(seed).permutation(len(rows))[:count]
    for record in (rows[int(k)] for k in drawn):
        repeated = again(record)
        if record["theta_hat"].keys() != repeated["theta_hat"].keys():
            raise ValueError(
                f"verify: the record of {record['task']} holds theta {', '.join(record['theta_hat'])}, expected "
                f"{', '.join(repeated['theta_hat'])}"
            )
        difference = max(_apart(a, b) for a, b in zip(_numbers(record), _numbers(repeated), strict=True))
        agrees = difference <= tolerance and record["status"] == repeated["status"]
        yield Verdict(record, repeated, difference, agrees)


def _numbers(row: Row) -> list[float | None]:
    return [row["val_loss"], row["test_loss"], *(row["theta_hat"][name] for name in sorted(row["theta_hat"]))]


def _apart(a: float | None, b: float | None) -> float:
    """Relative difference; None, as records have NaN, agrees with None alone."""
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    return abs(a - b) / max(abs(a), abs(b), 1e-300)
