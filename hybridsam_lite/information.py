"""What the data say about theta when the network may adapt, and what network and physics contribute.

The information matrix is local and cheap, for it linearizes the model; `likelihood.profile` is the global
counterpart. Both measure how well theta is determined (its variance), not whether it is right: a network
that prefers a wrong share of the truth leaves a bias that neither sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridsam_lite.curvature import lanczos
from hybridsam_lite.landscape import Landscape, ThetaEntry, of_landscape

__all__ = ["Information", "Shares", "information", "shares"]

DENSE = 512  # entries of the prediction up to which the dual system is solved directly
ITERATIONS = 1000  # of conjugate gradients


@dataclass(frozen=True)
class Information:
    """Effective information about theta at a stated prior precision of phi.

    Matrices are in units of theta's ranges (see `ThetaEntry`); `physical` converts. All refer to the
    weighted mean square of the prediction: S in units of the target squared.

    Attributes:
        entries: what each number of theta is.
        lam: prior precision of phi, in units of the mean squared derivative J'J/n.
        chosen: how lam was chosen, in words.
        matrix: S_lam, (q, q).
        known: the same if phi were known, J_t'J_t/n, (q, q).
        eigenvalues, eigenvectors: of `matrix`, smallest first; eigenvectors are columns.
        sd, sd_known: standard deviation of each entry implied by `matrix` and by `known`, in units of the
            range, sqrt(tau^2 [S^-1]_kk / n); infinite if not determined at all.
        noise: tau, the root mean square residual, in units of the target.
        count: n, entries of the prediction; all are counted as independent.
        top: largest eigenvalue of J_p'J_p/n.
        error: bound on the error that the solver left in `matrix`, which is never too large.
        weighted: whether entries are weighted as the loss weights them; else equally.
    """

    entries: list[ThetaEntry]
    lam: float
    chosen: str
    matrix: Tensor
    known: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor
    sd: list[float]
    sd_known: list[float]
    noise: float
    count: int
    top: float
    error: float
    weighted: bool
    influence: list[bool]

    @property
    def bound(self) -> float:
        """The share of `known` that is left at least: lam / (lam + top)."""
        return self.lam / (self.lam + self.top)

    @property
    def retained(self) -> list[float]:
        """For each entry the share of the information that is left when phi may adapt, 0 to 1."""
        return [
            (known / sd) ** 2 if math.isfinite(known) else math.nan
            for known, sd in zip(self.sd_known, self.sd, strict=True)
        ]

    @property
    def physical(self) -> Tensor:
        """S_lam per physical units of theta."""
        ranges = torch.tensor([e.range for e in self.entries], dtype=torch.float64).to(self.matrix)
        return self.matrix / ranges / ranges[:, None]

    @property
    def sd_physical(self) -> list[float]:
        """`sd` in theta's units."""
        return [sd * e.range for sd, e in zip(self.sd, self.entries, strict=True)]

    @property
    def combinations(self) -> list[str]:
        """The eigenvectors in words, such as "0.80 k - 0.60 w" (each in units of its range)."""
        return [_in_words(self.entries, v) for v in self.eigenvectors.T]


