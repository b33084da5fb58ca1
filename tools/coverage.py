"""How often the intervals of `hs.intervals` cover the true theta, measured on many simulated data sets.

`python -m tools.coverage` trains a small network on each of 200 data sets per problem, all data sets in one
stack, and writes book/results/coverage.json after every problem and method. What is already there, from the
same commit and settings, is kept, so that an interrupted run goes on. About 15 minutes on one core.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

import hybridsam_lite as hs
from hybridsam_lite.checks import mean_squared_error
from hybridsam_lite.device import cpu_threads
from hybridsam_lite.files import write_atomically
from hybridsam_lite.hybrid import as_prediction
from hybridsam_lite.methods import Moment
from hybridsam_lite.results import provenance
from hybridsam_lite.runs import Member, Runs
from hybridsam_lite.stack import Stack
from hybridsam_lite.tasks import duffing, pendulum
from hybridsam_lite.tasks.base import Array, windows
from hybridsam_lite.train import STATUS
from hybridsam_lite.uncertainty import (
    ThetaInterval,
    information_intervals,
    profile_grid,
    profile_interval,
    seed_intervals,
)

ARCHIVE = Path(__file__).resolve().parent.parent / "book" / "results" / "coverage.json"
SETS = 200  # data sets of a problem
PROFILED = 100  # of them, the first so many get profiles, by far the most of the cost
SEEDED = 50  # of them, the first so many are trained from SEEDS initializations
SEEDS = 4
LEVELS = (0.95, 0.68)
REFITS = 50  # gradients per grid point of a profile
SERIES = 2  # of a data set, for training and for validation
METHODS = (hs.ERM(), hs.SharpnessAware(rho=0.1))


@dataclass(frozen=True)
class Problem:
    """Data sets of one kind, each a training and a validation set of the same sizes, and their model."""

    name: str
    about: str
    model: Callable[[], nn.Module]
    draw: Callable[[int], list[tuple[hs.Data, hs.Data]]]
    theta_true: dict[str, float]
    steps: int
    batch_size: int
    lr: float
    theta_lr: float

    @property
    def protocol(self) -> dict[str, Any]:
        """What decides the outcome, apart from the code."""
        names = ("about", "theta_true", "steps", "batch_size", "lr", "theta_lr")
        fixed = {"sets": SETS, "profiled": PROFILED, "seeded": SEEDED, "seeds": SEEDS, "refits": REFITS}
        return {**{n: getattr(self, n) for n in names}, **fixed}


class LinearNetwork(hs.HybridModel):
    """theta a + psi phi: a network that is linear in its weights."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=(0.0, 2.0)))
        self.phi = nn.Parameter(torch.zeros(width))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Shape (sample, 1)."""
        return self.theta.k * inputs["a"] + (inputs["psi"] @ self.phi)[:, None]


def draw_linear(sets: int) -> list[tuple[hs.Data, hs.Data]]:
    """Y = 1 a + psi phi + noise (sd 0.5), 200 samples; the network can imitate 80 % of a (in amplitude)."""

    def one(generator: np.random.Generator, phi: Array, alpha: Array) -> hs.Data:
        psi = generator.standard_normal((200, 8))
        a = 0.8 * psi @ alpha + 0.6 * generator.standard_normal(200)
        y = a + psi @ phi + 0.5 * generator.standard_normal(200)
        inputs = {"a": torch.tensor(a[:, None]), "psi": torch.tensor(psi)}
        return hs.Data(inputs, torch.tensor(y[:, None])).to("cpu", torch.float32)

    found = []
    for i in range(sets):
        generator = np.random.default_rng([1, i])
        alpha = generator.standard_normal(8)
        phi = generator.standard_normal(8)
        training, validation = (one(generator, phi, alpha / np.linalg.norm(alpha)) for _ in range(2))
        found.append((training, validation))
    return found


def named(data: hs.Data) -> dict[str, Tensor]:
    """The inputs, which have names in all problems."""
    assert isinstance(data.inputs, dict)
    return data.inputs


def cut(states: Array, noise: float, seed: int, exact_start: bool, **how: Any) -> list[tuple[hs.Data, hs.Data]]:
    """Noisy windows of (data set x 2 x SERIES) noise-free series; with exact or observed initial states."""
    states = states.reshape(-1, 2, SERIES, *states.shape[1:])
    found = []
    for i, parts in enumerate(states):
        observed = parts + noise * np.random.default_rng([seed, i]).standard_normal(parts.shape)
        data = [windows(x, **how) for x in observed]
        if exact_start:
            exact = [named(windows(x, **how)) for x in parts]
            data = [hs.Data(x, d.target, d.shared) for d, x in zip(data, exact, strict=True)]
        found.append((data[0], data[1]))
    return found


def draw_pendulum(sets: int, exact: bool) -> list[tuple[hs.Data, hs.Data]]:
    """The damped pendulum with noise."""
    states = pendulum.damped(range(10_000, 10_000 + sets * 2 * SERIES))
    return cut(states, pendulum.NOISE, 2 + exact, exact, dt=pendulum.DT, length=1)


def draw_duffing(sets: int) -> list[tuple[hs.Data, hs.Data]]:
    """Duffing's oscillator C1."""
    x0 = np.random.default_rng(4).uniform(-2, 2, (sets * 2 * SERIES, 2))
    return cut(duffing.simulate_duffing(x0), duffing.NOISE, 4, False, dt=duffing.DT, length=2, stride=3)


