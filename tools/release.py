"""What `make release-check` runs: build the distributions, look into them, install the wheel elsewhere and use it.

Wheel and sdist are built from a copy of what git tracks, by tools whose files are known by their hash
(tools/release.txt). The wheel goes into a new environment, with the tested
versions of what it needs, and is imported and used from an empty folder: no file may appear by an import, and no
connection be opened. Then the licences of all that came along, known vulnerabilities (if the database can be asked),
and a list of parts (SBOM, CycloneDX). Everything lies in _build/release afterwards.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.parser import HeaderParser
from importlib.metadata import metadata
from pathlib import Path

from tools import fresh
from tools.venv import ROOT

OUT = ROOT / "_build" / "release"
NEVER = re.compile(r"(^|/)(\.|__pycache__|_build|.*\.pyc$|.*\.jsonl$|.*\.ipynb$)")
ALLOWED = (
    "MIT",
    "BSD",
    "Apache",
    "PSF",
    "Python Software Foundation",
    "MPL",
    "ISC",
    "CC0",
    "HPND",
    "Unlicense",
    "Zlib",
)
USE = """
import socket, sys, time
def refuse(*arguments, **named): raise AssertionError("importing opened a connection")
socket.socket.connect = refuse
import hybridsam_lite as hs
assert sys.prefix in hs.__file__, hs.__file__
task = hs.tasks.get("pendulum", preset="smoke")
runs = task.fit(["erm", "asam:rho=1"], seeds=[0], steps=3, progress=False)
assert len(task.score(runs)) == 2
print("hybridsam_lite", hs.__version__, "works from", "a folder of its own")
"""


def say(text: str) -> None:
    """A line at once, also when the output goes to a file."""
    print(text, flush=True)


def tracked(folder: str = "") -> set[str]:
    """What git tracks, below a folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", folder or "."], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name for name in listed.stdout.split("\0") if name}


def build(python: Path) -> tuple[Path, Path]:
    """Wheel and sdist, from a copy of the tracked files."""
    with tempfile.TemporaryDirectory() as folder:
        for name in tracked():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, Path(folder) / name)
        command = [str(python), "-m", "build", "--no-isolation", "--outdir", str(OUT / "dist"), folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,), (sdist,) = (OUT / "dist").glob("*.whl"), (OUT / "dist").glob("*.tar.gz")
    return wheel, sdist


def faults_of(wheel: Path, sdist: Path) -> list[str]:
    """What is wrong with the contents of the two files."""
    project = metadata("hybridsam-lite")
    found: list[str] = []
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        inside = {name for name in names if ".dist-info/" not in name}
        inner = HeaderParser().parsestr(
            archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
        )
    due = tracked("hybridsam_lite")
    found += [f"the wheel lacks {name}" for name in sorted(due - inside)]
    found += [f"the wheel has {name}, which is not tracked there" for name in sorted(inside - due)]
    if "hybridsam_lite/py.typed" not in inside:
        found.append("the wheel lacks py.typed: type checkers would not look at it")
    if not any(name.endswith("licenses/LICENSE") for name in names):
        found.append("the wheel lacks the licence")
    for field, value in (("Name", project["Name"]), ("Version", project["Version"]), ("License-Expression", "MIT")):
        if inner[field] != value:
            found.append(f"the wheel's {field} is {inner[field]!r}, expected {value!r}")
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()} - {""}
    stray = [n for n in members if NEVER.search(n) or n not in tracked() | {"PKG-INFO", ".gitignore"}]
    folders = {str(parent) for name in members for parent in Path(name).parents}
    found += [f"the sdist has {name}" for name in sorted(set(stray) - folders - {".gitignore"})]
    found += [f"the sdist lacks {name}" for name in sorted(due - members)]
    said = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    if said is None or said[1] != project["Version"]:
        found.append(f"CITATION.cff is of version {said and said[1]}, the package of {project['Version']}")
    return found