@of_landscape
def information(at: Landscape, *, lam: float | None = None) -> Information:
    """Effective information about theta, S_lam = H_tt - H_tp (H_pp + lam I)^-1 H_pt, in Gauss-Newton form.

    It is what the data say about theta when phi may adapt at the price lam |phi|^2 / 2, computed as
    J_t' (I + J_p J_p' / (n lam))^-1 J_t / n, which does not cancel. At lam = 0 a flexible network leaves
    nothing, so that lam must be stated. The default is tau^2 / (n s^2) with tau the residual and s the
    root mean square of phi: the weights are a priori known to within their own size, and `sd` is then
    theta's posterior standard deviation in the linearized model with that prior on phi and none on
    theta. To compare two models give both the same lam: the default follows each model's own fit. `sd`
    presumes independent residuals and a finished training; systematic residuals make it far too small.

    Args:
        at: the model and data.
        lam: prior precision of phi, positive.

    Returns:
        An `Information`.

    Raises:
        ValueError: if lam is not positive, there is no theta or phi, or the prediction does not have the
            target's shape.

    Source: derived for this project; Schur complement in a linear Gaussian
    model. The weights are the loss's second derivatives by the prediction, divided by their sum.

    >>> import hybridsam_lite as hs
    >>> class Line(hs.HybridModel):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.theta = hs.Theta(k=hs.Real(init=1.0))
    ...         self.w = torch.nn.Parameter(torch.tensor(2.0))
    ...     def forward(self, x):
    ...         return (self.theta.k + self.w) * x
    >>> x = torch.tensor([1.0, -1.0])
    >>> information(Landscape(Line(), (x, 3 * x)), lam=1.0).matrix            # m lam / (lam + m), m = mean(x^2)
    tensor([[0.5000]], dtype=torch.float64)
    """
    if lam is not None and not (isinstance(lam, (int, float)) and 0 < lam < math.inf):
        raise ValueError(f"lam must be a positive number, the prior precision of phi, got {lam!r}")
    phi, entries = at.vector("phi"), at.entries
    at.vector("theta")
    if at.output_shape != at.target.shape:
        raise ValueError(
            f"information needs a prediction of the target's shape {tuple(at.target.shape)}, "
            f"got {tuple(at.output_shape)}; classification has none"
        )
    weights, weighted = _weights(at)
    root = weights.sqrt()
    residual = (at.predicted - at.target).reshape(-1)
    power = (weights * at.target.reshape(-1) ** 2).sum() + (weights * at.predicted.reshape(-1) ** 2).sum()
    rounding = torch.finfo(phi.dtype).eps
    noise2 = max((weights * residual**2).sum().item(), (rounding**2 * power).item(), torch.finfo(phi.dtype).tiny)
    count = residual.numel()
    size2 = (phi**2).mean().item() or 1.0
    chosen = "given" if lam is not None else "tau^2 / (n mean(phi^2)): weights known to within their own size"
    lam = noise2 / (count * size2) if lam is None else float(lam)

    jt = root[:, None] * at.theta_columns(lambda prediction: at.aligned(prediction.value))
    influence = (jt.norm(dim=0) > 1e4 * rounding * power.sqrt()).tolist()
    jt = torch.where(torch.tensor(influence, device=jt.device), jt, 0.0)

    def dual(u: Tensor) -> Tensor:
        return root * at.push("phi", at.pull("phi", root * u))

    matrix, error = _solve(at, jt, dual, root, lam)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(phi), generator=generator).to(phi)
    top, _, top_error = lanczos(lambda v: at.pull("phi", weights * at.push("phi", v)), start, 30)
    known = jt.T @ jt
    values, vectors = torch.linalg.eigh(matrix)
    vectors = vectors * torch.sign(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)))
    return Information(
        entries, lam, chosen, matrix, known, values, vectors,
        _deviations(matrix, known, noise2 / count), _deviations(known, known, noise2 / count),
        noise2**0.5, count, top + top_error, error, weighted, influence,
    )  # fmt: skip


def _weights(at: Landscape) -> tuple[Tensor, bool]:
    """Weights of the prediction's entries, which sum to 1, and whether they are the loss's own."""
    ones = torch.ones_like(at.predicted.reshape(-1))
    own = at.loss_curvature(ones)
    signs = 1.0 - 2.0 * (torch.arange(len(ones), device=ones.device) % 2).to(ones)
    entrywise = torch.allclose(at.loss_curvature(signs), signs * own, rtol=1e-6, atol=1e-6 * own.abs().max().item())
    if entrywise and torch.isfinite(own).all() and (own >= 0).all() and own.sum() > 0:
        return own / own.sum(), True
    return ones / len(ones), False


def _solve(
    at: Landscape, jt: Tensor, dual: Callable[[Tensor], Tensor], root: Tensor, lam: float
) -> tuple[Tensor, float]:
    """The product jt' (I + dual / lam)^-1 jt and a bound on its error."""
    if len(jt) <= DENSE:
        rows = torch.stack([at.pull("phi", root * e) for e in torch.eye(len(jt)).to(jt)])
        u, singular, _ = torch.linalg.svd(rows, full_matrices=False)
        inside = u.T @ jt
        beyond = jt - u @ inside  # what phi cannot imitate
        return beyond.T @ beyond + (inside.T * (lam / (lam + singular**2))) @ inside, 0.0
    pairs = [_conjugate_gradients(lambda u: u + dual(u) / lam, b) for b in jt.T]
    x, r = (torch.stack(part, 1) for part in zip(*pairs, strict=True))
    # The error of this form is e'Me with e = M^-1 r: of second order, at most |r|^2, never negative.
    product = jt.T @ x + x.T @ r
    return (product + product.T) / 2, (r**2).sum(0).max().item()


