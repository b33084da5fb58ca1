"""Entries of the gallery whose loss, gradient, topology or data are special: each on known answers."""

import math

import numpy as np
import pytest
import torch

import hybridsam_lite as hs
from hybridsam_lite.tasks.gallery import battery, euler_gradient, next_experiment, partial_model, rankings, wildcard


def quick(name):
    return hs.tasks.get("gallery", variant=name, preset="quick")


def loss_of(task, model):
    """On the test samples, as scored."""
    return float(((task.predict(model).value - task.test.target) ** 2).mean())


def test_battery_with_the_true_state_and_voltage_predicts_to_the_noise():
    task = quick("battery")
    model = task.with_truth().model()
    model.network = battery.voltage
    # 4000 readings: the mean square of the noise is known to 2 %, one sigma
    assert loss_of(task, model) == pytest.approx(battery.NOISE**2, rel=0.1)


def test_circuit_charges_and_relaxes():
    """A constant current: the charge falls by I t / (3600 Q h), the branch approaches I with the time constant."""
    capacity, tau = torch.tensor(2.0), torch.tensor(45.0)
    inputs = {
        "current": torch.full((1, battery.POINTS), 3.0),
        "start": torch.ones(1, 1),
        "health": torch.tensor([[0.8]]),
    }
    soc, branch = battery.circuit(capacity, tau, inputs)
    t = battery.DT * torch.arange(1, battery.POINTS + 1)
    torch.testing.assert_close(soc[0], 1 - 3 * t / (3600 * 2 * 0.8))
    torch.testing.assert_close(branch[0], 3 * (1 - torch.exp(-t / tau)))


def pendulum(task):
    """A wildcard that knows theta and whose network "after" is the drag, added to the physics: the true topology."""
    model = task.with_truth().model()
    with torch.no_grad():
        for weights in model.learned.values():
            weights.zero_()
        model.learned["after"][0, 1] = 1  # reads q'
        model.learned["y"][0, 5] = 1
    model.after.forward = lambda z: -wildcard.DRAG * z[..., :1] * z[..., :1].abs()
    return model


def test_wildcard_with_the_true_connections_predicts_to_the_noise():
    task = quick("wildcard")
    model = pendulum(task)
    # 800 numbers: the mean square of the noise is known to 5 %, one sigma
    assert loss_of(task, model) == pytest.approx(wildcard.NOISE**2, rel=0.2)
    with torch.no_grad():
        model.learned["y"].zero_()
    assert loss_of(task, model) > 20 * wildcard.NOISE**2


def test_a_direct_connection_can_do_what_the_gain_does():
    task = quick("wildcard")
    model = pendulum(task)
    before = task.predict(model).value
    with torch.no_grad():
        model.theta.set(gain=wildcard.GAIN / 2)
        model.learned["y"][0, 2] = wildcard.GAIN / 2
    torch.testing.assert_close(task.predict(model).value, before)


def test_wildcard_learns_nothing_where_the_connections_are_the_physics_own():
    torch.manual_seed(0)
    model = wildcard.Wildcard()
    x = torch.randn(5, 3)
    model.acceleration(x, model.connections()).sum().backward()
    slopes = {name: weights.grad for name, weights in model.learned.items()}
    assert not slopes["physics"][:, :3].diagonal().any()
    assert slopes["y"][0, 4] == 0
    assert all(slope.any() for slope in slopes.values())
    torch.testing.assert_close(model.connections()["physics"].diagonal(), torch.ones(3))


def test_glucose_of_the_true_model_is_measured_to_the_noise_and_ranked_in_every_patient():
    task = quick("rankings")
    model = task.with_truth().model()
    bare = rankings.effects(task.predict(model), task)
    model.network = rankings.exercise
    found = rankings.effects(task.predict(model), task)
    # 800 readings: the mean square of the noise is known to 5 %, one sigma; the outcomes are free of noise
    assert found["readings_loss"] == pytest.approx(rankings.NOISE**2, rel=0.2)
    assert found["outcomes_loss"] < 1e-8
    assert found["ranked"] == 1
    assert bare["readings_loss"] > 20 * rankings.NOISE**2


def test_training_data_hold_the_ranks_of_the_outcomes_and_no_more():
    task = quick("rankings")
    for part in (task.train, task.val):
        assert (part.target[:, 4:] == torch.tensor([3.0, 2.0, 1.0, 0.0])).all()
    assert (task.test.target[:, 4:].argsort(-1).argsort(-1) == torch.tensor([3, 2, 1, 0])).all()


def test_only_the_order_of_the_outcomes_enters_the_hybrid_loss():
    torch.manual_seed(0)
    prediction, target = torch.randn(6, 8, requires_grad=True), torch.randn(6, 8)
    other = torch.cat([target[:, :4], 7 + target[:, 4:] ** 3], 1)
    loss = rankings.hybrid_loss(prediction, target)
    assert loss == rankings.hybrid_loss(prediction, other)
    (slope,) = torch.autograd.grad(loss, prediction)
    ends = target[:, 4:].argsort(-1)
    assert (slope[:, 4:].gather(1, ends[:, -1:]) < 0).all()  # a step down the slope lifts the highest
    assert (slope[:, 4:].gather(1, ends[:, :1]) > 0).all()


def test_hybrid_loss_of_equal_outcomes_is_log_two():
    y = torch.zeros(3, 8)
    target = torch.cat([torch.zeros(3, 4), torch.arange(4.0).expand(3, 4)], 1)
    assert float(rankings.hybrid_loss(y, target)) == pytest.approx(rankings.WEIGHT * math.log(2))


