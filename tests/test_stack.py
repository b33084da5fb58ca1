"""A stack: vmapped equals looped, members are independent, and one member equals the wrapper."""

import functools
import math

import pytest
import torch
from torch import nn

import hybridsam_lite as hs
from hybridsam_lite import stack as stacks
from hybridsam_lite.checks import check_entrywise
from hybridsam_lite.stack import Stack
from hybridsam_lite.train import _Batches, _mix

METHODS = (
    ["erm"],
    ["wd:lam=0.01", "wd:lam=1"],
    ["fn:mu=0.1", "fn:mu=1"],
    ["sam:rho=0.05", "sam:rho=0.5"],
    ["asam:rho=0.5", "asam:rho=2"],
    ["sam:rho=0.1,theta_grad=clean"],
    ["sam:rho=0.1,perturb=all"],
    ["sam:rho=0.1,every=3", "sam:rho=0.5,every=3"],
    ["sam:rho=0.1,part=0.5,schedule=cosine"],
    ["usam:rho=0.1", "usam:rho=0.3"],
    ["fisher:rho=0.1", "fisher:rho=0.3,damping=0.1"],
    ["groupsam:rho=0.1", "groupsam:rho=0.3,rho_theta=0.1"],
    ["groupsam:rho=0.1,norm=per_group", "groupsam:rho=0.3,rho_theta=0.1,norm=per_group"],
    ["funcsam:rho=0.1", "funcsam:rho=0.5"],
    ["msam:rho=0.1", "msam:rho=0.3,beta=0.5"],
    ["noise:rho=0.1", "noise:rho=0.5"],
    ["noise:rho=0.1,sides=1"],
    ["aphynity:lam=1", "aphynity:lam=3,tau=0.1"],
    ["orth:mu=0.1", "orth:mu=1"],
    ["pho:mu=0.1", "pho:mu=1"],
    ["twostage"],
    ["swa:start=0.5"],
    ["early:patience=2"],
    ["erm:steps=1.5"],
    ["gnorm:mu=0.1", "gnorm:mu=1"],
    ["jac:mu=0.1", "jac:mu=1"],
    ["dropout:p=0.1", "dropout:p=0.5"],
)


class Line(hs.HybridModel):
    def __init__(self, *layers):
        super().__init__()
        self.theta = hs.Theta(slope=hs.Real(init=(0.0, 1.0)))
        self.net = nn.Sequential(*layers) if layers else hs.mlp(1, [8], 1, last_scale=1.0)

    def forward(self, x):
        network, physics = self.net(x), self.theta.slope * x
        return hs.Prediction(physics + network, network, physics)


def noisy():
    """Batch statistics and random masks: all that a training pass may change or draw."""
    # No bias before the batch norm: its gradient is zero but for rounding, which Adam would blow up.
    hidden = nn.Linear(1, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3)
    return Line(*hidden, nn.Linear(8, 8), nn.Dropout(0.3), nn.Linear(8, 1))


def line(samples=24):
    x = torch.linspace(-1, 1, samples, dtype=torch.float64)[:, None]
    return x, 2 * x + torch.sin(5 * x)


def train(model=Line, methods=("erm",), seeds=range(2), data=None, **options):
    settings = {"steps": 20, "batch_size": 8, "lr": 1e-2, "theta_lr": 2e-2, "progress": False}
    data = line() if data is None else data
    return hs.fit(model, data, data, methods=methods, seeds=seeds, **{**settings, **options})


