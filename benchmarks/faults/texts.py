"""Untrusted titles in every view, in the tokenizer and in prompts: text, and nothing else."""

import io
import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from rich.console import Console

from faults import Row
from faults.injections import ALL, FAMILIES
from faults.processes import Tally
from trialign import describe
from trialign.backbone import scratch_tokenizer
from trialign.catalogue import Catalogue
from trialign.cli.base import show, tell
from trialign.datasets import load
from trialign.describe import ItemView
from trialign.describe.prompts import item_json
from trialign.explore.item_grid import ItemGrid
from trialign.explore.sids import explore_sids
from trialign.plots.catalogue import item_grid
from trialign.report import write_report
from trialign.sids import SemanticIds
from trialign.vocabulary import SidVocabulary
from trialign.workspace import Workspace


def rows(times: int, seed: int) -> Iterator[Row]:
    """Use each text of the corpus as a title; the corpus is the same whatever `times` is."""
    for family, texts in FAMILIES.items():
        yield in_pages(family, texts)
    yield in_figures(ALL)
    yield in_terminals(ALL)
    yield in_tokenizer(ALL)
    yield in_prompts(ALL)
    yield in_other_items(ALL[:: max(1, len(ALL) // (4 * times))] if 4 * times < len(ALL) else ALL)


class _Page(HTMLParser):
    """The tags with their attributes' names, and all text, of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, ...]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.text += " ".join(value or "" for _, value in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def _catalogue(title: str, root: Path) -> Catalogue:
    items = pd.DataFrame({"item_id": ["a", "b"], "title": [title, "A mug"], "image": ["", ""]})
    seen = pd.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "a"], "timestamp": [1, 2, 3]})
    return Catalogue(items, seen, root, "tiny")


def _pages(title: str, root: Path) -> dict[str, str]:
    """Return every page that shows a title, as HTML."""
    catalogue = _catalogue(title, root)
    grid = ItemGrid(label="items")
    grid.show([{"key": 0, "title": title, "note": title, "image": "", "frame": ""}])
    sids = SemanticIds(["a", "b"], np.array([[0, 0], [1, 0]]), (2, 2), 2)
    view = explore_sids(sids, catalogue, captions={"a": title}, interests={"a": [title, "calm"]})
    view.details.show(0)
    space = Workspace("demo", root)
    stage = space.begin("01_s", {"note": title})
    stage.table("titles", pd.DataFrame({"title": [title]}), title)
    stage.commit({"best": title})
    report = write_report(space).read_text("utf-8")
    frame = pd.DataFrame({"title": [title]}).to_html()
    return {"grid": grid.still_html(), "explorer": view.still(), "report": report, "table": frame}


def in_pages(family: str, texts: Sequence[str]) -> Row:
    """A page with the text has the tags of one with a plain title, and holds the text."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as root:
        benign = {name: _Page(page) for name, page in _pages("A plain title", Path(root)).items()}
        for title in texts:
            with tally.timed():
                pages = {name: _Page(page) for name, page in _pages(title, Path(root)).items()}
            same = all(page.tags == benign[name].tags for name, page in pages.items())
            start = "".join(title.split())[:20]
            held = all(start in "".join(page.text.split()) for name, page in pages.items() if name != "table")
            tally.survived += same and held
            if not (same and held):
                print(f"{title!r}: tags equal {same}, text held {held}")
    note = "report, tables, grids and explorers: no tag more than with a plain title, and the text is there"
    return Row(f"titles: {family}, in pages", tally.injected, tally.survived, 0, 0, tally.worst, note)


def in_figures(texts: Sequence[str]) -> Row:
    """Figures draw the text, mathtext and all, without an error."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font has no picture of a bell
        for title in texts:
            with tally.timed():
                figure = item_grid(_catalogue(title[:300], Path(root)), count=2, columns=2)
                figure.savefig(io.BytesIO(), format="png", dpi=30)
                plt.close(figure)
            tally.survived += 1
    return Row("titles: all, in figures", tally.injected, tally.survived, 0, 0, tally.worst, "drawn as they are")


def in_terminals(texts: Sequence[str]) -> Row:
    """Tables and messages of the command line hold no character that steers a terminal."""
    tally = Tally()
    for title in texts:
        with tally.timed():
            out = io.StringIO()
            console = Console(file=out, width=200, force_terminal=False)
            show(console, pd.DataFrame({"title": [title]}), "titles")
            tell(console, title)
        steering = [
            mark for mark in out.getvalue() if (ord(mark) < 32 and mark not in "\n\t") or 127 <= ord(mark) < 160
        ]
        tally.survived += not steering
    note = "escapes are written out"
    return Row("titles: all, on a terminal", tally.injected, tally.survived, 0, 0, tally.worst, note)


def in_tokenizer(texts: Sequence[str]) -> Row:
    """The text becomes text tokens, never SID tokens or other special ones, and can be read back."""
    tally = Tally()
    vocabulary = SidVocabulary.add_to(scratch_tokenizer(list(texts), 400), (300, 300, 300))
    special = {*vocabulary.all_sid_token_ids.tolist(), *vocabulary.tokenizer.all_special_ids}
    for title in texts:
        with tally.timed():
            tokens = vocabulary.encode_text(title)
        back = vocabulary.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        tally.survived += not special & set(tokens) and back == title
        if special & set(tokens) or back != title:
            print(f"{title!r} -> {back!r}")
    note = "no SID token and no special one among its tokens; decoding gives it back"
    return Row("titles: all, to the tokenizer", tally.injected, tally.survived, 0, 0, tally.worst, note)


def in_prompts(texts: Sequence[str]) -> Row:
    """In a prompt the text is JSON that says the same and can end no mark."""
    tally = Tally()
    for title in texts:
        with tally.timed():
            text = item_json(ItemView("1", title, title, None, title))
        said = json.loads(text)
        tally.survived += said["title"] == title and not set("<>[]\n") & set(text)
    return Row("titles: all, in prompts", tally.injected, tally.survived, 0, 0, tally.worst, "JSON that reads the same")


def in_other_items(texts: Sequence[str]) -> Row:
    """A poisoned item does not change what is mined of the others."""
    tally = Tally()
    catalogue = load("atelier").select(np.arange(8))
    views = describe.item_views(catalogue)
    miner = describe.miner("embedded")
    expected = miner.mine(views, 0)[1:]
    for title in texts:
        poisoned = ItemView(views[0].item_id, title, title, views[0].image, title)
        with tally.timed():
            found = miner.mine([poisoned, *views[1:]], 0)[1:]
        tally.survived += found == expected
    note = "the tags of the seven other items stay the same (embedded miner; other backends ask one item a request)"
    return Row("titles: all, beside other items", tally.injected, tally.survived, 0, 0, tally.worst, note)
