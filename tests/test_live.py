"""Watched training: a look changes no bit, a change is what it says, and a thread with brakes that hold."""

import _thread
import functools
import math
import queue
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from gate import SECONDS, Gate

import hybridsam_lite as hs
from hybridsam_lite.live import Background
from hybridsam_lite.results import records

X = torch.linspace(-1, 1, 16)[:, None]
TRAIN = (X, 2 * X + torch.sin(3 * X))
VAL = (X[::2] + 0.05, 2 * X[::2])


class Line(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(slope=hs.Real(init=(0.0, 1.0)))
        self.net = hs.mlp(1, [4], 1)

    def forward(self, x):
        return self.theta.slope * x + self.net(x)


def train(methods=("sam:rho=0.1",), fit=hs.fit, model=Line, **options):
    known = {"methods": list(methods), "seeds": [0, 1], "steps": 6, "batch_size": 8, "progress": False}
    return fit(model, TRAIN, VAL, **{**known, **options})


def start(methods=("sam:rho=0.1",), fit=hs.fit, **options):
    """The same in the background."""
    return train(methods, functools.partial(Background, fit), **options)


def same(a, b):
    """Two runs, bit for bit; seconds are the machine's."""
    assert [(m.method, m.seed, m.status, m.steps) for m in a.members] == [
        (m.method, m.seed, m.status, m.steps) for m in b.members
    ]
    for one, other in zip(a.members, b.members, strict=True):
        assert all(torch.equal(x, other.state[n]) for n, x in one.state.items())
        assert one.val_loss == other.val_loss
    pd.testing.assert_frame_equal(a.history, b.history, check_exact=True)


@pytest.fixture
def gate():
    with Gate() as found:
        yield found


# What a callback sees and does.


@pytest.mark.parametrize(
    "options",
    [{"methods": ["erm", "sam:rho=0.1", "sam:rho=0.2"]}, {"patience": 1, "steps": 30}, {"vectorize": False}],
    ids=["stacks", "early stopping", "looped"],
)
def test_a_callback_that_only_looks_changes_no_bit(options):
    def look(training):
        assert training.theta["slope"].shape == training.losses.shape == training.val_loss.shape
        training.theta["slope"].fill_(9.0)  # a copy
        for value in training.settings.values():
            value.fill_(9.0)
        training.members.append(9)
        training.seeds.append(9)
        training.set(**{n: v[0].item() for n, v in training.settings.items() if len(v.unique()) == 1})
        torch.rand(3)
        np.random.default_rng().random()

    before = torch.get_rng_state()
    same(train(**options), train(**options, callback=look))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_callback_sees_every_step_of_every_stack():
    seen = []

    def look(t):
        seen.append((t.labels, t.seeds, t.members, t.step, t.steps, t.losses.tolist(), t.val_loss.tolist()))

    runs = train(["erm", "sam:rho=0.1"], steps=3, validate_every=1, callback=look)
    places = {"erm": [0, 1], "sam:rho=0.1": [2, 3]}
    assert [row[:5] for row in seen] == [
        ([label] * 2, [0, 1], places[label], step, 3) for label in places for step in (1, 2, 3)
    ]
    history = runs.history.set_index(["member", "step"])
    for _, _, members, step, _, *losses in seen:
        rows = history.loc[[(member, step) for member in members]]
        assert rows[["train_loss", "val_loss"]].T.to_numpy().tolist() == losses


def test_without_validation_data_the_loss_is_not_a_number():
    seen = []
    hs.fit(Line, TRAIN, methods=["erm"], seeds=[0], steps=1, progress=False, callback=lambda t: seen.append(t.val_loss))
    assert seen[0].isnan().all()


def test_the_seconds_of_a_callback_are_not_the_training_s(monkeypatch):
    now = iter(range(0, 10**6, 100))  # every look at the clock takes 100 s
    monkeypatch.setattr("hybridsam_lite.live.time.monotonic", lambda: float(next(now)))
    plain = sum(m.seconds for m in train(steps=2).members)
    slow = sum(m.seconds for m in train(steps=2, callback=lambda t: [next(now) for _ in range(50)]).members)
    assert slow - plain < 1000  # not the 10,000 s that two callbacks took


def test_a_changed_rho_is_that_of_the_next_step():
    """Equal to two trainings by hand, the second from where the first ended."""
    exact = {
        "optimizer": torch.optim.SGD, "lr": 0.05, "theta_lr": 0.05, "lr_end": 1.0, "batch_size": 16,
        "dtype": torch.float64, "seeds": [0],
    }  # fmt: skip

    def change(training):
        if training.step == 3:
            training.set(rho=0.4)

    changed = train(["sam:rho=0.1"], callback=change, **exact).members[0].state
    first = train(["sam:rho=0.1"], steps=3, **exact).model(0)
    second = train(["sam:rho=0.4"], steps=3, model=lambda: first, **exact).members[0].state
    plain = train(["sam:rho=0.1"], **exact).members[0].state
    for n, x in changed.items():
        # The batch holds all samples, in another order: sums of 16 numbers of size 1 in double precision.
        torch.testing.assert_close(x, second[n], rtol=0, atol=1e-13)
    assert (changed["net.0.weight"] - plain["net.0.weight"]).abs().max() > 1e-3


def test_a_change_is_told_in_label_and_settings_everywhere():
    def change(training):
        if training.step in (2, 4):
            training.set(rho=0.1 * training.step)
            training.set(rho=0.1 * training.step)  # no change, not told twice

    runs = train(["sam:rho=0.1", "sam:rho=0.2"], callback=change)
    labels = ["sam:rho=0.1 then 0.2 from step 2 then 0.4 from step 4", "sam:rho=0.2 then 0.4 from step 4"]
    assert [m.method.label for m in runs.members] == [labels[0]] * 2 + [labels[1]] * 2
    assert set(runs.history["label"]) == set(labels)  # also of the rows before the change
    assert runs.frame["settings"][0] == {"rho": labels[0].partition("=")[2]}
    assert runs.frame["method"].tolist() == ["sam"] * 4
    task = hs.tasks.get("pendulum", preset="smoke")
    watched = task.fit(["sam:rho=0.1"], seeds=[0], steps=3, progress=False, callback=lambda t: t.set(rho=0.2))
    (record,) = records(task, watched)
    assert record["label"] == "sam:rho=0.1 then 0.2 from step 1"
    assert record["settings"] == {"rho": "0.1 then 0.2 from step 1"}


def test_a_changed_member_is_no_setting_that_could_be_selected_or_run_again():
    runs = train(callback=lambda t: t.set(rho=0.2) if t.step == 3 else None)
    with pytest.raises(ValueError, match="nothing to choose"):
        hs.select(runs)
    with pytest.raises(ValueError, match="rho needs a number"):
        hs.parse_method(runs.members[0].method.label)


def test_a_setting_that_is_not_in_the_label_is_told_too():
    runs = train(["fisher:rho=0.1"], callback=lambda t: t.set(damping=0.5) if t.step == 2 else None)
    assert runs.members[0].method.settings == {"rho": 0.1, "damping": "1.0 then 0.5 from step 2"}


def test_set_changes_the_living_only():
    def change(training):
        if training.step == 4:
            training.set(rho=0.2)

    with pytest.warns(RuntimeWarning, match="diverged"):
        runs = train(["sam:rho=0.1", "sam:rho=1e30"], seeds=[0], callback=change)
    assert [(m.method.label, m.status) for m in runs.members] == [
        ("sam:rho=0.1 then 0.2 from step 4", "ok"),
        ("sam:rho=1e+30", "diverged"),
    ]


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("sam:rho=0.1", {"lam": 1.0}, "sam has no setting 'lam' to change; it has: rho"),
        ("erm", {"rho": 1.0}, "erm has no setting 'rho' to change; it has none"),
        ("sam:rho=0.1", {"rho": -1.0}, "rho must be a finite number >= 0, got -1"),
        ("sam:rho=0.1", {"rho": math.nan}, "rho must be a finite number"),
        ("sam:rho=0.1", {"rho": "0.2"}, "rho must be a finite number >= 0, got '0.2'"),
        ("sam:rho=0.1", {"rho": 0.5, "lam": 1.0}, "no setting 'lam'"),
        ("fisher:rho=1", {"rho": 0.5, "damping": -1.0}, "damping must be"),
    ],
)
def test_what_cannot_be_set_is_refused_and_nothing_is_changed(method, settings, message):
    def change(training):
        with pytest.raises(ValueError, match=message):
            training.set(**settings)

    same(train([method]), train([method], callback=change))


