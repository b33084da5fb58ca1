"""Partial model: a reservoir's gate is set once a day; the model predicts what each opening is worth, and nothing else.

level' = gain rain - outflow opening sqrt(level) [- seepage]; worth = -(level after a day - GOAL)^2. The water's
temperature and turbidity are measured too, but no decision needs them: the model leaves them out, and is trained on
the worth of the three openings, not on the state.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks.base import Array, Task
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Partial model",
    equation=r"V(a) = -\bigl(h + f_\mathrm{sci}(h, r, a; \theta) + f_\mathrm{nn}(h, r; \phi) - h_\mathrm{goal}\bigr)^2",
    wires="theta > physics > sum > worth > decision; state > network > sum; state > physics; opening > physics",
    theta="inflow per rain, outflow per opening",
    missing="the seepage through the dam, which grows with the level",
    risk="only the worth of actions is fitted: the network may take over the inflow, which no action changes",
    after=("alver2023",),
    simplified="one day ahead in place of a long plan; what to leave out is given, not found",
    penalty=True,
)

GAIN, OUTFLOW, SEEPAGE, GOAL = 0.5, 0.6, 0.08, 1.5  # m/day per unit of rain, m^0.5/day, m^-1/day, m
OPENINGS = (0.0, 0.5, 1.0)
HOURS, STEPS = 24, 4  # explicit Euler steps of one day: of the full simulation, and of the model
NOISE = 0.01  # of a worth, m^2
COUNT = {"smoke": (40, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}


def samples(count: int, generator: np.random.Generator) -> Data:
    """Days with random level, rain and rest, and what each opening was worth in the full simulation."""
    level, rain = generator.uniform(0.5, 3.0, count), generator.gamma(2.0, 0.5, count)
    rest = np.stack([generator.normal(12.0, 4.0, count), generator.gamma(2.0, 1.0, count)], 1)  # deg C, NTU

    def day(opening: float) -> Array:
        h = level.copy()
        for _ in range(HOURS):
            h = h + (GAIN * rain - OUTFLOW * opening * np.sqrt(h) - SEEPAGE * h**2) / HOURS
        return -((h - GOAL) ** 2)

    worth = np.stack([day(a) for a in OPENINGS], 1) + NOISE * generator.standard_normal((count, len(OPENINGS)))
    inputs = tensors(level=level[:, None], rain=rain[:, None], rest=rest)
    return Data(inputs, tensors(worth=worth)["worth"])


class Reservoir(HybridModel):
    """Inputs: level [m], rain, (sample, 1) each; rest is not read. Prediction: worth of each opening, (sample, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(
            gain=Positive(init=(0.1, 1.0), unit="m/day"), outflow=Positive(init=(0.1, 1.0), unit="m^0.5/day")
        )
        self.net = mlp(2, [16, 16], 1)

    def physics(self, level: Tensor, rain: Tensor) -> Tensor:
        """What is known of the level's change [m/day] for each opening."""
        return self.theta.gain * rain - self.theta.outflow * torch.tensor(OPENINGS).to(level) * level.clamp(1e-3).sqrt()

    def network(self, level: Tensor, rain: Tensor) -> Tensor:
        """What the network adds to it [m/day]."""
        return self.net(torch.stack([level - 1.75, rain - 1.0], -1))[..., 0]

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """One day in STEPS steps, for each opening."""
        level, rain = torch.broadcast_tensors(inputs["level"], inputs["rain"] * torch.ones(len(OPENINGS)))
        h = level
        for _ in range(STEPS):
            h = h + (self.physics(h, rain) + self.network(h, rain)) / STEPS
        return Prediction(-((h - GOAL) ** 2), network=self.network(level, rain), physics=self.physics(level, rain))


def regret(prediction: Prediction, task: Task) -> dict[str, float]:
    """What is lost on average by the openings that the model finds best [m^2]."""
    chosen = prediction.value.argmax(1, keepdim=True)
    worth = task.test.target
    return {"regret": float((worth.max(1).values - worth.gather(1, chosen)[:, 0]).mean())}


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, COUNT[preset], strict=True))
    data = {part: samples(counts[part], g) for part, g in generators().items()}
    return entry(
        "partial_model", preset, data, Reservoir, {"gain": GAIN, "outflow": OUTFLOW},
        {"gain": "m/day", "outflow": "m^0.5/day"}, training={"lr": 3e-3, "theta_lr": 3e-2}, metrics=regret,
    )  # fmt: skip
