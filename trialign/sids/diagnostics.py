"""What quantization keeps: reconstruction, use of codes, neighbours and categories by prefix.

TriAlignGR (arXiv 2605.05249) calls the loss of meaning in encoding and quantization "semantic ID content degradation";
these tables measure it. Codes may carry a suffix level: where a table is about the quantizer, it reads the
quantizer's levels only.
"""

from collections.abc import Sequence

import faiss
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from trialign.sids.quantizer import Quantizer, check_embeddings


def reconstruction_by_depth(
    embeddings: Float[np.ndarray, "items dim"], quantizer: Quantizer, codes: Int[np.ndarray, "items depth"]
) -> pd.DataFrame:
    """Compare embeddings with their reconstruction from the first codes.

    For items that the quantizer was fitted on, a learned decoder may remember some of what it gives back; encode items
    that were held out to see what new items keep.

    Returns
    -------
    pandas.DataFrame
        One row a level: ``level`` (1 = first code only); ``cosine``, the mean over items of the cosine between
        embedding and reconstruction; ``relative_error``, ``sum ||x - x^||^2 / sum ||x||^2``; and what this level alone
        adds: ``cosine_added``, the difference from one code fewer, and ``error_removed``, likewise (without any code
        the relative error is 1).
    """
    points = _embeddings_for(embeddings, codes)
    levels = len(quantizer.codebook_sizes)
    rows = []
    for depth in range(1, levels + 1):
        reconstructed = quantizer.reconstruct(np.asarray(codes)[:, :levels], depth=depth)
        error = np.square(points - reconstructed, dtype=np.float64).sum() / np.square(points, dtype=np.float64).sum()
        rows.append(
            {"level": depth, "cosine": float(cosines(points, reconstructed).mean()), "relative_error": float(error)}
        )
    table = pd.DataFrame(rows)
    table["cosine_added"] = table["cosine"].diff().fillna(table["cosine"])
    table["error_removed"] = -table["relative_error"].diff().fillna(table["relative_error"] - 1)
    return table


def cosines(left: Float[np.ndarray, "items dim"], right: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, " items"]:
    """Return the cosine (float64) of each pair of rows; 0 where one of them is all zeros."""
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.divide((left * right).sum(axis=1), lengths, out=np.zeros(len(left)), where=lengths > 0)


def code_usage(codes: Int[np.ndarray, "items depth"], codebook_sizes: Sequence[int]) -> pd.DataFrame:
    """Describe how evenly the codes of each level are used; items without a code at a level are left out there.

    Returns
    -------
    pandas.DataFrame
        One row a level: ``level``; ``codebook_size``; ``items`` that have a code here; ``used``, the share of codes
        that some item has; ``entropy`` of the use in bits; ``perplexity`` (2 ** entropy, between 1 and the size);
        ``gini`` of the use (0 = even, towards 1 = all items on one code).
    """
    rows = []
    for level, counts in enumerate(code_counts(codes, codebook_sizes)):
        shares = counts[counts > 0] / max(1, counts.sum())
        entropy = float(-(shares * np.log2(shares)).sum()) + 0.0  # not -0.0
        rows.append(
            {
                "level": level + 1,
                "codebook_size": len(counts),
                "items": int(counts.sum()),
                "used": float((counts > 0).mean()),
                "entropy": entropy,
                "perplexity": 2.0**entropy,
                "gini": gini(counts),
            }
        )
    return pd.DataFrame(rows)


def code_counts(codes: Int[np.ndarray, "items depth"], codebook_sizes: Sequence[int]) -> list[np.ndarray]:
    """Return, for each level, how many items (int64) have each code.

    Raises
    ------
    ValueError
        If codes and sizes disagree in depth, or a code lies outside its codebook.
    """
    array = np.asarray(codes)
    if array.ndim != 2 or array.shape[1] != len(codebook_sizes):
        raise ValueError(
            f"codes of shape {array.shape} for {len(codebook_sizes)} codebook sizes; give one size a level"
        )
    if (array < -1).any() or (array >= np.asarray(codebook_sizes)).any():
        raise ValueError(f"a code lies outside its codebook; sizes are {tuple(codebook_sizes)}")
    return [
        np.bincount(array[array[:, level] >= 0, level], minlength=size) for level, size in enumerate(codebook_sizes)
    ]


