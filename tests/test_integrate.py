"""Solvers of ordinary differential equations: order, agreement with others, errors, gradients."""

import math

import numpy as np
import pytest
import scipy.integrate
import torch
import torchdiffeq
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hybridsam_lite as hs

DOUBLE = torch.float64


def pendulum(t, y):
    """A damped, driven pendulum: nonlinear and with an explicit time."""
    q, p = y[..., :1], y[..., 1:]
    return torch.cat([p, -torch.sin(q) - 0.1 * p + 0.3 * torch.cos(2 * t)], -1)


def start(dtype=DOUBLE):
    return torch.tensor([[1.0, 0.0], [0.3, -0.5]], dtype=dtype)


def times(end=2.0, count=9, dtype=DOUBLE):
    return torch.linspace(0, end, count, dtype=dtype)


def reference(t):
    """The solution to thirteen digits."""
    solutions = [
        scipy.integrate.solve_ivp(
            lambda s, y: pendulum(torch.tensor(s), torch.tensor(y)).numpy(),
            (float(t[0]), float(t[-1])), y0, "DOP853", t.numpy(), rtol=1e-13, atol=1e-13,
        ).y.T
        for y0 in start().numpy()
    ]  # fmt: skip
    return torch.tensor(np.stack(solutions, 1))


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4)])
def test_convergence_order(method, order):
    t = times()
    exact = reference(t)
    counts = [8, 16, 32]
    errors = [float((hs.odeint(pendulum, start(), t, method=method, substeps=n) - exact).abs().max()) for n in counts]
    slopes = -np.diff(np.log(errors)) / np.diff(np.log(counts))
    # the next term of the error expansion contributes a few percent at these steps
    assert slopes == pytest.approx(order, abs=0.1)


def test_rk4_agrees_with_scipy_and_torchdiffeq():
    t = times()
    ours = hs.odeint(pendulum, start(), t, substeps=64)
    # h = 1/256: a fourth-order error of about h^4 = 2e-10
    torch.testing.assert_close(ours, reference(t), rtol=0, atol=1e-9)
    theirs = torchdiffeq.odeint(pendulum, start(), t, method="dopri5", rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_euler_is_torchdiffeqs_euler():
    t = times()
    ours = hs.odeint(pendulum, start(), t, method="euler")
    theirs = torchdiffeq.odeint(pendulum, start(), t, method="euler")
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "midpoint", "explicit_adams"])
def test_other_methods_are_torchdiffeqs(method):
    t = times()
    ours = hs.odeint(pendulum, start(), t, method=method)
    assert torch.equal(ours, torchdiffeq.odeint(pendulum, start(), t, method=method))


def test_tolerances_reach_torchdiffeq():
    t = times()
    calls = []

    def counted(s, y):
        calls.append(s)
        return pendulum(s, y)

    hs.odeint(counted, start(), t, method="dopri5", rtol=1e-3, atol=1e-3)
    loose = len(calls)
    hs.odeint(counted, start(), t, method="dopri5", rtol=1e-10, atol=1e-10)
    assert len(calls) - loose > 2 * loose


