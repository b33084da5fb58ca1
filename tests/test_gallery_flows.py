"""Entries of the gallery that differ in where the network sits: what is special in each, on known answers."""

import numpy as np
import pytest
import torch

import hybridsam_lite as hs
from hybridsam_lite.tasks.base import simulate
from hybridsam_lite.tasks.gallery import (
    amortized,
    closure,
    exported_unit,
    multiplicative,
    nested_decoder,
    output_residual,
)
from hybridsam_lite.tasks.gallery.parts import generators


def quick(name):
    return hs.tasks.get("gallery", variant=name, preset="quick")


def knowing(task):
    """A model with the true theta."""
    return task.with_truth().model()


def loss_of(task, model):
    """On the test samples, as scored."""
    return float(((task.predict(model).value - task.test.target) ** 2).mean())


def silent(model):
    """The same model with all of phi at zero."""
    with torch.no_grad():
        for name, role in hs.roles(model).items():
            if role == "phi":
                model.get_parameter(name).zero_()
    return model


class Known(torch.nn.Module):
    """A function in a network's place."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


# --- multiplicative ----------------------------------------------------------------------------------


def test_a_batch_with_the_true_effect_of_temperature_is_predicted_to_the_noise():
    task = quick("multiplicative")
    bare = loss_of(task, silent(knowing(task)))
    model = knowing(task)
    model.factor = lambda _, temperature: multiplicative.warmth(temperature) - 1
    # Only the target is noisy; the solver's steps of 0.5 h may add a little.
    assert loss_of(task, model) < 1.1 * multiplicative.NOISE**2 < bare / 100


def test_a_constant_factor_of_the_network_is_a_factor_of_the_rate():
    """The exchange that puts theta at risk is exact: 1 + c from the network, 1 / (1 + c) in the rate."""
    task = quick("multiplicative")
    plain, exchanged = silent(knowing(task)), silent(knowing(task))
    with torch.no_grad():
        exchanged.net[-1].bias.fill_(0.25)
        exchanged.theta.set(mu_max=multiplicative.RATE / 1.25)
    for part in (task.train, task.test):
        assert torch.allclose(plain(part.inputs).value, exchanged(part.inputs).value, rtol=1e-5, atol=1e-5)


def test_cells_and_substrate_keep_their_balance_whatever_the_network_says():
    torch.manual_seed(0)
    task = quick("multiplicative")
    model, x0 = task.model(), task.test.inputs["x0"]
    with torch.no_grad():
        model.net[-1].weight.mul_(20)
    y = model(task.test.inputs).value
    made, used = y[..., 0] - x0[:, None, 0], x0[:, None, 1] - y[..., 1]
    assert torch.allclose(made, multiplicative.YIELD * used, atol=1e-5)


# --- output_residual ---------------------------------------------------------------------------------


def test_the_algae_breathe_what_they_produce():
    day = (np.arange(20_000) + 0.5) / 20_000
    assert abs(output_residual.algae(day).mean()) < 1e-6  # the midpoint rule, of a kinked function
    assert output_residual.algae(np.array([0.5]))[0] > 0 > output_residual.algae(np.array([0.0]))[0]


def test_the_algae_add_to_the_solution_what_depends_on_time_only():
    """The equation is linear, so what the network must learn is the same for every start and every decay."""
    task = quick("output_residual")
    model, inputs = silent(knowing(task)), task.test.inputs
    clock, t = 0.25, output_residual.TIMES  # from dawn: by dusk the algae have added most

    def deficit(state):
        def rhs(time, y):
            decayed = output_residual.DECAY * y[:, 0]
            rate = decayed - output_residual.REAERATION * y[:, 1] - output_residual.algae(np.array([clock + time]))
            return np.stack([-decayed, rate], axis=1)

        return simulate(rhs, np.array([state]), t, rtol=1e-8)[0, 1:, 1]

    def physics(state):
        return (
            model({**inputs, "x0": torch.tensor([state]), "clock": torch.tensor([[clock]])}).physics.detach().numpy()[0]
        )

    first, second = ([*deficit(s) - physics(s)] for s in ([6.0, 0.5], [18.0, 2.5]))
    assert first == pytest.approx(second, abs=2e-3)  # the error of RK4 with steps of half a day
    assert max(map(abs, first)) > 0.2


def test_river_with_the_true_residual_predicts_to_the_noise():
    task = quick("output_residual")
    bare = loss_of(task, silent(knowing(task)))
    model, t = knowing(task), output_residual.TIMES
    clock = task.test.inputs["clock"][:, 0].double().numpy()

    def rhs(time, y):
        return -output_residual.REAERATION * y - output_residual.algae(clock + time)[:, None]

    true = simulate(rhs, np.zeros((len(clock), 1)), t, rtol=1e-8)[:, 1:, 0]
    model.residual = lambda *_: torch.as_tensor(true, dtype=torch.float32)
    assert loss_of(task, model) < 1.1 * output_residual.NOISE**2 < bare / 50


# --- nested_decoder ----------------------------------------------------------------------------------


def test_the_solver_follows_the_kinetics_that_are_solved_by_hand():
    task = quick("nested_decoder")
    model, inputs = knowing(task), task.test.inputs
    exact = nested_decoder.concentrations(inputs["start"].double().numpy(), inputs["t"][:, 0].double().numpy())
    found = model.reacted(inputs["start"], inputs["t"]).detach().numpy()
    assert np.abs(found - exact).max() < nested_decoder.NOISE / 10
    assert found.sum(1) == pytest.approx(inputs["start"].sum(1).numpy(), abs=1e-5)


def test_the_true_spectra_and_scatter_leave_the_noise():
    task, count = quick("nested_decoder"), nested_decoder.COUNT["quick"][2]
    scatter = nested_decoder.simulate(count, generators()["test"])["scatter"]
    model = knowing(task)
    model.encoder = Known(lambda _: torch.as_tensor(scatter, dtype=torch.float32)[:, None])
    model.net = Known(lambda seen: torch.as_tensor(nested_decoder.spectrum(seen[:, :3].numpy(), seen[:, 3].numpy())))
    assert loss_of(task, model) == pytest.approx(nested_decoder.NOISE**2, rel=0.1)


def test_the_code_alone_cannot_carry_a_spectrum():
    """Four things vary in a spectrum and the code is one number: the physics is needed."""
    y = quick("nested_decoder").train.target.double()
    values = torch.linalg.svdvals(y - y.mean(0)) ** 2 / y.numel()
    assert values[1:].sum() > 20 * nested_decoder.NOISE**2  # what is left after the best linear code
    assert values[4:].sum() < 1.1 * nested_decoder.NOISE**2


# --- closure -----------------------------------------------------------------------------------------


def test_vessel_with_the_true_law_predicts_to_the_noise():
    task = quick("closure")
    bare = loss_of(task, silent(knowing(task)))
    model = knowing(task)
    model.rate = lambda y: torch.as_tensor(closure.law(y[..., :1].numpy(), y[..., 1:].numpy()))
    assert loss_of(task, model) < 1.1 * closure.NOISE**2 < bare / 50


def test_the_rate_is_positive_and_ends_with_the_reactant_whatever_the_weights():
    torch.manual_seed(0)
    model, state = closure.Vessel(), torch.randn(500, 2).abs()
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.mul_(10)
        assert (model.rate(state) > 0).all()
        assert (model.rate(state * torch.tensor([0.0, 1.0])) == 0).all()


@pytest.mark.parametrize(("speed", "alike"), [(0.001, True), (1.0, False)])  # 1/min
def test_heat_and_rate_are_one_number_until_the_reactant_runs_out(speed, alike):
    """Twice the heat and half the rate warm the vessel alike as long as c hardly falls."""
    inputs = {"x0": torch.tensor([[1.0, 0.0]]), "cool": torch.zeros(1, 1), "t": torch.as_tensor(closure.TIMES).float()}

    def temperatures(factor):
        model = closure.Vessel()
        model.theta.set(heat=factor, cooling=0.1)
        model.rate = lambda y: speed / factor * y[..., :1]
        return model(inputs).value.detach()

    gap = (temperatures(1.0) - temperatures(2.0)).abs().max() / temperatures(1.0).max()
    assert bool(gap < 0.01) is alike


# --- amortized ---------------------------------------------------------------------------------------


def test_dip_and_wave_of_the_true_factors_leave_the_noise():
    found = amortized.simulate(200, np.random.default_rng(0))
    factors = {name: torch.as_tensor(value) for name, value in found.items()}
    residual = factors["y"] - amortized.dip(factors["depth"], factors["duration"])
    assert float(residual.std()) > 5 * amortized.NOISE
    residual = residual - amortized.wave(factors["amplitude"], factors["period"], factors["phase"])
    assert float(residual.std()) == pytest.approx(amortized.NOISE, rel=0.05)  # 8000 readings: 0.8 % is one sigma


def test_light_curves_of_the_true_theta_and_star_are_reproduced_to_the_noise():
    task = quick("amortized")
    factors = amortized.simulate(len(task.test), generators()["test"])
    star = [torch.as_tensor(factors[name]).float() for name in ("amplitude", "period", "phase")]
    truth = {name: torch.as_tensor(factors[name]).float() for name in amortized.LIMITS}
    model = task.model()
    model.infer = lambda _: (truth, torch.cat(star, -1))
    model.net = Known(lambda seen: amortized.wave(*seen[:, -3:].split(1, -1)))
    assert loss_of(task, model) == pytest.approx(amortized.NOISE**2, rel=0.1)
    found = task.predict(model).theta
    assert amortized.relative_error(found, task.theta_true) < 1e-6


def test_depth_and_duration_are_what_an_astronomer_would_read_off():
    curve = amortized.dip(torch.tensor([[0.8]]), torch.tensor([[3.0]]))[0]
    assert float(-curve.min()) == pytest.approx(0.8, rel=1e-3)
    step = float(amortized.TIMES.diff()[0])
    assert float(-curve.sum()) * step == pytest.approx(0.8 * 3.0, rel=0.01)  # area: depth times duration


# --- exported_unit -----------------------------------------------------------------------------------


def plain(p, q, r, c):
    """The unit as PyTorch would see it, if it could."""
    return (q - p / r) / c


def arguments(members=None):
    generator = torch.Generator().manual_seed(0)
    shape = (4, 7) if members is None else (4, members, 7)
    return tuple(torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5)


def test_the_unit_has_the_gradients_of_its_equation():
    values = tuple(x.requires_grad_() for x in arguments())
    assert torch.autograd.gradcheck(lambda *x: exported_unit.Unit.apply(*x)[0], values)  # against differences
    assert torch.allclose(exported_unit.Unit.apply(*values)[0], plain(*values))


@pytest.mark.parametrize("axes", [(0, 0, 0, 0), (0, None, 0, None), (None, None, 0, 0)])
def test_the_unit_runs_for_many_members_at_once(axes):
    """The gradient of each member, by vmap over grad as in training, is that of the plain equation."""
    values = [x if a == 0 else x[0] for x, a in zip(arguments(members=3), axes, strict=True)]

    def total(function):
        gradient = torch.func.grad(lambda *x: (function(*x) ** 2).sum(), argnums=(0, 2, 3))
        return torch.func.vmap(gradient, in_dims=axes)(*values)

    for found, expected in zip(total(lambda *x: exported_unit.Unit.apply(*x)[0]), total(plain), strict=True):
        assert torch.allclose(found, expected)


def test_nothing_but_numpy_reaches_the_unit(monkeypatch):
    seen = []
    genuine = exported_unit.unit
    monkeypatch.setattr(exported_unit, "unit", lambda *x: seen.extend(map(type, x)) or genuine(*x))
    task = hs.tasks.get("gallery", variant="exported_unit", preset="smoke")
    assert (task.score(task.fit(["erm"], seeds=range(2), progress=False))["status"] == "ok").all()
    assert set(seen) == {np.ndarray}


def test_artery_with_the_true_stiffening_predicts_to_the_noise():
    task = quick("exported_unit")
    bare = loss_of(task, silent(knowing(task)))

    def stiffening(seen):
        p, q = seen[..., 0] / 2 + 1, 2 * (seen[..., 1] + 0.5)
        share = torch.exp(exported_unit.STIFFENING * (p - exported_unit.AT_REST)) - 1
        return (share * plain(p, q, exported_unit.RESISTANCE, exported_unit.COMPLIANCE))[..., None]

    model = knowing(task)
    model.net = Known(stiffening)
    # The noise is in the target and in the measured start, which is kept for 0.2 s: at most twice in variance.
    assert exported_unit.NOISE**2 < loss_of(task, model) < 2.5 * exported_unit.NOISE**2 < bare / 3
