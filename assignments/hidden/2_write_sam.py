"""Hidden tests of assignment 2: each is one line of the rubric."""

import torch

from hybridsam_lite.exercises.asking import Ask, brief, close, number, numbers, require, tensor
from tools.assignments import item


def disturbed(disturbance, grads, rho):
    found = Ask(disturbance, "disturbance")(grads, rho)
    require(
        isinstance(found, (list, tuple)) and len(found) == len(grads),
        f"Return a list of {len(grads)} tensors, got {brief(found)}.",
    )
    return [tensor(e, "a disturbance", tuple(g.shape)) for e, g in zip(found, grads, strict=True)]


def some_gradients(scale=1.0):
    source = torch.Generator().manual_seed(1)
    return [scale * torch.randn(shape, generator=source, dtype=torch.float64) for shape in ((3, 2), (2,), ())]


def length(tensors):
    return float(sum((x.double() ** 2).sum() for x in tensors)) ** 0.5


@item("q1", 2, "its length is rho, over all parameters together")
def rho_long(disturbance):
    for rho, scale in ((0.1, 1.0), (0.5, 1e-3), (0.5, 100.0)):
        e = disturbed(disturbance, some_gradients(scale), rho)
        require(
            close(length(e), rho, rtol=1e-5),
            f"For rho = {rho:g} the disturbances have a length of {length(e):.3g} over all parameters together.",
        )


@item("q1", 1, "it points along the gradient")
def uphill(disturbance):
    g = some_gradients()
    e = disturbed(disturbance, g, 0.3)
    rise = float(sum((a * b).sum() for a, b in zip(e, g, strict=True)))
    require(rise > 0, "The loss falls along this disturbance.")
    require(
        close(rise, length(e) * length(g), rtol=1e-5), "Another disturbance of the same length raises the loss more."
    )


@item("q1", 1, "a gradient of zero disturbs nothing")
def zero(disturbance):
    found = Ask(disturbance, "disturbance")([torch.zeros(3)], 0.1)
    e = torch.as_tensor(found[0])
    require(bool(torch.isfinite(e).all()), "For a gradient of zero the disturbance is nan: zero is divided by zero.")
    require(not e.any(), "For a gradient of zero something is disturbed.")


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(3)
        draw = lambda *shape: torch.nn.Parameter(torch.randn(shape, generator=source, dtype=torch.float64))  # noqa: E731
        self.theta, self.w, self.b = draw(2), draw(2, 3), draw(2)


class Recorder(torch.optim.SGD):
    """Plain SGD that notes what it is given."""

    def __init__(self, model, lr=0.1):
        super().__init__(model.parameters(), lr=lr)
        self.model, self.seen = model, []

    def step(self, closure=None):
        if closure is not None:
            with torch.enable_grad():
                closure()
        grads = {n: None if p.grad is None else p.grad.clone() for n, p in self.model.named_parameters()}
        self.seen.append((values(self.model), grads))
        return super().step()


def values(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def stepped(sam_step, rho=0.3, unit=1.0):
    """Model before and after one step, what the optimizer saw, and at which points the loss was computed."""
    model, points = Model(), []
    optimizer, source = Recorder(model), torch.Generator().manual_seed(4)
    root = torch.randn(14, 10, generator=source, dtype=torch.float64)
    matrix, linear = root.T @ root / 5, torch.randn(10, generator=source, dtype=torch.float64)

    def loss(model):
        points.append(values(model))
        z = torch.cat([unit * model.theta, model.w.flatten(), model.b])
        return z @ matrix @ z / 2 + linear @ z

    before = values(model)
    Ask(sam_step, "sam_step").outcome(sam_step, model, loss, optimizer, ["w", "b"], rho)
    require(points, "The loss is never computed.")
    taken = list(points)

    def gradient(at):
        for n, p in model.named_parameters():
            p.data = at[n].clone()
            p.grad = None
        loss(model).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters()}

    after = values(model)
    return before, after, optimizer.seen, taken, gradient


def same(x, y):
    return all(close(x[n], y[n], rtol=1e-8, atol=1e-10) for n in y)


def used(seen):
    require(seen, "The optimizer never takes a step.")
    require(
        all(g is not None for g in seen[0][1].values()),
        "Some parameters have no gradient when the optimizer takes its step.",
    )
    return seen[0]


@item("q2", 1, "at rho = 0 it is the plain step")
def plain(sam_step):
    before, after, _seen, _, gradient = stepped(sam_step, rho=0.0)
    g = gradient(before)
    right = {n: before[n] - 0.1 * g[n] for n in before}
    require(
        not same(after, {n: before[n] - 0.2 * g[n] for n in before}),
        "At rho = 0 the model moves twice as far as by a plain step. Are gradients added up, or is the update made "
        "twice?",
    )
    require(same(after, right), "At rho = 0 the step is not that of the plain optimizer.")


