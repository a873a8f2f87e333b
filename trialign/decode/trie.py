"""The trie of all semantic IDs as arrays: which tokens may follow a prefix, and which items lie below it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from trialign.decode.mask import ItemMask, MaskMaker, checked_rows
from trialign.decode.trie_build import arrays_of, arrays_of_sorted, checked, digit_type, digits_of


@dataclass(frozen=True, eq=False)
class Trie:
    """A trie in compressed sparse row (CSR) form: nodes numbered level by level, children sorted by token.

    Each node's children follow those of the node before it, so the children of node ``n`` are the nodes
    ``child_offsets[n] .. child_offsets[n + 1] - 1`` and no edge list is needed. Items are kept in the order of their
    sequences, in which every node covers one range; "has this prefix any item left?" is then two look-ups, whatever is
    masked. A node takes 14 bytes, an item 4 more. All arrays may be memory-mapped (`load`).

    Attributes
    ----------
    columns
        Place of the token that leads to each node in its level's vocabulary, uint16 (int32 if a level has 65,536
        tokens or more); 0 for the root, node 0.
    child_offsets
        Node number of each node's first child, int32; one more entry than there are nodes.
    item_first, item_last
        Range ``item_first[n] .. item_last[n] - 1`` of `item_order` that lies below each node, int32.
    item_order
        Item rows sorted by sequence, int32; items that share a sequence stand in the order of their rows.
    level_starts
        Number of the first node of each level, from level 0, the root; ends with the number of nodes; int64.
    level_tokens
        The sorted tokens of level 1, then those of level 2, and so on, int64: see `vocabulary`.
    token_starts
        Where each level begins in `level_tokens`, int64.

    Examples
    --------
    >>> trie = Trie.build(np.array([[5, 7], [5, 8], [6, 7]]))
    >>> children = trie.children_of(np.array([0]))
    >>> children.tolist(), trie.tokens_of(children).tolist()
    ([[1, 2]], [[5, 6]])
    >>> trie.items_at(trie.find([5, 8])).tolist()
    [1]
    """

    columns: Int[np.ndarray, " nodes"]
    child_offsets: Int[np.ndarray, " nodes_plus_one"]
    item_first: Int[np.ndarray, " nodes"]
    item_last: Int[np.ndarray, " nodes"]
    item_order: Int[np.ndarray, " items"]
    level_starts: Int[np.ndarray, " levels_plus_two"]
    level_tokens: Int[np.ndarray, " tokens"]
    token_starts: Int[np.ndarray, " levels_plus_one"]

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
        return cls(*arrays_of(checked(np.asarray(sequences))))

    def add(self, sequences: Int[np.ndarray, "added depth"]) -> "Trie":
        """Return the trie with more items, whose rows follow those of this one.

        The new sequences are merged into the sorted ones, which are not sorted again. The result is that of building
        the trie of all sequences.

        Parameters
        ----------
        sequences
            As in `build`; tokens may be new to the trie.

        Raises
        ------
        ValueError
            As `build`; the rows in the message are those of the new trie.
        """
        new = checked(np.asarray(sequences))
        depth = max(self.depth, new.shape[1])
        new = np.pad(new, ((0, 0), (0, depth - new.shape[1])), constant_values=-1)
        tokens = [self.vocabulary(level + 1) if level < self.depth else np.empty(0, np.int64) for level in range(depth)]
        vocabularies = [np.union1d(known, column[column >= 0]) for known, column in zip(tokens, new.T, strict=True)]
        digits = [self._sorted_digits(level + 1, vocabulary) for level, vocabulary in enumerate(vocabularies)]
        added = digits_of(new, vocabularies)
        by_sequence = np.lexsort(added[::-1])
        added = [column[by_sequence] for column in added]
        places = _places(digits, added)
        merged = [np.insert(column, places, extra) for column, extra in zip(digits, added, strict=True)]
        rows = (self.n_items + by_sequence).astype(np.int32)
        return Trie(*arrays_of_sorted(merged, np.insert(self.item_order, places, rows), vocabularies))

    def _sorted_digits(self, level: int, vocabulary: Int[np.ndarray, " tokens"]) -> Int[np.ndarray, " items"]:
        """Return what `digits_of` gives for a level and a larger vocabulary, for the items in sorted order."""
        kind = digit_type(vocabulary)
        digits = np.zeros(self.n_items, dtype=kind)
        if level <= self.depth:
            start, end = self.level_starts[level : level + 2]
            first, last = self.item_first[start:end], self.item_last[start:end]
            places = (np.searchsorted(vocabulary, self.vocabulary(level)) + 1).astype(kind)
            covered = np.zeros(self.n_items + 1, dtype=np.int8)  # an item that ended above is below no node
            covered[first] += 1
            covered[last] -= 1
            digits[np.cumsum(covered[:-1], dtype=np.int8) > 0] = np.repeat(
                places[self.columns[start:end]], last - first
            )
        return digits

    def save(self, folder: str | Path) -> Path:
        """Write each array as a ``.npy`` file into a folder, which is made, and return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name), allow_pickle=False)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Trie":
        """Open what `save` wrote, memory-mapped: only the pages that a search touches are read.

        Raises
        ------
        FileNotFoundError
            If an array's file is missing.
        ValueError
            If the lengths of the arrays do not fit together.
        """
        arrays = []
        for field in fields(cls):
            file = Path(folder) / f"{field.name}.npy"
            if not file.is_file():
                raise FileNotFoundError(f"{file} not found: save a trie into this folder with Trie.save first")
            arrays.append(np.load(file, mmap_mode="r", allow_pickle=False))
        trie = cls(*arrays)
        nodes, again = trie.n_nodes, "save the trie again"
        lengths = {
            "child_offsets": nodes + 1,
            "item_first": nodes,
            "item_last": nodes,
            "level_starts": len(trie.token_starts) + 1,
            "item_order": int(trie.item_last[:1].sum()),  # the root covers all items
            "level_tokens": int(trie.token_starts[-1:].sum()),
        }
        for name, length in lengths.items():
            if (found := len(getattr(trie, name))) != length:
                raise ValueError(
                    f"{Path(folder) / name}.npy has {found} entries, but {length} belong to the other files: {again}"
                )
        if (last := int(trie.level_starts[-1])) != nodes:
            raise ValueError(
                f"{Path(folder) / 'level_starts'}.npy ends with {last}, but there are {nodes} nodes: {again}"
            )
        return trie

    @property
    def n_nodes(self) -> int:
        """Number of nodes, the root included."""
        return len(self.columns)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_order)

    @property
    def depth(self) -> int:
        """Length of the longest sequence."""
        return len(self.token_starts) - 1

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def vocabulary(self, level: int) -> Int[np.ndarray, " tokens"]:
        """Return every token that occurs at a level (from 1), sorted, int64.

        They are the only rows of a model's output layer that decoding needs at that level.
        """
        return np.array(self.level_tokens[self.token_starts[level - 1] : self.token_starts[level]])

    @cached_property
    def positions(self) -> Int[np.ndarray, " items"]:
        """Position of each item row in `item_order`, int32."""
        positions = np.empty(self.n_items, dtype=np.int32)
        positions[self.item_order] = np.arange(self.n_items, dtype=np.int32)
        return positions

    @cached_property
    def parents(self) -> Int[np.ndarray, " nodes"]:
        """Parent of every node, int32; -1 for the root. Only what walks the whole trie needs it."""
        parents = np.repeat(np.arange(self.n_nodes, dtype=np.int32), np.diff(self.child_offsets))
        return np.concatenate([np.array([-1], dtype=np.int32), parents])

    def levels_of(self, nodes: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Return the level of each node, int64; 0 for the root, -1 for -1."""
        return np.searchsorted(self.level_starts, nodes, side="right") - 1

    def tokens_of(self, nodes: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Return the token that leads to each node, int64; -1 for the root and for -1."""
        nodes = np.asarray(nodes)
        starts = self.token_starts[np.maximum(self.levels_of(nodes) - 1, 0)]
        return np.where(nodes > 0, self.level_tokens[starts + self.columns[nodes]], -1)

    def is_leaf(self, nodes: Int[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
        """Tell which of these nodes are leaves; entries of -1 are not."""
        nodes = np.asarray(nodes)
        return (self.child_offsets[nodes + 1] == self.child_offsets[nodes]) & (nodes >= 0)

    def items_at(self, node: int) -> Int[np.ndarray, " items_below"]:
        """Return the rows of all items below a node (at a leaf: those that share its sequence), ascending, int64."""
        return np.sort(self.item_order[self.item_first[node] : self.item_last[node]]).astype(np.int64)

    def leaves_of(self, rows: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Return the leaf of each item row, int64. Items with equal leaves share a sequence.

        Raises
        ------
        ValueError
            If a row is not an item of the trie.
        """
        rows = np.asarray(rows)
        if rows.size and (rows.min() < 0 or rows.max() >= self.n_items):
            raise ValueError(f"item rows must lie in 0..{self.n_items - 1}, got {rows.min()}..{rows.max()}")
        leaves = np.zeros(rows.shape, dtype=np.int64)
        for level in range(1, self.depth + 1):
            nodes, inside = self._nodes_at(level, self.positions[rows])
            leaves = np.where(inside, nodes, leaves)
        return leaves

    def sequences(self, rows: Int[np.ndarray, " items"]) -> Int[np.ndarray, "items depth"]:
        """Return the token sequences of item rows, int64, -1 padded: what `build` was given."""
        positions = self.positions[rows]
        table = np.full((len(positions), self.depth), -1, dtype=np.int64)
        for level in range(self.depth):
            nodes, inside = self._nodes_at(level + 1, positions)
            table[inside, level] = self.vocabulary(level + 1)[self.columns[nodes[inside]]]
        return table

    def _nodes_at(
        self, level: int, positions: Int[np.ndarray, "..."]
    ) -> tuple[Int[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
        """Return the last node of a level that begins at or before each position, and whether it covers it."""
        start, end = self.level_starts[level : level + 2]
        nodes = start + np.searchsorted(self.item_first[start:end], positions, side="right") - 1
        return nodes, (nodes >= start) & (positions < self.item_last[nodes])

    def children_of(self, nodes: Int[np.ndarray, "..."]) -> Int[np.ndarray, "... children"]:
        """Return the children of many nodes at once.

        Parameters
        ----------
        nodes
            Node numbers of any shape; -1 stands for "no node" and has no children.

        Returns
        -------
        ndarray
            Node numbers, int64, with one axis more, as long as the largest number of children; -1 padded.
        """
        nodes = np.asarray(nodes)
        first = self.child_offsets[nodes].astype(np.int64)
        counts = np.where(nodes >= 0, self.child_offsets[nodes + 1] - first, 0)
        ranks = np.arange(counts.max(initial=0))
        return np.where(ranks < counts[..., None], first[..., None] + ranks, -1)

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
            smaller = self.tokens_of(np.minimum(middle, self.n_nodes - 1)) < tokens
            low = np.where(searching & smaller, middle + 1, low)
            high = np.where(searching & ~smaller, middle, high)
        found = (low < end) & (self.tokens_of(np.minimum(low, self.n_nodes - 1)) == tokens)
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
        return self.tokens_of(np.array(self.path(node), dtype=np.int64)).tolist()

    def mask(
        self, rows: Sequence[Int[np.ndarray, " masked"]] = (), allowed: Bool[np.ndarray, " items"] | None = None
    ) -> ItemMask:
        """Return a mask that forbids items, to each user and to everybody.

        Parameters
        ----------
        rows
            Item rows that a user must not get (seen items), one array a user.
        allowed
            Whether anybody may get each item (in stock, of the category asked for, not removed); None allows all.

        Raises
        ------
        ValueError
            If a row is not an item of the trie, or `allowed` does not hold one truth value an item.
        """
        return MaskMaker(self, allowed)(checked_rows(rows, self.n_items))


def _places(
    digits: list[Int[np.ndarray, " items"]], added: list[Int[np.ndarray, " added"]]
) -> Int[np.ndarray, " added"]:
    """Return before which of the sorted sequences each added one belongs: after its equals, before what is greater."""
    low, high = np.zeros(len(added[0]), dtype=np.int64), np.full(len(added[0]), len(digits[0]))
    while (searching := low < high).any():
        middle = (low + high) // 2
        probe = np.minimum(middle, len(digits[0]) - 1)
        greater, decided = np.zeros(len(low), dtype=bool), np.zeros(len(low), dtype=bool)
        for column, extra in zip(digits, added, strict=True):
            greater |= ~decided & (column[probe] > extra)
            decided |= column[probe] != extra
        low = np.where(searching & ~greater, middle + 1, low)
        high = np.where(searching & greater, middle, high)
    return low
