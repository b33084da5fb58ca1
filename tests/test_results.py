"""Run records: complete, exact, and never lost to a bad file."""

import json
import math

import numpy as np
import pytest

import hybridsam_lite as hs
from hybridsam_lite.results import FIELDS, paired_bootstrap, read_records, records, relative, summary, write_records


@pytest.fixture(scope="module")
def rows():
    task = hs.tasks.get("duffing", preset="smoke")
    return records(task, task.fit(["erm", "asam:rho=1"], seeds=[0, 1], steps=2, progress=False))


def test_records_hold_every_field_of_the_contract(rows):
    assert len(rows) == 4
    for row in rows:
        assert tuple(row) == FIELDS
        assert row["theta_true"] == {"alpha": 1.0, "beta": 1.0}
        expected = np.mean([abs(row["theta_hat"][n] - row["theta_true"][n]) for n in row["theta_true"]])
        assert row["theta_error"] == pytest.approx(expected)
        assert row["versions"]["torch"]
        assert row["protocol"] == {"steps": 2, "batch_size": 8, "lr": 1e-3, "theta_lr": 1e-2, "lr_end": 0.01}
        assert row["stage"] == "run"
        assert row["metrics"].keys() == {"val_nrmse", "test_nrmse", "network", "overlap"}
    assert [(r["label"], r["seed"]) for r in rows] == [("erm", 0), ("erm", 1), ("asam:rho=1", 0), ("asam:rho=1", 1)]


def test_amortized_theta_is_compared_with_the_truth_sample_by_sample():
    task = hs.tasks.get("wind_tunnel", preset="smoke", variant="nested")
    runs = task.fit(["erm"], seeds=[0, 1], steps=1, progress=False)
    truth = np.asarray(task.theta_true["hatch"])
    for i, row in enumerate(records(task, runs)):
        theta = task.predict(runs.model(i)).theta
        assert theta is not None
        hat = theta["hatch"].numpy().ravel()
        assert row["metrics"]["correlation.hatch"] == pytest.approx(np.corrcoef(hat, truth)[0, 1], abs=1e-5)
        assert row["metrics"]["spread.hatch"] == pytest.approx(np.std(hat) / np.std(truth), rel=1e-5)


def test_records_round_trip(rows, tmp_path):
    path = tmp_path / "runs.jsonl"
    write_records(path, rows)
    assert read_records(path) == rows
    assert read_records(str(path)) == rows
    assert [p.name for p in tmp_path.iterdir()] == ["runs.jsonl"]


def test_not_a_number_becomes_null(rows, tmp_path):
    from hybridsam_lite.results import _plain

    assert _plain({"a": math.nan, "b": np.float32(1.5), "c": np.int64(3)}) == {"a": None, "b": 1.5, "c": 3}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_records(tmp_path / "x.jsonl", [{"a": math.nan}])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ['{"task": "pend', "hello", '{"task": "pendulum"}', "[1, 2]", "\x00\x01"])
def test_foreign_or_truncated_file_is_an_error_and_left_alone(rows, tmp_path, content):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(rows[0]) + "\n" + content)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"line 2: not"):
        read_records(path)
    assert path.read_bytes() == before


def test_missing_file_says_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="hybridsam run"):
        read_records(tmp_path / "none.jsonl")


def made_up(label, errors, status="ok"):
    common = {"task": "t", "variant": "v", "preset": "full", "data": "simulated", "stage": "run", "val_loss": 0.1,
              "protocol": {"steps": 10}, "test_loss": 0.2}  # fmt: skip
    return [
        {**common, "label": label, "seed": s, "theta_error": e, "status": status, "seconds": 1.0}
        for s, e in enumerate(errors)
    ]


