"""Exercises of chapter 14: a network to which flatness is blind, and a drift that gets lost in a small gain."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, number, require, yes
from hybridsam_lite.exercises.registry import question

Network = Callable[[Tensor, Tensor], Tensor]


@question(
    "ch14.q1",
    "Is flatness blind?",
    """
    Flatness has no opinion about a network that is linear in its weights (a constant may be added). Write a test that
    tells, from calls of `network(x, phi)` alone, whether it is. `count` is the number of weights.
    """,
    why="For a linear network $f(\\phi_1 + \\phi_2) - f(\\phi_1) - f(\\phi_2) + f(0)$ is zero. Comparing Jacobians "
    "at two places works too.",
    after="If it is, use another preference, or another network.",
)
def is_blind(network: Network, x: Tensor, count: int) -> bool:
    """True if the network's output on x is linear in its weights, up to a constant."""
    first, second, zero = torch.randn(count), torch.randn(count), torch.zeros(count)
    rest = network(x, first + second) - network(x, first) - network(x, second) + network(x, zero)
    return bool(rest.abs().max() < 1e-6)


@is_blind.check
def _(ask: Ask) -> None:
    x = ask.normal(12)
    cases: list[tuple[str, bool, int, Network]] = [
        ("w x", True, 1, lambda x, w: w[0] * x),
        ("u v x", False, 2, lambda x, w: w[0] * w[1] * x),
        ("a sin x + b cos x", True, 2, lambda x, w: w[0] * torch.sin(x) + w[1] * torch.cos(x)),
        ("a x + b + 1, with a constant", True, 2, lambda x, w: w[0] * x + w[1] + 1.0),
        ("tanh(w x)", False, 1, lambda x, w: torch.tanh(w[0] * x)),
        ("v relu(u x)", False, 2, lambda x, w: w[1] * torch.relu(w[0] * x)),
        ("a x + b², in which only the bias is bent", False, 2, lambda x, w: w[0] * x + w[1] ** 2),
        ("w³ x", False, 1, lambda x, w: w[0] ** 3 * x),
        ("ten fixed features", True, 10, lambda x, w: torch.sin(x[:, None] * torch.arange(1.0, 11.0)) @ w),
    ]
    for what, expected, count, network in cases:
        for _ in range(2):
            found = yes(ask(network, x, count), "the answer")
            require(found or not expected, f"Your test says that {what} is not linear in its weights. It is.")
            require(
                expected or not found,
                f"Your test takes {what} for linear in its weights. Try weights at which the difference shows.",
            )


@question(
    "ch14.q2",
    "Lost in a small gain",
    """
    Theta acts with a gain $\\gamma$: the valley of perfect fits is $\\gamma\\theta + uv = \\mathrm{const}$. SAM pulls
    $(\\theta, u, v)$ by $-(0, u, v)$ times a constant. What is left of the pull is its part along the valley. By which
    factor does the network's share $k = uv$ shrink more slowly than for $\\gamma = 1$?
    """,
    why="The valley's normal is $(\\gamma, v, u)$; projecting gives $\\dot k = -2k\\,\\gamma^2/(\\gamma^2 + u^2 + "
    "v^2)$ in units of the pull.",
    after="`hs.Theta` scales theta by its range for this reason.",
)
def slowdown(gain: float, u: float, v: float) -> float:
    """The speed of k at a gain of 1, over its speed at this gain."""
    size = u**2 + v**2
    return (1 / (1 + size)) / (gain**2 / (gain**2 + size))


@slowdown.check
def _(ask: Ask) -> None:
    def speed(gain: float, u: float, v: float) -> float:
        normal, pull = torch.tensor([gain, v, u]), -torch.tensor([0.0, u, v])
        along = pull - (pull @ normal) / (normal @ normal) * normal
        return float(v * along[1] + u * along[2])

    require(abs(number(ask(1.0, 0.8, 0.5), "the factor") - 1) < 1e-9, "At a gain of 1 the factor should be 1.")
    for gain, u, v in [(0.02, 0.5, 0.5), *zip(*ask.uniform(0.05, 2, 3, 12).tolist(), strict=True)]:
        found, right = number(ask(gain, u, v), "the factor"), speed(1.0, u, v) / speed(gain, u, v)
        require(
            abs(found * right - 1) > 1e-6 or abs(right - 1) < 1e-6,
            "This is the inverse: asked is how many times slower.",
        )
        require(
            abs(found * gain**2 - 1) > 1e-6 or abs(right * gain**2 - 1) < 1e-6,
            "This is right for a loud network only. Does the size of u and v not matter?",
        )
        require(
            abs(found / right - 1) < 1e-6,
            f"For a gain of {gain:.2f}, u = {u:.2f} and v = {v:.2f} the drift, projected on the valley, is slower by "
            "another factor.",
        )