def test_a_run_with_a_checkpoint_cannot_be_changed_but_watched_and_stopped(tmp_path):
    def act(training):
        with pytest.raises(ValueError, match="cannot be changed in a run with a checkpoint"):
            training.set(rho=0.2)
        if training.step == 4:
            training.stop()

    stopped = train(checkpoint=tmp_path, callback=act)
    assert [(m.status, m.steps) for m in stopped.members] == [("stopped", 4)] * 2
    same(stopped, train(checkpoint=tmp_path, resume=True))


def test_stop_ends_this_stack_and_those_to_come():
    def act(training):
        if training.step == 2:
            training.stop()

    runs = train(["erm", "sam:rho=0.1"], callback=act, validate_every=5)
    assert [(m.method.label, m.status, m.steps) for m in runs.members] == [
        *[("erm", "stopped", 2)] * 2,
        *[("sam:rho=0.1", "stopped", 0)] * 2,
    ]
    assert runs.history.groupby("label", sort=False)["step"].max().tolist() == [2, 0]
    last = runs.history.groupby("member").last()
    assert last["val_loss"].tolist() == [m.val_loss for m in runs.members]
    plain = train(["erm"], validate_every=5, callback=lambda t: t.stop() if t.step == 2 else None)
    assert all(torch.equal(x, plain.members[0].state[n]) for n, x in runs.members[0].state.items())


