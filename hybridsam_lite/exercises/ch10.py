"""Exercises of chapter 10: a stretched angle, and what no decoder can paint."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.exercises.asking import Ask, close, number, require, wrong
from hybridsam_lite.exercises.registry import question


@question(
    "ch10.q1",
    "A stretched angle",
    """
    Without friction: a pendulum swings with the amplitude `amplitude` in radians, and the encoder reports
    $\\hat q = c\\,q$. Which $\\theta$ gives the latent pendulum $\\ddot{\\hat q} = -\\theta \\sin \\hat q$ the period
    of the true one? To a thousandth, for large swings as well. (`scipy.special.ellipk`, or time a pendulum yourself.)
    """,
    why="For small swings it is `omega2` whatever $c$ is: the clock is enough. For large ones stretch and $\\theta$ "
    "are tied together.",
    after="One amplitude is matched; only that there are several in a set of films betrays the stretch.",
)
def theta_of_stretch(omega2: float, amplitude: float, c: float) -> float:
    """The theta of the same period; c times the amplitude is below pi."""
    from scipy.special import ellipk

    quarters = ellipk(np.sin(c * amplitude / 2) ** 2) / ellipk(np.sin(amplitude / 2) ** 2)
    return float(omega2 * quarters**2)


def _period(amplitude: float, omega2: float) -> float:
    """By the arithmetic-geometric mean."""
    a, g = 1.0, math.cos(amplitude / 2)
    for _ in range(20):
        a, g = (a + g) / 2, math.sqrt(a * g)
    return 2 * math.pi / (a * math.sqrt(omega2))


@theta_of_stretch.check
def _(ask: Ask) -> None:
    for omega2, amplitude, c in [
        (1.1, 1.2, 1.0),
        (1.1, 0.01, 2.0),
        (1.1, 1.2, 1.6),
        *ask.uniform(0.7, 1.6, 6, 3).tolist(),
        (0.6, 2.0, 0.5),
    ]:
        found = number(ask(omega2, amplitude, c), "theta")
        ratio = _period(c * amplitude, 1.0) / _period(amplitude, 1.0)
        if close(found, omega2 * ratio**2, rtol=2e-3):
            continue
        case = f"For an amplitude of {amplitude:.2f} and a stretch of {c:.2f}"
        require(c != 1, "Without a stretch theta should be omega2.")
        require(
            amplitude > 0.1,
            "For small swings the clock runs as it did, whatever the stretch. Yours depends on c.",
        )
        require(found > 0, "Theta is positive.")
        require(
            not close(found, omega2, rtol=2e-3),
            "This is right for small swings only. Does the period of a large one depend on the amplitude?",
        )
        require(
            not close(found, omega2 * (1 + (c**2 - 1) * amplitude**2 / 8), rtol=2e-4),
            f"{case} the rule of the chapter is not exact enough. It is the beginning of a series.",
        )
        require(
            (found > omega2) == (ratio > 1),
            f"{case} your theta is on the wrong side of omega2. Large swings are slow; what makes up for it?",
        )
        require(
            not close(found, omega2 * ratio, rtol=2e-3),
            "By how much does the period change if theta doubles?",
        )
        wrong(
            f"{case} the true period is {_period(amplitude, omega2):.3f}, that of your latent pendulum "
            f"{_period(c * amplitude, found):.3f}."
        )


@question(
    "ch10.q2",
    "What nobody can paint",
    """
    `film` is one swing with friction, without noise: an odd number of frames, and the pendulum turns round in the
    middle one. The model is frictionless, and its decoder paints the best picture for each latent angle. Whatever
    $\\theta$ and the stretch are, what is the smallest mean squared error that it can have on this film?
    """,
    why="The pictures of a frictionless swing are a palindrome. The best palindrome has, at $t^* \\pm s$, the mean of "
    "the two true frames.",
    after="It is a bound from the data alone, for every decoder.",
)
def unpaintable(film: Tensor) -> float:
    """The mean squared error over all pixels and frames; film has the shape (time, rows, columns)."""
    best = (film + film.flip(0)) / 2
    return float(((film - best) ** 2).mean())


@unpaintable.check
def _(ask: Ask) -> None:
    x = torch.linspace(-1.5, 1.5, 12)
    for trial in range(6):
        half, angle, loss = 3 + trial, float(ask.uniform(0.6, 1.2)), float(ask.uniform(0.05, 0.3))
        time = torch.linspace(-1, 1, 2 * half + 1)
        for friction in (0.0, loss):
            q = angle * torch.cos(time) + friction * time**3
            film = torch.exp(
                -8 * ((x - torch.sin(q)[:, None, None]) ** 2 + (x[:, None] + torch.cos(q)[:, None, None]) ** 2)
            )
            found = number(ask(film), "the error")
            right = float((film - film.flip(0)).square().mean()) / 4
            if not close(found, right, rtol=1e-5, atol=1e-9):
                _slip(found, right, film)


def _slip(found: float, right: float, film: Tensor) -> None:
    frames, pixels = len(film), film[0].numel()
    require(found >= 0, "An error cannot be negative.")
    require(
        not close(found, float(film.var(0, correction=0).mean()), rtol=1e-5),
        "This is the error of one still picture. The latent angle does move, and each angle has a picture of its own.",
    )
    require(
        right > 1e-12,
        f"This film goes back exactly as it came, and can be painted. You say that an error of {found:.2g} is left.",
    )
    require(
        not close(found, 4 * right, rtol=1e-5) and not close(found, 2 * right, rtol=1e-5),
        "Too large. Of the two frames that have one picture the decoder does not have to paint either.",
    )
    require(
        not close(found, right**0.5, rtol=1e-5), "This is the root of it. Asked is the mean square, as in the loss."
    )
    require(
        not any(close(found, right * n, rtol=1e-5) for n in (frames, pixels, frames * pixels)),
        "This is a sum. Asked is a mean over all pixels and frames.",
    )
    require(
        found > right,
        "Less than the best decoder has: which picture would you paint at the same angle, before and after?",
    )
    wrong("A decoder can do better. Which frames have the same latent angle, and which picture is best for them?")
