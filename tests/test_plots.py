"""The plotting style: colours that can be told apart, and figures that show what the table says."""

import itertools
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import hybridsam_lite as hs
from hybridsam_lite import plots
from hybridsam_lite.plots.look import few_ticks
from hybridsam_lite.plots.look import width as plots_width
from hybridsam_lite.select import Choice

CONCEPTS = ("data", "truth", "physics", "network", "hybrid")
METHODS = ("erm", "wd", "fn", "sam", "asam", *plots.SPARE)

# Machado, Oliveira and Fernandes 2009, severity 1: what a dichromat sees, in linear RGB.
VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def records():
    """As a task writes them: two methods, three seeds, one member diverged."""
    rows = []
    for label, settings in (
        ("erm", {}),
        ("sam:rho=0.1", {"rho": 0.1}),
        ("sam:rho=0.2", {"rho": 0.2}),
    ):
        for seed in range(3):
            g = 9.0 + 0.1 * seed + settings.get("rho", 0)
            row = {"label": label, "settings": settings, "seed": seed, "status": "ok"}
            rows.append(row | {"theta_hat": {"g": g}, "theta_error": 9.81 - g, "val_loss": 0.1})
    rows[-1] |= {
        "status": "diverged",
        "theta_hat": {"g": float("nan")},
        "theta_error": float("nan"),
    }
    return pd.DataFrame(rows)


def legend_is_above(ax):
    """Where it hides no data, and within the figure."""
    ax.figure.canvas.draw()
    legend = ax.get_legend().get_window_extent()
    return legend.y0 >= ax.get_window_extent().y1 and legend.x1 <= ax.figure.bbox.x1


def linear(name):
    rgb = np.array(matplotlib.colors.to_rgb(plots.COLORS.get(name, name)))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("name", CONCEPTS + METHODS)
def test_colours_have_the_contrast_that_graphics_need(name):
    luminance = linear(name) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) > 3  # WCAG 1.4.11, on the figures' white ground


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("group", [CONCEPTS, METHODS])
def test_colours_of_a_group_stay_apart(vision, group):
    seen = {name: lab(VISION[vision] @ linear(name)) for name in group}
    for a, b in itertools.combinations(group, 2):
        # A just noticeable difference is about 2.3; the closest pair here has 19.9.
        assert np.linalg.norm(seen[a] - seen[b]) > 15, (a, b)


def test_one_colour_per_concept():
    assert len(set(plots.COLORS.values()) | set(plots.SPARE)) == len(CONCEPTS + METHODS)
    assert set(plots.MARKERS) == set(plots.COLORS) - set(CONCEPTS)


def test_color_ignores_settings_and_tells_strangers_apart():
    assert plots.color("sam:rho=0.1,theta_grad=clean") == plots.COLORS["sam"]
    labels = ["erm", "noise:sigma=0.1", "noise:sigma=0.2", "swa"]
    assert plots.color("noise:sigma=0.2", labels) == plots.SPARE[0]
    assert plots.color("swa", labels) == plots.SPARE[1]


def test_the_library_loads_neither_matplotlib_nor_ipywidgets():
    code = "import sys, hybridsam_lite; assert not {'matplotlib', 'ipywidgets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_style_leaves_the_session_alone_and_use_style_does_not():
    with matplotlib.rc_context():
        matplotlib.rcParams["font.size"] = 7
        with plots.style():
            assert matplotlib.rcParams["font.size"] == 10
        assert matplotlib.rcParams["font.size"] == 7
        plots.use_style()
        assert matplotlib.rcParams["font.size"] == 10
        assert matplotlib.rcParams["figure.facecolor"] == "white"


