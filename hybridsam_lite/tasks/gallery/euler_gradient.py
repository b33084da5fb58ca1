"""Euler gradient: a hybrid in which the solver gives no gradient; that of one explicit Euler step stands in for it.

Lorenz's convection in units of ten: x' = sigma (y - x), y' = x (rho - 10 z) - y, z' = 10 x y [- beta z]; theta =
(sigma, rho). The simulator is NumPy, a black box to autograd. Before each of its steps a network gives a rate, held
during the step, as sub-models of climate models do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks.base import Array, Task, simulate, windows
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Euler gradient",
    equation=r"y_{k+1} = \mathrm{Solver}_h(f_\mathrm{sci}(\cdot; \theta) + u_k),\; u_k = f_\mathrm{nn}(y_k; \phi),\; "
    r"\partial y_{k+1} := \partial\,[\,y_k + h\,(f_\mathrm{sci}(y_k; \theta) + u_k)\,]",
    wires="theta > physics: simulator > y; state > physics: simulator; state > network > physics: simulator",
    theta="Prandtl and Rayleigh numbers of Lorenz's convection",
    missing="the damping of the temperature profile",
    risk="the network adds to all three rates and can take over any term; theta's gradient is approximate, too",
    after=("ouala2024",),
    simplified="a system of three states; the network is called once in a step, and theta is trained as well",
    penalty=True,
)

SIGMA, RHO, BETA, UNIT = 10.0, 28.0, 8 / 3, 10.0
DT, START, POINTS, WINDOW, NOISE = 0.02, 50, 61, 4, 0.01  # units of the system; steps before the record begins
SERIES = {"smoke": (2, 1, 1), "quick": (14, 7, 14), "full": (14, 7, 14)}


def rate(y: Any, theta: Any, stack: Any) -> Any:
    """What is known of the derivative of y (..., 3), for theta (..., 2); tensors or arrays."""
    a, b, c, sigma, rho = y[..., 0], y[..., 1], y[..., 2], theta[..., 0], theta[..., 1]
    return stack([sigma * (b - a), a * (rho - UNIT * c) - b, UNIT * a * b], -1)


def simulator(y: Array, u: Array, theta: Array) -> Array:
    """The state (..., 3) after DT: classic Runge-Kutta in NumPy, with the rate u (..., 3) added throughout."""
    k1 = rate(y, theta, np.stack) + u
    k2 = rate(y + DT / 2 * k1, theta, np.stack) + u
    k3 = rate(y + DT / 2 * k2, theta, np.stack) + u
    k4 = rate(y + DT * k3, theta, np.stack) + u
    return y + DT / 6 * (k1 + 2 * (k2 + k3) + k4)


def euler(y: Tensor, u: Tensor, theta: Tensor) -> Tensor:
    """The step whose derivatives stand in for the simulator's; both agree to first order in DT."""
    return y + DT * (rate(y, theta, torch.stack) + u)


class SimulatorStep(torch.autograd.Function):
    """Forward the simulator, backward the explicit Euler step; y, u (..., 3) and theta (..., 2) broadcast."""

    @staticmethod
    def forward(y: Tensor, u: Tensor, theta: Tensor) -> Tensor:
        """Leave torch, simulate, come back."""
        return torch.as_tensor(simulator(*(x.cpu().numpy() for x in (y, u, theta)))).to(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep where the step began: all that an Euler step needs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Vector-Jacobian product of the Euler step."""
        return torch.func.vjp(euler, *ctx.saved_tensors)[1](grads[0])

    @staticmethod
    def vmap(info: Any, axes: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, int]:
        """Many members are one more axis in front; where others have more axes, ones come behind it."""
        n, most = info.batch_size, max(x.ndim + (a is None) for x, a in zip(inputs, axes, strict=True))
        front = (x.expand(n, *x.shape) if a is None else x.movedim(a, 0) for x, a in zip(inputs, axes, strict=True))
        return advance(*(x.reshape(n, *[1] * (most - x.ndim), *x.shape[1:]) for x in front)), 0


advance: Any = SimulatorStep.apply


class Convection(HybridModel):
    """Inputs: x0 (sample, 3), t (5,), t0. Prediction: the next four states in units of ten, (sample, 4, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(sigma=Positive(init=(5.0, 20.0)), rho=Positive(init=(15.0, 50.0)))
        self.net = mlp(3, [16, 16], 3)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Step by step: the network reads the state, the simulator advances it."""
        theta, states = torch.stack([self.theta.sigma, self.theta.rho]), [inputs["x0"]]
        for _ in range(WINDOW):
            states.append(advance(states[-1], 10 * self.net(states[-1]), theta))
        y = torch.stack(states, 1)
        return Prediction(y[:, 1:], network=10 * self.net(y), physics=rate(y, theta, torch.stack))


def series(count: int, generator: np.random.Generator) -> Array:
    """Noisy states (series, time, 3), recorded once they are near the attractor."""
    theta, damping, t = np.array([SIGMA, RHO]), np.array([0, 0, BETA]), np.arange(START + POINTS) * DT
    states = simulate(lambda _, y: rate(y, theta, np.stack) - damping * y, generator.uniform(0.5, 2, (count, 3)), t)
    return states[:, START:] + NOISE * generator.standard_normal((count, POINTS, 3))


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, SERIES[preset], strict=True))
    data = {part: windows(series(counts[part], g), DT, WINDOW, stride=4) for part, g in generators().items()}
    return entry(
        "euler_gradient", preset, data, Convection, {"sigma": SIGMA, "rho": RHO},
        {"sigma": "", "rho": ""}, training={"lr": 3e-3},
    )  # fmt: skip
