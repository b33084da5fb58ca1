"""Exercises of chapter 7: the smallest network, and a ratio that hides a preference."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, number, require, wrong
from hybridsam_lite.exercises.registry import question


@question(
    "ch07.q1",
    "What the smallest network thinks of gravity",
    """
    The states `q`, `p` of a damped pendulum are known, with its acceleration $-\\omega^2 \\sin q - \\alpha p$. For
    each $\\theta$ a network can make up for the rest. Which $\\theta$ needs the network with the smallest mean square
    over these states?
    """,
    why="It is the least-squares fit of gravity to the acceleration. Friction is not orthogonal to gravity, and what "
    "they share goes to gravity.",
    after="It is not omega squared: the smallest network is not the true one.",
)
def smallest_network(q: Tensor, p: Tensor, omega2: float, alpha: float) -> float:
    """The theta of the smallest network."""
    acceleration = -omega2 * torch.sin(q) - alpha * p
    return float(-(acceleration @ torch.sin(q)) / (torch.sin(q) @ torch.sin(q)))


@smallest_network.check
def _(ask: Ask) -> None:
    for _ in range(10):
        q, p = ask.normal(30), ask.normal(30)
        p = p + 0.5 * q
        omega2, alpha = ask.uniform(0.2, 2, 2).tolist()
        found = number(ask(q, p, omega2, alpha), "theta")

        def size(theta: float, q: Tensor = q, p: Tensor = p, omega2: float = omega2, alpha: float = alpha) -> float:
            return float(((theta - omega2) * torch.sin(q) - alpha * p).square().mean())

        if size(found) <= min(size(found + d) for d in (-1e-3, 1e-3)):
            continue
        require(
            not close(found, omega2),
            "This is the truth. Does the network that belongs to it have the smallest mean square?",
        )
        require(
            (found < omega2) == (size(omega2 - 1e-3) < size(omega2 + 1e-3)),
            "Theta is on the wrong side of omega2. Look at the sign of what friction and gravity have in common.",
        )
        wrong(
            "Another theta needs a smaller network. Write the network's output as a function of theta, and minimize "
            "its mean square."
        )


@question(
    "ch07.q2",
    "Bribed by a learning rate",
    """
    For the linear network, plain training ends at $\\theta_\\infty = (\\theta_0 + R\\,\\omega^2)/(1 + R)$. Which is
    the smallest ratio `R` that brings theta to within `tolerance` of the truth?
    """,
    why="In the limit of a large $R$ the network does not move, and gravity explains what it can. That is a "
    "preference too, hidden in a setting.",
    after="Nobody who does not know omega2 can compute this ratio.",
)
def ratio_needed(theta0: float, omega2: float, tolerance: float) -> float:
    """The smallest R >= 0."""
    return max(0.0, abs(theta0 - omega2) / tolerance - 1)


@ratio_needed.check
def _(ask: Ask) -> None:
    omega2 = 1.0966
    for theta0, tolerance in ((3.0, 0.01), (0.2, 0.05), (1.1, 0.1), *ask.uniform(0.05, 2, 10, 2).tolist()):
        R = number(ask(theta0, omega2, tolerance), "the ratio")
        require(
            R >= 0,
            f"From theta0 = {theta0:.2f} your ratio is negative. Is one needed at all, if the start is good enough? "
            "And what if it is below the truth?",
        )

        def miss(R: float, theta0: float = theta0) -> float:
            return abs((theta0 + R * omega2) / (1 + R) - omega2)

        require(
            miss(R) <= tolerance * (1 + 1e-6),
            f"From theta0 = {theta0:.2f} your ratio leaves an error above {tolerance:.2g}.",
        )
        require(
            R == 0 or miss(0.99 * R) > tolerance * (1 - 1e-6),
            f"From theta0 = {theta0:.2f} a smaller ratio than yours would do.",
        )
