"""Exercises of chapter 2: the line of solutions, and what a change of unit does to training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, number, require, tensor, wrong
from hybridsam_lite.exercises.registry import question


@question(
    "ch02.q1",
    "Walk along the line of solutions",
    """
    The network is linear, its predictions are $\\theta a + \\Psi\\phi$, and it can imitate the physics: $a =
    \\Psi\\alpha$. Somebody gives you a fit `theta`, `phi`. Return another one, with `theta + delta`, that makes the
    same predictions.
    """,
    why="Whatever the physics gains, $\\delta a = \\delta\\,\\Psi\\alpha$, the network gives up.",
    after="This works for each delta: the fits form a line.",
)
def another_fit(theta: float, phi: Tensor, alpha: Tensor, delta: float) -> tuple[float, Tensor]:
    """The new theta and the new phi."""
    return theta + delta, phi - delta * alpha


@another_fit.check
def _(ask: Ask) -> None:
    for _ in range(10):
        psi, alpha, phi = ask.normal(12, 4), ask.normal(4), ask.normal(4)
        (theta, delta), a = ask.normal(2).tolist(), psi @ alpha
        new_theta, new_phi = _pair(ask(theta, phi, alpha, delta))
        require(close(new_theta, theta + delta), "The new theta is not `theta + delta`.")
        moved = new_theta * a + psi @ new_phi - (theta * a + psi @ phi)
        if close(moved, torch.zeros(12), atol=1e-6):
            continue
        require(not close(new_phi, phi), "The physics has moved and the network has not: the predictions change.")
        require(
            not close(moved, 2 * delta * a), "The network goes the same way as the physics. It should make up for it."
        )
        require(
            not close(new_phi, phi - delta),
            "Each weight was moved by the same amount. Is that how the network imitates the physics?",
        )
        wrong(
            "The new fit does not make the same predictions. What must be added to the network if `delta * a` is "
            "added to the physics?"
        )


def _pair(value: Any) -> tuple[float, Tensor]:
    require(isinstance(value, (tuple, list)) and len(value) == 2, "Return two things: the new theta and the new phi.")
    return number(value[0], "the new theta"), tensor(value[1], "the new phi", (4,))


@question(
    "ch02.q2",
    "A colleague prefers other units",
    """
    You train with a ratio `R` of learning rates, $R = \\eta_\\theta/\\eta$. A colleague measures `theta` in another
    unit: her numbers are `factor` times as large as yours, and her $a$ is `factor` times smaller. She keeps your
    learning rates. Which ratio of *yours* does her training correspond to?
    """,
    why="""
    Her gradient for $\\theta$ is `factor` times smaller, and a step of hers is worth `factor` times less in your unit.
    A unit of measurement has changed the result of a training. `hs.Theta` takes steps in units of each parameter's
    range for this reason.
    """,
    after="A unit of measurement has changed the result of a training.",
)
def equivalent_ratio(R: float, factor: float) -> float:
    """Your ratio that gives the same theta, in your unit, as hers."""
    return R / factor**2


@equivalent_ratio.check
def _(ask: Ask) -> None:
    psi, alpha, y = ask.normal(15, 3), ask.normal(3), ask.normal(15)
    for R, factor in ((1.0, 3.0), (0.5, 0.7), (2.0, 2.0)):
        found = number(ask(R, factor), "the ratio")
        require(found > 0, "A ratio of learning rates is positive.")
        hers = _descend(psi, alpha / factor, y, factor * 0.4, R) / factor
        mine = _descend(psi, alpha, y, 0.4, found)
        if close(hers, mine, rtol=1e-3, atol=1e-3):
            continue
        require(
            not close(found, R), "If nothing changed, theta would end at the same value in both units. It does not."
        )
        require(
            not close(found, R / factor) and not close(found, R * factor),
            "One power of the factor is not enough. Her gradient is different, and so is what one of her steps is "
            "worth in your unit.",
        )
        require(not close(found, R * factor**2), "The other way round: does her theta move more than yours, or less?")
        wrong(f"With factor = {factor:g} and R = {R:g}, plain training with your ratio does not end where hers does.")


def _descend(psi: Tensor, alpha: Tensor, y: Tensor, theta: float, R: float) -> float:
    """Where gradient descent ends: equation (eat-start)."""
    phi_star = torch.linalg.lstsq(psi, y[:, None]).solution[:, 0]
    return float((theta + R * alpha @ phi_star) / (1 + R * alpha @ alpha))
