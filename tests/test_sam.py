"""SAM: the pure step, the optimizer wrapper, their agreement, and everything that must be restored."""

import copy
import gc
import io
import math

import pytest
import pytorch_optimizer
import torch
from torch import nn
from torch.nn.utils import parametrizations

import hybridsam_lite as hs

ADAM = lambda groups: torch.optim.Adam(groups, lr=1e-2)  # noqa: E731
SGD = lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9)  # noqa: E731


class Hybrid(hs.HybridModel):
    """A line with unknown slope plus a network, optionally one that is random and has buffers."""

    def __init__(self, stochastic=False):
        super().__init__()
        self.theta = hs.Theta(k=hs.Positive(init=0.7))
        if stochastic:
            self.net = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))
        else:
            self.net = hs.mlp(1, [8], 1, last_scale=1.0)

    def forward(self, x):
        return self.theta.k * x + self.net(x)


def data(seed=0, count=16):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, generator=g)
    return x, 2 * x + torch.sin(3 * x)


def squared(model, x, y):
    return ((model(x) - y) ** 2).mean()


def build(stochastic=False, seed=0):
    torch.manual_seed(seed)
    return Hybrid(stochastic)


def closure_of(opt, model, batch):
    def closure():
        opt.zero_grad()
        loss = squared(model, *batch)
        loss.backward()
        return loss

    return closure


def sam_step(opt, model, batch, form):
    if form == "closure":
        opt.step(closure_of(opt, model, batch))
        return
    opt.zero_grad()
    squared(model, *batch).backward()
    with opt.perturbed():
        squared(model, *batch).backward()
    opt.step()


def values(model):
    return {n: x.clone() for n, x in model.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    for name, x in first.items():
        assert torch.equal(x, second[name]), name


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


class Quadratic(nn.Module):
    """loss = w' diag(h) w / 2 with w split into two tensors."""

    def __init__(self, w, h):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(w[:1]))
        self.b = nn.Parameter(torch.tensor(w[1:]))
        self.h = torch.tensor(h)

    def forward(self):
        return (self.h * torch.cat([self.a, self.b]) ** 2).sum() / 2


# The pure step


def test_perturbation_is_the_gradients_direction_with_length_rho():
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([[0.0, -4.0]])}
    e = hs.perturbation(grads, grads, rho=2.0)
    torch.testing.assert_close(e["a"], torch.tensor([1.2]))
    torch.testing.assert_close(e["b"], torch.tensor([[0.0, -1.6]]))


@pytest.mark.parametrize("adaptive", [False, True])
def test_perturbation_maximizes_the_linear_gain_in_its_ball(adaptive):
    torch.manual_seed(0)
    w, g = torch.randn(20).double(), torch.randn(20).double()
    scale = w.abs() if adaptive else torch.ones_like(w)
    e = hs.perturbation({"w": w}, {"w": g}, 0.3, adaptive)["w"]
    assert (e / scale).norm().item() == pytest.approx(0.3, rel=1e-10)
    other = torch.randn(1000, 20).double()
    other = scale * other / other.norm(dim=1, keepdim=True) * 0.3
    assert (other @ g).max() < e @ g
    # Cauchy-Schwarz: the maximum is rho |T g|
    assert (e @ g).item() == pytest.approx(0.3 * (scale * g).norm().item(), rel=1e-10)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_zero_gradient_gives_no_perturbation(adaptive):
    zeros = {"w": torch.zeros(3)}
    assert not hs.perturbation({"w": torch.ones(3)}, zeros, 0.5, adaptive)["w"].any()


def test_a_tiny_gradient_still_gives_the_full_radius():
    # no drift along flat valleys otherwise; 1e-12 is the guard against 0/0
    e = hs.perturbation({"w": torch.ones(2)}, {"w": torch.tensor([6e-9, 8e-9])}, 0.5)["w"]
    torch.testing.assert_close(e, torch.tensor([0.3, 0.4]), rtol=1e-3, atol=0)


def test_no_gradients_give_no_perturbation():
    assert hs.perturbation({}, {}, 0.1) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_perturbation_keeps_the_dtype(dtype):
    g = torch.tensor([3.0, 4.0]).to(dtype)
    for adaptive in (False, True):
        e = hs.perturbation({"w": torch.ones_like(g)}, {"w": g}, 0.5, adaptive)["w"]
        assert e.dtype == dtype
        # bfloat16 has eight bits
        torch.testing.assert_close(e.abs().double(), torch.tensor([0.3, 0.4]).double(), rtol=8e-3, atol=0)


def test_mixed_dtypes_share_one_norm():
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0], dtype=torch.float64)}
    e = hs.perturbation(grads, grads, 0.5)
    assert (e["a"].dtype, e["b"].dtype) == (torch.float32, torch.float64)
    assert (e["a"].item(), e["b"].item()) == pytest.approx((0.3, 0.4))


