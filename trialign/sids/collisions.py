"""Items that share a Semantic ID: counted, and told apart by a suffix code or by moving to free codes.

TIGER (arXiv 2305.05065, section 3.1) appends a code that tells colliding items apart; here only colliding items carry
one. Reassignment instead keeps the length: a local assignment problem gives colliding items the free codes that cost
the least reconstruction.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching, min_weight_full_bipartite_matching

from trialign.sids.quantizer import Quantizer, check_codes, check_embeddings
from trialign.sids.semantic_ids import SemanticIds

#: Nearest code tuples tried for each colliding item at first; doubled until every item finds a free one.
FIRST_WIDTH = 32


def collisions(codes: Int[np.ndarray, "items depth"]) -> pd.Series:
    """Count the items that share their codes with another item.

    Returns
    -------
    pandas.Series
        ``items``; ``distinct`` (different code tuples); ``colliding`` (items that share theirs) and
        ``items_colliding``, their share; ``groups`` of colliding items; ``largest_group`` (1 without collisions).
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or len(codes) == 0:
        raise ValueError(f"codes must have shape (items, depth) with at least one item; got {codes.shape}")
    sizes = np.unique(codes, axis=0, return_counts=True)[1]
    colliding = int(sizes[sizes > 1].sum())
    return pd.Series(
        {
            "items": len(codes),
            "distinct": len(sizes),
            "colliding": colliding,
            "items_colliding": colliding / len(codes),
            "groups": int((sizes > 1).sum()),
            "largest_group": int(sizes.max()),
        },
        name="collisions",
        dtype=object,
    )


def resolve_collisions(
    codes: Int[np.ndarray, "items levels"],
    codebook_sizes: Sequence[int],
    item_ids: Sequence[str],
    method: Literal["suffix", "reassign"] = "suffix",
    quantizer: Quantizer | None = None,
    embeddings: Float[np.ndarray, "items dim"] | None = None,
) -> SemanticIds:
    """Give every item a Semantic ID of its own.

    Parameters
    ----------
    codes
        Codes of a quantizer, int of shape (items, levels).
    codebook_sizes
        Codes of each level.
    item_ids
        The items' ids, one a row.
    method
        ``"suffix"``: colliding items get one more code, 0, 1, ... in row order inside their group; others get -1
        there. The suffix level is as large as the largest group, and absent if nothing collides.
        ``"reassign"``: colliding items are given, together, the code tuples among their nearest free ones (their own
        included, for one of them) that add the least squared reconstruction error; all others keep theirs.
    quantizer, embeddings
        Needed by ``"reassign"`` alone: what made the codes, and of what.

    Returns
    -------
    SemanticIds
        Its `resolution` says ``method``, ``items_colliding_before``, ``items_colliding_after`` (shares),
        ``groups_before``, ``largest_group_before``, and for ``"reassign"`` also ``items_moved``,
        ``squared_error_before`` and ``squared_error_after`` (mean over all items).

    Raises
    ------
    ValueError
        If the method is unknown, `"reassign"` lacks quantizer or embeddings, or there are more items than code tuples.
    """
    array, _ = check_codes(codes, codebook_sizes)
    if len(array) != len(item_ids):
        raise ValueError(f"{len(array)} rows of codes for {len(item_ids)} item ids; give one id a row")
    before = collisions(array)
    cost: dict[str, Any] = {}
    if method == "suffix":
        unique = _with_suffix(array)
    elif method == "reassign":
        if quantizer is None or embeddings is None:
            raise ValueError('method "reassign" needs the quantizer and the embeddings that made the codes')
        unique, cost = _reassign(array, tuple(codebook_sizes), quantizer, embeddings)
    else:
        raise ValueError(f'unknown method {method!r}; use "suffix" or "reassign"')
    levels = len(codebook_sizes)
    sizes = tuple(codebook_sizes) + (int(before["largest_group"]),) * (unique.shape[1] - levels)
    resolution = {
        "method": method,
        "items_colliding_before": float(before["items_colliding"]),
        "items_colliding_after": float(collisions(unique)["items_colliding"]),
        "groups_before": int(before["groups"]),
        "largest_group_before": int(before["largest_group"]),
        **cost,
    }
    return SemanticIds(list(item_ids), unique, sizes, levels, resolution)


def _with_suffix(codes: Int[np.ndarray, "items levels"]) -> Int[np.ndarray, "items depth"]:
    _, group, sizes = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    if sizes.max() == 1:
        return codes
    group = group.reshape(-1)
    suffix = pd.Series(group).groupby(group).cumcount().to_numpy()
    return np.column_stack([codes, np.where(sizes[group] > 1, suffix, -1)])


