"""Explicit simplicity: a wire that the wind shakes; what limits its swing is learned, or searched among simple terms.

x'' = -k x + d v [- 0.4 x^2 v]; theta = (k, d): stiffness, and the wind's push minus the wire's damping. The task is the
hybrid with a network. `discover` puts few terms of a library in the network's place, with error and size as objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import least_squares
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate, windows
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators
from hybridsam_lite.theta import Real, Theta

CARD = Card(
    title="Explicit simplicity",
    equation=r"\ddot x = f_\mathrm{sci}(x, \dot x; \theta) + f(x, \dot x), \quad "
    r"\min_f\, (\mathrm{error}, \mathrm{size})",
    wires="theta > physics > sum > solver > y; state > physics; state > network: network or few terms > sum",
    theta="stiffness and net damping of a wire in the wind",
    missing="a damping that grows with the swing",
    risk="a network of the whole state can hold both known terms; few terms cannot, if the right ones are among them",
    after=("hvatov2021",),
    simplified="all sums of up to three terms of a small library, in place of the evolution of free expressions",
    penalty=True,
)

K, D, LIMIT = 1.5, 0.6, 0.4  # 1/s^2, 1/s, 1/(m^2 s)
DT, POINTS, WINDOW, NOISE = 0.2, 31, 5, 0.02  # s; noise in m and m/s
SERIES = {"smoke": (2, 1, 1), "quick": (20, 10, 20), "full": (20, 10, 20)}

LIBRARY: dict[str, Any] = {
    "1": lambda x, v: 1.0, "x^2": lambda x, v: x**2, "x v": lambda x, v: x * v, "v^2": lambda x, v: v**2,
    "v |v|": lambda x, v: v * abs(v), "x^3": lambda x, v: x**3, "x^2 v": lambda x, v: x**2 * v,
    "x v^2": lambda x, v: x * v**2, "v^3": lambda x, v: v**3,
}  # fmt: skip
SIZES = dict(zip(LIBRARY, (1, 2, 2, 2, 2, 3, 3, 3, 3), strict=True))  # factors: the second objective adds them up


def rate(y: Any, k: Any, d: Any, missing: Any) -> Any:
    """The pair x', v' in m/s and m/s^2; y (..., 2) is array or tensor, `missing` (...) an acceleration."""
    return y[..., 1], -k * y[..., 0] + d * y[..., 1] + missing


def series(count: int, generator: np.random.Generator) -> Array:
    """Noisy swings from random starts, (series, time, 2) in m and m/s."""

    def rhs(_: float, y: Array) -> Array:
        return np.stack(rate(y, K, D, -LIMIT * y[:, 0] ** 2 * y[:, 1]), -1)

    states = simulate(rhs, generator.uniform(-2, 2, (count, 2)), np.arange(POINTS) * DT)
    return states + NOISE * generator.standard_normal(states.shape)


class Wire(HybridModel):
    """Inputs: x0 (sample, 2), t (time,). Prediction: the states at the later times, (sample, time - 1, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(k=Real(init=(0.5, 3.0), unit="1/s^2"), d=Real(init=(-0.5, 1.5), unit="1/s"))
        self.net = mlp(2, [16, 16], 1)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Solve the sum of the known terms and the network."""
        k, d = self.theta.k, self.theta.d
        y = odeint(
            lambda _, y: torch.stack(rate(y, k, d, self.net(y)[..., 0]), -1), inputs["x0"], inputs["t"]
        ).transpose(0, 1)
        return Prediction(y[:, 1:], network=self.net(y)[..., 0], physics=rate(y, k, d, 0.0)[1])


def solve(terms: Sequence[str], values: Array, data: Data) -> Array:
    """What k, d and the terms' coefficients predict, with the hybrid's own steps: (sample, time, 2)."""

    def rhs(_: Any, y: Tensor) -> Tensor:
        missing = sum(c * LIBRARY[term](y[:, 0], y[:, 1]) for c, term in zip(values[2:], terms, strict=True))
        return torch.stack(rate(y, values[0], values[1], missing), -1)

    assert isinstance(data.inputs, dict)
    return odeint(rhs, data.inputs["x0"].double(), data.inputs["t"].double()).transpose(0, 1)[:, 1:].numpy()


def discover(task: Task, most: int = 3) -> pd.DataFrame:
    """The Pareto front of (validation loss, size) over all sums of up to `most` terms, the smallest first.

    Each sum is fitted to the training data together with theta, by least squares on the same predictions as the
    hybrid's. The best of its size is kept if nothing smaller is as good; the true theta takes no part.
    """
    rows = []
    for terms in (c for count in range(most + 1) for c in combinations(LIBRARY, count)):

        def residual(values: Array, data: Data = task.train, terms: Sequence[str] = terms) -> Array:
            return (solve(terms, values, data) - data.target.numpy()).ravel()

        fit = least_squares(residual, [1.0, 0.0] + [0.0] * len(terms)).x
        found: dict[str, Any] = {"size": sum(SIZES[term] for term in terms), "terms": " + ".join(terms) or "none"}
        for name, data in (("val_loss", task.val), ("test_loss", task.test)):
            found[name] = float(np.mean(residual(fit, data) ** 2))
        rows.append({**found, "k": fit[0], "d": fit[1]})
    table = pd.DataFrame(rows).sort_values(["size", "val_loss"], ignore_index=True)
    return table[table["val_loss"] < table["val_loss"].cummin().shift(fill_value=np.inf)].reset_index(drop=True)


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, SERIES[preset], strict=True))
    data = {part: windows(series(counts[part], g), DT, WINDOW, stride=3) for part, g in generators().items()}
    return entry("explicit_simplicity", preset, data, Wire, {"k": K, "d": D}, {"k": "1/s^2", "d": "1/s"}, {"lr": 1e-2})
