"""`python -m benchmarks`: measure, print, write book/results/benchmark.json."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe, generators, matmul_rate, start_up
from benchmarks.measure import equal_losses, memory, operations, pairs, planned
from benchmarks.problems import NAMES, build
from hybridsam_lite.files import write_atomically
from hybridsam_lite.results import provenance

ARCHIVE = Path(__file__).resolve().parent.parent / "book" / "results" / "benchmark.json"
SAME = 0.02  # largest relative difference of losses: the two rk4 are different rules of the same order


def main() -> int:
    """Exit status 1 if the two ways do not reach the same losses."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--problems", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--members", nargs="+", type=int, default=[1, 8, 32], help="sizes of the stacks; also 128")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="more than one: the largest stack only")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each training")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ARCHIVE)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of the published packages
    start = time.monotonic()
    rates = {threads: matmul_rate(threads) for threads in given.threads}
    result: dict[str, Any] = {
        "machine": describe(), "commit": provenance()["commit"],
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "steps": given.steps, "repetitions": given.repetitions, "matmul_flops": rates,
        "start_up": start_up(given.repetitions), "generators": generators(), "problems": {}, "rows": [],
    }  # fmt: skip
    for name in given.problems:
        problem = build(name)
        flops = operations(problem)
        for threads in given.threads:
            for members in given.members if threads == 1 else [max(given.members)]:
                row = pairs(problem, members, threads, given.steps, given.repetitions)
                rate = {k: 2 * n * flops / row["seconds"][k] for k, n in (("loop", 1), ("stack", members))}
                result["rows"].append({**row, "share": {k: r / rates[threads] for k, r in rate.items()}})
                print(f"{problem.name}, {members} members, {threads} threads: {row['gain']:.2f}", file=sys.stderr)
        result["problems"][problem.name] = {
            "samples": len(problem.train), "batch_size": problem.batch_size, "rho": problem.rho,
            "parameters": sum(p.numel() for p in problem.model().parameters()), "gradient_flops": flops,
            "loss_difference": equal_losses(problem, 3, given.steps), "memory_mb": memory(problem, given.members),
            "plan": planned(name, min(3, given.repetitions)),
        }  # fmt: skip
        result["minutes"] = (time.monotonic() - start) / 60
        text = json.dumps(_rounded(result), indent=1) + "\n"
        write_atomically(given.out, lambda file, text=text: file.write(text.encode()))
    show(result)
    return int(any(problem["loss_difference"] > SAME for problem in result["problems"].values()))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def show(result: dict[str, Any]) -> None:
    """The table of a result."""
    console = Console(width=None if sys.stdout.isatty() else 124)
    table = Table(
        "problem", "threads", "members", "one seed at a time", "stack", "gain [range]", "SAM/ERM", "of matmul"
    )
    for row in result["rows"]:
        loop, stack = (1e3 * row["seconds"][k] for k in ("loop", "stack"))
        low, high = row["gain_range"]
        table.add_row(
            row["problem"], str(row["threads"]), str(row["members"]), f"{loop * row['members']:.1f} ms",
            f"{stack:.1f} ms", f"{row['gain']:.2f} [{low:.2f}, {high:.2f}]", f"{row['sam_per_erm']:.2f}",
            f"{100 * row['share']['loop']:.1f} -> {100 * row['share']['stack']:.1f} %",
        )  # fmt: skip
    console.print(table)
    for name, problem in result["problems"].items():
        sizes = ", ".join(f"{kind}: {mb:.0f}" for kind, mb in problem["memory_mb"].items())
        plan = problem["plan"]
        of_each = zip(plan["planned"], plan["taken"], strict=True)
        said = ", ".join(f"{expected:.1f} for {taken:.1f} s" for expected, taken in of_each)
        console.print(f"{name}: losses differ by {problem['loss_difference']:.1e} at most; peak memory in MB, {sizes}")
        console.print(f"  plan of a run with {plan['members']} members, {plan['steps']} steps: {said}")
    start = result["start_up"]
    made = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["generators"].items())
    console.print(f"data of all tasks, preset full: {sum(result['generators'].values()):.1f} s ({made})")
    console.print(
        f"start-up: {start['hybridsam_lite']:.2f} s; torch alone {start['torch']:.2f} s ({start['ratio']:.2f})"
    )
    console.print(f"seconds are of one step of all members; {result['minutes']:.1f} minutes in all")


if __name__ == "__main__":
    sys.exit(main())
