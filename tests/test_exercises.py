"""Exercises: solutions pass, nothing that a student writes raises, and the chapters hold what they should."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from exercise_answers import answer

import hybridsam_lite as hs
from hybridsam_lite.exercises.registry import find
from hybridsam_lite.exercises.verdict import Verdict
from tools import exercises

ROOT = Path(__file__).resolve().parents[1]
ALL = hs.exercises.questions()


def test_every_chapter_has_exercises() -> None:
    assert {name[:4] for name in ALL} == {f"ch{path.name[:2]}" for path in (ROOT / "book").glob("[0-9][0-9]_*.ipynb")}
    assert all(find(name).checker for name in ALL)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ALL)
def test_a_printed_answer_runs_in_its_chapter(name: str) -> None:
    """With what the chapter has imported, and no annotations that only this file would leave alone."""
    (path,) = (ROOT / "book").glob(f"{name[2:4]}_*.ipynb")
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    plain = "\n".join(line for cell in cells for line in cell.splitlines() if not line.lstrip().startswith("%"))
    imports = [part for part in ast.parse(plain.replace(":  # elsewhere", ": pass  # elsewhere")).body
               if isinstance(part, (ast.Import, ast.ImportFrom))]  # fmt: skip
    names: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), path.name, "exec", dont_inherit=True), names)
    found = find(name)
    assert found is not None
    exec(compile(found.source(), name, "exec", dont_inherit=True), names)
    assert hs.exercises.check(name, names[found.name])


@pytest.mark.parametrize("name", ALL)
def test_solutions_pass_and_stubs_are_unanswered(name: str) -> None:
    found = find(name)
    assert found is not None
    verdict = hs.exercises.check(name, found.solution)
    assert verdict, verdict
    names: dict[str, Any] = {"torch": torch, "np": np, "math": math, "hs": hs}
    exec(found.source(), names)  # the source as it is printed under the answer
    assert hs.exercises.check(name, names[found.name])
    exec(found.stub(), names)
    stub = hs.exercises.check(name, names[found.name])
    assert stub.status == "unanswered"
    assert not stub
    with pytest.raises(NotImplementedError, match=name):  # the stub fails loudly when it is called
        names[found.name](*[None] * names[found.name].__code__.co_argcount)


class Strange:
    """Whatever one does with it, it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("strange")

    def __len__(self) -> int:
        raise RuntimeError("strange")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("strange")

    __hash__ = None  # type: ignore[assignment]


def absurd() -> dict[str, Any]:
    def deep(*_: Any) -> Any:
        return deep(*_)

    return {
        "none": None,
        "a number": 3.0,
        "a class": dict,
        "returns none": lambda *_: None,
        "nan": lambda *_: math.nan,
        "tensor of nan": lambda *_: torch.full((3,), torch.nan),
        "complex": lambda *_: 1j,
        "text": lambda *_: "42",
        "wrong shape": lambda *_: torch.zeros(7, 7, 7),
        "ragged": lambda *_: [[1.0], [2.0, 3.0]],
        "empty": lambda *_: (),
        "its argument": lambda *a: a[0] if a else None,
        "a dict": lambda *_: {"w": None, 3: "x"},
        "a function": lambda *_: lambda *_: None,
        "another signature": lambda: 0,
        "raises": lambda *_: 1 / 0,
        "asserts": lambda *_: (_ for _ in ()).throw(AssertionError),
        "exits": lambda *_: sys.exit(1),
        "interrupts": lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        "recursion": deep,
        "strange": Strange(),
        "returns something strange": lambda *_: Strange(),
        "huge": lambda *_: 10**400,
        "a large tensor": lambda *_: torch.zeros(1_000_000),
        "a module": lambda *_: torch.nn.Linear(1, 1),
    }


@pytest.mark.parametrize("name", ALL)
def test_absurd_answers_get_a_sentence(name: str) -> None:
    for what, function in absurd().items():
        verdict = hs.exercises.check(name, function)
        assert verdict.status == "wrong", (what, verdict)
        assert 10 < len(verdict.message) < 400, (what, verdict)
        assert "Traceback" not in repr(verdict)


