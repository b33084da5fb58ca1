"""Hidden tests of assignment 3: each is one line of the rubric."""

import torch

from hybridsam_lite.exercises.asking import Ask, close, number, require, tensor
from hybridsam_lite.tasks import wind_tunnel
from tools.assignments import item


def gusts(count, seed):
    made = wind_tunnel.stand_in(count, seed)
    return (
        torch.tensor(made["curves"]).double(),
        torch.tensor(made["fans"][0]).double(),
        torch.tensor(made["hatch"]).double(),
    )


def shape_and_hatches():
    _, fans, hatch = gusts(12, 101)
    return fans, fans - fans[0], hatch


@item("q1", 2, "exact where the physics is exact")
def exact(physics_alone):
    fans, shape, hatch = shape_and_hatches()
    found = tensor(
        Ask(physics_alone, "physics_alone")((0.25 - 0.15 * hatch)[:, None] * shape, fans), "the result", (12,)
    )
    require(not close(found, 0.25 - 0.15 * hatch, rtol=1e-4), "These are the gains, not yet the hatches.")
    require(not close(found, -hatch, atol=1e-6), "The sign is wrong: an open hatch lowers the pressure.")
    require(
        close(found, hatch, atol=1e-6),
        "For curves that the physics describes exactly, your hatches are not the right ones.",
    )


@item("q1", 2, "least squares, for each curve, and nothing clipped")
def least_squares(physics_alone):
    curves, fans, _ = gusts(12, 102)
    curves = curves * 0.6
    found = tensor(Ask(physics_alone, "physics_alone")(curves, fans), "the result", (12,))
    misfit = lambda h: ((curves - (0.25 - 0.15 * h)[:, None] * (fans - fans[0])) ** 2).sum(1)  # noqa: E731
    better = torch.minimum(misfit(found + 1e-4), misfit(found - 1e-4)) < misfit(found) - 1e-12
    require(bool((found > 1).any()), "For weak gusts some hatches should come out above 1. Are yours clipped?")
    require(not better.any(), "For real curves another hatch has a smaller sum of squares.")


@item("q2", 2, "the same predictions from mirrored hatches")
def same_predictions(mirrored):
    fans, shape, hatch = shape_and_hatches()
    ask = Ask(mirrored, "mirrored")
    network = lambda y: torch.sin(y) + 0.1 * y  # noqa: E731
    before, after = (0.25 - 0.15 * hatch)[:, None] * shape, (0.25 - 0.15 * (1 - hatch))[:, None] * shape
    found = tensor(ask.outcome(ask(network, fans), after), "the new network's predictions", (12, 50))
    require(not close(found, network(after)), "The network has not changed.")
    require(not close(found, network(-after)), "Minus the curve is not the curve of the mirrored hatch.")
    require(
        close(found, network(before), rtol=1e-5, atol=1e-6),
        "From the curves of the mirrored hatches the new network predicts something else.",
    )


@item("q2", 1, "for any fans and any network")
def any_network(mirrored):
    ask = Ask(mirrored, "mirrored")
    fans, hatch = ask.uniform(0, 80, 50), ask.uniform(0, 1, 6)
    weights = ask.normal(50, 50)
    network = lambda y: torch.tanh(y @ weights / 50) ** 2  # noqa: E731
    curve = lambda h: (0.25 - 0.15 * h)[:, None] * (fans - fans[0])  # noqa: E731
    found = tensor(ask.outcome(ask(network, fans), curve(1 - hatch)), "the new network's predictions", (6, 50))
    require(
        close(found, network(curve(hatch)), rtol=1e-4, atol=1e-6),
        "With other fans, or with a network that is not one-to-one, it does not work.",
    )


def calibrated(calibrate, slope, offset, noise=0.0, count=5):
    ask = Ask(calibrate, "calibrate")
    truth = ask.uniform(0, 1, 30)
    estimates, labelled = slope * truth + offset, torch.arange(2, 2 + 3 * count, 3)
    truths = truth[labelled] + noise * ask.normal(count)
    return truth, estimates, labelled, truths, tensor(ask(estimates, labelled, truths), "the result", (30,))


