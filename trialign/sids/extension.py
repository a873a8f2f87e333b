"""New items among items that have Semantic IDs already: nobody's SID changes, and no two items share one.

A model that was trained on the old SIDs can then recommend the new items without being trained again, as far as their
tokens are known to it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from math import prod
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from trialign.sids.collisions import FIRST_WIDTH
from trialign.sids.quantizer import Quantizer, check_codes, check_embeddings
from trialign.sids.semantic_ids import SemanticIds

Method = Literal["suffix", "reassign", "none"]

#: The suffix of an item that has none.
NO_SUFFIX = -1


def extend(
    sids: SemanticIds,
    item_ids: Sequence[str],
    codes: Int[np.ndarray, "new levels"],
    quantizer: Quantizer | None = None,
    embeddings: Float[np.ndarray, "new dim"] | None = None,
    method: Method | None = None,
) -> SemanticIds:
    """Add new items after the old ones, whose SIDs stay as they are.

    A code tuple is *free* while no item has it, *closed* once an item has it without a suffix, and *open* while all
    items that have it carry suffixes. New items are placed in row order, those that keep their codes first:

    - ``"suffix"``: in an open tuple, a new item takes the lowest suffix that is free. In a free tuple, a lone new item
      needs no suffix, several get 0, 1, ... In a closed tuple, no suffix can tell the two apart: the old item's SID
      would be a prefix of the new one's, which a trie refuses, and the old item may not change. The new item moves to
      the nearest free tuple, as a beam search of the quantizer finds it.
    - ``"reassign"``: the first new item of a free tuple takes it; all others move to their nearest free tuple.
    - ``"none"``: new items get their codes, shared or not.

    The suffix level grows with the largest group, and is added where there was none; a trained model does not know
    the tokens that are new then.

    Parameters
    ----------
    sids
        The old items. They may have a suffix level.
    item_ids
        Ids of the new items, one a row.
    codes
        Codes of the new items from the quantizer that made those of `sids`, int of shape (new, levels).
    quantizer, embeddings
        Needed where an item has to move: that quantizer, and what it made `codes` of.
    method
        None takes what `sids.resolution` names, ``"suffix"`` where it names none.

    Returns
    -------
    SemanticIds
        Old items, then new ones. Its `resolution` is that of `sids` with ``items_added`` and ``items_added_moved``, the
        numbers of new items so far and of those that moved.

    Raises
    ------
    ValueError
        If an item has a SID already or is named twice, a code lies outside its codebook, the method is unknown, an item
        has to move and quantizer or embeddings are missing, or no code tuple is free any more.

    Examples
    --------
    >>> old = SemanticIds(["mug", "cup", "hat"], np.array([[1, 5, 0], [1, 5, 1], [0, 2, -1]]), (2, 6, 2), levels=2)
    >>> new = extend(old, ["bowl", "lamp"], np.array([[1, 5], [0, 3]]))
    >>> new.codes_of("bowl"), new.codes_of("lamp"), new.codes_of("hat")
    ((1, 5, 2), (0, 3), (0, 2))
    """
    method = sids.resolution.get("method", "suffix") if method is None else method
    if method not in ("suffix", "reassign", "none"):
        raise ValueError(f'unknown method {method!r}; use "suffix", "reassign" or "none"')
    array, _ = check_codes(codes, sids.codebook_sizes[: sids.levels])
    _check_new(sids, item_ids, len(array))
    if embeddings is not None and len(embeddings) != len(array):
        raise ValueError(f"{len(embeddings)} embeddings for {len(array)} rows of codes; give those that were encoded")
    suffixes = np.full(len(array), NO_SUFFIX, dtype=np.int64)
    moved: list[int] = []
    if method != "none":
        tuples = _Tuples(sids)
        moved = tuples.place(array, suffixes, with_suffix=method == "suffix")
        if moved:
            array[moved] = _nearest_free(moved, tuples.suffixes, sids, quantizer, embeddings)
    counts = {"items_added": len(array), "items_added_moved": len(moved)}
    added = {name: int(sids.resolution.get(name, 0)) + count for name, count in counts.items()}
    return _appended(sids, item_ids, array, suffixes, dict(sids.resolution) | added)


class _Tuples:
    """Who has which code tuple: the suffixes in use of each, `NO_SUFFIX` among them where the tuple is closed."""

    def __init__(self, sids: SemanticIds) -> None:
        self.suffixes: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for codes in sids.codes.tolist():
            self.suffixes[tuple(codes[: sids.levels])].add(codes[-1] if sids.depth > sids.levels else NO_SUFFIX)

    def place(self, codes: np.ndarray, suffixes: np.ndarray, with_suffix: bool) -> list[int]:
        """Place the items that keep their codes, writing their `suffixes`; return the rows that have to move."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row, key in enumerate(map(tuple, codes.tolist())):
            groups[key].append(row)
        moving = []
        for key, rows in groups.items():
            used = self.suffixes.get(key, set())
            if NO_SUFFIX in used or (used and not with_suffix):
                moving += rows
                continue
            if not used and (len(rows) == 1 or not with_suffix):
                self.suffixes[key] = {NO_SUFFIX}
                moving += rows[1:]
                continue
            for row, suffix in zip(rows, _unused(used)):
                suffixes[row] = suffix
            self.suffixes[key] = used | set(suffixes[rows].tolist())
        return sorted(moving)


