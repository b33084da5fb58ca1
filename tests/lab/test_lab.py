"""Chapters in a real JupyterLab, operated in Chromium: run all cells, move a control, pause a training.

The server gets a copy of the book and folders of its own, so that neither the working tree nor the
settings of whoever runs this are touched. Nothing sleeps: each wait is for something seen on the page.
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
# Milliseconds. Ample: what is waited for comes in a fraction of it, also on two busy cores.
OPENED, RAN, CHANGED, CLOSED = 180_000, 600_000, 120_000, 30_000
expect.set_options(timeout=CHANGED)

CHAPTERS = ("04_sam_from_scratch", "07_pendulum", "13_choosing_rho")
# What no chapter holds: a control of ipywidgets, which Python answers, and a training that goes on meanwhile.
WIDGETS = (
    "import hybridsam_lite as hs\n\nhs.explorers.valley().widget()",
    'task = hs.tasks.get("pendulum", preset="smoke")\n'
    'hs.widgets.monitor(task.fit, ["sam:rho=0.1"], seeds=[0], steps=5000)',
)

# No question about news, no look for updates, and each cell in the page, also those far below the window.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}


class Server(NamedTuple):
    url: str
    token: str


@contextmanager
def serving(home: Path, book: Path) -> Iterator[Server]:
    """JupyterLab on this folder, at a port that the system chose; it and its kernels are gone afterwards."""
    settings = home / "config" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(SETTINGS))
    token = secrets.token_hex(16)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    env |= {name: str(home / folder) for name, folder in FOLDERS.items()}
    env |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    env |= {"HYBRIDSAM_PRESET": "smoke", "JUPYTER_PREFER_ENV_PATH": "1"}
    options = {
        "IdentityProvider.token": token,
        "ServerApp.allow_root": "True",
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.open_browser": "False",
        "ServerApp.port": "0",
        "ServerApp.root_dir": str(book),
        # Should this process be killed, the server ends itself, a while after its last page is gone.
        "ServerApp.shutdown_no_activity_timeout": "600",
        "MappingKernelManager.cull_idle_timeout": "300",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(
        command, cwd=home, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as lab:
        words = queue.SimpleQueue[str]()  # what it says; an empty line when it is gone
        reader = threading.Thread(target=read, args=(lab, words), daemon=True)
        reader.start()
        try:
            yield Server(address(words), token)
        finally:
            lab.terminate()  # it stops its kernels, then itself
            try:
                lab.wait(CLOSED / 1000)
            except subprocess.TimeoutExpired:
                lab.kill()
            reader.join(CLOSED / 1000)


def read(lab: subprocess.Popen[str], words: queue.SimpleQueue[str]) -> None:
    assert lab.stderr is not None
    for line in lab.stderr:
        words.put(line)
    words.put("")


def address(words: queue.SimpleQueue[str]) -> str:
    """The server's address, which it names when it listens."""
    said = []
    with suppress(queue.Empty):
        while said[-1:] != [""]:
            said.append(words.get(timeout=OPENED / 1000))
            if found := re.search(r"(http://127\.0\.0\.1:\d+)/lab", said[-1]):
                return found[1]
    pytest.fail("JupyterLab did not start:\n" + "".join(said))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    book = tmp_path_factory.mktemp("lab") / "book"
    book.mkdir()
    shutil.copytree(ROOT / "book" / "results", book / "results")
    for chapter in CHAPTERS:
        shutil.copy(ROOT / "book" / f"{chapter}.ipynb", book)
    widgets = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in WIDGETS])
    widgets.metadata = nbformat.read(book / f"{CHAPTERS[0]}.ipynb", as_version=4).metadata
    nbformat.write(widgets, book / "widgets.ipynb")
    with serving(tmp_path_factory.mktemp("home"), book) as server:
        yield server


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(CHANGED)
    yield context.new_page()
    context.close()


def opened(page: Page, lab: Server, notebook: str) -> Locator:
    """The notebook's panel, with an idle kernel."""
    # A workspace of its own: nothing that an earlier test left open comes back.
    page.goto(f"{lab.url}/lab/workspaces/{notebook}/tree/{notebook}.ipynb?token={lab.token}")
    panel = page.locator(".jp-NotebookPanel")
    # The notebook's own indicator is at rest before there is a kernel, too; the status bar names the kernel.
    expect(page.get_by_text(re.compile(r"^Python 3.* \| Idle$"))).to_be_visible(timeout=OPENED)
    return panel


