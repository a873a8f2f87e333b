"""From sequences to the arrays of a trie: one sort, then the nodes of each level, all in NumPy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class TrieArrays(NamedTuple):
    """The arrays of `trialign.decode.trie.Trie`, in the order of its fields."""

    columns: Int[np.ndarray, " nodes"]
    child_offsets: Int[np.ndarray, " nodes_plus_one"]
    item_first: Int[np.ndarray, " nodes"]
    item_last: Int[np.ndarray, " nodes"]
    item_order: Int[np.ndarray, " items"]
    level_starts: Int[np.ndarray, " levels_plus_two"]
    level_tokens: Int[np.ndarray, " tokens"]
    token_starts: Int[np.ndarray, " levels_plus_one"]


def checked(sequences: Int[np.ndarray, "items depth"]) -> Int[np.ndarray, "items depth"]:
    """Return the sequences without columns that no item uses.

    Raises
    ------
    ValueError
        If they are not a non-empty integer array, a token is out of range, or a sequence is empty or has -1 before a
        token.
    """
    if sequences.ndim != 2 or not len(sequences) or not np.issubdtype(sequences.dtype, np.integer):
        raise ValueError(
            f"sequences must be a non-empty integer array [items, depth], got {sequences.dtype} {sequences.shape}"
        )
    if sequences.max(initial=0) > np.iinfo(np.int32).max or sequences.min(initial=0) < -1:
        raise ValueError("token ids must lie in 0..2**31 - 1, with -1 only as padding")
    bad = np.full(len(sequences), not sequences.shape[1])
    previous = np.ones(len(sequences), dtype=bool)
    for level, column in enumerate(sequences.T):
        present = column >= 0
        bad |= ~present if level == 0 else present & ~previous
        previous = present
    if bad.any():
        raise ValueError(f"sequences of items {np.flatnonzero(bad)[:10].tolist()} are empty or have -1 before a token")
    used = [level for level, column in enumerate(sequences.T) if column.max() >= 0]
    return sequences[:, : len(used)]


def arrays_of(sequences: Int[np.ndarray, "items depth"]) -> TrieArrays:
    """Return the arrays of the trie of checked sequences."""
    vocabularies = [_tokens_in(column) for column in sequences.T]
    digits = digits_of(sequences, vocabularies)
    order = _order(digits, [len(vocabulary) for vocabulary in vocabularies])
    return arrays_of_sorted([column[order] for column in digits], order, vocabularies)


def _tokens_in(column: Int[np.ndarray, " items"]) -> Int[np.ndarray, " tokens"]:
    tokens = np.unique(column).astype(np.int64)
    return tokens[tokens >= 0]


def digits_of(
    sequences: Int[np.ndarray, "items depth"], vocabularies: list[Int[np.ndarray, " tokens"]]
) -> list[Int[np.ndarray, " items"]]:
    """Return, per level, each token's place in the level's vocabulary plus 1; 0 where a sequence has ended."""
    digits = []
    for column, vocabulary in zip(sequences.T, vocabularies, strict=True):
        places = np.searchsorted(vocabulary, column) + 1
        digits.append(np.where(column >= 0, places, 0).astype(digit_type(vocabulary)))
    return digits


def digit_type(vocabulary: Int[np.ndarray, " tokens"]) -> type[np.uint16] | type[np.int32]:
    """Return the integer type of the digits of a level."""
    return np.uint16 if len(vocabulary) < 2**16 else np.int32


def _order(digits: list[Int[np.ndarray, " items"]], sizes: list[int]) -> Int[np.ndarray, " items"]:
    """Return the item rows sorted by sequence, then by row.

    Sequence and row are packed into one integer where they fit: sorting integers is several times quicker than
    `numpy.lexsort`.
    """
    n_items = len(digits[0])
    row_bits = (n_items - 1).bit_length()
    if row_bits + sum(size.bit_length() for size in sizes) > 63:
        return np.lexsort(digits[::-1]).astype(np.int32)
    keys = np.zeros(n_items, dtype=np.int64)
    for column, size in zip(digits, sizes, strict=True):
        keys <<= size.bit_length()
        keys |= column
    keys <<= row_bits
    keys |= np.arange(n_items)
    keys.sort()
    keys &= (1 << row_bits) - 1
    return keys.astype(np.int32)


def arrays_of_sorted(
    digits: list[Int[np.ndarray, " items"]],
    order: Int[np.ndarray, " items"],
    vocabularies: list[Int[np.ndarray, " tokens"]],
) -> TrieArrays:
    """Return the arrays of the trie of sequences that are sorted already.

    Parameters
    ----------
    digits
        As from `digits_of`, sorted.
    order
        The item row of each sorted sequence, int32.
    vocabularies
        Per level the sorted tokens, int64.

    Raises
    ------
    ValueError
        If one item's sequence continues another's.
    """
    n_items = len(order)
    columns, firsts, lasts = [np.zeros(1, digits[0].dtype)], [np.array([0])], [np.array([n_items])]
    counts = []
    new_prefix = np.zeros(n_items, dtype=bool)
    new_prefix[0] = True
    for column in digits:
        new_prefix[1:] |= column[1:] != column[:-1]
        first = np.flatnonzero(new_prefix)
        last = np.append(first[1:], n_items)
        inside = column[first] > 0
        first, last = first[inside], last[inside]
        begins = np.zeros(n_items + 1, dtype=np.int32)
        begins[first + 1] = 1
        before = np.cumsum(begins, dtype=np.int32)  # nodes of this level that begin before each item
        counts.append(before[lasts[-1]] - before[firsts[-1]])
        # 0 sorts first, so a node that is both leaf and branch has its leaf's items at the head of its range.
        if (clash := (counts[-1] > 0) & (column[firsts[-1]] == 0)).any():
            _raise_clash(column, order, firsts[-1][clash], lasts[-1][clash])
        columns.append(column[first] - column.dtype.type(1))
        firsts.append(first)
        lasts.append(last)
    counts.append(np.zeros(len(firsts[-1]), dtype=np.int32))
    return TrieArrays(
        columns=np.concatenate(columns),
        child_offsets=np.concatenate([[1], 1 + np.cumsum(np.concatenate(counts))]).astype(np.int32),
        item_first=np.concatenate(firsts).astype(np.int32),
        item_last=np.concatenate(lasts).astype(np.int32),
        item_order=order,
        level_starts=np.cumsum([0, *(len(first) for first in firsts)]),
        level_tokens=np.concatenate(vocabularies),
        token_starts=np.cumsum([0, *(len(vocabulary) for vocabulary in vocabularies)]),
    )


def _raise_clash(
    column: Int[np.ndarray, " items"],
    order: Int[np.ndarray, " items"],
    first: Int[np.ndarray, " clashes"],
    last: Int[np.ndarray, " clashes"],
) -> None:
    """Name the items of prefixes that are both an item and a branch."""
    ended, longer = [], []
    for low, high in zip(first[:5], last[:5]):
        ends = column[low:high] == 0
        ended += order[low:high][ends][:3].tolist()
        longer += order[low:high][~ends][:3].tolist()
    raise ValueError(
        f"the sequences of items {ended} are prefixes of those of items {longer}: "
        f"give every item of a colliding group a suffix code, or none"
    )
