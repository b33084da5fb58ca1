"""Explorers: what they compute against closed forms, and the HTML that carries them."""

import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup

import hybridsam_lite as hs
from hybridsam_lite import explorers
from hybridsam_lite.explorers import Control, Explorer, Guess, axis, bound, line, panel, rates, samples, step, toy
from hybridsam_lite.explorers.settings import course_of
from hybridsam_lite.explorers.views import number, view
from hybridsam_lite.plots.look import COLORS
from hybridsam_lite.plots.tables import theta_column
from hybridsam_lite.results import read_records
from tools.explorers import all_six, hatches, runs

ARCHIVE = Path(__file__).parent.parent / "book" / "results" / "pendulum.jsonl"
NAMES = ("theta_against_setting", "valley", "sam_step", "rate_ratio", "inferred", "information_bound")
SCRIPTS = sorted(f.name for f in files("hybridsam_lite.explorers").iterdir() if f.name.endswith(".js"))


@pytest.fixture(scope="module")
def six():
    return all_six()


@pytest.fixture(scope="module")
def again():
    return all_six()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# The valley of toy A.


def largest_on_a_grid(u, v, rho, m, q):
    angle = np.linspace(0, 2 * np.pi, 200_001)
    return (m / 2 * (q + (u + rho * np.cos(angle)) * (v + rho * np.sin(angle)) - u * v) ** 2).max()


@pytest.mark.parametrize("case", range(12))
def test_worst_loss_is_that_of_a_dense_search(case):
    rng = np.random.default_rng(case)
    u, v, q = rng.normal(size=3)
    u, v = ((u, u), (u, -u), (u, 0.0), (0.0, 0.0), (1e-9, 1e-9), (1e-3, -1.1e-3))[case] if case < 6 else (u, v)
    rho, m = rng.uniform(0.01, 2), rng.uniform(0.1, 3)
    loss, du, dv = toy.worst(u, v, rho, m, q)
    # A search in steps of 3e-5 rad misses a smooth maximum by about its square.
    assert loss == pytest.approx(largest_on_a_grid(u, v, rho, m, q), rel=1e-7)
    assert m / 2 * (q + (u + du) * (v + dv) - u * v) ** 2 == pytest.approx(loss, rel=1e-12)
    assert np.hypot(du, dv) <= rho * (1 + 1e-12)


def test_worst_loss_is_least_where_the_network_is_silent(rng):
    theta = np.linspace(-1, 5, 601)
    for rho in (0.05, 0.3, 1.0, 2.5):
        u, v = toy.fit(theta, rng.uniform(0.5, 2), 2.0)
        loss = toy.worst(u, v, rho, 1.7)[0]
        assert theta[loss.argmin()] == pytest.approx(2.0)
        assert loss.min() == pytest.approx(1.7 * rho**4 / 8, rel=1e-12)


def test_worst_loss_of_arrays_is_that_of_numbers(rng):
    u, v, rho = rng.normal(size=(3, 50))
    together = np.stack(toy.worst(u, v, abs(rho)))
    assert np.array_equal(together, np.stack([toy.worst(*x) for x in zip(u, v, abs(rho), strict=True)], 1))


def test_fits_are_perfect_and_their_trace_is_that_of_the_hessian():
    u, v = toy.fit(0.4, 1.7, 2.0)
    assert u * v == pytest.approx(2.0 - 0.4)
    assert u / v == pytest.approx(1.7)

    def loss(w):
        return 0.6 * (0.4 + w[0] * w[1] - 2.0) ** 2 / 2

    hessian = torch.autograd.functional.hessian(loss, torch.tensor([u, v]))
    assert 0.6 * (u * u + v * v) == pytest.approx(float(hessian.trace()))
    # For a small radius the worst loss is rho^2/2 times the trace, which is the only eigenvalue there.
    small = toy.worst(u, v, 1e-5, 0.6)[0]
    assert small == pytest.approx(1e-10 / 2 * float(hessian.trace()), rel=1e-4)


# Steps of SAM.


