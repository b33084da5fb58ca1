"""Explorers in the browser: operated by keyboard, equal to Python, and readable with scripts off.

The page is that of `tools.explorers`; its content security policy forbids every request and `eval`. The check by
axe-core needs its file: npm install --no-save --prefix _build axe-core, or HYBRIDSAM_AXE names it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from hybridsam_lite.explorers import Explorer
from hybridsam_lite.explorers.views import number
from tools.explorers import all_six, page

ROOT = Path(__file__).resolve().parents[2]
AXE = Path(os.environ.get("HYBRIDSAM_AXE", ROOT / "_build" / "node_modules" / "axe-core" / "axe.min.js"))
NAMES = ("theta_against_setting", "valley", "sam_step", "rate_ratio", "inferred", "information_bound")
PHONE, DESKTOP = (390, 844), (1280, 900)
each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def six() -> dict[str, Explorer]:
    return all_six()


@pytest.fixture(scope="module")
def site(six: dict[str, Explorer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pages: all explorers and one of them again, all with their questions first, and a broken one."""
    folder = tmp_path_factory.mktemp("explorers")
    text = page(six | {"valley_again": six["valley"]})
    (folder / "all.html").write_text(text, encoding="utf-8")
    (folder / "asking.html").write_text(page(all_six(predict=True)), encoding="utf-8")
    broken = page({"valley": six["valley"], "rate_ratio": six["rate_ratio"]}).replace('{"title"', '{"title', 1)
    (folder / "broken.html").write_text(broken, encoding="utf-8")
    return folder


class Opened:
    """A page and the trouble that it had."""

    def __init__(self, chromium: Browser, file: Path, size: tuple[int, int] = DESKTOP, **options: Any) -> None:
        viewport = {"width": size[0], "height": size[1]}
        self.page: Page = chromium.new_context(viewport=viewport, **options).new_page()
        self.trouble: list[str] = []
        note = self.trouble.append
        self.page.on("console", lambda m: note(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: note(str(error)))
        self.page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:")) else note(f"asks the network: {r.url}")
        )
        self.page.goto(file.as_uri())

    def text(self, name: str) -> str:
        return self.page.locator(f"#{name} .hs-text").inner_text()

    def drawing(self, name: str) -> str:
        return self.page.locator(f"#{name} .hs-figure").inner_html()

    def fits(self) -> None:
        content, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert content <= window, f"scrolls sideways: {content} px of content in {window} px"


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Any]:
    pages: list[Opened] = []

    def open_page(file: Path, *arguments: Any, **options: Any) -> Opened:
        pages.append(Opened(chromium, file, *arguments, **options))
        return pages[-1]

    yield open_page
    for one in pages:
        one.page.context.close()


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_every_explorer_takes_over_its_picture(opened: Any, site: Path, size: tuple[int, int], mode: str) -> None:
    at = opened(site / "all.html", size, color_scheme=mode)
    assert at.page.locator(".hs-explorer[data-ready]").count() == 7
    assert at.page.locator(".hs-explorer img").count() == 0
    for box in [one.bounding_box() for one in at.page.locator(".hs-figure > svg").all()]:
        assert box["width"] >= 240
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
    grounds = at.page.evaluate("[...document.querySelectorAll('.hs-figure')].map(f => getComputedStyle(f).background)")
    assert all("rgb(255, 255, 255)" in ground for ground in grounds)
    at.fits()
    assert not at.trouble


FOCUSED = """() => {
    const node = document.activeElement, style = getComputedStyle(node);
    return {
        section: node.closest('section')?.id ?? null, tag: node.tagName, type: node.type ?? '',
        name: node.labels?.[0]?.innerText.trim() ?? node.ariaLabel ?? node.innerText,
        outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
        value: node.ariaValueText ?? node.getAttribute('aria-valuetext'),
    };
}"""


def test_by_keyboard_alone(opened: Any, site: Path, six: dict[str, Explorer]) -> None:
    """Tab reaches every control, its focus is seen, an arrow key moves it, and words and figure change."""
    at = opened(site / "all.html", PHONE)
    reached: dict[str, list[str]] = {name: [] for name in six}
    for _ in range(60):
        at.page.keyboard.press("Tab")
        focus = at.page.evaluate(FOCUSED)
        if focus["section"] not in six:
            break
        name = focus["section"]
        assert focus["outline"] >= 2, focus
        if focus["tag"] not in ("INPUT", "SELECT"):
            continue
        assert focus["name"], focus
        reached[name].append(focus["name"].splitlines()[0])
        text, drawing = at.text(name), at.drawing(name)
        at.page.keyboard.press("ArrowDown" if focus["tag"] == "SELECT" else "ArrowRight")
        if focus["type"] == "range":
            assert at.page.evaluate(FOCUSED)["value"] != focus["value"]
        assert at.text(name) != text, focus
        assert at.drawing(name) != drawing, focus
    for name, explorer in six.items():
        # After the first arrow the explorer of settings shows the second method's slider.
        expected = [c.label for c in explorer.controls if c.when is None or c.when[1] == "wd"]
        assert reached[name] == expected
    assert not at.trouble


