"""Exercise of chapter 13: the rule of one standard error."""

from __future__ import annotations

import numpy as np

from hybridsam_lite.exercises.asking import Ask, brief, close, require
from hybridsam_lite.exercises.registry import question


@question(
    "ch13.q1",
    "One standard error",
    """
    `losses` maps each setting to the validation losses of its seeds, the same seeds in the same order. For each
    setting take the differences of the *logarithms* to those of the setting with the lowest mean log loss, seed by
    seed. Return the largest setting whose mean difference is at most one standard error: the standard deviation of its
    differences (with $n - 1$) over $\\sqrt n$.
    """,
    why="Paired, because a hard seed is hard for every setting; in logarithms, because losses differ by factors.",
    after="A seed that is hard for all settings has no say.",
)
def one_standard_error(losses: dict[float, list[float]]) -> float:
    """The chosen setting, a key of losses."""
    log = {setting: np.log(values) for setting, values in losses.items()}
    best = min(log, key=lambda setting: log[setting].mean())
    within = []
    for setting, values in log.items():
        d = values - log[best]
        if d.mean() <= d.std(ddof=1) / len(d) ** 0.5:
            within.append(setting)
    return max(within)


@one_standard_error.check
def _(ask: Ask) -> None:
    for trial in range(30):
        count = 3 + trial % 6
        seeds = np.exp(2 * ask.normal(count).numpy())
        settings = [0.01, 0.03, 0.1, 0.3, 1.0]
        trend = 0.05 * np.array([1.0, 0.0, 0.6, 1.5, 8.0]) * (1 + trial % 4)
        noise = 0.15 * ask.normal(5, count).numpy()
        losses = {s: (seeds * np.exp(t + n)).tolist() for s, t, n in zip(settings, trend, noise, strict=True)}
        found, expected = ask(losses), _reference(losses)
        isnumber = isinstance(found, (float, int)) and not isinstance(found, bool)
        require(isnumber and found in losses, f"The answer should be one of the settings, got {brief(found)}.")
        upside = dict(reversed(losses.items()))
        require(close(ask(upside), found), "The answer depends on the order in which the settings are listed.")
        hard = {s: [1000 * values[0], *values[1:]] for s, values in losses.items()}
        require(
            close(ask(hard), found),
            "When one seed's losses are 1000 times larger at every setting, your answer changes. Are the losses "
            "compared seed by seed, and by factors?",
        )
        require(
            found <= expected,
            f"For one table with {count} seeds you take {found:g}, whose losses are more than a standard error above "
            "the best.",
        )
        require(
            found >= expected,
            f"For one table with {count} seeds you take {found:g}, and a larger setting is as good within a standard "
            "error.",
        )


def _reference(losses: dict[float, list[float]]) -> float:
    return float(one_standard_error.solution(losses))
