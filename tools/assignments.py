"""The four assignments: read their sources, and build what goes to students and what stays with the instructor.

`python -m tools.assignments [FOLDER]`, or `make assignments`, writes to _build/assignments:

    student/       one notebook for each assignment, to be handed out: nothing else is in there
    instructor/    the solution as a notebook, the rubric, and tests that otter-grader understands

An assignment is a script assignments/N_name.py in cells (`# %%`), with its solution, and a module of hidden tests
assignments/hidden/N_name.py. Cells are marked in their first line: `answer=q1` is the student's to fill in, `check=q1`
is a visible check, `written=q6` holds the model answer of a question that a person reads. What stands between
`# SOLUTION` and `# END SOLUTION` is taken out for students. A hidden test is a function with the decorator `item`; its
arguments are names that the student's notebook defines. Its title and points are a line of the rubric.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.address import COLAB_CELL, address

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "assignments"
HIDDEN = SOURCES / "hidden"
BUILD = ROOT / "_build" / "assignments"
STUB = 'raise NotImplementedError("{question}: replace this line by your answer")'
WRITTEN = "<!-- answer {question} -->\n\n*Your answer, in this cell.*"

Test = Callable[..., None]
Cell = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """A line of the rubric: a hidden test, what it asks for and what it is worth."""

    question: str
    points: int
    text: str


@dataclass(frozen=True)
class Part:
    """A cell of the source: its kind, the question it belongs to, and its text."""

    kind: str  # "markdown", "code", "answer", "check" or "written"
    question: str
    text: str


@dataclass(frozen=True)
class Assignment:
    """An assignment as its source says it.

    Attributes:
        name: such as "2_write_sam".
        parts: its cells.
        hidden: source of the hidden tests.
    """

    name: str
    parts: list[Part]
    hidden: str

    @property
    def title(self) -> str:
        """The first heading."""
        return self.parts[0].text.splitlines()[0].removeprefix("# ")

    @property
    def items(self) -> list[Item]:
        """The rubric, in order, without running the tests."""
        found = re.findall(r'(?m)^@item\("(\w+)", (\d+), "([^"]+)"\)$', self.hidden)
        return [Item(question, int(points), text) for question, points, text in found]

    @property
    def written(self) -> dict[str, int]:
        """Questions that a person reads, and their points."""
        points = {}
        for part, following in zip(self.parts, self.parts[1:], strict=False):
            if following.kind == "written":
                found = re.search(r"\((\d+) points", part.text)
                points[following.question] = int(found[1]) if found else 0
        return points


def item(question: str, points: int, text: str) -> Callable[[Test], Test]:
    """Decorator of a hidden test: the line of the rubric that it decides."""

    def mark(test: Test) -> Test:
        test.item = Item(question, points, text)  # type: ignore[attr-defined]
        return test

    return mark


def names() -> list[str]:
    """The assignments, in order."""
    return sorted(path.stem for path in SOURCES.glob("[0-9]_*.py"))


def load(which: str | int) -> Assignment:
    """An assignment by its number or name.

    Raises:
        ValueError: if there is none.
    """
    matching = [name for name in names() if str(which) in (name, name[0])]
    if not matching:
        raise ValueError(f"no assignment {which!r}; there are {', '.join(names())}")
    name = matching[0]
    return Assignment(name, parse((SOURCES / f"{name}.py").read_text()), (HIDDEN / f"{name}.py").read_text())


def parse(source: str) -> list[Part]:
    """The cells of a script in the percent format."""
    parts = []
    for block in re.split(r"(?m)^# %%", source)[1:]:
        head, _, body = block.partition("\n")
        marked = re.search(r"(answer|check|written)=(\w+)", head)
        kind, question = (marked[1], marked[2]) if marked else ("code", "")
        body = body.strip("\n")
        if "[markdown]" in head:
            kind = kind if kind == "written" else "markdown"
            body = "\n".join(re.sub(r"^# ?", "", line) for line in body.splitlines())
        parts.append(Part(kind, question, body))
    return parts


def without_solution(part: Part) -> str:
    """What a student sees of a cell."""
    if part.kind == "written":
        return WRITTEN.format(question=part.question)
    lines, inside = [], False
    for line in part.text.splitlines():
        if line.strip() == "# SOLUTION":
            inside = True
            lines.append(line.replace("# SOLUTION", STUB.format(question=part.question)))
        elif line.strip() == "# END SOLUTION":
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def with_solution(part: Part) -> str:
    """What an instructor sees of a cell."""
    if part.kind == "written":
        return f"{WRITTEN.format(question=part.question)}\n\n{part.text}"
    return "\n".join(line for line in part.text.splitlines() if line.strip() not in ("# SOLUTION", "# END SOLUTION"))


def notebook(assignment: Assignment, text: Callable[[Part], str]) -> dict[str, Any]:
    """A notebook of the cells, each as `text` shows it."""
    cells = [_cell("markdown", "title", text(assignment.parts[0]))]
    cells.append(_cell("code", "colab", COLAB_CELL.format(address=address())))
    for i, part in enumerate(assignment.parts[1:], start=1):
        kind = "markdown" if part.kind in ("markdown", "written") else "code"
        cells.append(_cell(kind, f"{part.kind}-{part.question or i}", text(part)))
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, "assignment": assignment.name}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _cell(kind: str, name: str, text: str) -> Cell:
    cell: Cell = {"cell_type": kind, "id": name, "metadata": {}, "source": text.strip("\n").splitlines(keepends=True)}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell


def rubric(assignment: Assignment) -> str:
    """The rubric, as Markdown."""
    total = sum(i.points for i in assignment.items) + sum(assignment.written.values())
    lines = [
        f"# {assignment.title}: rubric",
        "",
        f"{total} points.",
        "",
        "| question | points | for |",
        "|---|---|---|",
    ]
    lines += [f"| {i.question} | {i.points} | {i.text} |" for i in assignment.items]
    lines += [f"| {q} | {points} | read by a person |" for q, points in assignment.written.items()]
    for part in assignment.parts:
        if part.kind == "written":
            lines += ["", f"## Model answer to {part.question}", "", part.text]
    return "\n".join(lines) + "\n"


OTTER = '''\
"""Generated by tools/assignments.py: the hidden tests of {question}, in the format of otter-grader."""

from otter.test_files import test_case

OK_FORMAT = False

name = "{question}"
points = {points}


def item(question, points, text):
    """Hand tests of this question to otter-grader, and drop the others."""
    return test_case(points=points, hidden=True, name=text) if question == "{question}" else lambda test: None


'''


def otter_tests(assignment: Assignment) -> dict[str, str]:
    """File name -> test file of otter-grader, one for each question: `otter generate` makes an autograder of them."""
    body = re.sub(r'\A""".*?"""\n', "", assignment.hidden, flags=re.DOTALL)
    body = body.replace("from tools.assignments import item\n", "")
    points: dict[str, int] = {}
    for one in assignment.items:
        points[one.question] = points.get(one.question, 0) + one.points
    return {f"{q}.py": OTTER.format(question=q, points=total) + body.lstrip("\n") for q, total in points.items()}


def build(folder: Path = BUILD) -> list[Path]:
    """Write student and instructor bundles; the files."""
    written = []
    for name in names():
        assignment = load(name)
        inside = folder / "instructor" / name
        files = {
            folder / "student" / f"{name}.ipynb": _json(notebook(assignment, without_solution)),
            inside / f"{name}_solution.ipynb": _json(notebook(assignment, with_solution)),
            inside / "rubric.md": rubric(assignment),
        }
        files |= {inside / "tests" / file: text for file, text in otter_tests(assignment).items()}
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            written.append(path)
    return written


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Build the bundles."""
    folder = Path(arguments[0]) if arguments else BUILD
    for path in build(folder):
        if path.suffix == ".ipynb":
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
