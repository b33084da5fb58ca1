# %% [markdown]
# # Assignment 4: break it
#
# You have seen SAM find theta. Now make it fail: build a small hybrid problem in which everything looks fine and
# theta is wrong. Then find a test that notices without knowing the truth, and mend the problem. About two hours, of
# which the computer needs a minute. 20 points. You should have read chapters 3, 4 and 14.
#
# Fill in the functions; replace the lines with `NotImplementedError`. Each has a visible check below it. There are
# many right answers; the grader looks at what your problems do.
#
# A **world** is a dict. `predict(x, theta, phi)` returns predictions of shape (40,) for inputs `x` of shape (40, 2):
# a physics with a theta, plus a network with the weights `phi`. `theta` (a number) and `phi` (a list of at most 10
# numbers) hold the truth: the data are what `predict` makes of them. `train` runs SAM on it from eight starts, with
# theta within 1 of the truth, and each weight within 0.3. Here is a healthy world: the network of chapter 4.

# %%
import torch

torch.set_default_dtype(torch.float64)
x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
x = x / x.square().mean(0).sqrt()


def train(world, rho=0.2, lam=0.0, steps=2500, lr=0.1, starts=8):
    """theta (starts,), phi (starts, weights) and rmse (starts,) at the end of SAM; lam is weight decay."""
    y = world["predict"](x, torch.tensor(world["theta"]), torch.tensor(world["phi"]))
    source = torch.Generator().manual_seed(0)
    theta = world["theta"] + torch.linspace(-1, 1, starts)
    phi = torch.tensor(world["phi"]) + 0.3 * (2 * torch.rand(starts, len(world["phi"]), generator=source) - 1)

    def loss(theta, phi):
        return ((world["predict"](x, theta, phi) - y) ** 2).mean() / 2

    gradient = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))
    for step in range(steps):
        g = gradient(theta, phi)[1]
        worst = phi + rho * g / (g.norm(dim=1, keepdim=True) + 1e-12)
        g_theta, g_phi = gradient(theta, worst)
        rate = lr * (1 - step / steps)
        theta, phi = theta - rate * g_theta, phi - rate * (g_phi + lam * phi)
    return theta, phi, (2 * torch.func.vmap(loss)(theta, phi)).sqrt()


def healthy_predict(x, theta, phi):
    return theta * x[:, 0] + phi[0] * phi[1] * x[:, 0]


healthy = {"predict": healthy_predict, "theta": 2.0, "phi": [0.0, 0.0]}
assert (train(healthy)[0] - 2).abs().max() < 0.05

# %% [markdown]
# ## 1. Break it (7 points)
#
# Return a world with the physics $\theta\,x_1$ plus a network of yours, in which SAM with `rho=0.2` fits from all
# eight starts (rmse below 0.05), and half of the thetas are more than 0.3 away from the truth. No weight may be
# larger than 3.


# %% answer=q1
def broken():
    # SOLUTION
    def predict(x, theta, phi):
        return theta * x[:, 0] + phi[0] * x[:, 0]  # linear in its weights: flatness is blind

    return {"predict": predict, "theta": 2.0, "phi": [0.0]}
    # END SOLUTION


# %% check=q1
world = broken()
assert set(world) == {"predict", "theta", "phi"}

# %% [markdown]
# ## 2. A test without the truth (5 points)
#
# Write a test that says whether theta can be trusted. It sees what `train` returned for a world, and `predict`, but
# not the truth. Return `True` if something is wrong. It should notice a world in which the starts end at different
# thetas, and it should let the healthy world pass. A start that did not fit at all says nothing about theta.


# %% answer=q2
def suspicious(theta, phi, rmse, predict):
    # SOLUTION
    good = rmse <= 1.5 * rmse.min() + 0.02
    return bool(theta[good].max() - theta[good].min() > 0.2)
    # END SOLUTION


# %% check=q2
assert not suspicious(*train(healthy), healthy["predict"])

# %% [markdown]
# ## 3. Mend it (4 points)
#
# Return a world that is mended: the physics is still $\theta\,x_1$, the network is one that has work to do (its part
# in the true prediction has a root mean square of at least 0.3), and SAM with `rho=0.2` finds theta to within 0.15
# from all starts. Two ways: another network, or inputs that it must not read.


# %% answer=q3
def mended():
    # SOLUTION
    def predict(x, theta, phi):
        return theta * x[:, 0] + phi[0] * phi[1] * x[:, 1]  # a network that does not read x1

    return {"predict": predict, "theta": 2.0, "phi": [0.8, 0.8]}
    # END SOLUTION


# %% check=q3
assert set(mended()) == {"predict", "theta", "phi"}

# %% [markdown]
# ## 4. The control (2 points)
#
# For a world, return the median error of theta over the eight starts for plain training, SAM with `rho=0.2`, and
# weight decay with `lam=0.04` (and `rho=0`), as a dict with the names `erm`, `sam` and `wd`.


# %% answer=q4
def control(world):
    # SOLUTION
    settings = {"erm": {"rho": 0.0}, "sam": {"rho": 0.2}, "wd": {"rho": 0.0, "lam": 0.04}}
    return {n: float((train(world, **s)[0] - world["theta"]).abs().quantile(0.5)) for n, s in settings.items()}
    # END SOLUTION


# %% check=q4
assert set(control(healthy)) == {"erm", "sam", "wd"}

# %% [markdown]
# ## 5. In your words (2 points, read by a person)
#
# In at most 150 words: why does your broken world fail, which link of the chain of chapter 14 breaks, and would your
# test of question 2 notice a world in which all starts agree on a wrong theta?

# %% [markdown] written=q5
# The reason fits the world that was handed in, with a formula or a measured number (1 point). Where all starts agree,
# the spread notices nothing: one needs other methods, other data or another parametrization, and says so (1 point).
