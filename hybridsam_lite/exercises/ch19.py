"""Exercises of chapter 19: when theta is at risk, and what a blind choice leaves on the table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, numbers, require, tensor, wrong
from hybridsam_lite.exercises.registry import question

Model = Callable[[Tensor, Tensor], Tensor]


@question(
    "ch19.q1",
    "When theta is at risk",
    """
    `model(theta, phi)` gives all predictions, however it is wired. Let the weights move for nothing, $\\lambda \\to 0$.
    For each theta: which share of its information is left? Compare as the chapter does: with weights that may not
    move, where the *other* thetas have to be found as well.
    """,
    why="For one theta, $\\theta x + w x^2$: on inputs that fill $[-1, 1]$ the odd moment vanishes and all is left; "
    "on $[0, 1]$ it is $1 - (1/4)^2/(1/3 \\cdot 1/5) = 1/16$. The same network, the same physics: the inputs decide. "
    "(The chapter's `share_left` at a tiny $\\lambda$ does it, too.)",
    after="Two Jacobians, and no training.",
)
def at_risk(model: Model, theta: Tensor, phi: Tensor) -> Tensor:
    """The share of each theta, a tensor like theta."""
    Jt, Jp = torch.func.jacrev(model, (0, 1))(theta, phi)
    shares = []
    for i in range(len(theta)):
        others, size = torch.cat([Jt[:, :i], Jt[:, i + 1 :]], 1), []
        for columns in (torch.cat([others, Jp], 1), others):
            left = Jt[:, i] - columns @ (torch.linalg.pinv(columns) @ Jt[:, i])
            size.append(left @ left)
        shares.append(size[0] / size[1])
    return torch.stack(shares)


@at_risk.check
def _(ask: Ask) -> None:
    x, z = torch.linspace(0, 1, 41), ask.normal(41)
    centred = 2 * x - 1
    cases: list[tuple[str, int, int, Model]] = [
        ("theta x + w x², x from -1 to 1", 1, 1, lambda t, w: t * centred + w * centred**2),
        ("theta x + w x², x from 0 to 1", 1, 1, lambda t, w: t * x + w * x**2),
        ("tanh(w theta x), nested", 1, 1, lambda t, w: torch.tanh(w * t * x)),
        ("theta x (1 + w z), multiplied", 1, 1, lambda t, w: t * x * (1 + w * z)),
        ("two thetas, a x + b x³ + w x²", 2, 1, lambda t, w: t[0] * x + t[1] * x**3 + w * x**2),
        ("two thetas, a x + b z + w tanh(u x)", 2, 2, lambda t, w: t[0] * x + t[1] * z + w[0] * torch.tanh(w[1] * x)),
    ]
    for what, thetas, weights, model in cases:
        theta, phi = ask.uniform(0.5, 1.5, thetas), ask.uniform(0.5, 1.5, weights)
        found = tensor(ask(model, theta, phi), "the answer", (thetas,))
        right = _shares(model, theta, phi)
        if not close(found, right, rtol=1e-3, atol=1e-4):
            _slip(found, right, what, model, theta, phi)


def _jacobians(model: Model, theta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    Jt, Jp = torch.func.jacrev(model, (0, 1))(theta, phi)
    return Jt, Jp


def _shares(model: Model, theta: Tensor, phi: Tensor) -> Tensor:
    """By the chapter's formula, at a price that is next to nothing."""
    Jt, Jp = _jacobians(model, theta, phi)
    free = Jt - Jp @ (torch.linalg.pinv(Jp) @ Jt)
    S = free.T @ free + 1e-14 * torch.eye(len(theta))
    return (Jt.T @ Jt).inverse().diagonal() / S.inverse().diagonal()


