"""How a hybrid is composed, as a block diagram from left to right."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import pairwise, permutations
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hybridsam_lite.plots.look import COLORS, WIDTH, width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hybridsam_lite.tasks.gallery.card import Card

__all__ = ["composition"]

SYMBOLS = {"sum": "+", "product": "×", "theta": "θ"}
ROLES = {"theta": "physics", "physics": "physics", "network": "network"}  # block -> whose colour it has
LETTERS, SIZES = 11, (6.0, 12.0)  # letters in a line of a label; points, smallest and largest font
EM, LINE = 0.62 / 72, 1.25 / 72  # inches for a letter and for a line, per point
PAD, GAP, ARRIVE = 0.09, (0.2, 0.6), 0.14  # inches: in a box; for an arrow, from and to; between two arrowheads

Wires = dict[str, list[str]]  # block -> the blocks that it feeds
Ways = dict[tuple[str, str], list[str]]  # wire -> its blocks, and its place in each column that it crosses
Column = dict[str, int]  # block or place -> column
Row = dict[str, float]  # block or place -> row, the top one the lowest


@dataclass(frozen=True)
class Box:
    """A block on the page, or the place where a wire crosses a column: centre and size in inches, and its text."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...] = ()
    round: bool = False

    def left(self, y: float) -> tuple[float, float]:
        """The point of its left edge at the height y."""
        half = self.width / 2
        return self.x - ((half**2 - (y - self.y) ** 2) ** 0.5 if self.round else half), y

    @property
    def right(self) -> tuple[float, float]:
        """The middle of its right edge."""
        return self.x + self.width / 2, self.y


def composition(card: Card | str, ax: Axes | None = None) -> Axes:
    """Draw the blocks of a hybrid and what feeds what.

    theta and physics have the colour of physics, networks have theirs; what goes in or comes out has no frame.

    Args:
        card: a card of the gallery, or its wires: chains of blocks, "theta > physics > sum > y; x > network > sum".
            "network: encoder" is a network with a name; "sum" and "product" are drawn as symbols.
        ax: where to draw, by default a new figure.

    Raises:
        ValueError: if there is no wire, or the wires go in a circle.

    >>> ax = composition("theta > physics > sum > y; x > network > sum")
    >>> [text.get_text() for text in ax.texts]
    ['θ', 'physics', '+', 'y', 'x', 'network']
    """
    from matplotlib import pyplot as plt

    wires = _parse(card if isinstance(card, str) else card.wires)
    columns, ways = _columns(wires)
    rows = _rows(columns, ways)
    total = WIDTH if ax is None else width(ax)
    boxes, size, height = _boxes(wires, columns, rows, total)
    if ax is None:
        figure = plt.figure(figsize=(total, height), facecolor="white", layout="none")
        ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, total), ylim=(height, 0), aspect="equal")
    ax.set_axis_off()
    for block in wires:
        _draw(ax, boxes[block], size, COLORS[ROLES.get(_role(block), "data")], _framed(block, wires))
    for way in ways.values():
        _arrow(ax, _points(way, ways, boxes))
    return ax


def _parse(text: str) -> Wires:
    """Blocks in the order of their first mention, and what each feeds."""
    chains = [[block.strip() for block in chain.split(">")] for chain in text.split(";")]
    if any(len(chain) < 2 or "" in chain for chain in chains):
        raise ValueError(f"composition: expected chains of blocks such as 'theta > physics > y; x > y', got {text!r}")
    wires: Wires = {block: [] for chain in chains for block in chain}
    for chain in chains:
        for block, target in pairwise(chain):
            if target not in wires[block]:
                wires[block].append(target)
    return wires


def _role(block: str) -> str:
    return block.partition(":")[0].strip()


def _place(name: str, wires: Wires) -> str:
    """Whether a block is a "start", an "end" or in between, an "inner" one (so are the places of a wire)."""
    fed = name not in wires or any(name in targets for targets in wires.values())
    return "start" if not fed else "inner" if wires.get(name, True) else "end"


