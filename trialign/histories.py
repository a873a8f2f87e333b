"""The histories that a model is trained on, laid end to end."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


class Histories:
    """Histories of users as one flat array, so that any target of any user is one number: its flat position.

    Parameters
    ----------
    histories
        Item rows of each user, oldest first.

    Attributes
    ----------
    items
        The item rows, history after history.
    positions
        Of each flat position: its place within its history, from 0.
    lengths
        Of each flat position: the length of its history.
    """

    def __init__(self, histories: Sequence[Int[np.ndarray, " history"]]) -> None:
        lengths = np.asarray([len(history) for history in histories], dtype=np.int64)
        empty = np.empty(0, dtype=np.int64)
        self.items = np.concatenate([empty, *histories]).astype(np.int64)
        self.positions = np.concatenate([empty, *[np.arange(length) for length in lengths]]).astype(np.int64)
        self.lengths = np.repeat(lengths, lengths)

    def before(self, target: int) -> Int[np.ndarray, " history"]:
        """Return the items of a target's history that came before it."""
        return self.items[target - int(self.positions[target]) : target]

    def windows(self, targets: int) -> Int[np.ndarray, " windows"]:
        """Return the flat positions where histories of two and more items start.

        A history longer than a window of that many targets is there as often as it takes windows to cover it.
        """
        starts = np.flatnonzero((self.positions == 0) & (self.lengths >= 2))
        return np.repeat(starts, -(-(self.lengths[starts] - 1) // targets))

    def window(self, start: int, targets: int, random: np.random.Generator) -> Int[np.ndarray, " window"]:
        """Return the history that starts there, or a random window of `targets` + 1 items of a longer one."""
        history = self.items[start : start + int(self.lengths[start])]
        first = int(random.integers(max(len(history) - targets, 1)))
        return history[first : first + targets + 1]


def thinned(
    rows: Int[np.ndarray, " items"], drop: float, least: int, random: np.random.Generator
) -> Int[np.ndarray, " kept"]:
    """Leave out each item with probability `drop`, but never so many that fewer than `least` stay."""
    if not drop:
        return rows
    luck = random.random(len(rows))
    return rows[luck >= min(drop, np.sort(luck)[-least])]