def test_an_error_in_a_callback_is_fit_s():
    def fail(training):
        raise KeyError("mine")

    before = torch.get_rng_state()
    with pytest.raises(KeyError, match="mine"):
        train(callback=fail)
    assert torch.equal(torch.get_rng_state(), before)
    train()  # the turn was given back


def test_a_callback_may_train_another_model_meanwhile():
    """In the same thread, so that nothing is drawn in between: both are what they are alone."""
    inner = []
    outer = train(callback=lambda t: inner.append(train(["erm"])) if t.step == 3 else None)
    same(inner[0], train(["erm"]))
    same(outer, train())


# The same in a thread.


def test_in_the_background_nothing_is_different():
    before = torch.get_rng_state()
    run = start(methods=["erm", "sam:rho=0.1"], validate_every=2)
    runs = run.wait(SECONDS)
    assert torch.equal(torch.get_rng_state(), before)
    same(runs, train(["erm", "sam:rho=0.1"], validate_every=2))
    assert (run.state, run.step, run.steps, run.labels) == ("done", 6, 6, ["sam:rho=0.1"])
    assert run.runs is runs
    live = pd.DataFrame(run.rows)
    assert len(live) == 4 * 6  # members x steps, all of them in so short a run
    both = live.merge(runs.history, on=["member", "step"], suffixes=("", "_after"))
    assert len(both) == 4 * 3
    for column in ("label", "seed", "train_loss", "val_loss", "theta.slope"):
        assert both[column].tolist() == both[f"{column}_after"].tolist()


def test_a_live_curve_has_so_many_points_and_both_ends(monkeypatch):
    monkeypatch.setattr("hybridsam_lite.live.POINTS", 5)
    run = start(["erm"], seeds=[0], steps=11)
    run.wait(SECONDS)
    assert [row["step"] for row in run.rows] == [1, 2, 4, 6, 8, 10, 11]


def test_the_caller_s_number_of_threads_stays(gate):
    before = torch.get_num_threads()
    run = start(fit=gate.fit, threads=before + 1)
    assert torch.get_num_threads() == before
    gate.let(10)
    run.wait(SECONDS)
    assert torch.get_num_threads() == before


def test_it_is_there_after_the_first_step(gate):
    run = start(fit=gate.fit)
    assert (run.step, run.steps, run.labels, run.state) == (1, 6, ["sam:rho=0.1"], "training")
    assert run.settings == {"rho": [pytest.approx(0.1)] * 2}
    assert run.members == [0, 1]
    assert gate.done.get(timeout=SECONDS) == 1
    with pytest.raises(RuntimeError, match="training at step 1 of 6"):
        _ = run.runs
    with pytest.raises(RuntimeError, match="training at step 1 of 6"):
        run.wait(0)


