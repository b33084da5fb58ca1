"""Files: whole or not at all, never foreign code, and Ctrl-C between steps."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch

from hybridsam_lite.files import Checkpoint, DeferredInterrupt, load_state, sole_writer, write_atomically

CPU = torch.device("cpu")


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically(path, lambda file: file.write(b"old"))
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_state_is_read_back(tmp_path):
    path = tmp_path / "stack-0.pt"
    state = {"step": 3, "stack": {"w": torch.arange(3.0)}}
    write_atomically(path, lambda file: torch.save(state, file))
    assert load_state(path, CPU, lambda s: s["step"]) == 3
    assert torch.equal(load_state(path, CPU, lambda s: s["stack"]["w"]), torch.arange(3.0))


class Payload:
    """Unpickling it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def saved(path, state):
    torch.save(state, path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "keys", "list", "pickle", "torch"])
def test_a_damaged_or_foreign_state_is_refused_and_kept(tmp_path, kind):
    path, trace = tmp_path / "stack-0.pt", tmp_path / "executed"
    whole = saved(tmp_path / "whole.pt", {"step": 3, "w": torch.arange(1000.0)})
    content = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "text": b"not a checkpoint",
        "keys": saved(path, {"something": 1}),
        "list": saved(path, [1, 2]),
        "pickle": pickle.dumps({"step": Payload(trace)}),
        "torch": saved(path, {"step": Payload(trace)}),
    }[kind]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"stack-0\.pt is damaged or was not written.*delete it"):
        load_state(path, CPU, lambda state: state["step"])
    assert path.read_bytes() == content
    assert not trace.exists()


@pytest.mark.parametrize("member", ["data.pkl", "data/0"])
def test_a_small_state_that_unpacks_to_a_large_one_is_refused_before_it_is_unpacked(tmp_path, member):
    path = tmp_path / "stack-0.pt"
    saved(path, {"step": 3, "w": torch.arange(1000.0)})
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, bytes(2**24) if name.endswith(member) else content)
    with pytest.raises(ValueError, match=r"stack-0\.pt is damaged .*it is packed, which states are not"):
        load_state(path, CPU, lambda state: state["step"])


def test_a_checkpoint_folder_is_described_once(tmp_path):
    folder = tmp_path / "deep" / "run"
    config = {"steps": 10, "members": [["sam", {"rho": 0.1}, 0]]}
    with Checkpoint(folder, config, resume=False) as saves:
        assert saves.stack(2) == folder / "stack-2.pt"
        assert json.loads((folder / "config.json").read_text()) == config
    with Checkpoint(folder, config, resume=True):
        pass
    with pytest.raises(FileExistsError, match=r"run holds another run; pass resume=True"):
        Checkpoint(folder, config, resume=False)
    with pytest.raises(ValueError, match=r"cannot be resumed \(steps: 10 there, 20 now\)"):
        Checkpoint(folder, {**config, "steps": 20}, resume=True)
    with pytest.raises(ValueError, match=r"new: None there, 1 now"):
        Checkpoint(folder, {**config, "new": 1}, resume=True)
    assert json.loads((folder / "config.json").read_text()) == config


def test_a_checkpoint_folder_has_one_writer_and_a_refused_one_changes_nothing(tmp_path):
    with Checkpoint(tmp_path, {"steps": 1}, resume=False):
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(BlockingIOError, match="is being written by another process"):
            Checkpoint(tmp_path, {"steps": 1}, resume=True).__enter__()
        assert sorted(os.listdir(tmp_path)) == before
    with pytest.raises(ValueError, match="cannot be resumed"), Checkpoint(tmp_path, {"steps": 2}, resume=True):
        pass
    with Checkpoint(tmp_path, {"steps": 1}, resume=True):  # let go again, also by the one that was refused
        pass


HOLD = """
import pathlib, sys, time
from hybridsam_lite.files import sole_writer, write_atomically
def half(file):
    file.write(b"half")
    file.flush()
    print("held", flush=True)
    time.sleep(600)
folder = pathlib.Path(sys.argv[1])
with sole_writer(folder / "lock", folder / "a.txt"):
    write_atomically(folder / "a.txt", half)
"""


def test_a_killed_writer_lets_go_and_what_it_left_half_written_is_cleared(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / ".b.txt.1.part").write_text("of another file")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), sole_writer(tmp_path / "lock", tmp_path / "a.txt"):
            pass
        writer.kill()
    assert len(list(tmp_path.glob(".a.txt*.part"))) == 1
    with sole_writer(tmp_path / "lock", tmp_path / "a.txt"):
        assert sorted(os.listdir(tmp_path)) == [".b.txt.1.part", "a.txt", "lock"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("text", ["", '{"steps": 1', "3", "null", '"word"', "\x00", "[" * 100_000])
@pytest.mark.parametrize("resume", [True, False])
def test_a_damaged_description_is_refused_and_kept(tmp_path, text, resume):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises((ValueError, FileExistsError), match=str(tmp_path)):
        Checkpoint(tmp_path, {"steps": 1}, resume=resume)
    assert (tmp_path / "config.json").read_text() == text


def test_a_folder_invalid_text_and_a_list_of_pairs_describe_no_run(tmp_path):
    description = tmp_path / "config.json"
    for content, words in ((b'{"steps": "\xff"}', "damaged or foreign"), (b'[["steps", 1]]', "describes no run")):
        description.write_bytes(content)
        with pytest.raises(ValueError, match=rf"config\.json is .*{words}|config\.json is foreign: it {words}"):
            Checkpoint(tmp_path, {"steps": 1}, resume=True)
        assert description.read_bytes() == content
    description.unlink()
    description.mkdir()
    with pytest.raises(ValueError, match=r"config\.json is damaged or foreign"):
        Checkpoint(tmp_path, {"steps": 1}, resume=True)


def test_a_long_difference_is_told_in_short(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"steps": "9" * 10_000}))
    with pytest.raises(ValueError, match="other settings") as caught:
        Checkpoint(tmp_path, {"steps": 1}, resume=True)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("resume", [True, False])
def test_states_without_a_description_are_refused_and_kept(tmp_path, resume):
    (tmp_path / "stack-0.pt").write_bytes(b"someone's")
    with pytest.raises(FileExistsError, match=r"no config\.json to tell whose"):
        Checkpoint(tmp_path, {"steps": 1}, resume=resume)
    assert os.listdir(tmp_path) == ["stack-0.pt"]


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_the_first_interrupt_waits_and_the_second_does_not():
    before = signal.getsignal(signal.SIGINT)
    deferred = DeferredInterrupt()

    def twice():
        with deferred:
            assert not deferred.pending
            interrupt()
            assert deferred.pending
            interrupt()
            pytest.fail("the second interrupt was held back")

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_nobody_asked_about_is_not_lost():
    deferred, done = DeferredInterrupt(), []

    def work():
        with deferred:
            interrupt()
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]


def test_other_errors_pass_through_an_interrupt():
    def work():
        with DeferredInterrupt():
            interrupt()
            raise KeyError

    with pytest.raises(KeyError):
        work()


def test_other_threads_are_left_alone():
    seen = []

    def work():
        with DeferredInterrupt() as deferred:
            seen.append(deferred.pending)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