@pytest.mark.parametrize("which", ["phi", "all"])
def test_steps_are_those_of_the_library(which, rng):
    def loss(p):
        return (p["theta"] + p["phi"] ** 2 / 2 - 2.0) ** 2 / 2

    for theta, phi, rho, lr in rng.uniform((0, 0.2, 0.05, 0.02), (3, 1.5, 0.5, 0.2), (3, 4)):
        p = {"theta": torch.tensor(theta), "phi": torch.tensor(phi)}
        for mine in step.walk(theta, phi, rho, lr, which, count=20)[1:]:
            moved = ["phi"] if which == "phi" else ["phi", "theta"]
            g, _ = hs.sam_gradients(loss, p, moved, rho)
            p = {n: p[n] - lr * g[n] for n in p}
            assert mine == pytest.approx((float(p["theta"]), float(p["phi"])), rel=1e-8)


def test_theta_in_the_norm_shortens_the_ascent():
    theta, phi = 0.5, 0.2  # the gradient is q (1, phi)
    right, wrong = (step.ascent(theta, phi, 0.3, which, 2.0)[1] for which in ("phi", "norm"))
    assert right == pytest.approx(-0.3)
    assert wrong == pytest.approx(-0.3 * phi / np.hypot(1, phi))


def test_the_plane_is_the_diagonal_of_toy_a():
    """With u = v = phi/sqrt(2) the three-parameter model takes the same steps."""

    def loss(p):
        return (p["theta"] + p["u"] * p["v"] - 2.0) ** 2 / 2

    p = {n: torch.tensor(x, dtype=torch.float64) for n, x in (("theta", 0.5), ("u", 0.5**0.5), ("v", 0.5**0.5))}
    for theta, phi in step.walk(0.5, 1.0, 0.3, 0.1, count=30)[1:]:
        g, _ = hs.sam_gradients(loss, p, ["u", "v"], 0.3)
        p = {n: p[n] - 0.1 * g[n] for n in p}
        assert (float(p["theta"]), float(p["u"])) == pytest.approx((theta, phi / 2**0.5), rel=1e-9)


def test_sam_finds_theta_and_plain_training_does_not():
    sam, plain = (step.walk(0.4, 1.2, rho, 0.2)[-1][0] for rho in (0.3, 0.0))
    assert abs(sam - 2) < 0.05
    assert abs(plain - 2) > 1


# Two learning rates.


@pytest.mark.parametrize("ratio", [0.01, 1.0, 10.0])
def test_limit_is_where_gradient_descent_goes(ratio, rng):
    """A linear network Psi phi with a = Psi alpha: the scalar formula holds with b = 1/|alpha|."""
    psi, alpha, start = rng.normal(size=(20, 3)), rng.normal(size=3), rng.normal(size=3)
    a = psi @ alpha
    truth, theta, phi = 1.5, 0.4, start.copy()
    y = truth * a
    rate = 0.9 / np.linalg.norm(np.hstack([np.sqrt(ratio) * a[:, None], psi]), 2) ** 2
    kept = theta / ratio - alpha @ phi
    for _ in range(10_000):
        r = y - theta * a - psi @ phi
        theta, phi = theta + ratio * rate * (a @ r), phi + rate * (psi.T @ r)
    b = 1 / np.linalg.norm(alpha)
    share = b**2 * (alpha @ start)  # what the start of phi contributes along the physics
    assert np.abs(y - theta * a - psi @ phi).max() < 1e-8
    assert theta == pytest.approx(rates.theta_limit(ratio, 0.4, truth, b, share), rel=1e-7)
    assert theta / ratio - alpha @ phi == pytest.approx(kept, rel=1e-9)


def test_limit_goes_from_the_start_to_the_truth():
    ratio = np.geomspace(1e-6, 1e6, 50)
    theta = rates.theta_limit(ratio, 0.5, 2.0)
    assert (np.diff(theta) > 0).all()
    assert theta[[0, -1]] == pytest.approx([0.5, 2.0], abs=1e-5)


# Information about theta.


def test_spectrum_gives_the_information(rng):
    jt, jp = torch.tensor(rng.normal(size=12)), torch.tensor(rng.normal(size=(12, 5)))
    spectrum = bound.spectrum_of(jt, jp)
    for lam in (1e-3, 0.1, 10.0):
        direct = jt @ torch.linalg.solve(torch.eye(12) + jp @ jp.T / (12 * lam), jt) / 12
        share, least = bound.information(spectrum, lam)
        known = float(jt @ jt) / 12
        assert share * known == pytest.approx(float(direct), rel=1e-5)  # six digits are kept
        top = float(torch.linalg.eigvalsh(jp.T @ jp / 12)[-1])
        assert least == pytest.approx(lam / (lam + top), rel=1e-5)


