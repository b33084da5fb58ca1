"""The public functions."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import hybridsam_lite as hs
from tools.fuzz.cases import LABELS, NUMBERS, ODD, WORDS, call, records, some, sound


class Line(hs.HybridModel):
    """theta x + network(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.net = hs.Theta(k=hs.Real(init=(0.5, 1.0))), hs.mlp(1, [2], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.theta.k * x + self.net(x)


X = torch.linspace(-1, 1, 6)[:, None]


@cache
def runs() -> hs.Runs:
    """Trained once."""
    return hs.fit(Line, (X, 2 * X), (X, 2 * X), methods=["erm", "sam:rho=0.1"], seeds=range(2), steps=2, progress=False)


# Methods and theta


@call(st.tuples(LABELS | ODD), 3)
def parse_method(label: Any) -> None:
    """A method reads back from its own label."""
    method = hs.parse_method(label)
    sound(hs.parse_method(method.label) == method, f"{method!r} does not read back from {method.label!r}")


RANGES = NUMBERS | st.tuples(NUMBERS, NUMBERS) | ODD
SHAPES = st.sampled_from([(), (1,), (2, 3), (0,), [2], 3, (-1,), (2.5,), "ab", None, (10**12,), (True,)])
OPTIONS = {"init": RANGES, "unit": WORDS | ODD, "shape": SHAPES, "scale": ODD}
KINDS = st.sampled_from([hs.Real, hs.Positive, hs.Fixed])


@call(
    st.one_of(
        st.tuples(KINDS, some(**OPTIONS), st.just(())),
        st.tuples(st.just(hs.Interval), st.just({}), st.tuples(NUMBERS | ODD, NUMBERS | ODD)),
        st.tuples(st.just(hs.Interval), some(init=RANGES, unit=WORDS, shape=SHAPES), st.just((0.0, 2.0))),
    ),
    4,
)
def theta(kind: Any, options: dict[str, Any], ends: tuple[Any, ...]) -> None:
    """A parameter starts at a value that its constraint admits."""
    constraint = kind(*ends, **options)
    made = hs.Theta(k=constraint)
    values = made.k.flatten().tolist()
    sound(all(map(constraint.admits, values)), f"{constraint!r} starts at {values}")
    sound(bool(repr(made)), "no repr")


@call(st.tuples(st.sampled_from([(), (2,)]), NUMBERS | ODD), 2)
def set_theta(shape: tuple[int, ...], value: Any) -> None:
    """A value that is set is there."""
    for constraint in (
        hs.Real(shape=shape),
        hs.Positive(shape=shape),
        hs.Interval(0, 1, shape=shape),
        hs.Fixed(shape=shape),
    ):
        made = hs.Theta(k=constraint)
        before = made.k.clone()
        try:
            made.set(k=value)
        except (ValueError, TypeError):
            sound(torch.equal(made.k, before), f"a refused value {value!r} changed theta")
            raise
        sound(all(map(constraint.admits, made.k.flatten().tolist())), f"set to {value!r} it is {made.k}")


# Data and training

DTYPES = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
)
TENSORS: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        lambda shape, dtype, value: torch.full(shape, value).to(dtype),
        st.lists(st.integers(0, 6), max_size=3), DTYPES, st.sampled_from([0.0, 1.0, -3.5, math.nan, math.inf, 1e30]),
    ),
    st.sampled_from([X, 2 * X, X[:, 0], X.expand(-1, 3), X.t(), X[::2], X.double(), X.clone().requires_grad_(),
                     X.to_sparse(), X.to("meta"), torch.tensor(1.0), X.to(torch.float8_e4m3fn), X.numpy()]),
    ODD,
)  # fmt: skip
INPUTS = TENSORS | st.dictionaries(st.sampled_from(["x", "t", "target", "", 3]), TENSORS, max_size=2)


@call(st.tuples(INPUTS, TENSORS, st.sampled_from([(), ("t",), ("x",), "t", ["x"], 3, None, (3,)])), 4)
def data(inputs: Any, target: Any, shared: Any) -> None:
    """Data can be cut, moved and told apart."""
    made = hs.Data(inputs, target, shared=shared)
    sound(len(made.take(torch.tensor([0]))) == 1, "one sample is not one")
    sound(made.to("cpu", torch.float64).fingerprint() == made.to("cpu", torch.float64).fingerprint(), "no fingerprint")