def assert_same(first, second, tolerance=0.0):
    assert first.keys() == second.keys()
    for name, x in first.items():
        torch.testing.assert_close(x, second[name], rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("methods", METHODS, ids=lambda m: m[0])
@pytest.mark.parametrize("model", [Line, noisy])
def test_vmapped_equals_looped(model, methods):
    # Plain SGD: Adam divides by |g| and would blow up differences in the last bit of a small g. Double
    # precision: batch statistics of 8 samples and difference quotients multiply rounding by thousands.
    options = {"methods": methods, "seeds": range(3), "optimizer": torch.optim.SGD, "dtype": torch.float64}
    vmapped, looped = (train(model, vectorize=v, **options) for v in (True, False))
    for a, b in zip(vmapped.members, looped.members, strict=True):
        assert_same(a.state, b.state, 1e-10)
        assert a.val_loss == pytest.approx(b.val_loss, abs=1e-10)


@pytest.mark.parametrize(
    ("label", "settings"),
    [
        ("erm", {"rho": 0.0}),
        ("sam:rho=0.05", {"rho": 0.05}),
        ("sam:rho=0.5", {"rho": 0.5}),
        ("asam:rho=1", {"rho": 1.0, "adaptive": True}),
        ("sam:rho=0.3,theta_grad=clean", {"rho": 0.3, "theta_grad": "clean"}),
        ("sam:rho=0.3,perturb=all", {"rho": 0.3, "perturb": "all"}),
    ],
)
@pytest.mark.parametrize("model", [Line, noisy])
def test_a_member_equals_the_wrapper_in_an_ordinary_loop(model, label, settings):
    steps, seed, rates = 30, 3, {"lr": 1e-2, "theta_lr": 2e-2}
    runs = train(model, [label], [seed, 5], steps=steps, max_norm=0.2, dtype=torch.float64, **rates)

    torch.manual_seed(seed)
    net = model().double()
    base = torch.optim.Adam(hs.param_groups(net, **rates))
    opt = hs.SAM(net, base, max_norm=0.2, **settings)
    full = [g["lr"] for g in base.param_groups]
    x, y = line()
    batches = _Batches(len(x), 8, [seed], x.device)

    def closure(at):
        opt.zero_grad()
        loss = ((net(x[at]).value - y[at]) ** 2).mean()
        loss.backward()
        return loss

    for step in range(steps):
        torch.manual_seed(_mix(0, step))
        for group, lr in zip(base.param_groups, full, strict=True):
            group["lr"] = lr * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        opt.step(functools.partial(closure, batches.at(step)[0]))
    # The same arithmetic in another order: 30 steps of rounding in double precision.
    assert_same(runs.members[0].state, net.state_dict(), 1e-10)


@pytest.mark.parametrize("model", [Line, noisy])
@pytest.mark.parametrize("vectorize", [True, False])
def test_every_method_at_zero_is_erm_bit_for_bit(model, vectorize):
    labels = ["erm", "sam:rho=0", "asam:rho=0", "wd:lam=0", "fn:mu=0", "sam:rho=0,perturb=all", "orth:mu=0"]
    labels += ["sam:rho=0,every=2", "usam:rho=0", "fisher:rho=0", "groupsam:rho=0", "funcsam:rho=0", "msam:rho=0"]
    labels += [
        "groupsam:rho=0,norm=per_group",
        "noise:rho=0",
        "noise:rho=0,sides=1",
        "gnorm:mu=0",
        "jac:mu=0",
        "dropout:p=0",
    ]
    runs = train(model, labels, [4], vectorize=vectorize)
    for other in runs.members[1:]:
        assert_same(runs.members[0].state, other.state)


@pytest.mark.parametrize("model", [Line, noisy])
def test_results_do_not_depend_on_who_else_is_in_the_call(model):
    # Batched matrix products may sum in another order for another number of members: rounding only.
    many = train(model, ["wd", "sam:rho=0.1", "erm", "sam:rho=0.4"], range(5), dtype=torch.float64)
    for label in ("erm", "sam:rho=0.4"):
        alone = train(model, [label], [3], dtype=torch.float64)
        k = many.frame.query("label == @label and seed == 3").index[0]
        assert_same(alone.members[0].state, many.members[k].state, 1e-10)


def test_looped_results_do_not_depend_on_who_else_is_in_the_call_bit_for_bit():
    many = train(noisy, ["sam:rho=0.1", "erm", "sam:rho=0.4"], range(3), vectorize=False)
    alone = train(noisy, ["sam:rho=0.4"], [2], vectorize=False)
    assert_same(alone.members[0].state, many.members[8].state)


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_member_that_diverges_leaves_the_others_bitwise_unchanged(vectorize):
    options = {"seeds": range(2), "vectorize": vectorize}
    calm = train(noisy, ["sam:rho=0.1", "sam:rho=0.2"], **options)
    with pytest.warns(RuntimeWarning, match=r"2 of 4 members diverged.*sam:rho=1e\+30 seed 0"):
        wild = train(noisy, ["sam:rho=0.1", "sam:rho=1e30"], **options)
    assert list(wild.frame.status) == ["ok", "ok", "diverged", "diverged"]
    assert list(wild.frame.steps) == [20, 20, 0, 0]
    for k in (0, 1):
        assert_same(calm.members[k].state, wild.members[k].state)
    columns = ["step", "train_loss", "val_loss", "theta.slope"]
    before, after = (r.history.query("member < 2")[columns] for r in (calm, wild))
    assert before.equals(after)


@pytest.mark.parametrize("wild", ["aphynity:lam=1e38,tau=1e38", "msam:rho=1e30"])
def test_what_a_diverged_member_remembers_is_frozen_and_the_others_go_on(wild):
    name = wild.partition(":")[0]
    calm = train(noisy, [name], range(2), max_norm=None)
    with pytest.warns(RuntimeWarning, match="2 of 4 members diverged"):
        both = train(noisy, [name, wild], range(2), max_norm=None)
    for k in (0, 1):
        torch.testing.assert_close(calm.members[k].val_loss, both.members[k].val_loss)
    assert all(torch.isfinite(x).all() for m in both.members for x in m.state.values())


def test_an_average_is_returned_by_members_that_trained_to_the_end_only():
    def fragile():
        model = Line()
        if torch.initial_seed() == 1:
            nn.init.constant_(model.net[-1].weight, 1e30)
        return model

    with pytest.warns(RuntimeWarning, match="1 of 2 members diverged"):
        runs = train(fragile, ["swa"], range(2))
    torch.manual_seed(1)
    assert_same(fragile().state_dict(), runs.members[1].state)
    assert_same(train(fragile, ["swa"], [0]).members[0].state, runs.members[0].state, 1e-6)


def test_a_member_that_diverges_at_its_start_keeps_its_initial_state():
    def fragile():
        model = noisy()
        if torch.initial_seed() == 1:
            nn.init.constant_(model.net[-1].weight, 1e30)
        return model

    calm = train(noisy, seeds=range(3))
    with pytest.warns(RuntimeWarning, match="1 of 3 members diverged"):
        wild = train(fragile, seeds=range(3))
    assert list(wild.frame.status) == ["ok", "diverged", "ok"]
    torch.manual_seed(1)
    assert_same(fragile().state_dict(), wild.members[1].state)
    for k in (0, 2):
        assert_same(calm.members[k].state, wild.members[k].state)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_diverged_member_is_frozen_at_its_last_finite_state(optimizer):
    def cubic():
        model = Line()
        model.register_forward_hook(lambda _, __, out: out._replace(value=out.value**9))
        return model

    rate = {"lr": 30.0, "theta_lr": 30.0, "lr_end": 1.0, "max_norm": None, "optimizer": optimizer}
    with pytest.warns(RuntimeWarning, match="diverged"):
        runs = train(cubic, seeds=[0], steps=400, **rate)
    last = runs.members[0].steps
    assert 0 < last < 400
    assert all(torch.isfinite(x).all() for x in runs.members[0].state.values())
    shorter = train(cubic, seeds=[0], steps=last, **rate)
    assert shorter.frame.status[0] == "ok"
    assert_same(shorter.members[0].state, runs.members[0].state)


class Explosive(hs.HybridModel):
    """y' = k y^2 from y(0) = 1 leaves the numbers at t = 1/k; seeds in `fatal` start with a large k."""

    def __init__(self, fatal=(), method="rk4", **options):
        super().__init__()
        self.theta = hs.Theta(k=hs.Positive(init=0.5))
        self.net = hs.mlp(1, [4], 1)
        self.method, self.options = method, options
        if torch.initial_seed() in fatal:
            self.theta.set(k=1e6)

    def forward(self, y0):
        t = torch.linspace(0, 1, 11, dtype=y0.dtype)
        rhs = lambda t, y: self.theta.k * y**2 + self.net(y)  # noqa: E731
        return hs.odeint(rhs, y0, t, method=self.method, **self.options)


def explosive_data(samples=6):
    y0 = torch.linspace(0.5, 1, samples)[:, None]
    return y0, torch.linspace(0, 1, 11)[None, :, None] + y0[:, None]


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("fatal", [0, 1])
def test_a_solver_that_blows_up_marks_its_member_only(vectorize, fatal):
    options = {"data": explosive_data(), "steps": 4, "vectorize": vectorize}
    with pytest.warns(RuntimeWarning, match="1 of 2 members diverged"):
        runs = train(lambda: Explosive([fatal]), **options)
    assert runs.frame.status[fatal] == "diverged"
    assert not math.isfinite(runs.frame.val_loss[fatal])
    calm = train(Explosive, **options)
    assert_same(calm.members[1 - fatal].state, runs.members[1 - fatal].state)


def test_a_solver_that_blows_up_for_every_seed_is_an_error():
    with pytest.raises(hs.SolverError, match="blows up"):
        train(lambda: Explosive([0, 1]), data=explosive_data())


def test_adaptive_solvers_run_in_a_loop_and_say_so_otherwise():
    def tight():
        return Explosive(method="dopri5", rtol=1e-9, atol=1e-9)

    options = {"data": explosive_data(), "dtype": torch.float64, "steps": 5}
    with pytest.raises(ValueError, match="vectorize=False"):
        train(tight, **options)
    adaptive = train(tight, ["sam:rho=0.1"], vectorize=False, **options)
    classic = train(Explosive, ["sam:rho=0.1"], **options)
    for a, b in zip(adaptive.members, classic.members, strict=True):
        assert_same(a.state, b.state, 1e-4)  # RK4 with h = 0.1 is off by about 1e-5


class OnData(Line):
    def forward(self, x):
        sign = 1.0 if self.net[0].weight.sum() > 0 else -1.0
        return self.theta.slope * x + sign * self.net(x)


def test_control_flow_on_data_is_refused_with_a_way_out():
    with pytest.raises(RuntimeError, match=r"cannot run OnData.*pass vectorize=False.*vmap"):
        train(OnData)
    assert set(train(OnData, vectorize=False).frame.status) == {"ok"}


def spectral():
    return Line(nn.utils.parametrizations.spectral_norm(nn.Linear(1, 4)), nn.Linear(4, 1))


def test_a_layer_that_vmap_does_not_know_is_refused_with_a_way_out():
    with pytest.raises(RuntimeError, match="pass vectorize=False"):
        train(spectral)
    assert set(train(spectral, ["sam:rho=0.1"], vectorize=False).frame.status) == {"ok"}


def test_other_runtime_errors_are_passed_on():
    def broken(prediction, target):
        if torch.is_grad_enabled():
            raise RuntimeError("from the loss")
        return (prediction - target).square().mean()

    with pytest.raises(RuntimeError, match=r"^from the loss$"):
        train(loss=broken)


class Convolution(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 3, 3, padding=1, bias=False), nn.BatchNorm1d(3), nn.Tanh())
        self.out = nn.Conv1d(3, 1, 1)

    def forward(self, x):
        return self.out(self.net(x[:, None]))[:, 0]


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def parametrized():
    layer = nn.utils.parametrize.register_parametrization(nn.Linear(3, 3), "weight", Halved())
    return Line(layer)


