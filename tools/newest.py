"""What `make newest` runs: all notebooks at the smoke preset with the newest versions that pip allows.

`python -m tools.newest [REQUIREMENT ...]` makes .venv-newest without constraints.txt, prints what differs from the
tested versions, and runs every notebook by nbval. A requirement such as torch==2.13.0 holds a package back.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tools import fresh
from tools.venv import EXTRAS, ROOT

FOLDER = ROOT / ".venv-newest"


def main(held: list[str]) -> int:
    """1 if the environment cannot be made or a notebook fails in it."""
    print(f"Making {FOLDER.name} with the newest versions{''.join(f', {one}' for one in held)}.", flush=True)
    try:
        python = fresh.create(FOLDER)
        fresh.pip(python, "--upgrade", "pip")
        fresh.torch_by_uv(python, *held)
        fresh.pip(python, "-e", f".[{EXTRAS}]", *held)
    except subprocess.CalledProcessError as error:
        print(f"Set-up failed (exit {error.returncode}): {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    drift = subprocess.run([python, "-m", "tools.drift"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    print(drift, flush=True)
    layers = os.environ.get("LAYER") or "notebooks"
    code = subprocess.run([python, "-m", "tools.checks", *layers.split()], cwd=ROOT, check=False).returncode
    if code:
        print(f"\nWhat differs from the tested versions:\n{drift}", flush=True)
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
