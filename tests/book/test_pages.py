"""The rendered book: complete, without broken links, readable offline on a phone and in the dark.

Needs a finished `make book`. The second half opens every page in headless Chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

from tools import book, pdf

pytestmark = pytest.mark.pages

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
PHONE, DESKTOP = (390, 844), (1280, 900)


def toc_entries(node: Any) -> list[str]:
    """Every file that the table of contents names, in order."""
    if isinstance(node, list):
        return [entry for item in node for entry in toc_entries(item)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("root", "file") if key in node]
    return own + [entry for value in node.values() for entry in toc_entries(value)]


ENTRIES = toc_entries(yaml.safe_load((ROOT / "_toc.yml").read_text()))
each_page = pytest.mark.parametrize("entry", ENTRIES)


def page_file(entry: str) -> Path:
    return HTML / f"{Path(entry).with_suffix('') if Path(entry).suffix else entry}.html"


@cache
def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def is_notebook(entry: str) -> bool:
    return (ROOT / entry).with_suffix(".ipynb").is_file()


@each_page
def test_toc_entry_has_a_page(entry: str) -> None:
    assert page_file(entry).is_file(), f"no page for {entry}: run make book first"


@each_page
def test_no_traceback(entry: str) -> None:
    page = parsed(page_file(entry))
    assert "Traceback (most recent call last)" not in page.get_text()
    assert not page.select(".output.traceback")


@each_page
def test_outputs_are_free_of_warnings_and_terminal_codes(entry: str) -> None:
    page = parsed(page_file(entry))
    assert "\x1b" not in page.get_text()
    # Where a terminal's codes were, MyST-NB puts classes like -Color-Bold-Green.
    assert not page.select('[class*="-Color"]')
    assert [output.get_text() for output in page.select(".output.stderr")] == []


def test_no_colours_are_asked_for_in_a_build() -> None:
    asked = {"FORCE_COLOR": "1", "PY_COLORS": "1", "TERM": "xterm", "HYBRIDSAM_PRESET": "smoke"}
    given = book.environment(asked)
    assert not {"FORCE_COLOR", "PY_COLORS"} & set(given)
    assert (given["NO_COLOR"], given["TERM"], given["HYBRIDSAM_PRESET"]) == ("1", "xterm", "smoke")
    table = [sys.executable, "-m", "hybridsam_lite", "tasks"]
    assert b"\x1b" in subprocess.run(table, env={**os.environ, **asked}, capture_output=True, check=True).stdout
    plain = book.environment({**os.environ, **asked})
    assert b"\x1b" not in subprocess.run(table, env=plain, capture_output=True, check=True).stdout


@each_page
def test_internal_links_lead_somewhere(entry: str) -> None:
    path = page_file(entry)
    broken = []
    for tag, attribute in (("a", "href"), ("link", "href"), ("img", "src"), ("script", "src")):
        for element in parsed(path).find_all(tag):
            url = urlsplit(element.get(attribute) or "")
            if url.scheme or url.netloc or (not url.path and not url.fragment):
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.is_file():
                broken.append(f"{element[attribute]} (no such file)")
            elif url.fragment and not parsed(target).find(id=unquote(url.fragment)):
                broken.append(f"{element[attribute]} (no such place)")
    assert not broken


@each_page
def test_citations_and_equations_are_resolved(entry: str) -> None:
    text = parsed(page_file(entry)).get_text()
    for role in ("{cite", "{eq}", "{ref}", "{doc}", "{numref}"):
        assert role not in text, f"{role} is shown to the reader"


@cache
def repository_files() -> set[str]:
    """What the repository holds, new files included, or what is there if this is no clone."""
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        return {path.relative_to(ROOT).as_posix() for path in (ROOT / "book").rglob("*")}
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "book"]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())


@each_page
def test_colab_link_names_a_notebook_of_the_repository(entry: str) -> None:
    links = {
        link["href"].split("/blob/main/", 1)[-1]
        for link in parsed(page_file(entry)).find_all("a", href=True)
        if link["href"].startswith("https://colab.research.google.com/")
    }
    assert links == ({f"{entry}.ipynb"} if is_notebook(entry) else set())
    assert links <= repository_files()


@each_page
def test_images_have_alt_text(entry: str) -> None:
    for image in parsed(page_file(entry)).find_all("img"):
        alt = image.get("alt", "")
        # Without alt text of its own, an image gets the path of its file as alt.
        assert alt, f"no alt text: {image['src']}"
        assert not alt.endswith((".png", ".svg", ".jpg")), f"no alt text: {image['src']}"


@pytest.fixture(params=["light", "dark"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[PHONE, DESKTOP], ids=["phone", "desktop"])
def page(chromium: Browser, mode: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if mode == "dark" else "light",
    )
    yield context.new_page()
    context.close()


# Rendered formulas, formulas to render, and errors that MathJax shows in place of a formula.
COUNT_MATH = """() => [
    document.querySelectorAll('mjx-container').length,
    document.querySelectorAll('span.math, div.math').length,
    document.querySelectorAll('mjx-merror').length,
]"""
MATH_IS_SET = "() => !window.MathJax || (MathJax.startup && MathJax.startup.promise)"
WIDTHS = "() => [document.documentElement.scrollWidth, window.innerWidth]"
# Images outside closed drop-downs, whose size is zero by design.
FIGURES = """() => [...document.querySelectorAll('article img')]
    .filter(image => !image.closest('details:not([open])'))
    .map(image => {
        const box = image.getBoundingClientRect();
        const style = getComputedStyle(image);
        return {
            src: image.getAttribute('src'), loaded: image.naturalWidth > 0,
            left: box.left, right: box.right, width: box.width, height: box.height,
            shown: style.visibility === 'visible' && Number(style.opacity) > 0.9,
            output: image.closest('.cell_output') !== null,
            ground: style.backgroundColor,
        };
    })"""
TRANSPARENT = "rgba(0, 0, 0, 0)"


@each_page
def test_in_the_browser(page: Page, mode: str, entry: str) -> None:
    trouble: list[str] = []
    page.on("console", lambda m: trouble.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("requestfailed", lambda request: trouble.append(f"failed: {request.url}"))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("file:", "data:", "blob:"))
            else trouble.append(f"asks the network: {request.url}")
        ),
    )
    page.goto(page_file(entry).as_uri())
    # Math is set by a deferred script, which is there once the page has loaded.
    page.evaluate(MATH_IS_SET)
    page.wait_for_load_state("networkidle")
    assert not trouble

    rendered, wanted, wrong = page.evaluate(COUNT_MATH)
    assert rendered >= wanted
    assert wrong == 0

    content, window = page.evaluate(WIDTHS)
    assert content <= window, f"scrolls sideways: {content} px of content in {window} px"
    assert page.locator("html").get_attribute("data-theme") == mode

    for figure in page.evaluate(FIGURES):
        assert figure["loaded"], figure
        assert figure["shown"], figure
        # At least a third of a phone, and all of it inside the window.
        assert figure["width"] >= 120, figure
        assert figure["height"] >= 40, figure
        assert figure["left"] >= -1, figure
        assert figure["right"] <= window + 1, figure
        if mode == "dark" and figure["output"]:
            assert figure["ground"] != TRANSPARENT, f"dark lines on a dark page: {figure}"


def test_search_finds_a_page(chromium: Browser) -> None:
    page = chromium.new_page()
    page.goto((HTML / "search.html").as_uri() + "?q=notation")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    assert "otation" in page.locator("#search-results").inner_text()
    page.close()


def test_a_page_on_paper(chromium: Browser) -> None:
    page = chromium.new_page(viewport={"width": 642, "height": 900})  # the text's width on A4
    page.emulate_media(media="print")
    page.goto(page_file("book/04_sam_from_scratch").as_uri())
    page.evaluate(MATH_IS_SET)
    for furniture in (".bd-sidebar-primary", ".bd-header", ".prev-next-footer", ".copybtn"):
        assert page.locator(furniture).first.is_hidden(), furniture
    answers = page.locator(".admonition.dropdown")
    assert answers.count() > 3
    for i in range(answers.count()):
        assert answers.nth(i).locator("p").nth(1).is_visible()
    wide = "() => [...document.querySelectorAll('article pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(wide) == 0
    page.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_book_on_paper(chromium: Browser, tmp_path: Path) -> None:
    page = chromium.new_page(viewport={"width": pdf.WIDTH, "height": 1000})
    page.set_default_timeout(pdf.LIMIT)
    page.emulate_media(media="print")
    target = tmp_path / "book.pdf"
    count = pdf.book(page, target, pdf.about(ROOT))
    page.close()
    reader = PdfReader(target)
    # A compatibility form undoes ligatures: three letters of "Duffing" are one sign in the font.
    texts = [unicodedata.normalize("NFKC", " ".join(sheet.extract_text().split())) for sheet in reader.pages]
    assert len(texts) == count > len(ENTRIES)
    found = pdf.chapters(ROOT, HTML)
    begins = pdf.begins(target, [chapter.name for chapter in found])
    assert list(begins.values()) == sorted(begins.values())
    for chapter in found:
        assert chapter.title in texts[begins[chapter.name] - 1]
        assert chapter.title in texts[1]  # the contents
        assert str(begins[chapter.name]) in texts[1]
    whole = "\n".join(texts)
    assert "Traceback (most recent call last)" not in whole
    assert "\\mathrm" not in whole  # formulas are set
