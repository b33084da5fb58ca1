"""Exercises of chapter 3: the flattest way to write a function, and how small rho must be."""

from __future__ import annotations

from hybridsam_lite.exercises.asking import Ask, close, number, numbers, require
from hybridsam_lite.exercises.registry import question


@question(
    "ch03.q1",
    "The flattest way to write a function",
    """
    A unit $v\\,\\mathrm{relu}(u x)$ with $u > 0$ gives the same function as one with $u' = s u$, $v' = v/s$. Return
    the flattest of them, that with the smallest $u'^2 + v'^2$.
    """,
    why="$u'v' = uv$ is fixed, and a sum of two squares with a fixed product is least when they are equal.",
    after="Balanced weights: their trace is 2|uv|, a norm without squares.",
)
def flattest(u: float, v: float) -> tuple[float, float]:
    """The new u > 0 and the new v."""
    k = abs(u * v) ** 0.5
    return k, k if v > 0 else -k


@flattest.check
def _(ask: Ask) -> None:
    for u, v in zip(ask.uniform(0.1, 3, 20).tolist(), ask.uniform(-3, 3, 20).tolist(), strict=True):
        new_u, new_v = numbers(ask(u, v), "the answer", 2)
        require(new_u > 0, "The new u is not positive, so that the unit is active on the other side: another function.")
        require(close(new_u * new_v, u * v), _product(new_u, new_v, u, v))
        least = min((s * new_u) ** 2 + (new_v / s) ** 2 for s in (0.97, 0.999, 1.001, 1.03))
        require(
            new_u**2 + new_v**2 <= least,
            f"From u = {u:.2f}, v = {v:.2f} you get the right function, but another rescaling is flatter still.",
        )


def _product(new_u: float, new_v: float, u: float, v: float) -> str:
    if close(new_u * new_v, abs(u * v)):
        return "For a negative v the new unit has the wrong sign."
    return f"From u = {u:.2f}, v = {v:.2f} you get another function: the product of the weights has changed."


@question(
    "ch03.q2",
    "How small must rho be?",
    """
    With an aligned network and a rest that has the correlation $\\kappa$ with the physics, SAM leaves in theta a bias
    of $\\kappa\\rho^2/(1 - \\kappa^2)$. Up to which `rho` does it stay below `bias`?
    """,
    why="Solve for $\\rho$. For $\\kappa = 0$ nothing limits it; the function is asked for $\\kappa > 0$ only.",
    after="The bias vanishes with the square of rho; the time that SAM needs grows with its inverse square.",
)
def largest_rho(kappa: float, bias: float) -> float:
    """The largest radius, for 0 < kappa < 1 and bias > 0."""
    return (bias * (1 - kappa**2) / kappa) ** 0.5


@largest_rho.check
def _(ask: Ask) -> None:
    for kappa, bias in zip(ask.uniform(0.1, 0.9, 20).tolist(), ask.uniform(0.01, 0.2, 20).tolist(), strict=True):
        rho = number(ask(kappa, bias), "the radius")
        require(rho > 0, f"A radius is positive; for kappa = {kappa:.2f} and bias = {bias:.2f} yours is {rho:.3g}.")
        there = kappa * rho**2 / (1 - kappa**2)
        require(not close(kappa * rho / (1 - kappa**2), bias), "This is the square of the radius.")
        require(there < bias * (1 + 1e-6), f"At your radius for kappa = {kappa:.2f} the bias is larger than asked for.")
        require(there > bias * (1 - 1e-6), f"For kappa = {kappa:.2f} a larger radius than yours would still do.")
