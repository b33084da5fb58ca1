"""Intervals against closed forms in linear models, and what they say where they cannot hold."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

import hybridsam_lite as hs
from hybridsam_lite.methods import ERM, SharpnessAware
from hybridsam_lite.runs import Member, Runs
from hybridsam_lite.uncertainty import (
    information_intervals,
    intervals,
    profile_grid,
    profile_interval,
    seed_intervals,
)

N, NOISE, TRUTH = 60, 0.5, 1.0


class Linear(hs.HybridModel):
    """k a + psi phi, with inputs (a, psi_1, psi_2, psi_3)."""

    def __init__(self, k=1.0, phi=(0.0, 0.0, 0.0), theta=None):
        super().__init__()
        self.theta = hs.Theta(k=hs.Real(init=k, unit="N/m")) if theta is None else theta
        self.phi = nn.Parameter(torch.tensor(phi, dtype=torch.float64))

    def forward(self, x):
        return self.theta.k * x[:, :1] + (x[:, 1:] @ self.phi)[:, None]


def draw(seed):
    """Inputs, in which the network can imitate much of the physics, and a noisy target."""
    generator = np.random.default_rng(seed)
    psi = generator.standard_normal((N, 3))
    x = np.column_stack([psi[:, 0] + 0.5 * generator.standard_normal(N), psi])
    return x, x @ [TRUTH, 1.0, -1.0, 0.5] + NOISE * generator.standard_normal(N)


def fitted(x, y, kind=Linear, **options):
    """The model by least squares, its data, and what a textbook says about k: estimate, sd and residual variance."""
    solution, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
    model = kind(solution[0], tuple(solution[1:]), **options).double()
    variance = rss[0] / len(y)  # of maximum likelihood
    sd = math.sqrt(variance * np.linalg.inv(x.T @ x)[0, 0])
    return model, (torch.tensor(x), torch.tensor(y)[:, None]), solution[0], sd


@pytest.mark.parametrize("level", [0.5, 0.68, 0.95, 0.999])
def test_a_linear_model_has_the_textbook_s_intervals(level):
    model, data, k, sd = fitted(*draw(0))
    wald, ratio = intervals(model, data, lam=1e-9, level=level)
    z = stats.norm.ppf((1 + level) / 2)
    assert [wald.low, wald.high] == pytest.approx([k - z * sd, k + z * sd], rel=1e-5)  # lam is next to nothing
    # The residual sum of squares rises by (k - k_hat)^2 / [inv(X'X)]_kk: n log of its ratio is the chi-square limit.
    half = sd * math.sqrt(N * math.expm1(stats.chi2.ppf(level, 1) / N))
    # Between grid points a concave root is interpolated: to the outside, and by less than two per cent of the width.
    assert [ratio.low, ratio.high] == pytest.approx([k - half, k + half], abs=0.02 * half)
    assert half < (ratio.high - ratio.low) / 2 + 1e-6
    for x, source in ((wald, "information"), (ratio, "profile")):
        assert (x.name, x.source, x.level, x.unit, x.warnings) == ("k", source, level, "N/m", ())
        assert x.estimate == pytest.approx(k, rel=1e-6)


def test_a_prior_on_the_weights_narrows_the_information_s_interval_by_the_known_formula():
    x, y = draw(1)
    model, data, *_ = fitted(x, y)
    lam = 0.3
    variance = ((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).mean()
    precision = x.T @ x / N + lam * np.diag([0, 1, 1, 1])
    sd = math.sqrt(variance / N * np.linalg.inv(precision)[0, 0])
    wald = intervals(model, data, lam=lam)[0]
    assert (wald.high - wald.low) / 2 == pytest.approx(stats.norm.ppf(0.975) * sd, rel=1e-6)


def test_they_cover_a_linear_model_as_often_as_theory_says():
    """200 data sets. Both limits are a number of Student's t, with the residual variance divided by n, not n - p."""
    sets, level, free = 200, 0.95, N - 4
    hits = {"information": 0, "profile": 0}
    for seed in range(sets):
        model, data, *_ = fitted(*draw([7, seed]))
        at = hs.Landscape(model, data)
        information = hs.information(at, lam=1e-9)
        curve = hs.profile(at, "k", grid=profile_grid(information, 0), steps=8)
        for x in (*information_intervals(at, information, level), profile_interval(at, curve, level)):
            hits[x.source] += TRUTH in x
    limits = {
        "information": stats.norm.ppf((1 + level) / 2) * math.sqrt(free / N),
        "profile": math.sqrt(free * math.expm1(stats.chi2.ppf(level, 1) / N)),
    }
    for source, limit in limits.items():
        expected = 1 - 2 * stats.t.sf(limit, free)
        assert 0.92 < expected < 0.95
        low, high = stats.binom.interval(0.99, sets, expected)  # the seeds are fixed: no chance in it
        assert low <= hits[source] <= high, source


