"""Controls for notebooks: what moves when a control is moved, in a notebook's loop and without one."""

import asyncio
import base64
import functools
import io
import sys
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from gate import SECONDS, Gate

import hybridsam_lite as hs
from hybridsam_lite import widgets
from hybridsam_lite.plots import surface
from hybridsam_lite.results import records
from hybridsam_lite.widgets.parts import figure, picture, said

X = torch.linspace(-1, 1, 16)[:, None]
DATA = (X, 2 * X)


class Line(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(slope=hs.Real(init=(0.0, 1.0), unit="N/m"))
        self.net = hs.mlp(1, [4], 1)

    def forward(self, x):
        return self.theta.slope * x + self.net(x)


class Page(HTMLParser):
    """The first element of a piece of HTML, all its text, and the cells of its table."""

    def __init__(self, html):
        super().__init__()
        self.tag, self.attributes, self.text, self.rows = "", {}, "", []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if not self.tag:
            self.tag, self.attributes = tag, dict(attributes)
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        self.text += data
        if self.rows and data.strip():
            self.rows[-1].append(data)


def text_of(control):
    return Page(control.value).text


def pixels(control):
    """The picture, which has the sentence beside it as its text."""
    page = Page(control.value)
    assert page.tag == "img"
    kind, _, code = page.attributes["src"].partition(",")
    assert kind == "data:image/png;base64"
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(code)))


@pytest.fixture
def rows():
    """Two seeds of plain training, and of grids of two methods; one member of each kind of trouble."""

    def row(label, seed, theta, loss, settings, status="ok"):
        kind = label.partition(":")[0]
        known = {"label": label, "method": kind, "seed": seed, "status": status, "settings": settings}
        return known | {"theta_hat": {"g": theta}, "val_loss": loss}

    found = [row("erm", s, 8.0 + s, 0.1, {}) for s in range(2)]
    for rho, theta, loss in ((0.1, 9.0, 0.1), (0.2, 9.6, 0.3), (0.4, 9.8, 0.6)):
        found += [row(f"sam:rho={rho}", s, theta + 0.1 * s, loss, {"rho": rho}) for s in range(2)]
    found += [row("wd:lam=1", s, 7.0, 0.2, {"lam": 1}) for s in range(2)]
    found[-3] |= {"status": "diverged", "theta_hat": {"g": float("nan")}, "val_loss": None}
    return found


@pytest.fixture(scope="module")
def pendulum():
    """Three forms of one result: what fit returned, its frame, run records."""
    task = hs.tasks.get("pendulum", preset="smoke")
    runs = task.fit(["erm", "sam:rho=0.1", "sam:rho=0.2"], seeds=range(2), steps=3, progress=False)
    return {"runs": runs, "frame": runs.frame, "records": records(task, runs)}


@pytest.fixture
def gate():
    with Gate() as found:
        yield found


def parts(panel):
    """All controls of a panel by their description, those without one by their place."""
    found = {}

    def collect(control, place):
        for i, child in enumerate(getattr(control, "children", ())):
            collect(child, f"{place}{i}")
        if not hasattr(control, "children"):
            found[control.description or place] = control

    collect(panel, "")
    return found


# Pieces.


def test_text_is_escaped_and_spoken():
    text = 'rho < "0.1" & <b>more</b>'
    page = Page(said(text))
    assert (page.text, page.attributes["role"]) == (text, "status")
    assert Page(picture(figure(), text)).attributes["alt"] == text


def test_figures_are_of_the_book_s_width_and_no_pyplot_session_knows_them():
    import matplotlib.pyplot as plt

    shown = pixels(type("Control", (), {"value": picture(figure(), "")}))
    assert shown.shape[:2] == (460, 921)  # 3.2 and 6.4 inches of 144 dots, rounded down
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    "make",
    [
        lambda: widgets.rho_explorer([]),
        lambda: widgets.landscape(Line(), DATA),
        lambda: widgets.monitor(hs.fit, Line, DATA, methods=["erm"], seeds=[0], steps=1),
    ],
    ids=["rho_explorer", "landscape", "monitor"],
)
def test_without_ipywidgets_the_error_says_how_to_get_them(monkeypatch, make):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r'pip install "hybridsam-lite\[book\]"'):
        make()


# Settings.


