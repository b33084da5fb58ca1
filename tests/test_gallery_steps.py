"""Entries of the gallery that are built in steps or from parts: what is special in each, on known answers."""

import numpy as np
import pytest
import torch

import hybridsam_lite as hs
from hybridsam_lite.tasks.gallery import boosted, explicit_simplicity, merging, reduced_component, two_stage


def quick(name):
    return hs.tasks.get("gallery", variant=name, preset="quick")


def knowing(task):
    """A model with the true theta."""
    return task.with_truth().model()


class Known(torch.nn.Module):
    """A known function in the network's place."""

    def __init__(self, forward):
        super().__init__()
        self.forward = forward


def loss_of(task, model):
    """On the test samples, as scored."""
    return float(((task.predict(model).value - task.test.target) ** 2).mean())


def test_the_component_is_passive_whatever_its_weights():
    torch.manual_seed(0)
    model, state = reduced_component.Drive(), 2 * torch.randn(500, 2)
    for scale in (1.0, 10.0):
        with torch.no_grad():
            for weight in model.net.parameters():
                weight.mul_(scale)
        assert (model.friction(state) * state[:, 1:] >= 0).all()


def test_a_passive_component_cannot_be_the_spring():
    """On the way out a spring brakes, on the way back it drives, which no passive component does."""
    there, back = torch.tensor([[0.5, 1.0]]), torch.tensor([[0.5, -1.0]])
    model = reduced_component.Drive()
    assert model.friction(there) >= 0 >= model.friction(back)


def test_drive_with_the_true_friction_predicts_to_the_noise():
    task = quick("reduced_component")
    model = knowing(task)
    bare = loss_of(task, _without(model))
    model.friction = lambda y: torch.as_tensor(reduced_component.friction(y[..., :1].numpy(), y[..., 1:].numpy()))
    # The noise is in the target and in the measured start, from where it grows a little: at most twice in variance.
    assert reduced_component.NOISE**2 < loss_of(task, model) < 3 * reduced_component.NOISE**2 < bare / 5
    assert reduced_component.component_error(task.predict(model), task)["friction_error"] < 1e-5


def _without(model):
    with torch.no_grad():
        for name, role in hs.roles(model).items():
            if role == "phi":
                model.get_parameter(name).zero_()
    return model


def test_the_second_stage_teaches_the_first_nothing():
    torch.manual_seed(0)
    model, y = two_stage.TwoStages(), quick("two_stage").train.inputs["y"][:8]
    factors = model.encoder[-1].weight
    for stage, reached in ((0, True), (1, False)):
        error = ((model({"y": y}).value[:, stage] - y) ** 2).mean()
        (slope,) = torch.autograd.grad(error, factors)
        assert bool(slope[:2].abs().sum() > 1e-6) is reached  # the rows of frequency and amplitude
        assert bool(slope[2:].abs().sum() > 1e-6) is not reached  # the rows of the code for the detail


def test_tone_and_overtone_of_the_true_factors_leave_the_noise():
    found = two_stage.simulate(200, np.random.default_rng(0))
    f, a, share = (torch.as_tensor(found[n]) for n in ("frequency", "amplitude", "share"))
    tone, y = two_stage.tone(f, a), torch.as_tensor(found["y"])
    residual = y - tone - two_stage.overtone(f, a, share)
    assert float(residual.std()) == pytest.approx(two_stage.NOISE, rel=0.05)  # 8000 readings: 0.8 % is one sigma
    assert float((y - tone).std()) > 5 * two_stage.NOISE


def test_the_method_two_stage_cannot_do_what_the_architecture_does():
    task = hs.tasks.get("gallery", variant="two_stage", preset="smoke")
    with pytest.raises(ValueError, match="global scientific parameters"):
        task.fit(["twostage"], seeds=[0], progress=False)


def perfect(y, x, sigma):
    """The score of a rate that is known exactly, disturbed by noise of size sigma."""
    return (boosted.second_enzyme(x) + boosted.V * x[:, :1] / (boosted.K + x[:, :1]) - y) / sigma**2


def test_each_step_with_the_true_score_takes_half_of_the_way():
    task = quick("boosted")
    x, y = task.test.inputs["x"], task.test.inputs["y"]
    model = knowing(task)
    model.score = perfect
    walk = [((step - y) ** 2).mean().sqrt() for step in model.walk(model.physics(x), x)]
    assert len(walk) == 6
    assert walk[0] > 10 * boosted.NOISE
    assert float(walk[1] / walk[0]) == pytest.approx(0.5, rel=0.02)  # the noise adds 1 % here
    assert float(walk[-1]) == pytest.approx(boosted.NOISE, rel=0.2)
    assert loss_of(task, model.eval()) == pytest.approx(boosted.NOISE**2, rel=0.4)


def test_where_the_walk_begins_is_forgotten():
    """A perfect score hides a wrong theta: the error of the start halves with each step."""
    x = quick("boosted").test.inputs["x"]
    model = boosted.Boosted()
    model.score = perfect
    ends = [model.walk(torch.full((200, 1), start), x)[-1] for start in (0.0, 1.0)]
    assert torch.allclose(ends[1] - ends[0], torch.full((200, 1), 0.5**5), atol=1e-5)


