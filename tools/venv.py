"""Make .venv, or re-use it: the package with its book and dev extras, at the tested versions.

Standard library only, since this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("pyproject.toml", "constraints.txt")
EXTRAS = "book,dev"
NEEDED = ("hybridsam_lite", "torch", "pytest", "jupyter_book", "playwright")


def key(root: Path) -> str:
    """Hash of what the environment depends on: requirements, place and Python version."""
    digest = hashlib.sha256(f"{root} {sys.version_info[:2]} {EXTRAS}".encode())
    for name in REQUIREMENTS:
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def works(python: Path) -> bool:
    """Whether the environment's Python starts and finds what the targets need."""
    code = f"from importlib.util import find_spec as f; assert all(map(f, {NEEDED!r}))"
    try:
        # Not in the root, where hybridsam_lite would be found without being installed.
        done = subprocess.run([python, "-c", code], capture_output=True, cwd=python.parent)
    except OSError:
        return False
    return done.returncode == 0


def main() -> int:
    """Set .venv up if it is missing, broken, half-made or made from other requirements."""
    venv = ROOT / ".venv"
    python = venv / "bin" / "python"
    # Written last, so that an interrupted set-up is never taken as good.
    stamp = venv / "ready"
    current = key(ROOT)
    if stamp.is_file() and stamp.read_text() == current and works(python):
        return 0

    start = time.monotonic()
    why = "its requirements have changed, or it is not complete" if venv.exists() else "first use"
    print(f"Setting up .venv ({why}). This takes a few minutes.", flush=True)
    if venv.is_symlink() or venv.is_file():
        venv.unlink()
    elif venv.exists():
        shutil.rmtree(venv)
    # Progress bars help a person on a slow line and flood a log.
    quiet = [] if sys.stdout.isatty() else ["-qq"]
    # An activated .venv may be the one that was just removed: build from its base.
    base = getattr(sys, "_base_executable", sys.executable)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", *quiet]
    constrained = ["-c", "constraints.txt"]
    try:
        subprocess.run([base, "-m", "venv", str(venv)], cwd=ROOT, check=True)
        subprocess.run([*pip, *constrained, "--upgrade", "pip"], cwd=ROOT, check=True)
        subprocess.run([*pip, *constrained, "-e", f".[{EXTRAS}]"], cwd=ROOT, check=True)
    except subprocess.CalledProcessError as error:
        command = " ".join(error.cmd)
        print(f"Set-up failed (exit {error.returncode}): {command}", file=sys.stderr)
        return 1
    if not works(python):
        print(f"Set-up failed: {python} does not find {', '.join(NEEDED)}", file=sys.stderr)
        return 1
    stamp.write_text(current)
    print(f"Set up .venv in {time.monotonic() - start:.0f} s.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