def test_settings_are_those_that_were_run(rows):
    rows += [
        {"label": "sam:rho=0.3,theta_grad=clean", "settings": {"rho": 0.3, "theta_grad": "clean"}},
        {"label": "sam:rho=0.1 then 0.2 from step 3", "settings": {"rho": "0.1 then 0.2 from step 3"}},
        {"label": "erm:steps=2", "settings": {"steps": 2.0}},
        {"label": "physics", "settings": {}},
    ]
    assert widgets.settings_of(rows) == {
        "sam": ("rho", [0.0, 0.1, 0.2, 0.4]),
        "sam:theta_grad=clean": ("rho", [0.0, 0.3]),
        "wd": ("lam", [0.0, 1.0]),
    }


@pytest.mark.parametrize("label", ["erm", "sam:rho=0.1 then 0.2 from step 3"])
def test_nothing_to_explore_is_an_error(label):
    rows = [{"label": label, "settings": {"rho": "0.1 then 0.2 from step 3"} if ":" in label else {}, "theta.g": 1.0}]
    with pytest.raises(ValueError, match="no method here has a setting to explore"):
        widgets.rho_explorer(rows)


def test_compare_says_the_numbers_of_the_table(rows):
    assert widgets.compare(rows, "sam", 0.2, truth=9.81, unit="m/s^2") == (
        "rho = 0.2: median g 9.65 m/s^2 (-0.16 from the truth), seeds 9.6 to 9.7; validation loss 3.0e-01. "
        "Against rho = 0.1: median moved by +0.6, range of seeds times 1, validation loss times 3."
    )
    assert widgets.compare(rows, "sam", 0.1) == (
        "rho = 0.1: median g 9.05, seeds 9 to 9.1; validation loss 1.0e-01. "
        "Against rho = 0 (plain training): median moved by +0.55, range of seeds times 0.1, validation loss times 1."
    )
    assert widgets.compare(rows, "sam", 0.0) == (
        "rho = 0: median g 8.5, seeds 8 to 9; validation loss 1.0e-01."  # plain training
    )


def test_compare_counts_members_that_diverged(rows):
    assert widgets.compare(rows, "sam", 0.4).startswith(
        "rho = 0.4: median g 9.8, seeds 9.8 to 9.8; validation loss 6.0e-01. 1 of 2 diverged and are left out."
    )
    for row in rows:
        if row["settings"].get("rho") == 0.2:
            row["status"] = "diverged"
    assert widgets.compare(rows, "sam", 0.2) == "rho = 0.2: all 2 members diverged."
    assert " Against rho = 0.1: median moved by +0.75," in widgets.compare(rows, "sam", 0.4)  # 0.2 tells nothing


def test_compare_leaves_out_what_cannot_be_compared(rows):
    """One seed has no range; without validation data there is no loss."""
    single = [row | {"val_loss": None} for row in rows if row["seed"] == 0]
    assert widgets.compare(single, "sam", 0.2) == (
        "rho = 0.2: median g 9.6, seeds 9.6 to 9.6; no validation loss. Against rho = 0.1: median moved by +0.6."
    )


def test_compare_tells_variants_of_a_method_apart(rows):
    clean = {"rho": 0.2, "theta_grad": "clean"}
    rows += [rows[4] | {"label": "sam:rho=0.2,theta_grad=clean", "settings": clean, "theta_hat": {"g": 1.0}}]
    assert "median g 9.65," in widgets.compare(rows, "sam", 0.2)
    assert "median g 1," in widgets.compare(rows, "sam:theta_grad=clean", 0.2)
    legend = widgets.draw_setting(rows, "sam:theta_grad=clean", 0.2).axes[0].get_legend()
    assert {text.get_text() for text in legend.get_texts()} == {"erm", "sam:theta_grad=clean"}


def test_a_table_made_of_two_is_read_row_by_row(rows):
    """Joined tables have each row number twice."""
    both = pd.concat([pd.DataFrame(rows[:4]), pd.DataFrame(rows[4:])])
    assert widgets.compare(both, "sam", 0.2) == widgets.compare(rows, "sam", 0.2)


