"""What counts as the library's own error."""

from __future__ import annotations

import dis
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

from tools.checks import ROOT

__all__ = ["Refusal", "Slow", "complaint", "limited", "place"]

HOMES = (str(ROOT / "hybridsam_lite"), str(ROOT / "tools" / "grade"))
RAISES = dis.opmap["RAISE_VARARGS"]
LONGEST = 2000  # characters of a message


class Refusal(Exception):
    """In place of the error of something that says no in another way."""


class Slow(BaseException):
    """Something took too long; no `except Exception` catches it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Slow` after so many seconds; in the main thread, where signals arrive."""

    def ring(_: int, __: FrameType | None) -> None:
        raise Slow(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _origin(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def place(error: BaseException) -> str:
    """Kind and origin of an error: the same for the same defect."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def complaint(error: BaseException, names: str = "") -> str | None:
    """Why an error is none that a user should see; None if it is the library's own.

    That is one that a `raise` of the library made, on purpose and with a message in one line, or an error of the
    system that names a file. `names` is a word that the message must hold, such as the file's name.

    >>> complaint(KeyError("x"))
    "KeyError: 'x' was not raised by the library"
    """
    text, trace = str(error), _origin(error)
    said = f"{type(error).__name__}: {text[:300]}"
    of_system = isinstance(error, OSError) and error.errno is not None and error.filename is not None
    if not of_system and not isinstance(error, Refusal):
        if trace is None or not trace.tb_frame.f_code.co_filename.startswith(HOMES):
            return f"{said} was not raised by the library"
        if trace.tb_frame.f_code.co_code[trace.tb_lasti] != RAISES:
            return f"{said} was not raised on purpose"
    if not text.strip() or "\n" in text or len(text) > LONGEST:
        return f"{said} is not a message of one line ({len(text)} characters)"
    if names and names not in text:
        return f"{said} does not name {names}"
    return None