@pytest.mark.parametrize(("low", "high", "few"), [(2.0, 9.0, True), (1.50, 1.62, True), (1e-4, 2e-3, False)])
def test_a_logarithmic_axis_of_less_than_a_decade_has_a_few_round_ticks(low, high, few):
    with plots.style():
        ax = plt.subplots()[1]
        ax.set(yscale="log", ylim=(low, high))
        few_ticks(ax.yaxis)
    ax.figure.canvas.draw()
    ticks = [t for t in ax.get_yticks() if low <= t <= high]
    texts = [t.get_text() for t in ax.get_yticklabels(which="both") if t.get_text()]
    if few:
        assert 2 <= len(ticks) <= 6
        assert [float(text) for text in texts if low <= float(text) <= high] == pytest.approx(ticks)
    else:
        assert all("10^" in text for text in texts)


def test_every_figure_is_as_wide_as_the_text_on_white(records):
    for ax in (plots.theta_by_method(records), plots.theta_against_setting(records)):
        assert ax.figure.get_size_inches()[0] == plots.WIDTH
        assert ax.figure.get_facecolor() == (1, 1, 1, 1)


def test_theta_by_method_draws_every_seed_and_its_median(records):
    ax = plots.theta_by_method(records, truth=9.81, unit="m/s^2")
    points, median = ax.lines[0], ax.lines[1]
    assert points.get_ydata() == pytest.approx([9.0, 9.1, 9.2])
    assert median.get_ydata() == pytest.approx([9.1, 9.1])
    assert ax.lines[-1].get_ydata() == pytest.approx([9.81, 9.81])
    assert ax.get_ylabel() == "g [m/s^2]"


def test_theta_by_method_counts_diverged_runs(records):
    ax = plots.theta_by_method(records)
    ticks = [tick.get_text() for tick in ax.get_xticklabels()]
    assert ticks == ["erm", "sam\nrho=0.1", "sam\nrho=0.2\n(1 diverged)"]
    assert not ax.get_xticklabels()[0].get_rotation()
    assert len(ax.lines[4].get_ydata()) == 2
    records["status"] = "diverged"
    assert "(3 diverged)" in plots.theta_by_method(records).get_xticklabels()[0].get_text()


def test_the_labels_of_many_columns_are_turned_and_do_not_overlap(records):
    many = pd.concat([records, *(records.iloc[[i]].assign(label=f"wd:lam={i / 1000}") for i in range(9))])
    ax = plots.theta_by_method(many)
    ax.figure.canvas.draw()
    labels = ax.get_xticklabels()
    assert labels[2].get_text() == "sam:rho=0.2 (1 diverged)"
    # Turned about their ends, parallel lines of text: apart by the columns' distance times the sine of the angle.
    assert labels[0].get_rotation() == 40
    apart = plots_width(ax) / len(labels) * np.sin(np.radians(40))
    assert apart > labels[0].get_fontsize() / 72


def test_theta_by_method_shows_errors_on_a_log_axis(records):
    ax = plots.theta_by_method(records, name="g", error=True)
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == "error of g"
    assert ax.lines[0].get_ydata() == pytest.approx([0.81, 0.71, 0.61])


def test_theta_by_method_reads_runs_tables_and_plain_numbers():
    table = pd.DataFrame({"label": ["erm"] * 2, "theta.a": [1.0, 2.0], "theta.b": [3.0, 4.0]})
    assert plots.theta_by_method(table, name="b").lines[0].get_ydata() == pytest.approx([3, 4])
    plain = pd.DataFrame({"label": ["erm"], "theta_hat": [5.0]})
    assert plots.theta_by_method(plain).get_ylabel() == "theta"


@pytest.mark.parametrize(
    ("columns", "name", "message"),
    [
        ({"theta.a": [1.0], "theta.b": [1.0]}, None, "a, b"),
        ({"theta.a": [1.0]}, "c", "name='c'"),
        ({}, None, "none"),
        ({"theta.a": [[1.0, 2.0]]}, "a", "take one entry"),
    ],
)
def test_unclear_theta_is_refused(columns, name, message):
    with pytest.raises(ValueError, match=message):
        plots.theta_by_method(pd.DataFrame({"label": ["erm"], **columns}), name=name)


