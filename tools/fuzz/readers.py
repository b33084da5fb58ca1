"""Files that cannot be trusted: every reader gets valid files that were damaged.

The property: a file is accepted, or refused by an error of the library's own that names it. No hang, no memory without
bounds, nothing written elsewhere. What was accepted is then used, as the command line would.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import resource
import shutil
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tools.fuzz.damage import ODD, bomb, damage, damage_json, damage_png, damage_zip, rezip
from tools.fuzz.judge import Refusal, Slow, complaint, limited, place

__all__ = ["Count", "Reader", "every", "fuzz"]

SECONDS, MEGABYTES = 20.0, 400  # that one input may take; more is a defect
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Reader:
    """What reads one kind of file.

    Attributes:
        name: of the kind.
        file: name of the file in its folder.
        make: a damaged file.
        read: reads the file of this path; raises if it is refused.
        names: what the error must name.
        share: of the inputs; more for what is read fast.
    """

    name: str
    file: str
    make: Callable[[random.Random], bytes]
    read: Callable[[Path], Any]
    names: str = ""
    share: int = 1


@dataclass
class Count:
    """What came out. A defect's key is its kind and origin, its value a description with the input."""

    inputs: int = 0
    bytes: int = 0
    accepted: int = 0
    refused: int = 0
    by_reader: Counter[str] = field(default_factory=Counter)
    defects: dict[str, str] = field(default_factory=dict)


def every() -> list[Reader]:
    """All readers."""
    return [*_records(), _labels(), *_states(), _description(), _archives(), *_tables(), *_notebooks()]


def fuzz(inputs: int, seed: int, room: Path, until: float = math.inf, only: str = "") -> Count:
    """Give each reader its share of so many inputs, until a time of `time.monotonic`.

    The k-th input depends on the seed and on k alone.
    """
    found = Count()
    readers = [reader for reader in every() if only in reader.name]
    folders = [room / f"{i}" / "in" for i in range(len(readers))]
    for folder in folders:
        folder.mkdir(parents=True)
    before, turns = sorted(os.listdir(room)), [i for i, r in enumerate(readers) for _ in range(r.share)]
    for k in range(inputs):
        if time.monotonic() > until:
            break
        which, chance = turns[k % len(turns)], random.Random(f"{seed} {k}")
        reader, folder = readers[which], folders[which]
        content = reader.make(chance)
        outcome = _try(reader, folder, content)
        found.inputs, found.bytes = found.inputs + 1, found.bytes + len(content)
        found.by_reader[reader.name] += 1
        if os.listdir(folder.parent) != ["in"] or sorted(os.listdir(room)) != before:
            outcome = "wrote outside of its folder", f"left {os.listdir(folder.parent)}"
        if outcome in ("accepted", "refused"):
            found.accepted += outcome == "accepted"
            found.refused += outcome == "refused"
        elif (key := f"{reader.name}: {outcome[0]}") not in found.defects:
            least = _least(reader, folder, content, outcome[0])
            found.defects[key] = f"{outcome[1]}\n  seed {seed}, input {k}, {len(least)} bytes: {_shown(least)}"
    return found