@pytest.mark.parametrize(
    ("method", "value", "error", "message"),
    [("sam", 0.3, ValueError, "sam was not run with rho=0.3; run: 0, 0.1, 0.2, 0.4"), ("asam", 1, KeyError, "asam")],
)
def test_settings_that_were_not_run_are_refused(rows, method, value, error, message):
    with pytest.raises(error, match=message):
        widgets.compare(rows, method, value)


@pytest.mark.parametrize(("value", "place"), [(0.2, 0.2), (0.4, 0.4), (0.0, 0.05)])
def test_the_picture_marks_the_setting_in_its_place(rows, value, place):
    """Also where a weaker one has no member left: 0 is drawn one step left of the smallest."""
    for row in rows:
        if row["settings"].get("rho") == 0.1:
            row["status"] = "diverged"
    ax = widgets.draw_setting(rows, "sam", value).axes[0]
    (mark,) = [line for line in ax.lines if line.get_linewidth() == 14]
    assert mark.get_xdata() == pytest.approx([place] * 2)


def test_the_explorer_shows_what_its_controls_say(rows):
    panel = widgets.rho_explorer(rows, truth=9.81, unit="m/s^2")
    control = parts(panel)
    method, slider, text, shown, table = (control[k] for k in ("method", "rho", "1", "2", "3"))

    def state():
        sentence = widgets.compare(rows, method.value, slider.value, truth=9.81, unit="m/s^2")
        assert text_of(text) == Page(shown.value).attributes["alt"] == sentence
        names, *cells = Page(table.value).rows
        return pd.DataFrame(cells, columns=names), pixels(shown)

    seeds, first = state()
    assert (method.value, slider.value) == ("sam", 0.0)
    assert list(seeds) == ["seed", "validation loss", "status", "g [m/s^2]"]
    assert seeds["g [m/s^2]"].tolist() == ["8", "9"]
    slider.value = 0.4
    seeds, second = state()
    assert seeds["status"].tolist() == ["ok", "diverged"]
    assert np.abs(first - second).max() > 0
    method.value = "wd"
    seeds, third = state()
    assert (slider.description, [v for _, v in slider.options], slider.value) == ("lam", [0.0, 1.0], 0.0)
    assert np.abs(second - third).max() > 0
    slider.value = 1.0
    assert state()[0]["g [m/s^2]"].tolist() == ["7", "7"]
    method.value = "sam"
    assert (slider.description, slider.value) == ("rho", 0.0)
    state()


def test_runs_frames_and_records_look_the_same(pendulum):
    said = {kind: widgets.compare(found, "sam", 0.2) for kind, found in pendulum.items()}
    assert len(set(said.values())) == 1
    panels = {kind: parts(widgets.rho_explorer(found)) for kind, found in pendulum.items()}
    assert len({p["3"].value for p in panels.values()}) == 1
    assert len({p["2"].value for p in panels.values()}) == 1


# The valley.


@pytest.fixture
def found():
    torch.manual_seed(0)
    return surface(hs.Landscape(Line(), DATA), size=5)


def test_a_point_is_said_with_the_surface_s_numbers(found):
    loss = found.losses[1, 3]
    assert widgets.describe_point(found, 1, 3) == (
        f"slope = {found.thetas[3]:.4g} N/m, step -0.50 of phi: loss {loss:.3g}, "
        f"{loss / found.value:.3g} times the trained model's. "
        f"At this step it is lowest at slope = {found.thetas[found.losses[1].argmin()]:.4g}."
    )


def test_where_the_solver_fails_the_loss_is_infinite(found):
    found.losses[1, 3] = np.inf
    assert ": the loss is infinite. At this step it is lowest at slope" in widgets.describe_point(found, 1, 3)
    ax = widgets.draw_point(found, 1, 3).axes[1]
    assert np.isnan(ax.lines[0].get_ydata()[3])
    found.losses[1] = np.inf
    assert widgets.describe_point(found, 1, 3).endswith("the loss is infinite, as it is for every theta at this step.")
    widgets.draw_point(found, 1, 3)


def test_a_point_is_drawn_on_the_surface_and_on_its_section(found):
    left, right = widgets.draw_point(found, 1, 3, truth=2.0).axes[:2]
    assert left.lines[-1].get_xydata().tolist() == [[found.thetas[3], -0.5]]
    assert right.lines[0].get_ydata().tolist() == found.losses[1].tolist()
    assert right.lines[1].get_xydata().tolist() == [[found.thetas[3], found.losses[1, 3]]]
    assert right.get_ylabel() == "loss at step -0.50"


