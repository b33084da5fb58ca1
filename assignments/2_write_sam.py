# %% [markdown]
# # Assignment 2: write SAM
#
# You write sharpness-aware minimization for models of PyTorch, as it is used in practice: in place, with an optimizer
# of your choice. Then you let it loose on a small hybrid model. About two hours, of which the computer needs less
# than a minute. 20 points. You should have read chapters 4 and 5.
#
# Fill in the functions; replace the lines with `NotImplementedError`. Each has a visible check below it. The grader
# tries them on other models. Do not use `hs.SAM`, `hs.perturbation` or `hs.sam_gradients`; to compare with them
# afterwards is a good idea.

# %%
import math

import torch

torch.set_default_dtype(torch.float64)


class Toy(torch.nn.Module):
    """The valley of chapter 4: physics theta x, network u v x, data 2 x."""

    def __init__(self):
        super().__init__()
        self.theta, self.u, self.v = (torch.nn.Parameter(torch.tensor(z)) for z in (0.5, 1.6, 0.9))

    def forward(self, x):
        return self.theta * x + self.u * self.v * x


x = torch.tensor([1.0, -1.0])


def toy_loss(model):
    return ((model(x) - 2 * x) ** 2).mean() / 2


# %% [markdown]
# ## 1. The step to the worst point (4 points)
#
# `grads` is a list of tensors, the gradients of the parameters that are disturbed. Return the list of disturbances
# $\varepsilon = \rho\, g/\|g\|$, with one norm for all of them together. Where the gradient is zero, nothing is
# disturbed.


# %% answer=q1
def disturbance(grads, rho):
    # SOLUTION
    norm = torch.sqrt(sum((g**2).sum() for g in grads)) + 1e-12
    return [rho * g / norm for g in grads]
    # END SOLUTION


# %% check=q1
assert torch.allclose(disturbance([torch.tensor([3.0, 4.0])], 0.1)[0], torch.tensor([0.06, 0.08]))

# %% [markdown]
# ## 2. One step of SAM (8 points)
#
# Take one step of SAM in place. `loss(model)` returns a scalar. `phi` lists the names of the parameters that are
# disturbed (see `model.named_parameters()`); the others are theta. The optimizer takes the step with the gradient, of
# all parameters, at the disturbed point, from where the model was before.


# %% answer=q2
def sam_step(model, loss, optimizer, phi, rho):
    # SOLUTION
    optimizer.zero_grad()
    loss(model).backward()
    disturbed = [p for n, p in model.named_parameters() if n in phi]
    before = [p.detach().clone() for p in disturbed]
    with torch.no_grad():
        for p, e in zip(disturbed, disturbance([p.grad for p in disturbed], rho), strict=True):
            p.add_(e)
    optimizer.zero_grad()
    loss(model).backward()
    with torch.no_grad():
        for p, old in zip(disturbed, before, strict=True):
            p.copy_(old)
    optimizer.step()
    # END SOLUTION


# %% check=q2
model = Toy()
sam_step(model, toy_loss, torch.optim.SGD(model.parameters(), lr=0.1), ["u", "v"], 0.1)
assert model.theta > 0.5

# %% [markdown]
# ## 3. Let it loose (4 points)
#
# Train a new `Toy` with your step and plain SGD. Return theta, u and v at the end, as numbers. With `rho=0` this is
# plain training.


# %% answer=q3
def train(rho, steps=1000, lr=0.1):
    # SOLUTION
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        sam_step(model, toy_loss, optimizer, ["u", "v"], rho)
    return model.theta.item(), model.u.item(), model.v.item()
    # END SOLUTION


# %% check=q3
theta, u, v = train(0.3, steps=10)
assert math.isfinite(theta)

# %% [markdown]
# ## 4. How long does it take? (2 points)
#
# On the toy, the network's share $k = uv$ shrinks by $\mathrm{lr}\,\rho^2\,2k/(1 + u^2 + v^2)$ in each step. Balanced
# weights have $u^2 + v^2 = 2k$. After how many steps has half of $k$ gone? (Integrate; the answer need not be a whole
# number.)


# %% answer=q4
def half_life(k, lr, rho):
    # SOLUTION
    return (math.log(2) + k) / (2 * lr * rho**2)
    # END SOLUTION


# %% check=q4
assert half_life(1.0, 0.1, 0.1) > half_life(1.0, 0.1, 0.2)

# %% [markdown]
# ## 5. In your words (2 points, read by a person)
#
# Your colleague's SAM leaves out the restoring, and says: "It trains as well as yours, and it is faster." In at most
# 100 words: what does her method do, and on which model would you show her the difference?

# %% [markdown] written=q5
# The weights move uphill by rho in each step and are not brought back: she descends from the disturbed point (1 point).
# On a quadratic with curvature h she comes to rest where rho uphill is as much as the step downhill, at a distance of
# rho (1 / (lr h) - 1) from the minimum: the smaller the learning rate, the farther. Any such model shows it; a learning
# rate near 1 / h hides it (1 point).
