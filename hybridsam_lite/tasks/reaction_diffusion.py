"""Reaction-diffusion: two diffusion constants of a system whose reaction is not in the model.

U_t = a Lap U + U - U^3 - k - V and V_t = b Lap V + U - V on 32 x 32 pixels over [-1, 1]^2, from independent
uniform noise. The physics knows the diffusion, theta = (a, b); a convolutional network must find the
reaction. A 3 x 3 convolution can be a Laplacian too, so that the confounding is perfect.

B1  no flux through the boundary (the edge pixels are copied).
B2  periodic boundary.

Training predicts one frame (0.1) from the frame before it, on whole frames: a crop would not know its
neighbours, and in one step of RK4 the physics reaches four pixels far, the network twelve. Three of
four such windows start at t = 0, 0.1, 0.2, where the fields are rough and diffusion is most of the
change; the fourth starts later. The test predicts 15 frames from t = 0.

Sources: Takeishi and Kalousis, AISTATS 2023 (arXiv 2210.13103) for B1; Yin et al., APHYNITY, ICLR 2021
(arXiv 2010.04456) for B2. Short windows, the number of series and the missing batch normalization are
our own choices.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate
from hybridsam_lite.theta import Positive, Theta

VARIANTS = {
    "B1": "reaction unknown, no flux through the boundary; theta = (a, b)",
    "B2": "reaction unknown, periodic boundary; theta = (a, b)",
}

SIZE, DT, HORIZON = 32, 0.1, 15  # pixels a side; time between frames; frames that the test predicts
DIFFUSION = {"B1": (1.5e-3, 5e-3), "B2": (1e-3, 5e-3)}  # a, b
FEED = 5e-3  # k
PADDING: dict[str, Literal["replicate", "circular"]] = {"B1": "replicate", "B2": "circular"}
PIXEL = {"B1": 2 / (SIZE - 1), "B2": 2 / SIZE}
POINTS = {"B1": 16, "B2": 30}  # frames of a series
START = {"a": (1e-3, 2e-3), "b": (1e-3, 1e-2)}

SERIES = {"smoke": (4, 2, 2), "quick": (100, 8, 16), "full": (400, 16, 100)}
WIDTH = {"smoke": 4, "quick": 16, "full": 16}
TRAINING: dict[str, dict[str, Any]] = {  # one frame holds 1024 pixels: many steps serve better than large batches
    "smoke": {"steps": 5, "batch_size": 1},
    "quick": {"steps": 1500, "batch_size": 1},
    "full": {"steps": 8000, "batch_size": 1},
}
EARLY = 3  # windows of each series that start at its first frames
CHUNK = 16  # series simulated at once: they fit into the processor's cache


class ReactionDiffusion(HybridModel):
    """x' = (a Lap U, b Lap V) + f_nn(x) for fields x = (U, V), solved by RK4 with steps of 0.1.

    Inputs: x0 (sample, 2, 32, 32), t (time,). Prediction: the frames after t[0], (sample, time - 1, 2, 32, 32).
    The network is three 3 x 3 convolutions with tanh between, which pad as the boundary asks for. The
    unit of theta's steps is half the range that it is drawn from, as in `hs.Real`: at `hs.fit`'s rates, which
    add up to half a step of 0.01 each, 700 training steps suffice to cross it.

    Args:
        variant: "B1" or "B2", for the boundary and the pixel's size.
        width: channels of the two hidden layers.
    """

    def __init__(self, variant: str = "B1", width: int = 16) -> None:
        super().__init__()
        self.padding, self.pixel = PADDING[variant], PIXEL[variant]
        self.theta = Theta(**{n: Positive(init=r, scale=(r[1] - r[0]) / 2) for n, r in START.items()})
        layers: list[nn.Module] = []
        for fan_in, fan_out in ((2, width), (width, width), (width, 2)):
            layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1, padding_mode=self.padding), nn.Tanh()]
        self.net = nn.Sequential(*layers[:-1])
        with torch.no_grad():
            for parameter in self.net[-1].parameters():
                parameter.mul_(0.1)  # a small start, as in hs.mlp

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Predict the frames after each initial one."""
        diffusion = torch.stack(list(self.theta.values().values()))[:, None, None] / self.pixel**2
        stages: list[tuple[Tensor, Tensor]] = []

        def rhs(t: Tensor, x: Tensor) -> Tensor:
            stages.append((self.net(x), diffusion * laplacian(x, self.padding)))
            return stages[-1][0] + stages[-1][1]

        x = odeint(rhs, inputs["x0"], inputs["t"])
        network, physics = (torch.stack(part, 1) for part in zip(*stages[::4], strict=True))  # RK4's first stages
        return Prediction(x[1:].transpose(0, 1), network=network, physics=physics)


