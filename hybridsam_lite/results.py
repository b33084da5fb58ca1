"""Run records on disk, and the tables made from them.

A record is one JSON object per trained member, with everything needed to say what it is and to run it
again. Files hold one record per line and are written whole or not at all.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hybridsam_lite.files import write_atomically
from hybridsam_lite.runs import Runs
from hybridsam_lite.tasks.base import Task

__all__ = [
    "FIELDS",
    "PROBLEM",
    "STAGES",
    "provenance",
    "read_records",
    "records",
    "relative",
    "summary",
    "write_records",
]

FIELDS = (
    "task", "variant", "preset", "data", "stage", "protocol", "method", "label", "settings", "seed", "theta_true",
    "theta_hat", "theta_error", "val_loss", "test_loss", "metrics", "status", "steps", "seconds", "device", "versions",
    "commit",
)  # fmt: skip
STAGES = ("run", "tune", "final")  # by hand; a sweep's grids, among which is chosen; the chosen, on other seeds
PROBLEM = ("task", "variant", "preset", "data", "stage", "protocol")  # what runs in one table have in common
RESAMPLES = 10_000
LARGEST = 1e300  # of a number in a record: sums of a few such numbers are still numbers


def records(task: Task, runs: Runs, stage: str = "run") -> list[dict[str, Any]]:
    """One record per member of `runs`, scored against the task's truth; `stage` is one of STAGES."""
    rows = []
    for row in task.score(runs).to_dict("records"):
        known = {
            "task": task.name, "variant": task.variant, "preset": task.preset, "data": task.origin, "stage": stage,
            "protocol": runs.protocol, "device": runs.device, **provenance(),
        }  # fmt: skip
        full = {**{str(k): v for k, v in row.items()}, **known}
        rows.append({name: _plain(full[name]) for name in FIELDS})
    return rows


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


@cache
def provenance() -> dict[str, Any]:
    """Versions and commit of the code that is running; asked once, before training, not after it."""
    packages = ("hybridsam-lite", "torch", "numpy", "scipy")
    versions = {"python": platform.python_version(), **{p: version(p) for p in packages}}
    return {"versions": versions, "commit": _commit()}


def _commit() -> str | None:
    """The commit of the source tree that this package runs from, with a + if it was changed; or None."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.strip() else "")


def write_records(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write records, one per line, replacing the file as a whole."""
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    write_atomically(path, lambda file: file.write(text.encode()))


def read_records(path: Path | str) -> list[dict[str, Any]]:
    """Read a file of records, wherever it comes from: each line is checked to be one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not a whole record, or a field of another kind; nothing is changed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no records at {path}; expected a .jsonl file or a folder that `hybridsam run` wrote")
    rows = []
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), start=1):
        if not line and number == 1:
            continue  # an empty file
        where = f"{path}, line {number}"
        try:
            row = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{where}: not JSON ({error.msg}); the file is truncated or not a record file. It was left as is"
            ) from error
        except (ValueError, RecursionError) as error:  # not UTF-8, a name twice, a number of 5000 digits, depth
            raise ValueError(f"{where}: not a run record ({error!s:.80}); it was left as is") from error
        missing = [name for name in FIELDS if not isinstance(row, dict) or name not in row]
        if missing:
            raise ValueError(f"{where}: not a run record, it lacks {', '.join(missing[:4])}")
        for name, (right, kind) in _KINDS.items():
            if not right(row[name]):
                raise ValueError(f"{where}: not a run record, {name} must be {kind}, got {row[name]!r:.60}")
        rows.append(row)
    return rows


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no name is there twice; which of the two was meant?"""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"it holds {twice!r:.40} twice")
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()  # a terminal obeys the others


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST  # nan is not


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_score(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_value(value: Any) -> bool:
    return all(map(_is_score, value)) if isinstance(value, list) else _is_score(value)


def _is_size(value: Any) -> bool:
    return value is None or (_is_number(value) and value >= 0)


def _names(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(_is_text(k) and right(v) for k, v in value.items())


_TEXT = (_is_text, "a text of one line")
_VALUES = (_names(_is_value), "numbers by name")
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("task", "variant", "preset", "data", "stage", "method", "label", "status", "device"), _TEXT),
    **dict.fromkeys(("theta_true", "theta_hat", "metrics"), _VALUES),
    **dict.fromkeys(("seed", "steps"), (_is_count, "a whole number >= 0")),
    **dict.fromkeys(("val_loss", "test_loss"), (_is_score, "a number or null")),
    "theta_error": (_is_size, "a number >= 0 or null"),
    "seconds": (lambda value: value is not None and _is_size(value), "a number >= 0"),
    "protocol": (_names(_is_number), "numbers by name"),
    "settings": (_names(lambda value: _is_text(value) or _is_number(value)), "numbers or words by name"),
    "versions": (_names(_is_text), "texts by name"),
    "commit": (lambda value: value is None or _is_text(value), "a text or null"),
}


