"""Item-based nearest neighbours: items liked by the same users are alike, and recent items count most."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from trialign.baselines.ranking import settings_of, top_items, validation_ndcg

if TYPE_CHECKING:
    from trialign.split import Split

#: Rows of the similarity matrix, or users, that are made dense at once.
_ROWS = 512


class ItemKNN:
    """Item-kNN on the cosine of co-occurrence (Sarwar et al. 2001), shrunk, with a history that fades.

    The similarity of items i and j is ``c_ij / (sqrt(c_i c_j) + shrinkage)``, where ``c_ij`` counts the users with
    both. Each item keeps its `neighbours` nearest. A history item that is ``a`` steps old counts ``decay ** a``.

    Parameters
    ----------
    neighbours
        Number of neighbours kept for each item.
    shrinkage
        Added to the denominator: similarities that rest on few users shrink towards 0.
    decay
        Weight of a history item relative to the next more recent one, in (0, 1]; 1 forgets the order.

    Attributes
    ----------
    similarity_
        Sparse float64 [items, items]; row i holds the neighbours of item i.

    Examples
    --------
    >>> model = ItemKNN(neighbours=50, decay=0.8)
    """

    #: The settings that `tuned` tries.
    GRID: Mapping[str, Sequence[Any]] = {
        "neighbours": (50, 300),
        "shrinkage": (0.0, 10.0),
        "decay": (0.3, 0.5, 0.7, 0.9, 1.0),
    }

    similarity_: sparse.csr_array

    def __init__(self, neighbours: int = 100, shrinkage: float = 3.0, decay: float = 0.8) -> None:
        self.neighbours = neighbours
        self.shrinkage = shrinkage
        self.decay = decay

    @classmethod
    def tuned(
        cls,
        split: "Split",
        grid: Mapping[str, Sequence[Any]] | None = None,
        seed: int = 0,
        *,
        mask_seen: bool = False,
    ) -> "ItemKNN":
        """Return the model whose settings give the best NDCG@10 on the validation items.

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
        """
        best, best_score, fitted = cls(), -1.0, {}
        for settings in settings_of(cls.GRID if grid is None else grid):
            model = cls(**settings)
            # The decay has no part in the neighbours: models that differ in nothing else share them.
            key = (model.neighbours, model.shrinkage)
            if key not in fitted:
                fitted[key] = model.fit(split).similarity_
            model.similarity_ = fitted[key]
            if (score := validation_ndcg(model, split, mask_seen)) > best_score:
                best, best_score = model, score
        return best

    def fit(self, split: "Split") -> "ItemKNN":
        """Compute the neighbours from the train histories.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        """
        if self.neighbours < 1 or self.shrinkage < 0 or not 0 < self.decay <= 1:
            raise ValueError(
                f"neighbours must be >= 1, shrinkage >= 0 and decay in (0, 1], got {self.neighbours}, "
                f"{self.shrinkage} and {self.decay}"
            )
        seen = _history_matrix(split.train, split.n_items, decay=1.0)
        seen.data[:] = 1.0
        norms = np.sqrt(seen.sum(axis=0))
        users_of = seen.T.tocsr()
        parts = [
            _nearest((users_of[first : first + _ROWS] @ seen).toarray(), norms, first, self.neighbours, self.shrinkage)
            for first in range(0, split.n_items, _ROWS)
        ]
        self.similarity_ = sparse.vstack(parts, format="csr")
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
        for first in range(0, len(histories), _ROWS):
            some = histories[first : first + _ROWS]
            weights = _history_matrix(some, self.similarity_.shape[0], self.decay)
            parts.append(top_items((weights @ self.similarity_).toarray(), k, some, mask_seen))
        return np.concatenate(parts)


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


def _nearest(
    together: Float[np.ndarray, "rows items"],
    norms: Float[np.ndarray, " items"],
    first: int,
    neighbours: int,
    shrinkage: float,
) -> sparse.csr_array:
    """Turn co-occurrence counts of the items from `first` on into similarities, and keep each row's largest."""
    rows, n_items = together.shape
    together[np.arange(rows), first + np.arange(rows)] = 0  # no item is its own neighbour
    denominators = norms[first : first + rows, None] * norms + shrinkage
    similarity = np.divide(together, denominators, out=together, where=together > 0)
    kept = min(neighbours, n_items)
    columns = np.argpartition(-similarity, kept - 1, axis=1)[:, :kept]
    values = np.take_along_axis(similarity, columns, 1)
    matrix = sparse.csr_array(
        (values.ravel(), columns.ravel(), np.arange(0, values.size + 1, kept)), shape=(rows, n_items)
    )
    matrix.eliminate_zeros()
    return matrix
