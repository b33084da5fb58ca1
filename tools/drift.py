"""How far this environment is from the tested one: `python -m tools.drift` lists what differs from constraints.txt."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent


def tested(text: str) -> dict[str, str]:
    """Name -> version in a constraints file, for this Python."""
    pins = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                (pin,) = requirement.specifier
                pins[str(canonicalize_name(requirement.name))] = pin.version
    return pins


def installed() -> dict[str, str]:
    """Name -> version of what is installed beside this Python, without local parts such as "+cpu"."""
    return {str(canonicalize_name(d.metadata["Name"])): Version(d.version).public for d in metadata.distributions()}


def table(pins: dict[str, str], here: dict[str, str]) -> list[str]:
    """A line for each package of another version, or without a tested one."""
    rows = [(name, pins.get(name, "none"), here[name]) for name in sorted(here) if pins.get(name) != here[name]]
    return [f"{name:<32}{pin:<20}{version}" for name, pin, version in rows]


def main() -> int:
    """Print the table."""
    pins = tested((ROOT / "constraints.txt").read_text())
    here = installed()
    here.pop("hybridsam-lite", None)
    rows = table(pins, here)
    print(f"{'package':<32}{'tested':<20}here")
    print("\n".join(rows))
    print(f"{len(rows)} of {len(here)} packages differ from constraints.txt.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