def _framed(block: str, wires: Wires) -> bool:
    """What goes in or comes out has no frame, unless it has a role."""
    return _role(block) in ROLES or _place(block, wires) == "inner"


def _columns(wires: Wires) -> tuple[Column, Ways]:
    """The longest way to a block counts its column; what nothing feeds stands just before what it feeds."""
    column = dict.fromkeys(wires, 0)
    for _ in wires:
        for block, fed in wires.items():
            column |= {target: max(column[target], column[block] + 1) for target in fed}
    if max(column.values()) >= len(wires):
        raise ValueError(f"composition: the wires go in a circle; the blocks are: {', '.join(wires)}")
    starts = set(wires) - {target for fed in wires.values() for target in fed}
    column |= {block: min(column[target] for target in wires[block]) - 1 for block in starts}
    ways = {}
    for block, fed in wires.items():
        for target in fed:
            places = {f"{block} > {target} in {c}": c for c in range(column[block] + 1, column[target])}
            ways[block, target] = [block, *places, target]
            column |= places
    return column, ways


def _rows(columns: Column, ways: Ways) -> Row:
    """A row for each block and place: few crossings first, then wires as level as they can be."""
    links = [link for way in ways.values() for link in pairwise(way)]
    near: dict[str, list[str]] = {name: [] for name in columns}
    for a, b in links:
        weight = 8 if " > " in a and " > " in b else 2 if " > " in a + b else 1  # what is long should be straight
        near[a] += weight * [b]
        near[b] += weight * [a]
    layers = [[name for name in columns if columns[name] == c] for c in range(max(columns.values()) + 1)]
    levels = [[i - (len(layer) - 1) / 2 for i in range(len(layer))] for layer in layers]
    row = {name: y for pair in zip(layers, levels, strict=True) for name, y in zip(*pair, strict=True)}
    there = list(range(len(layers)))
    for c in 4 * (there + there[::-1]):
        orders = permutations(layers[c]) if len(layers[c]) < 7 else [tuple(layers[c])]
        found = [row | dict(zip(order, levels[c], strict=True)) for order in orders]
        row = min(found, key=lambda trial: _cost(trial, links, columns))
        layers[c].sort(key=row.__getitem__)
    for step, layer in enumerate(40 * layers):  # each towards the mean of its neighbours, one row apart
        wanted = [fmean(row[n] for n in near[name]) - i for i, name in enumerate(layer)]
        placed = _rising(wanted) if step < 30 * len(layers) else [round(2 * y) / 2 for y in _rising(wanted)]
        row |= {name: y + i for i, (name, y) in enumerate(zip(layer, placed, strict=True))}
    return row


def _cost(row: Row, links: list[tuple[str, str]], columns: Column) -> tuple[int, float]:
    """Crossings, and how far wires rise and fall; of two equals, the one with the blocks in the order of mention."""
    crossings = 0
    for i, (a, b) in enumerate(links):
        for c, d in links[:i]:
            crossings += columns[a] == columns[c] and (row[a] - row[c]) * (row[b] - row[d]) < 0
    return crossings, sum((row[a] - row[b]) ** 2 for a, b in links)


def _rising(values: list[float]) -> list[float]:
    """The nearest values that never fall (isotonic regression): those that would fall share their mean."""
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while len(groups) > 1 and fmean(groups[-2]) > fmean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [fmean(group) for group in groups for _ in group]


def _label(block: str) -> tuple[str, ...]:
    """What is written in a block, line by line: its name alone if it has one, for the colour tells its role."""
    role, _, name = (part.strip() for part in block.partition(":"))
    return (SYMBOLS[role],) if role in SYMBOLS else tuple(textwrap.wrap(name or role, LETTERS))


