"""The trainer: many seeds and settings in one call.

`fit` builds one model per seed, groups the methods by structure into stacks, and trains each stack with
one loop. Initialization and batches are a function of (seed, step), dropout masks of the step alone, so
that a run that was interrupted continues bit for bit, two methods with the same seed see the same start
and the same batches, and no result depends on which other methods and seeds are in the call.
"""

from __future__ import annotations

import copy
import functools
import math
import numbers
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hybridsam_lite import device as devices
from hybridsam_lite.data import Data, Inputs, as_data, fingerprint
from hybridsam_lite.files import Checkpoint, DeferredInterrupt, load_state, write_atomically
from hybridsam_lite.hybrid import Prediction, as_prediction, roles
from hybridsam_lite.methods import Method, parse_method
from hybridsam_lite.stack import (
    DIVERGED,
    OK,
    STOPPED,
    LossFunction,
    Stack,
    check_entrywise,
    theta_values,
)

__all__ = ["Runs", "fit"]

STATUS = {OK: "ok", DIVERGED: "diverged", STOPPED: "stopped"}
VALIDATIONS = 20  # per run, unless told otherwise
CHECKPOINT_SECONDS = 30.0


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all entries; the shapes must be equal."""
    return ((prediction - target) ** 2).mean()


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
) -> Runs:
    """Train a model with every method and seed.

    Args:
        model: a class or function without arguments that builds a new model; called once per seed with
            torch seeded.
        train, val: `Data` or (inputs, target) pairs. theta's true value is not among them.
        methods: methods or their labels ("asam:rho=1").
        seeds: integers; each decides the initialization and the order of the batches.
        steps: optimizer steps. SAM drifts slowly: it needs many more than 1 / (lr rho^2).
        batch_size: samples per step; all of them if the data holds fewer.
        lr, theta_lr: learning rates of phi and of theta (in units of each parameter's range).
        lr_end: both rates fall along a cosine to this fraction of their start.
        max_norm: each member's gradient is clipped to this norm; None to switch off.
        loss: (prediction, target) -> scalar, sample axis first; default is the mean squared error.
        optimizer: makes an optimizer from parameter groups; must act entry by entry (Adam, SGD, ...).
        patience: stop a member after this many validations without progress and keep its best state.
        validate_every: steps between validations; by default a twentieth of the run.
        device: "auto", "cpu", "cuda", ...
        dtype: precision of parameters and data.
        threads: CPU threads; small networks are fastest with one.
        vectorize: train the members of a stack together by `torch.func.vmap`; False for models that it
            cannot run (adaptive solvers, data-dependent control flow).
        checkpoint: a folder in which the state is saved every half minute and at the end.
        resume: continue from `checkpoint`; the result equals an uninterrupted run bit for bit.
        progress: show a progress bar (terminal or notebook).

    Returns:
        The trained members, in the order methods x seeds.

    Raises:
        ValueError, TypeError: for arguments or data that cannot work, before any training.
        FileExistsError: if `checkpoint` holds a run and `resume` is false.

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
    plan = _check_methods_and_seeds(methods, seeds)
    train = as_data(train)
    val = None if val is None else as_data(val)
    _check_numbers(
        steps=steps,
        batch_size=batch_size,
        threads=threads,
        validate_every=validate_every,
        patience=patience,
    )
    _check_rates(lr=lr, theta_lr=theta_lr, lr_end=lr_end, max_norm=max_norm)
    if patience is not None and val is None:
        raise ValueError("fit: patience (early stopping) needs validation data; pass val=...")
    if isinstance(model, nn.Module) or not callable(model):
        got = "a model; pass its class" if isinstance(model, nn.Module) else repr(model)
        raise TypeError(f"fit: model must be a class or a function that builds a new model, got {got}")
    if isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "fit: optimizer must be a class or a function of parameter groups, got an optimizer; pass its class"
        )
    if resume and checkpoint is None:
        raise ValueError("fit: resume=True needs the folder to continue from; pass checkpoint=...")
    where = devices.resolve(device)
    every = validate_every or max(1, steps // VALIDATIONS)

    with devices.cpu_threads(threads), devices.kept_random_state():
        check_entrywise(optimizer)
        built = {seed: _build(model, seed).to(where, dtype) for seed in dict.fromkeys(s for _, s in plan)}
        if len({id(m) for m in built.values()}) < len(built):
            raise ValueError("fit: model() must build a new model each time, but returned the same one twice")
        sample = next(iter(built.values()))
        train, val = train.to(where, dtype), None if val is None else val.to(where, dtype)
        axis = _probe(list(built.values()), train, loss, [m for m, _ in plan])
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
        saves = None if checkpoint is None else Checkpoint(Path(checkpoint), config, resume)
        results: dict[int, Member] = {}
        history: list[dict[str, Any]] = []
        bar = tqdm(total=steps * len(groups), disable=not progress, unit="step", dynamic_ncols=True)
        for k, members in enumerate(groups.values()):
            stack = Stack(
                [built[plan[i][1]] for i in members], [plan[i][0] for i in members],
                optimizer=optimizer, lr=lr, theta_lr=theta_lr, max_norm=max_norm, loss=loss,
                sample_axis=axis, vectorize=vectorize,
            )  # fmt: skip
            bar.set_description(f"{stack.method.name} x{len(members)}")
            seen_by = [plan[i][1] for i in members]
            log, val_loss, seconds = _train(
                stack,
                train,
                val,
                seen_by,
                steps,
                batch_size,
                lr_end,
                every,
                patience,
                saves and saves.stack(k),
                bar,
            )
            for row in log:
                for j, i in enumerate(members):
                    values = {f"theta.{n}": _number(v[j]) for n, v in row["theta"].items()}
                    history.append(
                        {"member": i, "label": plan[i][0].label, "seed": plan[i][1], "step": row["step"],
                         "train_loss": float(row["train_loss"][j]), "val_loss": float(row["val_loss"][j]), **values}
                    )  # fmt: skip
            for j, i in enumerate(members):
                results[i] = Member(
                    *plan[i], STATUS[int(stack.status[j])], int(stack.last_step[j]), seconds / len(members),
                    float(val_loss[j]), stack.member_state(j),
                )  # fmt: skip
        bar.close()
    template = sample.cpu().eval()
    runs = Runs(
        template,
        [results[i] for i in range(len(plan))],
        pd.DataFrame(history),
        axis,
        devices.name_of(where),
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
    seeds: list[int],
    steps: int,
    batch_size: int,
    lr_end: float,
    every: int,
    patience: int | None,
    save: Path | None,
    bar: tqdm,
) -> tuple[list[dict[str, Any]], Tensor, float]:
    """Run one stack to its end; returns its log (one entry per validation), validation losses, seconds."""
    log: list[dict[str, Any]] = []
    first, spent = 0, 0.0
    if save is not None and save.exists():

        def take_over(state: dict[str, Any]) -> tuple[int, float, list[dict[str, Any]]]:
            stack.load_state_dict(state["stack"])
            return state["step"], state["seconds"], state["log"]

        first, spent, log = load_state(save, stack.status.device, take_over)
    bar.update(first)
    batches = _Batches(len(train), batch_size, seeds, train.target.device)
    start = saved = time.monotonic()

    def write(done: int) -> None:
        if save is not None:
            state = {
                "stack": stack.state_dict(),
                "step": int(done),
                "seconds": spent + time.monotonic() - start,
                "log": log,
            }
            write_atomically(save, lambda file: torch.save(state, file))

    with DeferredInterrupt() as interrupt:
        for step in range(first, steps):
            if not bool(stack.alive.any()):
                bar.update(steps - step)
                break
            torch.manual_seed(_mix(0, step))
            rate = lr_end + (1 - lr_end) * 0.5 * (1 + math.cos(math.pi * step / steps))
            losses = stack.step(train.take(batches.at(step)), rate)
            if (step + 1) % every == 0 or step + 1 == steps:
                log.append(_observe(stack, val, step + 1, losses))
                if patience is not None:
                    stack.early_stop(log[-1]["val_loss"], patience)
                bar.set_postfix_str(_summary(log[-1], stack))
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
    write(steps)
    return log, _validation_loss(stack, val), spent + time.monotonic() - start


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


def _probe(models: list[nn.Module], data: Data, loss: LossFunction, methods: list[Method]) -> int:
    """Run an untrained model on two and on three samples; returns the prediction's sample axis.

    Everything that can be wrong with a model's output is found here, before training. A model whose
    physics blows up at its very start is passed over: training will mark it as diverged.
    """
    for model in models:
        try:
            return _probe_one(copy.deepcopy(model).eval(), data, loss, methods)
        except FloatingPointError as error:
            failure = error
    raise failure


@torch.no_grad()
def _probe_one(model: nn.Module, data: Data, loss: LossFunction, methods: list[Method]) -> int:
    role_of = roles(model)
    trained = {role_of[n] for n, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(f"fit: {type(model).__name__} has no trainable parameter")
    for method in methods:
        if method.needs_phi and "phi" not in trained:
            raise ValueError(
                f"fit: {type(method).__name__} acts on the network's weights, but {type(model).__name__} has no trainable "
                "parameter outside hs.Theta; use hs.ERM"
            )
    predictions: list[Prediction] = []
    for count in (2, 3):
        part = data.take(torch.arange(count, device=data.target.device) % len(data))
        predictions.append(as_prediction(model(part.inputs)))
    two, three = (p.value for p in predictions)
    axes = [i for i, (a, b) in enumerate(zip(two.shape, three.shape, strict=False)) if (a, b) == (2, 3)]
    target = (2, *data.target.shape[1:])
    if two.ndim != three.ndim or len(axes) != 1 or tuple(two.movedim(axes[0], 0).shape) != target:
        raise ValueError(
            f"fit: for 2 samples the model predicts shape {tuple(two.shape)}, for 3 {tuple(three.shape)}, but the target "
            f"of 2 samples has shape {target}; exactly one axis must count samples, and the others must match the target's"
        )
    value = loss(
        two.movedim(axes[0], 0),
        data.take(torch.arange(2, device=data.target.device) % len(data)).target,
    )
    if not isinstance(value, Tensor) or value.ndim != 0:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"fit: loss must return a scalar tensor, got {got}; take the mean")
    for method in methods:
        if method.needs_network and predictions[0].network is None:
            raise ValueError(
                f"fit: {type(method).__name__} needs the network's own output, but {type(model).__name__}.forward returns "
                "no Prediction.network (a nested model has none). Return hs.Prediction(value, network=...) if the network's "
                "share can be told apart; otherwise use hs.SharpnessAware or hs.WeightDecay, which need only phi"
            )
    return axes[0]


def _check_methods_and_seeds(methods: Sequence[Method | str], seeds: Iterable[int]) -> list[tuple[Method, int]]:
    if isinstance(methods, (str, Method)):
        methods = [methods]
    parsed = [parse_method(m) if isinstance(m, str) else m for m in methods]
    if not isinstance(seeds, Iterable):
        raise TypeError(f"fit: seeds must be several integers, such as range(8), got {seeds!r}")
    chosen = list(seeds)
    if not all(isinstance(s, numbers.Integral) and 0 <= s < 2**63 for s in chosen):
        raise ValueError(f"fit: seeds must be integers >= 0 (and < 2**63), got {chosen}")
    for method in parsed:
        if not isinstance(method, Method):
            raise TypeError(f"fit: methods must be methods or labels such as 'sam:rho=0.1', got {method!r}")
    for name, given in (("methods", [m.label for m in parsed]), ("seeds", chosen)):
        if not given:
            raise ValueError(f"fit: {name} is empty; give at least one")
        if len(set(given)) != len(given):
            raise ValueError(f"fit: {name} holds duplicates: {given}")
    return [(m, int(s)) for m in parsed for s in chosen]


def _check_numbers(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and not (isinstance(value, numbers.Integral) and value > 0):
            raise ValueError(f"fit: {name} must be a positive integer, got {value!r}")


def _check_rates(**rates: float | None) -> None:
    for name, value in rates.items():
        if value is not None and not (isinstance(value, numbers.Real) and 0 < value < math.inf):
            raise ValueError(f"fit: {name} must be a positive number, got {value!r}")


def _number(x: Tensor) -> float | list[float]:
    return float(x) if x.ndim == 0 else x.tolist()


@dataclass(frozen=True)
class Member:
    """One trained model: how it was trained and how it ended."""

    method: Method
    seed: int
    status: str
    steps: int
    seconds: float  # its share of its stack's time
    val_loss: float
    state: dict[str, Tensor]


class Runs:
    """The trained members of one `fit`, in the order methods x seeds.

    Attributes:
        members: list of `Member`.
        history: pandas table, one row per member and validation: step, train_loss, val_loss, theta.<name>.
        device: name of the device they were trained on.
    """

    def __init__(
        self,
        template: nn.Module,
        members: list[Member],
        history: pd.DataFrame,
        sample_axis: int,
        device: str,
    ) -> None:
        self._template, self.members, self.history = template, members, history
        self.sample_axis, self.device = sample_axis, device

    def __len__(self) -> int:
        return len(self.members)

    def model(self, i: int) -> nn.Module:
        """The i-th trained model: an ordinary module on the CPU, in evaluation mode."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"there are {len(self)} members, no number {i}")
        model = copy.deepcopy(self._template)
        with torch.no_grad():  # by name: a state dict lists tied weights twice, and leaves some buffers out
            for name, x in (*model.named_parameters(), *model.named_buffers()):
                x.copy_(self.members[i].state[name])
        return model

    def theta(self, i: int) -> dict[str, float | list[float]]:
        """The i-th member's global scientific parameters."""
        return {n: _number(v) for n, v in theta_values(self._template, self.members[i].state).items()}

    @property
    def frame(self) -> pd.DataFrame:
        """One row per member: method, label, settings, seed, theta.<name>, val_loss, status, steps, seconds."""
        rows = []
        for i, m in enumerate(self.members):
            rows.append(
                {"method": m.method.name, "label": m.method.label, "settings": m.method.settings, "seed": m.seed,
                 **{f"theta.{n}": v for n, v in self.theta(i).items()},
                 "val_loss": m.val_loss, "status": m.status, "steps": m.steps, "seconds": m.seconds}
            )  # fmt: skip
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        counts = pd.Series([m.status for m in self.members]).value_counts()
        return f"Runs({len(self)} members: {', '.join(f'{n} {s}' for s, n in counts.items())})"
