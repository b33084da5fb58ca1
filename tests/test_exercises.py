"""Exercises: right answers pass, wrong ones hear what is wrong, and nothing that a student writes raises."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch

import hybridsam_lite as hs
from hybridsam_lite.exercises.registry import find
from hybridsam_lite.exercises.verdict import Verdict
from tools import exercises

ROOT = Path(__file__).resolve().parents[1]
ALL = hs.exercises.questions()

# Exercise, wrong answer, a fragment of what the student must hear.
WRONG = [
    ("ch01.q1", "def f(T, theta, k, evaporation): return -evaporation(T)", "only if `theta` has its true value"),
    ("ch01.q1", "def f(T, theta, k, evaporation): return (k - theta) * (T - 20) + evaporation(T)", "signs"),
    ("ch01.q1", "def f(T, theta, k, evaporation): return (theta - k) * (T - 20)", "in neither the physics nor it"),
    (
        "ch01.q1",
        "def f(T, theta, k, evaporation): return (theta - k) * T - evaporation(T)",
        "does not depend on T is missing",
    ),
    ("ch01.q1", "def f(T, theta, k, evaporation): return 0 * T", "Write down both sides"),
    ("ch01.q2", "def f(theta, k, room): return (k - theta) * (room - 20)", "but for its sign"),
    ("ch01.q2", "def f(theta, k, room): return (theta - k) * (room - 5)", "in which the model was trained"),
    ("ch01.q2", "def f(theta, k, room): return theta * (room - 20)", "whose theta is right"),
    ("ch01.q2", "def f(theta, k, room): return 2 * (theta - k) * (room - 20)", "another amount"),
    ("ch02.q1", "def f(theta, phi, alpha, delta): return theta + delta, phi", "the network has not"),
    (
        "ch02.q1",
        "def f(theta, phi, alpha, delta): return theta + delta, phi + delta * alpha",
        "same way as the physics",
    ),
    ("ch02.q1", "def f(theta, phi, alpha, delta): return theta + delta, phi - delta", "by the same amount"),
    ("ch02.q1", "def f(theta, phi, alpha, delta): return theta, phi", "not `theta . delta`"),
    ("ch02.q1", "def f(theta, phi, alpha, delta): return phi - delta * alpha", "Return two things"),
    ("ch02.q2", "def f(R, factor): return R", "If nothing changed"),
    ("ch02.q2", "def f(R, factor): return R / factor", "One power"),
    ("ch02.q2", "def f(R, factor): return R * factor**2", "The other way round"),
    ("ch02.q2", "def f(R, factor): return -R", "is positive"),
    ("ch03.q1", "def f(u, v): return u, v", "flatter still"),
    ("ch03.q1", "def f(u, v): return abs(u * v) ** 0.5, abs(u * v) ** 0.5", "wrong sign"),
    ("ch03.q1", "def f(u, v): return (u + v) / 2, (u + v) / 2", "product of the weights"),
    ("ch03.q1", "def f(u, v): return -abs(u * v) ** 0.5, -abs(u * v) ** 0.5", "not positive"),
    ("ch03.q2", "def f(kappa, bias): return bias * (1 - kappa**2) / kappa", "square of the radius"),
    ("ch03.q2", "def f(kappa, bias): return (bias / kappa) ** 0.5", "larger than asked"),
    ("ch03.q2", "def f(kappa, bias): return 1e-3", "would still do"),
    ("ch03.q2", "def f(kappa, bias): return -1.0", "is positive"),
    (
        "ch05.q1",
        "def f(g, radius): return {n: radius[n] * x / (x.norm() + 1e-12) for n, x in g.items()}",
        "product of balls",
    ),
    (
        "ch05.q1",
        """
        def f(g, radius):
            norm = torch.cat([x.flatten() for x in g.values()]).norm()
            return {n: radius[n] * x / norm for n, x in g.items()}
        """,
        "another point of the rim",
    ),
    ("ch05.q1", "def f(g, radius): return {n: 0 * x for n, x in g.items()}", "Nothing is disturbed"),
    ("ch05.q1", "def f(g, radius): return g['w']", "should be a dict"),
    (
        "ch05.q1",
        """
        def f(g, radius):
            norm = torch.cat([max(radius[n], 0.1) * x.flatten() for n, x in g.items()]).norm()
            return {n: radius[n] ** 2 * x / norm for n, x in g.items()}
        """,
        "still count in the norm",
    ),
    ("ch05.q2", "def f(disturb): return False", "does not notice theta"),
    ("ch05.q2", "def f(disturb): return True", "It is not"),
    ("ch05.q2", "def f(disturb): return 'yes'", "True or False"),
    (
        "ch05.q2",
        "def f(disturb): return bool(disturb({'w': torch.ones(2), 'theta': torch.ones(1)}).norm() < 0.05)",
        "It is not",
    ),
    ("ch06.q1", "def f(): return hs.Real(init=(1e-4, 1e-3), unit='m^2/s')", "negative"),
    ("ch06.q1", "def f(): return hs.Positive(init=5e-4, unit='m^2/s')", "same value"),
    ("ch06.q1", "def f(): return hs.Positive(init=(1e-4, 1e-3))", "unit is missing"),
    ("ch06.q1", "def f(): return hs.Positive(init=(0.1, 1.0), unit='m^2/s')", "outside of what is known"),
    ("ch06.q1", "def f(): return hs.Fixed(5e-4, unit='m^2/s')", "to be found"),
    ("ch06.q1", "def f(): return hs.Theta(D=5e-4)", "not a constraint"),
    (
        "ch06.q2",
        """
        def f():
            class M(hs.HybridModel):
                def __init__(self):
                    super().__init__()
                    self.rate = torch.nn.Parameter(torch.tensor(1.0))
                    self.net = hs.mlp(2, [4], 1)
            return M()
        """,
        "No parameter of this model is theta",
    ),
    (
        "ch06.q2",
        """
        def f():
            class M(hs.HybridModel):
                def __init__(self):
                    super().__init__()
                    self.theta, self.net = hs.Theta(rate=hs.Positive()), hs.mlp(2, [4], 1)
                def forward(self, inputs):
                    x0, t = inputs["x0"][:, None], inputs["t"][None, :, None]
                    both = torch.cat(torch.broadcast_tensors(x0, t), -1)
                    return x0 * torch.exp(-self.theta.rate * t) + self.net(both)
            return M()
        """,
        "should return an hs.Prediction",
    ),
    (
        "ch06.q2",
        """
        def f():
            class M(hs.HybridModel):
                def __init__(self):
                    super().__init__()
                    self.theta, self.net = hs.Theta(rate=hs.Positive()), hs.mlp(1, [4], 1)
                def forward(self, inputs):
                    x0, t = inputs["x0"][:, None], inputs["t"][None, :, None]
                    network = self.net(t) + 0 * x0
                    return hs.Prediction(x0 * torch.exp(-self.theta.rate * t) + network, network=network)
            return M()
        """,
        "does not read x0",
    ),
    ("ch06.q2", "def f(): return torch.nn.Linear", "not the class"),
    ("ch07.q1", "def f(q, p, omega2, alpha): return omega2", "This is the truth"),
    (
        "ch07.q1",
        "def f(q, p, omega2, alpha): s = torch.sin(q); return float(omega2 - alpha * (p @ s) / (s @ s))",
        "wrong side",
    ),
    ("ch07.q1", "def f(q, p, omega2, alpha): return 50.0", "wrong side|needs a smaller network"),
    ("ch07.q2", "def f(theta0, omega2, tolerance): return (theta0 - omega2) / tolerance - 1", "negative"),
    ("ch07.q2", "def f(theta0, omega2, tolerance): return abs(theta0 - omega2) / tolerance", "smaller ratio"),
    ("ch07.q2", "def f(theta0, omega2, tolerance): return 1.0", "leaves an error"),
    ("ch11.q1", "def f(W, b, c, s, m): return W, b", "what they were"),
    ("ch11.q1", "def f(W, b, c, s, m): return W / s, b", "belongs into the bias"),
    ("ch11.q1", "def f(W, b, c, s, m): return W * s, b", "wrong way"),
    ("ch11.q1", "def f(W, b, c, s, m): return W / s", "two things"),
    ("ch11.q2", "def f(estimates, labelled, truths): return estimates", "not been changed"),
    (
        "ch11.q2",
        "def f(estimates, labelled, truths): return estimates + (truths - estimates[labelled]).mean()",
        "still wrong",
    ),
    (
        "ch11.q2",
        """
        def f(estimates, labelled, truths):
            x = estimates[labelled]
            return truths.mean() + (estimates - x.mean()) * (truths.std() / x.std())
        """,
        "falling, as in a mirrored encoder",
    ),
    (
        "ch11.q2",
        """
        def f(estimates, labelled, truths):
            x = estimates[labelled]
            slope = (truths[1] - truths[0]) / (x[1] - x[0])
            return truths[0] + slope * (estimates - x[0])
        """,
        "smaller sum of squares",
    ),
    ("ch12.q1", "def f(a, b): return float(torch.arccos((a @ b) / (a.norm() * b.norm()) / (1 + 1e-12)))", "radians"),
    ("ch12.q1", "def f(a, b): return float(torch.rad2deg(torch.arccos((a / a.norm()) @ (b / b.norm()))))", "rounding"),
    ("ch12.q1", "def f(a, b): return float((a - b).norm())", "no angle between them"),
    ("ch12.q1", "def f(a, b): return math.degrees(math.acos(min(1.0, float(a @ b))))", "no angle between them"),
    ("ch12.q2", "def f(color, degrees): return degrees / 90", "asked were"),
    ("ch12.q2", "def f(color, degrees): return degrees", "between 0 and 1"),
    ("ch12.q2", "def f(color, degrees): return 1 - SOLUTION(color, degrees)", "share of the colour"),
    (
        "ch13.q1",
        """
        def f(losses):
            return min(losses, key=lambda s: np.mean(losses[s]))
        """,
        "1000 times larger|a larger setting",
    ),
    (
        "ch13.q1",
        """
        def f(losses):
            best = min(losses, key=lambda s: np.mean(losses[s]))
            error = np.std(losses[best], ddof=1) / len(losses[best]) ** 0.5
            return max(s for s in losses if np.mean(losses[s]) <= np.mean(losses[best]) + error)
        """,
        "more than a standard error",
    ),
    ("ch13.q1", "def f(losses): return max(losses)", "more than a standard error"),
    ("ch13.q1", "def f(losses): return 7.0", "one of the settings"),
    ("ch14.q1", "def f(network, x, count): return True", "Try weights"),
    ("ch14.q1", "def f(network, x, count): return False", "It is"),
    (
        "ch14.q1",
        """
        def f(network, x, count):
            w = torch.randn(count)
            return torch.allclose(network(x, 2 * w), 2 * network(x, w))
        """,
        "with a constant",
    ),
    (
        "ch14.q1",
        """
        def f(network, x, count):
            return torch.allclose(network(x, torch.ones(count)), network(x, torch.zeros(count)) + x)
        """,
        "linear in its weights",
    ),
    ("ch14.q2", "def f(gain, u, v): return 1 / gain**2", "loud network"),
    ("ch14.q2", "def f(gain, u, v): return 1 / SOLUTION(gain, u, v)", "the inverse"),
    ("ch14.q2", "def f(gain, u, v): return 2.0", "should be 1"),
    ("ch14.q2", "def f(gain, u, v): return 1 / gain", "another factor"),
    ("ch16.q1", "def f(a, J, lam): return float((a**2).mean())", "The network may adapt"),
    ("ch16.q1", "def f(a, J, lam): return len(a) * SOLUTION(a, J, lam)", "n times too large"),
    (
        "ch16.q1",
        """
        def f(a, J, lam):
            b = -torch.linalg.solve(J.T @ J / len(a) + lam * torch.eye(J.shape[1]), J.T @ a / len(a))
            return float(((a + J @ b) ** 2).mean())
        """,
        "what it costs is missing",
    ),
    (
        "ch16.q1",
        """
        def f(a, J, lam):
            b = -torch.linalg.solve(J.T @ J + lam * torch.eye(J.shape[1]), J.T @ a)
            return float(((a + J @ b) ** 2).mean() + lam * b @ b)
        """,
        "Mind the 1/n",
    ),
    ("ch16.q2", "def f(times): return 1 / times, 1.0", "that of the variance"),
    ("ch16.q2", "def f(times): return 1 / times**0.5, 1 / times**0.5", "second factor"),
    ("ch16.q2", "def f(times): return 1.0, 1.0", "more data do help"),
    ("ch16.q2", "def f(times): return 0.5", "2 numbers"),
    ("ch17.q1", "def f(rise, anchor): return rise", "still `rise`"),
    ("ch17.q1", "def f(rise, anchor): return lambda charge: rise(charge - anchor)", "lost its shape"),
    ("ch17.q1", "def f(rise, anchor): return lambda charge: rise(charge) - rise(torch.zeros(1))", "should give zero"),
    ("ch17.q1", "def f(rise, anchor): return rise(torch.tensor([anchor]))", "should return a function"),
    ("ch17.q2", "def f(effect, features): return 1 - SOLUTION(effect, features)", "can\\* be imitated"),
    ("ch17.q2", "def f(effect, features): return SOLUTION(effect, features) ** 0.5", "mean square"),
    (
        "ch17.q2",
        """
        def f(effect, features):
            best = torch.linalg.lstsq(features, effect[:, None]).solution
            return float((effect - (features @ best)[:, 0]).square().mean())
        """,
        "another unit",
    ),
    ("ch17.q2", "def f(effect, features): return 0.0", "less than the best"),
]

SAM = """
def f(loss, params, phi, rho, lr):
    grad = torch.func.grad(loss)
    g = grad(params)
    norm = sum((g[n] ** 2).sum() for n in {norm}).sqrt() {guard}
    e = {{n: {e} for n in {names}}}
    worst = {{n: p + e.get(n, 0) for n, p in params.items()}}
    g2 = grad({at})
    return {{n: {step} for n, p in params.items()}}
