"""Sweeps: the two stages behind the book's tables, cut into jobs that can be stopped, resumed and run side by side.

tune    every method at each setting of its grid, on the tuning seeds; the methods in CURVES on two more, for the
        curve of theta over the setting.
final   for each method the setting that `select.strongest` takes, from the validation losses of the tuning seeds
        alone, on fresh seeds; beside it physics alone, plain training, also with twice the steps, and the oracle.

A job is one call of `fit`, in a process of this machine or on a worker of a Dask cluster. While it runs, its checkpoint
lies in OUT/.sweep; its records go to OUT/<task>.jsonl, which this process alone writes, and a member that is there is
not run again. So a sweep may be stopped at any time, repeated, and extended.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from hybridsam_lite import cluster, tasks
from hybridsam_lite.checks import mean_squared_error, probe
from hybridsam_lite.device import kept_random_state
from hybridsam_lite.files import sole_writer
from hybridsam_lite.methods import SharpnessAware, nearest, parse_method
from hybridsam_lite.results import provenance, read_records, records, write_records
from hybridsam_lite.select import strongest
from hybridsam_lite.tasks import Task

__all__ = ["CORE", "GALLERY", "GRIDS", "Job", "expected", "sweep"]

_RHO, _RELATIVE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5), (0.1, 0.2, 0.5, 1, 2, 5)
_LAM = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_PATTERNS: dict[str, tuple[str, Sequence[float]]] = {
    "wd": ("wd:lam={}", _LAM),
    "fn": ("fn:mu={}", _LAM),
    "sam": ("sam:rho={}", _RHO),
    "sam on all": ("sam:rho={},perturb=all", _RHO),
    "asam": ("asam:rho={}", _RELATIVE),
    "asam falling": ("asam:rho={},schedule=cosine", _RELATIVE),
    "dropout": ("dropout:p={}", (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)),
    "jac": ("jac:mu={}", _LAM),
    "orth": ("orth:mu={}", (1e-4, 1e-3, 1e-2, 1e-1, 1, 10)),
    "aphynity": ("aphynity:tau={}", (1e-3, 1e-2, 1e-1, 1, 10, 100)),
    "usam": ("usam:rho={}", _RHO),
    "fisher": ("fisher:rho={}", _RHO),
    "funcsam": ("funcsam:rho={}", _RHO),
    "gnorm": ("gnorm:mu={}", _RHO),
    "msam": ("msam:rho={}", _RHO),
    "noise": ("noise:rho={}", _RHO),
}
GRIDS = {name: [parse_method(pattern.format(x)).label for x in grid] for name, (pattern, grid) in _PATTERNS.items()}
CORE = ("wd", "fn", "sam", "sam on all", "asam", "asam falling")
GALLERY = ("wd", "fn", "sam", "asam")  # what the gallery compares
PLAIN = ("physics", "erm", "erm:steps=2")
ORACLE = "oracle"
CURVES = ("erm", "wd", "sam", "asam")
TUNING, CURVE, FINAL = (0, 1, 2), (3, 4), tuple(range(10, 20))
STACK = 40  # members of one job at most: more are no faster on a CPU

Row = dict[str, Any]
Hands = AbstractContextManager[Callable[["Job"], Future[list[Row]]]]


@dataclass(frozen=True)
class Job:
    """One call of `fit`: some methods of one task on some seeds."""

    task: str
    variant: str
    preset: str
    data: str | None
    stage: str
    labels: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """A folder name, the same for the same job."""
        text = json.dumps([self.variant, self.preset, self.data, self.stage, self.labels, self.seeds])
        return f"{self.task}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def cost(self) -> float:
        """In gradients per step of one member."""
        methods = [parse_method(label) for label in self.labels if label != ORACLE]
        return len(self.seeds) * sum(m.effort * (2 if isinstance(m, SharpnessAware) else 1) for m in methods) or 1.0

    def build(self) -> Task:
        """Its task."""
        return tasks.get(self.task, preset=self.preset, variant=self.variant, data=self.data)

    def run(self, folder: Path, device: str = "auto") -> list[Row]:
        """Train, going on from the checkpoint in `folder` if there is one; returns the records."""
        task, oracle = self.build(), self.labels == (ORACLE,)
        place = folder / self.name
        runs = (task.with_truth() if oracle else task).fit(
            ["erm"] if oracle else self.labels,
            self.seeds,
            device=device,
            checkpoint=place,
            resume=place.exists(),
            progress=False,
        )
        rows = records(task, runs, self.stage)
        return [{**row, "method": ORACLE, "label": ORACLE} for row in rows] if oracle else rows


def sweep(
    task: str,
    *,
    out: Path,
    variant: str | None = None,
    preset: str | None = None,
    data: str | None = None,
    methods: Sequence[str] = CORE,
    seeds: Sequence[int] = FINAL,
    device: str = "auto",
    processes: int = 1,
    dask: str | None = None,
    progress: bool = True,
) -> list[Row]:
    """Run both stages of a task; what OUT already holds is not run again.

    Args:
        task, variant, preset, data: as in `tasks.get`.
        out: folder of the records; made if it is not there.
        methods: names of GRIDS; those that cannot train this model are left out.
        seeds: of the final stage; the tuning seeds 0 to 4 are not allowed.
        device: as in `fit`.
        processes: jobs at a time; each uses one CPU thread.
        dask: address of a Dask scheduler, tcp://HOST:PORT; its workers take the place of the processes.
        progress: show a bar with the time that is left.

    Returns:
        All records of this task and variant, at this preset and on these data.

    Raises:
        ValueError: for unknown names, or seeds that were used for tuning.
        BlockingIOError: if another process is at this task in `out`.
        ModuleNotFoundError, ConnectionError: without Dask, or if no scheduler or worker answers.
    """
    _check_names(methods)
    if shared := sorted(set(seeds) & {*TUNING, *CURVE}):
        raise ValueError(f"seed {shared[0]} is a tuning seed; the final seeds must be others, 10:20 for example")
    if dask is not None:
        cluster.check_address(dask)
    built = tasks.get(task, preset=preset, variant=variant, data=data)
    out.mkdir(parents=True, exist_ok=True)
    provenance()
    apt, plain, fixable = _apt(built, methods)
    folder = out / ".sweep"

    def hands() -> Hands:
        return _processes(processes, folder, device) if dask is None else cluster.workers(dask, folder, device)

    with sole_writer(out / ".sweep" / f"{task}.lock", out / f"{task}.jsonl"):
        _run(_tuning(built, apt), built, out, hands, progress)
        rows = [row for row in _here(built, out) if row["stage"] == "tune" and row["seed"] in TUNING]
        erm = [row for row in rows if row["label"] == "erm"]

        def choose(name: str) -> str:
            return strongest([*erm, *(row for row in rows if row["label"] in GRIDS[name])], GRIDS[name])

        _run(_finals(built, plain, map(choose, apt), fixable, seeds), built, out, hands, progress)
    return _here(built, out)


def expected(task: Task, methods: Sequence[str] = CORE, seeds: Sequence[int] = FINAL) -> list[list[Job]]:
    """The jobs of both stages, as `sweep` would begin them; the settings of the final stage are not known before."""
    _check_names(methods)
    apt, plain, fixable = _apt(task, methods)
    stages = _tuning(task, apt), _finals(task, plain, (GRIDS[name][0] for name in apt), fixable, seeds)
    return [[small for job in jobs for small in _split(job, set())] for jobs in stages]


def _check_names(methods: Sequence[str]) -> None:
    if unknown := [name for name in methods if name not in GRIDS]:
        raise ValueError(
            f"unknown method {unknown[0]!r}{nearest(unknown[0], GRIDS)}; a sweep knows: {', '.join(GRIDS)}"
        )


def _apt(task: Task, methods: Sequence[str]) -> tuple[list[str], list[str], bool]:
    """The methods and the plain labels that can train the task's model, and whether theta can be fixed."""
    fixable = _has_global_theta(task)  # if not, all trainable parameters are phi
    apt = [n for n in methods if _applies(task, GRIDS[n][0]) and (fixable or n != "sam on all")]
    return apt, [label for label in PLAIN if _applies(task, label)], fixable