def test_sam_gradients_on_a_quadratic():
    h = torch.tensor([1.0, 4.0], dtype=torch.float64)
    w = torch.tensor([2.0, -1.0], dtype=torch.float64)
    g = h * w
    grads, value = hs.sam_gradients(lambda p: (h * p["w"] ** 2).sum() / 2, {"w": w}, ["w"], rho=0.1)
    assert value == 4.0
    torch.testing.assert_close(grads["w"], h * (w + 0.1 * g / g.norm()), rtol=1e-11, atol=0)


def test_complex_parameters_ascend():
    z = torch.tensor([3.0 + 4.0j])
    grads, value = hs.sam_gradients(lambda p: (p["z"].abs() ** 2).sum(), {"z": z}, ["z"], rho=0.5)
    # |z| grows from 5 to 5.5, and torch's gradient of |z|^2 is 2 z
    torch.testing.assert_close(grads["z"], 2 * z * 1.1)
    assert value == 25.0


def loss_of_params(model, batch):
    return lambda p: squared(lambda x: torch.func.functional_call(model, p, (x,)), *batch)


def test_sam_gradients_with_rho_zero_is_the_plain_gradient():
    model = build()
    squared(model, *data()).backward()
    params = {n: p.detach() for n, p in model.named_parameters()}
    perturbed = [n for n in params if n.startswith("net")]
    grads, _ = hs.sam_gradients(loss_of_params(model, data()), params, perturbed, 0.0)
    same(grads, gradients(model))


def test_sam_gradients_changes_nothing_and_needs_known_names():
    params = {"a": torch.ones(2), "b": torch.ones(1)}

    def loss(p):
        return (p["a"] ** 2).sum() * p["b"].sum()

    hs.sam_gradients(loss, params, ["a"], 0.1)
    assert params["a"].tolist() == [1.0, 1.0]
    assert not params["a"].requires_grad
    with pytest.raises(KeyError, match="no parameter 'c'; params holds a, b"):
        hs.sam_gradients(loss, params, ["c"], 0.1)
    with pytest.raises(KeyError, match="no parameter 'c'"):
        hs.sam_gradients(loss, params, ["a"], 0.1, clean=["c"])


def test_sam_gradients_perturbs_only_what_it_is_told_to():
    params = {"phi": torch.tensor([1.0]), "theta": torch.tensor([3.0])}

    def loss(p):
        return (p["phi"] * p["theta"]).sum() ** 2 / 2

    # d/dphi > 0, so phi moves to 1.5 and theta stays at 3
    perturbed, _ = hs.sam_gradients(loss, params, ["phi"], 0.5)
    assert (perturbed["theta"].item(), perturbed["phi"].item()) == (1.5**2 * 3.0, 1.5 * 9.0)
    clean, _ = hs.sam_gradients(loss, params, ["phi"], 0.5, clean=["theta"])
    assert (clean["theta"].item(), clean["phi"].item()) == (3.0, 1.5 * 9.0)
    plain, _ = hs.sam_gradients(loss, params, [], 0.5)
    assert (plain["theta"].item(), plain["phi"].item()) == (3.0, 9.0)


@pytest.mark.parametrize("adaptive", [False, True])
def test_vmap_over_sam_gradients_equals_a_loop(adaptive):
    models = [build(seed=s) for s in range(4)]
    params, _ = torch.func.stack_module_state(models)
    params = {n: p.detach() for n, p in params.items()}
    rhos = torch.tensor([0.0, 0.05, 0.5, 2.0])
    loss = loss_of_params(models[0], data())
    perturbed = [n for n in params if n.startswith("net")]

    def one(p, rho):
        return hs.sam_gradients(loss, p, perturbed, rho, adaptive)

    grads, losses = torch.func.vmap(one)(params, rhos)
    for i, rho in enumerate(rhos):
        alone, value = one({n: p[i] for n, p in params.items()}, rho)
        torch.testing.assert_close(losses[i], value, rtol=1e-6, atol=1e-6)
        for n in params:
            # relative to the gradient's size; batched matrix products round differently
            bound = 1e-6 * max(1.0, alone[n].abs().max().item())
            torch.testing.assert_close(grads[n][i], alone[n], rtol=1e-6, atol=bound)


@pytest.mark.parametrize("vmapped", [False, True])
def test_sam_gradients_shares_the_dropout_mask(vmapped):
    seen = []

    def loss(p):
        kept = nn.functional.dropout(torch.ones(64), 0.5)
        return (kept * p["w"]).sum() ** 2, kept

    def one(w):
        # w is far from zero: rho does not change which entries count, only the mask could
        grads, (_, mask) = hs.sam_gradients(loss, {"w": w}, ["w"], 1e-3, has_aux=True)
        return grads["w"] == 0, mask == 0

    for seed in range(3):
        torch.manual_seed(seed)
        w = torch.full((2, 64), 5.0)
        zero, dropped = torch.func.vmap(one, randomness="different")(w) if vmapped else one(w[0])
        assert torch.equal(zero, dropped)
        seen.append(dropped)
    assert not torch.equal(seen[0], seen[1])


