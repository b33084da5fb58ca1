"""Exercises of chapter 11: another hatch for the same curves, and five labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, require, tensor, wrong
from hybridsam_lite.exercises.registry import question


@question(
    "ch11.q1",
    "Another hatch for the same curves",
    """
    The first layer of a nested network computes $W y + b$ from the physics' curve $y = (0.25 - 0.15\\,\\theta)\\, c$,
    with `c` the same in each gust. Somebody replaces every hatch $\\theta$ by $s\\,\\theta + m$. Return a layer that
    gives the same numbers from the new curves.
    """,
    why="The new curve is $s\\,y$ plus a fixed one. The weights divide by $s$, the bias subtracts what the fixed "
    "curve adds.",
    after="Mirrored, squeezed or shifted: the network does not mind, and the data cannot tell.",
)
def other_layer(W: Tensor, b: Tensor, c: Tensor, s: float, m: float) -> tuple[Tensor, Tensor]:
    """The new W (units, points) and the new b (units,), for s not 0."""
    fixed = (0.25 - 0.15 * m) * c - s * 0.25 * c
    return W / s, b - W @ fixed / s


@other_layer.check
def _(ask: Ask) -> None:
    for trial in range(10):
        W, b, c = ask.normal(4, 6), ask.normal(4), ask.uniform(0, 5, 6)
        s, m = float(ask.uniform(0.2, 2)) * (-1) ** trial, float(ask.uniform(-1, 1))
        new_W, new_b = _layer(ask(W, b, c, s, m))
        hatch = ask.uniform(0, 1, 5)[:, None]
        before = (0.25 - 0.15 * hatch) * c @ W.T + b
        after = (0.25 - 0.15 * (s * hatch + m)) * c @ new_W.T + new_b
        if close(before, after, rtol=1e-5, atol=1e-6):
            continue
        shifted = after - before
        require(not close(new_W, W), "The weights are what they were, though the curves' scale has changed.")
        require(
            not close(new_W, W * s),
            "The weights go the wrong way: if the curves become larger, the weights must become smaller.",
        )
        require(
            not close(shifted, shifted[0].expand(5, 4), rtol=1e-5, atol=1e-6),
            "The units are right up to a number that does not depend on the hatch. That belongs into the bias.",
        )
        wrong(f"With s = {s:.2f} and m = {m:.2f} the units do not get the numbers that they had before.")


def _layer(value: Any) -> tuple[Tensor, Tensor]:
    require(isinstance(value, (tuple, list)) and len(value) == 2, "Return two things: the new W and the new b.")
    return tensor(value[0], "the new W", (4, 6)), tensor(value[1], "the new b", (4,))


@question(
    "ch11.q2",
    "Five labels",
    """
    A model's hatches have the right order (or its mirror image) but no scale. For some gusts, `labelled` holds their
    positions in `estimates`, and `truths` their true hatches. Correct all estimates by the straight line that fits the
    labelled ones best, in the sense of least squares.
    """,
    why="Two numbers are fitted. A mirrored encoder gets a negative slope, and nothing special has to be done.",
    after="Five measured hatches have turned an inferred number into a measured one.",
)
def calibrate(estimates: Tensor, labelled: Tensor, truths: Tensor) -> Tensor:
    """The corrected estimates, of the same shape."""
    X = torch.stack([estimates[labelled], torch.ones(len(labelled))], 1)
    slope, offset = torch.linalg.lstsq(X, truths[:, None]).solution[:, 0]
    return slope * estimates + offset


@calibrate.check
def _(ask: Ask) -> None:
    for slope, offset, noise in ((0.3, 0.6, 0.0), (-0.5, 0.9, 0.0), (0.7, 0.1, 0.05), (-2.0, 0.4, 0.1)):
        truth = ask.uniform(0, 1, 40)
        estimates, labelled = slope * truth + offset, torch.tensor([3, 8, 21, 30, 39])
        truths = truth[labelled] + noise * ask.normal(5)
        found = tensor(ask(estimates, labelled, truths), "the result", (40,))
        require(not close(found, estimates), "The estimates have not been changed.")
        if noise == 0:
            require(
                close(found[labelled], truths, rtol=1e-4, atol=1e-4)
                or not close(found - truth, (found - truth)[0].expand(40), atol=1e-4),
                "Slopes are right, but all corrected hatches are off by one and the same number.",
            )
            require(
                close(found, truth, rtol=1e-4, atol=1e-4),
                "These estimates are an exact straight line of the truth, "
                + ("falling, as in a mirrored encoder" if slope < 0 else "rising")
                + ", and after the correction they are still wrong.",
            )
        middle, at = estimates - estimates.mean(), found - found.mean()
        require(
            close(at * (middle @ middle), middle * (middle @ at), atol=1e-6),
            "The corrected estimates are no straight line of the estimates. (Do not replace or clip single ones.)",
        )
        residual, x = found[labelled] - truths, estimates[labelled]
        require(
            abs(residual.mean()) < 1e-6 and abs(residual @ x) < 1e-5,
            "With noise in the labels, another straight line has a smaller sum of squares at the labelled gusts.",
        )
