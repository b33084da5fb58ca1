"""Exercises of chapter 16: the information about theta, and what more data do to it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, number, require, wrong
from hybridsam_lite.exercises.registry import question


@question(
    "ch16.q1",
    "Information about theta",
    """
    `a` holds the derivatives of the `n` predictions by theta, `J` those by the weights. Compute
    $S_\\lambda = \\min_b \\tfrac1n \\|a + J b\\|^2 + \\lambda \\|b\\|^2$: what is left to be seen of a change of theta
    if the network hides what it can, at a price.
    """,
    why="Ridge regression. The other form, $a^\\top (I + J J^\\top/n\\lambda)^{-1} a / n$, gives the same.",
    after="At a large price the network cannot hide anything; at none, all that it can imitate is lost.",
)
def information(a: Tensor, J: Tensor, lam: float) -> float:
    """S, a number; a has the shape (n,), J (n, weights), and lam > 0."""
    n, weights = J.shape
    b = -torch.linalg.solve(J.T @ J / n + lam * torch.eye(weights), J.T @ a / n)
    return float(((a + J @ b) ** 2).mean() + lam * b @ b)


@information.check
def _(ask: Ask) -> None:
    for n, weights in ((12, 3), (5, 9), (30, 1)):
        a, J = ask.normal(n), ask.normal(n, weights)
        for lam in (1e-3, 0.1, 10.0):
            found = number(ask(a, J, lam), "the information")
            b = -torch.linalg.solve(J.T @ J / n + lam * torch.eye(weights), J.T @ a / n)
            right = float(((a + J @ b) ** 2).mean() + lam * b @ b)
            if close(found, right, rtol=1e-5):
                continue
            _slip(found, right, a, J, b, lam)


def _slip(found: float, right: float, a: Tensor, J: Tensor, b: Tensor, lam: float) -> None:
    n = len(a)
    require(found >= 0, "Information cannot be negative.")
    require(not close(found, n * right), "This is n times too large: the square is a mean over the predictions.")
    require(
        not close(found, float(a.square().mean())),
        "This is the information for a network that is known. The network may adapt.",
    )
    require(
        not close(found, float((a + J @ b).square().mean()), rtol=1e-5),
        "The best b is right, but what it costs is missing: the network pays for what it hides.",
    )
    require(
        found > right,
        f"With lam = {lam:g} and {n} predictions your information is smaller than the minimum. Is the price the same "
        "as in the formula? (Mind the 1/n.)",
    )
    wrong(
        f"With lam = {lam:g} and {n} predictions a better b than yours hides more. (Mind the 1/n: is the price the "
        "same as in the formula?)"
    )


@question(
    "ch16.q2",
    "More of the same data",
    """
    The standard deviation of theta is $\\tau / \\sqrt{n S}$. Somebody takes `times` as many data of the same kind, and
    keeps the network's price $\\lambda$ and the noise. By which factor does the standard deviation change? And by
    which, if he lets $\\lambda$ fall as $1/n$ and $S$ is proportional to $\\lambda$?
    """,
    why="$S$ is a mean over predictions. At a fixed $\\lambda$ it stays; where it is proportional to $\\lambda$, the "
    "two effects cancel.",
    after="Where the network can imitate the physics, more of the same data do not help.",
)
def factors(times: float) -> tuple[float, float]:
    """The factor at a fixed lambda, and that with lambda falling as 1/n."""
    return 1 / times**0.5, 1.0


@factors.check
def _(ask: Ask) -> None:
    from hybridsam_lite.exercises.asking import numbers

    for times in (4.0, 9.0, 2.5):
        fixed, falling = numbers(ask(times), "the answer", 2)
        S, noise, n = 0.3, 0.1, 50.0
        before = noise / math.sqrt(n * S)
        require(
            not close(fixed, 1 / times), "The first factor is that of the variance; asked is the standard deviation."
        )
        require(fixed < 1, "The first: with a fixed lambda more data do help.")
        require(
            close(fixed, noise / math.sqrt(times * n * S) / before),
            "The first factor is wrong. Does S, a mean, change with n?",
        )
        require(
            close(falling, noise / math.sqrt(times * n * S / times) / before),
            "The second factor is wrong. What becomes of n S, if S is proportional to lambda?",
        )
