"""Wildcard: a driven pendulum; how physics and networks are connected is learned, by linear connections.

q'' = -omega2 sin(q) + gain u [- 0.2 q' |q'|]; theta = (omega2, gain). Four blocks in a fixed order, x = (q, q', u),
network "before", physics, network "after": each reads linear combinations of what came before it, and so does y = q''.
All connections together are a strictly lower block-triangular matrix: one pass computes all, no block waits for itself,
and there are no algebraic loops. The physics' own connections are fixed at 1, for their gain would be theta's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Wildcard",
    equation=r"u_b = \sum_{a < b} W_{ba}\, y_a, \quad y_b = f_b(u_b), \quad b \in (\mathrm{nn}, \mathrm{sci}, "
    r"\mathrm{nn}, \mathrm{out})",
    wires="theta > physics > sum > y; x > network: before > physics > network: after > sum; x > physics; "
    "x > network: after; network: before > network: after; network: before > sum; x > sum",
    theta="squared frequency and gain of the drive of a pendulum",
    missing="the drag of the water",
    risk="a direct connection does what the gain does, and before or after the physics a network can bend its sine",
    after=("thummerer2024",),
    simplified="blocks without states and events in an order that is given; the physics' own connections are fixed",
    penalty=True,
)

OMEGA2, GAIN, DRAG = 2.0, 1.0, 0.2  # 1/s^2, 1/(s^2 V), 1/rad
DT, STEPS, NOISE = 0.3, 2, 0.01  # s; states predicted; rad and rad/s
COUNT = {"smoke": (40, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}
# Block -> its connections, (numbers that it reads, numbers given so far: q, q', u, before, physics, after).
SHAPES = {"before": (3, 3), "physics": (3, 4), "after": (3, 5), "y": (1, 6)}


class Wildcard(HybridModel):
    """Inputs: x0 (sample, 2) in rad and rad/s, u (sample, 1) in V, t (3,). Prediction: two states (sample, 2, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(
            omega2=Positive(init=(0.5, 4.0), unit="1/s^2"), gain=Positive(init=(0.2, 2.0), unit="1/(s^2 V)")
        )
        self.before, self.after = mlp(3, [16], 1), mlp(3, [16], 1)
        self.learned = nn.ParameterDict({name: 0.1 * torch.randn(shape) for name, shape in SHAPES.items()})
        with torch.no_grad():
            for name in ("before", "after"):  # which begin by seeing x
                self.learned[name] += torch.eye(*SHAPES[name])
        own = {"physics": torch.eye(3, 4), "y": torch.eye(1, 6).roll(4, 1)}  # reads x; is read by y
        for name, shape in SHAPES.items():
            self.register_buffer(f"own_{name}", own.get(name, torch.zeros(shape)))

    def connections(self) -> dict[str, Tensor]:
        """The weights with which each block reads; where the physics' own are 1, nothing is learned."""
        own = {name: self.get_buffer(f"own_{name}") for name in SHAPES}
        return {name: own[name] + (1 - own[name]) * w for name, w in self.learned.items()}

    def physics(self, x: Tensor) -> Tensor:
        """The known acceleration in rad/s^2, (..., 1)."""
        return -self.theta.omega2 * torch.sin(x[..., :1]) + self.theta.gain * x[..., 2:]

    def acceleration(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """One pass through the blocks, each from the signals so far; (..., 1)."""
        signals = x
        for name, block in (("before", self.before), ("physics", self.physics), ("after", self.after)):
            signals = torch.cat([signals, block(signals @ weights[name].T)], -1)
        return signals @ weights["y"].T

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Solve; what the network contributed is all that differs from the physics alone."""
        u, weights = inputs["u"], self.connections()

        def rhs(_: Tensor, state: Tensor) -> Tensor:
            return torch.cat([state[..., 1:], self.acceleration(torch.cat([state, u], -1), weights)], -1)

        states = odeint(rhs, inputs["x0"], inputs["t"]).transpose(0, 1)
        x = torch.cat([states, u[:, None].expand(-1, STEPS + 1, -1)], -1)
        known = self.physics(x)
        return Prediction(states[:, 1:], network=self.acceleration(x, weights) - known, physics=known)


def samples(count: int, generator: np.random.Generator) -> Data:
    """Random starts under a constant drive, and the noisy states that follow."""
    x0, u = generator.uniform(-2, 2, (count, 2)), generator.uniform(-1, 1, (count, 1))

    def rhs(_: float, state: Array) -> Array:
        q, w = state[:, :1], state[:, 1:]
        return np.concatenate([w, -OMEGA2 * np.sin(q) + GAIN * u - DRAG * w * np.abs(w)], axis=1)

    t = np.arange(STEPS + 1) * DT
    states = simulate(rhs, x0, t)
    measured = tensors(y=states[:, 1:] + NOISE * generator.standard_normal((count, STEPS, 2)))
    return Data(tensors(x0=x0, u=u, t=t), measured["y"], shared=("t",))


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, COUNT[preset], strict=True))
    data = {part: samples(counts[part], g) for part, g in generators().items()}
    return entry(
        "wildcard", preset, data, Wildcard, {"omega2": OMEGA2, "gain": GAIN},
        {"omega2": "1/s^2", "gain": "1/(s^2 V)"}, training={"lr": 1e-2},
    )  # fmt: skip
