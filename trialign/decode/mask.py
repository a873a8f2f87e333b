"""Items that must not be returned: to one user (seen items) or to anybody (out of stock, removed, another category)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

if TYPE_CHECKING:
    from trialign.decode.trie import Trie


@dataclass(frozen=True, eq=False)
class ItemMask:
    """Items that must not be returned; the trie itself is not changed.

    Attributes
    ----------
    trie
        The trie whose items are masked.
    keys
        Sorted ``user * n_items + position in item_order`` of the items that only this user must not get, int64.
    hidden_before
        Number of items before each position of `item_order` that nobody must get, int32 [n_items + 1]; None if
        there is no such item.
    """

    trie: "Trie"
    keys: Int[np.ndarray, " masked"]
    hidden_before: Int[np.ndarray, " items_plus_one"] | None = None

    def __bool__(self) -> bool:
        """Tell whether anything is masked."""
        return bool(self.keys.size) or self.hidden_before is not None

    def allows(self, nodes: Int[np.ndarray, "users ..."]) -> Bool[np.ndarray, "users ..."]:
        """Tell below which nodes the user has an allowed item left; the first axis is the user, -1 is never allowed.

        The masked items below a node are counted: for everybody by a difference, for one user by two binary searches.
        The answer is exact for any mask.
        """
        first, last = self.trie.item_first[nodes], self.trie.item_last[nodes]
        return (nodes >= 0) & (self._masked_between(first, last) < last - first)

    def allows_positions(self, positions: Int[np.ndarray, "users ..."]) -> Bool[np.ndarray, "users ..."]:
        """Tell which positions of `item_order` hold an item that the user (first axis) may be given."""
        return self._masked_between(positions, positions + 1) == 0

    def of_user(self, user: int) -> "ItemMask":
        """Return the mask of one of the users alone."""
        first, last = np.searchsorted(self.keys, np.array([user, user + 1]) * self.trie.n_items)
        return ItemMask(self.trie, self.keys[first:last] - user * self.trie.n_items, self.hidden_before)

    def _masked_between(
        self, first: Int[np.ndarray, "users ..."], last: Int[np.ndarray, "users ..."]
    ) -> Int[np.ndarray, "users ..."]:
        masked = np.zeros(first.shape, dtype=np.int64)
        if self.keys.size:
            users = np.arange(len(first)).reshape(-1, *[1] * (first.ndim - 1)) * self.trie.n_items
            masked += np.searchsorted(self.keys, users + last) - np.searchsorted(self.keys, users + first)
        if self.hidden_before is not None:
            masked += self.hidden_before[last] - self.hidden_before[first]
        return masked


def checked_rows(rows: Sequence[Int[np.ndarray, " masked"]], n_items: int) -> list[Int[np.ndarray, " masked"]]:
    """Return the masked item rows of each user as int64.

    Raises
    ------
    ValueError
        If rows are no integers (truth values, say), or a row is not one of `n_items`; the message names the user.
    """
    arrays = [np.asarray(some) for some in rows]
    for user, some in enumerate(arrays):
        if some.size and not np.issubdtype(some.dtype, np.integer):
            raise ValueError(
                f"masked rows of user {user} must be integer item rows, got {some.dtype}: "
                "np.flatnonzero turns truth values into rows"
            )
        if some.size and (some.min() < 0 or some.max() >= n_items):
            raise ValueError(f"masked rows of user {user} must lie in 0..{n_items - 1}, got {some.tolist()}")
    return [some.astype(np.int64) for some in arrays]


class MaskMaker:
    """Makes the masks of one search, batch by batch; what is hidden from everybody is counted once.

    Parameters
    ----------
    trie
        Whose items are masked.
    allowed
        Whether anybody may get each item, bool by item row; None allows all.

    Raises
    ------
    ValueError
        If `allowed` does not hold one truth value an item.
    """

    def __init__(self, trie: "Trie", allowed: Bool[np.ndarray, " items"] | None = None) -> None:
        self.trie = trie
        self.hidden: Bool[np.ndarray, " items"] | None = None
        self.hidden_before: Int[np.ndarray, " items_plus_one"] | None = None
        if allowed is None:
            return
        allowed = np.asarray(allowed)
        if allowed.dtype != bool or allowed.shape != (trie.n_items,):
            raise ValueError(
                f"allowed must hold True or False for each of {trie.n_items} items, got {allowed.dtype} {allowed.shape}"
            )
        if not allowed.all():
            self.hidden = ~allowed
            counts = np.cumsum(self.hidden[trie.item_order], dtype=np.int32)
            self.hidden_before = np.concatenate([np.zeros(1, np.int32), counts])

    def __call__(self, rows: Sequence[Int[np.ndarray, " masked"]]) -> ItemMask:
        """Return the mask for these users: the rows that each must not get, besides what is hidden from everybody.

        The rows are those of `checked_rows`.
        """
        flat = np.concatenate([np.empty(0, np.int64), *rows])
        users = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
        if self.hidden is not None:  # or they would be counted twice
            users, flat = users[~self.hidden[flat]], flat[~self.hidden[flat]]
        keys = users * self.trie.n_items + self.trie.positions[flat] if flat.size else flat
        return ItemMask(self.trie, np.unique(keys), self.hidden_before)
