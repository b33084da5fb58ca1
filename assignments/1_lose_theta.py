# %% [markdown]
# # Assignment 1: lose theta
#
# A trolley rolls along a table and slows down. Rolling resistance is proportional to its speed and to its load, with
# a constant `drag` that somebody needs to know. Air resistance is there as well, and is left to a network. You will
# train this hybrid model ten times, lose the constant, find out why, and design an experiment that finds it.
#
# About two hours, of which the computer needs less than a minute. 20 points. You should have read chapters 1 and 2.
#
# Fill in the functions; replace the lines with `NotImplementedError`. Each has a visible check below it. The grader
# tries them on further problems. Do not rename functions, and do not rely on variables of other cells within them,
# except those that are defined in a cell that you did not write.

# %%
import pandas as pd
import torch

import hybridsam_lite as hs

DRAG, NOISE = 0.6, 0.02  # 1/s per kg, m/s²; the true constant is known to us because we simulate


def air(v):
    return 0.25 * v**2


def measure(v, load, seed):
    """Decelerations at speeds v in m/s with loads in kg, both of shape (n, 1)."""
    noise = torch.randn(v.shape, generator=torch.Generator().manual_seed(seed))
    return hs.Data({"v": v, "load": load}, DRAG * load * v + air(v) + NOISE * noise)


def speeds(count, seed):
    return 0.5 + 1.5 * torch.rand(count, 1, generator=torch.Generator().manual_seed(seed))


train, val = (measure(speeds(60, s), torch.ones(60, 1), s) for s in (1, 2))  # always 1 kg

# %% [markdown]
# ## 1. The model (3 points)
#
# Write the hybrid model $\hat y = \theta\, m\, v + f_\mathrm{nn}(v; \phi)$, with `inputs["v"]` and `inputs["load"]`.
# Its theta is called `drag`, is positive, and starts between 0.1 and 1.5. The network is an `hs.mlp` that reads the
# speed only. Return an `hs.Prediction` that also says what the network contributed.


# %% answer=q1
class Trolley(hs.HybridModel):
    def __init__(self):
        super().__init__()
        # SOLUTION
        self.theta = hs.Theta(drag=hs.Positive(init=(0.1, 1.5), unit="1/s/kg"))
        self.net = hs.mlp(1, [16], 1)
        # END SOLUTION

    def forward(self, inputs):
        # SOLUTION
        network = self.net(inputs["v"])
        physics = self.theta.drag * inputs["load"] * inputs["v"]
        return hs.Prediction(physics + network, network=network, physics=physics)
        # END SOLUTION


# %% check=q1
assert Trolley()(train.inputs).value.shape == (60, 1)
assert set(hs.roles(Trolley()).values()) == {"theta", "phi"}

# %% [markdown]
# ## 2. Ten trainings (4 points)
#
# Train the model with ten seeds by plain training (`hs.fit`, method `"erm"`), long enough to reach the noise. Return
# a table with a row for each seed and the columns `start`, `theta` and `rmse`: where theta started, where it ended,
# and the root mean square error on `val`. (`runs.history` holds the start, in its rows with `step == 0`. Small
# learning rates of theta, such as 0.01, are usual.)


# %% answer=q2
def ten_trainings():
    # SOLUTION
    runs = hs.fit(
        Trolley, train, val, methods=["erm"], seeds=range(10), steps=1000, lr=0.03, theta_lr=0.005, progress=False
    )
    start = runs.history.query("step == 0").set_index("seed")["theta.drag"].reindex(runs.frame["seed"])
    columns = {"start": start.to_numpy(), "theta": runs.frame["theta.drag"], "rmse": runs.frame["val_loss"] ** 0.5}
    return pd.DataFrame(columns)
    # END SOLUTION


# %% check=q2
table = ten_trainings()
assert list(table.columns) == ["start", "theta", "rmse"]
table.round(3)

# %% [markdown]
# ## 3. Why nobody notices (3 points)
#
# All loads were 1 kg. Somebody gives you a fit: a value of theta and a network, as a function `net(v)`. Return
# another network: the one with which `theta + delta` makes the same predictions at 1 kg.


# %% answer=q3
def other_network(net, delta):
    """A function of v."""
    # SOLUTION
    return lambda v: net(v) - delta * v
    # END SOLUTION


# %% check=q3
assert torch.is_tensor(other_network(air, 0.1)(torch.ones(3)))

# %% [markdown]
# ## 4. An honest report (3 points)
#
# From a table like that of question 2, and knowing nothing about the truth, report the range of theta that the data
# leave open: the lowest and the highest theta among the fits whose `rmse` is at most 10 % above the smallest.


# %% answer=q4
def report(table):
    """(low, high)"""
    # SOLUTION
    good = table[table["rmse"] <= 1.1 * table["rmse"].min()]
    return float(good["theta"].min()), float(good["theta"].max())
    # END SOLUTION


# %% check=q4
low, high = report(pd.DataFrame({"start": [1.0, 1.0], "theta": [0.3, 0.9], "rmse": [0.1, 0.101]}))
assert low < high

# %% [markdown]
# ## 5. An experiment that tells (4 points)
#
# You may make 40 measurements, at speeds between 0.5 and 2 m/s and loads between 1 and 2 kg. Choose them, so that
# *any* network of the speed alone is unable to take theta over.


# %% answer=q5
def experiment():
    """v and load, each of shape (40, 1)."""
    # SOLUTION
    v = torch.linspace(0.5, 2.0, 20).repeat_interleave(2)[:, None]
    return v, torch.tensor([1.0, 2.0]).repeat(20)[:, None]
    # END SOLUTION


# %% check=q5
v, load = experiment()
assert v.shape == load.shape == (40, 1)

# %% [markdown]
# ## 6. In your words (3 points, read by a person)
#
# A colleague says: "The ten trainings have the same validation loss, so I take the mean of their thetas, with their
# standard deviation as the error bar." In at most 150 words: what is wrong with it, and what would you write in the
# paper?

# %% [markdown] written=q6
# The spread over seeds shows where training *started*, not what the data say: at 1 kg the data leave theta open
# altogether (1 point). Its mean and standard deviation are those of the starting range that somebody chose (1 point).
# Write that theta is not determined by these data, give the range that was examined, and name the experiment that
# would determine it: other loads (1 point).