@call(
    st.tuples(
        st.tuples(TENSORS, TENSORS) | ODD | st.just((X, 2 * X)),
        some(
            methods=st.lists(LABELS, max_size=3) | ODD, seeds=st.lists(NUMBERS, max_size=2) | ODD, lr=NUMBERS | ODD,
            steps=st.sampled_from([1, 2, 0, -1, 1.5, None, "2", True, math.nan]), batch_size=NUMBERS | ODD,
            theta_lr=NUMBERS | ODD, lr_end=NUMBERS | ODD, max_norm=NUMBERS | ODD, patience=NUMBERS | ODD,
            validate_every=NUMBERS | ODD, device=WORDS | ODD, dtype=DTYPES | ODD, vectorize=ODD, resume=ODD,
            loss=st.sampled_from([None, 3, torch.nn.MSELoss(), torch.nn.MSELoss]), val=st.just((X, X)) | ODD,
            optimizer=st.sampled_from([torch.optim.SGD, torch.optim.Adam, torch.optim.LBFGS, None, 3]),
        ),
    ),
    3,
)  # fmt: skip
def fit(train: Any, options: dict[str, Any]) -> None:
    """Members end well or are marked."""
    usual: dict[str, Any] = {"methods": ["sam:rho=0.1"], "seeds": [0], "steps": 2}
    found = hs.fit(Line, train, **{**usual, **options}, progress=False)
    for member in found.members:
        finite = all(bool(torch.isfinite(x).all()) for x in member.state.values())
        sound(finite or member.status == "diverged", f"status {member.status!r} without finite weights")


@call(st.tuples(some(rho=ODD, max_norm=ODD, adaptive=ODD, theta=ODD, base=st.sampled_from([None, 3, "sgd"]))))
def wrapper(options: dict[str, Any]) -> None:
    """A step of the wrapper."""
    model = Line()
    base = options.pop("base", torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer = hs.SAM(model, base, **{"rho": 0.1, **options})

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = ((model(X) - 2 * X) ** 2).mean()
        loss.backward()
        return loss

    optimizer.step(closure)


# Looking at what was trained


@call(
    st.tuples(
        some(
            theta=ODD, rho=NUMBERS | ODD, lam=NUMBERS | ODD, profiles=st.lists(WORDS) | ODD,
            seed=st.integers(0, 9) | ODD, dtype=DTYPES | ODD,
            steps=st.sampled_from([1, 0, -1, None, 1.5, "2"]), data=st.tuples(TENSORS, TENSORS) | ODD,
        )
    )
)  # fmt: skip
def diagnose(options: dict[str, Any]) -> None:
    """A report can be printed."""
    report = hs.diagnose(runs().model(0), **{"data": (X, 2 * X), "profiles": [], "steps": 1, **options})
    sound("determined" in str(report), "no verdict")


@call(st.tuples(some(label=WORDS | ODD, level=NUMBERS | ODD, lam=NUMBERS | ODD, theta=ODD, runs=ODD)))
def intervals(options: dict[str, Any]) -> None:
    """Intervals can be printed."""
    found = hs.intervals(runs().model(0), (X, 2 * X + 0.1 * X**2), **{"steps": 1, **options})
    sound("level" in str(found), "no table")


FIELDS = st.sampled_from(["method", "label", "settings", "seed", "val_loss", "status", "theta_hat", "task"])


CHANGES = st.lists(st.tuples(st.integers(0, 8), FIELDS, ODD | st.just({"rho": 0.0})), max_size=3)


@call(ODD.map(lambda x: (x,)) | CHANGES.map(lambda changes: (changes, "changes")), 2)
def select(given: Any, kind: str = "") -> None:
    """A choice can be printed."""
    rows = [dict(row) for row in records()] if kind else given
    for k, name, value in given if kind else ():
        rows[k][name] = value
    sound(isinstance(repr(hs.select(rows)), str), "no text")


@call(
    st.tuples(
        st.sampled_from(["pendulum", "duffing", "pendulm"]) | WORDS | ODD, some(preset=WORDS, variant=WORDS, data=WORDS)
    )
)
def tasks(name: Any, options: dict[str, Any]) -> None:
    """A task has data."""
    sound(len(hs.tasks.get(name, **{"preset": "smoke", **options}).train) > 0, "no data")


@call(st.tuples(st.sampled_from(hs.exercises.questions()) | WORDS | ODD, ODD.map(lambda x: lambda *_: x) | ODD))
def exercises(question: Any, answer: Any) -> None:
    """A verdict, whatever the answer."""
    verdict = hs.exercises.check(question, answer)
    sound(verdict.status in ("right", "wrong", "unanswered") and bool(repr(verdict)), "no verdict")
