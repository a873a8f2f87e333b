"""Linear probes: which known attributes of items can be read off an embedding, and what quantization leaves of them.

A linear classifier is cross-validated on frozen vectors (Alain and Bengio, arXiv 1610.01644). Probing the embedding
and its reconstruction from Semantic IDs shows what was lost, and whether it was seen in the image or read in the text.

The classifier is ridge regression of the 0/1 columns of the values, in closed form: it reads about as much as logistic
regression and takes a tenth of the time, so that several fits of several representations can be probed.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.linalg import solve
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from trialign.sids.quantizer import check_embeddings

#: Ridge penalty of the probes, for centred points of mean squared length 1. On the shipped catalogue probes read about
#: as much with a third of it and with three times as much.
PENALTY = 0.2

#: Where an attribute can be seen, in the order of tables and figures.
PLACES = ("image", "text", "both", "category")


def probe_attributes(
    embeddings: Float[np.ndarray, "items dim"],
    truth_items: pd.DataFrame,
    attributes: Mapping[str, str],
    seed: int = 0,
    folds: int = 5,
    samples: int = 2000,
) -> pd.DataFrame:
    """Cross-validate a linear probe for each attribute.

    Parameters
    ----------
    embeddings
        One vector an item: embeddings, or reconstructions of them.
    truth_items
        Known attributes, one row an item in the same order, one column an attribute. Items whose value is missing or
        "" are left out for that attribute, and so are values that fewer than `folds` items have.
    attributes
        For each attribute to probe, where it can be seen: ``"image"``, ``"text"`` or ``"both"``; ``"category"``
        where that is not known (`probe_targets`).
    seed
        Seed of the folds (the same for every representation of the same items) and of the interval.
    folds
        Parts of the cross-validation, stratified by value.
    samples
        Bootstrap samples of items for the 95 % intervals.

    Returns
    -------
    pandas.DataFrame
        One row an attribute: ``attribute``; ``where``; ``items`` used; ``values`` told apart; ``accuracy`` over all
        held-out predictions; ``low`` and ``high``, its 95 % interval; ``majority``, the share of the most common
        value; ``recovered``, ``(accuracy - majority) / (1 - majority)``: 0 = no better than always guessing that
        value, 1 = always right; ``recovered_low`` and ``recovered_high``.

    Raises
    ------
    ValueError
        If rows disagree, an attribute has no column, or fewer than two of its values have enough items.
    """
    points = check_embeddings(embeddings)
    if len(points) != len(truth_items):
        raise ValueError(f"{len(points)} embeddings for {len(truth_items)} rows of truth; give the same items in both")
    missing = [name for name in attributes if name not in truth_items]
    if missing:
        raise ValueError(f"the truth table has no column {missing[0]!r}; it has {', '.join(map(str, truth_items))}")
    rows, compact = [], _compact(points)
    for name, where in attributes.items():
        values, kept = _probeable(truth_items[name], folds)
        correct = _held_out_hits(compact[kept], values[kept], folds, seed)
        majority = float(pd.Series(values[kept]).value_counts(normalize=True).iloc[0])
        accuracy = float(correct.mean())
        low, high = _bootstrap_share(accuracy, len(correct), samples, seed)
        recovered = {
            key: (share - majority) / (1 - majority)
            for key, share in (("recovered", accuracy), ("recovered_low", low), ("recovered_high", high))
        }
        rows.append(
            {
                "attribute": name,
                "where": where,
                "items": int(kept.sum()),
                "values": len(np.unique(values[kept])),
                "accuracy": accuracy,
                "low": low,
                "high": high,
                "majority": majority,
                **recovered,
            }
        )
    return pd.DataFrame(rows)


def compare_probes(
    representations: Mapping[str, Float[np.ndarray, "items dim"]],
    truth_items: pd.DataFrame,
    attributes: Mapping[str, str],
    seed: int = 0,
    folds: int = 5,
) -> pd.DataFrame:
    """Probe several representations of the same items with the same folds.

    Returns
    -------
    pandas.DataFrame
        The tables of `probe_attributes` below each other, first column ``representation``.
    """
    tables = []
    for name, vectors in representations.items():
        table = probe_attributes(vectors, truth_items, attributes, seed=seed, folds=folds)
        table.insert(0, "representation", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def recovered_by_where(probes: pd.DataFrame) -> pd.DataFrame:
    """Average `recovered` over attributes, by representation and where an attribute can be seen.

    Returns
    -------
    pandas.DataFrame
        Index: representation in order of appearance; columns: those of ``image``, ``text``, ``both``, ``category``
        that occur.
    """
    means = probes.pivot_table(index="representation", columns="where", values="recovered", sort=False)
    return means[[where for where in PLACES if where in means]]


class KnownAttributes(Protocol):
    """What is known of a catalogue's items, such as `trialign.datasets.known_truth` returns.

    Attributes
    ----------
    items
        One row an item in the catalogue's order, one column an attribute.
    where
        Attribute → where it can be seen: ``"image"``, ``"text"`` or ``"both"``.
    """

    @property
    def items(self) -> pd.DataFrame:
        """One row an item, one column an attribute."""

    @property
    def where(self) -> Mapping[str, str]:
        """Attribute to ``"image"``, ``"text"`` or ``"both"``."""


def probe_targets(
    truth: KnownAttributes | None, categories: Sequence[str] | None, folds: int = 5
) -> tuple[pd.DataFrame, dict[str, str]] | None:
    """Return what can be probed of a catalogue: its known attributes, else its categories, else None.

    Parameters
    ----------
    truth
        Known attributes, or None.
    categories
        One a row, "" for unknown, or None; probed as the attribute ``category`` where there is no truth.
    folds
        As for `probe_attributes`: fewer than two categories with so many items are not probed.
    """
    if truth is not None:
        return truth.items, dict(truth.where)
    if categories is None:
        return None
    counts = pd.Series(list(categories), dtype=str).value_counts()
    if ((counts >= folds) & (counts.index != "")).sum() < 2:
        return None
    return pd.DataFrame({"category": list(categories)}), {"category": "category"}


def _probeable(column: pd.Series, folds: int) -> tuple[np.ndarray, Bool[np.ndarray, " items"]]:
    """Return values as strings, and which items to use."""
    present = (column.notna() & (column.astype(str) != "")).to_numpy()
    values = column.astype(str).to_numpy(dtype=object)
    counts = pd.Series(values[present]).value_counts()
    common = counts.index[counts >= folds]
    if len(common) < 2:
        raise ValueError(
            f"attribute {column.name!r} has fewer than two values with at least {folds} items each; "
            "leave it out or use fewer folds"
        )
    return values, present & np.isin(values, list(common))


def _held_out_hits(
    points: Float[np.ndarray, "items dim"], values: Sequence[str], folds: int, seed: int
) -> Bool[np.ndarray, " items"]:
    """Return whether each item's value is found by a ridge classifier fitted on the folds that it is not in.

    The normal equations of all items are made once; those of the other folds are these less the held-out part.
    """
    labels = np.unique(np.asarray(values, dtype=str), return_inverse=True)[1]
    targets = np.eye(labels.max() + 1)[labels]
    inputs = np.column_stack([points, np.ones(len(points))])  # the last column is the intercept
    penalties = np.diag([*[PENALTY] * points.shape[1], 1e-9])
    hits = np.zeros(len(points), dtype=bool)
    # The products are small: with more threads than one they take many times longer.
    with threadpool_limits(1):
        gram, moments = inputs.T @ inputs + penalties, inputs.T @ targets
        for _, rows in StratifiedKFold(folds, shuffle=True, random_state=seed).split(points, labels):
            held, wanted = inputs[rows], targets[rows]
            weights = solve(gram - held.T @ held, moments - held.T @ wanted, assume_a="pos")
            hits[rows] = (held @ weights).argmax(axis=1) == labels[rows]
    return hits


def _compact(points: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items directions"]:
    """Centre the points, scale them to mean squared length 1, and turn them into the directions in which they differ.

    They are divided by one number and not by one a dimension: that keeps the geometry which the quantizer sees, while
    standardising each dimension lifts dimensions of mere noise to the level of those that carry an attribute. The turn
    loses nothing; reconstructions differ in few directions, so their probes get small.
    """
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    centred /= max(float(np.sqrt(np.square(centred).sum(axis=1).mean())), np.finfo(np.float32).tiny)
    with threadpool_limits(1):
        variances, directions = np.linalg.eigh(centred.T @ centred)
        return centred @ directions[:, variances > 1e-10 * max(variances[-1], 1e-10)]


def _bootstrap_share(share: float, items: int, samples: int, seed: int) -> tuple[float, float]:
    """Return a 95 % percentile bootstrap interval of a share; resampling hits and misses is drawing a binomial."""
    draws = np.random.default_rng(seed).binomial(items, share, size=samples) / items
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
