"""Records that come out again, and those that do not."""

import json

import pytest

import hybridsam_lite as hs
from hybridsam_lite import cli
from hybridsam_lite.results import records, write_records
from hybridsam_lite.verify import again, verify


@pytest.fixture(scope="module")
def rows():
    task = hs.tasks.get("duffing", preset="smoke")
    return records(task, task.fit(["erm", "asam:rho=1"], seeds=[0, 1], steps=3, progress=False))


def test_a_record_comes_out_again_also_when_it_was_trained_with_others(rows):
    found = list(verify(rows, count=9))
    assert sorted(v.record["seed"] for v in found) == [0, 0, 1, 1]
    assert all(v.agrees and v.difference < 1e-4 for v in found)
    assert [v.repeated["protocol"] for v in found] == [rows[0]["protocol"]] * 4


def test_the_oracle_knows_theta_when_it_is_repeated(rows):
    oracle = again({**rows[0], "label": "oracle", "method": "oracle"})
    assert (oracle["label"], oracle["theta_error"]) == ("oracle", pytest.approx(0, abs=1e-6))


@pytest.mark.parametrize(
    "change", [{"val_loss": 1.0}, {"theta_hat": {"alpha": 1.0, "beta": 1.0}}, {"status": "diverged"}]
)
def test_a_record_that_was_not_so_is_found(rows, change):
    (verdict,) = verify([{**rows[0], **change}])
    assert not verdict.agrees


def test_nothing_to_repeat_is_an_error():
    with pytest.raises(ValueError, match="expected records"):
        next(verify([]))


@pytest.mark.parametrize(("factor", "status", "word"), [(1, 0, "ok"), (2, 1, "DIFFERS")])
def test_the_command_says_which(rows, tmp_path, capsys, monkeypatch, factor, status, word):
    file = tmp_path / "runs.jsonl"
    write_records(file, [{**row, "val_loss": factor * row["val_loss"]} for row in rows])
    before = file.read_bytes()
    monkeypatch.setattr("sys.argv", ["hybridsam", "verify", str(file), "--count", "2"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == status
    out = " ".join(capsys.readouterr().out.split())
    assert out.count(f"{word} duffing C1, smoke, run,") == 2
    assert file.read_bytes() == before
    assert json.loads(before.splitlines()[0])


def test_a_record_cannot_say_where_to_write(rows, tmp_path):
    """The protocol goes to `fit`, which takes a folder, too."""
    evil = {**rows[0], "protocol": {**rows[0]["protocol"], "checkpoint": str(tmp_path / "evil")}}
    with pytest.raises(ValueError, match="verify: no protocol has 'checkpoint'; expected batch_size, lr"):
        list(verify([evil]))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="holds theta alpha, expected alpha, beta"):
        list(verify([{**rows[0], "theta_hat": {"alpha": 1.0}}]))
