"""The trainer: many seeds and settings in one call.

`fit` builds one model per seed, groups the methods by structure into stacks, and trains each stack with
one loop. Initialization and batches are a function of (seed, step), dropout masks of the step alone, so
that a run that was interrupted continues bit for bit, two methods with the same seed see the same start
and the same batches, and no result depends on which other methods and seeds are in the call.
"""

from __future__ import annotations

import functools
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hybridsam_lite import device as devices
from hybridsam_lite.checks import (
    LossFunction,
    check_counts,
    check_dtype,
    check_entrywise,
    check_plan,
    check_rates,
    check_same_theta,
    mean_squared_error,
    probe,
)
from hybridsam_lite.data import Data, Inputs, as_data, fingerprint
from hybridsam_lite.files import Checkpoint, DeferredInterrupt, check_form, load_state, save_state
from hybridsam_lite.live import Training, alone
from hybridsam_lite.methods import Method, Moment
from hybridsam_lite.runs import Member, Runs, number
from hybridsam_lite.stack import DIVERGED, OK, STOPPED, Stack

__all__ = ["Runs", "fit"]

STATUS = {OK: "ok", DIVERGED: "diverged", STOPPED: "stopped"}
VALIDATIONS = 20  # per run, unless told otherwise
CHECKPOINT_SECONDS = float(os.environ.get("HYBRIDSAM_CHECKPOINT_SECONDS", "30"))  # between two saves


