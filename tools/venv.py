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


def key(root: Path) -> list[str]:
    """What the environment depends on: where it is and its Python, and a hash of the requirements."""
    digest = hashlib.sha256(EXTRAS.encode())
    for name in REQUIREMENTS:
        digest.update((root / name).read_bytes())
    return [f"{root} {sys.version_info[0]}.{sys.version_info[1]}", digest.hexdigest()]


def works(python: Path) -> bool:
    """Whether the environment's Python starts and finds what the targets need."""
    code = f"from importlib.util import find_spec as f; assert all(map(f, {NEEDED!r}))"
    try:
        # Not in the root, where hybridsam_lite would be found without being installed.
        done = subprocess.run([python, "-c", code], capture_output=True, cwd=python.parent)
    except OSError:
        return False
    return done.returncode == 0


def install(venv: Path, create: bool) -> None:
    """Install the requirements, in a new environment or in the one that is there."""
    # Progress bars help a person on a slow line and flood a log.
    quiet = [] if sys.stdout.isatty() else ["-qq"]
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", *quiet]
    constrained = ["-c", "constraints.txt"]
    if create:
        if venv.is_symlink() or venv.is_file():
            venv.unlink()
        elif venv.exists():
            shutil.rmtree(venv)
        # An activated .venv may be the one that was just removed: build from its base.
        base = getattr(sys, "_base_executable", sys.executable)
        subprocess.run([base, "-m", "venv", str(venv)], cwd=ROOT, check=True)
        subprocess.run([*pip, *constrained, "--upgrade", "pip"], cwd=ROOT, check=True)
    subprocess.run([*pip, *constrained, "-e", f".[{EXTRAS}]"], cwd=ROOT, check=True)


def main() -> int:
    """Set .venv up if it is missing, broken or half-made; update it if the requirements changed."""
    venv = ROOT / ".venv"
    python = venv / "bin" / "python"
    # Written last and removed first, so that an interrupted set-up is never taken as good.
    stamp = venv / "ready"
    place, requirements = key(ROOT)
    known = stamp.read_text().splitlines() if stamp.is_file() else []
    usable = known[:1] == [place] and works(python)
    if usable and known[1:] == [requirements]:
        return 0

    start = time.monotonic()
    if usable:
        why = "the requirements have changed"
    else:
        why = "what is there is broken, incomplete or not from here" if venv.exists() else "first use"
    print(f"Setting up .venv ({why}). This takes a few minutes.", flush=True)
    stamp.unlink(missing_ok=True)
    try:
        install(venv, create=not usable)
    except subprocess.CalledProcessError as error:
        print(f"Set-up failed (exit {error.returncode}): {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    if not works(python):
        print(f"Set-up failed: {python} does not find {', '.join(NEEDED)}", file=sys.stderr)
        return 1
    stamp.write_text(f"{place}\n{requirements}\n")
    print(f"Set up .venv in {time.monotonic() - start:.0f} s.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
