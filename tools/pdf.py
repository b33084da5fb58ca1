"""What `make pdf` runs after the book is built: the book and a one-page summary as PDF, printed by Chromium.

All pages of _toc.yml become one page, with a cover and a table of contents, and are printed twice: once to see where
each chapter begins, once with these page numbers. book/_static/print.css says what a page looks like on paper.
Explorers are their static picture and table, for no script but MathJax is left; folded plotting code is left out.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString
from pypdf import PdfReader

from tools import address, browser, sheet

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = address.ROOT
BUILD = ROOT / "_build"
HTML, PDF = BUILD / "html", BUILD / "pdf"
STYLE = ROOT / "tools" / "pdf.css"
FOLDED = "Set-up and plotting code that the page on the web folds is left out here; the notebooks have it."
ITALIC, BOLD = "font-style: italic;", "font-weight: bold;"
FONTS = {
    "Book": {
        "STIXGeneral": "",
        "STIXGeneralItalic": ITALIC,
        "STIXGeneralBol": BOLD,
        "STIXGeneralBolIta": ITALIC + BOLD,
    },
    "DejaVu Sans": {"DejaVuSans": "", "DejaVuSans-Bold": BOLD},
    "DejaVu Sans Mono": {"DejaVuSansMono": "", "DejaVuSansMono-Bold": BOLD, "DejaVuSansMono-Oblique": ITALIC},
}
# Fonts first: MathJax takes the size of the text that a formula stands in.
MATH = '{"options": {"processHtmlClass": "tex2jax_process|math"}, "startup": {"typeset": false}}'
SET = """async () => {
    await Promise.all([...document.fonts].map(face => face.load()));
    if (!window.MathJax) return;
    await MathJax.startup.promise;
    await MathJax.typesetPromise();
    await document.fonts.ready;
}"""
LIMIT = 600_000.0  # milliseconds for a step of the browser
LONG = 12  # lines of a code cell that may be broken
WIDTH = 642  # pixels, of 170 mm: the text on the paper


@dataclass(frozen=True)
class Chapter:
    """A page of the book: its part (or none), its name without folder, its title and its article."""

    part: str
    name: str
    title: str
    article: Tag

    @property
    def number(self) -> str:
        """The chapter's number as in its name, or nothing."""
        return str(int(self.name[:2])) if self.name[:2].isdigit() else ""


def toc(path: Path) -> Iterator[tuple[str, str]]:
    """Part and file of each page, in order; the root has no part."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    yield "", tree["root"]
    for part in tree["parts"]:
        for chapter in part["chapters"]:
            yield part["caption"], chapter["file"]


def chapters(root: Path, built: Path) -> list[Chapter]:
    """The rendered pages in the order of the table of contents.

    Raises:
        FileNotFoundError: if a page has not been built.
    """
    found = []
    for part, entry in toc(root / "_toc.yml"):
        page = built / f"{entry}.html"
        if not page.is_file():
            raise FileNotFoundError(f"no page {page}: run make book first")
        article = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select_one("article.bd-article")
        assert article is not None
        assert article.h1 is not None
        for number in article.h1.select(".section-number"):  # printed above the title
            number.extract()
        title = "".join(text for text in article.h1.find_all(string=True) if text != "#").strip()
        found.append(Chapter(part, Path(entry).name, title, article))
    return found


def place(name: str, fragment: str = "") -> str:
    """What a place on a page is called in the book, where ids of several pages meet."""
    return f"{name}--{fragment}" if fragment else name


def joined(chapter: Chapter, names: set[str], base: str) -> Tag:
    """The chapter's article with ids of its own, and links that lead within the book, or to the web."""
    article = chapter.article
    for script in article.find_all(["script", "noscript"]):
        script.decompose()
    for element in article.find_all(True):
        for attribute in ("id", "for", "aria-describedby"):
            if isinstance(value := element.get(attribute), str):
                element[attribute] = place(chapter.name, value)
    for link in article.find_all("a", href=True):
        url = urlsplit(str(link["href"]))
        name = Path(unquote(url.path)).name
        if url.scheme or url.netloc:
            continue
        if not url.path:
            link["href"] = "#" + place(chapter.name, url.fragment)
        elif name.removesuffix(".html") in names and name.endswith(".html"):
            link["href"] = "#" + place(name.removesuffix(".html"), url.fragment)
        else:
            link["href"] = f"{base}book/{link['href']}"
    for code in article.find_all("pre"):
        lines = code.get_text().rstrip().splitlines()
        code["style"] = f"--columns: {max(map(len, lines), default=0)}"
        cell = code.find_parent("div", class_="cell_input")
        if cell and len(lines) >= LONG:
            cell["class"] = " ".join([*cell.get_attribute_list("class"), "long"])
    for formula in article.find_all("span", class_="math"):
        after = formula.next_sibling
        found = re.match(r"[^\s\w(\[]+", after) if isinstance(after, NavigableString) else None
        if found:  # no line begins with the comma after a formula
            assert isinstance(after, NavigableString)
            after.replace_with(after[found.end() :])
            together = Tag(name="span", attrs={"style": "white-space: nowrap"})
            formula.wrap(together)
            together.append(found[0])
    for image in article.find_all("img"):
        image.attrs.pop("loading", None)
        if isinstance(source := image.get("src"), str) and not source.startswith("data:"):
            image["src"] = f"{HTML.as_uri()}/book/{source}"
    return article


