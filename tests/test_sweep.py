"""Sweeps: two stages, nothing run twice, nothing lost, and a choice that does not see theta."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import hybridsam_lite as hs
from hybridsam_lite import sweep as module
from hybridsam_lite.select import strongest
from hybridsam_lite.sweep import CORE, CURVE, GRIDS, TUNING, Job, sweep

QUIET = {"preset": "smoke", "progress": False}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    rows = sweep("duffing", out=out, methods=["wd", "sam"], seeds=[10, 11], **QUIET)
    return out, rows


def test_every_grid_has_six_settings_in_order():
    for name, labels in GRIDS.items():
        assert len(labels) == len(set(labels)) == 6, name
        values = [next(iter(hs.parse_method(label).settings.values())) for label in labels]
        assert values == sorted(values) or name == "aphynity", name


def test_both_stages_are_there(swept):
    _, rows = swept
    tune = {(r["label"], r["seed"]) for r in rows if r["stage"] == "tune"}
    assert tune == {(x, s) for x in ["erm", *GRIDS["wd"], *GRIDS["sam"]] for s in (*TUNING, *CURVE)}
    final = {r["label"]: set() for r in rows if r["stage"] == "final"}
    for r in rows:
        if r["stage"] == "final":
            final[r["label"]].add(r["seed"])
    assert all(seeds == {10, 11} for seeds in final.values())
    assert {"physics", "erm", "erm:steps=2", "oracle"} <= set(final)
    assert len(final) == 6


def test_the_final_settings_are_the_ones_that_the_rule_takes(swept):
    _, rows = swept
    tune = [r for r in rows if r["stage"] == "tune" and r["seed"] in TUNING]
    for name in ("wd", "sam"):
        mine = [r for r in tune if r["label"] in ("erm", *GRIDS[name])]
        assert strongest(mine, GRIDS[name]) in {r["label"] for r in rows if r["stage"] == "final"}


def test_the_oracle_knows_theta(swept):
    _, rows = swept
    errors = [r["theta_error"] for r in rows if r["label"] == "oracle"]
    assert errors == pytest.approx([0.0, 0.0], abs=1e-7)  # single precision


def test_physics_alone_has_no_network(swept):
    _, rows = swept
    assert all(r["metrics"]["network"] == 0 for r in rows if r["label"] == "physics")
    assert all(r["metrics"]["network"] > 0 for r in rows if r["label"] == "erm")


def test_nothing_is_run_twice(swept, monkeypatch):
    out, rows = swept
    monkeypatch.setattr(Job, "run", lambda *_: pytest.fail("a member was trained again"))
    before = (out / "duffing.jsonl").read_bytes()
    assert sweep("duffing", out=out, methods=["wd", "sam"], seeds=[10, 11], **QUIET) == rows
    assert (out / "duffing.jsonl").read_bytes() == before
    assert [path.name for path in (out / ".sweep").iterdir()] == ["duffing.lock"]


def test_a_sweep_is_completed(swept, tmp_path):
    """Members that are missing, and only those, are trained, to the same result."""
    _, rows = swept
    kept = [r for r in rows if not (r["label"] == "sam:rho=0.1" and r["seed"] == 1)]
    (tmp_path / "duffing.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    again = sweep("duffing", out=tmp_path, methods=["wd", "sam"], seeds=[10, 11], **QUIET)
    assert len(again) == len(rows)
    new = again[-1]
    assert (new["label"], new["seed"]) == ("sam:rho=0.1", 1)
    old = next(r for r in rows if (r["label"], r["seed"], r["stage"]) == ("sam:rho=0.1", 1, "tune"))
    assert new["theta_hat"] == pytest.approx(old["theta_hat"], rel=1e-5)  # the stack's size changes the rounding


def test_an_interrupted_job_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    job = Job("duffing", "C1", "smoke", None, "tune", ("erm",), (0, 1))
    whole = job.run(tmp_path / "whole")
    task = job.build()
    task.fit(["erm"], (0, 1), checkpoint=tmp_path / "part" / job.name, progress=False)
    monkeypatch.setattr("hybridsam_lite.stack.Stack.step", lambda *_: pytest.fail("a step was taken again"))
    resumed = job.run(tmp_path / "part")
    assert [r["theta_hat"] for r in resumed] == [r["theta_hat"] for r in whole]


def test_methods_that_cannot_train_a_model_are_left_out(tmp_path):
    rows = sweep("wind_tunnel", out=tmp_path, methods=["fn", "sam on all", "asam"], seeds=[10], **QUIET)
    labels = {r["label"] for r in rows}
    assert labels >= {"erm", "erm:steps=2", *GRIDS["asam"]}
    assert not labels & {"physics", "oracle", *GRIDS["fn"], *GRIDS["sam on all"]}


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'asam'"):
        sweep("duffing", out=tmp_path, methods=["asm"], **QUIET)
    with pytest.raises(ValueError, match="seed 2 is a tuning seed"):
        sweep("duffing", out=tmp_path, seeds=[2, 10], **QUIET)
    assert not list(tmp_path.iterdir())


def rows_of(losses, **more):
    return [
        {"label": label, "val_loss": loss, "status": "ok", "metrics": {"val_nrmse": 1.0}, **more}
        for label, loss in losses.items()
    ]


GRID = ["sam:rho=0.1", "sam:rho=0.2", "sam:rho=0.5"]


def test_the_rule_takes_the_strongest_that_predicts_as_well():
    assert strongest(rows_of({"erm": 1.0, GRID[0]: 1.02, GRID[1]: 1.09, GRID[2]: 1.2}), GRID) == GRID[1]


def test_the_rule_takes_the_best_where_none_does():
    assert strongest(rows_of({"erm": 1.0, GRID[0]: 1.3, GRID[1]: 1.2, GRID[2]: 1.5}), GRID) == GRID[1]


def test_the_rule_does_not_ask_for_more_than_one_percent():
    rows = rows_of({"erm": 1e-9, GRID[0]: 1e-6, GRID[1]: 1e-5})
    rows += rows_of({GRID[2]: 1e-3}, metrics={"val_nrmse": 0.02})
    for row in rows[:3]:
        row["metrics"] = {"val_nrmse": 0.005}
    assert strongest(rows, GRID) == GRID[1]


def test_the_rule_avoids_settings_that_diverged():
    rows = rows_of({"erm": 1.0, GRID[0]: 1.0, GRID[1]: 1.0})
    rows += rows_of({GRID[2]: 0.5}, status="diverged")
    assert strongest(rows, GRID) == GRID[1]


def test_default_methods_are_known():
    assert set(CORE) <= set(GRIDS)
    assert set(module.CURVES) <= {"erm", *CORE}


POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from hybridsam_lite.sweep import _end_with_parent
if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_a_killed_sweep_leaves_no_worker_that_trains_on(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    for _ in range(600):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker was still there after a minute")


INTERRUPTED = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run with Ctrl-C switched off
from hybridsam_lite.sweep import sweep
if __name__ == "__main__":
    sweep("duffing", preset="quick", out=pathlib.Path(sys.argv[1]), methods=["wd"], progress=False)
"""


def test_an_interrupted_sweep_saves_what_runs_and_ends_at_once(tmp_path):
    script, out = tmp_path / "work.py", tmp_path / "out"
    script.write_text(INTERRUPTED)
    with subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.DEVNULL) as running:
        for _ in range(1200):
            if any(out.glob(".sweep/*/config.json")):
                break
            time.sleep(0.1)
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        assert running.wait(120) != 0
    assert len(list(out.glob(".sweep/*/config.json"))) == 1  # jobs that were waiting are not begun
    assert len(list(out.glob(".sweep/*/stack-0.pt"))) == 1
    assert not list(out.rglob("*.part"))
