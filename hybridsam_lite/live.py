"""Training that can be watched and steered: what a callback of `fit` sees, and `fit` in a thread with brakes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hybridsam_lite.methods import Method
from hybridsam_lite.methods.base import Names
from hybridsam_lite.runs import Runs, number
from hybridsam_lite.stack import STOPPED, Stack

__all__ = ["Background", "Changed", "Training", "alone"]

POINTS = 200  # of a live curve, for each stack
_turn = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Refuse to train in two threads at once: torch's random numbers belong to the whole process."""
    if not _turn.acquire(blocking=False):
        raise RuntimeError(
            "fit: another thread of this process is training (a monitor, perhaps paused), and both would draw from "
            "the same random numbers; wait until it is done, or stop it"
        )
    try:
        yield
    finally:
        _turn.release()


@dataclass(frozen=True)
class Changed(Method):
    """How a member was trained whose settings were changed on the way: no method that could be run again.

    Its settings and label say so in words, which neither `hs.select` nor `parse_method` takes for a number.

    >>> from hybridsam_lite.methods import SharpnessAware
    >>> Changed(SharpnessAware(rho=0.1), (("rho", 0.2, 120),)).label
    'sam:rho=0.1 then 0.2 from step 120'
    """

    names: ClassVar[Names] = {}
    method: Method
    changes: tuple[tuple[str, float, int], ...]  # (setting, value, steps before it)

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(self.method.settings)
        for setting, value, step in self.changes:
            found[setting] = f"{found.get(setting, getattr(self.method, setting))} then {value:g} from step {step}"
        return found


class Training:
    """What `fit` hands to its callback after every step: the members of one stack, while they are trained.

    A callback that changes nothing leaves the result as it is, bit for bit. Tensors are on the training's device.

    Attributes:
        step, steps: taken, and in all.
        losses: data loss of each in this step, shape (member,).
        val_loss: at the last validation, shape (member,); NaN without validation data.
        stopped: whether `stop` was called.
    """

    def __init__(self, callback: Callable[[Training], Any] | None, resumable: bool) -> None:
        self._callback, self._resumable = callback, resumable
        self.stopped = False

    def begin(self, stack: Stack, plan: Sequence[tuple[Method, int]], members: Sequence[int], steps: int) -> None:
        """For `fit`: a new stack."""
        self._stack, self._members = stack, list(members)
        self._methods, self._seeds = [plan[i][0] for i in members], [plan[i][1] for i in members]
        self.step, self.steps = 0, steps
        if self.stopped:
            self.stop()

    def report(self, step: int, losses: Tensor, val_loss: Tensor) -> float:
        """For `fit`: call the callback; returns the seconds that it took, which are not the training's."""
        if self._callback is None:
            return 0.0
        before = time.monotonic()
        self.step, self.losses, self.val_loss = step, losses.detach(), val_loss
        self._callback(self)
        return time.monotonic() - before

    @property
    def methods(self) -> list[Method]:
        """How each member is trained; what `set` changed is recorded in it."""
        return list(self._methods)

    @property
    def labels(self) -> list[str]:
        """The members' labels, with what was changed."""
        return [method.label for method in self._methods]

    @property
    def seeds(self) -> list[int]:
        """The members' seeds."""
        return list(self._seeds)

    @property
    def members(self) -> list[int]:
        """The members' places in the `Runs`."""
        return list(self._members)

    @property
    def theta(self) -> dict[str, Tensor]:
        """Name -> values of the global scientific parameters, shape (member, ...)."""
        return {n: v.detach().clone() for n, v in self._stack.theta().items()}

    @property
    def settings(self) -> dict[str, Tensor]:
        """Name -> value of each number that `set` can change, shape (member,)."""
        return {n: v.clone() for n, v in self._stack.hyper.items()}

    def set(self, **settings: float) -> None:
        """Change settings of the living members from the next step on: `training.set(rho=0.2)`.

        The members' labels and settings then tell of the change, in `Runs` and in records.

        Raises:
            ValueError: for a setting that this stack's method does not have, or a value that it does not admit; in
                a run with a checkpoint, for a resumed run would not know of the change.
        """
        known = self._stack.hyper
        if unknown := [name for name in settings if name not in known]:
            there = f"it has: {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{self._methods[0].name} has no setting {unknown[0]!r} to change; {there}")
        if self._resumable:
            raise ValueError(f"{', '.join(settings)} cannot be changed in a run with a checkpoint; train without one")
        replace(self._stack.method, **settings)  # refuses what the method refuses
        for name, value in settings.items():
            new = known[name].new_tensor(float(value))
            for j in torch.nonzero(self._stack.alive & (known[name] != new)).flatten().tolist():
                before = self._methods[j]
                method, changes = (before.method, before.changes) if isinstance(before, Changed) else (before, ())
                self._methods[j] = Changed(method, (*changes, (name, float(value), self.step)))
                known[name][j] = new

    def stop(self) -> None:
        """End this run: living members, also of stacks that are still to come, get the status "stopped"."""
        self.stopped = True
        self._stack.status[self._stack.alive] = STOPPED