def lorenz_step(y, u, theta):
    """The simulator's own arithmetic in torch, for its exact derivatives."""

    def rate(y):
        return euler_gradient.rate(y, theta, torch.stack) + u

    t = torch.tensor([0.0, euler_gradient.DT], dtype=y.dtype)
    return hs.odeint(lambda _, y: rate(y), y, t)[1]


def step_inputs():
    torch.manual_seed(0)
    y, u = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    return y, u, torch.tensor([10.0, 28.0], dtype=torch.float64)


def test_the_simulator_is_exact_forward():
    torch.testing.assert_close(euler_gradient.advance(*step_inputs()), lorenz_step(*step_inputs()))


def test_the_euler_gradient_tends_to_the_exact_one_with_the_step(monkeypatch):
    """The error of each derivative of y + h f is of second order: a tenth of the step, a hundredth of the error."""
    errors = []
    for h in (1e-3, 1e-4):
        monkeypatch.setattr(euler_gradient, "DT", h)
        inputs = [x.requires_grad_() for x in step_inputs()]
        found = torch.autograd.grad(euler_gradient.advance(*inputs).square().sum(), inputs)
        exact = torch.autograd.grad(lorenz_step(*inputs).square().sum(), inputs)
        errors.append(torch.stack([(a - b).norm() for a, b in zip(found, exact, strict=True)]))
        assert all(a.norm() > 0 for a in found)
    ratio = errors[0] / errors[1]
    assert ((ratio > 90) & (ratio < 110)).all()


@pytest.mark.parametrize("axes", [(0, 0, 0), (None, 0, 0), (0, None, 0), (2, 1, None)])
def test_a_stack_of_members_is_the_members_one_by_one(axes):
    torch.manual_seed(0)
    shapes = [(5, 3), (5, 3), (2,)]
    stacked = [torch.rand(4, *s) if a is not None else torch.rand(s) for s, a in zip(shapes, axes, strict=True)]

    def gradients(*inputs):
        return torch.func.grad(lambda *x: euler_gradient.advance(*x).square().sum(), (0, 1, 2))(*inputs)

    given = [x if a is None else x.movedim(0, a) for x, a in zip(stacked, axes, strict=True)]
    together = torch.func.vmap(gradients, axes)(*given)
    for i in range(4):
        alone = gradients(*(x if a is None else x[i] for x, a in zip(stacked, axes, strict=True)))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i], b)


def test_convection_with_the_true_damping_predicts_to_the_noise():
    task = quick("euler_gradient")
    model = task.with_truth().model()
    bare = loss_of(task, model)
    model.net.forward = lambda y: -euler_gradient.BETA * y * torch.tensor([0.0, 0.0, 1.0]) / 10
    # Noise is in the target and in the start, from where it grows; the damping is held during each step.
    assert euler_gradient.NOISE**2 < loss_of(task, model) < 4 * euler_gradient.NOISE**2 < bare / 10


def test_expected_information_is_the_librarys():
    """Up to the units of theta, which differences between two designs do not have."""
    torch.manual_seed(0)
    model, found = next_experiment.Enzyme(), []
    for design in (next_experiment.FIRST, next_experiment.DESIGNS["all of it"]):
        data = next_experiment.measure(design, 30, np.random.default_rng(0))
        theirs = hs.information(hs.Landscape(model, data), lam=next_experiment.PRICE).matrix.logdet()
        found.append((next_experiment.information(model, data.inputs), float(theirs)))
    (ours_a, theirs_a), (ours_b, theirs_b) = found
    assert ours_b - ours_a == pytest.approx(theirs_b - theirs_a, rel=1e-2)
    assert abs(ours_b - ours_a) > 0.5


def test_the_training_data_hold_the_design_from_which_most_is_expected():
    task = quick("next_experiment")
    told = {name.removeprefix("information."): gain for name, gain in task.metrics(None, task).items()}
    best = max(told, key=told.get)
    assert told[best] > 0.5
    assert told["the same again"] == 0
    x = task.train.inputs[len(task.train) // 2 :]
    for column, (low, high) in zip(x.T, next_experiment.DESIGNS[best], strict=True):
        assert low <= float(column.min()) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < float(column.max()) <= high


def test_enzyme_with_the_true_inhibition_predicts_to_the_noise():
    task = quick("next_experiment")
    model = task.with_truth().model()

    def inhibition(shifted):
        s, p = (shifted + 1).split(1, -1)
        return next_experiment.V * s / (next_experiment.K + s) * (1 / (1 + next_experiment.INHIBITION * p) - 1)

    with torch.no_grad():
        for weights in model.net.parameters():
            weights.zero_()
    bare = loss_of(task, model)
    model.net.forward = inhibition
    # 200 rates: the mean square of the noise is known to 10 %, one sigma
    assert loss_of(task, model) == pytest.approx(next_experiment.NOISE**2, rel=0.3)
    assert bare > 20 * next_experiment.NOISE**2


def test_reservoir_with_the_true_seepage_knows_what_each_opening_is_worth():
    task = quick("partial_model")
    model = task.with_truth().model()
    bare = loss_of(task, model)
    model.network = lambda level, rain: -partial_model.SEEPAGE * level**2
    # The model takes 4 Euler steps of a day, the simulation 24: that leaves more than the noise.
    assert partial_model.NOISE**2 < loss_of(task, model) < bare / 20
    assert partial_model.regret(task.predict(model), task)["regret"] < 2 * partial_model.NOISE


def test_the_partial_model_does_not_read_what_no_decision_needs():
    task = quick("partial_model")
    model, inputs = task.model(), dict(task.val.inputs)
    before = model(inputs).value
    inputs["rest"] = inputs["rest"] + 1
    assert torch.equal(before, model(inputs).value)