def test_history_draws_each_member_once_and_each_label_once_in_the_legend():
    table = pd.DataFrame(
        {
            "member": [0, 0, 1, 1],
            "label": ["erm"] * 4,
            "step": [1, 2, 1, 2],
            "train_loss": [1.0, 0.5, 1.0, 0.4],
            "val_loss": [float("nan")] * 4,
            "theta.g": [9.0, 9.5, 8.0, 9.9],
        }
    )
    loss, theta = plots.history(table, truth=9.81)
    assert [list(line.get_ydata()) for line in loss.lines] == [[1.0, 0.5], [1.0, 0.4]]
    assert [list(line.get_ydata()) for line in theta.lines[:2]] == [[9.0, 9.5], [8.0, 9.9]]
    assert len(loss.get_legend().get_texts()) == 1
    assert loss.get_ylabel() == "training loss"
    given = plt.subplots(1, 2)[1]
    assert plots.history(table, ax=given)[0] is given[0]


def course(label, member, **columns):
    steps = {"step": [1, 2, 3], "train_loss": [1.0, 0.5, 0.3], "val_loss": [1.1, 0.6, 0.4], "theta.g": [9.0, 9.4, 9.7]}
    return pd.DataFrame({"member": member, "label": label, **steps, **columns})


def test_history_tells_settings_of_one_method_apart_by_their_dashes():
    table = pd.concat([course("sam:rho=0.1", 0), course("erm", 1), course("sam:rho=0.2", 2), course("sam:rho=0.2", 3)])
    for ax in plots.history(table):
        looks = [(line.get_color(), line.get_linestyle()) for line in ax.lines]
        sam, erm = plots.COLORS["sam"], plots.COLORS["erm"]
        assert looks == [(sam, "-"), (erm, "-"), (sam, "--"), (sam, "--")]
        # A table that was joined has each row number several times; each curve has its own rows all the same.
        assert all(len(line.get_xdata()) == 3 for line in ax.lines)


def test_history_of_a_member_whose_settings_changed_has_a_part_for_each_and_a_legend_inside_its_axes():
    long = "sam:rho=0.1 then 0.25 from step 2"
    table = course(["sam:rho=0.1", "sam:rho=0.1", long], 0)
    left, right = plots.history(table)
    assert [list(line.get_xdata()) for line in left.lines] == [[1, 2], [3]]
    assert [list(line.get_ydata()) for line in right.lines] == [[9.0, 9.4], [9.7]]
    left.figure.canvas.draw()
    legend = left.get_legend()
    assert [text.get_text().replace("\n", " ") for text in legend.get_texts()] == ["sam:rho=0.1", long]
    assert legend.get_window_extent().x1 < right.get_window_extent().x0


def test_history_leaves_out_steps_without_a_validation():
    left, right = plots.history(course("erm", 0, val_loss=[1.1, np.nan, 0.4]))
    assert list(left.lines[0].get_xdata()) == [1, 3]
    assert list(right.lines[0].get_xdata()) == [1, 2, 3]
    assert left.get_ylabel() == "validation loss"


def test_history_without_global_theta_shows_the_loss_and_says_so():
    left, right = plots.history(course("erm", 0).drop(columns="theta.g"))
    assert list(left.lines[0].get_ydata()) == [1.1, 0.6, 0.4]
    assert [text.get_text() for text in right.texts] == ["inferred per sample"]
    with pytest.raises(ValueError, match="name='g', but the table has theta: none"):
        plots.history(course("erm", 0).drop(columns="theta.g"), name="g")


def test_history_of_several_theta_needs_a_name():
    table = course("erm", 0, **{"theta.b": [1.0, 2.0, 3.0]})
    assert list(plots.history(table, name="b", unit="N")[1].lines[0].get_ydata()) == [1, 2, 3]
    with pytest.raises(ValueError, match="g, b"):
        plots.history(table)