def test_theta_that_the_network_replaces_has_no_ends():
    class Same(Linear):
        def forward(self, x):
            return (self.theta.k + self.phi[0]) * x[:, :1]

    x, _ = draw(2)
    model = Same(0.4, (0.6, 0.0, 0.0))
    target = torch.tensor(x[:, :1]) + 0.1 * torch.randn(N, 1, generator=torch.Generator().manual_seed(0)).double()
    wald, ratio = intervals(model, (torch.tensor(x), target))
    assert (ratio.low, ratio.high) == (-math.inf, math.inf)
    assert 5.0 in ratio
    assert 0.5 < wald.high - wald.low < 10  # what the prior leaves: phi is 0.6 / sqrt(3), 1.96 sd of that on each side


def test_theta_without_influence_has_an_infinite_interval_and_no_profile():
    class Deaf(Linear):
        def __init__(self, *arguments):
            super().__init__(*arguments, theta=hs.Theta(k=hs.Real(init=1.0), deaf=hs.Real(init=1.0)))

        def forward(self, x):
            return super().forward(x) + 0.0 * self.theta.deaf

    model, data, *_ = fitted(*draw(0), kind=Deaf)
    found = intervals(model, data)
    assert [(x.name, x.source) for x in found] == [("k", "information"), ("k", "profile"), ("deaf", "information")]
    assert (found[2].low, found[2].high) == (-math.inf, math.inf)
    assert found[2].warnings == ("deaf does not influence the prediction",)


def test_amortized_theta_has_no_interval():
    class Amortized(hs.HybridModel):
        def __init__(self):
            super().__init__()
            self.encoder = hs.mlp(1, [2], 1)

        def forward(self, x):
            return self.encoder(x) * x

    x = torch.linspace(-1, 1, 8)[:, None]
    with pytest.raises(ValueError, match=r"no global theta.*inferred per sample \(amortized\) has no single value"):
        intervals(Amortized(), (x, x))


def test_theta_may_be_named_in_a_model_of_another():
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 8)[:, None]
    found = intervals(nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1)), (x, x), theta=["1.bias"], steps=5)
    assert [x.name for x in found] == ["1.bias", "1.bias"]


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, math.nan, "0.95", True])
def test_levels_are_between_0_and_1(level):
    model, data, *_ = fitted(*draw(0))
    with pytest.raises(ValueError, match="level must be between 0 and 1, got"):
        intervals(model, data, level=level)


def test_a_bound_of_theta_within_the_interval_is_told():
    model, data, k, _ = fitted(*draw(0), theta=None)
    narrow = Linear(phi=model.phi.tolist(), theta=hs.Theta(k=hs.Interval(k - 0.001, k + 0.001, init=k))).double()
    found = intervals(narrow, data, lam=1e-9)
    assert "reaches beyond" in found[0].warnings[0]
    assert (found[1].low, found[1].high) == (-math.inf, math.inf)  # nothing within the bounds is ruled out


