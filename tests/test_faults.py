"""A disk that fails: nothing is lost, nothing is left half-written, and the run goes on to the same result."""

import contextlib
import errno
import json
import os
import tempfile

import pytest
import test_train
import torch

from hybridsam_lite import sweep as sweeping
from hybridsam_lite import train as trainer
from hybridsam_lite.files import write_atomically
from hybridsam_lite.results import read_records, write_records

OPERATIONS = ("mkstemp", "write", "fsync", "chmod", "replace")
FULL, BROKEN = errno.ENOSPC, errno.EIO


class Half:
    """A file on which one write gets half of its bytes to the disk."""

    def __init__(self, file, fails):
        self._file, self._fails = file, fails

    def write(self, data):
        if self._fails():
            self._file.write(bytes(data)[: len(data) // 2])
            self._file.flush()
            raise OSError(FULL, os.strerror(FULL))
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)


def fail(monkeypatch, operation, at, number=FULL):
    """Let the `at`-th call of one operation of the disk fail."""
    calls = iter(range(1, 10**6))

    def fails():
        return next(calls) == at

    if operation == "write":
        fdopen = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda *given: Half(fdopen(*given), fails))
        return
    owner = tempfile if operation == "mkstemp" else os
    real = getattr(owner, operation)

    def broken(*given, **named):
        if fails():
            raise OSError(number, os.strerror(number))
        return real(*given, **named)

    monkeypatch.setattr(owner, operation, broken)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_old_file_stays_whole(tmp_path, monkeypatch, operation):
    path = tmp_path / "a.txt"
    write_atomically(path, lambda file: file.write(b"old"))
    fail(monkeypatch, operation, 1)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.fixture(scope="module")
def uninterrupted():
    return test_train.resumable(steps=6)


@pytest.mark.parametrize("number", [FULL, BROKEN])
@pytest.mark.parametrize("at", [1, 2, 4, 9])  # the description, then a state after each step of each stack
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_run_on_a_disk_that_fails_goes_on_when_it_works_again(
    tmp_path, monkeypatch, uninterrupted, operation, at, number
):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        fail(patch, operation, at, number)
        with pytest.raises(OSError, match=os.strerror(FULL if operation == "write" else number)):
            test_train.resumable(tmp_path / "run", steps=6)
    assert not list(tmp_path.rglob("*.part"))
    for state in tmp_path.rglob("stack-*.pt"):
        torch.load(state, weights_only=True)
    again = test_train.resumable(tmp_path / "run", resume=True, steps=6)
    test_train.assert_identical(again, uninterrupted)


def test_a_sweep_on_a_disk_that_fails_loses_no_record(tmp_path, monkeypatch):
    """Each write of the records fails once, in turn; what was written before is always there and whole."""

    def trained(job, folder, device):
        return [{**row, "label": label, "seed": seed, "stage": job.stage} for label in job.labels for seed in job.seeds]

    task = sweeping.tasks.get("duffing", preset="smoke")
    row = sweeping.records(task, task.fit(["erm"], [0], progress=False), "tune")[0]
    monkeypatch.setattr(sweeping, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(sweeping, "_work", trained)
    jobs = [sweeping.Job("duffing", "C1", "smoke", None, "tune", (f"wd:lam={lam}",), (0, 1)) for lam in (1, 2, 3)]
    out, lengths = tmp_path / "out", []
    out.mkdir()

    def hands():
        return sweeping._processes(1, out / ".sweep", "cpu")

    for attempt in range(1, 9):
        with monkeypatch.context() as patch:
            fail(patch, OPERATIONS[attempt % 5], 2 if attempt < 4 else 1)
            with contextlib.suppress(OSError):
                sweeping._run(jobs, task, out, hands, progress=False)
        file = out / "duffing.jsonl"
        lengths.append(len(read_records(file)) if file.exists() else 0)
        if lengths[-1] == 6:
            break
    sweeping._run(jobs, task, out, hands, progress=False)
    found = read_records(out / "duffing.jsonl")
    assert lengths == sorted(lengths)
    assert sorted((r["label"], r["seed"]) for r in found) == [(f"wd:lam={k}", s) for k in (1, 2, 3) for s in (0, 1)]
    assert not list(tmp_path.rglob("*.part"))


class Here:
    """In place of a pool of processes: runs a job when it is submitted."""

    def __init__(self, *given, **named):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *given):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*given))
        return future

    def shutdown(self, **named):
        pass


def test_records_that_cannot_be_written_leave_the_old_ones(tmp_path, monkeypatch):
    path = tmp_path / "runs.jsonl"
    write_records(path, [{"a": 1}])
    fail(monkeypatch, "fsync", 1, BROKEN)
    with pytest.raises(OSError, match="Input/output"):
        write_records(path, [{"a": 2}])
    assert json.loads(path.read_text()) == {"a": 1}
