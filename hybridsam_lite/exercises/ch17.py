"""Exercises of chapter 17: an anchor for theta, and what the network can imitate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, number, require, tensor, wrong
from hybridsam_lite.exercises.registry import question


@question(
    "ch17.q1",
    "Drop an anchor",
    """
    A network `rise` says by how much a resistance is larger at a given charge. It may add a constant to the
    resistance, and $R_0$ is lost. Return a function that has the same shape but cannot: $R_0$ is to be the resistance
    at the charge `anchor`.
    """,
    why="What the network does at the anchor is subtracted everywhere.",
    after="R0 has a definition now, and the network cannot take it over.",
)
def anchored(rise: Callable[[Tensor], Tensor], anchor: float) -> Callable[[Tensor], Tensor]:
    """A function of the charge, like rise."""
    return lambda charge: rise(charge) - rise(torch.tensor([anchor]))


@anchored.check
def _(ask: Ask) -> None:
    for _ in range(8):
        w, anchor = ask.normal(3), float(ask.uniform(0.2, 0.9))

        def rise(charge: Tensor, w: Tensor = w) -> Tensor:
            charge = torch.as_tensor(charge)
            return w[0] * torch.tanh(3 * charge) + w[1] * charge**2 + w[2]

        function, charge = ask(rise, anchor), ask.uniform(0, 1, 9)
        found = tensor(ask.outcome(function, charge), "what the function gives", (9,))
        at = float(tensor(ask.outcome(function, torch.tensor([anchor])), "what the function gives at the anchor", (1,)))
        shape = close(found - found[0], rise(charge) - rise(charge)[0], rtol=1e-5, atol=1e-7)
        require(
            not close(found, rise(charge)), "The function is still `rise`: it can add any constant to the resistance."
        )
        require(
            abs(at) < 1e-9 or not shape,
            f"At the anchor, a charge of {anchor:.2f}, the function should give zero. It gives another number.",
        )
        require(shape, "The function has lost its shape: differences between two charges should be those of `rise`.")


@question(
    "ch17.q2",
    "Can the network imitate it?",
    """
    Before any training: `effect` is the derivative of the physics by a theta at each of the data, the columns of
    `features` are what a network with fixed features can add up. Which share of the effect's mean square can the
    network *not* produce?
    """,
    why="Least squares; what is left over is orthogonal to all features.",
    after="A theta of which nothing is left can be taken over by the network.",
)
def not_imitated(effect: Tensor, features: Tensor) -> float:
    """A share between 0 and 1; effect has the shape (n,), features (n, count)."""
    best = torch.linalg.lstsq(features, effect[:, None]).solution
    left = effect - (features @ best)[:, 0]
    return float((left**2).mean() / (effect**2).mean())


@not_imitated.check
def _(ask: Ask) -> None:
    features = ask.normal(30, 4)
    inside = features @ ask.normal(4)
    share = number(ask(inside, features), "the share")
    require(
        not close(share, 1, atol=1e-6),
        "An effect that the features add up to exactly is imitated in full. This looks like the share that *can* be "
        "imitated.",
    )
    require(abs(share) < 1e-6, "For an effect that is a sum of the features nothing should be left.")
    for _ in range(8):
        effect = ask.normal(30) + 0.5 * inside
        found = number(ask(effect, features), "the share")
        require(-1e-9 <= found <= 1 + 1e-9, f"A share lies between 0 and 1; yours is {found:.3g}.")
        require(
            close(number(ask(7 * effect, features), "the share"), found, rtol=1e-5),
            "The share changes when theta gets another unit.",
        )
        left = effect - features @ torch.linalg.lstsq(features, effect[:, None]).solution[:, 0]
        right = float(left.square().mean() / effect.square().mean())
        require(
            not close(found, right**0.5, rtol=1e-5), "This is the share of the size. Asked is that of the mean square."
        )
        require(not close(found, 1 - right, rtol=1e-5), "This is the share that the network can produce.")
        require(
            found <= right * (1 + 1e-6),
            "A better combination of the features leaves less of the effect.",
        )
        if found < right * (1 - 1e-6):
            wrong("That is less than the best combination leaves.")
