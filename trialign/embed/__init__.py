"""CMSA pathway 2: enriched text and the image of every item, put into one unit vector an item."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from trialign.catalogue import Catalogue

#: Words kept of title, description and other columns together, so that caption and interests, which come after them,
#: stay inside the 256 tokens that MiniLM reads.
CATALOGUE_WORDS = 120


class Embedder(Protocol):
    """What turns texts and images into unit rows."""

    @property
    def name(self) -> str:
        """Model and fusion, as manifests and figures name them."""

    def embed(
        self, texts: Sequence[str], images: Sequence[Path | None], *, progress: bool = True
    ) -> Float[np.ndarray, "items dim"]:
        """Return one float32 row of length 1 an item; an item may have no image (None)."""


def enriched_text(
    catalogue: Catalogue,
    captions: Mapping[str, str] | None = None,
    interests: Mapping[str, Sequence[str]] | None = None,
    words: int = CATALOGUE_WORDS,
) -> list[str]:
    """Join title, description, other text columns, caption and interests of every item, in this order.

    Parameters
    ----------
    catalogue
        Its items in row order.
    captions
        ``item_id`` to caption; None leaves the part out (an ablation), a missing item has none.
    interests
        ``item_id`` to interest tags; likewise.
    words
        Words kept of the catalogue's own text (title, description, other columns); the rest is cut.

    Returns
    -------
    list of str
        One text an item, its non-empty parts on lines of their own.

    Examples
    --------
    >>> import pandas as pd
    >>> items = pd.DataFrame({"item_id": ["1"], "title": ["Mug"], "brand": ["Oro"], "description": ["Holds tea."]})
    >>> catalogue = type("Shop", (), {"items": items, "text_columns": ["brand", "description"]})
    >>> print(enriched_text(catalogue, {"1": "A red mug."}, {"1": ["slow mornings", "tea time"]})[0])
    Mug
    Holds tea.
    brand: Oro
    image: A red mug.
    interests: slow mornings; tea time
    """
    columns = sorted(catalogue.text_columns, key=lambda column: column != "description")
    texts = []
    for item in catalogue.items[["item_id", "title", *columns]].to_dict("records"):
        own = [item["title"]]
        own += [
            item[column] if column == "description" else f"{column}: {item[column]}"
            for column in columns
            if item[column]
        ]
        caption = (captions or {}).get(item["item_id"], "")
        tags = "; ".join((interests or {}).get(item["item_id"], ()))
        parts = [*_first_words(own, words), caption and f"image: {caption}", tags and f"interests: {tags}"]
        texts.append("\n".join(part for part in parts if part))
    return texts


def embedder(name: str, **options: Any) -> Embedder:
    """Make an embedder by name.

    Parameters
    ----------
    name
        ``embedded`` (MiniLM and EfficientNet-Lite0 fused; packaged weights, offline), ``embedded-text`` (MiniLM alone),
        ``text:<name or folder>`` (any sentence-transformers model), ``towers:<name or folder>`` (CLIP, SigLIP and their
        like), ``gme:<name or folder>`` (a Qwen2-VL in the manner of gme-Qwen2-VL).
    **options
        Keyword parameters of the class behind the name.

    Raises
    ------
    ValueError
        If the name is none of these.
    """
    kind, _, model = name.partition(":")
    makers: dict[str, Callable[..., Embedder]] = {"text": _text, "towers": _towers, "gme": _gme}
    if kind in makers and model:
        return makers[kind](model, **options)
    if name in ("embedded", "embedded-text"):
        return (_embedded if name == "embedded" else _embedded_text)(**options)
    raise ValueError(
        f"unknown embedder {name!r}: use 'embedded', 'embedded-text', 'text:<model or folder>', "
        "'towers:<CLIP or SigLIP model or folder>' or 'gme:<Qwen2-VL model or folder>'"
    )


def _first_words(parts: list[str], words: int) -> list[str]:
    """Keep the parts' first `words` words; a part that does not fit is cut, those after it go."""
    kept = []
    for part in parts:
        split = part.split()
        if words <= 0:
            break
        kept.append(part if len(split) <= words else " ".join(split[:words]))
        words -= len(split)
    return kept


# The classes are imported when asked for: transformers and torch take seconds to load.
def _embedded(**options: Any) -> Embedder:
    from trialign.embed.fusion import FusedEmbedder

    return FusedEmbedder(**options)


def _embedded_text(**options: Any) -> Embedder:
    from trialign.embed.text import TextEmbedder

    return TextEmbedder(**options)


def _text(model: str, **options: Any) -> Embedder:
    return _embedded_text(model=model, **options)


def _towers(model: str, **options: Any) -> Embedder:
    from trialign.embed.towers import TowersEmbedder

    return TowersEmbedder(model, **options)


def _gme(model: str, **options: Any) -> Embedder:
    from trialign.embed.gme import GmeEmbedder

    return GmeEmbedder(model, **options)
