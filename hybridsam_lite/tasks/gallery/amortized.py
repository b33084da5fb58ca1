"""Amortized theta: a decay curve comes in, an encoder says how fast it decays, and a decoder draws it again.

y(t) = exp(-k t) [+ b t / (1 + t)]: each sample has a rate k of its own, and a drift b of the instrument that the
physics does not know. The encoder gives k and a second number z; the network draws what is added from t and z.
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

CARD = Card(
    title="Amortized theta",
    equation=r"(\theta, z) = g(x; \phi), \qquad \hat x(t) = f_\mathrm{sci}(t; \theta) + f_\mathrm{nn}(t, z; \phi)",
    wires="curve > network: encoder > theta > physics > sum > y; network: encoder > z > network > sum",
    theta="the decay rate of each sample",
    missing="the drift of the instrument",
    risk="the second number can carry the rate past the physics, and the network draw the decay",
    after=("takeishi2021",),
    simplified="an encoder without a distribution, one latent number, no prior",
    penalty=True,
)

LOW, HIGH = 0.2, 3.0  # of the rate, 1/s: the range in which the encoder answers
RATES, DRIFTS = (0.5, 2.5), (-0.3, 0.3)  # 1/s, of the samples; V
TIMES = np.linspace(0.1, 4.0, 20)  # s
NOISE = 0.01  # V
COUNT = {"smoke": (40, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}


def curves(count: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Noisy curves (sample, time), and the rates (sample,)."""
    k, b = generator.uniform(*RATES, count), generator.uniform(*DRIFTS, count)
    clean = np.exp(-k[:, None] * TIMES) + b[:, None] * TIMES / (1 + TIMES)
    return clean + NOISE * generator.standard_normal(clean.shape), k


class AutoEncoder(HybridModel):
    """Input: curve (sample, time). Prediction: the same curve; theta: its rate k, (sample,). All weights are phi."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = mlp(len(TIMES), [32], 2, last_scale=1.0)
        self.net = mlp(2, [16, 16], 1)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Encode, then draw."""
        rate, z = self.encoder(inputs["curve"]).unbind(-1)
        k = LOW + (HIGH - LOW) * torch.sigmoid(rate)
        t = torch.as_tensor(TIMES).to(k)
        physics = torch.exp(-k[:, None] * t)
        drawn = self.net(torch.stack(torch.broadcast_tensors(t / 2 - 1, z[:, None]), -1))[..., 0]
        return Prediction(physics + drawn, network=drawn, physics=physics, theta={"k": k})


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, COUNT[preset], strict=True))
    made = {part: curves(counts[part], g) for part, g in generators().items()}
    data = {part: Data(tensors(curve=y), tensors(y=y)["y"]) for part, (y, _) in made.items()}
    truth = {"k": tensors(k=made["test"][1])["k"]}
    return entry("amortized", preset, data, AutoEncoder, truth, {"k": "1/s"}, training={"lr": 3e-3})  # fmt: skip
