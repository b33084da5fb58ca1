"""Boosted in steps: the rate of an enzyme is known, that of a second enzyme is not; the residual is walked off.

y_0 = V S / (K + S); y_{k+1} = y_k + eta sigma_k^2 s(y_k, x, sigma_k), noise-free Langevin steps at shrinking noise
scales. The score s is learned by denoising: measured rates are disturbed, and s must point back.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks.base import Task
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import entry, generators, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Boosted in steps",
    equation=r"y_0 = f_\mathrm{sci}(x; \theta), \quad y_{k+1} = y_k + \eta\, \sigma_k^2\, s(y_k, x, \sigma_k; \phi)",
    wires="theta > physics > network: step 1 > network: steps 2-4 > network: step 5 > y; x > physics; "
    "x > network: step 1; x > network: steps 2-4; x > network: step 5",
    theta="largest rate and half-saturation of an enzyme",
    missing="a second enzyme that works at one acidity",
    risk="a score that points home from anywhere forgets where the physics began",
    after=("zhao2024",),
    simplified="five steps that start from the physics, one network for all of them, and their end is trained, too",
    penalty=True,
)

V, K = 1.0, 0.5  # mmol/(l min), mmol/l
SECOND, ACIDITY, RANGE = 0.2, 7.5, 0.4  # 1/min, pH, pH: the second enzyme, far from saturation
NOISE = 0.01  # mmol/(l min)
SIGMAS = (0.4, 0.2, 0.1, 0.05, 0.025)  # noise scales, mmol/(l min); a step takes half of the way, so they halve
ETA = 0.5
SAMPLES = {"smoke": (40, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}


def second_enzyme(x: Tensor) -> Tensor:
    """The missing rate in mmol/(l min); x (sample, 2) holds S in mmol/l and pH - 7."""
    return SECOND * x[:, :1] * torch.exp(-(((x[:, 1:] + 7 - ACIDITY) / RANGE) ** 2))


def simulate(count: int, generator: np.random.Generator) -> Data:
    """Noisy rates (sample, 1) at random S and pH, repeated as `Boosted` predicts them."""
    drawn = np.stack([generator.uniform(0.05, 3, count), generator.uniform(-1, 1, count)], axis=1)
    noise = NOISE * generator.standard_normal((count, 1))
    inputs = tensors(x=drawn)
    x = inputs["x"]
    y = V * x[:, :1] / (K + x[:, :1]) + second_enzyme(x) + torch.as_tensor(noise, dtype=torch.float32)
    return Data({"x": x, "y": y}, y.expand(-1, 1 + len(SIGMAS)).clone())


class Boosted(HybridModel):
    """Inputs: x (sample, 2), and y (sample, 1), which only the training of the score looks at.

    Prediction, (sample, 6): the rate after the last step; then, in training, what the score makes of y disturbed at
    each of the five noise scales (in use the rate again).
    """

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(v=Positive(init=(0.2, 2.0), unit="mmol/(l min)"), k=Positive(init=(0.2, 2.0), unit="mmol/l"))
        self.net = mlp(4, [32, 32], 1)

    def physics(self, x: Tensor) -> Tensor:
        """The rate of Michaelis and Menten."""
        return self.theta.v * x[:, :1] / (self.theta.k + x[:, :1])

    def score(self, y: Tensor, x: Tensor, sigma: float) -> Tensor:
        """Gradient of the log density of rates disturbed by noise of size sigma; the network gives sigma^2 times it."""
        scale = torch.full_like(y, np.log(sigma / SIGMAS[2]))
        return self.net(torch.cat([y, x, scale], -1)) / sigma**2

    def walk(self, y: Tensor, x: Tensor) -> list[Tensor]:
        """Noise-free Langevin steps from y: each network corrects what the last one left."""
        steps = [y]
        for sigma in SIGMAS:
            steps.append(steps[-1] + ETA * sigma**2 * self.score(steps[-1], x, sigma))
        return steps

    def denoised(self, y: Tensor, x: Tensor, sigma: float) -> Tensor:
        """Tweedie's estimate of y from y + noise; its squared error is sigma^4 times that of the score."""
        disturbed = y + sigma * torch.randn(y.shape)
        return disturbed + sigma**2 * self.score(disturbed, x, sigma)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """The end of the walk; in training the denoised measurements, too."""
        x, start = inputs["x"], self.physics(inputs["x"])
        end = self.walk(start, x)[-1]
        extra = [self.denoised(inputs["y"], x, sigma) for sigma in SIGMAS] if self.training else [end] * len(SIGMAS)
        return Prediction(torch.cat([end, *extra], -1), network=end - start, physics=start)


def build(preset: str) -> Task:
    """The task at a preset."""
    data = {
        part: simulate(count, g)
        for (part, g), count in zip(generators().items(), SAMPLES[preset], strict=True)
    }  # fmt: skip
    return entry(
        "boosted", preset, data, Boosted, {"v": V, "k": K}, {"v": "mmol/(l min)", "k": "mmol/l"},
        training={"lr": 3e-2},
    )  # fmt: skip
