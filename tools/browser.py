"""Find Chromium for the page tests, and install Debian's where that is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = "apt-get install -y --no-install-recommends chromium chromium-driver"

# Headless, also as root and without a GPU, and silent: a browser that looks for updates would
# hide a page's own requests among its own.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def find() -> str | None:
    """Path of Chromium or Chrome, None if there is none. HYBRIDSAM_CHROMIUM names another."""
    named = os.environ.get("HYBRIDSAM_CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


def install() -> str | None:
    """Path of Chromium, after installing Debian's if it is missing and this user may."""
    if (found := find()) or os.geteuid() != 0 or not shutil.which("apt-get"):
        return found
    print("Installing Debian's chromium for the page tests.", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ("apt-get update -q", INSTALL):
        subprocess.run(command.split(), stdin=subprocess.DEVNULL, env=env, check=False)
    return find()


def missing() -> str:
    """What to tell a reader whose machine has no Chromium."""
    return f"no Chromium found; on Debian: {INSTALL}; elsewhere set HYBRIDSAM_CHROMIUM to its path"