def _try(reader: Reader, folder: Path, content: bytes) -> str | tuple[str, str]:
    """The word accepted or refused, or (key, description) of a defect."""
    path = folder / reader.file
    path.write_bytes(content)
    _forget()
    before = _memory()
    try:
        with limited(SECONDS):
            reader.read(path)
        outcome: str | tuple[str, str] = "accepted"
    except Slow as error:
        outcome = "hang", str(error)
    except Exception as error:
        wrong = complaint(error, reader.names and str(path if reader.names == "path" else reader.names))
        outcome = "refused" if wrong is None else (place(error), wrong)
    finally:
        for entry in os.scandir(folder):
            (shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
    if (taken := _memory() - before) > MEGABYTES:
        return "memory", f"took {taken:.0f} MB"
    return outcome


def _forget() -> None:
    """Let the largest memory be what the process holds now, where the system can be told so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory() -> float:
    """Largest memory of this process, in MB."""
    with contextlib.suppress(OSError):
        return float(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _least(reader: Reader, folder: Path, content: bytes, key: str) -> bytes:
    """A shorter input with the same defect, within a hundred tries."""
    tries, size = 100, len(content) // 2
    while size and tries > 0 and key not in ("hang", "memory"):
        for at in range(0, len(content), size):
            shorter, tries = content[:at] + content[at + size :], tries - 1
            if tries > 0 and _try(reader, folder, shorter)[0] == key:
                content = shorter
                break
        else:
            size //= 2
    return content


def _shown(content: bytes) -> str:
    return repr(content) if len(content) < 600 else f"{content[:300]!r} ... {content[-200:]!r}"


# What is read


def _rows() -> list[dict[str, Any]]:
    import hybridsam_lite as hs
    from hybridsam_lite.results import records

    task = hs.tasks.get("duffing", preset="smoke")
    return records(task, task.fit(["erm", "sam:rho=0.1", "sam:rho=0.2"], range(3), steps=1, progress=False))


def _records() -> Iterator[Reader]:
    from hybridsam_lite.results import read_records, relative, summary, write_records
    from hybridsam_lite.select import select

    rows = _rows()
    lines = [json.dumps(row).encode() for row in rows]

    def make(chance: random.Random) -> bytes:
        chosen = chance.sample(lines, chance.randint(1, 3))
        if chance.random() < 0.7:
            k = chance.randrange(len(chosen))
            chosen[k] = damage_json(json.loads(chosen[k]), chance).encode("utf-8", "surrogatepass")
            return b"\n".join(chosen) + b"\n"
        return damage(b"\n".join(chosen) + b"\n", chance, lines)

    def read(path: Path) -> None:
        found = read_records(path)
        write_records(path, found)
        assert read_records(path) == found

    def use(path: Path) -> None:
        found = read_records(path)
        if not found:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            summary(found)
            relative(found)
        try:
            select(found)
        except (ValueError, TypeError) as error:
            if wrong := complaint(error):
                raise AssertionError(wrong) from error

    yield Reader("records", "runs.jsonl", make, read, "path", 6)
    yield Reader("tables", "runs.jsonl", make, use, "path")


def _labels() -> Reader:
    from hybridsam_lite.methods import parse_method
    from hybridsam_lite.sweep import GRIDS

    labels = [label.encode() for grid in GRIDS.values() for label in grid] + [b"early:patience=3", b"swa", b"erm"]

    def read(path: Path) -> None:
        method = parse_method(path.read_bytes().decode("utf-8", "surrogateescape"))
        assert parse_method(method.label) == method

    return Reader("labels", "label.txt", lambda chance: damage(chance.choice(labels), chance, labels), read, share=6)


def _states() -> Iterator[Reader]:
    from hybridsam_lite.files import load_state, save_state

    state = {
        "stack": {"params": {"w": torch.randn(2, 3)}, "status": torch.zeros(2, dtype=torch.uint8), "best": {}},
        "step": 3, "seconds": 0.1, "log": [{"step": 0, "theta": {"k": torch.zeros(2)}}],
    }  # fmt: skip
    members = _members(state, save_state)
    whole = rezip(members)
    old = io.BytesIO()
    torch.save(state, old, _use_new_zipfile_serialization=False)

    def make(chance: random.Random) -> bytes:
        draw = chance.random()
        if draw < 0.3:
            return damage(chance.choice((whole, old.getvalue())), chance, [whole, old.getvalue()])
        if draw < 0.3001:
            return bomb(chance.choice(list(members)), 2**29)
        name = next(n for n in members if n.endswith("data.pkl"))
        changed = {**members, name: damage(members[name], chance)} if draw < 0.7 else members
        return rezip(changed) if draw < 0.7 else damage_zip(members, chance)

    def read(path: Path) -> None:
        load_state(path, CPU, lambda found: (found["stack"]["params"], found["step"], found["log"]))

    yield Reader("states", "stack-0.pt", make, read, "path", 2)


def _members(state: dict[str, Any], save: Callable[[Path, dict[str, Any]], None]) -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, "state"), state)
        with zipfile.ZipFile(Path(folder, "state")) as made:
            return {name: made.read(name) for name in made.namelist()}


def _description() -> Reader:
    from hybridsam_lite.files import Checkpoint

    config = {"members": [["sam", {"rho": 0.1}, 0]], "steps": 10, "lr": 0.01, "val": None, "model": ["Line", "0af3"]}
    text = json.dumps(config, indent=1)

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.6:
            return damage_json(config, chance).encode("utf-8", "surrogatepass")
        return damage(text.encode(), chance, [text.encode()])

    def read(path: Path) -> None:
        content = path.read_bytes()
        try:
            with Checkpoint(path.parent, config, resume=True):
                pass
        finally:
            assert path.read_bytes() == content

    return Reader("descriptions", "config.json", make, read, "in", 6)


def _archives() -> Reader:
    from hybridsam_lite.tasks.chambers import _unpack

    members = {
        "set/one/one.csv": b"a,b\n1,2\n" * 50,
        "set/one/images_8/a.png": bytes(range(256)) * 4,
        "set/two/two.csv": b"of another experiment",
    }

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.0002:
            return bomb(chance.choice(("set/one/one.csv", "set/one/../../evil")), 2**28)
        return damage_zip(members, chance)

    def read(path: Path) -> None:
        into = path.parent / "into"
        into.mkdir()
        _unpack(path, into, ["set/one/one.csv", "set/one/images_8/"])
        assert sorted(os.listdir(path.parent)) == sorted((path.name, "into"))
        assert os.listdir(into) == ["set"]
        for root, folders, files in os.walk(into):
            assert all(not os.path.islink(os.path.join(root, name)) for name in (*folders, *files))

    return Reader("archives", "archive.zip", make, read, "archive", 2)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _tables() -> Iterator[Reader]:
    """The real data once it is on the disk: tables and images."""
    import numpy as np
    from PIL import Image

    from hybridsam_lite.tasks import chambers

    head = b"timestamp,flag,hatch,load_in,load_out,pressure_downwind,pressure_ambient\n"
    load = [0.01] * 5 + [1.0] * 20 + [0.01] * 25
    lines = [b"%f,%d,%d,%f,0.5,95000.5,95000\n" % (k, k // 50, 7, load[k % 50]) for k in range(100)]
    wind = head + b"".join(lines)
    light = b"image_file,red,green,blue,pol_1,pol_2\na.png,255,3,6,-180.0,0\nb.png,1,4,7,0.1,10\n"
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, "png")
    png = buffer.getvalue()

    def cells(data: bytes, chance: random.Random) -> bytes:
        rows = [line.split(b",") for line in data.splitlines()]
        row = chance.choice(rows)
        odd = (
            b"inf",
            b"nan",
            b"",
            b"1e400",
            b"x",
            b"..",
            b"/",
            b"a\x00b",
            b'"',
            b"1,1",
            b"-1",
            b"../../a.png",
            b"\xff",
        )
        row[chance.randrange(len(row))] = chance.choice(odd)
        return b"\n".join(b",".join(row) for row in rows) + b"\n"

    def table(data: bytes) -> Callable[[random.Random], bytes]:
        return lambda chance: cells(data, chance) if chance.random() < 0.5 else damage(data, chance, [wind, light])

    def layout(path: Path, source: tuple[str, str], image: bytes = b"") -> Path:
        """The dataset's folder, with the damaged file in its place."""
        folder = path.parent / source[0] / ("" if source is chambers.IMPULSES else source[1])
        folder.mkdir(parents=True)
        if image:
            (folder / "images_8").mkdir()
            for name in ("a.png", "b.png"):
                (folder / "images_8" / name).write_bytes(image)
        return folder

    def read_wind(path: Path) -> None:
        path.rename(layout(path, chambers.IMPULSES) / f"{chambers.IMPULSES[1]}.csv")
        with _environment(HYBRIDSAM_DATA=str(path.parent)):
            found = chambers.impulses()
        assert all(np.isfinite(values).all() for values in found.values())

    def read_light(path: Path, image: bytes = png, content: bytes = b"") -> None:
        folder = layout(path, chambers.CAMERA, image)
        path.rename(folder / "moved")
        (folder / f"{chambers.CAMERA[1]}.csv").write_bytes(content or (folder / "moved").read_bytes())
        with _environment(HYBRIDSAM_DATA=str(path.parent)), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("error")
            found = chambers.camera_images(8)
        assert all(np.isfinite(values).all() for values in found.values())

    def make_image(chance: random.Random) -> bytes:
        return damage_png(png, chance) if chance.random() < 0.7 else damage(png, chance)

    yield Reader("wind tables", "table.csv", table(wind), read_wind, chambers.IMPULSES[0])
    yield Reader("light tables", "table.csv", table(light), read_light, chambers.CAMERA[0])
    yield Reader("images", "a.png", make_image, lambda path: read_light(path, path.read_bytes(), light), "a.png")


def _notebooks() -> Iterator[Reader]:
    from tools import assignments, grade

    assignment = assignments.load(3)
    whole = assignments.notebook(assignment, assignments.with_solution)
    text = json.dumps(whole).encode()

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.6:
            cells = chance.sample(whole["cells"], 4)
            return damage_json({**whole, "cells": cells}, chance).encode("utf-8", "surrogatepass")
        return damage(text, chance, [text])

    def read(path: Path) -> None:
        submission = grade.read(path, path.parent, assignment)
        grade.write_csv([submission.grade], assignment, path.parent / "grades.csv")
        grade.write_page(submission.grade, assignment, path.parent / "feedback")
        if submission.grade.status != "ok":
            raise Refusal(submission.grade.notes[0])
        assert all(isinstance(source, str) for source in submission.cells)

    def make_report(chance: random.Random) -> bytes:
        events = ({"event": "item", "index": 0, "points": 1, "text": "x"}, {"event": "step", "name": "cell 3"},
                  {"event": "error", "text": "x"}, {"event": "done"})  # fmt: skip
        event = chance.choice(events)
        lines = [json.dumps(event), damage_json(event, chance), json.dumps(chance.choice(ODD))]
        return "\n".join(f"token {line}" for line in lines).encode("utf-8", "surrogatepass") + b"\n"

    def report(path: Path) -> None:
        from tools.grade import Grade, Process, Submission

        made = Submission("x.ipynb", [], Grade("x.ipynb", dict.fromkeys(assignment.items, 0)))
        process = Process(made, 0, os.open(path, os.O_RDONLY), "token", "")
        try:
            grade.hear(process)
            grade.settle(process, "ok" if process.done else "took too long", assignment, 180.0)
        finally:
            os.close(process.pipe)
        grade.write_csv([made.grade], assignment, path.parent / "grades.csv")

    yield Reader("notebooks", "x.ipynb", make, read, share=2)
    yield Reader("reports", "pipe", make_report, report, share=2)
