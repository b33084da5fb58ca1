"""One notebook in a process of its own: run its cells, then the hidden tests, and report through a pipe.

Called by tools/grade.py right after a fork. The process gives up what it does not need, runs under limits, and refuses,
by an audit hook, what a notebook of this course never does: to write outside of its folder, to read submissions or
tests, to start or end processes, and to use the network.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import linecache
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from IPython.core.inputtransformer2 import TransformerManager

from hybridsam_lite.exercises.asking import TimeUp
from hybridsam_lite.exercises.verdict import Unanswered, Wrong
from tools.assignments import Item

if TYPE_CHECKING:
    from tools.grade import Limits

KEPT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "VIRTUAL_ENV",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MPLBACKEND",
)
REFUSED = {
    "os.fork": "start processes",
    "os.forkpty": "start processes",
    "os.posix_spawn": "start processes",
    "os.exec": "start processes",
    "os.spawn": "start processes",
    "os.system": "start processes",
    "subprocess.Popen": "start processes",
    "pty.spawn": "start processes",
    "os.kill": "end processes",
    "os.killpg": "end processes",
    "resource.setrlimit": "change its limits",
    "resource.prlimit": "change its limits",
    "socket.connect": "use the network",
    "socket.bind": "use the network",
    "socket.getaddrinfo": "use the network",
    "socket.gethostbyname": "use the network",
    "socket.sendto": "use the network",
}
CHANGING = {
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
}
CHANGING |= {"shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.copytree", "os.utime"}

Report = Callable[..., None]


def work(
    cells: list[str],
    hidden: str,
    skip: set[str],
    limits: Limits,
    pipe: int,
    token: str,
    home: str,
    closed: tuple[Path, ...],
) -> None:
    """Everything that happens in the process; its caller ends it.

    Args:
        cells: sources of the code cells.
        hidden: source of the tests.
        skip: steps to leave out, "cell 3" or "test 5".
        limits, home: what the process may use, and its folder.
        pipe, token: where to report, and what each genuine line begins with.
        closed: folders that must not even be read.
    """

    def report(**event: Any) -> None:
        os.write(pipe, f"{token} {json.dumps(event)}\n".encode())

    enclose(limits, home, closed)
    names: dict[str, Any] = {"__name__": "__main__", "display": print, "get_ipython": Shell}
    run_cells(cells, names, skip, limits, report)
    run_tests(hidden, names, skip, limits, report)
    report(event="done")


class Shell:
    """Stands in for IPython: magics and shell commands are passed over."""

    def run_line_magic(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    run_cell_magic = system = getoutput = run_line_magic


def enclose(limits: Limits, home: str, closed: tuple[Path, ...]) -> None:
    """A session, a folder, an environment and limits of its own."""
    os.setsid()
    os.chdir(home)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for name in set(os.environ) - set(KEPT):
        del os.environ[name]
    os.environ |= {"HOME": home, "TMPDIR": home, "MPLCONFIGDIR": home}
    tempfile.tempdir = home
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    cpu = int(limits.seconds)
    _limit(resource.RLIMIT_CPU, cpu, cpu + 5)
    _limit(resource.RLIMIT_FSIZE, int(limits.files * 2**20))
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + int(limits.memory * 2**30))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, _time_up)
    sys.setrecursionlimit(1000)
    sys.addaudithook(_guard(os.path.realpath(home), tuple(os.path.realpath(path) for path in closed)))


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    with contextlib.suppress(ValueError, OSError):  # lower ones that are in force already
        resource.setrlimit(what, (soft, soft if hard is None else hard))


def _time_up(_: int, __: FrameType | None) -> NoReturn:
    raise TimeUp


def _guard(home: str, closed: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def inside(path: Any, folder: str) -> bool:
        real = os.path.realpath(os.fsdecode(path))
        return real == folder or real.startswith(folder + os.sep)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in REFUSED:
            raise PermissionError(f"a submission must not {REFUSED[event]}")
        if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path, mode, flags = arguments
            writes = bool(flags & writing) if isinstance(flags, int) else any(c in (mode or "") for c in "wax+")
            if writes and not inside(path, home) and os.fsdecode(path) != os.devnull:
                raise PermissionError("a submission must not write outside of its own folder")
            if any(inside(path, folder) for folder in closed):
                raise PermissionError("a submission must not read submissions or tests")
        elif event in CHANGING:
            paths = [x for x in arguments if isinstance(x, (str, bytes, os.PathLike))]
            if not all(inside(path, home) for path in paths):
                raise PermissionError("a submission must not change anything outside of its own folder")

    return hook


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TimeUp` after some seconds of CPU time, and again until somebody gives in."""
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def run_cells(cells: list[str], names: dict[str, Any], skip: set[str], limits: Limits, report: Report) -> None:
    """Run the cells one after the other; an error ends its cell only."""
    for index, source in enumerate(cells):
        step = f"cell {index}"
        if step in skip:
            continue
        report(event="step", name=step)
        file = f"<code cell {index + 1}>"
        try:
            with limited(limits.step):
                text = TransformerManager().transform_cell(source)
                linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
                exec(compile(text, file, "exec"), names)
        except BaseException as error:
            text = describe(error)
            if "replace this line" not in text:
                report(event="error", text=f"Code cell {index + 1} stopped with {text}")


def run_tests(hidden: str, names: dict[str, Any], skip: set[str], limits: Limits, report: Report) -> None:
    """Run the hidden tests, each on what the notebook has defined."""
    report(event="step", name="start")
    space: dict[str, Any] = {"__name__": "hidden_tests"}
    exec(compile(hidden, "<hidden tests>", "exec"), space)
    tests = [test for test in space.values() if isinstance(getattr(test, "item", None), Item)]
    slow = {tests[index].item.question for index in range(len(tests)) if f"test {index}" in skip}
    for index, test in enumerate(tests):
        step = f"test {index}"
        if step in skip:
            continue
        if test.item.question in slow:
            report(event="item", index=index, points=0, text="Not tried, after what happened in another test.")
            continue
        report(event="step", name=step)
        torch.manual_seed(0)
        try:
            with limited(limits.step):
                text = run_test(test, names)
        except BaseException as error:
            text = describe(error)
            if isinstance(error, TimeUp):
                slow.add(test.item.question)
        report(event="item", index=index, points=0 if text else test.item.points, text=text)


def run_test(test: Callable[..., None], names: dict[str, Any]) -> str:
    """What is wrong; empty if nothing is."""
    wanted = [name for name, p in inspect.signature(test).parameters.items() if p.default is p.empty]
    if missing := [name for name in wanted if name not in names]:
        return f"`{missing[0]}` is not defined. Was its cell removed or renamed, or did it stop with an error?"
    try:
        test(*(names[name] for name in wanted))
    except Unanswered:
        return "Not answered."
    except Wrong as wrong:
        return str(wrong)
    return ""


def describe(error: BaseException) -> str:
    """An exception in a sentence, with the line of the notebook where it happened."""
    if isinstance(error, TimeUp):
        return "the end of its time: it took too long."
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "the end of its memory."
    first = (str(error).strip().splitlines() or [""])[0][:200]
    if isinstance(error, NotImplementedError) and "replace this line" in first:
        return f"Not answered: {first}."
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<code cell")]
    line = (frames[-1].line or "").strip() if frames else ""
    return f"{type(error).__name__}{': ' + first if first else ''}{f', at the line {line!r}' if line else ''}."
