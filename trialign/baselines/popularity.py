"""The least a recommender must beat: the same most popular items for everyone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from trialign.baselines.ranking import ROWS, top_items

if TYPE_CHECKING:
    from trialign.split import Split


class Popularity:
    """Rank items by how often they occur in the train histories.

    Attributes
    ----------
    counts_
        Number of train interactions of each item, int64.
    """

    counts_: Int[np.ndarray, " items"]

    def fit(self, split: "Split") -> "Popularity":
        """Count the train interactions."""
        rows = np.concatenate([np.empty(0, dtype=np.int64), *split.train])
        self.counts_ = np.bincount(rows, minlength=split.n_items)
        return self

    def recommend(
        self, histories: Sequence[Int[np.ndarray, " history"]], k: int, mask_seen: bool
    ) -> Int[np.ndarray, "users k"]:
        """Return the k most popular items for each history.

        Parameters
        ----------
        histories
            Item rows, oldest first; only read if `mask_seen`.
        k
            Number of items.
        mask_seen
            Leave out the items of the history.

        Returns
        -------
        ndarray
            int64 [users, k]; -1 where fewer items are left.
        """
        parts = [np.empty((0, k), dtype=np.int64)]
        for first in range(0, len(histories), ROWS):
            some = histories[first : first + ROWS]
            scores = np.broadcast_to(self.counts_, (len(some), len(self.counts_)))
            parts.append(top_items(scores, k, some, mask_seen))
        return np.concatenate(parts)