def _conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor) -> tuple[Tensor, Tensor]:
    """Solve Mx = b for M >= I until |r|^2 is 1e-8 of b'x; returns x and the residual r = b - Mx."""
    x, r = torch.zeros_like(b), b.clone()
    d, rr = r.clone(), (r @ r).item()
    for _ in range(ITERATIONS):
        if rr <= 1e-8 * (b @ x).item() or rr == 0:
            break
        md = product(d)
        alpha = rr / (d @ md).item()
        x, r = x + alpha * d, r - alpha * md
        before, rr = rr, (r @ r).item()
        d = r + rr / before * d
    return x, r


def _deviations(matrix: Tensor, known: Tensor, variance: float) -> list[float]:
    """sqrt(variance [matrix^-1]_kk), infinite along directions without information up to rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    least = len(matrix) * torch.finfo(matrix.dtype).eps * torch.linalg.eigvalsh(known)[-1]
    inverse = torch.where(values > least, 1 / values, math.inf)
    squares = vectors**2
    parts = torch.where(squares > 1e-12, squares * inverse, 0.0)
    return (variance * parts.sum(1)).sqrt().tolist()


def _in_words(entries: list[ThetaEntry], vector: Tensor) -> str:
    parts = [(w, e.label) for w, e in zip(vector.tolist(), entries, strict=True) if abs(w) >= 0.05]
    if len(entries) == 1:
        return entries[0].label
    text = " ".join(f"{'-' if w < 0 else '+'} {abs(w):.2f} {label}" for w, label in parts)
    return text.removeprefix("+ ")


@dataclass(frozen=True)
class Shares:
    """What network and physics contribute, from the parts of `hs.Prediction`; None where not defined.

    Attributes:
        network, physics: root mean squares of the two parts, in their own units.
        cosine: between the two parts, -1 to 1; negative if they cancel.
        overlap: |P f| / |f|, 0 to 1: the share of the network's part f that is in the span of the
            derivatives of the physics part by theta (taken along the model's own solution).
    """

    network: float | None
    physics: float | None
    cosine: float | None
    overlap: float | None

    @property
    def ratio(self) -> float | None:
        """Network / physics."""
        return self.network / self.physics if self.network is not None and self.physics else None


@of_landscape
def shares(at: Landscape) -> Shares:
    """Root mean squares and overlap of what network and physics contribute.

    Source: derived for this project; the overlap is the part that
    orthogonalization would move to theta, Rügamer, "A new PHO-rmula", 2023.

    >>> import hybridsam_lite as hs
    >>> _ = torch.manual_seed(0)
    >>> x = torch.linspace(-1, 1, 8)[:, None]
    >>> shares(Landscape(hs.mlp(1, [4], 1), (x, x), theta=["0.bias"]))         # a nested model has no parts
    Shares(network=None, physics=None, cosine=None, overlap=None)
    """
    with torch.no_grad():
        parts = at.prediction(at.phi, at.theta)
    f, s = parts.network, parts.physics
    network, physics = (None if x is None else x.square().mean().sqrt().item() for x in (f, s))
    if f is None or not f.any():
        return Shares(network, physics, None, None)
    cosine = overlap = None
    if s is not None and s.shape == f.shape:
        cosine = torch.nn.functional.cosine_similarity(f.reshape(-1), s.reshape(-1), 0).item()
        overlap = _overlap(f, at.theta_columns(lambda prediction: _given(prediction.physics)))
    elif s is None and parts.value.shape == f.shape:
        overlap = _overlap(f, at.theta_columns(lambda prediction: prediction.value))
    return Shares(network, physics, cosine, overlap)


def _given(part: Tensor | None) -> Tensor:
    if part is None:
        raise ValueError("the model returned Prediction.physics once and then no more; always return it")
    return part


def _overlap(f: Tensor, columns: Tensor) -> float:
    u, singular, _ = torch.linalg.svd(columns, full_matrices=False)
    u = u[:, singular > 1e-12 * singular.max()]
    flat = f.reshape(-1)
    return ((u.T @ flat).norm() / flat.norm()).item()
