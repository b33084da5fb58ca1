"""Sweeps on a Dask cluster: a real one of two processes, workers that are killed, and clear errors."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from hybridsam_lite import cluster as module
from hybridsam_lite.cli import main
from hybridsam_lite.results import read_records
from hybridsam_lite.sweep import CURVE, GRIDS, TUNING, Job, sweep

distributed = pytest.importorskip("distributed", reason="needs dask.distributed: pip install 'hybridsam-lite[cluster]'")
pytestmark = pytest.mark.slow

EVERYTHING = {("tune", label, seed) for label in ("erm", *GRIDS["wd"]) for seed in (*TUNING, *CURVE)}


@pytest.fixture(scope="module")
def cluster():
    """Two processes that save a checkpoint after every step."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0",
        env={"HYBRIDSAM_CHECKPOINT_SECONDS": "0", "OMP_NUM_THREADS": "1"},
    ) as started:  # fmt: skip
        yield started


def keys(rows):
    return [(row["stage"], row["label"], row["seed"]) for row in rows]


def pids(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        return set(client.run(os.getpid).values())


def test_nothing_is_lost_and_nothing_is_twice_when_workers_are_killed(cluster, tmp_path):
    before, killed = pids(cluster), threading.Event()

    def kill():
        while not any(tmp_path.glob(".sweep/*/stack-0.pt")):  # a job has saved its first checkpoint
            time.sleep(0.01)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    options = {"preset": "smoke", "methods": ["wd"], "seeds": [10], "progress": False}
    rows = sweep("duffing", out=tmp_path, dask=cluster.scheduler_address, **options)
    assert killed.is_set()
    assert not before & pids(cluster)
    done = keys(read_records(tmp_path / "duffing.jsonl"))
    assert done == keys(rows)
    assert len(done) == len(set(done))
    assert {key for key in done if key[0] == "tune"} == EVERYTHING
    assert len({key for key in done if key[0] == "final"}) == 5  # physics, erm twice, wd, oracle
    assert [path.name for path in (tmp_path / ".sweep").iterdir()] == ["duffing.lock"]
    alone = Job("duffing", "C1", "smoke", None, "tune", tuple(GRIDS["wd"]), TUNING).run(tmp_path / "alone")
    theirs = {key: row["theta_hat"] for key, row in zip(done, rows, strict=True)}
    for key, row in zip(keys(alone), alone, strict=True):
        assert row["theta_hat"] == pytest.approx(theirs[key], rel=1e-5)


class Stub:
    """A job that says where it was run, and is refused in a folder where another is at it."""

    def __init__(self, refused=None):
        self.refused = refused

    def run(self, folder, device):
        if folder == self.refused:
            raise BlockingIOError
        assert folder.is_dir()
        return [{"folder": folder, "device": device}]


def test_a_worker_uses_the_shared_folder_if_there_is_one(tmp_path):
    assert module.work(Stub(), tmp_path, "cpu") == [{"folder": tmp_path, "device": "cpu"}]
    for job, folder in ((Stub(), tmp_path / "missing"), (Stub(tmp_path), tmp_path)):
        elsewhere = module.work(job, folder, "cpu")[0]["folder"]
        assert elsewhere != folder
        assert not elsewhere.exists()  # gone with the job


def failing(monkeypatch, capsys, tmp_path, address):
    command = ["hybridsam", "sweep", "duffing", "--preset", "smoke", "--out", str(tmp_path), "--dask", address]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("address", ["localhost", "tcp://localhost", "8786", "http://localhost:8786", ""])
def test_what_is_no_address_is_refused(monkeypatch, capsys, tmp_path, address):
    assert "expected tcp://HOST:PORT" in failing(monkeypatch, capsys, tmp_path, address)
    assert not list(tmp_path.iterdir())


def test_an_address_that_does_not_answer(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    said = failing(monkeypatch, capsys, tmp_path, "tcp://127.0.0.1:1")
    assert "no Dask scheduler answered at tcp://127.0.0.1:1 within 0.3 s; start one with `dask scheduler`" in said


def test_a_scheduler_without_workers(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        assert "has no worker" in failing(monkeypatch, capsys, tmp_path, empty.scheduler_address)


def test_without_dask(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = failing(monkeypatch, capsys, tmp_path, "tcp://127.0.0.1:8786")
    assert 'needs Dask, here and on the workers: pip install "hybridsam-lite[cluster]"' in said
    assert not list(Path(tmp_path).iterdir())