def test_ends_of_a_slider_by_keyboard(opened: Any, site: Path) -> None:
    at = opened(site / "all.html")
    slider = at.page.locator("#rate_ratio input").first
    slider.focus()
    at.page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "1000"
    assert "Theta learns 1000 times as fast as phi. It goes from 0.5 to 2" in at.text("rate_ratio")
    at.page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "0.001"


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two views differ by more than rounding to six digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            yield f"{path}: {sorted(one)} and {sorted(other)}"
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{path}: {len(one)} and {len(other)} entries"
        for i, pair in enumerate(zip(one, other, strict=False)):
            yield from differences(*pair, f"{path}[{i}]")
    elif isinstance(one, (int, float)) and isinstance(other, (int, float)) and not isinstance(one, bool):
        if not math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-9):
            yield f"{path}: {one} and {other}"
    elif one != other:
        yield f"{path}: {one!r} and {other!r}"


@each
def test_the_script_shows_what_python_computes(opened: Any, site: Path, six: dict[str, Explorer], name: str) -> None:
    """On states drawn at random, or on all where they were computed beforehand."""
    explorer, rng = six[name], np.random.default_rng(0)
    if explorer.kind == "frames":
        states = list(explorer.states().values())
    else:
        places = [[rng.integers(len(c.values)) for c in explorer.controls] for _ in range(15)]
        states = [{c.name: c.values[i] for c, i in zip(explorer.controls, row, strict=True)} for row in places]
    ask = "(root, states) => states.map(([state, key]) => root.explorer.at(state, key))"
    root = opened(site / "all.html").page.locator(f"#{name} .hs-explorer")
    found = root.evaluate(ask, [[s, explorer.key(s)] for s in states])
    for state, shown in zip(states, found, strict=True):
        expected = json.loads(json.dumps(explorer.at(state)))
        assert not list(differences(expected, shown)), state


def test_numbers_are_written_as_in_python(opened: Any, site: Path) -> None:
    rng = np.random.default_rng(0)
    xs = [*(rng.normal(size=2000) * 10 ** rng.uniform(-8, 8, 2000)), *(rng.integers(-9999, 9999, 500) / 8), 0.0, 1e-4]
    xs += [0.5 * 10**e for e in range(-7, 8)] + [9.995, 99.95, 999.5, 0.00099995, 999999.0]
    source = (files("hybridsam_lite.explorers") / "explorer.js").read_text(encoding="utf-8")
    found = opened(site / "all.html").page.evaluate(
        f"(xs) => {{ {source}\nreturn xs.map(number); }}", [float(x) for x in xs]
    )
    assert found == [number(float(x)) for x in xs]


def test_without_scripts_picture_and_table_remain(opened: Any, site: Path, six: dict[str, Explorer]) -> None:
    at = opened(site / "all.html", PHONE, java_script_enabled=False)
    for name, explorer in six.items():
        image = at.page.locator(f"#{name} img")
        assert image.is_visible()
        assert explorer.at(explorer.start)["text"] in (image.get_attribute("alt") or "")
        assert image.bounding_box()["width"] >= 300
        at.page.locator(f"#{name} summary").click()
        assert at.page.locator(f"#{name} details tbody tr").count() == len(explorer.table)
        assert at.page.locator(f"#{name} details tbody tr").first.is_visible()
        assert at.page.locator(f"#{name} .hs-control").count() == 0


