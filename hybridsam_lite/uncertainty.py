"""Intervals for theta from three sources, and how often each has been seen to cover.

An interval at level 0.95 covers if 95 of 100 of them, each from new data, hold the true theta. None of
the sources promises that for a hybrid model: the information matrix and the profile likelihood count
independent noise and no bias, the spread of seeds knows nothing of the noise in the data. So their
coverage was measured; see `intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hybridsam_lite.checks import LossFunction, mean_squared_error
from hybridsam_lite.data import Data, Inputs
from hybridsam_lite.diagnose import seed_spread
from hybridsam_lite.information import Information, information
from hybridsam_lite.landscape import Landscape, ThetaEntry
from hybridsam_lite.likelihood import Profile, ends, profile
from hybridsam_lite.runs import Runs

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Intervals",
    "ThetaInterval",
    "information_intervals",
    "intervals",
    "profile_grid",
    "profile_interval",
    "seed_intervals",
]

NEAR = (1, 2, 3)  # grid of a profile, in standard deviations by the information ...
FAR = (1 / 32, 1 / 8, 1 / 2, 1)  # ... and in parts of the way that theta may go


@dataclass(frozen=True)
class ThetaInterval:
    """One entry of theta, by one source, in its unit; `value in interval` asks whether it covers.

    Attributes:
        name: label of the entry.
        estimate: the trained value; the mean over seeds if the source is "seeds".
        low, high: the interval, infinite where the source says nothing.
        level: nominal coverage.
        source: "information", "profile" or "seeds".
        unit: theta's unit.
        warnings: why it may cover less often than `level` says.
    """

    name: str
    estimate: float
    low: float
    high: float
    level: float
    source: str
    unit: str = ""
    warnings: tuple[str, ...] = ()

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


class Intervals(tuple[ThetaInterval, ...]):
    """What `intervals` found; prints as a table with the warnings below it."""

    __slots__ = ()

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each entry and source."""
        import pandas as pd

        return pd.DataFrame([asdict(x) for x in self])

    def __str__(self) -> str:
        notes = list(dict.fromkeys(w for x in self for w in x.warnings))
        lines = [f"{'theta':<14} {'source':<12} {'estimate':>11} {'low':>11} {'high':>11}  level"]
        for x in self:
            marks = "".join(f" [{notes.index(w) + 1}]" for w in x.warnings)
            row = f"{x.name:<14} {x.source:<12} {x.estimate:>11.5g} {x.low:>11.5g} {x.high:>11.5g}  {x.level:g}"
            lines.append(f"{row} {x.unit}{marks}".rstrip())
        return "\n".join(lines + [f"[{i}] {note}" for i, note in enumerate(notes, start=1)])


