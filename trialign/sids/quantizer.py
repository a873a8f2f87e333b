"""What all quantizers share: the interface, the checks of their input, and residual quantization itself.

Residual quantization: ``r(1) = e``, ``s(h) = argmin_k ||r(h) - c_k(h)||``, ``r(h+1) = r(h) - c_s(h)(h)``
(TIGER, arXiv 2305.05065, section 3.1; RQ-VAE, arXiv 2203.01941, section 3.1).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import faiss
import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import NotFittedError

#: Rows handled at once: bounds the memory of a distance matrix and makes encoding independent of the catalogue's size.
CHUNK = 4096

#: The two files of a saved quantizer.
RECORD, TENSORS = "quantizer.json", "quantizer.safetensors"


class Quantizer(Protocol):
    """The one interface of the quantizers.

    Attributes
    ----------
    codebook_sizes
        Number of codes of each level, first level first.
    codebooks_
        One float32 array of shape (codebook_size, latent) a level, in the space in which codes are chosen.
    """

    codebook_sizes: Sequence[int]
    codebooks_: list[np.ndarray]

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Learn the codebooks."""
        ...

    def encode(self, embeddings: Float[np.ndarray, "items dim"]) -> Int[np.ndarray, "items levels"]:
        """Return the codes (int64) of each embedding, greedily level by level."""
        ...

    def beams(self, embeddings: Float[np.ndarray, "items dim"], width: int) -> Int[np.ndarray, "items width levels"]:
        """Return the best `width` code tuples of each embedding as a beam search finds them, nearest first."""
        ...

    def reconstruct(
        self, codes: Int[np.ndarray, "items levels"], depth: int | None = None
    ) -> Float[np.ndarray, "items dim"]:
        """Return the embeddings (float32) that the first `depth` codes stand for (all levels if None)."""
        ...

    def save(self, folder: str | Path) -> Path:
        """Write the fitted quantizer as safetensors and JSON."""
        ...


def check_embeddings(embeddings: Float[np.ndarray, "items dim"], dim: int | None = None) -> np.ndarray:
    """Return the embeddings as contiguous float32 after checking shape and values.

    Raises
    ------
    ValueError
        If the array is not two-dimensional, is empty, has another width than `dim`, or holds NaN or infinity
        (also where a float64 value is too large for float32).
    """
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"embeddings must have shape (items, dim) with at least one of each; got {array.shape}")
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ValueError(f"embeddings must be real numbers; got dtype {array.dtype}; convert them to float32")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} embeddings hold NaN or infinity in float32, the first in row {bad[0]}; "
            "embed these items again or leave them out"
        )
    if dim is not None and array.shape[1] != dim:
        raise ValueError(
            f"the quantizer was fitted on {dim} dimensions, these embeddings have {array.shape[1]}; "
            "embed them with the same embedder"
        )
    return array


def check_codebook_sizes(codebook_sizes: Sequence[int], items: int) -> tuple[int, ...]:
    """Return the sizes as a tuple of ints after checking them against the number of items.

    Raises
    ------
    ValueError
        If there is no level, a size is below 1, or a codebook is larger than the number of items.
    """
    sizes = tuple(int(size) for size in codebook_sizes)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"codebook_sizes must name at least one level, each of at least 1 code; got {sizes}")
    if max(sizes) > items:
        raise ValueError(
            f"a codebook of {max(sizes)} codes cannot be learned from {items} items; "
            f"use codebook_sizes of at most {items}, better below {max(1, items // 4)}, or more items"
        )
    return sizes


def check_codes(
    codes: Int[np.ndarray, "items levels"], codebook_sizes: Sequence[int], depth: int | None = None
) -> tuple[np.ndarray, int]:
    """Return codes as int64, and the depth to use, after checking both.

    Raises
    ------
    ValueError
        If a code lies outside its codebook, the array has too few levels, or `depth` is not in 1..levels.
    """
    array = np.asarray(codes)
    levels = len(codebook_sizes)
    depth = levels if depth is None else depth
    if not 1 <= depth <= levels:
        raise ValueError(f"depth must be between 1 and {levels}; got {depth}")
    if array.ndim != 2 or not depth <= array.shape[1] <= levels or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"codes must be integers of shape (items, {depth} to {levels}), without the suffix level; "
            f"got {array.dtype} of shape {array.shape}"
        )
    array = array[:, :depth].astype(np.int64)
    wrong = np.argwhere((array < 0) | (array >= np.asarray(codebook_sizes[:depth])))
    if len(wrong):
        row, level = (int(i) for i in wrong[0])
        raise ValueError(
            f"row {row} has code {array[row, level]} at level {level + 1}, "
            f"outside its codebook of {codebook_sizes[level]} codes"
        )
    return array, depth


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
    """Quantize greedily: at each level the code nearest to what the levels before it left over."""
    residual = points.copy()
    codes = np.empty((len(points), len(codebooks)), dtype=np.int64)
    for level, codebook in enumerate(codebooks):
        codes[:, level], _ = nearest_codes(residual, codebook)
        residual -= codebook[codes[:, level]]
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


def require_fitted(quantizer: object) -> None:
    """Raise scikit-learn's NotFittedError (a ValueError) if the quantizer has no codebooks yet."""
    if not hasattr(quantizer, "codebooks_"):
        raise NotFittedError(
            f"this {type(quantizer).__name__} is not fitted; call fit(embeddings) or load(folder) first"
        )


def write_quantizer(
    folder: str | Path, quantizer: object, parameters: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> Path:
    """Write ``quantizer.json`` (kind, parameters) and ``quantizer.safetensors``; return the folder, made if needed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, folder / TENSORS)
    record = {"quantizer": type(quantizer).__name__, "parameters": dict(parameters)}
    (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return folder


def read_quantizer(folder: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return parameters and tensors of a saved quantizer.

    Raises
    ------
    FileNotFoundError
        If the folder holds no saved quantizer.
    ValueError
        If it holds another kind of quantizer.
    """
    found = quantizer_kind(folder)
    if found != kind:
        raise ValueError(f"{Path(folder) / RECORD} describes a {found}, not a {kind}; use trialign.sids.load_quantizer")
    record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    return record["parameters"], load_file(Path(folder) / TENSORS)


def quantizer_kind(folder: str | Path) -> str:
    """Return the class name of the quantizer saved in a folder.

    Raises
    ------
    FileNotFoundError
        If one of its two files is missing.
    """
    for name in (RECORD, TENSORS):
        if not (Path(folder) / name).is_file():
            raise FileNotFoundError(f"{Path(folder) / name} is missing; write it with quantizer.save(folder)")
    return str(json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))["quantizer"])