def test_a_model_that_is_not_trained_to_the_end_widens_the_profile_to_its_own_loss():
    _, data, k, sd = fitted(*draw(0))
    off = Linear(k, (0.0, 0.0, 0.0)).double()
    at = hs.Landscape(off, data)
    grid = [k + f * sd for f in (-100, -30, -10, 0, 10, 30, 100)]
    curve = hs.profile(at, "k", grid=grid, steps=20)
    found = profile_interval(at, curve)
    inside = [v for v, loss in zip(curve.grid, curve.losses, strict=True) if loss <= at.value]
    assert found.low <= inside[0]
    assert inside[-1] <= found.high
    assert inside[-1] - inside[0] > 2 * 1.96 * sd
    assert "every value that does as well as the trained one is counted in" in found.warnings[-1]


def test_where_a_refit_fails_the_interval_ends_at_the_last_value_that_worked():
    class Breaks(Linear):
        def forward(self, x):
            y = super().forward(x)
            return y / (self.theta.k < 1.6)  # infinite beyond

    model, data, k, _ = fitted(*draw(0), kind=Breaks)
    at = hs.Landscape(model, data)
    curve = hs.profile(at, "k", grid=[k - 3, 1.5, 1.7], steps=20)
    assert (curve.grid[1], curve.losses[-1]) == (pytest.approx(k), math.inf)
    assert profile_interval(at, curve, level=0.95).high == 1.5
    assert curve.high == 1.5


# What in the residuals contradicts the assumptions.


def doubts(residual, target=None):
    """The warnings of a model that leaves these residuals, shape (sample, time), of a target without repetition."""

    class Flat(hs.HybridModel):
        def __init__(self):
            super().__init__()
            self.theta, self.phi = hs.Theta(k=hs.Real(init=0.0)), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return (self.theta.k + self.phi) * x

    x = torch.linspace(1, 2, residual.numel()).reshape(residual.shape).double()
    at = hs.Landscape(Flat(), (x, residual if target is None else target))
    return information_intervals(at, hs.information(at))[0].warnings