class Background:
    """`fit` in a thread, with brakes. It returns from its construction after the first step, or with `fit`'s error.

    While it trains: train nothing else in this process (it is refused), and draw no random numbers of torch, for
    models with dropout draw from the same ones; afterwards torch's random state is what it was at the start. The
    number of CPU threads is set for the training's own thread.

    Args:
        train: `hs.fit`, or a task's `fit`.
        arguments, options: for it; the progress bar is off unless asked for.
        notify: called after each point of the live curve and at the end, in the training's thread.

    Attributes:
        step, steps: of the stack in training: taken, and in all.
        labels, members: of the members of this stack, and their places in the `Runs`.
        settings: name -> value for each of them.
        refused: why the last change of a setting was not made, or None.
        error: what ended the training, or None.

    >>> import torch, hybridsam_lite as hs
    >>> x = torch.linspace(-1, 1, 8)[:, None]
    >>> run = Background(hs.fit, lambda: hs.mlp(1, [2], 1), (x, x), methods=["erm"], seeds=[0], steps=3)
    >>> len(run.wait()), run.state
    (1, 'done')
    """

    def __init__(
        self, train: Callable[..., Runs], *arguments: Any, notify: Callable[[], Any] | None = None, **options: Any
    ) -> None:
        if "callback" in options:
            raise ValueError("the callback of a monitored run is the monitor's; call hs.fit with your own instead")
        self._train, self._arguments = train, arguments
        self._options = {"progress": False, **options, "callback": self._after_step}
        self._notify = notify or (lambda: None)
        self._begun, self._news = threading.Event(), threading.Condition()  # of a first step; of wishes
        self._wishes: dict[str, float] = {}
        self._paused = self._to_stop = self._stopped = False
        self._rows: list[dict[str, Any]] = []
        self._runs: Runs | None = None
        self.refused: str | None = None
        self.error: BaseException | None = None
        self.step, self.steps, self.labels, self.members = 0, 0, list[str](), list[int]()
        self.settings: dict[str, list[float]] = {}
        self._thread = threading.Thread(target=self._work, name="hybridsam training", daemon=True)
        try:
            self._thread.start()
            self._begun.wait()
        except BaseException:  # interrupted: nobody would have a handle on the thread
            self.stop()
            raise
        if self.error is not None:
            raise self.error

    @property
    def state(self) -> str:
        """In a word: "training", "paused", "done", "stopped" or "failed"."""
        if self.error is not None:
            return "failed"
        if self._runs is not None:
            return "stopped" if self._stopped else "done"
        return "paused" if self._paused and not self._to_stop else "training"

    @property
    def runs(self) -> Runs:
        """The result; an error while the training goes on, and the training's own error if it failed."""
        if self.error is not None:
            raise self.error
        if self._runs is None:
            raise RuntimeError(f"the run is {self._where}; wait for it, or stop it")
        return self._runs

    @property
    def _where(self) -> str:
        return f"{self.state} at step {self.step} of {self.steps}"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The live curve: rows as in `Runs.history`, with val_loss NaN in between validations."""
        with self._news:
            return list(self._rows)

    def wait(self, timeout: float | None = None) -> Runs:
        """The result, when it is there; `timeout` in seconds. A paused run is not waited for."""
        if self.state == "paused":
            raise RuntimeError(f"the run is {self._where}; resume it, or stop it, before you wait for it")
        self._thread.join(timeout)
        return self.runs

    def pause(self) -> None:
        """Hold after the current step."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        with self._news:
            self._paused = False
            self._news.notify_all()

    def stop(self) -> None:
        """End after the current step; members keep what they have learned, with status "stopped"."""
        with self._news:
            self._to_stop = True
            self._news.notify_all()

    def set(self, **settings: float) -> None:
        """Change settings, such as rho, from the next step on; also while paused. See `Training.set`."""
        with self._news:
            self._wishes.update(settings)
            self._news.notify_all()

    def _work(self) -> None:
        try:
            self._runs = self._train(*self._arguments, **self._options)
        except BaseException as error:  # shown by `runs` and `wait`; a thread has nobody else to tell
            self.error = error
        finally:
            self._begun.set()
            self._notify()

    def _after_step(self, training: Training) -> None:
        """The callback: in the training's thread, after every step."""
        self.step, self.steps = training.step, training.steps
        if training.step % max(1, training.steps // POINTS) == 0 or training.step in (1, training.steps):
            self._observe(training)
        self._begun.set()
        self._grant(training)
        while self._holds():
            self._grant(training)
        if self._to_stop:
            self._stopped = True
            training.stop()

    def _holds(self) -> bool:
        """Whether the run is paused; if so, there is news."""
        with self._news:
            if not self._paused or self._to_stop:
                return False
            self._news.wait_for(lambda: self._wishes or not self._paused or self._to_stop)
            return True

    def _grant(self, training: Training) -> None:
        with self._news:
            wishes, self._wishes = self._wishes, {}
        for name, value in wishes.items():
            try:
                training.set(**{name: value})
                self.refused = None
            except ValueError as error:
                self.refused = str(error)
        if wishes:
            self._describe(training)
            self._notify()

    def _describe(self, training: Training) -> None:
        self.settings = {n: v.tolist() for n, v in training.settings.items()}
        self.labels, self.members = list(dict.fromkeys(training.labels)), training.members

    def _observe(self, training: Training) -> None:
        self._describe(training)
        theta, losses = training.theta, training.losses.tolist()
        new = []
        for j, (label, seed) in enumerate(zip(training.labels, training.seeds, strict=True)):
            values = {f"theta.{n}": number(v[j]) for n, v in theta.items()}
            member = {"member": self.members[j], "label": label, "seed": seed, "step": training.step}
            new.append({**member, "train_loss": losses[j], "val_loss": float(training.val_loss[j]), **values})
        with self._news:
            self._rows += new
        self._notify()
