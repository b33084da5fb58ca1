"""Calls with arguments that may be odd, made by hypothesis.

The property: a call works, and what it returns is sound, or it raises the library's own error. What takes long is given
few steps, never odd numbers of them. `functions` and `commands` add calls to CALLS.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import hypothesis
import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.fuzz.judge import Slow, complaint, limited

__all__ = [
    "CALLS", "LABELS", "NUMBERS", "ODD", "VALUES", "WORDS", "Defect", "call", "check", "fuzz_call", "records", "some",
    "sound",
]  # fmt: skip

Call = Callable[..., None]
SECONDS = 60.0  # for one call
CALLS: dict[str, tuple[st.SearchStrategy[Any], Call, int]] = {}  # name -> arguments, call, share of the cases

WORDS = st.text(max_size=8) | st.sampled_from(["", "\x00", "é", "\ud800", "a b", "x" * 300, "[/b]", "\x1b[31m", "../x"])
NUMBERS = st.floats() | st.integers() | st.sampled_from([0, -1, 1, 10**400, 2**63, 1e308, 5e-324, -0.0, 1.5, math.nan])
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), NUMBERS, WORDS, st.binary(max_size=3), st.lists(st.integers(), max_size=3),
    st.sampled_from([{}, (), [1, [2]], 1j, object, np.float32(0.5), np.float64(0.1), np.int64(3), np.zeros(2)]),
    st.builds(lambda: torch.tensor([1.0, math.nan])), st.builds(lambda: torch.zeros(2, dtype=torch.complex64)),
)  # fmt: skip


class Defect(AssertionError):
    """A call that neither works nor is refused properly."""


def check(name: str, arguments: Any) -> None:
    """One call; raises `Defect`."""
    call = CALLS[name][1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with limited(SECONDS):
                call(**arguments) if isinstance(arguments, dict) else call(*arguments)
        except Defect:
            raise
        except Exception as error:
            if wrong := complaint(error):
                raise Defect(f"{name}: {wrong}") from error


def fuzz_call(name: str, cases: int, seed: int, until: float = math.inf) -> tuple[int, str]:
    """Give a call so many cases, until a time of `time.monotonic`; the same seed gives the same ones.

    Returns:
        How many there were, and the defect with the least arguments that hypothesis found for it; or nothing.
    """
    count = 0

    @hypothesis.seed(seed)
    @settings(
        max_examples=max(1, cases), database=None, deadline=None, print_blob=False, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(CALLS[name][0])
    def one(given: Any) -> None:
        nonlocal count
        if time.monotonic() < until:
            count += 1
            check(name, given)

    try:
        one()
    except (Defect, Slow) as defect:
        return count, "\n  ".join([str(defect), *getattr(defect, "__notes__", [])])
    return count, ""


def call(arguments: st.SearchStrategy[Any], share: int = 1) -> Callable[[Call], Call]:
    """Decorator that adds a call."""

    def add(function: Call) -> Call:
        CALLS[function.__name__] = arguments, function, share
        return function

    return add


def sound(condition: bool, what: str) -> None:
    """What was returned must be so."""
    if not condition:
        raise Defect(what)


def some(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """One to three of these keyword arguments."""
    return st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: options[name] for name in names})
    )


NAMES = st.sampled_from(
    ["erm", "sam", "asam", "wd", "fn", "dropout", "twostage", "early", "swa", "group", "noise", "sma"]
)
KEYS = st.sampled_from(["rho", "lam", "mu", "p", "every", "perturb", "schedule", "patience", "share", "x"])
VALUES = st.one_of(NUMBERS.map(str), WORDS, st.sampled_from(["1e-3", "all", "cosine", "1_0", "٣", "0x1", "1e400"]))
LABELS = st.builds(
    lambda name, settings: name + (":" if settings else "") + ",".join(f"{k}={v}" for k, v in settings),
    NAMES, st.lists(st.tuples(KEYS, VALUES), max_size=2),
)  # fmt: skip


@cache
def records() -> list[dict[str, Any]]:
    """Of the command line, but made up."""
    common = {"task": "t", "variant": "v", "preset": "smoke", "data": "simulated", "status": "ok", "method": "sam"}
    return [
        {**common, "label": f"sam:rho={rho}", "settings": {"rho": rho}, "seed": seed, "val_loss": rho + seed / 10,
         "theta_hat": {"k": 1 + rho + seed / 100}}
        for rho in (0.1, 0.2, 0.5) for seed in range(3)
    ]  # fmt: skip