def laplacian(x: Tensor, padding: str) -> Tensor:
    """Sum of the four neighbours minus four times the pixel; divide by the pixel's size squared.

    Args:
        x: fields, (sample, channel, height, width).
        padding: "replicate" (no flux) or "circular" (periodic).

    >>> laplacian(torch.eye(3)[None, None], "replicate")[0, 0]
    tensor([[-2.,  2.,  0.],
            [ 2., -4.,  2.],
            [ 0.,  2., -2.]])
    """
    p = pad(x, (1, 1, 1, 1), mode=padding)
    return p[..., 1:-1, 2:] + p[..., 1:-1, :-2] + p[..., 2:, 1:-1] + p[..., :-2, 1:-1] - 4 * x


def reaction(x: Tensor) -> Tensor:
    """What the model does not know: (U - U^3 - k - V, U - V), of x's shape (sample, 2, height, width)."""
    u, v = x.unbind(1)
    return torch.stack([u - u**3 - FEED - v, u - v], 1)


def fields(variant: str, count: int, seed: int) -> Array:
    """Noise-free series from uniform noise, (series, time, 2, 32, 32), double precision.

    B1 is solved by RK4 with steps of 0.01: within single precision the same as steps of 0.001, which the
    source takes. B2 is solved by RK45 with a relative tolerance of 1e-6.
    """
    x0 = np.random.default_rng(seed).uniform(0, 1, (count, 2, SIZE, SIZE))
    t = np.arange(POINTS[variant]) * DT
    diffusion = torch.tensor(DIFFUSION[variant], dtype=torch.float64)[:, None, None] / PIXEL[variant] ** 2

    def rhs(t: Any, x: Tensor) -> Tensor:
        return diffusion * laplacian(x, PADDING[variant]) + reaction(x)

    def solve(part: Array) -> Array:
        if variant == "B1":
            return odeint(rhs, torch.from_numpy(part), torch.from_numpy(t), substeps=10).transpose(0, 1).numpy()
        flat = part.reshape(len(part), -1)
        solution = simulate(
            lambda time, x: rhs(time, torch.from_numpy(x).view(part.shape)).numpy().reshape(flat.shape),
            flat, t, rtol=1e-6, method="RK45",
        )  # fmt: skip
        return solution.reshape(len(part), len(t), *part.shape[1:])

    return np.concatenate([solve(x0[i : i + CHUNK]) for i in range(0, count, CHUNK)])


def frame_pairs(series: Array) -> Data:
    """Four windows of one frame from each series: from t = 0, 0.1, 0.2, and from a later time.

    Args:
        series: (series, time, 2, height, width); the later times take turns from series to series.

    Returns:
        Data with inputs x0 (window, 2, height, width) and t = (0, 0.1), target (window, 1, 2, height, width).

    >>> data = frame_pairs(np.zeros((5, 16, 2, 4, 4)))
    >>> len(data), data.target.shape
    (20, torch.Size([20, 1, 2, 4, 4]))
    """
    index = np.arange(len(series))
    later = EARLY + index % (series.shape[1] - 1 - EARLY)
    starts = np.column_stack([np.tile(np.arange(EARLY), (len(series), 1)), later])
    before, after = (series[index[:, None], starts + shift].reshape(-1, *series.shape[2:]) for shift in (0, 1))
    return _data(before, after[:, None])


def _data(x0: Array, target: Array) -> Data:
    t = torch.arange(target.shape[1] + 1, dtype=torch.float32) * DT
    inputs = {"x0": torch.as_tensor(x0, dtype=torch.float32), "t": t}
    return Data(inputs, torch.as_tensor(target, dtype=torch.float32), shared=("t",))


def build(variant: str, preset: str) -> Task:
    """The task of a variant at a preset."""
    train, val, test = (fields(variant, n, seed) for n, seed in zip(SERIES[preset], (21, 22, 23), strict=True))
    width = WIDTH[preset]
    return Task(
        name="reaction_diffusion",
        variant=variant,
        preset=preset,
        train=frame_pairs(train),
        val=frame_pairs(val),
        test=_data(test[:, 0], test[:, 1 : HORIZON + 1]),
        model=lambda: ReactionDiffusion(variant, width),
        theta_true=dict(zip(START, DIFFUSION[variant], strict=True)),
        units=dict.fromkeys(START, ""),
        training=TRAINING[preset],
    )