PROBLEMS = [
    Problem(
        "pendulum", "A1n with 2 series, windows of 1 step, observed (noisy) initial states, width 8",
        lambda: pendulum.Pendulum(8), lambda sets: draw_pendulum(sets, False), {"omega2": pendulum.OMEGA2},
        800, 16, 1e-2, 2e-2,
    ),
    Problem(
        "linear", "200 samples of theta a + psi phi, 8 weights, noise 0.5; a overlaps with psi",
        LinearNetwork, draw_linear, {"k": 1.0}, 600, 200, 2e-2, 2e-2,
    ),
    Problem(
        "duffing", "C1 with 2 series, disjoint windows of 2 steps, observed (noisy) initial states, width 8",
        lambda: duffing.Duffing(duffing.THETA["C1"], 8), draw_duffing, {"alpha": duffing.ALPHA, "beta": duffing.BETA},
        800, 16, 1e-2, 2e-2,
    ),
    Problem(
        "pendulum_exact", "as pendulum, but with exact initial states",
        lambda: pendulum.Pendulum(8), lambda sets: draw_pendulum(sets, True), {"omega2": pendulum.OMEGA2},
        800, 16, 1e-2, 2e-2,
    ),
]  # fmt: skip


def train(problem: Problem, method: hs.Method, data: list[hs.Data], members: list[tuple[int, int]]) -> Stack:
    """A model for each (data set, seed): `hs.fit`'s step and schedule, each member with its own data."""
    models = []
    for i, seed in members:
        torch.manual_seed(1000 * seed + i)
        models.append(problem.model())
    stack = Stack(
        models, [method] * len(models), optimizer=torch.optim.Adam, lr=problem.lr, theta_lr=problem.theta_lr,
        max_norm=10.0, loss=mean_squared_error, sample_axis=0, vectorize=True,
    )  # fmt: skip
    first, size = data[0], len(data[0])
    inputs = {n: x if n in first.shared else torch.cat([named(d)[n] for d in data]) for n, x in named(first).items()}
    everything = hs.Data(inputs, torch.cat([d.target for d in data]), first.shared)
    offsets = size * torch.tensor([i for i, _ in members])[:, None]
    generator = torch.Generator().manual_seed(0)
    per_epoch = max(1, size // problem.batch_size)
    for step in range(problem.steps):
        if step % per_epoch == 0:
            order = torch.rand(len(members), size, generator=generator).argsort(1)
        k = step % per_epoch * problem.batch_size
        rate = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / problem.steps))
        batch = everything.take(offsets + order[:, k : k + problem.batch_size])
        stack.step(batch, rate, Moment(step, problem.steps))
    return stack


