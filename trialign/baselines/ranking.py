"""What the baselines share: the interface, the choice of the best items, and the choice of settings on validation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from trialign.evaluate import ranking_metrics

if TYPE_CHECKING:
    from trialign.split import Split

#: Users, or items, whose rows over the whole catalogue are made dense at once.
ROWS = 512


class Recommender(Protocol):
    """A recommender fitted on the train part of a split."""

    def fit(self, split: "Split") -> "Recommender":
        """Learn from ``split.train``; validation items serve at most to choose, test items are never read."""

    def recommend(
        self, histories: Sequence[Int[np.ndarray, " history"]], k: int, mask_seen: bool
    ) -> Int[np.ndarray, "users k"]:
        """Return the rows of the k best items for each history (rows, oldest first); -1 where there are fewer."""


def top_items(
    scores: Float[np.ndarray, "users items"],
    k: int,
    histories: Sequence[Int[np.ndarray, " history"]],
    mask_seen: bool,
) -> Int[np.ndarray, "users k"]:
    """Return the k best items of each row of scores.

    Parameters
    ----------
    scores
        Finite scores; ties go to the lower row.
    k
        Number of items, at least 1.
    histories
        What each user has seen.
    mask_seen
        Never return an item of the user's history.

    Returns
    -------
    ndarray
        int64 [users, k]; -1 where fewer than k items may be returned.

    Raises
    ------
    ValueError
        If k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    scores = np.array(scores, dtype=np.float64)
    if mask_seen:
        users, rows = _pairs(histories)
        scores[users, rows] = -np.inf
    width = min(k, scores.shape[1])
    # The k-th best score is found first; only items at least as good are sorted, so ties are broken by row exactly.
    # (Partitioned from below, rows of mostly equal scores, as item-kNN's zeros, take ten times as long.)
    threshold = -np.partition(-scores, width - 1, axis=1)[:, width - 1]
    top = np.full((len(scores), k), -1, dtype=np.int64)
    for user, row in enumerate(scores):
        candidates = np.flatnonzero((row >= threshold[user]) & np.isfinite(row))
        best = candidates[np.argsort(-row[candidates], kind="stable")][:width]
        top[user, : len(best)] = best
    return top


def validation_ndcg(model: Recommender, split: "Split", mask_seen: bool) -> float:
    """Return the mean NDCG@10 of a recommender on the validation items (at most as many as the catalogue has)."""
    k = min(10, split.n_items)
    ranked = model.recommend(split.histories("validation"), k, mask_seen)
    return float(ranking_metrics(ranked, split.validation, ks=(k,))[f"ndcg@{k}"].mean())


def settings_of(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield every combination of a grid of settings.

    Examples
    --------
    >>> list(settings_of({"hidden": [32, 64], "dropout": [0.2]}))
    [{'hidden': 32, 'dropout': 0.2}, {'hidden': 64, 'dropout': 0.2}]
    """
    for values in product(*grid.values()):
        yield dict(zip(grid, values))


def climb(grid: Mapping[str, Sequence[Any]], score: Callable[[Mapping[str, Any]], float]) -> dict[str, Any]:
    """Return settings of a grid that no change of a single setting makes better, from its first values on.

    A grid of many settings has too many combinations to try: here one setting after the other takes its best value,
    until a round changes nothing. No combination is scored twice.

    Parameters
    ----------
    grid
        Setting to the values to try.
    score
        What a combination is worth; the larger the better, ties go to the one found first.

    Examples
    --------
    >>> climb({"x": (0, 1, 2), "y": (5, 6)}, lambda settings: -((settings["x"] - 1) ** 2) + settings["y"])
    {'x': 1, 'y': 6}
    """
    best = {name: values[0] for name, values in grid.items()}
    scores = {tuple(best.values()): score(best)}
    while True:
        before = dict(best)
        for name, values in grid.items():
            for value in values:
                tried = {**best, name: value}
                key = tuple(tried.values())
                if key not in scores:
                    scores[key] = score(tried)
                if scores[key] > scores[tuple(best.values())]:
                    best = tried
        if best == before:
            return best


def _pairs(histories: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return (user, item row) of every history entry."""
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    rows = np.concatenate(
        [np.empty(0, dtype=np.int64), *(np.asarray(history, dtype=np.int64) for history in histories)]
    )
    return users, rows