def summary(rows: Sequence[dict[str, Any]], baseline: str = "erm") -> pd.DataFrame:
    """One row per problem and label: medians over seeds, and the difference to a baseline.

    What runs of one problem have in common: task, variant, preset, data, stage and protocol.

    Diverged members count: they stay in the medians with the theta at which they were frozen, and in
    the column `diverged`.

    Args:
        rows: records.
        baseline: label to compare with, paired by seed.

    Returns:
        Columns: task, variant, preset, data, stage, protocol, label, seeds, diverged, theta_error, q1, q3 (quartiles),
        difference (median paired difference of theta_error to the baseline), low, high (95 % percentile
        bootstrap over seeds), val_loss, test_loss, seconds (medians).
    """
    out = []
    table = _table(rows)
    table["protocol"] = [", ".join(f"{k} {v:g}" for k, v in protocol.items()) for protocol in table["protocol"]]
    for key, group in table.groupby(list(PROBLEM), sort=False):
        reference = group[group["label"] == baseline].set_index("seed")["theta_error"]
        for label, members in group.groupby("label", sort=False):
            errors = members.set_index("seed")["theta_error"].astype(float)
            shared = errors.index.intersection(reference.index)
            difference, low, high = math.nan, math.nan, math.nan
            if label != baseline and len(shared):
                difference, low, high = paired_bootstrap((errors[shared] - reference[shared]).to_numpy())
            q1, median, q3 = errors.quantile([0.25, 0.5, 0.75])
            out.append(
                {
                    **dict(zip(PROBLEM, key, strict=True)),
                    "label": label,
                    "seeds": len(members),
                    "diverged": int((members["status"] == "diverged").sum()),
                    "theta_error": median,
                    "q1": q1,
                    "q3": q3,
                    "difference": difference,
                    "low": low,
                    "high": high,
                    "val_loss": members["val_loss"].astype(float).median(),
                    "test_loss": members["test_loss"].astype(float).median(),
                    "seconds": members["seconds"].median(),
                }
            )
    return pd.DataFrame(out)


def relative(rows: Sequence[dict[str, Any]], baseline: str = "erm") -> pd.DataFrame:
    """Theta errors as multiples of a baseline's, paired by seed: what can be compared across tasks.

    Args:
        rows: records; of each problem and label at most one for each seed.
        baseline: label to compare with.

    Returns:
        One row per problem and label, the baseline's left out: task, variant, preset, data, stage, protocol, label,
        seeds (in common with the baseline), ratio (exp of the median log ratio), low, high (95 % percentile bootstrap
        over seeds). Diverged members count with the theta at which they were frozen.

    >>> row = dict.fromkeys(PROBLEM, "x")
    >>> errors = {"erm": (1.0, 2.0, 4.0), "sam": (0.5, 1.0, 2.0)}
    >>> rows = [row | {"label": n, "seed": i, "theta_error": e} for n, es in errors.items() for i, e in enumerate(es)]
    >>> relative(rows)[["label", "seeds", "ratio", "low", "high"]].round(3).values.tolist()
    [['sam', 3, 0.5, 0.5, 0.5]]
    """
    out = []
    table = _table(rows)
    table["protocol"] = [json.dumps(protocol) for protocol in table["protocol"]]
    for key, group in table.groupby(list(PROBLEM), sort=False):
        errors = group.pivot(index="seed", columns="label", values="theta_error").astype(float)
        for label in group["label"].unique():
            if label == baseline or baseline not in errors:
                continue
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # an error may be zero
                pairs = (np.log(errors[label]) - np.log(errors[baseline])).dropna().to_numpy()
                found = [float(np.exp(x)) for x in paired_bootstrap(pairs)] if len(pairs) else []
            if found:
                ratio, low, high = found
                row = {"label": label, "seeds": len(pairs), "ratio": ratio, "low": low, "high": high}
                out.append(dict(zip(PROBLEM, key, strict=True)) | row)
    return pd.DataFrame(out)


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Records as a table; refuses none, and members that are there more than once."""
    if not rows:
        raise ValueError("there are no records, of which to make a table")
    seen = Counter((*(str(row[name]) for name in PROBLEM), row["label"], row["seed"]) for row in rows)
    if twice := [key for key, n in seen.items() if n > 1]:
        task, variant, *_, label, seed = twice[0]
        raise ValueError(f"{task} {variant}, {label}, seed {seed} is there more than once; give each run once")
    return pd.DataFrame(rows)


def paired_bootstrap(differences: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Median of paired differences with a percentile bootstrap interval (10,000 resamples, seeded).

    >>> paired_bootstrap(np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0, 1.0)
    """
    generator = np.random.default_rng(0)
    drawn = generator.choice(differences, size=(RESAMPLES, len(differences)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(np.median(differences)), float(low), float(high)
