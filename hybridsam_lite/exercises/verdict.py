"""What a check says, and the two ways in which a check ends early."""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass

__all__ = ["Unanswered", "Verdict", "Wrong"]

MARKS = {"right": "✓", "wrong": "✗", "unanswered": "…"}
TINTS = {"right": "#1b7f3b", "wrong": "#b3261e", "unanswered": "#666666"}


class Wrong(Exception):
    """The answer is wrong; the message says in what, for the student to read."""


class Unanswered(Exception):
    """The answer is still the stub."""


@dataclass(frozen=True)
class Verdict:
    """What a check says about an answer; true if the answer is right.

    Attributes:
        question: name of the exercise.
        status: "right", "wrong" or "unanswered".
        message: what is wrong, or a remark to a right answer.

    >>> Verdict("ch04.q1", "wrong", "At rho = 0 the step is not that of plain gradient descent.")
    ✗ ch04.q1: not yet. At rho = 0 the step is not that of plain gradient descent.
    """

    question: str
    status: str
    message: str

    def __bool__(self) -> bool:
        return self.status == "right"

    def __repr__(self) -> str:
        return textwrap.fill(f"{MARKS[self.status]} {self._text()}", 100, subsequent_indent="  ")

    def _repr_html_(self) -> str:
        style = f"border-left:4px solid {TINTS[self.status]};padding:0.2em 0.8em;white-space:pre-wrap"
        return f'<div style="{style}">{MARKS[self.status]} {html.escape(self._text())}</div>'

    def _text(self) -> str:
        head = {"right": "right.", "wrong": "not yet.", "unanswered": "not answered yet."}[self.status]
        return f"{self.question}: {head} {self.message}".strip()