def test_trajectories_takes_tensors_and_one_quantity_only():
    t = torch.linspace(0, 1, 5)
    ax = plots.trajectories(t, t**2, {"hybrid": t.clone().requires_grad_()}, name="x", unit="m")
    assert [line.get_label() for line in ax.lines] == ["data", "hybrid"]
    assert [line.get_ydata().tolist() for line in ax.lines] == [(t**2).tolist(), t.tolist()]
    assert [line.get_color() for line in ax.lines] == [plots.COLORS["data"], plots.COLORS["hybrid"]]
    assert legend_is_above(ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t [s]", "x [m]")
    with pytest.raises(ValueError, match="one quantity"):
        plots.trajectories(t, torch.zeros(5, 2), {})


def test_theta_against_setting_gives_plain_training_a_place_of_its_own(records):
    ax = plots.theta_against_setting(records, truth=9.81)
    by_label = {line.get_label(): line for line in ax.lines}
    x, y = next(c for c in ax.containers if c.get_label() == "erm").lines[0].get_data()
    assert x == pytest.approx([0.05])  # one step left of the smallest setting: 0.1^2 / 0.2
    assert y == pytest.approx([9.1])
    assert by_label["sam"].get_xdata() == pytest.approx([0.1, 0.2])
    # The member that diverged is left out of the median at rho = 0.2.
    assert by_label["sam"].get_ydata() == pytest.approx([9.2, 9.25])
    assert ax.get_xlabel() == "rho"


def test_theta_against_setting_draws_seeds_quartiles_and_the_loss(records):
    records["val_loss"] = [0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 9.0]
    ax = plots.theta_against_setting(records, truth=9.81, unit="m/s^2")
    (right,) = [other for other in ax.figure.axes if other is not ax]
    seeds = [line for line in ax.lines if line.get_linestyle() == "None" and line.get_alpha() == 0.35]
    assert sorted(np.concatenate([line.get_ydata() for line in seeds])) == pytest.approx(
        [9.0, 9.1, 9.1, 9.2, 9.2, 9.2, 9.3, 9.3]  # the diverged one is not among them
    )
    (band,) = [c for c in ax.collections if type(c).__name__ in ("FillBetweenPolyCollection", "PolyCollection")]
    corners = band.get_paths()[0].vertices
    assert corners[corners[:, 0] == 0.1, 1].min() == pytest.approx(9.15)  # quartiles of 9.1, 9.2, 9.3
    assert corners[corners[:, 0] == 0.1, 1].max() == pytest.approx(9.25)
    curves = {line.get_color(): line.get_xydata() for line in right.lines}
    assert curves[plots.COLORS["sam"]] == pytest.approx(np.array([[0.1, 0.3], [0.2, 0.6]]))
    assert curves[plots.COLORS["erm"]] == pytest.approx(np.array([[0.05, 0.1]]))
    assert (ax.get_ylabel(), right.get_ylabel()) == ("g [m/s^2]", "validation loss (dotted)")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "0.1", "0.2"]
    assert legend_is_above(ax)


def test_theta_against_setting_counts_diverged_members_where_they_were(records):
    records.loc[records["label"] == "sam:rho=0.1", "status"] = "diverged"
    ax = plots.theta_against_setting(records)
    crosses = {line.get_xdata()[0]: line for line in ax.lines if line.get_marker() == "x"}
    assert sorted(crosses) == [0.1, 0.2]
    assert {text.xy[0]: text.get_text() for text in ax.texts} == {0.1: "3", 0.2: "1"}
    assert [t.get_text() for t in ax.get_legend().get_texts()].count("diverged") == 1


def choice(value, method="sam"):
    return Choice(method, "rho", None if value is None else f"{method}:rho={value}", value, (), pd.DataFrame())


