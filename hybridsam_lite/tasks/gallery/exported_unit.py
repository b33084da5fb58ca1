"""An exported unit: an artery (two-element windkessel) comes as a closed component, as an FMU does.

The unit computes dP/dt = (Q - P / R) / C outside of PyTorch and gives its partial derivatives; nothing else is known of
it. theta = (R, C). That an artery stiffens with pressure is missing; a network adds it, and a solver runs around both.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks.base import Array, Task, windows
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import entry, generators
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Exported unit",
    equation=r"\dot P = \mathrm{unit}(P, Q; R, C) + f_\mathrm{nn}(P, Q; \phi)",
    wires="theta > physics: exported unit > sum > solver > P; P, Q > physics: exported unit; P, Q > network > sum",
    theta="resistance and compliance of an artery",
    missing="that the artery stiffens with pressure",
    risk="a network that sees pressure and flow can leak and store as the unit does",
    after=("thummerer2021",),
    simplified="one compartment in NumPy in place of an FMU of a whole model; Euler steps",
    penalty=True,
)

UNITS = {"R": "mmHg s/ml", "C": "ml/mmHg"}  # with pressure in 100 mmHg, flow in 100 ml/s
RESISTANCE, COMPLIANCE = 1.0, 1.4
STIFFENING, AT_REST = 0.8, 0.9  # of the compliance, 1 / (100 mmHg), 100 mmHg
FINE, DT, POINTS, WINDOW, NOISE = 20, 0.04, 51, 5, 0.005  # fine steps per interval, s; noise in 100 mmHg
SERIES = {"smoke": (2, 1, 1), "quick": (20, 10, 20), "full": (20, 10, 20)}


def unit(p: Array, q: Array, r: Array, c: Array) -> tuple[Array, tuple[Array, ...]]:
    """The component as it is exported: the derivative of P, and its partial derivatives by P, Q, R and C."""
    rate = (q - p / r) / c
    return rate, (-1 / (r * c), 1 / c, p / (r * r * c), -rate / c)


class Unit(torch.autograd.Function):
    """The unit in PyTorch, by its own partial derivatives; second ones count as zero. Arguments have one shape."""

    @staticmethod
    def forward(*arguments: Tensor) -> Any:
        rate, partial = unit(*(x.detach().double().numpy(force=True) for x in arguments))
        return tuple(torch.as_tensor(y).to(arguments[0]) for y in (rate, *partial))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, factor: Tensor, *_: Any) -> tuple[Tensor, ...]:
        return tuple(factor * partial for partial in ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, axes: tuple[int | None, ...], *arguments: Tensor) -> Any:
        members, pairs = info.batch_size, zip(arguments, axes, strict=True)
        front = [x.expand(members, *x.shape) if a is None else x.movedim(a, 0) for x, a in pairs]
        return Unit.apply(*front), (0,) * 5  # type: ignore[no-untyped-call]


def series(count: int, generator: np.random.Generator) -> Array:
    """Noisy pressure, and the flow from the heart, (series, time, 2)."""
    period, height = generator.uniform(0.6, 1.0, (count, 1)), generator.uniform(2.5, 4.5, (count, 1))
    t = np.arange(FINE * (POINTS - 1) + 1) * DT / FINE
    phase = (t / period + generator.uniform(0, 1, (count, 1))) % 1
    beat = np.where(phase < 0.35, height * np.sin(np.pi * phase / 0.35), 0.0)
    flow = np.repeat(beat[:, ::FINE], FINE, axis=1)[:, : len(t)]  # held within each interval
    p = [generator.uniform(0.7, 1.3, count)]  # in 100 mmHg
    for q in flow.T[:-1]:
        soft = COMPLIANCE * np.exp(-STIFFENING * (p[-1] - AT_REST))
        p.append(p[-1] + DT / FINE * (q - p[-1] / RESISTANCE) / soft)
    states = np.stack([np.stack(p, 1), flow], -1)[:, ::FINE]
    states[..., 0] += NOISE * generator.standard_normal(states.shape[:2])
    return states


def cut(long: Array) -> Data:
    """Windows: pressure at the start p (sample,), flows q (sample, 5) -> the next pressures (sample, 5)."""
    data = windows(long, DT, WINDOW, stride=3)
    start = cast("dict[str, Tensor]", data.inputs)["x0"]
    flow = torch.cat([start[:, 1:], data.target[:, :-1, 1]], 1)
    return Data({"p": start[:, 0], "q": flow}, data.target[..., 0])


class Artery(HybridModel):
    """Inputs: p (sample,), q (sample, 5). Prediction: pressures, (sample, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(R=Positive((0.4, 2.0), unit=UNITS["R"]), C=Positive((0.5, 3.0), unit=UNITS["C"]))
        self.net = mlp(2, [16, 16], 1)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Solve with two Euler steps in each interval."""
        p = inputs["p"]
        parts: list[tuple[Tensor, Tensor, Tensor]] = []  # pressure, network, physics
        for q in inputs["q"].unbind(1):
            for _ in range(2):
                physics = Unit.apply(*torch.broadcast_tensors(p, q, self.theta.R, self.theta.C))[0]  # type: ignore[no-untyped-call]
                network = self.net(torch.stack([2 * (p - 1), q / 2 - 0.5], -1))[..., 0]
                p = p + DT / 2 * (physics + network)
            parts.append((p, network, physics))
        p, network, physics = (torch.stack(each, 1) for each in zip(*parts, strict=True))
        return Prediction(p, network, physics)


def build(preset: str) -> Task:
    """The task at a preset."""
    data = {p: cut(series(n, g)) for (p, g), n in zip(generators().items(), SERIES[preset], strict=True)}
    return entry("exported_unit", preset, data, Artery, {"R": RESISTANCE, "C": COMPLIANCE}, UNITS, {"lr": 3e-3})
