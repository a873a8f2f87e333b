"""Residual quantization itself: greedy and beam encoding, decoding, k-means, and what its quantizers share.

``r(1) = e``, ``s(h) = argmin_k ||r(h) - c_k(h)||``, ``r(h+1) = r(h) - c_s(h)(h)`` (TIGER, arXiv 2305.05065,
section 3.1; RQ-VAE, arXiv 2203.01941, section 3.1).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import faiss
import numpy as np
from jaxtyping import Float, Int

from trialign.sids.quantizer import (
    check_codes,
    check_embeddings,
    constructor_parameters,
    read_quantizer,
    require_fitted,
    write_quantizer,
)

#: Rows handled at once: bounds the memory of a distance matrix and makes encoding independent of the catalogue's size.
CHUNK = 4096


class ResidualQuantizer(ABC):
    """A quantizer whose reconstruction is a sum of one vector a level, in the embedding space itself.

    Subclasses store their parameters in ``__init__``, under the parameters' names, and learn `codebooks_` in `fit`.

    Attributes
    ----------
    codebooks_ : list of float32 arrays, shape (codebook_size, dim)
    n_features_in_ : int
        Width of the embeddings it was fitted on.
    """

    codebook_sizes: Sequence[int]
    codebooks_: list[np.ndarray]
    n_features_in_: int

    @abstractmethod
    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Learn the codebooks."""

    def encode(self, embeddings: Float[np.ndarray, "items dim"]) -> Int[np.ndarray, "items levels"]:
        """Return the int64 codes of each embedding, greedily level by level."""
        require_fitted(self)
        return residual_encode(check_embeddings(embeddings, self.n_features_in_), self.codebooks_)

    def beams(self, embeddings: Float[np.ndarray, "items dim"], width: int) -> Int[np.ndarray, "items width levels"]:
        """Return the best `width` code tuples of each embedding as a beam search finds them, nearest first."""
        require_fitted(self)
        return residual_beams(check_embeddings(embeddings, self.n_features_in_), self.codebooks_, width)

    def reconstruct(
        self, codes: Int[np.ndarray, "items levels"], depth: int | None = None
    ) -> Float[np.ndarray, "items dim"]:
        """Return the sum of the first `depth` codebook vectors of each item (all levels if None)."""
        require_fitted(self)
        codes, depth = check_codes(codes, [len(codebook) for codebook in self.codebooks_], depth)
        return residual_decode(codes, self.codebooks_, depth)

    def save(self, folder: str | Path) -> Path:
        """Write ``quantizer.json`` and ``quantizer.safetensors`` into the folder, which is made if needed."""
        require_fitted(self)
        tensors = {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks_)}
        return write_quantizer(folder, self, constructor_parameters(self), tensors)

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
        parameters, tensors = read_quantizer(folder, cls.__name__)
        quantizer = cls(**parameters)
        quantizer.codebooks_ = [tensors[f"codebook.{level}"] for level in range(len(parameters["codebook_sizes"]))]
        quantizer.n_features_in_ = quantizer.codebooks_[0].shape[1]
        return quantizer


def squared_distances(
    points: Float[np.ndarray, "items latent"], codebook: Float[np.ndarray, "codes latent"]
) -> Float[np.ndarray, "items codes"]:
    """Return squared Euclidean distances, not below zero."""
    distances = (points**2).sum(1)[:, None] - 2 * points @ codebook.T + (codebook**2).sum(1)
    return np.maximum(distances, 0)


def nearest_codes(
    points: Float[np.ndarray, "items latent"], codebook: Float[np.ndarray, "codes latent"]
) -> tuple[Int[np.ndarray, " items"], Float[np.ndarray, " items"]]:
    """Return each point's nearest code (the lowest number among equals) and its squared distance."""
    codes = np.empty(len(points), dtype=np.int64)
    errors = np.empty(len(points), dtype=np.float32)
    for start in range(0, len(points), CHUNK):
        rows = slice(start, start + CHUNK)
        distances = squared_distances(points[rows], codebook)
        codes[rows] = distances.argmin(axis=1)
        errors[rows] = distances.min(axis=1)
    return codes, errors


