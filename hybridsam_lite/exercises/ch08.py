"""Exercises of chapter 8: what a missing term does to theta, and how hard one may swing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, number, require, tensor, wrong
from hybridsam_lite.exercises.registry import question

Force = Callable[[Tensor, Tensor], Tensor]


@question(
    "ch08.q1",
    "The price of a candidate",
    """
    You own variant C1, $\\dot v = -\\alpha x - \\beta x^3 + f_\\mathrm{nn}$, and fear that `missing(x, v)` acts on the
    mass as well. If it does: by how much does the smallest network move $(\\alpha, \\beta)$ away from the truth, on the
    observed states `x`, `v`?
    """,
    why="On this chapter's trajectories a missing $-x^5$ moves $\\alpha$ by $-2.4$ and $\\beta$ by $+3.7$. The drag "
    "of air $-v|v|$, dry friction $-\\operatorname{sign} v$ and a spring $-x^2$ move neither by more than 0.14: both "
    "frictions change sign with $v$, and $x^2$ is even where line and cubic are odd.",
    after="A candidate with a high price is one that no razor can save you from.",
)
def price(x: Tensor, v: Tensor, missing: Force) -> Tensor:
    """By what alpha and beta are off, two numbers; x and v have the shape (n,), missing(x, v) too."""
    known = torch.stack([-x, -(x**3)], 1)
    return torch.linalg.lstsq(known, missing(x, v)[:, None]).solution[:, 0]


@price.check
def _(ask: Ask) -> None:
    candidates: list[tuple[str, Force]] = [
        ("a spring -0.3 x", lambda x, v: -0.3 * x),
        ("a spring -0.5 x³", lambda x, v: -0.5 * x**3),
        ("a spring -x⁵", lambda x, v: -(x**5)),
        ("a spring -x²", lambda x, v: -(x**2)),
        ("the drag of air -v |v|", lambda x, v: -v * v.abs()),
        ("dry friction -sign v", lambda x, v: -v.sign()),
    ]
    for count, (what, missing) in enumerate(candidates * 2):
        time, amplitude = torch.linspace(0, 5 + count, 80), float(ask.uniform(0.7, 1.6))
        swing = amplitude * torch.exp(-0.05 * time)
        x, v = swing * torch.cos(1.3 * time), -1.3 * swing * torch.sin(1.3 * time)
        found = tensor(ask(x, v, missing), "the answer", (2,))
        if not close(found, _reference(x, v, missing), rtol=1e-4, atol=1e-6):
            _slip(ask, found, x, v, missing, what)


def _reference(x: Tensor, v: Tensor, missing: Force) -> Tensor:
    known = torch.stack([-x, -(x**3)], 1)
    return torch.linalg.solve(known.T @ known, known.T @ missing(x, v))


def _slip(ask: Ask, found: Tensor, x: Tensor, v: Tensor, missing: Force, what: str) -> None:
    right, lacks = _reference(x, v, missing), missing(x, v)
    known = torch.stack([-x, -(x**3)], 1)
    require(
        not close(found, -right, rtol=1e-4, atol=1e-6),
        f"If {what} is missing, your answer is right but for its sign. With which sign does physics have its springs?",
    )
    require(not close(found, right.flip(0), rtol=1e-4), "Asked are alpha and beta, in this order.")
    twice = tensor(ask(x.repeat(2), v.repeat(2), missing), "the answer", (2,))
    require(
        close(twice, found, rtol=1e-4, atol=1e-6),
        "When the same states are listed twice, your answer changes. The smallest network does not.",
    )
    alone = known.T @ lacks / known.square().sum(0)
    require(
        not close(found.abs(), alone.abs(), rtol=1e-4, atol=1e-6),
        "This is what each spring would take if it were the only one. They share: line and cubic look alike.",
    )
    left, best = (float((lacks - known @ by).square().mean()) for by in (found, right))
    wrong(
        f"If {what} is missing, your answer leaves the network a mean square of {left:.3f}. Another one leaves "
        f"{best:.3f}."
    )


@question(
    "ch08.q2",
    "Swing gently",
    """
    Variant C2, without friction: the cubic spring is left to the network, and the mass swings as $x = A\\cos t$. Which
    is the largest amplitude $A$ at which the smallest network leaves an $\\hat\\alpha$ that is off by at most
    `share` times $\\alpha$? `beta` may be negative: a spring that softens.
    """,
    why="The bias is $\\tfrac34\\beta A^2$. For $\\alpha = \\beta = 1$ and 5 % that is $A < 0.26$ m. The signal gets "
    "small too: noise of 0.01 m, one part in 200 at 2 m, is then one in 26.",
    after="Bias falls with the square of the amplitude, the signal with the amplitude itself.",
)
def gentle(alpha: float, beta: float, share: float) -> float:
    """The largest amplitude, in metres; alpha > 0, beta is not zero."""
    return float((share * alpha / (0.75 * abs(beta))) ** 0.5)


@gentle.check
def _(ask: Ask) -> None:
    cases = [(1.0, 1.0, 0.05), (1.0, 1.0, 0.2), *ask.uniform(0.2, 3, 6, 3).tolist()]
    for alpha, beta, share in [*cases, (1.0, -0.1, 0.05), (2.0, -0.7, 0.1)]:
        softens = " for a spring that softens" if beta < 0 else ""
        A = number(ask(alpha, beta, share), f"the amplitude{softens}")
        require(A > 0, f"The amplitude{softens} should be positive, got {A:.3g}.")
        _judge_amplitude(A, alpha, beta, share)


def _judge_amplitude(A: float, alpha: float, beta: float, share: float) -> None:
    x = torch.cos(torch.linspace(0, 2 * torch.pi, 201)[:-1])  # one swing, on which the cubic is projected
    off = abs(beta / alpha) * float((x**4).mean() / (x**2).mean())  # as a share of alpha, at an amplitude of one
    case, right = f"For alpha = {alpha:.2g}, beta = {beta:.2g}", (share / off) ** 0.5
    if close(A, right, rtol=2e-3):  # a scan will do
        return
    require(not close(A, right**2, rtol=1e-4), "Right for the square of the amplitude. Asked is the amplitude.")
    require(
        not close(A, right / 2 * 3**0.5, rtol=1e-4) and not close(A, right / 2 * 6**0.5, rtol=1e-4),
        "The power is right, the number is not. What are the means of x² and x⁴ over a swing?",
    )
    require(
        not close(A, right / alpha**0.5, rtol=1e-4) or close(alpha, 1),
        "The error may be a share of alpha. Yours is that share of one.",
    )
    require(
        right > A,
        f"{case} your amplitude leaves alpha off by {off * A**2:.2%} of itself, more than the {share:.2%} allowed.",
    )
    wrong(f"{case} and a share of {share:.2%} one may swing harder: your amplitude leaves {off * A**2:.2%}.")
