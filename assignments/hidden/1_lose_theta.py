"""Hidden tests of assignment 1: each is one line of the rubric."""

import torch

import hybridsam_lite as hs
from hybridsam_lite.exercises.asking import Ask, brief, close, numbers, require, tensor
from tools.assignments import item


def some_inputs():
    v = torch.linspace(0.5, 2, 8)[:, None]
    return {"v": v, "load": 1 + v.flip(0) / 2}


def built(Trolley):
    model = Ask(Trolley, "Trolley")()
    require(isinstance(model, torch.nn.Module), f"`Trolley()` should be a model, got {brief(model)}.")
    return model


@item("q1", 1, "theta is `drag`: positive, and drawn from a range")
def theta(Trolley):
    thetas = [m for m in built(Trolley).modules() if isinstance(m, hs.Theta)]
    require(
        len(thetas) == 1 and list(thetas[0]) == ["drag"],
        "Theta should be one hs.Theta with the entry drag, and no other.",
    )
    constraint = thetas[0].constraints["drag"]
    require(not constraint.admits(-1.0), "Training could make this drag negative.")
    require(constraint.init_range[1] - constraint.init_range[0] > 0.5, "All models start with nearly the same drag.")


@item("q1", 1, "the physics: prediction minus network is drag * load * v")
def physics(Trolley):
    model, inputs = built(Trolley), some_inputs()
    out = Ask(model, "Trolley.forward")(inputs)
    require(
        isinstance(out, hs.Prediction) and out.network is not None, "Return an hs.Prediction with the network's part."
    )
    rest = tensor(out.value, "the prediction", (8, 1)) - tensor(out.network, "the network's part", (8, 1))
    drag = model.theta.drag.detach().double()
    require(not close(rest, drag * inputs["v"], rtol=1e-4), "The load does not enter the physics.")
    require(
        close(rest, drag * inputs["load"] * inputs["v"], rtol=1e-4, atol=1e-5),
        "Prediction minus network is not drag * load * v.",
    )


@item("q1", 1, "the network reads the speed, and nothing but the speed")
def network(Trolley):
    model, inputs = built(Trolley), some_inputs()
    first = model(inputs).network
    require(
        torch.equal(model({**inputs, "load": 2 * inputs["load"]}).network, first),
        "The network reads the load. Then it can take over theta at any load.",
    )
    require(
        not torch.allclose(model({**inputs, "v": 2 * inputs["v"]}).network, first),
        "The network does not read the speed.",
    )


def trained(ten_trainings, cache={}):  # noqa: B006 (trained once for all items)
    if "table" not in cache:
        cache["table"] = Ask(ten_trainings, "ten_trainings")()
    table = cache["table"]
    missing = [n for n in ("start", "theta", "rmse") if n not in getattr(table, "columns", [])]
    require(not missing, f"The table should have the columns start, theta and rmse; missing: {', '.join(missing)}.")
    return table


@item("q2", 1, "ten seeds, each with a start of its own")
def seeds(ten_trainings):
    table = trained(ten_trainings)
    require(len(table) == 10, f"The table has {len(table)} rows. Show all ten seeds, not the ones that you like.")
    require(table["start"].nunique() == 10, "Several trainings have the same start. Each seed draws its own.")


@item("q2", 1, "trained to the noise")
def to_the_noise(ten_trainings):
    table = trained(ten_trainings)
    require((table["rmse"] > 0.012).all(), "An rmse below the noise of the sensor: is it that of the validation data?")
    require((table["rmse"] < 0.03).all(), "Some trainings have not reached the noise of 0.02. Train longer, or faster.")


@item("q2", 1, "theta's dependence on its start is there to be seen")
def start_shows(ten_trainings):
    table = trained(ten_trainings)
    ranks = table[["start", "theta"]].rank().corr().iloc[0, 1]
    require(
        ranks > 0.8,
        "Theta should depend on its start. With another learning rate of theta the seeds agree; they need not be "
        "right.",
    )


@item("q2", 1, "ten thetas that disagree")
def disagree(ten_trainings):
    table = trained(ten_trainings)
    require(
        table["theta"].max() - table["theta"].min() > 0.5,
        "The ten thetas agree. Is the start drawn from a range, and is theta's learning rate small?",
    )


