"""The command line: what it prints, and one clear line for every mistake."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hybridsam_lite import cli
from hybridsam_lite.results import read_records, write_records


def hybridsam(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "hybridsam_lite", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HYBRIDSAM_PRESET": "smoke", **environment},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "p"
    done = hybridsam("run", "pendulum", "--method", "erm", "--method", "asam:rho=1", "--seeds", "0:2", "--out", out)
    return done, out


def test_run_prints_a_table_and_writes_records(finished):
    done, out = finished
    assert done.returncode == 0, done.stderr
    assert "theta error" in done.stdout
    assert "asam:rho=1" in done.stdout
    assert "100%" in done.stderr  # the progress bar
    rows = read_records(out / "runs.jsonl")
    assert [(r["label"], r["seed"]) for r in rows] == [("erm", 0), ("erm", 1), ("asam:rho=1", 0), ("asam:rho=1", 1)]
    assert {r["preset"] for r in rows} == {"smoke"}


def test_a_second_run_into_the_same_folder_is_refused(finished, capsys, monkeypatch):
    _, out = finished
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert "add --resume" in mistake(capsys, monkeypatch, *RUN, "--out", out)
    other = ("run", "pendulum", "--method", "wd:lam=1", "--out", out, "--resume")
    assert "other settings" in mistake(capsys, monkeypatch, *other)
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_resume_of_a_finished_run_gives_the_same_file(finished):
    _, out = finished
    before = (out / "runs.jsonl").read_bytes()
    arguments = ("run", "pendulum", "--method", "erm", "--method", "asam:rho=1", "--seeds", "0:2", "--out", out)
    assert hybridsam(*arguments, "--resume").returncode == 0
    assert without_provenance((out / "runs.jsonl").read_bytes()) == without_provenance(before)


def without_provenance(content):
    """Records without the commit, which may change while tests run in a working tree."""
    return [{k: v for k, v in json.loads(line).items() if k != "commit"} for line in content.splitlines()]


def test_interrupt_saves_says_how_to_resume_and_ends_with_130(tmp_path):
    arguments = ["run", "pendulum", "--preset", "quick", "--method", "erm", "--seeds", "0"]
    command = [sys.executable, "-m", "hybridsam_lite", *arguments]
    running = subprocess.Popen(
        [*command, "--out", tmp_path / "a"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "a" / "checkpoint" / "config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "a" / "checkpoint" / "stack-0.pt").exists()
    assert not (tmp_path / "a" / "runs.jsonl").exists()


def shown(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["hybridsam", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_table_reads_folders_and_files(finished, capsys, monkeypatch):
    _, out = finished
    for argument in (out, out / "runs.jsonl"):
        assert "asam:rho=1" in shown(capsys, monkeypatch, "table", argument)


def test_select_answers_for_each_problem_and_undecided_is_an_answer(finished, tmp_path, capsys, monkeypatch):
    _, out = finished
    rows = read_records(out / "runs.jsonl")
    more = [r | {"seed": s, "val_loss": r["val_loss"] * (1 + s), "variant": "B"} for r in rows[::2] for s in range(4)]
    more += [r | {"label": "asam:rho=2", "settings": {"rho": 2.0}} for r in more if r["label"] != "erm"]
    write_records(tmp_path / "more.jsonl", more)
    printed = shown(capsys, monkeypatch, "select", out, tmp_path / "more.jsonl")
    assert "asam: undecided" in printed
    assert "one rho only" in printed
    assert "pendulum B, preset smoke, simulated data" in printed
    assert "asam:rho=2" not in shown(capsys, monkeypatch, "select", out)


def test_tasks_and_doctor_name_what_there_is(capsys, monkeypatch):
    listed = shown(capsys, monkeypatch, "tasks")
    assert all(word in listed for word in ("pendulum", "duffing", "A1near", "C2", "smoke"))
    seen = shown(capsys, monkeypatch, "doctor")
    assert all(word in seen for word in ("torch", "device", "threads", "preset"))


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("table", "--help"), ("select", "--help")])
def test_help_teaches(capsys, monkeypatch, arguments):
    assert "hybridsam" in shown(capsys, monkeypatch, *arguments)


def mistake(capsys, monkeypatch, *arguments):
    """Run in this process, which is faster; returns the one line on stderr."""
    monkeypatch.setenv("HYBRIDSAM_PRESET", "smoke")
    monkeypatch.setattr(sys, "argv", ["hybridsam", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "Traceback" not in line
    return line


RUN = ("run", "pendulum", "--method", "erm")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rnu",), ("'run'",)),
        (("run", "pendulm", "--method", "erm"), ("did you mean 'pendulum'",)),
        (("run", "pendulum", "--method", "asm:rho=1"), ("did you mean 'asam'",)),
        (("run", "pendulum", "--method", "sam:rho=-1"), ("rho must be a finite number >= 0", "-1")),
        (("run", "pendulum", "--method", "sam:radius=1"), ("no setting 'radius'", "rho")),
        (("run", "pendulum", "--method", "sam:rho=big"), ("rho needs a number", "'big'")),
        (("run", "pendulum", "--method", "erm", "--method", "erm"), ("duplicates",)),
        ((*RUN, "--seeds", "8:4"), ("'8:4' names no seeds", "0:4")),
        ((*RUN, "--seeds", "-3"), ("names no seeds",)),
        ((*RUN, "--seeds", "0:1e3"), ("names no seeds",)),
        ((*RUN, "--variant", "B1"), ("no variant 'B1'", "A1n")),
        ((*RUN, "--preset", "quik"), ("did you mean 'quick'",)),
        ((*RUN, "--device", "gpu"), ("device 'gpu' cannot be used",)),
        ((*RUN, "--frobnicate"), ("No such option",)),
        (("run", "pendulum"), ("--method",)),
        (("table", "no/such/folder"), ("no records",)),
        (("select", "no/such/folder"), ("no records",)),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, monkeypatch, arguments, words):
    out = tmp_path / "out"
    line = mistake(capsys, monkeypatch, *arguments, *(("--out", out) if arguments[0] == "run" else ()))
    assert all(word in line for word in words), line
    assert not out.exists()


def test_select_of_plain_training_alone_is_a_mistake(finished, tmp_path, capsys, monkeypatch):
    _, out = finished
    write_records(tmp_path / "erm.jsonl", read_records(out / "runs.jsonl")[:2])
    assert "nothing to choose" in mistake(capsys, monkeypatch, "select", tmp_path)


def test_out_that_holds_other_files_is_refused(tmp_path, capsys, monkeypatch):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "not empty" in mistake(capsys, monkeypatch, *RUN, "--out", tmp_path)
    assert "is a file" in mistake(capsys, monkeypatch, *RUN, "--out", tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert len(list(tmp_path.iterdir())) == 1


def test_brackets_are_brackets_and_control_characters_are_shown(finished, tmp_path, capsys, monkeypatch):
    """Tables are not markup: a label in brackets was swallowed, and "[/b]" ended in a traceback."""
    _, out = finished
    folder = tmp_path / "runs [red] [/b] :smile:"
    folder.mkdir(parents=True)
    rows = read_records(out / "runs.jsonl")
    write_records(folder / "runs.jsonl", [{**row, "label": f"{row['label']} [/b]"} for row in rows])
    assert "erm [/b]" in shown(capsys, monkeypatch, "table", folder)
    assert "\\x1b[2J" in mistake(capsys, monkeypatch, "table", tmp_path / "a\x1b[2Jb")


def test_a_long_mistake_is_told_in_short(capsys, monkeypatch):
    assert len(mistake(capsys, monkeypatch, "run", "x" * 100_000, "--method", "erm", "--out", "x")) < 2000


@pytest.mark.parametrize("seeds", ["0:200000", "0:99999999999999999999", "5:99999999999999999999999"])
def test_more_seeds_than_memory(seeds, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert "names more than 100000 seeds" in mistake(capsys, monkeypatch, *RUN, "--seeds", seeds, "--out", out)
    assert not out.exists()


def test_empty_files_have_no_table(tmp_path, capsys, monkeypatch):
    (tmp_path / "runs.jsonl").touch()
    for command in ("table", "select", "verify"):
        assert "there are no records in" in mistake(capsys, monkeypatch, command, tmp_path)


def test_the_same_folder_twice_is_a_mistake(finished, capsys, monkeypatch):
    _, out = finished
    assert "is there more than once" in mistake(capsys, monkeypatch, "table", out, out)


@pytest.mark.parametrize("second", ["pendulm", "pendulum/x", ""])
def test_a_sweep_checks_all_names_before_it_trains_the_first(second, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    line = mistake(capsys, monkeypatch, "sweep", "duffing", second, "--out", out)
    assert "unknown task" in line or "no variant 'x'" in line
    assert not out.exists()


def test_a_worker_that_is_killed_is_one_line(tmp_path, capsys, monkeypatch):
    from concurrent.futures.process import BrokenProcessPool

    from hybridsam_lite import sweep

    def killed(*_, **__):
        raise BrokenProcessPool

    monkeypatch.setattr(sweep, "sweep", killed)
    line = mistake(capsys, monkeypatch, "sweep", "duffing", "--out", tmp_path / "out")
    assert "ended abruptly" in line
    assert "repeat the command" in line
