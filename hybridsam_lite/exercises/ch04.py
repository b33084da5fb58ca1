"""Exercises of chapter 4: SAM and ASAM, written by heart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, dict_of, require, wrong
from hybridsam_lite.exercises.registry import question

Tensors = dict[str, Tensor]


@question(
    "ch04.q1",
    "SAM, by heart",
    """
    Close the book and write one step of SAM: gradient descent on the largest loss within `rho` of `phi`. `loss` takes
    a dict like `params` and returns a scalar; `phi` lists the names that are disturbed.
    """,
    why="Nothing is changed in place, so nothing has to be restored.",
    after="Only phi was disturbed, and theta's gradient was taken at the disturbed point.",
)
def sam_step(loss: Callable[[Tensors], Tensor], params: Tensors, phi: list[str], rho: float, lr: float) -> Tensors:
    """A new dict of parameters, after one step of gradient descent with the learning rate lr."""
    gradient = torch.func.grad(loss)
    g = gradient(params)
    norm = torch.stack([g[n].norm() for n in phi]).norm() + 1e-12
    e = {n: rho * g[n] / norm for n in phi}
    g = gradient({n: p + e[n] if n in e else p for n, p in params.items()})
    return {n: p - lr * g[n] for n, p in params.items()}


class Quadratic:
    """A random convex loss of theta (2) and two arrays of weights; counts nothing, keeps nothing."""

    def __init__(self, ask: Ask, scale: float = 1.0) -> None:
        root = ask.normal(9, 7)
        self.matrix, self.linear, self.scale = root.T @ root / 4, ask.normal(7), scale
        self.params = {"theta": ask.normal(2), "w": ask.normal(2, 2), "b": ask.normal(1)}

    def __call__(self, p: Tensors) -> Tensor:
        z = torch.cat([p["theta"].flatten() * self.scale, p["w"].flatten(), p["b"].flatten()])
        return z @ self.matrix @ z / 2 + self.linear @ z

    def gradient(self, p: Tensors) -> Tensors:
        """At p, by name."""
        return torch.func.grad(self)(p)

    def worst(self, e: Tensors) -> Tensors:
        """The parameters with e added where it has names."""
        return {n: p + e[n] if n in e else p for n, p in self.params.items()}


PHI = ["w", "b"]


def sam(loss: Quadratic, rho: float, names: list[str] = PHI, norm: list[str] = PHI) -> Tensors:
    """The ascent step, correct or (with other names) as it is often got wrong."""
    g = loss.gradient(loss.params)
    size = torch.sqrt(sum((g[n] ** 2).sum() for n in norm))  # type: ignore[arg-type]
    return {n: rho * g[n] / size for n in names}


def gradient_used(ask: Ask, loss: Quadratic, rho: float, lr: float, phi: list[str] = PHI) -> Tensors:
    """What the student's step subtracted, divided by lr."""
    after = dict_of(ask(loss, loss.params, phi, rho, lr), "the result", loss.params)
    return {n: (p - after[n]) / lr for n, p in loss.params.items()}


def same(x: Tensors, y: Tensors) -> bool:
    """Whether two dicts of tensors agree."""
    return all(close(x[n], y[n], rtol=1e-5, atol=1e-7) for n in y)


@sam_step.check
def _(ask: Ask) -> None:
    loss = Quadratic(ask)
    used, plain = gradient_used(ask, loss, 0.0, 0.1), loss.gradient(loss.params)
    require(not same(used, {n: -g for n, g in plain.items()}), "At rho = 0 the step goes uphill.")
    require(
        not same(used, {n: 2 * g for n, g in plain.items()}),
        "At rho = 0 the step is twice as long as a step of gradient descent: the parameters are updated twice.",
    )
    require(same(used, plain), "At rho = 0 the step should be one of plain gradient descent. It is another one.")
    for _ in range(5):
        loss = Quadratic(ask)
        for rho, lr in ((0.3, 0.1), (1.5, 0.01)):
            _diagnose(gradient_used(ask, loss, rho, lr), loss, rho, lr)
    _no_gradient(ask)
    big = Quadratic(ask, scale=1000.0)  # theta in another unit
    require(
        same(gradient_used(ask, big, 0.3, 1e-4), big.gradient(big.worst(sam(big, 0.3)))),
        "With theta in another unit the disturbance of phi is another one. Which gradients belong into the norm?",
    )