def measure(problem: Problem, method: hs.Method) -> list[dict[str, Any]]:
    """Coverage of every source, entry of theta and level."""
    start = time.monotonic()
    data = problem.draw(SETS)
    members = [(i, 0) for i in range(SETS)] + [(i, s) for s in range(1, SEEDS) for i in range(SEEDED)]
    stack = train(problem, method, [t for t, _ in data], members)
    trained = time.monotonic()
    everyone = []
    for j, (i, seed) in enumerate(members):
        member = Member(method, seed, STATUS[int(stack.status[j])], problem.steps, 0.0, math.nan, stack.member_state(j))
        runs = Runs(problem.model(), [member], pd.DataFrame(), 0, "cpu", {})
        everyone.append(replace(member, val_loss=loss(runs.model(0), data[i][1])))
    found: list[ThetaInterval] = []
    for i in range(SETS):
        mine = [m for m, (k, _) in zip(everyone, members, strict=True) if k == i]
        runs = Runs(problem.model(), mine, pd.DataFrame(), 0, "cpu", {})
        if mine[0].status == "ok":
            found += of_one(hs.Landscape(runs.model(0), data[i][0]), i < PROFILED)
        if i < SEEDED:
            found += [x for level in LEVELS for x in seed_intervals(runs, None, data[i][1], level)]
    seconds = {"training": trained - start, "intervals": time.monotonic() - trained}
    return [
        {"problem": problem.name, "method": method.label, **row, "diverged": int((~stack.alive).sum()),
         "seconds": {n: round(s, 1) for n, s in seconds.items()}, "protocol": problem.protocol}
        for row in summarize(found, problem.theta_true)
    ]  # fmt: skip


@torch.no_grad()
def loss(model: nn.Module, data: hs.Data) -> float:
    """Of a trained model."""
    return mean_squared_error(as_prediction(model(data.inputs)).value, data.target).item()


def of_one(at: hs.Landscape, profiled: bool) -> list[ThetaInterval]:
    """The intervals of one trained model, as `hs.intervals` makes them, at all levels."""
    found = hs.information(at)
    curves = [
        hs.profile(at, entry.label, grid=profile_grid(found, k), steps=REFITS)
        for k, entry in enumerate(at.entries if profiled else [])
    ]
    return [
        x
        for level in LEVELS
        for x in (*information_intervals(at, found, level), *(profile_interval(at, c, level) for c in curves))
    ]


def summarize(found: list[ThetaInterval], truth: dict[str, float]) -> list[dict[str, Any]]:
    """One row per source, entry of theta and level; infinite intervals count as covering, and are counted."""
    rows = []
    for key in dict.fromkeys((x.source, x.name, x.level) for x in found):
        mine = [x for x in found if (x.source, x.name, x.level) == key]
        source, name, level = key
        hits = sum(truth[name] in x for x in mine)
        interval = binomtest(hits, len(mine)).proportion_ci(0.95, "exact")
        errors = np.array([x.estimate - truth[name] for x in mine])
        width = float(np.median([x.high - x.low for x in mine]))
        rows.append(
            {"source": source, "theta": name, "level": level, "sets": len(mine), "covered": hits,
             "coverage": hits / len(mine), "low": float(interval.low), "high": float(interval.high),
             "infinite": sum(not math.isfinite(x.high - x.low) for x in mine),
             "median_width": width if math.isfinite(width) else None,
             "median_error": float(np.median(np.abs(errors))), "bias": float(errors.mean()),
             "warned": sum(bool(x.warnings) for x in mine)}
        )  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Coverage at the first level, and profiles that were open, in per cent: the table of `hs.intervals`."""
    frame = pd.DataFrame(rows)
    frame = frame[frame["level"] == LEVELS[0]]
    out = frame.pivot(index=["problem", "theta", "method"], columns="source", values="coverage")
    profiles = frame[frame["source"] == "profile"].set_index(out.index.names)
    out.insert(2, "open", profiles["infinite"] / profiles["sets"])
    return (100 * out).round().astype(int).reset_index().to_string(index=False)


def save(archive: dict[str, Any]) -> None:
    """Write the archive as a whole, one row a line."""
    head = json.dumps({k: v for k, v in archive.items() if k != "rows"})[:-1]
    rows = ",\n".join(json.dumps(row, allow_nan=False) for row in archive["rows"])
    text = f'{head}, "rows": [\n{rows}\n]}}\n'
    write_atomically(ARCHIVE, lambda file: file.write(text.encode()))


def main() -> None:
    """Measure what is missing in the archive."""
    known = json.loads(ARCHIVE.read_text()) if ARCHIVE.exists() else {}
    origin = provenance()
    rows: list[dict[str, Any]] = known.get("rows", []) if known.get("commit") == origin["commit"] else []
    for problem in PROBLEMS:
        for method in METHODS:
            done = [r for r in rows if (r["problem"], r["method"]) == (problem.name, method.label)]
            if done and done[0]["protocol"] == problem.protocol:
                continue
            rows = [r for r in rows if r not in done] + measure(problem, method)
            save({**origin, "device": "cpu", "command": "python -m tools.coverage", "rows": rows})
            print(problem.name, method.label, flush=True)
    print(table(rows))


if __name__ == "__main__":
    with cpu_threads(1):
        main()
