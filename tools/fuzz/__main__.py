"""Robustness as long as you like: `python -m tools.fuzz --cases 10000 --inputs 1000000 --seconds 600`.

Cases are calls with arguments that may be odd, inputs are files that were damaged. Ends when both counts are reached or
the time is up, whichever comes first, and says how far it came. The same seed gives the same cases and inputs. Exit
status 1 if there is a defect; each is printed once, with the least input that was found for it.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from tools.fuzz import commands, functions
from tools.fuzz.cases import CALLS, fuzz_call
from tools.fuzz.readers import fuzz

ALL = (functions, commands)  # which fill CALLS
MEMORY = 8 * 2**30  # bytes of address space on top of what is there: a bomb ends this process, not the machine


def main() -> int:
    """Run, report, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description="Bad input and untrusted files.")
    parser.add_argument("--cases", type=int, default=1000, help="calls with odd arguments (default 1000)")
    parser.add_argument("--inputs", type=int, default=10_000, help="damaged files (default 10000)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="at most, half for each (default 3600)")
    parser.add_argument("--seed", type=int, help="default: a random one, which is printed")
    parser.add_argument("--only", default="", help="a part of the name of the calls and readers to take")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    torch.set_num_threads(1)
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    print(f"seed {seed}; again with: python -m tools.fuzz --seed {seed} --cases {given.cases} --inputs {given.inputs}")
    begun, defects, cases = time.monotonic(), dict[str, str](), 0
    chosen = {name: share for name, (_, _, share) in CALLS.items() if given.only in name}
    for name, share in chosen.items():
        most = round(given.cases * share / sum(chosen.values()))
        count, defect = fuzz_call(name, most, seed, begun + given.seconds / 2) if most else (0, "")
        cases += count
        if defect:
            defects[name] = defect
    print(f"{cases} cases in {time.monotonic() - begun:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="hybridsam-fuzz-") as room:
        seen = fuzz(given.inputs, seed, Path(room), begun + given.seconds, given.only)
    defects |= seen.defects
    print(
        f"{seen.inputs} inputs, {seen.bytes} bytes: {seen.accepted} accepted, {seen.refused} refused; "
        + ", ".join(f"{name} {n}" for name, n in seen.by_reader.items())
    )
    for name, text in defects.items():
        print(f"\nDEFECT {name}\n  {text}")
    print(f"{len(defects)} defects; {time.monotonic() - begun:.0f} s, {time.process_time():.0f} s of CPU, seed {seed}")
    return int(bool(defects))


if __name__ == "__main__":
    sys.exit(main())
