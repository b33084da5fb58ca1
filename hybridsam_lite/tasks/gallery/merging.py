"""Merging: evaporation at two stations, each with its own hybrid; the weights of both become one model.

E = a R + b w d [- R d^2 / (2 + 2 d^2)]; dry air closes the leaves. The task has both stations, `halves` one each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hybridsam_lite.checks import mean_squared_error
from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks.base import Task
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import entry, generators, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Merging",
    equation=r"\hat y = f_\mathrm{sci}(x; \theta) + f_\mathrm{nn}(x; \phi), \; (\theta, \phi) = \mathrm{merge}(A, B)",
    wires="theta > physics > sum > y; x > physics; x > network > sum; models A, B > network; models A, B > theta",
    theta="the shares of radiation and of wind in evaporation",
    missing="the leaves that close in dry air",
    risk="the network sees all that drives the known terms; two stations split them from the rest in two ways",
    after=("jin2023",),
    simplified="two small hybrids from the same random start in place of two from the same pretrained language model",
    penalty=True,
)

A, B = 0.7, 0.5  # mm/d for a radiation, and for a wind and deficit, of 1 (all three are scaled by their usual size)
RADIATION, NOISE = (0.2, 1.5), 0.01  # -, mm/d
STATIONS = (((0.5, 2.0), (0.0, 1.0)), ((0.0, 1.0), (0.5, 2.0)))  # wind, deficit: at the coast, inland
SAMPLES = {"smoke": (20, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}


def closing(x: Tensor) -> Tensor:
    """What dry air takes away, in mm/d; x (sample, 3) holds radiation R, wind w and deficit d."""
    return -x[:, :1] * x[:, 2:] ** 2 / (2 + 2 * x[:, 2:] ** 2)


def simulate(count: int, generator: np.random.Generator) -> Data:
    """Noisy evaporation (sample, 1): the first half of the samples from the coast, the second from inland."""
    drawn = [np.stack([generator.uniform(*r, count // 2) for r in (RADIATION, *s)], 1) for s in STATIONS]
    x = tensors(x=np.concatenate(drawn))["x"]
    noise = torch.as_tensor(NOISE * generator.standard_normal((len(x), 1)), dtype=torch.float32)
    return Data(x, A * x[:, :1] + B * x[:, 1:2] * x[:, 2:] + closing(x) + noise)


class Evaporation(HybridModel):
    """Inputs: x (sample, 3). Prediction: evaporation in mm/d, (sample, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(a=Positive(init=(0.2, 1.5), unit="mm/d"), b=Positive(init=(0.2, 1.5), unit="mm/d"))
        self.net = mlp(3, [16, 16], 1)

    def forward(self, x: Tensor) -> Prediction:
        """The known terms and the network."""
        physics, network = self.theta.a * x[:, :1] + self.theta.b * x[:, 1:2] * x[:, 2:], self.net(x)
        return Prediction(physics + network, network=network, physics=physics)


def halves(task: Task) -> list[Task]:
    """The task of each station: its own training data, the rest of both; a seed starts both from the same weights."""
    return [replace(task, train=task.train.take(part)) for part in torch.arange(len(task.train)).chunk(2)]


@torch.no_grad()
def average(models: Sequence[Evaporation]) -> Evaporation:
    """A model whose parameters, theta too, are the means of the models'."""
    mean, states = copy.deepcopy(models[0]), [m.state_dict() for m in models]
    mean.load_state_dict({name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]})
    return mean


@torch.no_grad()
def regmean(models: Sequence[Evaporation], inputs: Sequence[Any], shrink: float = 0.9) -> Evaporation:
    """RegMean: each linear layer answers as the models' layers do to what they see; the rest is averaged.

    Least squares: with G_i = X_i^T X_i of the inputs X_i of model i's layer, the weights (input, output) are
    (sum_i G_i)^-1 sum_i G_i W_i. `shrink` multiplies the off-diagonals of G_i; model i sees `inputs[i]`.
    """
    mean, seen = average(models), [x.double() for x in inputs]
    for new, *layers in zip(mean.net, *(copy.deepcopy(m.net).double() for m in models), strict=True):
        if isinstance(new, nn.Linear):
            grams = [shrink * x.T @ x + (1 - shrink) * torch.diag((x.T @ x).diagonal()) for x in seen]
            answers = [g @ layer.weight.T for g, layer in zip(grams, layers, strict=True)]
            new.weight.copy_((torch.linalg.pinv(torch.stack(grams).sum(0)) @ torch.stack(answers).sum(0)).T)
        seen = [layer(x) for layer, x in zip(layers, seen, strict=True)]
    return mean


@torch.no_grad()
def merged(runs: Sequence[Any], task: Task) -> pd.DataFrame:
    """What `runs`, [half.fit(methods, seeds) for half in halves(task)], and their merges are worth on both stations."""
    rows, inputs, truth = [], [half.train.inputs for half in halves(task)], {"a": torch.tensor(A), "b": torch.tensor(B)}
    for i, member in enumerate(runs[0].members):
        pair = [run.model(i) for run in runs]
        merges = {"average": average(pair), "regmean": regmean(pair, inputs)}
        for how, model in {"coast": pair[0], "inland": pair[1], **merges}.items():
            loss = float(mean_squared_error(task.predict(model).value, task.test.target))
            scores = {"test_loss": loss, "theta_error": task.error(model.theta.values(), truth)}
            rows.append({"label": member.method.label, "seed": member.seed, "model": how, **scores})
    return pd.DataFrame(rows)


def build(preset: str) -> Task:
    """The task at a preset."""
    data = {part: simulate(n, g) for (part, g), n in zip(generators().items(), SAMPLES[preset], strict=True)}
    return entry("merging", preset, data, Evaporation, {"a": A, "b": B}, {"a": "mm/d", "b": "mm/d"}, {"lr": 1e-2})
