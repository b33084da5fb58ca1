"""The gallery: every entry says what it is, trains, and can be fitted by a model that knows the truth."""

import math
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import hybridsam_lite as hs
from hybridsam_lite.checks import mean_squared_error
from hybridsam_lite.cli import app
from hybridsam_lite.hybrid import as_prediction, roles
from hybridsam_lite.tasks import gallery

BIBLIOGRAPHY = (Path(__file__).parent.parent / "book" / "references.bib").read_text(encoding="utf-8")
SOURCES = Path(gallery.__file__).parent
ENTRIES = list(gallery.CARDS)


def build(name, preset="smoke"):
    return hs.tasks.get("gallery", variant=name, preset=preset)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_card_is_whole_and_its_sources_are_in_the_bibliography(name):
    card = gallery.CARDS[name]
    assert all(getattr(card, field) not in ("", ()) for field in card.__dataclass_fields__)
    for key in card.after:
        assert re.search(rf"@\w+{{{key},", BIBLIOGRAPHY), key
    blocks = {block.strip() for chain in card.wires.split(";") for block in chain.split(">")}
    roles_shown = {block.split(":")[0] for block in blocks}
    assert {"theta", "physics", "network"} <= roles_shown
    assert len((SOURCES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_has_both_roles_and_its_data_are_the_same_each_time(name):
    task, again = build(name), build(name)
    assert set(roles(task.model()).values()) >= {"phi"}
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(task, part).target, getattr(again, part).target)
        assert torch.isfinite(getattr(task, part).target).all()
    assert not torch.equal(task.train.target[:1], task.test.target[:1])


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_trains_with_every_method_that_the_matrix_shows(name):
    task, card = build(name), gallery.CARDS[name]
    methods = ["erm", "wd:lam=1e-3", "sam:rho=0.05", "asam:rho=0.5"]
    has_network = as_prediction(task.model()(task.train.take(torch.arange(2)).inputs)).network is not None
    assert has_network == card.penalty
    runs = task.fit([*methods, "fn:mu=0.01"] if card.penalty else methods, seeds=[0], progress=False)
    scores = task.score(runs)
    assert (scores["status"] == "ok").all()
    assert scores["theta_error"].map(math.isfinite).all()


@pytest.mark.parametrize("name", ENTRIES)
def test_the_true_theta_is_inside_what_it_may_start_from_or_reach(name):
    """Setting theta to the truth works: it is within the bounds of its transform."""
    task = build(name)
    if any(isinstance(v, torch.Tensor) and v.ndim for v in task.theta_true.values()):
        pytest.skip("theta is inferred for each sample")
    model = task.with_truth().model()
    output = as_prediction(model(task.val.inputs)).value
    assert torch.isfinite((task.loss or mean_squared_error)(output, task.val.target))


def test_a_sweep_of_the_gallery_takes_one_entry_or_all(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("hybridsam_lite.sweep.sweep", lambda name, *, variant, **_: asked.append((name, variant)) or [])
    monkeypatch.setattr("hybridsam_lite.cli.show", lambda rows: None)
    for argument in ("gallery/additive", "gallery"):
        CliRunner().invoke(
            app, ["sweep", argument, "--out", str(tmp_path), "--preset", "smoke"], catch_exceptions=False
        )
    assert asked == [("gallery", name) for name in ["additive", *ENTRIES]]


def test_a_run_of_the_whole_gallery_is_a_sweep(tmp_path):
    command = ["run", "gallery", "--method", "erm", "--out", str(tmp_path / "out"), "--preset", "smoke"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, ValueError)
    assert "hybridsam sweep gallery" in str(result.exception)
    assert not (tmp_path / "out").exists()