def test_the_landscape_shows_where_its_sliders_are():
    torch.manual_seed(0)
    model, other = Line(), Line()
    panel = widgets.landscape(model, DATA, other=other, models={"erm": model}, truth=2.0, size=5)
    control = parts(panel)
    theta, phi, text, shown = (control[k] for k in ("slope", "step of phi", "1", "2"))
    found = surface(hs.Landscape(model, DATA), other=other, models={"erm": model}, size=5)
    assert phi.value == 1  # steps -0.25, 0.125, ...: the nearest to the model itself
    assert theta.value == np.abs(found.thetas - found.entry.value).argmin()
    pictures = [pixels(shown)]
    for move in ((theta, 4), (phi, 3)):
        move[0].value = move[1]
        sentence = widgets.describe_point(found, phi.value, theta.value)
        assert text_of(text) == Page(shown.value).attributes["alt"] == sentence
        pictures.append(pixels(shown))
        assert np.abs(pictures[-1] - pictures[-2]).max() > 0


def test_the_landscape_is_of_the_loss_that_was_given():
    def triple(prediction, target):
        return 3 * ((prediction - target) ** 2).mean()

    torch.manual_seed(0)
    model = Line()
    panels = [widgets.landscape(model, DATA, size=3, **loss) for loss in ({}, {"loss": triple})]
    numbers = [float(text_of(parts(p)["1"]).partition("loss ")[2].partition(",")[0]) for p in panels]
    assert numbers[1] == pytest.approx(3 * numbers[0], rel=0.02)  # three digits are said


# The monitor.


def watch(gate, methods=("sam:rho=0.1",), model=Line, look=(), **options):
    known = {"methods": list(methods), "seeds": [0, 1], "steps": 6, "batch_size": 8}
    return widgets.monitor(gate.fit, model, DATA, DATA, **dict(look), **{**known, **options})


def test_buttons_and_the_field_act_without_a_loop(gate):
    seen = watch(gate, look={"truth": 2.0, "unit": "N/m"})
    control = parts(seen.panel)
    pause, resume, stop, rho, progress = (control[k] for k in ("Pause", "Resume", "Stop", "rho", "steps"))
    text, shown = control["2"], control["3"]
    assert gate.done.get(timeout=SECONDS) == 1
    assert repr(seen) == "Monitor(sam:rho=0.1: training, step 1 of 6)"
    assert text_of(text).startswith("sam:rho=0.1: training, step 1 of 6. Training loss ")
    assert Page(shown.value).attributes["alt"] == text_of(text)
    assert (progress.value, progress.max, rho.value) == (1, 6, 0.1)
    assert [b.disabled for b in (pause, resume, stop, rho)] == [False, True, False, False]
    first = pixels(shown)

    pause.click()
    assert seen.run.state == "paused"
    assert "paused" in text_of(text)
    assert [b.disabled for b in (pause, resume, stop, rho)] == [True, False, False, False]
    resume.click()
    assert [b.disabled for b in (pause, resume, stop, rho)] == [False, True, False, False]

    rho.value = 0.3
    assert gate.step() == 2
    assert gate.step() == 3
    seen.refresh()
    assert text_of(text).startswith("sam:rho=0.1 then 0.3 from step 2: training, step 3 of 6.")
    assert (progress.value, rho.value) == (3, 0.3)
    assert np.abs(first - pixels(shown)).max() > 0

    stop.click()
    gate.let(10)
    runs = seen.wait(SECONDS)
    assert [m.status for m in runs.members] == ["stopped"] * 2
    assert seen.runs is runs
    assert "stopped, step 4 of 6" in text_of(text)
    assert [b.disabled for b in (pause, resume, stop, rho)] == [True] * 4


@pytest.fixture
def sketched(monkeypatch):
    """Pictures are not turned into pixels, which takes most of the time."""
    monkeypatch.setattr("hybridsam_lite.widgets.training.as_picture", lambda drawn, text: said(text))


