"""Rankings: glucose under meals, insulin and exercise; which of two treatments gives more is known, not by how much.

G' = meal c - insulin X G - 0.5 (G - 5) [- exercise], X' = (u - X) / tau; theta = (meal, insulin). G in mmol/l, c in g/h
of carbohydrates, u and X in U/h of insulin, given and acting. The prediction holds a measured hour and the outcomes of
four treatments that were not given: their order is known, and enters the loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks.base import Task
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import entry, generators, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Rankings of effects",
    equation=r"L = (1 - a)\,(y - \hat y)^2 + a\, \mathrm{mean}_{y_i > y_j} \log(1 + e^{\hat y_j - \hat y_i})",
    wires="theta > physics > sum > solver > y; state > network > sum; state > physics; treatment > physics; "
    "treatment > network; solver > outcomes > ranking",
    theta="what a gram of carbohydrates and a unit of insulin do to the glucose",
    missing="the effect of exercise",
    risk="insulin comes with meals, so that their effects cancel in the data, and the network may take over either",
    after=("zou2024",),
    simplified="two known states, no encoder; a logistic loss of pairs; one order that holds for every patient",
    penalty=True,
)

MEAL, INSULIN = 0.25, 0.3  # mmol/(l g), 1/U: theta
RETURN, FASTING, TAU = 0.5, 5.0, 0.5  # 1/h, mmol/l, h: known
BURN, EASE = 0.4, 0.2  # what full exercise adds: uptake in 1/h, and effect of insulin in 1/U
STEPS, EVERY = 8, 2  # Euler steps of an hour, the patient's and the model's; a reading after every second one
NOISE, WEIGHT = 0.1, 0.1  # mmol/l; a, the weight of the ranking loss
TREATMENTS = ((20.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 3.0, 1.0))  # (c, u, exercise); highest first
COUNT = {"smoke": (40, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}


def derivative(g: Tensor, x: Tensor, c: Tensor, meal: Any, insulin: Any) -> Tensor:
    """The part of G' that the science has, mmol/l per hour."""
    return meal * c - insulin * x * g - RETURN * (g - FASTING)


def exercise(g: Tensor, x: Tensor, c: Tensor, e: Tensor) -> Tensor:
    """The part that it lacks: muscles take up glucose, and insulin does more."""
    return -(BURN + EASE * x) * e * g


def predict(inputs: dict[str, Tensor], meal: Any, insulin: Any, rest: Any) -> Tensor:
    """Readings of the hour, and ends of four hours with another treatment: (sample, 4 + 4); rest is added to G'."""
    others = torch.tensor(TREATMENTS).to(inputs["start"]).expand(len(inputs["start"]), -1, -1)
    c, u, e = torch.cat([inputs["treatment"][:, None], others], 1).unbind(-1)
    (g, x), seen = inputs["start"][:, None].expand(-1, c.shape[1], -1).unbind(-1), []
    for _ in range(STEPS):
        g, x = g + (derivative(g, x, c, meal, insulin) + rest(g, x, c, e)) / STEPS, x + (u - x) / TAU / STEPS
        seen.append(g)
    return torch.cat([torch.stack(seen, -1)[:, 0, EVERY - 1 :: EVERY], g[:, 1:]], -1)


def patients(count: int, generator: np.random.Generator, outcomes: bool) -> Data:
    """Doses follow meal and glucose; outcomes as ranks (all that training sees) or, for the test, in mmol/l."""
    g, x, c = (generator.uniform(*limits, count) for limits in ((5.0, 14.0), (0.0, 1.0), (0.0, 40.0)))
    u = np.clip(c / 12 + 0.2 * (g - 6) + 0.3 * generator.standard_normal(count), 0, None)
    e = generator.uniform(0, 1, count) * (generator.uniform(0, 1, count) < 0.5)
    inputs = tensors(start=np.stack([g, x], 1), treatment=np.stack([c, u, e], 1))
    measured, others = predict(inputs, MEAL, INSULIN, exercise).split(4, -1)
    noise = tensors(noise=NOISE * generator.standard_normal(measured.shape))["noise"]
    return Data(inputs, torch.cat([measured + noise, others if outcomes else others.argsort(-1).argsort(-1)], -1))


def hybrid_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of the readings, and for all pairs of treatments log(1 + exp(lower - higher)): (1 - a) to a."""
    (y, outcomes), (measured, order) = prediction.split(4, -1), target.split(4, -1)
    higher = order[..., :, None] > order[..., None, :]
    causal = (softplus(outcomes[..., None, :] - outcomes[..., :, None]) * higher).sum() / higher.sum()
    return (1 - WEIGHT) * ((y - measured) ** 2).mean() + WEIGHT * causal


class Glucose(HybridModel):
    """Inputs: start (sample, 2), treatment (sample, 3). Prediction: readings and outcomes in mmol/l, (sample, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(meal=Positive(init=(0.1, 0.5)), insulin=Positive(init=(0.1, 0.6)))
        self.net = mlp(4, [16, 16], 1)

    def network(self, g: Tensor, x: Tensor, c: Tensor, e: Tensor) -> Tensor:
        """What the network adds to G'."""
        return self.net(torch.stack([(g - 9) / 3, x - 1, (c - 20) / 10, e], -1))[..., 0]

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """The given treatment and four others, from the same start."""
        theta = (self.theta.meal, self.theta.insulin)
        (g, x), (c, _, e) = inputs["start"].unbind(-1), inputs["treatment"].unbind(-1)
        value = predict(inputs, *theta, self.network)
        return Prediction(value, network=self.network(g, x, c, e), physics=derivative(g, x, c, *theta))


def effects(prediction: Prediction, task: Task) -> dict[str, float]:
    """Test loss of readings and outcomes, in mmol^2/l^2, and the share of neighbours in the right order."""
    readings, others = (prediction.value - task.test.target).square().mean(0).split(4)
    ranked = (prediction.value[:, 4:].diff() < 0).float().mean()
    return {"readings_loss": float(readings.mean()), "outcomes_loss": float(others.mean()), "ranked": float(ranked)}


def build(preset: str) -> Task:
    """The task at a preset; its test loss counts readings and outcomes, its validation loss is the hybrid one."""
    parts = zip(generators().items(), COUNT[preset], strict=True)
    data = {part: patients(count, g, outcomes=part == "test") for (part, g), count in parts}
    return entry(
        "rankings", preset, data, Glucose, {"meal": MEAL, "insulin": INSULIN},
        {"meal": "mmol/(l g)", "insulin": "1/U"}, training={"lr": 3e-3}, metrics=effects, loss=hybrid_loss,
    )  # fmt: skip
