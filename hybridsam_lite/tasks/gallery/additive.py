"""Additive in the equation: two species; growth, death and predation known, crowding of the prey unknown.

x' = alpha x - beta x y [- x^2 / 5],  y' = -gamma y + beta x y; theta = (alpha, beta, gamma); the network is added to
the derivative of both species.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate, windows
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Additive in the equation",
    equation=r"\dot y = f_\mathrm{sci}(y; \theta) + f_\mathrm{nn}(y; \phi)",
    wires="theta > physics > sum > solver > y; state > network > sum; state > physics",
    theta="growth, predation and death rates of two species",
    missing="the crowding of the prey",
    risk="a network that adds to the derivative can take over any of the known terms, with either sign",
    after=("yin2021",),
    simplified="two states and a small network; windows of a noisy series in place of whole trajectories",
    penalty=True,
)

ALPHA, BETA, GAMMA, CROWDING = 1.0, 0.8, 0.6, 0.2  # 1/time, 1/(time population), 1/time, 1/(time population)
DT, POINTS, WINDOW, NOISE = 0.2, 31, 5, 0.01
SERIES = {"smoke": (2, 1, 1), "quick": (20, 10, 20), "full": (20, 10, 20)}


def series(count: int, generator: np.random.Generator) -> Array:
    """Noisy populations from random starts, (series, time, 2)."""

    def rhs(_: float, state: Array) -> Array:
        x, y = state[:, 0], state[:, 1]
        return np.stack([ALPHA * x - BETA * x * y - CROWDING * x**2, -GAMMA * y + BETA * x * y], axis=1)

    states = simulate(rhs, generator.uniform(0.3, 2.0, (count, 2)), np.arange(POINTS) * DT)
    return states + NOISE * generator.standard_normal(states.shape)


class TwoSpecies(HybridModel):
    """Inputs: x0 (sample, 2), t (time,). Prediction: the populations at the later times, (sample, time - 1, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(
            alpha=Positive(init=(0.2, 2.0)), beta=Positive(init=(0.2, 2.0)), gamma=Positive(init=(0.2, 2.0))
        )
        self.net = mlp(2, [16, 16], 2)

    def physics(self, state: Tensor) -> Tensor:
        """What is known of the derivative."""
        x, y = state[..., 0], state[..., 1]
        met = self.theta.beta * x * y
        return torch.stack([self.theta.alpha * x - met, met - self.theta.gamma * y], -1)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Solve the sum of both."""
        y = odeint(lambda _, y: self.physics(y) + self.net(y), inputs["x0"], inputs["t"]).transpose(0, 1)
        return Prediction(y[:, 1:], network=self.net(y), physics=self.physics(y))


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, SERIES[preset], strict=True))
    data = {part: windows(series(counts[part], g), DT, WINDOW, stride=3) for part, g in generators().items()}
    return entry(
        "additive", preset, data, TwoSpecies,
        {"alpha": ALPHA, "beta": BETA, "gamma": GAMMA}, dict.fromkeys(("alpha", "beta", "gamma"), "1/time"),
    )  # fmt: skip
