"""Item-based nearest neighbours: items liked by the same users are alike, and recent items count most."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from trialign.baselines.ranking import ROWS, climb, top_items, validation_ndcg
from trialign.progress import tqdm

if TYPE_CHECKING:
    from trialign.split import Split

#: Item pairs that are held before they are summed, some 100 MiB of them.
_PAIRS = 4_000_000


class ItemKNN:
    """Item-kNN on co-occurrence (Sarwar et al. 2001) that may know the order of items, with a history that fades.

    The similarity of a history item i to a candidate j is ``c_ij / (c_i ** 0.5 * c_j ** popularity + shrinkage)``.
    Here ``c_i`` counts the users of i, and ``c_ij`` sums over the users of both: ``distance ** -fade`` where j came
    after i, that times `backward` where it came before. With the defaults c_ij is a count and the similarity a shrunk
    cosine; ``backward=0, fade=1`` counts as the sequential rules of Ludewig and Jannach (2018) do. Each item keeps its
    `neighbours` nearest. A history item that is ``a`` steps old counts ``decay ** a``.

    Parameters
    ----------
    neighbours
        Number of neighbours kept for each item.
    shrinkage
        Added to the denominator: similarities that rest on few users shrink towards 0.
    decay
        Weight of a history item relative to the next more recent one, in (0, 1]; 1 forgets the order.
    history
        Number of most recent items that are read; None: all.
    backward
        Weight of users who had the candidate before the history item, in [0, 1]; 1 forgets the order.
    fade
        Exponent by which pairs count less that are further apart in a history, at least 0; 0 counts all alike.
    popularity
        Exponent of the candidate's number of users, in [0, 1]: the larger, the less popular the recommended items.

    Attributes
    ----------
    similarity_
        Sparse float64 [items, items]; row i holds the neighbours of item i.

    Examples
    --------
    >>> model = ItemKNN(neighbours=50, decay=0.8, backward=0.25)
    """

    #: The settings that `tuned` tries.
    GRID: Mapping[str, Sequence[Any]] = {
        "neighbours": (50, 300),
        "shrinkage": (0.0, 10.0),
        "decay": (0.3, 0.5, 0.7, 0.9, 1.0),
    }

    similarity_: sparse.csr_array

    def __init__(
        self,
        neighbours: int = 100,
        shrinkage: float = 3.0,
        decay: float = 0.8,
        history: int | None = None,
        backward: float = 1.0,
        fade: float = 0.0,
        popularity: float = 0.5,
    ) -> None:
        self.neighbours = neighbours
        self.shrinkage = shrinkage
        self.decay = decay
        self.history = history
        self.backward = backward
        self.fade = fade
        self.popularity = popularity

    @classmethod
    def tuned(
        cls,
        split: "Split",
        grid: Mapping[str, Sequence[Any]] | None = None,
        seed: int = 0,
        *,
        mask_seen: bool = False,
        progress: bool = True,
    ) -> "ItemKNN":
        """Return the model whose settings give the best NDCG@10 on the validation items.

        One setting is chosen after the other, again and again until no single change is better (`climb`).

        Parameters
        ----------
        split
            Histories; the test items are not read.
        grid
            Setting to the values to try, `GRID` if None.
        seed
            Unused, there is no chance in it; for the sake of one interface.
        mask_seen
            Whether items of the history are left out when the settings are compared.
        progress
            Show a progress bar.
        """
        # Decay and history have no part in the neighbours: models that differ in nothing else share them.
        fitted: dict[tuple[float, ...], sparse.csr_array] = {}

        def model_of(settings: Mapping[str, Any]) -> "ItemKNN":
            model = cls(**settings)
            key = (model.neighbours, model.shrinkage, model.backward, model.fade, model.popularity)
            if key not in fitted:
                fitted[key] = model.fit(split).similarity_
            model.similarity_ = fitted[key]
            return model

        with tqdm(desc="item-kNN", unit="setting", disable=not progress) as bar:

            def score(settings: Mapping[str, Any]) -> float:
                bar.update()
                return validation_ndcg(model_of(settings), split, mask_seen)

            return model_of(climb(cls.GRID if grid is None else grid, score))

    def fit(self, split: "Split") -> "ItemKNN":
        """Compute the neighbours from the train histories.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        """
        self._check()
        seen = _history_matrix(split.train, split.n_items, decay=1.0)
        users = np.bincount(seen.indices, minlength=split.n_items).astype(np.float64)
        together = _together(split.train, split.n_items, self.backward, self.fade)
        self.similarity_ = self._nearest(together, users)
        return self

    def recommend(
        self, histories: Sequence[Int[np.ndarray, " history"]], k: int, mask_seen: bool
    ) -> Int[np.ndarray, "users k"]:
        """Return the k items most similar to each history.

        Parameters
        ----------
        histories
            Item rows, oldest first.
        k
            Number of items.
        mask_seen
            Leave out the items of the history.

        Returns
        -------
        ndarray
            int64 [users, k]; -1 where fewer items are left. Items without any similarity follow in the order of rows.
        """
        parts = [np.empty((0, k), dtype=np.int64)]
        for first in range(0, len(histories), ROWS):
            some = histories[first : first + ROWS]
            recent = some if self.history is None else [items[-self.history :] for items in some]
            weights = _history_matrix(recent, self.similarity_.shape[0], self.decay)
            parts.append(top_items((weights @ self.similarity_).toarray(), k, some, mask_seen))
        return np.concatenate(parts)

    def _check(self) -> None:
        if self.neighbours < 1 or self.shrinkage < 0 or not 0 < self.decay <= 1:
            raise ValueError(
                f"neighbours must be >= 1, shrinkage >= 0 and decay in (0, 1], got {self.neighbours}, "
                f"{self.shrinkage} and {self.decay}"
            )
        if self.history is not None and self.history < 1:
            raise ValueError(f"history must be >= 1, or None for all items; got {self.history}")
        if not 0 <= self.backward <= 1 or self.fade < 0 or not 0 <= self.popularity <= 1:
            raise ValueError(
                f"backward and popularity must lie in [0, 1] and fade be >= 0, got {self.backward}, {self.popularity} "
                f"and {self.fade}"
            )

    def _nearest(self, together: sparse.csr_array, users: Float[np.ndarray, " items"]) -> sparse.csr_array:
        """Turn co-occurrence into similarities, and keep each row's largest; ties go to the lower item row."""
        rows, columns = together.nonzero()
        values = together.data / (np.sqrt(users[rows]) * users[columns] ** self.popularity + self.shrinkage)
        order = np.lexsort((columns, -values, rows))
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # rows ascend, before the sort and after it
        kept = order[place < self.neighbours]
        return sparse.csr_array((values[kept], (rows[kept], columns[kept])), shape=together.shape)


