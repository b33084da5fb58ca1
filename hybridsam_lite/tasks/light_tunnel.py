"""Light tunnel: the colour of a light source, inferred from one camera image of it.

Light of a colour (R, G, B) passes two polarizers, of which a share alpha = cos^2(angle between them) gets through, and
a camera sees a hexagon. The physics (model F1) says: the hexagon has the colour alpha (R, G, B), the rest is black. It
does not know that the camera mixes the colours, that the polarizers leak, or that the image has soft edges, a glow and
noise. theta = (R, G, B) and alpha are inferred for each image (amortized); nobody tells the model their true values.
Only the direction of (R, G, B) is determined; the error is the angle between its estimate and the truth.

residual     y = clip(y_sci + f_nn(y_sci, z)): the network is added to the physics.
nested       y = f_nn(y_sci, z): the physics is the network's input.
residual-F3, nested-F3   controls: the physics (model F3) knows the mixing and the leakage.

The network handles one colour channel at a time: it sees y_sci in that channel, the codes z and which channel it is.
If a nested network saw all channels at once, permuting the colours would permute its first weights and change nothing
else: not the loss, not the norm, not the sharpness. Then no method could tell red from blue.

Physics: models F1 to F3 of Gamella, Bühlmann and Peters, Causal chambers as a real-world physical testbed for AI
methodology, Nature Machine Intelligence 2025 (arXiv 2404.11341). The hybrid models and the simulated stand-in for the
data are our own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks import chambers
from hybridsam_lite.tasks.base import Task

VARIANTS = {
    "residual": "the network is added to the physics' image; theta = colour for each image (amortized)",
    "nested": "the network acts on the physics' image",
    "residual-F3": "control: residual, and the physics knows the camera's mixing and the polarizers' leakage",
    "nested-F3": "control: nested, with the same better physics",
}

SIDE, RADIUS = 64, 0.22  # pixels of the camera's image; circumradius of the hexagon as a share of them
MIXING = torch.tensor([2.65625, 1.0, 1.77344])[:, None] * torch.tensor(  # white balance times the sensor's response
    [[0.2995802, 0.06920322, 0.028159], [0.04017132, 0.9209918, 0.31265], [0.00217392, 0.2071558, 0.75763]]
)
PARALLEL, CROSSED = torch.tensor([0.29, 0.35, 0.33]), torch.tensor([0.02, 0.08, 0.18])  # transmission of the polarizers
EXPOSURE = {"F2": 0.8, "F3": 2.5}
CODES = 4

# What the stand-in has and F3 has not: pixels over which the edge fades, brightness lost in the image's corner, share
# of the light that glows outside of the hexagon and over how many pixels it fades, noise.
EDGE, VIGNETTE, GLOW, GLOW_WIDTH, NOISE = 1.0, 0.5, 0.1, 8.0, 0.01

SAMPLES = {"smoke": (40, 20, 20), "quick": (1500, 500, 1000), "full": (6000, 1000, 3000)}
WIDTH = {"smoke": 8, "quick": 64, "full": 64}
MODEL_SIDE = 16  # pixels that the images are averaged to
TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 10, "batch_size": 16},
    "quick": {"steps": 1500, "batch_size": 64},
    "full": {"steps": 6000, "batch_size": 64},
}


class LightTunnel(HybridModel):
    """An encoder infers colour, alpha and four codes from an image; physics and network reproduce the image.

    Inputs: images (sample, 3, side, side) from 0 to 1. Prediction: the same, reconstructed; theta "color" (sample, 3),
    of which only the direction means something, and "alpha" (sample,).

    Args:
        physics: "F1" or "F3".
        nested: feed the physics' image to the network instead of adding the network to it.
        side: of the images, a divisor of 64.
        width: of the hidden layers.
    """

    mask: Tensor
    channel: Tensor

    def __init__(self, physics: str, nested: bool, side: int = SIDE, width: int = 64) -> None:
        super().__init__()
        self.color = {"F1": color_f1, "F3": color_f3}[physics]
        self.nested = nested
        self.register_buffer("mask", shrink(hexagon()[None, None], side)[0, 0])
        self.register_buffer("channel", torch.eye(3))
        self.encoder = mlp(3 * side**2, [width, width], 4 + CODES, activation=nn.SiLU, last_scale=1.0)
        last_scale = 1.0 if nested else 0.1
        self.net = mlp(side**2 + CODES + 3, [width, width], side**2, activation=nn.SiLU, last_scale=last_scale)

    def forward(self, images: Tensor) -> Prediction:
        """Encode, simulate, correct."""
        code = self.encoder(images.flatten(1))
        rgb, alpha = torch.sigmoid(code[:, :3]), torch.sigmoid(code[:, 3:4])
        y = self.color(rgb, alpha)[:, :, None, None] * self.mask
        z = code[:, None, 4:].expand(-1, 3, -1)
        output = self.net(torch.cat([y.flatten(2), z, self.channel.expand(len(y), 3, 3)], -1)).reshape(y.shape)
        theta = {"color": rgb, "alpha": alpha[:, 0]}
        if self.nested:
            return Prediction(output, physics=y, theta=theta)
        return Prediction((y + output).clamp(0, 1), network=output, physics=y, theta=theta)


def color_f1(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Model F1: the hexagon's colour (sample, 3) for rgb (sample, 3) and alpha (sample, 1), all from 0 to 1."""
    return rgb * alpha


