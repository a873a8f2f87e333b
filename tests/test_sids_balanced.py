"""Balanced residual k-means, and balanced assignment by optimal transport."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from trialign.sids import BalancedResidualKMeans, ResidualKMeans, load_quantizer
from trialign.sids.balanced import balanced_assignment, balanced_kmeans, cluster_means
from trialign.sids.diagnostics import code_usage
from trialign.sids.sinkhorn import balanced_codes, sinkhorn


def skewed(items=500, seed=0):
    """Return one dense heap and a few far points, on which k-means spends its codes unevenly."""
    generator = np.random.default_rng(seed)
    heap = generator.normal(size=(items - items // 10, 6)) * 0.2
    return np.concatenate([heap, generator.normal(size=(items // 10, 6)) * 4]).astype(np.float32)


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 1000))
def test_every_code_gets_its_share_or_one_more(size, extra, seed):
    items = size + extra
    codes = balanced_assignment(np.random.default_rng(seed).random((items, size)))
    counts = np.bincount(codes, minlength=size)
    assert counts.sum() == items
    assert set(counts) <= {items // size, items // size + 1}


def test_where_room_is_short_the_nearest_stay():
    distances = np.array([[1.0, 9.0], [2.0, 9.0], [3.0, 4.0], [5.0, 8.0]])
    assert balanced_assignment(distances).tolist() == [0, 0, 1, 1]


def test_without_a_quarrel_everybody_gets_the_nearest():
    distances = np.random.default_rng(0).random((40, 4)) + 1
    distances[np.arange(40), np.arange(40) % 4] = 0
    assert balanced_assignment(distances).tolist() == (np.arange(40) % 4).tolist()


def test_in_the_end_the_assignment_is_near_the_best_balanced_one():
    points = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    centroids, codes = balanced_kmeans(points, points[:6], iterations=25)
    distances = np.square(points[:, None] - centroids).sum(axis=2)
    ours = distances[np.arange(120), codes].sum()
    places = np.repeat(distances, 20, axis=1)  # twenty places a cluster: an ordinary assignment problem
    best = places[linear_sum_assignment(places)].sum()
    assert best <= ours < 1.1 * best


def test_cluster_means_by_hand():
    points = np.array([[1.0], [5.0], [3.0]], dtype=np.float32)
    assert cluster_means(points, np.array([0, 1, 0]), 2).tolist() == [[2.0], [5.0]]


def test_training_codes_are_balanced_on_every_level_where_kmeans_is_not():
    points, sizes = skewed(), (20, 20, 7)
    quantizer = BalancedResidualKMeans(sizes).fit(points)
    assert quantizer.codes_.shape == (500, 3)
    assert quantizer.codes_.dtype == np.int64
    for level, size in enumerate(sizes):
        counts = np.bincount(quantizer.codes_[:, level], minlength=size)
        assert counts.max() - counts.min() <= 1
    naive = code_usage(ResidualKMeans(sizes).fit(points).encode(points), sizes)
    assert code_usage(quantizer.encode(points), sizes)["perplexity"].mean() > naive["perplexity"].mean()


def test_new_items_get_the_nearest_centroid_and_training_codes_are_kept_in_the_file(tmp_path):
    points = skewed()
    quantizer = BalancedResidualKMeans((20, 20)).fit(points)
    greedy = quantizer.encode(points)
    assert (greedy != quantizer.codes_).any()
    assert (greedy == quantizer.codes_).mean() > 0.4
    distances = np.square(points[:, None] - quantizer.codebooks_[0]).sum(axis=2)
    np.testing.assert_allclose(distances[np.arange(500), greedy[:, 0]], distances.min(axis=1), atol=1e-4)
    np.testing.assert_array_equal(load_quantizer(quantizer.save(tmp_path)).codes_, quantizer.codes_)


# --- optimal transport ----------------------------------------------------------------------------------------------


def test_the_plan_of_two_by_two_is_the_known_one():
    """For costs [[0, 1], [1, 0]] the doubly balanced plan is softmax(-costs / epsilon) itself."""
    plan = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.5).exp()
    kept = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(plan, [[kept, 1 - kept], [1 - kept, kept]], rtol=1e-5)


@settings(max_examples=30)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000))
def test_items_give_one_and_codes_receive_equal_shares(items, codes, seed):
    costs = torch.from_numpy(np.random.default_rng(seed).random((items, codes)))
    plan = sinkhorn(costs, epsilon=0.2, iterations=300).exp().numpy()
    np.testing.assert_allclose(plan.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=0), items / codes, atol=1e-5)
    # a plan of this form, exp(row + column - costs / epsilon), that is balanced is the only minimum
    scores = np.log(plan) + costs.numpy() / 0.2
    np.testing.assert_allclose(scores - scores[:1] - scores[:, :1] + scores[:1, :1], 0, atol=1e-6)


def test_a_small_epsilon_gives_the_best_balanced_assignment_without_overflow():
    costs = np.random.default_rng(3).random((8, 8)) * 100
    plan = sinkhorn(torch.from_numpy(costs), epsilon=0.05, iterations=5000).exp().numpy()
    assert np.isfinite(plan).all()
    np.testing.assert_array_equal(plan.argmax(axis=1), linear_sum_assignment(costs)[1])


def test_balanced_codes_spread_a_heap_over_all_codes():
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)) * 0.1
    centroids = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0], [-3.0, 0.0]])
    distances = torch.cdist(points, centroids).square()
    assert torch.bincount(distances.argmin(1), minlength=4).tolist() == [256, 0, 0, 0]
    counts = torch.bincount(balanced_codes(distances), minlength=4)
    assert counts.min() > 40
    assert torch.equal(balanced_codes(distances * 1000), balanced_codes(distances)), "the unit does not matter"


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.0, 5), (-1.0, 5), (1.0, 0)])
def test_bad_sinkhorn_parameters_are_refused(epsilon, iterations):
    with pytest.raises(ValueError, match="epsilon must be positive and iterations at least 1"):
        sinkhorn(torch.zeros(2, 2), epsilon, iterations)