def test_rk4_is_the_classic_rule_and_torchdiffeqs_the_three_eighths_rule():
    h = 0.5
    t = torch.tensor([0.0, h], dtype=DOUBLE)
    y = start()
    k1 = pendulum(t[0], y)
    k2 = pendulum(t[0] + h / 2, y + h / 2 * k1)
    k3 = pendulum(t[0] + h / 2, y + h / 2 * k2)
    k4 = pendulum(t[0] + h, y + h * k3)
    classic = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    k2 = pendulum(t[0] + h / 3, y + h * k1 / 3)
    k3 = pendulum(t[0] + h * 2 / 3, y + h * (k2 - k1 / 3))
    k4 = pendulum(t[0] + h, y + h * (k1 - k2 + k3))
    three_eighths = y + h / 8 * (k1 + 3 * k2 + 3 * k3 + k4)
    ours = hs.odeint(pendulum, y, t, method="rk4")[-1]
    theirs = torchdiffeq.odeint(pendulum, y, t, method="rk4")[-1]
    torch.testing.assert_close(ours, classic, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(theirs, three_eighths, rtol=1e-15, atol=1e-15)
    # the two rules differ by their errors, of order h^5 / 100
    assert 1e-6 < (ours - theirs).abs().max() < 1e-2


def test_the_first_state_is_the_initial_one():
    y = hs.odeint(pendulum, start(), times())
    assert y.shape == (9, 2, 2)
    assert torch.equal(y[0], start())


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 1)])
def test_states_of_any_shape(shape):
    y = hs.odeint(lambda t, y: -y, torch.ones(shape), torch.linspace(0, 1, 11))
    assert y.shape == (11, *shape)
    # RK4 at h = 0.1: h^4 / 120 = 1e-6
    torch.testing.assert_close(y[-1], torch.full(shape, math.exp(-1)), rtol=2e-6, atol=0)


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
def test_backward_time_undoes_forward_time(method):
    forward = torch.linspace(0, 1, 101, dtype=DOUBLE)
    there = hs.odeint(pendulum, start(), forward, method=method)
    back = hs.odeint(pendulum, there[-1], forward.flip(0), method=method)
    # Euler's global error is of order h = 0.01, twice
    tolerance = {"euler": 3e-2, "rk4": 1e-8, "dopri5": 1e-6}[method]
    torch.testing.assert_close(back[-1], start(), rtol=0, atol=tolerance)


def test_uneven_grids_and_steps():
    t = torch.tensor([0.0, 0.1, 0.4, 1.0], dtype=DOUBLE)
    by_step = hs.odeint(pendulum, start(), t, step=0.05)
    fine = hs.odeint(pendulum, start(), torch.linspace(0, 1, 21, dtype=DOUBLE))
    # the same steps, up to the rounding of the times
    torch.testing.assert_close(by_step, fine[[0, 2, 8, 20]], rtol=1e-13, atol=1e-13)


def test_a_step_divides_a_backward_grid_too():
    t = times().flip(0)
    by_step = hs.odeint(pendulum, start(), t, step=0.125)
    assert torch.equal(by_step, hs.odeint(pendulum, start(), t, substeps=2))


def test_a_float32_grid_is_divided_in_spite_of_rounding():
    t = torch.linspace(0, 10, 101)
    assert hs.odeint(lambda t, y: -y, torch.ones(1), t, step=0.05).shape == (101, 1)


@pytest.mark.parametrize("step", [0.3, 0.07, 0.24, 1.0, 1e9])
def test_a_step_that_does_not_divide_the_grid_is_refused(step):
    with pytest.raises(ValueError, match=r"does not divide the interval 0.25 of the time grid; use a step"):
        hs.odeint(pendulum, start(), times(), step=step)


