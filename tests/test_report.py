import base64
import io
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trialign.backbone import SCRATCH
from trialign.report import STAND_INS, flatten, format_value, write_report
from trialign.runs import record_run
from trialign.workspace import Workspace

EVIL = '<script>document.title = "owned"</script>'
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def space(tmp_path):
    """A run of two stages with untrusted texts in every place they can be in."""
    space = Workspace("demo", tmp_path)
    stage = space.begin("02_captioning", {"captioner": "embedded", "seed": 0})
    for number in range(2):
        stage.figure(f"films_{number}", Image.new("RGB", (1200, 300), ("teal", "tomato")[number]), f"Films {EVIL}")
    captions = pd.DataFrame({"title": [EVIL] * 30, "length": np.arange(30) / 3, "tags": [["a", "b"]] * 30})
    stage.table("captions", captions, "Captions & titles")
    stage.commit({"captions": 30, "note": EVIL})
    stage = space.begin("06_beam_search", {"backbone": "scratch", "beams": 20}, ["02_captioning"])
    stage.table("metrics", pd.DataFrame({"ndcg": [0.25]}, index=pd.Index(["ours"], name="method")))
    stage.commit({"ours": {"recall@10": 0.123456, "ndcg@10": float("nan")}, "users": 12345})
    record_run(space, "embedded", None, {"beams": "20", "note": EVIL})
    return space


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_the_page_needs_nothing_else(space):
    html = write_report(space).read_text("utf-8")
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("link", "script", "iframe")
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attributes)
    assert not re.search(r"url\(|@import", html)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 2
    for attributes in images:
        with Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2]))) as image:
            assert image.size == (1200, 300) == (int(attributes["width"]), int(attributes["height"]))
        assert attributes["alt"] == f"Films {EVIL}"


def test_untrusted_text_is_text(space):
    page = Page(write_report(space).read_text("utf-8"))
    assert EVIL in page.texts  # parsed back from a table's cell, not run
    assert ("script", {}) not in page.tags


def test_everything_of_a_run_is_there(space):
    html = write_report(space).read_text("utf-8")
    page = Page(html)
    text = " ".join(page.texts)
    anchors = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    identities = {attributes.get("id") for _, attributes in page.tags}
    assert anchors == ["#top", "#02_captioning", "#06_beam_search", "#provenance"]
    assert {anchor[1:] for anchor in anchors} <= identities
    assert "Captions & titles (the first 20 of 30 rows)" in text
    assert "a, b" in page.texts
    assert "ours" in page.texts  # the index of a table is a column
    assert [word for word in page.texts[page.texts.index("ours.recall@10") :] if word][:6] == [
        "ours.recall@10",
        "0.1235",
        "ours.ndcg@10",
        "–",
        "users",
        "12,345",
    ]
    assert "profile: embedded" in text
    assert np.__version__ in page.texts
    for name in ("02_captioning", "06_beam_search"):
        assert space.manifest(name)["id"] in page.texts


def test_stand_ins_are_named(space, tmp_path):
    text = " ".join(Page(write_report(space).read_text("utf-8")).texts)
    assert "02_captioning: captioner embedded , where the method has a vision-language model (Qwen2.5-VL)" in text
    assert "06_beam_search: backbone scratch" in text
    assert set(SCRATCH) == set(STAND_INS["backbone"])  # every small model from scratch is one
    real = Workspace("real", tmp_path)
    real.begin("02_captioning", {"captioner": "hub:Qwen/Qwen2.5-VL-7B-Instruct"}).commit()
    assert "stand-ins" not in write_report(real).read_text("utf-8")


def test_a_run_without_stages_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no complete stage: run `trialign run empty` first"):
        write_report(Workspace("empty", tmp_path))


def test_values_are_formatted():
    values = [0.123456, 123456.7, 3, 12345, True, None, float("nan"), [0.5, 1], np.array([1, 2]), "<b>"]
    assert [format_value(value) for value in values] == [
        "0.1235", "123,457", "3", "12,345", "True", "–", "–", "0.5, 1", "1, 2", "<b>",
    ]  # fmt: skip
    assert flatten({"a": {"b": {"c": 1}}, "d": [1], "e": "x"}) == {"a.b.c": 1, "e": "x"}


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path: apt-get install chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_shows_every_picture(space, width, scheme):
    from playwright.sync_api import sync_playwright

    path = write_report(space)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        errors, requests = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        assert page.title() == "demo · trialign report"  # the script in the titles did not run
        drawn = page.eval_on_selector_all("img", "nodes => nodes.map(n => n.complete && n.naturalWidth === 1200)")
        assert drawn == [True, True]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click("nav a[href='#06_beam_search']")
        page.wait_for_function("document.getElementById('06_beam_search').getBoundingClientRect().top < 700")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 27)"
        assert dark == (scheme == "dark")
        browser.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
