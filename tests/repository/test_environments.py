"""Environments beside .venv: how far one has drifted, and a notebook run as in Colab."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import cpu, drift, fresh, newest, venv

ROOT = Path(__file__).resolve().parents[2]
# Short, and it reads nothing of the repository.
CHAPTER = ROOT / "book" / "03_flat_is_simple.ipynb"

PINS = """\
# A comment.
old-one==1.0 ; python_version < "3"
Both==1.0 ; python_version < "3"
both==2.0 ; python_version >= "3"
same_name==1.5
"""


def test_pins_are_those_of_this_python() -> None:
    assert drift.tested(PINS) == {"both": "2.0", "same-name": "1.5"}


def test_drift_names_what_differs() -> None:
    rows = drift.table({"both": "2.0", "same-name": "1.5"}, {"both": "2.1", "same-name": "1.5", "new": "3"})
    assert [row.split() for row in rows] == [["both", "2.0", "2.1"], ["new", "none", "3"]]


def test_what_is_tested_here_are_the_tested_versions(capsys: pytest.CaptureFixture[str]) -> None:
    """Of what is installed and pinned; someone may have installed more."""
    pins, here = drift.tested((ROOT / "constraints.txt").read_text()), drift.installed()
    both = pins.keys() & here.keys()
    assert both
    assert {name: here[name] for name in both} == {name: pins[name] for name in both}
    assert drift.main() == 0
    assert "packages differ" in capsys.readouterr().out


def test_a_new_environment_is_empty_and_ignored(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "old").touch()
    python = fresh.create(tmp_path / "env")
    assert venv.works(python) is False
    assert not (tmp_path / "env" / "old").exists()
    assert (tmp_path / "env" / ".gitignore").read_text() == "*\n"


class Commands(list[list[str]]):
    """What would have been run."""

    def __call__(self, command: list[str], **_: object) -> None:
        self.append([str(word) for word in command])


def test_the_cpu_build_is_installed_first_and_make_finds_the_rest_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands()
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(venv, "ROOT", tmp_path)
    monkeypatch.setattr("subprocess.run", commands)
    monkeypatch.setattr(fresh, "create", lambda folder: folder / "bin" / "python")
    monkeypatch.setenv("UV_TORCH_BACKEND", "cpu")
    assert cpu.main() == 0
    by_uv = next(i for i, command in enumerate(commands) if command[1:3] == ["-m", "uv"])
    assert commands[by_uv][3:5] == ["pip", "install"]
    assert commands[by_uv][-3:] == ["torch", "-c", "constraints.txt"]
    assert commands[-1][-1] == f".[{venv.EXTRAS}]"
    assert by_uv < len(commands) - 1
    assert (tmp_path / ".venv" / "ready").read_text().splitlines() == venv.key(tmp_path)


def test_without_the_variable_pip_brings_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    monkeypatch.setattr("subprocess.run", commands)
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    fresh.torch_by_uv(Path(sys.executable))
    assert not commands


def test_what_is_held_back_is_for_pip_and_no_constraint_is(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[tuple[str, ...]] = []

    def stop(*_: object, **__: object) -> None:
        raise RuntimeError("far enough")

    monkeypatch.setattr(fresh, "create", lambda folder: folder / "bin" / "python")
    monkeypatch.setattr(fresh, "torch_by_uv", lambda *_: None)
    monkeypatch.setattr(fresh, "pip", lambda _, *arguments: installed.append(arguments))
    monkeypatch.setattr("subprocess.run", stop)
    with pytest.raises(RuntimeError, match="far enough"):
        newest.main(["torch==2.13.0"])
    assert installed[-1] == ("-e", f".[{venv.EXTRAS}]", "torch==2.13.0")
    assert not any("constraints.txt" in words for words in installed)


@pytest.mark.colab
@pytest.mark.timeout(1800)
def test_a_chapter_runs_in_colab() -> None:
    """In a process of its own, as `make colab`: the kernel's sockets are its business."""
    command = [sys.executable, "-m", "tools.colab", str(CHAPTER)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