def test_sam_gradients_passes_on_the_first_passs_buffers():
    model = build(stochastic=True)
    batch = data()
    params = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p):
        buffers = {n: b.clone() for n, b in model.named_buffers()}
        out = torch.func.functional_call(model, {**p, **buffers}, (batch[0],))
        return ((out - batch[1]) ** 2).mean(), buffers

    names = [n for n in params if n.startswith("net")]
    _, (_, updated) = hs.sam_gradients(loss, params, names, 0.5, has_aux=True)
    model(batch[0])
    same(updated, dict(model.named_buffers()))


# The wrapper against the base optimizer, the pure step, and an independent implementation


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("form", ["closure", "context"])
@pytest.mark.parametrize("base", [ADAM, SGD], ids=["adam", "sgd"])
def test_rho_zero_equals_the_base_optimizer_bitwise(base, form, stochastic):
    plain, model = build(stochastic), build(stochastic)
    optimizer = base(plain.parameters())
    opt = hs.SAM(model, base(model.parameters()), rho=0.0)
    torch.manual_seed(5)
    for i in range(5):
        closure_of(optimizer, plain, data(i))()
        optimizer.step()
    state = torch.get_rng_state()
    torch.manual_seed(5)
    for i in range(5):
        sam_step(opt, model, data(i), form)
    same(values(plain), values(model))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("form", ["closure", "context"])
def test_rho_zero_equals_the_base_optimizer_with_spectral_norm(form):
    # the forward pass changes its buffers and computes with them
    plain, model = build(), build()
    for m in (plain, model):
        torch.manual_seed(1)
        parametrizations.spectral_norm(m.net[0])
    optimizer = SGD(plain.parameters())
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.0)
    for i in range(3):
        closure_of(optimizer, plain, data(i))()
        optimizer.step()
        sam_step(opt, model, data(i), form)
        same(values(plain), values(model))


def test_a_quadratic_step_has_its_closed_form():
    model = Quadratic([2.0, -1.0, 0.5], [1.0, 4.0, 2.0])
    w = torch.tensor([2.0, -1.0, 0.5])
    g = model.h * w
    opt = hs.SAM(model, torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3)
    direction = 0.3 * g / g.norm()
    model().backward()
    with opt.perturbed():
        moved = torch.cat([model.a, model.b]).detach()
        worst = model()
        worst.backward()
    opt.step()
    torch.testing.assert_close(moved, w + direction, rtol=1e-6, atol=0)
    gap = (model.h * ((w + direction) ** 2 - w**2)).sum() / 2
    torch.testing.assert_close(worst - 4.25, gap, rtol=1e-5, atol=0)
    expected = w - 0.1 * model.h * (w + direction)
    torch.testing.assert_close(torch.cat([model.a, model.b]), expected, rtol=1e-6, atol=0)


def test_phis_radius_does_not_depend_on_thetas_gradient():
    moves = []
    for factor in (0.0, 1.0, 1e6):
        model = build()
        opt = hs.SAM(model, SGD(model.parameters()), rho=0.1)
        squared(model, *data()).backward()
        model.theta.raw["k"].grad.mul_(factor)
        before = values(model)
        with opt.perturbed():
            after = values(model)
        moves.append({n: after[n] - before[n] for n in before})
        assert moves[-1]["theta.raw.k"] == 0
        radius = torch.cat([d.flatten() for d in moves[-1].values()]).norm()
        # the difference of two float32 weights near 1
        assert radius.item() == pytest.approx(0.1, rel=1e-5)
    same(moves[0], moves[1])
    same(moves[0], moves[2])


@pytest.mark.parametrize("theta_grad", ["perturbed", "clean"])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("form", ["closure", "context"])
def test_the_wrapper_agrees_with_sam_gradients(form, adaptive, theta_grad):
    model = build()
    params = {n: p.detach().clone() for n, p in model.named_parameters()}
    phi = [n for n in params if n.startswith("net")]
    clean = ["theta.raw.k"] if theta_grad == "clean" else []
    loss = loss_of_params(copy.deepcopy(model), data())
    expected, _ = hs.sam_gradients(loss, params, phi, 0.2, adaptive, clean=clean)
    base = SGD(model.parameters())
    opt = hs.SAM(model, base, rho=0.2, adaptive=adaptive, theta_grad=theta_grad)
    sam_step(opt, model, data(), form)
    for n, g in gradients(model).items():
        torch.testing.assert_close(g, expected[n], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("adaptive", [False, True])
def test_agreement_with_pytorch_optimizer(adaptive):
    # It perturbs all parameters, and its adaptive norm is |w g| as ours.
    ours, theirs = build(), build()
    opt = hs.SAM(ours, torch.optim.SGD(ours.parameters(), lr=0.05), rho=0.1, adaptive=adaptive, perturb="all")
    other = pytorch_optimizer.SAM(theirs.parameters(), torch.optim.SGD, rho=0.1, adaptive=adaptive, lr=0.05)
    for i in range(10):
        sam_step(opt, ours, data(i), "closure")
        closure = closure_of(other, theirs, data(i))
        closure()
        other.step(closure)
    for n, x in values(ours).items():
        # ten steps in single precision, products in another order
        torch.testing.assert_close(x, values(theirs)[n], rtol=1e-5, atol=1e-6)


def test_step_returns_the_undisturbed_loss():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()), rho=1.0)
    expected = squared(model, *data()).item()
    assert opt.step(closure_of(opt, model, data())).item() == expected


