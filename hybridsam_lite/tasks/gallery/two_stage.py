"""Two stages: frequency and amplitude of a decaying tone first, then a second network adds the overtone.

y1 = f_sci(theta(x)), y2 = stop(y1) + f_nn(stop(y1), z(x)): stop() keeps the value and cuts the gradient, so that
stage 1 learns from its own error alone, although both train at the same time.

The method `hs.TwoStage` reaches the same end in another way: it is an order in time, for any additive model with a
global theta, and its first stage sets all of phi to zero. Here theta comes out of an encoder, which is phi and must not
be zero; so the order lies in the architecture, and holds for every method.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks.base import Array, Task
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import PARTS, entry, generators, tensors

CARD = Card(
    title="Two stages",
    equation=r"y_1 = f_\mathrm{sci}(\theta(x)), \quad y_2 = y_1 + f_\mathrm{nn}(y_1, z(x); \phi)",
    wires="x > network: encoder > theta > physics > stop > network: detail > sum > y; stop > sum; "
    "network: encoder > network: detail",
    theta="frequency and amplitude of each decaying tone (amortized)",
    missing="the overtone",
    risk="the detail cannot take over theta's work; but stage 1 explains the whole tone with theta alone, so the "
    "overtone bends theta",
    after=("srivastava2020",),
    simplified="both stages train at once, the gradient cut between them; a plain encoder in place of a "
    "variational one",
    penalty=True,
)

DECAY, OVERTONE = 0.8, 2.4  # 1/s; ratio of the frequencies (a struck bar's is 2.76, a tube's 2 or 3)
FREQUENCY, AMPLITUDE = (0.7, 1.3), (0.6, 1.4)  # Hz, mm: ranges
DURATION, POINTS, NOISE = 3.0, 40, 0.01  # s; readings; mm
CODES = 2
SAMPLES = {"smoke": (40, 20, 20), "quick": (300, 100, 200), "full": (300, 100, 200)}
TIMES = torch.linspace(0, DURATION, POINTS)


def tone(frequency: Tensor, amplitude: Tensor) -> Tensor:
    """A decaying tone in mm: (sample, 1) in Hz and in mm -> (sample, 40)."""
    return amplitude * torch.exp(-DECAY * TIMES) * torch.cos(2 * math.pi * frequency * TIMES)


def overtone(frequency: Tensor, amplitude: Tensor, share: Tensor) -> Tensor:
    """What the tone lacks: it follows the tone's factors, is stronger in loud tones, and fades twice as fast."""
    return share * amplitude * tone(OVERTONE * frequency, amplitude) * torch.exp(-DECAY * TIMES)


def simulate(count: int, generator: np.random.Generator) -> dict[str, Array]:
    """Noisy tones (sample, 40) with their frequency, amplitude and share of the overtone, each (sample, 1)."""
    ranges = {"frequency": FREQUENCY, "amplitude": AMPLITUDE, "share": (0.1, 0.4)}
    drawn = {name: generator.uniform(*limits, (count, 1)) for name, limits in ranges.items()}
    f, a, share = (torch.as_tensor(drawn[name]) for name in ranges)
    clean = (tone(f, a) + overtone(f, a, share)).numpy()
    return {**drawn, "y": clean + NOISE * generator.standard_normal(clean.shape)}


class TwoStages(HybridModel):
    """Inputs: y (sample, 40) in mm. Prediction: what each stage makes of it, (sample, 2, 40).

    The loss compares both stages with the tone; theta is "frequency" and "amplitude" of each sample.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = mlp(POINTS, [32, 32], 2 + CODES, last_scale=1.0)
        self.net = mlp(POINTS + CODES, [32], POINTS)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Stage 1 alone, then the detail that is added to it."""
        factors, code = self.encoder(inputs["y"]).split([2, CODES], -1)
        f, a = (
            low + (high - low) * torch.sigmoid(factors[:, i, None])
            for i, (low, high) in enumerate([(0.5, 1.5), (0.2, 1.8)])
        )
        first = tone(f, a)
        kept = first.detach()  # stage 2 builds on stage 1, and does not teach it
        detail = self.net(torch.cat([kept, code], -1))
        value = torch.stack([first, kept + detail], 1)
        return Prediction(value, network=detail, physics=first, theta={"frequency": f[:, 0], "amplitude": a[:, 0]})


def stages(prediction: Prediction, task: Task) -> dict[str, float]:
    """Each stage's test loss by itself, in mm^2: what the detail adds."""
    error = (prediction.value - task.test.target).square().mean((0, 2))
    return {"first_loss": float(error[0]), "second_loss": float(error[1])}


def build(preset: str) -> Task:
    """The task at a preset."""
    counts = dict(zip(PARTS, SAMPLES[preset], strict=True))
    drawn = {part: simulate(counts[part], g) for part, g in generators().items()}
    data = {}
    for part, found in drawn.items():
        y = tensors(y=found["y"])
        data[part] = Data(y, y["y"][:, None].expand(-1, 2, -1).clone())
    truth: dict[str, float | Tensor] = {n: torch.as_tensor(drawn["test"][n][:, 0]) for n in ("frequency", "amplitude")}
    return entry(
        "two_stage", preset, data, TwoStages, truth, {"frequency": "Hz", "amplitude": "mm"},
        training={"lr": 3e-3}, metrics=stages,
    )  # fmt: skip
