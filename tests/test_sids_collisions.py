"""Collisions: counted by hand, resolved without a shared ID, and reassigned at the least cost."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trialign.sids import RQVAE, ResidualKMeans, collisions, resolve_collisions

CODES = arrays(np.int64, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(0, 2))


def ids(count):
    return [f"item {row}" for row in range(count)]


def grid_quantizer():
    """Codes (a, b) stand for the point 10 a + b, so every cost is plain."""
    quantizer = ResidualKMeans((3, 4))
    quantizer.codebooks_ = [np.array([[0], [10], [20]], np.float32), np.array([[0], [1], [2], [3]], np.float32)]
    quantizer.n_features_in_ = 1
    return quantizer


def test_counting_by_hand():
    counted = collisions(np.array([[0, 1], [0, 1], [2, 2], [0, 1], [3, 3], [2, 2], [4, 0]]))
    assert counted.to_dict() == {
        "items": 7,
        "distinct": 4,
        "colliding": 5,
        "items_colliding": 5 / 7,
        "groups": 2,
        "largest_group": 3,
    }
    assert collisions(np.array([[0], [1]]))["items_colliding"] == 0
    with pytest.raises(ValueError, match="at least one item"):
        collisions(np.empty((0, 3), dtype=int))


def test_suffix_by_hand():
    codes = np.array([[0, 1], [2, 2], [0, 1], [1, 1], [0, 1], [2, 2]])
    sids = resolve_collisions(codes, (3, 3), ids(6))
    assert sids.codes[:, 2].tolist() == [0, 0, 1, -1, 2, 1]
    np.testing.assert_array_equal(sids.codes[:, :2], codes)
    assert (sids.codebook_sizes, sids.levels) == ((3, 3, 3), 2)
    assert sids.resolution["items_colliding_before"] == pytest.approx(5 / 6)
    assert sids.resolution["items_colliding_after"] == 0


@settings(max_examples=60)
@given(CODES)
def test_suffix_makes_ids_unique_and_marks_only_colliding_items(codes):
    sids = resolve_collisions(codes, (3, 3, 3), ids(len(codes)))
    before = collisions(codes)
    assert collisions(sids.codes)["items_colliding"] == 0
    if before["largest_group"] == 1:
        assert sids.depth == 3
    else:
        assert (sids.codes[:, 3] >= 0).sum() == before["colliding"]
        assert sids.codebook_sizes[3] == before["largest_group"] == sids.codes[:, 3].max() + 1
    for row in range(len(codes)):
        assert sids.items_of(sids.codes_of(sids.item_ids[row])).tolist() == [row]


def test_reassignment_by_hand():
    """Three items at 12.0, 12.1, 12.4 share code (1, 2); 11 is taken, so 13 and 10 are the nearest free points."""
    embeddings = np.array([[12.0], [12.1], [12.4], [11.0]], dtype=np.float32)
    quantizer = grid_quantizer()
    codes = quantizer.encode(embeddings)
    assert codes.tolist() == [[1, 2], [1, 2], [1, 2], [1, 1]]
    sids = resolve_collisions(codes, (3, 4), ids(4), "reassign", quantizer, embeddings)
    assert sids.codes.tolist() == [[1, 0], [1, 2], [1, 3], [1, 1]]
    assert (sids.depth, sids.levels) == (2, 2)
    assert sids.resolution["items_moved"] == 2
    assert sids.resolution["squared_error_before"] == pytest.approx((0.0 + 0.01 + 0.16) / 4, rel=1e-4)
    assert sids.resolution["squared_error_after"] == pytest.approx((4.0 + 0.01 + 0.36) / 4, rel=1e-4)


@settings(max_examples=20)
@given(arrays(np.float32, (4, 1), elements=st.floats(-3, 26, width=16)))
def test_reassignment_costs_no_more_than_the_best_of_all_assignments(embeddings):
    quantizer = grid_quantizer()
    codes = quantizer.encode(embeddings)
    sids = resolve_collisions(codes, (3, 4), ids(4), "reassign", quantizer, embeddings)
    assert collisions(sids.codes)["items_colliding"] == 0
    alone = [row for row in range(4) if (codes == codes[row]).all(axis=1).sum() == 1]
    np.testing.assert_array_equal(sids.codes[alone], codes[alone])
    shared = [row for row in range(4) if row not in alone]
    taken = {tuple(codes[row]) for row in alone}
    free = [10.0 * a + b for a, b in product(range(3), range(4)) if (a, b) not in taken]
    points = embeddings[shared, 0].astype(float)
    best = min(((points - choice) ** 2).sum() for choice in permutations(free, len(shared))) if shared else 0.0
    ours = (
        np.square(embeddings[shared] - quantizer.reconstruct(sids.codes[shared]).astype(float)).sum() if shared else 0
    )
    assert ours == pytest.approx(best, abs=1e-3)


def test_equal_items_spread_over_every_free_code():
    """Twelve equal items for twelve tuples: the beam has to grow until it holds them all."""
    embeddings = np.full((12, 1), 11.0, dtype=np.float32)
    quantizer = grid_quantizer()
    codes = quantizer.encode(embeddings)
    sids = resolve_collisions(codes, (3, 4), ids(12), "reassign", quantizer, embeddings)
    assert sorted(map(tuple, sids.codes.tolist())) == list(product(range(3), range(4)))
    with pytest.raises(ValueError, match="13 items don't fit into 12 code tuples"):
        resolve_collisions(codes[[*range(12), 0]], (3, 4), ids(13), "reassign", quantizer, embeddings[[*range(12), 0]])


@pytest.mark.parametrize("copies", [1, 40])
def test_reassignment_of_a_learned_quantizer(copies):
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(200, 12)).astype(np.float32)
    embeddings[:copies] = embeddings[0]
    quantizer = RQVAE((8, 8, 8), latent_dim=8, hidden_dims=(16,), epochs=5, progress=False).fit(embeddings)
    codes = quantizer.encode(embeddings)
    assert collisions(codes)["items_colliding"] > 0
    sids = resolve_collisions(codes, (8, 8, 8), ids(200), "reassign", quantizer, embeddings)
    assert collisions(sids.codes)["items_colliding"] == 0
    assert sids.codebook_sizes == (8, 8, 8)
    assert sids.resolution["items_moved"] == (sids.codes != codes).any(axis=1).sum() > 0
    after = np.square(embeddings - quantizer.reconstruct(sids.codes)).sum(axis=1).mean()
    assert sids.resolution["squared_error_after"] == pytest.approx(after, rel=1e-4)


def test_bad_input():
    codes = np.array([[0, 1], [0, 1]])
    with pytest.raises(ValueError, match="unknown method 'hope'"):
        resolve_collisions(codes, (2, 2), ids(2), "hope")
    with pytest.raises(ValueError, match="needs the quantizer and the embeddings"):
        resolve_collisions(codes, (2, 2), ids(2), "reassign")
    with pytest.raises(ValueError, match="give one id a row"):
        resolve_collisions(codes, (2, 2), ids(3))
    with pytest.raises(ValueError, match="row 0 has code 1 at level 2"):
        resolve_collisions(codes, (2, 1), ids(2))
    with pytest.raises(ValueError, match="1 embeddings for 2 rows"):
        resolve_collisions(codes, (3, 4), ids(2), "reassign", grid_quantizer(), np.ones((1, 1)))
