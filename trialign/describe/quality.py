"""How far captions and interests can be trusted: against a known truth, and by finding the item from its caption."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score

from trialign.catalogue import Catalogue
from trialign.datasets.atelier import Truth
from trialign.embed import embedder, enriched_text


def caption_accuracy(captions: Mapping[str, str], truth: Truth, *, seed: int = 0) -> pd.DataFrame:
    """Count how often a caption names the true value of each attribute that can be seen.

    Parameters
    ----------
    captions
        Caption by item id; every item needs its row in ``truth.items``.
    truth
        What a made catalogue knows about itself.
    seed
        Of the shuffle that gives each item another item's caption.

    Returns
    -------
    pandas.DataFrame
        One row for each attribute that is in the image (`where` is ``image`` or ``both``): ``attribute``, ``where``,
        ``accuracy`` (share of captions that contain the true value as whole words), ``shuffled`` (the same for captions
        drawn from other items: what a caption that saw nothing scores) and ``items``.
    """
    known = truth.items.set_index("item_id").loc[list(captions)]
    own = list(captions.values())
    other = [own[position] for position in np.random.default_rng(seed).permutation(len(own))]
    rows = []
    for name, attribute in truth.attributes.items():
        if attribute.where == "text":
            continue
        values = known[name].astype(str).tolist()
        rows.append((name, attribute.where, _share_named(own, values), _share_named(other, values), len(own)))
    table = pd.DataFrame(rows, columns=["attribute", "where", "accuracy", "shuffled", "items"])
    return table.sort_values(["where", "accuracy"], ascending=[False, False], ignore_index=True)


def _share_named(captions: Sequence[str], values: Sequence[str]) -> float:
    named = [
        re.search(rf"\b{re.escape(value.casefold())}\b", caption.casefold()) is not None
        for caption, value in zip(captions, values, strict=True)
    ]
    return float(np.mean(named))


def caption_retrieval(
    catalogue: Catalogue, captions: Mapping[str, Mapping[str, str]], *, seed: int = 0
) -> pd.DataFrame:
    """Find each item from its caption alone, among all items by their own text.

    A caption is embedded and compared (cosine) with the embedded title and description of every item. Captions that
    carry no information about their item find it no more often than chance.

    Parameters
    ----------
    catalogue
        The items; their text is what a caption has to find.
    captions
        Captions by item id, by the name of who wrote them.
    seed
        Of the bootstrap intervals.

    Returns
    -------
    pandas.DataFrame
        A row a writer: ``captions by``, ``items``, ``recall@1``, ``recall@10`` with a 95 % bootstrap interval
        (``low``, ``high``), mean reciprocal rank ``mrr``, and ``chance@10``.
    """
    encoder = embedder("embedded-text")
    targets = encoder.embed(enriched_text(catalogue, None, None), [None] * catalogue.n_items)
    rows = []
    for writer, written in captions.items():
        having = [row for row, item_id in enumerate(catalogue.items["item_id"]) if written.get(item_id)]
        queries = encoder.embed([written[catalogue.items["item_id"][row]] for row in having], [None] * len(having))
        similarity = queries @ targets.T
        own = similarity[np.arange(len(having)), having]
        rank = (similarity > own[:, None]).sum(axis=1) + 1
        low, high = _interval(rank <= 10, seed)
        rows.append(
            (
                writer,
                len(having),
                (rank == 1).mean(),
                (rank <= 10).mean(),
                low,
                high,
                (1 / rank).mean(),
                10 / catalogue.n_items,
            )
        )
    names = ["captions by", "items", "recall@1", "recall@10", "low", "high", "mrr", "chance@10"]
    return pd.DataFrame(rows, columns=names)


def _interval(hits: Bool[np.ndarray, " items"], seed: int) -> tuple[float, float]:
    draws = np.random.default_rng(seed).binomial(hits.size, hits.mean(), size=2000) / hits.size
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def interest_agreement(interests: Mapping[str, Sequence[str]], truth: Truth, *, seed: int = 0) -> pd.DataFrame:
    """Measure how well mined interests agree with the latent interests that made the interactions.

    For each latent interest, items are ranked by the largest cosine between its phrase and their tags (of sentence
    embeddings). The AUC is the chance that an item which truly serves the interest is ranked above one that does not.

    Parameters
    ----------
    interests
        Tags by item id.
    truth
        What a made catalogue knows about itself.
    seed
        Of the shuffle of tags among items.

    Returns
    -------
    pandas.DataFrame
        A row for each latent interest, best first, and a first row ``all`` (their mean): ``interest``, ``items`` (that
        truly serve it), ``auc``, ``auc_shuffled`` (tags of another item) and ``closest tag`` (the tag nearest to it).
    """
    item_ids = [item_id for item_id, tags in interests.items() if len(tags)]
    phrases = list(truth.interests)
    tags = sorted({tag for item_id in item_ids for tag in interests[item_id]})
    encoder = embedder("embedded-text")
    similarity = encoder.embed(tags, [None] * len(tags)) @ encoder.embed(phrases, [None] * len(phrases)).T
    position = {tag: index for index, tag in enumerate(tags)}
    scores = np.stack([similarity[[position[tag] for tag in interests[item_id]]].max(axis=0) for item_id in item_ids])
    latent = truth.items.set_index("item_id").loc[item_ids, "interests"]
    true = np.array([[phrase in set(served) for phrase in phrases] for served in latent])
    shuffled = scores[np.random.default_rng(seed).permutation(len(item_ids))]
    rows = [
        (
            phrase,
            int(true[:, column].sum()),
            _auc(true[:, column], scores[:, column]),
            _auc(true[:, column], shuffled[:, column]),
            tags[int(similarity[:, column].argmax())],
        )
        for column, phrase in enumerate(phrases)
    ]
    table = pd.DataFrame(rows, columns=["interest", "items", "auc", "auc_shuffled", "closest tag"]).sort_values(
        "auc", ascending=False
    )
    overall = pd.DataFrame(
        [("all", len(item_ids), table["auc"].mean(), table["auc_shuffled"].mean(), "")], columns=table.columns
    )
    return pd.concat([overall, table], ignore_index=True)


def _auc(true: Bool[np.ndarray, " items"], scores: Float[np.ndarray, " items"]) -> float:
    """AUC, NaN where every item or none serves the interest."""
    return float(roc_auc_score(true, scores)) if 0 < true.sum() < true.size else float("nan")