def test_denoising_is_least_wrong_at_the_true_score():
    torch.manual_seed(0)
    task, model = quick("boosted"), boosted.Boosted()
    model.score = perfect
    x, y = task.train.inputs["x"], task.train.inputs["y"]
    for sigma in boosted.SIGMAS:
        error = float((model.denoised(y, x, sigma) - y).std())
        assert error == pytest.approx(boosted.NOISE, rel=0.1)  # 200 samples: 5 % is one sigma


def test_in_use_the_walk_does_not_see_the_measured_rate():
    torch.manual_seed(0)
    model = boosted.Boosted().eval()
    inputs = quick("boosted").test.inputs
    ends = [model({"x": inputs["x"], "y": y}).value for y in (inputs["y"], torch.zeros_like(inputs["y"]))]
    assert torch.equal(*ends)
    assert (ends[0] == ends[0][:, :1]).all()


def linear(weight, bias=0.0):
    """An evaporation model whose network is one linear layer."""
    model = merging.Evaporation()
    model.net = torch.nn.Sequential(torch.nn.Linear(3, 1))
    with torch.no_grad():
        model.net[0].weight.copy_(torch.as_tensor(weight))
        model.net[0].bias.fill_(bias)
    return model


def test_regmean_merges_two_linear_models_in_closed_form():
    """Its weights are those of least squares on what both models answer, each to its own inputs."""
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(50, 3, generator=generator), torch.randn(50, 3, generator=generator) * torch.tensor([1, 2, 3.0])]
    models = [linear([[1.0, -1.0, 2.0]], bias=1.0), linear([[0.0, 3.0, 1.0]], bias=3.0)]
    found = merging.regmean(models, x, shrink=1.0)
    answers = torch.cat([seen @ m.net[0].weight.T for seen, m in zip(x, models, strict=True)]).detach()
    least_squares = torch.linalg.lstsq(torch.cat(x), answers).solution.T
    assert torch.allclose(found.net[0].weight, least_squares, atol=1e-5)
    assert float(found.net[0].bias.detach()) == 2.0
    average = merging.average(models).net[0].weight
    assert torch.equal(average, torch.tensor([[0.5, 1.0, 1.5]]))
    # Without the off-diagonals each weight is a mean of the two, in proportion to its input's square.
    share = (x[1] ** 2).sum(0) / sum((seen**2).sum(0) for seen in x)
    mixed = (1 - share) * models[0].net[0].weight + share * models[1].net[0].weight
    assert torch.allclose(merging.regmean(models, x, shrink=0.0).net[0].weight, mixed, atol=1e-5)


def test_merging_a_model_with_itself_changes_nothing():
    torch.manual_seed(0)
    x, model = torch.rand(60, 3), merging.Evaporation()
    for joined in (merging.average([model, model]), merging.regmean([model, model], [x[:30], x[30:]])):
        assert torch.allclose(joined(x).value, model(x).value, atol=1e-5)
        assert torch.allclose(joined.theta.a, model.theta.a)


def test_merged_tells_the_stations_models_and_both_merges():
    task = hs.tasks.get("gallery", variant="merging", preset="smoke")
    halves = merging.halves(task)
    wind = [half.train.inputs[:, 1] for half in halves]
    assert float(wind[0].min()) >= 0.5
    assert float(wind[1].max()) <= 1.0
    runs = [half.fit(["erm"], seeds=[0, 1], progress=False) for half in halves]
    table = merging.merged(runs, task)
    assert list(table["model"]) == ["coast", "inland", "average", "regmean"] * 2
    assert (table["test_loss"] > 0).all()


def test_evaporation_with_the_missing_term_leaves_the_noise():
    task = quick("merging")
    model = _without(knowing(task))
    assert loss_of(task, model) > 10 * merging.NOISE**2
    model.net = Known(merging.closing)
    assert loss_of(task, model) == pytest.approx(merging.NOISE**2, rel=0.3)  # 200 samples: 10 % is one sigma


def test_the_front_finds_the_missing_term_and_with_it_theta():
    front = explicit_simplicity.discover(quick("explicit_simplicity"), most=1)
    assert front["size"].is_monotonic_increasing
    assert front["val_loss"].is_monotonic_decreasing
    assert front["terms"].iloc[0] == "none"
    best = front.iloc[-1]
    assert best["terms"] == "x^2 v"
    assert best["val_loss"] < front["val_loss"].iloc[0] / 10
    assert best["k"] == pytest.approx(explicit_simplicity.K, abs=0.02)
    assert best["d"] == pytest.approx(explicit_simplicity.D, abs=0.02)
    # Alone, the known terms must stand in for the missing one: the damping is far off.
    assert abs(front["d"].iloc[0] - explicit_simplicity.D) > 0.3


def test_a_sum_of_terms_is_solved_as_the_hybrid_is():
    task = quick("explicit_simplicity")
    model = knowing(task)
    model.net = Known(lambda y: -explicit_simplicity.LIMIT * y[..., :1] ** 2 * y[..., 1:])
    truth = [explicit_simplicity.K, explicit_simplicity.D, -explicit_simplicity.LIMIT]
    predicted = explicit_simplicity.solve(["x^2 v"], truth, task.test)
    assert torch.allclose(task.predict(model).value.double(), torch.as_tensor(predicted), atol=1e-5)
    # The noise of the target, and of the measured start, which the swing keeps or damps.
    assert explicit_simplicity.NOISE**2 < loss_of(task, model) < 3 * explicit_simplicity.NOISE**2
