"""An explorer: controls, and a function from their state to what is shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from hybridsam_lite.explorers.views import GUESSED, View, number, picture_of, rule
from hybridsam_lite.widgets.parts import picture

__all__ = ["Control", "Explorer", "Guess", "asked", "decades", "steps"]

State = dict[str, Any]
MOST = 200_000  # bytes of one explorer's data in a page; picture and script are some 80 kB more
FRAMES = 2_000  # states that are computed beforehand, at most


@dataclass(frozen=True)
class Control:
    """One control and the values that it runs through.

    Attributes:
        name: of its value in the state.
        label: what the reader sees.
        values: numbers or texts.
        start: the value at the beginning, one of `values`.
        texts: the values as the reader sees them; numbers have three digits by default.
        choice: a list to choose from; else a slider.
        play: a slider with a button that moves it to its end.
        when: (name, value) of another control, at which this one is shown; None is always.

    >>> Control("rho", "radius rho", (0.0, 0.1, 0.2), 0.1).texts
    ('0', '0.1', '0.2')
    """

    name: str
    label: str
    values: tuple[float | str, ...]
    start: float | str
    texts: tuple[str, ...] = ()
    choice: bool = False
    play: bool = False
    when: tuple[str, float | str] | None = None

    def __post_init__(self) -> None:
        if self.start not in self.values:
            raise ValueError(f"control {self.name!r}: start {self.start!r} is none of its {len(self.values)} values")
        if not self.texts:
            texts = tuple(v if isinstance(v, str) else number(v) for v in self.values)
            object.__setattr__(self, "texts", texts)
        if len(self.texts) != len(self.values):
            raise ValueError(f"control {self.name!r}: {len(self.texts)} texts for {len(self.values)} values")


@dataclass(frozen=True)
class Guess:
    """A question to be answered before anything is shown.

    Attributes:
        question: what the reader is asked; the answer is a number.
        answer: the right one.
        low, high: between them answers are accepted.
        unit: of the answer.
        panel, axis: where guess and answer are drawn as lines: number of the panel, and "x" or "y"; None is nowhere.

    >>> Guess("How many degrees in a right angle?", 90, 0, 360, "degrees").verdict(80)
    'You guessed 80 degrees. It is 90 degrees: off by 10.'
    """

    question: str
    answer: float
    low: float
    high: float
    unit: str = ""
    panel: int | None = None
    axis: str = "y"

    def verdict(self, guess: float) -> str:
        """The guess against the answer, in words."""
        said = [f"{number(x)} {self.unit}".rstrip() for x in (guess, self.answer)]
        return f"You guessed {said[0]}. It is {said[1]}: off by {number(abs(guess - self.answer))}."

    def marked(self, shown: View, guess: float) -> View:
        """A view with the guess drawn into it."""
        if self.panel is None:
            return shown
        panels = [dict(one) for one in shown["panels"]]
        place: Any = {self.axis: guess}
        mine = rule(GUESSED, "your guess", **place)
        panels[self.panel]["marks"] = [*panels[self.panel]["marks"], mine]
        return {**shown, "panels": panels}


def asked(predict: bool | Guess, own: Guess) -> Guess | None:
    """What `predict` stands for: an explorer's own question, another, or none.

    Raises:
        TypeError: if it is none of these.
    """
    if isinstance(predict, bool):
        return own if predict else None
    if isinstance(predict, Guess):
        return predict
    raise TypeError(f"predict must be True, False or an hs.explorers.Guess, got {predict!r}")


@dataclass(frozen=True)
class Explorer:
    """A figure with controls; the last value of a notebook cell shows it.

    Attributes:
        title: what it is about.
        about: the axes in words, for those who do not see the picture.
        controls: in the order in which they are shown.
        at: state -> view, which is what is shown then.
        table: the message in numbers, a few rows.
        guess: the question to be answered first, or None.
        kind: name of the script that computes `at` in a page; by default all states are computed beforehand.
        data: what that script needs besides the state.

    Raises:
        ValueError: if there are no controls, too many states, or too much data for a page.

    >>> from hybridsam_lite.explorers import axis, line, panel, view
    >>> def at(state):
    ...     k = state["k"]
    ...     return view(f"slope {k}", panel(axis("x", 0, 1), axis("y", 0, 2), line([(0, 0), (1, k)], "black")))
    >>> Explorer("a line", "a line through zero", (Control("k", "slope", (1, 2), 1),), at, pd.DataFrame({"k": [1]}))
    Explorer(a line: slope 1)
    """

    title: str
    about: str
    controls: tuple[Control, ...]
    at: Callable[[State], View]
    table: pd.DataFrame
    guess: Guess | None = None
    kind: str = "frames"
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.controls:
            raise ValueError(f"explorer {self.title!r} has no controls; a figure that nobody moves is hs.plots' task")
        if self.kind == "frames" and (count := len(self.states())) > FRAMES:
            raise ValueError(
                f"explorer {self.title!r}: its controls have {count} states, at most {FRAMES} can be computed "
                "beforehand; give fewer values"
            )
        if (size := len(self.payload.encode())) > MOST:
            raise ValueError(
                f"explorer {self.title!r}: its data take {size / 1000:.0f} kB, expected at most {MOST / 1000:.0f} kB: "
                "give fewer methods, settings or samples"
            )

    @cached_property
    def payload(self) -> str:
        """What its script reads in a page, as JSON."""
        from hybridsam_lite.explorers.page import payload

        return payload(self)

    @property
    def start(self) -> State:
        """The state at the beginning."""
        return {control.name: control.start for control in self.controls}

    def active(self, state: Mapping[str, Any]) -> list[Control]:
        """The controls that are shown in a state."""
        return [c for c in self.controls if c.when is None or state[c.when[0]] == c.when[1]]

    def key(self, state: Mapping[str, Any]) -> str:
        """The places of the active controls' values, "0,3"."""
        return ",".join(str(c.values.index(state[c.name])) for c in self.active(state))

    def states(self) -> dict[str, State]:
        """All states by their key."""
        found: dict[str, State] = {}
        for values in itertools.product(*(c.values for c in self.controls)):
            state = dict(zip((c.name for c in self.controls), values, strict=True))
            found.setdefault(self.key(state), state)
        return found

    def figure(self, **state: Any) -> Any:
        """The static picture of a state; what is not given is as at the beginning.

        Returns:
            A matplotlib figure.
        """
        return picture_of(self.at({**self.start, **state}))

    def picture(self, state: Mapping[str, Any], guess: float | None = None) -> str:
        """The same as HTML, with a text for those who do not see it."""
        shown = self.at(dict(state))
        if self.guess is not None and guess is not None:
            shown = self.guess.marked(shown, guess)
        return picture(picture_of(shown), f"{self.about} {shown['text']}")

    def widget(self) -> Any:
        """The same explorer as controls of ipywidgets, redrawn by Python.

        Raises:
            ImportError: without ipywidgets.
        """
        from hybridsam_lite.explorers.controls import widget

        return widget(self)

    def _repr_html_(self) -> str:
        from hybridsam_lite.explorers.page import html

        return html(self)

    def __repr__(self) -> str:
        return f"Explorer({self.title}: {self.at(self.start)['text']})"


def decades(low: int, high: int) -> tuple[float, ...]:
    """Values for a slider over powers of ten: 1, 2 and 5 times each.

    >>> decades(-1, 0)
    (0.1, 0.2, 0.5, 1.0)
    """
    return (*(float(f"{digit}e{e}") for e in range(low, high) for digit in (1, 2, 5)), float(f"1e{high}"))


def steps(low: float, high: float, size: float) -> tuple[float, ...]:
    """Values for a slider, rounded as they are written.

    >>> steps(0, 0.3, 0.1)
    (0.0, 0.1, 0.2, 0.3)
    """
    return tuple(round(low + i * size, 10) for i in range(round((high - low) / size) + 1))