def _slip(found: Tensor, right: Tensor, what: str, model: Model, theta: Tensor, phi: Tensor) -> None:
    Jt, Jp = _jacobians(model, theta, phi)
    free = Jt - Jp @ (torch.linalg.pinv(Jp) @ Jt)
    alone = free.square().sum(0) / Jt.square().sum(0)
    require(bool(((found > -1e-6) & (found < 1 + 1e-6)).all()), f"For {what}: a share lies between 0 and 1.")
    require(not close(found, 1 - right, atol=1e-4), f"For {what}: this looks like the share that is lost.")
    require(
        not close(found, right.sqrt(), rtol=1e-3, atol=1e-4),
        f"For {what}: this is the share of the size. Information is a mean square.",
    )
    require(
        len(theta) == 1 or not close(found, alone, rtol=1e-3, atol=1e-4),
        f"For {what}: you treat the other theta as known. It has to be found from the same data.",
    )
    require(
        bool((right > 1e-6).any()) or bool((found < 1e-3).all()),
        f"For {what}: a change of theta can be undone by the weight. You say that something is left.",
    )
    wrong(
        f"For {what} the share is wrong. Take the derivatives at the given theta and weights, and ask what a change "
        "of the weights cannot undo."
    )


@question(
    "ch19.q2",
    "A blind choice, and its price",
    """
    `losses` and `errors` map each setting to the validation losses and to the theta errors of its seeds; 0 is plain
    training. Return three numbers: the setting that a blind rule takes, the largest whose median loss is at most
    10 % above the lowest; the setting of the smallest median theta error, which nobody can know; and what that one
    costs: its median loss over plain training's.
    """,
    why="Such a price tells a fit that has given up its network from one that has only been flattened.",
    after="If the third number is large, the hindsight is about physics alone.",
)
def blind_choice(losses: dict[float, list[float]], errors: dict[float, list[float]]) -> tuple[float, float, float]:
    """The blind setting, the best in hindsight, and the price of the latter."""
    loss = {setting: np.median(values) for setting, values in losses.items()}
    blind = max(setting for setting in loss if loss[setting] <= 1.1 * min(loss.values()))
    hindsight = min(errors, key=lambda setting: np.median(errors[setting]))
    return blind, hindsight, float(loss[hindsight] / loss[0.0])


@blind_choice.check
def _(ask: Ask) -> None:
    settings = [0.0, 0.01, 0.03, 0.1, 0.3, 1.0]
    for trial in range(20):
        count = 3 + 2 * (trial % 3)
        rise = np.array([0.06, 0.0, 0.02, 0.07, 0.3, 1.2]) * (1 + trial % 4) / 2
        fall = np.array([0.0, -0.1, -0.3, -0.5, -0.9, -0.4])
        losses, errors = (
            {s: np.exp(t + 0.03 * ask.normal(count).numpy()).tolist() for s, t in zip(settings, trend, strict=True)}
            for trend in (rise, fall)
        )
        losses[settings[trial % 6]][0] *= 30.0  # one seed that failed
        _judge(ask, losses, errors)


def _judge(ask: Ask, losses: dict[float, list[float]], errors: dict[float, list[float]]) -> None:
    blind, hindsight, price = numbers(ask(losses, errors), "the answer", 3)
    loss = {s: float(np.median(values)) for s, values in losses.items()}
    allowed = [s for s in loss if loss[s] <= 1.1 * min(loss.values())]
    require(blind in losses and hindsight in losses, "The first two numbers should be settings, keys of losses.")
    turned = dict(zip(errors, reversed(errors.values()), strict=True))
    require(
        numbers(ask(losses, turned), "the answer", 3)[0] == blind,
        "When only the theta errors change, your blind setting changes. Nobody who needs theta knows them.",
    )
    hint = "Medians, so that one seed that failed does not decide."
    require(
        blind in allowed,
        f"Your blind setting {blind:g} has a median loss of more than 10 % above the lowest. {hint}",
    )
    require(
        blind == max(allowed), f"Your blind setting is {blind:g}, and a larger one predicts well enough, too. {hint}"
    )
    best = min(float(np.median(v)) for v in errors.values())
    require(
        close(float(np.median(errors[hindsight])), best),
        "In hindsight: another setting has a smaller median theta error.",
    )
    right = loss[hindsight] / loss[0.0]
    require(not close(price, 1 / right, rtol=1e-6) or close(price, right), "The price: this is its inverse.")
    require(
        not close(price, loss[hindsight] / min(loss.values()), rtol=1e-6) or close(price, right),
        "The price: compare with plain training, not with the lowest loss.",
    )
    require(
        close(price, right, rtol=1e-6),
        "The price is wrong. Is it the ratio of two median losses, the hindsight's and plain training's?",
    )
