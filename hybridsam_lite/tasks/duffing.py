"""Duffing oscillator: x'' + delta x' + alpha x + beta x^3 = gamma cos(omega t).

C1        theta = (alpha, beta); the friction is missing. The missing part hardly looks like the known one.
C2        theta = (alpha, delta); the cubic spring is missing, which on bounded data looks like a stiffer
          linear one (correlation 0.84): the stress test.
C3        theta = (alpha, beta, delta); an unknown forcing is missing.
residual  C1, but the network corrects the solution instead of the equation:
          y(t) = ODESolve(physics)(t) + f_nn(y_sci(t), x0, t).

All of it is our own construction; see the book's chapter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate, windows
from hybridsam_lite.theta import Real, Theta

VARIANTS = {
    "C1": "friction unknown; theta = (alpha, beta); benign",
    "C2": "cubic spring unknown; theta = (alpha, delta); confounded, the stress test",
    "C3": "forcing unknown; theta = (alpha, beta, delta)",
    "residual": "C1 with the network added to the solution instead of the equation",
}

ALPHA, BETA, DELTA = 1.0, 1.0, 0.1
FORCING = {"C3": (1.0, 1.2)}  # gamma, omega
THETA = {"C1": ("alpha", "beta"), "C2": ("alpha", "delta"), "C3": ("alpha", "beta", "delta")}
START = {"alpha": (0.0, 3.0), "beta": (0.0, 3.0), "delta": (0.0, 0.5)}
UNITS = {"alpha": "1/s^2", "beta": "1/(m^2 s^2)", "delta": "1/s"}
DT, POINTS, WINDOW, NOISE = 0.1, 101, 20, 0.01

SERIES = {"smoke": (2, 1, 1), "quick": (25, 10, 25), "full": (50, 25, 50)}
STRIDE = {"smoke": 20, "quick": 5, "full": 1}
WIDTH = {"smoke": 8, "quick": 32, "full": 32}
TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 10, "batch_size": 8},
    "quick": {"steps": 1200, "batch_size": 32},
    "full": {"steps": 5000, "batch_size": 32},
}


class Duffing(HybridModel):
    """v' = -(known part of delta v + alpha x + beta x^3) + f_nn; RK4 with steps of 0.1 s.

    Inputs: x0 (sample, 2), t0 (sample, 1), t (time,). Prediction: (sample, time - 1, 2).

    Args:
        known: names of the terms that the physics has.
        width: of the network's two hidden layers.
        timed: give the network the absolute time too (for an unknown forcing).
    """

    def __init__(self, known: tuple[str, ...], width: int = 64, timed: bool = False) -> None:
        super().__init__()
        self.theta = Theta(**{name: Real(init=START[name], unit=UNITS[name]) for name in known})
        self.timed = timed
        self.net = mlp(3 if timed else 2, [width, width], 1)

    def _network(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat([y, 2 * t / (DT * POINTS) - 1], -1) if self.timed else y)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Predict the window after each initial state."""
        t0, values = inputs["t0"], self.theta.values()

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return torch.cat([y[..., 1:], physics(values, y) + self._network(t0 + t, y)], -1)

        y = odeint(rhs, inputs["x0"], inputs["t"]).transpose(0, 1)
        times = t0[:, None] + inputs["t"][None, :, None]
        return Prediction(y[:, 1:], network=self._network(times, y), physics=physics(values, y))


class DuffingResidual(HybridModel):
    """The physics is solved alone; a network of (y_sci, x0, t) is added to its solution."""

    def __init__(self, known: tuple[str, ...], width: int = 64) -> None:
        super().__init__()
        self.theta = Theta(**{name: Real(init=START[name], unit=UNITS[name]) for name in known})
        self.net = mlp(5, [width, width], 2)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Predict the window after each initial state."""
        values = self.theta.values()

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return torch.cat([y[..., 1:], physics(values, y)], -1)

        y = odeint(rhs, inputs["x0"], inputs["t"]).transpose(0, 1)[:, 1:]
        x0 = inputs["x0"][:, None].expand_as(y)
        t = inputs["t"][1:, None].expand(*y.shape[:2], 1)
        correction = self.net(torch.cat([y, x0, t], -1))
        return Prediction(y + correction, network=correction, physics=y)


def physics(values: dict[str, Tensor], y: Tensor) -> Tensor:
    """Acceleration by the terms whose coefficients are in `values`; y is (..., 2)."""
    x, v = y[..., :1], y[..., 1:]
    terms = {"alpha": x, "beta": x**3, "delta": v}
    return -torch.stack([coefficient * terms[name] for name, coefficient in values.items()]).sum(0)


def simulate_duffing(x0: Array, gamma: float = 0.0, omega: float = 1.2) -> Array:
    """Noise-free series from `x0` (series, 2): (series, 101, 2), 10 s in steps of 0.1 s."""

    def rhs(t: float, x: Array) -> Array:
        force = gamma * np.cos(omega * t)
        return np.stack([x[:, 1], force - DELTA * x[:, 1] - ALPHA * x[:, 0] - BETA * x[:, 0] ** 3], axis=1)

    return simulate(rhs, x0, np.arange(POINTS) * DT, rtol=1e-8)


def series(variant: str, count: int, seed: int) -> Array:
    """Noisy observations of `count` series with starts uniform in [-2, 2]^2, (series, 101, 2)."""
    generator = np.random.default_rng(seed)
    states = simulate_duffing(generator.uniform(-2, 2, (count, 2)), *FORCING.get(variant, ()))
    return states + NOISE * generator.standard_normal(states.shape)


def build(variant: str, preset: str) -> Task:
    """The task of a variant at a preset."""
    known, width = THETA.get(variant, THETA["C1"]), WIDTH[preset]
    parts = zip(("train", "val", "test"), SERIES[preset], (11, 12, 13), strict=True)
    data = {part: windows(series(variant, n, seed), DT, WINDOW, STRIDE[preset]) for part, n, seed in parts}
    truth = {"alpha": ALPHA, "beta": BETA, "delta": DELTA}
    residual = variant == "residual"
    return Task(
        name="duffing",
        variant=variant,
        preset=preset,
        train=data["train"],
        val=data["val"],
        test=data["test"],
        model=(lambda: DuffingResidual(known, width)) if residual else (lambda: Duffing(known, width, variant == "C3")),
        theta_true={name: truth[name] for name in known},
        units={name: UNITS[name] for name in known},
        training=TRAINING[preset],
    )
