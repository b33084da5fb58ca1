"""Grade a folder of notebooks: `python -m tools.grade FOLDER --assignment 2 --out grades.csv`.

Each notebook runs in a process of its own, with limits on CPU time, memory and files, in an empty temporary folder
that is its home, too. Then the hidden tests of the assignment look at what it has defined. A notebook that never ends,
crashes, eats memory, writes files, starts processes or calls exit() costs its author points and nobody else: a cell
that brings the process down is left out in a second run, and the rest is graded.

The CSV has a row for each notebook: points, points of each question, the answers that a person must read, and for every
lost point the reason. `--feedback FOLDER` also writes a page for each student.

This protects a class from accidents and from mischief, not from an expert: a notebook runs as you. For submissions from
strangers run the grader in a container without network. It needs Linux or macOS (memory is limited on Linux only).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools import assignments
from tools.assignments import Assignment, Item

IDLE = 30.0  # seconds without any CPU time after which a process is taken to wait in vain
RERUNS = 4  # times that a notebook is run again without what brought it down; at most twice its CPU time in all
LONGEST = 400  # characters of a message in the CSV
LARGEST = 50 * 2**20  # bytes of a notebook


@dataclass(frozen=True)
class Limits:
    """What one notebook may use.

    Attributes:
        seconds: CPU time of the whole notebook with its tests.
        step: CPU time of a single cell or test.
        memory: in GiB, on top of Python, torch and the library.
        files: largest file, in MiB.
    """

    seconds: float = 180.0
    step: float = 30.0
    memory: float = 2.0
    files: float = 64.0


@dataclass
class Grade:
    """What came out for one notebook.

    Attributes:
        file: its name.
        points: item -> points, for all items of the rubric.
        notes: what to tell the student, in order.
        written: question -> answer that a person must read.
        status: "ok", or what happened to the process.
    """

    file: str
    points: dict[Item, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    status: str = "ok"

    @property
    def total(self) -> int:
        """Points that the tests gave."""
        return sum(self.points.values())

    def of(self, question: str) -> int:
        """Points of one question."""
        return sum(points for one, points in self.points.items() if one.question == question)


@dataclass
class Submission:
    """A notebook on its way through the grader."""

    file: str
    cells: list[str]
    grade: Grade
    skip: set[str] = field(default_factory=set)  # steps that brought the process down: "cell 3", "test 5"
    runs: int = 0
    cpu: float = 0.0


@dataclass
class Process:
    """A running notebook."""

    submission: Submission
    pid: int
    pipe: int
    token: str
    home: str
    buffer: bytes = b""
    step: str = "start"
    done: bool = False
    results: dict[int, tuple[int, str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    cpu: float = 0.0
    alive_at: float = field(default_factory=time.monotonic)


def grade(paths: Sequence[Path], root: Path, assignment: Assignment, limits: Limits, processes: int = 1) -> list[Grade]:
    """Grade notebooks; in the order given. All are read before the first one runs."""
    waiting = [read(path, root, assignment) for path in paths]
    grades = [submission.grade for submission in waiting]
    waiting = [submission for submission in waiting if submission.grade.status == "ok"]
    running: list[Process] = []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(
                    start(waiting.pop(0), assignment, limits, (root, assignments.SOURCES, assignments.BUILD))
                )
            for process in list(running):
                ended = look_at(process)
                if ended is None:
                    continue
                running.remove(process)
                stop(process)
                if again := settle(process, ended, assignment, limits.seconds):
                    waiting.insert(0, again)
            time.sleep(0.02)
    finally:
        for process in running:
            stop(process)
    return grades


def read(path: Path, root: Path, assignment: Assignment) -> Submission:
    """The code cells of a notebook, and the answers in words."""
    name = os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")
    result = Grade(name, dict.fromkeys(assignment.items, 0))
    cells = []
    try:
        if not path.is_file():  # a pipe would never end
            raise ValueError("no file")
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
            source.encode()  # half a character is none
            if cell["cell_type"] == "code":
                cells.append(source)
            for question in assignment.written:
                if f"<!-- answer {question} -->" in source:
                    answer = source.replace(assignments.WRITTEN.format(question=question), "")
                    result.written[question] = answer.replace(f"<!-- answer {question} -->", "").strip()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        cells, result.written, result.status = [], {}, "unreadable"
        result.notes = [f"This file could not be read as a notebook ({type(error).__name__})."]
    return Submission(result.file, cells, result)


def start(submission: Submission, assignment: Assignment, limits: Limits, closed: tuple[Path, ...]) -> Process:
    """Fork a process for a notebook. What the grader has imported, the notebook need not import again."""
    from tools.grade_worker import work

    submission.runs += 1
    home, token = tempfile.mkdtemp(prefix="hybridsam-grade-"), secrets.token_hex(16)
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:  # the child never returns from here
        try:
            os.close(reading)
            work(submission.cells, assignment.hidden, submission.skip, limits, writing, token, home, closed)
        finally:
            os._exit(0)
    os.close(writing)
    os.set_blocking(reading, False)
    return Process(submission, pid, reading, token, home)


def look_at(process: Process) -> str | None:
    """Read what a process reports; None while it runs, else how it ended."""
    hear(process)
    pid, status = os.waitpid(process.pid, os.WNOHANG)
    if pid:
        hear(process)  # what it said before its end
        return "ok" if process.done else _how(status)
    used = cpu_seconds(process.pid)
    if used > process.cpu:
        process.cpu, process.alive_at = used, time.monotonic()
    return "waited without end" if time.monotonic() - process.alive_at > IDLE else None


def hear(process: Process) -> None:
    """Enter what a process has reported since; lines that it cannot have meant are passed over."""
    for line in _lines(process):
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            event = line["event"]
            if event == "step":
                process.step = _readable(line["name"])
            elif event == "error":
                process.errors.append(_readable(line["text"]))
            elif event == "item":
                process.results[int(line["index"])] = (int(line["points"]), _readable(line["text"]))
            elif event == "done":
                process.done = True


def _readable(text: Any) -> str:
    """A message that can be written to a file."""
    return str(text)[:LONGEST].encode("utf-8", "backslashreplace").decode()


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        by = os.WTERMSIG(status)
        too_long = by in (signal.SIGXCPU, signal.SIGKILL)
        return "took too much time or memory" if too_long else f"crashed ({signal.Signals(by).name})"
    return "ended the process"


def _lines(process: Process) -> Iterator[dict[str, Any]]:
    """Complete, genuine lines from the pipe; whatever else a notebook writes there is ignored."""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(process.pipe, 65536):
            process.buffer += chunk
            if len(process.buffer) > 2**24:
                process.buffer = process.buffer[-65536:]
    *lines, process.buffer = process.buffer.split(b"\n")
    for line in lines:
        token, _, text = line.partition(b" ")
        if token == process.token.encode():
            with contextlib.suppress(ValueError, RecursionError):
                yield json.loads(text)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used; 0 if it cannot be had."""
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def stop(process: Process) -> None:
    """End a process with all its children, and remove its folder."""
    import psutil

    family = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(process.pid, signal.SIGKILL)
    for child in family:
        with contextlib.suppress(psutil.Error):
            child.kill()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, 0)
    os.close(process.pipe)
    shutil.rmtree(process.home, ignore_errors=True)


