"""What all quantizers share: the interface, the checks of their input, and their files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import NotFittedError

from trialign.folders import reading

#: The two files of a saved quantizer.
RECORD, TENSORS = "quantizer.json", "quantizer.safetensors"

#: Rows checked at once, so that embeddings mapped from a file are never copied whole.
_ROWS = 4096


class Quantizer(Protocol):
    """The one interface of the quantizers.

    Attributes
    ----------
    codebook_sizes
        Number of codes of each level, first level first.
    codebooks_
        One float32 array a level, its first axis the codes, in the space in which codes are chosen.
    """

    codebooks_: list[np.ndarray]

    @property
    def codebook_sizes(self) -> Sequence[int]:
        """Number of codes of each level; a plain attribute serves."""
        ...

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Learn the codebooks."""
        ...

    def encode(self, embeddings: Float[np.ndarray, "items dim"]) -> Int[np.ndarray, "items levels"]:
        """Return the codes (int64) of each embedding; greedily level by level, or as the quantizer says."""
        ...

    def beams(self, embeddings: Float[np.ndarray, "items dim"], width: int) -> Int[np.ndarray, "items width levels"]:
        """Return the best `width` code tuples of each embedding that a search finds, the best first."""
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

    Nothing is copied where they are contiguous float32 already; a `numpy.memmap` stays on disk.

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
    bad = [row for start in range(0, len(array), _ROWS) for row in _unusable_rows(array, start)]
    if bad:
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


def _unusable_rows(array: np.ndarray, start: int) -> list[int]:
    return (start + np.flatnonzero(~np.isfinite(array[start : start + _ROWS]).all(axis=1))).tolist()


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


def require_fitted(quantizer: object) -> None:
    """Raise scikit-learn's NotFittedError (a ValueError) if the quantizer has no codebooks yet."""
    if not hasattr(quantizer, "codebooks_"):
        raise NotFittedError(
            f"this {type(quantizer).__name__} is not fitted; call fit(embeddings) or load(folder) first"
        )


def constructor_parameters(quantizer: object) -> dict[str, Any]:
    """Return what a quantizer's ``__init__`` stored, by parameter name, ready for JSON: sequences become lists."""
    parameters = {name: value for name, value in vars(quantizer).items() if not name.endswith("_")}
    return {
        name: [int(entry) for entry in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in parameters.items()
    }


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
    with reading(Path(folder), "fit the quantizer again (notebook 04, or `trialign tokenize`)"):
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
    with reading(Path(folder), "fit the quantizer again (notebook 04, or `trialign tokenize`)"):
        return str(json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))["quantizer"])