def test_the_suggested_step_works():
    with pytest.raises(ValueError, match=r"use a step such as 0.125"):
        hs.odeint(pendulum, start(), times(), step=0.2)
    hs.odeint(pendulum, start(), times(), step=0.125)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"substeps": 0}, "substeps must be a positive integer, got 0"),
        ({"substeps": 1.5}, "substeps must be a positive integer, got 1.5"),
        ({"step": 0.0}, "step must be a positive number, got 0.0"),
        ({"step": -0.25}, "step must be a positive number, got -0.25"),
        ({"step": math.nan}, "step must be a positive number, got nan"),
        ({"step": 0.25, "substeps": 2}, "substeps or step, not both"),
        ({"rtol": 1e-3}, "'rk4' takes substeps or step, got rtol"),
        ({"method": "dopri5", "substeps": 2}, "substeps and step belong to 'rk4' and 'euler'"),
        ({"method": "dopri5", "step": 0.25}, "substeps and step belong to 'rk4' and 'euler'"),
        ({"method": "rk45"}, r"unknown method 'rk45'. Did you mean 'rk4'\?"),
        ({"method": "dopri"}, r"unknown method 'dopri'. Did you mean 'dopri\d'\?"),
        ({"method": "Euler"}, r"unknown method 'Euler'. Did you mean 'euler'\?"),
        ({"method": "???"}, r"unknown method '\?\?\?'. Expected one of: euler, rk4"),
        ({"method": None}, "unknown method None. Expected one of: euler, rk4"),
        ({"method": "scipy_solver"}, "unknown method 'scipy_solver'"),
        ({"adjoint": True}, "odeint_adjoint gives no gradient to parameters that rhs only captures"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        hs.odeint(pendulum, start(), times(), **arguments)


def test_no_adjoint_is_the_same_as_not_asking_for_it():
    assert torch.equal(hs.odeint(pendulum, start(), times(), adjoint=False), hs.odeint(pendulum, start(), times()))


def test_torchdiffeqs_adjoint_drops_captured_parameters():
    # The reason why adjoint=True is refused: should this fail one day, it may be allowed.
    k = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    y = torchdiffeq.odeint_adjoint(lambda t, y: -k * y, start().requires_grad_(), times(), adjoint_params=())
    assert torch.autograd.grad(y.sum(), k, allow_unused=True) == (None,)


def test_a_rate_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"must return the state's shape \(2, 2\), got \(2, 1\)"):
        hs.odeint(lambda t, y: y[:, :1], start(), times())
    with pytest.raises(ValueError, match=r"must return the state's shape \(2, 2\), got \(2,\)"):
        hs.odeint(lambda t, y: y[:, 0], start(), times(), method="dopri5")


# Time grids

finite = st.floats(-100, 100, allow_nan=False)


@settings(max_examples=80)
@given(st.lists(finite, min_size=0, max_size=6))
def test_only_strictly_monotone_grids_are_accepted(values):
    t = torch.tensor(values, dtype=DOUBLE)
    gaps = np.diff(values)
    if len(values) >= 2 and ((gaps > 0).all() or (gaps < 0).all()):
        y = hs.odeint(lambda t, y: torch.zeros_like(y), torch.ones(1), t)
        assert torch.equal(y, torch.ones(len(values), 1))
    else:
        with pytest.raises(ValueError, match=r"strictly increasing|at least two times"):
            hs.odeint(lambda t, y: torch.zeros_like(y), torch.ones(1), t)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (torch.tensor([0.0]), r"at least two times, got shape \(1,\)"),
        (torch.tensor(0.0), r"got shape \(\)"),
        (torch.zeros(2, 2), r"got shape \(2, 2\)"),
        ([0.0, 1.0], "got list"),
        (torch.tensor([0.0, 1.0, 1.0]), "strictly increasing or strictly decreasing"),
        (torch.tensor([0.0, 2.0, 1.0]), "strictly increasing or strictly decreasing"),
        (torch.tensor([0.0, math.nan]), "strictly increasing or strictly decreasing"),
    ],
)
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_bad_grids(t, message, method):
    with pytest.raises(ValueError, match=message):
        hs.odeint(lambda t, y: -y, torch.ones(1), t, method=method)


# Blow-up


def square(t, y):
    return y**2  # from 1 it reaches infinity at t = 1


@pytest.mark.parametrize("shape", [(), (1,), (2, 1)])
def test_blow_up_is_an_error_that_says_when(shape):
    with pytest.raises(hs.SolverError, match=r"not finite from t = [0-9.]+ on; the right-hand side blows up"):
        hs.odeint(square, torch.ones(shape), torch.linspace(0, 4, 9), substeps=20)


def test_an_infinite_start_is_an_error():
    with pytest.raises(hs.SolverError, match="from t = 0 on"):
        hs.odeint(lambda t, y: -y, torch.tensor([math.inf]), torch.linspace(0, 1, 3))