def _history_matrix(histories: Sequence[np.ndarray], n_items: int, decay: float) -> sparse.csr_array:
    """Return the histories as rows, the most recent item with weight 1, those before with decay, decay ** 2, ..."""
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    ends = np.cumsum(lengths)
    columns = np.concatenate([np.empty(0, dtype=np.int64), *histories])
    ages = np.repeat(ends, lengths) - np.arange(len(columns)) - 1
    weights = np.power(decay, ages, dtype=np.float64)
    matrix = sparse.csr_array((weights, columns, np.concatenate([[0], ends])), shape=(len(histories), n_items))
    matrix.sum_duplicates()
    return matrix


def _together(histories: Sequence[np.ndarray], n_items: int, backward: float, fade: float) -> sparse.csr_array:
    """Return for each item how often, weighted, users had each other one: ``c_ij`` of `ItemKNN`.

    An item that a user has several times counts by its first position, as one user.
    """
    shape = (n_items, n_items)
    total, waiting = sparse.csr_array(shape), list[np.ndarray]()
    firsts = [items[np.sort(np.unique(items, return_index=True)[1])] for items in histories]
    for distance in range(1, max(map(len, firsts), default=0)):
        firsts = [items for items in firsts if len(items) > distance]
        before = np.concatenate([items[:-distance] for items in firsts])
        after = np.concatenate([items[distance:] for items in firsts])
        waiting.append(np.stack([before, after, np.full(len(before), distance**-fade)]))
        if sum(pairs.shape[1] for pairs in waiting) > _PAIRS:
            total, waiting = total + _summed(waiting, shape), []
    if waiting:
        total = total + _summed(waiting, shape)
    both = sparse.csr_array(total + backward * total.T)
    both.eliminate_zeros()
    return both


def _summed(pairs: Sequence[np.ndarray], shape: tuple[int, int]) -> sparse.csr_array:
    """Return the sum of the weights of each pair; rows of the arrays are item, item, weight."""
    first, second, weights = np.concatenate(pairs, axis=1)
    return sparse.csr_array((weights, (first.astype(np.int64), second.astype(np.int64))), shape=shape)
