"""From a catalogue, or from embeddings made elsewhere, to Semantic IDs: what ``trialign tokenize`` does."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trialign.catalogue import Catalogue
from trialign.embed import embedder as make_embedder
from trialign.embed import enriched_text
from trialign.embed.cache import EmbeddingCache, is_joint
from trialign.embed.files import EmbeddedItems
from trialign.provenance import sha256
from trialign.sids.quantizer import Quantizer
from trialign.sids.tokenization import CACHE, EMBEDDINGS, MANIFEST, Method, Tokenization, check_target


def tokenize(
    source: Catalogue | EmbeddedItems,
    folder: str | Path,
    quantizer: Quantizer,
    method: Method = "suffix",
    embedder: str = "embedded",
    text: Sequence[str] | None = None,
    progress: bool = True,
) -> Tokenization:
    """Embed a catalogue, fit a quantizer, and give every item its SID.

    Parameters
    ----------
    source
        A catalogue, or items with embeddings (`trialign.embed.files.read_embeddings`), for which `embedder` and `text`
        are not looked at.
    folder
        Where `Tokenization.save` will write. Embeddings are kept there at once, and are not computed again while text,
        image and embedder of an item stay the same.
    quantizer
        An unfitted quantizer; it is fitted here.
    method
        How items that share a SID are told apart (`Tokenization.fit`).
    embedder
        As for `trialign.embed.embedder`.
    text
        The text columns to embed; None takes all. The title comes first, then the description, then the others in
        this order.
    progress
        Show bars.

    Raises
    ------
    ValueError
        If there is no item or no such column, the folder holds something else, or the quantizer refuses the embeddings.
    """
    check_target(folder)
    started = time.perf_counter()
    if isinstance(source, Catalogue):
        source = embed_catalogue(source, folder, embedder, text, progress)
    embedded = time.perf_counter() - started
    made = Tokenization.fit(source, quantizer, method)
    return replace(made, seconds={"embed": embedded, **made.seconds})


def extend_like(
    source: Catalogue | EmbeddedItems, folder: str | Path, like: str | Path, progress: bool = True
) -> Tokenization:
    """Give the items that are new since an earlier tokenization SIDs from the same quantizer; the old ones keep theirs.

    Parameters
    ----------
    source
        A catalogue, where the earlier one was made from a catalogue, else items with embeddings. Old items in it are
        left as they are, whatever their text is now.
    folder
        Where `Tokenization.save` will write; as for `tokenize`. It may be `like`.
    like
        The folder of the earlier tokenization. New items are embedded as it says.
    progress
        Show bars.

    Returns
    -------
    Tokenization
        All items of `source` in its order, then the old items that it no longer has: their SIDs stay taken.

    Raises
    ------
    FileNotFoundError
        If `like` holds no tokenization.
    ValueError
        If it was imported from an index, was made from embeddings where `source` is a catalogue or the other way
        round, or its embedder places an item by the other items around it; or as `trialign.sids.extension.extend`.
    """
    check_target(folder)
    old = Tokenization.load(like)
    known = set(old.sids.item_ids)
    item_ids = source.items["item_id"].tolist() if isinstance(source, Catalogue) else source.item_ids
    rows = [row for row, item_id in enumerate(item_ids) if item_id not in known]
    _check_same_kind(source, like, old.inputs)
    started = time.perf_counter()
    made = old
    if rows:
        new = source.select(rows)
        embedded = new if isinstance(new, EmbeddedItems) else _embed_new(new, folder, like, old.inputs, progress)
        seconds = {"embed": time.perf_counter() - started}
        made = old.extend(embedded)
        made = replace(made, seconds=seconds | dict(made.seconds))
    present = set(item_ids)
    departed = [item_id for item_id in old.sids.item_ids if item_id not in present]
    inputs = {**old.inputs, "like": str(like), "like_sha256": sha256(Path(like) / MANIFEST)}
    return replace(made.select([*item_ids, *departed]), inputs=inputs)


def import_index(
    path: str | Path, catalogue: Catalogue | None = None, codebook_sizes: Sequence[int] | None = None
) -> Tokenization:
    """Import a published index JSON, put into the order of the catalogue where there is one.

    Raises
    ------
    FileNotFoundError, ValueError
        As `Tokenization.from_index`.
    """
    item_ids = None if catalogue is None else catalogue.items["item_id"].tolist()
    return Tokenization.from_index(path, item_ids, codebook_sizes)


def embed_catalogue(
    catalogue: Catalogue,
    folder: str | Path,
    embedder: str = "embedded",
    text: Sequence[str] | None = None,
    progress: bool = True,
) -> EmbeddedItems:
    """Embed a catalogue's items from their own text and images; rows that the folder has already are read from it.

    Parameters
    ----------
    catalogue, folder, embedder, text, progress
        As for `tokenize`.

    Returns
    -------
    EmbeddedItems
        Its `inputs` name catalogue, embedder and text columns, and count the items ``without_content``: with no text
        in these columns and no image, all of them embedded alike.

    Raises
    ------
    ValueError
        If there is no item, no such column or no such embedder, or an image can't be read.
    """
    if catalogue.n_items == 0:
        raise ValueError(f"the catalogue {catalogue.name!r} has no items")
    texts = catalogue_texts(catalogue, text)
    images = [catalogue.image_path(row) for row in range(catalogue.n_items)]
    model = make_embedder(embedder)
    cache = EmbeddingCache(Path(folder) / CACHE, also=Path(folder) / EMBEDDINGS)
    embeddings, keys = cache.embed(model, texts, images, progress=progress)
    inputs = {
        "catalogue": catalogue.name,
        "text": None if text is None else list(text),
        "embedder": embedder,
        "model": model.name,
        "joint": is_joint(model, images),
        "content_sha256": hashlib.sha256(keys.tobytes()).hexdigest(),
        "without_content": sum(not own and image is None for own, image in zip(texts, images)),
    }
    return EmbeddedItems(catalogue.items["item_id"].tolist(), embeddings, inputs, keys)


def catalogue_texts(catalogue: Catalogue, columns: Sequence[str] | None = None) -> list[str]:
    """Return the enriched text of every item, from some of the catalogue's text columns.

    Raises
    ------
    ValueError
        If a column is not there.
    """
    if columns is None:
        return enriched_text(catalogue)
    there = ["title", *catalogue.text_columns]
    unknown = [column for column in columns if column not in there]
    if unknown or not columns:
        named = f"no text column {unknown[0]!r}" if unknown else "no text column is named"
        raise ValueError(f"the catalogue {catalogue.name!r}: {named}; there are {', '.join(there)}")
    items = catalogue.items[["item_id", *dict.fromkeys(["title", *columns]), "image"]]
    if "title" not in columns:
        items = items.assign(title="")
    return enriched_text(replace(catalogue, items=items))


def _embed_new(
    catalogue: Catalogue, folder: str | Path, like: str | Path, inputs: Mapping[str, Any], progress: bool
) -> EmbeddedItems:
    """Embed new items as the old ones were."""
    images = [catalogue.image_path(row) for row in range(catalogue.n_items)]
    if inputs["joint"] or is_joint(make_embedder(inputs["embedder"]), images):
        raise ValueError(
            f"{like} was embedded by {inputs['embedder']!r}, which takes the components of the images from all items "
            "together: new items would lie in another space. Tokenize all items again, or first with an embedder that "
            "sees each item alone, such as embedded-text or towers:MODEL"
        )
    return embed_catalogue(catalogue, folder, inputs["embedder"], inputs["text"], progress)


def _check_same_kind(source: Catalogue | EmbeddedItems, like: str | Path, inputs: Mapping[str, Any]) -> None:
    if "index" in inputs:
        raise ValueError(f"{like} was imported from an index: it has no quantizer to encode new items with")
    if isinstance(source, Catalogue) != ("embedder" in inputs):
        made, needed = ("a catalogue", "a catalogue") if "embedder" in inputs else ("embeddings", "their embeddings")
        raise ValueError(f"{like} was made from {made}; give the new items as {needed}, too")
