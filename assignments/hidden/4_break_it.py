"""Hidden tests of assignment 4: each is one line of the rubric."""

import torch

from hybridsam_lite.exercises.asking import Ask, brief, close, number, require, tensor, yes
from tools.assignments import item

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = X / X.square().mean(0).sqrt()


def train(world, rho=0.2, lam=0.0, steps=2500, lr=0.1, starts=8):
    """The notebook's, once more: a student may have changed that one."""
    theta_true, phi_true = torch.tensor(float(world["theta"])), torch.tensor(world["phi"], dtype=torch.float64)
    y = world["predict"](X, theta_true, phi_true).detach()
    source = torch.Generator().manual_seed(0)
    theta = theta_true + torch.linspace(-1, 1, starts, dtype=torch.float64)
    phi = phi_true + 0.3 * (2 * torch.rand(starts, len(phi_true), generator=source, dtype=torch.float64) - 1)

    def loss(theta, phi):
        return ((world["predict"](X, theta, phi) - y) ** 2).mean() / 2

    gradient = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))
    for step in range(steps):
        g = gradient(theta, phi)[1]
        worst = phi + rho * g / (g.norm(dim=1, keepdim=True) + 1e-12)
        g_theta, g_phi = gradient(theta, worst)
        rate = lr * (1 - step / steps)
        theta, phi = theta - rate * g_theta, phi - rate * (g_phi + lam * phi)
    return theta, phi, (2 * torch.func.vmap(loss)(theta, phi)).sqrt()


def world_of(function, name):
    ask = Ask(function, name)
    world = ask()
    require(
        isinstance(world, dict) and set(world) == {"predict", "theta", "phi"},
        f"`{name}` should return a dict with predict, theta and phi, got {brief(world)}.",
    )
    theta, phi = number(world["theta"], "theta"), tensor(world["phi"], "phi")
    require(phi.ndim == 1 and 1 <= len(phi) <= 10, "phi should be a list of 1 to 10 numbers.")
    y = tensor(ask.outcome(world["predict"], X, torch.tensor(theta), phi), "the prediction", (40,))
    world = {"predict": world["predict"], "theta": theta, "phi": phi.tolist()}
    return ask, world, y


def network_part(ask, world):
    """The prediction less theta x1, at two thetas."""
    phi = torch.tensor(world["phi"], dtype=torch.float64)
    parts = [
        ask.outcome(world["predict"], X, torch.tensor(t), phi).detach() - t * X[:, 0]
        for t in (world["theta"], world["theta"] + 1.7)
    ]
    require(
        close(parts[0], parts[1], atol=1e-8),
        "The physics is not theta * x1: when theta changes, the prediction changes otherwise.",
    )
    return parts[0]


def trained(ask, world, cache={}):  # noqa: B006 (each world is trained once)
    if ask.name not in cache:
        cache[ask.name] = ask.outcome(train, world)
    theta, phi, rmse = cache[ask.name]
    require(bool(torch.isfinite(rmse).all()), "SAM diverges on this world.")
    return theta, phi, rmse


@item("q1", 2, "a fair world: the physics is theta x1, the weights are not huge")
def fair(broken):
    ask, world, _ = world_of(broken, "broken")
    network_part(ask, world)
    require(max(abs(w) for w in world["phi"]) <= 3, "A weight is larger than 3.")
    phi = torch.tensor(world["phi"], dtype=torch.float64)
    moved = torch.stack(
        [
            ask.outcome(world["predict"], X, torch.tensor(world["theta"]), phi + 0.3 * d)
            for d in torch.eye(len(phi)).double()
        ]
    )
    still = ask.outcome(world["predict"], X, torch.tensor(world["theta"]), phi + 0.3)
    truth = ask.outcome(world["predict"], X, torch.tensor(world["theta"]), phi)
    require(
        bool((moved - truth).abs().max() > 1e-9 or (still - truth).abs().max() > 1e-9),
        "The network does not depend on its weights.",
    )


@item("q1", 2, "SAM fits, from all starts")
def fits(broken):
    ask, world, _ = world_of(broken, "broken")
    rmse = trained(ask, world)[2]
    require(
        bool((rmse < 0.05).all()),
        f"From one start the rmse is still {float(rmse.max()):.2f}. A fit that is bad would be noticed.",
    )


