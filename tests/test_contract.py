"""The public names and the example that architecture and README promise, used from the outside."""

import subprocess
import sys

import torch

import hybridsam_lite as hs


class Pendulum(hs.HybridModel):
    def __init__(self, width=8):
        super().__init__()
        self.theta = hs.Theta(omega2=hs.Positive(init=(0.2, 1.7), unit="1/s^2"))
        self.net = hs.mlp(2, [width, width], 1)

    def forward(self, inputs):
        def rhs(t, y):
            a = -self.theta.omega2 * torch.sin(y[..., :1]) + self.net(y)
            return torch.cat([y[..., 1:], a], -1)

        y = hs.odeint(rhs, inputs["x0"], inputs["t"], method="rk4", substeps=2)
        return hs.Prediction(y, network=self.net(y))


def swings(samples):
    """Undamped pendulums, as many times as samples: the two axes cannot be told apart by their length."""
    torch.manual_seed(0)
    t, x0 = torch.linspace(0, 1, samples), torch.randn(samples, 2)
    y = hs.odeint(lambda t, y: torch.cat([y[..., 1:], -torch.sin(y[..., :1])], -1), x0, t)
    return hs.Data({"x0": x0, "t": t}, y.transpose(0, 1), shared=("t",))


def test_the_trainer(tmp_path):
    methods = [hs.ERM(), hs.SharpnessAware(rho=0.1), hs.SharpnessAware(rho=1.0, adaptive=True), hs.WeightDecay(1e-3)]
    runs = hs.fit(
        Pendulum, swings(8), swings(8), methods=[*methods, hs.FunctionNorm(0.1)], seeds=range(2),
        steps=6, batch_size=8, device="auto", checkpoint=tmp_path / "pendulum", progress=True,
    )  # fmt: skip
    expected = ["method", "label", "settings", "seed", "theta.omega2", "val_loss", "status", "steps", "seconds"]
    assert list(runs.frame.columns) == expected
    assert runs.frame["label"][4] == "asam:rho=1"
    assert isinstance(runs.model(4), Pendulum)
    assert runs.model(4).theta.omega2.item() == runs.frame["theta.omega2"][4]


def test_time_first_and_sample_first_train_alike():
    """Also when there are as many times as samples in a batch."""

    class SampleFirst(Pendulum):
        def forward(self, inputs):
            return super().forward(inputs).value.transpose(0, 1)

    frames = [
        hs.fit(model, swings(8), methods=["sam:rho=0.1"], seeds=[0], steps=5, batch_size=8, progress=False).frame
        for model in (Pendulum, SampleFirst)
    ]
    assert frames[0]["theta.omega2"][0] == frames[1]["theta.omega2"][0]


def test_your_own_loop():
    model, data = Pendulum(), swings(8)
    opt = hs.SAM(model, torch.optim.Adam(hs.param_groups(model, lr=1e-3, theta_lr=1e-2)), rho=0.05)

    def backward():
        loss = ((model(data.inputs).value.transpose(0, 1) - data.target) ** 2).mean()
        loss.backward()
        return loss

    def closure():
        opt.zero_grad()
        return backward()

    first = opt.step(closure)
    for _ in range(20):
        opt.zero_grad()
        last = backward()
        with opt.perturbed():
            backward()
        opt.step()
    assert last < first


def test_every_torchdiffeq_method_name_is_taken():
    y = hs.odeint(lambda t, y: -y, torch.ones(3, 1), torch.linspace(0, 1, 3), method="dopri5", rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(y[-1], torch.full((3, 1), 0.36787944), rtol=1e-5, atol=0)


def test_all_names_are_documented():
    for name in hs.__all__:
        assert getattr(hs, name).__doc__, name


def test_an_import_loads_what_every_program_needs_and_no_more():
    heavy = {"scipy", "pandas", "matplotlib", "torchdiffeq", "plotly", "IPython", "ipywidgets", "joblib", "typer"}
    code = f"import sys, hybridsam_lite as hs; print(*({heavy!r} & set(sys.modules))); print(*dir(hs)); hs.tasks.get"
    loaded, names = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()  # fmt: skip
    assert loaded == ""
    assert set(hs.__all__) <= set(names.split())