def _job(task: Task, stage: str, labels: Iterable[str], seeds: Iterable[int]) -> Job:
    source = None if task.origin == "simulated" else task.origin
    return Job(task.name, task.variant, task.preset, source, stage, tuple(labels), tuple(seeds))


def _tuning(task: Task, apt: Sequence[str]) -> list[Job]:
    jobs = [_job(task, "tune", ["erm"], TUNING), *(_job(task, "tune", GRIDS[name], TUNING) for name in apt)]
    if task.name in tasks.names():  # the gallery compares compositions, and shows no curves
        curves = [name for name in CURVES if name in ("erm", *apt)]
        jobs += [_job(task, "tune", ["erm"] if name == "erm" else GRIDS[name], CURVE) for name in curves]
    return jobs


def _finals(task: Task, plain: Iterable[str], chosen: Iterable[str], fixable: bool, seeds: Sequence[int]) -> list[Job]:
    labels = [*plain, *chosen, *([ORACLE] if fixable else [])]
    return [_job(task, "final", [label], seeds) for label in labels]


def _applies(task: Task, label: str) -> bool:
    with kept_random_state():
        try:
            probe([task.model()], task.train, task.loss or mean_squared_error, [parse_method(label)])
        except ValueError:
            return False
    return True


def _has_global_theta(task: Task) -> bool:
    try:
        task.with_truth()
    except ValueError:
        return False
    return True