def intervals(
    model: nn.Module,
    data: Data | tuple[Inputs, Tensor],
    *,
    runs: Runs | None = None,
    label: str | None = None,
    val: Data | tuple[Inputs, Tensor] | None = None,
    theta: Sequence[str] = (),
    loss: LossFunction = mean_squared_error,
    level: float = 0.95,
    lam: float | None = None,
    steps: int = 100,
    dtype: torch.dtype = torch.float64,
) -> Intervals:
    """Intervals for each entry of theta: from the information matrix, the profile and, if given, seeds.

    Do not take the level at its word. On simulated data, where theta is known, intervals of level 0.95 covered it in so
    many per cent of 200 data sets (information), 100 (profile) and 50 (seeds, four of each); "open" is the part of
    the profiles without an end. Small networks, in problems that are set out in tools/coverage.py::

               problem  theta      method  information  profile  open  seeds
               duffing  alpha         erm           72       99    99     98
               duffing  alpha sam:rho=0.1           72      100    99     94
               duffing   beta         erm           75       92     0     96
               duffing   beta sam:rho=0.1           70       98     0     86
                linear      k         erm           88       96     0     16
                linear      k sam:rho=0.1           88       96     0     16
              pendulum omega2         erm           48       99    55     96
              pendulum omega2 sam:rho=0.1           62      100    47     94
        pendulum_exact omega2         erm           44      100    55     96
        pendulum_exact omega2 sam:rho=0.1           60      100    49     94

    Information: 88 % where the network is linear in its weights; much too narrow in hybrid models (44 to 75 %), for
    it counts noise, but neither bias nor the other solutions that a network has. Its warnings do not tell: 2 to
    6 % of the pendulum's were warned. Profile: covers (92 to 100 %), but mostly by saying little. Half of
    omega2's were open at an end, 99 % of alpha's; it is as narrow as the information where that is right (linear)
    and two to four times as wide for beta. Seeds: 86 to 98 % in hybrid models, whose seeds scatter more than the noise
    makes them; 16 % where all seeds find the same solution, for they share one data set and its noise.

    Args:
        model: a trained model with global theta; theta that is inferred per sample has no interval here.
        data: the data that it was trained on.
        runs: what `hs.fit` returned for several seeds on these data, for the source "seeds".
        label: which label of `runs` to take; may be left out if there is only one.
        val: validation data, as in `seed_spread`.
        theta, loss, lam, steps, dtype: as in `diagnose`.
        level: nominal coverage, between 0 and 1.

    Returns:
        `Intervals`, entry by entry; `print` them.

    Raises:
        ValueError, TypeError: for a model without global theta, complex parameters (give the real and the
            imaginary part as two), or other input that cannot work.

    Source: Wald and likelihood-ratio intervals; Raue et al., Bioinformatics 2009.

    >>> import hybridsam_lite as hs
    >>> class Line(hs.HybridModel):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.theta = hs.Theta(k=hs.Real(init=1.0, unit="N/m"))
    ...         self.w = torch.nn.Parameter(torch.tensor(0.0))
    ...     def forward(self, x):
    ...         return self.theta.k * x + self.w * x**2
    >>> x = torch.tensor([1.0, -1.0, 2.0, -2.0])
    >>> found = intervals(Line(), (x, x + 0.1 * torch.tensor([1.0, 1.0, -1.0, -1.0])))
    >>> [(i.source, 1.0 in i, 2.0 in i) for i in found]
    [('information', True, False), ('profile', True, False)]
    """
    if not (runs is None or isinstance(runs, Runs)):
        raise TypeError(f"intervals: runs must be what hs.fit returns, got {runs!r:.60}")
    if runs is None and (label is not None or val is not None):
        raise ValueError('intervals: label and val belong to the source "seeds", which there is only with runs=...')
    at = Landscape(model, data, theta=theta, loss=loss, dtype=dtype)
    if not at.entries:
        raise ValueError(
            f"intervals: {type(model).__name__} has no global theta: expected an hs.Theta, or names of parameters in "
            "theta=[...]. Theta that is inferred per sample (amortized) has no single value and no interval here; "
            "look at its error over test samples instead"
        )
    found = information(at, lam=lam)
    rows = information_intervals(at, found, level)
    for k, entry in enumerate(at.entries):
        if found.influence[k]:
            curve = profile(at, entry.label, grid=profile_grid(found, k), steps=steps)
            rows.append(profile_interval(at, curve, level))
    if runs is not None:
        floors = {e.label: sd * e.range for e, sd in zip(at.entries, found.sd_known, strict=True)}
        units = {e.label: e.unit for e in at.entries}
        for x in seed_intervals(runs, label, val, level, loss=loss):
            if x.name not in units:
                raise ValueError(f"intervals: these runs hold theta {x.name!r}, the model has: {', '.join(units)}")
            doubts = x.warnings
            if x.high - x.low < 2 * _normal(level) * floors[x.name]:
                doubts += ("narrower than the noise in the data alone would allow: the seeds share one data set",)
            rows.append(replace(x, unit=units[x.name], warnings=doubts))
    order = [e.label for e in at.entries]
    return Intervals(sorted(rows, key=lambda x: order.index(x.name)))


def information_intervals(at: Landscape, found: Information, level: float = 0.95) -> list[ThetaInterval]:
    """The trained value plus and minus normal quantile times standard deviation, for each entry.

    Args:
        at: the model and data.
        found: `information(at)`.
        level: nominal coverage.
    """
    z, doubts, rows = _normal(level), _doubts(at), []
    for entry, sd, seen in zip(found.entries, found.sd_physical, found.influence, strict=True):
        why = doubts if seen else (f"{entry.label} does not influence the prediction",)
        rows.append(_interval(entry, entry.value - z * sd, entry.value + z * sd, level, "information", why))
    return rows


def profile_grid(found: Information, k: int) -> list[float] | None:
    """A grid for `profile` that resolves entry k's interval as the information sees it, and goes to the ends."""
    entry, sd = found.entries[k], found.sd_physical[k]
    if not math.isfinite(sd):
        return None
    sides = zip((-1, 1), entry.reach, strict=True)
    return [
        entry.value + sign * step
        for sign, reach in sides
        for step in (*(f * sd for f in NEAR if f * sd < reach), *(f * reach for f in FAR if f * reach > NEAR[-1] * sd))
    ]