# What is restored


def unequal(first, second):
    return {n for n in first if not torch.equal(first[n], second[n])}


def test_phi_is_moved_inside_and_restored_bitwise_outside():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.37)
    before = values(model)
    squared(model, *data()).backward()
    with opt.perturbed():
        moved = unequal(before, values(model))
        assert moved == {n for n in before if n.startswith("net")}
        squared(model, *data()).backward()
    same(values(model), before)


def test_phi_is_restored_after_an_exception_and_no_half_step_can_be_taken():
    model = build(stochastic=True)
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.37)
    squared(model, *data()).backward()
    before, randomness = values(model), torch.get_rng_state()

    def second_pass():
        squared(model, *data()).backward()
        torch.rand(3)
        raise hs.SolverError("the perturbed model blew up")

    with pytest.raises(hs.SolverError, match="blew up"), opt.perturbed():
        second_pass()
    same(values(model), before)
    assert torch.equal(torch.get_rng_state(), randomness)
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError, match="two passes"):
        opt.step()
    sam_step(opt, model, data(), "context")  # and the next step works
    assert unequal(values(model), before)


def test_an_exception_in_the_second_closure_call_restores_phi():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.37)
    before = values(model)
    calls = []

    def closure():
        calls.append(1)
        opt.zero_grad()
        if len(calls) == 2:
            raise KeyboardInterrupt
        loss = squared(model, *data())
        loss.backward()
        return loss

    with pytest.raises(KeyboardInterrupt):
        opt.step(closure)
    same(values(model), before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", [1, 2])
def test_a_nan_loss_in_either_pass_leaves_the_weights(which, bad):
    model = build()
    opt = hs.SAM(model, ADAM(model.parameters()), rho=0.37)
    before = values(model)
    calls = []

    def closure():
        calls.append(1)
        opt.zero_grad()
        loss = squared(model, *data()) * (bad if len(calls) == which else 1.0)
        loss.backward()
        return loss

    with pytest.raises(FloatingPointError, match="not finite; the step was not taken"):
        opt.step(closure)
    same(values(model), before)
    assert not opt.state
    with pytest.raises(RuntimeError, match=r"two passes|first pass"):
        opt.step()


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 1), nn.Linear(2, 1)


def test_a_parameter_unused_in_the_second_pass_is_restored_and_kept():
    torch.manual_seed(0)
    model = TwoBranches()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.3)
    x = torch.ones(3, 2)
    before = values(model)
    (model.a(x) + model.b(x)).sum().backward()
    with opt.perturbed():
        model.a(x).sum().backward()
    assert model.b.weight.grad is None
    same(values(model), before)
    opt.step()
    assert unequal(values(model), before) == {"a.weight", "a.bias"}


def test_parameters_without_gradient_are_neither_moved_nor_counted():
    torch.manual_seed(0)
    model = TwoBranches()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.3)
    before = values(model)
    model.a(torch.ones(3, 2)).sum().backward()
    with opt.perturbed():
        moved = values(model)
        model.a(torch.ones(3, 2)).sum().backward()
    assert unequal(moved, before) == {"a.weight", "a.bias"}
    radius = torch.cat([(moved[n] - before[n]).flatten() for n in before]).norm()
    assert radius.item() == pytest.approx(0.3, rel=1e-5)
    same(values(model), before)


def test_a_step_in_which_phi_has_no_gradient_moves_theta_only():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.3)
    before = values(model)
    model.theta.k.backward()
    with opt.perturbed():
        model.theta.k.backward()
    opt.step()
    assert unequal(values(model), before) == {"theta.raw.k"}


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_zero_gradient_does_not_move_and_gives_no_nan(adaptive):
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.3, adaptive=adaptive)
    before = values(model)
    (0.0 * squared(model, *data())).backward()
    with opt.perturbed():
        same(values(model), before)
        (0.0 * squared(model, *data())).backward()
    opt.step()
    same(values(model), before)


@pytest.mark.parametrize("form", ["closure", "context"])
def test_storage_pointers_do_not_change(form):
    model = build(stochastic=True)
    opt = hs.SAM(model, ADAM(model.parameters()), rho=0.3)
    before = {n: x.data_ptr() for n, x in model.state_dict().items()}
    objects = {n: id(p) for n, p in model.named_parameters()}
    for i in range(3):
        sam_step(opt, model, data(i), form)
    assert {n: x.data_ptr() for n, x in model.state_dict().items()} == before
    assert {n: id(p) for n, p in model.named_parameters()} == objects


