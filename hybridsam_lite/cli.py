"""The command line: hybridsam tasks, run, plan, sweep, table, select, verify, doctor."""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table

from hybridsam_lite.methods import nearest

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Learn hybrid models (physics with unknown theta + a neural network) with sharpness-aware minimization.\n\n"
    "Start with:  hybridsam run pendulum --method erm --method asam:rho=1 --seeds 0:4 --out runs/p",
)
# No markup: brackets in a path or a label are brackets.
console = Console(width=None if sys.stdout.isatty() else 124, markup=False, emoji=False)

USER_ERRORS = (ValueError, TypeError, OSError, ModuleNotFoundError)
PLANNED = ("members", "steps", "validations", "fixed [s]", "step [s]", "check [s]", "seconds")  # columns of a plan
LONGEST = 1500  # characters of an error message
MOST_SEEDS = 100_000  # of one command; more are a slip of the finger
UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # click's, which some versions of typer carry inside


@app.command()
def tasks() -> None:
    """List the tasks, their variants (the first is the default) and what theta is."""
    from hybridsam_lite import tasks as registry

    table = Table("task", "variant", "what is missing; theta")
    for name in [*registry.names(), "gallery"]:
        for i, (variant, text) in enumerate(registry.variants(name).items()):
            table.add_row(name if i == 0 else "", variant, text)
    console.print(table)
    console.print(f"presets: {', '.join(registry.PRESETS)} (seconds; a minute or two; the archived results)")


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="Name of a task; see `hybridsam tasks`.")],
    method: Annotated[
        list[str],
        typer.Option(
            help="A method with its settings; repeat for several. erm (plain training), sam:rho=0.1, "
            "asam:rho=1, wd:lam=1e-3 (weight decay), fn:mu=0.01 (function norm), ...; a wrong name lists them all."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for the records (runs.jsonl) and checkpoints; must be new or empty."),
    ],
    seeds: Annotated[str, typer.Option(help="A range 0:4 (that is 0, 1, 2, 3), a list 0,3,7 or one number.")] = "0:4",
    variant: Annotated[str | None, typer.Option(help="Variant of the task.")] = None,
    preset: Annotated[str | None, typer.Option(help="smoke, quick or full; default HYBRIDSAM_PRESET or quick.")] = None,
    data: Annotated[str | None, typer.Option(help="stand-in or real, for tasks with measured data.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, in place of the preset's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the network, in place of the task's.")] = None,
    theta_lr: Annotated[float | None, typer.Option(help="Learning rate of theta, in place of the task's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that --out holds.")] = False,
) -> None:
    """Train a task with several methods and seeds, then print the table of theta errors."""
    import hybridsam_lite as hs
    from hybridsam_lite.device import resolve
    from hybridsam_lite.files import sole_writer
    from hybridsam_lite.results import provenance, records, write_records

    methods = [hs.parse_method(m) for m in method]
    chosen = parse_seeds(seeds)
    resolve(device)
    if task == "gallery" and variant is None:
        raise ValueError(
            "the gallery has many entries: name one with --variant, or run them all: hybridsam sweep gallery --out DIR"
        )
    built = hs.tasks.get(task, preset=preset, variant=variant, data=data)
    changes = {k: v for k, v in {"steps": steps, "lr": lr, "theta_lr": theta_lr}.items() if v is not None}
    file = out / "runs.jsonl"
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; choose a folder")
    if out.is_dir() and any(out.iterdir()) and not (resume and (out / "checkpoint").is_dir()):
        there = (out / "checkpoint").is_dir()
        advice = "add --resume to continue it, or choose another folder" if there else "choose a new or empty folder"
        raise ValueError(f"--out {out} is not empty and holds another run or other files; {advice}")
    provenance()
    try:
        runs = built.fit(methods, seeds=chosen, device=device, checkpoint=out / "checkpoint", resume=resume, **changes)
    except KeyboardInterrupt:
        print(
            f"\nhybridsam: interrupted; everything so far is in {out}. Repeat the command with --resume",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    rows = records(built, runs)
    with sole_writer(out / "checkpoint" / ".lock", file):
        write_records(file, rows)
    show(rows)
    console.print(f"records: {file}")


@app.command()
def sweep(
    task: Annotated[
        list[str],
        typer.Argument(help="One or several tasks, as TASK or TASK/VARIANT; `gallery` for its entries; or `all`."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the records; what it holds already is not run again.")],
    preset: Annotated[str | None, typer.Option(help="smoke, quick or full; default HYBRIDSAM_PRESET or quick.")] = None,
    data: Annotated[str | None, typer.Option(help="stand-in or real, for tasks with measured data.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="A method to tune; repeat for several. Default: those of the tables.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the final stage; 0 to 4 are for tuning.")] = "10:20",
    processes: Annotated[int, typer.Option(help="Jobs at a time, each with one CPU thread.")] = 1,
    dask: Annotated[
        str | None, typer.Option(help="tcp://HOST:PORT of a Dask scheduler, whose workers take the jobs.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Tune every method of a task by validation loss, then run the chosen settings on fresh seeds.

    Stop it at any time; the same command goes on where it stopped.
    """
    from hybridsam_lite import tasks as registry
    from hybridsam_lite.device import resolve
    from hybridsam_lite.sweep import CORE, GALLERY
    from hybridsam_lite.sweep import sweep as run_sweep

    chosen, names = parse_seeds(seeds), registry.names() if task == ["all"] else task
    every = {"gallery": [f"gallery/{entry}" for entry in registry.variants("gallery")]}
    names = [each for name in names for each in every.get(name, [name])]
    resolve(device)
    if processes < 1:
        raise ValueError(f"--processes must be at least 1, got {processes}")
    pairs = [(name, variant) for name, _, variant in (text.partition("/") for text in names)]
    wrong = [pair for pair in pairs if pair[1] not in ("", *registry.variants(pair[0]))]
    for name, variant in wrong:  # before the first task is trained
        registry.get(name, variant=variant)  # says what there is
    for name, variant in pairs:
        usual = GALLERY if name == "gallery" else CORE
        try:
            rows = run_sweep(
                name, variant=variant or None, out=out, preset=preset, data=data, methods=method or usual,
                seeds=chosen, processes=processes, dask=dask, device=device,
            )  # fmt: skip
        except KeyboardInterrupt:
            print(f"\nhybridsam: interrupted; everything so far is in {out}. Repeat the command", file=sys.stderr)
            raise typer.Exit(130) from None
        show(rows)
    console.print(f"records: {out}")


@app.command()
def plan(
    task: Annotated[str, typer.Argument(help="A task, as TASK or TASK/VARIANT.")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="As in `hybridsam run`; with --sweep as in `hybridsam sweep`. Default: erm and asam:rho=1."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, 0:4 by default; with --sweep of its final stage.")] = None,
    preset: Annotated[str | None, typer.Option(help="smoke, quick or full; default HYBRIDSAM_PRESET or quick.")] = None,
    data: Annotated[str | None, typer.Option(help="stand-in or real, for tasks with measured data.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, in place of the preset's.")] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Plan a whole sweep.")] = False,
    processes: Annotated[int, typer.Option(help="Jobs at a time, of a sweep.")] = 1,
) -> None:
    """Predict time and memory of a run or a sweep on this machine, from a few real steps (seconds to a minute)."""
    from hybridsam_lite import plan as plans
    from hybridsam_lite import tasks as registry
    from hybridsam_lite.sweep import CORE

    if processes < 1:
        raise ValueError(f"--processes must be at least 1, got {processes}")
    if steps is not None and (sweep or steps < 1):
        raise ValueError(f"--steps is a positive number of a run's steps, not of a sweep's, got {steps}")
    name, _, variant = task.partition("/")
    built = registry.get(name, preset=preset, variant=variant or None, data=data)
    if sweep:
        stages = plans.plan_sweep(built, method or CORE, parse_seeds(seeds or "10:20"))
    else:
        stages = [plans.plan_run(built, method or ["erm", "asam:rho=1"], parse_seeds(seeds or "0:4"), steps)]
    table = Table("stage", "method", *(Column(n, justify="right") for n in PLANNED))
    for stage, parts in zip(("tune", "final") if sweep else ("run",), stages, strict=True):
        for i, part in enumerate(parts):
            cost = part.cost
            numbers = (cost.members, part.steps, part.validations, cost.setup + cost.score, cost.step, cost.validation)
            shown = [f"{x:.3g}" if isinstance(x, float) else str(x) for x in (*numbers, part.seconds)]
            table.add_row("" if i else stage, part.label, *shown)
    console.print(table)
    console.print(
        "seconds = fixed + steps x step + (validations + 2) x check; fixed is for building the models and scoring them"
    )
    total = sum(plans.schedule(parts, processes) for parts in stages)
    memory = max(part.cost.memory for parts in stages for part in parts)
    console.print(f"{_duration(total)} with {processes} at a time; up to {memory:.0f} MB of memory for each")


def _duration(seconds: float) -> str:
    """For a reader.

    >>> _duration(42), _duration(600), _duration(7200)
    ('42 seconds', '10 minutes', '2.0 hours')
    """
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


@app.command()
def table(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `hybridsam run` wrote, or .jsonl files.")],
) -> None:
    """Print the table of theta errors from the records of one or more runs."""
    show(load(folders))


@app.command()
def select(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `hybridsam run` wrote, or .jsonl files.")],
) -> None:
    """Choose rho, lambda or mu of each method without theta's true value; may answer "undecided" and says why."""
    import hybridsam_lite as hs

    problems: dict[str, list[dict[str, Any]]] = {}
    for row in load(folders):
        protocol = ", ".join(f"{k} {v:g}" for k, v in row["protocol"].items())
        problem = "{task} {variant}, preset {preset}, {data} data\n{}".format(protocol, **row)
        if row["stage"] != "final":  # the final runs are of chosen settings only
            problems.setdefault(problem, []).append(row)
    for problem, rows in problems.items():
        print(f"{problem}\n\n{hs.select(rows)}\n")


@app.command()
def verify(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `hybridsam run` wrote, or .jsonl files.")],
    count: Annotated[int, typer.Option(help="How many records to repeat.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the random draw among them.")] = 0,
    preset: Annotated[str | None, typer.Option(help="Draw among those of one preset only.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative difference of losses and theta.")] = 0.05,
) -> None:
    """Train a few records once more, drawn at random, and compare; exit status 1 if one does not come out."""
    from hybridsam_lite.verify import verify as repeat

    rows = [row for row in load(folders) if preset in (None, row["preset"])]
    if not rows:
        raise ValueError(f"no record of preset {preset!r} in {', '.join(map(str, folders))}")
    failed = 0
    for found in repeat(rows, count=count, seed=seed, tolerance=tolerance):
        row, new = found.record, found.repeated
        name = f"{row['task']} {row['variant']}, {row['preset']}, {row['stage']}, {row['label']}, seed {row['seed']}"
        pairs = [("val loss", row["val_loss"], new["val_loss"])]
        pairs += [(key, value, new["theta_hat"][key]) for key, value in row["theta_hat"].items()]
        words = "; ".join(f"{key} {_number(a)}, now {_number(b)}" for key, a, b in pairs)
        console.print(f"{'ok' if found.agrees else 'DIFFERS'}  {name}: {words} ({found.difference:.1e} apart)")
        failed += not found.agrees
    if failed:
        raise typer.Exit(1)


def _number(x: float | None) -> str:
    return "none" if x is None else f"{x:.5g}"


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the model and its folder, for example my_model.")],
    folder: Annotated[Path, typer.Option("--in", help="Where the new folder goes.")] = Path(),
) -> None:
    """Write a hybrid model with data, tests, training script and notebook, to be changed into your own."""
    from hybridsam_lite.scaffold import new as scaffold

    made = scaffold(name, folder)
    console.print(f"{made} is ready: cd {made}; python -m pytest; python train.py")


@app.command()
def doctor() -> None:
    """Print versions, devices, threads and data folder: what to add to a bug report."""
    import torch

    from hybridsam_lite.device import name_of, resolve

    rows = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }
    for package in ("hybridsam-lite", "torch", "torchdiffeq", "numpy", "scipy", "pandas"):
        try:
            rows[package] = version(package)
        except PackageNotFoundError:
            rows[package] = "not installed"
    best = resolve("auto")
    rows["device"] = f"{best} ({name_of(best)})"
    rows["cores, threads"] = (
        f"{os.cpu_count()} cores; training uses 1 thread unless told otherwise ({torch.get_num_threads()} by default)"
    )
    rows["preset"] = os.environ.get("HYBRIDSAM_PRESET") or "quick (HYBRIDSAM_PRESET is not set)"
    table = Table(show_header=False)
    for name, text in rows.items():
        table.add_row(name, text)
    console.print(table)


def parse_seeds(text: str) -> list[int]:
    """Seeds from "0:4", "0,3,7" or "5".

    >>> parse_seeds("0:4"), parse_seeds("3,5")
    ([0, 1, 2, 3], [3, 5])
    """
    try:
        if ":" in text:
            low, high = (int(part) for part in text.split(":"))
            seeds = list(range(low, min(high, low + MOST_SEEDS + 1)))
        else:
            seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds) or len(seeds) > MOST_SEEDS:
        count = f"more than {MOST_SEEDS}" if len(seeds) > MOST_SEEDS else "no"
        raise ValueError(
            f"--seeds {text!r:.80} names {count} seeds; expected a range 0:4 that increases, a list 0,3,7 or one >= 0"
        )
    return seeds


def load(folders: list[Path]) -> list[dict[str, Any]]:
    """The records of all folders and files."""
    from hybridsam_lite.results import read_records

    rows = []
    for folder in folders:
        files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else [folder]
        if not files:
            raise FileNotFoundError(
                f"no records in {folder}; expected a folder with .jsonl files, as `hybridsam run` writes"
            )
        for file in files:
            rows += read_records(file)
    if not rows:
        raise ValueError(f"there are no records in {', '.join(map(str, folders))}; the files are empty")
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the summary of records, one table per task and variant."""
    from hybridsam_lite.results import PROBLEM, summary
    from hybridsam_lite.tasks import LISTED

    for key, group in summary(rows).groupby(list(PROBLEM), sort=False):
        table = Table(
            title="{} {}, preset {}, {} data, stage {}\n{}".format(*key),
            title_justify="left",
            box=box.SIMPLE_HEAD,
        )
        for column in (
            "method",
            "seeds",
            "theta error [quartiles]",
            "minus erm [95 %]",
            "val loss",
            "test loss",
            "seconds",
        ):
            table.add_column(column, justify="left" if column == "method" else "right", overflow="fold")
        for row in group.to_dict("records"):
            lost = f" ({row['diverged']} diverged)" if row["diverged"] else ""
            gap = (
                f"{row['difference']:+.3g} [{row['low']:+.2g}, {row['high']:+.2g}]" if row["low"] == row["low"] else ""
            )
            table.add_row(
                row["label"], f"{row['seeds']}{lost}", f"{row['theta_error']:.4g} [{row['q1']:.2g}, {row['q3']:.2g}]",
                gap, f"{row['val_loss']:.2e}", f"{row['test_loss']:.2e}", f"{row['seconds']:.1f}",
            )  # fmt: skip
        console.print(table)
        if (listed := LISTED.get(str(key[0]))) is not None:
            console.print(f"listed for the paper: {listed:g} (see the book for how to read it)\n")


def main() -> None:
    """Entry point: user errors are one line on stderr and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except UsageError as error:
        fail(_with_suggestion(error))
    except (typer.Abort, KeyboardInterrupt):
        print("hybridsam: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenProcessPool:
        fail("a process of the sweep ended abruptly (killed, or out of memory?); repeat the command")
    except USER_ERRORS as error:
        fail(str(error))
    sys.exit(status or 0)


def fail(message: str) -> None:
    """Print one line, of characters that a terminal shows and does not obey, and exit with status 2."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(message.split()))
    print(f"hybridsam: error: {textwrap.shorten(shown, LONGEST) if len(shown) > LONGEST else shown}", file=sys.stderr)
    sys.exit(2)


def _with_suggestion(error: Exception) -> str:
    message: str = error.format_message()  # type: ignore[attr-defined]
    if message.startswith("No such command") and "mean" not in message:
        names = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
        message += f"{nearest(message.split(chr(39))[1], names)}; the commands are: {', '.join(names)}"
    return f"{message} (see hybridsam --help)"
