"""How strongly to regularize, without theta's true value: `select` for rho, lambda, mu and their like.

Three criteria look at each method's grid of one setting; the answer is "undecided" unless they agree.

1. One standard error: the largest setting whose mean log validation loss, for each seed minus the *same* seed's at
   the best setting, is at most sd / sqrt(seeds). Paired, for a seed's runs share data, batches and first weights;
   logs, for seeds scale losses and no bad one should outweigh the rest (plain losses if some are not positive).
2. Corner, where the loss turns up: the point of log loss over log setting furthest below the chord from the best
   setting to the largest. In place of the L-curve of loss and sharpness: runs hold no sharpness.
3. Plateau: settings at which theta depends neither on the seed nor on the next setting (see `_by_theta`).

Plain training (erm, or setting 0), if there, is the grid's lower end. Settings where a member diverged are not chosen.
Not seen: noise of the validation set, which all runs share; a wrong theta that predicts well at every setting.

Sources: Breiman et al., Classification and Regression Trees, 1984 (one standard error); Hansen and O'Leary, SIAM J.
Sci. Comput. 14, 1993 (L-curve); Satopää et al., Finding a "kneedle" in a haystack, ICDCS Workshops 2011 (chord).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsam_lite.runs import Runs
from hybridsam_lite.theta import entry_labels

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Choice", "Selection", "select", "strongest"]

AS_GOOD, EXACT = (
    1.1,
    0.01,
)  # times the lowest loss; error over the target's standard deviation: no worse, to `strongest`
USED = ("method", "label", "settings", "seed", "val_loss", "status")  # and the estimate of theta; nothing else
STRENGTHS, UNLIKE = ("rho", "lam", "mu", "p"), ("aphynity", "pho")  # 0 is plain training, but for these methods
SEEDS, FLAT = 3, 0.05  # fewer seeds show no spread; level of Friedman's test that no setting changes the loss
# In units of theta or of plain training's sd, whichever is larger: the largest sd over seeds (theta is 4 sd from 0,
# or its variance fell 16-fold; chance: 9-fold with 4 seeds, F test at 5 %), and a change too small to matter.
SPREAD, PRECISION = 0.25, 0.02

FLAGS = ["within", "plateau", "corner"]
Members = Mapping[int, Mapping[str, Any]]  # by seed


@dataclass(frozen=True)
class Choice:
    """What `select` answers for one method.

    Attributes:
        method, setting: its name, with what is not chosen here; the name of what is, "rho".
        label, value, reasons: the chosen setting, None if undecided; why, in sentences.
        table: all criteria by setting (0 is plain training). loss: geometric mean (or mean, see above); gap, se:
            to the best; within: criterion 1; theta.<name>: median; spread: sd over seeds, 1 is theta's size or
            plain training's sd, the larger; moves: change to the next setting, 1 is what seeds explain.
        theta: component -> (median, low, high) of the seeds, 95 % of them; no confidence interval of the truth.
        extrapolated: component -> (4 theta(rho/2) - theta(rho)) / 3 if rho/2 was run; rho = 0 if the bias is O(rho^2).
    """

    method: str
    setting: str
    label: str | None
    value: float | None
    reasons: tuple[str, ...]
    table: pd.DataFrame
    theta: dict[str, tuple[float, ...]] = field(default_factory=dict)
    extrapolated: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.method}: {self.label or 'undecided'}"]
        lines += [f"  {n} = {m:.4g}, seeds from {low:.4g} to {high:.4g}" for n, (m, low, high) in self.theta.items()]
        lines += [f"  {n} -> {v:.4g} at rho = 0 (extrapolation, a hint)" for n, v in self.extrapolated.items()]
        lines += [f"  - {reason}" for reason in self.reasons]
        return "\n".join([*lines, self.table.to_string(float_format="{:.3g}".format, na_rep="-")])


class Selection(dict[str, Choice]):
    """The choices by method; `print` shows them with their reasons."""

    def __repr__(self) -> str:
        return "\n\n".join(map(str, self.values()))


def select(runs: Runs | Iterable[Runs | Mapping[str, Any]]) -> Selection:
    """Choose each method's setting by validation loss and theta's plateau, without theta's true value.

    `runs` is what `fit` returned, a list of such, or run records of one task (`results.read_records`), of which
    theta_true and theta_error are not read. The module's docstring states each rule and its source.

    Returns:
        A dict from method to `Choice`. Methods without such a setting (erm, early, ...) are not in it.

    Raises:
        ValueError, TypeError: for runs that do not belong together, or with nothing to choose.

    >>> grid = {0.05: (1.0, 0.8), 0.1: (0.9, 0.99), 0.2: (0.9, 1.0), 0.4: (3.0, 1.3)}  # rho: loss, theta
    >>> records = [
    ...     {"method": "sam", "label": f"sam:rho={rho}", "settings": {"rho": rho}, "seed": seed, "status": "ok",
    ...      "val_loss": loss * (1 + seed), "theta_hat": {"k": theta + 0.02 * seed}}
    ...     for rho, (loss, theta) in grid.items() for seed in range(4)]
    >>> select(records)["sam"].label
    'sam:rho=0.2'
    """
    items = [runs] if isinstance(runs, Runs) else runs
    if not isinstance(items, Iterable):
        raise TypeError(f"select: expected Runs or run records, got {items!r:.60}")
    rows = [_row(m) for item in items for m in (item.frame.to_dict("records") if isinstance(item, Runs) else [item])]
    for key in ("task", "names"):
        if len(kinds := sorted({row[key] for row in rows})) != 1:
            raise ValueError(f"select: expected runs of one problem, got {' and '.join(kinds) or 'no runs'}")
    if twice := [key for key, n in Counter((row["label"], row["seed"]) for row in rows).items() if n > 1]:
        raise ValueError(f"select: {twice[0][0]} with seed {twice[0][1]} is there more than once")
    if not rows[0]["theta"]:
        raise ValueError("select: these runs hold no theta; if it is amortized, pass the task's records")
    if all(math.isinf(row["loss"]) and row["status"] != "diverged" for row in rows):
        raise ValueError("select: these runs have no validation loss (or theta); pass validation data to fit")
    plain = {row["seed"]: row for row in rows if row["label"] == "erm"}
    if not (grids := _grids(rows)):
        raise ValueError("select: nothing to choose; no method here has a strength, as sam:rho=0.1 and wd:lam=1 have")
    return Selection(
        {
            name: _choose(name, key, grid, grid.pop(0.0, plain), _changed(rows, name.split(":")[0], key))
            for name, (key, grid) in grids.items()
        }
    )


def _row(member: Any) -> dict[str, Any]:
    """What is used of a member: theta flat, and an infinite loss if the member was lost."""
    if not isinstance(member, Mapping) or any(key not in member for key in USED):
        raise TypeError(
            f"select: expected Runs or run records with {', '.join(USED)} and theta_hat; got {member!r:.60}"
        )
    found = {str(key)[6:]: value for key, value in member.items() if str(key).startswith("theta.")}  # Runs.frame
    for key, kind in (("settings", Mapping), ("method", str), ("label", str), ("seed", (int, np.integer))):
        if not isinstance(member[key], kind):
            raise TypeError(f"select: {key} of {member['label']!r:.60} is no such thing: {member[key]!r:.60}")
    try:
        arrays = {n: np.asarray(v, dtype=float) for n, v in (member.get("theta_hat") or found).items()}
        loss = float(np.asarray(member["val_loss"], dtype=float))  # None, as records have it, is NaN
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise TypeError(f"select: {member['label']} has a loss or theta that is no number ({error!s:.80})") from error
    theta = {
        label: float(v) for n, a in arrays.items() for label, v in zip(entry_labels(n, a.shape), a.flat, strict=True)
    }
    lost = member["status"] == "diverged" or not all(map(math.isfinite, (loss, *theta.values())))
    task = " ".join(str(member[key]) for key in ("task", "variant", "preset", "data") if key in member)
    more = {"task": task, "names": ", ".join(theta), "theta": theta, "loss": math.inf if lost else loss}
    return {key: member[key] for key in USED} | more


def _grids(rows: list[dict[str, Any]]) -> dict[str, tuple[str, dict[float, Members]]]:
    """Method, with its settings that stay the same -> the setting that varies, and its members by value and seed."""
    grids: dict[str, tuple[str, dict[float, Any]]] = {}
    for method in sorted({row["method"] for row in rows}):
        mine = [row for row in rows if row["method"] == method]
        numeric = [key for key in STRENGTHS if any(_is_number(row["settings"].get(key)) for row in mine)]
        setting = numeric[0] if numeric and method not in UNLIKE else ""
        for row in (row for row in mine if setting and _is_number(row["settings"].get(setting))):
            others = ",".join(f"{k}={v}" for k, v in sorted(row["settings"].items()) if k != setting)
            grid = grids.setdefault(f"{method}:{others}" if others else method, (setting, {}))[1]
            grid.setdefault(float(row["settings"][setting]), {})[row["seed"]] = row
    return grids


def _is_number(value: Any) -> bool:
    """Words tell of a setting that was changed during the training: it belongs to no point of the grid."""
    return type(value) in (int, float)


def _changed(rows: list[dict[str, Any]], method: str, setting: str) -> list[str]:
    """What to say of the members of a method that `_grids` left out."""
    words = [row for row in rows if row["method"] == method and isinstance(row["settings"].get(setting), str)]
    return [f"left out: {len(words)} members whose {setting} was changed while they trained"] if words else []


def _choose(method: str, setting: str, grid: dict[float, Members], plain: Members, out: list[str]) -> Choice:
    own = sorted(grid)
    seeds = sorted(set.intersection(*(set(grid[v]) for v in own))) if own else []
    if seeds and all(seed in plain and math.isfinite(plain[seed]["loss"]) for seed in seeds):
        grid = {0.0: {seed: plain[seed] for seed in seeds}, **grid}
    lost = {v: sum(math.isinf(row["loss"]) for row in grid[v].values()) for v in sorted(grid)}
    kept = [v for v in lost if not lost[v]]
    out = out + [f"{setting}={v:g} is out: {lost[v]} of {len(grid[v])} members diverged" for v in own if lost[v]]
    import pandas as pd

    table = pd.DataFrame({"members": {v: len(grid[v]) for v in lost}, "lost": lost}).rename_axis(setting)
    members, gone = table.loc[own].sum()
    unfit = {
        f"one {setting} only: train with two at the least, better five": len(own) < 2,
        f"too few seeds: the settings share {len(seeds)}, at least {SEEDS} are needed": len(seeds) < SEEDS,
        f"most members diverged ({gone} of {members}): train with a smaller lr or {setting}": 2 * gone > members,
        f"each {setting} lost a member: train with a smaller lr or {setting}": not any(kept),
    }
    if reasons := [text for text, true in unfit.items() if true][:1]:
        return Choice(method, setting, None, None, (*out, *reasons), table)
    loss = np.array([[grid[v][seed]["loss"] for seed in seeds] for v in kept])
    theta = np.array([[list(grid[v][seed]["theta"].values()) for seed in seeds] for v in kept])
    names = list(grid[own[0]][seeds[0]]["theta"])
    place = np.array([own.index(v) if v else -2 for v in kept])  # plain training is nobody's neighbour
    table = table.join(pd.DataFrame(_by_loss(loss, kept) | _by_theta(theta, place, names), index=kept))
    table[FLAGS] = table[FLAGS].eq(True)  # False where members were lost
    reasons, value = _verdict(table, len(seeds), _friedman(loss))
    if value is None:
        return Choice(method, setting, None, None, (*out, *reasons), table)
    at, label = theta[kept.index(value)], grid[value][seeds[0]]["label"]
    ranges = dict(zip(names, map(tuple, np.quantile(at, [0.5, 0.025, 0.975], axis=0).T.tolist()), strict=True))
    half = [t for v, t in zip(kept, theta, strict=True) if setting == "rho" and math.isclose(v, value / 2)]
    limit = {n: float(np.median(4 * h[:, c] - at[:, c]) / 3) for h in half for c, n in enumerate(names)}
    return Choice(method, setting, label, value, (*out, *reasons), table, ranges, limit)


def _by_loss(loss: np.ndarray, kept: list[float]) -> dict[str, np.ndarray]:
    """Criteria 1 and 2, from losses of shape (setting, seed)."""
    logs = bool((loss > 0).all())
    loss = np.log(loss) if logs else loss
    level, strong, corner = loss.mean(axis=1), np.array(kept) > 0, np.full(len(kept), False)
    best = int(level.argmin())
    gap, se = level - level[best], (loss - loss[best]).std(axis=1, ddof=1) / math.sqrt(loss.shape[1])
    start = max(best, int(strong.argmax()))
    if len(kept) - start > 2:
        x, y = np.log(kept[start:]), level[start:]
        below = (y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0]) - y)[1:-1]
        corner[start + 1 + below.argmax()] = below.max() > 0
    mean, within = np.exp(level) if logs else level, (gap <= se) & strong
    return {"loss": mean, "gap": gap, "se": se, "within": within, "corner": corner}


def _by_theta(theta: np.ndarray, place: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """Criterion 3, from theta of shape (setting, seed, component), the weakest setting first.

    On a plateau the sd over seeds is at most SPREAD, and the median differs from that of a neighbour on it by
    no more than their pooled sd: the choice between the two matters less than the seed.
    """
    middle, sd = np.median(theta, axis=1), theta.std(axis=1, ddof=1)
    unit = np.abs(np.median(theta[place >= 0], axis=(0, 1))).clip(sd[0]).clip(np.finfo(float).tiny)
    spread = (sd / unit).max(axis=1)
    explained = np.maximum(np.sqrt((sd[1:] ** 2 + sd[:-1] ** 2) / 2), PRECISION * unit)
    moves = np.append((np.abs(np.diff(middle, axis=0)) / explained).max(axis=1), math.nan)
    pair = (moves[:-1] <= 1) & (np.maximum(spread[1:], spread[:-1]) <= SPREAD) & (np.diff(place) == 1)
    thetas = {f"theta.{n}": middle[:, c] for c, n in enumerate(names)}
    return {**thetas, "spread": spread, "moves": moves, "plateau": np.append(pair, False) | np.append(False, pair)}


def _friedman(loss: np.ndarray) -> float:
    """p-value of Friedman's test (1937) that the loss, (setting, seed), ranks alike at all settings."""
    from scipy.stats import chi2, rankdata

    k, n = loss.shape
    ranks = rankdata(loss, axis=0).sum(axis=1)
    return float(chi2.sf(12 / (n * k * (k + 1)) * (ranks**2).sum() - 3 * n * (k + 1), k - 1))


