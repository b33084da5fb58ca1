"""How steep, curved and sharp the loss is around trained parameters, for phi and for theta."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridsam_lite.landscape import Landscape, Product, of_landscape
from hybridsam_lite.sam import perturbation

__all__ = ["Gradients", "Sharpness", "Spectrum", "check_radius", "gradients", "lanczos", "sharpness", "spectrum"]


@dataclass(frozen=True)
class Spectrum:
    """Curvature of the loss in one role: top eigenvalue and trace of the Hessian or its Gauss-Newton form.

    For theta the units are those of its range, for phi those of the weights.

    Attributes:
        role: "phi" or "theta".
        form: "hessian" or "gauss-newton".
        top: the largest eigenvalue, found from below; `top_error` bounds the distance to an eigenvalue.
        trace: the trace; `trace_error` is its standard error, 0 where it was summed exactly.
        vector: unit eigenvector of `top`, shape (p,).
    """

    role: str
    form: str
    top: float
    top_error: float
    trace: float
    trace_error: float
    vector: Tensor


@of_landscape
def spectrum(
    at: Landscape, role: str = "phi", *, form: str = "auto", probes: int = 64, steps: int = 30, seed: int = 0
) -> Spectrum:
    """Top eigenvalue and trace of the loss's curvature in one role.

    Args:
        at: the model and data.
        role: "phi" or "theta".
        form: "hessian"; "gauss-newton", J'AJ without the term that is proportional to the residuals
            (never negative); or "auto": Gauss-Newton if the loss is below 1 % of that of the mean target.
        probes: random sign vectors for the trace; with as many as parameters it is exact instead.
        steps: Lanczos steps at most.
        seed: of the probes and the Lanczos start.

    Returns:
        A `Spectrum`, which says the form that was used.

    Source: Lanczos with full reorthogonalization (Golub and Van Loan, Matrix Computations, ch. 10);
    Hutchinson, "A stochastic estimator of the trace", 1989.

    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> spectrum(Landscape(net, (x, 2 * x))).top                # mean squared error: 2 mean(x^2)
    2.0
    """
    if form not in ("auto", "hessian", "gauss-newton"):
        raise ValueError(f"form must be 'auto', 'hessian' or 'gauss-newton', got {form!r}")
    _check_counts(probes=probes, steps=steps)
    vector = at.vector(role)
    if form == "auto":
        form = "gauss-newton" if at.interpolates else "hessian"
    product = at.hessian(role) if form == "hessian" else at.gauss_newton(role)
    scale = at.scale(role)
    generator = torch.Generator().manual_seed(seed)

    def scaled(v: Tensor) -> Tensor:
        return scale * product(scale * v)

    start = torch.randn(len(vector), generator=generator).to(vector)
    top, direction, top_error = lanczos(scaled, start, steps)
    if len(vector) <= probes:
        samples = torch.stack([e @ scaled(e) for e in torch.eye(len(vector)).to(vector)])
        trace, trace_error = samples.sum().item(), 0.0
    else:
        signs = (torch.randint(0, 2, (probes, len(vector)), generator=generator) * 2 - 1).to(vector)
        samples = torch.stack([z @ scaled(z) for z in signs])
        trace, trace_error = samples.mean().item(), (samples.std() / probes**0.5).item()
    return Spectrum(role, form, top, top_error, trace, trace_error, direction)


def lanczos(product: Product, start: Tensor, steps: int, tolerance: float = 1e-6) -> tuple[float, Tensor, float]:
    """The largest eigenvalue of a symmetric operator, its unit eigenvector, and the residual |Hv - top v|.

    Args:
        product: v -> Hv for v of shape (p,).
        start: a random vector, (p,).
        steps: products at most; fewer if the residual falls below `tolerance` of the eigenvalue.
        tolerance: relative.

    >>> lanczos(lambda v: torch.tensor([1.0, 3.0]) * v, torch.ones(2), 5)[0]
    3.0
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, len(start))):
        w = product(basis[-1])
        diagonal.append((w @ basis[-1]).item())
        kept = torch.stack(basis)
        for _ in range(2):  # twice is enough
            w = w - kept.T @ (kept @ w)
        size = w.norm().item()
        off = torch.tensor(beside, dtype=torch.float64)
        small = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(small)
        error = size * abs(vectors[-1, -1].item())
        if error <= tolerance * values[-1].abs().item() or size == 0:
            break
        beside.append(size)
        basis.append(w / size)
    direction = kept.T @ vectors[:, -1].to(start)
    return values[-1].item(), direction / direction.norm(), error


@dataclass(frozen=True)
class Sharpness:
    """How much the loss rises when the parameters of one role are disturbed.

    Attributes:
        role: "phi", or "theta" (then in units of theta's range).
        rho: radius of the ball; relative to each parameter's size if `adaptive`.
        adaptive: whether it is ASAM's relative ball.
        gap: the largest rise that was found in the ball, a lower bound of the maximum; infinite if the
            model's solver fails within the ball.
        one_step: the rise after SAM's single step.
        gaussian: mean rise under Gaussian noise with E|e|^2 = rho^2, and its standard error.
    """

    role: str
    rho: float
    adaptive: bool
    gap: float
    one_step: float
    gaussian: float
    gaussian_error: float


