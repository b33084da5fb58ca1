"""The archived results: whole records, every seed there, and the picture made from them current."""

from collections import Counter
from pathlib import Path

import pytest

import hybridsam_lite as hs
from hybridsam_lite.results import PROBLEM, STAGES, read_records
from hybridsam_lite.select import strongest
from hybridsam_lite.sweep import CURVE, GRIDS, ORACLE, TUNING
from tools import hero

ARCHIVE = sorted((Path(__file__).parent.parent / "book" / "results").rglob("*.jsonl"))
# Their theta error is not the mean absolute one of the record: theta is inferred, or the error is relative.
AMORTIZED = ("wind_tunnel", "light_tunnel", "A3", "amortized", "two_stage", "battery", "closure")


def test_there_is_an_archive():
    assert "pendulum.jsonl" in [path.name for path in ARCHIVE]


def grouped(path):
    problems = {}
    for row in read_records(path):
        problems.setdefault(tuple(str(row[name]) for name in PROBLEM), []).append(row)
    return problems


@pytest.mark.parametrize("path", ARCHIVE, ids=lambda path: path.name)
def test_records_are_complete(path):
    for row in read_records(path):
        assert row["task"] == path.stem
        assert row["variant"] in hs.tasks.variants(row["task"])
        assert row["status"] in ("ok", "diverged", "stopped")
        assert row["stage"] in STAGES
        assert row["commit"]
        if row["label"] != ORACLE:
            assert hs.parse_method(row["label"]).name == row["method"]
        if row["task"] not in AMORTIZED and row["variant"] not in AMORTIZED:  # there, the record holds means
            errors = [abs(row["theta_hat"][n] - row["theta_true"][n]) for n in row["theta_true"]]
            assert row["theta_error"] == pytest.approx(sum(errors) / len(errors), abs=1e-7)


@pytest.mark.parametrize("path", ARCHIVE, ids=lambda path: path.name)
def test_no_member_is_there_twice_and_none_is_missing(path):
    for problem, rows in grouped(path).items():
        members = Counter((r["label"], r["seed"]) for r in rows)
        assert max(members.values()) == 1, problem
        seeds = {label: {r["seed"] for r in rows if r["label"] == label} for label, _ in members}
        assert "erm" in seeds
        stage = rows[0]["stage"]
        for label, found in seeds.items():  # diverged ones too
            assert found >= set(TUNING) if stage == "tune" else found == seeds["erm"], (problem, label)
        if stage == "final":
            assert len(seeds["erm"]) >= 10
            assert not seeds["erm"] & {*TUNING, *CURVE}


@pytest.mark.parametrize("path", ARCHIVE, ids=lambda path: path.name)
def test_every_method_had_equally_many_settings_and_the_final_ones_were_chosen_by_rule(path):
    """The rule is given no theta: what it chose from the archive's losses is what was run."""
    problems = grouped(path)
    for problem, rows in problems.items():
        if rows[0]["stage"] != "final":
            continue
        tune = problems[tuple("tune" if part == "final" else part for part in problem)]
        blind = [{k: v for k, v in r.items() if "theta" not in k} for r in tune if r["seed"] in TUNING]
        labels = {r["label"] for r in rows}
        for name, grid in GRIDS.items():
            mine = [r for r in blind if r["label"] in grid]
            if mine:
                assert {r["label"] for r in mine} == set(grid)
                assert strongest([r for r in blind if r["label"] == "erm"] + mine, grid) in labels, (problem, name)


def test_the_picture_shows_the_archive():
    assert hero.digest(hero.shown()) in hero.PICTURE.read_text(), "run python -m tools.hero"
