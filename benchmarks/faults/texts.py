"""Untrusted titles in every view, in the tokenizer and in prompts: text, and nothing else."""

import io
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from itertools import zip_longest
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from rich.console import Console
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from faults import Row
from faults.injections import ALL, FAMILIES
from faults.processes import Tally
from faults.servers import Server, completion, send, serving
from faults.views import ITEMS, Page, benign, drawn, explorer_pages, squeezed
from trialign import describe
from trialign.catalogue import Catalogue
from trialign.cli.base import show, tell
from trialign.datasets import load
from trialign.describe import DescriptionCache, ItemView, mine_interests
from trialign.describe.hub import HubMiner
from trialign.describe.prompts import item_json
from trialign.describe.server import ServerMiner
from trialign.explore.item_grid import ItemGrid
from trialign.explore.sids import explore_sids
from trialign.report import write_report
from trialign.scratch import scratch_tokenizer
from trialign.sids import SemanticIds
from trialign.vocabulary import SidVocabulary
from trialign.workspace import Workspace


def rows(times: int, seed: int) -> Iterator[Row]:
    """Use each text of the corpus as a title; the corpus is the same whatever `times` is."""
    for family, texts in FAMILIES.items():
        yield in_pages(family, texts)
    yield in_explorers(ALL)
    yield in_figures(ALL)
    yield in_terminals(ALL)
    yield in_tokenizer(ALL)
    yield in_chat_tokenizers(ALL)
    yield in_prompts(ALL)
    yield in_requests(ALL)
    yield in_other_items(ALL[:: max(1, len(ALL) // (4 * times))] if 4 * times < len(ALL) else ALL)
    yield in_catalogues(ALL)


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
        plain = {name: Page(page) for name, page in _pages("A plain title", Path(root)).items()}
        for title in texts:
            with tally.timed():
                pages = {name: Page(page) for name, page in _pages(title, Path(root)).items()}
            same = all(page.tags == plain[name].tags for name, page in pages.items())
            # pandas shows the first fifty characters of a cell, and writes line breaks and tabs out.
            cell = squeezed(title.translate({9: r"\t", 10: r"\n", 13: r"\r"}), 40)
            held = all((cell if name == "table" else squeezed(title)) in page.text for name, page in pages.items())
            tally.survived += same and held
            if not (same and held):
                print(f"{title[:80]!r}: tags equal {same}, text held {held}")
    note = "report, tables, grids and explorers: no tag more than with a plain title, and the text is there, whole"
    return Row(f"titles: {family}, in pages", tally.injected, tally.survived, 0, 0, tally.worst, note)


def in_explorers(texts: Sequence[str]) -> Row:
    """Explorers of catalogues of such texts have the tags of a plain catalogue's, and hold what those would show."""
    tally, plain_titles = Tally(), benign(ITEMS)
    plain = explorer_pages(plain_titles)
    for start in range(0, len(texts), ITEMS):
        some = texts[start : start + ITEMS]
        with tally.timed():
            pages = explorer_pages(some)
        tally.injected += len(some) - 1
        same = {name: page.tags == plain[name].tags for name, page in pages.items()}
        # The map names kinds, the most frequent ones first, so that other texts are others' places.
        lacking = {
            some[row % len(some)]
            for name in set(pages) - {"map"}
            for row, title in enumerate(plain_titles)
            if title in plain[name].text and squeezed(some[row % len(some)], 40) not in pages[name].text
        }
        tally.survived += (len(some) - len(lacking)) if all(same.values()) else 0
        if lacking or not all(same.values()):
            print(f"tags equal: {same}, not held: {sorted(text[:60] for text in lacking)}")
    note = f"SIDs, map, beams and desk of catalogues of {ITEMS} such titles, captions and tags: no tag more, all shown"
    return Row("titles: all, in explorers", tally.injected, tally.survived, 0, 0, tally.worst, note)


def in_figures(texts: Sequence[str]) -> Row:
    """Figures draw the text, dollar signs and all, as it is."""
    tally = Tally()
    for start in range(0, len(texts), ITEMS):
        some = texts[start : start + ITEMS]
        with tally.timed():
            fine = drawn(some)
        tally.injected += len(some) - 1
        tally.survived += sum(fine)
        print(*(f"{text[:80]!r} is not drawn as it is\n" for text, good in zip(some, fine) if not good), sep="", end="")
    note = f"eight kinds of figures, {ITEMS} texts in each: drawn as they are, no formula read in them"
    return Row("titles: all, in figures", tally.injected, tally.survived, 0, 0, tally.worst, note)


def in_terminals(texts: Sequence[str]) -> Row:
    """Tables and messages of the command line hold no character that steers a terminal."""
    tally = Tally()
    for title in texts:
        with tally.timed():
            out = io.StringIO()
            console = Console(file=out, width=200, force_terminal=False)
            show(console, pd.DataFrame({"title": [title]}), "titles")
            tell(console, title)
        tally.survived += not any(map(_steers, out.getvalue()))
    note = "escapes are written out"
    return Row("titles: all, on a terminal", tally.injected, tally.survived, 0, 0, tally.worst, note)


def _steers(mark: str) -> bool:
    """Return whether a terminal would act on the character instead of showing it."""
    control = (ord(mark) < 32 and mark not in "\n\t") or 127 <= ord(mark) < 160
    return control or mark in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


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


def in_chat_tokenizers(texts: Sequence[str]) -> Row:
    """Nor does it become a mark of a chat model, special or added without being so, or a word of a unigram model."""
    tally = Tally()
    for make in (chat_tokenizer, unigram_tokenizer):
        vocabulary = SidVocabulary.add_to(make(), (300, 300, 300))
        unknown = vocabulary.tokenizer.unk_token_id
        control = {token for token in vocabulary.tokenizer.added_tokens_decoder if token != unknown}
        for title in texts:
            with tally.timed():
                tokens = vocabulary.encode_text(title)
            tally.survived += not control & set(tokens)
            if control & set(tokens):
                print(f"{make.__name__}: {title[:80]!r} -> {control & set(tokens)}")
    note = "a byte-level one with Qwen's marks, some of them not special, and a unigram one whose marks are words"
    return Row("titles: all, to chat tokenizers", tally.injected, tally.survived, 0, 0, tally.worst, note)


#: Marks of chat models: tokenizers of the hub add the second kind without calling them special.
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|eot_id|>", "[INST]")
NOT_SPECIAL = ("<tool_call>", "<think>", "<|fim_prefix|>", "<|assistant|>", "[/INST]", "<start_of_turn>")


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with a chat model's marks."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["a red mug on a table"] * 9, trainer)
    options = {"pad_token": SPECIAL[0], "eos_token": SPECIAL[2], "extra_special_tokens": list(SPECIAL[3:])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **options)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in NOT_SPECIAL])
    return tokenizer


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer in the way of T5: its marks are words of the model, too."""
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=160,
        special_tokens=["<pad>", "</s>", "<unk>", "<s>", "<extra_id_0>"],
        unk_token="<unk>",
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz<>/_|0123456789"),
        show_progress=False,
    )
    unigram.train_from_iterator(["a red mug on a table", "the next item of this user"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=unigram, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


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


def in_catalogues(texts: Sequence[str]) -> Row:
    """Mining a catalogue with poisoned items among its own gives its own items the tags they have without."""
    tally = Tally()
    clean = describe.item_views(load("atelier").select(np.arange(40)))
    poisoned = [ItemView(f"poison {row}", text, text, clean[row % 40].image, text) for row, text in enumerate(texts)]
    # In turn, so that every batch of the miner has both.
    mixed = [view for pair in zip_longest(clean, poisoned) for view in pair if view is not None]
    with tally.timed():
        without, among = _tags(clean), _tags(mixed)
    changed = sum(among[view.item_id] != without[view.item_id] for view in clean)
    whole = int(changed == 0 and len(mixed) == len(clean) + len(poisoned))
    note = f"{changed} of 40 items have other tags than without {len(texts)} poisoned items (embedded miner)"
    return Row("titles: all, in one catalogue", len(texts), whole * len(texts), changed, 0, tally.worst, note)


def _tags(views: Sequence[ItemView]) -> dict[str, list[str]]:
    """Mine all items into a cache of their own."""
    with tempfile.TemporaryDirectory() as root, DescriptionCache(Path(root, "cache.sqlite")) as cache:
        table = mine_interests(views, describe.miner("embedded"), cache, progress=False)
    return {item_id: list(tags) for item_id, tags in zip(table["item_id"], table["interests"])}


def in_requests(texts: Sequence[str]) -> Row:
    """Each request to a model holds one item's text and no other's."""
    tally = Tally()
    marks = [f"mark{row:04d}x" for row in range(len(texts))]
    views = [ItemView(mark, f"{mark} {text}", text, None, text) for mark, text in zip(marks, texts)]
    with tally.timed():
        for asked in (asked_of_server(views), asked_of_hub(views)):
            alone = [[mark for mark in marks if mark in request] for request in asked]
            tally.survived += len({found[0] for found in alone if len(found) == 1}) if len(asked) == len(views) else 0
    tally.injected = 2 * len(views)
    note = "a server's and a hub model's miner: as many prompts as items, one item's text in each"
    return Row("titles: all, in requests", tally.injected, tally.survived, 0, 0, tally.worst, note)


class _Listening(Server):
    """A server that answers everything and keeps the requests."""

    def __init__(self) -> None:
        super().__init__(lambda handler: None, 0)
        self.bodies: list[str] = []
        self._keeping = threading.Lock()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Keep and answer one request."""
        body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        with self._keeping:
            self.bodies.append(body)
        send(handler, 200, completion())


def asked_of_server(views: Sequence[ItemView]) -> list[str]:
    """Return the bodies of the requests for some items to a server of the chat protocol."""
    server = _Listening()
    with serving(server) as address:
        ServerMiner("m", address, concurrency=2, timeout=20.0).mine(views, 0)
    return list(dict.fromkeys(server.bodies))  # a connection that broke is asked over again


def asked_of_hub(views: Sequence[ItemView]) -> list[str]:
    """Return the rows of the batch that a chat model would read for some items; the model itself is not run."""
    read: list[str] = []

    class Layout:
        def apply_chat_template(self, chats: Sequence[Sequence[Mapping[str, str]]], **_: object) -> list[str]:
            return ["".join(message["content"] for message in chat) for chat in chats]

        def __call__(self, texts: Sequence[str], **_: object) -> dict[str, object]:
            read.extend(texts)
            return {}

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text("{}")
        miner = HubMiner(folder)
        miner.__dict__["_loaded"] = (None, Layout())
        with mock.patch("trialign.describe.hub._generate", return_value=[""] * len(views)):
            miner.mine(views, 0)
    return read
