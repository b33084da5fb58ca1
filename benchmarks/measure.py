"""The loop and the stack in turns: seconds of a step, peak memory, floating-point operations, and equal losses."""

from __future__ import annotations

import copy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import hybridsam_lite as hs
from benchmarks.problems import Problem, stack
from benchmarks.today import gradient, loop, published_solver
from hybridsam_lite.plan import peak_memory, plan_run

__all__ = ["equal_losses", "memory", "operations", "pairs", "planned"]

WARM_UP = 4  # steps that are not timed


def clocked(train: Callable[[Callable[[Any], None]], Any], threads: int) -> float:
    """Median seconds of a step of `train`, which calls back after each.

    With one thread they are the processor's own time for this process, which other programs disturb least.
    """
    clock, times = time.process_time if threads == 1 else time.perf_counter, []
    train(lambda _: times.append(clock()))
    return statistics.median(b - a for a, b in zip(times[WARM_UP - 1 : -1], times[WARM_UP:], strict=True))


def pairs(problem: Problem, members: int, threads: int, steps: int, repetitions: int) -> dict[str, Any]:
    """Seconds of a step: the loop's, for one seed, and the stack's, for all members, plain and with SAM.

    All three in turns, in an order that is reversed each time, and medians over the repetitions. The loop takes
    `members` times as long for as many seeds.
    """
    options: dict[str, Any] = {"steps": steps + WARM_UP, "threads": threads}
    kinds: dict[str, Callable[[Any], Any]] = {
        "loop": lambda tick: loop(problem, 0, sam=True, callback=tick, **options),
        "stack": lambda tick: stack(problem, members, sam=True, callback=tick, **options),
        "erm": lambda tick: stack(problem, members, sam=False, callback=tick, **options),
    }
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for i in range(repetitions):
        for kind in list(kinds)[:: -1 if i % 2 else 1]:
            found[kind].append(clocked(kinds[kind], threads))
    gains = [members * a / b for a, b in zip(found["loop"], found["stack"], strict=True)]
    prices = [b / c for b, c in zip(found["stack"], found["erm"], strict=True)]
    return {
        "problem": problem.name, "members": members, "threads": threads,
        "seconds": {kind: statistics.median(s) for kind, s in found.items()},
        "gain": statistics.median(gains), "gain_range": [min(gains), max(gains)],
        "sam_per_erm": statistics.median(prices),
    }  # fmt: skip


def equal_losses(problem: Problem, members: int, steps: int) -> float:
    """Largest relative difference of the two ways' losses, over seeds and steps."""
    together: list[torch.Tensor] = []
    stack(problem, members, steps, sam=True, threads=1, callback=lambda training: together.append(training.losses))
    apart: list[list[torch.Tensor]] = [[] for _ in range(members)]
    for seed, losses in enumerate(apart):
        loop(problem, seed, steps, sam=True, threads=1, callback=losses.append)
    a, b = torch.stack(together).T, torch.stack([torch.stack(losses) for losses in apart])
    return float(((a - b).abs() / b).max())


def operations(problem: Problem) -> int:
    """Floating-point operations of linear and convolution layers in one gradient of one member."""
    model = problem.model()
    with published_solver(problem.solver), FlopCounterMode(display=False) as counter:
        gradient(model, problem.train.take(torch.arange(problem.batch_size)))
    return counter.get_total_flops()


def planned(name: str, repetitions: int, members: int = 16, steps: int = 200) -> dict[str, Any]:
    """Seconds that `hybridsam plan` expects of a run with SAM, with validations and scores, and that it takes.

    Several times, each with a plan of its own; the ratio is the median.
    """
    task, labels = hs.tasks.get(name, preset="quick"), ["sam:rho=0.05"]
    expected, taken = [], []
    for _ in range(repetitions):
        expected.append(sum(part.seconds for part in plan_run(task, labels, range(members), steps)))
        start = time.perf_counter()
        task.score(task.fit(labels, range(members), steps=steps, progress=False))
        taken.append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(expected, taken, strict=True))
    return {"members": members, "steps": steps, "planned": expected, "taken": taken, "ratio": ratio}


def memory(problem: Problem, members: Iterable[int], steps: int = 3) -> dict[str, float]:
    """MB that training adds to a process's peak: of the loop, and of stacks; each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "problem.pt"
        torch.save({**vars(problem), "model": problem.model()}, file)
        kinds = ["loop", *(str(m) for m in members)]
        command = [sys.executable, "-m", "benchmarks.measure", str(file), str(steps)]
        said = [subprocess.run([*command, k], check=True, capture_output=True, text=True).stdout for k in kinds]
    return {kind: float(text) for kind, text in zip(kinds, said, strict=True)}


def main(file: str, steps: str, kind: str) -> None:
    """In a process of its own: train, and print by how much the peak has grown."""
    saved = torch.load(file, weights_only=False)
    model = saved.pop("model")
    problem = Problem(**saved, model=lambda: copy.deepcopy(model))
    options: dict[str, Any] = {"sam": True, "threads": 1, "callback": lambda _: None}
    gradient(copy.deepcopy(model), problem.train.take(torch.arange(1)))  # libraries that are loaded at first use
    before = peak_memory()
    if kind == "loop":
        loop(problem, 0, int(steps), **options)
    else:
        stack(problem, int(kind), int(steps), **options)
    print(peak_memory() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
