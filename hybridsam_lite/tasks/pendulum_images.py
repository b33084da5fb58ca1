"""Pendulum images: the frequency of a pendulum that is seen only as a film.

q'' = -omega2 sin q - 0.2 q' is filmed: a soft white bob on a black ground, 32 x 32 pixels, with noise.
From five context frames an encoder infers the angle and its velocity, the physics (a pendulum without
friction) moves them on, a decoder paints each angle. Networks stand before and after the physics, not
beside it: no network output is added to anything, and hand-made penalties on f_nn have nothing to act on.

D1  encoder and decoder are the only networks; nothing in the model can take up the friction.
D2  in addition a network is added to the right-hand side, which can.

The decoder may paint any picture for any angle, so that the latent angle means something only up to its
sign and offset, and omega2 is known only by how the motion of the picture depends on its amplitude.

All of it is our own construction; see the book's chapter.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.integrate import odeint
from hybridsam_lite.tasks.base import Array, Task, simulate
from hybridsam_lite.theta import Positive, Theta

VARIANTS = {
    "D1": "encoder, frictionless pendulum, decoder; theta = omega^2",
    "D2": "D1 with a network added to the right-hand side",
}

OMEGA2, DAMPING = 1.0966, 0.2  # 1/s^2, 1/s
DT, POINTS, CONTEXT, NOISE = 0.1, 25, 5, 0.02
STRIDE = 3  # frames 0, 3, ..., 24 are compared: a third of the cost, and the whole motion
SIDE, RADIUS, BLUR = 32, 11.0, 1.7  # pixels
BRIGHTNESS = 4.0  # of the encoder's first layer: most of a frame is black, and pixels vary by 0.1 only
SHARPNESS = 4.0  # of the decoder's first layer: a pixel lights up within 0.15 rad

SERIES = {"smoke": (16, 8, 8), "quick": (400, 100, 100), "full": (800, 200, 200)}
WIDTH = {"smoke": 8, "quick": 32, "full": 64}  # of the network inside the solver
PAINTER = {"smoke": 16, "quick": 64, "full": 64}  # width of the decoder
CHANNELS = {"smoke": (4, 4, 8), "quick": (16, 32, 64), "full": (16, 32, 64)}
RATES = {"lr": 3e-3, "theta_lr": 3e-2}
TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 4, "batch_size": 4, **RATES},
    "quick": {"steps": 1500, "batch_size": 16, **RATES},
    "full": {"steps": 6000, "batch_size": 16, **RATES},
}

Images = NDArray[np.float32]


class Encoder(nn.Module):
    """Context frames (sample, frame, side, side) -> angle and velocity (sample, 2).

    Three convolutions and a linear layer. Their kernels are as wide as their stride, 2, which makes
    each a matrix product: for a stack of models on a CPU this is many times faster than a convolution.
    The angle is that of a unit vector, which starts near (1, 0), the pendulum at rest.
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        sizes = (CONTEXT, *channels)
        self.halve = nn.ModuleList(nn.Linear(4 * sizes[i], sizes[i + 1]) for i in range(3))
        self.read = nn.Linear(channels[-1] * (SIDE // 8) ** 2, 3)
        with torch.no_grad():
            next(self.halve.parameters()).mul_(BRIGHTNESS)

    def forward(self, frames: Tensor) -> Tensor:
        """Infer the state at the first frame."""
        x = frames.movedim(1, -1)
        for layer in self.halve:
            samples, side, _, channels = x.shape
            x = x.reshape(samples, side // 2, 2, side // 2, 2, channels).transpose(2, 3)
            x = torch.relu(layer(x.reshape(samples, side // 2, side // 2, 4 * channels)))
        cosine, sine, velocity = self.read(x.flatten(1)).unbind(-1)
        return torch.stack([torch.atan2(sine, 1 + cosine), velocity], -1)


class PendulumFilm(HybridModel):
    """Encoder, q'' = -omega2 sin q (D2: both rates + f_nn(q, q')), decoder of (cos q, sin q).

    Inputs: context (sample, 5, side, side), t (time,) from the first frame on. Prediction: the frames at
    the times t, (sample, time, side, side); physics is the latent angle, (sample, time).

    Args:
        channels: of the encoder's three convolutions.
        painter: width of the decoder's hidden layers.
        width: of the hidden layers of a network added to the right-hand side; 0 for none (D1).
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64), painter: int = 64, width: int = 0) -> None:
        super().__init__()
        self.theta = Theta(omega2=Positive(init=0.5, unit="1/s^2"))
        self.encoder = Encoder(channels)
        self.decoder = mlp(2, [painter, painter], SIDE**2)
        with torch.no_grad():
            for parameter in self.decoder[0].parameters():
                parameter.mul_(SHARPNESS)
        self.net = mlp(2, [width, width], 2) if width else None

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Encode, solve, paint."""
        omega2, net = self.theta.omega2, self.net

        def rhs(t: Tensor, y: Tensor) -> Tensor:
            rates = torch.stack([y[..., 1], -omega2 * torch.sin(y[..., 0])], -1)
            return rates if net is None else rates + net(y)

        y = odeint(rhs, self.encoder(inputs["context"]), inputs["t"]).transpose(0, 1)
        angle = y[..., 0]
        frames = self.decoder(torch.stack([torch.cos(angle), torch.sin(angle)], -1))
        value = frames.unflatten(-1, (SIDE, SIDE))
        return Prediction(value, network=None if net is None else net(y), physics=angle)


def angles(count: int, seed: int) -> tuple[Array, np.random.Generator]:
    """True angles (series, 25) in rad, and the generator for what is drawn after them."""
    generator = np.random.default_rng(seed)
    x0 = np.stack([generator.uniform(-math.pi / 2, math.pi / 2, count), generator.uniform(-1, 1, count)], axis=1)

    def rhs(t: float, x: Array) -> Array:
        return np.stack([x[:, 1], -OMEGA2 * np.sin(x[:, 0]) - DAMPING * x[:, 1]], axis=1)

    return simulate(rhs, x0, np.arange(POINTS) * DT, rtol=1e-8)[..., 0], generator


def render(angle: Array) -> Images:
    """Noise-free images (..., side, side): the bob hangs down at angle 0 and is to the right at pi/2."""
    centre, pixels = (SIDE - 1) / 2, np.arange(SIDE)

    def profile(position: Array) -> Array:
        return np.exp(-((pixels - position[..., None]) ** 2) / (2 * BLUR**2))

    rows, columns = profile(centre + RADIUS * np.cos(angle)), profile(centre + RADIUS * np.sin(angle))
    return (rows[..., :, None] * columns[..., None, :]).astype(np.float32)


def film(count: int, seed: int) -> tuple[Images, Array]:
    """Noisy frames (series, 25, side, side), and the true angles (series, 25)."""
    angle, generator = angles(count, seed)
    images = render(angle)
    return images + np.float32(NOISE) * generator.standard_normal(images.shape, dtype=np.float32), angle


def angle_error(latent: Tensor, truth: Tensor) -> float:
    """Mean |difference| in rad between latent and true angles, after the best change of sign and offset.

    For each sign the offset is the circular mean of truth - sign * latent over all series and times;
    differences are taken on the circle. One sign and one offset for the whole set: a latent angle that is
    stretched or bent stays wrong.

    Args:
        latent, truth: angles in rad, of one shape.

    >>> truth = torch.linspace(-1.0, 1.0, 7)
    >>> round(angle_error(0.3 - truth, truth), 6)
    0.0
    """
    errors = []
    for sign in (1, -1):
        turn = torch.polar(torch.ones_like(truth), truth - sign * latent)
        errors.append((turn / turn.mean()).angle().abs().mean())
    return float(torch.stack(errors).min())


def _metrics(truth: Tensor, prediction: Prediction, task: Task) -> dict[str, float]:
    assert prediction.physics is not None
    return {"angle_error": angle_error(prediction.physics.to(truth), truth)}


def build(variant: str, preset: str) -> Task:
    """The task of a variant at a preset."""
    t = torch.arange(0, POINTS, STRIDE, dtype=torch.float32) * DT
    data, truth = {}, torch.empty(0)
    for part, count, seed in zip(("train", "val", "test"), SERIES[preset], (21, 22, 23), strict=True):
        frames, angle = film(count, seed)
        images, truth = torch.as_tensor(frames), torch.as_tensor(angle[:, ::STRIDE].copy())  # keeps that of test
        data[part] = Data({"context": images[:, :CONTEXT], "t": t}, images[:, ::STRIDE].clone(), shared=("t",))
    channels, painter, width = CHANNELS[preset], PAINTER[preset], WIDTH[preset] if variant == "D2" else 0
    return Task(
        name="pendulum_images",
        variant=variant,
        preset=preset,
        train=data["train"],
        val=data["val"],
        test=data["test"],
        model=lambda: PendulumFilm(channels, painter, width),
        theta_true={"omega2": OMEGA2},
        units={"omega2": "1/s^2"},
        training=TRAINING[preset],
        metrics=partial(_metrics, truth),
        notes=f"the loss is over every frame number that {STRIDE} divides, context and target",
    )
