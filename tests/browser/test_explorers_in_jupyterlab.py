"""The explorers in JupyterLab, driven by mouse and keyboard in a real browser."""

import subprocess
import sys

import pytest
from explorer_run import READ, make_run
from lab_browser import BROWSER, LabPage, jupyter_lab, write_notebook
from playwright.sync_api import expect, sync_playwright

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path: apt-get install chromium"),
]

EXPLORERS = ("sids", "map", "beams", "desk", "runs")
CELLS = [
    "import sys\nsys.path.insert(0, {tests!r})" + READ.replace("RUN", "{run!r}"),
    "from pathlib import Path\nfrom explorer_run import explorers_of\nviews = explorers_of(made, Path('judged.jsonl'))",
    *(f"views[{name!r}]" for name in EXPLORERS),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("lab")
    run = str(make_run(folder / "runs").folder)
    tests = str(request.path.parents[1])
    write_notebook(folder / "explorers.ipynb", *(cell.format(tests=tests, run=run) for cell in CELLS))
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    expect.set_options(timeout=20_000)  # as long as the page's own waits
    with jupyter_lab(folder) as address, sync_playwright() as playwright:
        lab = LabPage(playwright, address)
        lab.open("explorers.ipynb")
        lab.run_all()
        yield lab
        lab.close()


def view(lab, name):
    return lab.explorer(EXPLORERS.index(name))


def test_the_tree_is_walked_by_mouse_and_keyboard(lab):
    view_ = view(lab, "sids")
    codes = view_.locator(".trialign-sid-children button")
    first = codes.first.locator("code").inner_text()
    codes.first.focus()
    lab.page.keyboard.press("Enter")
    lab.page.wait_for_selector(f".trialign-crumbs button:disabled:has-text('{first.split(',')[0]}')")
    # The crumbs come before the items: what is pressed too soon would be pressed in the old grid.
    lab.page.wait_for_function(
        "prefix => [...document.querySelectorAll('.trialign-sid-items code')]"
        ".every(note => note.textContent.startsWith(prefix))",
        arg=first.split(",")[0],
    )
    focused = "document.activeElement.closest('.trialign-sid-children') !== null"
    assert lab.page.evaluate(focused), "tiles that change keep the keyboard's place"
    items = view_.locator(".trialign-sid-items button")
    items.first.focus()
    lab.page.keyboard.press("ArrowRight")
    lab.page.keyboard.press("Enter")
    title = items.nth(1).locator(".trialign-title").inner_text()
    view_.locator(f".trialign-item-details b:has-text('{title}')").wait_for()
    pressed = view_.locator(".trialign-sid-items button[aria-pressed=true] .trialign-title")
    expect(pressed).to_have_text(title)
    # The details come in pieces, one a message of the kernel.
    expect(view_.locator(".trialign-item-details")).to_contain_text("of the 8 nearest", ignore_case=True)
    view_.locator(".trialign-crumbs button:has-text('all items')").click()
    lab.page.wait_for_selector(".trialign-crumbs button:disabled:has-text('all items')")


def test_an_item_is_looked_up_by_typing(lab):
    view_ = view(lab, "sids")
    box = view_.locator(".trialign-title-box").first
    box.get_by_role("textbox").fill("cushion")
    box.get_by_role("textbox").press("Enter")
    box.locator("option").nth(1).wait_for(state="attached")
    box.locator("select").select_option(index=1)
    view_.get_by_text("has the semantic ID").wait_for()


def test_a_lasso_drawn_on_the_map_chooses_items(lab):
    view_ = view(lab, "map")
    view_.locator("canvas").nth(1).wait_for(state="attached")
    canvas = view_.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    x, y, w, h = (place[key] for key in ("x", "y", "width", "height"))
    view_.get_by_title("Activate lasso selection").first.click()
    lab.page.mouse.move(x + 60, y + 30)
    lab.page.mouse.down()
    for fx, fy in ((0.97, 0.05), (0.97, 0.95), (0.12, 0.95), (0.12, 0.1)):
        lab.page.mouse.move(x + fx * w, y + fy * h, steps=20)
    lab.page.mouse.up()
    view_.get_by_text("of 60 items are chosen").wait_for()
    lab.page.wait_for_function(
        "[...document.querySelectorAll('[role=status]')].some(x => /^[1-9]\\d* of 60 items/.test(x.textContent))"
    )
    view_.locator("table.dataTable tbody tr").nth(1).wait_for()


def test_the_map_shows_the_image_under_the_pointer(lab):
    canvas = view(lab, "map").locator("canvas").first
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    shown = (
        "[...document.querySelectorAll('.trialign-map div')].some(x => x.style.backgroundImage.includes('data:image'))"
    )
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    for offset in range(0, 160, 4):  # outwards from the middle until a point is hit
        for dx, dy in ((offset, 0), (-offset, 0), (0, offset), (0, -offset), (offset, offset), (-offset, -offset)):
            lab.page.mouse.move(x + dx, y + dy)
        if lab.page.evaluate(shown):
            break
    lab.page.wait_for_function(shown)


def test_the_map_is_searched_by_keyboard(lab):
    view_ = view(lab, "map")
    field = view_.get_by_label("choose")
    field.fill("bottle")
    field.press("Enter")
    lab.page.wait_for_function(
        "[...document.querySelectorAll('.trialign-explorer table.dataTable tbody td:first-child')]"
        ".some(cell => /bottle/.test(cell.textContent))"
    )


_ANSWER_IS = (
    "([text, same]) => "
    "(document.querySelector('[aria-label=\"most probable next items\"]').innerText === text) === same"
)


def test_beams_answer_at_once(lab):
    view_ = view(lab, "beams")
    answer = view_.get_by_role("group", name="most probable next items")
    history = view_.get_by_role("group", name="history, oldest first")
    before, length = answer.inner_text(), history.locator("button").count()
    history.locator("button").first.click()
    view_.get_by_role("button", name="remove").click()
    lab.page.wait_for_function(
        f"document.querySelectorAll('[aria-label=\"history, oldest first\"] button').length === {length - 1}"
    )
    view_.get_by_role("button", name="reset").click()
    lab.page.wait_for_function(
        f"document.querySelectorAll('[aria-label=\"history, oldest first\"] button').length === {length}"
    )
    lab.page.wait_for_function(_ANSWER_IS, arg=[before, True])  # the same history has the same answer
    view_.get_by_label("user number").fill("3")
    view_.get_by_label("user number").press("Enter")
    lab.page.wait_for_function(_ANSWER_IS, arg=[before, False])
    expect(view_.locator(".trialign-beam-levels")).to_contain_text("prefixes alive hold")


def test_a_judgement_is_kept_with_its_author(lab, folder):
    view_ = view(lab, "desk")
    view_.get_by_label("who judges").fill("ann")
    view_.get_by_label("who judges").press("Tab")
    view_.locator(".trialign-caption-rejected").click()
    view_.get_by_text("Kept: caption rejected by ann.").wait_for()
    assert '"author": "ann"' in (folder / "judged.jsonl").read_text()


def test_runs_are_compared(lab):
    view_ = view(lab, "runs")
    view_.get_by_label("against").select_option("seed")
    view_.locator("img[alt='06_beam_search.ndcg@10 against seed']").wait_for()


def test_nothing_harmful_ran_and_nothing_was_fetched(lab):
    assert lab.page.evaluate("document.title") != "hacked"
    assert lab.errors == []
    own = (lab.address, "data:", "blob:", lab.address.replace("http", "ws"))
    assert [url for url in lab.requests if not url.startswith(own)] == []


def test_every_control_has_a_name(lab):
    """A screen reader has something to say for each control of the explorers."""
    nameless = lab.page.evaluate(
        """[...document.querySelectorAll('.trialign-explorer :is(input, select, textarea, button)')]
        .filter(x => x.offsetParent !== null && !x.closest('.jupyter-scatter, .trialign-map, .dt-container'))
        .filter(x => !(x.labels?.length && [...x.labels].some(l => l.textContent.trim()))
            && !x.getAttribute('aria-label') && !x.textContent.trim() && !x.title && !x.placeholder)
        .map(x => x.outerHTML.slice(0, 200))"""
    )
    assert nameless == []


def test_a_page_without_a_kernel_shows_still_pictures(lab, folder):
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", "explorers.ipynb", "--output", "page.html"],
        cwd=folder, check=True, capture_output=True, timeout=180,
    )  # fmt: skip
    page = lab.browser.new_page()
    page.goto((folder / "page.html").as_uri())
    drawn = page.eval_on_selector_all("img", "nodes => nodes.map(node => node.naturalWidth > 0)")
    assert len(drawn) > 30
    assert all(drawn)
    assert page.title() != "hacked"
    assert page.get_by_text("A still picture").count() == len(EXPLORERS)
    page.close()
