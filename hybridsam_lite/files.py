"""Writing so that nothing is lost: whole files or none, one process at a time, interrupts only between steps."""

from __future__ import annotations

import io
import json
import os
import signal
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, TypeVar

import torch
from filelock import FileLock, Timeout

__all__ = [
    "Checkpoint",
    "DeferredInterrupt",
    "check_form",
    "load_state",
    "save_state",
    "sole_writer",
    "write_atomically",
]

T = TypeVar("T")
PART = ".part"  # ends the name of a file that is being written


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Replace `path` by what `write(file)` writes; a crash leaves the old file or the new one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "a.txt"
    ...     write_atomically(target, lambda file: file.write(b"whole"))
    ...     target.read_text()
    'whole'
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
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


@contextmanager
def sole_writer(lock: Path, *targets: Path) -> Iterator[None]:
    """Hold the file `lock`, so that no other process writes `targets` meanwhile; a dead process lets go of it.

    Whoever holds it clears what a killed writer of a target (a file, or any file of a folder) left half-written.

    Raises:
        BlockingIOError: if another process holds it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, sole_writer(Path(folder) / "lock"):
    ...     with sole_writer(Path(folder) / "lock"):
    ...         pass
    Traceback (most recent call last):
    BlockingIOError: ... is being written by another process; wait for it, or choose another folder
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(
            f"{lock.parent} is being written by another process; wait for it, or choose another folder"
        ) from None
    try:
        for target in targets:
            folder, name = (target, "") if target.is_dir() else (target.parent, target.name)
            for half in folder.glob(f".{name}*{PART}"):
                half.unlink(missing_ok=True)
        yield
    finally:
        held.release()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state file, for `load_state`."""
    buffer = io.BytesIO()  # torch hides an error of the disk behind one of its own
    torch.save(state, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def load_state(path: Path, device: torch.device, take_over: Callable[[dict[str, Any]], T]) -> T:
    """Read a state file, never running code from it, and return what `take_over(state)` makes of it.

    Raises:
        ValueError: if the file is damaged or not a state of this run.
    """
    try:
        _check_size(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a format that torch does not know
            state = torch.load(path, map_location=device, weights_only=True)
        return take_over(state)
    except Exception as error:  # torch.load raises many kinds for a damaged or foreign file
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ValueError(
            f"{path} is damaged or was not written by hs.fit, and was left as it is ({reason}); "
            "delete it to train its members again from their start, or choose another folder"
        ) from error


def check_form(found: Any, expected: Any, what: str = "the state") -> None:
    """Refuse a state whose names, shapes or types are not those of another.

    Raises:
        ValueError: which part of it differs.
    """
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            raise ValueError(f"{what} holds other things")
        for name, part in expected.items():
            check_form(found[name], part, str(name))
    elif isinstance(expected, torch.Tensor):
        if not isinstance(found, torch.Tensor) or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise ValueError(f"{what} has another shape or type")
    elif type(found) is not type(expected):
        raise ValueError(f"{what} is {found!r:.40}")


def _check_size(path: Path) -> None:
    """Refuse what `save_state` does not write: a file that is small, and large when it is unpacked."""
    with zipfile.ZipFile(path) as content:
        if sum(member.file_size for member in content.infolist()) > path.stat().st_size:
            raise ValueError("it is packed, which states are not")


class Checkpoint:
    """A folder with a description of the run and one state file per stack; as a context, written by nobody else.

    Raises:
        FileExistsError, ValueError: if the folder holds another run, or anything that is not to be overwritten.
        BlockingIOError: on entering, if another process is at this run.
    """

    def __init__(self, folder: Path, config: dict[str, Any], resume: bool) -> None:
        self.folder, self._config, self._resume = folder, config, resume
        self._is_there()

    def __enter__(self) -> Checkpoint:
        with ExitStack() as context:
            context.enter_context(sole_writer(self.folder / ".lock", self.folder))
            if not self._is_there():
                text = json.dumps(self._config, indent=1, default=float)  # float: numpy's numbers
                write_atomically(self.folder / "config.json", lambda file: file.write(text.encode()))
            self._held = context.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._held.close()

    def _is_there(self) -> bool:
        """Whether the folder holds this very run, to be resumed; refuses a folder that holds anything else."""
        description = self.folder / "config.json"
        if not description.exists():
            if any(self.folder.glob("stack-*.pt")):
                raise FileExistsError(
                    f"{self.folder} holds states but no config.json to tell whose; choose another folder"
                )
            return False
        if not self._resume:
            raise FileExistsError(
                f"{self.folder} holds another run; pass resume=True to continue it, or choose another folder"
            )
        try:
            before = json.loads(description.read_bytes().decode("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{description} is damaged or foreign; choose another folder ({error!s:.200})") from error
        if not isinstance(before, dict):
            raise ValueError(f"{description} is foreign: it describes no run; choose another folder")
        changed = [k for k in self._config if self._config[k] != before.get(k)]
        if changed:
            pairs = "; ".join(f"{k}: {before.get(k)!s:.100} there, {self._config[k]!s:.100} now" for k in changed)
            raise ValueError(f"{self.folder} holds a run with other settings, which cannot be resumed ({pairs})")
        return True

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
