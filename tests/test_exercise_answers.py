"""Answers to the exercises: right ones pass in more than one form, and wrong ones hear what is wrong."""

from __future__ import annotations

import re

import answers_experiments
import answers_method
import answers_practice
import pytest
import torch
from exercise_answers import answer, solution

import hybridsam_lite as hs
from hybridsam_lite.exercises.registry import find

PARTS = (answers_method, answers_experiments, answers_practice)
RIGHT = [case for part in PARTS for case in part.ALSO_RIGHT]
WRONG = [case for part in PARTS for case in part.WRONG]


@pytest.mark.parametrize(("name", "source"), RIGHT)
def test_other_right_answers_pass(name: str, source: str) -> None:
    verdict = hs.exercises.check(name, answer(name, source))
    assert verdict, verdict


@pytest.mark.parametrize(("name", "source", "fragment"), WRONG)
def test_wrong_answers_hear_what_is_wrong(name: str, source: str, fragment: str) -> None:
    verdict = hs.exercises.check(name, answer(name, source))
    assert verdict.status == "wrong"
    assert re.search(fragment, verdict.message), verdict.message


@pytest.mark.parametrize("name", hs.exercises.questions())
def test_wrong_answers_suffice_and_no_message_holds_a_line_of_the_solution(name: str) -> None:
    mine = [source for other, source, _ in WRONG if other == name]
    assert len(mine) >= 3
    found = find(name)
    assert found is not None
    lines = [line.strip().removeprefix("return ") for line in found._parts()[2].splitlines()]
    said = [hs.exercises.check(name, answer(name, source)).message for source in mine]
    assert not [line for line in lines for text in said if len(line) > 12 and line in text]


def test_numbers_that_the_answers_quote() -> None:
    gain, largest = solution("ch18.q1")((1, 10.0), (32, 50.0), 32)
    assert (round(gain, 1), round(largest, 2)) == (6.4, 7.75)
    assert solution("ch18.q1")((1, 10.0), (32, 50.0), 6.75)[0] == pytest.approx(largest / 2)
    assert solution("ch18.q2")(60, 2, 40, 9.0, 1.0) == 30
    assert solution("ch15.q2")(1, 1.0, 0.1, 0.1) == 1
    one, half = torch.ones(1).double(), torch.linspace(0, 1, 20_001).double()
    for x, share in ((half, 1 / 16), (2 * half - 1, 1.0)):
        left = solution("ch19.q1")(lambda theta, w, x=x: theta * x + w * x**2, one, one)
        assert left.item() == pytest.approx(share, abs=1e-3)