def _unused(used: set[int]) -> Iterator[int]:
    """Yield the numbers from 0 on that are not in `used`."""
    return (number for number in count() if number not in used)


def _nearest_free(
    rows: list[int],
    taken: dict[tuple[int, ...], Any],
    sids: SemanticIds,
    quantizer: Quantizer | None,
    embeddings: np.ndarray | None,
) -> Int[np.ndarray, "moved levels"]:
    """Return for each row the nearest code tuple that nobody has, row by row; the beam doubles until all have one."""
    if quantizer is None or embeddings is None:
        raise ValueError(
            f"{len(rows)} new items have the codes of an item whose SID has no suffix and may not change; "
            "give quantizer and embeddings, so that they can move to their nearest free codes"
        )
    sizes = sids.codebook_sizes[: sids.levels]
    if tuple(quantizer.codebook_sizes) != sizes:
        raise ValueError(f"the quantizer has codebook sizes {tuple(quantizer.codebook_sizes)}, the SIDs have {sizes}")
    capacity = prod(sizes)
    if len(taken) + len(rows) > capacity:
        raise ValueError(
            f"{len(rows)} new items need code tuples that nobody has, {capacity - len(taken)} of {capacity} are free; "
            "make new SIDs for all items with larger or more codebooks"
        )
    points = check_embeddings(embeddings)[rows]
    found: dict[int, tuple[int, ...]] = {}
    used, width = set(taken), min(FIRST_WIDTH, capacity)
    while len(found) < len(rows):
        waiting = [place for place in range(len(rows)) if place not in found]
        for place, beam in zip(waiting, quantizer.beams(points[waiting], width).tolist()):
            free = next((key for key in map(tuple, beam) if key not in used), None)
            if free is not None:
                found[place] = free
                used.add(free)
        width = min(2 * width, capacity)
    return np.array([found[place] for place in range(len(rows))], dtype=np.int64)


def _check_new(sids: SemanticIds, item_ids: Sequence[str], rows: int) -> None:
    if len(item_ids) != rows:
        raise ValueError(f"{rows} rows of codes for {len(item_ids)} new item ids; give one id a row")
    known = set(sids.item_ids)
    for item_id in item_ids:
        if item_id in known:
            raise ValueError(f"item {item_id!r} has a SID already or is among the new items twice; name new items once")
        known.add(item_id)


def _appended(
    sids: SemanticIds, item_ids: Sequence[str], codes: np.ndarray, suffixes: np.ndarray, resolution: dict[str, Any]
) -> SemanticIds:
    sizes, old = sids.codebook_sizes, sids.codes
    if sids.depth == sids.levels and (suffixes >= 0).any():
        sizes, old = (*sizes, 0), np.column_stack([old, np.full(len(old), NO_SUFFIX)])
    if len(sizes) > sids.levels:
        codes = np.column_stack([codes, suffixes])
        sizes = (*sizes[:-1], max(sizes[-1], int(suffixes.max(initial=NO_SUFFIX)) + 1))
    return replace(
        sids,
        item_ids=[*sids.item_ids, *item_ids],
        codes=np.concatenate([old, codes]),
        codebook_sizes=sizes,
        resolution=resolution,
    )
