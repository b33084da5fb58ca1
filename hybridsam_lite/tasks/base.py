"""What a task is, and how it is simulated, cut into windows, trained and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import as_prediction
from hybridsam_lite.methods import Method
from hybridsam_lite.runs import Runs
from hybridsam_lite.train import fit

__all__ = ["PRESETS", "Task", "simulate", "windows"]

PRESETS = ("smoke", "quick", "full")

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Task:
    """Data, a hybrid model with a known truth, and a training protocol.

    The truth is used by `score` and nowhere else: neither the data nor the model nor training hold it.

    Attributes:
        name, variant, preset: what this is.
        train, val, test: data.
        model: builds a new model.
        theta_true: name -> true value, or (amortized) its values on the test samples, shape (sample,).
        units: name -> unit.
        training: keyword arguments of `hs.fit`.
        origin: "simulated", "real" or "stand-in".
        listed: the value that a public listing gives for the paper's result, if any.
    """

    name: str
    variant: str
    preset: str
    train: Data
    val: Data
    test: Data
    model: Callable[[], nn.Module]
    theta_true: dict[str, float | Tensor]
    units: dict[str, str]
    training: dict[str, Any]
    origin: str = "simulated"
    listed: float | None = None
    notes: str = field(default="", repr=False)

    def fit(self, methods: Sequence[Method | str], seeds: Iterable[int], **changes: Any) -> Runs:
        """Train with the task's protocol; `changes` override `training` or go to `hs.fit`."""
        return fit(
            self.model,
            self.train,
            self.val,
            methods=methods,
            seeds=seeds,
            **{**self.training, **changes},
        )

    @torch.no_grad()
    def score(self, runs: Runs) -> pd.DataFrame:
        """`runs.frame` with theta_hat, theta_true, theta_error and test_loss.

        theta_error is the mean of |theta_hat - theta_true| over components (and, if theta is amortized,
        over the test samples; theta_hat and theta_true then hold the means).
        """
        rows = []
        for i in range(len(runs)):
            model = runs.model(i)
            prediction = as_prediction(model(self.test.inputs))
            loss = ((prediction.value.movedim(runs.sample_axis, 0) - self.test.target) ** 2).mean()
            found: dict[str, Any] = {**runs.theta(i), **(prediction.theta or {})}
            estimates = {n: torch.as_tensor(found[n], dtype=torch.float64) for n in self.theta_true}
            truths = {n: torch.as_tensor(v, dtype=torch.float64) for n, v in self.theta_true.items()}
            for n in truths:
                if truths[n].ndim and estimates[n].numel() != truths[n].numel():
                    raise ValueError(
                        f"{self.name}: theta {n!r} has {estimates[n].numel()} estimates for {truths[n].numel()} truths"
                    )
            errors = [(estimates[n].reshape(truths[n].shape) - truths[n]).abs().mean() for n in truths]
            rows.append(
                {
                    "theta_true": {n: float(v.mean()) for n, v in truths.items()},
                    "theta_hat": {n: float(v.mean()) for n, v in estimates.items()},
                    "theta_error": float(torch.stack(errors).mean()),
                    "test_loss": float(loss),
                }
            )
        return pd.concat([runs.frame, pd.DataFrame(rows)], axis=1)


def simulate(
    rhs: Callable[[float, Array], Array],
    x0: Array,
    t: Array,
    rtol: float = 1e-10,
    method: str = "DOP853",
) -> Array:
    """Solve all series at once with SciPy.

    Args:
        rhs: (time, states (series, state)) -> derivatives of the same shape.
        x0: initial states, (series, state).
        t: output times, (time,).
        rtol: relative tolerance; the absolute one is a hundredth of it.
        method: a method of `scipy.integrate.solve_ivp`.

    Returns:
        States, (series, time, state).

    Raises:
        RuntimeError: if the solver fails.

    >>> simulate(lambda t, x: -x, np.ones((3, 1)), np.array([0.0, 1.0])).shape
    (3, 2, 1)
    """
    shape = x0.shape
    solution = solve_ivp(
        lambda time, y: rhs(time, y.reshape(shape)).ravel(),
        (t[0], t[-1]),
        x0.ravel(),
        t_eval=t,
        method=method,
        rtol=rtol,
        atol=rtol / 100,
    )
    if not solution.success:
        raise RuntimeError(f"simulate: {method} failed: {solution.message}")
    return np.moveaxis(solution.y.reshape(*shape, len(t)), -1, 1)


def windows(states: Array, dt: float, length: int, stride: int = 1) -> Data:
    """Cut long series into short ones: the state at the start, and the next `length` states.

    Args:
        states: (series, time, state).
        dt: time step.
        length: steps to predict.
        stride: steps from one window's start to the next.

    Returns:
        Data with inputs x0 (window, state), t0 (window, 1) the absolute time of the start, t (length + 1,)
        the times relative to it, and target (window, length, state).

    >>> data = windows(np.zeros((2, 10, 3)), 0.5, length=4)
    >>> len(data), data.target.shape
    (12, torch.Size([12, 4, 3]))
    """
    starts = np.arange(0, states.shape[1] - length, stride)
    if not len(starts):
        raise ValueError(f"windows: {states.shape[1]} times are too few for windows of {length} steps")
    cut = np.stack([states[:, s : s + length + 1] for s in starts], axis=1).reshape(-1, length + 1, states.shape[2])
    inputs = {
        "x0": torch.as_tensor(cut[:, 0].copy(), dtype=torch.float32),
        "t0": torch.as_tensor(np.tile(starts * dt, len(states))[:, None], dtype=torch.float32),
        "t": torch.arange(length + 1, dtype=torch.float32) * dt,
    }
    return Data(inputs, torch.as_tensor(cut[:, 1:].copy(), dtype=torch.float32), shared=("t",))