"""
CORRECT = {
    "norm": "phi",
    "guard": "+ 1e-12",
    "e": "rho * g[n] / norm",
    "names": "phi",
    "at": "worst",
    "step": "p - lr * g2[n]",
}
WRONG += [
    ("ch04.q1", SAM.format(**CORRECT | change), fragment)
    for change, fragment in [
        ({"at": "params"}, "At which point is the second gradient"),
        ({"names": "params"}, "Theta is disturbed too"),
        ({"names": "params", "norm": "params"}, "Theta is disturbed too"),
        ({"norm": "params"}, "belong into the norm"),
        ({"guard": "+ 0.0"}, "zero is divided by zero"),
        ({"e": "rho * g[n]"}, "depends on the size of the gradient"),
        ({"e": "rho * g[n] / (g[n].norm() + 1e-12)"}, "one ball for all"),
        ({"e": "rho * g[n].sign()"}, "a cube, not of a ball"),
        ({"e": "-rho * g[n] / norm"}, "goes downhill"),
        ({"step": "worst[n] - lr * g2[n]"}, "Start the step from where you were"),
        ({"step": "p - lr * (g if n == 'theta' else g2)[n]"}, "undisturbed point"),
        ({"step": "p if n == 'theta' else p - lr * g2[n]"}, "one of plain gradient descent"),
        ({"step": "p - lr * g[n] - lr * g2[n]"}, "updated twice"),
        ({"step": "p + lr * g2[n]"}, "uphill"),
        ({"step": "p - rho * g2[n]"}, "one of plain gradient descent"),
    ]
]
WRONG += [
    (
        "ch04.q1",
        "def f(loss, params, phi, rho, lr):\n    for n in params: params[n] = params[n] * 0\n    return params",
        "in place",
    ),
    ("ch04.q2", "def f(w, g, rho): return rho * g / (g.norm() + 1e-12)", "takes no notice of the size"),
    ("ch04.q2", "def f(w, g, rho): return rho * w * g / (w * g).norm()", "longer|shorter"),
    ("ch04.q2", "def f(w, g, rho): return rho * w.abs() * g.sign() / len(w) ** 0.5", "another point of the rim"),
    ("ch04.q2", "def f(w, g, rho): return -rho * w**2 * g / ((w * g).norm() + 1e-12)", "falls along"),
    ("ch04.q2", "def f(w, g, rho): return rho * w**2 * g / (w * g).norm()", "not finite"),
]

ALSO_RIGHT = [
    ("ch01.q1", "def f(T, theta, k, evaporation): return theta * T - 20 * theta - k * (T - 20) - evaporation(T)"),
    ("ch03.q1", "def f(u, v): s = abs(v / u) ** 0.5; return s * u, np.float64(v / s)"),
    (
        "ch05.q2",
        """
        def f(d):
            g = lambda t: {'theta': torch.full((3,), t), 'w': torch.ones(4)}
            return bool(d(g(0.0)).ne(d(g(50.0))).any())
        """,
    ),
    ("ch06.q1", "def f(): return hs.Interval(1e-4, 1e-3, unit='m²/s')"),
    ("ch06.q1", "def f(): return hs.Interval(5e-5, 2e-3, init=(2e-4, 8e-4), unit='m**2 / s')"),
    (
        "ch14.q1",
        """
        def f(network, x, count):
            J = torch.func.jacrev(lambda w: network(x, w))
            return torch.allclose(J(torch.randn(count)), J(torch.randn(count)))
        """,
    ),
    (
        "ch16.q1",
        """
        def f(a, J, lam):
            n = len(a)
            return a @ torch.linalg.solve(torch.eye(n) + J @ J.T / (n * lam), a) / n
        """,
    ),
    ("ch16.q2", "def f(times): return torch.tensor([times**-0.5, 1.0])"),
    (
        "ch17.q1",
        """
        def f(rise, anchor):
            zero = rise(torch.full((1,), anchor)).item()
            return lambda charge: rise(charge) - zero
        """,
    ),
    (
        "ch04.q1",
        """
        def f(loss, params, phi, rho, lr):
            p = {n: x.clone().requires_grad_() for n, x in params.items()}
            loss(p).backward()
            flat = torch.cat([p[n].grad.flatten() for n in phi])
            e = {n: rho * torch.nan_to_num(p[n].grad / flat.norm()) for n in phi}
            q = {n: (x + e[n] if n in e else x).detach().requires_grad_() for n, x in params.items()}
            loss(q).backward()
            return {n: x - lr * q[n].grad for n, x in params.items()}
        """,
    ),
]  # fmt: skip


def answer(question: str, source: str) -> Any:
    """The function f of a source, as in a student's notebook: without annotations and with the usual imports."""
    found = find(question)
    assert found is not None
    names: dict[str, Any] = {"torch": torch, "np": np, "math": math, "hs": hs, "SOLUTION": found.solution}
    exec(textwrap.dedent(source), names)
    return names["f"]


