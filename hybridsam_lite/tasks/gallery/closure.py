"""Closure: a reaction in a cooled vessel; the balances of mass and heat known, the law of the reaction's rate unknown.

c' = -r, T' = heat r - cooling (T - T_cool), with r = c softplus(f_nn(c, T)): the network is inside the physics. Only
the temperature is measured. theta = (heat, cooling). In truth r saturates with c and grows with T.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators, relative_error, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Closure",
    equation=r"\hat y = \mathrm{ODESolve}\bigl(f_\mathrm{sci}(\cdot\,; \theta, f_\mathrm{nn}(c, T; \phi))\bigr), \quad "
    r"\dot c = -r, \ \dot T = \theta_1 r - \theta_2 (T - T_\mathrm{cool})",
    wires="theta > physics: balances > solver > y; state > network: rate > physics: balances; "
    "state > physics: balances",
    theta="heat of the reaction, rate of cooling",
    missing="the law of the reaction's rate",
    risk="the concentration is not seen: a faster reaction of less heat warms the vessel alike, and hides better "
    "cooling",
    after=("rackauckas2020",),
    simplified="two states and short batches in place of the partial differential and stochastic equations there",
    penalty=True,
)

HEAT, COOLING = 1.5, 0.1  # 10 K per mol/l, 1/min; temperatures are in units of 10 K above 30 degrees C
TIMES = np.arange(6) * 1.5  # min
NOISE = 0.01  # 0.1 K
COUNT = {"smoke": (40, 20, 20), "quick": (200, 100, 200), "full": (200, 100, 200)}


def law(c: Array, temperature: Array) -> Array:
    """The true rate in mol/(l min): saturates with c, doubles with every 15 K."""
    return 0.1 * 2.0 ** (temperature / 1.5) * c / (1 + 0.5 * c)


def samples(count: int, generator: np.random.Generator) -> Data:
    """Batches: what is filled in (concentration, temperature), the coolant's temperature, five later temperatures."""
    start = generator.uniform((0.3, -1.0), (1.5, 2.0), (count, 2))
    cool = generator.uniform(-2.0, 0.0, count)

    def rhs(_: float, state: Array) -> Array:
        c, temperature = state[:, 0], state[:, 1]
        r = law(c, temperature)
        return np.stack([-r, HEAT * r - COOLING * (temperature - cool)], axis=1)

    temperatures = simulate(rhs, start, TIMES)[:, 1:, 1]
    noisy = temperatures + NOISE * generator.standard_normal(temperatures.shape)
    inputs = tensors(x0=start, cool=cool[:, None], t=TIMES)
    return Data(inputs, tensors(y=noisy)["y"], shared=("t",))


class Vessel(HybridModel):
    """Inputs: x0 (sample, 2) in mol/l and 10 K, cool (sample, 1) in 10 K, t (6,) in min.

    Prediction: the later temperatures, (sample, 5) in 10 K; its network is the rate that it computes, in mol/(l min),
    at the states that the solver passes, and its physics is what the cooling takes away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(
            heat=Positive(init=(0.5, 3.0), unit="10 K l/mol"), cooling=Positive(init=(0.03, 0.3), unit="1/min")
        )
        self.net = mlp(2, [16, 16], 1)

    def rate(self, state: Tensor) -> Tensor:
        """The closure, (..., 1): positive, and zero where there is nothing left to react; starts near 0.1 c per min."""
        return state[..., :1] * softplus(self.net(state) - 2)

    def balances(self, state: Tensor, rate: Tensor, cool: Tensor) -> Tensor:
        """f_sci: the derivative of concentration and temperature, given the rate."""
        warming = self.theta.heat * rate - self.theta.cooling * (state[..., 1:] - cool)
        return torch.cat([-rate, warming], -1)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Solve the balances with the network's rate inside."""
        cool = inputs["cool"]
        states = odeint(lambda _, y: self.balances(y, self.rate(y), cool), inputs["x0"], inputs["t"])[1:]
        temperature = states[..., 1].T
        lost = self.theta.cooling * (temperature - cool)
        return Prediction(temperature, network=self.rate(states)[..., 0].T, physics=-lost)


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, COUNT[preset], strict=True))
    data = {part: samples(counts[part], g) for part, g in generators().items()}
    truth: dict[str, float | Tensor] = {"heat": HEAT, "cooling": COOLING}
    units = {"heat": "10 K l/mol", "cooling": "1/min"}
    return entry("closure", preset, data, Vessel, truth, units, training={"lr": 3e-3}, error=relative_error)
