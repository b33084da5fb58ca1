"""The README's examples run as they stand there."""

import re
from pathlib import Path

from hybridsam_lite.results import read_records, summary

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_python_examples_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:
        exec(compile(block.replace("steps=500", "steps=20"), "README.md", "exec"), names)
    assert "asam:rho=1" in capsys.readouterr().out
    assert names["loss"] < 1


def test_the_first_example_is_short():
    first = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    assert len([line for line in first.splitlines() if line.strip()]) <= 15


def test_files_that_it_links_exist():
    root = Path(__file__).parent.parent
    links = re.findall(r"\]\((?!https?://)([^)]+)\)", README)
    assert links
    assert [link for link in links if not (root / link).exists()] == []


def test_what_the_status_says_of_the_pendulum_is_in_the_archive():
    table = summary(read_records(Path(__file__).parent.parent / "book" / "results" / "pendulum.jsonl"))
    error = table[table["variant"] == "A1"].set_index("label")["theta_error"]
    for label in ("sam:rho=0.1", "asam:rho=2"):
        assert error[label] < 0.1 * error["erm"]
    assert error[[label for label in error.index if label.startswith("wd")]].min() < error["asam:rho=2"]