def menu(page: Page, name: str, entry: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{name}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{entry}$")).click()


RUN_OR_FAILED = """panel => {
    const prompts = [...panel.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].map(p => p.innerText.trim());
    const failed = panel.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
    return failed !== null || (prompts.length > 0 && prompts.every(text => /^\\[\\d+\\]:$/.test(text)));
}"""


def run_all(page: Page, panel: Locator) -> None:
    menu(page, "Run", "Run All Cells")
    page.wait_for_function(RUN_OR_FAILED, arg=panel.element_handle(), timeout=RAN)
    errors = panel.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
    assert not errors, errors[0][-2000:]


def close(page: Page) -> None:
    """Shut the notebook's kernel down: the next test has the cores for itself."""
    menu(page, "Kernel", "Shut Down Kernel")
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_have_count(0)


# The key that moves a select, a slider of HTML or one of ipywidgets, whichever end it is at.
KEY = """node => node.tagName === 'SELECT' ? (node.selectedIndex + 1 < node.options.length ? 'ArrowDown' : 'ArrowUp')
    : Number(node.value ?? node.ariaValueNow) < Number(node.max ?? node.ariaValueMax) ? 'ArrowRight' : 'ArrowLeft'"""


def moved(control: Locator, figure: Locator) -> None:
    """Move a control by an arrow key and see the figure change."""
    before = figure.evaluate("node => node.outerHTML")
    control.press(control.evaluate(KEY))
    control.page.wait_for_function(
        "([figure, before]) => figure.outerHTML !== before", arg=[figure.element_handle(), before]
    )


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_runs_and_its_explorers_move(page: Page, lab: Server, chapter: str) -> None:
    panel = opened(page, lab, chapter)
    run_all(page, panel)
    explorers = panel.locator(".hs-explorer[data-ready]").all()
    assert explorers
    for explorer in explorers:
        if (question := explorer.locator(".hs-question")).count():  # it asks for a guess before it shows anything
            question.locator("input").fill(question.locator("input").get_attribute("min") or "0")
            question.locator("button").click()
        controls = explorer.locator("input[type=range]:visible, select:visible")
        assert controls.count()
        for control in controls.all():
            moved(control, explorer.locator(".hs-figure"))
    close(page)


def step_of(said: Locator, state: str) -> int:
    """Wait until the monitor says that it is in this state; at which step."""
    words = re.compile(rf": {state}, step (\d+) of")
    expect(said).to_have_text(words)
    found = words.search(said.inner_text())
    assert found is not None
    return int(found[1])


def test_widgets_answer_while_a_training_is_watched_paused_and_stopped(page: Page, lab: Server) -> None:
    panel = opened(page, lab, "widgets")
    run_all(page, panel)
    slider, monitor = panel.locator(".jp-CodeCell").all()
    said, figure = monitor.locator("[role=status]"), monitor.locator("img[src^='data:image/png']")

    def new_figure(old: str | None) -> str:
        expect(figure).not_to_have_attribute("src", old or "")
        return figure.get_attribute("src") or ""

    new_figure(new_figure(None))  # the curves grow by themselves
    monitor.get_by_role("button", name="Pause").click()
    held = step_of(said, "paused")
    expect(monitor.get_by_role("button", name="Pause")).to_be_disabled()

    rests = held
    for rho, allowed in (("0.2", (held, held + 1)), ("0.3", None)):  # it takes the step that it is in, then no other
        monitor.locator("input[type=number]").fill(rho)
        monitor.locator("input[type=number]").press("Enter")
        expect(said).to_contain_text(f" then {rho} from step")
        assert step_of(said, "paused") in (allowed or (rests,))
        rests = step_of(said, "paused")
    moved(slider.locator(".noUi-handle").first, slider.locator(".jp-Cell-outputArea"))
    still = new_figure(None)

    monitor.get_by_role("button", name="Resume").click()
    new_figure(still)
    assert step_of(said, "training") > rests
    monitor.get_by_role("button", name="Stop").click()
    assert step_of(said, "stopped") > rests
    close(page)