def test_every_chapter_with_exercises_has_some() -> None:
    chapters = {name[:4] for name in ALL}
    assert chapters == {f"ch{n:02}" for n in (1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 16, 17)}
    assert all(find(name).checker for name in ALL)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ALL)
def test_solutions_pass_and_stubs_are_unanswered(name: str) -> None:
    found = find(name)
    assert found is not None
    verdict = hs.exercises.check(name, found.solution)
    assert verdict, verdict
    names: dict[str, Any] = {"torch": torch, "np": np, "math": math, "hs": hs}
    exec(found.source(), names)  # the source as it is printed under the answer
    assert hs.exercises.check(name, names[found.name])
    exec(found.stub(), names)
    stub = hs.exercises.check(name, names[found.name])
    assert stub.status == "unanswered"
    assert not stub
    with pytest.raises(NotImplementedError, match=name):  # the stub fails loudly when it is called
        names[found.name](*[None] * names[found.name].__code__.co_argcount)


@pytest.mark.parametrize(("name", "source"), ALSO_RIGHT)
def test_other_right_answers_pass(name: str, source: str) -> None:
    verdict = hs.exercises.check(name, answer(name, source))
    assert verdict, verdict


@pytest.mark.parametrize(("name", "source", "fragment"), WRONG)
def test_wrong_answers_hear_what_is_wrong(name: str, source: str, fragment: str) -> None:
    verdict = hs.exercises.check(name, answer(name, source))
    assert verdict.status == "wrong"
    assert re.search(fragment, verdict.message), verdict.message


