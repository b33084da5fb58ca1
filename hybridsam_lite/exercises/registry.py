"""The exercises by name, and `check`."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hybridsam_lite.exercises.limits import limited
from hybridsam_lite.exercises.verdict import Unanswered, Verdict, Wrong

__all__ = ["Question", "check", "question", "questions", "statement"]

SECONDS = 30.0  # for one check; the slowest needs one
STUB = '    raise NotImplementedError("{id}: replace this line by your answer")\n'

Checker = Callable[[Any], None]
_known: dict[str, Question] = {}


@dataclass
class Question:
    """One exercise.

    Attributes:
        id: its name, such as "ch04.q1".
        title: a few words.
        text: the statement, Markdown.
        solution: a right answer; the student's stub is made from it.
        why: a remark to the solution, Markdown.
        after: a remark to a right answer, in one sentence.
        checker: raises `Wrong` for a wrong answer; set by `check`.
    """

    id: str
    title: str
    text: str
    solution: Callable[..., Any]
    why: str = ""
    after: str = ""
    checker: Checker | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name of the function that is asked for."""
        return self.solution.__name__

    def check(self, checker: Checker) -> Checker:
        """Decorator: what decides about answers."""
        self.checker = checker
        return checker

    def source(self) -> str:
        """The solution as a student would write it: without decorator and annotations."""
        head, doc, body = self._parts()
        return head + doc + body

    def stub(self) -> str:
        """The student's cell: signature and docstring, and a line that fails loudly."""
        head, doc, _ = self._parts()
        return head + doc + STUB.format(id=self.id)

    def _parts(self) -> tuple[str, str, str]:
        text = textwrap.dedent(inspect.getsource(self.solution))
        lines = text.splitlines(keepends=True)
        tree = ast.parse(text).body[0]
        assert isinstance(tree, ast.FunctionDef)
        first = tree.body[0]
        arguments = tree.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            argument.annotation = None
        end = first.end_lineno or first.lineno
        doc = "".join(lines[first.lineno - 1 : end])
        return f"def {tree.name}({ast.unparse(arguments)}):\n", doc, "".join(lines[end:])


def question(
    id: str, title: str, text: str, *, why: str = "", after: str = ""
) -> Callable[[Callable[..., Any]], Question]:
    """Decorator that makes an exercise of its solution."""

    def register(solution: Callable[..., Any]) -> Question:
        _known[id] = Question(
            id, title, textwrap.dedent(text).strip(), solution, textwrap.dedent(why).strip(), " ".join(after.split())
        )
        return _known[id]

    return register


def check(question: str, answer: Any, *, seconds: float = SECONDS) -> Verdict:
    """Try an answer to an exercise, and say what is wrong with it.

    Args:
        question: name of the exercise, such as "ch04.q1"; `questions` lists them.
        answer: the function that the exercise asks for.
        seconds: after which an answer counts as one that does not end.

    Returns:
        A `Verdict`, true if the answer is right. Never raises because of an answer.

    >>> check("ch01.q1", None)
    ✗ ch01.q1: not yet. Expected the function `network`, got None. Pass the function itself, without
      ().
    """
    found = find(question)
    if found is None:
        known = ", ".join(questions())
        return Verdict(str(question)[:40], "wrong", f"There is no exercise of this name. There are {known}.")
    try:
        limited(lambda: _judge(found, answer), seconds)
    except Unanswered:
        return Verdict(found.id, "unanswered", f"Replace the line with NotImplementedError in `{found.name}`.")
    except Wrong as wrong:
        return Verdict(found.id, "wrong", str(wrong))
    except TimeoutError:
        return Verdict(found.id, "wrong", f"`{found.name}` did not come to an end within {seconds:g} seconds.")
    except Exception as error:  # a result that not even the check could look at
        said = f"{type(error).__name__}: {str(error)[:120]}"
        return Verdict(found.id, "wrong", f"The result of `{found.name}` is of a kind that cannot be used ({said}).")
    return Verdict(found.id, "right", found.after)


def _judge(found: Question, answer: Any) -> None:
    from hybridsam_lite.exercises.asking import Ask

    assert found.checker is not None
    found.checker(Ask(answer, found.name))


def questions(chapter: str = "") -> list[str]:
    """Names of the exercises, in order; of one chapter, if its number is given as "ch04".

    >>> questions("ch04")
    ['ch04.q1', 'ch04.q2']
    """
    for module in chapters():
        importlib.import_module(module)
    return sorted(name for name in _known if name.startswith(chapter))


def statement(question: str) -> str:
    """What an exercise asks, as Markdown with the signature of the function.

    Raises:
        ValueError: if there is no exercise of this name.
    """
    found = find(question)
    if found is None:
        raise ValueError(f"there is no exercise {question!r}; there are {', '.join(questions())}")
    return f"**{found.id}. {found.title}.** {found.text}\n\n```python\n{found.stub().rstrip()}\n```"


def find(name: Any) -> Question | None:
    """The exercise of this name; its chapter is imported when it is first asked for."""
    chapter = str(name).partition(".")[0]
    module = f"{__package__}.{chapter}"
    if not isinstance(name, str):
        return None
    if name not in _known and module in chapters():
        importlib.import_module(module)
    return _known.get(name)


def chapters() -> list[str]:
    """The modules that hold exercises."""
    package = importlib.import_module(__package__ or "")
    return [f"{__package__}.{m.name}" for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("ch")]
