"""What cheaper forms of SAM cost, and how much of SAM's gain in theta they keep.

`python -m tools.cheaper` measures both on the problems below and writes book/results/cheaper.json after every
method; what is already there is kept, so that an interrupted run goes on. About 15 minutes on one core.

The rules were fixed before the first run, and none of them sees theta:

rho    of plain SAM is what `select.strongest` takes from the validation losses of the archived grid, at preset full.
rho    of a cheaper form is that, times its factor in VARIANTS: the one for which the sum of lr rho^2 over the steps,
       SAM's drift along a valley, stays the same. One control, every=5 without the factor, breaks this rule.
seeds  are 10 to 19, the same for all; the rule for rho saw others.
cost   is the CPU time of a training step of ten members over that of plain training in the same round. In a round each
       method takes STEPS steps; the order is reversed from round to round.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch

import hybridsam_lite as hs
from hybridsam_lite.checks import mean_squared_error
from hybridsam_lite.device import cpu_threads
from hybridsam_lite.files import write_atomically
from hybridsam_lite.methods import Moment
from hybridsam_lite.results import provenance, read_records, records, summary
from hybridsam_lite.select import strongest
from hybridsam_lite.stack import Stack
from hybridsam_lite.sweep import FINAL, GRIDS, TUNING
from hybridsam_lite.tasks import Task

ARCHIVE = Path(__file__).resolve().parent.parent / "book" / "results" / "cheaper.json"
PROBLEMS = (("pendulum", "A1"), ("wind_tunnel", "nested"))
PRESET = "quick"
ROUNDS, STEPS = 7, 10  # STEPS is a multiple of every k below
FALLING = math.sqrt(8 / 5)  # both lr and rho fall along half a cosine c: mean of c over mean of c^3, and its root
VARIANTS = {  # label without rho -> factor of rho
    "sam": 1.0,
    "sam:every=5": math.sqrt(5),
    "sam:every=5,fixed": 1.0,
    "msam": 1.0,
    "sam:every=2": math.sqrt(2),
    "sam:every=10": math.sqrt(10),
    "sam:part=0.25": 1.0,
    "sam:every=5,part=0.25": math.sqrt(5),
    "sam:schedule=cosine": FALLING,
    "sam:part=0.5": 1.0,
}

Row = dict[str, Any]


def label_of(variant: str, rho: float) -> str:
    """The method of a variant, with its rho to three digits."""
    name, _, rest = variant.removesuffix(",fixed").partition(":")
    text = f"{name}:rho={VARIANTS[variant] * rho:.3g}" + (f",{rest}" if rest else "")
    return hs.parse_method(text).label


def base_rho(name: str, variant: str) -> float:
    """Plain SAM's, by the sweeps' rule from the archive of the full preset; theta is not looked at."""
    rows = read_records(ARCHIVE.parent / f"{name}.jsonl")
    blind = [{k: v for k, v in row.items() if "theta" not in k} for row in rows if row["stage"] in ("run", "tune")]
    mine = [row for row in blind if (row["variant"], row["preset"]) == (variant, "full") and row["seed"] in TUNING]
    known = {row["label"] for row in mine}
    chosen = strongest(mine, [label for label in GRIDS["sam"] if label in known])
    return hs.parse_method(chosen).hyper["rho"]


def costs(task: Task, labels: list[str]) -> list[Row]:
    """CPU time of a step over plain training's in the same round, for every label and round."""
    stacks = {}
    for label in labels:
        torch.manual_seed(0)
        models, method = [task.model() for _ in FINAL], hs.parse_method(label)
        stacks[label] = Stack(
            models, [method] * len(models), optimizer=torch.optim.Adam, lr=1e-3, theta_lr=1e-2,
            max_norm=10.0, loss=mean_squared_error, sample_axis=0, vectorize=True,
        )  # fmt: skip
    generator, size = torch.Generator().manual_seed(0), (len(FINAL), task.training["batch_size"])
    seconds: dict[str, list[float]] = {label: [] for label in labels}
    for k in range(ROUNDS + 1):  # the first warms up
        batches = [task.train.take(torch.randint(len(task.train), size, generator=generator)) for _ in range(STEPS)]
        for label in labels if k % 2 else reversed(labels):
            start = time.process_time()
            for step, batch in enumerate(batches):
                stacks[label].step(batch, 1.0, Moment(step, STEPS))
            seconds[label].append(time.process_time() - start)
    return [
        {"task": task.name, "variant": task.variant, "preset": task.preset, "label": label, "round": k,
         "seconds_per_step": round(seconds[label][k] / STEPS, 6),
         "ratio": round(seconds[label][k] / seconds["erm"][k], 4)}
        for label in labels for k in range(1, ROUNDS + 1)
    ]  # fmt: skip


def _of(rows: list[Row], task: Task, label: str) -> list[Row]:
    return [row for row in rows if (row["task"], row["variant"], row["label"]) == (task.name, task.variant, label)]


def save(archive: dict[str, Any]) -> None:
    """Write the archive as a whole, one row a line."""
    head = json.dumps({k: v for k, v in archive.items() if k not in ("records", "costs")})[:-1]
    parts = [f'"{n}": [\n' + ",\n".join(json.dumps(r, allow_nan=False) for r in archive[n]) + "\n]" for n in LISTS]
    write_atomically(ARCHIVE, lambda file: file.write(f"{head}, {', '.join(parts)}}}\n".encode()))


LISTS = ("records", "costs")


def main() -> None:
    """Measure what is missing in the archive."""
    known = json.loads(ARCHIVE.read_text()) if ARCHIVE.exists() else {}
    archive = {**provenance(), "device": "cpu", "command": "python -m tools.cheaper"}
    archive |= {name: known.get(name, []) for name in LISTS}
    for name, variant in PROBLEMS:
        task, rho = hs.tasks.get(name, preset=PRESET, variant=variant), base_rho(name, variant)
        labels = ["erm", *(label_of(v, rho) for v in VARIANTS), "erm:steps=2"]
        for label in labels:
            if not _of(archive["records"], task, label):
                archive["records"] += records(task, task.fit([label], FINAL, progress=False), "final")
                save(archive)
                print(name, variant, label, flush=True)
        if not _of(archive["costs"], task, "erm"):
            archive["costs"] += costs(task, labels[:-1])
            save(archive)
    columns = ["task", "variant", "label", "diverged", "theta_error", "difference", "low", "high", "val_loss"]
    print(summary(archive["records"])[columns].to_string(index=False))


if __name__ == "__main__":
    with cpu_threads(1):
        main()