def _verdict(table: pd.DataFrame, seeds: int, p: float) -> tuple[list[str], float | None]:
    """Why the criteria agree, and on which setting; or why they do not, and None."""
    name, own, spread = str(table.index.name), table.index[table.index > 0].tolist(), table["spread"].to_dict()
    within, settled, corners = ([v for v in own if table.at[v, flag]] for flag in FLAGS)
    both, against = [v for v in within if v in settled], []
    if p > FLAT:
        against.append(f"flat: no effect of {name} on the loss is seen ({seeds} seeds, Friedman's test, p = {p:.2g})")
    elif not within:
        against.append(f"each {name} predicts worse than plain training by more than one standard error; try smaller")
    elif within[-1] == own[-1] or (within[-1] == own[0] and 0.0 not in table.index):
        against.append(f"at the grid's edge: the loss at {name}={within[-1]:g} is as good as the best; widen the grid")
    if settled and not both:
        against.append(f"theta settles only where the loss is worse: {name}=" + ", ".join(f"{v:g}" for v in settled))
    elif not both and not any(spread[v] <= SPREAD for v in within or own):
        against.append("seeds disagree in theta at equal loss (see spread): it is not identified by these data")
    elif not both:
        against.append(f"no plateau: theta changes from each {name} to the next by more than between seeds")
    for rule, found in (("one standard error", within[-1:]), ("the corner", corners)):
        if both and found and abs(own.index(found[0]) - own.index(both[-1])) > 1:
            against.append(f"criteria disagree: theta's plateau gives {name}={both[-1]:g}, {rule} {found[0]:g}")
    if against:
        return against, None
    return [
        f"{name}={within[-1]:g} is the largest within one standard error of the best loss, {seeds} paired seeds",
        f"theta's plateau includes {name}={both[-1]:g}: sd over seeds {spread[both[-1]]:.1%}",
        *(f"the loss turns up at {name}={v:g}" for v in corners),
    ], both[-1]


