"""The files for GitHub and Binder: valid, pinned, with few rights, and naming only what is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import checks

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
SCHEMAS = dict.fromkeys(WORKFLOWS, "vendor.github-workflows")
SCHEMAS |= dict.fromkeys(ACTIONS, "vendor.github-actions")
SCHEMAS |= {GITHUB / "dependabot.yml": "vendor.dependabot"}

each_file = pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.relative_to(GITHUB).as_posix())
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    """YAML, in which the key `on` is no truth value."""
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)


def steps(path: Path) -> list[dict[str, Any]]:
    content = read(path)
    jobs = content["jobs"].values() if "jobs" in content else [content["runs"]]
    return [step for job in jobs for step in job["steps"]]


def test_there_is_one_for_tests_book_and_week() -> None:
    assert [path.stem for path in WORKFLOWS] == ["book", "tests", "weekly"]


@each_file
def test_follows_its_schema(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[path], str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_file
def test_actions_are_pinned_by_commit_with_their_version(path: Path) -> None:
    for reference in re.findall(r"(?m)uses: (.*)$", path.read_text()):
        local = reference.startswith("./") and (ROOT / reference / "action.yml").is_file()
        assert local or re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", reference), reference


def test_one_commit_for_one_version() -> None:
    text = "\n".join(path.read_text() for path in SCHEMAS)
    pins = set(re.findall(r"uses: (\S+)@(\w+) # (\S+)", text))
    assert len({name for name, _, _ in pins}) == len(pins)


@each_workflow
def test_few_rights_a_time_limit_and_one_run_at_a_time(path: Path) -> None:
    content = read(path)
    assert content["permissions"] == {"contents": "read"}
    assert content["concurrency"]["group"]
    for name, job in content["jobs"].items():
        assert 0 < int(job["timeout-minutes"]) <= 90, name
        rights = set(job.get("permissions", {}))
        assert rights == {"deploy": {"pages", "id-token"}, "report": {"issues"}}.get(name, set())


@each_workflow
def test_needs_and_matrices_are_there(path: Path) -> None:
    jobs = read(path)["jobs"]
    for name, job in jobs.items():
        needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
        assert set(needs) <= set(jobs) - {name}
        for variable in re.findall(r"\$\{\{ matrix\.(\w+) \}\}", json.dumps(job)):
            assert variable in job["strategy"]["matrix"]
        for needed, _ in re.findall(r"\$\{\{ needs\.(\w+)\.(result|outputs)", json.dumps(job)):
            assert needed in needs


@each_workflow
def test_nothing_from_outside_is_put_into_a_script(path: Path) -> None:
    """Titles and names of branches are text of strangers: they may stand in `env`, not in a script."""
    for step in steps(path):
        assert "${{" not in step.get("run", "")


def test_every_supported_python_is_tested() -> None:
    supported = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert read(GITHUB / "workflows" / "tests.yml")["jobs"]["python"]["strategy"]["matrix"]["python"] == supported


def test_every_layer_has_its_job() -> None:
    named = re.findall(r'LAYER="([^"]*)"', (GITHUB / "workflows" / "tests.yml").read_text())
    assert sorted(" ".join(named).split()) == sorted(checks.LAYERS)


@each_workflow
def test_commands_are_those_of_the_repository(path: Path) -> None:
    targets = re.search(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text())
    assert targets is not None
    for step in steps(path):
        for target in re.findall(r"\bmake (\w+)", step.get("run", "")):
            assert target in targets[1].split()
        for module in re.findall(r"python -m tools\.(\w+)", step.get("run", "")):
            assert (ROOT / "tools" / f"{module}.py").is_file()


def test_no_package_index_is_named() -> None:
    for path in SCHEMAS:
        assert not re.search(r"pypi|pythonhosted|download\.pytorch|anaconda", path.read_text())


FAKE = """#!/bin/sh
if [ "$2" = list ]; then
    shift 2
    while [ "$1" != --jq ]; do shift; done
    printf '%s' "$ISSUES" | {python} -c "$READ" "$2"
else
    printf '%s\\n' "$@" >> "$SAID"
fi
"""
# As much of jq as the script asks of it: the number of the first issue with this title, or nothing.
READ = (
    "import json, re, sys; title = re.search('title == \"(.*?)\"', sys.argv[1])[1]; "
    "print(next((i['number'] for i in json.load(sys.stdin) if i['title'] == title), ''))"
)


@pytest.mark.parametrize(
    ("issues", "expected"),
    [
        ([], ["issue", "create", "--title", "The weekly run fails"]),
        ([{"number": 3, "title": "A weekly run fails now and then"}], ["issue", "create", "--title"]),
        ([{"number": 7, "title": "The weekly run fails"}], ["issue", "comment", "7", "--body"]),
    ],
)
def test_a_failing_week_opens_one_issue(tmp_path: Path, issues: list[dict[str, Any]], expected: list[str]) -> None:
    gh = tmp_path / "gh"
    gh.write_text(FAKE.format(python=sys.executable))
    gh.chmod(0o755)
    (step,) = read(GITHUB / "workflows" / "weekly.yml")["jobs"]["report"]["steps"]
    said = tmp_path / "said"
    env = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        **{"TITLE": step["env"]["TITLE"], "NEWEST": "failure", "LINKS": "success", "RUN": "https://example.org/run/1"},
        **{"ISSUES": json.dumps(issues), "READ": READ, "SAID": str(said)},
    }
    shell = shutil.which("bash")
    assert shell, "GitHub runs scripts by bash"
    subprocess.run([shell, "-e", "-o", "pipefail", "-c", step["run"]], env=env, check=True)
    words = said.read_text().splitlines()
    assert words[: len(expected)] == expected
    assert words[-1].startswith("Newest versions: failure. Links: success.")
    assert words[-1].endswith("https://example.org/run/1")


def test_binder_installs_the_tested_versions_of_the_book() -> None:
    """environment.yml, which Binder and conda read; both run pip in the repository's root."""
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(content) == {"name", "channels", "dependencies"}
    assert content["channels"] == ["conda-forge"]
    *plain, by_pip = content["dependencies"]
    assert "pip" in plain
    (python,) = [one.removeprefix("python=") for one in plain if one.startswith("python=")]
    assert f"Python :: {python}\n" in (ROOT / "pyproject.toml").read_text().replace('",', "")
    assert list(by_pip) == ["pip"]
    options = dict(line.split() for line in by_pip["pip"])
    assert (ROOT / options["-c"]).is_file()
    assert options["-e"] == ".[book]"
    pyproject = (ROOT / "pyproject.toml").read_text()
    (book,) = re.findall(r"(?ms)^book = \[(.*?)^\]", pyproject)
    assert "jupyterlab" in book, "the link to Binder opens JupyterLab"
    assert "ipywidgets" in book


def test_binder_opens_the_chapters_where_they_are() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["launch_buttons"]["notebook_interface"] == "jupyterlab"
    assert not any((ROOT / name).exists() for name in (".binder", "binder")), "it would replace environment.yml"
