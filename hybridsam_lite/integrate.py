"""Solving ordinary differential equations inside a model.

`odeint` has two solvers of its own, explicit Euler and the classic fourth-order Runge-Kutta method.
They are plain tensor arithmetic on a fixed grid, so that `torch.func.vmap` can run them for a whole
stack of models. Every other method name goes to `torchdiffeq`.

Note that torchdiffeq's "rk4" is the 3/8 rule; here "rk4" is the classic rule.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["SolverError", "odeint"]

Rhs = Callable[[Tensor, Tensor], Tensor]


class SolverError(FloatingPointError):
    """The solution left the range of floating-point numbers, or no solver step could be taken."""


def _euler(rhs: Rhs, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
    return y + h * rhs(t, y)


def _rk4(rhs: Rhs, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
    k1 = rhs(t, y)
    k2 = rhs(t + h / 2, y + h / 2 * k1)
    k3 = rhs(t + h / 2, y + h / 2 * k2)
    k4 = rhs(t + h, y + h * k3)
    return y + h / 6 * (k1 + 2 * (k2 + k3) + k4)


_FIXED_STEP = {"euler": _euler, "rk4": _rk4}


def odeint(
    rhs: Rhs,
    y0: Tensor,
    t: Tensor,
    *,
    method: str = "rk4",
    substeps: int = 1,
    step: float | None = None,
    **options: Any,
) -> Tensor:
    """Solve y' = rhs(t, y) from `y0` at `t[0]` and return y at all times of `t`.

    Args:
        rhs: function of a scalar time and a state of `y0`'s shape; returns the time derivative.
        y0: initial state, any shape, usually (batch, state).
        t: times, shape (time,), strictly increasing or strictly decreasing, at least two.
        method: "rk4" (classic) or "euler", both vmappable; or any method of torchdiffeq
            ("dopri5", "dopri8", "bosh3", "implicit_adams", ...), which cannot be vmapped.
        substeps: solver steps per interval of `t`, for "rk4" and "euler".
        step: instead of `substeps`, the solver's step in units of `t`; must divide every interval.
        **options: passed to `torchdiffeq.odeint` (rtol, atol, options=...).

    Returns:
        The solution, shape (time, *y0.shape), differentiable in `y0` and in all that `rhs` uses.

    Raises:
        ValueError: unknown method, a bad time grid, a step that does not divide the grid, or an rhs
            whose result does not have the state's shape.
        SolverError: the solution is not finite. Inside `torch.func` transforms no exception can depend
            on data; there the non-finite values are returned and `hs.fit` marks the member as diverged.

    Source: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section II.1 (RK4);
    Chen et al., "Neural ordinary differential equations", NeurIPS 2018 (torchdiffeq).

    >>> t = torch.linspace(0, 1, 11)
    >>> y = odeint(lambda t, y: -y, torch.ones(1, 1), t)
    >>> y.shape, round(float(y[-1]), 5)             # exp(-1) = 0.36788
    (torch.Size([11, 1, 1]), 0.36788)
    """
    if options.pop("adjoint", False):
        raise ValueError(
            "odeint(adjoint=True) is refused: torchdiffeq's odeint_adjoint gives no gradient to parameters that "
            "rhs only captures, theta among them; drop adjoint (plain backpropagation through the solver is exact)"
        )
    gaps = _intervals(t)
    rhs = _with_checked_shape(rhs)
    if method not in _FIXED_STEP:
        solution = _torchdiffeq(rhs, y0, t, method, substeps, step, options)
    else:
        if options:
            raise ValueError(f"odeint: method {method!r} takes substeps or step, got {', '.join(options)}")
        solution = _fixed_step(_FIXED_STEP[method], rhs, y0, t, _count_substeps(t, gaps, substeps, step))
    _check_finite(solution, t)
    return solution


def _fixed_step(advance: Callable[..., Tensor], rhs: Rhs, y0: Tensor, t: Tensor, counts: list[int]) -> Tensor:
    y, states = y0, [y0]
    for i, n in enumerate(counts):
        h = (t[i + 1] - t[i]) / n
        for k in range(n):
            y = advance(rhs, t[i] + k * h, h, y)
        states.append(y)
    return torch.stack(states)


def _torchdiffeq(
    rhs: Rhs,
    y0: Tensor,
    t: Tensor,
    method: str,
    substeps: int,
    step: float | None,
    options: dict[str, Any],
) -> Tensor:
    import torchdiffeq  # and with it SciPy: half a start-up
    from torchdiffeq._impl.odeint import SOLVERS

    solvers = [m for m in SOLVERS if m != "scipy_solver"]  # which gives no gradients
    if method not in solvers:
        known = [*_FIXED_STEP, *(m for m in solvers if m not in _FIXED_STEP)]
        close = difflib.get_close_matches(str(method), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"odeint: unknown method {method!r}.{hint} Expected one of: {', '.join(known)}")
    if substeps != 1 or step is not None:
        raise ValueError(
            f"odeint: substeps and step belong to 'rk4' and 'euler'; for {method!r} use rtol and atol, or options="
        )
    try:
        return torchdiffeq.odeint(rhs, y0, t, method=method, **options)
    except AssertionError as error:  # torchdiffeq asserts on a step underflow or a NaN
        raise SolverError(
            f"odeint: {method!r} gave up ({error}); the right-hand side blows up or is too stiff: "
            "check theta's range, shorten the time span, or loosen rtol and atol"
        ) from error
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        raise ValueError(
            f"odeint: {method!r} is torchdiffeq's and takes decisions from the data, which torch.func.vmap "
            "cannot do; use method='rk4' or 'euler', or train with hs.fit(..., vectorize=False)"
        ) from error


def _with_checked_shape(rhs: Rhs) -> Rhs:
    """Broadcasting would silently turn a rate of another shape into another system."""

    def checked(t: Tensor, y: Tensor) -> Tensor:
        rate = rhs(t, y)
        if rate.shape != y.shape:
            raise ValueError(f"odeint: rhs must return the state's shape {tuple(y.shape)}, got {tuple(rate.shape)}")
        return rate

    return checked


def _concrete(condition: Tensor) -> bool:
    """The truth value of a scalar tensor, or False where a transform hides it (vmap)."""
    if torch.compiler.is_compiling():
        return False
    try:
        return bool(condition)
    except RuntimeError:
        return False


_GRIDS = WeakIdKeyDictionary()  # time grid -> (its version, its intervals): a GPU is asked for its times only once


def _intervals(t: Tensor) -> list[float] | None:
    """The intervals of a valid grid; None where a transform hides its values."""
    if not isinstance(t, Tensor) or t.ndim != 1 or len(t) < 2:
        got = f"shape {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        raise ValueError(f"odeint: t must be a tensor of shape (time,) with at least two times, got {got}")
    if torch.compiler.is_compiling():
        return None
    version = -1 if t.is_inference() else t._version
    known: tuple[int, list[float]] | None = _GRIDS.get(t)
    if known is not None and known[0] == version >= 0:
        return known[1]
    try:
        gaps: list[float] = t.detach().diff().tolist()
    except RuntimeError:
        return None
    if not (all(gap > 0 for gap in gaps) or all(gap < 0 for gap in gaps)):
        raise ValueError(f"odeint: t must be strictly increasing or strictly decreasing, got {t.tolist()}")
    _GRIDS[t] = version, gaps
    return gaps


def _count_substeps(t: Tensor, gaps: list[float] | None, substeps: int, step: float | None) -> list[int]:
    """Solver steps in each interval of the grid."""
    if step is None:
        if not isinstance(substeps, int) or substeps < 1:
            raise ValueError(f"odeint: substeps must be a positive integer, got {substeps!r}")
        return [substeps] * (len(t) - 1)
    if substeps != 1:
        raise ValueError("odeint: give substeps or step, not both")
    if not step > 0:
        raise ValueError(f"odeint: step must be a positive number, got {step!r}")
    counts = []
    for gap in map(abs, t.diff().tolist() if gaps is None else gaps):
        n = round(gap / step)
        if n < 1 or abs(gap - n * step) > 1e-4 * step * n:
            raise ValueError(
                f"odeint: step {step:g} does not divide the interval {gap:g} of the time grid; "
                f"use a step such as {gap / max(1, -(-gap // step)):g}, or substeps"
            )
        counts.append(n)
    return counts


def _check_finite(solution: Tensor, t: Tensor) -> None:
    if _concrete(~torch.isfinite(solution).all()):
        first = int((~torch.isfinite(solution.reshape(len(t), -1)).all(1)).nonzero()[0])
        raise SolverError(
            f"odeint: the solution is not finite from t = {t[first].item():g} on; the right-hand side blows up or the "
            "step is unstable: check theta's range, use more substeps, or train on shorter windows"
        )
