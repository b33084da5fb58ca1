"""Multiplicative: growth in a batch bioreactor; Monod's law known, the effect of temperature unknown.

X' = mu X, S' = -mu X / Y with mu = mu_max S / (K + S) (1 + f_nn(S, T)); theta = (mu_max, K), where mu_max is the rate
at 30 degrees C and K is called saturation. In truth 1 + f_nn is 2^((T - 30) / 10): the rate doubles with every 10
degrees.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Multiplicative",
    equation=r"\mu = f_\mathrm{sci}(S; \theta)\,\bigl(1 + f_\mathrm{nn}(S, T; \phi)\bigr), \quad "
    r"\dot X = \mu X, \quad \dot S = -\mu X / Y",
    wires="theta > physics: rate > product > physics: balance > solver > y; state > physics: rate; "
    "state > network > product; temperature > network; state > physics: balance",
    theta="largest growth rate and half-saturation constant",
    missing="the effect of temperature on the rate",
    risk="a constant factor of the network is a factor of the rate, and its slope in S bends Monod's curve",
    after=("takeishi2023",),
    simplified="one product in place of the general composition there; a small system of two states",
    penalty=True,
)

RATE, HALF, YIELD = 0.4, 0.8, 0.5  # 1/h at 30 degrees C, g/l, g of cells per g of substrate (known)
MIDDLE, SPREAD = 30.0, 10.0  # temperatures in degrees C: from MIDDLE - SPREAD to MIDDLE + SPREAD
TIMES = np.arange(5) * 0.5  # h
NOISE = 0.01  # g/l
COUNT = {"smoke": (40, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}


def warmth(temperature: Array) -> Array:
    """What the rate is multiplied by at a temperature in degrees C; 1 at 30."""
    return 2.0 ** ((temperature - MIDDLE) / 10)


def samples(count: int, generator: np.random.Generator) -> Data:
    """Batches of two hours: cells and substrate at the start, the temperature, and both states at four later times."""
    start = generator.uniform((0.1, 0.3), (1.0, 4.0), (count, 2))
    temperature = generator.uniform(MIDDLE - SPREAD, MIDDLE + SPREAD, count)

    def rhs(_: float, state: Array) -> Array:
        x, s = state[:, 0], state[:, 1]
        growth = RATE * s / (HALF + s) * warmth(temperature) * x
        return np.stack([growth, -growth / YIELD], axis=1)

    states = simulate(rhs, start, TIMES)[:, 1:]
    noisy = states + NOISE * generator.standard_normal(states.shape)
    inputs = tensors(x0=start, temperature=temperature[:, None], t=TIMES)
    return Data(inputs, tensors(y=noisy)["y"], shared=("t",))


class Bioreactor(HybridModel):
    """Inputs: x0 (sample, 2) in g/l, temperature (sample, 1) in degrees C, t (5,) in h.

    Prediction: cells and substrate in g/l at the later times, (sample, 4, 2); its network is f_nn, without unit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(
            mu_max=Positive(init=(0.1, 1.0), unit="1/h"), saturation=Positive(init=(0.2, 2.0), unit="g/l")
        )
        self.net = mlp(2, [16, 16], 1)

    def monod(self, state: Tensor) -> Tensor:
        """What is known of the growth rate in 1/h, (..., 1)."""
        s = state[..., 1:].clamp(min=0)
        return self.theta.mu_max * s / (self.theta.saturation + s)

    def factor(self, state: Tensor, temperature: Tensor) -> Tensor:
        """f_nn, (..., 1): the share by which the rate differs from what is known."""
        return self.net(torch.cat([state[..., 1:] / 2 - 1, (temperature - MIDDLE) / SPREAD], -1))

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Solve the balances with the corrected rate."""
        temperature = inputs["temperature"]

        def rhs(_: Tensor, y: Tensor) -> Tensor:
            growth = self.monod(y) * (1 + self.factor(y, temperature)) * y[..., :1]
            return torch.cat([growth, -growth / YIELD], -1)

        y = odeint(rhs, inputs["x0"], inputs["t"]).transpose(0, 1)[:, 1:]
        everywhere = temperature[:, None].expand(-1, y.shape[1], -1)
        return Prediction(y, network=self.factor(y, everywhere), physics=self.monod(y))


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, COUNT[preset], strict=True))
    data = {part: samples(counts[part], g) for part, g in generators().items()}
    truth: dict[str, float | Tensor] = {"mu_max": RATE, "saturation": HALF}
    units = {"mu_max": "1/h", "saturation": "g/l"}
    return entry("multiplicative", preset, data, Bioreactor, truth, units, training={"lr": 3e-3})
