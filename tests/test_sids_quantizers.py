"""One suite for all quantizers: what the interface promises, whatever is behind it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError

from trialign.sids import QUANTIZERS, RQVAE, PerModality, ResidualKMeans, load_quantizer
from trialign.sids.diagnostics import code_usage, reconstruction_by_depth
from trialign.sids.residual import kmeans, nearest_codes, residual_beams, residual_decode, residual_encode

SIZES = (24, 24, 24)

#: The cosine that three codes reach at least on the clustered embeddings below, where it is less than .85: these
#: kinds give a code only a part of the dimensions.
COSINE = {"ProductQuantizer": 0.7, "OptimizedProductQuantizer": 0.8, "PerModality": 0.8, "ResidualFSQ": 0.6}

#: Kinds that draw no random numbers on a catalogue of this size.
WITHOUT_CHANCE = ("ResidualFSQ",)


def unit(points):
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def clustered(items=300, dim=48, clusters=12, seed=0):
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(clusters, dim))
    details = generator.normal(size=(3, 6, dim)) * 0.6
    points = centres[generator.integers(clusters, size=items)]
    for detail in details:
        points = points + detail[generator.integers(6, size=items)]
    return unit(points + generator.normal(size=(items, dim)) * 0.3)


def make(kind, sizes=SIZES, seed=0, dim=48):
    """Return a quantizer of a kind, quickly fitted; per modality: k-means on two halves of the columns."""
    if kind == "RQVAE":
        latent = min(24, dim - 2)
        return RQVAE(sizes, latent_dim=latent, hidden_dims=(64,), epochs=25, batch_size=64, seed=seed, progress=False)
    if kind == "PerModality" and len(sizes) > 1:
        parts = {"text": ResidualKMeans(sizes[:-1], seed=seed), "image": ResidualKMeans(sizes[-1:], seed=seed)}
        return PerModality(parts, {"text": dim - dim // 4, "image": dim // 4})
    if kind == "PerModality":
        return PerModality({"text": ResidualKMeans(sizes, seed=seed)}, {"text": dim})
    return QUANTIZERS[kind](sizes, seed=seed)


@pytest.fixture(scope="module")
def embeddings():
    return clustered()


@pytest.fixture(scope="module", params=sorted(QUANTIZERS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(kind, embeddings):
    return make(kind).fit(embeddings)


def test_codes_have_the_promised_shape_and_range(fitted, embeddings):
    codes = fitted.encode(embeddings)
    assert codes.shape == (len(embeddings), len(SIZES))
    assert codes.dtype == np.int64
    assert codes.min() >= 0
    assert (codes < SIZES).all()
    assert [len(codebook) for codebook in fitted.codebooks_] == list(SIZES)


def test_every_level_is_used_and_brings_the_reconstruction_nearer(kind, fitted, embeddings):
    codes = fitted.encode(embeddings)
    assert code_usage(codes, SIZES)["used"].min() > 0.9
    table = reconstruction_by_depth(embeddings, fitted, codes)
    assert table["cosine"].is_monotonic_increasing
    assert table["relative_error"].is_monotonic_decreasing
    assert table["cosine"].iloc[-1] > COSINE.get(kind, 0.85)


def test_a_reconstruction_is_nearer_than_that_of_another_items_codes(fitted, embeddings):
    codes = fitted.encode(embeddings)
    own = np.square(embeddings - fitted.reconstruct(codes)).sum(axis=1)
    other = np.square(embeddings - fitted.reconstruct(np.roll(codes, 1, axis=0))).sum(axis=1)
    assert (own <= other + 1e-6).mean() > 0.98


def test_a_saved_quantizer_gives_bit_identical_codes_and_reconstructions(fitted, embeddings, tmp_path):
    loaded = load_quantizer(fitted.save(tmp_path / "quantizer"))
    assert type(loaded) is type(fitted)
    codes = fitted.encode(embeddings)
    np.testing.assert_array_equal(loaded.encode(embeddings), codes)
    np.testing.assert_array_equal(loaded.reconstruct(codes), fitted.reconstruct(codes))
    np.testing.assert_array_equal(loaded.beams(embeddings[:20], 5), fitted.beams(embeddings[:20], 5))
    again = loaded.save(tmp_path / "again")
    for name in ("quantizer.json", "quantizer.safetensors"):
        assert (again / name).read_bytes() == (tmp_path / "quantizer" / name).read_bytes()


def test_the_seed_decides_alone(kind, fitted, embeddings):
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    codes = make(kind).fit(embeddings).encode(embeddings)
    np.testing.assert_array_equal(codes, fitted.encode(embeddings))
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers were disturbed"
    assert (make(kind, seed=5).fit(embeddings).encode(embeddings) != codes).any() == (kind not in WITHOUT_CHANCE)


def test_fit_keeps_parameters_and_input_unchanged(kind, embeddings):
    before = embeddings.copy()
    quantizer = make(kind, sizes=[4, 3])
    assert quantizer.fit(embeddings) is quantizer
    assert list(quantizer.codebook_sizes) == [4, 3]
    quantizer.encode(embeddings)
    np.testing.assert_array_equal(embeddings, before)


@pytest.mark.parametrize("sizes", [(7,), (2, 30), (5, 4, 3, 2, 1)])
def test_any_number_of_levels_of_any_size(kind, embeddings, sizes):
    quantizer = make(kind, sizes).fit(embeddings)
    codes = quantizer.encode(embeddings)
    assert codes.shape[1] == len(sizes)
    assert (codes < sizes).all()
    assert quantizer.reconstruct(codes, depth=1).shape == embeddings.shape


def test_new_items_get_the_codes_of_their_likes(fitted, embeddings):
    nudged = embeddings + np.random.default_rng(3).normal(size=embeddings.shape).astype(np.float32) * 1e-4
    assert (fitted.encode(nudged) == fitted.encode(embeddings)).mean() > 0.97


def test_a_row_is_encoded_the_same_in_any_company(fitted, embeddings):
    order = np.random.default_rng(0).permutation(len(embeddings))
    np.testing.assert_array_equal(fitted.encode(embeddings[order]), fitted.encode(embeddings)[order])


def test_the_beam_starts_with_greedy_codes_or_better(fitted, embeddings):
    beams = fitted.beams(embeddings[:50], 16)
    assert beams.shape == (50, 16, len(SIZES))
    assert len({tuple(codes) for codes in beams[0].tolist()}) == 16
    np.testing.assert_array_equal(fitted.beams(embeddings[:50], 1)[:, 0], fitted.encode(embeddings[:50]))


def test_embeddings_mapped_from_a_file_get_the_codes_of_those_in_memory(fitted, embeddings, tmp_path):
    np.save(tmp_path / "embeddings.npy", embeddings)
    mapped = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    np.testing.assert_array_equal(fitted.encode(mapped), fitted.encode(embeddings))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (np.full((40, 48), np.nan), "NaN or infinity.*row 0"),
        (np.where(np.arange(40)[:, None] == 7, np.inf, np.ones((40, 48))), "row 7"),
        (np.where(np.arange(40)[:, None] == 9, 1e300, np.ones((40, 48))), "row 9"),
        (np.ones(48), r"\(items, dim\)"),
        (np.ones((0, 48)), r"\(items, dim\)"),
        (np.array([["a"] * 48] * 40), "real numbers"),
    ],
)
def test_malformed_embeddings_are_refused(kind, fitted, broken, message):
    with pytest.raises(ValueError, match=message):
        make(kind).fit(broken)
    with pytest.raises(ValueError, match=message):
        fitted.encode(broken)


def test_other_bad_input_names_the_fix(kind, fitted, embeddings, tmp_path):
    with pytest.raises(ValueError, match=r"codebook of 301 codes .* 300 items; use codebook_sizes of at most 300"):
        make(kind, (4, 301)).fit(embeddings)
    with pytest.raises(ValueError, match="at least one level"):
        make(kind, ()).fit(embeddings)
    with pytest.raises(ValueError, match="fitted on 48 dimensions, these embeddings have 47"):
        fitted.encode(embeddings[:, :47])
    with pytest.raises(NotFittedError, match=r"call fit\(embeddings\)"):
        make(kind).encode(embeddings)
    with pytest.raises(NotFittedError):
        make(kind).save(tmp_path)
    with pytest.raises(ValueError, match="depth must be between 1 and 3"):
        fitted.reconstruct(fitted.encode(embeddings), depth=4)
    with pytest.raises(ValueError, match="row 1 has code 24 at level 3"):
        fitted.reconstruct(np.array([[0, 0, 0], [0, 0, 24]]))
    with pytest.raises(ValueError, match="without the suffix level"):
        fitted.reconstruct(np.zeros((2, 4), dtype=int))
    with pytest.raises(FileNotFoundError, match=r"quantizer\.save"):
        load_quantizer(tmp_path / "nothing")


def test_loading_checks_the_kind(fitted, tmp_path):
    fitted.save(tmp_path)
    other = ResidualKMeans if isinstance(fitted, RQVAE) else RQVAE
    with pytest.raises(ValueError, match="load_quantizer"):
        other.load(tmp_path)
    record = json.loads((tmp_path / "quantizer.json").read_text())
    (tmp_path / "quantizer.json").write_text(json.dumps(record | {"quantizer": "Nonsense"}))
    with pytest.raises(ValueError, match="unknown quantizer 'Nonsense'"):
        load_quantizer(tmp_path)


def test_identical_rows_share_codes(kind):
    few = np.repeat(np.eye(6, 8, dtype=np.float32), 10, axis=0)
    quantizer = make(kind, (6, 2), dim=8)
    codes = quantizer.fit(few).encode(few)
    assert (codes.reshape(6, 10, 2) == codes.reshape(6, 10, 2)[:, :1]).all()
    assert len(np.unique(codes, axis=0)) > 3


# --- residual quantization itself ---------------------------------------------------------------------------------


def test_residual_codes_by_hand():
    codebooks = [np.array([[0.0, 0.0], [10.0, 0.0]], dtype=np.float32), np.array([[1, 1], [-1, 0]], dtype=np.float32)]
    points = np.array([[1.2, 0.9], [8.7, 0.1], [11.0, 1.0], [-2.0, 0.0]], dtype=np.float32)
    codes = residual_encode(points, codebooks)
    assert codes.tolist() == [[0, 0], [1, 1], [1, 0], [0, 1]]
    assert residual_decode(codes, codebooks, 2).tolist() == [[1, 1], [9, 0], [11, 1], [-1, 0]]
    assert residual_decode(codes, codebooks, 1).tolist() == [[0, 0], [10, 0], [10, 0], [0, 0]]


def test_among_equally_near_codes_the_first_wins():
    codebook = np.array([[1.0], [-1.0], [1.0]], dtype=np.float32)
    codes, errors = nearest_codes(np.array([[0.0], [1.0]], dtype=np.float32), codebook)
    assert codes.tolist() == [0, 0]
    assert errors.tolist() == [1.0, 0.0]


@settings(max_examples=40)
@given(arrays(np.float32, (5, 3), elements=st.floats(-4, 4, width=32)), st.integers(0, 1000))
def test_a_wide_beam_finds_every_tuple_in_order_of_distance(points, seed):
    generator = np.random.default_rng(seed)
    codebooks = [generator.normal(size=(size, 3)).astype(np.float32) for size in (3, 4)]
    beams = residual_beams(points, codebooks, 50)
    assert beams.shape == (5, 12, 2), "no more tuples than there are"
    every = np.array([[a, b] for a in range(3) for b in range(4)])
    sums = residual_decode(every, codebooks, 2)
    for point, found in zip(points, beams):
        assert {tuple(codes) for codes in found.tolist()} == {tuple(codes) for codes in every.tolist()}
        distances = np.square(point - residual_decode(found, codebooks, 2)).sum(axis=1)
        assert (np.diff(distances) >= -1e-3).all()
        np.testing.assert_allclose(distances[0], np.square(point - sums).sum(axis=1).min(), atol=1e-4)


def test_kmeans_is_as_good_as_scikit_learn(embeddings):
    ours = nearest_codes(embeddings, kmeans(embeddings, 20, seed=0))[1].sum()
    theirs = KMeans(20, n_init=1, random_state=0).fit(embeddings).inertia_
    assert ours < 1.08 * theirs


def test_residual_kmeans_with_a_code_for_every_item_is_exact(embeddings):
    few = embeddings[:30]
    quantizer = ResidualKMeans((30,)).fit(few)
    np.testing.assert_array_equal(quantizer.reconstruct(quantizer.encode(few)), few)