@item("q1", 3, "and theta is wrong")
def wrong_theta(broken):
    ask, world, _ = world_of(broken, "broken")
    network_part(ask, world)
    error = (trained(ask, world)[0] - world["theta"]).abs()
    require(
        float(error.max()) > 0.05,
        "SAM finds theta in this world, from all eight starts. Can its network take over theta * x1 without becoming "
        "sharper?",
    )
    require(
        float(error.quantile(0.5)) > 0.3,
        f"Theta is off by {float(error.quantile(0.5)):.2f} in the middle of the eight starts; it should be more than "
        "0.3.",
    )


WORLDS = {
    "healthy": (False, lambda x, t, p: t * x[:, 0] + p[0] * p[1] * x[:, 0], [0.0, 0.0]),
    "a network that does not read x1": (False, lambda x, t, p: t * x[:, 0] + p[0] * p[1] * x[:, 1], [1.0, 0.9]),
    "a linear rival": (True, lambda x, t, p: t * x[:, 0] + p[0] * x[:, 0], [0.0]),
    "a linear rival of three": (
        True,
        lambda x, t, p: t * x[:, 0] + p[0] * x[:, 0] + p[1] * x[:, 1] + p[2],
        [0.2, 0.5, 0.1],
    ),
}


def judged(suspicious, name, cache={}):  # noqa: B006
    _, predict, phi = WORLDS[name]
    if name not in cache:
        cache[name] = train({"predict": predict, "theta": 1.3, "phi": phi})
    theta, phi, rmse = cache[name]
    return Ask(suspicious, "suspicious"), theta, phi, rmse, predict


@item("q2", 2, "notices starts that disagree")
def notices(suspicious):
    for name, (bad, *_) in WORLDS.items():
        if bad:
            ask, *seen = judged(suspicious, name)
            require(
                yes(ask(*seen), "the answer"),
                f"Your test trusts theta in a world with {name}, where each start ends at another theta.",
            )


@item("q2", 2, "lets healthy worlds pass")
def passes(suspicious):
    for name, (bad, *_) in WORLDS.items():
        if not bad:
            ask, *seen = judged(suspicious, name)
            what = "the healthy world" if name == "healthy" else f"a world with {name}"
            require(
                not yes(ask(*seen), "the answer"),
                f"Your test raises an alarm in {what}, where SAM finds theta from all starts.",
            )


@item("q2", 1, "a start that did not fit has no say")
def bad_start(suspicious):
    ask, theta, phi, rmse, predict = judged(suspicious, "healthy")
    theta, rmse = theta.clone(), rmse.clone()
    theta[3], rmse[3] = theta[3] + 5, 2.0
    require(
        not yes(ask(theta, phi, rmse, predict), "the answer"),
        "One of eight starts did not fit, and your test blames theta for it.",
    )


@item("q3", 2, "a network that has work to do")
def work(mended):
    ask, world, _ = world_of(mended, "mended")
    size = float(network_part(ask, world).square().mean().sqrt())
    require(
        size >= 0.3,
        f"The network's part in the true prediction has a root mean square of {size:.2f}. To take the network away "
        "is no remedy.",
    )


@item("q3", 2, "and theta is found")
def found(mended):
    ask, world, _ = world_of(mended, "mended")
    network_part(ask, world)
    theta, _, rmse = trained(ask, world)
    require(bool((rmse < 0.1).all()), "In this world SAM does not fit from all starts.")
    error = float((theta - world["theta"]).abs().max())
    require(error < 0.15, f"From one of the eight starts theta is off by {error:.2f}.")


@item("q4", 2, "errors of plain training, SAM and weight decay")
def errors(control):
    _, predict, phi = WORLDS["a linear rival"]
    world = {"predict": predict, "theta": 1.3, "phi": phi}
    found = Ask(control, "control")(world)
    require(
        isinstance(found, dict) and set(found) == {"erm", "sam", "wd"},
        f"Return a dict with erm, sam and wd, got {brief(found)}.",
    )
    for name, setting in {"erm": {"rho": 0.0}, "sam": {"rho": 0.2}, "wd": {"rho": 0.0, "lam": 0.04}}.items():
        error = (train(world, **setting)[0] - 1.3).abs()
        value = number(found[name], f"the error of {name}")
        middle = sorted(error.tolist())[3:5]
        require(value >= 0, "An error is an absolute value; yours is negative.")
        require(
            middle[0] - 0.02 <= value <= middle[1] + 0.02,
            f"The median error of {name} is another one. (Median over the starts of |theta - truth|.)",
        )
