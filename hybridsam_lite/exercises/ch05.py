"""Exercises of chapter 5: the worst point of an ellipsoid, and a test for optimizers of others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, dict_of, require, yes
from hybridsam_lite.exercises.registry import question

Tensors = dict[str, Tensor]


@question(
    "ch05.q1",
    "A radius for each group",
    """
    Each group of parameters has a radius of its own, and the ball is the ellipsoid
    $\\sum_b \\|\\varepsilon_b\\|^2/\\rho_b^2 \\le 1$. Return the disturbance by which the loss rises most, to first
    order. A radius may be zero: that group is not disturbed.
    """,
    why="Substitute $\\varepsilon_b = \\rho_b s_b$: the gradients that count are $\\rho_b g_b$, also in the norm.",
    after="A group whose radius is zero has left the norm as well, with nothing else to remember.",
)
def worst_in_ellipsoid(g: Tensors, radius: dict[str, float]) -> Tensors:
    """The disturbance of each group; g and radius have the same names."""
    s = {n: radius[n] * g[n] for n in g}
    norm = torch.stack([x.norm() for x in s.values()]).norm() + 1e-12
    return {n: radius[n] * s[n] / norm for n in g}


@worst_in_ellipsoid.check
def _(ask: Ask) -> None:
    for trial in range(8):
        g = {"theta": ask.normal(2), "w": ask.normal(2, 3), "b": ask.normal(2)}
        radius = dict(zip(g, ask.uniform(0.1, 2, 3).tolist(), strict=True))
        if trial % 2:
            radius["theta"] = 0.0
        e = dict_of(ask(g, radius), "the disturbance", g)
        moving = [n for n in g if radius[n] > 0]
        still = [n for n in g if n not in moving]
        require(all(not e[n].any() for n in still), "A group of radius zero is disturbed.")
        size = float(sum((e[n] ** 2).sum() / radius[n] ** 2 for n in moving)) ** 0.5
        require(size > 0, "Nothing is disturbed.")
        if still and size < 1 - 1e-6:
            require(
                False,
                "When theta's radius is zero, the others do not use the whole ellipsoid. Does theta's gradient still "
                "count in the norm?",
            )
        require(
            not all(close(e[n].norm(), radius[n]) for n in moving),
            "Each group moves by its full radius. That is a product of balls; the ellipsoid is one budget for all.",
        )
        require(
            close(size, 1.0, rtol=1e-5),
            f"The disturbance is {'outside of' if size > 1 else 'inside'} the ellipsoid, not on its rim.",
        )
        rise = float(sum((g[n] * e[n]).sum() for n in g))
        best = float(sum(radius[n] ** 2 * (g[n] ** 2).sum() for n in g)) ** 0.5
        require(rise > 0, "The loss falls along this disturbance.")
        require(
            close(rise, best, rtol=1e-5),
            "It lies on the rim of the ellipsoid, but another point of the rim raises the loss more.",
        )


@question(
    "ch05.q2",
    "Is theta in the norm?",
    """
    A colleague hands you the first half of a SAM optimizer, `disturb(g)`: it takes the gradients, a dict with the
    names `theta` and `w`, and returns how far `w` is moved. Write a test that tells whether theta's gradient has an
    influence on it.
    """,
    why="Multiply theta's gradient by a thousand. If `w` moves differently, theta is in the norm.",
    after="Three lines, and they would have saved many a run.",
)
def theta_in_norm(disturb: Callable[[Tensors], Tensor]) -> bool:
    """True if theta's gradient changes the move of w."""
    g = {"theta": torch.tensor([1.0]), "w": torch.tensor([3.0, -4.0])}
    much = {**g, "theta": 1000 * g["theta"]}
    return not torch.allclose(disturb(g), disturb(much))


@theta_in_norm.check
def _(ask: Ask) -> None:
    def length(*parts: Tensor) -> Tensor:
        return torch.sqrt(sum((x.double() ** 2).sum() for x in parts)) + 1e-12  # type: ignore[arg-type]

    cases: list[tuple[str, bool, Callable[[Tensors], Tensor]]] = [
        ("SAM on phi alone", False, lambda g: 0.05 * g["w"] / length(g["w"])),
        ("an optimizer with one norm over all gradients", True, lambda g: 0.05 * g["w"] / length(g["w"], g["theta"])),
        ("SAM on phi alone with a large radius", False, lambda g: 7.0 * g["w"] / length(g["w"])),
        ("SAM without normalization", False, lambda g: 0.05 * g["w"]),
        ("SAM on phi alone, by signs", False, lambda g: 0.05 * g["w"].sign()),
        ("one norm over all, with a small radius", True, lambda g: 1e-3 * g["w"] / length(g["w"], g["theta"])),
        (
            "the largest gradient as norm",
            True,
            lambda g: 0.05 * g["w"] / torch.cat([g["w"].flatten(), g["theta"].flatten()]).abs().max(),
        ),
    ]
    for what, expected, disturb in cases:
        found = yes(ask(disturb), "the answer")
        require(
            found or not expected,
            f"Your test does not notice theta in {what}. What do you have to change between two calls to see it?",
        )
        require(expected or not found, f"Your test says that theta is in the norm of {what}. It is not.")
