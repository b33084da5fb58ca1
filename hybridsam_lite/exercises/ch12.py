"""Exercises of chapter 12: the angle between colours, and how grey a colour has become."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, number, require
from hybridsam_lite.exercises.registry import question


@question(
    "ch12.q1",
    "The angle between two colours",
    """
    An image determines the direction of a colour, not its brightness. Return the angle between two colours, in
    degrees. Be prepared for rounding: it may never be `nan`.
    """,
    why="In floating point the cosine of two equal colours may be a little above 1, and the arc cosine of that is "
    "`nan`.",
    after="Brightness does not count, and rounding does no harm.",
)
def angle_between(a: Tensor, b: Tensor) -> float:
    """Degrees between two colours of shape (3,)."""
    cosine = (a @ b) / (a.norm() * b.norm())
    return float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))


@angle_between.check
def _(ask: Ask) -> None:
    for _ in range(200):
        a = ask.uniform(0.01, 1, 3)
        scale = float(ask.uniform(0.1, 9))
        try:
            same = number(ask(a, scale * a), "the angle")
        except Exception as error:
            if "nan" in str(error):
                require(
                    False,
                    "Two colours of one direction give nan. What is the largest cosine that rounding can produce?",
                )
            raise
        require(abs(same) < 1e-4, f"A colour and {scale:.1f} times the same colour should have no angle between them.")
    red, green, yellow = torch.eye(3)[0], torch.eye(3)[1], torch.tensor([1.0, 1.0, 0.0])
    right = number(ask(red, green), "the angle")
    require(not close(right, math.pi / 2, rtol=1e-3), "This is the angle in radians.")
    require(not close(right, 0, atol=1e-6), "This looks like the cosine, and not yet like the angle.")
    require(close(right, 90.0, rtol=1e-4), "Pure red and pure green should be 90 degrees apart.")
    require(
        close(number(ask(red, yellow), "the angle"), 45.0, rtol=1e-4),
        "Red and yellow, (1, 1, 0), should be 45 degrees apart.",
    )
    for _ in range(10):
        a, b = ask.uniform(0.01, 1, 3), ask.uniform(0.01, 1, 3)
        require(close(ask(a, b), ask(b, a), rtol=1e-5), "The angle depends on the order of the two colours.")
        cosine = math.cos(math.radians(number(ask(a, b), "the angle")))
        require(
            close(cosine * a.norm() * b.norm(), a @ b, rtol=1e-4),
            "For some colours the cosine of your angle is not their scalar product over their lengths.",
        )


@question(
    "ch12.q2",
    "How grey is it?",
    """
    An estimate that lies between the true colour and grey is $(1 - s)\\,\\theta^* + s\\,\\bar\\theta\\,(1, 1, 1)$,
    with $\\bar\\theta$ the mean of $\\theta^*$. At which share $s$ of grey is it `degrees` away from the true colour?
    """,
    why="The angle grows with $s$, so bisection finds it. A formula by the law of sines is right too.",
    after="On the test colours of the chapter, plain training is well over half of the way to grey.",
)
def share_of_grey(color: Tensor, degrees: float) -> float:
    """The share s between 0 and 1, for an angle that grey has at least."""
    low, high = 0.0, 1.0
    for _ in range(60):
        s = (low + high) / 2
        mixed = (1 - s) * color + s * color.mean()
        cosine = (mixed @ color) / (mixed.norm() * color.norm())
        too_far = torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))) > degrees
        low, high = (low, s) if too_far else (s, high)
    return low


@share_of_grey.check
def _(ask: Ask) -> None:
    def degrees(a: Tensor, b: Tensor) -> float:
        return float(torch.rad2deg(torch.arccos(((a @ b) / (a.norm() * b.norm())).clamp(-1, 1))))

    for _ in range(20):
        color, share = ask.uniform(0.05, 1, 3), float(ask.uniform(0.1, 0.9))
        target = degrees((1 - share) * color + share * color.mean(), color)
        if target < 1:
            continue
        s = number(ask(color, target), "the share")
        require(-1e-6 <= s <= 1 + 1e-6, f"A share lies between 0 and 1; yours is {s:.3g}.")
        found = degrees((1 - s) * color + s * color.mean(), color)
        require(
            not close(found, degrees(share * color + (1 - share) * color.mean(), color), rtol=1e-3)
            or close(found, target, rtol=1e-3),
            "This seems to be the share of the colour, not of grey.",
        )
        require(
            close(found, target, rtol=1e-3),
            f"At your share the mixture is {found:.1f} degrees from the colour; asked were {target:.1f}.",
        )
