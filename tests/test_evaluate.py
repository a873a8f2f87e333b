from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from trialign.evaluate import bootstrap_interval, paired_difference, ranking_metrics, summarize


def test_metrics_by_hand():
    ranked = np.array([[4, 0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, -1, -1, -1]])
    table = ranking_metrics(ranked, np.array([4, 3, 3]), ks=(1, 3, 5))
    assert table["recall@1"].tolist() == [1, 0, 0]
    assert table["recall@3"].tolist() == [1, 0, 0]
    assert table["recall@5"].tolist() == [1, 1, 0]
    assert table["ndcg@5"].tolist() == pytest.approx([1, 1 / np.log2(5), 0])
    assert list(table.columns) == ["recall@1", "ndcg@1", "recall@3", "ndcg@3", "recall@5", "ndcg@5"]


@given(st.permutations(range(12)), st.integers(0, 11), st.sampled_from([1, 5, 10]))
def test_ndcg_agrees_with_scikit_learn(order, target, k):
    scores = np.empty(12)
    scores[list(order)] = np.arange(12, 0, -1)
    relevance = np.eye(12)[[target]]
    ours = ranking_metrics(np.array([order]), np.array([target]), ks=(k,))
    assert ours[f"ndcg@{k}"][0] == pytest.approx(ndcg_score(relevance, scores[None], k=k))


@given(st.lists(st.integers(0, 2), min_size=6, max_size=6), st.integers(0, 5), st.integers(1, 6))
def test_ties_give_the_mean_over_all_their_orders(groups, target, k):
    groups = np.array(groups)
    ranked = np.argsort(groups, kind="stable")
    tied = np.flatnonzero(groups == groups[target])
    begin = int(np.argmax(groups[ranked] == groups[target]))
    ties = np.array(list(permutations(tied)))
    orders = np.tile(ranked, (len(ties), 1))
    orders[:, begin : begin + len(tied)] = ties
    mean = ranking_metrics(orders, np.full(len(orders), target), ks=(k,)).mean()
    # The whole catalogue is ranked, or only as far as the cut-off: the expectation is the same.
    for width in (6, k):
        ours = ranking_metrics(ranked[None, :width], np.array([target]), ks=(k,), groups=groups)
        np.testing.assert_allclose(ours.iloc[0], mean)


def test_tie_cut_by_the_end_of_the_ranking_by_hand():
    groups = np.array([0, 1, 1, 1, 2])
    table = ranking_metrics(np.array([[0, 1]]), np.array([3]), ks=(2,), groups=groups)
    assert table["recall@2"][0] == pytest.approx(1 / 3)
    assert table["ndcg@2"][0] == pytest.approx(1 / np.log2(3) / 3)


def test_bad_rankings_are_named():
    with pytest.raises(ValueError, match="user 1 names an item twice"):
        ranking_metrics(np.array([[0, 1], [1, 1]]), np.array([0, 0]), ks=(1,))
    with pytest.raises(ValueError, match=r"ks must lie in 1\.\.2"):
        ranking_metrics(np.array([[0, 1]]), np.array([0]))
    with pytest.raises(ValueError, match="targets"):
        ranking_metrics(np.array([[0, 1]]), np.array([0, 1]), ks=(1,))
    with pytest.raises(ValueError, match="stand together"):
        ranking_metrics(np.array([[0, 1, 2]]), np.array([0]), ks=(1,), groups=np.array([0, 1, 0]))


def test_bootstrap_interval_of_a_proportion():
    values = (np.arange(1000) < 300).astype(float)
    mean, low, high = bootstrap_interval(values, seed=1)
    error = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert mean == pytest.approx(0.3)
    assert (low, high) == (pytest.approx(0.3 - error, abs=0.003), pytest.approx(0.3 + error, abs=0.003))
    assert bootstrap_interval(values, seed=1) == (mean, low, high)
    narrow = bootstrap_interval(values, seed=1, level=0.5)
    assert low < narrow[1] < narrow[2] < high


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.random(60), samples=300, seed=run, level=0.8) for run in range(200)]
    covered = np.mean([low <= 0.5 <= high for _, low, high in intervals])
    assert 0.7 < covered < 0.88


def test_bootstrap_in_chunks_draws_every_sample():
    mean, low, high = bootstrap_interval(np.arange(5001) % 2, samples=900)
    assert low < mean < high


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([np.nan], 0.95), ([1.0], 1.0)])
def test_bootstrap_refuses(values, level):
    with pytest.raises(ValueError):
        bootstrap_interval(np.array(values), level=level)


def test_summary_and_paired_difference():
    rng = np.random.default_rng(0)
    base = rng.random((400, 2))
    a = pd.DataFrame(base + 0.01, columns=["recall@5", "ndcg@5"])
    b = pd.DataFrame(base, columns=["recall@5", "ndcg@5"])
    summary = summarize({"a": a, "b": b})
    assert summary["method"].tolist() == ["a", "a", "b", "b"]
    assert summary["metric"].tolist() == ["recall@5", "ndcg@5"] * 2
    assert ((summary["low"] < summary["mean"]) & (summary["mean"] < summary["high"])).all()
    np.testing.assert_allclose(summary["mean"], [*a.mean(), *b.mean()])
    # The methods' own intervals overlap, yet the paired difference is the same for every user.
    assert summary["low"][0] < summary["high"][2]
    difference = paired_difference(a, b)
    np.testing.assert_allclose(difference[["mean", "low", "high"]], 0.01)
    with pytest.raises(ValueError, match="same users"):
        paired_difference(a, b.iloc[:-1])