def profile_interval(at: Landscape, curve: Profile, level: float = 0.95) -> ThetaInterval:
    """The values whose refitted loss is within the likelihood-ratio limit, or within the trained loss.

    The limit is min(losses) exp(q / n) with q the chi-square quantile. Between grid points the root of the
    log likelihood ratio is interpolated, which is exact where the loss is quadratic in theta.

    Args:
        at: the model and data.
        curve: `profile(at, name)`.
        level: nominal coverage.
    """
    from scipy.special import chdtri

    least, n = max(min(curve.losses), torch.finfo(torch.float64).tiny), at.target.numel()
    limit = float(chdtri(1, 1 - _level(level)))
    worse = n * math.log(max(curve.reference / least, 1.0))
    doubts = _doubts(at)
    if worse > limit:
        doubts += (
            f"refitted networks reach a loss of {least:.3g}, the trained one {curve.reference:.3g}: every value that "
            "does as well as the trained one is counted in",
        )
    bound = math.sqrt(max(limit, worse))
    roots = [math.sqrt(n * math.log(max(x / least, 1.0))) if math.isfinite(x) else math.inf for x in curve.losses]
    low, high = ends(curve.grid, roots, bound)
    return _interval(curve.entry, low, high, level, "profile", doubts)


def seed_intervals(
    runs: Runs,
    label: str | None = None,
    val: Data | tuple[Inputs, Tensor] | None = None,
    level: float = 0.95,
    *,
    loss: LossFunction = mean_squared_error,
) -> list[ThetaInterval]:
    """Mean over the seeds that fit equally well (`seed_spread`) plus and minus Student's quantile times their spread.

    Args:
        runs: what `hs.fit` returned.
        label: which label of `runs`; may be left out if there is only one.
        val, loss: as in `seed_spread`.
        level: nominal coverage.
    """
    from scipy.special import stdtrit

    table = seed_spread(runs, val, loss=loss)
    if table.empty:
        raise ValueError("intervals: these runs hold no global theta in an hs.Theta, of which to take the spread")
    labels = list(dict.fromkeys(table["label"]))
    if label not in labels and not (label is None and len(labels) == 1):
        raise ValueError(f"intervals: no members {label!r} in runs; expected label= one of: {', '.join(labels)}")
    rows = []
    for _, row in table[table["label"] == (label or labels[0])].iterrows():
        kept = int(row["kept"])
        half = math.inf if kept < 2 else float(stdtrit(kept - 1, (1 + _level(level)) / 2)) * row["sd"]
        few = (f"only {kept} of {row['members']} seeds fit equally well",) if kept < 4 else ()
        mean = float(row["mean"])
        rows.append(ThetaInterval(str(row["theta"]), mean, mean - half, mean + half, level, "seeds", warnings=few))
    return rows


def _interval(
    entry: ThetaEntry, low: float, high: float, level: float, source: str, doubts: tuple[str, ...]
) -> ThetaInterval:
    if any(math.isfinite(x) and not entry.constraint.admits(x) for x in (low, high)):
        doubts += (f"reaches beyond {entry.constraint.describe()}, where {entry.label} must be",)
    return ThetaInterval(entry.label, entry.value, low, high, level, source, entry.unit, doubts)


def _doubts(at: Landscape) -> tuple[str, ...]:
    """What in the data and residuals contradicts independent noise."""
    e, count, different = at.target - at.predicted, at.target.numel(), at.target.unique().numel()
    if e.ndim < 2 or e.shape[1] < 2:  # no order within a sample: take that of the prediction
        e = e.reshape(-1)[at.predicted.reshape(-1).argsort()][None]
    pairs = (e[:, 1:] * e[:, :-1]).numel()
    r = ((e[:, 1:] * e[:, :-1]).mean() / (e**2).mean().clamp(min=torch.finfo(e.dtype).tiny)).item()
    found: tuple[str, ...] = ()
    if r > max(0.1, 3 / pairs**0.5):
        found += (f"systematic residuals (neighbours correlate by {r:.2f}): under-covers",)
    if count > 1.1 * different:
        found += (f"the target's {count} entries hold {different} different values, counted as independent "
                  "(overlapping windows?): under-covers",)  # fmt: skip
    return found


def _normal(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + _level(level)) / 2))


def _level(level: float) -> float:
    if not (isinstance(level, (int, float)) and 0 < level < 1):
        raise ValueError(f"intervals: level must be between 0 and 1, got {level!r}")
    return level