def test_a_pause_holds_after_the_step_and_settings_can_be_changed_in_it(gate):
    news = queue.Queue()
    run = start(fit=gate.fit, notify=lambda: news.put(None))
    assert gate.done.get(timeout=SECONDS) == 1
    run.pause()
    gate.let()
    for rho in (0.25, 0.5):  # the second is granted only if the first did not let it go
        run.set(rho=rho)
        while run.settings["rho"][0] != rho:
            news.get(timeout=SECONDS)
        assert (run.step, run.state) == (2, "paused")
    assert gate.done.empty()
    run.resume()
    assert gate.done.get(timeout=SECONDS) == 2
    gate.let(10)
    label = "sam:rho=0.1 then 0.25 from step 2 then 0.5 from step 2"
    assert run.wait(SECONDS).members[0].method.label == label
    assert run.labels == [label]

    def change(training):
        if training.step == 2:
            training.set(rho=0.25)
            training.set(rho=0.5)

    same(run.runs, train(callback=change))


def test_stop_ends_a_pause(gate):
    run = start(fit=gate.fit)
    run.pause()
    gate.let()
    run.stop()
    gate.let()
    assert [(m.status, m.steps) for m in run.wait(SECONDS).members] == [("stopped", 2)] * 2
    assert run.state == "stopped"


def test_stop_after_the_end_changes_nothing():
    run = start()
    run.wait(SECONDS)
    run.stop()
    run.pause()
    run.set(rho=1.0)
    assert (run.state, run.refused) == ("done", None)
    assert [m.status for m in run.runs.members] == ["ok"] * 2


def test_waiting_for_a_paused_run_is_refused(gate):
    """Nobody could resume it: the caller is the one who waits."""
    run = start(fit=gate.fit)
    run.pause()
    with pytest.raises(RuntimeError, match="paused at step 1 of 6; resume it"):
        run.wait()
    run.resume()
    gate.let(10)
    assert len(run.wait(SECONDS)) == 2


def test_a_refused_change_is_told_and_the_training_goes_on(gate):
    run = start(fit=gate.fit)
    gate.done.get(timeout=SECONDS)
    for wish, message in (({"lam": 1.0}, "no setting 'lam'"), ({"rho": -1.0}, "finite"), ({"rho": None}, "finite")):
        run.set(**wish)
        gate.step()
        assert message in run.refused
    run.set(rho=0.3)
    assert gate.step() == 5
    assert run.refused is None
    gate.let(10)
    assert run.wait(SECONDS).members[0].method.label == "sam:rho=0.1 then 0.3 from step 5"


def test_errors_before_the_first_step_are_the_constructor_s():
    with pytest.raises(ValueError, match="steps must be"):
        start(steps=-1)
    with pytest.raises(ValueError, match="the callback of a monitored run"):
        start(callback=print)
    train()  # the turn was given back


def test_errors_later_surface_where_the_result_is_asked_for(gate):
    def broken(*arguments, callback, **options):
        def fail(training):
            callback(training)
            if training.step == 2:
                raise ZeroDivisionError("mine")

        return gate.fit(*arguments, callback=fail, **options)

    run = start(fit=broken)
    gate.let(5)
    for ask in (lambda: run.wait(SECONDS), lambda: run.runs):
        with pytest.raises(ZeroDivisionError, match="mine"):
            ask()
    assert isinstance(run.error, ZeroDivisionError)
    assert run.state == "failed"
    assert run.rows
    train()


def test_a_run_without_a_step_is_done(tmp_path):
    """As a finished one that is resumed."""
    runs = train(checkpoint=tmp_path)
    run = start(checkpoint=tmp_path, resume=True)
    same(run.wait(SECONDS), runs)
    assert (run.state, run.step, run.rows) == ("done", 0, [])


def test_nothing_else_is_trained_meanwhile_not_even_in_a_pause(gate):
    run = start(fit=gate.fit)
    run.pause()
    for other in (train, start):
        with pytest.raises(RuntimeError, match="another thread of this process is training"):
            other()
    run.stop()
    gate.let(10)
    run.wait(SECONDS)
    train()


def test_an_interrupt_before_the_first_step_stops_it(gate):
    """Else nobody would have a handle on it, and it would keep its turn."""

    interrupted = threading.Event()

    def slow(*arguments, **options):
        _thread.interrupt_main()
        assert interrupted.wait(SECONDS)
        return gate.fit(*arguments, **options)

    with pytest.raises(KeyboardInterrupt):
        start(fit=slow)
    interrupted.set()
    gate.let(10)
    gate.join()
    assert gate.done.qsize() == 1
