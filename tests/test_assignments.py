"""The assignments and their grader: solutions get all points, usual mistakes their due, mischief harms nobody else."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

from tools import assignments, grade, grade_class
from tools.assignments import Assignment

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = (1, 2, 3, 4)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the grader needs Linux or macOS")


def graded(students: list[grade_class.Student], folder: Path, *options: str) -> tuple[list[str], str]:
    """Let students hand in, grade them in one run: differences from what is due, and what was printed."""
    submissions, out = folder / "submissions", folder / "grades.csv"
    grade_class.hand_in(students, submissions)
    before = {path: path.read_bytes() for path in submissions.iterdir()}
    command = [sys.executable, "-m", "tools.grade", str(submissions), "--out", str(out)]
    command += ["--assignment", str(students[0].assignment), *options]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path: path.read_bytes() for path in submissions.iterdir()} == before
    assert sorted(path.name for path in folder.iterdir()) == ["grades.csv", "submissions", "tmp"]
    assert not list((folder / "tmp").glob("hybridsam-grade-*"))
    assert not [p for p in psutil.process_iter() if str(folder / "tmp") in str(_environment(p))]
    return grade_class.differences(students, out), done.stdout


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", NUMBERS)
def test_solutions_and_usual_mistakes_get_their_due(number: int, tmp_path: Path) -> None:
    wrong = [student for student in grade_class.WRONG if student.assignment == number]
    assert len(wrong) >= 5
    found, _ = graded([grade_class.right(number), *wrong], tmp_path)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hostile_notebook_costs_its_author_and_nobody_else(tmp_path: Path) -> None:
    """Each of them, between two neighbours who did their work."""
    neighbours = [grade_class.Student(f"neighbour_{i}", 2, {"q1": ""}, {"q1": 4}) for i in "ab"]
    students = [neighbours[0], *grade_class.HOSTILE, neighbours[1]]
    (tmp_path / "class").mkdir()
    found, printed = graded(students, tmp_path / "class", "--seconds", "12", "--memory", "1", "--processes", "2")
    assert not found, "\n".join(found)
    assert f"{len(students)} notebooks" in printed


def test_files_that_are_no_notebooks_are_named_and_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "empty.ipynb").write_text("")
    (tmp_path / "torn.ipynb").write_text('{"cells": [{"cell_type": "code", "sour')
    (tmp_path / "odd.ipynb").write_text('{"cells": [1, 2]}')
    (tmp_path / "bytes.ipynb").write_bytes(b"\xff\xfe\x00")
    assignment = assignments.load(2)
    paths = sorted(tmp_path.glob("*.ipynb"))
    found = grade.grade(paths, tmp_path, assignment, grade.Limits())
    assert [one.status for one in found] == ["unreadable"] * 4
    grade.write_csv(found, assignment, tmp_path / "grades.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "grades.csv").read_text())))
    assert [row["points"] for row in rows] == ["0"] * 4
    assert "could not be read as a notebook" in rows[0]["feedback"]


def test_texts_of_students_are_no_formulas(tmp_path: Path) -> None:
    assignment = assignments.load(2)
    one = grade.Grade("=cmd.ipynb", dict.fromkeys(assignment.items, 0), ["=1+1"], {"q5": '@SUM(1)\n"x", y'})
    grade.write_csv([one], assignment, tmp_path / "g.csv")
    row = next(csv.DictReader(io.StringIO((tmp_path / "g.csv").read_text())))
    assert (row["file"], row["feedback"]) == ("'=cmd.ipynb", "'=1+1")
    assert row["q5 (to read, 2 points)"] == '\'@SUM(1)\n"x", y'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--assignment", "2"], "no notebooks"),
        ([".", "--assignment", "9"], "no assignment '9'; there are 1_lose_theta"),
        ([".", "--assignment", "2", "--seconds", "-1"], "must be positive"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.ipynb").write_text("{}")
    arguments[0] = str(tmp_path / arguments[0])
    with pytest.raises(SystemExit):
        grade.main(arguments)
    assert said in capsys.readouterr().err


@pytest.fixture(params=NUMBERS)
def assignment(request: pytest.FixtureRequest) -> Assignment:
    return assignments.load(request.param)


def test_twenty_points_and_a_rubric_that_adds_up(assignment: Assignment) -> None:
    assert sum(one.points for one in assignment.items) + sum(assignment.written.values()) == 20
    for part in assignment.parts:  # the points in the headings are those of the rubric
        if found := re.match(r"## (\d)\. .*\((\d+) points", part.text):
            question = f"q{found[1]}"
            items = sum(one.points for one in assignment.items if one.question == question)
            assert int(found[2]) == items + assignment.written.get(question, 0), question
    assert "20 points" in assignment.parts[0].text
    assert "hours" in assignment.parts[0].text
    marked = [
        node for node in ast.parse(assignment.hidden).body if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    assert len(marked) == len(assignment.items)  # the rubric sees every test


def test_every_answer_has_a_stub_and_a_visible_check(assignment: Assignment) -> None:
    answers = [part.question for part in assignment.parts if part.kind == "answer"]
    assert answers == [part.question for part in assignment.parts if part.kind == "check"]
    assert answers == sorted({one.question for one in assignment.items})
    for part in assignment.parts:
        if part.kind == "answer":
            assert f'raise NotImplementedError("{part.question}:' in assignments.without_solution(part)
            ast.parse(assignments.without_solution(part))


def test_bundles_are_complete_and_valid(tmp_path: Path) -> None:
    written = assignments.build(tmp_path)
    names = assignments.names()
    assert [path.name for path in sorted((tmp_path / "student").iterdir())] == [f"{name}.ipynb" for name in names]
    for path in written:
        if path.suffix == ".ipynb":
            notebook = nbformat.read(path, as_version=4)
            nbformat.validate(notebook)
            assert "google.colab" in notebook.cells[1].source
        elif path.suffix == ".py":
            ast.parse(path.read_text())
        else:
            assert "20 points" in path.read_text()


def test_no_answer_and_no_hidden_test_is_in_the_student_bundle(assignment: Assignment, tmp_path: Path) -> None:
    """No line of a solution, no sentence of a model answer, no name or message of a hidden test."""
    assignments.build(tmp_path)
    bundle = "\n".join(
        "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
        + json.dumps(json.loads(path.read_text())["metadata"])
        for path in (tmp_path / "student").rglob("*")
    )
    given = {line.strip() for part in assignment.parts for line in assignments.without_solution(part).splitlines()}
    secret = []
    for part in assignment.parts:
        if part.kind == "written":
            secret += [sentence.strip() for sentence in re.split(r"[.;:]\s", part.text)]
        if part.kind == "answer":
            lines = [line.strip() for line in part.text.splitlines()]
            secret += [line for line in lines if line not in given and not line.startswith("#")]
    tree = ast.parse(assignment.hidden)
    secret += [one.text for one in assignment.items]
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    secret += [text for text in strings if len(text) > 25]
    secret = [line for line in secret if len(line) > 9]
    assert len(secret) > 30
    assert not [line for line in secret if line in bundle]
    for word in ("SOLUTION", "hidden", "@item", "tools.assignments"):
        assert word not in bundle


def test_a_leak_would_be_found(tmp_path: Path) -> None:
    """The test above is not blind: the instructor's notebook would not pass it."""
    assignments.build(tmp_path)
    solution = next((tmp_path / "instructor" / "2_write_sam").glob("*.ipynb")).read_text()
    assert "p.copy_(old)" in solution


