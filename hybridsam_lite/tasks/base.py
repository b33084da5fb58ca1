"""What a task is, and how it is simulated, cut into windows, trained and scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from hybridsam_lite.checks import LossFunction
from hybridsam_lite.data import Data
from hybridsam_lite.hybrid import Prediction, as_prediction
from hybridsam_lite.methods import Method
from hybridsam_lite.runs import Runs
from hybridsam_lite.theta import Theta
from hybridsam_lite.train import fit

__all__ = ["PRESETS", "Task", "mean_absolute_error", "simulate", "windows"]

PRESETS = ("smoke", "quick", "full")
CHUNK = 500  # test samples predicted at once: images are large

Array = NDArray[np.floating[Any]]
Named = dict[str, Tensor]


def mean_absolute_error(estimates: Named, truths: Named) -> float:
    """Mean over components of |estimate - truth|, each averaged over the samples if theta is amortized.

    >>> mean_absolute_error({"k": torch.tensor([1.0, 3.0])}, {"k": torch.tensor([1.0, 2.0])})
    0.5
    """
    return float(torch.stack([(estimates[n] - truths[n]).abs().mean() for n in truths]).mean())


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
        listed: what a public listing gives for the paper's result on this task (see `tasks.LISTED`).
        error: (estimates, truths), dicts from name to tensors of equal shapes -> theta_error.
        metrics: (prediction on the test samples, task) -> further numbers for the records.
        loss: (prediction, target) -> scalar, if it is not the mean squared error.
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
    error: Callable[[Named, Named], float] = mean_absolute_error
    metrics: Callable[[Prediction, Task], dict[str, float]] | None = None
    loss: LossFunction | None = None
    notes: str = field(default="", repr=False)

    def fit(self, methods: Sequence[Method | str], seeds: Iterable[int], **changes: Any) -> Runs:
        """Train with the task's protocol; `changes` override `training` or go to `hs.fit`."""
        return fit(
            self.model,
            self.train,
            self.val,
            methods=methods,
            seeds=seeds,
            **{**self.training, **({} if self.loss is None else {"loss": self.loss}), **changes},
        )

    def with_truth(self) -> Task:
        """The same task with theta fixed at its true value: what the hybrid predicts when it knows the science.

        Raises:
            ValueError: if theta is amortized; an encoder's output cannot be fixed.
        """
        amortized = [name for name, value in self.theta_true.items() if isinstance(value, Tensor) and value.ndim]
        if amortized:
            raise ValueError(f"{self.name}: theta {amortized[0]!r} is inferred for each sample and cannot be fixed")

        def model() -> nn.Module:
            built = self.model()
            for module in built.modules():
                if isinstance(module, Theta):
                    module.set(**self.theta_true).requires_grad_(False)
            return built

        return replace(self, model=model)

    def score(self, runs: Runs) -> pd.DataFrame:
        """`runs.frame` with theta_hat, theta_true, theta_error, test_loss and metrics.

        theta_error is `error` of the estimates; by default the mean of |theta_hat - theta_true| over
        components (and, if theta is amortized, over the test samples; theta_hat and theta_true then hold
        the means). metrics holds val_nrmse and test_nrmse (root mean squared error over the standard
        deviation of all entries of the target), network and overlap (means over the test samples of
        |f_nn|^2 and f_sci f_nn, if the prediction has these parts), for each amortized theta its correlation
        with the truth over the test samples and its spread (standard deviation over the truth's), and what
        the task adds.
        """
        scale = {part: float(data.target.var(correction=0)) for part, data in (("val", self.val), ("test", self.test))}
        rows = []
        for i in range(len(runs)):
            prediction = self.predict(runs.model(i), runs.sample_axis)
            loss = float(((prediction.value - self.test.target) ** 2).mean())
            truths = {n: torch.as_tensor(v, dtype=torch.float64) for n, v in self.theta_true.items()}
            found: dict[str, Any] = {**runs.theta(i), **(prediction.theta or {})}
            estimates = {n: torch.as_tensor(found[n], dtype=torch.float64) for n in truths}
            for n, truth in truths.items():
                if truth.ndim and estimates[n].numel() != truth.numel():
                    raise ValueError(
                        f"{self.name}: theta {n!r} has {estimates[n].numel()} estimates for {truth.numel()} truths"
                    )
                estimates[n] = estimates[n].reshape(truth.shape)
            metrics = {
                "val_nrmse": math.sqrt(runs.members[i].val_loss / scale["val"]),
                "test_nrmse": math.sqrt(loss / scale["test"]),
            }
            if prediction.network is not None:
                metrics["network"] = float((prediction.network**2).mean())
                if prediction.physics is not None and prediction.physics.shape == prediction.network.shape:
                    metrics["overlap"] = float((prediction.network * prediction.physics).mean())
            for n, truth in truths.items():
                if truth.ndim:
                    metrics |= _amortized(n, estimates[n], truth)
            if self.metrics is not None:
                metrics.update(self.metrics(prediction, self))
            rows.append(
                {
                    "theta_true": {n: float(v.mean()) for n, v in truths.items()},
                    "theta_hat": {n: float(v.mean()) for n, v in estimates.items()},
                    "theta_error": self.error(estimates, truths),
                    "test_loss": loss,
                    "metrics": metrics,
                }
            )
        return pd.concat([runs.frame, pd.DataFrame(rows)], axis=1)

    @torch.no_grad()
    def predict(self, model: nn.Module, sample_axis: int = 0) -> Prediction:
        """The model's prediction for all test samples, the sample axis first, on the CPU."""
        parts = [
            as_prediction(model(self.test.take(index).inputs)) for index in torch.arange(len(self.test)).split(CHUNK)
        ]

        def join(tensors: Sequence[Tensor | None], axis: int) -> Tensor | None:
            return None if any(x is None for x in tensors) else torch.cat(list(tensors), axis)  # type: ignore[arg-type]

        value = torch.cat([p.value for p in parts], sample_axis).movedim(sample_axis, 0)
        theta = None if parts[0].theta is None else {
            n: torch.cat([p.theta[n] for p in parts if p.theta is not None]) for n in parts[0].theta
        }  # fmt: skip
        return Prediction(
            value, join([p.network for p in parts], sample_axis), join([p.physics for p in parts], sample_axis), theta
        )


def _amortized(name: str, estimates: Tensor, truths: Tensor) -> dict[str, float]:
    """Whether the estimates at least follow the truth over the samples: -1 is its mirror image."""
    x, y = estimates - estimates.mean(), truths - truths.mean()
    spread, expected = x.square().mean().sqrt(), y.square().mean().sqrt()
    return {
        f"correlation.{name}": float((x * y).mean() / (spread * expected)),
        f"spread.{name}": float(spread / expected),
    }


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
