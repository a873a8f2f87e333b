"""Joint residual k-means: its search, its least squares, and what the fit promises beyond the shared suite."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign.sids import JointResidualKMeans, ResidualKMeans, collisions, resolve_collisions
from trialign.sids.additive_search import search
from trialign.sids.diagnostics import cosines


def made(items=400, dim=24, seed=0):
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(10, dim))
    points = centres[generator.integers(10, size=items)] + 0.6 * generator.normal(size=(items, dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def points():
    return made()


@pytest.fixture(scope="module")
def fitted(points):
    return JointResidualKMeans((16, 16, 16), rounds=12, progress=False).fit(points)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([0.0, 0.5]))
def test_a_wide_search_ranks_all_tuples_as_brute_force_does(seed, groups, prefix_weight):
    generator = np.random.default_rng(seed)
    sizes = (4, 3, 3)
    points = generator.normal(size=(5, 6)).astype(np.float32)
    group_of = generator.integers(groups, size=4)
    shapes = [(4, 6), (3, groups, 6), (3, groups, 6)]
    books = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    found = search(points, group_of, books, prefix_weight, width=36, keep=36)
    for point, tuples in zip(points, found):
        scores = {}
        for codes in product(*map(range, sizes)):
            first, group = books[0][codes[0]], group_of[codes[0]]
            total = first + books[1][codes[1], group] + books[2][codes[2], group]
            scores[codes] = np.square(point - total).sum() + prefix_weight * np.square(point - first).sum()
        assert len({tuple(codes) for codes in tuples.tolist()}) == 36
        np.testing.assert_allclose(
            [scores[tuple(codes)] for codes in tuples.tolist()], sorted(scores.values()), atol=1e-4
        )


def test_it_comes_nearer_than_levels_fitted_one_by_one(points, fitted):
    def cosine(quantizer, depth):
        return cosines(points, quantizer.reconstruct(quantizer.encode(points), depth=depth)).mean()

    naive = ResidualKMeans((16, 16, 16)).fit(points)
    alone = JointResidualKMeans((16, 16, 16), groups=1, rounds=12, progress=False).fit(points)
    assert cosine(naive, 3) < cosine(alone, 3) < cosine(fitted, 3)
    assert cosine(fitted, 1) > cosine(naive, 1) - 0.01


def test_a_refit_gives_means_at_the_first_level_and_least_squares_at_the_others(points):
    quantizer = JointResidualKMeans((6, 5, 4), groups=1, rounds=2, progress=False).fit(points)
    codes = np.random.default_rng(1).integers((6, 5, 4), size=(len(points), 3))
    for _ in range(12):  # each refit takes a few steps towards the solution
        quantizer.refit(points, codes)
    means = np.stack([points[codes[:, 0] == code].mean(axis=0) for code in range(6)])
    np.testing.assert_allclose(quantizer.codebooks_[0], means, atol=1e-5)
    design = np.concatenate([np.eye(5)[codes[:, 1]], np.eye(4)[codes[:, 2]]], axis=1)
    left = points - means[codes[:, 0]]
    solved = design @ np.linalg.lstsq(design, left, rcond=None)[0]
    np.testing.assert_allclose(quantizer.reconstruct(codes) - means[codes[:, 0]], solved, atol=1e-3)


def test_a_refit_after_reassignment_lowers_the_error(points, fitted, tmp_path):
    quantizer = JointResidualKMeans.load(fitted.save(tmp_path))
    codes = quantizer.encode(points)
    ids = [str(row) for row in range(len(points))]
    unique = resolve_collisions(codes, (16, 16, 16), ids, "reassign", quantizer, points).codes
    assert collisions(unique)["items_colliding"] == 0
    before = np.square(points - quantizer.reconstruct(unique)).sum()
    after = np.square(points - quantizer.refit(points, unique).reconstruct(unique)).sum()
    assert after < before


def test_codes_of_one_first_level_code_share_a_group(fitted):
    assert fitted.group_of_.shape == (16,)
    assert set(fitted.group_of_.tolist()) == {0, 1}
    assert [codebook.shape for codebook in fitted.codebooks_] == [(16, 24), (16, 2, 24), (16, 2, 24)]


def test_a_larger_catalogue_is_fitted_on_a_sample(points):
    sampled = JointResidualKMeans((8, 8), rounds=2, sample=100, progress=False).fit(points)
    kept = np.sort(np.random.default_rng(0).choice(len(points), 100, replace=False))
    alone = JointResidualKMeans((8, 8), rounds=2, progress=False).fit(points[kept])
    np.testing.assert_array_equal(sampled.encode(points), alone.encode(points))


@pytest.mark.parametrize(
    "wrong", [{"groups": 0}, {"rounds": 0}, {"width": 0}, {"noise": -1.0}, {"prefix_weight": -1.0}]
)
def test_parameters_out_of_range_are_refused(points, wrong):
    with pytest.raises(ValueError, match="at least 1"):
        JointResidualKMeans((4, 4), progress=False, **wrong).fit(points)


def test_a_refit_needs_the_same_items(points, fitted):
    with pytest.raises(ValueError, match="400 embeddings for 3 rows of codes"):
        fitted.refit(points, np.zeros((3, 3), dtype=int))
