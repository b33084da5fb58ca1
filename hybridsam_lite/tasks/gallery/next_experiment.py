"""Next experiment: which concentrations should be measured next, so that the rate's parameters and the network part?

rate = v S / (K + S) [- inhibition by the product P]; theta = (v, K). A first series was measured at low concentrations
and little product. Of five designs for the second series that one is taken from which most information about theta is
expected: the average, over models drawn before any training, of what is left when the network may adapt.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jacrev

from hybridsam_lite.data import Data
from hybridsam_lite.device import kept_random_state
from hybridsam_lite.hybrid import HybridModel, Prediction, mlp, roles
from hybridsam_lite.tasks.base import Task
from hybridsam_lite.tasks.gallery.card import Card
from hybridsam_lite.tasks.gallery.parts import entry, generators, tensors
from hybridsam_lite.theta import Positive, Theta

CARD = Card(
    title="Next experiment",
    equation=r"\max_{D} \; E\, \log\det J_\theta^\top (I + J_\phi J_\phi^\top / (n \lambda))^{-1} J_\theta",
    wires="theta > physics > sum > rate > information > next inputs; x > physics; x > network > sum",
    theta="largest rate and half-saturation of an enzyme",
    missing="that the product inhibits it",
    risk="where only low concentrations were measured, a network of the concentration bends the curve as K does",
    after=("aushev2023",),
    simplified="one choice among five designs, between theta and the network in place of between models",
    penalty=True,
)

V, K, INHIBITION = 1.2, 0.8, 0.25  # mmol/(l min), mmol/l, l/mmol
NOISE = 0.01  # mmol/(l min)
FIRST = ((0.05, 0.6), (0.0, 0.5))  # ranges of S and P in mmol/l
DESIGNS = {
    "the same again": FIRST, "more substrate": ((1.0, 4.0), (0.0, 0.5)), "more product": ((0.05, 0.6), (0.5, 2.0)),
    "more of both": ((1.0, 4.0), (0.5, 2.0)), "all of it": ((0.05, 4.0), (0.0, 2.0)),
}  # fmt: skip
PRICE, DRAWS = (
    1e-4,
    5,
)  # lam, in (mmol/(l min))^2: moving the weights by 1 costs as much as an error of the noise's size
COUNT = {"smoke": (20, 20, 20), "quick": (100, 100, 200), "full": (100, 100, 200)}


def measure(design: tuple[tuple[float, float], ...], count: int, generator: np.random.Generator) -> Data:
    """Noisy rates (sample, 1) at random concentrations of substrate and product within the ranges of a design."""
    s, p = (generator.uniform(*limits, count) for limits in design)
    rate = V * s / (K + s) / (1 + INHIBITION * p) + NOISE * generator.standard_normal(count)
    made = tensors(x=np.stack([s, p], 1), rate=rate[:, None])
    return Data(made["x"], made["rate"])


def joined(*parts: Data) -> Data:
    """All samples of several series."""
    return Data(torch.cat([torch.as_tensor(d.inputs) for d in parts]), torch.cat([d.target for d in parts]))


class Enzyme(HybridModel):
    """Inputs: substrate and product in mmol/l, (sample, 2). Prediction: the rate in mmol/(l min), (sample, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = Theta(v=Positive((0.3, 3.0), unit="mmol/(l min)"), k=Positive((0.2, 2.0), unit="mmol/l"))
        self.net = mlp(2, [16, 16], 1)

    def forward(self, x: Tensor) -> Prediction:
        """The rate of Michaelis and Menten, and what the network adds."""
        physics, network = self.theta.v * x[:, :1] / (self.theta.k + x[:, :1]), self.net(x - 1)
        return Prediction(physics + network, network=network, physics=physics)


def information(model: HybridModel, x: Tensor) -> float:
    """Logarithm of the determinant of the information about theta at inputs x, when the weights may move at PRICE."""
    params = {n: p.detach() for n, p in model.named_parameters()}
    columns = jacrev(lambda p: functional_call(model, p, (x,)).value[:, 0])(params)
    which = roles(model)
    jt, jp = (
        torch.cat([columns[n].reshape(len(x), -1) for n in params if which[n] == r], 1).double()
        for r in ("theta", "phi")
    )
    inner = torch.eye(len(x)).double() + jp @ jp.T / (len(x) * PRICE)
    return float(torch.logdet(jt.T @ torch.linalg.solve(inner, jt)))


@cache
def expected(count: int = 40) -> dict[str, float]:
    """Expected log det of the information from the first series and each design; no measured rate enters."""
    found = {}
    for name, design in DESIGNS.items():
        x = torch.as_tensor(joined(*(measure(d, count, np.random.default_rng(0)) for d in (FIRST, design))).inputs)
        with kept_random_state():
            torch.manual_seed(0)
            found[name] = float(np.mean([information(Enzyme(), x) for _ in range(DRAWS)]))
    return found


def build(preset: str) -> Task:
    """The task at a preset: trained on the first series and the chosen one, tested wherever one may measure."""
    gains, make = expected(), generators()
    chosen = max(gains, key=gains.__getitem__)
    data = {
        part: joined(*(measure(d, n, make[part]) for d in ((FIRST, DESIGNS[chosen]) if part != "test" else [all_])))
        for part, n, all_ in zip(make, COUNT[preset], [DESIGNS["all of it"]] * 3, strict=True)
    }
    told = {f"information.{name}": gain - gains["the same again"] for name, gain in gains.items()}
    return entry(
        "next_experiment", preset, data, Enzyme, {"v": V, "k": K}, {"v": "mmol/(l min)", "k": "mmol/l"},
        {"lr": 3e-3}, metrics=lambda prediction, task: told,
    )  # fmt: skip
