"""Every explorer and every kind of figure with untrusted texts as titles, captions and tags of a whole catalogue."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.text import Text

from trialign.backbone import make_backbone
from trialign.catalogue import Catalogue
from trialign.datasets import load
from trialign.explore.beams import explore_beams
from trialign.explore.desk import explore_descriptions
from trialign.explore.explorer import Explorer
from trialign.explore.map import explore_map
from trialign.explore.map_points import principal_layout
from trialign.explore.sids import explore_sids
from trialign.plots.beam_tree import beam_tree
from trialign.plots.catalogue import history_strip, item_grid
from trialign.plots.descriptions import caption_cards, frequent_interests, interest_cards
from trialign.plots.prefix_tree import prefix_mosaic, quantization_steps
from trialign.recommend import GenerativeRecommender
from trialign.sids import ResidualKMeans, SemanticIds, resolve_collisions
from trialign.split import leave_one_out

#: Items of the catalogue that the texts are the titles of.
ITEMS = 40


class Page(HTMLParser):
    """The tags with their attributes' names, and all text, of a page.

    Attributes
    ----------
    tags
        Each opening tag and the names of its attributes, in order.
    text
        What is written between tags and in attributes, without white space.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, ...]] = []
        self._parts: list[str] = []
        self.feed(page)
        self.close()
        self.text = squeezed("".join(self._parts))

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.tags.append((tag, *(name for name, _ in attrs)))
        self._parts += (value or "" for name, value in attrs if name != "src")

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        self._parts.append(data)


def squeezed(text: str, most: int | None = None) -> str:
    """Return the text without white space, at most so many characters of it."""
    return "".join(text.split())[:most]


def benign(count: int) -> list[str]:
    """Return titles that a page could not take for anything else."""
    return [f"Plaintitle{row:03d}" for row in range(count)]


@cache
def _fitted() -> tuple[Catalogue, Float[np.ndarray, "items dim"], ResidualKMeans, SemanticIds, GenerativeRecommender]:
    """Return what does not depend on titles, made once."""
    catalogue = load("atelier").select(np.arange(ITEMS))
    embeddings = np.random.default_rng(0).normal(size=(ITEMS, 8)).astype(np.float32)
    quantizer = ResidualKMeans(codebook_sizes=(4, 4), seed=0).fit(embeddings)
    ids = catalogue.items["item_id"].tolist()
    sids = resolve_collisions(quantizer.encode(embeddings), (4, 4), ids, "suffix", quantizer, embeddings)
    model, vocabulary = make_backbone("scratch", sids.codebook_sizes, benign(ITEMS), hidden=16, layers=1)
    return catalogue, embeddings, quantizer, sids, GenerativeRecommender(model, vocabulary, sids)


def titled(titles: Sequence[str]) -> Catalogue:
    """Return the first `ITEMS` items of `atelier` with these titles, taken in turn, as titles and descriptions."""
    whole = _fitted()[0]
    frame = whole.items.copy()
    frame["title"] = [titles[row % len(titles)] for row in range(ITEMS)]
    for column in set(frame.columns) - {"item_id", "title", "image"}:
        frame[column] = frame["title"]
    return Catalogue(frame, whole.interactions, whole.root, "atelier")


def explorer_pages(titles: Sequence[str]) -> dict[str, Page]:
    """Return the still picture of every explorer, the texts as titles, captions, reasonings and tags."""
    catalogue = titled(titles)
    with TemporaryDirectory() as root:
        return {name: Page(explorer.still()) for name, explorer in _explorers(catalogue, Path(root))}


def _explorers(catalogue: Catalogue, root: Path) -> Iterator[tuple[str, Explorer]]:
    _, embeddings, quantizer, sids, recommender = _fitted()
    ids, shown = catalogue.items["item_id"].tolist(), catalogue.titles
    told: Mapping[str, object] = {"item_id": ids, "model": shown, "source": "made", "error": ""}
    captions = pd.DataFrame({**told, "caption": shown})
    interests = pd.DataFrame({**told, "interests": [[text, "calm"] for text in shown], "reasoning": shown})
    words, tags = dict(zip(ids, shown)), dict(zip(ids, interests["interests"]))
    view = explore_sids(sids, catalogue, captions=words, interests=tags, embeddings=embeddings, quantizer=quantizer)
    view.details.show(0)
    yield "semantic IDs", view
    yield "map", explore_map(catalogue, sids, {"embedding": principal_layout(embeddings)}, interests=tags)
    yield "beams", explore_beams(recommender, catalogue, leave_one_out(catalogue))
    yield "desk", explore_descriptions(catalogue, captions, interests, root / "judgements.jsonl")


def figures(texts: Sequence[str]) -> dict[str, Callable[[], Figure]]:
    """Return how to draw each figure that shows titles, captions or tags, with the texts, `ITEMS` at most, as them."""
    catalogue = titled(texts)
    _, embeddings, quantizer, sids, recommender = _fitted()
    titles, rows = catalogue.titles, list(range(len(texts)))
    texts_of = dict(zip(catalogue.items["item_id"].tolist(), texts))
    tags_of = {item_id: [text] for item_id, text in texts_of.items()}
    history = np.array([1, 2, 3])

    def beams() -> Figure:
        found = recommender.recommend([history], beams=8, top_k=3, progress=False, record=True)
        return beam_tree(found.records[0], found.items[0], catalogue)

    return {
        "items": lambda: item_grid(catalogue, rows=rows),
        "captions": lambda: caption_cards(catalogue, texts_of, rows, 8),
        "interests": lambda: interest_cards(catalogue, tags_of, rows, 8),
        "frequent interests": lambda: frequent_interests(tags_of, top=ITEMS),
        "history": lambda: history_strip(catalogue, history, target=4),
        "prefixes": lambda: prefix_mosaic(sids.codes, catalogue.open_image, prefixes=2, columns=4, titles=titles),
        "steps": lambda: quantization_steps(
            0, embeddings, quantizer, sids.codes[:, :2], catalogue.open_image, titles, columns=4
        ),
        "beams": beams,
    }


#: The figures that show each of the texts; the others show some.
WHOLE = ("items", "captions", "interests", "frequent interests")


def drawn(texts: Sequence[str]) -> list[bool]:
    """Draw every figure with the texts; return for each text whether it is there and no dollar sign opens a formula."""
    fine = [True] * len(texts)
    for name, draw in figures(texts).items():
        words = _words(draw())
        for row, text in enumerate(texts):
            start = squeezed(text, 6)
            found = [word for word in words if start in squeezed(word.get_text())]
            literal = not any(word.get_parse_math() and "$" in word.get_text() for word in found)
            fine[row] &= literal and (bool(found) or name not in WHOLE)
    return fine


def _words(figure: Figure) -> list[Text]:
    """Draw a figure; return its texts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font has no picture of a bell
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        figure.savefig(io.BytesIO(), format="png", dpi=20)
    plt.close(figure)
    return [word for word in figure.findobj(Text) if isinstance(word, Text) and word.get_text()]
