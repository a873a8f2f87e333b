"""Every notebook opened in JupyterLab and run by a browser; its explorers driven and drawn for the gallery.

Minutes long: `make test-browser` runs it, `make test` the short form beside it.
"""

import os
import shutil
from pathlib import Path

import pytest
from lab_browser import BROWSER, LabPage, jupyter_lab

pytestmark = [
    pytest.mark.browser,
    pytest.mark.whole,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path: apt-get install chromium"),
]

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "docs" / "gallery"
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("lab")
    for name in NOTEBOOKS:
        shutil.copy(ROOT / "notebooks" / name, folder)
    GALLERY.mkdir(exist_ok=True)
    environment = {
        "TRIALIGN_RUNS": str(folder / "runs"),
        "TRIALIGN_NOTEBOOKS": str(folder),
        "TRIALIGN_DATA": os.environ.get("TRIALIGN_DATA", str(ROOT / "data")),
    }
    with jupyter_lab(folder, environment=environment) as address, sync_playwright() as playwright:
        page = LabPage(playwright, address, width=1500, height=1100)
        yield page
        page.close()


def picture(locator, name: str) -> None:
    page, size = locator.page, locator.page.viewport_size
    page.set_viewport_size({"width": 1200, "height": 2400})  # the whole explorer, not the part a window shows
    locator.scroll_into_view_if_needed()
    page.wait_for_timeout(2500)  # images and WebGL are drawn after the widgets are there
    locator.screenshot(path=GALLERY / f"{name}.png")
    page.set_viewport_size(size)
    assert (GALLERY / f"{name}.png").stat().st_size > 20_000, "an empty picture"


def walk_prefixes(lab) -> None:
    view = lab.explorer(0)
    view.locator(".trialign-sid-children button").first.click()
    view.locator(".trialign-crumbs button:visible").nth(1).wait_for()
    view.locator(".trialign-sid-items button").first.click()
    view.get_by_text("Of the 8 nearest in the embedding").wait_for()
    picture(view, "sids")


def lasso_items(lab) -> None:
    view = lab.explorer(1)
    canvas = view.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    view.get_by_title("Activate lasso selection").first.click()
    place = canvas.bounding_box()
    x, y, w, h = (place[key] for key in ("x", "y", "width", "height"))
    lab.page.mouse.move(x + 0.3 * w, y + 0.2 * h)
    lab.page.mouse.down()
    for fx, fy in ((0.8, 0.2), (0.8, 0.8), (0.3, 0.8), (0.3, 0.25)):
        lab.page.mouse.move(x + fx * w, y + fy * h, steps=15)
    lab.page.mouse.up()
    view.locator("table.dataTable tbody tr").nth(1).wait_for()
    picture(view, "map")


def search_beams(lab) -> None:
    view = lab.explorer(0)
    before = view.get_by_role("group", name="most probable next items").inner_text()
    view.get_by_label("user number").fill("5")
    view.get_by_label("user number").press("Enter")
    lab.page.wait_for_function(
        "text => document.querySelector('[aria-label=\"most probable next items\"]').innerText !== text", arg=before
    )
    picture(view, "beams")


def judge(lab) -> None:
    view = lab.explorer(0)
    view.locator(".trialign-caption-accepted").click()
    view.get_by_text("Kept: caption accepted").wait_for()
    picture(view, "desk")


def training_drawn(lab) -> None:
    drawn = lab.page.locator(".jp-OutputArea-output img").first
    picture(drawn, "training")


#: What is driven in a notebook once it has run.
DRIVEN = {
    "03_interest_mining.ipynb": [judge],
    "04_semantic_ids.ipynb": [walk_prefixes, lasso_items],
    "05_multitask_training.ipynb": [training_drawn],
    "06_beam_search.ipynb": [search_beams],
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_jupyterlab_and_its_explorers_answer(lab, name):
    lab.open(name)
    lab.run_all(seconds=900)
    for drive in DRIVEN.get(name, []):
        drive(lab)
    assert lab.errors == []
    lab.page.evaluate("void jupyterapp.commands.execute('notebook:shutdown-kernel')")
