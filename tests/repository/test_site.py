"""What `make site` makes of a rendered book, and what `make links` asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools import address, links, site

PAGE = '<html><a href="07.html#top">x</a><img src="../_images/a.png"><a href="https://example.org/">y</a></html>'
BASE = "https://example.org/book"


@pytest.fixture
def html(tmp_path: Path) -> Path:
    """A rendered book, with what a build leaves beside it."""
    folder = tmp_path / "html"
    for name, text in {
        "index.html": '<meta http-equiv="Refresh" content="0; url=book/index.html" />',
        "search.html": "<html></html>",
        "genindex.html": "<html></html>",
        "book/index.html": PAGE,
        "book/07.html": PAGE,
        "_static/webpack-macros.html": '{{ "/macro" }} href="/a"',
        "_static/book.css": "",
        "_sources/book/07.ipynb": "{}",
        "reports/book/07.err.log": "Traceback",
        ".buildinfo": "config",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_site_is_the_book_without_the_build(html: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    assert site.make(html, out, BASE) == 2
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {
        *(".nojekyll", "sitemap.xml", "index.html", "search.html", "genindex.html"),
        *("book/index.html", "book/07.html", "_static/book.css"),
        "_sources/book/07.ipynb",  # what the page's download button gives
    }
    assert (out / "book" / "07.html").read_text() == PAGE


def test_what_an_earlier_site_had_is_gone(html: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (out / "old.html").touch()
    site.make(html, out, BASE)
    assert not (out / "old.html").exists()


def test_sitemap_has_each_page_once_with_its_address(html: Path, tmp_path: Path) -> None:
    site.make(html, tmp_path / "site", BASE + "/")
    root = ElementTree.parse(tmp_path / "site" / "sitemap.xml").getroot()
    assert root.tag == "{http://www.sitemaps.org/schemas/sitemap/0.9}urlset"
    assert [loc.text for url in root for loc in url] == [f"{BASE}/book/07.html", f"{BASE}/book/index.html"]


@pytest.mark.parametrize(
    "text",
    [
        '<a href="/book/07.html">',
        "<img src = '/a.png'>",
        '<meta content="0; url=/book/index.html">',
        '<a href="file:///a">',
        f"<p>{site.ROOT}/book</p>",
    ],
)
def test_a_page_tied_to_one_place_is_refused(html: Path, tmp_path: Path, text: str) -> None:
    (html / "book" / "07.html").write_text(text)
    with pytest.raises(ValueError, match=r"book/07\.html"):
        site.make(html, tmp_path / "site", BASE)


def test_without_a_book_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(site, "HTML", tmp_path)
    assert site.main() == 1
    assert "make book" in capsys.readouterr().err


def test_address_of_the_pages() -> None:
    assert address.pages("https://github.com/Someone/a-book") == "https://someone.github.io/a-book/"
    assert address.pages("https://github.com/a/b.git") == "https://a.github.io/b/"
    assert address.pages(address.address()).startswith("https://")
    with pytest.raises(ValueError, match="SITE_URL"):
        address.pages("https://example.org/a/b")


class Answers(BaseHTTPRequestHandler):
    """By path: /200 is there, /404 is not, /503 at first is not."""

    def __init__(self, asked: list[str], *arguments: object) -> None:
        self.asked = asked
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        again = self.path in self.asked
        self.asked.append(self.path)
        self.send_response(200 if self.path == "/503" and again else int(self.path[1:4]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), partial(Answers, [])) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "verdict"), [("/200", "ok"), ("/404", "broken"), ("/410", "broken"), ("/403", "unsure"), ("/503", "ok")]
)
def test_verdicts_on_links(server: str, path: str, verdict: str) -> None:
    assert links.status(server + path, tries=2, pause=0.0)[0] == verdict


def test_nobody_there_is_broken() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_port
    verdict, why = links.status(f"http://127.0.0.1:{port}/", tries=1)
    assert verdict == "broken"
    assert why


def test_links_of_pages_and_texts(html: Path, tmp_path: Path) -> None:
    ours, colab = "https://github.com/a/b", "https://colab.research.google.com/github/a/b/blob/main/book/07.ipynb"
    hrefs = ("https://example.org/#part", f"{ours}/edit/main/book/07.ipynb", "07.html", colab, "mailto:a@b.c")
    (html / "book" / "07.html").write_text("".join(f'<a href="{href}">x</a>' for href in hrefs))
    text = tmp_path / "README.md"
    text.write_text(f"See [this]({ours}), or <https://example.org/>.")
    found = links.external(html, [text])
    assert found == {
        "https://example.org/": ["README.md", "book/07.html", "book/index.html"],
        "https://github.com/a/b": ["README.md"],
    }
