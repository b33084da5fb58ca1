"""Kill training at random moments, again and again, and see that nothing is lost: `make soak`.

Each command is run once undisturbed. Then it is started, killed (SIGKILL) after a random time, and started again,
until it has come to its end; its records must equal the undisturbed ones bit for bit, none lost, none twice, with
no half-written file left. Not part of `make test`, which does the same with single kills.

    python -m tools.soak --kills 100
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLI = [sys.executable, "-m", "hybridsam_lite"]
METHODS = ["--method", "erm", "--method", "sam:rho=0.1", "--method", "aphynity:tau=1"]
COMMANDS = {
    "run": ["run", "duffing", "--preset", "smoke", "--steps", "300", *METHODS, "--seeds", "0:2"],
    "sweep": ["sweep", "duffing", "--preset", "smoke", "--method", "wd", "--seeds", "10:12", "--processes", "2"],
}
DIFFERENT = ("seconds", "commit")  # between two runs of the same thing
ENVIRONMENT = {**os.environ, "HYBRIDSAM_CHECKPOINT_SECONDS": "0.05", "OMP_NUM_THREADS": "1"}


def start(name: str, out: Path) -> subprocess.Popen[bytes]:
    """Begin or go on; a group of its own, so that nothing else is killed."""
    resume = ["--resume"] if name == "run" and (out / "checkpoint").is_dir() else []
    return subprocess.Popen(
        [*CLI, *COMMANDS[name], "--out", str(out), *resume],
        env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def outcome(out: Path) -> list[dict[str, Any]]:
    """All records, in an order of their own, without what differs between two runs of the same thing."""
    rows = [json.loads(line) for file in sorted(out.glob("*.jsonl")) for line in file.read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k not in DIFFERENT} for row in rows]
    return sorted(rows, key=lambda row: (row["stage"], row["label"], row["seed"]))


def undisturbed(name: str, out: Path) -> tuple[list[dict[str, Any]], float]:
    """The records that must come out, and how long it takes."""
    begun = time.monotonic()
    with start(name, out) as process:
        _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"soak: {name} fails when it is left alone:\n{errors.decode()}")
    return outcome(out), time.monotonic() - begun


def disturbed(name: str, out: Path, seconds: float, chance: random.Random, most: int) -> tuple[int, int, float]:
    """Start and kill until it is done.

    Returns:
        Kills, kills that found a checkpoint or records there, and the seconds that the whole would take by now: what
        else runs on the machine may have changed.
    """
    kills = useful = 0
    while True:
        begun = time.monotonic()
        with start(name, out) as process:
            try:
                _, errors = process.communicate(timeout=chance.uniform(0, seconds) if kills < most else None)
            except subprocess.TimeoutExpired:
                only = chance.random() < 0.5  # the sweep alone, or its workers with it
                (os.kill if only else os.killpg)(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
                useful += any(out.rglob("stack-*.pt")) or any(out.glob("*.jsonl"))
                continue
        if process.returncode:
            raise SystemExit(f"soak: {name} does not go on after {kills} kills:\n{errors.decode()}")
        return kills, useful, seconds if kills else time.monotonic() - begun


def main() -> None:
    """Kill until the count is reached; exit status 1 if anything was lost."""
    parser = argparse.ArgumentParser(description="Kill training at random moments; nothing may be lost.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, total, useful, rounds = random.Random(given.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        expected = {name: undisturbed(name, Path(scratch, name)) for name in COMMANDS}
        while total < given.kills:
            name = list(COMMANDS)[rounds % len(COMMANDS)]
            rows, seconds = expected[name]
            out = Path(scratch, f"{name}-{rounds}")
            killed, found, now = disturbed(name, out, seconds, chance, min(10, given.kills - total))
            expected[name] = rows, now
            total, useful, rounds = total + killed, useful + found, rounds + 1
            if outcome(out) != rows:
                raise SystemExit(f"soak: {name}: other records after {killed} kills (seed {given.seed})")
            if litter := [str(path) for path in out.rglob("*.part")]:
                raise SystemExit(f"soak: {name}: left behind after {killed} kills: {', '.join(litter)}")
            shutil.rmtree(out)
            print(f"{name}: {killed} kills, same {len(rows)} records; {total} of {given.kills} kills", flush=True)
    print(f"survived {total} kills in {rounds} runs, {useful} of them with a state or records on the disk")


if __name__ == "__main__":
    main()
