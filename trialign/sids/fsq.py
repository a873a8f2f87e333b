"""Residual finite scalar quantization: each level is a grid on a few principal directions, nothing is searched for.

Papers: finite scalar quantization (Mentzer et al., arXiv 2309.15505); the residual form repeats it on what the levels
before left over, as residual quantization does with codebooks (arXiv 2203.01941, section 3.1).
"""

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Self

import numpy as np
from jaxtyping import Float

from trialign.sids.quantizer import check_codebook_sizes, check_embeddings
from trialign.sids.residual import ResidualQuantizer, fitting_sample, nearest_codes

#: Most items on which directions and grids are fitted; more would cost time and change little.
SAMPLE = 65_536


class ResidualFSQ(ResidualQuantizer):
    """Finite scalar quantization (arXiv 2309.15505, section 3.1) on principal directions, again on each residual.

    A level of n codes projects the residual on k orthogonal directions and rounds each coordinate to one of L_1, ...,
    L_k values, with ``L_1 * ... * L_k = n``. The paper learns the projection by gradients and bounds each coordinate
    by a tanh before rounding to integers. Here both are fitted without gradients: the directions are the residual's
    principal components, and the L values of a coordinate are the means of its L quantile bins, so that every value
    is used about equally often.

    How n is factored is fitted too: of all ways to write n as a product, the level takes the one that leaves the
    smallest squared error, which is exact because the coordinates are rounded independently. So 256 may become 8·8·4
    or 4·4·4·4; a prime number of codes becomes one direction with that many values.

    Because the directions are orthogonal, the nearest of the n grid points is the rounding of each coordinate: the
    grid points are kept as `codebooks_`, and new items are encoded greedily like those of any residual quantizer.

    Three levels describe about ten directions in all, so at the same number of codes this keeps less than k-means.

    Parameters
    ----------
    codebook_sizes
        Codes of each level, first level first.
    seed
        Seed of the sample of 65,536 items on which a larger catalogue is fitted. A smaller one is used whole, and
        then the seed changes nothing.

    Attributes
    ----------
    codebooks_ : list of float32 arrays, shape (codebook_size, dim)
        The grid points; the first level's hold the mean embedding.
    n_features_in_ : int
        Width of the embeddings it was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> embeddings = np.array([[0.0, 1.0], [0.0, 2.0], [9.0, 1.0], [9.0, 2.0]])
    >>> quantizer = ResidualFSQ(codebook_sizes=(4,)).fit(embeddings)
    >>> bool(np.allclose(quantizer.reconstruct(quantizer.encode(embeddings)), embeddings))
    True
    """

    def __init__(self, codebook_sizes: Sequence[int] = (256, 256, 256), seed: int = 0) -> None:
        self.codebook_sizes = codebook_sizes
        self.seed = seed

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Fit each level's directions, factors and values on the residuals of the levels before it.

        Raises
        ------
        ValueError
            If the embeddings are malformed or a codebook is larger than the number of items.
        """
        points = check_embeddings(embeddings)
        sizes = check_codebook_sizes(self.codebook_sizes, len(points))
        residual = np.array(fitting_sample(points, SAMPLE, self.seed))
        codebooks = []
        for size in sizes:
            codebook = fitted_grid(residual, size)
            codes, _ = nearest_codes(residual, codebook)
            residual -= codebook[codes]
            codebooks.append(codebook)
        self.codebooks_ = codebooks
        self.n_features_in_ = points.shape[1]
        return self


def fitted_grid(points: Float[np.ndarray, "items dim"], size: int) -> Float[np.ndarray, "codes dim"]:
    """Return `size` grid points (float32) on principal directions, by the factorization of the smallest error."""
    mean = points.mean(axis=0)
    centred = points - mean
    _, components = np.linalg.eigh(centred.T @ centred)
    choices = [factors for factors in factorizations(size) if len(factors) <= points.shape[1]]
    directions = components[:, ::-1][:, : max(map(len, choices))]
    coordinates = (centred @ directions).T

    @cache
    def saved(direction: int, count: int) -> float:
        values = quantile_means(coordinates[direction], count)
        left = np.square(coordinates[direction] - rounded(coordinates[direction], values)).sum()
        return float(np.square(coordinates[direction]).sum() - left)

    best = max(choices, key=lambda factors: sum(saved(*pair) for pair in enumerate(factors)))
    axes = [quantile_means(coordinates[direction], count) for direction, count in enumerate(best)]
    grid = np.array(list(product(*axes)))
    return (grid @ directions[:, : len(best)].T + mean).astype(np.float32)


def factorizations(size: int, largest: int | None = None) -> list[tuple[int, ...]]:
    """Return all ways to write `size` as a product of factors of at least 2, each falling; ``(1,)`` for size 1.

    >>> factorizations(12)
    [(12,), (6, 2), (4, 3), (3, 2, 2)]
    """
    if size == 1:
        return [(1,)]
    largest = size if largest is None else largest
    found: list[tuple[int, ...]] = [(size,)] if size <= largest else []
    for factor in range(min(size // 2, largest), 1, -1):
        if size % factor == 0:
            found += [(factor, *rest) for rest in factorizations(size // factor, factor)]
    return found


def quantile_means(values: Float[np.ndarray, " items"], count: int) -> Float[np.ndarray, " count"]:
    """Return the means of `count` equally filled bins of the values, rising; at most one bin a value."""
    return np.array([part.mean() for part in np.array_split(np.sort(values), count)])


def rounded(values: Float[np.ndarray, " items"], grid: Float[np.ndarray, " count"]) -> Float[np.ndarray, " items"]:
    """Return the nearest grid value of each value; the grid rises."""
    return grid[np.searchsorted((grid[1:] + grid[:-1]) / 2, values)]
