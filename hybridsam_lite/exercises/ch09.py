"""Exercises of chapter 9: a network that takes over the physics, and diffusion read off two frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, number, require, tensor, wrong
from hybridsam_lite.exercises.registry import question

STENCIL = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def _convolved(kernel: Tensor, fields: Tensor) -> Tensor:
    """A 3 x 3 convolution of fields (series, rows, columns), with no flux through the border."""
    padded = torch.nn.functional.pad(fields[:, None], (1, 1, 1, 1), mode="replicate")
    return torch.nn.functional.conv2d(padded, kernel[None, None])[:, 0]


@question(
    "ch09.q1",
    "Take the physics over",
    """
    The whole network is one $3 \\times 3$ convolution: it adds `kernel` $* U$ to $\\dot U$. Now somebody lowers the
    $a$ of the physics $a\\,\\Delta U$ by `delta`. Return the kernel with which the model predicts what it did before.
    Pixels are a distance `h` apart.
    """,
    why="No loss can tell the two models apart, on any data.",
    after="Nine weights, and theta is lost.",
)
def take_over(kernel: Tensor, delta: float, h: float) -> Tensor:
    """The new kernel; both have the shape (3, 3)."""
    stencil = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    return kernel + delta / h**2 * stencil


@take_over.check
def _(ask: Ask) -> None:
    for _ in range(6):
        kernel, (delta, h) = ask.normal(3, 3), ask.uniform(0.05, 0.4, 2).tolist()
        found = tensor(ask(kernel, delta, h), "the kernel", (3, 3))
        added, right = found - kernel, delta / h**2 * STENCIL
        noise = ask.normal(1, 8, 8)
        if close(added, right, rtol=1e-4, atol=1e-5):
            continue
        require(
            not close(added, 0 * right),
            "This is the kernel that was there. What does the model predict now, if a is lower?",
        )
        require(
            not close(found, right, rtol=1e-4, atol=1e-5),
            "This does what physics has stopped doing, but the network did something before, and should go on.",
        )
        require(
            not close(added, -right, rtol=1e-4, atol=1e-5),
            "Now the difference is twice as large: physics does less, and your network takes away from it.",
        )
        require(
            not close(added, delta * STENCIL, rtol=1e-4, atol=1e-5)
            and not close(added, delta / h * STENCIL, rtol=1e-4, atol=1e-5),
            "The right pattern, but not the right size. How far apart are the pixels, and which derivative is it?",
        )
        require(
            abs(float(added.sum())) < 1e-4 * float(added.abs().sum()),
            "Try a field that is the same everywhere. It does not diffuse, but your addition does something to it.",
        )
        gap = (_convolved(added, noise) - _convolved(right, noise)).square().mean().sqrt()
        lost = _convolved(right, noise).square().mean().sqrt()
        wrong(f"On a field of noise the rates are off by {float(gap / lost):.0%} of what physics did there before.")


@question(
    "ch09.q2",
    "Read it off",
    """
    Two frames of several series, `dt` apart, of a field that obeys $\\dot u = d\\,\\Delta u + r\\,u + k$. The reaction
    $r u + k$ looks at one pixel only; $r$ and $k$ are not known. `laplacian(u)` gives $\\Delta u$, and `dt` is short.
    Return $d$, to a few percent. No training is needed.
    """,
    why="Three columns and one least-squares fit. Or one wave at a time, as in the chapter: $d$ is the slope, the "
    "reaction the intercept. What made it possible is that the reaction was not allowed to look at neighbours.",
    after="The data knew it all along.",
)
def diffusion(before: Tensor, after: Tensor, dt: float, laplacian: Callable[[Tensor], Tensor]) -> float:
    """The constant d; both frames have the shape (series, rows, columns)."""
    columns = torch.stack([laplacian(before), before, torch.ones_like(before)], -1).reshape(-1, 3)
    rate = ((after - before) / dt).reshape(-1, 1)
    return float(torch.linalg.lstsq(columns, rate).solution[0])


@diffusion.check
def _(ask: Ask) -> None:
    for trial in range(6):
        h = float(ask.uniform(0.03, 0.1))
        d = float(ask.uniform(1e-3, 8e-3))
        r = (-1) ** trial * float(ask.uniform(1, 3)) * d / h**2
        k = float(ask.uniform(1, 2)) * d / h**2
        _judge(ask, d, r, k, h)


def _judge(ask: Ask, d: float, r: float, k: float, h: float) -> None:
    def laplacian(u: Tensor) -> Tensor:
        return _convolved(STENCIL.to(u.dtype), u) / h**2

    def rate(u: Tensor) -> Tensor:
        return d * laplacian(u) + r * u + k

    before, dt = ask.uniform(0, 1, 6, 16, 16), 0.05 * h**2 / (8 * d)
    after = before + dt * rate(before + dt / 2 * rate(before))
    found = number(ask(before, after, dt, laplacian), "the constant")
    if close(found, d, rtol=0.04):
        return
    change, lap = ((after - before) / dt).flatten(), laplacian(before).flatten()

    def fitted(*columns: Tensor) -> float:
        return float(torch.linalg.lstsq(torch.stack(columns, 1), change[:, None]).solution[0])

    require(not close(found, -d, rtol=0.04), "The right size, with the wrong sign.")
    require(not close(found, d * dt, rtol=0.04), "This is what happens in a frame. Asked is the rate.")
    require(not close(found, d / h**2, rtol=0.04), "The right number of pixels; asked is it in units of length.")
    require(
        not close(found, fitted(lap), rtol=0.01),
        "Alone, diffusion takes for itself what the reaction does to the bumps. This is what the smallest network "
        "leaves.",
    )
    require(
        not close(found, fitted(lap, before.flatten()), rtol=0.01),
        "Close. The reaction pushes all pixels alike as well, and what you leave out goes elsewhere.",
    )
    wrong(
        f"For a reaction that lets bumps {'grow' if r > 0 else 'shrink'} at the rate {abs(r):.2g} your d is off by "
        f"{found / d - 1:+.0%}."
    )
