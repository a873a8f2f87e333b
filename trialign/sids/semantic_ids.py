"""The Semantic IDs of a catalogue: item to codes, codes to items, tokens, files.

A Semantic ID is a tuple of codes, one a level (TIGER, arXiv 2305.05065); where items collide, a suffix code may follow.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from jaxtyping import Int

from trialign.folders import reading

#: What a token of a SID looks like: the level's letters, an underscore, the code.
TOKEN = re.compile(r"<([a-z]+)_(\d+)>")

_TABLE, _RECORD = "semantic_ids.parquet", "semantic_ids.json"


def level_letters(level: int) -> str:
    """Return the letters that name a level in tokens: a, b, ..., z, aa, ab, ... (level counted from 0)."""
    letters = ""
    level += 1
    while level:
        level, digit = divmod(level - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def token(level: int, code: int) -> str:
    """Return the token of a code, e.g. ``<a_12>`` for code 12 of the first level (level counted from 0)."""
    return f"<{level_letters(level)}_{code}>"


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """Codes of every item of a catalogue; row i belongs to item i of the catalogue.

    Parameters
    ----------
    item_ids
        Strings as the catalogue has them, each once.
    codes
        int64 of shape (items, depth); -1 = no code, allowed in the suffix level only.
    codebook_sizes
        Codes of each level, the suffix level included.
    levels
        Levels of the quantizer; ``depth == levels`` without a suffix level, ``levels + 1`` with one.
    resolution
        What collision resolution did, as plain numbers (empty if unknown).

    Raises
    ------
    ValueError
        If shapes disagree, an item id occurs twice, or a code lies outside its codebook.
    """

    item_ids: list[str]
    codes: Int[np.ndarray, "items depth"]
    codebook_sizes: tuple[int, ...]
    levels: int
    resolution: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        codes = np.array(self.codes, dtype=np.int64)
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "codebook_sizes", tuple(int(size) for size in self.codebook_sizes))
        self._check()

    def _check(self) -> None:
        if self.codes.ndim != 2 or self.codes.shape != (len(self.item_ids), len(self.codebook_sizes)):
            raise ValueError(
                f"codes must have shape (items, depth) = ({len(self.item_ids)}, {len(self.codebook_sizes)}) for these "
                f"item ids and codebook sizes; got {self.codes.shape}"
            )
        if self.levels < 1 or self.depth - self.levels not in (0, 1):
            raise ValueError(f"{self.depth} levels of codes can't be {self.levels} levels and at most one suffix level")
        if len(self._row_of) != len(self.item_ids):
            twice = pd.Series(self.item_ids)
            raise ValueError(f"item ids occur twice, e.g. {twice[twice.duplicated()].iloc[0]!r}; keep one row an item")
        lowest = np.zeros(self.depth, dtype=np.int64)
        lowest[self.levels :] = -1
        wrong = np.argwhere((self.codes < lowest) | (self.codes >= np.asarray(self.codebook_sizes)))
        if len(wrong):
            row, level = (int(i) for i in wrong[0])
            raise ValueError(
                f"item {self.item_ids[row]!r} (row {row}) has code {self.codes[row, level]} at level {level + 1}, "
                f"outside its codebook of {self.codebook_sizes[level]} codes"
            )

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def depth(self) -> int:
        """Levels of codes, the suffix level included."""
        return len(self.codebook_sizes)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @cached_property
    def _rows_of(self) -> dict[tuple[int, ...], list[int]]:
        rows: dict[tuple[int, ...], list[int]] = {}
        for row, codes in enumerate(self.codes.tolist()):
            for length in range(1, self.depth + 1):
                rows.setdefault(tuple(codes[:length]), []).append(row)
        return rows

    def codes_of(self, item_id: str) -> tuple[int, ...]:
        """Return the codes of an item, without an absent suffix.

        Raises
        ------
        ValueError
            If the catalogue has no such item.
        """
        if item_id not in self._row_of:
            raise ValueError(f"no item {item_id!r} among these {len(self)} items")
        return tuple(code for code in self.codes[self._row_of[item_id]].tolist() if code >= 0)

    def items_of(self, codes: Sequence[int]) -> Int[np.ndarray, " rows"]:
        """Return the rows (int64, ascending) of all items whose SID starts with these codes; empty if none does.

        A whole SID gives its item (or items, where they share it); a shorter prefix gives the items under it.
        """
        return np.asarray(self._rows_of.get(tuple(int(code) for code in codes), []), dtype=np.int64)

    def tokens(self, row: int) -> list[str]:
        """Return a SID as tokens, e.g. ``["<a_12>", "<b_3>", "<c_7>"]``; an absent suffix has no token."""
        return [token(level, code) for level, code in enumerate(self.codes[row].tolist()) if code >= 0]

    def table(self) -> pd.DataFrame:
        """Return one row an item: ``item_id``, ``level_1``, ..., and ``suffix`` (-1 = none) if there is that level."""
        names = [f"level_{level + 1}" for level in range(self.levels)] + ["suffix"] * (self.depth - self.levels)
        table = pd.DataFrame(self.codes, columns=pd.Index(names))
        table.insert(0, "item_id", self.item_ids)
        return table

    def select(self, item_ids: Sequence[str]) -> Self:
        """Return the Semantic IDs of some items, in the given order; nobody's SID changes.

        Raises
        ------
        ValueError
            If there is no such item, or one is named twice.
        """
        unknown = [item_id for item_id in item_ids if item_id not in self._row_of]
        if unknown:
            raise ValueError(f"{len(unknown)} items have no SID among these {len(self)} items, e.g. {unknown[0]!r}")
        rows = [self._row_of[item_id] for item_id in item_ids]
        return replace(self, item_ids=list(item_ids), codes=self.codes[rows])

    def save(self, folder: str | Path) -> Path:
        """Write ``semantic_ids.parquet`` (`table`) and ``semantic_ids.json`` into the folder, made if needed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.table().to_parquet(folder / _TABLE, index=False)
        record = {
            "codebook_sizes": list(self.codebook_sizes),
            "levels": self.levels,
            "items": len(self),
            "resolution": dict(self.resolution),
        }
        (folder / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If one of the two files is missing.
        ValueError
            If they don't belong together.
        """
        table_path, record_path = Path(folder) / _TABLE, Path(folder) / _RECORD
        for path in (table_path, record_path):
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; write it with SemanticIds.save(folder)")
        with reading(Path(folder), "make the semantic IDs again (notebook 04, or `trialign tokenize`)"):
            table = pd.read_parquet(table_path)
            record = json.loads(record_path.read_text(encoding="utf-8"))
            if len(table) != record["items"]:
                raise ValueError(
                    f"{table_path} has {len(table)} items, {record_path} says {record['items']}; save again"
                )
            return cls(
                item_ids=table["item_id"].tolist(),
                codes=table.drop(columns="item_id").to_numpy(dtype=np.int64),
                codebook_sizes=tuple(record["codebook_sizes"]),
                levels=record["levels"],
                resolution=record["resolution"],
            )

    def to_index(self, path: str | Path) -> Path:
        """Write the index JSON that published systems use: ``{"item": ["<a_1>", "<b_5>", "<c_0>"], ...}``."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        index = {item_id: self.tokens(row) for row, item_id in enumerate(self.item_ids)}
        path.write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
        return path

    @classmethod
    def from_index(cls, path: str | Path, codebook_sizes: Sequence[int] | None = None) -> Self:
        """Read an index JSON ``{"item": ["<a_1>", "<b_5>", "<c_0>"], ...}``, or with plain codes: ``[1, 5, 0]``.

        Where some items have one token more than others, that level is taken as the suffix level; where all have the
        same number, all are levels, since the file can't tell.

        Parameters
        ----------
        path
            The JSON file.
        codebook_sizes
            Sizes of all levels; by default the highest code seen plus one.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no JSON object, an item is in it twice, a token is malformed or at the wrong level, lengths differ
            by more than one, or `codebook_sizes` does not fit the codes. The message names file, item and token.
        """
        path = Path(path)
        parsed = {item_id: _parse(tokens, item_id, path) for item_id, tokens in _read_index(path).items()}
        ends = [choose(parsed, key=lambda item_id: len(parsed[item_id])) for choose in (min, max)]
        shortest, longest = (len(parsed[item_id]) for item_id in ends)
        if shortest < 1 or longest - shortest > 1:
            raise ValueError(
                f"{path}: SIDs have {shortest} to {longest} tokens, as items {ends[0]!r} and {ends[1]!r}; "
                "they must have at least one, and may differ by one suffix at most"
            )
        codes = np.full((len(parsed), longest), -1, dtype=np.int64)
        for row, item_codes in enumerate(parsed.values()):
            codes[row, : len(item_codes)] = item_codes
        sizes = tuple(codebook_sizes) if codebook_sizes is not None else tuple((codes.max(axis=0) + 1).tolist())
        try:
            return cls(item_ids=list(parsed), codes=codes, codebook_sizes=sizes, levels=shortest)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _read_index(path: Path) -> dict[str, Any]:
    """Return the object in an index JSON, after checking that it is one, is not empty and has no item twice."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give an index JSON such as SemanticIds.to_index writes")

    def refuse_twice(entries: list[tuple[str, Any]]) -> dict[str, Any]:
        # Python's reader keeps the last of equal keys and says nothing.
        found: dict[str, Any] = {}
        for key, value in entries:
            if key in found:
                raise ValueError(
                    f"{path}: item {key!r} is there twice, as {json.dumps(found[key])} and {json.dumps(value)}; "
                    "keep one of them"
                )
            found[key] = value
        return found

    try:
        index = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=refuse_twice)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as JSON in UTF-8 ({error}); write it again") from error
    if not isinstance(index, dict) or not index:
        raise ValueError(f'{path} must hold an object {{"item": ["<a_1>", ...], ...}} with at least one item')
    return index


def _parse(tokens: Any, item_id: str, path: Path) -> list[int]:
    if not isinstance(tokens, list):
        raise ValueError(
            f"{path}, item {item_id!r}: its SID is {json.dumps(tokens)}; it must be a list, "
            f'such as ["{token(0, 1)}", "{token(1, 5)}"] or [1, 5]'
        )
    # A list of plain codes or a list of tokens, not both: a number among tokens is a mistake.
    plain = all(type(code) is int for code in tokens)
    return [_code(text, level, plain, f"{path}, item {item_id!r}") for level, text in enumerate(tokens)]


def _code(text: Any, level: int, plain: bool, where: str) -> int:
    match = TOKEN.fullmatch(text) if isinstance(text, str) else None
    if not plain and (match is None or match[1] != level_letters(level)):
        raise ValueError(f"{where}: token {level + 1} is {text!r}; it must look like {token(level, 0)}")
    if plain and text < 0:
        raise ValueError(f"{where}: code {level + 1} is {text}; codes are 0 or more, and an absent suffix is left out")
    digits = str(text) if match is None else match[2]
    if len(digits) > 9:
        raise ValueError(f"{where}: token {level + 1} is {text!r}; a code has at most 9 digits")
    return int(digits)
