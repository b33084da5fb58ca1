"""For all tests: no test fails because the machine is busy, and one browser for those that look at pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tools import browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; without one the tests that need it are skipped, but under CI they fail."""
    path = browser.find()
    if path is None and os.environ.get("CI"):
        pytest.fail(f"pages must be looked at under CI: {browser.missing()}")
    if path is None:
        pytest.skip(f"NOT RUN: {browser.missing()}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(browser.FLAGS))
        yield chromium
        chromium.close()