def test_each_exercise_has_three_wrong_answers() -> None:
    counts = {name: sum(name == other for other, *_ in WRONG) for name in ALL}
    assert min(counts.values()) >= 3, counts


def test_no_message_gives_the_answer_away() -> None:
    """No message of a check holds a line of the solution."""
    for name in ALL:
        found = find(name)
        assert found is not None
        lines = [line.strip().removeprefix("return ") for line in found._parts()[2].splitlines()]
        said = [hs.exercises.check(name, answer(name, source)).message for other, source, _ in WRONG if other == name]
        assert not [line for line in lines for text in said if len(line) > 12 and line in text], name


class Strange:
    """Whatever one does with it, it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("strange")

    def __len__(self) -> int:
        raise RuntimeError("strange")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("strange")

    __hash__ = None  # type: ignore[assignment]


def absurd() -> dict[str, Any]:
    def deep(*_: Any) -> Any:
        return deep(*_)

    return {
        "none": None,
        "a number": 3.0,
        "a class": dict,
        "returns none": lambda *_: None,
        "nan": lambda *_: math.nan,
        "tensor of nan": lambda *_: torch.full((3,), torch.nan),
        "complex": lambda *_: 1j,
        "text": lambda *_: "42",
        "wrong shape": lambda *_: torch.zeros(7, 7, 7),
        "ragged": lambda *_: [[1.0], [2.0, 3.0]],
        "empty": lambda *_: (),
        "its argument": lambda *a: a[0] if a else None,
        "a dict": lambda *_: {"w": None, 3: "x"},
        "a function": lambda *_: lambda *_: None,
        "another signature": lambda: 0,
        "raises": lambda *_: 1 / 0,
        "asserts": lambda *_: (_ for _ in ()).throw(AssertionError),
        "exits": lambda *_: sys.exit(1),
        "interrupts": lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        "recursion": deep,
        "strange": Strange(),
        "returns something strange": lambda *_: Strange(),
        "huge": lambda *_: 10**400,
        "a large tensor": lambda *_: torch.zeros(1_000_000),
        "a module": lambda *_: torch.nn.Linear(1, 1),
    }


@pytest.mark.parametrize("name", ALL)
def test_absurd_answers_get_a_sentence(name: str) -> None:
    for what, function in absurd().items():
        verdict = hs.exercises.check(name, function)
        assert verdict.status == "wrong", (what, verdict)
        assert 10 < len(verdict.message) < 400, (what, verdict)
        assert "Traceback" not in repr(verdict)


def test_an_unknown_exercise_is_no_traceback() -> None:
    for name in ("ch99.q1", "ch04.q9", "", "os.path", 3, None):
        assert "There is no exercise" in hs.exercises.check(name, None).message  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ch04\.q1"):
        hs.exercises.statement("ch04.q9")


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "import time\n    time.sleep(60)",
        "while True:\n        try: 1 / 0\n        except Exception: pass",
    ],
)
def test_an_endless_answer_comes_to_an_end(body: str) -> None:
    start = time.monotonic()
    verdict = hs.exercises.check("ch03.q1", answer("ch03.q1", f"def f(u, v):\n    {body}"), seconds=0.5)
    assert "did not come to an end" in verdict.message
    assert time.monotonic() - start < 30  # of which half a second is ours


def test_checking_leaves_torch_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), torch.get_default_dtype()
    hs.exercises.check("ch14.q1", find("ch14.q1").solution)  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_default_dtype() == before[1]


def test_verdicts_read_well() -> None:
    wrong = Verdict("ch04.q1", "wrong", "A <b>sentence</b>.")
    assert (bool(wrong), repr(wrong)) == (False, "✗ ch04.q1: not yet. A <b>sentence</b>.")
    assert "&lt;b&gt;" in wrong._repr_html_()
    where = hs.exercises.check("ch03.q1", lambda u, v: 1 / 0)
    assert "ZeroDivisionError: division by zero" in where.message
    assert 'at the line "where = ' in where.message
    assert "def sam_step(loss, params, phi, rho, lr):" in hs.exercises.statement("ch04.q1")


def test_exercises_are_loaded_when_asked_for() -> None:
    code = (
        "import sys, hybridsam_lite as hs; assert not [m for m in sys.modules if 'exercises.ch' in m];"
        "hs.exercises.check('ch01.q1', 0); assert 'hybridsam_lite.exercises.ch02' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def chapter_copies(folder: Path) -> Path:
    """The chapters without their generated cells, in a folder of their own."""
    for path in sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text())
        notebook["cells"] = [cell for cell in notebook["cells"] if not cell["id"].startswith(exercises.PREFIX)]
        (folder / path.name).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return folder


def test_the_tool_writes_cells_once_and_finds_what_is_not_current(tmp_path: Path) -> None:
    book = chapter_copies(tmp_path)
    bare = {path.name: json.loads(path.read_text())["cells"] for path in book.glob("*.ipynb")}
    assert exercises.main(["--book", str(book)]) == 1
    assert exercises.main(["--book", str(book), "--write"]) == 0
    assert exercises.main(["--book", str(book)]) == 0
    written = 0
    for path in book.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        made = [cell for cell in notebook.cells if cell.id.startswith(exercises.PREFIX)]
        rest = [cell["id"] for cell in bare[path.name]]
        assert [cell.id for cell in notebook.cells if cell not in made] == rest  # nothing else was touched
        for cell in made:
            if cell.cell_type == "code":
                written += 1
                assert cell.metadata.tags == ["skip-execution", "nbval-skip"]
                assert "NotImplementedError" in cell.source
                assert len(cell.source.splitlines()) <= 25
                assert max(map(len, cell.source.splitlines())) <= 110
    assert written == len([name for name in ALL if any(path.startswith(name[2:4]) for path in bare)])

    chapter = book / "04_sam_from_scratch.ipynb"
    chapter.write_text(chapter.read_text().replace("SAM, by heart", "SAM by heart"))
    assert exercises.main(["--book", str(book)]) == 1  # an edited cell is found


def test_a_generated_cell_runs_as_a_student_runs_it() -> None:
    """In a fresh namespace with `hs`, as it stands and then with the answer in it."""
    cell = next(c for c in exercises.cells("ch03") if c["cell_type"] == "code")
    source = "".join(cell["source"])
    definition, _, call = source.rpartition("\n\n\n")
    names: dict[str, Any] = {"hs": hs}
    exec(definition, names)
    assert eval(call, names).status == "unanswered"
    exec(find("ch03.q1").source(), names)  # type: ignore[union-attr]
    assert eval(call, names)


def test_the_chapters_are_current() -> None:
    assert not [path.name for path in exercises.corrected(ROOT / "book")], "python -m tools.exercises --write"
