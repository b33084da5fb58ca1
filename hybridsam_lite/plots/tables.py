"""What figures read: runs, frames and run records, all as one kind of table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from hybridsam_lite.runs import Runs

__all__ = ["Rows", "finished", "table_of", "theta_column"]

Rows = Runs | pd.DataFrame | Iterable[Mapping[str, Any]]


def table_of(runs: Rows) -> pd.DataFrame:
    """One row per member; of `Runs` also the last training loss."""
    if isinstance(runs, Runs):
        last = runs.history.groupby("member")["train_loss"].last()
        return runs.frame.assign(train_loss=last.reindex(range(len(runs))).to_numpy())
    table = runs if isinstance(runs, pd.DataFrame) else pd.DataFrame([dict(row) for row in runs])
    return table.reset_index(drop=True)  # tables that were joined count their rows twice


def finished(table: pd.DataFrame) -> pd.Series[bool]:
    """Which rows did not diverge."""
    return table.get("status", pd.Series("ok", table.index)) != "diverged"


def theta_column(table: pd.DataFrame, name: str | None, kind: str = "theta_hat") -> tuple[str, pd.Series[float]]:
    """Name and values of one scalar theta (or its error), from runs or from task records."""
    found: dict[str, Any] = {}
    if kind in table:
        dicts = table[kind].map(lambda value: isinstance(value, Mapping)).all()
        found = {name or "theta": table[kind]}
        if dicts:
            found = {str(k): table[kind].map(lambda v, k=k: v.get(k)) for k in table[kind].iloc[0]}
    elif kind == "theta_hat":
        found = {str(c)[6:]: table[c] for c in table if str(c).startswith("theta.")}
    name = next(iter(found)) if name is None and len(found) == 1 else name
    if name not in found:
        raise ValueError(f"name={name!r}, but the table has theta: {', '.join(found) or 'none'}")
    try:
        return name, found[name].astype(float)
    except (TypeError, ValueError):
        raise ValueError(f"theta {name!r} is not one number in each row; take one entry") from None
