"""The repository's address: defined in pyproject.toml, copied into the files that need it.

`python -m tools.address` names the copies that differ and exits 1; `--write` corrects them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# File and the pattern whose second group is the address.
COPIES = {
    "_config.yml": r"(?m)^(  url: )(\S+)$",
    "CITATION.cff": r'(?m)^(repository-code: ")([^"]+)(?=")',
}
COLAB_CELL = """\
import sys

if "google.colab" in sys.modules:  # elsewhere the library is installed already
    %pip install -q "hybridsam-lite @ git+{address}"\
"""
COLAB_MARK = '"google.colab" in sys.modules'


def address(root: Path = ROOT) -> str:
    """The address as pyproject.toml defines it."""
    text = (root / "pyproject.toml").read_text()
    found = re.search(r'(?m)^Repository = "(\S+)"$', text)
    if not found:
        raise ValueError('pyproject.toml has no line Repository = "..." under [project.urls]')
    return found[1]


def pages(url: str) -> str:
    """Where GitHub Pages serves the book of the repository at this address.

    Raises:
        ValueError: for a repository elsewhere.
    """
    found = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+?)(\.git)?/?", url)
    if not found:
        raise ValueError(f"{url} is not on GitHub; say where the book will be: make site SITE_URL=https://...")
    return f"https://{found[1].lower()}.github.io/{found[2]}/"


def with_address(text: str, pattern: str, url: str) -> str:
    """The text with the address in the pattern's place replaced."""
    new, count = re.subn(pattern, lambda found: found[1] + url, text)
    if not count:
        raise ValueError(f"no address found where {pattern!r} expects one")
    return new


def with_colab_cell(notebook: dict[str, Any], url: str) -> dict[str, Any]:
    """The notebook with the Colab cell, once, as its first code cell."""
    colab = {
        "cell_type": "code",
        "execution_count": None,
        "id": "colab",
        "metadata": {"tags": ["hide-input"]},
        "outputs": [],
        "source": COLAB_CELL.format(address=url).splitlines(keepends=True),
    }
    cells = []
    for cell in notebook["cells"]:
        if COLAB_MARK in "".join(cell["source"]):
            colab["id"] = cell["id"]
        else:
            cells.append(cell)
    first = next((i for i, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
    return {**notebook, "cells": [*cells[:first], colab, *cells[first:]]}


def corrected(root: Path = ROOT) -> dict[Path, str]:
    """Every file whose copy of the address is not the defined one, with its corrected text."""
    url = address(root)
    new = {}
    for name, pattern in COPIES.items():
        new[root / name] = with_address((root / name).read_text(), pattern, url)
    for path in sorted((root / "book").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        old = json.loads(path.read_text())
        edited = with_colab_cell(old, url)
        # The layout that Jupyter itself writes, so that saving there changes nothing.
        text = json.dumps(edited, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        new[path] = path.read_text() if edited == old else text
    return {path: text for path, text in new.items() if text != path.read_text()}


def main(arguments: list[str]) -> int:
    """Check the copies, or with --write correct them."""
    wrong = corrected()
    for path, text in wrong.items():
        if "--write" in arguments:
            path.write_text(text)
        print(path.relative_to(ROOT), "corrected" if "--write" in arguments else "differs")
    return int(bool(wrong) and "--write" not in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
