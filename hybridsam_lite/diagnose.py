"""Diagnosis: is theta determined by this data and model, and why (not)?

`diagnose` gathers what `curvature`, `information` and `likelihood` find out about one trained model, and
says it in words. `seed_spread` looks at many trained models instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from hybridsam_lite.checks import LossFunction, mean_squared_error
from hybridsam_lite.curvature import Gradients, Sharpness, Spectrum, check_radius, gradients, sharpness, spectrum
from hybridsam_lite.data import Data, Inputs, as_data
from hybridsam_lite.device import kept_random_state
from hybridsam_lite.hybrid import as_prediction, check_initialized, unwrapped
from hybridsam_lite.information import Information, Shares, information, shares
from hybridsam_lite.landscape import Landscape
from hybridsam_lite.likelihood import Profile, find, profile
from hybridsam_lite.runs import Runs
from hybridsam_lite.theta import entry_labels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Report", "Verdict", "diagnose", "seed_spread"]

LIMIT = 0.1  # theta counts as determined if its 95 % interval is within +- a tenth of its range
NORMAL = 1.96  # 95 % of a normal distribution lie within this many standard deviations


@dataclass(frozen=True)
class Verdict:
    """Whether one entry of theta is determined, and the reasons, as sentences without a full stop."""

    label: str
    determined: bool
    reasons: list[str]


@dataclass(frozen=True)
class Report:
    """All that `diagnose` found; `print` it, or `plot` it.

    Attributes:
        model: name of the model's class.
        samples: number of samples.
        loss: the loss at the trained parameters.
        verdicts: one for each entry of theta.
        information: information matrix of theta, at a stated lam.
        profiles: label -> profile likelihood.
        sharpness: for phi, for phi with the adaptive ball, and for theta.
        spectra: curvature in phi and in theta.
        shares: what network and physics contribute.
        gradients: norms and the angle.
    """

    model: str
    samples: int
    loss: float
    verdicts: list[Verdict]
    information: Information
    profiles: dict[str, Profile]
    sharpness: list[Sharpness]
    spectra: list[Spectrum]
    shares: Shares
    gradients: Gradients

    def __str__(self) -> str:
        return "\n".join(_describe(self))

    def plot(self) -> Sequence[Axes]:
        """One figure, as in `plots.diagnosis`; returns its three axes."""
        from hybridsam_lite import plots

        return plots.diagnosis(self)


def diagnose(
    model: nn.Module,
    data: Data | tuple[Inputs, Tensor],
    *,
    theta: Sequence[str] = (),
    loss: LossFunction = mean_squared_error,
    rho: float = 0.05,
    lam: float | None = None,
    profiles: Sequence[str] | None = None,
    steps: int = 100,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Report:
    """Find out whether theta is determined by this data and model, and why (not).

    An entry of theta counts as determined if both its 95 % interval from the information matrix (at lam)
    and its profile likelihood, where there is one, lie within plus or minus a tenth of its range. This
    says nothing about a bias: theta may be determined and wrong. The model is left as it is.

    Args:
        model: a trained model; any module.
        data: `hs.Data` or an (inputs, target) pair, at least two samples. All entries of the target are
            counted as independent: with overlapping windows or correlated noise intervals are too narrow.
        theta: names of theta in a model written without `hs.Theta`, as in `hs.roles`.
        loss: (prediction, target) -> scalar, sample axis first.
        rho: radius for the sharpness, in units of the weights (phi) and of its range (theta); ten times
            that for the adaptive ball.
        lam: prior precision of phi; see `information` for the default. Give the same to compare models.
        profiles: labels of the entries of theta to profile; by default all. Each costs about
            11 * steps gradients on all data, by far the most of a diagnosis; `[]` leaves them out.
        steps: gradients per grid point of a profile.
        seed: of random starts, probes and draws.
        dtype: precision of the computation, whatever the model's own.

    Returns:
        A `Report`.

    Raises:
        ValueError, TypeError: for a model without theta or phi, unknown names, or data that cannot work.
        FloatingPointError: if the model's loss is not finite.

    Source: derived for this project.

    >>> import hybridsam_lite as hs
    >>> class Line(hs.HybridModel):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.theta = hs.Theta(k=hs.Real(init=1.0, unit="N/m"))
    ...         self.w = torch.nn.Parameter(torch.tensor(2.0))
    ...     def forward(self, x):
    ...         return (self.theta.k + self.w) * x
    >>> x = torch.tensor([1.0, -1.0])
    >>> report = diagnose(Line(), (x, 3 * x + torch.tensor([0.1, 0.1])))
    >>> report.verdicts[0].determined                                         # w x can be k x
    False
    """
    if isinstance(model, nn.Module):
        model = unwrapped(model)  # compiled code has no second derivatives
        check_initialized(model, "diagnose")
    if not isinstance(seed, (int, np.integer)):
        raise TypeError(f"diagnose: seed must be a whole number, got {seed!r:.60}")
    listed = isinstance(profiles, Sequence) and not isinstance(profiles, str)
    if profiles is not None and not (listed and all(isinstance(name, str) for name in profiles)):
        raise TypeError(f"diagnose: profiles must be a list of labels, such as ['k'], got {profiles!r:.60}")
    at = Landscape(model, data, theta=theta, loss=loss, dtype=dtype)
    check_radius(rho)
    for name in profiles or ():
        find(at, name)
    try:
        found = information(at, lam=lam)
    except RuntimeError as error:
        if not any(word in str(error) for word in ("derivative", "backward")):
            raise
        raise RuntimeError(
            f"diagnose: {type(model).__name__} has no second derivatives: {error}; replace or unwrap the part of the "
            "model that is named here"
        ) from error
    labels = [e.label for e, seen in zip(at.entries, found.influence, strict=True) if seen]
    curves = {name: profile(at, name, steps=steps) for name in (labels if profiles is None else profiles)}
    return Report(
        type(model).__name__, len(at.target), at.value,
        [_judge(found, k, curves.get(e.label)) for k, e in enumerate(at.entries)], found, curves,
        [
            sharpness(at, "phi", rho=rho, seed=seed),
            sharpness(at, "phi", rho=10 * rho, adaptive=True, seed=seed),
            sharpness(at, "theta", rho=rho, seed=seed),
        ],
        [spectrum(at, role, seed=seed) for role in ("phi", "theta")],
        shares(at), gradients(at, rho=rho),
    )  # fmt: skip


def _judge(found: Information, k: int, curve: Profile | None) -> Verdict:
    entry = found.entries[k]
    unit = f" {entry.unit}" if entry.unit else ""
    if not found.influence[k]:
        return Verdict(
            entry.label,
            False,
            [f"{entry.label} does not influence the prediction: its derivative is zero up to rounding"],
        )
    width, known = NORMAL * found.sd[k], NORMAL * found.sd_known[k]
    about, about_known = (f"+-{w * entry.range:.2g}{unit} ({100 * w:.2g} % of its range)" for w in (width, known))
    against, pro = [], []
    if known > LIMIT:
        why = f"its effect on the prediction is small against the residual ({found.noise:.2g})"
        why += ", or another theta has the same effect" if len(found.sd) > 1 else ""
        against.append(f"even if the network were known the data would fix it to {about_known} only: {why}")
    elif width > LIMIT:
        against.append(
            f"the network can take over its effect: {100 * found.retained[k]:.2g} % of the information about it is "
            f"left at lam = {found.lam:.2g}, which fixes it to {about} only"
        )
    else:
        pro.append(f"the information at lam = {found.lam:.2g} fixes it to {about}")
    if curve is not None:
        low = f"below {curve.grid[0]:.3g}" if math.isinf(curve.low) else f"{curve.low:.3g}"
        high = f"above {curve.grid[-1]:.3g}" if math.isinf(curve.high) else f"{curve.high:.3g}"
        if curve.half_width > LIMIT:
            against.append(
                f"with the network refitted, values from {low} to {high}{unit} have a loss within {curve.threshold:.2g}"
                + (f"; only keeping the network's weights near the trained ones leaves {about}" if pro else "")
            )
        else:
            pro.append(
                f"even with the network refitted, the loss exceeds {curve.threshold:.2g} outside of "
                f"{low} to {high}{unit}"
            )
    return Verdict(entry.label, not against, against or pro)


def _describe(report: Report) -> list[str]:
    found = report.information
    lines = [
        f"Diagnosis of {report.model} on {report.samples} samples ({found.count} numbers): "
        f"loss {report.loss:.3g}, residual (rms) {found.noise:.3g}",
        "",
    ]
    for verdict in report.verdicts:
        word = "is" if verdict.determined else "is NOT"
        lines.append(f"{verdict.label} {word} determined by this data and model, because")
        lines += [f"  - {reason}{';' if reason is not verdict.reasons[-1] else '.'}" for reason in verdict.reasons]
    lines += [
        f"  (Determined: a 95 % interval within +-{100 * LIMIT:g} % of the range, by each measure. "
        "This says nothing about bias.)",
        "",
        f"Information about theta, lam = {found.lam:.3g} ({found.chosen})",
    ]
    rows = zip(found.entries, found.sd_physical, found.sd, found.retained, strict=True)
    for entry, sd, relative, retained in rows:
        lines.append(
            f"  {entry.label} = {entry.value:.4g} +- {sd:.2g} {entry.unit}".rstrip()
            + f" (1 sd; {100 * relative:.2g} % of its range, {entry.range:.3g}); "
            f"{100 * retained:.2g} % of the information left"
        )
    lines.append(
        f"  guaranteed to be left by the flatness in phi: {100 * found.bound:.2g} % (lam / (lam + lambda_max))"
    )
    if len(found.entries) > 1:
        for value, words in zip(found.eigenvalues.tolist(), found.combinations, strict=True):
            lines.append(f"  {words}: information {value:.2g} per range^2")
    if found.error:
        lines.append(f"  solved by conjugate gradients: too small by at most {found.error:.1g}")
    for label, curve in report.profiles.items():
        unit = f" {curve.entry.unit}" if curve.entry.unit else ""
        lines += [
            "",
            f"Profile of {label}: loss {min(curve.losses):.2g} to {max(curve.losses):.2g} for {label} from "
            f"{curve.grid[0]:.3g} to {curve.grid[-1]:.3g}{unit}; trained {curve.reference:.2g}, "
            f"not ruled out up to {curve.threshold:.2g}",
        ]
    lines += ["", "Sharpness: rise of the loss when parameters are disturbed"]
    for s in report.sharpness:
        ball = "relative to each weight" if s.adaptive else "in units of its range" if s.role == "theta" else "|e|"
        lines.append(
            f"  {s.role}, rho = {s.rho:g} ({ball}): worst {s.gap:.2g} (one step {s.one_step:.2g}), "
            f"Gaussian {s.gaussian:.2g} +- {s.gaussian_error:.1g}"
        )
    lines += ["", "Curvature of the loss"]
    for c in report.spectra:
        lines.append(
            f"  {c.role}{' (in units of its range)' if c.role == 'theta' else ''}: top eigenvalue {c.top:.3g}, "
            f"trace {c.trace:.3g} +- {c.trace_error:.1g} ({c.form} form)"
        )
    g = report.gradients
    lines += [
        "",
        f"Gradients: phi {g.phi:.2g}, theta {g.theta:.2g} (per range); SAM's step of {g.rho:g} turns theta's by "
        f"{g.angle:.3g} degrees",
        "",
        _shares_in_words(report.shares),
    ]
    return lines


def _shares_in_words(found: Shares) -> str:
    if found.network is None:
        return "Shares of network and physics: nested, not defined (the model returns no Prediction.network)"
    text = f"Shares: network {found.network:.3g} (rms)"
    if found.physics is not None:
        text += f", physics {found.physics:.3g} (rms)"
    if found.cosine is not None:
        text += f", cosine between them {found.cosine:.2g}"
    if found.overlap is not None:
        text += f"; {100 * found.overlap:.2g} % of the network's part could be written as a change of theta"
    return text


@torch.no_grad()
def seed_spread(
    runs: Runs,
    val: Data | tuple[Inputs, Tensor] | None = None,
    *,
    ratio: float = 1.1,
    loss: LossFunction = mean_squared_error,
) -> pd.DataFrame:
    """How far theta differs between seeds that fit equally well: the most honest sign of ambiguity.

    Per method label, the members are kept whose validation loss is within one standard error of the best
    one's (the error over the samples of `val`), or, without `val`, within `ratio` of it. Diverged members
    are left out.

    Args:
        runs: what `hs.fit` returned.
        val: the validation data, for the standard error.
        ratio: at least 1, used without `val`.
        loss: as in `hs.fit`; used with `val`.

    Returns:
        A table with one row per label and entry of theta: label, theta, members, kept, best, threshold,
        mean, sd (NaN for fewer than two), low, high.

    Raises:
        ValueError: if `ratio` is below 1, or the runs have no validation loss.

    >>> import hybridsam_lite as hs
    >>> task = hs.tasks.get("pendulum", preset="smoke")
    >>> runs = task.fit(["erm"], seeds=range(3), steps=2, progress=False)
    >>> list(seed_spread(runs, ratio=1e6)["kept"])
    [3]
    """
    import pandas as pd

    if not isinstance(runs, Runs):
        raise TypeError(f"seed_spread: expected the Runs that hs.fit returns, got {runs!r:.60}")
    if not (isinstance(ratio, (int, float)) and ratio >= 1):
        raise ValueError(f"seed_spread: ratio must be at least 1, got {ratio!r:.60}")
    frame = runs.frame
    frame = frame[(frame["status"] != "diverged") & frame["val_loss"].notna()]
    if not len(frame):
        raise ValueError("seed_spread: no member has a validation loss; pass val=... to hs.fit")
    rows = []
    for label, members in frame.groupby("label", sort=False):
        best = members.index.tolist()[int(np.argmin(members["val_loss"]))]
        least = float(members["val_loss"].min())
        limit = least * ratio if val is None else least + _standard_error(runs, best, as_data(val), loss)
        kept = members[members["val_loss"] <= limit]
        for column in (c for c in frame if str(c).startswith("theta.")):
            values = torch.tensor(kept[column].tolist(), dtype=torch.float64)
            names = entry_labels(str(column)[6:], values.shape[1:])
            for name, v in zip(names, values.reshape(len(kept), -1).T, strict=True):
                rows.append(
                    {"label": label, "theta": name, "members": len(members), "kept": len(kept), "best": least,
                     "threshold": limit, "mean": v.mean().item(), "sd": v.std().item() if len(v) > 1 else math.nan,
                     "low": v.min().item(), "high": v.max().item()}
                )  # fmt: skip
    return pd.DataFrame(rows)


def _standard_error(runs: Runs, member: int, val: Data, loss: LossFunction) -> float:
    """Standard error of a member's mean loss over samples."""
    if len(val) < 2:
        raise ValueError("seed_spread: val has 1 sample, expected at least 2 for a standard error; use ratio=...")
    with kept_random_state():
        predicted = as_prediction(runs.model(member)(val.inputs)).value.movedim(runs.sample_axis, 0)
    each = torch.stack([loss(p[None], y[None]) for p, y in zip(predicted, val.target, strict=True)])
    return (each.std() / len(each) ** 0.5).item()
