"""The archived results: whole records, every seed there, and the picture made from them current."""

from collections import Counter
from pathlib import Path

import pytest

import hybridsam_lite as hs
from hybridsam_lite.results import read_records
from tools import hero

ARCHIVE = sorted((Path(__file__).parent.parent / "book" / "results").glob("*.jsonl"))


def test_there_is_an_archive():
    assert "pendulum.jsonl" in [path.name for path in ARCHIVE]


@pytest.mark.parametrize("path", ARCHIVE, ids=lambda path: path.name)
def test_records_are_complete_and_none_is_missing(path):
    rows = read_records(path)
    members = Counter((r["variant"], r["label"], r["seed"]) for r in rows)
    assert max(members.values()) == 1
    for variant in {r["variant"] for r in rows}:
        seeds = {label: {r["seed"] for r in rows if (r["variant"], r["label"]) == (variant, label)}
                 for label in {r["label"] for r in rows if r["variant"] == variant}}  # fmt: skip
        assert "erm" in seeds
        assert all(chosen == seeds["erm"] for chosen in seeds.values())  # diverged ones too
        assert len(seeds["erm"]) >= 10
    for row in rows:
        assert row["task"] == path.stem
        assert row["variant"] in hs.tasks.variants(row["task"])
        assert row["status"] in ("ok", "diverged", "stopped")
        assert row["commit"]
        assert hs.parse_method(row["label"]).name == row["method"]
        errors = [abs(row["theta_hat"][n] - row["theta_true"][n]) for n in row["theta_true"]]
        assert row["theta_error"] == pytest.approx(sum(errors) / len(errors), abs=1e-7)


@pytest.mark.parametrize("path", ARCHIVE, ids=lambda path: path.name)
def test_methods_had_equally_many_settings(path):
    rows = [r for r in read_records(path) if r["variant"] == next(iter(hs.tasks.variants(path.stem)))]
    settings = Counter(name for name, _ in {(r["method"], r["label"]) for r in rows} if name != "erm")
    assert len(set(settings.values())) == 1


def test_the_picture_shows_the_archive():
    assert hero.digest(hero.shown()) in hero.PICTURE.read_text(), "run python -m tools.hero"