@pytest.mark.parametrize(("value", "text"), [(0.2, "sam (0.2 selected)"), (None, "sam (undecided)")])
def test_theta_against_setting_shows_what_was_selected(records, value, text):
    for given in (choice(value), {"sam": choice(value), "asam": choice(0.1, "asam")}):
        ax = plots.theta_against_setting(records, choice=given)
        assert text in [t.get_text() for t in ax.get_legend().get_texts()]
        lines = [line.get_xdata() for line in ax.lines if line.get_color() == plots.COLORS["sam"]]
        assert [x for x in lines if len(x) == 2 and x[0] == x[1]] == ([[value, value]] if value else [])


def test_theta_against_setting_has_a_curve_for_each_variant_of_a_method(records):
    clean = records[records["label"].str.startswith("sam")].copy()
    clean["settings"] = [{**settings, "theta_grad": "clean"} for settings in clean["settings"]]
    clean["label"] += ",theta_grad=clean"
    ax = plots.theta_against_setting(pd.concat([records, clean]))
    dashes = {line.get_label(): line.get_linestyle() for line in ax.lines if line.get_label().startswith("sam")}
    assert dashes == {"sam": "-", "sam:theta_grad=clean": "--"}


def test_theta_against_setting_leaves_out_other_settings_and_what_was_changed_on_the_way(records):
    rows = records.to_dict("records")
    more = [
        rows[3] | {"label": "wd:lam=1", "settings": {"lam": 1.0}},
        rows[3] | {"label": "sam:rho=0.1 then 0.2 from step 3", "settings": {"rho": "0.1 then 0.2 from step 3"}},
        rows[3] | {"label": "physics", "settings": {}, "theta_hat": {"g": 5.0}},
    ]
    labels = [t.get_text() for t in plots.theta_against_setting(rows + more).get_legend().get_texts()]
    # What has no place on the axis but no other setting either is a line at its median.
    assert set(labels) == {"erm", "sam", "sam:rho=0.1 then 0.2 from step 3", "physics", "diverged"}
    with pytest.raises(ValueError, match="no method here has the setting 'mu' as a number; got: "):
        plots.theta_against_setting(rows, setting="mu")


def test_only_as_many_settings_are_named_as_can_be_read():
    grid = np.geomspace(0.01, 1, 30)
    table = pd.DataFrame({"label": [f"sam:rho={r:g}" for r in grid], "settings": [{"rho": r} for r in grid]})
    ax = plots.theta_against_setting(table.assign(val_loss=0.1, **{"theta.g": 1.0}))
    ax.figure.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.get_xticklabels()]
    assert 6 < len(boxes) < 16
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


# The L-curve.


def grid(losses, name="sam", key="rho", values=(0.1, 0.2, 0.4, 0.8)):
    return [
        {"label": f"{name}:{key}={v}", "settings": {key: v}, "val_loss": loss, "sharpness": 1 / v, "status": "ok"}
        for v, loss in zip(values, losses, strict=True)
    ]


def test_l_curve_joins_medians_and_rings_the_corner():
    rows = grid([1.0, 1.0, 1.1, 9.0]) + grid([1.2, 1.2, 1.1, 9.0])
    rows[3]["status"] = "diverged"
    ax = plots.l_curve(rows)
    by_label = {line.get_label(): line.get_xydata() for line in ax.lines}
    assert by_label["sam"] == pytest.approx(np.array([[0.1, 1.1], [0.2, 1.1], [0.4, 1.1], [0.8, 9.0]]))
    assert by_label["corner"] == pytest.approx(np.array([[0.4, 1.1]]))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale(), ax.get_yscale()) == (
        "rho",
        "validation loss",
        "log",
        "log",
    )
    assert legend_is_above(ax)