def _boxes(wires: Wires, columns: Column, rows: Row, total: float) -> tuple[dict[str, Box], float, float]:
    """Blocks and places on the page, the font size, and the page's height: as large as the width allows, in inches."""
    labels = {name: _label(name) if name in wires else () for name in columns}
    count = max(columns.values()) + 1
    letters = [max(2, *(len(t) for n in columns if columns[n] == c for t in labels[n])) for c in range(count)]
    room = total - 2 * PAD - count * 2 * PAD - (count - 1) * GAP[0]
    size = min(max(room / (EM * sum(letters)), SIZES[0]), SIZES[1])
    widths = [n * EM * size + 2 * PAD for n in letters]
    gap = min(GAP[1], (total - 2 * PAD - sum(widths)) / (count - 1))
    start = (total - sum(widths) - gap * (count - 1)) / 2
    tall = max(map(len, labels.values())) * LINE * size + 1.5 * PAD
    top, pitch, boxes = min(rows.values()), tall + 1.5 * PAD, {}
    for name, lines in labels.items():
        c, symbol = columns[name], _role(name) in ("sum", "product")
        alike = [n for n in wires if columns[n] == c and _framed(n, wires)]  # blocks in a column are equally wide
        alike = alike if _framed(name, wires) and _role(name) not in SYMBOLS else [name]
        wide = max(2, *(len(t) for n in alike for t in ("", *labels[n]))) * EM * size + 2 * PAD
        wide = widths[c] if name not in wires else 2 * EM * size + 1.5 * PAD if symbol else wide
        high = wide if symbol else len(lines) * LINE * size + 1.5 * PAD
        side = {"start": 1.0, "inner": 0.5, "end": 0.0}[_place(name, wires)]  # what goes in stands by its arrows
        x = start + sum(widths[:c]) + c * gap + wide / 2 + side * (widths[c] - wide)
        boxes[name] = Box(x, PAD + tall / 2 + pitch * (rows[name] - top), wide, high, lines, symbol)
    return boxes, size, 2 * PAD + tall + pitch * (max(rows.values()) - top)


def _points(way: list[str], ways: Ways, boxes: dict[str, Box]) -> list[tuple[float, float]]:
    """Where a wire goes; wires that end in one block arrive one above the other."""
    end = boxes[way[-1]]
    before = sorted((w[-2] for w in ways.values() if w[-1] == way[-1]), key=lambda name: boxes[name].y)
    step = min(ARRIVE, 0.7 * end.height / len(before))
    arrives = end.y + (before.index(way[-2]) - (len(before) - 1) / 2) * step
    places = [point for name in way[1:-1] for point in (boxes[name].left(boxes[name].y), boxes[name].right)]
    return [boxes[way[0]].right, *places, end.left(arrives)]


def _draw(ax: Axes, box: Box, size: float, color: str, framed: bool) -> None:
    """A block: a frame in the colour of its role around its name."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Circle, FancyBboxPatch

    tint = [0.86 + 0.14 * part for part in to_rgb(color)] if color != COLORS["data"] else "white"
    look: Any = {"facecolor": tint, "edgecolor": color, "linewidth": 1.4}
    if box.round:
        ax.add_patch(Circle((box.x, box.y), box.width / 2, **look))
    elif framed:
        corner, shape = (box.x - box.width / 2, box.y - box.height / 2), "round,pad=0,rounding_size=0.05"
        ax.add_patch(FancyBboxPatch(corner, box.width, box.height, boxstyle=shape, **look))
    text = "\n".join(box.lines)
    large = size * (1.3 if text in SYMBOLS.values() else 1)
    ax.text(box.x, box.y, text, size=large, ha="center", va="center", color=COLORS["truth"], linespacing=1.1)


def _arrow(ax: Axes, points: list[tuple[float, float]]) -> None:
    """A smooth line through the points, level at each of them, with a head at the last."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    corners, codes = [points[0]], [Path.MOVETO]
    for (x, y), (x_next, y_next) in pairwise(points):
        corners += [((x + x_next) / 2, y), ((x + x_next) / 2, y_next), (x_next, y_next)]
        codes += [Path.CURVE4] * 3
    look: Any = {"arrowstyle": "-|>,head_length=3.5,head_width=2", "color": COLORS["data"], "linewidth": 1.2}
    ax.add_patch(FancyArrowPatch(path=Path(corners, codes), shrinkA=0, shrinkB=0, **look))
