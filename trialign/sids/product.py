"""Product quantization: every code describes a sub-space of its own, so the order of the codes means nothing.

Papers: product quantization (Jégou, Douze, Schmid, IEEE TPAMI 2011, doi 10.1109/TPAMI.2010.57); its optimized rotation
(Ge, He, Ke, Sun, CVPR 2013, doi 10.1109/CVPR.2013.379); RPG (arXiv 2506.05781), which gives items 16 to 64 such codes
and predicts them in parallel.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from trialign.sids.quantizer import (
    check_codebook_sizes,
    check_codes,
    check_embeddings,
    constructor_parameters,
    read_quantizer,
    require_fitted,
    write_quantizer,
)
from trialign.sids.residual import CHUNK, kmeans, nearest_codes, squared_distances


class SubspaceQuantizer(ABC):
    """A quantizer that cuts centred embeddings into one slice of dimensions a level and quantizes each by itself.

    Attributes
    ----------
    codebooks_ : list of float32 arrays, shape (codebook_size, width of the level's sub-space)
    mean_ : float32 array, shape (dim,)
        The mean embedding of the training items; a level that `reconstruct` leaves out stays at it.
    n_features_in_ : int
        Width of the embeddings it was fitted on.
    """

    codebook_sizes: Sequence[int]
    codebooks_: list[np.ndarray]
    mean_: np.ndarray
    n_features_in_: int

    def __init__(self, codebook_sizes: Sequence[int] = (256, 256, 256), iterations: int = 25, seed: int = 0) -> None:
        self.codebook_sizes = codebook_sizes
        self.iterations = iterations
        self.seed = seed

    @abstractmethod
    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Learn the codebooks."""

    def _rotate(self, points: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items dim"]:
        return points

    def _rotate_back(self, points: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items dim"]:
        return points

    def _tensors(self) -> dict[str, np.ndarray]:
        codebooks = {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks_)}
        return codebooks | {"mean": self.mean_}

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        self.codebooks_ = [tensors[f"codebook.{level}"] for level in range(len(self.codebook_sizes))]
        self.mean_ = tensors["mean"]
        self.n_features_in_ = len(self.mean_)

    def encode(self, embeddings: Float[np.ndarray, "items dim"]) -> Int[np.ndarray, "items levels"]:
        """Return the int64 codes of each embedding: in each sub-space the nearest; new items need no refit."""
        require_fitted(self)
        points = check_embeddings(embeddings, self.n_features_in_)
        codes = np.empty((len(points), len(self.codebooks_)), dtype=np.int64)
        for start in range(0, len(points), CHUNK):
            rows = slice(start, start + CHUNK)
            for level, (part, codebook) in enumerate(zip(self._slices(points[rows]), self.codebooks_)):
                codes[rows, level], _ = nearest_codes(part, codebook)
        return codes

    def beams(self, embeddings: Float[np.ndarray, "items dim"], width: int) -> Int[np.ndarray, "items width levels"]:
        """Return the nearest `width` code tuples of each embedding, nearest first: all of them, not a search's.

        The squared error is a sum over sub-spaces, so the best tuples of h levels extend the best of h - 1. The width
        returned is the smaller of `width` and the number of all tuples.
        """
        require_fitted(self)
        points = check_embeddings(embeddings, self.n_features_in_)
        step = max(1, CHUNK // max(1, width))
        return np.concatenate(
            [
                nearest_tuples(
                    [
                        squared_distances(part, codebook)
                        for part, codebook in zip(self._slices(points[start : start + step]), self.codebooks_)
                    ],
                    width,
                )
                for start in range(0, len(points), step)
            ]
        )

    def reconstruct(
        self, codes: Int[np.ndarray, "items levels"], depth: int | None = None
    ) -> Float[np.ndarray, "items dim"]:
        """Return the vectors of the first `depth` codes side by side, the other sub-spaces at the training mean."""
        require_fitted(self)
        codes, depth = check_codes(codes, [len(codebook) for codebook in self.codebooks_], depth)
        centred = np.zeros((len(codes), self.n_features_in_), dtype=np.float32)
        for level, part in enumerate(np.array_split(centred, len(self.codebooks_), axis=1)[:depth]):
            part[:] = self.codebooks_[level][codes[:, level]]
        return self._rotate_back(centred) + self.mean_

    def _slices(self, points: Float[np.ndarray, "items dim"]) -> list[np.ndarray]:
        return np.array_split(self._rotate(points - self.mean_), len(self.codebooks_), axis=1)

    def _check_levels(self, points: Float[np.ndarray, "items dim"]) -> tuple[int, ...]:
        sizes = check_codebook_sizes(self.codebook_sizes, len(points))
        if len(sizes) > points.shape[1]:
            raise ValueError(f"{len(sizes)} levels need as many dimensions; the embeddings have {points.shape[1]}")
        return sizes

    def _fit_codebooks(self, centred: Float[np.ndarray, "items dim"], sizes: Sequence[int]) -> list[np.ndarray]:
        parts = np.array_split(centred, len(sizes), axis=1)
        return [
            kmeans(np.ascontiguousarray(part), size, seed=self.seed + level, iterations=self.iterations)
            for level, (part, size) in enumerate(zip(parts, sizes))
        ]

    def save(self, folder: str | Path) -> Path:
        """Write ``quantizer.json`` and ``quantizer.safetensors`` into the folder, which is made if needed."""
        require_fitted(self)
        return write_quantizer(folder, self, constructor_parameters(self), self._tensors())

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
        quantizer._restore(tensors)
        return quantizer


class ProductQuantizer(SubspaceQuantizer):
    """Product quantization: a k-means in each slice of the dimensions (Jégou et al. 2011, equations 8 and 9).

    ``x = (u_1, ..., u_m)`` becomes ``(q_1(u_1), ..., q_m(u_m))``. Level h is sub-space h: the dimensions are cut in
    order into as many slices as there are levels, as even as possible. Codes are independent, so a prefix of them does
    not narrow an item down as a residual prefix does; it says everything about its slices and nothing of the others.

    New items get the nearest code in each slice.

    Parameters
    ----------
    codebook_sizes
        Codes of each level; the sizes may differ. There may be as many levels as dimensions.
    iterations
        Lloyd iterations a level.
    seed
        Seed of the start of k-means.

    Attributes
    ----------
    codebooks_ : list of float32 arrays, shape (codebook_size, width of the level's slice)
    mean_ : float32 array, shape (dim,)
        The mean embedding of the training items; a level that `reconstruct` leaves out stays at it.
    n_features_in_ : int
        Width of the embeddings it was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> embeddings = np.array([[0.0, 5.0], [0.0, 7.0], [9.0, 5.0], [9.0, 7.0]])
    >>> quantizer = ProductQuantizer(codebook_sizes=(2, 2)).fit(embeddings)
    >>> quantizer.reconstruct(quantizer.encode(embeddings), depth=1)[:, 1].tolist()
    [6.0, 6.0, 6.0, 6.0]
    """

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Fit a k-means in each slice.

        Raises
        ------
        ValueError
            If the embeddings are malformed, a codebook is larger than the number of items, or there are more levels
            than dimensions.
        """
        points = check_embeddings(embeddings)
        sizes = self._check_levels(points)
        self.mean_ = points.mean(axis=0)
        self.codebooks_ = self._fit_codebooks(points - self.mean_, sizes)
        self.n_features_in_ = points.shape[1]
        return self


class OptimizedProductQuantizer(SubspaceQuantizer):
    """Product quantization after a learned rotation (Ge et al. 2013).

    The rotation starts as the parametric solution (section 3.2: principal components dealt out so that the slices have
    like products of variances) and then alternates (section 3.1): codes and centroids for the rotation at hand, then
    the rotation that brings the embeddings nearest to their quantized selves, by a singular value decomposition.

    Level h is slice h of the rotated dimensions. New items are rotated and get the nearest code in each slice.

    Parameters
    ----------
    codebook_sizes
        Codes of each level; the sizes may differ. There may be as many levels as dimensions.
    iterations
        Lloyd iterations a level, before the alternation.
    rotations
        Steps of the alternation.
    seed
        Seed of the start of k-means.

    Attributes
    ----------
    codebooks_ : list of float32 arrays, shape (codebook_size, width of the level's slice)
    rotation_ : float32 array, shape (dim, dim)
        Orthogonal; a centred embedding times it is what the levels quantize.
    mean_ : float32 array, shape (dim,)
        The mean embedding of the training items; a level that `reconstruct` leaves out stays at it.
    n_features_in_ : int
        Width of the embeddings it was fitted on.
    """

    rotation_: np.ndarray

    def __init__(
        self,
        codebook_sizes: Sequence[int] = (256, 256, 256),
        iterations: int = 25,
        rotations: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__(codebook_sizes, iterations, seed)
        self.rotations = rotations

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Learn rotation and codebooks.

        Raises
        ------
        ValueError
            If the embeddings are malformed, a codebook is larger than the number of items, there are more levels than
            dimensions, or `rotations` is negative.
        """
        points = check_embeddings(embeddings)
        sizes = self._check_levels(points)
        if self.rotations < 0:
            raise ValueError(f"rotations must not be negative; got {self.rotations}")
        self.mean_ = points.mean(axis=0)
        centred = points - self.mean_
        self.rotation_ = balanced_components(centred, len(sizes))
        self.codebooks_ = self._fit_codebooks(centred @ self.rotation_, sizes)
        for _ in range(self.rotations):
            quantized = self._refit_codebooks(centred @ self.rotation_)
            left, _, right = np.linalg.svd(centred.T @ quantized)
            self.rotation_ = left @ right
        self._refit_codebooks(centred @ self.rotation_)
        self.n_features_in_ = points.shape[1]
        return self

    def _refit_codebooks(self, rotated: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items dim"]:
        """Take one Lloyd step in every slice; return the quantized embeddings. A code without items stays."""
        quantized = np.empty_like(rotated)
        slices = (np.array_split(array, len(self.codebooks_), axis=1) for array in (rotated, quantized))
        for codebook, part, nearest in zip(self.codebooks_, *slices):
            codes, _ = nearest_codes(np.ascontiguousarray(part), codebook)
            counts = np.bincount(codes, minlength=len(codebook))
            sums = np.zeros_like(codebook)
            np.add.at(sums, codes, part)
            codebook[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
            nearest[:] = codebook[codes]
        return quantized

    def _rotate(self, points: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items dim"]:
        return points @ self.rotation_

    def _rotate_back(self, points: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items dim"]:
        return points @ self.rotation_.T

    def _tensors(self) -> dict[str, np.ndarray]:
        return super()._tensors() | {"rotation": self.rotation_}

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        super()._restore(tensors)
        self.rotation_ = tensors["rotation"]


def balanced_components(centred: Float[np.ndarray, "items dim"], slices: int) -> Float[np.ndarray, "dim dim"]:
    """Return the principal components in an order that gives the slices like products of variances.

    The component of the largest variance left goes to the slice with room whose product is smallest (Ge et al. 2013,
    section 3.2, eigenvalue allocation). A column is a component; slice h is column group h of `numpy.array_split`.
    """
    variances, components = np.linalg.eigh(centred.T @ centred / len(centred))
    floor = max(float(variances[-1]), 1e-12) * 1e-6
    widths = [len(columns) for columns in np.array_split(np.arange(len(variances)), slices)]
    chosen: list[list[int]] = [[] for _ in range(slices)]
    products = np.zeros(slices)
    for component in range(len(variances) - 1, -1, -1):
        room = [h for h in range(slices) if len(chosen[h]) < widths[h]]
        target = min(room, key=lambda h: products[h])
        chosen[target].append(component)
        products[target] += np.log(max(float(variances[component]), floor) / floor)
    return np.ascontiguousarray(components[:, np.concatenate(chosen)], dtype=np.float32)


def nearest_tuples(
    errors: Sequence[Float[np.ndarray, "items codes"]], width: int
) -> Int[np.ndarray, "items width levels"]:
    """Return the `width` code tuples of the smallest sum of errors, smallest first, one code a level.

    Levels are merged one by one. Of two sorted lists, the pair (i, j) can be among the best only if fewer than `width`
    pairs are at least as good, that is if ``(i + 1) * (j + 1) <= width``; this leaves few pairs to sort.
    """
    items = len(errors[0])
    codes = np.empty((items, 1, 0), dtype=np.int64)
    totals = np.zeros((items, 1))
    for level in errors:
        order = np.argsort(level, axis=1, kind="stable")[:, :width]
        ranked = np.take_along_axis(level, order, axis=1).astype(np.float64)
        pairs = [(i, j) for i in range(totals.shape[1]) for j in range(order.shape[1]) if (i + 1) * (j + 1) <= width]
        before, after = np.array(pairs).T
        sums = totals[:, before] + ranked[:, after]
        best = np.argsort(sums, axis=1, kind="stable")[:, :width]
        kept = np.take_along_axis(codes, before[best][..., None], axis=1)
        added = np.take_along_axis(order, after[best], axis=1)
        codes = np.concatenate([kept, added[..., None]], axis=2)
        totals = np.take_along_axis(sums, best, axis=1)
    return codes
