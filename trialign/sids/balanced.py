"""Balanced residual k-means: clusters of (nearly) equal size on every level (OneRec, arXiv 2502.18965, Algorithm 1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from trialign.sids.quantizer import (
    check_codebook_sizes,
    check_embeddings,
    constructor_parameters,
    read_quantizer,
    require_fitted,
    write_quantizer,
)
from trialign.sids.residual import ResidualQuantizer, kmeans, squared_distances


class BalancedResidualKMeans(ResidualQuantizer):
    """Residual k-means whose clusters all hold an equal share of the training items (arXiv 2502.18965, Algorithm 1).

    On each level every cluster receives ``items // codes`` items, some one more. The paper fills the clusters one after
    another, each with the items nearest to it that are left, and recomputes centroids until nothing changes. The last
    clusters then get what nobody wanted; here all clusters are filled at once: an item goes to the nearest cluster
    with room, and where more items come than there is room for, the nearest stay. Centroids start from k-means.

    **Two kinds of codes.** `codes_` are the balanced codes of the training items; residuals, and with them the next
    level's codebook, follow these codes. `encode` knows nothing of other items: new items, and training items given
    again, get the nearest centroid of each level, so its codes are less even, nearer in reconstruction, and differ from
    `codes_` for part of the items.

    Fitting holds one distance (float32) for every pair of item and code; `encode` works piece by piece.

    Parameters
    ----------
    codebook_sizes
        Codes of each level, first level first.
    iterations
        Balanced Lloyd iterations a level.
    seed
        Seed of the start of k-means.

    Attributes
    ----------
    codes_ : int64 array, shape (items, levels)
        Balanced codes of the items it was fitted on, in their order.
    codebooks_ : list of float32 arrays, shape (codebook_size, dim)
    n_features_in_ : int
        Width of the embeddings it was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> embeddings = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [9.0, 0.0]])
    >>> quantizer = BalancedResidualKMeans(codebook_sizes=(2,)).fit(embeddings)
    >>> np.bincount(quantizer.codes_[:, 0]).tolist(), sorted(np.bincount(quantizer.encode(embeddings)[:, 0]).tolist())
    ([2, 2], [1, 3])
    """

    codes_: np.ndarray

    def __init__(self, codebook_sizes: Sequence[int] = (256, 256, 256), iterations: int = 25, seed: int = 0) -> None:
        self.codebook_sizes = codebook_sizes
        self.iterations = iterations
        self.seed = seed

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Fit each level on the residuals of the balanced codes before it.

        Raises
        ------
        ValueError
            If the embeddings are malformed or a codebook is larger than the number of items.
        """
        residual = check_embeddings(embeddings).copy()
        sizes = check_codebook_sizes(self.codebook_sizes, len(residual))
        codebooks, codes = [], np.empty((len(residual), len(sizes)), dtype=np.int64)
        for level, size in enumerate(sizes):
            start = kmeans(residual, size, seed=self.seed + level, iterations=5)
            codebook, codes[:, level] = balanced_kmeans(residual, start, self.iterations)
            residual -= codebook[codes[:, level]]
            codebooks.append(codebook)
        self.codebooks_ = codebooks
        self.codes_ = codes
        self.n_features_in_ = residual.shape[1]
        return self

    def save(self, folder: str | Path) -> Path:
        """Write ``quantizer.json`` and ``quantizer.safetensors`` into the folder, which is made if needed."""
        require_fitted(self)
        tensors = {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks_)}
        return write_quantizer(folder, self, constructor_parameters(self), tensors | {"codes": self.codes_})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; codes of the loaded quantizer are bit-identical.

        Raises
        ------
        FileNotFoundError
            If the folder holds no saved quantizer.
        ValueError
            If it holds another kind of quantizer.
        """
        quantizer = super().load(folder)
        quantizer.codes_ = read_quantizer(folder, cls.__name__)[1]["codes"]
        return quantizer


def balanced_kmeans(
    points: Float[np.ndarray, "items dim"], centroids: Float[np.ndarray, "codes dim"], iterations: int
) -> tuple[Float[np.ndarray, "codes dim"], Int[np.ndarray, " items"]]:
    """Return centroids (float32) and codes after Lloyd iterations with balanced assignment; ends when codes stay."""
    codes = balanced_assignment(squared_distances(points, centroids))
    for _ in range(iterations):
        centroids = cluster_means(points, codes, len(centroids))
        before, codes = codes, balanced_assignment(squared_distances(points, centroids))
        if (codes == before).all():
            break
    return cluster_means(points, codes, len(centroids)), codes


def cluster_means(
    points: Float[np.ndarray, "items dim"], codes: Int[np.ndarray, " items"], size: int
) -> Float[np.ndarray, "codes dim"]:
    """Return the mean of each cluster's points (float32); every cluster must have one."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=size)
    return (np.add.reduceat(points[order], np.cumsum(counts) - counts) / counts[:, None]).astype(np.float32)


def balanced_assignment(distances: Float[np.ndarray, "items codes"]) -> Int[np.ndarray, " items"]:
    """Return a code for each item such that every code gets ``items // codes`` items or one more.

    First all codes have room for ``items // codes``, then for one of the items that are left over.
    """
    items, size = distances.shape
    codes = np.full(items, -1, dtype=np.int64)
    _fill(codes, distances, np.full(size, items // size))
    _fill(codes, distances, np.ones(size, dtype=np.int64))
    return codes


def _fill(codes: np.ndarray, distances: np.ndarray, room: np.ndarray) -> None:
    """Give items without a code to their nearest code with room, the nearest first, until rooms or items are used."""
    waiting = np.flatnonzero(codes < 0)
    while len(waiting) and room.any():
        free = np.flatnonzero(room)
        offers = distances[np.ix_(waiting, free)]
        wanted = free[offers.argmin(axis=1)]
        order = np.lexsort((offers.min(axis=1), wanted))
        firsts = np.searchsorted(wanted[order], wanted[order])  # where each item's code begins in the order
        admitted = order[np.arange(len(order)) - firsts < room[wanted[order]]]
        codes[waiting[admitted]] = wanted[admitted]
        room = room - np.bincount(wanted[admitted], minlength=len(room))
        waiting = np.delete(waiting, admitted)
