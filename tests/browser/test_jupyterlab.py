"""Lab 02 as a learner meets it: JupyterLab in a real browser, Run All, a slider moved, the plot drawn anew.

The screenshot goes to build/screenshots/; with UPDATE_SCREENSHOTS=1 it also replaces the one in the README.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from lab_browser import ARGUMENTS, Server, jupyterlab, quick_copy, until
from playwright.sync_api import ElementHandle, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
# the pictures' bytes, whether they came as a data: address or as a blob: of a widget
PICTURES = """async cell => Promise.all([...cell.querySelectorAll('img')].map(async image => {
    const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
    return Array.from(bytes, byte => String.fromCharCode(byte)).join('');
}))"""


def pictures(cell: ElementHandle) -> list[str]:
    """One hash a picture that the cell shows."""
    return [hashlib.sha256(text.encode("latin-1")).hexdigest() for text in cell.evaluate(PICTURES)]


def cell_with_slider_and_plot(page: Page) -> ElementHandle | None:
    cells = page.query_selector_all(".jp-CodeCell")
    return next((cell for cell in cells if cell.query_selector("[role=slider]") and cell.query_selector("img")), None)


def run_all(page: Page, server: Server, copy: Path, seconds: float) -> None:
    """Run All by the menu, wait until the kernel has nothing left to do, save; every cell ran and none holds an error."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
    calm = 0

    def done() -> bool:
        nonlocal calm  # between two cells the kernel is idle for a moment too
        prompts = [text.strip() for text in page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()]
        calm = calm + 1 if "[1]:" in prompts and "[*]:" not in prompts and server.idle() else 0
        return calm >= 4

    until(done, seconds, "every cell has run")
    saved = copy.stat().st_mtime_ns
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    until(lambda: copy.stat().st_mtime_ns > saved, 20, "the notebook is saved")
    cells = [cell for cell in nbformat.read(copy, as_version=4).cells if cell.cell_type == "code" and cell.source.strip()]
    errors = [
        f"{output.ename}: {output.evalue}\nin\n{cell.source}"
        for cell in cells
        for output in cell.outputs
        if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", [])
    ]
    assert not errors, "\n\n".join(errors)
    assert all(cell.execution_count for cell in cells), "a cell was saved without having run"


def drive(notebook: Path, folder: Path, browser_path: str, screenshot: Path, seconds: float = 600) -> None:
    """Open, run all, move the slider by keyboard, see another picture, keep a screenshot."""
    work = folder / "work"
    work.mkdir()
    copy = quick_copy(notebook, work)
    with jupyterlab(work, folder / "state") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        try:
            page = browser.new_page(viewport={"width": 1360, "height": 960})
            page.goto(f"{server.url}/lab/tree/{copy.name}?token={server.token}")
            page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
            until(server.idle, 60, "the kernel is idle before Run All")
            run_all(page, server, copy, seconds)

            cell = until(lambda: cell_with_slider_and_plot(page), 20, "a cell with a slider and a plot")
            cell.scroll_into_view_if_needed()
            slider, before = cell.query_selector("[role=slider]"), pictures(cell)
            value = slider.get_attribute("aria-valuenow")
            slider.focus()
            for _ in range(3):  # at its end a slider does not move one way: three steps up, then four down
                page.keyboard.press("ArrowRight")
            if slider.get_attribute("aria-valuenow") == value:
                for _ in range(4):
                    page.keyboard.press("ArrowLeft")
            assert slider.get_attribute("aria-valuenow") != value, "the keyboard moves the slider"
            # redrawing removes the old picture for a moment: an empty cell is not yet a change
            until(lambda: len(now := pictures(cell)) == len(before) and now != before, 60, "the plot changed after the slider moved")
            until(server.idle, 60, "the kernel is idle again")
            screenshot.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=screenshot)
        finally:
            browser.close()


@pytest.mark.timeout(900)
def test_lab_02_runs_in_a_browser_and_its_slider_redraws_the_plot(tmp_path: Path, needs: Callable[[str], str]) -> None:
    notebook = next((ROOT / "labs").glob("02_*.ipynb"), None)
    assert notebook is not None, "labs/02_*.ipynb is not built: labkit build"
    screenshot = ROOT / "build" / "screenshots" / "lab02.png"
    drive(notebook, tmp_path, needs("chromium"), screenshot)
    assert screenshot.stat().st_size > 20_000, "the screenshot shows something"
    if os.environ.get("UPDATE_SCREENSHOTS") == "1":
        shutil.copyfile(screenshot, ROOT / "docs" / "img" / "lab02.png")