def frozen():
    model = Line(nn.Linear(3, 4), nn.Linear(4, 3))
    model.net[0].requires_grad_(False)
    return model


def tied():
    """One layer used twice, and another layer with the same weight."""
    layer, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = layer.weight
    return Line(layer, nn.Tanh(), layer, other)


@pytest.mark.parametrize(
    "model",
    [Convolution, parametrized, frozen, tied],
    ids=["convolution", "parametrized", "frozen", "tied"],
)
def test_layers_of_many_kinds(model):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    options = {"data": (x, x.cumsum(1)), "dtype": torch.float64, "steps": 6}
    vmapped = train(model, ["sam:rho=0.1"], **options)
    looped = train(model, ["sam:rho=0.1"], vectorize=False, **options)
    torch.manual_seed(0)
    start = model().double()
    for a, b in zip(vmapped.members, looped.members, strict=True):
        assert_same(a.state, b.state, 1e-10)
    for name, p in start.named_parameters():
        assert torch.equal(p, vmapped.members[0].state[name]) == (not p.requires_grad), name
    trained = vmapped.model(0)
    with torch.no_grad():
        got = hs.hybrid.as_prediction(trained(x)).value
    loss = float(((got - x.cumsum(1)) ** 2).mean())
    assert loss == pytest.approx(vmapped.frame.val_loss[0], rel=1e-12)


