"""Embeddings in files: a matrix in safetensors or NumPy's format, and the ids of the items whose rows they are."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from trialign.provenance import sha256
from trialign.sids.quantizer import check_embeddings
from trialign.tables import read_table

#: The endings of the file ``item_ids.*`` that is looked for beside a matrix, in this order.
ID_SUFFIXES = (".parquet", ".csv", ".tsv", ".json", ".txt")

#: Where a safetensors file's metadata holds the item ids, as a JSON list.
ITEM_IDS = "item_ids"

_FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True, eq=False)
class EmbeddedItems:
    """Items and their embeddings.

    Attributes
    ----------
    item_ids
        Strings, each once.
    embeddings
        float32 of shape (items, dim); row i belongs to item i.
    inputs
        What they were made from, for a manifest.
    keys
        uint8 of shape (items, 32): what each row was computed from, as `trialign.embed.cache` hashes it; None for
        embeddings that were made elsewhere.
    """

    item_ids: list[str]
    embeddings: Float[np.ndarray, "items dim"]
    inputs: Mapping[str, Any]
    keys: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    def select(self, rows: np.ndarray | list[int]) -> "EmbeddedItems":
        """Return the items of some rows, in the given order."""
        chosen = np.asarray(rows, dtype=np.int64)
        keys = None if self.keys is None else self.keys[chosen]
        return EmbeddedItems([self.item_ids[row] for row in chosen], self.embeddings[chosen], self.inputs, keys)

    def append(self, others: "EmbeddedItems") -> "EmbeddedItems":
        """Return these items, then the others; keys are kept where both have them."""
        keys = None if self.keys is None or others.keys is None else np.concatenate([self.keys, others.keys])
        embeddings = np.concatenate([self.embeddings, others.embeddings])
        return EmbeddedItems([*self.item_ids, *others.item_ids], embeddings, self.inputs, keys)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file that `read_embeddings` reads: the matrix, the keys, and the ids in its metadata."""
        tensors = {"embeddings": np.ascontiguousarray(self.embeddings)}
        if self.keys is not None:
            tensors["keys"] = np.ascontiguousarray(self.keys)
        save_file(tensors, path, metadata={ITEM_IDS: json.dumps(self.item_ids)})
        return Path(path)


def read_embeddings(path: str | Path, item_ids: str | Path | None = None) -> EmbeddedItems:
    """Read a matrix and the ids of its rows.

    Parameters
    ----------
    path
        ``.safetensors`` with exactly one matrix of floats, or ``.npy``.
    item_ids
        File of the ids, one a row of the matrix and in its order: a Parquet, CSV or TSV table with the column
        ``item_id`` (or with one column), a JSON list, or text with an id a line. By default the ids in the
        safetensors file's metadata (``item_ids``, a JSON list), else the file ``item_ids.parquet``, ``.csv``, ``.tsv``,
        ``.json`` or ``.txt`` in the matrix's folder.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is not of its kind, the matrix is not one or holds NaN or infinity, ids are empty or occur twice, or
        there are not as many ids as rows. The message names file, row and fix.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give a .safetensors or .npy file of embeddings")
    if path.suffix not in (".safetensors", ".npy"):
        raise ValueError(f"{path}: unknown ending {path.suffix!r}; save the embeddings as .safetensors or .npy")
    stored = None
    keys = None
    if path.suffix == ".npy":
        matrix = _read_npy(path)
    else:
        matrix, stored, keys = _read_safetensors(path)
    try:
        matrix = check_embeddings(matrix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    source: str | Path = path
    if item_ids is not None or stored is None:
        source = Path(item_ids) if item_ids is not None else _beside(path)
        stored, keys = _read_ids(source), None
    _check_ids(stored, source)
    if len(stored) != len(matrix):
        raise ValueError(f"{source} has {len(stored)} item ids, {path} has {len(matrix)} rows; give one id a row")
    inputs = {"embeddings": str(path), "sha256": sha256(path), "item_ids": str(source)}
    return EmbeddedItems(stored, matrix, inputs, keys)


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable .npy file of numbers ({error}); write it with numpy.save of a float32 matrix"
        ) from error


def _read_safetensors(path: Path) -> tuple[np.ndarray, list[str] | None, np.ndarray | None]:
    """Return the matrix, the ids in the metadata, and the keys; None for what the file does not hold."""
    try:
        # PyTorch, as NumPy has no bfloat16.
        with safe_open(path, framework="pt") as file:
            kinds = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            matrices = [name for name, (dtype, shape) in kinds.items() if dtype in _FLOATS and len(shape) == 2]
            if len(matrices) != 1:
                held = ", ".join(f"{name} ({dtype} of shape {tuple(shape)})" for name, (dtype, shape) in kinds.items())
                raise ValueError(
                    f"{path} must hold exactly one matrix of floats, items by dimensions; it holds {held or 'nothing'}"
                )
            matrix = file.get_tensor(matrices[0]).float().numpy()
            keys = file.get_tensor("keys").numpy() if kinds.get("keys", ("",))[0] == "U8" else None
            ids = (file.metadata() or {}).get(ITEM_IDS)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); write it again") from error
    return matrix, None if ids is None else _json_ids(ids, path), keys


def _beside(path: Path) -> Path:
    found = [path.with_name(f"item_ids{suffix}") for suffix in ID_SUFFIXES]
    found = [candidate for candidate in found if candidate.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(candidate.name for candidate in found)
        raise ValueError(f"{path.parent}: {names} both exist; keep one of them, or name one as the file of item ids")
    endings = ", ".join(f"item_ids{suffix}" for suffix in ID_SUFFIXES)
    raise FileNotFoundError(
        f"{path} does not say whose rows it holds: put one of {endings} beside it, or name the file of item ids"
    )


def _read_ids(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give a file with one item id for each row of the embeddings")
    if path.suffix not in ID_SUFFIXES:
        raise ValueError(f"{path}: unknown ending {path.suffix!r}; item ids are read from {', '.join(ID_SUFFIXES)}")
    if path.suffix in (".parquet", ".csv", ".tsv"):
        frame = read_table(path).frame
        if "item_id" not in frame and frame.shape[1] != 1:
            raise ValueError(f"{path} has the columns {', '.join(map(str, frame))}; name the column of ids item_id")
        return frame[frame.columns[0] if "item_id" not in frame else "item_id"].astype(str).tolist()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it with UTF-8 encoding") from error
    if path.suffix == ".json":
        return _json_ids(text, path)
    lines = text.removesuffix("\n").split("\n") if text else []
    return [line.removesuffix("\r") for line in lines]


def _json_ids(text: str, path: Path) -> list[str]:
    try:
        ids = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: item ids are not readable as JSON ({error}); write a list of strings") from error
    if not isinstance(ids, list) or not all(type(item_id) in (str, int) for item_id in ids):
        raise ValueError(f'{path}: item ids must be a JSON list of strings, ["B0001", "B0002", ...]')
    return [str(item_id) for item_id in ids]


def _check_ids(item_ids: list[str], source: str | Path) -> None:
    if "" in item_ids:
        raise ValueError(f"{source}, row {item_ids.index('') + 1}: the item id is empty; give every row an id")
    twice = [item_id for item_id, count in Counter(item_ids).items() if count > 1]
    if twice:
        rows = [row for row, item_id in enumerate(item_ids, start=1) if item_id == twice[0]]
        raise ValueError(f"{source}, row {rows[1]}: item id {twice[0]!r} is in row {rows[0]} too; keep one row an item")
