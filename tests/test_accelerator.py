"""What training on a GPU asks for, tested on the CPU: no waiting, memory that runs out, and full precision."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import hybridsam_lite as hs
from hybridsam_lite.methods import Moment
from hybridsam_lite.stack import Stack

T = torch.linspace(0, 0.4, 5)


class Pendulum(hs.HybridModel):
    def __init__(self, hungry=None):
        super().__init__()
        self.theta = hs.Theta(omega2=hs.Positive(init=(0.5, 1.5)))
        self.net = hs.mlp(2, [8], 1)
        self.dropout = nn.Dropout(0.2)
        self.hungry = hungry

    def forward(self, inputs):
        def rhs(t, y):
            pull = -self.theta.omega2 * torch.sin(y[..., :1]) + self.dropout(self.net(y))
            return torch.cat([y[..., 1:], pull], -1)

        x0 = inputs["x0"] if self.hungry is None else self.hungry.apply(inputs["x0"])
        return hs.odeint(rhs, x0, inputs["t"], step=0.1).transpose(0, 1)


def swings(samples=12):
    random = torch.Generator().manual_seed(0)
    return hs.Data({"x0": torch.randn(samples, 2, generator=random), "t": T}, torch.zeros(samples, 5, 2), shared=("t",))


class NothingReadBack(TorchDispatchMode):
    """Refuses what makes a program wait until a GPU has computed a number."""

    WAITS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.is_nonzero)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in self.WAITS, f"{func} waits for the result"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("label", ["erm", "sam:rho=0.1", "asam:rho=1", "wd:lam=0.1", "msam:rho=0.1", "swa:start=0.1"])
def test_a_step_reads_no_number_back(label, monkeypatch):
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(Pendulum())
    stack = Stack(
        models, [hs.parse_method(label)] * 3, optimizer=torch.optim.SGD, lr=1e-2, theta_lr=1e-2, max_norm=1.0,
        loss=lambda value, target: ((value - target) ** 2).mean(), sample_axis=0, vectorize=True,
    )  # fmt: skip
    batch = swings().take(torch.arange(12).reshape(3, 4))
    stack.step(batch, 1.0, Moment(0, 9))  # looks at the time grid
    before = {n: p.clone() for n, p in stack.params.items()}
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: pytest.fail("tolist waits for the result"))
    with NothingReadBack():
        stack.step(batch, 1.0, Moment(1, 9))
    changed = {n for n, p in stack.params.items() if not torch.equal(p, before[n])}
    assert {"theta.raw.omega2", "net.0.weight"} <= changed


def test_what_reads_a_number_back_is_found():
    with NothingReadBack(), pytest.raises(AssertionError, match="waits"):
        bool(torch.ones(()) > 0)


def hungry(limit, error):
    """The identity, for at most `limit` members at once."""

    class Hungry(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, g):
            return g

        @staticmethod
        def vmap(info, in_dims, x):
            if info.batch_size > limit:
                error()
            return x.clone(), in_dims[0]

    return Hungry


def gpu_is_full():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def cpu_is_full():
    torch.empty(2**60, dtype=torch.uint8)


def fit(model, members=5, **options):
    settings = {"methods": ["sam:rho=0.1"], "steps": 4, "batch_size": 4, "progress": False, "device": "cpu"}
    return hs.fit(model, swings(), swings(), seeds=range(members), **settings | options)


@pytest.mark.parametrize("error", [gpu_is_full, cpu_is_full])
def test_a_stack_that_does_not_fit_is_split_and_nothing_else_changes(error):
    with pytest.warns(RuntimeWarning) as said:
        split = fit(lambda: Pendulum(hungry(2, error)))
    assert [str(w.message) for w in said] == [
        "5 members at once do not fit into memory; going on with 3 at a time",
        "3 members at once do not fit into memory; going on with 2 at a time",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = fit(lambda: Pendulum(hungry(5, error)))
    for a, b in zip(split.members, whole.members, strict=True):
        assert a.status == b.status == "ok"
        for name, x in a.state.items():  # the same dropout masks; products add up in another order
            torch.testing.assert_close(x, b.state[name], rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore:.* members at once:RuntimeWarning")
def test_one_member_that_does_not_fit_is_an_error_that_says_what_to_do():
    wrong = r"not even one member's step fits into memory; use smaller batches.*CUDA out"
    with pytest.raises(RuntimeError, match=wrong):
        fit(lambda: Pendulum(hungry(0, gpu_is_full)))


def test_mixed_precision_is_refused():
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(RuntimeError, match=r"autocast.*theta.*dtype="):
        fit(Pendulum)