def test_the_bound_holds(rng):
    lam = np.geomspace(1e-4, 1e3, 40)
    for _ in range(50):
        n, p = rng.integers(2, 15, size=2)
        spectrum = bound.spectrum_of(torch.tensor(rng.normal(size=n)), torch.tensor(rng.normal(size=(n, p))))
        share, least = bound.information(spectrum, lam)
        assert (share >= least * (1 - 1e-5)).all()
        assert (np.diff(share) > -1e-12).all()


def test_toy_a_reaches_the_bound():
    """y = theta x + u v x with m = mean x^2: S = m lam / (lam + m |w|^2)."""
    x, u, v = torch.tensor([1.0, -2.0, 0.5]), 0.7, -1.1
    m = float((x**2).mean())
    share, least = bound.information(bound.spectrum_of(x, torch.stack([v * x, u * x], 1)), 0.3)
    assert share == pytest.approx(0.3 / (0.3 + m * (u * u + v * v)), rel=1e-5)
    assert least == pytest.approx(share, rel=1e-5)


class Two(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(slope=hs.Real(init=1.0), lift=hs.Real(init=0.5))
        self.net = hs.mlp(1, [4], 1, last_scale=1.0)

    def forward(self, x):
        return self.theta.slope * x + self.theta.lift + self.net(x)


def test_a_landscape_gives_what_hs_information_gives():
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 16)[:, None]
    at = hs.Landscape(Two(), (x, 2 * x))
    explorer = explorers.information_bound({"trained": at}, "slope")
    spectrum = dict(explorer.data["spectra"])["trained"]
    for lam in (0.01, 1.0):
        found = hs.information(at, lam=lam)
        share = bound.information(spectrum, lam)[0]
        assert share == pytest.approx(float(found.matrix[0, 0] / found.known[0, 0]), rel=1e-4)
    with pytest.raises(ValueError, match="expected one of: slope, lift"):
        explorers.information_bound({"trained": at}, "offset")
    many = torch.linspace(-1, 1, 600)[:, None]
    large = hs.Landscape(Two(), (many, many))
    weighted = hs.Landscape(Two(), (x, x), loss=lambda y, t: ((y - t) ** 4).mean())
    with pytest.raises(ValueError, match="at most 512 entries, got"):
        explorers.information_bound({"trained": large}, "slope")
    with pytest.raises(ValueError, match="equal weights"):
        explorers.information_bound({"trained": weighted}, "slope")
    with pytest.raises(ValueError, match="1 to 7 models, got 0"):
        explorers.information_bound({})


# Theta against the setting.


def test_courses_count_and_take_medians():
    table = runs(seeds=5)
    _, theta = theta_column(table, "g")
    plain, *sam = course_of(table, theta, "sam", "rho", [0.0, 0.1, 0.2, 0.5])
    assert plain["seeds"] == list(theta[table["label"] == "erm"])
    assert sam[0]["median"] == np.median(theta[table["label"] == "sam:rho=0.1"])
    assert [one["diverged"] for one in course_of(table, theta, "wd", "lam", [0.001, 0.01])] == [0, 1]
    assert len(course_of(table, theta, "wd", "lam", [0.01])[0]["seeds"]) == 4


def test_each_method_has_its_own_slider(six):
    explorer = six["theta_against_setting"]
    assert [c.name for c in explorer.active(explorer.start)] == ["method", "sam rho"]
    assert [c.name for c in explorer.active({**explorer.start, "method": "wd"})] == ["method", "wd lam"]
    assert len(explorer.states()) == 4 + 3
    assert "rho = 0.2" in repr(explorer)


def test_runs_frames_and_records_are_accepted():
    def model():
        return Two()

    x = torch.linspace(-1, 1, 8)[:, None]
    found = hs.fit(model, (x, x), (x, x), methods=["erm", "sam:rho=0.1"], seeds=[0, 1], steps=3, progress=False)
    for given in (found, found.frame, found.frame.to_dict("records")):
        shown = explorers.theta_against_setting(given, name="slope")
        assert shown.start == {"sam rho": 0.1}
    with pytest.raises(ValueError, match=r"none of sam:rho=0\.1"):
        explorers.theta_against_setting(found, name="slope", start="sam:rho=3")


