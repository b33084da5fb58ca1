"""What a flat network leaves the data to say about theta: effective information, and its lower bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hybridsam_lite.explorers.explorer import Control, Explorer, Guess, asked, decades
from hybridsam_lite.explorers.views import View, axis, line, number, panel, points, rule, view
from hybridsam_lite.landscape import Landscape
from hybridsam_lite.likelihood import find
from hybridsam_lite.plots.look import COLORS, SPARE

__all__ = ["Spectrum", "example_spectra", "information_bound", "spectrum_of"]

Spectrum = dict[str, list[float]]
LAMS = decades(-4, 2)
GRID = tuple(10.0 ** (-4 + 0.1 * i) for i in range(61))
TINTS = (COLORS["erm"], COLORS["wd"], COLORS["fn"], COLORS["asam"], COLORS["sam"], *SPARE)
MOST = 512  # entries of a prediction: their Jacobian is decomposed as a whole


def spectrum_of(theta: Tensor, phi: Tensor) -> Spectrum:
    """What the information about one theta is made of, from the derivatives of the predictions.

    S_lam = J_t' (I + J_p J_p' / (n lam))^-1 J_t / n is the sum of content / (1 + top / lam) over the directions of
    the predictions in which phi moves them with curvature `top`.

    Args:
        theta: derivative of the n predictions by theta, (n,).
        phi: their derivatives by phi, (n, p).

    Returns:
        "curvature" and "content" of each direction; their content sums up to the information if phi were known.

    >>> spectrum_of(torch.ones(4), torch.full((4, 1), 2.0))
    {'curvature': [4.0], 'content': [1.0]}
    """
    n = len(theta)
    theta, phi = theta.double(), phi.double()
    u, singular, _ = torch.linalg.svd(phi, full_matrices=False)
    inside = u.T @ theta
    left = float((theta - u @ inside).square().sum()) / n  # what phi cannot imitate
    curvature, content = (singular**2 / n).tolist(), (inside**2 / n).tolist()
    total = sum(content) + left
    pairs = [(k, s) for k, s in zip(curvature, content, strict=True) if s > 1e-12 * total]
    pairs += [(0.0, left)] if left > 1e-12 * total else []
    # The bound needs the largest curvature, although theta may not point that way.
    pairs += [(max(curvature), 0.0)] if all(k < max(curvature) for k, _ in pairs) else []
    return {"curvature": [_short(k) for k, _ in pairs], "content": [_short(s) for _, s in pairs]}


def _short(x: float) -> float:
    """Six digits: hundreds of these numbers go into a page."""
    return float(f"{x:.6g}")


def example_spectra(sizes: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1)) -> dict[str, Spectrum]:
    """A tanh network of 16 units beside the physics theta sin 3x, on 32 inputs, with the same weights at several sizes.

    >>> list(example_spectra((1.0, 0.5)))
    ['weights × 1', 'weights × 0.5']
    """
    x = torch.linspace(-1, 1, 32, dtype=torch.float64)
    weights = torch.randn(2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = {}
    for size in sizes:
        inner, outer = size * weights
        hidden = torch.tanh(x[:, None] * inner)
        phi = torch.cat([hidden, outer * (1 - hidden**2) * x[:, None]], 1)
        found[f"weights × {number(size)}"] = spectrum_of(torch.sin(3 * x), phi)
    return found


def information(of: Spectrum, lam: Any) -> tuple[Any, Any]:
    """S_lam and its lower bound, as shares of the information if phi were known."""
    curvature, content = (np.array(of[name]) for name in ("curvature", "content"))
    lam = np.asarray(lam, float)[..., None]
    known = content.sum()
    return (content * (lam / (lam + curvature))).sum(-1) / known, lam[..., 0] / (lam[..., 0] + curvature.max())


def _at_model(at: Landscape, name: str | None) -> Spectrum:
    """The spectrum of a trained model on its data."""
    at.vector("phi"), at.vector("theta")
    count = at.predicted.numel()
    if at.output_shape != at.target.shape or count > MOST:
        raise ValueError(
            f"information_bound: expected predictions of the target's shape with at most {MOST} entries, got "
            f"{tuple(at.output_shape)} for {tuple(at.target.shape)}; give hs.Landscape fewer samples"
        )
    weights = at.loss_curvature(torch.ones_like(at.predicted.reshape(-1)))
    if not torch.allclose(weights, weights.mean().expand_as(weights)):
        raise ValueError("information_bound: expected a loss with equal weights, such as the mean squared error")
    theta = at.theta_columns(lambda prediction: at.aligned(prediction.value))[:, find(at, name)]
    if not theta.any():
        raise ValueError("information_bound: theta does not move the prediction at all")
    return spectrum_of(theta, torch.stack([at.pull("phi", e) for e in torch.eye(count).to(theta)]))


def information_bound(
    models: Mapping[str, Spectrum | Landscape] | None = None, name: str | None = None, *, predict: bool | Guess = False
) -> Explorer:
    """The share of the information about theta that is left when phi may adapt at the price lam, and its bound.

    Args:
        models: label -> `hs.Landscape` of a trained model, or what `spectrum_of` returned, at most seven; by default
            a small tanh network with weights of four sizes.
        name: which theta of a landscape; may be left out if there is only one. Others are taken as known.
        predict: ask for a guess first; see `hs.explorers`.

    Returns:
        An `Explorer`.

    Raises:
        ValueError: if there is nothing to show, or a landscape has too many samples.

    >>> information_bound()
    Explorer(information about theta: At lam = 0.1 this share of the information about theta is left: ...)
    """
    spectra = {
        label: _at_model(one, name) if isinstance(one, Landscape) else one
        for label, one in (example_spectra() if models is None else models).items()
    }
    if not 0 < len(spectra) <= len(TINTS):
        raise ValueError(f"information_bound: expected 1 to {len(TINTS)} models, got {len(spectra)}")
    tints = TINTS if len(spectra) > 1 else (COLORS["hybrid"],)
    courses = {label: information(one, GRID) for label, one in spectra.items()}

    def at(state: dict[str, Any]) -> View:
        lam = state["lam"]
        here = {label: tuple(float(x) for x in information(one, lam)) for label, one in spectra.items()}
        text = f"At lam = {number(lam)} this share of the information about theta is left: "
        text += ", ".join(f"{label}: {number(100 * left)}\u00a0%" for label, (left, _) in here.items()) + "."
        text += " The bound guarantees "
        text += ", ".join(f"{number(100 * bound)}\u00a0%" for _, bound in here.values()) + "."
        marks = []
        for tint, (label, (share, bound)) in zip(tints, courses.items(), strict=False):
            marks.append(line(zip(GRID, bound, strict=True), tint, dash=True, width=1.2))
            marks.append(line(zip(GRID, share, strict=True), tint, label))
            marks.append(points([(lam, here[label][0])], tint, size=7))
        return view(
            text,
            panel(
                axis("lam, the price of moving phi", GRID[0] / 1.5, GRID[-1] * 1.5, log=True),
                axis("share of the information left", 0, 1.03),
                rule(COLORS["data"], x=lam, dash=False),
                line([], COLORS["data"], "lower bound", dash=True),
                *marks,
            ),
        )

    label, one = next(iter(spectra.items()))
    question = Guess(
        f"{label}: at the price lam = 0.1, how many per cent of the information about theta are left? (All of it, if "
        "phi were known.)",
        100 * float(information(one, 0.1)[0]), 0, 100, "%",
    )  # fmt: skip
    rows = pd.DataFrame({"lam": LAMS[::3]})
    for label, one in spectra.items():
        rows[label] = information(one, rows["lam"])[0]
    return Explorer(
        "information about theta",
        "The share of the information about theta that is left against lam, a rising curve for each model, and, "
        "dashed, its lower bound lam / (lam + largest curvature). The flatter the network, the further left its curve.",
        (Control("lam", "price lam", LAMS, 0.1),), at, rows, asked(predict, question),
        "information_bound", {"spectra": list(spectra.items()), "grid": GRID, "tints": list(tints)},
    )  # fmt: skip