def test_otter_finds_the_hidden_tests(tmp_path: Path) -> None:
    """otter-grader's format: a decorator for each test, and the points of the rubric."""
    for name in assignments.names():
        one = assignments.load(name)
        for file, text in assignments.otter_tests(one).items():
            found: list[dict[str, object]] = []

            def test_case(found: list[dict[str, object]] = found, **options: object) -> object:
                found.append(options)
                return lambda test: test

            source = text.replace("from otter.test_files import test_case", "")
            space = {"test_case": test_case}
            exec(compile(source, file, "exec"), space)
            question = file.removesuffix(".py")
            assert [o["points"] for o in found] == [i.points for i in one.items if i.question == question]
            assert all(o["hidden"] for o in found)
            assert space["points"] == sum(i.points for i in one.items if i.question == question)


def test_the_class_of_thirty_is_thirty() -> None:
    students = grade_class.thirty()
    assert len({student.name for student in students}) == len(students) == 30


def handed_in(folder: Path, name: str, content: bytes) -> grade.Submission:
    path = folder / name
    path.write_bytes(content)
    return grade.read(path, folder, assignments.load(2))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[" * 100_000, b"9" * 5000, b"[]", b"{}", b'{"cells": [1]}', b'{"cells": [{"source": [3]}]}',
        b'{"cells": [{"cell_type": "code", "source": "x = \'\\ud800\'"}]}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_notebook_costs_its_author_points_and_nobody_else(tmp_path: Path, content: bytes) -> None:
    submission = handed_in(tmp_path, "x.ipynb", content)
    assert (submission.grade.status, submission.cells) == ("unreadable", [])
    grade.write_csv([submission.grade], assignments.load(2), tmp_path / "grades.csv")
    assert "unreadable" in (tmp_path / "grades.csv").read_text(encoding="utf-8")


def test_pipes_folders_and_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a pipe that nobody writes would take for ever."""
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "endless.ipynb").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "endless"):
        assert grade.read(tmp_path / f"{name}.ipynb", tmp_path, assignments.load(2)).grade.status == "unreadable"
    monkeypatch.setattr(grade, "LARGEST", 10)
    assert handed_in(tmp_path, "large.ipynb", b'{"cells": []}').grade.status == "unreadable"


def test_names_that_are_no_text_can_be_written(tmp_path: Path) -> None:
    submission = handed_in(tmp_path, os.fsdecode(b"\xff.ipynb"), b'{"cells": []}')
    assert submission.file == "\\xff.ipynb"
    grade.write_csv([submission.grade], assignments.load(2), tmp_path / "grades.csv")
    grade.write_page(submission.grade, assignments.load(2), tmp_path / "feedback")
    assert (tmp_path / "feedback" / "\\xff.md").exists()


def heard(folder: Path, *lines: str) -> grade.Process:
    """A process that has reported these lines."""
    path = folder / "reports"
    path.write_text("".join(f"token {line}\n" for line in lines))
    submission = grade.Submission("x", [], grade.Grade("x", dict.fromkeys(assignments.load(2).items, 0)))
    process = grade.Process(submission, 0, os.open(path, os.O_RDONLY), "token", "")
    grade.hear(process)
    os.close(process.pipe)
    return process


def test_reports_that_the_worker_cannot_have_sent_are_passed_over(tmp_path: Path) -> None:
    odd = ["[" * 100_000, "1", "null", '{"event": "item"}', '{"event": "step"}', '{"event": ["done"]}',
           '{"event": "item", "index": Infinity, "points": 1, "text": ""}']  # fmt: skip
    good = '{"event": "item", "index": 0, "points": 1, "text": "\\ud800"}'
    process = heard(tmp_path, *odd, good, '{"event": "step", "name": "test 99"}')
    assert process.results == {0: (1, "\\ud800")}
    assert not process.done
    assert grade.settle(process, "took too long", assignments.load(2), 180.0) is not None
    assert process.submission.grade.notes == ["The step 'test 99' took too long and was left out."]


def test_what_a_process_says_with_its_last_breath_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last results may come between the first look and the end; only "done" was heard then."""
    process = heard(tmp_path)
    path = tmp_path / "late"
    path.write_text('token {"event": "item", "index": 0, "points": 1, "text": ""}\ntoken {"event": "done"}\n')

    def ends(*_: int) -> tuple[int, int]:
        process.pipe = os.open(path, os.O_RDONLY)
        return 1, 0

    empty = os.open(os.devnull, os.O_RDONLY)
    process.pipe = empty
    monkeypatch.setattr(os, "waitpid", ends)
    assert grade.look_at(process) == "ok"
    assert process.results == {0: (1, "")}
    os.close(empty)
    os.close(process.pipe)