def gini(counts: Int[np.ndarray, " codes"]) -> float:
    """Return the Gini coefficient of non-negative counts (0 for all equal, (n - 1) / n for all in one)."""
    ordered = np.sort(np.asarray(counts, dtype=np.float64))
    if ordered.sum() == 0:
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def neighbour_preservation(
    embeddings: Float[np.ndarray, "items dim"], codes: Int[np.ndarray, "items depth"], neighbours: int = 10
) -> pd.DataFrame:
    """Ask whether near items share prefixes.

    Returns
    -------
    pandas.DataFrame
        One row a depth: ``depth``; ``preserved``, the share of the items' true nearest neighbours (by cosine) that
        share the item's first `depth` codes; ``chance``, the same for any other item; ``lift``, their ratio (NaN
        where no two items share a prefix).

    Raises
    ------
    ValueError
        If the embeddings are malformed, rows disagree, or there are no more items than neighbours.
    """
    points = _embeddings_for(embeddings, codes)
    if not 1 <= neighbours < len(points):
        raise ValueError(f"neighbours must be between 1 and {len(points) - 1} for {len(points)} items")
    nearest = nearest_neighbours(points, neighbours)
    rows = []
    for depth, group in enumerate(prefix_groups(codes), start=1):
        preserved = float((group[nearest] == group[:, None]).mean())
        chance = float(_pairs(np.bincount(group)) / _pairs(np.array([len(group)])))
        lift = preserved / chance if chance > 0 else np.nan
        rows.append({"depth": depth, "preserved": preserved, "chance": chance, "lift": lift})
    return pd.DataFrame(rows)


def nearest_neighbours(
    embeddings: Float[np.ndarray, "items dim"], neighbours: int
) -> Int[np.ndarray, "items neighbours"]:
    """Return the rows of each item's nearest other items by cosine, exactly (faiss), nearest first."""
    points = check_embeddings(embeddings)
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    found = index.search(unit, neighbours + 1)[1]
    # The item itself is among the found unless more than `neighbours` equal items crowd it out; then the last one goes.
    itself = found == np.arange(len(found))[:, None]
    itself[~itself.any(axis=1), -1] = True
    return found[~itself].reshape(len(found), neighbours)


def category_purity(
    codes: Int[np.ndarray, "items depth"], categories: Sequence[str], seed: int = 0, permutations: int = 5
) -> pd.DataFrame:
    """Ask whether items that share a prefix share a category; items whose category is "" (unknown) are left out.

    A prefix of one item is pure without meaning anything, so purity stands beside the purity of shuffled categories,
    and beside a figure for pairs of items, which single items do not enter.

    Returns
    -------
    pandas.DataFrame
        One row a depth: ``depth``; ``prefixes`` in use; ``purity``, the share of items in the most common category of
        their prefix; ``purity_chance``, its mean over shuffled categories; ``pair_agreement``, the share of pairs of
        items with the same prefix that have the same category (NaN without such pairs); ``pair_chance``, the same for
        all pairs. Where no category is known, ``prefixes`` is 0 and the others are NaN.
    """
    if len(categories) != len(codes):
        raise ValueError(f"{len(categories)} categories for {len(codes)} items; give one category a row")
    known = np.asarray(categories, dtype=object) != ""
    if not known.any():
        measures = ("purity", "purity_chance", "pair_agreement", "pair_chance")
        depths = range(1, np.asarray(codes).shape[1] + 1)
        return pd.DataFrame([{"depth": depth, "prefixes": 0, **dict.fromkeys(measures, np.nan)} for depth in depths])
    codes = np.asarray(codes)[known]
    labels = pd.factorize(np.asarray(categories, dtype=object)[known], use_na_sentinel=False)[0]
    generator = np.random.default_rng(seed)
    shuffled = [generator.permutation(labels) for _ in range(permutations)]
    pair_chance = _ratio(_pairs(np.bincount(labels)), _pairs(np.array([len(labels)])))
    rows = []
    for depth, group in enumerate(prefix_groups(codes), start=1):
        same_both = np.unique(np.column_stack([group, labels]), axis=0, return_counts=True)[1]
        rows.append(
            {
                "depth": depth,
                "prefixes": int(group.max()) + 1,
                "purity": _purity(group, labels),
                "purity_chance": float(np.mean([_purity(group, other) for other in shuffled])),
                "pair_agreement": _ratio(_pairs(same_both), _pairs(np.bincount(group))),
                "pair_chance": pair_chance,
            }
        )
    return pd.DataFrame(rows)


def prefix_groups(codes: Int[np.ndarray, "items depth"]) -> list[Int[np.ndarray, " items"]]:
    """Return, for each depth, a number an item that is equal exactly for items with the same first codes."""
    array = np.asarray(codes)
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"codes must have shape (items, depth) with at least one item; got {array.shape}")
    return [
        np.unique(array[:, :depth], axis=0, return_inverse=True)[1].reshape(-1)
        for depth in range(1, array.shape[1] + 1)
    ]


def _embeddings_for(embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
    points = check_embeddings(embeddings)
    if len(points) != len(codes):
        raise ValueError(f"{len(points)} embeddings for {len(codes)} rows of codes; give the same items in both")
    return points


def _purity(group: np.ndarray, labels: np.ndarray) -> float:
    cells, counts = np.unique(np.column_stack([group, labels]), axis=0, return_counts=True)
    largest = np.zeros(int(group.max()) + 1, dtype=np.int64)
    np.maximum.at(largest, cells[:, 0], counts)
    return float(largest.sum() / len(group))


def _pairs(counts: np.ndarray) -> int:
    return int((counts * (counts - 1) // 2).sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
