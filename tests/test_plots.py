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

from hybridsam_lite import plots

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


def test_the_library_does_not_load_matplotlib():
    code = "import sys, hybridsam_lite.plots; assert 'matplotlib' not in sys.modules"
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
    assert len(ax.lines[4].get_ydata()) == 2
    records["status"] = "diverged"
    assert "(3 diverged)" in plots.theta_by_method(records).get_xticklabels()[0].get_text()


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


def test_trajectories_takes_tensors_and_one_quantity_only():
    t = torch.linspace(0, 1, 5)
    ax = plots.trajectories(t, t**2, {"hybrid": t.clone().requires_grad_()}, name="x", unit="m")
    assert [line.get_label() for line in ax.lines] == ["data", "hybrid"]
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
