"""Planning: the arithmetic of the formula, with measurements that are made up, and what the command says."""

import itertools
import math
import sys

import pytest

import hybridsam_lite as hs
from hybridsam_lite import plan as module
from hybridsam_lite.cli import main
from hybridsam_lite.plan import Part, Probe, extrapolate, plan_run, plan_sweep, probe, schedule
from hybridsam_lite.sweep import GRIDS, expected

TASK = hs.tasks.get("pendulum", preset="smoke")  # 20 steps


def made_up(task, method, members):
    """Costs that are straight lines in the members."""
    asked.append((method.label, members))
    twice = 2.0 if method.name == "asam" else 1.0
    return Probe(members, 1.0, twice * (2 + members), 0.5 * members, 0.1 * members, 100.0 + members)


asked: list[tuple[str, int]] = []


@pytest.fixture(autouse=True)
def _nothing_asked():
    asked.clear()


def test_a_straight_line_is_continued():
    found = extrapolate([made_up(TASK, hs.ERM(), 4), made_up(TASK, hs.ERM(), 8)], 32)
    assert found == pytest.approx(made_up(TASK, hs.ERM(), 32))


def test_what_was_measured_is_not_estimated():
    probes = [made_up(TASK, hs.ERM(), 4), made_up(TASK, hs.ERM(), 8)]
    assert extrapolate(probes, 8) is probes[1]


def test_a_falling_line_does_not_go_below_zero():
    assert extrapolate([Probe(2, 1.0, 1, 1, 1, 1), Probe(4, 0.5, 1, 1, 1, 1)], 100).setup == 0


def test_the_seconds_of_a_stack():
    # 3 to set up, 2 to score, 100 steps of 0.5, and 20 validations of 0.25 with one before and one after
    assert Part("erm", 100, 20, Probe(1, 3.0, 0.5, 0.25, 2.0, 0)).seconds == 3 + 2 + 50 + 22 * 0.25


def test_a_run_is_planned_by_stack():
    parts = plan_run(TASK, ["erm", "asam:rho=1", "asam:rho=2", "erm:steps=2"], range(8), measure=made_up)
    assert [(p.label, p.cost.members, p.steps, p.validations) for p in parts] == [
        ("erm", 8, 20, 20), ("asam:rho=1 to asam:rho=2", 16, 20, 20), ("erm:steps=2", 8, 40, 40),
    ]  # fmt: skip
    assert [p.cost.step for p in parts] == [10, 36, 10]
    assert asked == [
        ("erm", 2),
        ("erm", 4),
        ("asam:rho=1", 4),
        ("asam:rho=1", 8),
        ("erm:steps=2", 2),
        ("erm:steps=2", 4),
    ]


def test_other_steps():
    part = plan_run(TASK, ["erm"], range(2), steps=2000, measure=made_up)[0]
    assert (part.steps, part.validations) == (2000, 20)
    assert asked == [("erm", 2)]  # a small stack is measured as it is


def test_the_validations_are_those_of_fit():
    for steps in (7, 20, 45, 130):
        runs = TASK.fit(["erm"], [0], steps=steps, progress=False)
        assert len(runs.history) - 1 == plan_run(TASK, ["erm"], [0], steps=steps, measure=made_up)[0].validations


def test_a_sweep_is_planned_by_job():
    stages = plan_sweep(TASK, ["wd", "asam"], range(10, 20), measure=made_up)
    jobs = expected(TASK, ["wd", "asam"], range(10, 20))
    assert [[p.cost.members for p in stage] for stage in stages] == [
        [len(job.labels) * len(job.seeds) for job in stage] for stage in jobs
    ]
    assert [len(stage) for stage in stages] == [
        6,
        6,
    ]  # erm, wd, asam, each also for the curves; physics, erm, ..., oracle
    assert stages[0][1].label == f"{GRIDS['wd'][0]} to {GRIDS['wd'][-1]}"
    assert {size for label, size in asked if label.startswith("asam")} == {4, 9}  # once for all jobs of that structure


def test_jobs_go_to_the_first_process_that_is_free():
    parts = [Part("erm", n, 0, Probe(1, 0, 1.0, 0, 0, 0)) for n in (5, 1, 1, 1, 4)]
    assert [schedule(parts, n) for n in (1, 2, 5)] == [12, 7, 5]
    assert schedule([], 3) == 0


@pytest.mark.parametrize("label", ["erm", "sam:rho=0.1,every=5"])
def test_a_probe_with_a_clock_that_advances_by_one(label):
    method = hs.parse_method(label)
    found = probe(TASK, method, 3, clock=itertools.count().__next__)
    assert (found.members, found.step, found.score) == (3, 1, 1)
    assert found.validation == 0  # the clock is read once a step, whatever happens in it
    assert found.setup == 1  # from the start to the first step, and from the last one to the end, less one step
    assert found.memory > 0 or math.isnan(found.memory)


def test_the_probe_is_of_the_model_that_will_be_trained(monkeypatch):
    seen = []
    monkeypatch.setattr(type(TASK), "fit", lambda *given, **options: seen.append((given, options)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        probe(TASK, hs.ERM(steps=2), 5)
    (_, methods, seeds), options = seen[0]
    assert (methods, list(seeds)) == ([hs.ERM(steps=2)], [0, 1, 2, 3, 4])
    assert options["steps"] == 8  # 16 steps are taken: erm:steps=2 doubles them


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["hybridsam", "plan", *words])
    monkeypatch.setattr(module, "probe", made_up)
    monkeypatch.setattr(module.plan_run, "__defaults__", (None, made_up))
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_command(monkeypatch, capsys):
    assert command(monkeypatch, "pendulum/A2", "--preset", "smoke", "--seeds", "0:8", "--steps", "1000") == 0
    said = capsys.readouterr().out
    assert "seconds = fixed + steps x step + (validations + 2) x check" in said
    assert "asam:rho=1" in said
    assert "8.4 hours with 1 at a time; up to 108 MB" in said  # 1000 x (10 + 20) + 22 x (4 + 4) + 2 x 1.8 = 30180 s


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pendulm"], "did you mean 'pendulum'"),
        (["pendulum/A9"], "has no variant 'A9'"),
        (["pendulum", "--method", "smm"], "did you mean 'sam'"),
        (["pendulum", "--seeds", "4:0"], "names no seeds"),
        (["pendulum", "--steps", "0"], "--steps is a positive number"),
        (["pendulum", "--sweep", "--steps", "9"], "not of a sweep's"),
        (["pendulum", "--sweep", "--method", "sma"], "a sweep knows"),
        (["pendulum", "--processes", "0"], "--processes must be at least 1"),
        (["pendulum", "--preset", "fast"], "unknown preset"),
    ],
)
def test_errors_are_one_line(monkeypatch, capsys, words, message):
    monkeypatch.setenv("HYBRIDSAM_PRESET", "smoke")
    assert command(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not asked
