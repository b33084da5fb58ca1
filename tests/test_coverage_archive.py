"""The measured coverage of the intervals: complete, and what the docstring says of it."""

import json

import hybridsam_lite as hs
from tools import coverage

ROWS = json.loads(coverage.ARCHIVE.read_text())["rows"]


def at95(source, linear=False):
    return [
        r["coverage"] for r in ROWS if (r["source"], r["level"], r["problem"] == "linear") == (source, 0.95, linear)
    ]


def test_every_problem_method_and_source_is_there():
    problems = {p.name: len(p.theta_true) for p in coverage.PROBLEMS}
    for problem, entries in problems.items():
        mine = [r for r in ROWS if r["problem"] == problem]
        assert len(mine) == 2 * 3 * entries * len(coverage.LEVELS)  # methods, sources
        assert all(r["coverage"] == r["covered"] / r["sets"] for r in mine)
    assert json.loads(coverage.ARCHIVE.read_text())["commit"]


def test_the_docstring_says_what_was_measured():
    text = " ".join(hs.intervals.__doc__.split())
    information, profile = at95("information") + at95("information", True), at95("profile") + at95("profile", True)
    seeds, blind = at95("seeds"), at95("seeds", True)
    assert f"covers {min(information):.2f} to {max(information):.2f} of the time, always too rarely" in text
    assert max(information) < 0.95
    assert f"the profile {min(profile):.2f} to {max(profile):.2f}" in text
    infinite = max(r["infinite"] for r in ROWS if r["source"] == "profile" and r["level"] == 0.95)
    assert f"in {infinite} of 100 sets" in text
    assert f"the seeds {min(seeds):.2f} to {max(seeds):.2f} with a nonlinear network, and {max(blind):.2f}" in text