def color_f2(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Model F2: F1 as the camera sees it, with mixed colours and overexposure."""
    return (EXPOSURE["F2"] * mixed(rgb) * alpha).clamp(max=1)


def color_f3(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Model F3: F2 with polarizers that transmit each colour differently, also when crossed."""
    return transmitted(rgb, alpha).clamp(max=1)


def mixed(rgb: Tensor) -> Tensor:
    """Light of the colour `rgb` (sample, 3) as the camera's three channels measure it."""
    return rgb @ MIXING.to(rgb).T


def transmitted(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Model F3 without overexposure, (sample, 3)."""
    crossed = CROSSED.to(rgb)
    return EXPOSURE["F3"] * mixed(rgb) * ((PARALLEL.to(rgb) - crossed) * alpha + crossed)


def inside(side: int = SIDE) -> Tensor:
    """Distance of each pixel to the nearest side of the hexagon, in pixels and negative outside, (side, side)."""
    x = torch.arange(side, dtype=torch.float64) - side / 2
    y = x.flip(0)[:, None]
    normals = torch.arange(6, dtype=torch.float64) * math.pi / 3 + math.pi / 6  # vertices at multiples of 60 degrees
    reach = x[:, None] * normals.cos() + y[..., None] * normals.sin()
    return RADIUS * side * math.cos(math.pi / 6) - reach.amax(-1)


def hexagon(side: int = SIDE) -> Tensor:
    """The image models' mask: 1 inside of the hexagon, 0 outside, (side, side)."""
    return (inside(side) > 0).float()


def shrink(images: Tensor, side: int) -> Tensor:
    """Images (sample, channel, 64, 64) averaged over blocks to (sample, channel, side, side)."""
    return avg_pool2d(images, images.shape[-1] // side)


def stand_in(count: int, seed: int) -> chambers.Arrays:
    """Simulated images in place of the real ones and of the same form as `chambers.camera_images`.

    Model F3 with a hexagon whose edge is soft, light that falls off towards the corners and glows outside of the
    hexagon, overexposure and noise.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, 256, (count, 3)), generator.integers(-1800, 1801, (count, 2)) / 10
    light = transmitted(torch.as_tensor(drawn[0] / 255).float(), alpha_of(*drawn[1].T)[:, None].float())
    depth, center = inside(), torch.linspace(-1, 1, SIDE)
    vignette = 1 - VIGNETTE * (center**2 + center[:, None] ** 2) / 2
    shape = torch.sigmoid(depth / EDGE) + GLOW * torch.exp(depth.clamp(max=0) / GLOW_WIDTH) * (depth <= 0)
    scene = (shape * vignette).float()
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for part in np.array_split(np.arange(count), math.ceil(count / 500)):  # all at once would fill the memory
        noise = NOISE * generator.standard_normal((len(part), 3, SIDE, SIDE), dtype=np.float32)
        seen = light[part, :, None, None] * scene + torch.as_tensor(noise)
        images[part] = (255 * seen.clamp(0, 1)).round().to(torch.uint8).numpy()
    names = ("red", "green", "blue", "pol_1", "pol_2")
    return {"images": images, **dict(zip(names, np.hstack(drawn).T, strict=True))}


def alpha_of(pol_1: Any, pol_2: Any) -> Tensor:
    """Malus' law: the share of light that passes two polarizers at these angles (degrees)."""
    return torch.cos(torch.deg2rad(torch.as_tensor(pol_1) - torch.as_tensor(pol_2))) ** 2


def cosine(estimates: Tensor, truths: Tensor) -> Tensor:
    """Cosine of the angle between colours, (sample,); black has no direction and counts as 0."""
    norms = estimates.norm(dim=-1) * truths.norm(dim=-1)
    return (estimates * truths).sum(-1) / norms.clamp(min=1e-12)


def angle(estimates: dict[str, Tensor], truths: dict[str, Tensor]) -> float:
    """theta_error: the mean angle between estimated and true colour, in degrees.

    >>> one = torch.tensor([[1.0, 0.0, 0.0]])
    >>> angle({"color": torch.tensor([[0.5, 0.5, 0.0]])}, {"color": one})
    45.0
    """
    return float(torch.rad2deg(torch.acos(cosine(estimates["color"], truths["color"]).clamp(-1, 1))).mean())


def _mean_cosine(prediction: Prediction, task: Task) -> dict[str, float]:
    truth = task.theta_true["color"]
    assert prediction.theta is not None
    assert isinstance(truth, Tensor)
    return {"cosine": float(cosine(prediction.theta["color"].to(truth), truth).mean())}


def build(variant: str, preset: str, data: str = "stand-in") -> Task:
    """The task of a variant at a preset, with the simulated stand-in or with real data.

    Raises:
        RealDataError: if data="real" and it cannot be had.
    """
    counts, side, width = SAMPLES[preset], MODEL_SIDE, WIDTH[preset]
    if chambers.origin(data) == "real":
        parts = _split(chambers.camera_images(SIDE), counts)
    else:
        parts = [stand_in(n, seed) for n, seed in zip(counts, (31, 32, 33), strict=True)]
    images = [shrink(torch.as_tensor(part["images"]) / 255, side) for part in parts]
    color = np.stack([parts[2][name] for name in ("red", "green", "blue")], axis=1) / 255
    composition, _, better = variant.partition("-")
    return Task(
        name="light_tunnel",
        variant=variant,
        preset=preset,
        train=Data(images[0], images[0]),
        val=Data(images[1], images[1]),
        test=Data(images[2], images[2]),
        model=lambda: LightTunnel(better or "F1", composition == "nested", side, width),
        theta_true={"color": torch.as_tensor(color)},
        units={"color": "of full brightness"},
        training=TRAINING[preset],
        origin=data,
        error=angle,
        metrics=_mean_cosine,
        notes=f"{chambers.note('light_tunnel', data)}. theta_error is the mean angle in degrees between the estimated "
        f"and the true colour; the listed 0.98 is a cosine (11.5 degrees). Images are averaged to {side} x {side}.",
    )


def _split(every: chambers.Arrays, counts: tuple[int, ...]) -> list[chambers.Arrays]:
    """Parts of these sizes, drawn without replacement and always alike."""
    total = len(every["red"])
    if total < sum(counts):
        raise chambers.RealDataError(f"the real data has {total} images, expected at least {sum(counts)}")
    order = np.random.default_rng(0).permutation(total)
    cuts = np.split(order[: sum(counts)], np.cumsum(counts)[:-1])
    return [{name: values[cut] for name, values in every.items()} for cut in cuts]
