"""Answers to the exercises of the method, chapters 1 to 6."""

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
]
