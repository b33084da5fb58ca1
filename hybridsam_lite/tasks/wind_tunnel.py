"""Wind tunnel: the position of the hatch, inferred from the pressure curve of one fan impulse.

Two fans push air through a tunnel; a hatch lets some of it out. An impulse of the intake fan gives a curve
of 50 pressures. The physics knows the fans' speeds and the curve's shape, and the hatch H enters it as a gain
only: any gain of a network explains H away exactly. theta = H / 45 degrees is inferred for each impulse
(amortized), and nobody tells the model its true value.

residual  y = y_sci + f_nn(y_sci, z): the network is added to the physics.
nested    y = f_nn(y_sci, z): the physics is the network's input, and no penalty on its output is possible. What
          flatness makes of the hatch then depends on how f_nn is parametrized; two more variants show how.

Physics: models A1 (speed at the start), A2 (speed), C3 (pressure) of Gamella, Bühlmann and Peters, Causal chambers
as a real-world physical testbed for AI methodology, Nature Machine Intelligence 2025 (arXiv 2404.11341). The hybrid
models and the simulated stand-in for the data are our own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp
from hybridsam_lite.tasks import chambers
from hybridsam_lite.tasks.base import Array, Task

VARIANTS = {
    "nested": "the network acts on the physics' output; theta = hatch for each impulse (amortized)",
    "residual": "the network is added to the physics' output",
    "nested-centered": "nested; the network sees deviations from the mean curve",
    "nested-linear": "nested-centered, with a linear path beside the network that starts as the identity",
}

L_MIN = 0.1  # the load below which a fan keeps its speed
W_MAX = 314.159  # rad/s
INERTIA = 3.481e-5  # kg m^2
TORQUE = 0.05 * (0.27 - 0.166)  # N m at full load: constant T times the span of currents C_max - C_min
DRAG = TORQUE / W_MAX**2  # K
Q_MAX, S_MAX = 0.051861, 74.8247395  # m^3/s, Pa
R0, BETA = 0.75, 0.15  # share of the air that flows freely: with the hatch closed, and what the open hatch adds
OPEN = 45.0  # degrees: the widest hatch
NOISE = 0.2  # Pa, of one sensor reading
DURATION, POINTS, SUBSTEPS = 7.58541261, 50, 100  # s; readings; Euler steps between two readings
LOAD_OUT, IMPULSE = 0.5, (5, 25)  # the intake fan is at full load from the first index to the second, else at 0.01
CODES = 4

# The stand-in's fans and sensor are not the physics': exponent of the torque, coupling of the fans, lag in seconds.
STAND_IN_EXPONENT, STAND_IN_COUPLING, STAND_IN_LAG = 2.0, 0.05, 0.15

SAMPLES = {"smoke": (60, 20, 20), "quick": (1000, 300, 500), "full": (3000, 500, 1500)}
WIDTH = {"smoke": 16, "quick": 64, "full": 64}
TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 10, "batch_size": 16},
    "quick": {"steps": 2000, "batch_size": 64},
    "full": {"steps": 10_000, "batch_size": 64},
}


class WindTunnel(HybridModel):
    """An encoder infers the hatch and four codes from a pressure curve; physics and network reproduce the curve.

    Inputs: pressure (sample, 50) in Pa, minus its first reading; fans (sample, 50) in Pa, the pressure that the fans
    would build up if no air could flow. Prediction: the pressure curves again, (sample, 50); theta "hatch" (sample,)
    as a share of 45 degrees.

    Args:
        nested: network of physics, or physics plus network.
        center, unit: a curve (50,) and a pressure in Pa: networks see and return (curve - center) / unit.
        linear: add a linear path to the network that starts as the identity of the physics' output.
        width: of the hidden layers.
    """

    center: Tensor

    def __init__(self, nested: bool, center: Tensor, unit: float, linear: bool = False, width: int = 64) -> None:
        super().__init__()
        self.nested, self.unit = nested, unit
        self.register_buffer("center", center)
        self.encoder = mlp(POINTS, [width, width], 1 + CODES, activation=nn.SiLU, last_scale=1.0)
        starts_small = linear or not nested
        self.net = mlp(
            POINTS + CODES, [width, width], POINTS, activation=nn.SiLU, last_scale=0.1 if starts_small else 1.0
        )
        self.linear = nn.Linear(POINTS + CODES, POINTS) if linear else None
        if self.linear is not None:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, inputs: dict[str, Tensor]) -> Prediction:
        """Encode, simulate, correct."""
        code = self.encoder((inputs["pressure"] - self.center) / self.unit)
        hatch = torch.sigmoid(code[:, :1])
        y = tunnel_pressure(hatch, inputs["fans"])
        y = y - y[:, :1]
        seen = torch.cat([(y - self.center) / self.unit, code[:, 1:]], -1)
        output = self.unit * (self.net(seen) if self.linear is None else self.net(seen) + self.linear(seen))
        theta = {"hatch": hatch[:, 0]}
        if self.nested:
            return Prediction(self.center + output, physics=y, theta=theta)
        return Prediction(y + output, network=output, physics=y, theta=theta)


def tunnel_pressure(hatch: Any, fans: Any) -> Any:
    """Pressure above the ambient in Pa, tensors or arrays: model C3, solved.

    C3 intersects the fan's line S = S_max (w/w_max)^2 - (S_max/Q_max) (w/w_max) Q with the tunnel's curve
    S = S_max/Q_max^2 (1-r)/r^2 Q^2; the intersection is at S = S_max (1-r) (w/w_max)^2.

    Args:
        hatch: share of 45 degrees, broadcastable to `fans`.
        fans: S_max (w_in^2 - w_out^2) / w_max^2 in Pa.
    """
    return (1 - R0 - BETA * hatch) * fans


def fan_speed(load: Array, t: Array, exponent: float = 3.0) -> Array:
    """Speed of a fan in rad/s under a load in [0, 1]: models A1 and A2, (..., time) like `load`.

    The load of an interval's end holds for the whole interval; Euler with 100 steps in each.
    """
    torque = TORQUE * np.where(load == 0, 0.0, np.maximum(L_MIN, load) ** exponent)
    speed = [np.maximum(load[..., 0], L_MIN) * W_MAX]
    for i in range(1, load.shape[-1]):
        w, dt = speed[-1], (t[..., i] - t[..., i - 1]) / SUBSTEPS
        for _ in range(SUBSTEPS):
            w = w + dt * (torque[..., i] - DRAG * w**2) / INERTIA
        speed.append(w)
    return np.stack(speed, axis=-1)


def fan_pressure(w_in: Array, w_out: Array) -> Array:
    """What the fans would build up if no air could flow, in Pa."""
    return S_MAX * (w_in**2 - w_out**2) / W_MAX**2


def impulse() -> tuple[Array, Array, Array]:
    """Times in s and the loads of both fans during one impulse, each (50,)."""
    load_in = np.full(POINTS, 0.01)
    load_in[slice(*IMPULSE)] = 1.0
    return np.linspace(0, DURATION, POINTS), load_in, np.full(POINTS, LOAD_OUT)


def stand_in(count: int, seed: int) -> chambers.Arrays:
    """Simulated impulses in place of the real data.

    Returns:
        curves: pressures minus the first reading (impulse, 50) in Pa; fans: the physics' (impulse, 50) in Pa; hatch
        (impulse,) as a share of 45 degrees. The curves come from other fans than the physics knows (torque
        that grows with the square of the load, and fans that drag each other along) and from a sensor that lags.
    """
    generator = np.random.default_rng(seed)
    t, load_in, load_out = impulse()
    hatch = np.round(generator.uniform(0, OPEN, count), 1) / OPEN
    w_in, w_out = (fan_speed(load, t, STAND_IN_EXPONENT) for load in (load_in, load_out))
    pressure = tunnel_pressure(hatch[:, None], fan_pressure(w_in, w_out + STAND_IN_COUPLING * w_in))
    keep = math.exp(-(t[1] - t[0]) / STAND_IN_LAG)
    shown = [pressure[:, 0]]
    for i in range(1, POINTS):
        shown.append(keep * shown[-1] + (1 - keep) * pressure[:, i])
    curves = np.stack(shown, axis=1) + NOISE * generator.standard_normal((count, POINTS))
    fans = fan_pressure(fan_speed(load_in, t), fan_speed(load_out, t))
    return {"curves": curves - curves[:, :1], "fans": np.broadcast_to(fans, curves.shape), "hatch": hatch}


def build(variant: str, preset: str, data: str = "stand-in") -> Task:
    """The task of a variant at a preset, with the simulated stand-in or with real data.

    Raises:
        RealDataError: if data="real" and it cannot be had.
    """
    counts = SAMPLES[preset]
    if chambers.origin(data) == "real":
        parts = chambers.split(measured(), counts)
    else:
        parts = [stand_in(n, seed) for n, seed in zip(counts, (21, 22, 23), strict=True)]
    train, val, test = (_as_data(part) for part in parts)
    composition, _, form = variant.partition("-")
    center = train.target.mean(0) if form else torch.zeros(POINTS)
    unit = float((train.target - center).std())
    return Task(
        name="wind_tunnel",
        variant=variant,
        preset=preset,
        train=train,
        val=val,
        test=test,
        model=lambda: WindTunnel(composition == "nested", center, unit, form == "linear", WIDTH[preset]),
        theta_true={"hatch": torch.as_tensor(parts[2]["hatch"])},
        units={"hatch": "of 45 degrees"},
        training=TRAINING[preset],
        origin=data,
        notes=chambers.note("wind_tunnel", data),
    )


def measured() -> chambers.Arrays:
    """The real impulses, in the form of `stand_in`; the physics' fans follow each impulse's own loads and times."""
    real = chambers.impulses()
    curves = real["pressure_downwind"] - real["pressure_downwind"][:, :1]
    speed_in, speed_out = (fan_speed(real[f"load_{fan}"], real["time"]) for fan in ("in", "out"))
    return {"curves": curves, "fans": fan_pressure(speed_in, speed_out), "hatch": real["hatch"] / OPEN}


def _as_data(part: chambers.Arrays) -> Data:
    pressure = torch.tensor(part["curves"], dtype=torch.float32)
    return Data({"pressure": pressure, "fans": torch.tensor(part["fans"], dtype=torch.float32)}, pressure)
