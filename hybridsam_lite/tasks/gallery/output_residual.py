"""Output residual: oxygen in a river below a sewer; decay and reaeration known, photosynthesis unknown.

The physics is solved alone (Streeter and Phelps): L' = -decay L, D' = decay L - reaeration D for the organic load L and
the oxygen deficit D of the water that drifts downstream. The network is added to its solution. In truth the algae
also lower D by day and raise it by night.
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
    title="Output residual",
    equation=r"y_\mathrm{sci} = \mathrm{ODESolve}(f_\mathrm{sci}(\cdot\,; \theta), x_0), \quad "
    r"\hat y = y_\mathrm{sci} + f_\mathrm{nn}(y_\mathrm{sci}, x; \phi)",
    wires="theta > physics > solver > sum > y; start > solver; solver > network > sum; start > network; "
    "time of day > network",
    theta="rates of decay and of reaeration",
    missing="photosynthesis and respiration of the algae",
    risk="the network sees the solution and what it was made of: it can turn the solution of any theta into another's",
    after=("takeishi2023",),
    simplified="a river with two states and a global theta; no encoder",
    penalty=True,
)

DECAY, REAERATION = 0.35, 0.7  # 1/day
ALGAE = 6.0  # mg/(l day), their production at noon; over a day they produce as much as they breathe
TIMES = np.arange(6) * 0.5  # days
NOISE = 0.03  # mg/l
COUNT = {"smoke": (40, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}


def algae(day: Array) -> Array:
    """Oxygen in mg/(l day) that the algae add, from 6 to 18 o'clock, less what they breathe; day is 0 at midnight."""
    return ALGAE * (np.maximum(0, -np.cos(2 * np.pi * day)) - 1 / np.pi)


def samples(count: int, generator: np.random.Generator) -> Data:
    """Parcels of water: load and deficit at the sewer, the time of day there, and the deficit at five later times."""
    start = generator.uniform((5.0, 0.0), (20.0, 3.0), (count, 2))
    clock = generator.uniform(0, 1, count)

    def rhs(t: float, state: Array) -> Array:
        load, deficit = state[:, 0], state[:, 1]
        return np.stack([-DECAY * load, DECAY * load - REAERATION * deficit - algae(clock + t)], axis=1)

    deficit = simulate(rhs, start, TIMES, rtol=1e-8)[:, 1:, 1]
    noisy = deficit + NOISE * generator.standard_normal(deficit.shape)
    inputs = tensors(x0=start, clock=clock[:, None], t=TIMES)
    return Data(inputs, tensors(y=noisy)["y"], shared=("t",))


class River(HybridModel):
    """Inputs: x0 (sample, 2) load and deficit in mg/l, clock (sample, 1) in days since midnight, t (6,) in days.

    Prediction: the deficit at the later times in mg/l, (sample, 5).
    """

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(
            decay=Positive(init=(0.1, 1.0), unit="1/day"), reaeration=Positive(init=(0.2, 2.0), unit="1/day")
        )
        self.net = mlp(6, [32, 32], 1)

    def rhs(self, _: Tensor, state: Tensor) -> Tensor:
        """What is known of the derivative of load and deficit."""
        decayed = self.theta.decay * state[..., :1]
        return torch.cat([-decayed, decayed - self.theta.reaeration * state[..., 1:]], -1)

    def residual(self, y: Tensor, x0: Tensor, clock: Tensor, t: Tensor) -> Tensor:
        """What the network adds, in mg/l: a function of the solution, the start, the drift time and the time of day."""
        start = (x0[:, None] - x0.new_tensor([12.5, 1.5])) / x0.new_tensor([7.5, 1.5])
        angle = 2 * torch.pi * (clock + t)
        seen = [y / 5, *start.expand(-1, y.shape[1], -1).unbind(-1), (t - 1.5).expand_as(y), angle.cos(), angle.sin()]
        return self.net(torch.stack(seen, -1))[..., 0]

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Solve the physics, then add the residual."""
        y = odeint(self.rhs, inputs["x0"], inputs["t"])[1:, :, 1].T
        correction = self.residual(y, inputs["x0"], inputs["clock"], inputs["t"][1:])
        return Prediction(y + correction, network=correction, physics=y)


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, COUNT[preset], strict=True))
    data = {part: samples(counts[part], g) for part, g in generators().items()}
    truth: dict[str, float | Tensor] = {"decay": DECAY, "reaeration": REAERATION}
    units = dict.fromkeys(truth, "1/day")
    return entry("output_residual", preset, data, River, truth, units, training={"lr": 1e-2})
