"""Do two seeds give the same Semantic IDs? The prefixes of separate fits, compared.

Code numbers mean nothing across fits: code 3 of one is no relative of code 3 of another. So what is compared is which
items share a prefix, which renumbered codes leave as it is.
"""

import itertools
from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_rand_score

from trialign.sids.diagnostics import nearest_neighbours, prefix_groups


def stability(
    codes_by_seed: Mapping[Hashable, Int[np.ndarray, "items levels"]],
    embeddings: Float[np.ndarray, "items dim"] | None = None,
    neighbours: int = 10,
) -> pd.DataFrame:
    """Compare the prefixes that several fits give to the same items.

    The adjusted Rand index (Hubert and Arabie 1985) asks of every pair of items whether both fits agree on "same
    prefix" or "another one", and takes off what two unrelated fits of the same group sizes would agree on. Its cost
    grows with the items alone; adjusted mutual information grows with the product of the numbers of prefixes.

    Parameters
    ----------
    codes_by_seed
        Seed (or any name of a fit) → codes, int of shape (items, levels), without a suffix level; at least two.
    embeddings
        What was quantized; adds how many true neighbours share the prefix.
    neighbours
        Nearest neighbours an item, by cosine.

    Returns
    -------
    pandas.DataFrame
        One row a depth and pair of fits: ``depth``; ``first`` and ``second``, names of the fits; ``adjusted_rand``
        (1 = the same prefixes, 0 = no more alike than by chance, NaN where no two items share a prefix in either
        fit). With embeddings also ``neighbours_first`` and ``neighbours_second``, the share of the items' true nearest
        neighbours that share the prefix in that fit; ``neighbours_both``, in both; ``neighbours_if_unrelated``, the
        product of the two shares, what fits that know nothing of each other would have in common.

    Raises
    ------
    ValueError
        If there are fewer than two fits, or they disagree in shape, or there are no more items than neighbours.
    """
    shapes = {name: np.asarray(codes).shape for name, codes in codes_by_seed.items()}
    if len(shapes) < 2 or len(set(shapes.values())) > 1:
        raise ValueError(f"give the codes of at least two fits, all of one shape (items, levels); got {shapes}")
    items = next(iter(shapes.values()))[0]
    nearest = None
    if embeddings is not None:
        if len(embeddings) != items or not 1 <= neighbours < items:
            raise ValueError(
                f"{len(embeddings)} embeddings and {neighbours} neighbours for {items} rows of codes; give one "
                "embedding a row, and fewer neighbours than rows"
            )
        nearest = nearest_neighbours(embeddings, neighbours)
    groups = {name: prefix_groups(codes) for name, codes in codes_by_seed.items()}
    rows = []
    for depth in range(next(iter(shapes.values()))[1]):
        for first, second in itertools.combinations(groups, 2):
            pair = groups[first][depth], groups[second][depth]
            row = {"depth": depth + 1, "first": first, "second": second, "adjusted_rand": _adjusted_rand(*pair)}
            rows.append(row | ({} if nearest is None else _shared_neighbours(nearest, *pair)))
    return pd.DataFrame(rows)


def _adjusted_rand(first: Int[np.ndarray, " items"], second: Int[np.ndarray, " items"]) -> float:
    if len(np.unique(first)) == len(np.unique(second)) == len(first):
        return float("nan")  # scikit-learn says 1, though nothing was compared
    return float(adjusted_rand_score(first, second))


def _shared_neighbours(
    nearest: Int[np.ndarray, "items neighbours"], first: Int[np.ndarray, " items"], second: Int[np.ndarray, " items"]
) -> dict[str, float]:
    in_first = first[nearest] == first[:, None]
    in_second = second[nearest] == second[:, None]
    return {
        "neighbours_first": float(in_first.mean()),
        "neighbours_second": float(in_second.mean()),
        "neighbours_both": float((in_first & in_second).mean()),
        "neighbours_if_unrelated": float(in_first.mean() * in_second.mean()),
    }
