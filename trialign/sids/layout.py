"""Two-dimensional layouts of items by t-SNE, with numbers that say how far to trust the picture.

t-SNE (van der Maaten and Hinton 2008) started from principal components, which keeps the large structure and makes the
picture repeatable (Kobak and Berens 2019). TriAlignGR (arXiv 2605.05249) shows such a layout beside a naive one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.metrics import silhouette_score

from trialign.sids.quantizer import check_embeddings

#: Fewest items that a layout makes sense for.
FEWEST = 5


@dataclass(frozen=True, eq=False)
class LayoutComparison:
    """Layouts of the same items made from different representations.

    Parameters
    ----------
    layouts
        Name of the representation → float32 of shape (items, 2).
    scores
        One row a representation, in the same order: ``representation``, ``trustworthiness``, ``silhouette``.
    rows
        int64, the rows of the items that are shown, ascending.
    total
        Items of the catalogue; more than the rows where a sample was drawn.
    """

    layouts: dict[str, Float[np.ndarray, "items 2"]]
    scores: pd.DataFrame
    rows: Int[np.ndarray, " items"]
    total: int

    @property
    def caption(self) -> str:
        """Which items are shown, in words."""
        if len(self.rows) == self.total:
            return f"all {self.total:,} items"
        return f"{len(self.rows):,} of {self.total:,} items, drawn at random; numbers are of these"


def layout(points: Float[np.ndarray, "items dim"], seed: int = 0, perplexity: float = 30.0) -> np.ndarray:
    """Lay items out in the plane by t-SNE.

    Parameters
    ----------
    points
        Vectors: embeddings, reconstructions, or `code_features` of codes.
    seed
        Seed of the principal components and of t-SNE.
    perplexity
        Neighbours that t-SNE attends to, about; lowered to a third of the items where there are few.

    Returns
    -------
    float32 array of shape (items, 2)

    Raises
    ------
    ValueError
        If the points are malformed, or fewer than five.
    """
    points = check_embeddings(points)
    if len(points) < FEWEST:
        raise ValueError(f"a layout needs at least {FEWEST} items; got {len(points)}")
    components = min(50, *points.shape)
    reduced = PCA(n_components=components, random_state=seed).fit_transform(points) if components > 2 else points
    tsne = TSNE(
        perplexity=min(perplexity, (len(points) - 1) / 3),
        init="pca" if reduced.shape[1] >= 2 else "random",
        random_state=seed,
    )
    return tsne.fit_transform(reduced).astype(np.float32)


def code_features(
    codes: Int[np.ndarray, "items depth"], codebook_sizes: Sequence[int], decay: float = 0.5
) -> Float[np.ndarray, "items codes"]:
    """Turn codes alone into vectors: one 0/1 column a code, weighted ``decay ** level`` (first level 1).

    Two items are the nearer the more codes they share, early ones first. An absent code (-1) is all zeros.
    """
    blocks = [
        (np.asarray(codes)[:, [level]] == np.arange(size)).astype(np.float32) * decay**level
        for level, size in enumerate(codebook_sizes)
    ]
    return np.concatenate(blocks, axis=1)


def layout_scores(
    embeddings: Float[np.ndarray, "items dim"],
    positions: Float[np.ndarray, "items 2"],
    categories: Sequence[str],
    neighbours: int = 10,
) -> pd.Series:
    """Measure a layout.

    Returns
    -------
    pandas.Series
        ``trustworthiness`` (Venna and Kaski 2001): 1 = neighbours in the layout are neighbours by cosine in the
        embedding, about .5 = chance; ``silhouette`` of the categories in the layout (-1 to 1; NaN with fewer than two
        categories, or as many as items).
    """
    points = check_embeddings(embeddings)
    if not len(points) == len(positions) == len(categories):
        raise ValueError("embeddings, positions and categories must have one row an item, the same items in each")
    labels = np.asarray(categories, dtype=str)
    kinds = len(np.unique(labels))
    # scikit-learn asks for fewer than half of the items.
    bounded = max(1, min(neighbours, (len(points) - 1) // 2))
    return pd.Series(
        {
            "trustworthiness": float(trustworthiness(points, positions, n_neighbors=bounded, metric="cosine")),
            "silhouette": float(silhouette_score(positions, labels)) if 2 <= kinds < len(labels) else float("nan"),
        }
    )


def compare_layouts(
    embeddings: Float[np.ndarray, "items dim"],
    representations: Mapping[str, Float[np.ndarray, "items _"]],
    categories: Sequence[str],
    seed: int = 0,
    perplexity: float = 30.0,
    items: int = 5000,
) -> LayoutComparison:
    """Lay out several representations of the same items and score each against the same embedding.

    The time of t-SNE and the memory of its scores grow faster than the items, so of a larger catalogue a sample is
    drawn, the same for all representations.

    Parameters
    ----------
    embeddings
        What all layouts are measured against.
    representations
        Name → vectors, e.g. reconstructions of the Semantic IDs beside those of a naive quantization of the text.
    categories
        One a row.
    seed, perplexity
        As in `layout`; the seed also draws the sample.
    items
        Most items that are laid out.

    Raises
    ------
    ValueError
        If a representation has other rows than the embeddings, or there are too few items.
    """
    total = len(embeddings)
    wrong = [name for name, points in {**representations, "categories": categories}.items() if len(points) != total]
    if wrong:
        raise ValueError(f"{wrong[0]!r} has other rows than the {total} embeddings; give the same items in each")
    rows = np.arange(total)
    if items < total:
        rows = np.sort(np.random.default_rng(seed).choice(total, size=items, replace=False))
    shown, labels = np.asarray(embeddings)[rows], [str(categories[row]) for row in rows.tolist()]
    layouts = {
        name: layout(np.asarray(points)[rows], seed=seed, perplexity=perplexity)
        for name, points in representations.items()
    }
    scores = [
        {"representation": name, **layout_scores(shown, positions, labels)} for name, positions in layouts.items()
    ]
    return LayoutComparison(layouts, pd.DataFrame(scores), rows, total)