def strongest(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    """The strongest of `labels` that predicts as well as any: a choice that is never "undecided", for tables.

    A setting predicts as well as any if none of its members diverged, and the median of its validation losses over
    the seeds is at most 10 % above the lowest median in `rows`, or its median error is at most 1 % of the target's
    standard deviation: better predictions than that are no reason for a weaker setting. If there is none, the
    setting of lowest median loss. theta is not used at all.

    Args:
        rows: run records of one problem: these labels and, to compare with, plain training.
        labels: from the weakest setting to the strongest.

    >>> def row(label, loss): return {"label": label, "val_loss": loss, "metrics": {"val_nrmse": 1.0}, "status": "ok"}
    >>> grid = [row("erm", 1.0), row("sam:rho=0.1", 1.05), row("sam:rho=0.2", 1.3)]
    >>> strongest(grid, ["sam:rho=0.1", "sam:rho=0.2"])
    'sam:rho=0.1'
    """
    loss: dict[str, float] = {}
    error: dict[str, float] = {}
    for label in {row["label"] for row in rows}:
        mine = [row for row in rows if row["label"] == label]
        sound = all(row["status"] != "diverged" and row["val_loss"] is not None for row in mine)
        loss[label] = float(np.median([row["val_loss"] for row in mine])) if sound else math.inf
        error[label] = float(np.median([row["metrics"]["val_nrmse"] for row in mine])) if sound else math.inf
    best = min(loss.values())
    good = [label for label in labels if loss[label] <= AS_GOOD * best or error[label] <= EXACT]
    return good[-1] if good else min(labels, key=loss.__getitem__)