class Recurrent(hs.HybridModel):
    def __init__(self, cell=nn.GRU):
        super().__init__()
        self.theta = hs.Theta(slope=hs.Real(init=(0.0, 1.0)))
        self.rnn, self.out = cell(1, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.theta.slope * x + self.out(self.rnn(x[:, :, None])[0])[..., 0]


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM])
def test_recurrent_layers(cell):
    x = torch.linspace(-1, 1, 36, dtype=torch.float64).view(12, 3)
    data, options = hs.Data(x, x.cumsum(1)), {"dtype": torch.float64, "progress": False}
    options |= {"methods": ["sam:rho=0.1"], "seeds": range(2), "steps": 6, "batch_size": 4}
    vmapped = hs.fit(lambda: Recurrent(cell), data, **options)
    looped = hs.fit(lambda: Recurrent(cell), data, data, vectorize=False, **options)
    for a, b in zip(vmapped.members, looped.members, strict=True):
        assert_same(a.state, b.state, 1e-10)
    # torch can vmap their gradient, but not their plain forward pass (2.13).
    with pytest.raises(RuntimeError, match=r"cannot run Recurrent .*pass vectorize=False"):
        hs.fit(lambda: Recurrent(cell), data, data, **options)


def test_tied_weights_stay_tied_and_follow_an_ordinary_loop():
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).view(3, 3)
    options = {"lr": 0.1, "optimizer": torch.optim.SGD, "lr_end": 1.0, "batch_size": 3}
    runs = train(tied, seeds=[0], data=(x, x), dtype=torch.float64, steps=5, theta_lr=0.1, **options)
    torch.manual_seed(0)
    model = tied().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        ((model(x).value - x) ** 2).mean().backward()
        optimizer.step()
    trained = runs.model(0)
    assert trained.net[0] is trained.net[2]
    assert trained.net[0].weight is trained.net[3].weight
    assert_same(trained.state_dict(), model.state_dict(), 1e-12)


