"""What `make book` runs: render the book, say how long each chapter took and where it is.

The execution cache of myst-nb is keyed on a notebook's own cells. A chapter also depends on the
library, on the archived results and on the preset, so the cache is emptied when those change.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from jupyter_cache import get_cache

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
HTML = BUILD / "html"
DEPENDS = (
    *(f"hybridsam_lite/**/*.{ending}" for ending in ("py", "js", "css")),
    *("book/results/**/*", "constraints.txt"),
)

DEFAULTS = {
    "HYBRIDSAM_PRESET": "quick",
    # One thread: small networks on a CPU run faster so, and chapters take the same time everywhere.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # A kernel of this environment, not one of the same name that the user has installed elsewhere.
    "JUPYTER_PREFER_ENV_PATH": "1",
}
# By these a user asks programs for colours; on a page of the book their codes would be read.
COLOURS = ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "TTY_COMPATIBLE")


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What the build and the kernels get: the user's environment, our defaults, and no colours in outputs."""
    kept = {name: value for name, value in given.items() if name not in COLOURS}
    return {**DEFAULTS, **kept, "NO_COLOR": "1"}


def cache_key(root: Path, preset: str) -> str:
    """Hash of everything outside a notebook that its outputs depend on."""
    digest = hashlib.sha256(f"{preset} {sys.version_info[:2]}".encode())
    for path in sorted({path for pattern in DEPENDS for path in root.glob(pattern)}):
        if path.is_file():
            digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def refresh_cache(build: Path, key: str) -> bool:
    """Empty the execution cache unless it was filled under this key; whether it was kept."""
    stamp = build / "cache-key"
    kept = stamp.is_file() and stamp.read_text() == key
    if not kept:
        shutil.rmtree(build / ".jupyter_cache", ignore_errors=True)
        build.mkdir(parents=True, exist_ok=True)
        stamp.write_text(key)
    return kept


def chapter_times(cache: Path, since: datetime) -> dict[str, tuple[float, bool]]:
    """For each notebook in the cache: seconds of its execution, and whether that was just now."""
    times: dict[str, tuple[float, bool]] = {}
    if not cache.is_dir():
        return times
    # Ascending by last use: what this build used overwrites what an older text of a chapter took.
    for record in sorted(get_cache(cache).list_cache_records(), key=lambda one: one.accessed):
        seconds = float(record.data.get("execution_seconds", float("nan")))
        times[Path(record.uri).stem] = (seconds, record.created >= since)
    return times


def waited_in_vain(html: Path) -> bool:
    """Whether a cell ran out of time: now and then a reply of an idle kernel never arrives (also with ipykernel 6)."""
    return any("CellTimeoutError" in log.read_text() for log in (html / "reports").rglob("*.err.log"))


def main() -> int:
    """Build the book; the exit code is that of jupyter-book."""
    env = environment(os.environ)
    refresh_cache(BUILD, cache_key(ROOT, env["HYBRIDSAM_PRESET"]))
    # Sphinx warns while it reads a page, and reads only what has changed: a second build of a
    # page with a warning would pass. Reading all pages is cheap, running them is what is cached.
    shutil.rmtree(HTML, ignore_errors=True)
    shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)

    start, began = time.monotonic(), datetime.now(timezone.utc).replace(tzinfo=None)
    tool = str(Path(sys.executable).with_name("jupyter-book"))
    command = [tool, "build", ".", "-W", "-n", "--keep-going"]
    code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    if code and waited_in_vain(HTML):
        print("A kernel's reply was lost and waited for in vain: once more, from the cache.", flush=True)
        code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    seconds = time.monotonic() - start

    for log in sorted((HTML / "reports").rglob("*.err.log")):
        print(f"\n{log.stem}:\n{log.read_text()[-3000:]}", file=sys.stderr)
    print(f"\n{'chapter':<36}{'seconds':>8}  (preset {env['HYBRIDSAM_PRESET']})")
    for chapter, (spent, now) in sorted(chapter_times(CACHE, began).items()):
        print(f"{chapter:<36}{spent:>8.1f}  {'' if now else 'from the cache'}".rstrip())
    if code:
        print(f"The book has errors or warnings, see above ({seconds:.0f} s).", file=sys.stderr)
    else:
        print(f"The book took {seconds:.0f} s: {HTML / 'index.html'}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
