"""Beam search for the code tuple whose codebook vectors, summed, come nearest to a point.

Where plain residual quantization subtracts and looks again, this adds up products of two vectors, computed once for
all points: additive quantization (Babenko and Lempitsky, CVPR 2014, section 3).
"""

import numpy as np
from jaxtyping import Float, Int

#: Rows searched at once: the candidates of all their beams should stay in the processor's cache.
ROWS = 256

#: Beams of all rows searched at once, at most: bounds the memory of wide searches.
BEAMS = 4096

#: Up to so many smallest scores, a pass for each one is faster than a partition of the row.
FEW = 8


def search(
    points: Float[np.ndarray, "items dim"],
    group_of: Int[np.ndarray, " codes"],
    codebooks: list[np.ndarray],
    prefix_weight: float,
    width: int,
    keep: int,
) -> Int[np.ndarray, "items keep levels"]:
    """Return the `keep` best code tuples that a beam of that width finds, best first.

    Best is the least ``||x - sum_h c_h||^2 + prefix_weight ||x - c_1||^2``.
    """
    scores = _PairScores(group_of, codebooks, prefix_weight)
    rows = max(1, min(ROWS, BEAMS // width))
    parts = [
        _search_rows(scores.of(points[start : start + rows]), scores, width, keep)
        for start in range(0, len(points), rows)
    ]
    return np.concatenate(parts)


class _PairScores:
    """Squared distances to sums of codebook vectors, taken apart into products of two.

    ``||x - sum_h c_h||^2 = ||x||^2 + sum_h (||c_h||^2 - 2 x c_h) + sum_{g<h} 2 c_g c_h``; the first term is the same
    for all tuples and left out, the last ones don't depend on the point.
    """

    def __init__(self, group_of: np.ndarray, codebooks: list[np.ndarray], prefix_weight: float):
        self.group_of = group_of
        # One array a level, (groups, codes, dim), the first level with one group.
        vectors = [codebooks[0][None], *(book.swapaxes(0, 1) for book in codebooks[1:])]
        self.shapes = [book.shape[:2] for book in vectors]
        flat = np.concatenate([book.reshape(-1, book.shape[2]) for book in vectors])
        self.factors = np.concatenate([-2 * flat, np.square(flat).sum(axis=1, keepdims=True)], axis=1).T
        self.factors[:, : len(codebooks[0])] *= 1 + prefix_weight
        self.with_first = [
            np.stack([2 * vector @ book[group].T for vector, group in zip(codebooks[0], group_of)])
            for book in vectors[1:]
        ]
        self.pairs = {
            (low, high): 2 * vectors[low] @ vectors[high].swapaxes(1, 2)
            for high in range(2, len(codebooks))
            for low in range(1, high)
        }
        self.buffer = np.empty((ROWS, len(flat)), dtype=np.float32)

    def of(self, points: Float[np.ndarray, "items dim"]) -> list[Float[np.ndarray, "items groups codes"]]:
        """Return ``||c||^2 - 2 x c`` of up to `ROWS` points for all codes, level by level; the next call overwrites."""
        ones = np.ones((len(points), 1), dtype=np.float32)  # times the norms, which saves a pass over the products
        product = np.matmul(np.concatenate([points, ones], axis=1), self.factors, out=self.buffer[: len(points)])
        ends = np.cumsum([groups * size for groups, size in self.shapes])
        parts = np.split(product, ends[:-1], axis=1)
        return [part.reshape(len(points), *shape) for part, shape in zip(parts, self.shapes)]


def _search_rows(
    products: list[Float[np.ndarray, "items groups codes"]], scores: _PairScores, width: int, keep: int
) -> Int[np.ndarray, "items keep levels"]:
    levels, items = len(products), len(products[0])
    alive = products[0][:, 0]
    best = _smallest(alive, keep if levels == 1 else width)
    alive, codes = np.take_along_axis(alive, best, axis=1), [best]
    for level in range(1, levels):
        groups = scores.group_of[codes[0]]
        new = products[level][np.arange(items)[:, None], groups]
        new += alive[:, :, None]
        new += scores.with_first[level - 1][codes[0]]
        for low in range(1, level):
            new += scores.pairs[low, level][groups, codes[low]]
        best = _smallest(new.reshape(items, -1), keep if level + 1 == levels else width)
        alive = np.take_along_axis(new.reshape(items, -1), best, axis=1)
        parent, code = np.divmod(best, new.shape[2])
        codes = [np.take_along_axis(some, parent, axis=1) for some in codes] + [code]
    order = np.argsort(alive, axis=1, kind="stable")
    return np.take_along_axis(np.stack(codes, axis=2), order[:, :, None], axis=1)


def _smallest(scores: Float[np.ndarray, "items candidates"], count: int) -> Int[np.ndarray, "items count"]:
    """Return where each row's `count` smallest scores are (all, if there are fewer)."""
    if count >= scores.shape[1]:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    if count > FEW:
        return np.argpartition(scores, count - 1, axis=1)[:, :count]
    rows, left = np.arange(len(scores)), scores.copy() if count > 1 else scores
    found = np.empty((len(scores), count), dtype=np.int64)
    for place in range(count):
        found[:, place] = left.argmin(axis=1)
        if place + 1 < count:
            left[rows, found[:, place]] = np.inf
    return found
