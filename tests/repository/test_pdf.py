"""The PDFs: the summary's numbers and its six lines, and what the printed pages hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

import hybridsam_lite as hs
from hybridsam_lite.results import read_records
from tools import pdf, sheet, site

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT / "book" / "results"
PAGE = """<link rel="stylesheet" href="../_static/book.css"><article class="bd-article"><section id="top">
<h1>{title}<a class="headerlink" href="#top">#</a></h1><p id="a">{text}</p>
<p>By <span class="math">\\(x^2\\)</span>, see <a href="{link}">there</a> or <a href="#a">here</a>.</p>
<div class="cell tag_hide-input"><details class="admonition hide above-input"><pre>plotting()</pre></details></div>
<div class="cell tag_hide-cell"><details class="admonition hide above-input"><pre>checking()</pre></details></div>
<div class="admonition dropdown"><p class="admonition-title">Answer</p><p>Answered.</p></div>
<script>document.body.textContent = "a script ran"</script></section></article>"""


def fonts(reader: PdfReader) -> set[tuple[str, bool]]:
    """Name of each font, and whether the file carries it."""
    found = set()
    for page in reader.pages:
        for font in (page["/Resources"].get("/Font") or {}).values():
            font = font.get_object()
            inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
            described = inner.get("/FontDescriptor")
            # Type 3 fonts are drawings, which are always in the file.
            inside = font["/Subtype"] == "/Type3" or any(
                f"/FontFile{kind}" in described.get_object() for kind in ("", "2", "3")
            )
            found.add((font.get("/BaseFont", "Type 3"), inside))
    return found


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": pdf.WIDTH, "height": 1000})
    page = context.new_page()
    page.emulate_media(media="print")
    yield page
    context.close()


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two pages, built; the folder for PDFs."""
    (tmp_path / "_toc.yml").write_text(
        "root: book/index\nparts:\n- caption: The method\n  chapters:\n  - file: book/04_sam\n"
    )
    for name in ("CITATION.cff", "_config.yml", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    html = tmp_path / "_build" / "html"
    static = html / "_static"
    (html / "book").mkdir(parents=True)
    static.mkdir()
    for name in ("print.css", "book.css", "logo.svg", "hero.svg"):
        (static / name).write_text((ROOT / "book" / "_static" / name).read_text())
    (static / "mathjax").mkdir()
    (static / "mathjax" / "tex-chtml.js").write_text("MathJax.startup = {}; MathJax.typesetPromise = async () => {};")
    first, second = "It is lost. " * 900, "Flat is found."
    for name, title, text, link in (
        ("index", "A book", first, "04_sam.html#a"),
        ("04_sam", "SAM from scratch", second, "index.html"),
    ):
        (html / "book" / f"{name}.html").write_text(PAGE.format(title=title, text=text, link=link))
    out = tmp_path / "_build" / "pdf"
    out.mkdir()
    monkeypatch.setattr(pdf, "ROOT", tmp_path)
    monkeypatch.setattr(pdf, "HTML", html)
    return out


def test_the_book_on_paper(built: Path, page: Page) -> None:
    known = pdf.about(pdf.ROOT)
    count = pdf.book(page, built / "book.pdf", known)
    reader = PdfReader(built / "book.pdf")
    texts = [" ".join(sheet.extract_text().split()) for sheet in reader.pages]
    assert len(texts) == count >= 5  # cover, contents, a page of two or more, another
    assert known["title"] in texts[0]
    assert known["version"] in texts[0]
    assert "SAM from scratch" in texts[1]
    at = next(i for i, text in enumerate(texts) if "Flat is found." in text)
    assert at >= 4
    assert str(at + 1) in texts[1].split()  # its number in the contents
    assert str(at + 1) in texts[at].split()  # and at its foot
    assert "Chapter 4" in texts[at]
    assert "Answered." in texts[at]
    whole = " ".join(texts)
    assert "plotting()" not in whole
    assert "checking()" in whole
    assert "a script ran" not in whole
    assert all(inside for _, inside in fonts(reader))
    assert pdf.begins(built / "book.pdf", ["04_sam--a"]) == {"04_sam--a": at + 1}  # links between chapters
    assert reader.metadata is not None
    assert reader.metadata.title == known["title"]
    titles = [entry.title for entry in reader.outline if not isinstance(entry, list)]
    assert titles[-1] == "SAM from scratch"
    assert known["title"] in titles  # with its spaces
    assert sorted(path.name for path in built.iterdir()) == ["book.pdf"]


def test_the_summary_is_one_page(built: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    (pdf.ROOT / "book").mkdir()
    (pdf.ROOT / "book" / "results").symlink_to(ARCHIVE)
    assert pdf.summary(page, built / "summary.pdf", pdf.about(pdf.ROOT)) == 1
    reader = PdfReader(built / "summary.pdf")
    text = " ".join(reader.pages[0].extract_text().split())
    for wanted in ("The problem", "How to start", pdf.about(pdf.ROOT)["address"], "Pendulum", "worst = [p + rho"):
        assert wanted in text
    assert all(inside for _, inside in fonts(reader))
    assert reader.pages[0].mediabox.width == pytest.approx(595, abs=1)  # A4, in points


def test_without_a_book_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pdf.browser, "install", lambda: None)
    assert pdf.main() == 1
    assert "NOT MADE" in capsys.readouterr().err
    monkeypatch.setattr(pdf, "HTML", tmp_path)
    with pytest.raises(FileNotFoundError, match="make book"):
        pdf.chapters(ROOT, tmp_path)


def test_the_site_links_to_what_it_has(tmp_path: Path) -> None:
    assert site.PLACE in (ROOT / "book" / "index.md").read_text()
    html, printed = tmp_path / "html", tmp_path / "pdf"
    for folder in (html / "book", printed):
        folder.mkdir(parents=True)
    (html / "book" / "index.html").write_text(f"<article>{site.PLACE}</article>")
    for name in ("summary.pdf", "book.pdf"):
        (printed / name).write_bytes(b"%PDF")
    site.make(html, tmp_path / "plain", "https://a.b")
    assert ".pdf" not in (tmp_path / "plain" / "book" / "index.html").read_text()
    site.make(html, tmp_path / "site", "https://a.b", printed)
    page = BeautifulSoup((tmp_path / "site" / "book" / "index.html").read_text(), "html.parser")
    assert [(tmp_path / "site" / "book" / str(link["href"])).is_file() for link in page.find_all("a")] == [True, True]


def test_links_and_ids_of_a_joined_chapter() -> None:
    article = BeautifulSoup(
        '<article><h1 id="x">T</h1><a href="#x">1</a><a href="05.html#y">2</a><a href="05.html">3</a>'
        '<a href="https://a.b/c">4</a><a href="../data.csv">5</a><img src="../_images/a.png" loading="lazy">'
        "<script>1</script></article>",
        "html.parser",
    ).article
    assert article is not None
    out = pdf.joined(pdf.Chapter("", "04", "T", article), {"04", "05"}, "https://site/")
    assert [link["href"] for link in out.find_all("a")] == [
        *("#04--x", "#05--y", "#05", "https://a.b/c", "https://site/book/../data.csv"),
    ]
    assert out.h1 is not None
    assert out.h1["id"] == "04--x"
    assert out.img is not None
    assert out.img.attrs == {"src": f"{pdf.HTML.as_uri()}/book/../_images/a.png"}
    assert out.script is None


def test_the_six_lines_are_the_library_s_step() -> None:
    torch.manual_seed(0)
    theta, rho, lr = torch.tensor(0.5, requires_grad=True), 0.3, 0.1
    phi = [torch.randn(3, requires_grad=True), torch.randn(2, 3, requires_grad=True)]

    def loss(theta: torch.Tensor, phi: list[torch.Tensor]) -> torch.Tensor:
        return (theta * phi[0].sum() - 1) ** 2 + (phi[1] @ phi[0] - theta).square().sum()

    names: dict[str, Any] = {"torch": torch, "loss": loss, "theta": theta, "phi": phi, "rho": rho, "lr": lr}
    exec(sheet.STEP, names)
    assert len(sheet.STEP.splitlines()) == 6

    g = dict(zip(("0", "1"), torch.autograd.grad(loss(theta, phi), phi), strict=True))
    e = hs.perturbation({"0": phi[0], "1": phi[1]}, g, rho)
    worst = [phi[0] + e["0"], phi[1] + e["1"]]
    g_theta, *g_phi = torch.autograd.grad(loss(theta, worst), [theta, *worst])
    assert torch.allclose(names["theta"], theta - lr * g_theta)
    for new, old, slope in zip(names["phi"], phi, g_phi, strict=True):
        assert torch.allclose(new, old - lr * slope)


def test_the_summary_s_numbers_are_the_archive_s() -> None:
    rows = {row["task"]: row for row in sheet.lines(ARCHIVE)}
    assert len(rows) == 6
    row = rows["wind_tunnel"]
    records = read_records(ARCHIVE / "wind_tunnel.jsonl")
    problem = [
        r for r in records if (r["variant"], r["preset"], r["stage"]) == (row["variant"], row["preset"], "final")
    ]
    errors = {r["seed"]: r["theta_error"] for r in problem if r["label"] == "erm"}
    times = sorted(r["theta_error"] / errors[r["seed"]] for r in problem if r["label"].startswith("sam:"))
    middle = (times[4] * times[5]) ** 0.5  # of ten, on the scale of logarithms
    assert row["cells"]["SAM"]["times"] == pytest.approx(middle)
    assert row["cells"]["SAM"]["low"] <= middle <= row["cells"]["SAM"]["high"]
    assert row["seeds"] == 10


def test_verdicts() -> None:
    def record(label: str, seed: int, error: float) -> dict[str, Any]:
        known = {"task": "t", "variant": "v", "preset": "full", "data": "simulated", "stage": "final"}
        return {**known, "label": label, "seed": seed, "theta_error": error}

    def verdict(times: list[float]) -> str:
        rows = [record("erm", i, 1.0) for i in range(10)]
        row = sheet.line([*rows, *(record("sam:rho=0.1", i, x) for i, x in enumerate(times))])
        assert row is not None
        return row["cells"]["SAM"]["verdict"]

    assert verdict([0.5 + i / 100 for i in range(10)]) == "helps"
    assert verdict([1.5 + i / 100 for i in range(10)]) == "harms"
    assert verdict([0.5, 1.5] * 5) == "same"
    assert verdict([0.97 + i / 1e4 for i in range(10)]) == "same"  # certain, and too small to matter
    assert sheet.line([record("sam:rho=0.1", 0, 1.0)]) is None
