"""Watch a training, and steer it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import pandas as pd

from hybridsam_lite.live import Background
from hybridsam_lite.plots.courses import history
from hybridsam_lite.plots.look import style
from hybridsam_lite.runs import Runs
from hybridsam_lite.widgets.parts import figure as new_figure
from hybridsam_lite.widgets.parts import ipywidgets
from hybridsam_lite.widgets.parts import picture as as_picture
from hybridsam_lite.widgets.parts import said as as_said

__all__ = ["Monitor", "monitor"]

REFRESH = 1.0  # seconds between two pictures of a running training, at least


class Monitor:
    """A running training with its curves and controls; see `monitor`.

    Attributes:
        run: the training in its thread, `hs.live.Background`.
        panel: the ipywidgets box.
    """

    def __init__(self, start: Callable[[Callable[[], None]], Background], look: dict[str, Any]) -> None:
        self._widgets, self._look = ipywidgets(), look
        self._pending, self._last, self._cost, self._shown = False, 0.0, 0.0, list[int]()
        try:  # pictures are drawn by the notebook's own thread, between cells: matplotlib is not made for two
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self.run = start(self._notified)
        try:
            self.panel = self._build()
            self.refresh()
            self._cost = 0.0  # the first picture also loads fonts, which the next ones need not
        except BaseException:  # theta has no such name, for example: do not train on without a monitor
            self.run.stop()
            raise

    @property
    def runs(self) -> Runs:
        """The result; an error while the training goes on."""
        return self.run.runs

    def wait(self, timeout: float | None = None) -> Runs:
        """Wait for the result; the controls rest meanwhile, for the notebook is busy."""
        try:
            return self.run.wait(timeout)
        finally:
            self.refresh()

    def refresh(self) -> None:
        """Draw the present state."""
        self._pending, before = False, time.monotonic()
        run, rows = self.run, pd.DataFrame(self.run.rows)
        over = run.state in ("done", "stopped", "failed")
        self._progress.max, self._progress.value = max(1, run.steps), run.step
        self._pause.disabled, self._resume.disabled = run.state != "training", run.state != "paused"
        self._stop.disabled, self._rho.disabled = over, over or "rho" not in run.settings
        if run.members != self._shown:  # another stack, with a rho of its own
            self._shown = run.members
            self._rho.unobserve(self._typed, "value")
            self._rho.value = round(run.settings.get("rho", [0.0])[0], 8)
            self._rho.observe(self._typed, "value")
        said = f"{', '.join(run.labels)}: {run.state}, step {run.step} of {run.steps}."
        if len(rows):
            said += f" Training loss {rows['train_loss'].tail(len(set(rows['member']))).median():.2e}."
        said += f" Not changed: {run.refused}." if run.refused else ""
        said += f" {type(run.error).__name__}: {run.error}" if run.error else ""
        self._text.value = as_said(said)
        if len(rows):
            figure = new_figure()
            with style():
                history(rows, ax=figure.subplots(1, 2), **self._look)
                self._picture.value = as_picture(figure, said)
        self._last = time.monotonic()
        self._cost = self._last - before

    def _build(self) -> Any:
        w = self._widgets
        self._pause = w.Button(description="Pause", icon="pause", tooltip="hold after the current step")
        self._resume = w.Button(description="Resume", icon="play", tooltip="go on")
        self._stop = w.Button(description="Stop", icon="stop", tooltip="end now; keep what was learned")
        self._rho = w.BoundedFloatText(min=0, max=1e6, step=0.01, description="rho")
        self._progress = w.IntProgress(description="steps")
        self._text, self._picture = w.HTML(), w.HTML()
        for button, act in (
            (self._pause, self.run.pause),
            (self._resume, self.run.resume),
            (self._stop, self.run.stop),
        ):
            button.on_click(functools.partial(self._pressed, act))
        self._rho.observe(self._typed, "value")
        buttons = w.HBox([self._pause, self._resume, self._stop, self._rho], layout={"flex_flow": "row wrap"})
        return w.VBox([buttons, self._progress, self._text, self._picture])

    def _pressed(self, act: Callable[[], None], _: Any) -> None:
        act()
        self.refresh()

    def _typed(self, change: Any) -> None:
        self.run.set(rho=change["new"])

    def _notified(self) -> None:
        """In the training's thread: ask the notebook's thread for a new picture, unless one is on its way."""
        if self._loop is not None and not self._pending:
            self._pending = True
            with suppress(RuntimeError):  # the notebook has been closed
                self._loop.call_soon_threadsafe(self._soon)

    def _soon(self) -> None:
        assert self._loop is not None
        wait = self._last + REFRESH + 4 * self._cost - time.monotonic()
        self._loop.call_later(max(0.0, wait), self.refresh)

    def _ipython_display_(self) -> None:
        import_module("IPython.display").display(self.panel)

    def __repr__(self) -> str:
        return f"Monitor({', '.join(self.run.labels)}: {self.run.state}, step {self.run.step} of {self.run.steps})"


def monitor(
    train: Callable[..., Runs],
    *arguments: Any,
    truth: float | None = None,
    name: str | None = None,
    unit: str = "",
    **options: Any,
) -> Monitor:
    """Train in the background, with live curves and buttons to pause, resume, stop, and to change rho.

    It returns after the first step. A changed rho is written into the label and settings of the members, which
    then belong to no setting: such runs show what rho does, and are no result to compare. See
    `hs.live.Background` for what not to do meanwhile.

    Args:
        train: `hs.fit`, or a task's `fit`.
        arguments, options: for it.
        truth, name, unit: of theta, as in `hs.plots`; name is needed if there are several.

    Returns:
        A `Monitor`, whose `runs` is the result when the training is over.

    Raises:
        ImportError: without ipywidgets.
        RuntimeError: if another training is running. And what `train` itself raises before its first step.

    >>> import torch, hybridsam_lite as hs
    >>> class Line(hs.HybridModel):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.theta, self.net = hs.Theta(slope=hs.Real(init=(0.0, 1.0))), hs.mlp(1, [2], 1)
    ...     def forward(self, x):
    ...         return self.theta.slope * x + self.net(x)
    >>> x = torch.linspace(-1, 1, 8)[:, None]
    >>> seen = monitor(hs.fit, Line, (x, x), methods=["sam:rho=0.1"], seeds=[0], steps=3)
    >>> seen.wait()
    Runs(1 members: 1 ok)
    """
    ipywidgets()
    look = {"truth": truth, "name": name, "unit": unit}
    return Monitor(lambda notify: Background(train, *arguments, notify=notify, **options), look)
