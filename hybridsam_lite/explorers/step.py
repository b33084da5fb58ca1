"""The steps of SAM in a plane: theta, and one weight of the network of toy A."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from hybridsam_lite.explorers.explorer import Control, Explorer, Guess, asked, steps
from hybridsam_lite.explorers.views import View, arrow, axis, line, number, panel, points, rule, signed, view
from hybridsam_lite.plots.look import COLORS
from hybridsam_lite.sam import EPS

__all__ = ["sam_step", "walk"]

WHICH = {"phi": "phi alone", "all": "phi and theta", "norm": "phi, theta in the norm"}  # what hs.SAM does; and not
COUNT = 200  # steps
PHI, LR = 1.2, 0.2  # at the beginning
LEVELS = (0.02, 0.1, 0.3, 0.7, 1.3, 2.2)
DOWN, UP, ASIDE = -2.5, 1.0, 2.1  # of theta below and above c, and of phi to both sides


def ascent(theta: float, phi: float, rho: float, which: str, c: float) -> tuple[float, float]:
    """The disturbance (of theta, of phi) for the loss (theta + phi^2/2 - c)^2 / 2."""
    g_theta, g_phi = gradient(theta, phi, c)
    both = math.sqrt(g_theta * g_theta + g_phi * g_phi)
    if which == "all":
        return rho * g_theta / (both + EPS), rho * g_phi / (both + EPS)
    return 0.0, rho * g_phi / ((abs(g_phi) if which == "phi" else both) + EPS)


def gradient(theta: float, phi: float, c: float) -> tuple[float, float]:
    """Of the loss, by theta and by phi."""
    q = theta + phi * phi / 2 - c
    return q, q * phi


def walk(
    theta: float, phi: float, rho: float, lr: float, which: str = "phi", c: float = 2.0, count: int = COUNT
) -> list[tuple[float, float]]:
    """Gradient descent on the loss at the disturbed point: `count` steps, and the start; (theta, phi) each.

    The loss is that of toy A, y = c x and theta x + u v x with mean x^2 = 1, along its diagonal u = v = phi/sqrt(2).

    Args:
        theta, phi: the start.
        rho: radius; 0 is plain training.
        lr: learning rate of both.
        which: "phi" is disturbed; "all", theta too; "norm": phi, by rho g_phi / |(g_theta, g_phi)|.

    >>> walk(0.5, 1.0, rho=0.0, lr=0.1, count=1)            # q = -1: theta rises by 0.1, phi by 0.1 phi
    [(0.5, 1.0), (0.6, 1.1)]
    """
    path = [(theta, phi)]
    for _ in range(count):
        e_theta, e_phi = ascent(theta, phi, rho, which, c)
        g_theta, g_phi = gradient(theta + e_theta, phi + e_phi, c)
        theta, phi = theta - lr * g_theta, phi - lr * g_phi
        path.append((theta, phi))
    return path


def sam_step(c: float = 2.0, *, rho: float = 0.3, predict: bool | Guess = False) -> Explorer:
    """Follow ascent and descent of SAM, step by step, in the plane of theta and one weight of the network.

    Args:
        c: the slope of the data, and the true theta.
        rho: radius at the beginning, 0 to 0.8 in steps of 0.05.
        predict: ask for a guess first; see `hs.explorers`.

    Returns:
        An `Explorer`.

    Raises:
        ValueError: if a number is out of its range.

    >>> sam_step().controls[0].label
    'disturbed'
    """
    if not math.isfinite(c):
        raise ValueError(f"sam_step: c must be a number, got {c!r}")
    rhos = steps(0, 0.8, 0.05)
    if round(rho, 10) not in rhos:
        raise ValueError(f"sam_step: rho must be one of 0, 0.05, ..., 0.8, got {rho!r}")
    thetas = tuple(round(c + DOWN + 0.1 * i, 10) for i in range(36))
    controls = (
        Control("which", "disturbed", tuple(WHICH), "phi", tuple(WHICH.values()), choice=True),
        Control("rho", "radius rho", rhos, round(rho, 10)),
        Control("lr", "learning rate", steps(0.02, 0.3, 0.02), LR),
        Control("theta", "start of theta", thetas, thetas[9]),
        Control("phi", "start of phi", steps(-1.8, 1.8, 0.1), PHI),
        Control("step", "step", tuple(range(COUNT + 1)), 0, play=True),
    )

    def at(state: dict[str, Any]) -> View:
        start, which, n = (state["theta"], state["phi"]), state["which"], int(state["step"])
        rho, lr = state["rho"], state["lr"]
        path, plain = walk(*start, rho, lr, which, c), walk(*start, 0.0, lr, which, c)
        theta, phi = path[n]
        e_theta, e_phi = ascent(theta, phi, rho, which, c)
        g_theta, g_phi = gradient(theta + e_theta, phi + e_phi, c)
        value, high = _loss(theta, phi, c), _loss(theta + e_theta, phi + e_phi, c)
        text = (
            f"Step {n}: theta = {number(theta)}, phi = {number(phi)}, loss {number(value)}. Ascent: theta "
            f"{signed(e_theta)}, phi {signed(e_phi)}; the loss there is {number(high)}. Descent with the gradient from "
            f"there: theta {signed(-lr * g_theta)}, phi {signed(-lr * g_phi)}. After {COUNT} steps theta is "
            f"{number(path[COUNT][0])}, in plain training {number(plain[COUNT][0])}."
        )
        top, end = (theta + e_theta, phi + e_phi), (theta - lr * g_theta, phi - lr * g_phi)
        return view(text, _plane(path[: n + 1], top, end, c), _course(path, plain, n, c))

    theta = thetas[9]
    answer = walk(theta, PHI, rho, LR, "phi", c)[COUNT][0]
    question = Guess(
        f"SAM starts at theta = {number(theta)}, phi = {number(PHI)} and disturbs phi by rho = {number(rho)}. Where is "
        f"theta after {COUNT} steps with the learning rate {number(LR)}? (The truth is {number(c)}.)",
        answer, c + DOWN, c + UP, panel=1,
    )  # fmt: skip
    ends = {name: walk(theta, PHI, rho, LR, name, c)[COUNT] for name in WHICH}
    ends = {"nothing": walk(theta, PHI, 0.0, LR, "phi", c)[COUNT]} | {WHICH[k]: v for k, v in ends.items()}
    table = pd.DataFrame(
        {
            "disturbed": list(ends),
            f"theta, step {COUNT}": [x for x, _ in ends.values()],
            "phi": [y for _, y in ends.values()],
            "loss": [_loss(x, y, c) for x, y in ends.values()],
        }
    )
    return Explorer(
        "a step of SAM",
        "Left: contours of the loss over theta and phi, the valley of perfect fits, the path, and at its end an arrow "
        "up to the disturbed point and an arrow for the step that is then made. Right: theta against the step, with "
        "SAM and in plain training.",
        controls, at, table, asked(predict, question), "sam_step", {"c": c},
    )  # fmt: skip


def _loss(theta: float, phi: float, c: float) -> float:
    q = theta + phi * phi / 2 - c
    return q * q / 2


def _plane(
    path: list[tuple[float, float]], top: tuple[float, float], end: tuple[float, float], c: float
) -> dict[str, Any]:
    phis = [-ASIDE + 0.1 * i for i in range(43)]
    valley = [(c - y * y / 2, y) for y in phis]
    sides = [[(x + sign * math.sqrt(2 * level), y) for x, y in valley] for level in LEVELS for sign in (-1, 1)]
    return panel(
        axis("theta", c + DOWN, c + UP),
        axis("phi", -ASIDE, ASIDE),
        *(line(side, COLORS["data"], "same loss", width=0.8, opacity=0.6) for side in sides),
        line(valley, COLORS["data"], "valley"),
        line(path, COLORS["hybrid"], "path", width=1.2),
        arrow(path[-1], top, COLORS["sam"], "ascent"),
        arrow(path[-1], end, COLORS["truth"], "descent"),
        points([path[-1]], COLORS["hybrid"], size=7),
    )  # fmt: skip


def _course(path: list[tuple[float, float]], plain: list[tuple[float, float]], n: int, c: float) -> dict[str, Any]:
    return panel(
        axis("step", -4, COUNT + 4),
        axis("theta", c + DOWN, c + UP),
        rule(COLORS["truth"], "truth", y=c),
        line(enumerate(x for x, _ in plain), COLORS["erm"], "plain training", dash=True),
        line(enumerate(x for x, _ in path), COLORS["sam"], "SAM"),
        points([(n, path[n][0])], COLORS["hybrid"], size=7),
    )
