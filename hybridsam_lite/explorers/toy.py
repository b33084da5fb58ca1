"""Walk along the valley of perfect fits of toy A: y = c x, model theta x + u v x."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from hybridsam_lite.explorers.explorer import Control, Explorer, Guess, asked, steps
from hybridsam_lite.explorers.views import View, arrow, axis, line, number, panel, points, rule, view
from hybridsam_lite.plots.look import COLORS

__all__ = ["valley", "worst"]

Array = Any
REACH = 2.0  # how far theta goes to both sides of c
EDGE = 3.1  # of the panel of u and v
RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.7, 2.0)
ROUND = 64  # corners of a circle
HALVINGS = 60


def worst(u: Array, v: Array, rho: Array, m: float = 1.0, q: Array = 0.0) -> tuple[Array, Array, Array]:
    """The largest loss m q^2 / 2 within rho of the weights (u, v) of toy A, where q = theta + u v - c; exact.

    Args:
        u, v, rho, q: numbers or arrays of one shape.
        m: mean of x^2.

    Returns:
        (the loss, and the change of u and of v that leads there).

    Source: derived for this project. With p = (u + v)/sqrt(2) and d = (u - v)/sqrt(2), u v = (p^2 - d^2)/2 changes
    most on the rim, at a change (a, b) of (p, d) with a = p/(mu - 1), b = -d/(mu + 1); mu >= 1 by bisection.

    >>> loss, du, dv = worst(0.0, 0.0, 0.5)
    >>> bool(np.isclose(loss, 0.5**4 / 8))
    True
    """
    p, d = (u + v) / math.sqrt(2), (u - v) / math.sqrt(2)
    up, a_up, b_up = _largest(p, d, rho)
    down, b_down, a_down = _largest(d, p, rho)  # the largest fall is the largest rise with p and d exchanged
    rises = np.abs(q + up) >= np.abs(q - down)
    loss = m * np.where(rises, q + up, q - down) ** 2 / 2
    a: Array = np.where(rises, a_up, a_down)
    b: Array = np.where(rises, b_up, b_down)
    return loss, (a + b) / math.sqrt(2), (a - b) / math.sqrt(2)


def _largest(p: Array, d: Array, rho: Array) -> tuple[Array, Array, Array]:
    """Largest p a - d b + (a^2 - b^2)/2 over a^2 + b^2 <= rho^2, and its (a, b)."""
    p, d, rho = (np.asarray(x, float) for x in np.broadcast_arrays(p, d, rho))
    low = np.zeros_like(p)
    high = np.sqrt(p * p + d * d) / np.maximum(rho, 1e-12) + 1e-12
    for _ in range(HALVINGS):  # mu - 1: the rim is met where the step has length rho
        t = (low + high) / 2
        long = (p / t) ** 2 + (d / (2 + t)) ** 2 > rho * rho
        low, high = np.where(long, t, low), np.where(long, high, t)
    b = -d / (2 + high)
    a = np.where(p >= 0, 1.0, -1.0) * np.sqrt(np.maximum(0.0, rho * rho - b * b))
    return p * a - d * b + (a * a - b * b) / 2, a, b


def fit(theta: Array, ratio: float, c: float) -> tuple[Array, Array]:
    """Weights (u, v) of a perfect fit with this theta, and this |u / v|."""
    k = c - theta
    return np.sqrt(np.abs(k) * ratio), np.sign(k) * np.sqrt(np.abs(k) / ratio)


def valley(c: float = 2.0, m: float = 1.0, *, rho: float = 0.5, predict: bool | Guess = False) -> Explorer:
    """Walk along the perfect fits of y = c x by theta x + u v x: the curvature and the worst loss within rho.

    Args:
        c: the slope of the data, and the true theta.
        m: mean of x^2, positive.
        rho: radius at the beginning, 0 to 1 in steps of 0.05.
        predict: ask for a guess first; see `hs.explorers`.

    Returns:
        An `Explorer`.

    Raises:
        ValueError: if a number is out of its range.

    >>> valley(2.0)
    Explorer(the valley of perfect fits: theta = 0.5: the network's share u v is 1.5, with u = 1.22 and v = 1.22. ...)
    """
    if not (math.isfinite(c) and 0 < m < math.inf):
        raise ValueError(f"valley: c must be a number and m a positive one, got c={c!r}, m={m!r}")
    rhos = steps(0, 1, 0.05)
    if round(rho, 10) not in rhos:
        raise ValueError(f"valley: rho must be one of 0, 0.05, ..., 1, got {rho!r}")
    thetas = tuple(round(c - REACH + 0.05 * i, 10) for i in range(81))
    controls = (
        Control("theta", "theta of the fit", thetas, thetas[10]),
        Control("ratio", "|u / v|", RATIOS, 1.0),
        Control("rho", "radius rho", rhos, round(rho, 10)),
    )
    grid = np.array(thetas)

    def at(state: dict[str, Any]) -> View:
        theta, ratio, rho = state["theta"], state["ratio"], state["rho"]
        u, v = (float(x) for x in fit(theta, ratio, c))
        loss, du, dv = (float(x) for x in worst(u, v, rho, m))
        trace, least = m * (u * u + v * v), 2 * m * abs(c - theta)
        all_u, all_v = fit(grid, ratio, c)
        losses = worst(all_u, all_v, rho, m)[0]
        flat = rho * rho / 2 * m * (all_u * all_u + all_v * all_v)
        top = max(float(losses.max()), float(flat.max()), 1e-3)
        text = (
            f"theta = {number(theta)}: the network's share u v is {number(u * v)}, with u = {number(u)} and "
            f"v = {number(v)}. The loss is 0. The trace of its curvature is {number(trace)}; with weights of one size "
            f"it would be {number(least)}. Within rho = {number(rho)} the worst loss is {number(loss)}; at "
            f"theta = {number(c)}, u = v = 0, it would be {number(m * rho**4 / 8)}."
        )
        return view(text, _plane(u, v, du, dv, rho), _curves(grid, losses, flat, top, theta, loss, c))

    answer = Guess(
        f"All these fits have loss zero. At which theta is the worst loss within rho = {number(rho)} smallest?",
        c, thetas[0], thetas[-1], panel=1, axis="x",
    )  # fmt: skip
    shown = grid[::10]
    u, v = fit(shown, 1.0, c)
    table = pd.DataFrame({"theta": shown, "u": u, "v": v, "trace": m * (u**2 + v**2)})
    table[f"worst loss within {number(rho)}"] = worst(u, v, rho, m)[0]
    return Explorer(
        "the valley of perfect fits",
        "Left: the network's weights u and v, the curve of all perfect fits with this theta, a point on it, the circle "
        "of radius rho around it and an arrow to the worst point. Right: the worst loss within rho, and rho squared "
        "half times the trace, against theta: both are smallest at the true theta.",
        controls, at, table, asked(predict, answer), "valley", {"c": c, "m": m},
    )  # fmt: skip


def _plane(u: float, v: float, du: float, dv: float, rho: float) -> dict[str, Any]:
    angles = [2 * math.pi * i / ROUND for i in range(ROUND + 1)]
    circle = [(u + rho * math.cos(a), v + rho * math.sin(a)) for a in angles]
    return panel(
        axis("u", -EDGE, EDGE),
        axis("v", -EDGE, EDGE),
        *(line(branch, COLORS["data"], "perfect fits") for branch in _branches(u * v)),
        points([(0, 0)], COLORS["truth"], "silent network", shape="x", size=7),
        line(circle, COLORS["network"], "within rho"),
        arrow((u, v), (u + du, v + dv), COLORS["sam"], "to the worst point"),
        points([(u, v)], COLORS["hybrid"], "this fit", size=7),
    )


def _branches(k: float) -> list[list[tuple[float, float]]]:
    """The curve u v = k inside the panel."""
    if abs(k) < 1e-9:
        return [[(-EDGE, 0.0), (EDGE, 0.0)], [(0.0, -EDGE), (0.0, EDGE)]]
    reach = math.log(EDGE * EDGE / abs(k))
    us = [EDGE * math.exp(-reach * i / 48) for i in range(49)]
    return [[(sign * u, sign * k / u) for u in us] for sign in (1.0, -1.0)]


def _curves(grid: Array, losses: Array, flat: Array, top: float, theta: float, loss: float, c: float) -> dict[str, Any]:
    return panel(
        axis("theta of the fit", float(grid[0]) - 0.1, float(grid[-1]) + 0.1),
        axis("loss", -0.02 * top, 1.05 * top),
        rule(COLORS["truth"], "truth", x=c),
        line(zip(grid, flat, strict=True), COLORS["erm"], "rho² / 2 × trace", dash=True),
        line(zip(grid, losses, strict=True), COLORS["sam"], "worst within rho"),
        points([(theta, loss)], COLORS["hybrid"], "this fit", size=7),
    )
