"""Exercises of chapter 1: a network that undoes any theta, and an experiment that tells."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, number, require, tensor, wrong
from hybridsam_lite.exercises.registry import question


@question(
    "ch01.q1",
    "The network that undoes a wrong theta",
    """
    Take any `theta` you like for the wall of the mug. Which network makes the model {eq}`why-additive` agree with the
    coffee {eq}`why-truth` exactly? The true constant of the wall is `k`, and `evaporation` is a function of `T`.
    """,
    why="Put it in, and `theta` cancels. So every `theta` fits, and none is better than another.",
    after="So each theta has a network that makes up for it: the data cannot tell them apart.",
)
def network(T: Tensor, theta: float, k: float, evaporation: Callable[[Tensor], Tensor]) -> Tensor:
    """What the network must give at temperatures T, in °C per minute; the room is at 20 °C."""
    return (theta - k) * (T - 20) - evaporation(T)


@network.check
def _(ask: Ask) -> None:
    for theta, k, a, b in ask.uniform(0.005, 0.1, 20, 4).tolist():

        def evaporation(T: Tensor, a: float = a, b: float = b) -> Tensor:
            return a * (T - 20) ** 2 / 100 + b

        T = ask.uniform(30, 90, 7)
        found = tensor(ask(T, theta, k, evaporation), "the network's output", (7,))
        cup, model = -k * (T - 20) - evaporation(T), -theta * (T - 20) + found
        if close(cup, model, rtol=1e-5):
            continue
        require(not close(found, -evaporation(T)), "This is right only if `theta` has its true value already.")
        require(
            not close(cup - model, -2 * found),
            "Look at the signs: which of the two sides must the network make up for?",
        )
        require(
            not close(cup - model, (cup - model)[0], rtol=1e-5),
            "The model is wrong by the same amount at each temperature. Something that does not depend on T is "
            "missing.",
        )
        require(
            not close(found, (theta - k) * (T - 20)),
            "With this network the wall comes out right, but one part of the cooling is in neither the physics nor it.",
        )
        wrong(
            f"At theta = {theta:.3f} and T = {float(T[0]):.0f} °C the model, physics plus network, does not cool as "
            "the "
            "cup does. Write down both sides and solve for the network.",
        )


@question(
    "ch01.q2",
    "On the balcony",
    """
    A model with a wrong `theta` and the network of exercise 1 fits every cup in a room of 20 °C. Carry a cup to a place
    at `room` °C. Evaporation depends on `T` alone. By how much is the model's rate of change wrong there?
    """,
    why="The physics becomes $-\\theta (T - T_\\mathrm{room})$, the network stays what it was: the temperature of "
    "the cup cancels.",
    after="An experiment in another room tells the thetas apart; more cups in the same room do not.",
)
def rate_error(theta: float, k: float, room: float) -> float:
    """The model's dT/dt minus the true one, in °C per minute, for a cup at any temperature."""
    return (theta - k) * (room - 20)


@rate_error.check
def _(ask: Ask) -> None:
    for theta, k, room in zip(
        ask.uniform(0.005, 0.1, 20).tolist(),
        ask.uniform(0.005, 0.1, 20).tolist(),
        ask.uniform(-10, 40, 20).tolist(),
        strict=True,
    ):
        T = float(ask.uniform(50, 90))
        network = (theta - k) * (T - 20) - (T - 20) ** 2 / 3000
        model, truth = -theta * (T - room) + network, -k * (T - room) - (T - 20) ** 2 / 3000
        found = number(ask(theta, k, room), "the error")
        require(
            not close(found, truth - model, rtol=1e-6) or abs(truth - model) < 1e-6,
            "Right but for its sign: asked is the model minus the truth.",
        )
        require(
            abs(number(ask(theta, k, 20.0), "the error")) < 1e-9,
            "In the room in which the model was trained, at 20 °C, it is not wrong at all. Yours is.",
        )
        require(
            abs(number(ask(k, k, room), "the error")) < 1e-9, "A model whose theta is right is right in every room."
        )
        require(
            close(found, model - truth, rtol=1e-6),
            f"For theta = {theta:.3f}, k = {k:.3f} and a room of {room:.0f} °C, the two rates differ by another "
            "amount. "
            "In which of the three terms does the room's temperature stand?",
        )
