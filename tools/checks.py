"""What `make test` runs: every layer in turn, all of them even if one fails, then a summary.

`python -m tools.checks [LAYER ...]` runs the named layers only; those of ON_REQUEST run only if they are named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tools import browser

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
WORKERS = str(max(2, min(8, os.cpu_count() or 2)))
PYTEST = (PYTHON, "-m", "pytest")
PARALLEL = ("-n", WORKERS)
LIMIT = 45 * 60  # seconds for one command: one that hangs must not hide the others
NBVAL = ("--nbval-lax", "--nbval-cell-timeout", "300", "--timeout", "600", "--dist", "loadscope")

# One thread each: the parallel workers share the cores, and small networks run faster so.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SMOKE = {"HYBRIDSAM_PRESET": "smoke", **ONE_THREAD}
# A kernel of this environment, not one of the same name that the user has installed elsewhere.
OWN_KERNEL = {"JUPYTER_PREFER_ENV_PATH": "1"}

# For each layer its commands and what they need in their environment.
LAYERS: dict[str, tuple[list[tuple[str, ...]], dict[str, str]]] = {
    "lint": (
        [(PYTHON, "-m", "ruff", "format", "--check"), (PYTHON, "-m", "ruff", "check")],
        {},
    ),
    "types": ([(PYTHON, "-m", "mypy")], {}),
    "unit": ([(*PYTEST, *PARALLEL, "-m", "not (pages or lab or colab)", "tests")], SMOKE),
    "doctests": ([(*PYTEST, "--doctest-modules", "hybridsam_lite")], SMOKE),
    "notebooks": ([(*PYTEST, *NBVAL, *PARALLEL, "book")], SMOKE | OWN_KERNEL),
    "book": ([(PYTHON, "-m", "tools.book")], {}),
    "pages": ([(*PYTEST, *PARALLEL, "-m", "pages", "tests/book")], {}),
    "lab": ([(*PYTEST, "-m", "lab", "tests/lab")], {}),
    "colab": ([(*PYTEST, "-m", "colab", "tests/repository")], {}),
}
# Minutes each, and the latter downloads: they have jobs of their own in .github/workflows.
ON_REQUEST = ("lab", "colab")


def run(name: str) -> tuple[str, float]:
    """Run one layer with its output streamed; its status and seconds."""
    commands, extra = LAYERS[name]
    print(f"\n=== {name} " + "=" * (75 - len(name)), flush=True)
    start = time.monotonic()
    status = "ok"
    for command in commands:
        try:
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, **extra}, check=False, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            print(f"{name}: stopped after {LIMIT // 60} minutes", file=sys.stderr)
            status = "FAILED"
        else:
            status = "FAILED" if done.returncode else status
    return status, time.monotonic() - start


def main(names: list[str]) -> int:
    """Run the named layers, or all but those on request; 1 if any failed, 2 if a name is unknown."""
    if unknown := [name for name in names if name not in LAYERS]:
        print(f"No layer {', '.join(unknown)}. Layers: {', '.join(LAYERS)}.", file=sys.stderr)
        return 2
    results = {}
    for name in names or [name for name in LAYERS if name not in ON_REQUEST]:
        without_browser = name in ("unit", "pages", "lab") and browser.install() is None
        status, seconds = run(name)
        if without_browser and status == "ok":
            status = "browser part NOT RUN"
        results[name] = (status, seconds)

    print(f"\n{'layer':<12}{'seconds':>8}  status")
    for name, (status, seconds) in results.items():
        print(f"{name:<12}{seconds:>8.1f}  {status}")
    failed = [name for name, (status, _) in results.items() if status == "FAILED"]
    not_run = [name for name, (status, _) in results.items() if "NOT RUN" in status]
    total = sum(seconds for _, seconds in results.values())
    if not_run:
        print(f"NOT RUN: the browser part of {', '.join(not_run)}: {browser.missing()}")
    verdict = f"FAILED: {', '.join(failed)}" if failed else "passed"
    print(f"make test: {len(results)} layers in {total:.0f} s, {verdict}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