def test_a_variant_of_a_method_is_another_one():
    table = pd.concat([runs(), runs().query("label == 'sam:rho=0.1'").assign(
        label="sam:rho=0.1,theta_grad=clean", settings=[{"rho": 0.1, "theta_grad": "clean"}] * 5)])  # fmt: skip
    explorer = explorers.theta_against_setting(table, start="sam:rho=0.1,theta_grad=clean")
    assert explorer.start["method"] == "sam:theta_grad=clean"
    assert "rho = 0.1" in repr(explorer)


@pytest.mark.parametrize("low", [1e-5, 1.01e-4, 2.3e-3, 4.6e-2, 0.83, 7.0, 3e4])
@pytest.mark.parametrize("span", [1.0, 3.0, 9.5])
def test_the_loss_axis_has_ticks_that_fit(low, span):
    """Losses that span a decade or less, on whose axis lie fewer than two powers of ten."""
    table = runs().assign(val_loss=lambda t: np.geomspace(low, span * low, len(t)))
    shown = explorers.theta_against_setting(table.assign(status="ok", theta_hat=[{"g": 9.0}] * len(table)))
    y = shown.at(shown.start)["panels"][1]["y"]
    inside = [10.0**e for e in range(-9, 9) if y["range"][0] <= 10.0**e <= y["range"][1]]
    if len(inside) > 1:
        assert "ticks" not in y  # the page writes powers of ten
        return
    places, texts = zip(*y["ticks"], strict=True)
    assert 2 <= len(places) <= 10
    low, high = y["range"]
    assert low * (1 - 1e-9) <= places[0] < places[-1] <= high * (1 + 1e-9)
    assert [float(text) for text in texts] == pytest.approx(places, rel=1e-9)
    assert max(map(len, texts)) <= 6  # as many as fit between the axis and its label


def test_a_logarithmic_axis_starts_above_zero():
    with pytest.raises(ValueError, match=r"axis 'loss': expected 0 < low < high of a logarithmic axis, got 0 and 1"):
        axis("loss", 0, 1, log=True)
    assert [text for _, text in axis("loss", 1.01, 1.04, log=True)["ticks"]] == ["1.01", "1.02", "1.04"]


def test_everything_diverged_is_an_error():
    table = runs().assign(status="diverged")
    with pytest.raises(ValueError, match="every run diverged"):
        explorers.theta_against_setting(table)


@pytest.mark.skipif(not ARCHIVE.is_file(), reason="no archived runs beside the tests")
def test_an_archive_fits_into_a_page():
    rows = [r for r in read_records(ARCHIVE) if (r["variant"], r["preset"]) == ("A1", "full")]
    explorer = explorers.theta_against_setting(rows, truth=1.0966, unit="1/s²")
    assert len(explorer._repr_html_().encode()) < 200_000


# True against inferred.


def test_agreement_and_mean_curve_by_hand():
    true, found = [0.0, 2.0, 4.0, 6.0], [1.0, 1.0, 3.0, 3.0]
    assert samples.agreement(true, found) == pytest.approx(
        {"mean error": 1.5, "bias": -1.0, "correlation": 2 / 5**0.5, "blind": 2.0}
    )
    assert np.isnan(samples.agreement([1.0, 2.0], [3.0, 3.0])["correlation"])
    x, y = samples.mean_curve([0.0, 0.1, 10.0], [1.0, 3.0, 5.0], bins=4)
    assert (x.tolist(), y.tolist()) == ([0.05, 10.0], [2.0, 5.0])
    assert samples.mean_curve([3.0, 3.0], [1.0, 2.0])[1].tolist() == [1.5]


def test_inferred_draws_some_and_counts_all(six):
    explorer = six["inferred"]
    shown = explorer.at(explorer.start)
    assert "The figure shows 200 of 600 samples" in shown["text"]
    drawn = next(m for m in shown["panels"][0]["marks"] if m["name"] == "samples")
    assert len(drawn["at"]) == 200
    rows = hatches()[hatches()["label"] == "erm"]
    assert explorer.table["mean error"][0] == pytest.approx((rows["found"] - rows["true"]).abs().mean(), abs=1e-4)


