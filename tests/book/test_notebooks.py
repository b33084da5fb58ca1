"""Every notebook of the book keeps the conventions that the reader and the build rely on."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tools import address

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path for path in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
LONGEST_CELL = 25
MEDIAN_CELL = 8

DRAWING = {"bar", "contour", "contourf", "errorbar", "figure", "fill_between", "hist", "imshow"}
DRAWING |= {"pcolormesh", "plot", "plot_surface", "quiver", "scatter", "subplots", "violinplot"}
# What the plotting module offers besides figures: style and colours.
NOT_DRAWING = re.compile(r"^(use_|set_|style|colou?r)")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Any:
    return nbformat.read(request.param, as_version=nbformat.NO_CONVERT)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def calls(node: ast.AST) -> list[ast.Call]:
    """The calls made when the code runs: those inside a function's definition are not."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
        return []
    below = [call for child in ast.iter_child_nodes(node) for call in calls(child)]
    return [node, *below] if isinstance(node, ast.Call) else below


def draws(source: str) -> bool:
    """Whether running this cell draws a figure, as far as its text shows."""
    for call in calls(ast.parse(TransformerManager().transform_cell(source))):
        name = ast.unparse(call.func)
        last = name.rsplit(".", 1)[-1]
        if last in DRAWING or ("plots." in name and not NOT_DRAWING.match(last)):
            return True
    return False


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


def test_valid_with_unique_cell_ids(notebook: Any) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5), "cell ids need nbformat 4.5"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_without_outputs(notebook: Any) -> None:
    for cell in code_cells(notebook):
        assert not cell.outputs, f"cell {cell.id} has outputs: run nbstripout on the notebook"
        assert cell.execution_count is None, f"cell {cell.id} has an execution count: nbstripout"


def test_first_code_cell_prepares_colab(notebook: Any) -> None:
    first = code_cells(notebook)[0]
    expected = address.COLAB_CELL.format(address=address.address())
    assert first.source == expected, "run python -m tools.address --write"
    assert "hide-input" in first.metadata.get("tags", [])


def test_cells_are_short(notebook: Any) -> None:
    lines = {cell.id: len(cell.source.splitlines()) for cell in code_cells(notebook)}
    too_long = {cell: count for cell, count in lines.items() if count > LONGEST_CELL}
    assert not too_long, f"cells over {LONGEST_CELL} lines: {too_long}"
    assert statistics.median(lines.values()) <= MEDIAN_CELL


def test_figures_have_alt_text(notebook: Any) -> None:
    for cell in code_cells(notebook):
        if draws(cell.source):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 20, f"cell {cell.id} draws: describe it in mystnb.image.alt"


def test_what_nbval_skips_the_build_skips(notebook: Any) -> None:
    for cell in code_cells(notebook):
        tags = cell.metadata.get("tags", [])
        assert "nbval-skip" not in tags or "skip-execution" in tags, cell.id


def test_same_for_every_machine_and_runner(notebook: Any) -> None:
    for cell in notebook.cells:
        found = re.search(r"(?<![\w.])(/home|/root|/tmp|/Users)/|[A-Z]:\\\\", cell.source)
        assert not found, f"cell {cell.id} names a path of one machine: {found and found[0]}"
        if cell.cell_type == "code":
            branch = re.search(r"""(environ|getenv)[^\n]*["']CI["']""", cell.source)
            assert not branch, f"cell {cell.id} asks for CI; a preset is the way: HYBRIDSAM_PRESET"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("fig, ax = plt.subplots()", True),
        ("hs.plots.loss(runs);", True),
        ("import matplotlib.pyplot as plt\nhs.plots.use_style()", False),
        ("def show(ax):\n    ax.plot([1])", False),
        ("%matplotlib inline\nx = 1", False),
    ],
)
def test_draws(source: str, expected: bool) -> None:
    assert draws(source) is expected
