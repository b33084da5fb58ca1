"""What `make site` runs after the book is built: a folder that can be uploaded to any web server as it is.

_build/site is the rendered book with a sitemap and without what only Sphinx needs. It works at any address, also from
a disk; only the sitemap names one: SITE_URL, or by default that of the repository's GitHub Pages. The PDFs of
tools/pdf.py are made, copied and linked from the first page if there is a Chromium to print them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from tools import address, browser, pdf

ROOT = address.ROOT
HTML, SITE = ROOT / "_build" / "html", ROOT / "_build" / "site"

# Logs of the build, what Sphinx compares builds by, and templates of the theme.
LEFT_OUT = shutil.ignore_patterns("reports", ".buildinfo*", ".doctrees", ".nojekyll", "*webpack-macros.html")
NO_CONTENT = {"genindex.html", "py-modindex.html", "search.html"}  # nor pages that only lead to another one
# In book/index.md: nothing on a page, until the files are there.
PLACE = '<p class="pdf" hidden></p>'
LINKS = """<p class="pdf">To print: <a href="../pdf/summary.pdf">a summary on one page</a>, and
<a href="../pdf/book.pdf">the whole book</a> (PDF).</p>"""
LINK = re.compile(r"""\b(?:href|src|action|url)\s*=\s*["']?([^"'\s>]*)""", re.IGNORECASE)


def pages(site: Path) -> list[str]:
    """The pages to be found by a search engine, with paths as in an address."""
    found = []
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        redirects = 'http-equiv="refresh"' in path.read_text(encoding="utf-8").lower()
        if name not in NO_CONTENT and not name.startswith("_") and not redirects:
            found.append(name)
    return found


def sitemap(names: list[str], base: str) -> str:
    """The pages' addresses, in the form of sitemaps.org."""
    urls = "\n".join(f"  <url><loc>{escape(base.rstrip('/') + '/' + name)}</loc></url>" for name in names)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    return f"{head}\n{urls}\n</urlset>\n"


def tied(site: Path) -> Iterator[str]:
    """Links that lead elsewhere when the site is moved, and names of this machine's folders."""
    for path in sorted(site.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(site).as_posix()
        for link in LINK.findall(text):
            if link.startswith(("/", "file:", "http://localhost", "http://127.")):
                yield f"{name}: {link}"
        if str(ROOT) in text:
            yield f"{name}: names {ROOT}"


def make(html: Path, site: Path, base: str, printed: Path | None = None) -> int:
    """Copy the rendered book; how many pages the sitemap has.

    Args:
        html: the rendered book.
        site: folder to write, emptied first.
        base: the site's address.
        printed: folder with summary.pdf and book.pdf, to be copied and linked from the first page.

    Raises:
        ValueError: if a page is tied to one place.
    """
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(html, site, ignore=LEFT_OUT)
    if printed:
        (site / "pdf").mkdir()
        for name in ("summary.pdf", "book.pdf"):
            shutil.copy(printed / name, site / "pdf")
        index = site / "book" / "index.html"
        index.write_text(index.read_text(encoding="utf-8").replace(PLACE, LINKS), encoding="utf-8")
    if wrong := list(tied(site)):
        raise ValueError("the site would not work at every address:\n" + "\n".join(wrong))
    names = pages(site)
    (site / "sitemap.xml").write_text(sitemap(names, base), encoding="utf-8")
    (site / ".nojekyll").touch()  # GitHub Pages leaves out folders that begin with an underscore otherwise
    return len(names)


def main() -> int:
    """Make _build/site from _build/html."""
    if not (HTML / "index.html").is_file():
        print("There is no rendered book in _build/html: run make book first.", file=sys.stderr)
        return 1
    base = os.environ.get("SITE_URL") or address.pages(address.address())
    can_print = browser.find() is not None
    if not can_print:
        print(f"Without PDF: {browser.missing()}", file=sys.stderr)
    elif pdf.main():
        return 1
    try:
        count = make(HTML, SITE, base, pdf.PDF if can_print else None)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) / 1e6
    print(f"{SITE}: {count} pages, {size:.0f} MB, ready to be uploaded; its sitemap is for {base}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