def test_a_mirrored_seed_is_seen(rng):
    """Seeds are not averaged: of a rising and a falling one the mean would be a constant."""
    true = rng.uniform(size=100)
    seeds = [pd.DataFrame({"seed": seed, "true": true, "found": found}) for seed, found in enumerate((true, 1 - true))]
    table = pd.concat([pd.concat(seeds).assign(label=label) for label in ("erm, raw", "sam:rho=0.1, raw")])
    explorer = explorers.inferred(table)
    shown = explorer.at(explorer.start)
    assert "correlation with the truth is 1, -1, one for each of 2 seeds" in shown["text"]
    assert explorer.table["correlation"].tolist() == ["1.00, -1.00"] * 2
    rising, falling = ([y for _, y in m["at"]] for m in shown["panels"][0]["marks"] if m["name"] == "mean")
    assert (np.diff(rising) > 0).all()
    assert (np.diff(falling) < 0).all()
    assert shown["panels"][0]["marks"][1]["color"] == COLORS["erm"]
    other = explorer.at({"label": "sam:rho=0.1, raw"})
    assert other["panels"][0]["marks"][1]["color"] == COLORS["sam"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pd.DataFrame({"label": ["erm"], "true": [1.0]}), "missing: found"),
        (pd.DataFrame({"label": [], "true": [], "found": []}), "missing: rows"),
        (pd.DataFrame({"label": ["erm"], "true": [1.0], "found": [np.nan]}), "must be finite"),
    ],
)
def test_inferred_says_what_a_table_lacks(table, words):
    with pytest.raises(ValueError, match=words):
        explorers.inferred(table)
    with pytest.raises(ValueError, match="'adam' is none of erm"):
        explorers.inferred(hatches(), start="adam")


# The HTML.


@pytest.mark.parametrize("name", NAMES)
def test_html_stands_on_its_own(six, again, name):
    text = six[name]._repr_html_()
    root = BeautifulSoup(text, "html.parser").div
    assert root.get("class") == ["hs-explorer"]
    assert len(root.img["alt"]) > 100
    assert six[name].at(six[name].start)["text"] in root.img["alt"]
    assert root.img["src"].startswith("data:image/png;base64,")
    assert root.details.table.find_all("tr")[1:]
    assert not root.find_all(id=True), "ids would not be unique on a page with two of them"
    data, script = root.find_all("script")
    assert json.loads(data.string)["title"] == six[name].title
    assert "start(" in script.string
    assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert len(text.encode()) < 200_000
    assert text == again[name]._repr_html_(), "the same input must give the same page"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_plain(name):
    source = (files("hybridsam_lite.explorers") / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 400
    for word in ("eval", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "Function(", "import(",
                 "fetch", "XMLHttpRequest", "localStorage", "window.", "</script", "<!--"):  # fmt: skip
        assert word not in source, word


def test_labels_cannot_become_markup():
    evil = '</script><img src=x onerror="alert(1)">&'
    table = hatches().assign(label=lambda t: t["label"].replace("erm", evil))
    explorer = explorers.inferred(table, evil, evil, predict=True)
    root = BeautifulSoup(explorer._repr_html_(), "html.parser").div
    assert len(root.find_all("script")) == 2
    assert len(root.find_all("img")) == 1
    assert not root.find_all(onerror=True)
    assert evil in json.loads(root.script.string)["guess"]["question"]
    assert evil in root.details.get_text()


def test_too_much_for_a_page_is_an_error():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"label": np.repeat([f"sam:rho={i}" for i in range(60)], 250)})
    table = table.assign(true=rng.uniform(size=len(table)), found=rng.uniform(size=len(table)))
    with pytest.raises(ValueError, match=r"data take \d+ kB, expected at most 200 kB: give fewer"):
        explorers.inferred(table)


def test_what_states_share_is_written_once(six):
    data = json.loads(six["inferred"].payload)["data"]
    marks = [i for frame in data["frames"].values() for one in frame["panels"] for i in one["marks"]]
    assert len(marks) > len(data["shared"])
    assert max(marks) < len(data["shared"])


def test_numbers_that_json_does_not_have_become_null():
    def at(state):
        return view("", panel(axis("x", 0, 1), axis("y", 0, 1), line([(0, np.nan), (1, np.inf)], "black")))

    explorer = Explorer("gaps", "", (Control("k", "k", (1, 2), 1),), at, pd.DataFrame({"k": [1]}))
    line_data = next(part for part in json.loads(explorer.payload)["data"]["shared"] if part.get("kind") == "line")
    assert line_data["at"] == [[0, None], [1, None]]
    explorer._repr_html_()


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (2, "2"), (1.0, "1"), (1.125, "1.13"), (-1.125, "-1.13"), (0.30000000000000004, "0.3"),
        (999.6, "1000"), (123456.0, "123000"), (1e6, "1e6"), (-1.234e-5, "-1.23e-5"), (0.0001, "0.0001"),
        (float("inf"), "unknown"),
    ],
)  # fmt: skip
def test_number(x, text):
    assert number(x) == text


