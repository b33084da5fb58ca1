"""Profile likelihood of theta: the loss over one entry of theta, everything else refitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridsam_lite.landscape import Landscape, ThetaEntry, of_landscape

__all__ = ["Profile", "ends", "find", "profile"]

CHI2 = 3.841  # 95 % quantile of chi-square with one degree of freedom


@dataclass(frozen=True)
class Profile:
    """The loss over one entry of theta, phi and the other entries refitted at each value.

    Attributes:
        entry: which number of theta.
        grid: its values, in its unit, increasing.
        losses: the refitted loss at each.
        reference: the trained model's loss.
        threshold: values of theta with a loss up to this are not ruled out.
        low, high: the interval of these, in the entry's unit, interpolated linearly between grid points;
            infinite where the loss is still below the threshold at the end of the grid.
        evaluations: gradients per grid point.
        vectorized: whether all grid points were refitted together.
    """

    entry: ThetaEntry
    grid: list[float]
    losses: list[float]
    reference: float
    threshold: float
    low: float
    high: float
    evaluations: int
    vectorized: bool

    @property
    def half_width(self) -> float:
        """Half the interval, in units of the entry's range; infinite if it is open."""
        return (self.high - self.low) / 2 / self.entry.range


@of_landscape
def profile(
    at: Landscape,
    name: str | None = None,
    *,
    grid: Sequence[float] | None = None,
    steps: int = 100,
    vectorize: bool = True,
) -> Profile:
    """Profile likelihood of one entry of theta: fix it at values of a grid and refit all else.

    The refits start at the trained parameters and take `steps` gradients of all data by L-BFGS, all grid
    points together. A refit that is not finished makes theta look better determined than it is.

    A value is not ruled out if its refitted loss reaches the trained model's own loss, or the 95 %
    likelihood-ratio limit min(losses) exp(3.841 / n) for Gaussian noise of unknown size, if that is higher.
    The first rule is ours: a theta at which the network fits as well as the model that is being judged
    cannot be called excluded.

    Args:
        at: the model and data.
        name: label of the entry, as in `at.entries`; may be left out if there is only one.
        grid: values, in the entry's unit; the trained value is added. By default eleven: steps of 1, 1/2,
            1/4, 1/8 and 1/32 of the range, or of 95 % of the way to a bound.
        steps: gradients per grid point.
        vectorize: try `torch.func.vmap` over the grid; models that it cannot run are looped over anyway.

    Returns:
        A `Profile`.

    Raises:
        ValueError: for an unknown name, or grid values that theta's constraint does not admit.

    Source: Raue et al., "Structural and practical identifiability analysis", Bioinformatics 2009.

    >>> import hybridsam_lite as hs
    >>> class Line(hs.HybridModel):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.theta = hs.Theta(k=hs.Real(init=1.0))
    ...         self.w = torch.nn.Parameter(torch.tensor(2.0))
    ...     def forward(self, x):
    ...         return (self.theta.k + self.w) * x
    >>> x = torch.tensor([1.0, -1.0])
    >>> profile(Landscape(Line(), (x, 3 * x))).half_width                     # w makes up for every k
    inf
    """
    k = find(at, name)
    entry = at.entries[k]
    if not (isinstance(steps, int) and steps > 0):
        raise ValueError(f"profile: steps must be a positive integer, got {steps!r}")
    values = _grid(entry, grid)
    raw = entry.constraint.inverse(torch.tensor(values, dtype=torch.float64)).to(at.phi)
    size = len(at.phi)
    start = torch.cat([at.phi, at.theta]).expand(len(values), -1).clone()
    start[:, size + k] = raw
    mask = torch.ones_like(start[0])
    mask[size + k] = 0.0

    def one(x: Tensor) -> Tensor:
        return at.loss(x[:size], x[size:])

    together = torch.func.vmap(torch.func.grad_and_value(one))

    def looped(x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [at.joint_gradient(row) for row in x]
        return torch.stack([g for g, _ in pairs]), torch.tensor([v for _, v in pairs], dtype=torch.float64).to(x)

    vectorized = vectorize and _runs(together, start)
    evaluate = together if vectorized else looped

    def masked(x: Tensor) -> tuple[Tensor, Tensor]:
        grads, losses = evaluate(x)
        return grads.detach() * mask, losses.detach()

    losses = _refit(masked, start, steps).tolist()
    threshold = max(at.value, min(losses) * math.exp(CHI2 / at.target.numel()))
    low, high = ends(values, losses, threshold)
    return Profile(entry, values, losses, at.value, threshold, low, high, steps, vectorized)


def find(at: Landscape, name: str | None) -> int:
    """Position of an entry of theta by its label; the label may be left out if there is only one."""
    labels = [e.label for e in at.entries]
    at.vector("theta")
    if name is None and len(labels) == 1:
        return 0
    if name not in labels:
        raise ValueError(f"profile: no theta {name!r}; expected one of: {', '.join(labels)}")
    return labels.index(name)


def _grid(entry: ThetaEntry, grid: Sequence[float] | None) -> list[float]:
    if grid is None:
        down, up = entry.reach
        offsets = [1.0, 0.5, 0.25, 0.125, 0.03125]
        grid = [entry.value + o * reach for reach in (-down, up) for o in offsets]
    bad = [v for v in grid if not entry.constraint.admits(float(v))]
    if bad:
        raise ValueError(f"profile: {bad} are outside of {entry.constraint.describe()}, where {entry.label} must be")
    return sorted({float(v) for v in grid} | {entry.value})


def _runs(evaluate: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> bool:
    """Whether vmap can run the model (it cannot run adaptive solvers or control flow that depends on data)."""
    try:
        evaluate(x[:2])
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return False
    return True


def _refit(evaluate: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, steps: int, memory: int = 20) -> Tensor:
    """Minimize every row by itself with L-BFGS; returns the losses, shape (row,), infinite where there is none.

    A row whose step does not lower its loss enough (Armijo) stays, and tries a quarter of it next.

    Args:
        evaluate: points, shape (row, parameter) -> gradient of each, and losses; zeros hold a parameter fixed.
        x: where to start.
        steps: gradients, one of each row per step.
        memory: steps that are remembered.

    Source: Nocedal and Wright, Numerical Optimization, 2006, algorithm 7.5.
    """
    g, loss = evaluate(x)
    loss = loss.nan_to_num(math.inf, posinf=math.inf)
    s, y = (torch.zeros(len(x), memory, x.shape[1]).to(x) for _ in range(2))
    inverse = torch.zeros(len(x), memory).to(x)  # 1 / s'y, 0 for unused pairs
    length = torch.ones(len(x)).to(x)
    for _ in range(steps - 1):
        d = -_precondition(g, s, y, inverse)
        there = x + length[:, None] * d
        g_there, there_loss = evaluate(there)
        better = (there_loss <= loss + 1e-4 * length * (g * d).sum(1)) & torch.isfinite(g_there).all(1)
        ds, dy = there - x, g_there - g
        curved = (ds * dy).sum(1)
        keep = better & (curved > 1e-12 * ds.norm(dim=1) * dy.norm(dim=1))
        for history, new in ((s, ds), (y, dy), (inverse, 1 / curved)):
            rolled = torch.roll(history, -1, 1)
            rolled[:, -1] = new
            history[keep] = rolled[keep]
        x, g = torch.where(better[:, None], there, x), torch.where(better[:, None], g_there, g)
        loss = torch.where(better, there_loss, loss)
        length = torch.where(better, 1.0, length / 4)
    return loss


def _precondition(g: Tensor, s: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
    """L-BFGS's approximation of the inverse Hessian times the gradient, row by row."""
    q, weights = g.clone(), []
    for i in reversed(range(s.shape[1])):
        weights.append(inverse[:, i] * (s[:, i] * q).sum(1))
        q = q - weights[-1][:, None] * y[:, i]
    used = inverse[:, -1] > 0
    newest = 1 / (inverse[:, -1] * (y[:, -1] ** 2).sum(1)).clamp(min=1e-300)
    first = 0.01 / g.norm(dim=1).clamp(min=1e-300)  # a first step of length 0.01
    q = q * torch.where(used, newest, first)[:, None]
    for i in range(s.shape[1]):
        q = q + (weights.pop() - inverse[:, i] * (y[:, i] * q).sum(1))[:, None] * s[:, i]
    return q


def ends(grid: list[float], heights: list[float], limit: float) -> tuple[float, float]:
    """Where a curve, linear between grid points, leaves what is below the limit; infinite if open at an end."""
    inside = [i for i, height in enumerate(heights) if height <= limit]
    found = []
    for i, j, is_open in ((inside[0], inside[0] - 1, -math.inf), (inside[-1], inside[-1] + 1, math.inf)):
        if not 0 <= j < len(grid):
            found.append(is_open)
            continue
        share = (limit - heights[i]) / (heights[j] - heights[i])  # 0 where the refit beyond failed
        found.append(grid[i] + share * (grid[j] - grid[i]))
    return found[0], found[1]
