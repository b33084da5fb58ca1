"""The scripts behind the Makefile: set-up, cache key, address, summary of the checks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tools import address, book, browser, checks, venv

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with the files that the scripts look at."""
    (tmp_path / "hybridsam_lite").mkdir()
    (tmp_path / "hybridsam_lite" / "sam.py").write_text("rho = 0.05\n")
    (tmp_path / "book" / "results").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", *address.COPIES):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def find_python(**environment: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "tools" / "find_python.sh")
    return subprocess.run(["/bin/sh", script], env=environment, capture_output=True, text=True, check=False)


def fake_python(folder: Path, script: str) -> Path:
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_finds_this_python() -> None:
    done = find_python(PYTHON=sys.executable, PATH=os.environ["PATH"])
    assert done.stdout.strip() == sys.executable


def test_says_what_is_missing_without_python(tmp_path: Path) -> None:
    done = find_python(PATH=str(tmp_path))
    assert done.returncode == 1
    assert not done.stdout
    assert "3.10, 3.11, 3.12 or 3.13" in done.stderr
    assert "Found none" in done.stderr
    assert "python3-venv" in done.stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        # Asked for its version an old Python prints it, asked for anything else it fails here.
        ('case "$2" in *print*) echo 3.8.1;; *) exit 1;; esac', "without the modules venv"),
        ('case "$2" in *print*) echo 3.9.2;; *version_info*) exit 1;; esac', "is Python 3.9.2\n"),
        ("exit 127", "(does not start)"),
    ],
)
def test_says_what_is_wrong_with_a_python(tmp_path: Path, script: str, said: str) -> None:
    path = fake_python(tmp_path, script)
    done = find_python(PATH=str(tmp_path))
    assert done.returncode == 1
    assert f"{path} is Python" in done.stderr
    assert said in done.stderr


def test_environment_depends_on_the_requirements(project: Path) -> None:
    before = venv.key(project)
    assert venv.key(project) == before
    with (project / "constraints.txt").open("a") as file:
        file.write("six==1.17.0\n")
    assert venv.key(project) != before


def test_a_broken_environment_is_noticed(tmp_path: Path) -> None:
    assert venv.works(Path(sys.executable))
    assert not venv.works(tmp_path / "python3")
    assert not venv.works(fake_python(tmp_path, "exit 1"))


def test_constraints_pin_every_requirement() -> None:
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pins = (ROOT / "constraints.txt").read_text()
    pinned = {normal(name) for name in re.findall(r"(?m)^([\w.-]+)==", pins)}
    needed = {
        normal(re.split(r"[^\w.-]", line)[0])
        for line in metadata.requires("hybridsam-lite") or []
        if "extra" not in line or re.search(r"extra == .(book|dev).", line)
    }
    assert needed
    assert needed <= pinned


def test_release_tools_are_known_by_their_hash() -> None:
    text = (ROOT / "tools" / "release.txt").read_text()
    entries = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    names = set()
    for entry in filter(None, entries):
        found = re.fullmatch(r"([a-z0-9.-]+)==\S+( ;.*?)?( +--hash=sha256:[0-9a-f]{64})+ *", entry)
        assert found, entry[:80]
        names.add(found[1])
    assert {"build", "hatchling", "cyclonedx-bom", "pip-audit"} <= names
    assert "://" not in text


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {metadata.version('hybridsam-lite')}\n" in (ROOT / "CITATION.cff").read_text()


def test_cache_key_follows_library_results_and_preset(project: Path) -> None:
    keys = [book.cache_key(project, "quick"), book.cache_key(project, "smoke")]
    (project / "hybridsam_lite" / "sam.py").write_text("rho = 0.1\n")
    keys.append(book.cache_key(project, "quick"))
    (project / "book" / "results" / "runs.jsonl").write_text("{}\n")
    keys.append(book.cache_key(project, "quick"))
    assert len(set(keys)) == len(keys)
    (project / "book" / "chapter.md").write_text("words\n")
    assert book.cache_key(project, "quick") == keys[-1]


def test_cache_is_emptied_when_its_key_changes(tmp_path: Path) -> None:
    record = tmp_path / ".jupyter_cache" / "record"
    for key, kept in (("a", False), ("a", True), ("b", False)):
        assert book.refresh_cache(tmp_path, key) is kept
        assert record.exists() is kept
        record.parent.mkdir(exist_ok=True)
        record.touch()


def test_copies_of_the_address_are_current() -> None:
    wrong = [str(path.relative_to(ROOT)) for path in address.corrected()]
    assert not wrong, "run python -m tools.address --write"


def test_a_changed_address_reaches_every_copy(project: Path) -> None:
    new = "https://example.org/someone/fork"
    pyproject = project / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(address.address(), new))
    wrong = address.corrected(project)
    assert {path.name for path in wrong} == set(address.COPIES)
    assert all(new in text and address.address() not in text for text in wrong.values())


def test_colab_cell_is_put_first_once() -> None:
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": ["# Title"]}
    code = {"cell_type": "code", "id": "code", "metadata": {}, "source": ["1"]}
    once = address.with_colab_cell({"cells": [title, code]}, "https://example.org/a")
    twice = address.with_colab_cell(once, "https://example.org/b")
    assert [cell["id"] for cell in twice["cells"]] == ["title", "colab", "code"]
    assert "git+https://example.org/b" in "".join(twice["cells"][1]["source"])


def test_checks_go_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    layers = {
        name: ([(sys.executable, "-c", f"print('ran {name}'); raise SystemExit({code})")], {})
        for name, code in (("first", 1), ("second", 0))
    }
    monkeypatch.setattr(checks, "LAYERS", layers)
    assert checks.main([]) == 1
    out = capfd.readouterr().out
    assert "ran first" in out
    assert "ran second" in out
    assert re.search(r"first +\d+\.\d  FAILED\nsecond +\d+\.\d  ok\n", out)
    assert out.splitlines()[-1].endswith("FAILED: first")
    assert checks.main(["second"]) == 0


def test_missing_browser_is_said_aloud(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checks, "LAYERS", {"pages": ([(sys.executable, "-c", "")], {})})
    monkeypatch.setattr(browser, "install", lambda: None)
    assert checks.main([]) == 0
    out = capfd.readouterr().out
    assert "browser part NOT RUN" in out
    assert browser.INSTALL in out


def test_unknown_layer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert checks.main(["unti"]) == 2
    assert "unit" in capsys.readouterr().err


def test_browser_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYBRIDSAM_CHROMIUM", str(tmp_path / "none"))
    assert browser.find() is None
    monkeypatch.setenv("HYBRIDSAM_CHROMIUM", sys.executable)
    assert browser.find() == sys.executable


def test_only_a_cell_that_ran_out_of_time_is_tried_again(tmp_path: Path) -> None:
    assert not book.waited_in_vain(tmp_path)
    reports = tmp_path / "reports" / "book"
    reports.mkdir(parents=True)
    (reports / "07.err.log").write_text("AssertionError")
    assert not book.waited_in_vain(tmp_path)
    (reports / "08.err.log").write_text("nbclient.exceptions.CellTimeoutError: A cell timed out")
    assert book.waited_in_vain(tmp_path)