def _reassign(
    codes: Int[np.ndarray, "items levels"],
    codebook_sizes: tuple[int, ...],
    quantizer: Quantizer,
    embeddings: Float[np.ndarray, "items dim"],
) -> tuple[Int[np.ndarray, "items levels"], dict[str, Any]]:
    points = check_embeddings(embeddings)
    if len(points) != len(codes):
        raise ValueError(
            f"{len(points)} embeddings for {len(codes)} rows of codes; give the embeddings that were encoded"
        )
    capacity = prod(codebook_sizes)
    if len(codes) > capacity:
        raise ValueError(f"{len(codes)} items don't fit into {capacity} code tuples; use larger or more codebooks")
    _, group, sizes = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    shared = sizes[group.reshape(-1)] > 1
    moved = codes.copy()
    if shared.any():
        taken = _tuple_numbers(codes[~shared], codebook_sizes)
        moved[shared] = _assign_free(points[shared], taken, codebook_sizes, quantizer)
    cost = {
        "items_moved": int((moved != codes).any(axis=1).sum()),
        "squared_error_before": _squared_error(points, codes, quantizer),
        "squared_error_after": _squared_error(points, moved, quantizer),
    }
    return moved, cost


def _assign_free(
    points: Float[np.ndarray, "colliding dim"],
    taken: Int[np.ndarray, " tuples"],
    codebook_sizes: tuple[int, ...],
    quantizer: Quantizer,
) -> Int[np.ndarray, "colliding levels"]:
    """Return a code tuple for each point, all different, none taken, with the least total squared error.

    The candidates are each point's nearest tuples by beam search; the beam is doubled until a full matching exists,
    at the latest when it holds every tuple.
    """
    width = min(FIRST_WIDTH, prod(codebook_sizes))
    while True:
        candidates = quantizer.beams(points, width)
        numbers = _tuple_numbers(candidates.reshape(-1, len(codebook_sizes)), codebook_sizes)
        rows = np.repeat(np.arange(len(points)), candidates.shape[1])
        free = ~np.isin(numbers, taken)
        rows, numbers = rows[free], numbers[free]
        distinct, columns = np.unique(numbers, return_inverse=True)
        shape = (len(points), len(distinct))
        possible = csr_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=shape)
        if len(distinct) >= len(points) and (maximum_bipartite_matching(possible, perm_type="column") >= 0).all():
            break
        width = min(2 * width, prod(codebook_sizes))
    tuples = np.stack(np.unravel_index(distinct, codebook_sizes), axis=1)
    errors = _candidate_errors(points, rows, tuples, columns, quantizer)
    # The solver takes a weight of zero for "no edge"; a constant added to all weights changes no optimum.
    weights = csr_array((errors + 1.0, (rows, columns)), shape=shape)
    matched_rows, matched_columns = min_weight_full_bipartite_matching(weights)
    assigned = np.empty((len(points), len(codebook_sizes)), dtype=np.int64)
    assigned[matched_rows] = tuples[matched_columns]
    return assigned


def _candidate_errors(
    points: np.ndarray, rows: np.ndarray, tuples: np.ndarray, columns: np.ndarray, quantizer: Quantizer
) -> Float[np.ndarray, " candidates"]:
    """Return the squared reconstruction error (float64) of each (point, tuple) pair, some thousands at a time."""
    errors = np.empty(len(rows))
    for start in range(0, len(rows), 8192):
        part = slice(start, start + 8192)
        reconstructed = quantizer.reconstruct(tuples[columns[part]])
        errors[part] = np.square(points[rows[part]] - reconstructed, dtype=np.float64).sum(axis=1)
    return errors


def _squared_error(points: np.ndarray, codes: np.ndarray, quantizer: Quantizer) -> float:
    return float(np.square(points - quantizer.reconstruct(codes), dtype=np.float64).sum(axis=1).mean())


def _tuple_numbers(
    codes: Int[np.ndarray, "items levels"], codebook_sizes: tuple[int, ...]
) -> Int[np.ndarray, " items"]:
    """Return one int64 a tuple, equal for equal tuples."""
    if prod(codebook_sizes) >= 2**63:
        raise ValueError('reassignment counts code tuples in 64 bits; with this many levels use method "suffix"')
    return np.ravel_multi_index(tuple(codes.T), codebook_sizes)