def test_summary_counts_diverged_members_and_pairs_by_seed():
    rows = made_up("erm", [0.1, 0.2, 0.3]) + made_up("sam:rho=1", [0.05, 0.15, 0.25]) + made_up("x", [9.0], "diverged")
    table = summary(rows).set_index("label")
    assert table.loc["erm", "theta_error"] == pytest.approx(0.2)
    assert math.isnan(table.loc["erm", "difference"])
    assert table.loc["sam:rho=1", ["difference", "low", "high"]].tolist() == pytest.approx([-0.05] * 3)
    assert table.loc["x", "diverged"] == 1
    assert table.loc["x", "theta_error"] == 9.0  # stays in the statistics


def test_summary_never_mixes_protocols_or_stages():
    rows = made_up("erm", [0.1, 0.2, 0.3])
    rows += [{**row, "protocol": {"steps": 10, "theta_lr": 0.1}} for row in rows] + [
        {**row, "stage": "final"} for row in rows
    ]
    assert summary(rows)["seeds"].tolist() == [3, 3, 3]


def test_bootstrap_covers_the_median_of_normal_differences():
    """Of 200 samples of 20, about 95 % of the intervals hold the true median: 180 is five sigma below."""
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        _, low, high = paired_bootstrap(generator.normal(0.3, 1.0, 20))
        hits += low <= 0.3 <= high
    assert hits >= 175


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"task": "\xff"}', "not a run record .'utf-8' codec"),
        (b"[" * 100_000, "not a run record .maximum recursion"),
        (b"9" * 5000, "not a run record .Exceeds the limit"),
        (b'{"a": 1, "a": 2}', "not a run record .it holds 'a' twice"),
    ],
)
def test_a_line_that_json_cannot_read_or_reads_as_something_else(tmp_path, content, message):
    path = tmp_path / "runs.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"runs\.jsonl, line 1: {message}"):
        read_records(path)


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("label", None, "a text of one line"),
        ("label", "sam\x1b[2J", "a text of one line"),  # clears the reader's screen
        ("task", "a\nb", "a text of one line"),
        ("seed", True, "a whole number"),
        ("seed", -1, "a whole number"),
        ("steps", 2**63, "a whole number"),
        ("seconds", None, "a number >= 0"),
        ("theta_error", -1.0, "a number >= 0 or null"),
        ("theta_error", math.nan, "a number >= 0 or null"),
        ("val_loss", 10**400, "a number or null"),
        ("test_loss", "0.1", "a number or null"),
        ("protocol", {"steps": "many"}, "numbers by name"),
        ("theta_hat", [1.0], "numbers by name"),
        ("settings", {"rho": []}, "numbers or words by name"),
        ("versions", {"torch": 2}, "texts by name"),
        ("commit", 1, "a text or null"),
    ],
)
def test_a_field_of_another_kind_is_refused(rows, tmp_path, field, value, kind):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps({**rows[0], field: value}) + "\n")
    with pytest.raises(ValueError, match=rf"line 1: not a run record, {field} must be {kind}"):
        read_records(path)


def test_what_may_be_missing_may_be_null(rows, tmp_path):
    path = tmp_path / "runs.jsonl"
    lost = {
        **rows[0],
        "val_loss": None,
        "test_loss": None,
        "theta_error": None,
        "commit": None,
        "theta_hat": {"k": None},
    }
    write_records(path, [lost])
    assert read_records(path) == [lost]
    path.write_bytes(b"")
    assert read_records(path) == []


def test_no_records_and_records_that_are_there_twice_make_no_table():
    with pytest.raises(ValueError, match="there are no records"):
        summary([])
    rows = made_up("erm", [0.1, 0.2])
    for table in (summary, relative):
        with pytest.raises(ValueError, match="t v, erm, seed 1 is there more than once"):
            table([*rows, rows[1]])


def test_an_error_of_zero_has_a_ratio():
    rows = made_up("erm", [0.1, 0.2, 0.3]) + made_up("x", [0.0, 0.0, 0.0])
    assert relative(rows)["ratio"].tolist() == [0.0]