def test_an_unknown_exercise_is_no_traceback() -> None:
    for name in ("ch99.q1", "ch04.q9", "", "os.path", 3, None):
        assert "There is no exercise" in hs.exercises.check(name, None).message  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ch04\.q1"):
        hs.exercises.statement("ch04.q9")


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "import time\n    time.sleep(60)",
        "while True:\n        try: 1 / 0\n        except Exception: pass",
    ],
)
def test_an_endless_answer_comes_to_an_end(body: str) -> None:
    start = time.monotonic()
    verdict = hs.exercises.check("ch03.q1", answer("ch03.q1", f"def f(u, v):\n    {body}"), seconds=0.5)
    assert "did not come to an end" in verdict.message
    assert time.monotonic() - start < 30  # of which half a second is ours


def test_checking_leaves_torch_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), torch.get_default_dtype()
    hs.exercises.check("ch14.q1", find("ch14.q1").solution)  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_default_dtype() == before[1]


def test_verdicts_read_well() -> None:
    wrong = Verdict("ch04.q1", "wrong", "A <b>sentence</b>.")
    assert (bool(wrong), repr(wrong)) == (False, "✗ ch04.q1: not yet. A <b>sentence</b>.")
    assert "&lt;b&gt;" in wrong._repr_html_()
    where = hs.exercises.check("ch03.q1", lambda u, v: 1 / 0)
    assert "ZeroDivisionError: division by zero" in where.message
    assert 'at the line "where = ' in where.message
    assert "def sam_step(loss, params, phi, rho, lr):" in hs.exercises.statement("ch04.q1")


def test_exercises_are_loaded_when_asked_for() -> None:
    code = (
        "import sys, hybridsam_lite as hs; assert not [m for m in sys.modules if 'exercises.ch' in m];"
        "hs.exercises.check('ch01.q1', 0); assert 'hybridsam_lite.exercises.ch02' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def chapter_copies(folder: Path) -> Path:
    """The chapters without their generated cells, in a folder of their own."""
    for path in sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text())
        notebook["cells"] = [cell for cell in notebook["cells"] if not cell["id"].startswith(exercises.PREFIX)]
        (folder / path.name).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return folder


def test_the_tool_writes_cells_once_and_finds_what_is_not_current(tmp_path: Path) -> None:
    book = chapter_copies(tmp_path)
    bare = {path.name: json.loads(path.read_text())["cells"] for path in book.glob("*.ipynb")}
    assert exercises.main(["--book", str(book)]) == 1
    assert exercises.main(["--book", str(book), "--write"]) == 0
    assert exercises.main(["--book", str(book)]) == 0
    written = 0
    for path in book.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        made = [cell for cell in notebook.cells if cell.id.startswith(exercises.PREFIX)]
        rest = [cell["id"] for cell in bare[path.name]]
        assert [cell.id for cell in notebook.cells if cell not in made] == rest  # nothing else was touched
        for cell in made:
            if cell.cell_type == "code":
                written += 1
                assert cell.metadata.tags == ["skip-execution", "nbval-skip"]
                assert "NotImplementedError" in cell.source
                assert len(cell.source.splitlines()) <= 25
                assert max(map(len, cell.source.splitlines())) <= 110
    assert written == len([name for name in ALL if any(path.startswith(name[2:4]) for path in bare)])

    chapter = book / "04_sam_from_scratch.ipynb"
    chapter.write_text(chapter.read_text().replace("SAM, by heart", "SAM by heart"))
    assert exercises.main(["--book", str(book)]) == 1  # an edited cell is found


def test_a_generated_cell_runs_as_a_student_runs_it() -> None:
    """In a fresh namespace with `hs`, as it stands and then with the answer in it."""
    cell = next(c for c in exercises.cells("ch03") if c["cell_type"] == "code")
    source = "".join(cell["source"])
    definition, _, call = source.rpartition("\n\n\n")
    names: dict[str, Any] = {"hs": hs}
    exec(definition, names)
    assert eval(call, names).status == "unanswered"
    exec(find("ch03.q1").source(), names)  # type: ignore[union-attr]
    assert eval(call, names)


def test_the_chapters_are_current() -> None:
    assert not [path.name for path in exercises.corrected(ROOT / "book")], "python -m tools.exercises --write"
