"""For tests of exercises: answers as students write them, and what is asked of the checks."""

from __future__ import annotations

import math
import re
import textwrap
from typing import Any

import numpy as np
import torch

import hybridsam_lite as hs
from hybridsam_lite.exercises.registry import find


def solution(question: str) -> Any:
    """The solution of an exercise, a function."""
    found = find(question)
    assert found is not None
    return found.solution


def answer(question: str, source: str) -> Any:
    """The function f of a source, as in a student's notebook: without annotations and with the usual imports."""
    names: dict[str, Any] = {"torch": torch, "np": np, "math": math, "hs": hs, "SOLUTION": solution(question)}
    exec(textwrap.dedent(source), names)
    return names["f"]


def is_right(name: str, source: str) -> None:
    """The check accepts this answer."""
    verdict = hs.exercises.check(name, answer(name, source))
    assert verdict, verdict


def hears(name: str, source: str, fragment: str) -> None:
    """The check says that this answer is wrong, with a message that holds the fragment."""
    verdict = hs.exercises.check(name, answer(name, source))
    assert verdict.status == "wrong"
    assert re.search(fragment, verdict.message), verdict.message


def wrong_answers_suffice(wrong: list[tuple[str, str, str]], chapters: set[str]) -> None:
    """Each exercise of these chapters has three wrong answers, and no message holds a line of its solution."""
    names = [name for name in hs.exercises.questions() if name[:4] in chapters]
    assert {name[:4] for name in names} == chapters == {name[:4] for name, *_ in wrong}
    for name in names:
        mine = [source for other, source, _ in wrong if other == name]
        assert len(mine) >= 3, name
        found = find(name)
        assert found is not None
        lines = [line.strip().removeprefix("return ") for line in found._parts()[2].splitlines()]
        said = [hs.exercises.check(name, answer(name, source)).message for source in mine]
        assert not [line for line in lines for text in said if len(line) > 12 and line in text], name