# Bad input, questions and widgets.


def a_line(controls, guess=None):
    def at(state):
        k = float(state["k"])
        return view(f"slope {number(k)}", panel(axis("x", 0, 1), axis("y", 0, 9), line([(0, 0), (1, k)], "black")))

    return Explorer("a line", "A line.", controls, at, pd.DataFrame({"k": [1]}), guess)


def test_bad_explorers_say_what_is_wrong():
    with pytest.raises(ValueError, match="start 3 is none of its 2 values"):
        Control("k", "k", (1, 2), 3)
    with pytest.raises(ValueError, match="1 texts for 2 values"):
        Control("k", "k", (1, 2), 1, ("one",))
    with pytest.raises(ValueError, match="has no controls"):
        a_line(())
    many = tuple(float(i) for i in range(50))
    with pytest.raises(ValueError, match="2500 states, at most 2000"):
        a_line((Control("k", "k", many, 0.0), Control("l", "l", many, 0.0)))
    for make in (explorers.valley, explorers.sam_step):
        with pytest.raises(ValueError, match="rho must be one of"):
            make(rho=7.0)
    for make in (explorers.valley, explorers.sam_step, explorers.rate_ratio):
        with pytest.raises(ValueError, match="c must be a"):
            make(float("nan"))
    with pytest.raises(ValueError, match="start must be one of"):
        explorers.rate_ratio(start=9.0)
    with pytest.raises(TypeError, match=r"must be True, False or an hs\.explorers\.Guess, got 'yes'"):
        explorers.valley(predict="yes")


def test_own_questions_have_right_answers():
    asking = {name: explorer.guess for name, explorer in all_six(predict=True).items()}
    assert asking["valley"].answer == 2.0
    assert asking["sam_step"].answer == step.walk(0.4, 1.2, 0.3, 0.2)[-1][0]
    assert asking["rate_ratio"].answer == pytest.approx(0.5 + 0.01 * 1.5 / 1.01)
    table = runs()
    median = table[table["label"] == "sam:rho=0.2"]["theta_hat"].map(lambda t: t["g"]).median()
    assert asking["theta_against_setting"].answer == median
    own = Guess("How much is 1 + 1?", 2, 0, 10)
    assert explorers.valley(predict=own).guess == own
    assert all(guess.low <= guess.answer <= guess.high for guess in asking.values())


def test_the_widget_shows_each_state(six):
    explorer = six["theta_against_setting"]
    box = explorer.widget()
    method, rho, lam, text, image = box.children
    assert (method.value, rho.value, lam.layout.display) == ("sam", 0.2, "none")
    before = image.value
    rho.value = 0.5
    assert "rho = 0.5" in text.value
    assert image.value != before
    method.value = "wd"
    assert (rho.layout.display, lam.layout.display) == ("none", None)
    assert "lam = 0.001" in text.value
    assert 'role="status"' in text.value


def test_the_widget_asks_first():
    guess = Guess("Which slope?", 2.0, 0, 9, panel=0)
    box = a_line((Control("k", "k", (1, 2), 2),), guess).widget()
    question, (entry, button), verdict = box.children[0], box.children[1].children, box.children[2]
    assert "Which slope?" in question.value
    entry.value = "many"
    button.click()
    assert "Give a number between 0 and 9, got 'many'" in BeautifulSoup(verdict.value, "html.parser").text
    assert len(box.children) == 3
    entry.value = "1,5"
    button.click()
    assert "You guessed 1.5. It is 2: off by 0.5." in verdict.value
    assert entry.disabled
    assert box.children[3].children[2].value.startswith("<img")


def test_the_figure_of_another_state(six):
    figure = six["rate_ratio"].figure(ratio=1.0)
    assert [ax.get_xlabel() for ax in figure.axes] == ["theta", "theta's rate / phi's"]
    assert figure.axes[1].get_xscale() == "log"