def about(root: Path) -> dict[str, Any]:
    """Title, authors, version and licences, from CITATION.cff and _config.yml."""
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    licence = BeautifulSoup(config["html"]["extra_footer"], "html.parser").get_text(" ", strip=True)
    authors = [person.get("name") or f"{person['given-names']} {person['family-names']}" for person in cited["authors"]]
    return {
        "title": config["title"],
        "authors": ", ".join(authors),
        "version": str(cited["version"]),
        "year": str(config["copyright"]),
        "licence": licence.replace(" .", "."),
        "address": address.address(root),
    }


def cover(known: Mapping[str, Any]) -> str:
    """The first page."""
    shown = {key: html.escape(value) for key, value in known.items()}
    return f"""<section class="cover"><h1>{shown["title"]}</h1>
<img src="{HTML.as_uri()}/_static/logo.svg" alt="hybridsam_lite">
<p class="authors">{shown["authors"]}</p>
<p>Version {shown["version"]}, {shown["year"]}<br><a href="{shown["address"]}">{shown["address"]}</a></p>
<p class="small">{shown["licence"]} {FOLDED}</p></section>"""


def contents(found: Sequence[Chapter], numbers: Mapping[str, int]) -> str:
    """The table of contents; a page without a number yet gets the room for one."""
    rows, part = [], ""
    for chapter in found:
        if chapter.part != part:
            part = chapter.part
            rows.append(f'<li class="part">{html.escape(part)}</li>')
        rows.append(
            f'<li><span>{chapter.number}</span><a href="#{chapter.name}">{html.escape(chapter.title)}</a>'
            f"<i></i><b>{numbers.get(chapter.name, 0)}</b></li>"
        )
    return f'<nav class="printed-toc"><h1>Contents</h1><ul>{"".join(rows)}</ul></nav>'


def fonts() -> str:
    """The fonts of text, headings and code, which come with matplotlib: the same book on every machine."""
    import matplotlib as mpl

    folder = Path(mpl.get_data_path(), "fonts", "ttf")
    return "\n".join(
        f'@font-face {{ font-family: "{family}"; src: url("{(folder / f"{file}.ttf").as_uri()}"); {how} }}'
        for family, files in FONTS.items()
        for file, how in files.items()
    )


def heads(found: Sequence[Chapter]) -> str:
    """For each chapter the line above and the number below its pages, as CSS."""
    small = 'font: 8pt "DejaVu Sans", sans-serif; color: #666;'
    pages = []
    for i, chapter in enumerate(found):
        head = f"{chapter.number}  {chapter.title}".strip().replace("\\", "\\\\").replace('"', '\\"')
        corners = f'@top-left {{ content: "{head}"; {small} }} @bottom-right {{ content: counter(page); {small} }}'
        pages.append(f"@page p{i} {{ {corners} }}")
    return "\n".join(pages)