def test_rho_is_that_of_the_stack_in_training(gate, sketched):
    labels = ["erm", "sam:rho=0.1", "sam:rho=0.2", "asam:rho=1"]
    seen = watch(gate, labels, seeds=[0], steps=2)
    rho = parts(seen.panel)["rho"]
    assert (rho.disabled, rho.value) == (True, 0.0)
    found = []
    for step in (1, 2, 1, 2, 1):
        assert gate.done.get(timeout=SECONDS) == step
        seen.refresh()
        found.append((rho.disabled, rho.value))
        gate.let()
    assert found == [(True, 0.0)] * 2 + [(False, 0.1)] * 2 + [(False, 1.0)]
    gate.let(10)
    assert [m.method.label for m in seen.wait(SECONDS).members] == labels  # showing a value sets none


def test_why_a_change_was_refused_is_said(gate, sketched, tmp_path):
    seen = watch(gate, checkpoint=tmp_path)
    gate.done.get(timeout=SECONDS)
    control = parts(seen.panel)
    control["rho"].value = 0.3
    gate.step()
    seen.refresh()
    assert "Not changed: rho cannot be changed in a run with a checkpoint" in text_of(control["2"])


def test_why_a_training_failed_is_said(gate, sketched):
    def broken(*arguments, callback, **options):
        def fail(training):
            callback(training)
            if training.step == 2:
                raise ZeroDivisionError("my <own> fault")

        return gate.fit(*arguments, callback=fail, **options)

    seen = widgets.monitor(broken, Line, DATA, methods=["erm"], seeds=[0], steps=6)
    gate.let(10)
    with pytest.raises(ZeroDivisionError):
        seen.wait(SECONDS)
    control = parts(seen.panel)
    assert text_of(control["2"]).startswith("erm: failed, step 2 of 6.")
    assert text_of(control["2"]).endswith(" ZeroDivisionError: my <own> fault")
    assert control["Stop"].disabled


class Two(Line):
    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(slope=hs.Real(init=1.0), other=hs.Real(init=1.0))

    def forward(self, x):
        return super().forward(x) + self.theta.other * x**2


def test_a_theta_that_is_not_clear_is_an_error_and_nothing_trains_on(gate):
    with pytest.raises(ValueError, match="the table has theta: slope, other"):
        watch(gate, model=Two)
    gate.let(10)
    gate.join()
    assert gate.done.qsize() < 6
    seen = watch(gate, model=Two, look={"name": "other"})
    assert "Training loss" in text_of(parts(seen.panel)["2"])


def test_a_model_without_global_theta_can_be_watched(gate):
    seen = watch(gate, model=functools.partial(hs.mlp, 1, [4], 1))
    pixels(parts(seen.panel)["3"])


def test_a_notebook_shows_the_panel(gate, sketched, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    seen = watch(gate)
    seen._ipython_display_()
    assert shown == [seen.panel]


@pytest.mark.parametrize("end", ["done", "stopped", "failed"])
def test_in_a_loop_the_panel_follows_by_itself(gate, sketched, monkeypatch, end):
    monkeypatch.setattr("hybridsam_lite.widgets.training.REFRESH", 0.0)

    def fit(*arguments, callback, **options):
        def act(training):
            callback(training)
            if training.step == 4 and end == "failed":
                raise ZeroDivisionError

        return gate.fit(*arguments, callback=act, **options)

    async def scenario():
        seen = widgets.monitor(fit, Line, DATA, methods=["sam:rho=0.1"], seeds=[0], steps=6)
        control = parts(seen.panel)
        text, arrived = control["2"], asyncio.Event()
        wanted = "step 3 of 6"

        def look(change):
            if wanted in change["new"]:
                arrived.set()

        text.observe(look, "value")
        gate.let(2)
        await asyncio.wait_for(arrived.wait(), SECONDS)
        assert control["steps"].value == 3
        arrived.clear()
        wanted = f": {end}, "
        if end == "stopped":
            control["Stop"].click()
        gate.let(10)
        await asyncio.wait_for(arrived.wait(), SECONDS)
        assert text_of(control["3"]) == text_of(text)  # of the same moment
        assert all(control[k].disabled for k in ("Pause", "Resume", "Stop", "rho"))

    asyncio.run(scenario())


def test_a_loop_that_is_closed_stops_nothing(gate, sketched):
    async def scenario():
        return watch(gate)

    seen = asyncio.run(scenario())
    gate.let(10)
    assert [m.status for m in seen.wait(SECONDS).members] == ["ok"] * 2