@dataclass(frozen=True)
class _Protocol:
    """How one stack is trained."""

    steps: int
    batch_size: int
    lr_end: float
    validate_every: int
    patience: int | None

    def rate(self, step: int) -> float:
        """Learning rate of a step, as a fraction of its start: half a cosine down to lr_end."""
        return self.lr_end + (1 - self.lr_end) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def fit(
    model: Callable[[], nn.Module],
    train: Data | tuple[Inputs, Tensor],
    val: Data | tuple[Inputs, Tensor] | None = None,
    *,
    methods: Sequence[Method | str],
    seeds: Iterable[int],
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    theta_lr: float = 1e-2,
    lr_end: float = 0.01,
    max_norm: float | None = 10.0,
    loss: LossFunction = mean_squared_error,
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = torch.optim.Adam,
    patience: int | None = None,
    validate_every: int | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
    threads: int = 1,
    vectorize: bool = True,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    callback: Callable[[Training], Any] | None = None,
) -> Runs:
    """Train a model with every method and seed.

    Args:
        model: a class or function without arguments that builds a new model; called once per seed with
            torch seeded.
        train, val: `Data` or (inputs, target) pairs. theta's true value is not among them.
        methods: methods or their labels ("asam:rho=1").
        seeds: integers; each decides the initialization and the order of the batches.
        steps: optimizer steps. SAM drifts slowly: with plain gradient descent it needs many
            more than 1 / (lr rho^2), with Adam fewer.
        batch_size: samples per step; all of them if the data holds fewer.
        lr, theta_lr: learning rates of phi and of theta (in units of each parameter's range).
        lr_end: both rates fall along a cosine to this fraction of their start.
        max_norm: each member's gradient is clipped to this norm; None to switch off.
        loss: (prediction, target) -> scalar, sample axis first; default is the mean squared error.
        optimizer: makes an optimizer from parameter groups; must act entry by entry (Adam, SGD, ...).
        patience: stop a member after this many validations without progress and keep its best state.
        validate_every: steps between validations; by default a twentieth of the run.
        device: "auto", "cpu", "cuda", ...
        dtype: precision of parameters and data. `torch.autocast` is refused; bfloat16 loses each step of theta
            that is below 1/256 of its value.
        threads: CPU threads; small networks are fastest with one.
        vectorize: train the members of a stack together by `torch.func.vmap`; False for models that it
            cannot run (adaptive solvers, data-dependent control flow).
        checkpoint: a folder in which the state is saved every half minute (HYBRIDSAM_CHECKPOINT_SECONDS)
            and at the end.
        resume: continue from `checkpoint`; the result equals an uninterrupted run bit for bit.
        progress: show a progress bar (terminal or notebook).
        callback: called with a `Training` after every step; it may look, change settings and stop. A run that
            it stops is finished: its members have the status "stopped", and `resume` trains them no further.

    Returns:
        The trained members, in the order methods x seeds.

    Raises:
        ValueError, TypeError: for arguments or data that cannot work, before any training.
        FileExistsError: if `checkpoint` holds a run and `resume` is false.
        BlockingIOError: if another process is at the run that `checkpoint` holds.
        RuntimeError: if another thread is training, under `torch.autocast`, or if not even one member fits into
            memory (a stack that does not is trained in parts, with a warning).

    >>> import hybridsam_lite as hs
    >>> class Line(hs.HybridModel):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.theta = hs.Theta(slope=hs.Real(init=(0.0, 1.0)))
    ...         self.net = hs.mlp(1, [8], 1)
    ...     def forward(self, x):
    ...         return self.theta.slope * x + self.net(x)
    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> runs = fit(Line, (x, 2 * x), methods=[hs.ERM(), "sam:rho=0.1"], seeds=range(2), steps=20, progress=False)
    >>> list(runs.frame["label"])
    ['erm', 'erm', 'sam:rho=0.1', 'sam:rho=0.1']
    """
    import pandas as pd  # here, for an import of the library needs none

    plan = check_plan(methods, seeds)
    train = as_data(train)
    val = None if val is None else as_data(val)
    if None in (steps, batch_size, threads):
        raise ValueError("fit: steps, batch_size and threads must be positive integers, got None")
    check_counts(
        steps=steps,
        batch_size=batch_size,
        threads=threads,
        validate_every=validate_every,
        patience=patience,
    )
    check_rates(lr=lr, theta_lr=theta_lr, max_norm=max_norm)
    if not (isinstance(lr_end, (int, float)) and 0 <= lr_end <= 1):
        raise ValueError(f"fit: lr_end is a fraction of the learning rate, from 0 to 1, got {lr_end!r}")
    if val is None and (patience is not None or any(m.stop_after is not None for m, _ in plan)):
        raise ValueError("fit: patience (early stopping) needs validation data; pass val=...")
    if isinstance(model, nn.Module) or not callable(model):
        got = "a model; pass its class" if isinstance(model, nn.Module) else repr(model)
        raise TypeError(f"fit: model must be a class or a function that builds a new model, got {got}")
    if isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "fit: optimizer must be a class or a function of parameter groups, got an optimizer; pass its class"
        )
    check_dtype(dtype, "fit")
    if not (checkpoint is None or isinstance(checkpoint, (str, Path))) or "\0" in str(checkpoint):
        raise TypeError(f"fit: checkpoint must be the path of a folder, got {checkpoint!r:.60}")
    if not (callback is None or callable(callback)):
        raise TypeError(f"fit: callback must be a function of what is being trained, got {callback!r:.60}")
    if resume and checkpoint is None:
        raise ValueError("fit: resume=True needs the folder to continue from; pass checkpoint=...")
    where = devices.resolve(device)
    if devices.mixed_precision(where):
        raise RuntimeError(
            "fit: torch.autocast is on, which rounds what theta's gradient is made of to three digits; "
            "leave it, or choose one precision for everything by dtype="
        )
    every = validate_every or max(1, steps // VALIDATIONS)

    with ExitStack() as context:
        context.enter_context(alone())
        context.enter_context(devices.cpu_threads(threads))
        context.enter_context(devices.kept_random_state())
        check_entrywise(optimizer)
        built = {seed: _build(model, seed).to(where, dtype) for seed in dict.fromkeys(s for _, s in plan)}
        if len({id(m) for m in built.values()}) < len(built):
            raise ValueError("fit: model() must build a new model each time, but returned the same one twice")
        check_same_theta(built)
        sample = next(iter(built.values()))
        train, val = train.to(where, dtype), None if val is None else val.to(where, dtype)
        axis = probe(list(built.values()), train, loss, [m for m, _ in plan])
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, (method, _) in enumerate(plan):
            groups.setdefault(method.structure, []).append(i)
        config = {
            "members": [[m.name, m.settings, s] for m, s in plan],
            "steps": steps, "batch_size": batch_size, "lr": lr, "theta_lr": theta_lr, "lr_end": lr_end,
            "max_norm": max_norm, "patience": patience, "validate_every": every, "dtype": str(dtype),
            "optimizer": _name(optimizer), "loss": _name(loss), "vectorize": vectorize,
            "train": train.fingerprint(), "val": None if val is None else val.fingerprint(),
            "model": [type(sample).__qualname__, *(fingerprint(m.state_dict()) for m in built.values())],
        }  # fmt: skip
        saves = None if checkpoint is None else context.enter_context(Checkpoint(Path(checkpoint), config, resume))
        results: dict[int, Member] = {}
        history: list[dict[str, Any]] = []
        protocols = [
            _Protocol(
                max(1, round(m.effort * steps)), batch_size, lr_end, every,
                patience if m.stop_after is None else m.stop_after,
            )
            for m in (plan[members[0]][0] for members in groups.values())
        ]  # fmt: skip
        total = sum(p.steps for p in protocols)
        bar = context.enter_context(tqdm(total=total, disable=not progress, unit="step", dynamic_ncols=True))
        live = Training(callback, saves is not None)
        for k, (members, protocol) in enumerate(zip(groups.values(), protocols, strict=True)):
            stack = Stack(
                [built[plan[i][1]] for i in members], [plan[i][0] for i in members],
                optimizer=optimizer, lr=lr, theta_lr=theta_lr, max_norm=max_norm, loss=loss,
                sample_axis=axis, vectorize=vectorize,
            )  # fmt: skip
            bar.set_description(f"{stack.method.name} x{len(members)}")
            save = None if saves is None else saves.stack(k)
            live.begin(stack, plan, members, protocol.steps)
            log, val_loss, seconds = _train(stack, train, val, live, protocol, save, bar)
            for i, method in zip(members, live.methods, strict=True):
                plan[i] = method, plan[i][1]
            for row in log:
                for j, i in enumerate(members):
                    values = {f"theta.{n}": number(v[j]) for n, v in row["theta"].items()}
                    history.append(
                        {"member": i, "label": plan[i][0].label, "seed": plan[i][1], "step": row["step"],
                         "train_loss": float(row["train_loss"][j]), "val_loss": float(row["val_loss"][j]), **values}
                    )  # fmt: skip
            for j, i in enumerate(members):
                results[i] = Member(
                    *plan[i], STATUS[int(stack.status[j])], int(stack.last_step[j]), seconds / len(members),
                    float(val_loss[j]), stack.member_state(j),
                )  # fmt: skip
    template = sample.cpu().eval()
    runs = Runs(
        template,
        [results[i] for i in range(len(plan))],
        pd.DataFrame(history),
        axis,
        devices.name_of(where),
        {"steps": steps, "batch_size": batch_size, "lr": lr, "theta_lr": theta_lr, "lr_end": lr_end},
    )
    lost = [f"{m.method.label} seed {m.seed} (step {m.steps})" for m in runs.members if m.status == "diverged"]
    if lost:
        warnings.warn(
            f"{len(lost)} of {len(plan)} members diverged and were frozen: {'; '.join(lost[:5])}"
            f"{' ...' if len(lost) > 5 else ''}. They are marked in runs.frame; try a smaller rho or lr",
            RuntimeWarning,
            stacklevel=2,
        )
    return runs


def _train(
    stack: Stack,
    train: Data,
    val: Data | None,
    live: Training,
    protocol: _Protocol,
    save: Path | None,
    bar: tqdm[Any],
) -> tuple[list[dict[str, Any]], Tensor, float]:
    """Run one stack to its end; returns its log (one entry per validation), validation losses, seconds."""
    steps, patience = protocol.steps, protocol.patience
    first, spent = 0, 0.0
    if save is not None and save.exists():

        def take_over(state: dict[str, Any]) -> tuple[int, float, list[dict[str, Any]]]:
            step, log = state["step"], state["log"]
            if not (type(step) is int and 0 < step <= steps and isinstance(log, list) and log):
                raise ValueError(f"step {step!r:.40} is none of this run")
            like = _observe(stack, val, 0, torch.full_like(stack.best_loss, math.nan))
            for row in log:
                check_form(row, like, "the log")
            check_form(state["seconds"], 0.0, "seconds")
            stack.load_state_dict(state["stack"])
            return step, state["seconds"], log

        first, spent, log = load_state(save, stack.status.device, take_over)
    else:  # the start, which also shows at once whether validation works
        log = [_observe(stack, val, 0, torch.full_like(stack.best_loss, math.nan))]
    bar.update(first)
    batches = _Batches(len(train), protocol.batch_size, live.seeds, train.target.device)
    start = saved = time.monotonic()

    def write(done: int) -> float:
        seconds = spent + time.monotonic() - start
        if save is not None and done > first:
            state = {"stack": stack.state_dict(), "step": int(done), "seconds": seconds, "log": log}
            save_state(save, state)
        return seconds if done > first else spent

    with DeferredInterrupt() as interrupt:
        for step in range(first, steps):
            asked = live.stopped or log[-1]["step"] == step  # not after each step: a GPU would have to answer
            if asked and not bool(stack.alive.any()):
                bar.update(steps - step)
                break
            devices.seed(_mix(0, step))
            losses = stack.step(train.take(batches.at(step)), protocol.rate(step), Moment(step, steps))
            if (step + 1) % protocol.validate_every == 0 or step + 1 == steps:
                log.append(_observe(stack, val, step + 1, losses))
                if patience is not None:
                    stack.early_stop(log[-1]["val_loss"], patience)
                bar.set_postfix_str(_summary(log[-1], stack))
            start += live.report(step + 1, losses, log[-1]["val_loss"])
            if live.stopped and log[-1]["step"] <= step:
                log.append(_observe(stack, val, step + 1, losses))
            bar.update()
            if interrupt.pending:
                write(step + 1)
                hint = f"; continue with resume=True from {save.parent}" if save is not None else ""
                raise KeyboardInterrupt(f"stopped after step {step + 1} of {steps}{hint}")
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                write(step + 1)
                saved = time.monotonic()
    if patience is not None and stack.best:
        stack.restore_best(stack.alive)
    stack.finish()
    seconds = write(steps)
    return log, _validation_loss(stack, val), seconds


def _validation_loss(stack: Stack, val: Data | None) -> Tensor:
    torch.manual_seed(0)  # the same noise each time, if the model draws any
    return torch.full_like(stack.best_loss, math.nan) if val is None else stack.evaluate(val)


def _observe(stack: Stack, val: Data | None, step: int, losses: Tensor) -> dict[str, Any]:
    theta = {n: v.clone() for n, v in stack.theta().items()}
    return {
        "step": step,
        "train_loss": losses.detach().clone(),
        "val_loss": _validation_loss(stack, val),
        "theta": theta,
    }


def _summary(row: dict[str, Any], stack: Stack) -> str:
    parts = [f"loss {float(row['train_loss'].nanmedian()):.2e}"]
    parts += [f"{n} {float(v.median()):.4g}" for n, v in list(row["theta"].items())[:2] if v.ndim == 1]
    lost = int((stack.status == DIVERGED).sum())
    return ", ".join(parts + ([f"{lost} diverged"] if lost else []))


class _Batches:
    """The samples of each step: an epoch's order is a function of (seed, epoch) alone."""

    def __init__(self, samples: int, batch_size: int, seeds: list[int], device: torch.device) -> None:
        self.samples, self.size, self.seeds, self.device = (
            samples,
            min(batch_size, samples),
            seeds,
            device,
        )
        self.per_epoch = samples // self.size
        self.epoch = -1

    def at(self, step: int) -> Tensor:
        """Indices of the batch, shape (members, batch)."""
        epoch, k = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            orders = {s: np.random.default_rng([_mix(s, epoch)]).permutation(self.samples) for s in set(self.seeds)}
            self.order = torch.as_tensor(np.stack([orders[s] for s in self.seeds]), device=self.device)
            self.epoch = epoch
        return self.order[:, k * self.size : (k + 1) * self.size]


def _mix(seed: int, count: int) -> int:
    """One number for the pair (seed, count)."""
    return int(np.random.SeedSequence([seed % 2**63, count]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _build(model: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    built = model()
    if not isinstance(built, nn.Module):
        raise TypeError(f"fit: model() must return an nn.Module, got {type(built).__name__}")
    return built


def _name(function: Callable[..., Any]) -> str:
    """A function's or object's name, the same in every process."""
    if isinstance(function, functools.partial):
        given = [*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())]
        return f"{_name(function.func)}({', '.join(given)})"
    return getattr(function, "__qualname__", type(function).__qualname__)
