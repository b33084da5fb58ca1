"""Notebooks as Colab runs them: `python -m tools.colab [NOTEBOOK ...]`, by default all that are in book/.

A new environment has torch and numpy, as Colab's has, and not this package; `google.colab` is in `sys.modules`, and
the kernel works in an empty folder. There a notebook is run from top to bottom at the smoke preset, as it is: its own
first cell installs the package. The repository's address in that cell leads to a copy of the working tree, for git
is told so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from tools import address, fresh
from tools.checks import SMOKE

ROOT = address.ROOT
# What Colab's machine has, as far as a notebook could notice that it is there without being asked for.
AS_IN_COLAB = ("torch", "numpy", "ipykernel", "ipywidgets")
PACKAGE = "hybridsam-lite"
TIMEOUT = 600  # seconds for one cell: the first one installs


def copy_of_the_tree(folder: Path) -> str:
    """The working tree, with what is not committed yet, as a repository of one commit; the commit's name."""

    def git(*arguments: str, at: Path = folder) -> str:
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=at, check=True, capture_output=True, text=True).stdout

    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", at=ROOT).split("\0"):
        if name and (ROOT / name).is_file():  # one that was deleted is listed until that is committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git("init", "--quiet")
    git("add", "--all", "--force")
    git("commit", "--quiet", "--no-verify", "--message", "the working tree")
    return git("rev-parse", "HEAD").strip()


def environment(folder: Path) -> Path:
    """An environment as Colab's, with a stand-in for the module by which a notebook knows it; its Python."""
    python = fresh.create(folder)
    fresh.torch_by_uv(python, "-c", "constraints.txt")
    fresh.pip(python, "-c", "constraints.txt", *AS_IN_COLAB)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "google" / "colab").mkdir(parents=True)
    (packages / "google" / "colab" / "__init__.py").write_text('"""A stand-in."""\n')
    (packages / "colab.pth").write_text("import google.colab\n")  # at the start of every Python here
    return python


def kernel(home: Path, python: Path, repository: Path) -> None:
    """The kernel named "colab": the environment's, in whose git the address is that of the copy."""
    env = {
        **SMOKE,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(python.parent.parent),
        "PYTHONPATH": "",
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "IPYTHONDIR": str(home / "ipython"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address.address(),
    }
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = home / "kernels" / "colab"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Colab", "env": env}))


def origin(python: Path) -> str:
    """Where the package in the environment came from, as pip wrote it down; empty if it is not there."""
    code = (
        "import importlib.metadata as m; d = next(iter(m.distributions(name='hybridsam-lite')), None); "
        "print(d and d.read_text('direct_url.json') or '')"
    )
    # Not in the repository, where the package would be found without being installed.
    done = subprocess.run([python, "-c", code], cwd=python.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run(notebook: Path, python: Path, kernels: Path) -> str:
    """Run a copy of the notebook in an empty folder; what went wrong, or nothing."""
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", PACKAGE], check=True)
    cells = nbformat.reads(notebook.read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    specs = KernelSpecManager(kernel_dirs=[str(kernels)])
    with tempfile.TemporaryDirectory() as folder:
        for tries in (2, 1):
            manager = AsyncKernelManager(kernel_name="colab", kernel_spec_manager=specs)
            place = {"metadata": {"path": folder}}
            try:
                NotebookClient(cells, km=manager, timeout=TIMEOUT, resources=place).execute()
            except CellTimeoutError as error:  # now and then a kernel's reply is lost
                if tries == 1:
                    return str(error)
            except CellExecutionError as error:
                return str(error)
            else:
                break
    return "" if origin(python) else f"the first cell has not installed {PACKAGE}"


def main(names: list[str]) -> int:
    """Run the named notebooks, or all; 1 if any fails."""
    chosen = [Path(name) for name in names] or sorted((ROOT / "book").glob("*.ipynb"))
    failed = []
    with tempfile.TemporaryDirectory(prefix="colab-") as temporary:
        home = Path(temporary)
        (home / "repository").mkdir()
        copy_of_the_tree(home / "repository")
        start = time.monotonic()
        python = environment(home / "environment")
        print(f"{'an environment as in Colab':<40}{time.monotonic() - start:>8.1f} s", flush=True)
        kernel(home, python, home / "repository")
        for path in chosen:
            start = time.monotonic()
            wrong = run(path, python, home / "kernels")
            failed += [path.stem] if wrong else []
            print(f"{path.stem:<40}{time.monotonic() - start:>8.1f} s  {'FAILED' if wrong else 'ok'}", flush=True)
            print(wrong[-2000:], end="", flush=True)
    verdict = f"FAILED: {', '.join(failed)}" if failed else "passed"
    print(f"make colab: {len(chosen)} notebooks, {verdict}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
