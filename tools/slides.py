"""The figures of the chapters as files for slides: `make slides`, or `python -m tools.slides [CHAPTER ...]`.

From the built book (`make book` first) each figure becomes a PNG in _build/slides/CHAPTER, numbered in the order of the
page, with its description beside it and an index.html to look at them all. `--svg` runs the chapters once more to have
them as SVG too, sharp at any size: as slow as the book. CHAPTER is a number such as 04; without any, all are exported.

Figures are CC BY 4.0: name the book and its address on the slide. Those of a simulated stand-in say so in their title;
leave it there.
"""

from __future__ import annotations

import argparse
import base64
import html
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from tools.address import address
from tools.book import BUILD, DEFAULTS, ROOT

EXECUTED = BUILD / "jupyter_execute" / "book"
SLIDES = BUILD / "slides"
VECTOR = "%config InlineBackend.figure_formats = ['svg', 'png']"
KINDS = {"image/svg+xml": "svg", "image/png": "png"}


def figures(notebook: Any) -> list[tuple[str, dict[str, bytes]]]:
    """Of an executed notebook: the description and the files, by ending, of each figure in order."""
    found = []
    for cell in notebook.cells:
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.get("outputs", []):
            files = {KINDS[kind]: _bytes(kind, data) for kind, data in output.get("data", {}).items() if kind in KINDS}
            if files:
                found.append((alt, files))
    return found


def _bytes(kind: str, data: str) -> bytes:
    return base64.b64decode(data) if kind == "image/png" else data.encode()


def executed(chapter: Path, vector: bool) -> Any:
    """The chapter with its outputs: as the build left it, or run now with vector figures.

    Raises:
        FileNotFoundError: if the book has not been built.
    """
    if not vector:
        built = EXECUTED / chapter.name
        if not built.is_file():
            raise FileNotFoundError(f"{chapter.stem} has not been built: run make book first, or use --svg")
        return nbformat.read(built, as_version=4)  # type: ignore[no-untyped-call]
    import os

    from nbclient import NotebookClient

    notebook = nbformat.read(chapter, as_version=4)  # type: ignore[no-untyped-call]
    notebook.cells.insert(0, nbformat.v4.new_code_cell(VECTOR))  # type: ignore[no-untyped-call]
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(chapter.parent)}}).execute()
    return notebook


def export(chapter: Path, folder: Path, vector: bool = False) -> list[tuple[str, str]]:
    """Write the figures of a chapter: (file without ending, description) of each."""
    written = []
    for number, (alt, files) in enumerate(figures(executed(chapter, vector)), start=1):
        stem = f"{chapter.stem}/{number:02}"
        for ending, data in files.items():
            path = folder / f"{stem}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (folder / f"{stem}.txt").write_text(alt + "\n")
        written.append((stem, alt))
    return written


def index(shown: Sequence[tuple[str, str]]) -> str:
    """A page with all figures and their descriptions."""
    rows = [
        f'<figure><img src="{stem}.png" alt="{html.escape(alt)}" loading="lazy" width="640">'
        f"<figcaption><code>{stem}</code> {html.escape(alt)}</figcaption></figure>"
        for stem, alt in shown
    ]
    note = f'Figures: CC BY 4.0. Please name the source, <a href="{address()}">{address()}</a>.'
    head = '<!doctype html><meta charset="utf-8"><title>Figures for slides</title>'
    return "\n".join([head, "<h1>Figures for slides</h1>", f"<p>{note}</p>", *rows]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Export the figures."""
    parser = argparse.ArgumentParser(prog="python -m tools.slides", description="Export the chapters' figures.")
    parser.add_argument("chapters", nargs="*", help="numbers such as 04; all by default")
    parser.add_argument("--svg", action="store_true", help="run the chapters again for vector figures")
    parser.add_argument("--out", type=Path, default=SLIDES, help="folder (default _build/slides)")
    given = parser.parse_args(arguments)
    every = sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb"))
    chosen = [path for path in every if not given.chapters or path.name[:2] in given.chapters]
    if not chosen:
        parser.error(f"no such chapter; there are {', '.join(path.name[:2] for path in every)}")
    shown = []
    for chapter in chosen:
        try:
            written = export(chapter, given.out, given.svg)
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            continue
        print(f"{chapter.stem:<40} {len(written):>3} figures", flush=True)
        shown += written
    if not shown:
        return 1
    (given.out / "index.html").write_text(index(shown))
    print(f"{len(shown)} figures: {given.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