def test_l_curve_over_a_column_writes_the_settings_beside_the_points():
    rows = grid([1.0, 1.0, 1.1, 9.0]) + grid([1.0, 2.0, 3.0, 4.0], "wd", "lam")
    ax = plots.l_curve([*rows, {**rows[0], "label": "erm", "settings": {}}], "sharpness")
    assert {line.get_label() for line in ax.lines} >= {"sam", "wd"}
    sam = next(line for line in ax.lines if line.get_label() == "sam")
    assert sam.get_xydata() == pytest.approx(np.array([[10, 1.0], [5, 1.0], [2.5, 1.1], [1.25, 9.0]]))
    assert sorted(text.get_text() for text in ax.texts) == sorted(["0.1", "0.2", "0.4", "0.8"] * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rho", "height"), "no column 'height'"),
        (("lam",), "'lam' is neither a column nor a setting; settings: \\['rho'\\]"),
    ],
)
def test_l_curve_names_what_is_not_there(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.l_curve(grid([1.0, 1.0, 1.1, 9.0]), *arguments)


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [
        ([1, 10, 100, 1000], [1, 1, 1, 1000], 2),
        ([1, 10, 100], [1, 10, 100], None),  # straight
        ([1, 10, 100], [1, 50, 100], None),  # bent the other way
        ([1, 10], [1, 2], None),
        ([1, 10, 100], [1, float("nan"), 100], None),
        ([0, 10, 100], [1, 2, 100], None),
        ([5, 5, 5], [1, 2, 100], None),
    ],
)
def test_corner_is_the_point_furthest_below_the_chord(x, y, place):
    assert plots.corner(x, y) == place


# Figures of one model.


