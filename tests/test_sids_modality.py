"""One quantizer a modality: columns, levels, files."""

import numpy as np
import pytest

from trialign.sids import (
    RQVAE,
    OptimizedProductQuantizer,
    PerModality,
    ResidualKMeans,
    load_quantizer,
)

WIDTHS = {"text": 8, "image": 5}


@pytest.fixture(scope="module")
def embeddings():
    return np.random.default_rng(0).normal(size=(200, 13)).astype(np.float32)


def parts():
    learned = RQVAE((8, 4), latent_dim=4, hidden_dims=(16,), epochs=3, progress=False)
    return {"text": learned, "image": OptimizedProductQuantizer((6, 5), rotations=2)}


@pytest.fixture(scope="module")
def fitted(embeddings):
    return PerModality(parts(), WIDTHS).fit(embeddings)


def test_codes_are_those_of_each_modality_side_by_side(fitted, embeddings):
    alone = [part.fit(embeddings[:, columns]) for part, columns in zip(parts().values(), (slice(8), slice(8, 13)))]
    expected = [alone[0].encode(embeddings[:, :8]), alone[1].encode(embeddings[:, 8:])]
    np.testing.assert_array_equal(fitted.encode(embeddings), np.concatenate(expected, axis=1))
    assert fitted.codebook_sizes == (8, 4, 6, 5)
    assert fitted.level_modalities == ("text", "text", "image", "image")


def test_a_modality_without_codes_stays_at_the_mean(fitted, embeddings):
    codes = fitted.encode(embeddings)
    mean = embeddings.mean(axis=0)
    text = fitted.quantizers_["text"].reconstruct(codes[:, :2])
    for depth in (2, 3):
        rebuilt = fitted.reconstruct(codes, depth)
        np.testing.assert_array_equal(rebuilt[:, :8], text)
    np.testing.assert_allclose(fitted.reconstruct(codes, 2)[:, 8:], np.tile(mean[8:], (200, 1)), rtol=1e-5)
    assert (fitted.reconstruct(codes, 3)[:, 8:] != mean[8:]).any()


def test_fit_leaves_the_given_quantizers_unfitted(embeddings):
    given = parts()
    PerModality(given, WIDTHS).fit(embeddings)
    assert not any(hasattr(part, "codebooks_") for part in given.values())


def test_beams_of_two_kmeans_are_the_nearest_of_all_pairs(embeddings):
    quantizer = PerModality({"a": ResidualKMeans((5,)), "b": ResidualKMeans((4,))}, {"a": 8, "b": 5}).fit(embeddings)
    every = np.array([[a, b] for a in range(5) for b in range(4)])
    rebuilt = quantizer.reconstruct(every)
    for point, found in zip(embeddings[:20], quantizer.beams(embeddings[:20], 7)):
        errors = np.square(rebuilt - point).sum(axis=1)
        ours = np.square(quantizer.reconstruct(found) - point).sum(axis=1)
        np.testing.assert_allclose(ours, np.sort(errors)[:7], rtol=1e-4)


def test_parts_of_different_kinds_come_back_from_their_folders(fitted, embeddings, tmp_path):
    loaded = load_quantizer(fitted.save(tmp_path))
    assert isinstance(loaded.quantizers_["image"], OptimizedProductQuantizer)
    assert loaded.quantizers["text"].latent_dim == 4
    np.testing.assert_array_equal(loaded.encode(embeddings), fitted.encode(embeddings))
    (tmp_path / "image" / "quantizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"image/quantizer\.json is missing"):
        load_quantizer(tmp_path)


@pytest.mark.parametrize(
    ("quantizers", "widths", "message"),
    [
        ({}, {}, "at least one"),
        ({"text": ResidualKMeans((2,))}, {"image": 13}, r"same modalities.*\['text'\] and \['image'\]"),
        ({"text": ResidualKMeans((2,))}, {"text": 12}, "sum to the 13 columns"),
        ({"../x": ResidualKMeans((2,))}, {"../x": 13}, "identifiers"),
    ],
)
def test_names_and_widths_must_fit(embeddings, quantizers, widths, message):
    with pytest.raises(ValueError, match=message):
        PerModality(quantizers, widths).fit(embeddings)
