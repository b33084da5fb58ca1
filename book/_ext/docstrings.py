"""Sphinx extension for the API reference: docstrings here are plain text, not reStructuredText."""

from __future__ import annotations

import re
from typing import Any

# What reStructuredText would read as markup: |substitution|, *emphasis*, reference_ and `title`.
MARKUP = re.compile(r"([|*]|(?<=\w)_(?!\w))")


def as_plain_text(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape markup outside of examples, so that |phi|^2 is shown as it stands."""
    example = False
    for i, line in enumerate(lines):
        if line.lstrip().startswith(">>>"):
            example = True
        elif not line.strip():
            example = False
        if not example:
            parts = re.split(r"(`[^`]*`)", line)
            lines[i] = "".join(part if k % 2 else MARKUP.sub(r"\\\1", part) for k, part in enumerate(parts))


def setup(app: Any) -> dict[str, bool]:
    """Connect to autodoc, before napoleon turns the sections into fields."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", as_plain_text, priority=400)
    return {"parallel_read_safe": True}
