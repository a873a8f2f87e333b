"""Product quantizers: slices, the rotation, and exact beams."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trialign.sids import OptimizedProductQuantizer, ProductQuantizer
from trialign.sids.product import balanced_components, nearest_tuples
from trialign.sids.residual import kmeans, nearest_codes


def correlated(items=600, dim=24, seed=0):
    """Return embeddings whose first dimensions carry most of the variance, all of them mixed a little."""
    generator = np.random.default_rng(seed)
    scales = 0.8 ** np.arange(dim)
    mix = np.linalg.qr(generator.normal(size=(dim, dim)) + 3 * np.eye(dim))[0]
    return (generator.normal(size=(items, dim)) * scales @ mix).astype(np.float32)


def squared_error(quantizer, embeddings):
    return float(np.square(embeddings - quantizer.reconstruct(quantizer.encode(embeddings))).sum())


def test_each_level_is_a_kmeans_of_its_slice():
    points = correlated(dim=7)
    quantizer = ProductQuantizer((5, 3), seed=2).fit(points)
    codes = quantizer.encode(points)
    centred = points - points.mean(axis=0)
    for level, columns in enumerate((slice(0, 4), slice(4, 7))):
        part = np.ascontiguousarray(centred[:, columns])
        expected = kmeans(part, (5, 3)[level], seed=2 + level)
        np.testing.assert_allclose(quantizer.codebooks_[level], expected, atol=1e-5)
        np.testing.assert_array_equal(codes[:, level], nearest_codes(part, expected)[0])


def test_levels_left_out_stay_at_the_training_mean():
    points = correlated(dim=9) + 5
    quantizer = ProductQuantizer((4, 4, 4)).fit(points)
    rebuilt = quantizer.reconstruct(quantizer.encode(points), depth=1)
    np.testing.assert_allclose(rebuilt[:, 3:], np.tile(points.mean(axis=0)[3:], (len(points), 1)), rtol=1e-5)
    assert np.square(points - rebuilt)[:, :3].sum() < np.square(points - points.mean(axis=0))[:, :3].sum()


@pytest.mark.parametrize("kind", [ProductQuantizer, OptimizedProductQuantizer])
def test_there_may_be_as_many_levels_as_dimensions_and_no_more(kind):
    points = correlated(items=300, dim=64)
    quantizer = kind((8,) * 64).fit(points)
    assert quantizer.encode(points).shape == (300, 64)
    assert squared_error(quantizer, points) < 0.1 * np.square(points - points.mean(axis=0)).sum()
    with pytest.raises(ValueError, match="65 levels need as many dimensions; the embeddings have 64"):
        kind((8,) * 65).fit(points)


def test_product_quantization_is_as_good_as_faiss():
    points = correlated()
    theirs = faiss.ProductQuantizer(24, 4, 4)
    theirs.train(points)
    error = np.square(points - theirs.decode(theirs.compute_codes(points))).sum()
    assert squared_error(ProductQuantizer((16,) * 4).fit(points), points) < 1.05 * error


def test_the_optimized_rotation_is_as_good_as_faiss_and_better_than_none():
    points = correlated()
    matrix = faiss.OPQMatrix(24, 4)
    matrix.pq = faiss.ProductQuantizer(24, 4, 4)
    matrix.train(points - points.mean(axis=0))
    rotated = matrix.apply(points - points.mean(axis=0))
    theirs = faiss.ProductQuantizer(24, 4, 4)
    theirs.train(rotated)
    error = np.square(rotated - theirs.decode(theirs.compute_codes(rotated))).sum()
    ours = squared_error(OptimizedProductQuantizer((16,) * 4).fit(points), points)
    assert ours < 1.05 * error
    assert ours < 0.9 * squared_error(ProductQuantizer((16,) * 4).fit(points), points)


def test_the_rotation_is_orthogonal_and_learning_it_lowers_the_error():
    points = correlated()
    start = OptimizedProductQuantizer((16,) * 4, rotations=0).fit(points)
    learned = OptimizedProductQuantizer((16,) * 4).fit(points)
    np.testing.assert_allclose(learned.rotation_.T @ learned.rotation_, np.eye(24), atol=1e-4)
    assert squared_error(learned, points) < squared_error(start, points)
    with pytest.raises(ValueError, match="rotations must not be negative; got -1"):
        OptimizedProductQuantizer((4,), rotations=-1).fit(points)


def test_components_are_dealt_out_so_that_slices_have_like_products_of_variances():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(4000, 4)) * np.sqrt([8.0, 4.0, 2.0, 1.0])
    order = np.abs(balanced_components(points - points.mean(axis=0), 2)).argmax(axis=0)
    assert {frozenset(order[:2].tolist()), frozenset(order[2:].tolist())} == {frozenset({0, 3}), frozenset({1, 2})}


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 40),
    st.integers(0, 1000),
)
def test_beams_are_the_nearest_of_all_tuples(sizes, width, seed):
    generator = np.random.default_rng(seed)
    errors = [generator.random((3, size)) for size in sizes]
    found = nearest_tuples(errors, width)
    every = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, len(sizes))
    assert found.shape == (3, min(width, len(every)), len(sizes))
    for item in range(3):
        sums = sum(error[item][every[:, level]] for level, error in enumerate(errors))
        ours = sum(error[item][found[item, :, level]] for level, error in enumerate(errors))
        np.testing.assert_allclose(ours, np.sort(sums)[:width], atol=1e-12)
        assert len(np.unique(found[item], axis=0)) == found.shape[1]


@settings(max_examples=30)
@given(arrays(np.float32, (4, 5), elements=st.floats(-4, 4, width=32)))
def test_beams_of_embeddings_come_in_order_of_distance(points):
    quantizer = OptimizedProductQuantizer((4, 3), rotations=2).fit(correlated(items=50, dim=5))
    beams = quantizer.beams(points, 12)
    assert beams.shape == (4, 12, 2)
    rebuilt = quantizer.reconstruct(beams.reshape(-1, 2)).reshape(4, 12, 5)
    distances = np.square(rebuilt - points[:, None]).sum(axis=2)
    assert (np.diff(distances, axis=1) >= -1e-3).all()