def residual_encode(
    points: Float[np.ndarray, "items latent"], codebooks: Sequence[np.ndarray]
) -> Int[np.ndarray, "items levels"]:
    """Quantize greedily: at each level the code nearest to what the levels before it left over.

    Beside the codes, memory is needed for `CHUNK` rows at a time, so the points may be a memory-mapped file.
    """
    codes = np.empty((len(points), len(codebooks)), dtype=np.int64)
    for start in range(0, len(points), CHUNK):
        rows = slice(start, start + CHUNK)
        residual = np.array(points[rows])
        for level, codebook in enumerate(codebooks):
            codes[rows, level], _ = nearest_codes(residual, codebook)
            residual -= codebook[codes[rows, level]]
    return codes


def residual_decode(
    codes: Int[np.ndarray, "items levels"], codebooks: Sequence[np.ndarray], depth: int
) -> Float[np.ndarray, "items latent"]:
    """Return the sum of the first `depth` codebook vectors of each item."""
    total = codebooks[0][codes[:, 0]].copy()
    for level in range(1, depth):
        total += codebooks[level][codes[:, level]]
    return total


def residual_beams(
    points: Float[np.ndarray, "items latent"], codebooks: Sequence[np.ndarray], width: int
) -> Int[np.ndarray, "items width levels"]:
    """Return up to `width` code tuples of each point by beam search over the levels, nearest first.

    Greedy choice keeps one tuple a level; keeping several finds nearer tuples and, for collisions, the next best.
    The width returned is the smaller of `width` and the number of all tuples.
    """
    capacity = 1
    for codebook in codebooks:
        capacity = min(width, capacity * len(codebook))
    found = np.empty((len(points), capacity, len(codebooks)), dtype=np.int64)
    step = max(1, CHUNK // max(1, width))
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        found[rows] = _beams_of_chunk(points[rows], codebooks, width)
    return found


def _beams_of_chunk(points: np.ndarray, codebooks: Sequence[np.ndarray], width: int) -> np.ndarray:
    residual = points[:, None, :]
    codes = np.empty((len(points), 1, 0), dtype=np.int64)
    for codebook in codebooks:
        items, beams, latent = residual.shape
        distances = squared_distances(residual.reshape(items * beams, latent), codebook).reshape(items, -1)
        best = np.argsort(distances, axis=1, kind="stable")[:, :width]
        parent, code = np.divmod(best, len(codebook))
        codes = np.concatenate([np.take_along_axis(codes, parent[..., None], axis=1), code[..., None]], axis=2)
        residual = np.take_along_axis(residual, parent[..., None], axis=1) - codebook[code]
    return codes


def fitting_sample(points: Float[np.ndarray, "items dim"], most: int, seed: int) -> Float[np.ndarray, "sampled dim"]:
    """Return the points to fit on: all, or `most` of them drawn by the seed, so that memory and time are bounded."""
    if len(points) <= most:
        return points
    return np.asarray(points[np.sort(np.random.default_rng(seed).choice(len(points), most, replace=False))])


def kmeans(
    points: Float[np.ndarray, "items latent"], codes: int, seed: int, iterations: int = 25
) -> Float[np.ndarray, "codes latent"]:
    """Return `codes` centroids (float32) by faiss's k-means; empty clusters are split, so none stays empty early.

    All points are used, and the result depends on the seed and the points alone (up to float summation order). The
    start is a random draw of points: k-means++ gave a cosine .01 higher on item titles, but spent its codes on
    outliers (perplexity 2 of 256 at the third level) and doubled the collisions.
    """
    if codes == len(points):
        return np.array(points, dtype=np.float32)
    clustering = faiss.Kmeans(
        points.shape[1],
        codes,
        niter=iterations,
        seed=seed + 1,  # faiss takes seed 0 for "unset"
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    clustering.train(np.ascontiguousarray(points, dtype=np.float32))
    return np.asarray(clustering.centroids, dtype=np.float32)