def noise(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_independent_residuals_give_no_warning(seed):
    assert doubts(noise((40, 10), seed)) == ()
    assert doubts(noise((400, 1), seed)) == ()


def test_correlated_residuals_give_a_warning_with_their_correlation():
    e = noise((40, 10))
    for i in range(1, 10):
        e[:, i] += 0.6 * e[:, i - 1]
    r = ((e[:, 1:] * e[:, :-1]).mean() / (e**2).mean()).item()
    assert doubts(e) == (f"systematic residuals (neighbours correlate by {r:.2f}): under-covers",)
    assert 0.4 < r < 0.7
    # Without an order within a sample, neighbours are those in the prediction's order.
    assert (
        "systematic residuals"
        in doubts(torch.sin(torch.linspace(0, 9, 100)).double()[:, None] + 0.1 * noise((100, 1)))[0]
    )


def test_a_target_that_repeats_itself_gives_a_warning():
    series = noise(50)
    overlapping = series.unfold(0, 10, 1).contiguous()
    (found,) = [w for w in doubts(overlapping) if "overlapping" in w]
    assert found.startswith("the target's 410 entries hold 50 different values")
    assert not [w for w in doubts(series.reshape(5, 10)) if "overlapping" in w]


# The spread of seeds.


def runs_of(members):
    """Runs of these (method, seed, k, validation loss, status)."""
    template, found = Linear(), []
    for method, seed, k, loss, status in members:
        raw = template.theta.constraints["k"].inverse(torch.tensor(k))
        state = {"theta.raw.k": raw, "phi": template.phi.detach().clone()}
        found.append(Member(method, seed, status, 1, 0.0, loss, state))
    return Runs(template, found, pd.DataFrame(), 0, "cpu", {})


FIVE = [(ERM(), i, k, 1.0 + 0.01 * i, "ok") for i, k in enumerate((0.9, 1.0, 1.2, 0.8))] + [(ERM(), 4, 9.0, 2.0, "ok")]


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_seeds_are_student_s_interval_of_those_that_fit_equally_well(level):
    runs = runs_of([*FIVE, (ERM(), 5, 7.0, 0.1, "diverged")])
    (found,) = seed_intervals(runs, level=level)
    kept = [0.9, 1.0, 1.2, 0.8]  # within 1.1 of the best; the fifth fits worse
    low, high = stats.t.interval(level, 3, np.mean(kept), np.std(kept, ddof=1))
    assert [found.estimate, found.low, found.high] == pytest.approx([np.mean(kept), low, high], rel=1e-6)
    assert (found.name, found.source, found.warnings) == ("k", "seeds", ())


@pytest.mark.parametrize(("count", "width"), [(1, math.inf), (3, None)])
def test_few_seeds_are_told_and_one_has_no_width(count, width):
    (found,) = seed_intervals(runs_of(FIVE[:count]))
    assert found.warnings == (f"only {count} of {count} seeds fit equally well",)
    assert width is None or found.high - found.low == width


def test_each_label_is_its_own_and_must_be_named_if_there_are_several():
    sam = SharpnessAware(rho=0.1)
    runs = runs_of([*FIVE, *((sam, i, 2.0 + 0.1 * i, 1.0, "ok") for i in range(4))])
    (found,) = seed_intervals(runs, "sam:rho=0.1")
    assert found.estimate == pytest.approx(2.15)
    for label in (None, "wd:lam=1"):
        with pytest.raises(ValueError, match="expected label= one of: erm, sam"):
            seed_intervals(runs, label)


def test_intervals_take_seeds_along_and_say_when_they_agree_too_well():
    model, data, k, sd = fitted(*draw(0))
    agree = runs_of([(ERM(), i, k + 1e-3 * sd * (-1) ** i, 1.0, "ok") for i in range(4)])
    found = intervals(model, data, runs=agree)
    assert [(x.source, x.unit) for x in found] == [(s, "N/m") for s in ("information", "profile", "seeds")]
    assert "narrower than the noise in the data alone would allow" in found[2].warnings[0]
    wide = runs_of([(ERM(), i, k + sd * (-1) ** i, 1.0, "ok") for i in range(4)])
    assert intervals(model, data, runs=wide)[2].warnings == ()


def test_seeds_of_something_else_are_refused():
    model, data, *_ = fitted(*draw(0))
    for more in ({"label": "erm"}, {"val": data}):
        with pytest.raises(ValueError, match="only with runs="):
            intervals(model, data, **more)
    x = torch.linspace(-1, 1, 8)[:, None]
    bare = hs.fit(
        lambda: hs.mlp(1, [2], 1), (x, x), (x, x), methods=["erm"], seeds=[0], steps=1, batch_size=8, progress=False
    )
    with pytest.raises(ValueError, match="these runs hold no global theta"):
        intervals(model, data, runs=bare)

    class Other(hs.HybridModel):
        def __init__(self):
            super().__init__()
            self.theta, self.net = hs.Theta(g=hs.Real(init=1.0)), hs.mlp(1, [2], 1)

        def forward(self, x):
            return self.theta.g * x + self.net(x)

    other = hs.fit(Other, (x, x), (x, x), methods=["erm"], seeds=[0], steps=1, batch_size=8, progress=False)
    with pytest.raises(ValueError, match="these runs hold theta 'g', the model has: k"):
        intervals(model, data, runs=other)


# What is printed.


def test_intervals_print_as_a_table_with_their_warnings_below():
    model, data, k, _ = fitted(*draw(0))
    found = intervals(model, data, runs=runs_of(FIVE[:2]))
    lines = str(found).splitlines()
    assert lines[0].split() == ["theta", "source", "estimate", "low", "high", "level"]
    numbers = [f"{x:.5g}" for x in (k, found[0].low, found[0].high)]
    assert lines[1].split() == ["k", "information", *numbers, "0.95", "N/m"]
    assert lines[3].split()[-1] == "[1]"
    assert lines[4:] == ["[1] only 2 of 2 seeds fit equally well"]
    assert found.frame["source"].tolist() == ["information", "profile", "seeds"]
    assert found.frame["low"].tolist() == [x.low for x in found]
    assert k in found[0]
    assert found[0].high + 1 not in found[0]