def settle(process: Process, ended: str, assignment: Assignment, seconds: float) -> Submission | None:
    """Enter the results, or give the submission back to be run without the step that brought it down."""
    submission, result = process.submission, process.submission.grade
    submission.cpu += process.cpu
    again = submission.runs <= RERUNS and submission.cpu < 2 * seconds
    if ended != "ok" and process.step != "start" and again:
        submission.skip.add(process.step)
        result.status = ended
        result.notes.append(f"{_place(process.step, assignment)} {ended} and was left out.")
        return submission
    if ended != "ok":
        result.status = ended
        result.notes.append("The notebook could not be run to its end, so that no test could look at it.")
        return None
    result.notes += process.errors
    for index, one in enumerate(assignment.items):
        points, text = process.results.get(index, (0, "This test was left out."))
        result.points[one] = min(points, one.points)
        if points < one.points:
            result.notes.append(f"{one.question}, {one.text} (0 of {one.points}): {text}")
    return None


def _place(step: str, assignment: Assignment) -> str:
    kind, _, index = step.partition(" ")
    if not index.isdecimal() or (kind != "cell" and int(index) >= len(assignment.items)):
        return f"The step {step!r}"
    if kind == "cell":
        return f"Code cell {int(index) + 1}"
    one = assignment.items[int(index)]
    return f'In the test "{one.question}, {one.text}" your function'


