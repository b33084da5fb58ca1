# %% [markdown]
# # Assignment 3: estimate the hatch of a wind tunnel
#
# A gust is blown through a tunnel, and a sensor records the pressure. From this curve you estimate how far a hatch
# was open, as a share of 45 degrees. First by physics alone; then you see why a network on top of the physics cannot
# know the scale; then you use five gusts whose hatch was measured. About two hours, of which the computer needs a few
# seconds. 20 points. You should have read chapter 11.
#
# **Every curve here is simulated.** The simulated tunnel has other fans than the physics knows, and a sensor that
# lags. Fill in the functions; replace the lines with `NotImplementedError`. Each has a visible check below it. The
# grader tries them on other gusts, with other hatches.

# %%
import torch

from hybridsam_lite.tasks import wind_tunnel

torch.set_default_dtype(torch.float64)


def gusts(count, seed):
    """Curves (count, 50) and fans (50,) in Pa, and the hatches (count,)."""
    made = wind_tunnel.stand_in(count, seed)
    return torch.tensor(made["curves"]), torch.tensor(made["fans"][0]), torch.tensor(made["hatch"])


curves, fans, hatch = gusts(40, seed=1)
labelled = torch.tensor([0, 1, 2, 3, 4])  # in these gusts somebody has measured the hatch
truths = hatch[labelled]
del hatch  # the others are not known

# %% [markdown]
# ## 1. Physics alone (4 points)
#
# The physics says that a curve is $(0.25 - 0.15\,\theta)\,(b - b_0)$, with $b$ the curve `fans` and $b_0$ its first
# value. For each curve return the theta that fits best in the sense of least squares. It may come out below 0 or
# above 1; leave it so.


# %% answer=q1
def physics_alone(curves, fans):
    """Shape (count,)."""
    # SOLUTION
    shape = fans - fans[0]
    gain = curves @ shape / (shape @ shape)
    return (0.25 - gain) / 0.15
    # END SOLUTION


# %% check=q1
assert physics_alone(curves, fans).shape == (40,)

# %% [markdown]
# ## 2. A hatch in the mirror (3 points)
#
# A network on top of the physics, `network(y)`, turns the physics' curves $y = (0.25 - 0.15\,\theta)\,(b - b_0)$ into
# predictions. An encoder has got it the wrong way round: it says $1 - \theta$ instead of $\theta$. Return another
# network, one that makes the same predictions from the curves of the mirrored hatches.


# %% answer=q2
def mirrored(network, fans):
    """A function of curves (count, 50)."""
    # SOLUTION
    shape = fans - fans[0]
    return lambda y: network(0.35 * shape - y)
    # END SOLUTION


# %% check=q2
assert mirrored(lambda y: 2 * y, fans)(curves).shape == curves.shape

# %% [markdown]
# ## 3. Five labels (3 points)
#
# `estimates` have the right order, or its mirror image, but no scale. `labelled` holds positions in `estimates`, and
# `truths` the true hatches of those. Return all estimates, corrected by the straight line that fits the labelled ones
# best in the sense of least squares.


# %% answer=q3
def calibrate(estimates, labelled, truths):
    # SOLUTION
    x = estimates[labelled]
    slope = ((x - x.mean()) @ (truths - truths.mean())) / ((x - x.mean()) ** 2).sum()
    return truths.mean() + slope * (estimates - x.mean())
    # END SOLUTION


# %% check=q3
assert calibrate(physics_alone(curves, fans), labelled, truths).shape == (40,)

# %% [markdown]
# ## 4. Estimate (4 points)
#
# Put it together: return an estimate of each hatch, between 0 and 1. The mean absolute error on new gusts should be
# below 0.05. You may do better than question 3 if you like.


# %% answer=q4
def estimate(curves, fans, labelled, truths):
    # SOLUTION
    return calibrate(physics_alone(curves, fans), labelled, truths).clamp(0, 1)
    # END SOLUTION


# %% check=q4
found = estimate(curves, fans, labelled, truths)
assert ((0 <= found) & (found <= 1)).all()

# %% [markdown]
# ## 5. How good is it, honestly? (3 points)
#
# You know five hatches only. Estimate the mean absolute error of your calibration from them: leave each label out in
# turn, calibrate by the others, and average the errors at those that were left out.


# %% answer=q5
def expected_error(estimates, labelled, truths):
    # SOLUTION
    errors = []
    for i in range(len(labelled)):
        keep = torch.arange(len(labelled)) != i
        errors.append((calibrate(estimates, labelled[keep], truths[keep])[labelled[i]] - truths[i]).abs())
    return float(torch.stack(errors).mean())
    # END SOLUTION


# %% check=q5
assert expected_error(physics_alone(curves, fans), labelled, truths) < 0.2

# %% [markdown]
# ## 6. In your words (3 points, read by a person)
#
# A paper trains a nested model of this tunnel by SAM, without labels, and reports a correlation of 0.99 between its
# hatches and the true ones. In at most 150 words: what does this number show, what does it not show, and what would
# you ask the authors for?

# %% [markdown] written=q6
# The correlation shows that the order is right (1 point). It does not see the scale and the offset, and physics alone
# reaches a similar one; any affine image of the hatch fits the data as well (1 point). Ask for the mean error, the
# bars of physics alone and of a constant guess, and for a few labelled gusts (1 point).
