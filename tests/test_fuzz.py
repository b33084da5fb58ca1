"""A fixed part of the fuzzing, and whether it would find anything; `python -m tools.fuzz` goes on with it."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="the fuzzing measures memory and time as Linux and macOS do")

from tools.checks import ROOT  # after the skip
from tools.fuzz import cases, commands, functions, readers
from tools.fuzz.damage import bomb, damage, damage_json, damage_zip
from tools.fuzz.judge import Refusal, complaint
from tools.fuzz.readers import Reader, fuzz

CASES, INPUTS = 500, 2400
ADDED = (functions, commands)  # to cases.CALLS


@pytest.mark.parametrize("name", cases.CALLS)
def test_calls_with_odd_arguments_work_or_say_why_not(name):
    share = cases.CALLS[name][2] / sum(share for *_, share in cases.CALLS.values())
    count, defect = cases.fuzz_call(name, round(CASES * share), seed=0)
    assert not defect, defect
    assert count >= round(CASES * share) // 2  # a small set of cases may be exhausted


def test_damaged_files_are_read_or_refused(tmp_path):
    count = fuzz(INPUTS, 0, tmp_path)
    assert not count.defects, "\n".join(f"{name}\n  {text}" for name, text in count.defects.items())
    assert count.inputs == INPUTS
    assert min(count.accepted, count.refused) > INPUTS / 20  # neither is all that ever happens
    assert set(count.by_reader) == {reader.name for reader in readers.every()}


def eternal(path):
    while True:
        time.sleep(0.01)


def escape(path):
    (path.parent.parent / "outside").write_bytes(b"")


PLANTED = {
    "raised by json": (lambda path: {}["x"], "KeyError"),
    "without a name": (lambda path: readers.complaint(1), "AttributeError"),
    "hang": (eternal, "took more than"),
    "outside": (escape, "wrote outside"),
    "memory": (lambda path: len(b"x" * (500 * 2**20)), "MB"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found_and_its_input_is_made_small(name, tmp_path, monkeypatch):
    read, words = PLANTED[name]
    planted = Reader("planted", "file", lambda chance: chance.randbytes(300), read)
    monkeypatch.setattr(readers, "every", lambda: [planted])
    monkeypatch.setattr(readers, "SECONDS", 0.2 if name == "hang" else 60.0)
    monkeypatch.setattr(readers, "MEGABYTES", 100)
    ((key, text),) = fuzz(1, 0, tmp_path).defects.items()
    assert words in key + text
    assert "seed 0, input 0" in text


def test_the_least_input_still_has_the_defect(tmp_path):
    def read(path):
        if b"x" in path.read_bytes():
            raise KeyError

    reader = Reader("planted", "file", lambda chance: b"", read)
    key = readers._try(reader, tmp_path, b"x")[0]
    assert readers._least(reader, tmp_path, b"a" * 500 + b"x" + b"b" * 300, key) == b"x"


def test_what_is_the_librarys_own_error():
    from hybridsam_lite.methods import parse_method
    from hybridsam_lite.results import read_records

    def of(call):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            call()
        return complaint(caught.value)

    assert of(lambda: parse_method("x")) is None
    assert of(lambda: Path("no/such/file").read_bytes()) is None  # of the system, and names the file
    assert of(lambda: read_records("no/such/file")) is None
    assert "not raised by the library" in of(lambda: int("x"))
    assert complaint(Refusal("no"), names="file") == "Refusal: no does not name file"
    assert "not a message of one line" in complaint(Refusal("a\nb"))


def test_the_same_seed_gives_the_same_files():
    import random

    members = {"a": b"1" * 50, "b/c": b"2" * 70}
    for change in (lambda c: damage(b"abc" * 30, c), lambda c: damage_json({"a": [1, {"b": 2}]}, c),
                   lambda c: damage_zip(members, c)):  # fmt: skip
        assert [change(random.Random(k)) for k in range(50)] == [change(random.Random(k)) for k in range(50)]
    assert len(bomb("a", 2**24)) < 2**17


def test_the_command_counts_and_is_silent_about_no_defect():
    options = ["--cases", "8", "--inputs", "20", "--seed", "3", "--only", "labels"]
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", "tools.fuzz", *options], cwd=ROOT, capture_output=True, text=True, check=False,
            env={"TMPDIR": scratch, "PATH": ""},
        )  # fmt: skip
        assert not list(Path(scratch).glob("hybridsam-*"))
    assert done.returncode == 0, done.stderr
    assert "20 inputs" in done.stdout
    assert "0 defects" in done.stdout
    assert "DEFECT" not in done.stdout