def test_an_unstable_step_is_an_error():
    with pytest.raises(hs.SolverError, match="the step is unstable"):
        hs.odeint(lambda t, y: -1e4 * y, torch.ones(1), torch.linspace(0, 10, 101), method="euler")


def test_an_adaptive_method_that_gives_up_is_a_solver_error():
    with pytest.raises(hs.SolverError, match=r"'dopri5' gave up \(underflow in dt"):
        hs.odeint(square, torch.ones(1), torch.linspace(0, 2, 3), method="dopri5")


def test_blow_up_under_vmap_stays_in_its_member():
    t = torch.linspace(0, 4, 9)
    y0 = torch.tensor([[-1.0], [1.0], [0.01]])
    y = torch.func.vmap(lambda y: hs.odeint(square, y, t, substeps=20))(y0)
    assert torch.isfinite(y).all(-1).all(-1).tolist() == [True, False, True]
    alone = hs.odeint(square, y0[2], t, substeps=20)
    torch.testing.assert_close(y[2], alone, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_vmap_over_parameters_equals_a_loop(method):
    k = torch.tensor([0.1, 1.0, 3.0])

    def decay(k):
        return hs.odeint(lambda t, y: -k * y, torch.ones(2, 1), torch.linspace(0, 1, 6), method=method)

    looped = torch.stack([decay(x) for x in k])
    torch.testing.assert_close(torch.func.vmap(decay)(k), looped, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "midpoint"])
def test_torchdiffeqs_methods_under_vmap_give_a_clear_error(method):
    def decay(k):
        return hs.odeint(lambda t, y: -k * y, torch.ones(1), torch.linspace(0, 1, 3), method=method)

    message = f"'{method}' .* torch.func.vmap cannot do; use method='rk4' or 'euler'"
    with pytest.raises(ValueError, match=message):
        torch.func.vmap(decay)(torch.tensor([1.0, 2.0]))


def test_errors_of_the_right_hand_side_pass_through():
    def broken(t, y):
        raise RuntimeError("my own mistake")

    for method in ("rk4", "dopri5"):
        with pytest.raises(RuntimeError, match="my own mistake"):
            hs.odeint(broken, start(), times(), method=method)


# Gradients


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
def test_gradients_of_theta_phi_and_the_initial_state(method):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    phi = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters()}
    theta = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    t = times(1.0, 4)

    def solve(theta, y0, *weights):
        named = dict(zip(phi, weights, strict=True))

        def rhs(t, y):
            a = -theta * torch.sin(y[..., :1]) + torch.func.functional_call(net, named, (y,))
            return torch.cat([y[..., 1:], a], -1)

        options = {"rtol": 1e-10, "atol": 1e-10} if method == "dopri5" else {}
        return hs.odeint(rhs, y0, t, method=method, **options)

    # dopri5 also differentiates its step size, up to its own tolerance
    assert torch.autograd.gradcheck(solve, (theta, start().requires_grad_(), *phi.values()), atol=1e-6, rtol=1e-5)


def test_gradient_of_the_times():
    t = times(1.0, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: hs.odeint(pendulum, start(), t), (t,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_state_keeps_its_dtype(dtype):
    y = hs.odeint(lambda t, y: -y, torch.ones(3, 1, dtype=dtype), times())
    assert y.dtype == dtype
    # 8 steps of one rounding each
    bound = 16 * torch.finfo(dtype).eps + 1e-3
    torch.testing.assert_close(y[-1].double(), torch.full((3, 1), math.exp(-2), dtype=DOUBLE), rtol=bound, atol=0)


def test_complex_states_work():
    y = hs.odeint(lambda t, y: 1j * y, torch.ones(1, dtype=torch.complex128), times(), substeps=20)
    # h = 1/80: h^4 / 120 = 2e-10
    torch.testing.assert_close(y[-1], torch.exp(torch.tensor([2j], dtype=torch.complex128)), rtol=0, atol=1e-9)
