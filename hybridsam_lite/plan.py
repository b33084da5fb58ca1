"""What a run or a sweep will cost on this machine, from a few real steps of the real stacks.

Every member of a stack adds the same work to a step, on top of what the step costs anyway, so that

    seconds = setup + score + steps (a + b members) + (validations + 2) (v + w members)

for one stack. a and b, v and w, and the rest come from two short trainings with fewer members. A run is the sum over
its stacks. A sweep deals its jobs out to processes, each to the first one that is free.
"""

from __future__ import annotations

import heapq
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from hybridsam_lite.methods import Method, parse_method
from hybridsam_lite.sweep import CORE, FINAL, ORACLE, expected
from hybridsam_lite.tasks import Task
from hybridsam_lite.train import VALIDATIONS

__all__ = ["Part", "Probe", "extrapolate", "peak_memory", "plan_run", "plan_sweep", "probe", "schedule"]

WARM_UP = 3  # steps that are not timed
STEPS = 12  # timed steps of one short training


class Probe(NamedTuple):
    """What a stack of so many members costs: seconds, and the process's largest memory in MB."""

    members: int
    setup: float  # models, checks, the first step's extra time
    step: float
    validation: float
    score: float  # the records: predictions of all members for the test samples
    memory: float


class Part(NamedTuple):
    """One stack of a run, or one job of a sweep."""

    label: str
    steps: int
    validations: int
    cost: Probe

    @property
    def seconds(self) -> float:
        """The formula at the head of this module; there are validations before the first and after the last step."""
        cost = self.cost
        return cost.setup + cost.score + self.steps * cost.step + (self.validations + 2) * cost.validation


Measure = Callable[[Task, Method, int], Probe]


def probe(task: Task, method: Method, members: int, clock: Callable[[], float] = time.perf_counter) -> Probe:
    """Train `members` members for some fifteen steps, and time it.

    Args:
        task, method: what is trained; how strong the method is makes no difference.
        members: seeds.
        clock: seconds.
    """
    period: int = getattr(method, "every", 1)  # steps after which their costs repeat
    count = WARM_UP + period * max(2, STEPS // period) + 1
    ticks: list[float] = []
    start = clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # members that diverge
        runs = task.fit(
            [method], range(members), steps=round(count / method.effort), validate_every=10 * count, progress=False,
            callback=lambda _: ticks.append(clock()),
        )  # fmt: skip
    trained = clock()
    task.score(runs)
    scored = clock()
    taken = [b - a for a, b in pairwise(ticks)]  # the last one includes a validation
    timed = taken[WARM_UP - 1 : -1]
    step = statistics.median(sum(timed[i : i + period]) for i in range(0, len(timed) - period + 1, period)) / period
    validation = max(0.0, taken[-1] - step)
    setup = max(0.0, trained - start - len(ticks) * step - 3 * validation)
    return Probe(members, setup, step, validation, scored - trained, peak_memory())


def extrapolate(probes: Sequence[Probe], members: int) -> Probe:
    """The cost of so many members, on a straight line through the two probes; with one probe, in its proportion.

    >>> few, more = Probe(4, 0, 10.0, 0, 0, 100), Probe(8, 0, 14.0, 0, 0, 100)
    >>> extrapolate([few, more], 32).step
    38.0
    """
    known = [p for p in probes if p.members == members]
    if known:
        return known[0]
    if len(probes) == 1:
        low, high = probes[0]._replace(members=0), probes[0]
        low = low._replace(setup=0.0, step=0.0, validation=0.0, score=0.0)
    else:
        low, high = probes
    far = (members - low.members) / (high.members - low.members)
    values = [max(0.0, a + far * (b - a)) for a, b in zip(low[1:], high[1:], strict=True)]
    return Probe(members, *values)


def _sizes(members: int) -> tuple[int, ...]:
    """Sizes of the short trainings; one member alone is trained in another way than several."""
    return (members,) if members <= 4 else (max(2, members // 4), max(3, members // 2))


class _Costs:
    """Probes of a task's stacks, each structure measured once: at two sizes below its largest stack."""

    def __init__(self, task: Task, groups: Iterable[tuple[Method, int]], measure: Measure) -> None:
        largest: dict[object, tuple[Method, int]] = {}
        for method, members in groups:
            key = self._key(method, members)
            if key not in largest or largest[key][1] < members:
                largest[key] = method, members
        self._probes = {
            key: [measure(task, method, size) for size in _sizes(members)] for key, (method, members) in largest.items()
        }

    @staticmethod
    def _key(method: Method, members: int) -> object:
        return method.structure, members == 1

    def of(self, method: Method, members: int) -> Probe:
        return extrapolate(self._probes[self._key(method, members)], members)


def plan_run(
    task: Task, methods: Sequence[Method | str], seeds: Sequence[int], steps: int | None = None,
    measure: Measure = probe,
) -> list[Part]:  # fmt: skip
    """The stacks of `task.fit(methods, seeds)` and what each will cost.

    Args:
        task, methods, seeds: as in `hs.fit`.
        steps: in place of the task's.
        measure: makes the probes.

    Raises:
        ValueError: for unknown methods.
    """
    parsed = [parse_method(m) if isinstance(m, str) else m for m in methods]
    groups: dict[object, list[Method]] = {}
    for method in parsed:
        groups.setdefault(method.structure, []).append(method)
    stacks = [(group, len(group) * len(seeds)) for group in groups.values()]
    costs = _Costs(task, [(group[0], members) for group, members in stacks], measure)
    return [_part(task, group, costs.of(group[0], members), steps) for group, members in stacks]


def plan_sweep(
    task: Task, methods: Sequence[str] = CORE, seeds: Sequence[int] = FINAL, measure: Measure = probe
) -> list[list[Part]]:
    """The jobs of both stages of `sweep` and what each will cost, if nothing is there yet."""
    stages = [
        [
            (
                [parse_method("erm" if label == ORACLE else label) for label in job.labels],
                len(job.labels) * len(job.seeds),
            )
            for job in jobs
        ]
        for jobs in expected(task, methods, seeds)
    ]
    costs = _Costs(task, [(group[0], members) for stage in stages for group, members in stage], measure)
    return [[_part(task, group, costs.of(group[0], members)) for group, members in stage] for stage in stages]


def _part(task: Task, group: Sequence[Method], cost: Probe, steps: int | None = None) -> Part:
    protocol = task.training["steps"] if steps is None else steps
    count = max(1, round(group[0].effort * protocol))
    label = group[0].label if len(group) == 1 else f"{group[0].label} to {group[-1].label}"
    return Part(label, count, -(-count // max(1, protocol // VALIDATIONS)), cost)


def schedule(parts: Iterable[Part], processes: int) -> float:
    """Seconds until the last of some jobs is done, each given to the first process that is free.

    >>> one = Part("erm", 10, 0, Probe(1, 0, 1.0, 0, 0, 0))
    >>> schedule([one, one, one], 2)
    20.0
    """
    free = [0.0] * processes
    for part in parts:
        heapq.heappush(free, heapq.heappop(free) + part.seconds)
    return max(free)


def peak_memory() -> float:
    """Largest memory of this process so far, in MB; NaN where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts the peak of a process's parent as its own in getrusage
        return next(int(line.split()[1]) / 1e3 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    with suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return float("nan")
