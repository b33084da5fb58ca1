"""`hybridsam new`: what it writes runs at once, and it never touches what is there."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from hybridsam_lite.scaffold import new

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def python(folder: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own work")  # with a space
    before = os.umask(0o022)
    try:
        return new("sprung_mass2", folder)
    finally:
        os.umask(before)


def test_names_are_the_user_s(made: Path) -> None:
    assert {path.name for path in made.iterdir()} >= {"model.py", "data.py", "train.py", "explore.ipynb"}
    assert "class SprungMass2(hs.HybridModel)" in (made / "model.py").read_text()
    assert not [p.name for p in made.iterdir() if p.is_file() and ("my_model" in p.read_text(errors="replace"))]
    assert made.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_its_own_tests_pass(made: Path) -> None:
    assert "3 passed" in python(made, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_its_training_script_runs_on_a_csv_file(made: Path) -> None:
    python(
        made, "-c", "import numpy as np, pandas as pd; from data import simulated, STEP; y = simulated(4);"
        "n, t, _ = y.shape; pd.DataFrame({'series': np.repeat(range(n), t), 't': np.tile(np.arange(t) * STEP, n),"
        "'x': y[..., 0].ravel(), 'v': y[..., 1].ravel()}).to_csv('data.csv', index=False)",
    )  # fmt: skip
    said = python(made, "train.py", "--steps", "3", "--seeds", "2")
    assert "simulated" not in said
    assert "Diagnosis of SprungMass2" in said
    assert (made / "theta.png").stat().st_size > 5000
    assert (made / "model.pt").exists()


def test_its_notebook_runs(made: Path) -> None:
    notebook = nbformat.read(made / "explore.ipynb", as_version=4)
    nbformat.validate(notebook)
    source = "\n".join(cell["source"] for cell in notebook.cells if cell["cell_type"] == "code")
    assert "STEPS, SEEDS = 1000, range(4)" in source
    short = source.replace("STEPS, SEEDS = 1000, range(4)", "STEPS, SEEDS = 3, range(2)")
    python(made, "-c", f"import matplotlib; matplotlib.use('agg')\n{short}")


def test_it_is_formatted_and_linted_as_a_folder_of_its_own(made: Path) -> None:
    python(made, "-m", "ruff", "format", "--check", "--isolated", "--line-length", "120", ".")
    python(made, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--extend-select", "I,B,UP,F,E", ".")


@pytest.mark.parametrize("name", ["My", "2nd", "a-b", "", "class", "../out", "a b", "naïve", "a\n"])
def test_a_name_that_is_no_module_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="lower-case"):
        new(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.py").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("mine", "link"):
        with pytest.raises(FileExistsError, match="left as it is"):
            new(name, tmp_path)
    assert (tmp_path / "mine" / "model.py").read_text() == "precious"
    with pytest.raises(FileNotFoundError, match="make it first"):
        new("other", tmp_path / "no")


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="space"):
        new("spring", tmp_path)
    assert not list(tmp_path.iterdir())
