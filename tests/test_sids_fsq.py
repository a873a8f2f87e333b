"""Residual finite scalar quantization: factors, grids, rounding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trialign.sids import ResidualFSQ, ResidualKMeans
from trialign.sids.diagnostics import code_usage
from trialign.sids.fsq import factorizations, fitted_grid, quantile_means, rounded
from trialign.sids.residual import nearest_codes


def test_factorizations_by_hand():
    assert factorizations(1) == [(1,)]
    assert factorizations(13) == [(13,)]
    assert factorizations(12) == [(12,), (6, 2), (4, 3), (3, 2, 2)]
    assert len(factorizations(256)) == 22, "the number of partitions of 8"


@given(st.integers(1, 2000))
def test_every_factorization_multiplies_to_the_size_and_none_is_twice(size):
    found = factorizations(size)
    assert len(set(found)) == len(found)
    assert all(np.prod(factors) == size and list(factors) == sorted(factors, reverse=True) for factors in found)


def test_values_are_means_of_equally_filled_bins():
    assert quantile_means(np.array([5.0, 0.0, 1.0, 6.0]), 2).tolist() == [0.5, 5.5]
    assert rounded(np.array([-9.0, 2.9, 3.1, 8.0]), np.array([0.5, 5.5])).tolist() == [0.5, 0.5, 5.5, 5.5]


def test_the_nearest_grid_point_is_the_rounding_of_each_coordinate():
    generator = np.random.default_rng(0)
    points = (generator.normal(size=(500, 3)) * [9, 3, 0.1]).astype(np.float32)
    grid = fitted_grid(points, 12)
    axes = np.unique(grid.round(3) @ np.linalg.eigh(np.cov(points.T))[1][:, :0:-1], axis=0)
    assert len(axes) == 12
    nearest = grid[nearest_codes(points, grid)[0]]
    _, components = np.linalg.eigh(np.cov(points.T))
    for component in components.T[::-1]:
        values = np.unique((grid @ component).round(3))
        if len(values) > 1:
            expected = rounded(points @ component, values)
            assert (np.abs(nearest @ component - expected) < 0.01).mean() > 0.99


def test_the_factors_follow_the_variance():
    generator = np.random.default_rng(0)
    flat = (generator.normal(size=(2000, 2)) * [10, 0.01]).astype(np.float32)
    assert len(np.unique(fitted_grid(flat, 16)[:, 0].round(2))) == 16, "one direction carries everything"
    round_ = generator.normal(size=(2000, 2)).astype(np.float32)
    cosine = np.unique((fitted_grid(round_, 16) @ np.linalg.eigh(np.cov(round_.T))[1]).round(3)[:, 0])
    assert len(cosine) == 4, "two directions alike get four values each"


@pytest.mark.parametrize("sizes", [(7, 11), (30, 1), (36, 5, 8)])
def test_levels_of_any_size_are_used_evenly(sizes):
    points = np.random.default_rng(0).normal(size=(2000, 6)).astype(np.float32)
    quantizer = ResidualFSQ(sizes).fit(points)
    usage = code_usage(quantizer.encode(points), sizes)
    assert (usage["used"] == 1).all()
    assert (usage["perplexity"] > 0.85 * usage["codebook_size"]).all()


def test_on_independent_dimensions_it_comes_near_kmeans():
    points = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    errors = [
        np.square(points - quantizer.reconstruct(quantizer.encode(points))).sum()
        for quantizer in (ResidualFSQ((64, 64)).fit(points), ResidualKMeans((64, 64)).fit(points))
    ]
    assert errors[0] < 2.5 * errors[1]


def test_a_large_catalogue_is_fitted_on_a_sample(monkeypatch):
    monkeypatch.setattr("trialign.sids.fsq.SAMPLE", 500)
    points = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    first, again, other = (ResidualFSQ((16,), seed=seed).fit(points) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.codebooks_[0], again.codebooks_[0])
    assert (first.codebooks_[0] != other.codebooks_[0]).any()
