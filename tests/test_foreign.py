"""Models that were not written for this library: a parameter is named as theta, and all works or says why not."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import hybridsam_lite as hs
from hybridsam_lite.hybrid import check_initialized, unwrapped

X = torch.linspace(-1, 1, 12)[:, None]
SERIES = torch.randn(6, 1, 8, generator=torch.Generator().manual_seed(0))


class Foreign(nn.Module):
    """k x + net(x), without hs.Theta."""

    def __init__(self, *layers):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(0.7))
        self.net = nn.Sequential(*(layers or hs.mlp(1, [6], 1, last_scale=1.0)))

    def forward(self, x):
        return self.k * x + self.net(x)


class Recurrent(Foreign):
    def __init__(self, cell):
        super().__init__(nn.Linear(3, 1))
        self.cell = cell(1, 3, num_layers=2, batch_first=True)

    def forward(self, x):
        x = x.transpose(1, 2)
        return (self.k * x + self.net(self.cell(x)[0])).transpose(1, 2)


class Frequencies(Foreign):
    """Complex weights."""

    def __init__(self):
        super().__init__(nn.Identity())
        self.w = nn.Parameter(torch.randn(1, 4, dtype=torch.complex64))
        self.v = nn.Parameter(torch.randn(4, 1, dtype=torch.complex64))

    def forward(self, x):
        return self.k * x + (torch.tanh(x * self.w) @ self.v).real


class Square(nn.Module):
    def forward(self, raw):
        return raw**2

    def right_inverse(self, value):
        return value.sqrt()


def convolution():
    return Foreign(nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Tanh(), nn.Conv1d(4, 1, 3, padding=1))


def wrapped(norm):
    return lambda: Foreign(norm(nn.Linear(1, 4)), norm(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 1))


def tied():
    """One layer used twice, and another with the same weight."""
    layer, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = layer.weight
    return Foreign(nn.Linear(1, 3), layer, nn.Tanh(), layer, other, nn.Linear(3, 1))


def frozen():
    model = Foreign()
    model.net[0].requires_grad_(False)
    return model


def noisy():
    """Dropout, and buffers that are changed by a forward pass."""
    return Foreign(nn.Linear(1, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.5), nn.Linear(32, 1))


def squared():
    """Its theta is parametrized."""
    model = Foreign()
    parametrize.register_parametrization(model, "k", Square())
    return model


def compiled(model=Foreign):
    return torch.compile(model(), backend="eager")


MODELS = {
    "convolution": (convolution, SERIES),
    "gru": (lambda: Recurrent(nn.GRU), SERIES),
    "lstm": (lambda: Recurrent(nn.LSTM), SERIES),
    "weight norm": (wrapped(parametrizations.weight_norm), X),
    "spectral norm": (wrapped(parametrizations.spectral_norm), X),
    "orthogonal": (lambda: Foreign(nn.Linear(1, 4), parametrizations.orthogonal(nn.Linear(4, 4)), nn.Linear(4, 1)), X),
    "tied": (tied, X),
    "frozen": (frozen, X),
    "dropout": (noisy, X),
    "theta parametrized": (squared, X),
    "compiled": (compiled, X),
    "data parallel": (lambda: nn.DataParallel(Foreign()), X),
}
EVERY = pytest.mark.parametrize("name", MODELS)
COMPLEX = pytest.mark.parametrize("name", [*MODELS, "complex"])
# torch says that it has no fast rule for these under vmap; one leaves the plain warning to the user.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


def build(name, seed=0):
    torch.manual_seed(seed)
    make, x = (Frequencies, X) if name == "complex" else MODELS[name]
    return make(), x, 2 * x + torch.sin(3 * x)


def adam(model):
    return torch.optim.Adam(hs.param_groups(model, lr=1e-2, theta_lr=1e-2, theta=["k"]))


def mse(model, x, y):
    return ((model(x) - y) ** 2).mean()


def closure_of(opt, model, x, y):
    def closure():
        opt.zero_grad()
        loss = mse(model, x, y)
        loss.backward()
        return loss

    return closure


def values(model):
    return {n: x.detach().clone() for n, x in (*model.named_parameters(), *model.named_buffers())}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(x, second[n]) for n, x in first.items())


# SAM on any module


@COMPLEX
def test_sam_disturbs_phi_by_rho_and_leaves_theta_and_frozen_weights(name):
    model, x, y = build(name)
    opt = hs.SAM(model, adam(model), rho=0.1, theta=["k"])
    mse(model, x, y).backward()
    before = values(model)
    with opt.perturbed():
        inside = values(model)
    moved = {n for n, p in model.named_parameters() if not torch.equal(inside[n], before[n])}
    assert moved
    assert not any(n.endswith(".k") or n == "k" or ".k." in n for n in moved)
    assert all(p.requires_grad for n, p in model.named_parameters() if n in moved)
    radius = torch.stack([(inside[n] - before[n]).abs().norm() for n in moved]).norm()
    assert radius.item() == pytest.approx(0.1, rel=1e-3)  # float32, small differences of weights of order 1
    assert same(values(model), before)


@COMPLEX
def test_a_step_with_rho_zero_is_the_base_optimizers_and_updates_buffers_once(name):
    twins = []
    for sharp in (False, True):
        model, x, y = build(name)
        base = adam(model)
        opt = hs.SAM(model, base, rho=0.0, theta=["k"]) if sharp else base
        for step in range(3):
            torch.manual_seed(step)
            opt.step(closure_of(opt, model, x, y))
        twins.append(values(model))
    assert same(*twins)


@COMPLEX
@pytest.mark.parametrize("form", ["closure", "context"])
def test_sam_trains(name, form):
    model, x, y = build(name)
    opt = hs.SAM(model, adam(model), rho=0.02, theta=["k"])
    losses = []
    for _ in range(40):
        closure = closure_of(opt, model, x, y)
        if form == "closure":
            losses.append(opt.step(closure).item())
        else:
            losses.append(closure().item())
            with opt.perturbed():
                mse(model, x, y).backward()
            opt.step()
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])  # means of five: dropout's noise averages out


@pytest.mark.parametrize("target", ["wrapper", "inner", "in place"])
def test_compiled_models_share_masks_and_update_buffers_once(target):
    torch.manual_seed(0)
    model = noisy()
    call = model if target == "in place" else torch.compile(model, backend="aot_eager")
    if target == "in place":
        model.compile(backend="aot_eager")
    trained = call if target == "wrapper" else model
    opt = hs.SAM(trained, adam(trained), rho=0.0, theta=["k"])
    losses = []

    def closure():
        losses.append(closure_of(opt, call, X, X)())
        return losses[-1]

    for _ in range(2):
        opt.step(closure)
    assert losses[0] == losses[1] != losses[2] == losses[3]
    assert model.net[1].num_batches_tracked.item() == 2


def test_each_pass_of_batch_norm_uses_its_own_statistics_and_the_averages_see_the_first():
    model, x, y = build("convolution")
    opt = hs.SAM(model, adam(model), rho=0.5, theta=["k"])
    twin = copy.deepcopy(model)
    twin(x)
    opt.step(closure_of(opt, model, x, y))
    norm, expected = model.net[1], twin.net[1]
    assert torch.equal(norm.running_mean, expected.running_mean)
    assert torch.equal(norm.running_var, expected.running_var)
    assert norm.num_batches_tracked.item() == 1


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_gradients_are_refused(kind):
    class Table(Foreign):
        def __init__(self, **options):
            super().__init__(kind(12, 1, **options))

        def forward(self, kinds):
            return self.k + self.net(kinds[:, None]).reshape(-1, 1)

    index = torch.arange(12)
    model = Table(sparse=True)
    opt = hs.SAM(model, torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1, theta=["k"])
    before = values(model)
    with pytest.raises(TypeError, match=r"a gradient is sparse, expected dense .*sparse=False"):
        opt.step(closure_of(opt, model, index, X))
    assert same(values(model), before)
    for options in ({"sparse": True}, {"max_norm": 1.0}):
        with pytest.raises(ValueError, match=r"diagnose: 'net.0' is an embedding .* without sparse=True and max_norm"):
            hs.diagnose(Table(**options), (index, X), theta=["k"])
        with pytest.raises(ValueError, match=r"fit: 'net.0' is an embedding .* without sparse=True and max_norm"):
            hs.fit(lambda o=options: Table(**o), (index, X), methods=["sam"], seeds=[0], steps=1, progress=False)
    model = Table()
    opt = hs.SAM(model, adam(model), rho=0.1, theta=["k"])
    opt.step(closure_of(opt, model, index, X))
    if kind is nn.Embedding:
        assert hs.diagnose(model, (index, X), theta=["k"], profiles=[]).samples == 12
    else:
        with pytest.raises(RuntimeError, match=r"diagnose: .* no second derivatives.*_embedding_bag_backward"):
            hs.diagnose(model, (index, X), theta=["k"], profiles=[])


# Names


@pytest.mark.parametrize(
    ("make", "given", "found"),
    [
        (compiled, "k", "_orig_mod.k"),
        (compiled, "_orig_mod.k", "_orig_mod.k"),
        (lambda: nn.DataParallel(Foreign()), "k", "module.k"),
        (lambda: nn.DataParallel(compiled()), "k", "module._orig_mod.k"),
        (squared, "k", "parametrizations.k.original"),
        (lambda: Foreign(compiled()), "net.0.k", "net.0._orig_mod.k"),
    ],
)
def test_what_torch_adds_to_a_name_may_be_left_out(make, given, found):
    roles = hs.roles(make(), theta=[given])
    assert [n for n, r in roles.items() if r == "theta"] == [found]


def test_a_name_of_the_models_own_comes_first():
    model = Foreign()
    model.module = Foreign()
    assert {n for n, r in hs.roles(model, theta=["k"]).items() if r == "theta"} == {"k"}


@pytest.mark.parametrize("theta", ["k", 3, None, [3], {"k"}])
@pytest.mark.parametrize("call", ["roles", "param_groups", "SAM", "diagnose"])
def test_theta_is_a_list_of_names(call, theta):
    model = Foreign()
    calls = {
        "roles": lambda: hs.roles(model, theta),
        "param_groups": lambda: hs.param_groups(model, 1e-2, 1e-2, theta),
        "SAM": lambda: hs.SAM(model, torch.optim.SGD(model.parameters(), lr=0.1), theta=theta),
        "diagnose": lambda: hs.diagnose(model, (X, X), theta=theta),
    }
    with pytest.raises(TypeError, match=r"theta is a list of names, got .*; use theta=\["):
        calls[call]()


def test_groups_and_sam_must_agree_on_theta():
    model = Foreign()
    with pytest.raises(ValueError, match=r"groups have 'k' as theta, but it is phi .*the same theta="):
        hs.SAM(model, adam(model))
    own = [{"params": model.net.parameters(), "role": "encoder"}]  # somebody's own word
    hs.SAM(model, torch.optim.SGD(own, lr=0.1), theta=["k"])


@pytest.mark.parametrize("rate", [-1e-3, float("nan"), float("inf")])
def test_learning_rates_of_groups_are_checked(rate):
    with pytest.raises(ValueError, match=r"param_groups: lr must be a finite number >= 0, got"):
        hs.param_groups(Foreign(), rate, 1e-2)
    with pytest.raises(ValueError, match="theta_lr must be"):
        hs.param_groups(Foreign(), 1e-2, rate)


def test_parameters_in_place_of_a_model():
    with pytest.raises(TypeError, match=r"roles belong to a model, .* got generator"):
        hs.param_groups(Foreign().parameters(), 1e-2, 1e-2)


# Parameters that come later


def test_a_parameter_that_the_model_gets_later_is_trained():
    model, x, y = build("frozen")
    opt = hs.SAM(model, torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1, theta=["k"])
    model.net.append(nn.Linear(1, 1))
    added = list(model.net[3].parameters())
    opt.add_param_group({"params": added[:1]})
    opt.base.add_param_group({"params": added[1:]})
    mse(model, x, y).backward()
    before = values(model)
    with opt.perturbed():
        assert all(not torch.equal(p, before[f"net.3.{n}"]) for n, p in model.net[3].named_parameters())
        mse(model, x, y).backward()
    opt.step()
    assert all(not torch.equal(p, before[f"net.3.{n}"]) for n, p in model.net[3].named_parameters())


def test_a_foreign_parameter_is_refused_when_it_is_added():
    model, x, y = build("frozen")
    opt = hs.SAM(model, torch.optim.SGD(model.parameters(), lr=0.1), theta=["k"])
    for group in ({"params": [nn.Parameter(torch.ones(3))]}, {"params": nn.Linear(3, 1, bias=False).parameters()}):
        with pytest.raises(ValueError, match=r"not the model's, of shapes .*3.*; make them parameters of the model"):
            opt.add_param_group(group)
    assert len(opt.param_groups) == len(opt.base.param_groups) == 1
    opt.step(closure_of(opt, model, x, y))  # as if nothing had been


# Copies, and several wrappers


def copied(pair):
    return copy.deepcopy(pair)


def pickled(pair):
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [copied, pickled])
def test_a_copied_pair_goes_on_as_the_original(way):
    model, x, y = build("dropout")
    opt = hs.SAM(model, adam(model), rho=0.1, adaptive=True, theta_grad="clean", max_norm=0.5, theta=["k"])
    opt.step(closure_of(opt, model, x, y))
    twin, other = way((model, opt))
    assert other.model is twin
    assert other.state_dict()["sam"] == opt.state_dict()["sam"]
    start = values(twin)
    for m, o in ((model, opt), (twin, other)):
        torch.manual_seed(1)
        for _ in range(3):
            o.step(closure_of(o, m, x, y))
    assert same(values(model), values(twin))
    assert not same(start, values(twin))


def test_a_copied_wrapper_alone_has_a_model_of_its_own():
    model, x, y = build("frozen")
    opt = hs.SAM(model, adam(model), rho=0.1, theta=["k"])
    twin = copy.deepcopy(opt)
    before = values(model)
    twin.step(closure_of(twin, twin.model, x, y))
    assert same(values(model), before)
    assert not same(values(twin.model), before)


@pytest.mark.parametrize("form", ["closure", "context"])
def test_another_wrapper_on_the_same_model_changes_nothing(form):
    def run(*others):
        model, x, y = build("dropout")
        opt = hs.SAM(model, adam(model), rho=0.1, theta=["k"])
        idle = [hs.SAM(model, adam(model), rho=0.3, theta=["k"]) for _ in others]
        for step in range(4):
            torch.manual_seed(step)
            if form == "closure":
                opt.step(closure_of(opt, model, x, y))
            else:
                model.zero_grad()
                mse(model, x, y).backward()
                with opt.perturbed():
                    mse(model, x, y).backward()
                opt.step()
        assert [len(o._replay.states) for o in idle] == [0 for _ in idle]  # nothing is collected
        return values(model)

    assert same(run(), run("another", "and another"))


def test_wrappers_that_take_turns_see_their_own_masks():
    model, x, y = build("dropout")
    turns = [hs.SAM(model, adam(model), rho=0.0, theta=["k"]) for _ in range(2)]
    for opt in turns * 2:
        model.zero_grad()  # which the wrapper does not notice
        first = mse(model, x, y)
        first.backward()
        with opt.perturbed():
            second = mse(model, x, y)
            second.backward()
        opt.step()
        assert first.item() == second.item()


# The diagnosis, and the trainer


@EVERY
def test_a_diagnosis_of_any_module(name):
    model, x, y = build(name)
    before, state = values(model), torch.get_rng_state()
    report = hs.diagnose(model, (x, y), theta=["k"], steps=3)
    label = "parametrizations.k.original" if name == "theta parametrized" else "k"
    assert [v.label for v in report.verdicts] == [label] == list(report.profiles)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(values(model), before)


def test_a_diagnosis_unwraps_compiled_code_which_has_no_second_derivatives():
    model = torch.compile(Foreign(), backend="aot_eager")
    assert unwrapped(nn.DataParallel(model)) is model._orig_mod
    assert hs.diagnose(model, (X, X), theta=["k"], profiles=[]).model == "Foreign"


@EVERY
def test_the_trainer_takes_any_module(name):
    """Without hs.Theta all of it is phi."""
    _, x, y = build(name)
    options = {"methods": ["sam:rho=0.05"], "seeds": [0, 1], "steps": 2, "progress": False}
    build_one = lambda: build(name)[0]  # noqa: E731
    if name == "data parallel":
        with pytest.raises(TypeError, match=r"pass the model itself \(its \.module\)"):
            hs.fit(build_one, (x, y), **options)
        return
    looped = hs.fit(build_one, (x, y), (x, y), vectorize=False, **options)
    assert looped.frame.status[0] == "ok"
    if name in ("gru", "lstm", "spectral norm"):
        with pytest.raises(RuntimeError, match="pass vectorize=False"):
            hs.fit(build_one, (x, y), (x, y), **options)
    else:
        vmapped = hs.fit(build_one, (x, y), (x, y), **options)
        # Adam divides by small gradients, whose rounding differs: 2 steps of 1e-3.
        assert vmapped.frame.val_loss[0] == pytest.approx(looped.frame.val_loss[0], rel=1e-3)


# What cannot work


def lazy():
    return Foreign(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(1))


def meta():
    return Foreign().to("meta")


@pytest.mark.parametrize(
    ("make", "why"),
    [(lazy, r"'net.0.weight' .*a lazy module.*run the model on some data"), (meta, r"'k' .*on the meta .*to_empty")],
)
def test_parameters_without_values_are_refused(make, why):
    with pytest.raises(ValueError, match=f"SAM: parameter {why}"):
        hs.SAM(make(), torch.optim.SGD(make().parameters(), lr=0.1), theta=["k"])
    with pytest.raises(ValueError, match=f"diagnose: parameter {why}"):
        hs.diagnose(make(), (X, X), theta=["k"])
    check_initialized(Foreign(), "a test")


def test_the_trainer_refuses_parameters_without_values():
    options = {"methods": ["sam"], "seeds": [0], "steps": 1, "progress": False}
    with pytest.raises(ValueError, match=r"fit: parameter 'net\.0\.weight' has no value yet"):
        hs.fit(lazy, (X, X), **options)
    with pytest.raises(NotImplementedError, match=r"meta tensor; no data! .*to_empty"):  # torch says it well
        hs.fit(meta, (X, X), **options)


def test_lazy_modules_work_once_they_have_run():
    model = lazy()
    model(X)
    opt = hs.SAM(model, adam(model), theta=["k"])
    opt.step(closure_of(opt, model, X, X))
    assert hs.diagnose(model, (X, X), theta=["k"], profiles=[]).samples == 12


@pytest.mark.parametrize(("pack", "got"), [(lambda y: (y, y), "tuple"), (lambda y: {"y": y}, "dict")])
def test_outputs_that_are_no_tensor(pack, got):
    class Packed(Foreign):
        def forward(self, x):
            return pack(super().forward(x))

    with pytest.raises(TypeError, match=rf"must return a Tensor or hs\.Prediction, got {got}; return hs\.Prediction"):
        hs.diagnose(Packed(), (X, X), theta=["k"])
    with pytest.raises(TypeError, match=rf"must return a Tensor or hs\.Prediction, got {got}"):
        hs.fit(Packed, (X, X), methods=["erm"], seeds=[0], steps=1, progress=False)
    model = Packed()  # in a loop of one's own that does not matter
    opt = hs.SAM(model, adam(model), theta=["k"])
    model(X)[0 if got == "tuple" else "y"].sum().backward()
    with opt.perturbed():
        model(X)[0 if got == "tuple" else "y"].sum().backward()
    opt.step()


def test_complex_weights_have_no_diagnosis():
    with pytest.raises(ValueError, match="'w' is complex, expected real numbers"):
        hs.diagnose(Frequencies(), (X, X), theta=["k"])


def test_a_frozen_theta_has_no_diagnosis():
    model = Foreign()
    model.k.requires_grad_(False)
    with pytest.raises(ValueError, match="Foreign has no theta: expected a trainable parameter"):
        hs.diagnose(model, (X, X), theta=["k"])
