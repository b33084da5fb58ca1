"""The command line, in a folder with what it may meet; a command that is refused leaves it as it was."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from hypothesis import strategies as st

from tools.fuzz.cases import LABELS, VALUES, WORDS, call, records, sound

PATHS = st.sampled_from([
    "runs", "runs/runs.jsonl", "empty", "a file", "dangling", "loop", "damaged", "new", "new/deep", "a file/below",
    "[b]", "[/b]", "ünï 🙂", "new [/b]", "/proc/new", "/dev/null", "x" * 300, "", "no\nline", "-", "unfinished",
    "folder.jsonl",
])  # fmt: skip
SEEDS = st.sampled_from([
    "0", "0:1", "8:4", "a", "", ":", "0:9999999999999", "0:99999999999999999999", "-1", "1,1", "٣", "9" * 5000, "0:1:2",
    "1e3", "18446744073709551616",
])  # fmt: skip
TASKS = st.sampled_from(
    ["duffing", "duffing", "duffing/C1", "duffing/x", "gallery", "wind_tunnel", "", "/", "é", "x'y", "'"]
)
NAMES = WORDS | st.sampled_from(["spring", "Class", "if", "a" * 300])
STEPS = st.sampled_from(["1", "0", "-1", "x", "1.5"])
FLAGS: dict[str, st.SearchStrategy[str | None]] = {
    "--method": LABELS, "--seeds": SEEDS, "--out": PATHS, "--in": PATHS, "--steps": STEPS,
    **dict.fromkeys(("--variant", "--preset", "--data", "--device", "--dask", "--nothing"), WORDS),
    **dict.fromkeys(("--lr", "--theta-lr", "--processes", "--count", "--seed", "--tolerance"), VALUES),
    **dict.fromkeys(("--resume", "--sweep"), st.none()),
}  # fmt: skip
COMMON = ["--preset", "--data", "--method", "--seeds", "--nothing"]
OF = {
    "run": [*COMMON, "--variant", "--device", "--lr", "--theta-lr", "--steps", "--resume"],
    "sweep": [*COMMON, "--device", "--processes", "--dask"],
    "plan": [*COMMON, "--steps", "--processes", "--sweep"],
    "verify": ["--count", "--seed", "--tolerance", "--preset"],
    "new": ["--in"],
}


def _flags(command: str) -> st.SearchStrategy[list[str]]:
    one = st.sampled_from(OF.get(command, ["--nothing"])).flatmap(
        lambda flag: st.tuples(st.just(flag), FLAGS[flag]).map(lambda pair: [x for x in pair if x is not None])
    )
    return st.lists(one, min_size=1, max_size=2).map(lambda parts: [word for part in parts for word in part])


RUN = ["--method", "erm", "--seeds", "0", "--steps", "1"]
ONE_OR_TWO = st.lists(PATHS, min_size=1, max_size=2)
MADE_UP = PATHS.filter(lambda path: not path.startswith("runs"))  # no record that could be trained again
COMMANDS: st.SearchStrategy[list[str]] = st.one_of(
    st.builds(lambda task, out, flags: ["run", task, *RUN, "--out", out, *flags], TASKS, PATHS, _flags("run")),
    st.builds(
        lambda task, out, flags: ["sweep", "duffing", f"{task}x", "--out", out, *flags], TASKS, PATHS, _flags("sweep")
    ),
    st.builds(lambda task, flags: ["plan", f"{task}x", *flags], TASKS, _flags("plan")),
    st.builds(lambda name, paths: [name, *paths], st.sampled_from(["table", "select"]), ONE_OR_TWO),
    st.builds(lambda path, flags: ["verify", path, *flags], MADE_UP, _flags("verify")),
    st.builds(lambda name, flags: ["new", name, *flags], NAMES, _flags("new")),
    st.lists(WORDS | st.sampled_from(["tasks", "doctor", "--help", "--version"]), max_size=2),
)


@call(st.tuples(COMMANDS), 8)
def command(arguments: list[str]) -> None:
    """Exit status 0, or 2 with one line, no traceback, and the disk as it was."""
    with _folder() as room:
        before = _seen(room)
        status, output, errors = _hybridsam(arguments)
        told = f"hybridsam {arguments!r:.300}: status {status}, {errors[-300:]!r}"
        sound("Traceback" not in errors + output, told)
        sound(status in (0, 1, 2), told)
        if status == 2:
            sound(errors.count("\n") == 1 and len(errors) < 2000, f"not one line: {told}")
            sound(errors.isascii() or errors.rstrip("\n").isprintable(), f"control characters: {told}")
            sound(_seen(room) == before, f"refused, but left {sorted(set(_seen(room)) ^ set(before))}: {told}")


def _hybridsam(arguments: list[str]) -> tuple[int, str, str]:
    """The command in this process: exit status, what it prints, and errors, a traceback among them."""
    from hybridsam_lite import cli

    output, errors = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=e) for e in ("strict", "backslashreplace")
    )
    argv, status = sys.argv, 0
    sys.argv = ["hybridsam", *arguments]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                cli.main()
            except SystemExit as stopped:
                status = int(stopped.code or 0)
            except Exception:
                status = 1
                traceback.print_exc()
    finally:
        sys.argv = argv
    texts = []
    for stream in (output, errors):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "backslashreplace"))
    return status, texts[0], texts[1]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """The current folder, with what a command may meet."""
    from hybridsam_lite.results import FIELDS, write_records

    with tempfile.TemporaryDirectory() as name:
        room, before = Path(name), os.getcwd()
        for folder in ("runs", "empty", "damaged", "[b]", "ünï 🙂", "unfinished/checkpoint", "folder.jsonl"):
            (room / folder).mkdir(parents=True)
        made = {
            **dict.fromkeys(FIELDS),
            "stage": "run",
            "seconds": 0.1,
            "steps": 1,
            "protocol": {"steps": 1.0},
            "device": "cpu",
        }
        made |= {"versions": {}, "metrics": {}, "theta_true": {"k": 1.0}, "theta_error": 0.1, "test_loss": 0.2}
        rows = [made | row | {"label": row["label"] + tail} for row in records() for tail in ("", " [/b]", " [red]")]
        for folder in ("runs", "ünï 🙂", "[b]"):
            write_records(room / folder / "runs.jsonl", rows)
        (room / "damaged" / "runs.jsonl").write_bytes(b"\xff\n[[[")
        (room / "unfinished" / "checkpoint" / "config.json").write_bytes(b"{")
        (room / "a file").write_bytes(b"years of work")
        (room / "dangling").symlink_to("nowhere")
        (room / "loop").symlink_to("loop")
        os.chdir(room)
        try:
            yield room
        finally:
            os.chdir(before)


def _seen(room: Path) -> dict[str, bytes | None]:
    """All that is there."""
    return {
        str(p.relative_to(room)): p.read_bytes() if p.is_file() and not p.is_symlink() else None
        for p in room.rglob("*")
    }