@each
def test_a_guess_comes_before_the_figure(opened: Any, site: Path, name: str) -> None:
    at, explorer = opened(site / "asking.html", PHONE), all_six(predict=True)[name]
    guess = explorer.guess
    assert guess is not None
    section = at.page.locator(f"#{name}")
    assert not section.locator(".hs-figure").is_visible()
    assert not section.locator("details").is_visible()
    assert section.locator("img").count() == 0
    section.locator("input[type=number]").focus()
    at.page.keyboard.press("Enter")
    assert not section.locator(".hs-figure").is_visible(), "nothing was guessed"
    value = round((guess.low + 2 * guess.high) / 3, 3)
    at.page.keyboard.type(f"{value:g}")
    at.page.keyboard.press("Enter")
    assert section.locator(".hs-figure").is_visible()
    assert section.locator("details").is_visible()
    verdict = at.page.evaluate("document.activeElement.textContent")
    assert verdict == guess.verdict(value)
    drawn = "your guess" in section.locator(".hs-legend").inner_text()
    assert drawn == (guess.panel is not None)
    at.fits()
    assert not at.trouble


def test_in_a_frame_that_allows_scripts_only(chromium: Browser) -> None:
    """As notebooks in the cloud show outputs: no forms, no access to the page around."""
    tab = chromium.new_page()
    inner = escape(all_six(predict=True)["rate_ratio"]._repr_html_())
    tab.set_content(f'<iframe sandbox="allow-scripts" width="700" height="800" srcdoc="{inner}"></iframe>')
    frame = tab.frame_locator("iframe")
    frame.get_by_role("spinbutton").fill("1.2")
    frame.get_by_role("button", name="Commit").click()
    assert "off by 0.685" in frame.locator(".hs-question").inner_text()
    frame.get_by_role("slider").first.press("End")
    assert "Theta learns 1000 times as fast" in frame.locator(".hs-text").inner_text()
    tab.close()


def test_two_of_a_kind_move_on_their_own(opened: Any, site: Path) -> None:
    at = opened(site / "all.html")
    before = at.text("valley")
    at.page.locator("#valley_again input").first.focus()
    at.page.keyboard.press("ArrowRight")
    assert at.text("valley") == before != at.text("valley_again")
    ids = at.page.evaluate("[...document.querySelectorAll('[id]')].map(node => node.id)")
    assert len(ids) == len(set(ids)) == 7


def test_a_width_changes_the_figure(opened: Any, site: Path) -> None:
    at = opened(site / "all.html")
    panels = at.page.locator("#valley .hs-figure > svg")
    assert panels.nth(0).bounding_box()["y"] == panels.nth(1).bounding_box()["y"]
    at.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    at.page.wait_for_function("document.querySelector('#valley .hs-figure svg[role=img]').clientWidth < 380")
    assert panels.nth(0).bounding_box()["y"] < panels.nth(1).bounding_box()["y"]
    at.fits()


def test_play_moves_and_stops_and_respects_reduced_motion(opened: Any, site: Path) -> None:
    at = opened(site / "all.html")
    clock = at.page.clock
    clock.install(time=0)
    clock.pause_at(1000)
    button, slider = at.page.locator("#sam_step button"), at.page.locator("#sam_step input").last
    text = at.page.locator("#sam_step .hs-text")
    button.press("Enter")
    clock.run_for(1000)
    assert 45 <= int(slider.input_value()) <= 50, "a quarter of four seconds for 200 steps, less a frame or two"
    assert (button.inner_text(), button.get_attribute("aria-label")) == ("Pause", "Pause: step")
    assert text.get_attribute("aria-live") == "off"
    button.press("Enter")
    stopped = slider.input_value()
    clock.run_for(1000)
    assert slider.input_value() == stopped
    assert text.get_attribute("aria-live") == "polite"
    button.press("Enter")
    clock.run_for(4000)
    assert slider.input_value() == "200"
    assert button.inner_text() == "Play"

    calm = opened(site / "all.html", reduced_motion="reduce")
    calm.page.get_by_role("button", name="Play: step").press("Enter")
    assert calm.page.locator("#sam_step input").last.input_value() == "200"
    assert "Step 200:" in calm.text("sam_step")


def test_a_broken_explorer_keeps_its_picture(opened: Any, site: Path) -> None:
    at = opened(site / "broken.html")
    assert at.page.locator("#valley img").is_visible()
    assert at.page.locator("#rate_ratio .hs-figure").is_visible()
    assert len(at.trouble) == 1
    assert "JSON" in at.trouble[0]


@pytest.mark.skipif(not AXE.is_file(), reason=f"NOT RUN: no {AXE}; npm install --no-save --prefix _build axe-core")
@pytest.mark.parametrize(("file", "mode"), [("all.html", "light"), ("all.html", "dark"), ("asking.html", "dark")])
def test_axe_finds_nothing(opened: Any, site: Path, file: str, mode: str) -> None:
    at = opened(site / file, color_scheme=mode)
    at.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = at.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    said = [f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}" for v in found["violations"]]
    assert not said