@item("q3", 2, "the same predictions with theta + delta at 1 kg")
def same_predictions(other_network):
    ask = Ask(other_network, "other_network")
    v = ask.uniform(0.5, 2, 9)
    for delta in (0.3, -0.7):
        net = lambda v: 0.25 * v**2 - 0.1  # noqa: E731
        found = tensor(ask.outcome(ask(net, delta), v), "what the new network gives", (9,))
        require(
            not close(found, net(v) + delta * v),
            "The network goes the same way as the physics, and should make up for it.",
        )
        require(not close(found, net(v) - delta), "The network makes up for it at 1 m/s only.")
        require(not close(found, net(v)), "The network has not changed, and the physics has.")
        require(
            close(found + delta * v, net(v)), "With the new network the predictions at 1 kg are others than before."
        )


@item("q3", 1, "for any network")
def any_network(other_network):
    ask = Ask(other_network, "other_network")
    v = ask.uniform(0.5, 2, 9)
    net = lambda v: torch.sin(5 * v) + 2.0  # noqa: E731
    found = tensor(ask.outcome(ask(net, 0.4), v), "what the new network gives", (9,))
    require(
        close(found + 0.4 * v, net(v)), "It works for the air resistance of this trolley and not for another network."
    )


def fits(theta, rmse):
    import pandas as pd

    return pd.DataFrame({"start": theta, "theta": theta, "rmse": rmse})


@item("q4", 2, "the range of all fits that are as good as the best")
def whole_range(report):
    for thetas, rmse in (([0.2, 1.1, 0.7], [0.0202, 0.0205, 0.02]), ([1.4, 0.9, 0.95, 0.3], [0.3, 0.31, 0.305, 0.302])):
        low, high = numbers(Ask(report, "report")(fits(thetas, rmse)), "the report", 2)
        require(low <= high, "The low end is above the high end.")
        require(low != high, "One value is reported. The other fits are as good as this one.")
        require(
            (low, high) == (min(thetas), max(thetas)),
            "The range does not go from the lowest to the highest theta of the fits that are as good as the best.",
        )


@item("q4", 1, "fits that are bad do not count, whatever their theta")
def bad_fits(report):
    low, high = numbers(Ask(report, "report")(fits([0.2, 0.6, 1.1, 0.9], [0.02, 0.09, 0.021, 0.5])), "the report", 2)
    require((low, high) == (0.2, 1.1), "A fit far above the smallest rmse has an influence, or a good one has none.")
    low, high = numbers(Ask(report, "report")(fits([0.2, 5.0, 1.1], [0.02, 0.03, 0.02])), "the report", 2)
    require(high == 1.1, "A fit whose rmse is half as large again as the best one stretches the range.")


def designed(experiment):
    value = Ask(experiment, "experiment")()
    require(isinstance(value, (tuple, list)) and len(value) == 2, "Return two things: v and load.")
    return tensor(value[0], "v", (40, 1)), tensor(value[1], "load", (40, 1))


def left_over(v, load):
    """What a piecewise linear network of v, with a knot each 0.25 m/s, cannot imitate of the physics."""
    knots = torch.arange(0.5, 2.01, 0.25, dtype=torch.float64)
    hats = (1 - (v - knots).abs() / 0.25).clamp(min=0)
    effect = load * v
    return hats, effect - hats @ torch.linalg.pinv(hats) @ effect


@item("q5", 1, "within what the laboratory can do")
def allowed(experiment):
    v, load = designed(experiment)
    for name, x, low, high in (("speeds", v, 0.5, 2.0), ("loads", load, 1.0, 2.0)):
        require(
            bool((x >= low - 1e-6).all() and (x <= high + 1e-6).all()),
            f"Some {name} are outside of {low:g} to {high:g}.",
        )


@item("q5", 2, "a network of the speed cannot imitate the physics")
def identified(experiment):
    v, load = designed(experiment)
    rest = float(left_over(v, load)[1].square().mean())
    require(
        load.max() - load.min() > 1e-3,
        "All loads are the same, as before: a network of the speed can do all that theta does.",
    )
    require(
        rest > 1e-4,
        "The load depends on the speed. Then a network of the speed knows the load, and can still take theta over.",
    )
    require(
        rest > 0.03,
        f"Of theta's effect a mean square of {rest:.3f} is left that the network cannot imitate; more than 0.03 is "
        "possible.",
    )


@item("q5", 1, "theta is found")
def found(experiment):
    v, load = designed(experiment)
    hats, _ = left_over(v, load)
    worst = 0.0
    for seed in range(20):
        noise = torch.randn(v.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        y = 0.6 * load * v + 0.25 * v**2 + 0.02 * noise
        columns = torch.cat([load * v, hats], 1)
        worst = max(worst, abs(float((torch.linalg.pinv(columns) @ y)[0]) - 0.6))
    require(
        worst < 0.1,
        "In twenty repetitions of your experiment, the least-squares estimate is once more than 0.1 away from the "
        "truth.",
    )
