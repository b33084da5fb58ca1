"""Writing so that nothing is lost: whole files or none, and interrupts only between steps."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, TypeVar

import torch

__all__ = ["Checkpoint", "DeferredInterrupt", "load_state", "write_atomically"]

T = TypeVar("T")


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Replace `path` by what `write(file)` writes; a crash leaves the old file or the new one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "a.txt"
    ...     write_atomically(target, lambda file: file.write(b"whole"))
    ...     target.read_text()
    'whole'
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_state(path: Path, device: torch.device, take_over: Callable[[dict[str, Any]], T]) -> T:
    """Read a state file, never running code from it, and return what `take_over(state)` makes of it.

    Raises:
        ValueError: if the file is damaged or not a state of this run.
    """
    try:
        return take_over(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:  # torch.load raises many kinds for a damaged or foreign file
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"{path} is damaged or was not written by hs.fit, and was left as it is ({reason}); "
            "delete it to train its members again from their start, or choose another folder"
        ) from error


class Checkpoint:
    """A folder with a description of the run and one state file per stack."""

    def __init__(self, folder: Path, config: dict[str, Any], resume: bool) -> None:
        self.folder = folder
        description = folder / "config.json"
        if description.exists():
            if not resume:
                raise FileExistsError(
                    f"{folder} holds another run; pass resume=True to continue it, or choose another folder"
                )
            try:
                before = dict(json.loads(description.read_text()))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{description} is damaged or foreign; choose another folder ({error})") from error
            changed = [k for k in config if config[k] != before.get(k)]
            if changed:
                pairs = "; ".join(f"{k}: {before.get(k)} there, {config[k]} now" for k in changed)
                raise ValueError(f"{folder} holds a run with other settings, which cannot be resumed ({pairs})")
        elif any(folder.glob("stack-*.pt")):
            raise FileExistsError(f"{folder} holds states but no config.json to tell whose; choose another folder")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(config, indent=1, default=float)  # float: numpy's numbers
            write_atomically(description, lambda file: file.write(text.encode()))

    def stack(self, k: int) -> Path:
        """File of the k-th stack."""
        return self.folder / f"stack-{k}.pt"


class DeferredInterrupt:
    """Holds back Ctrl-C while a step is being taken; a second Ctrl-C interrupts at once.

    The loop asks `pending` between steps; on exit a Ctrl-C that nobody asked about is raised. In
    other threads than the main one, where Python allows no signal handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.pending = False

    def __enter__(self) -> DeferredInterrupt:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._previous)
        if self.pending and kind is None:
            raise KeyboardInterrupt
