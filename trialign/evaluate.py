"""Ranking metrics on items, one row a user, and bootstrap intervals over users.

Whether items that the user has already seen may be recommended is decided where the ranking is made, not here: mask
them there or keep them, and say which, because it matters (masking moves NDCG@10 on Amazon Beauty by a third).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

#: Upper limit of the random numbers drawn at once by the bootstrap, 32 MiB of them.
_CHUNK = 4_000_000


def ranking_metrics(
    ranked: Int[np.ndarray, "users k"],
    targets: Int[np.ndarray, " users"],
    ks: Sequence[int] = (5, 10),
    groups: Int[np.ndarray, " items"] | None = None,
) -> pd.DataFrame:
    """Return Recall@K and NDCG@K of one target item per user.

    Parameters
    ----------
    ranked
        Item rows, best first; -1 where there is no item. At least ``max(ks)`` columns.
    targets
        Row of the item that the user really chose next.
    ks
        Cut-offs.
    groups
        Group of each item of the catalogue that the method can't tell apart, for instance the item's leaf from
        `Trie.leaves_of`: items with the same semantic ID. Their order in the ranking is arbitrary, so a metric is its
        mean over all orders of the tie. Leave out where every item has a score of its own.

    Returns
    -------
    pandas.DataFrame
        One row a user, columns ``recall@5, ndcg@5, recall@10, ndcg@10, ...``. With one target, Recall@K is also the hit
        rate HR@K, and NDCG@K is ``1 / log2(rank + 1)`` if the rank is at most K.

    Raises
    ------
    ValueError
        If the shapes don't fit, `ranked` has fewer than ``max(ks)`` columns, or names an item twice for a user.

    Notes
    -----
    A tie of ``n`` items that begins at position ``p`` (from 0) gives ``mean(gain(p), ..., gain(p + n - 1))``. Where the
    tie ends before the ranking does, ``n`` is the number of its items in the ranking; where the end of the ranking cuts
    it, ``n`` is the size of the group in the catalogue (exact if no item of the group is masked; rank a few more items
    than ``max(ks)`` and it won't matter).

    Examples
    --------
    >>> ranking_metrics(np.array([[7, 3, 9, 4, 8]]), np.array([3]), ks=(1, 5)).round(3).to_dict("records")
    [{'recall@1': 0.0, 'ndcg@1': 0.0, 'recall@5': 1.0, 'ndcg@5': 0.631}]
    """
    ranked, targets = np.asarray(ranked), np.asarray(targets)
    _check_ranking(ranked, targets, ks)
    hits = ranked == targets[:, None] if groups is None else _same_group(ranked, targets, np.asarray(groups))
    width = ranked.shape[1]
    begin = np.where(hits.any(axis=1), hits.argmax(axis=1), width)
    size = hits.sum(axis=1)
    if groups is not None:
        cut = (begin + size == width) & (size > 0)
        size = np.where(cut, np.maximum(size, np.bincount(groups)[groups[targets]]), size)
    size = np.maximum(size, 1)
    columns = {}
    for k in ks:
        for name, gains in (("recall", np.ones(k)), ("ndcg", 1 / np.log2(np.arange(k) + 2))):
            total = np.concatenate([[0.0], np.cumsum(gains)])
            columns[f"{name}@{k}"] = (total[np.minimum(begin + size, k)] - total[np.minimum(begin, k)]) / size
    return pd.DataFrame(columns)


def bootstrap_interval(
    values: Float[np.ndarray, " users"], samples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean over users and its percentile bootstrap interval (Efron 1979).

    Parameters
    ----------
    values
        One number a user.
    samples
        Number of resamples of the users.
    seed
        Seed of the resampling.
    level
        Confidence level, between 0 and 1.

    Returns
    -------
    mean, low, high

    Raises
    ------
    ValueError
        If there are no values, one isn't finite, or `level` isn't between 0 and 1.
    """
    frame = pd.DataFrame({"value": np.asarray(values, dtype=np.float64)})
    row = _intervals(frame, samples, seed, level).iloc[0]
    return float(row["mean"]), float(row["low"]), float(row["high"])


def summarize(
    per_user: Mapping[str, pd.DataFrame], samples: int = 2000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Return the mean of every metric with its bootstrap interval, for each method.

    Parameters
    ----------
    per_user
        Method name to its `ranking_metrics`.
    samples, seed, level
        As in `bootstrap_interval`. All methods with equally many users are resampled alike.

    Returns
    -------
    pandas.DataFrame
        method, metric, mean, low, high; methods and metrics in the order given.
    """
    frames = [_intervals(frame, samples, seed, level).assign(method=method) for method, frame in per_user.items()]
    return pd.concat(frames, ignore_index=True)[["method", "metric", "mean", "low", "high"]]


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, samples: int = 2000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Return the mean of ``a - b`` over the same users with its bootstrap interval.

    Each resample draws users, and takes both methods' values of them: users that are easy for both cancel out, so the
    interval is much narrower than the two methods' own intervals suggest.

    Parameters
    ----------
    a, b
        `ranking_metrics` of two methods, rows for the same users in the same order.
    samples, seed, level
        As in `bootstrap_interval`.

    Returns
    -------
    pandas.DataFrame
        metric, mean, low, high. An interval without 0 is a difference at this level.

    Raises
    ------
    ValueError
        If the two tables differ in length or columns.
    """
    if len(a) != len(b) or list(a.columns) != list(b.columns):
        raise ValueError(
            f"both tables must hold the same users and metrics: {len(a)} rows of {list(a.columns)}, "
            f"{len(b)} rows of {list(b.columns)}"
        )
    difference = pd.DataFrame(a.to_numpy(np.float64) - b.to_numpy(np.float64), columns=a.columns)
    return _intervals(difference, samples, seed, level)


def _check_ranking(ranked: np.ndarray, targets: np.ndarray, ks: Sequence[int]) -> None:
    if ranked.ndim != 2 or targets.shape != ranked.shape[:1]:
        raise ValueError(f"ranked must be [users, k] and targets [users], got {ranked.shape} and {targets.shape}")
    if not ks or min(ks) < 1 or max(ks) > ranked.shape[1]:
        raise ValueError(f"ks must lie in 1..{ranked.shape[1]}, the number of ranked items a user; got {list(ks)}")
    if targets.min(initial=0) < 0:
        raise ValueError(f"targets must be item rows; user {int(targets.argmin())} has {int(targets.min())}")
    ordered = np.sort(ranked, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise ValueError(f"the ranking of user {int(twice.argmax())} names an item twice")


def _same_group(ranked: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Tell where the ranking has an item of the target's group, and check that they stand together."""
    hits = (groups[ranked] == groups[targets][:, None]) & (ranked >= 0)
    starts = hits.copy()
    starts[:, 1:] &= ~hits[:, :-1]
    if (apart := starts.sum(axis=1) > 1).any():
        raise ValueError(
            f"in the ranking of user {int(apart.argmax())} the items of one group don't stand together, so they are no "
            "tie: leave out groups, or rank by a score that items of a group share"
        )
    return hits


def _intervals(frame: pd.DataFrame, samples: int, seed: int, level: float) -> pd.DataFrame:
    """Return mean and percentile interval of each column, all columns resampled alike."""
    values = frame.to_numpy(np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"the bootstrap needs finite values of at least one user, got {len(values)} rows")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    means = np.concatenate(list(_resampled_means(values, samples, seed)))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return pd.DataFrame({"metric": frame.columns, "mean": values.mean(axis=0), "low": low, "high": high})


def _resampled_means(values: np.ndarray, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the columns' means in resamples of the rows, some resamples at a time."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // len(values))
    bounds = [*range(0, samples, at_once), samples]
    for first, last in pairwise(bounds):
        rows = rng.integers(0, len(values), size=(last - first, len(values)))
        yield np.stack([column[rows].mean(axis=1) for column in values.T], axis=1)
