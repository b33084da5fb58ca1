"""Pendulum time series: the frequency of a pendulum whose friction (or drive) is not in the model.

A1   damped pendulum (APHYNITY): q'' = -w2 sin q - alpha q'; the physics lacks the friction.
A1n  the same with measurement noise and longer windows.
A1near  A1 with theta started near the truth, to show what a lucky start hides.
A2   pendulum driven by an unknown swing-up controller; theta = g.
A3   forced, damped pendulum of which only the angle is seen; theta = w, inferred for each sequence.

Sources: Yin et al., APHYNITY, ICLR 2021 (arXiv 2010.04456) for A1; Takeishi and Kalousis, AISTATS 2023
(arXiv 2210.13103) for A2 (torque simulated by us) and NeurIPS 2021 (arXiv 2102.13156) for A3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate, windows
from hybridsam_lite.theta import Interval, Positive, Theta

VARIANTS = {
    "A1": "damped pendulum, friction unknown; theta = omega^2",
    "A1n": "A1 with noise 0.01 and windows of 10 steps",
    "A1near": "A1 with theta started within a factor of two or so of the truth",
    "A2": "controlled pendulum, torque unknown; theta = g",
    "A3": "forced damped pendulum, angle only; theta = w for each sequence (amortized)",
}

OMEGA2 = (2 * math.pi / 6) ** 2  # 1/s^2
DAMPING = 0.2  # 1/s
DT = 0.5  # s
POINTS = 40
NOISE = 0.01  # A1n
GRAVITY = 10.0  # m/s^2, A2; the rod is 1 m long

FAR = (0.1, 3.0)  # 1/s^2: theta is not known within a factor of thirty
NEAR = (0.2, 1.7)

SERIES = {"smoke": (3, 2, 2), "quick": (25, 25, 25), "full": (25, 25, 25)}
WIDTH = {"smoke": 8, "quick": 32, "full": 64}
TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 20, "batch_size": 16},
    "quick": {"steps": 2000, "batch_size": 32},
    "full": {"steps": 6000, "batch_size": 64},
}


class Pendulum(HybridModel):
    """q'' = -omega2 sin q + f_nn(q, q'), solved by RK4 with steps of a quarter second.

    Inputs: x0 (sample, 2), t (time,). Prediction: states after t[0], (sample, time - 1, 2).
    """

    def __init__(self, width: int = 64, start: tuple[float, float] = FAR) -> None:
        super().__init__()
        self.theta = Theta(omega2=Positive(init=start, unit="1/s^2"))
        self.net = mlp(2, [width, width], 1)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Predict the window after each initial state."""
        omega2 = self.theta.omega2

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            acceleration = -omega2 * torch.sin(y[..., :1]) + self.net(y)
            return torch.cat([y[..., 1:], acceleration], -1)

        y = odeint(rhs, inputs["x0"], inputs["t"], method="rk4", substeps=2).transpose(0, 1)
        return Prediction(y[:, 1:], network=self.net(y), physics=-omega2 * torch.sin(y[..., :1]))


def starts(seeds: Iterable[int]) -> Array:
    """APHYNITY's initial states, one per seed of numpy's legacy generator, (series, 2)."""
    drawn = []
    for seed in seeds:
        generator = np.random.RandomState(seed)
        direction = 2 * generator.rand(2) - 1
        radius = generator.rand() + 1.3
        drawn.append(radius * direction / np.linalg.norm(direction))
    return np.stack(drawn)


def damped(seeds: Iterable[int]) -> Array:
    """Noise-free A1 trajectories, (series, 40, 2): angle in rad and angular velocity in rad/s."""

    def rhs(t: float, x: Array) -> Array:
        return np.stack([x[:, 1], -OMEGA2 * np.sin(x[:, 0]) - DAMPING * x[:, 1]], axis=1)

    return simulate(rhs, starts(seeds), np.arange(POINTS) * DT)


def _build_damped(variant: str, preset: str) -> Task:
    n_train, n_val, n_test = SERIES[preset]
    seeds = {
        "train": range(n_train),
        "val": range(1000, 1000 + n_val),
        "test": range(2**31 - 1, 2**31 - 1 - n_test, -1),
    }
    noisy = variant == "A1n"
    data = {}
    for part, chosen in seeds.items():
        states = damped(chosen)
        if noisy:
            states = states + NOISE * np.random.default_rng(list(chosen)).standard_normal(states.shape)
        data[part] = windows(states, DT, length=10 if noisy else 4)
    width, start = WIDTH[preset], NEAR if variant == "A1near" else FAR
    return Task(
        name="pendulum",
        variant=variant,
        preset=preset,
        train=data["train"],
        val=data["val"],
        test=data["test"],
        model=lambda: Pendulum(width, start),
        theta_true={"omega2": OMEGA2},
        units={"omega2": "1/s^2"},
        training=TRAINING[preset],
    )


# --- A2: controlled pendulum -------------------------------------------------------------------------


class ControlledPendulum(HybridModel):
    """angle'' = 3 g / (2 l) sin(angle) + f_nn(cos, sin, v), angle 0 upright; RK4 with steps of 0.05 s."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.theta = Theta(g=Interval(8.0, 12.0, unit="m/s^2", init=(8.2, 11.8)))
        self.net = mlp(3, [width, width], 1)

    def _torque(self, y: Tensor) -> Tensor:
        angle, v = y[..., :1], y[..., 1:]
        return self.net(torch.cat([torch.cos(angle), torch.sin(angle), v / 8], -1))

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Predict the next ten states."""
        g = self.theta.g

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return torch.cat([y[..., 1:], 1.5 * g * torch.sin(y[..., :1]) + self._torque(y)], -1)

        y = odeint(rhs, inputs["x0"], inputs["t"]).transpose(0, 1)
        return Prediction(y[:, 1:], network=self._torque(y), physics=1.5 * g * torch.sin(y[..., :1]))


def swing_up_torque(angle: Array, v: Array) -> Array:
    """The controller: feedback near the top, energy pumping elsewhere, limited to 2 N m."""
    wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
    near_top = np.exp(-((wrapped / 0.5) ** 2))
    missing_energy = 1.5 * GRAVITY * (1 - np.cos(angle)) - v**2 / 2
    return np.clip(near_top * (-8 * wrapped - 2 * v) + (1 - near_top) * 0.3 * v * missing_energy, -2, 2)


def controlled(count: int, seed: int) -> Array:
    """A2 trajectories of ten seconds, (series, 201, 2)."""
    generator = np.random.default_rng(seed)
    x0 = np.stack([generator.uniform(-np.pi, np.pi, count), generator.uniform(-1, 1, count)], axis=1)

    def rhs(t: float, x: Array) -> Array:
        torque = swing_up_torque(x[:, 0], x[:, 1])
        return np.stack([x[:, 1], 1.5 * GRAVITY * np.sin(x[:, 0]) + 3 * torque], axis=1)

    return simulate(rhs, x0, np.arange(201) * 0.05, rtol=1e-8)


def _build_controlled(preset: str) -> Task:
    counts = {"smoke": (2, 1, 1), "quick": (20, 10, 20), "full": (50, 25, 50)}[preset]
    parts = zip(("train", "val", "test"), counts, (1, 2, 3), strict=True)
    data = {part: windows(controlled(n, seed), 0.05, length=10, stride=10) for part, n, seed in parts}
    width = WIDTH[preset]
    return Task(
        name="pendulum",
        variant="A2",
        preset=preset,
        train=data["train"],
        val=data["val"],
        test=data["test"],
        model=lambda: ControlledPendulum(width),
        theta_true={"g": GRAVITY},
        units={"g": "m/s^2"},
        training={**TRAINING[preset], "steps": {"smoke": 20, "quick": 1500, "full": 8000}[preset]},
        notes="the swing-up torque is our own: the original data file is not available",
    )


# --- A3: forced pendulum, amortized theta --------------------------------------------------------------

A3_POINTS, A3_DT, A3_NOISE = 50, 0.05, 0.01


class ForcedPendulum(HybridModel):
    """An encoder infers w and codes from the angle's series; a hybrid decoder reproduces the series.

    q'' = -w^2 sin q + f_nn(z1, q, q', t) inside the solver, then + g_nn(w, z1, z2) on the output.
    Input: the observed angle (sample, 50) in rad. Prediction: the same, reconstructed.
    """

    def __init__(self, width: int = 64, codes: int = 2) -> None:
        super().__init__()
        self.codes = codes
        self.encoder = mlp(A3_POINTS, [2 * width, width], 2 + 2 * codes, activation=torch.nn.SiLU, last_scale=1.0)
        self.inner = mlp(codes + 3, [width, width], 1)
        self.outer = mlp(1 + 2 * codes, [width], A3_POINTS)
        self.w = Positive(init=2.0, unit="rad/s")

    def forward(self, inputs: Tensor) -> Prediction:
        """Encode, solve, correct."""
        code = self.encoder(inputs)
        w = self.w.forward(code[:, :1])
        z1, z2 = code[:, 2 : 2 + self.codes], code[:, 2 + self.codes :]
        q0 = inputs[:, :1] + 0.1 * code[:, 1:2]

        def push(t: Tensor, y: Tensor) -> Tensor:
            share = 2 * t / (A3_DT * A3_POINTS) - 1  # of the series, from -1 to 1
            return self.inner(torch.cat([z1, y, share.expand_as(q0)], -1))

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            return torch.cat([y[:, 1:], -(w**2) * torch.sin(y[:, :1]) + push(t, y)], -1)

        t = torch.arange(A3_POINTS, dtype=inputs.dtype, device=inputs.device) * A3_DT
        y = odeint(rhs, torch.cat([q0, torch.zeros_like(q0)], -1), t)
        angle = y[..., 0].T
        correction = self.outer(torch.cat([w, z1, z2], -1))
        inside = torch.cat([push(t[i], y[i]) for i in range(0, A3_POINTS, 10)], -1)
        return Prediction(
            angle + correction,
            network=torch.cat([inside, correction], -1),
            physics=angle,
            theta={"w": w[:, 0]},
        )


def forced(count: int, seed: int) -> tuple[Array, Array]:
    """A3: observed angles (series, 50) with noise, and the true w (series,)."""
    generator = np.random.default_rng(seed)
    init = generator.uniform(-1.57, 1.57, count)
    w = generator.uniform(0.785, 3.14, count)
    gamma = generator.uniform(0, 0.8, count)
    amplitude = generator.uniform(0, 40, count)
    frequency = generator.uniform(3.14, 6.28, count)

    def rhs(t: float, x: Array) -> Array:
        drive = amplitude * w**2 * np.cos(2 * np.pi * frequency * t)
        return np.stack([x[:, 1], drive - gamma * x[:, 1] - w**2 * np.sin(x[:, 0])], axis=1)

    states = simulate(rhs, np.stack([init, np.zeros(count)], axis=1), np.arange(A3_POINTS) * A3_DT, rtol=1e-8)
    return states[..., 0] + A3_NOISE * generator.standard_normal((count, A3_POINTS)), w


def _build_forced(preset: str) -> Task:
    counts = {"smoke": (20, 10, 10), "quick": (300, 200, 300), "full": (1000, 500, 1000)}[preset]
    observed = [forced(n, seed) for n, seed in zip(counts, (1234, 1235, 1236), strict=True)]
    series = [torch.as_tensor(x, dtype=torch.float32) for x, _ in observed]
    data = {part: Data(x, x) for part, x in zip(("train", "val", "test"), series, strict=True)}
    width = WIDTH[preset]
    return Task(
        name="pendulum",
        variant="A3",
        preset=preset,
        train=data["train"],
        val=data["val"],
        test=data["test"],
        model=lambda: ForcedPendulum(width),
        theta_true={"w": torch.as_tensor(observed[2][1])},
        units={"w": "rad/s"},
        training={**TRAINING[preset], "steps": {"smoke": 5, "quick": 500, "full": 8000}[preset]},
    )


def build(variant: str, preset: str) -> Task:
    """The task of a variant at a preset."""
    if variant == "A2":
        return _build_controlled(preset)
    return _build_forced(preset) if variant == "A3" else _build_damped(variant, preset)