@pytest.mark.parametrize("form", ["closure", "context"])
def test_batch_norms_buffers_are_updated_once(form):
    model, reference = build(stochastic=True), build(stochastic=True)
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.5)
    sam_step(opt, model, data(), form)
    reference(data()[0])
    same(dict(model.named_buffers()), dict(reference.named_buffers()))
    assert model.net[1].num_batches_tracked == 1


class Reassigning(nn.Module):
    """Replaces its buffer instead of updating it in place, as many modules do, and computes with it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(()))
        self.seen = []

    def forward(self, x):
        self.calls = self.calls + 1
        self.seen.append(self.calls.item())
        return x * self.weight * self.calls


@pytest.mark.parametrize("form", ["closure", "context"])
def test_a_buffer_that_is_replaced_counts_once_and_is_the_same_in_both_passes(form):
    model = Reassigning()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.5)
    for i in range(2):
        sam_step(opt, model, data(i), form)
    assert model.seen == [1.0, 1.0, 2.0, 2.0]
    assert model.calls == 2


class Recorder(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(1, 64), nn.Dropout(0.5)
        self.masks = []

    def forward(self, x):
        self.masks.append(self.dropout(torch.ones(64)) > 0)
        return (self.linear(x) * self.masks[-1]).sum()


@pytest.mark.parametrize("form", ["closure", "context"])
def test_the_dropout_mask_is_shared_by_both_passes_and_new_in_each_step(form):
    model = Recorder()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.5)
    x = torch.ones(1, 1)

    def closure():
        opt.zero_grad()
        loss = model(x)
        loss.backward()
        return loss

    for _ in range(2):
        if form == "closure":
            opt.step(closure)
        else:
            closure()
            with opt.perturbed():
                model(x).backward()
            opt.step()
    first, second, third, fourth = model.masks
    assert torch.equal(first, second)
    assert torch.equal(third, fourth)
    assert not torch.equal(first, third)


def test_masks_are_shared_whoever_clears_the_gradients():
    model = Recorder()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.5)
    x = torch.ones(1, 1)
    for _ in range(3):  # warm up with the base optimizer
        model.zero_grad()
        model(x).backward()
        opt.base.step()
    model.masks.clear()
    model.zero_grad()
    model(x).backward()
    with opt.perturbed():
        model(x).backward()
    opt.step()
    model(x)  # somebody looks at the loss in between
    model.masks.clear()

    def closure():
        model.zero_grad()
        loss = model(x)
        loss.backward()
        return loss

    opt.step(closure)
    assert torch.equal(*model.masks)


def test_each_of_several_forward_passes_sees_its_own_mask_again():
    model = Recorder()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.5)
    x = torch.ones(1, 1)
    for _ in range(2):
        model(x).backward()
    with opt.perturbed():
        for _ in range(2):
            model(x).backward()
    a, b, c, d = model.masks
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert not torch.equal(a, b)


def test_random_numbers_in_the_closure_are_shared():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.5)
    noise = []

    def closure():
        opt.zero_grad()
        noise.append(torch.randn(16, 1))
        loss = squared(model, data()[0] + noise[-1], data()[1])
        loss.backward()
        return loss

    opt.step(closure)
    opt.step(closure)
    assert torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[1], noise[2])


# Clipping and accumulation


def test_clipping_acts_on_the_final_gradient_only():
    free, clipped = build(), build()
    opt = hs.SAM(free, SGD(free.parameters()), rho=0.5)
    opt_clipped = hs.SAM(clipped, SGD(clipped.parameters()), rho=0.5, max_norm=1e-3)
    sam_step(opt, free, data(), "closure")
    sam_step(opt_clipped, clipped, data(), "closure")
    full, small = gradients(free), gradients(clipped)
    norm = torch.cat([g.flatten() for g in full.values()]).norm()
    # the same direction: the ascent had its full radius; clip_grad_norm_ adds 1e-6 to the norm
    for n in full:
        torch.testing.assert_close(small[n], full[n] * 1e-3 / norm, rtol=1e-5, atol=0)


def test_gradients_below_the_bound_are_not_clipped():
    free, clipped = build(), build()
    for model, bound in ((free, None), (clipped, 1e6)):
        opt = hs.SAM(model, SGD(model.parameters()), rho=0.5, max_norm=bound)
        sam_step(opt, model, data(), "closure")
    same(values(free), values(clipped))


@pytest.mark.parametrize("form", ["closure", "context"])
def test_two_halves_equal_one_batch(form):
    whole, halves = build().double(), build().double()
    x, y = (v.double() for v in data())
    opt = hs.SAM(whole, SGD(whole.parameters()), rho=0.5)
    opt_halves = hs.SAM(halves, SGD(halves.parameters()), rho=0.5)

    def accumulate():
        for part in (slice(0, 8), slice(8, 16)):
            (squared(halves, x[part], y[part]) / 2).backward()

    def closure():
        opt_halves.zero_grad()
        accumulate()
        return torch.zeros(())

    for _ in range(3):
        sam_step(opt, whole, (x, y), "closure")
        if form == "closure":
            opt_halves.step(closure)
        else:
            closure()
            with opt_halves.perturbed():
                accumulate()
            opt_halves.step()
    for n, v in values(whole).items():
        torch.testing.assert_close(values(halves)[n], v, rtol=1e-12, atol=1e-12)


# State


def checkpointed(*states):
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("base", [ADAM, SGD], ids=["adam", "sgd"])
def test_resume_is_exact(base):
    def fresh(rho):
        model = build(stochastic=True)
        return model, hs.SAM(model, base(hs.param_groups(model, 1e-2, 1e-1)), rho=rho, max_norm=1.0)

    model, opt = fresh(0.2)
    torch.manual_seed(1)
    for i in range(3):
        sam_step(opt, model, data(i), "closure")
    saved = checkpointed(model.state_dict(), opt.state_dict(), torch.get_rng_state())
    for i in range(3, 6):
        sam_step(opt, model, data(i), "closure")

    resumed, opt_resumed = fresh(0.9)
    resumed.load_state_dict(saved[0])
    opt_resumed.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    assert opt_resumed.rho == 0.2
    for i in range(3, 6):
        sam_step(opt_resumed, resumed, data(i), "closure")
    same(values(model), values(resumed))


def test_state_dict_holds_the_bases_moments_and_sams_settings():
    model = build()
    opt = hs.SAM(model, ADAM(model.parameters()), rho=0.2, adaptive=True)
    sam_step(opt, model, data(), "closure")
    state = opt.state_dict()
    assert state["sam"] == {
        "rho": 0.2,
        "adaptive": True,
        "theta_grad": "perturbed",
        "max_norm": None,
    }
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert len(state["state"]) == len(list(model.parameters()))


def test_loading_into_the_base_keeps_the_wrapper_in_step():
    model = build()
    opt = hs.SAM(model, ADAM(model.parameters()), rho=0.2)
    sam_step(opt, model, data(), "closure")
    before = copy.deepcopy(opt.state_dict())
    sam_step(opt, model, data(1), "closure")
    opt.base.load_state_dict(before)
    assert opt.param_groups is opt.base.param_groups
    assert opt.state is opt.base.state
    assert all(s["step"] == 1 for s in opt.state.values())
    opt.param_groups[0]["lr"] = 0.0
    weights = values(model)
    sam_step(opt, model, data(), "closure")
    same(values(model), weights)


def test_another_optimizers_state_is_refused():
    model = build()
    opt = hs.SAM(model, ADAM(model.parameters()))
    with pytest.raises(ValueError, match=r"not SAM's .* load it into the base optimizer"):
        opt.load_state_dict(opt.base.state_dict())


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=6),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    ],
    ids=["step", "cosine", "onecycle", "lambda"],
)
def test_learning_rate_schedulers_work(schedule):
    plain, model = build(), build()
    optimizer = SGD(plain.parameters())
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.0)
    schedulers = [schedule(optimizer), schedule(opt)]
    for i in range(5):
        closure_of(optimizer, plain, data(i))()
        optimizer.step()
        sam_step(opt, model, data(i), "closure")
        for scheduler in schedulers:
            scheduler.step()
        assert opt.base.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    same(values(plain), values(model))


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_clears_all_gradients(set_to_none):
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()))
    squared(model, *data()).backward()
    opt.zero_grad(set_to_none)
    for p in model.parameters():
        assert p.grad is None if set_to_none else not p.grad.any()


def test_parameters_can_be_added_later():
    model = build()
    opt = hs.SAM(model, SGD(model.net[0].parameters()), rho=0.1)
    opt.add_param_group({"params": list(model.net[2].parameters()), "lr": 0.5})
    before = values(model)
    sam_step(opt, model, data(), "closure")
    assert len(opt.base.param_groups) == 2
    assert unequal(values(model), before) == {n for n in before if n.startswith("net")}


def test_rho_can_be_changed_between_steps():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.1)
    opt.rho = 0.7
    before = values(model)
    squared(model, *data()).backward()
    with opt.perturbed():
        radius = torch.cat([(values(model)[n] - before[n]).flatten() for n in before]).norm()
    assert radius.item() == pytest.approx(0.7, rel=1e-5)


# Which parameters


def moved_names(model, **options):
    opt = hs.SAM(model, SGD([p for p in model.parameters() if p.requires_grad]), **options)
    before = values(model)
    squared(model, *data()).backward()
    with opt.perturbed():
        return unequal(values(model), before)


def test_perturb_all_moves_theta_too():
    assert "theta.raw.k" in moved_names(build(), perturb="all")
    assert "theta.raw.k" not in moved_names(build(), perturb="phi")


def test_perturb_takes_a_function_of_the_name():
    moved = moved_names(build(), perturb=lambda name: name.endswith("weight"))
    assert moved == {"net.0.weight", "net.2.weight"}


def test_theta_names_of_a_plain_module():
    model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    assert moved_names(model, theta=["0"]) == {"2.weight", "2.bias"}


def test_frozen_parameters_stay():
    model = build()
    model.net[0].requires_grad_(False)
    assert moved_names(model) == {"net.2.weight", "net.2.bias"}


def test_parameters_frozen_later_stay():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.1)
    model.net[0].requires_grad_(False)
    before = values(model)
    sam_step(opt, model, data(), "closure")
    assert unequal(values(model), before) == {"theta.raw.k", "net.2.weight", "net.2.bias"}


def test_theta_grad_clean_takes_thetas_gradient_at_the_undisturbed_phi():
    grads = {}
    for choice in ("perturbed", "clean"):
        model = build()
        opt = hs.SAM(model, SGD(model.parameters()), rho=0.5, theta_grad=choice)
        squared(model, *data()).backward()
        plain = gradients(model)
        with opt.perturbed():
            squared(model, *data()).backward()
        grads[choice] = gradients(model)
    assert unequal(grads["perturbed"], grads["clean"]) == {"theta.raw.k"}
    assert torch.equal(grads["clean"]["theta.raw.k"], plain["theta.raw.k"])


@pytest.mark.parametrize("parametrization", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_weights_work(parametrization):
    model = build()
    parametrization(model.net[0])
    opt = hs.SAM(model, ADAM(model.parameters()), rho=0.05)
    before, weight = values(model), model.net[0].weight.detach().clone()
    squared(model, *data()).backward()
    with opt.perturbed():
        moved = unequal(values(model), before)
        assert not torch.equal(model.net[0].weight, weight)
        squared(model, *data()).backward()
    assert any("parametrizations.weight.original" in n for n in moved)
    opt.step()
    start = squared(model, *data()).item()
    for _ in range(30):
        sam_step(opt, model, data(), "closure")
    assert squared(model, *data()).item() < start


def test_shared_modules_are_perturbed_once():
    torch.manual_seed(0)
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.3)
    before = torch.cat([layer.weight.flatten(), layer.bias]).detach()
    model(torch.randn(5, 2)).square().sum().backward()
    with opt.perturbed():
        after = torch.cat([layer.weight.flatten(), layer.bias]).detach()
    assert (after - before).norm().item() == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_train(dtype):
    model = build().to(dtype)
    batch = tuple(v.to(dtype) for v in data())
    opt = hs.SAM(model, ADAM(model.parameters()), rho=0.05)
    start = squared(model, *batch).item()
    for _ in range(30):
        sam_step(opt, model, batch, "closure")
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert squared(model, *batch).item() < 0.8 * start


def test_bfloat16_autocast_works():
    model = build()
    opt = hs.SAM(model, ADAM(model.parameters()), rho=0.05)

    def closure():
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(data()[0])
        loss = ((out.float() - data()[1]) ** 2).mean()
        loss.backward()
        return loss

    first = opt.step(closure)
    for _ in range(30):
        last = opt.step(closure)
    assert last < 0.8 * first


def test_bases_built_from_named_parameters_work():
    model = build()
    opt = hs.SAM(model, torch.optim.SGD(model.named_parameters(), lr=0.1), rho=0.1)
    before = values(model)
    sam_step(opt, model, data(), "closure")
    assert unequal(values(model), before) == set(before)


# The model around it


def test_a_deep_copied_model_is_inert():
    model = Recorder()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.5)
    x = torch.ones(1, 1)
    model(x).backward()
    twin = copy.deepcopy(model)
    twin.masks.clear()
    with opt.perturbed():
        model(x).backward()
        before = torch.get_rng_state()
        twin(x)
        assert not torch.equal(torch.get_rng_state(), before)  # it draws its own numbers
        twin(x)
    assert not torch.equal(*twin.masks)
    assert not torch.equal(twin.masks[0], model.masks[0])
    hook = next(iter(twin._forward_pre_hooks.values()))
    assert not hook.__dict__.get("states")


def test_a_wrapped_model_can_be_saved_whole():
    model = build(stochastic=True)
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.5)
    sam_step(opt, model, data(), "closure")
    squared(model, *data())  # leaves a noted random state behind
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    same(values(loaded), values(model))
    opt = hs.SAM(loaded, SGD(loaded.parameters()), rho=0.5)
    sam_step(opt, loaded, data(), "closure")
    assert unequal(values(loaded), values(model))


def test_random_states_are_not_collected_for_ever():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()), rho=0.5)
    for i in range(5):
        squared(model, *data(i)).backward()
        opt.base.step()
        model.zero_grad()
    assert len(opt._replay.states) == 0
    for i in range(5):
        sam_step(opt, model, data(i), "context")
    assert len(opt._replay.states) == 0


def test_a_discarded_wrapper_leaves_no_hook_behind():
    model = build()
    for _ in range(3):
        opt = hs.SAM(model, SGD(model.parameters()))
    gc.collect()
    assert len(model._forward_pre_hooks) == 1
    with pytest.raises(ValueError, match="nothing to perturb"):
        hs.SAM(model, SGD(model.parameters()), perturb=lambda name: False)
    del opt
    gc.collect()
    assert len(model._forward_pre_hooks) == 0


# Errors


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (lambda m: torch.optim.SGD, "wraps an optimizer instance, got SGD; use hs.SAM"),
        (lambda m: hs.SAM, "wraps an optimizer instance, got SAM"),
        (lambda m: m, "wraps an optimizer instance, got Hybrid"),
        (lambda m: torch.optim.LBFGS(m.parameters()), "cannot wrap LBFGS, which evaluates the loss"),
        (lambda m: hs.SAM(m, SGD(m.parameters())), "cannot wrap SAM, which evaluates the loss"),
    ],
)
def test_bases_that_cannot_be_wrapped(base, message):
    model = build()
    with pytest.raises(TypeError, match=message):
        hs.SAM(model, base(model))


def test_parameters_instead_of_the_model():
    model = build()
    with pytest.raises(TypeError, match="SAM needs the model itself, got generator"):
        hs.SAM(model.parameters(), SGD(model.parameters()))


def test_foreign_parameters_are_refused():
    with pytest.raises(ValueError, match=r"not the model's, of shapes \[\(3, 2\), \(3,\)\]"):
        hs.SAM(build(), SGD(nn.Linear(2, 3).parameters()))


def test_nothing_to_perturb_is_refused():
    model = build()
    with pytest.raises(ValueError, match=r"nothing to perturb: .* matches perturb='phi'"):
        hs.SAM(model, SGD(model.theta.parameters()))


@pytest.mark.parametrize("rho", [-0.1, math.nan, math.inf, "0.1", None])
def test_bad_rho(rho):
    model = build()
    with pytest.raises(ValueError, match="rho must be a finite number >= 0, got"):
        hs.SAM(model, SGD(model.parameters()), rho=rho)
    opt = hs.SAM(model, SGD(model.parameters()))
    with pytest.raises(ValueError, match="rho must be a finite number >= 0, got"):
        opt.rho = rho
    assert opt.rho == 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturb": "theta"}, "perturb must be 'phi', 'all' or a function .*, got 'theta'"),
        ({"theta_grad": "both"}, "theta_grad must be 'perturbed' or 'clean', got 'both'"),
        ({"theta_grad": "clean", "perturb": "all"}, "contradicts perturb='all'"),
        ({"max_norm": -1.0}, "max_norm must be a positive number or None, got -1.0"),
        ({"max_norm": 0.0}, "max_norm must be a positive number or None, got 0.0"),
        ({"theta": ["nope"]}, "theta='nope' names no parameter"),
    ],
)
def test_bad_options(options, message):
    model = build()
    with pytest.raises(ValueError, match=message):
        hs.SAM(model, SGD(model.parameters()), **options)


def test_a_step_without_a_second_pass_is_refused():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()))
    squared(model, *data()).backward()
    with pytest.raises(RuntimeError, match="needs two passes: pass a closure, or run the second one"):
        opt.step()
    sam_step(opt, model, data(), "context")
    with pytest.raises(RuntimeError, match="needs two passes"):
        opt.step()


def test_a_second_pass_before_zero_grad_does_not_count():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()))
    squared(model, *data()).backward()
    with opt.perturbed():
        squared(model, *data()).backward()
    opt.zero_grad()
    squared(model, *data()).backward()
    with pytest.raises(RuntimeError, match="needs two passes"):
        opt.step()


def test_two_second_passes_in_one_step_are_refused():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()))
    squared(model, *data()).backward()
    with opt.perturbed():
        squared(model, *data()).backward()
    with pytest.raises(RuntimeError, match=r"run already; .* To accumulate gradients"), opt.perturbed():
        pass


def test_nesting_is_refused_and_phi_restored():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()))
    before = values(model)
    squared(model, *data()).backward()
    with pytest.raises(RuntimeError, match="cannot be nested"), opt.perturbed(), opt.perturbed():
        pass
    same(values(model), before)


def test_perturbed_without_a_first_backward_pass_is_refused():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()))
    with pytest.raises(RuntimeError, match=r"call loss.backward\(\) before it"), opt.perturbed():
        pass


def test_a_closure_that_forgets_backward_is_refused():
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()))
    with pytest.raises(RuntimeError, match=r"call loss.backward\(\) before it"):
        opt.step(lambda: squared(model, *data()))


@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler_is_refused(unscale):
    model = build()
    opt = hs.SAM(model, SGD(model.parameters()))
    before = values(model)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(squared(model, *data())).backward()
    if unscale:
        scaler.unscale_(opt)
    with pytest.raises(RuntimeError, match="SAM does not work with GradScaler"):
        scaler.step(opt)
    same(values(model), before)
