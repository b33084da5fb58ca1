"""Nested decoder: a reaction A -> B -> C followed by a spectrometer; kinetics known, the spectra unknown.

c(t) solves a' = -k1 a, b' = k1 a - k2 b, c' = k2 b; the network turns (a, b, c) and a code z into a spectrum, and an
encoder reads z off the measured spectrum: y = f_nn(f_sci(theta, x), z(y)). There is no output of the network that could
be penalized: without the network there is no prediction. In truth the spectra add up and a scattered light, other
in every sample, lies below them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Nested decoder",
    equation=r"\hat y = f_\mathrm{nn}\bigl(f_\mathrm{sci}(x; \theta),\, z(y; \phi); \phi\bigr)",
    wires="theta > physics > network: decoder > y; x > physics; y measured > network: encoder > network: decoder",
    theta="rate constants of two reactions in a row",
    missing="the spectra of the three substances and the scattered light",
    risk="from the concentrations of any theta the decoder can compute those of another, and the code can carry them "
    "past the physics",
    after=("takeishi2021",),
    simplified="a global theta and a plain autoencoder in place of a variational one with an inferred theta",
    penalty=False,
)

K1, K2 = 0.8, 0.4  # 1/min
CHANNELS = np.linspace(0.0, 1.0, 12)  # wavelengths, from 400 to 700 nm as 0 to 1
PEAKS, WIDTHS = np.array([0.25, 0.5, 0.75]), np.array([0.15, 0.12, 0.2])  # of the three spectra
STEPS, NOISE = 5, 0.01  # of the solver, from 0 to each sample's time; absorbance
COUNT = {"smoke": (40, 20, 20), "quick": (300, 100, 200), "full": (300, 100, 200)}


def concentrations(start: Array, t: Array) -> Array:
    """Concentrations in mmol/l of A, B and C, solved by hand, (sample, 3), from those of A and B at the start."""
    a0, b0 = start.T
    a = a0 * np.exp(-K1 * t)
    b = b0 * np.exp(-K2 * t) + a0 * K1 / (K2 - K1) * (np.exp(-K1 * t) - np.exp(-K2 * t))
    return np.stack([a, b, a0 + b0 - a - b], axis=1)


def spectrum(amounts: Array, scatter: Array) -> Array:
    """Absorbance in 12 channels without noise, (sample, 12): Beer's law, and light scattered more at short waves."""
    bands = np.exp(-(((CHANNELS - PEAKS[:, None]) / WIDTHS[:, None]) ** 2) / 2)
    return amounts @ bands + scatter[:, None] * (1 + 0.75 * CHANNELS) ** -4


def simulate(count: int, generator: np.random.Generator) -> dict[str, Array]:
    """Samples taken from reactors: what was put in (sample, 2), when it was taken, the scatter, and the spectrum."""
    start, t = generator.uniform(0.0, 1.0, (count, 2)), generator.uniform(0.0, 4.0, count)
    scatter = generator.uniform(0.0, 1.0, count)
    clean = spectrum(concentrations(start, t), scatter)
    return {
        "start": start,
        "t": t[:, None],
        "scatter": scatter,
        "y": clean + NOISE * generator.standard_normal(clean.shape),
    }


class Spectrometer(HybridModel):
    """Inputs: start (sample, 2) in mmol/l, t (sample, 1) in min, y (sample, 12) the spectrum itself, for the encoder.

    Prediction: the spectrum again, (sample, 12); its physics is the concentrations (sample, 3).
    """

    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(k1=Positive(init=(0.2, 2.0), unit="1/min"), k2=Positive(init=(0.2, 2.0), unit="1/min"))
        self.encoder = mlp(len(CHANNELS), [16], 1, last_scale=1.0)
        self.net = mlp(4, [32], len(CHANNELS), last_scale=1.0)
        self.register_buffer("grid", torch.linspace(0, 1, STEPS + 1))

    def reacted(self, start: Tensor, t: Tensor) -> Tensor:
        """f_sci: concentrations of A, B and C after the time t, (sample, 3); the solver's time runs from 0 to 1."""

        def rhs(_: Tensor, c: Tensor) -> Tensor:
            first, second = self.theta.k1 * c[..., :1], self.theta.k2 * c[..., 1:2]
            return t * torch.cat([-first, first - second, second], -1)

        return odeint(rhs, torch.cat([start, torch.zeros_like(t)], -1), self.grid)[-1]

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Encode what is peculiar to the sample, solve the kinetics, decode."""
        amounts = self.reacted(inputs["start"], inputs["t"])
        code = self.encoder(inputs["y"])
        return Prediction(self.net(torch.cat([amounts, code], -1)), physics=amounts)


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, COUNT[preset], strict=True))
    data = {}
    for part, g in generators().items():
        found = tensors(**simulate(counts[part], g))
        data[part] = Data({name: found[name] for name in ("start", "t", "y")}, found["y"])
    truth: dict[str, float | Tensor] = {"k1": K1, "k2": K2}
    units = dict.fromkeys(truth, "1/min")
    return entry("nested_decoder", preset, data, Spectrometer, truth, units, training={"lr": 3e-3})
