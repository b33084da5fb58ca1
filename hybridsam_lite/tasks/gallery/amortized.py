"""Amortized theta: a planet passes its star; depth and duration of the dip inferred for each light curve.

y = f_sci(theta(y)) + f_nn(y_sci, z(y)): an encoder reads theta and the codes z off the curve, and the sum of physics
and network must reproduce it. The physics knows the dip's form and its middle; it does not know that the star itself
gets brighter and dimmer. Nobody tells the model a true depth or duration.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks.base import Array, Task
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators, relative_error, tensors

CARD = Card(
    title="Amortized theta",
    equation=r"\hat\theta = \theta(y; \phi), \quad "
    r"\hat y = f_\mathrm{sci}(\hat\theta) + f_\mathrm{nn}(f_\mathrm{sci}(\hat\theta), z(y; \phi); \phi)",
    wires="y measured > network: encoder > theta > physics > sum > y; "
    "network: encoder > codes > network: decoder > sum; physics > network: decoder",
    theta="depth and duration of the dip in each light curve (amortized)",
    missing="the star's own variability",
    risk="a decoder that draws slow waves can draw a part of every dip too; and theta is an output of phi, which SAM "
    "disturbs",
    after=("takeishi2021",),
    simplified="a plain autoencoder in place of a variational one: no priors, and no curves drawn from the physics to "
    "teach the encoder",
    penalty=True,
)

TIMES = torch.linspace(-4, 4, 40)  # h from the middle of the dip, which is known
INGRESS = 0.15  # h, how fast the dip begins and ends
DEPTH, DURATION = (0.2, 1.0), (2.0, 5.0)  # ranges: percent, h
WAVE, PERIOD = 0.2, (6.0, 20.0)  # of the star: largest amplitude in percent, range in h
NOISE = 0.01  # percent
LIMITS = {"depth": (0.0, 1.5), "duration": (1.0, 6.0)}  # what the encoder may answer
CODES = 3
COUNT = {"smoke": (40, 20, 20), "quick": (300, 100, 200), "full": (300, 100, 200)}


def dip(depth: Tensor, duration: Tensor) -> Tensor:
    """f_sci: light that the planet leaves, in percent of the star's, less 100: (sample, 1) each -> (sample, 40)."""
    t, half = TIMES.to(depth), duration / 2
    return depth * (torch.sigmoid((t - half) / INGRESS) - torch.sigmoid((t + half) / INGRESS))


def wave(amplitude: Tensor, period: Tensor, phase: Tensor) -> Tensor:
    """What the star does by itself, in percent: (sample, 1) each -> (sample, 40)."""
    return amplitude * torch.sin(2 * torch.pi * TIMES / period + phase)


def simulate(count: int, generator: np.random.Generator) -> dict[str, Array]:
    """Noisy light curves (sample, 40), and what they were made of, (sample, 1) each."""
    ranges = {"depth": DEPTH, "duration": DURATION, "amplitude": (0, WAVE), "period": PERIOD, "phase": (0, 2 * np.pi)}
    drawn = {name: generator.uniform(*limits, (count, 1)) for name, limits in ranges.items()}
    depth, duration, *star = (torch.as_tensor(drawn[name]) for name in ranges)
    clean = (dip(depth, duration) + wave(*star)).numpy()
    return {**drawn, "y": clean + NOISE * generator.standard_normal(clean.shape)}


class LightCurve(HybridModel):
    """Input: light curves (sample, 40) in percent. Prediction: the same, reproduced; theta of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = mlp(len(TIMES), [32, 32], len(LIMITS) + CODES, last_scale=1.0)
        self.net = mlp(len(TIMES) + CODES, [32], len(TIMES))

    def infer(self, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Theta, (sample, 1) each, and the codes (sample, 3)."""
        answer = self.encoder(y)
        theta = {
            name: low + (high - low) * torch.sigmoid(answer[:, i, None])
            for i, (name, (low, high)) in enumerate(LIMITS.items())
        }
        return theta, answer[:, len(LIMITS) :]

    def forward(self, y: Tensor) -> Prediction:
        """Encode, compute the dip, add the rest."""
        theta, code = self.infer(y)
        physics = dip(**theta)
        rest = self.net(torch.cat([physics, code], -1))
        return Prediction(physics + rest, rest, physics, {name: value[:, 0] for name, value in theta.items()})


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, COUNT[preset], strict=True))
    drawn = {part: simulate(counts[part], g) for part, g in generators().items()}
    data = {part: Data(*(tensors(y=found["y"])["y"],) * 2) for part, found in drawn.items()}
    truth: dict[str, float | Tensor] = {name: torch.as_tensor(drawn["test"][name][:, 0]) for name in LIMITS}
    units = {"depth": "percent", "duration": "h"}
    return entry("amortized", preset, data, LightCurve, truth, units, training={"lr": 3e-3}, error=relative_error)
