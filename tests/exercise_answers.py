"""For tests of exercises: answers as students write them."""

from __future__ import annotations

import math
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