class Additive(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.theta, self.w = hs.Theta(k=hs.Real(init=1.0, unit="N/m")), torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        physics, network = self.theta.k * x, self.w * x**3
        return hs.Prediction(physics + network, network=network, physics=physics)


X = torch.linspace(-1, 1, 16)[:, None]


@pytest.fixture(scope="module")
def place():
    wave = 0.1 * torch.sin(9 * X)
    return hs.Landscape(Additive(), (X, X + 0.5 * X**3 + wave))


def test_a_profile_is_drawn_with_its_limit_and_what_it_does_not_rule_out(place):
    curve = hs.profile(place, "k", grid=[0.0, 0.5, 0.9, 1.1, 1.5, 2.0], steps=10)
    ax = plots.profile(curve, truth=1.0)
    line, limit, trained, truth = ax.lines
    assert list(line.get_xdata()) == curve.grid
    assert list(line.get_ydata()) == curve.losses
    assert limit.get_ydata() == pytest.approx([curve.threshold] * 2)
    assert trained.get_xydata() == pytest.approx(np.array([[1.0, curve.reference]]))
    assert truth.get_xdata() == [1.0, 1.0]
    (span,) = ax.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((curve.low, curve.high))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("k [N/m]", "loss, all else refitted")
    assert legend_is_above(ax)


def test_an_open_profile_is_shaded_to_the_end_of_its_grid(place):
    curve = hs.profile(place, "k", grid=[0.99, 1.01], steps=5)
    (span,) = plots.profile(curve).patches
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((0.99, 1.01))


def test_a_nested_model_has_no_shares_and_no_axis_for_them():
    report = hs.diagnose(hs.mlp(1, [2], 1), (X, 2 * X), theta=["2.bias"], profiles=[], steps=3)
    left, _, right = plots.diagnosis(report)
    assert [text.get_text() for text in left.texts] == ["no profile"]
    assert [text.get_text() for text in right.texts] == ["nested:\nnot defined"]
    assert not len(right.get_xticks())
    assert not len(right.get_yticks())


def test_a_surface_is_the_loss_in_its_plane(place):
    """Theta along one axis; along the other the cubic term that makes up for it, by least squares."""
    found = plots.surface(place, size=5)
    assert found.thetas == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    assert found.steps == pytest.approx([-1.0, -0.5, 0.0, 0.5, 1.0])
    x, cubic = X.double(), X.double() ** 3
    y = x + 0.5 * cubic + 0.1 * torch.sin(9 * x)
    price = 1 + 1e-3  # of a step in phi, relative to the only curvature that there is
    along = -(x * cubic).sum() / (cubic * cubic).sum() / price
    for i, step in enumerate(found.steps):
        for j, theta in enumerate(found.thetas):
            loss = ((theta * x + (0.5 + step * along) * cubic - y) ** 2).mean().item()
            assert found.losses[i, j] == pytest.approx(loss, rel=1e-4)


def test_a_surface_through_two_models_has_both_where_they_are(place):
    other = Additive()
    with torch.no_grad():
        other.w.fill_(2.5)
        other.theta.raw["k"].add_(1.0)
    found = plots.surface(place, other=other, models={"a": place.model, "b": other}, size=7)
    assert found.points["a"] == pytest.approx((1.0, 0.0))
    assert found.points["b"] == pytest.approx((2.0, 1.0))
    assert found.thetas[0] < 1 < 2 < found.thetas[-1]
    assert (found.steps[0], found.steps[-1]) == (-0.25, 1.25)
    with pytest.raises(ValueError, match="expected a model with 2 trained parameters"):
        plots.surface(place, other=hs.mlp(1, [2], 1))


def test_a_surface_through_two_models_ends_where_theta_must(place):
    class Bound(Additive):
        def __init__(self, k):
            super().__init__()
            self.theta = hs.Theta(k=hs.Interval(0.0, 3.0, init=k))

    found = plots.surface(hs.Landscape(Bound(0.1), (X, X)), other=Bound(2.9), size=5)
    assert 0.0 < found.thetas[0] < 0.1
    assert 2.9 < found.thetas[-1] < 3.0
    assert np.isfinite(found.losses).all()


@pytest.mark.parametrize("size", [1, 2.0, True])
def test_a_surface_of_one_point_is_refused(place, size):
    with pytest.raises(ValueError, match="size must be an integer > 1"):
        plots.surface(place, size=size)


def test_a_surface_is_drawn_with_the_models_in_it(place):
    found = plots.surface(place, size=7, models={"sam:rho=0.1": place.model})
    ax = plots.loss_surface(found, truth=1.2)
    drawn = {line.get_label(): line.get_xydata() for line in ax.lines}
    assert drawn["sam:rho=0.1"] == pytest.approx(np.array([[1.0, 0.0]]))
    assert "trained" not in drawn  # it is the model that the plane was made around
    assert drawn["truth"][:, 0] == pytest.approx([1.2, 1.2])
    assert ax.get_xlabel() == "k [N/m]"
    assert ax.get_ylabel().replace("\n", " ") == "step of phi (1 makes up for k + 1)"
    assert (ax.get_xlim(), ax.get_ylim()) == (pytest.approx((0, 2)), (-1, 1))
    assert legend_is_above(ax)


def test_a_truth_outside_of_the_plane_is_told_and_stretches_nothing(place):
    ax = plots.loss_surface(plots.surface(place, size=5), truth=30.0)
    assert ax.get_xlim() == pytest.approx((0, 2))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["trained", "truth: 30, outside"]


@pytest.mark.parametrize(("high", "ticks"), [(1.02, 3), (1e4, 5)])
def test_the_colour_bar_names_different_numbers(place, high, ticks):
    found = plots.surface(place, size=5)
    found.losses[:] = np.geomspace(1, high, 25).reshape(5, 5)
    bar = plots.loss_surface(found).figure.axes[1]
    bar.figure.canvas.draw()
    texts = [t.get_text() for t in bar.get_yticklabels() if t.get_text()]
    assert len(set(texts)) == len(texts) >= min(3, ticks)
    assert bar.get_ylabel() == "loss"


def test_a_surface_without_a_finite_loss_is_refused(place):
    found = plots.surface(place, size=3)
    found.losses[0] = np.inf
    plots.loss_surface(found)  # part of it may fail
    found.losses[:] = np.inf
    with pytest.raises(ValueError, match="nowhere finite and positive"):
        plots.loss_surface(found)
