"""The API reference names everything that the library offers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import hybridsam_lite as hs

BOOK = Path(__file__).resolve().parents[2] / "book"
sys.path.insert(0, str(BOOK / "_ext"))

import docstrings  # noqa: E402

PAGE = (BOOK / "reference.md").read_text()
WHOLE = {"plots", "widgets", "explorers", "tasks"}  # modules that are documented as such


def test_every_public_name_is_in_the_reference() -> None:
    named = set(re.findall(r"::? hybridsam_lite\.(\w+)", PAGE))
    assert set(hs.__all__) <= named | WHOLE
    assert named <= set(hs.__all__) | WHOLE


def test_all_that_is_there_has_a_docstring() -> None:
    for name in hs.__all__:
        assert (getattr(hs, name).__doc__ or "").strip(), name


def test_markup_is_escaped_outside_of_examples() -> None:
    lines = ["|phi|^2, see `a*b`, x_ and lr_end.", "", ">>> a | b", "a*b", "", "2 * 3"]
    docstrings.as_plain_text(None, "function", "f", None, None, lines)
    assert lines == ["\\|phi\\|^2, see `a*b`, x\\_ and lr_end.", "", ">>> a | b", "a*b", "", "2 \\* 3"]
