"""What users did with an item, as a vector: items that stand close together in train histories are alike.

Levy and Goldberg (2014) show that word2vec factorizes a matrix of pointwise mutual information (PMI); Caselles-Dupré
et al. (2018) that such item vectors want contexts weighted by their own power. Here the positive PMI of items in train
histories is factorized directly, which is exact, deterministic and takes seconds. Only train histories are read, so
that semantic IDs made with these vectors know nothing of held-out interactions.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from trialign.embed.text import unit_rows
from trialign.histories import Histories

#: The power of an item's count in the role of a context: rare contexts count for less than plain PMI makes them.
_CONTEXT_POWER = 0.75


def co_occurrence_vectors(
    histories: Sequence[Int[np.ndarray, " history"]],
    n_items: int,
    dims: int = 64,
    *,
    window: int = 6,
    decay: float = 0.7,
) -> Float[np.ndarray, "items dims"]:
    """Return one float32 row an item: the leading singular vectors of the positive PMI of items in histories.

    Parameters
    ----------
    histories
        Item rows of each user's *train* history, oldest first.
    n_items
        Items of the catalogue.
    dims
        Numbers of a row; at most ``n_items - 1``.
    window
        Two items of a history count as together if at most so many steps apart.
    decay
        What a pair one step further apart counts, relative to the nearer one; in (0, 1].

    Returns
    -------
    ndarray
        Rows of length 1, and of zeros for items that stand beside no other. The sign of a column is that of its
        largest entry, so that the same histories always give the same rows.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> rows = co_occurrence_vectors([np.array([0, 1, 2]), np.array([2, 1, 0])], 5, dims=2)
    >>> np.linalg.norm(rows, axis=1).round(3).tolist()  # nobody had items 3 and 4
    [1.0, 1.0, 1.0, 0.0, 0.0]
    """
    if not 1 <= dims < n_items or window < 1 or not 0 < decay <= 1:
        raise ValueError(
            f"dims must lie in 1..{n_items - 1}, window be positive and decay in (0, 1]; got {dims}, {window}, {decay}"
        )
    pmi = _positive_pmi(_together(Histories(histories), n_items, window, decay))
    # The spectrum falls slowly: with the usual ten columns more, a tenth of the cosines would differ from exact ones.
    left, strengths, _ = randomized_svd(pmi, dims, n_oversamples=100, n_iter=20, random_state=0)
    rows = left * np.sqrt(strengths)
    rows[pmi.sum(axis=1) == 0] = 0  # of an item without neighbours only rounding errors are left
    return unit_rows(rows * np.sign(rows[np.abs(rows).argmax(axis=0), np.arange(dims)]))


def _together(histories: Histories, n_items: int, window: int, decay: float) -> sparse.csr_array:
    """Count how often two items stand together, nearer pairs for more; symmetric, without the diagonal."""
    pairs = []
    for step in range(1, window + 1):
        later = np.flatnonzero(histories.positions >= step)
        items, others = histories.items[later - step], histories.items[later]
        apart = items != others
        pairs.append((items[apart], others[apart], np.full(int(apart.sum()), decay ** (step - 1))))
    items, others, weights = (np.concatenate(parts) for parts in zip(*pairs))
    counts = sparse.csr_array((weights, (items, others)), shape=(n_items, n_items))
    return (counts + counts.T).tocsr()


def _positive_pmi(counts: sparse.csr_array) -> sparse.csr_array:
    totals = np.asarray(counts.sum(axis=1)).ravel()
    contexts = totals**_CONTEXT_POWER
    cells = counts.tocoo()
    row, column = cells.coords
    ratio = cells.data * contexts.sum() / (totals[row] * contexts[column])
    values = np.maximum(np.log(ratio), 0)
    return sparse.csr_array((values, (row, column)), shape=counts.shape)