def used(python: Path, wheel: Path) -> list[str]:
    """What goes wrong when the wheel is installed in an environment and used from an empty folder."""
    fresh.torch_by_uv(python, "-c", "constraints.txt")
    fresh.pip(python, "-c", "constraints.txt", str(wheel))
    found = []
    with tempfile.TemporaryDirectory() as home:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HYBRIDSAM", "VIRTUAL_ENV"))}
        settings = {**kept, "HOME": home, "MPLCONFIGDIR": str(Path(home) / "mpl"), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([python, "-m", "pip", "check"], check=True, stdout=subprocess.DEVNULL)
        imported = subprocess.run([python, "-c", "import hybridsam_lite"], cwd=home, env=settings, check=False)
        if imported.returncode:
            return ["the wheel cannot be imported"]
        if made := [p for p in Path(home).rglob("*") if p.is_file() and "mpl" not in p.parts]:
            found.append(f"an import writes {made[0].relative_to(home)}")
        commands: tuple[list[str | Path], ...] = (
            [python, "-c", USE],
            [python.parent / "hybridsam", "doctor"],
            [python.parent / "hybridsam", "tasks"],
        )
        for command in commands:
            done = subprocess.run(command, cwd=home, env=settings, capture_output=True, text=True)
            if done.returncode:
                found.append(f"{command[-1]!s:.40}: {done.stderr.strip().splitlines()[-1]}")
            elif "works" in done.stdout:
                say(done.stdout.strip())
    return found


def licences(python: Path) -> list[str]:
    """Packages that came along under a licence that is not on the list."""
    code = (
        "import json; from importlib.metadata import distributions as d; print(json.dumps([[x.metadata['Name'], "
        "x.metadata.get('License-Expression') or ' '.join(c for c in x.metadata.get_all('Classifier') or [] "
        "if 'License' in c) or (x.metadata.get('License') or '')[:200]] for x in d()]))"
    )
    listed = json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)
    (OUT / "licences.json").write_text(json.dumps(dict(sorted(listed)), indent=1) + "\n")
    return [f"{n}: licence {text[:60]!r}" for n, text in listed if not any(word in text for word in ALLOWED)]


def audit(tools: Path, python: Path) -> list[str]:
    """Write the list of parts; known vulnerabilities, if the database answers."""
    sbom = ["-m", "cyclonedx_py", "environment", str(python), "--output-file", str(OUT / "sbom.json")]
    subprocess.run([tools, *sbom], check=True, stderr=subprocess.DEVNULL)
    parts = json.loads((OUT / "sbom.json").read_text())["components"]
    say(f"list of parts: {len(parts)} packages, {(OUT / 'sbom.json').relative_to(ROOT)}")
    (packages,) = python.parent.parent.glob("lib/python3*/site-packages")
    command: list[str | Path] = [
        tools,
        "-m",
        "pip_audit",
        "--path",
        packages,
        "--format",
        "json",
        "--progress-spinner",
        "off",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        asked = [p for p in json.loads(done.stdout)["dependencies"] if "vulns" in p]  # others were not found there
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError):
        asked = []
    if not asked:
        say("known vulnerabilities: NOT CHECKED, the database did not answer")
        return []
    known = [p for p in asked if p["vulns"]]
    say(f"known vulnerabilities: in {len(known)} of the {len(asked)} packages that the database knows")
    return [f"{p['name']} {p['version']}: {', '.join(v['id'] for v in p['vulns'])}" for p in known]


def main() -> int:
    """1 if anything is wrong with what would be published."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    tools, target = fresh.create(OUT / "tools"), fresh.create(OUT / "environment")
    fresh.pip(tools, "--require-hashes", "-r", "tools/release.txt")
    wheel, sdist = build(tools)
    say(f"built {wheel.name} ({wheel.stat().st_size // 1000} kB), {sdist.name} ({sdist.stat().st_size // 1000} kB)")
    faults = [*faults_of(wheel, sdist), *used(target, wheel), *licences(target), *audit(tools, target)]
    say("\n".join([*faults, f"{len(faults)} faults"]))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