def _here(task: Task, out: Path) -> list[Row]:
    """The records in OUT of this task, variant, preset and data, and with the task's protocol."""
    file = out / f"{task.name}.jsonl"
    problem = {"variant": task.variant, "preset": task.preset, "data": task.origin}
    rows = read_records(file) if file.exists() else []
    return [
        row
        for row in rows
        if all(row[k] == v for k, v in problem.items()) and task.training.items() <= row["protocol"].items()
    ]


def _run(jobs: list[Job], task: Task, out: Path, hands: Callable[[], Hands], progress: bool) -> None:
    """Run what is not in OUT yet, and add it to OUT as it gets done."""
    done = {(row["stage"], row["label"], row["seed"]) for row in _here(task, out)}
    missing = [small for job in jobs for small in _split(job, done)]
    folder, file = out / ".sweep", out / f"{task.name}.jsonl"
    folder.mkdir(exist_ok=True)
    if not missing:
        return
    with ExitStack() as context:
        start = context.enter_context(hands())
        bar = context.enter_context(
            tqdm(total=sum(job.cost() for job in missing), disable=not progress, unit="gradient", dynamic_ncols=True)
        )
        bar.set_description(f"{task.name} {task.variant}, {jobs[0].stage}")
        waiting = {start(job): job for job in missing}
        for future in as_completed(waiting):
            rows, job = future.result(), waiting[future]
            write_records(file, [*(read_records(file) if file.exists() else []), *rows])
            shutil.rmtree(folder / job.name, ignore_errors=True)
            bar.update(job.cost())


@contextmanager
def _processes(count: int, folder: Path, device: str) -> Iterator[Callable[[Job], Future[list[Row]]]]:
    """A function that hands a job to one of `count` processes; if anything is raised, they stop and save."""
    with ProcessPoolExecutor(max(1, count), mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            yield lambda job: pool.submit(_work, job, folder, device)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                if worker.pid is not None:
                    os.kill(worker.pid, signal.SIGINT)  # once: it saves its checkpoint and stops
            raise


_interrupted = threading.Event()  # in a worker


def _work(job: Job, folder: Path, device: str) -> list[Row]:
    """In a worker: run a job, unless one before it was interrupted; a pool hands out jobs in advance."""
    if _interrupted.is_set():
        raise KeyboardInterrupt
    try:
        return job.run(folder, device)
    except KeyboardInterrupt:
        _interrupted.set()
        raise


def _end_with_parent() -> None:
    """In a worker: end at once when the sweep is gone, however it went; checkpoints hold what was done."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in a terminal reaches the sweep alone, which passes it on

    def watch() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _split(job: Job, done: set[tuple[str, str, int]]) -> list[Job]:
    """The members of a job that are missing, in jobs of at most STACK members."""
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for label in job.labels:
        missing = tuple(seed for seed in job.seeds if (job.stage, label, seed) not in done)
        if missing:
            by_seeds.setdefault(missing, []).append(label)
    small = []
    for seeds, labels in by_seeds.items():
        step = max(1, STACK // len(seeds))
        for k in range(0, len(labels), step):
            part = tuple(labels[k : k + step])
            small.append(Job(job.task, job.variant, job.preset, job.data, job.stage, part, seeds))
    return small
