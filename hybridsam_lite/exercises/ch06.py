"""Exercises of chapter 6: declare a constant, write a hybrid model."""

from __future__ import annotations

from typing import Any

import torch

from hybridsam_lite.exercises.asking import Ask, brief, close, require, tensor
from hybridsam_lite.exercises.registry import question


@question(
    "ch06.q1",
    "Declare a constant",
    """
    A diffusion coefficient lies somewhere between $10^{-4}$ and $10^{-3}~\\mathrm{m^2/s}$. It cannot be negative.
    Declare it for `hs.Theta`, with its unit, so that each seed starts somewhere in this range.
    """,
    why="`hs.Interval(1e-4, 1e-3, ...)` with a unit is right too, if you are sure that it cannot be outside.",
    after="One learning rate now suits it beside a pressure of hundreds.",
)
def diffusion() -> Any:
    """A constraint: hs.Real, hs.Positive, hs.Interval or hs.Fixed, with its arguments."""
    import hybridsam_lite as hs

    return hs.Positive(init=(1e-4, 1e-3), unit="m^2/s")


@diffusion.check
def _(ask: Ask) -> None:
    from hybridsam_lite.theta import Constraint, Fixed

    found = ask()
    require(isinstance(found, Constraint), f"Expected something like hs.Real(...), got {brief(found)}.")
    require(not isinstance(found, Fixed), "hs.Fixed is for constants that are known. This one is to be found.")
    require(not found.admits(-5e-4), "This declaration would let training make the coefficient negative.")
    require(found.admits(2e-4) and found.admits(9e-4), "This declaration forbids values that the coefficient may have.")
    low, high = found.init_range
    require(
        high > low, "All seeds start at the same value. A start range shows whether the answer depends on the start."
    )
    require(
        low >= 0.99e-4 and high <= 1.01e-3,
        f"Starts are drawn from {low:g} to {high:g}. That is outside of what is known about the coefficient.",
    )
    require(high - low > 2e-4, f"Starts are drawn from {low:g} to {high:g} only: that is narrower than what is known.")
    unit = found.unit.replace(" ", "").replace("²", "^2").replace("**", "^")
    require(bool(unit), "The unit is missing.")
    require("m^2" in unit and "s" in unit, f"The unit is {found.unit!r}. A diffusion coefficient is an area per time.")


@question(
    "ch06.q2",
    "A residual model",
    """
    Write a hybrid model that adds its network to the answer: physics $x_0 e^{-\\theta t}$ with a positive rate, one
    theta named `rate`, plus a small `hs.mlp` that reads $x_0$ and $t$. `inputs` holds `x0` of shape (sample, 1) and
    `t` of shape (time,); the prediction has the shape (sample, time, 1). Return an `hs.Prediction` with the network's
    part in it, and build the model in `model()`.
    """,
    why="The part named `network` is what penalties on the network's output need. SAM does not.",
    after="All of the library can use it now: hs.fit, hs.select, hs.diagnose.",
)
def model() -> Any:
    """A new model, an instance of a class of yours."""
    import hybridsam_lite as hs

    class Residual(hs.HybridModel):
        def __init__(self) -> None:
            super().__init__()
            self.theta = hs.Theta(rate=hs.Positive(init=(0.5, 3.0), unit="1/s"))
            self.net = hs.mlp(2, [16], 1)

        def forward(self, inputs: dict[str, torch.Tensor]) -> hs.Prediction:
            x0, t = inputs["x0"][:, None], inputs["t"][None, :, None]
            physics = x0 * torch.exp(-self.theta.rate * t)
            network = self.net(torch.cat(torch.broadcast_tensors(x0, t), -1))
            return hs.Prediction(physics + network, network=network, physics=physics)

    return Residual()


@model.check
def _(ask: Ask) -> None:
    import hybridsam_lite as hs

    built = ask()
    require(
        isinstance(built, torch.nn.Module), f"Expected a model, got {brief(built)}. Return an instance, not the class."
    )
    built = built.double()
    roles = hs.roles(built)
    named = [n for n, role in roles.items() if role == "theta"]
    require(named, "No parameter of this model is theta. Put the rate into an hs.Theta.")
    require(
        len(named) == 1 and named[0].endswith("rate"),
        f"Theta should have one trained entry, rate; it has {', '.join(named)}.",
    )
    require("phi" in roles.values(), "This model has no network.")
    theta = next(m for m in built.modules() if isinstance(m, hs.Theta))
    require(not theta.constraints["rate"].admits(-1.0), "This rate may become negative in training.")
    inputs = {"x0": ask.normal(5, 1), "t": torch.linspace(0, 1, 4)}
    output = ask.outcome(built, inputs)
    require(isinstance(output, hs.Prediction), f"The model should return an hs.Prediction, got {brief(output)}.")
    value = tensor(output.value, "the prediction", (5, 4, 1))
    require(output.network is not None, "The prediction does not say what the network contributed.")
    network = tensor(output.network, "the network's part", (5, 4, 1))
    rate = float(theta.values()["rate"].detach())
    physics = inputs["x0"][:, None] * torch.exp(-rate * inputs["t"])[None, :, None]
    require(
        close(value - network, physics, rtol=1e-5, atol=1e-6),
        "Without the network's part, the prediction is not x0 exp(-rate t).",
    )
    moved = ask.outcome(built, {**inputs, "x0": inputs["x0"] + 1.0})
    later = ask.outcome(built, {**inputs, "t": inputs["t"] + 1.0})
    require(not close(moved.network, network), "The network does not read x0.")
    require(not close(later.network, network), "The network does not read t.")
