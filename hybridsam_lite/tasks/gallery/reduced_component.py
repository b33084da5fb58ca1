"""A reduced component: the drive of a rail switch; motor and spring known, the friction of the slide chairs unknown.

m v' = k (u - k v) / R - c p - friction(p, v); theta = (k, c). The network is one component of the drive and may only
take energy out of it: friction = g(p, v)^2 v.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate, windows
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Reduced component",
    equation=r"m \dot v = \tfrac{k}{R} (u - k v) - c\,p - f_\mathrm{nn}(p, v; \phi)^2\, v",
    wires="theta > physics: motor > sum > solver > y; theta > physics: spring > sum; "
    "state > physics: motor; state > physics: spring; state > network: friction > sum",
    theta="motor constant and spring stiffness of a drive",
    missing="the friction",
    risk="the back-EMF brakes as friction does, and a damping that depends on the position can push like a spring",
    after=("matei2020",),
    simplified="one learned component in a drive of three, and measured motion in place of a high-fidelity model's",
    penalty=True,
)

MOTOR, STIFFNESS = 2.0, 4.0  # N/A, N/m
MASS, RESISTANCE = 1.0, 2.0  # kg, Ohm
VOLTAGE, HOLD = 8.0, 5  # V, the largest; intervals for which a voltage is held
DT, POINTS, WINDOW, NOISE = 0.05, 31, 5, 0.01  # s; noise in m and m/s
SERIES = {"smoke": (2, 1, 1), "quick": (20, 10, 20), "full": (20, 10, 20)}


def friction(p: Any, v: Any) -> Any:
    """Force in N that brakes: dry friction, larger near standstill (Stribeck), larger at one end of the stroke."""
    return (0.8 + 0.4 * np.exp(-((v / 0.3) ** 2))) * np.tanh(v / 0.15) * (1 + 0.5 * np.tanh(2 * p))


def series(count: int, generator: np.random.Generator) -> Array:
    """Noisy position and velocity, and the voltage of the interval that follows, (series, time, 3)."""
    volts = np.repeat(generator.uniform(-VOLTAGE, VOLTAGE, (count, POINTS // HOLD + 1)), HOLD, axis=1)[:, :POINTS]
    states = [np.stack([generator.uniform(-1, 1, count), np.zeros(count)], axis=1)]
    for i in range(POINTS - 1):

        def rhs(_: float, state: Array, u: Array = volts[:, i]) -> Array:
            p, v = state[:, 0], state[:, 1]
            motor = MOTOR * (u - MOTOR * v) / RESISTANCE
            return np.stack([v, (motor - STIFFNESS * p - friction(p, v)) / MASS], axis=1)

        states.append(simulate(rhs, states[-1], np.array([0, DT]), rtol=1e-8)[:, -1])
    motion = np.stack(states, axis=1)
    noisy = motion + NOISE * generator.standard_normal(motion.shape)
    return np.concatenate([noisy, volts[:, :, None]], axis=2)


def cut(long: Array) -> Data:
    """Windows: x0 (sample, 2) -> the next states (sample, 5, 2) under the voltages u (sample, 5)."""
    data = windows(long, DT, WINDOW, stride=3)
    assert isinstance(data.inputs, dict)
    start = data.inputs["x0"]
    volts = torch.cat([start[:, None, 2], data.target[:, :-1, 2]], 1)
    inputs = {"x0": start[:, :2], "u": volts, "t": data.inputs["t"]}
    return Data(inputs, data.target[:, :, :2], shared=("t",))


class Drive(HybridModel):
    """Inputs: x0 (sample, 2) in m and m/s, u (sample, 5) in V, t (6,). Prediction: the next five states."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(k=Positive(init=(0.5, 4.0), unit="N/A"), c=Positive(init=(1.0, 8.0), unit="N/m"))
        self.net = mlp(2, [16, 16], 1, last_scale=1.0)

    def known(self, state: Tensor, u: Tensor) -> Tensor:
        """Force of motor and spring in N."""
        p, v = state[..., :1], state[..., 1:]
        return self.theta.k * (u - self.theta.k * v) / RESISTANCE - self.theta.c * p

    def friction(self, state: Tensor) -> Tensor:
        """Force in N that brakes: its power, friction times v, is never negative. The component is passive."""
        return self.net(state) ** 2 * state[..., 1:]

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Solve the network of components, interval by interval."""
        u, t, states = inputs["u"], inputs["t"], [inputs["x0"]]
        for i in range(WINDOW):

            def rhs(_: Tensor, y: Tensor, volts: Tensor = u[:, i, None]) -> Tensor:
                return torch.cat([y[..., 1:], (self.known(y, volts) - self.friction(y)) / MASS], -1)

            states.append(odeint(rhs, states[-1], t[i : i + 2])[1])
        y = torch.stack(states[1:], 1)
        return Prediction(y, network=-self.friction(y), physics=self.known(y, u[..., None]))


def component_error(prediction: Prediction, task: Task) -> dict[str, float]:
    """How well the learned component is the friction: root mean square of the difference, in N."""
    assert prediction.network is not None
    truth = -friction(prediction.value[..., :1].numpy(), prediction.value[..., 1:].numpy())
    return {"friction_error": float(np.sqrt(np.mean((prediction.network.numpy() - truth) ** 2)))}


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, SERIES[preset], strict=True))
    data = {part: cut(series(counts[part], g)) for part, g in generators().items()}
    return entry(
        "reduced_component", preset, data, Drive, {"k": MOTOR, "c": STIFFNESS}, {"k": "N/A", "c": "N/m"},
        metrics=component_error,
    )  # fmt: skip
