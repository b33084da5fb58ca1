"""Exercises of chapter 15: a paired ratio with its interval, and forms of SAM at equal budget."""

from __future__ import annotations

import math

import numpy as np

from hybridsam_lite.exercises.asking import Ask, close, number, numbers, require, wrong
from hybridsam_lite.exercises.registry import question


@question(
    "ch15.q1",
    "Paired, with an interval",
    """
    `method` and `erm` are theta errors, each seed at the same place in both. Take the median of the log ratio over the
    seeds, and a 95 % interval of it by the percentile bootstrap: draw as many seeds as there are, with replacement,
    thousands of times. Return the ratio and both ends of its interval, as factors.
    """,
    why="Paired: both errors of a seed are drawn together. The chapter's `bootstrap` may be called, too.",
    after="A factor of one within the interval: nothing can be said.",
)
def paired_ratio(method: np.ndarray, erm: np.ndarray) -> np.ndarray:
    """The ratio, the low and the high end: three numbers."""
    d = np.log(method) - np.log(erm)
    drawn = np.random.default_rng(0).integers(len(d), size=(10_000, len(d)))
    medians = np.median(d[drawn], axis=1)
    return np.exp([np.median(d), np.quantile(medians, 0.025), np.quantile(medians, 0.975)])


@paired_ratio.check
def _(ask: Ask) -> None:
    generator = np.random.default_rng(1)
    for trial in range(6):
        count = 7 + trial
        erm = np.exp(1.5 * ask.normal(count).numpy())
        d = -0.8 + 0.5 * ask.normal(count).numpy() + (np.arange(count) == 0) * 3.0
        found = numbers(ask(erm * np.exp(d), erm), "the answer", 3)
        _judge_ratio(ask, found[0], erm, d)
        resampled = np.median(d[generator.integers(count, size=(20_000, count))], axis=1)
        _judge_interval(found, d, resampled)


def _judge_ratio(ask: Ask, found: float, erm: np.ndarray, d: np.ndarray) -> None:
    ratios = np.exp(d)
    if close(found, np.exp(np.median(d)), rtol=1e-4) or close(found, np.median(ratios), rtol=1e-4):
        return
    require(not close(found, np.median(d), rtol=1e-4), "This is still a logarithm. Asked is a factor.")
    require(not close(found, np.exp(-np.median(d)), rtol=1e-4), "This is plain training's error over the method's.")
    require(
        not close(found, np.exp(d.mean()), rtol=1e-4) and not close(found, ratios.mean(), rtol=1e-4),
        "This is a mean, and one odd seed pulls at it. Asked is the median.",
    )
    hard = erm * np.where(np.arange(len(d)) == np.argmin(erm), 1e4, 1.0)
    changed = numbers(ask(hard * ratios, hard), "the answer", 3)[0]
    require(
        close(changed, found, rtol=1e-4),
        "When one seed is 10 000 times harder for both, your ratio changes. Are the errors compared seed by seed?",
    )
    wrong(f"For {len(d)} seeds the ratio is wrong. Is it the median over the seeds of the log ratio, as a factor?")


def _judge_interval(found: list[float], d: np.ndarray, resampled: np.ndarray) -> None:
    ratio, low, high = found
    require(
        0 < low <= ratio * 1.001 and ratio <= high * 1.001, "The interval should hold the ratio, as factors, low first."
    )
    require(high > low * 1.001, "The interval has no width. Drawn without replacement, every sample is the same.")
    spread = np.exp(np.quantile(d, [0.025, 0.975]))
    require(
        not close([low, high], spread, rtol=1e-3),
        "This is how far the seeds lie apart. Asked is how sure their median is.",
    )
    below = [float((resampled < math.log(low) + s * 0.03).mean()) for s in (-1, 1)]
    above = [float((resampled > math.log(high) + s * 0.03).mean()) for s in (1, -1)]
    count = len(d)
    require(
        below[0] <= 0.045 and above[0] <= 0.045,
        f"For {count} seeds the interval is too narrow: {max(below[0], above[0]):.0%} of the resampled medians lie "
        "beyond one of its ends.",
    )
    require(
        below[1] >= 0.012 and above[1] >= 0.012,
        f"For {count} seeds the interval is too wide: almost no resampled median lies beyond one of its ends. Are both "
        "errors of a seed drawn together, and is it their median that you look at?",
    )


@question(
    "ch15.q2",
    "An equal budget",
    """
    A form of SAM disturbs in every `every`-th step only, with the radius `rho_k`, and takes the direction of the
    disturbance from a `part` of the batch. It may use as many passes as full SAM with the radius `rho`. How many times
    as far does it drift, for gradient descent? By {eq}`baselines-drift`, which does not depend on `part`.
    """,
    why="A step costs $1 + \\mathrm{part}/k$ passes: 1.125 for `every=2,part=0.25`, as `passes` agrees. In time it may "
    "be more, as the measurement shows.",
    after="With the root of k times rho it is up to twice as far.",
)
def farther(every: int, part: float, rho_k: float, rho: float) -> float:
    """The drift over that of full SAM, for the same passes."""
    passes = 1 + part / every
    return (rho_k**2 / every) / passes / (rho**2 / 2)


@farther.check
def _(ask: Ask) -> None:
    cases = [(1, 1.0, 0.1, 0.1), (1, 1.0, 0.3, 0.1), (4, 1.0, 0.1, 0.1), (5, 1.0, 0.1 * 5**0.5, 0.1)]
    cases += [(k, part, *ask.uniform(0.05, 0.3, 2).tolist()) for k, part in ((2, 0.25), (3, 0.5), (10, 0.25))]
    for every, part, rho_k, rho in cases:
        found = number(ask(every, part, rho_k, rho), "the answer")
        drift = passes = 0.0
        for t in range(20 * every):  # counted, step by step
            passes += 1 + (part if t % every == 0 else 0)
            drift += rho_k**2 if t % every == 0 else 0
        right = drift / passes * 2 / rho**2
        if not close(found, right, rtol=1e-5):
            _slip(found, right, every, part, rho_k / rho)


def _slip(found: float, right: float, every: int, part: float, radius: float) -> None:
    case = f"every = {every}, part = {part:g}"
    cost = 1 + part / every
    require(
        every > 1 or radius != 1,
        "In every step, with the whole batch and the same radius, it is full SAM: a factor of 1.",
    )
    require(
        not close(found, right * cost / 2, rtol=1e-5),
        f"This compares equal steps. At {case} a step does not cost as many passes as one of full SAM.",
    )
    require(
        not close(found, right / radius, rtol=1e-5),
        "Which power of the radius does the drift of gradient descent have? (Adam's would be another one.)",
    )
    require(not close(found, 1 / right, rtol=1e-5), "This is full SAM's drift over that of the cheaper form.")
    require(
        not close(found, right * cost / (1 + 1 / every), rtol=1e-5),
        f"At {case} a disturbance costs less than a pass.",
    )
    require(
        not close(found, right * every, rtol=1e-5),
        f"At {case} most steps do not disturb at all. Do they drift?",
    )
    wrong(
        f"Wrong at {case}, with a radius {radius:.2f} times full SAM's. How many passes does a step cost, on average, "
        "and how far does it drift?"
    )