@of_landscape
def sharpness(
    at: Landscape,
    role: str = "phi",
    *,
    rho: float = 0.05,
    adaptive: bool = False,
    steps: int = 15,
    starts: int = 3,
    draws: int = 32,
    seed: int = 0,
) -> Sharpness:
    """The sharpness gap, max over |e| <= rho of L(w + e) - L(w), on all data.

    Projected gradient ascent from SAM's step, from both ends of the top eigenvector of the Hessian and
    from random points of the sphere; a step that lowers the loss is taken back and shortened.

    Args:
        at: the model and data.
        role: whose parameters are disturbed.
        rho: radius; for comparisons use the same for all models. In units of the weights, of theta's
            range for theta, or relative to each parameter's size if `adaptive`.
        adaptive: use the relative ball |e / w| <= rho.
        steps: gradients per start.
        starts: random starts, besides the three others.
        draws: antithetic pairs for the Gaussian sharpness.
        seed: of the random starts and draws.

    Returns:
        A `Sharpness`.

    Raises:
        ValueError: if rho is not a positive number, or the model has no such role.

    Source: Foret et al., ICLR 2021 (arXiv 2010.01412), eq. 1; Kwon et al., ICML 2021 (arXiv 2102.11600)
    for the adaptive ball.

    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> with torch.no_grad(): _ = net.weight.fill_(2.0)
    >>> round(sharpness(Landscape(net, (x, 2 * x)), rho=0.1).gap, 9)         # rho^2 mean(x^2)
    0.01
    """
    check_radius(rho)
    _check_counts(steps=steps, draws=draws, starts=starts)
    vector, scale = at.vector(role), at.scale(role, adaptive)
    generator = torch.Generator().manual_seed(seed)

    def moved(u: Tensor) -> tuple[Tensor, Tensor]:
        there = vector + scale * u
        return (there, at.theta) if role == "phi" else (at.phi, there)

    def climb(u: Tensor) -> tuple[float, Tensor]:
        gradient, value = at.gradient(role, *moved(u))
        return value, scale * gradient

    product = at.hessian(role)
    noise = torch.randn(starts + 1, len(vector), generator=generator).to(vector)
    _, top, _ = lanczos(lambda v: scale * product(scale * v), noise[0], steps)
    _, slope = climb(torch.zeros_like(vector))
    first = perturbation({"u": vector}, {"u": slope}, rho)["u"]
    ends = [first, rho * top, -rho * top, *(rho * v / v.norm() for v in noise[1:])]
    found = [_ascend(climb, u, rho, steps) for u in ends]
    with torch.no_grad():
        one_step = at.loss(*moved(first)).item()
        pairs = []
        for _ in range(draws):
            xi = rho / len(vector) ** 0.5 * torch.randn(len(vector), generator=generator).to(vector)
            pairs.append((at.loss(*moved(xi)) + at.loss(*moved(-xi))) / 2 - at.value)
    rise = torch.stack(pairs)
    error = (rise.std() / draws**0.5).item() if draws > 1 else math.nan
    gap = max(*found, one_step, at.value) - at.value
    return Sharpness(role, rho, adaptive, gap, one_step - at.value, rise.mean().item(), error)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if not (isinstance(value, int) and value > 0):
            raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_radius(rho: float) -> None:
    """Refuse a radius that is not a positive finite number."""
    if not (isinstance(rho, (int, float)) and 0 < rho < math.inf):
        raise ValueError(f"rho must be a positive number, the radius of the disturbance, got {rho!r}")


def _ascend(climb: Callable[[Tensor], tuple[float, Tensor]], u: Tensor, rho: float, steps: int) -> float:
    """The highest value on the way up from u within the ball."""
    value, gradient = climb(u)
    length = 4.0 * rho  # nearly the best point of the linearized loss; shorter where the loss bends down
    for _ in range(steps - 1):
        if not (math.isfinite(value) and gradient.any()):
            break
        there = u + length * gradient / gradient.norm()
        if there.norm() > rho:
            there = there * (rho / there.norm().item())
        higher, slope = climb(there)
        if math.isnan(higher) or higher > value:
            u, value, gradient = there, higher, slope
        else:
            length /= 4
    return math.inf if math.isnan(value) else value


@dataclass(frozen=True)
class Gradients:
    """Gradients of the loss on all data.

    Attributes:
        phi, theta: their norms at the trained parameters; theta's in units of its range.
        angle: degrees between theta's gradient there and at SAM's perturbed phi; NaN if one is zero.
        rho: radius of SAM's step.
    """

    phi: float
    theta: float
    angle: float
    rho: float


@of_landscape
def gradients(at: Landscape, *, rho: float = 0.05) -> Gradients:
    """Gradient norms, and how far SAM's step in phi (radius `rho`) turns theta's gradient.

    >>> import hybridsam_lite as hs
    >>> _ = torch.manual_seed(0)
    >>> x = torch.linspace(-1, 1, 8)[:, None]
    >>> gradients(Landscape(hs.mlp(1, [4], 1), (x, x), theta=["2.bias"])).angle in (0.0, 180.0)
    True
    """
    check_radius(rho)
    g, _ = at.gradient("phi", at.phi, at.theta)
    clean, _ = at.gradient("theta", at.phi, at.theta)
    e = perturbation({"phi": at.phi}, {"phi": g}, rho)["phi"]
    turned, _ = at.gradient("theta", at.phi + e, at.theta)
    scale = at.scale("theta")
    a, b = scale * clean, scale * turned
    angle = math.nan
    if a.any() and b.any() and torch.isfinite(b).all():
        angle = math.degrees(math.acos(max(-1.0, min(1.0, (a @ b / (a.norm() * b.norm())).item()))))
    return Gradients(g.norm().item(), a.norm().item(), angle, rho)
