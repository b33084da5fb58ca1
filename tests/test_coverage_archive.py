"""The measured coverage of intervals: complete, of a known origin, and what the docstring says."""

import json
import math
import re
import textwrap

import pytest
from scipy.stats import binomtest

import hybridsam_lite as hs
from tools import coverage

SIZES = {"information": coverage.SETS, "profile": coverage.PROFILED, "seeds": coverage.SEEDED}


@pytest.fixture(scope="module")
def archive():
    return json.loads(coverage.ARCHIVE.read_text())


@pytest.fixture(scope="module")
def rows(archive):
    return archive["rows"]


@pytest.fixture(scope="module")
def said():
    return textwrap.dedent(hs.intervals.__doc__.split("\n", 1)[1])


def test_every_interval_of_every_problem_is_there_once(rows):
    found = [(r["problem"], r["method"], r["source"], r["theta"], r["level"]) for r in rows]
    assert sorted(found) == sorted(
        (problem.name, method.label, source, name, level)
        for problem in coverage.PROBLEMS
        for method in coverage.METHODS
        for source in SIZES
        for name in problem.theta_true
        for level in coverage.LEVELS
    )


def test_it_was_measured_as_the_tool_measures(rows):
    protocols = {problem.name: problem.protocol for problem in coverage.PROBLEMS}
    assert all(r["protocol"] == protocols[r["problem"]] for r in rows)


def test_numbers_of_a_row_agree_with_each_other(rows):
    for r in rows:
        assert r["diverged"] == 0
        assert r["sets"] == SIZES[r["source"]]  # all of them: intervals without ends count too
        assert r["coverage"] == r["covered"] / r["sets"]
        interval = binomtest(r["covered"], r["sets"]).proportion_ci(0.95, "exact")
        assert (r["low"], r["high"]) == pytest.approx((interval.low, interval.high))
        assert (r["median_width"] is None) == (2 * r["infinite"] > r["sets"])
        assert math.isfinite(r["bias"] + r["median_error"])


def test_its_origin_is_known(archive):
    assert re.fullmatch(r"[0-9a-f]{40}", archive["commit"])  # of a tree without changes
    assert {"python", "torch", "numpy", "scipy", "hybridsam-lite"} <= set(archive["versions"])
    assert (archive["device"], archive["command"]) == ("cpu", "python -m tools.coverage")


def test_the_docstring_has_the_archive_s_table(rows, said):
    assert textwrap.indent(coverage.table(rows), "    ") in said


def test_the_docstring_s_sentences_are_the_archive_s(rows, said):
    text = " ".join(said.split())
    top = [r for r in rows if r["level"] == 0.95]

    def percent(source, key="coverage", **which):
        mine = [r for r in top if r["source"] == source and all(r[k] == v for k, v in which.items())]
        return [r[key] * 100 / (1 if key == "coverage" else r["sets"]) for r in mine]

    def between(values):
        return f"{min(values):.0f} to {max(values):.0f} %"

    networks = [p.name for p in coverage.PROBLEMS if p.name != "linear"]

    def hybrid(source, key="coverage"):
        return [x for name in networks for x in percent(source, key, problem=name)]

    (linear,) = {f"{x:.0f}" for x in percent("information", problem="linear")}
    assert f"Information: {linear} % where the network is linear" in text
    assert f"in hybrid models ({between(hybrid('information'))})" in text
    warned = [x for name in ("pendulum", "pendulum_exact") for x in percent("information", "warned", problem=name)]
    assert f"{between(warned)} of the pendulum's were warned" in text
    assert f"Profile: covers ({between(percent('profile'))})" in text
    assert all(40 < x < 60 for x in percent("profile", "infinite", theta="omega2"))  # "half"
    (alpha,) = {f"{x:.0f}" for x in percent("profile", "infinite", theta="alpha")}
    assert f"{alpha} % of alpha's" in text
    assert f"Seeds: {between(hybrid('seeds'))} in hybrid models" in text
    (linear,) = {f"{x:.0f}" for x in percent("seeds", problem="linear")}
    assert f"{linear} % where all seeds find the same solution" in text


def test_profiles_are_as_much_wider_than_the_information_as_the_docstring_says(rows):
    def ratio(**which):
        mine = [r for r in rows if r["level"] == 0.95 and all(r[k] == v for k, v in which.items())]
        widths = {(r["source"], r["method"]): r["median_width"] for r in mine}
        return [widths["profile", m.label] / widths["information", m.label] for m in coverage.METHODS]

    assert ratio(theta="k") == pytest.approx([1, 1], abs=0.02)
    assert all(2 < x < 4 for x in ratio(theta="beta"))