class Counting(Line):
    """Counts its calls, by assignment and in place, in buffers that a state dict has and has not."""

    def __init__(self):
        super().__init__()
        self.register_buffer("assigned", torch.zeros(()))
        self.register_buffer("added", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x):
        self.assigned = self.assigned + 1
        self.added += 1
        return super().forward(x)


@pytest.mark.parametrize("method", ["erm", "sam:rho=0.1"])
@pytest.mark.parametrize("vectorize", [True, False])
def test_buffers_are_updated_once_a_step(method, vectorize):
    model = train(Counting, [method], vectorize=vectorize).model(1)
    assert (model.assigned.item(), model.added.item()) == (20, 20)


def test_batch_statistics_are_those_of_the_clean_pass():
    x, _ = line()
    runs = train(noisy, ["sam:rho=5"], [0], steps=1, batch_size=24, dtype=torch.float64)
    torch.manual_seed(0)
    model = noisy().double()
    model(x)
    for name in ("net.1.running_mean", "net.1.running_var", "net.1.num_batches_tracked"):
        torch.testing.assert_close(runs.members[0].state[name], model.state_dict()[name])


def test_the_radius_keeps_double_precision():
    # rho = 0.1 is not a float32: rounding it would show at 1e-9 of the step.
    def stack(model):
        return Stack(
            [model], [hs.SharpnessAware(0.1)], optimizer=torch.optim.SGD, lr=1.0, theta_lr=1.0,
            max_norm=None, loss=nn.functional.mse_loss, sample_axis=0, vectorize=True,
        )  # fmt: skip

    assert stack(Line().double()).hyper["rho"].item() == 0.1
    assert stack(Line().bfloat16()).hyper["rho"].dtype == torch.float32


def test_validation_in_chunks_is_the_mean_over_all_samples(monkeypatch):
    monkeypatch.setattr(stacks, "EVALUATION_CHUNK", 7)
    data = line(24)
    runs = train(noisy, data=data, dtype=torch.float64, steps=3)
    for i in range(2):
        with torch.no_grad():
            loss = ((runs.model(i)(data[0]).value - data[1]) ** 2).mean()
        assert runs.frame.val_loss[i] == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.RMSprop,
        functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    ],
)
def test_optimizers_that_act_entry_by_entry_are_accepted(optimizer):
    check_entrywise(optimizer)


def test_an_optimizer_that_mixes_members_is_refused():
    with pytest.raises(ValueError, match=r"Adafactor does not act entry by entry.*Adam"):
        train(optimizer=torch.optim.Adafactor)


def test_what_makes_no_optimizer_is_refused():
    with pytest.raises(TypeError, match=r"must make a torch\.optim\.Optimizer, got NoneType"):
        train(optimizer=lambda groups: None)
    with pytest.raises(TypeError, match="pass its class"):
        train(optimizer=torch.optim.Adam(nn.Linear(1, 1).parameters()))
