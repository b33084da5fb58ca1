"""New environments, for the scripts that need another one than .venv. Standard library only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.venv import ROOT


def create(folder: Path) -> Path:
    """An empty environment in place of what the folder holds; its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    # Not from an environment that may be the one that was just removed.
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    (folder / ".gitignore").write_text("*\n")
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str) -> None:
    """Run this environment's `pip install`, in the repository's root."""
    quiet = [] if sys.stdout.isatty() else ["-q"]
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", *quiet, *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


def torch_by_uv(python: Path, *requirements: str) -> None:
    """Install torch by uv if UV_TORCH_BACKEND says which build it shall be: "cpu" is a fraction of the default one.

    uv knows where PyTorch's builds are, so that no address need stand in the repository. Without the variable nothing
    is done here: pip brings torch with the rest, from where its own settings say.
    """
    if os.environ.get("UV_TORCH_BACKEND"):
        pip(python, "uv")
        command = [str(python), "-m", "uv", "pip", "install", "--python", str(python), "torch", *requirements]
        subprocess.run(command, cwd=ROOT, check=True)