@item("q3", 1, "a scale and an offset are repaired")
def scale(calibrate):
    truth, *_, found = calibrated(calibrate, 0.3, 0.6)
    require(
        not close(found - truth, (found - truth)[0].expand(30), atol=1e-6) or close(found, truth, atol=1e-5),
        "All corrected hatches are off by the same number.",
    )
    require(close(found, truth, atol=1e-5), "Estimates that are an exact straight line of the truth are not repaired.")


@item("q3", 1, "a mirrored encoder is repaired")
def mirror(calibrate):
    truth, *_, found = calibrated(calibrate, -0.5, 0.9)
    require(
        close(found, truth, atol=1e-5),
        "Estimates that fall when the truth rises are not repaired. May the slope be negative?",
    )


@item("q3", 1, "noise in the labels: least squares")
def noisy(calibrate):
    _, estimates, labelled, truths, found = calibrated(calibrate, 0.7, 0.1, noise=0.1)
    x, y = estimates - estimates.mean(), found - found.mean()
    require(
        close(y * (x @ x), x * (x @ y), atol=1e-8),
        "The result is no straight line of the estimates: labels were copied, or values clipped.",
    )
    residual = found[labelled] - truths
    require(
        abs(residual.mean()) < 1e-6 and abs(residual @ estimates[labelled]) < 1e-6,
        "Another line has a smaller sum of squares at the labels.",
    )


def error(estimate, seed, count=5):
    curves, fans, hatch = gusts(60, seed)
    labelled = torch.arange(0, 60, 60 // count)[:count]
    found = tensor(Ask(estimate, "estimate")(curves, fans, labelled, hatch[labelled]), "the result", (60,))
    require(bool((found >= 0).all() and (found <= 1).all()), "Some estimates are below 0 or above 1.")
    rest = torch.ones(60, dtype=torch.bool)
    rest[labelled] = False
    return float((found - hatch)[rest].abs().mean())


@item("q4", 1, "mean error on new gusts below 0.1")
def fair(estimate):
    errors = [error(estimate, seed) for seed in (201, 202, 203)]
    require(
        max(errors) < 0.1,
        f"The mean error on new gusts is {max(errors):.2f}; a constant guess has 0.25. Were the five labels of the "
        "new gusts used?",
    )


@item("q4", 2, "mean error on new gusts below 0.05")
def good(estimate):
    errors = [error(estimate, seed) for seed in (201, 202, 203)]
    require(sum(errors) / 3 < 0.05, f"The mean error on new gusts is {sum(errors) / 3:.3f}, and should be below 0.05.")


@item("q4", 1, "also with ten labels")
def ten_labels(estimate):
    require(error(estimate, 205, count=10) < 0.05, "With ten labels instead of five the mean error is above 0.05.")


def left_out(estimates, labelled, truths):
    errors = []
    for i in range(len(labelled)):
        keep = [j for j in range(len(labelled)) if j != i]
        x, y = estimates[labelled[keep]], truths[keep]
        slope = ((x - x.mean()) @ (y - y.mean())) / ((x - x.mean()) ** 2).sum()
        errors.append(abs(float(y.mean() + slope * (estimates[labelled[i]] - x.mean()) - truths[i])))
    return sum(errors) / len(errors)


@item("q5", 3, "each label is judged by a line that has not seen it")
def honest(expected_error):
    ask = Ask(expected_error, "expected_error")
    for count in (5, 8):
        truth = ask.uniform(0, 1, 30)
        estimates, labelled = 0.4 * truth + 0.3, torch.arange(0, 3 * count, 3)
        truths = truth[labelled] + 0.1 * ask.normal(count)
        found, right = number(ask(estimates, labelled, truths), "the error"), left_out(estimates, labelled, truths)
        x = estimates[labelled]
        slope = ((x - x.mean()) @ (truths - truths.mean())) / ((x - x.mean()) ** 2).sum()
        inside = float((truths.mean() + slope * (x - x.mean()) - truths).abs().mean())
        require(found > 0, "An error of zero or less: too good to be true.")
        require(
            not close(found, inside, rtol=1e-4), "This is the error at labels that the line has seen. It is too small."
        )
        require(
            close(found, right, rtol=1e-4), f"With {count} labels the average over those left out is another number."
        )