def _diagnose(used: Tensors, loss: Quadratic, rho: float, lr: float) -> None:
    """Compare with the right gradient, and say which known slip it is."""
    right = loss.gradient(loss.worst(sam(loss, rho)))
    if same(used, right):
        return
    plain, everything = loss.gradient(loss.params), list(loss.params)
    slips: list[tuple[Tensors, str]] = [
        (
            plain,
            "The step is that of plain gradient descent, also for rho > 0. At which point is the second gradient "
            "taken?",
        ),
        (
            loss.gradient(loss.worst(sam(loss, rho, everything, everything))),
            "Theta is disturbed too. Only the parameters named in `phi` may be.",
        ),
        (
            loss.gradient(loss.worst(sam(loss, rho, everything, PHI))),
            "Theta is disturbed too. Only the parameters named in `phi` may be.",
        ),
        (
            loss.gradient(loss.worst(sam(loss, rho, PHI, everything))),
            "The disturbance of phi is shorter than rho. Which gradients belong into the norm?",
        ),
        (
            loss.gradient(loss.worst({n: rho * plain[n] for n in PHI})),
            "The length of the disturbance depends on the size of the gradient. It should be rho.",
        ),
        (
            loss.gradient(loss.worst({n: rho * plain[n] / plain[n].norm() for n in PHI})),
            "Each parameter is disturbed by rho of its own. There is one ball for all of phi together.",
        ),
        (
            loss.gradient(loss.worst({n: rho * plain[n].sign() for n in PHI})),
            "The disturbance takes the sign of each entry. That is the worst point of a cube, not of a ball.",
        ),
        (
            loss.gradient(loss.worst({n: -e for n, e in sam(loss, rho).items()})),
            "The disturbance goes downhill: that is the best point nearby, not the worst.",
        ),
        (
            {n: right[n] - sam(loss, rho).get(n, torch.zeros(())) / lr for n in right},
            "The parameters end at the disturbed point, minus the step. Start the step from where you were.",
        ),
        (
            {**right, "theta": plain["theta"]},
            "Theta's gradient is taken at the undisturbed point. Here theta and phi descend one objective (Danskin).",
        ),
        ({**right, "theta": torch.zeros(2)}, "Theta does not move at all. It is not disturbed, but it is trained."),
        (
            {n: plain[n] + right[n] for n in right},
            "Both gradients are used for the update. Only the second one should be.",
        ),
    ]
    for gradient, message in slips:
        if same(used, gradient):
            wrong(message)
    parallel = all(close(used[n] * right["w"].norm(), right[n] * used["w"].norm(), rtol=1e-4) for n in right)
    require(not parallel, "The direction of the step is right, its length is not: it should be lr times the gradient.")
    wrong(f"For rho = {rho:g} the step is not along the gradient at the worst point within rho of phi.")


def _no_gradient(ask: Ask) -> None:
    """At a stationary point of phi: no nan, and no move."""
    params = {"theta": torch.ones(1), "w": torch.zeros(3)}

    def bowl(p: Tensors) -> Tensor:
        return (p["theta"] ** 2).sum() + (p["w"] ** 2).sum()

    try:
        after: Any = ask(bowl, params, ["w"], 0.1, 0.1)
        found = dict_of(after, "the result", params)
    except Exception as error:
        if "nan" in str(error):
            wrong("Where the gradient of phi is zero the step is nan: zero is divided by zero.")
        raise
    require(close(found["w"], torch.zeros(3)), "Where the gradient of phi is zero, phi should stay where it is.")


@question(
    "ch04.q2",
    "The worst point of ASAM's ball",
    """
    ASAM's ball measures each change relative to its weight: $\\sum_i (\\varepsilon_i / w_i)^2 \\le \\rho^2$. Return
    the disturbance in this ball by which the loss with gradient `g` rises most, to first order. No weight is zero.
    """,
    why="With $\\varepsilon = |w| s$ it is SAM's problem in $s$, with the gradient $|w| g$.",
    after="A rescaling of two layers that leaves the function alone leaves this ball alone too.",
)
def asam(w: Tensor, g: Tensor, rho: float) -> Tensor:
    """The disturbance, of the shape of w."""
    scaled = w.abs() * g
    return rho * w.abs() * scaled / (scaled.norm() + 1e-12)


@asam.check
def _(ask: Ask) -> None:
    from hybridsam_lite.exercises.asking import tensor

    for _ in range(8):
        w, g, rho = ask.normal(6), ask.normal(6), float(ask.uniform(0.05, 2))
        e = tensor(ask(w, g, rho), "the disturbance", (6,))
        length, best = (e / w).norm(), rho * (w * g).norm()
        require(
            not close(e, rho * g / g.norm()),
            "This is SAM's disturbance. It takes no notice of the size of the weights.",
        )
        require(length > 0, "The disturbance is zero.")
        require(
            close(length, rho, rtol=1e-5),
            f"Measured relative to the weights, the disturbance is {'longer' if length > rho else 'shorter'} than rho.",
        )
        require(g @ e > 0, "The loss falls along this disturbance.")
        require(
            close(g @ e, best, rtol=1e-5),
            "It lies on the rim of the ball, but another point of the rim raises the loss more.",
        )
    zero = ask(torch.ones(3), torch.zeros(3), 0.1)
    finite = torch.isfinite(torch.as_tensor(zero)).all() if isinstance(zero, Tensor) else False
    require(finite, "For a gradient of zero the disturbance is not finite.")
