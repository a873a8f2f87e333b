"""What a map of items needs: places in the plane, and columns to colour them by."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.decomposition import PCA

from trialign.catalogue import Catalogue
from trialign.plots.style import PALETTE
from trialign.sids import SemanticIds
from trialign.sids.semantic_ids import token

#: What items without one of the commonest values are called, and their colour.
OTHER, OTHER_COLOUR = "other", "#B0B0B0"
#: Values that get a colour of their own: as many as the palette has besides black.
NAMED = len(PALETTE) - 1


def principal_layout(points: Float[np.ndarray, "items dim"], seed: int = 0) -> Float[np.ndarray, "items 2"]:
    """Lay items out by their first two principal components: seconds for a million, where t-SNE takes hours."""
    return PCA(n_components=2, random_state=seed, svd_solver="randomized").fit_transform(points).astype(np.float32)


def commonest(values: Sequence[str], most: int = NAMED) -> pd.Categorical:
    """Return the values as categories, the commonest first, the rest as ``other``.

    Examples
    --------
    >>> commonest(["mug", "lamp", "mug", "hat"], most=1).tolist()
    ['mug', 'other', 'mug', 'other']
    """
    column = pd.Series(list(values), dtype=str)
    named = column.value_counts().index[:most].tolist()
    kept = column.where(column.isin(named), OTHER)
    return pd.Categorical(kept, [*named, *([OTHER] if (kept == OTHER).any() and OTHER not in named else [])])


def colours(column: pd.Categorical) -> dict[str, str]:
    """Return a colour for each category, grey for ``other``."""
    named = [name for name in column.categories if name != OTHER]
    return dict(zip(named, PALETTE)) | ({OTHER: OTHER_COLOUR} if OTHER in column.categories else {})


def map_frame(
    catalogue: Catalogue,
    sids: SemanticIds,
    rows: Int[np.ndarray, " shown"],
    interests: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Return what is known of the items on a map, a row an item.

    Returns
    -------
    pandas.DataFrame
        item_id, title, semantic ID, category, popularity (interactions), and categories to colour by: ``code of level
        1``, ..., ``kind`` (category) and, where interests are given, ``interest`` (the commonest one it has).
    """
    items = catalogue.items.iloc[rows]
    counts = catalogue.interactions["item_id"].value_counts()
    codes = sids.codes[rows]
    groups = np.asarray(catalogue.groups(), dtype=str)[rows]
    frame = pd.DataFrame(
        {
            "item_id": items["item_id"].to_numpy(),
            "title": items["title"].to_numpy(),
            "semantic ID": [_spelled(row) for row in codes.tolist()],
            "category": groups,
            "popularity": counts.reindex(items["item_id"]).fillna(0).astype(int).to_numpy(),
        }
    )
    for level in range(sids.levels):
        frame[f"code of level {level + 1}"] = commonest([token(level, code) for code in codes[:, level].tolist()])
    frame["kind"] = commonest(groups.tolist())
    if interests is not None:
        frame["interest"] = commonest(_one_interest([list(interests.get(i, ())) for i in frame["item_id"]]))
    return frame


def _spelled(codes: Sequence[int]) -> str:
    return "".join(token(level, code) for level, code in enumerate(codes) if code >= 0)


def _one_interest(tags: Sequence[Sequence[str]]) -> list[str]:
    """Return for each item the commonest of its tags."""
    counts = pd.Series([tag for some in tags for tag in some], dtype=str).value_counts()
    return [max(some, key=lambda tag: counts[tag]) if some else OTHER for some in tags]