def write_csv(grades: Sequence[Grade], assignment: Assignment, out: Path) -> None:
    """The table of grades, complete or not at all."""
    questions = list(dict.fromkeys(one.question for one in assignment.items))
    maximum = sum(one.points for one in assignment.items)
    draft = out.with_name(out.name + ".part")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        written = [f"{q} (to read, {points} points)" for q, points in assignment.written.items()]
        writer.writerow(["file", "points", "maximum", "status", *questions, *written, "feedback"])
        for one in grades:
            answers = [one.written.get(q, "") for q in assignment.written]
            row = [one.file, one.total, maximum, one.status, *(one.of(q) for q in questions), *answers]
            writer.writerow([_harmless(cell) for cell in [*row, "\n".join(one.notes)]])
    draft.replace(out)


def _harmless(cell: Any) -> Any:
    """No text of a student is a formula to a spreadsheet."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def feedback(one: Grade, assignment: Assignment) -> str:
    """A page for one student."""
    maximum = sum(i.points for i in assignment.items)
    lines = [f"# {assignment.title}", "", f"{one.total} of {maximum} points by the tests.", ""]
    return "\n".join(lines + [f"- {note}" for note in one.notes or ["Nothing to complain of."]]) + "\n"


def write_page(one: Grade, assignment: Assignment, folder: Path) -> None:
    """Write the page for one student."""
    page = folder / Path(one.file).with_suffix(".md")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(feedback(one, assignment), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Grade a folder."""
    parser = argparse.ArgumentParser(prog="python -m tools.grade", description="Grade a folder of notebooks.")
    parser.add_argument("folder", type=Path, help="the notebooks; folders inside are searched too")
    parser.add_argument("--assignment", required=True, help="number or name, such as 2")
    parser.add_argument("--out", type=Path, default=Path("grades.csv"), help="CSV to write (default grades.csv)")
    parser.add_argument("--feedback", type=Path, help="folder for a page for each student")
    parser.add_argument("--seconds", type=float, default=180.0, help="CPU seconds for one notebook (default 180)")
    parser.add_argument("--memory", type=float, default=2.0, help="GiB for one notebook (default 2)")
    parser.add_argument("--processes", type=int, default=1, help="notebooks at a time (default 1)")
    given = parser.parse_args(arguments)
    if not hasattr(os, "fork"):
        parser.error("grading needs Linux or macOS; on Windows use WSL")
    root = given.folder.resolve()
    paths = sorted(p for p in root.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    if not paths:
        parser.error(f"there are no notebooks in {given.folder}")
    if given.seconds <= 0 or given.memory <= 0 or given.processes < 1:
        parser.error("--seconds, --memory and --processes must be positive")
    try:
        assignment = assignments.load(given.assignment)
    except ValueError as error:
        parser.error(str(error))
    prepare()
    limits = Limits(given.seconds, min(Limits.step, given.seconds / 2), given.memory)
    begun = time.monotonic()
    grades = grade(paths, root, assignment, limits, given.processes)
    write_csv(grades, assignment, given.out)
    if given.feedback:
        for one in grades:
            write_page(one, assignment, given.feedback)
    maximum = sum(i.points for i in assignment.items)
    for one in grades:
        print(f"{one.file:<40} {one.total:>3} of {maximum}  {one.status}")
    print(f"{len(grades)} notebooks in {time.monotonic() - begun:.0f} s: {given.out}")
    return 0


def prepare() -> None:
    """Do once what every notebook does, so that a fork has it: torch imports much of itself at the first use.

    One thread and no GPU, since a fork keeps neither.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ |= {"MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": ""}
    import matplotlib.pyplot
    import torch

    import hybridsam_lite as hs
    import tools.grade_worker

    torch.set_num_threads(1)
    data = (torch.ones(2, 1), torch.ones(2, 1))
    model = torch.nn.Linear(1, 1)
    for optimizer in (torch.optim.SGD(model.parameters(), lr=0.0), torch.optim.Adam(model.parameters(), lr=0.0)):
        model(data[0]).sum().backward()
        optimizer.step()
    torch.func.vmap(torch.func.grad(torch.sum))(data[0])

    class Model(hs.HybridModel):
        def __init__(self) -> None:
            super().__init__()
            self.theta, self.net = hs.Theta(k=hs.Real()), hs.mlp(1, [2], 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.theta.k * x + self.net(x)

    hs.fit(Model, data, methods=["erm"], seeds=[0], steps=1, progress=False)
    for module in (matplotlib.pyplot, tools.grade_worker):
        assert module


if __name__ == "__main__":
    sys.exit(main())
