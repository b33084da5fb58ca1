"""How a check asks an answer: guarded calls, and readers that say what they got instead of a number."""

from __future__ import annotations

import copy
import linecache
import math
import traceback
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from hybridsam_lite.exercises.verdict import Unanswered, Wrong

__all__ = ["Ask", "brief", "close", "dict_of", "number", "numbers", "require", "tensor", "yes"]


class Ask:
    """The student's function, for checks: raises `Wrong` with a sentence wherever it misbehaves.

    Each call works on copies of the arguments, and a function that changes them in place is told so.
    """

    def __init__(self, answer: Any, name: str) -> None:
        if not callable(answer):
            raise Wrong(f"Expected the function `{name}`, got {brief(answer)}. Pass the function itself, without ().")
        self.answer, self.name = answer, name
        self.random = torch.Generator().manual_seed(0)

    def __call__(self, *arguments: Any) -> Any:
        given = copy.deepcopy(arguments)
        answer = self.outcome(self.answer, *given)
        for before, after in zip(arguments, given, strict=True):
            if not _same(before, after):
                raise Wrong(
                    f"`{self.name}` changes one of its arguments in place. Work on copies, and return the result."
                )
        return answer

    def outcome(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of the student returns: the answer itself, or a function that it returned."""
        if not callable(function):
            raise Wrong(f"`{self.name}` should return a function, got {brief(function)}.")
        try:
            return function(*arguments)
        except NotImplementedError as error:
            if _from_stub(error):
                raise Unanswered from None
            raise Wrong(self._failed(error, arguments)) from None
        except (Wrong, Unanswered, TimeUp):
            raise
        except (KeyboardInterrupt, SystemExit, Exception) as error:
            raise Wrong(self._failed(error, arguments)) from None

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Random numbers in double precision, the same in every check."""
        return low + (high - low) * torch.rand(shape, generator=self.random, dtype=torch.float64)

    def normal(self, *shape: int) -> Tensor:
        """The same, from the normal distribution."""
        return torch.randn(shape, generator=self.random, dtype=torch.float64)

    def _failed(self, error: BaseException, arguments: tuple[Any, ...]) -> str:
        text = str(error).strip().splitlines()
        said = f"{type(error).__name__}{': ' + text[0][:160] if text else ''}"
        return f"`{self.name}` stopped with {said}{_where(error, self.answer)}."


class TimeUp(BaseException):
    """Raised inside a check whose time is up; no `except Exception` of a student catches it."""


def _from_stub(error: BaseException) -> bool:
    return "replace this line" in str(error)


def _where(error: BaseException, answer: Any) -> str:
    """The line of the student's that was at work, if its text can be had."""
    code = getattr(answer, "__code__", None)
    home = code.co_filename if isinstance(code, CodeType) else None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == home]
    if not frames or frames[-1].lineno is None:
        return ""
    line = linecache.getline(frames[-1].filename, frames[-1].lineno).strip()
    return f', at the line "{line}"' if line else ""


def _same(before: Any, after: Any) -> bool:
    """Whether an argument is what it was, as far as it can be compared."""
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and torch.equal(before, after.detach())
    if isinstance(before, Mapping):
        return (
            isinstance(after, Mapping)
            and list(before) == list(after)
            and all(_same(before[k], after[k]) for k in before)
        )
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(_same(x, y) for x, y in zip(before, after, strict=True))
    return True


def brief(value: Any) -> str:
    """A value in a few words, whatever it is.

    >>> brief(torch.zeros(2, 3)), brief(None), brief(1.5)
    ('a tensor of shape (2, 3)', 'None', '1.5')
    """
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)[:40]
    if isinstance(value, (Tensor, np.ndarray)):
        kind = "a tensor" if isinstance(value, Tensor) else "an array"
        return f"{kind} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(repr(str(k))[:20] for k in list(value)[:5]) or 'nothing in it'}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, str):
        return f"the text {value[:30]!r}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def tensor(value: Any, what: str, shape: tuple[int, ...] | None = None) -> Tensor:
    """A value as a finite tensor in double precision, of a given shape."""
    try:
        found = (
            value.detach().double() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value, dtype=float))
        )
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Wrong(f"{_upper(what)} should be a tensor of numbers, got {brief(value)}.") from None
    if shape is not None and tuple(found.shape) != shape:
        if found.numel() != math.prod(shape) or found.numel() != 1:
            raise Wrong(f"{_upper(what)} should have the shape {shape}, got {brief(found)}.")
        found = found.reshape(shape)
    if not torch.isfinite(found).all():
        raise Wrong(f"{_upper(what)} holds nan or infinity.")
    return found


def number(value: Any, what: str) -> float:
    """A value as one finite number."""
    if isinstance(value, (bool, np.bool_)):
        raise Wrong(f"{_upper(what)} should be a number, got {value}.")
    if isinstance(value, (int, float)):
        value = [value]
    found = tensor(value, what)
    if found.numel() != 1:
        raise Wrong(f"{_upper(what)} should be one number, got {brief(value)}.")
    return float(found)


def numbers(value: Any, what: str, count: int) -> list[float]:
    """A tuple or list of a given length, of finite numbers."""
    if not isinstance(value, (tuple, list, Tensor, np.ndarray)) or len(value) != count:
        raise Wrong(f"{_upper(what)} should be {count} numbers, got {brief(value)}.")
    return [number(x, f"each part of {what}") for x in value]


def dict_of(value: Any, what: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A dict of finite tensors with the names and shapes of another."""
    if not isinstance(value, Mapping):
        raise Wrong(f"{_upper(what)} should be a dict from names to tensors, got {brief(value)}.")
    missing, extra = [n for n in like if n not in value], [str(n) for n in value if n not in like]
    if missing or extra:
        odd = f"{', '.join(missing)} missing" if missing else f"{', '.join(extra)} too many"
        raise Wrong(f"{_upper(what)} should have the names {', '.join(like)}: {odd}.")
    return {n: tensor(value[n], f"{what}[{n!r}]", tuple(x.shape)) for n, x in like.items()}


def yes(value: Any, what: str) -> bool:
    """A value as True or False."""
    if isinstance(value, (bool, np.bool_)) or (
        isinstance(value, Tensor) and value.dtype == torch.bool and value.numel() == 1
    ):
        return bool(value)
    raise Wrong(f"{_upper(what)} should be True or False, got {brief(value)}.")


def close(x: Any, y: Any, rtol: float = 1e-6, atol: float = 1e-9) -> bool:
    """Whether two results agree, in double precision with room for single."""
    return bool(torch.allclose(torch.as_tensor(x).double(), torch.as_tensor(y).double(), rtol=rtol, atol=atol))


def require(condition: Any, message: str) -> None:
    """End the check with a message unless the condition holds."""
    if not condition:
        wrong(message)


def wrong(message: str) -> NoReturn:
    """End the check with a message."""
    raise Wrong(message)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
