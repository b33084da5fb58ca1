"""The trap of two learning rates: what their ratio does to theta, while the loss does not care."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from hybridsam_lite.explorers.explorer import Control, Explorer, Guess, asked, decades
from hybridsam_lite.explorers.views import View, axis, line, number, panel, points, rule, view
from hybridsam_lite.plots.look import COLORS

__all__ = ["rate_ratio", "theta_limit"]

RATIOS = decades(-3, 3)
GRID = tuple(10.0 ** (-3 + 0.1 * i) for i in range(61))


def theta_limit(ratio: Any, theta: Any, c: Any, strength: Any = 1.0, network: Any = 0.0) -> Any:
    """Where gradient descent takes theta in y = c a, model theta a + b phi a: a linear network that can imitate a.

    theta / R - b phi / b^2 keeps its value, and theta + b phi = c in the end. For any linear network Psi phi that
    can imitate the physics, a = Psi alpha, the same holds with b = 1 / |alpha|.

    Args:
        ratio: R, theta's learning rate over phi's.
        theta: its start.
        c: the truth.
        strength: b.
        network: b phi at the start.

    Source: derived for this project; for gradient descent that converges, with any loss of the prediction.

    >>> theta_limit(1.0, 0.5, 2.0), theta_limit(0.01, 0.5, 2.0)
    (1.25, 0.5148514851485149)
    """
    return theta + ratio * (c - theta - network) / (ratio + strength * strength)


def rate_ratio(c: float = 2.0, *, start: float = 0.5, predict: bool | Guess = False) -> Explorer:
    """Theta after plain training, against theta's learning rate over phi's, its start, and the network's strength.

    Args:
        c: the truth.
        start: theta's start at the beginning, c - 2 to c + 2 in steps of 0.1.
        predict: ask for a guess first; see `hs.explorers`.

    Returns:
        An `Explorer`.

    Raises:
        ValueError: if a number is out of its range.

    >>> rate_ratio()
    Explorer(two learning rates: Theta learns 0.01 times as fast as phi. It goes from 0.5 to 0.515; ...)
    """
    if not math.isfinite(c):
        raise ValueError(f"rate_ratio: c must be a number, got {c!r}")
    starts = tuple(round(c - 2 + 0.1 * i, 10) for i in range(41))
    if round(start, 10) not in starts:
        raise ValueError(
            f"rate_ratio: start must be one of {starts[0]:g}, {starts[1]:g}, ..., {starts[-1]:g}, got {start!r}"
        )
    controls = (
        Control("ratio", "theta's rate / phi's", RATIOS, 0.01),
        Control("theta", "start of theta", starts, round(start, 10)),
        Control("strength", "network's strength b", (0.25, 0.5, 1.0, 2.0, 4.0), 1.0),
    )
    others = tuple(c + x for x in (-2.0, -1.0, 0.0, 1.0, 2.0))

    def at(state: dict[str, Any]) -> View:
        ratio, theta, b = state["ratio"], state["theta"], state["strength"]
        end = theta_limit(ratio, theta, c, b)
        text = (
            f"Theta learns {number(ratio)} times as fast as phi. It goes from {number(theta)} to {number(end)}; the "
            f"network takes the other {number(c - end)}. The loss ends at zero for every ratio. On the way "
            f"theta / R - share / b² keeps its value, {number(theta / ratio)}."
        )
        return view(
            text,
            panel(
                axis("theta", c - 2.5, c + 2.5),
                axis("network's share b phi", -2.5, 2.5),
                line([(c - 2.5, 2.5), (c + 2.5, -2.5)], COLORS["data"], "loss zero"),
                rule(COLORS["truth"], "truth", x=c),
                line([(theta, 0), (end, c - end)], COLORS["hybrid"], "way of training"),
                points([(theta, 0)], COLORS["data"], "start", shape="x", size=7),
                points([(end, c - end)], COLORS["hybrid"], "end", size=7),
            ),
            panel(
                axis("theta's rate / phi's", GRID[0] / 1.5, GRID[-1] * 1.5, log=True),
                axis("theta at the end", c - 2.5, c + 2.5),
                rule(COLORS["truth"], y=c),
                *(
                    line([(r, theta_limit(r, x, c, b)) for r in GRID], COLORS["erm"], "other starts", width=1)
                    for x in others
                ),
                line([(r, theta_limit(r, theta, c, b)) for r in GRID], COLORS["hybrid"], "this start", width=2.4),
                points([(ratio, end)], COLORS["hybrid"], size=7),
            ),
        )  # fmt: skip

    answer = theta_limit(0.01, round(start, 10), c)
    question = Guess(
        f"The data say theta + network = {number(c)}, and no more. theta starts at {number(start)}, the network at 0, "
        "and theta learns 100 times more slowly. At which theta does training end?",
        answer, c - 3, c + 3, panel=1,
    )  # fmt: skip
    shown = RATIOS[::3]
    table = pd.DataFrame(
        {"theta's rate / phi's": shown}
        | {f"theta from {number(x)}": [theta_limit(r, x, c) for r in shown] for x in sorted({c - 2, start, c + 2})}
    )
    return Explorer(
        "two learning rates",
        "Left: theta and the network's share; all points on a falling line have loss zero, and training goes straight "
        "from its start to that line. Right: theta at the end against the ratio of the learning rates, an S-shaped "
        "curve from theta's start to the truth.",
        controls, at, table, asked(predict, question), "rate_ratio", {"c": c, "grid": GRID, "others": others},
    )  # fmt: skip
