"""The trie of all semantic IDs as arrays: which tokens may follow a prefix, and which items lie below it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int


@dataclass(frozen=True, eq=False)
class Trie:
    """A trie in compressed sparse row (CSR) form: nodes numbered level by level, children sorted by token.

    Each node's children follow those of the node before it, so the children of node ``n`` are the nodes
    ``child_offsets[n] .. child_offsets[n + 1] - 1`` and no edge list is needed. Items are kept in the order of their
    sequences, in which every node covers one range; "has this prefix any item left?" is then two binary searches,
    whatever is masked.

    Attributes
    ----------
    tokens
        Token that leads to each node, int32; -1 for the root, node 0.
    child_offsets
        Node number of each node's first child, int32; one more entry than there are nodes.
    levels
        Depth of each node, int16; 0 for the root.
    item_first, item_last
        Range ``item_first[n] .. item_last[n] - 1`` of `item_order` that lies below each node, int32.
    item_order
        Item rows sorted by sequence, int32.
    leaves
        Leaf of each item row, int32. Items with equal leaves share a sequence.

    Examples
    --------
    >>> trie = Trie.build(np.array([[5, 7], [5, 8], [6, 7]]))
    >>> tokens, nodes = trie.children_of(np.array([0]))
    >>> tokens.tolist(), nodes.tolist()
    ([[5, 6]], [[1, 2]])
    >>> trie.items_at(trie.leaves[1]).tolist()
    [1]
    """

    tokens: Int[np.ndarray, " nodes"]
    child_offsets: Int[np.ndarray, " nodes_plus_one"]
    levels: Int[np.ndarray, " nodes"]
    item_first: Int[np.ndarray, " nodes"]
    item_last: Int[np.ndarray, " nodes"]
    item_order: Int[np.ndarray, " items"]
    leaves: Int[np.ndarray, " items"]

    @classmethod
    def build(cls, sequences: Int[np.ndarray, "items depth"]) -> "Trie":
        """Build the trie of these token sequences.

        Parameters
        ----------
        sequences
            One sequence of token ids (>= 0) an item, padded with -1 on the right. Several items may share a sequence.

        Returns
        -------
        Trie

        Raises
        ------
        ValueError
            If there is no item, a sequence is empty or has -1 before a token, or one item's sequence continues
            another's (a prefix would then be an item and a branch at once); the message names the items.
        """
        sequences = _checked(np.asarray(sequences))
        order = np.lexsort(sequences.T[::-1]).astype(np.int32)
        tokens, first, last, child_counts, levels = _nodes(sequences[order], order)
        is_leaf = child_counts == 0
        by_position = np.flatnonzero(is_leaf)[np.argsort(first[is_leaf])]
        leaves = np.empty(len(order), dtype=np.int32)
        leaves[order] = np.repeat(by_position, (last - first)[by_position])
        offsets = np.concatenate([[1], 1 + np.cumsum(child_counts)]).astype(np.int32)
        return cls(tokens, offsets, levels, first, last, order, leaves)

    @property
    def n_nodes(self) -> int:
        """Number of nodes, the root included."""
        return len(self.tokens)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_order)

    @property
    def depth(self) -> int:
        """Length of the longest sequence."""
        return int(self.levels[-1])

    @cached_property
    def vocabulary(self) -> Int[np.ndarray, " vocabulary"]:
        """Every token on an edge, sorted, int64: the only rows of a model's output layer that decoding needs."""
        return np.unique(self.tokens[1:]).astype(np.int64)

    @cached_property
    def positions(self) -> Int[np.ndarray, " items"]:
        """Position of each item row in `item_order`, int64."""
        positions = np.empty(self.n_items, dtype=np.int64)
        positions[self.item_order] = np.arange(self.n_items)
        return positions

    def is_leaf(self, nodes: Int[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
        """Tell which of these nodes are leaves; entries of -1 are not."""
        nodes = np.asarray(nodes)
        return (self.child_offsets[nodes + 1] == self.child_offsets[nodes]) & (nodes >= 0)

    def items_at(self, node: int) -> Int[np.ndarray, " items_below"]:
        """Return the rows of all items below a node (at a leaf: those that share its sequence), ascending, int64."""
        return np.sort(self.item_order[self.item_first[node] : self.item_last[node]]).astype(np.int64)

    def children_of(
        self, nodes: Int[np.ndarray, "..."]
    ) -> tuple[Int[np.ndarray, "... children"], Int[np.ndarray, "... children"]]:
        """Return the children of many nodes at once.

        Parameters
        ----------
        nodes
            Node numbers of any shape; -1 stands for "no node" and has no children.

        Returns
        -------
        tokens, children
            Tokens and node numbers, int64, with one axis more, as long as the largest number of children; -1 padded.
        """
        nodes = np.asarray(nodes)
        first = self.child_offsets[nodes].astype(np.int64)
        counts = np.where(nodes >= 0, self.child_offsets[nodes + 1] - first, 0)
        ranks = np.arange(counts.max(initial=0))
        inside = ranks < counts[..., None]
        children = np.where(inside, first[..., None] + ranks, -1)
        return np.where(inside, self.tokens[children], -1).astype(np.int64), children

    def step(self, nodes: Int[np.ndarray, "..."], tokens: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Follow one token from each node: the child's number, or -1 where the trie has none, int64.

        A binary search over each node's sorted children, done for all nodes together.
        """
        nodes, tokens = np.broadcast_arrays(np.asarray(nodes, dtype=np.int64), np.asarray(tokens, dtype=np.int64))
        low = self.child_offsets[nodes].astype(np.int64)
        end = np.where(nodes >= 0, self.child_offsets[nodes + 1], low)
        high = end.copy()
        while (searching := low < high).any():
            middle = (low + high) // 2
            smaller = self.tokens[np.minimum(middle, self.n_nodes - 1)] < tokens
            low = np.where(searching & smaller, middle + 1, low)
            high = np.where(searching & ~smaller, middle, high)
        found = (low < end) & (self.tokens[np.minimum(low, self.n_nodes - 1)] == tokens)
        return np.where(found, low, -1)

    def find(self, sequence: Sequence[int]) -> int:
        """Return the node that a prefix of tokens leads to, or -1."""
        node = 0
        for token in sequence:
            node = int(self.step(np.array(node), np.array(token)))
        return node

    def path(self, node: int) -> list[int]:
        """Return the nodes from level 1 down to this node."""
        path: list[int] = []
        while node > 0:
            path.append(node)
            # Child ranges ascend with the node number, so the parent is the last node that starts at or before it;
            # leaves have empty ranges that start where the next node's does, hence "right".
            node = int(np.searchsorted(self.child_offsets, node, side="right")) - 1
        return path[::-1]

    def prefix(self, node: int) -> list[int]:
        """Return the tokens from the root to this node."""
        return [int(self.tokens[step]) for step in self.path(node)]

    def mask(self, rows: Sequence[Int[np.ndarray, " masked"]]) -> "ItemMask":
        """Return a mask that forbids these item rows, one array a user.

        Raises
        ------
        ValueError
            If a row is not an item of the trie.
        """
        arrays = [np.asarray(some, dtype=np.int64) for some in rows]
        for user, some in enumerate(arrays):
            if some.size and (some.min() < 0 or some.max() >= self.n_items):
                raise ValueError(f"masked rows of user {user} must lie in 0..{self.n_items - 1}, got {some.tolist()}")
        keys = [user * self.n_items + self.positions[some] for user, some in enumerate(arrays)]
        return ItemMask(self, np.unique(np.concatenate([np.empty(0, np.int64), *keys])))


@dataclass(frozen=True, eq=False)
class ItemMask:
    """Items that must not be returned, per user.

    Attributes
    ----------
    trie
        The trie whose items are masked; it is not changed.
    keys
        Sorted ``user * n_items + position in item_order`` of the masked items, int64.
    """

    trie: Trie
    keys: Int[np.ndarray, " masked"]

    def allows(self, nodes: Int[np.ndarray, "users ..."]) -> Bool[np.ndarray, "users ..."]:
        """Tell below which nodes the user has an allowed item left; the first axis is the user, -1 is never allowed.

        The masked items below a node are counted by two binary searches, so the answer is exact for any mask.
        """
        users = np.arange(len(nodes)).reshape(-1, *[1] * (nodes.ndim - 1)) * self.trie.n_items
        first, last = self.trie.item_first[nodes], self.trie.item_last[nodes]
        masked = np.searchsorted(self.keys, users + last) - np.searchsorted(self.keys, users + first)
        return (nodes >= 0) & (masked < last - first)

    def allows_positions(self, positions: Int[np.ndarray, "users ..."]) -> Bool[np.ndarray, "users ..."]:
        """Tell which positions of `item_order` hold an item that the user (first axis) may be given."""
        keys = positions + np.arange(len(positions)).reshape(-1, *[1] * (positions.ndim - 1)) * self.trie.n_items
        return np.searchsorted(self.keys, keys, side="left") == np.searchsorted(self.keys, keys, side="right")


def prefix_allowed_tokens_fn(trie: Trie, start: int, end_token_id: int) -> Callable[[int, torch.Tensor], list[int]]:
    """Return the trie as the function that `transformers.generate` takes under this name.

    Parameters
    ----------
    trie
        The trie.
    start
        Where the semantic ID begins in a sequence: the (padded) length of the prompt for a decoder-only model,
        1 for an encoder-decoder model, whose decoder begins with its start token.
    end_token_id
        The token allowed after a leaf.

    Notes
    -----
    Pass ``renormalize_logits=True`` and ``length_penalty=0.0`` to `generate` to get the probabilities of
    `trialign.decode.beam_search`, and reset the checkpoint's generation config: a repetition penalty or a temperature
    in it changes what is found.
    """

    def allowed(_batch: int, sequence: torch.Tensor) -> list[int]:
        node = trie.find(sequence[start:].tolist())
        if node < 0 or trie.is_leaf(np.array(node)):
            return [end_token_id]
        return trie.tokens[trie.child_offsets[node] : trie.child_offsets[node + 1]].tolist()

    return allowed


def _checked(sequences: np.ndarray) -> np.ndarray:
    """Return the sequences as they must be, or say which item's is not."""
    if sequences.ndim != 2 or not len(sequences) or not np.issubdtype(sequences.dtype, np.integer):
        raise ValueError(
            f"sequences must be a non-empty integer array [items, depth], got {sequences.dtype} {sequences.shape}"
        )
    if sequences.max(initial=0) > np.iinfo(np.int32).max or sequences.min(initial=0) < -1:
        raise ValueError("token ids must lie in 0..2**31 - 1, with -1 only as padding")
    present = sequences >= 0
    bad = ~present[:, :1].any(axis=1) | (present[:, 1:] & ~present[:, :-1]).any(axis=1)
    if bad.any():
        raise ValueError(f"sequences of items {np.flatnonzero(bad)[:10].tolist()} are empty or have -1 before a token")
    return sequences


def _nodes(ordered: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return token, first item, last item, child count and level of every node of the sorted sequences."""
    n_items, depth = ordered.shape
    tokens, firsts, lasts = [np.array([-1])], [np.array([0])], [np.array([n_items])]
    counts: list[np.ndarray] = []
    new_prefix = np.zeros(n_items, dtype=bool)
    new_prefix[0] = True
    for level in range(depth):
        column = ordered[:, level]
        new_prefix[1:] |= column[1:] != column[:-1]
        first = np.flatnonzero(new_prefix)
        last = np.append(first[1:], n_items)
        inside = column[first] >= 0
        first, last = first[inside], last[inside]
        parents = np.searchsorted(firsts[-1], first, side="right") - 1
        counts.append(np.bincount(parents, minlength=len(firsts[-1])))
        # -1 sorts first, so a node that is both leaf and branch has its leaf's items at the head of its range.
        if (clash := (counts[-1] > 0) & (column[firsts[-1]] < 0)).any():
            _raise_clash(ordered, order, firsts[-1][clash], lasts[-1][clash], level)
        tokens.append(column[first])
        firsts.append(first)
        lasts.append(last)
    counts.append(np.zeros(len(firsts[-1]), dtype=np.int64))
    levels = np.repeat(np.arange(depth + 1), [len(first) for first in firsts])
    parts = (np.concatenate(part).astype(np.int32) for part in (tokens, firsts, lasts, counts))
    return *parts, levels.astype(np.int16)


def _raise_clash(ordered: np.ndarray, order: np.ndarray, first: np.ndarray, last: np.ndarray, level: int) -> None:
    """Name the items of prefixes that are both an item and a branch."""
    ended, longer = [], []
    for low, high in zip(first[:5], last[:5]):
        ends = ordered[low:high, level] < 0
        ended += order[low:high][ends][:3].tolist()
        longer += order[low:high][~ends][:3].tolist()
    raise ValueError(
        f"the sequences of items {ended} are prefixes of those of items {longer}: "
        f"give every item of a colliding group a suffix code, or none"
    )
