"""Battery: an equivalent circuit gives the state of a cell, a network turns the state into the voltage.

s' = -I / (3600 Q h), i' = (I - i) / tau; V = NN(s, i, I, h); theta = (Q, tau). s is the state of charge, i the current
through the resistor of one RC pair, h the health: what is left of the capacity, measured, the same within a series.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks.base import Task
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators, relative_error, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Battery, state-informed",
    equation=r"\dot x = f_\mathrm{sci}(x, I, h; \theta), \quad V = f_\mathrm{nn}(x, I, h; \phi)",
    wires="theta > physics: circuit > state > network > V; current > physics: circuit; current > network; "
    "health > physics: circuit; health > network",
    theta="capacity and time constant of a cell",
    missing="how state, current and health make the voltage",
    risk="the voltage is the network's alone; capacity and time constant only say which state it sees, and current and "
    "start of charge stand in for that",
    after=("tu2023",),
    simplified="one RC pair and a simulated cell; the health is an input, not estimated",
    penalty=False,
)

CAPACITY, TAU = 2.5, 60.0  # Ah, s
DT, POINTS, HOLD = 30.0, 20, 2  # s; readings of a series; readings for which a current is held
STRONGEST, OLDEST = 6.25, 0.75  # A: 2.5 C; least health
NOISE = 0.005  # V
COUNT = {"smoke": (40, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}


def circuit(capacity: Tensor, tau: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """State of charge and current through the resistor at the end of each interval, exact for held currents.

    Args:
        capacity, tau: in Ah and s.
        inputs: current (sample, time) in A, start (sample, 1) the state of charge, health (sample, 1).
    """
    current, steps = inputs["current"], torch.arange(POINTS)
    soc = inputs["start"] - current.cumsum(-1) * DT / (3600 * capacity * inputs["health"])
    lag = steps[:, None] - steps
    decay = torch.exp(-DT / tau)
    response = torch.where(lag >= 0, (1 - decay) * decay ** lag.clamp(min=0), 0.0)
    return soc, current @ response.T


def voltage(soc: Tensor, branch: Tensor, current: Tensor, health: Tensor) -> Tensor:
    """What the circuit lacks, in V: open circuit, less the ohmic drop and that of the charge transfer (asinh)."""
    rest = 3.3 + 0.85 * soc + 0.05 * torch.sin(2 * math.pi * soc) - 0.12 * torch.exp(-soc / 0.05)
    worn = 1 - health
    return rest - 0.02 * (1 + 2 * worn) * current - 0.05 * (1 + worn) * torch.asinh(branch / 1.5)


def series(count: int, generator: np.random.Generator) -> Data:
    """Discharges with random steps of current, and the noisy voltage at the end of each interval."""
    steps = generator.uniform(0, STRONGEST, (count, POINTS // HOLD))
    inputs = tensors(
        current=np.repeat(steps, HOLD, axis=1),
        start=generator.uniform(0.7, 1.0, (count, 1)),
        health=generator.uniform(OLDEST, 1.0, (count, 1)),
    )
    state = circuit(torch.tensor(CAPACITY), torch.tensor(TAU), inputs)
    noise = tensors(noise=NOISE * generator.standard_normal((count, POINTS)))["noise"]
    return Data(inputs, voltage(*state, inputs["current"], inputs["health"]) + noise)


class Battery(HybridModel):
    """Inputs: current (sample, 20) in A, start and health (sample, 1). Prediction: voltages (sample, 20) in V."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(capacity=Positive(init=(1.5, 4.0), unit="Ah"), tau=Positive(init=(20.0, 120.0), unit="s"))
        self.net = mlp(4, [16, 16], 1, last_scale=1.0)

    def network(self, soc: Tensor, branch: Tensor, current: Tensor, health: Tensor) -> Tensor:
        """The voltage in V; the network itself sees and gives numbers of order one."""
        seen = torch.stack(
            [(soc - 0.7) / 0.2, (branch - 3) / 2, (current - 3) / 2, ((health - 0.9) / 0.1).expand_as(soc)], -1
        )
        return 3.6 + 0.2 * self.net(seen)[..., 0]

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """The state, then its voltage."""
        soc, branch = circuit(self.theta.capacity, self.theta.tau, inputs)
        value = self.network(soc, branch, inputs["current"], inputs["health"])
        return Prediction(value, physics=torch.stack([soc, branch], -1))


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, COUNT[preset], strict=True))
    data = {part: series(counts[part], g) for part, g in generators().items()}
    return entry(
        "battery", preset, data, Battery, {"capacity": CAPACITY, "tau": TAU}, {"capacity": "Ah", "tau": "s"},
        training={"lr": 3e-3, "theta_lr": 3e-2}, error=relative_error,
    )  # fmt: skip