def whole(known: Mapping[str, Any], found: Sequence[Chapter], bodies: Sequence[str], numbers: Mapping[str, int]) -> str:
    """The book as one page of HTML."""
    built = HTML.as_uri()
    sample = BeautifulSoup((HTML / "book" / "index.html").read_text(encoding="utf-8"), "html.parser")
    sheets = [str(link["href"]) for link in sample.find_all("link", rel="stylesheet")]
    return "\n".join(
        (
            '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">',
            f"<title>{html.escape(known['title'])}</title>",
            *(f'<link rel="stylesheet" href="{built}/book/{name}">' for name in sheets if "print.css" not in name),
            f'<link rel="stylesheet" href="{built}/_static/print.css">',
            f"<style>{fonts()}\n{heads(found)}\n{STYLE.read_text(encoding='utf-8')}</style>",
            f"<script>window.MathJax = {MATH}</script>",
            f'<script defer src="{built}/_static/mathjax/tex-chtml.js"></script></head><body>',
            cover(known),
            contents(found, numbers),
            *bodies,
            "</body></html>",
        )
    )


def body(i: int, chapter: Chapter, article: Tag) -> str:
    """One chapter, as it stands in the whole."""
    above = f"Chapter {chapter.number}" if chapter.number else ""
    return (
        f'<div class="bd-main chapter" id="{chapter.name}" style="page: p{i}">'
        f'<p class="above">{above}</p>{article}</div>'
    )


def printed(page: Page, source: Path, target: Path, **settings: Any) -> None:
    """Print a page of HTML, with its formulas set if it has any."""
    page.goto(source.as_uri(), timeout=LIMIT)
    page.evaluate(SET)
    page.pdf(path=target, prefer_css_page_size=True, print_background=True, **settings)


def begins(path: Path, names: Sequence[str]) -> dict[str, int]:
    """The page, counted from 1, on which each named place of a PDF lies."""
    reader = PdfReader(path)
    places = reader.named_destinations
    found = {name: reader.get_destination_page_number(places[f"/{name}"]) for name in names if f"/{name}" in places}
    return {name: number + 1 for name, number in found.items() if number is not None}


def book(page: Page, target: Path, known: Mapping[str, Any]) -> int:
    """Print the whole book; how many pages it has."""
    found = chapters(ROOT, HTML)
    names = {chapter.name for chapter in found}
    base = address.pages(known["address"])
    bodies = [body(i, chapter, joined(chapter, names, base)) for i, chapter in enumerate(found)]
    source, numbers = target.with_suffix(".html"), dict[str, int]()
    for _ in range(2):
        source.write_text(whole(known, found, bodies, numbers), encoding="utf-8")
        printed(page, source, target, outline=True, tagged=True)
        numbers = begins(target, [chapter.name for chapter in found])
    source.unlink()
    return len(PdfReader(target).pages)


def summary(page: Page, target: Path, known: Mapping[str, Any]) -> int:
    """Print the summary; how many pages it has."""
    source = target.with_suffix(".html")
    source.write_text(
        sheet.html(known, sheet.lines(ROOT / "book" / "results"), fonts(), HTML.as_uri()), encoding="utf-8"
    )
    printed(page, source, target, tagged=True)
    source.unlink()
    return len(PdfReader(target).pages)


def main() -> int:
    """Make _build/pdf from _build/html."""
    if (chromium := browser.install()) is None:
        print(f"NOT MADE: {browser.missing()}", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    PDF.mkdir(parents=True, exist_ok=True)
    known = about(ROOT)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(browser.FLAGS))
        page = started.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        page.set_default_timeout(LIMIT)
        page.emulate_media(media="print")
        try:
            for name, make in {"summary": summary, "book": book}.items():
                target = PDF / f"{name}.pdf"
                count = make(page, target, known)
                print(f"{target}: {count} pages, {target.stat().st_size / 1e6:.1f} MB", flush=True)
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            started.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