@item("q2", 2, "the gradient is that of the disturbed point")
def at_the_worst_point(sam_step):
    before, _, seen, points, gradient = stepped(sam_step)
    g, clean = used(seen)[1], gradient(before)
    require(
        not same(g, {n: clean[n] for n in ("w", "b")}),
        "The optimizer uses the gradient at the clean point. The one at the disturbed point is what SAM descends.",
    )
    two = gradient(points[-1])
    require(
        not same(g, {n: clean[n] + two[n] for n in g}),
        "The optimizer uses the sum of both gradients: zero_grad is missing before the second pass.",
    )
    require(
        same(g, two),
        "The gradient that the optimizer uses is not that of the last point at which the loss was computed.",
    )


@item("q2", 2, "phi is restored before the step")
def restored(sam_step):
    before, after, seen, points, _ = stepped(sam_step)
    at, g = used(seen)
    if all(torch.equal(at[n], before[n]) for n in before):
        changed = len(seen) == 1 and not same(after, {n: before[n] - 0.1 * g[n] for n in before})
        require(not changed, "After the optimizer's step the parameters are changed again.")
        return
    if same(at, points[-1]) and not same(points[-1], before):
        require(False, "The step starts from the disturbed point: phi is not restored.")
    require(
        not same(at, before), "Phi is restored up to rounding only. Adding and subtracting is not exact; keep a copy."
    )
    require(False, "When the optimizer takes its step, the parameters are not where they were at the beginning.")


@item("q2", 1, "theta is not disturbed")
def theta_stays(sam_step):
    before, _, _, points, _ = stepped(sam_step)
    require(
        all(torch.equal(p["theta"], before["theta"]) for p in points),
        "Theta is disturbed: the loss is computed at another theta. Only the names in `phi` may move.",
    )
    require(any(not torch.equal(p["w"], before["w"]) for p in points), "Phi is never disturbed.")


@item("q2", 1, "theta's gradient does not count in the norm")
def the_norm(sam_step):
    for unit in (1.0, 1000.0):
        before, _, _, points, _ = stepped(sam_step, unit=unit)
        moved = length([points[-1][n] - before[n] for n in ("w", "b")])
        require(moved > 0, "Phi is never disturbed.")
        message = (
            "Phi is disturbed by less than rho. In another unit of theta it is hardly disturbed at "
            "all: theta's gradient is in the norm."
        )
        require(moved > 0.3 * (1 - 1e-6), message)
        require(moved < 0.3 * (1 + 1e-6), "Phi is disturbed by more than rho.")


@item("q2", 1, "one update, and two computations of the loss")
def once(sam_step):
    _, _, seen, points, _ = stepped(sam_step)
    require(len(seen) == 1, f"The optimizer takes {len(seen)} steps. An optimizer with momentum counts each of them.")
    require(len(points) == 2, f"The loss is computed {len(points)} times; SAM needs two.")


@item("q3", 1, "plain training gets stuck in the valley")
def erm(train):
    theta, u, v = numbers(Ask(train, "train")(0.0, 400, 0.1), "the result", 3)
    require(abs(theta + u * v - 2) < 1e-3, "With rho = 0 the model does not fit the data after 400 steps.")
    require(abs(theta - 0.514) < 0.01, "With rho = 0 theta should stay near where plain training meets the valley.")


@item("q3", 2, "SAM finds theta")
def finds(train):
    theta, _, _ = numbers(Ask(train, "train")(0.3, 1000, 0.1), "the result", 3)
    require(
        abs(theta - 2) < 0.05,
        f"With rho = 0.3 and 1000 steps theta ends at {theta:.2f}, and SAM should come within 0.05 of 2.",
    )


@item("q3", 1, "every call starts anew")
def anew(train):
    ask = Ask(train, "train")
    for _ in range(2):
        theta, _, _ = numbers(ask(0.3, 1, 0.1), "the result", 3)
        require(
            abs(theta - 0.5) < 0.2,
            "After a single step theta is far from its start: the model of an earlier call is trained further.",
        )


@item("q4", 2, "agrees with what is measured")
def measured(half_life):
    for k, rho in ((1.5, 0.2), (0.8, 0.2), (1.5, 0.3)):
        found = number(Ask(half_life, "half_life")(k, 0.02, rho), "the half-life")
        theta, u, v = 2 - k + 1e-3, k**0.5, k**0.5
        steps = 0
        while u * v > k / 2 and steps < 10_000:
            q = theta + u * v - 2
            size = abs(q) * (u * u + v * v) ** 0.5 + 1e-12
            du, dv = rho * q * v / size, rho * q * u / size
            q = theta + (u + du) * (v + dv) - 2
            theta, u, v = theta - 0.02 * q, u - 0.02 * q * (v + dv), v - 0.02 * q * (u + du)
            steps += 1
        require(found > 0, "A half-life is positive.")
        require(
            0.9 < found / steps < 1.25,
            f"For k = {k:g}, lr = 0.02 and rho = {rho:g}, SAM needs a number of steps that differs from yours by "
            "more than a tenth. (The speed changes on the way: integrate.)",
        )
