"""Block diagrams: the wires as given, and a page on which nothing hides anything else."""

import itertools

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from hybridsam_lite import plots
from hybridsam_lite.plots import diagram
from hybridsam_lite.tasks.gallery import CARDS

ADDITIVE = "theta > physics > sum > y; x > network > sum; x > physics"
HARD = "a > b > c > d > e; a > c; a > d; a > e; b > d; b > e; theta > c; network: one > e; x > theta"


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def patches(ax, kind):
    return [patch for patch in ax.patches if isinstance(patch, kind)]


def frames(ax):
    """The extents of all blocks' frames on the canvas."""
    ax.figure.canvas.draw()
    return [p.get_window_extent() for p in patches(ax, (Circle, FancyBboxPatch))]


def curve(ax, arrow, count=60):
    """Points along an arrow's line on the canvas, without its ends."""
    corners = arrow._path_original.vertices
    t = np.linspace(0, 1, count)[:, None]
    cubics = [corners[i : i + 4] for i in range(0, len(corners) - 1, 3)]
    basis = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    points = np.concatenate([sum(b * p for b, p in zip(basis, cubic, strict=True)) for cubic in cubics])
    return ax.transData.transform(points[2:-2])


def test_blocks_wires_and_symbols_are_those_given():
    ax = plots.composition(ADDITIVE)
    assert [t.get_text() for t in ax.texts] == ["θ", "physics", "+", "y", "x", "network"]
    assert len(patches(ax, FancyArrowPatch)) == 6
    assert len(patches(ax, Circle)) == 1
    assert len(patches(ax, FancyBboxPatch)) == 3  # theta, physics and network; what goes in and out has no frame
    colors = [matplotlib.colors.to_hex(p.get_edgecolor()).upper() for p in patches(ax, FancyBboxPatch)]
    assert colors == [plots.COLORS[role] for role in ("physics", "physics", "network")]
    product = plots.composition("theta > physics > product > y; network: of x > product")
    assert {"×", "of x"} <= {t.get_text() for t in product.texts}


def test_the_longest_way_counts_and_inputs_stand_by_what_they_feed():
    columns, ways = diagram._columns(diagram._parse("a > b > c > y; a > y; late > y"))
    assert {name: columns[name] for name in ("a", "b", "c", "y", "late")} == {"a": 0, "b": 1, "c": 2, "y": 3, "late": 2}
    assert [len(ways[wire]) for wire in (("a", "b"), ("a", "y"), ("late", "y"))] == [2, 4, 2]


def test_wires_run_from_left_to_right_and_do_not_cross_without_need():
    ax = plots.composition("p > left > y; q > right > y; q > left")
    place = {t.get_text(): t.get_position() for t in ax.texts}
    assert place["p"][0] < place["left"][0] < place["y"][0]
    assert (place["p"][1] < place["q"][1]) == (place["left"][1] < place["right"][1])


@pytest.mark.parametrize("wires", [*(card.wires for card in CARDS.values()), HARD], ids=[*CARDS, "hard"])
def test_nothing_hides_anything(wires):
    with plots.style():
        ax = plots.composition(wires)
    boxes = frames(ax)
    for a, b in itertools.combinations(boxes, 2):
        assert not a.overlaps(b)
    page = ax.figure.bbox
    texts = [text.get_window_extent() for text in ax.texts]
    assert all(page.x0 <= t.x0 and t.x1 <= page.x1 and page.y0 <= t.y0 and t.y1 <= page.y1 for t in (*texts, *boxes))
    for text in texts:
        inside = [box for box in boxes if box.overlaps(text)]
        assert all(
            box.x0 <= text.x0 and text.x1 <= box.x1 and box.y0 <= text.y0 and text.y1 <= box.y1 for box in inside
        )
    for arrow in patches(ax, FancyArrowPatch):
        line = curve(ax, arrow)
        for box in (*boxes, *texts):
            within = (line > [box.x0 + 2, box.y0 + 2]) & (line < [box.x1 - 2, box.y1 - 2])
            assert not within.all(1).any()


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_readable_on_a_phone(name):
    """A figure as wide as the text, 6.4 inches, is 390 px wide there: 7 px are the least that a letter may have."""
    ax = plots.composition(CARDS[name])
    smallest = min(text.get_fontsize() for text in ax.texts)
    assert smallest / 72 * 390 / plots.WIDTH > 7
    assert ax.figure.get_facecolor() == (1, 1, 1, 1)
    assert ax.figure.get_size_inches()[0] == plots.WIDTH


def test_it_draws_where_it_is_told():
    given = plt.subplots()[1]
    assert plots.composition(ADDITIVE, ax=given) is given
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    ("wires", "said"), [("", "chains of blocks"), ("a >", "chains"), ("a > b > c > a", "circle"), ("a > a", "circle")]
)
def test_wires_that_cannot_be_drawn_are_refused(wires, said):
    with pytest.raises(ValueError, match=said):
        plots.composition(wires)
