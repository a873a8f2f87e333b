"""RQ-VAE's own: codebooks, gradients past the quantizer, training, and its parameters."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from trialign.datasets import data_root
from trialign.sids import RQVAE, ResidualKMeans, collisions, load_quantizer
from trialign.sids.autoencoder import crowding, nearest_within
from trialign.sids.bottleneck import ResidualBottleneck, rotation_trick, straight_through
from trialign.sids.codebooks import EMACodebook, GradientCodebook
from trialign.sids.diagnostics import code_usage, reconstruction_by_depth

SIZES = (24, 24, 24)


def unit(points):
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def make(sizes=SIZES, **parameters):
    small = {"latent_dim": 24, "hidden_dims": (64,), "epochs": 25, "batch_size": 64, "progress": False}
    return RQVAE(sizes, **(small | parameters))


@pytest.fixture(scope="module")
def embeddings():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(12, 48))[generator.integers(12, size=300)]
    for detail in generator.normal(size=(3, 6, 48)) * 0.6:
        points = points + detail[generator.integers(6, size=300)]
    return unit(points + generator.normal(size=(300, 48)) * 0.3)


@pytest.fixture(scope="module")
def fitted(embeddings):
    return make().fit(embeddings)


def cosine(quantizer, embeddings):
    return reconstruction_by_depth(embeddings, quantizer, quantizer.encode(embeddings))["cosine"].iloc[-1]


def test_moving_averages_by_hand():
    codebook = EMACodebook(torch.tensor([[0.0], [10.0]]), count=1.0, decay=0.5)
    residual = torch.tensor([[2.0], [4.0], [6.0]])
    codes = codebook.assign(residual)
    assert codes.tolist() == [0, 0, 1]
    codebook.update(residual, codes)
    # counts: .5 * 1 + .5 * (2, 1); sums: .5 * (0, 10) + .5 * (6, 6)
    np.testing.assert_allclose(codebook.vectors.flatten(), [3 / 1.5, 8 / 1.0])
    for _ in range(200):  # a code that is never chosen stays where it is, without NaN
        codebook.update(torch.tensor([[2.0]]), torch.tensor([0]))
    np.testing.assert_allclose(codebook.vectors.flatten(), [2.0, 8.0], atol=1e-4)


def test_dead_codes_restart_on_badly_represented_residuals():
    codebook = EMACodebook(torch.tensor([[0.0], [100.0], [200.0]]), count=1.0, decay=0.9)
    residual = torch.tensor([[0.0]] * 50 + [[7.0]])
    codebook.update(residual, codebook.assign(residual))
    assert codebook.restart_dead(residual, torch.Generator().manual_seed(0)) == 2
    assert 7.0 in codebook.vectors.flatten().tolist()
    assert codebook.vectors.max() == 7.0
    codebook.update(residual, codebook.assign(residual))
    assert codebook.vectors[codebook.assign(residual)[-1]].item() == pytest.approx(7.0)


@pytest.mark.parametrize("codebook", [EMACodebook, GradientCodebook])
def test_codes_put_elsewhere_are_chosen_there(codebook):
    start = torch.tensor([[0.0], [10.0]])
    made = codebook(start, count=1.0, decay=0.9) if codebook is EMACodebook else codebook(start)
    made.move(torch.tensor([1]), torch.tensor([[3.0]]))
    assert made.assign(torch.tensor([[2.9], [0.1]])).tolist() == [1, 0]
    assert start.flatten().tolist() == [0.0, 10.0]


# --- gradients past the quantizer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [straight_through, rotation_trick])
def test_the_decoder_sees_the_codes_themselves(estimator):
    generator = torch.Generator().manual_seed(0)
    latents, quantized = torch.randn(6, 3, generator=generator), torch.randn(6, 3, generator=generator)
    latents[0], quantized[1], quantized[2] = 0, 0, -latents[2]
    latents.requires_grad_()
    passed = estimator(latents, quantized)
    np.testing.assert_allclose(passed.detach(), quantized, atol=1e-6)
    passed.sum().backward()
    assert torch.isfinite(latents.grad).all()


def test_straight_through_passes_gradients_as_they_are():
    latents = torch.tensor([[1.0, 2.0]], requires_grad=True)
    (straight_through(latents, torch.tensor([[5.0, 5.0]])) @ torch.tensor([3.0, -4.0])).sum().backward()
    assert latents.grad.tolist() == [[3.0, -4.0]]


def test_the_rotation_trick_turns_and_scales_gradients_with_the_latent():
    """A latent along x is turned a quarter and doubled onto a code along y; a gradient along y must come from x."""
    latents = torch.tensor([[1.0, 0.0]], requires_grad=True)
    rotation_trick(latents, torch.tensor([[0.0, 2.0]]))[0, 1].backward()
    np.testing.assert_allclose(latents.grad, [[2.0, 0.0]], atol=1e-6)


def test_the_rotation_keeps_the_angle_between_gradient_and_vector():
    generator = torch.Generator().manual_seed(1)
    latents, quantized, gradient = (torch.randn(20, 5, generator=generator) for _ in range(3))
    latents.requires_grad_()
    (rotation_trick(latents, quantized) * gradient).sum().backward()
    at_code = torch.cosine_similarity(gradient, quantized)
    np.testing.assert_allclose(torch.cosine_similarity(latents.grad, latents.detach()), at_code, atol=1e-5)


def test_losses_of_a_batch_by_hand():
    first, second = GradientCodebook(torch.tensor([[0.0], [4.0]])), GradientCodebook(torch.tensor([[0.0], [1.0]]))
    latents = torch.tensor([[5.0], [-0.5]], requires_grad=True)
    batch = ResidualBottleneck([first, second], straight_through, ()).quantize(latents)
    assert batch.latents.flatten().tolist() == [5.0, 0.0]
    assert batch.commitment.item() == pytest.approx((1 + 0.25) + (0 + 0.25))
    assert batch.codebook.item() == pytest.approx((1 + 0.25) + (0 + 0.25))
    batch.codebook.backward(retain_graph=True)
    assert latents.grad is None, "the codebook loss moves codes only"
    assert first.vectors.grad.flatten().tolist() == [1.0, -2.0]
    batch.commitment.backward()
    assert first.vectors.grad.flatten().tolist() == [1.0, -2.0], "the commitment loss moves latents only"
    assert latents.grad.flatten().tolist() == [2.0, -2.0]


def test_a_sinkhorn_level_gives_every_code_of_a_batch_its_share():
    codebooks = [GradientCodebook(torch.tensor([[0.0], [9.0], [-9.0], [8.0]])) for _ in range(2)]
    latents = torch.linspace(-1, 1, 64)[:, None]
    ResidualBottleneck(codebooks, straight_through, (2,)).quantize(latents)
    assert codebooks[0].used.tolist() == [64, 0, 0, 0]
    assert codebooks[1].used.min() > 8


# --- against crowding -----------------------------------------------------------------------------------------------


def test_neighbours_are_sought_in_the_own_group_only():
    latents = torch.tensor([[0.0], [0.1], [5.0], [0.2], [9.0]])
    nearest = nearest_within(latents, torch.tensor([1, 0, 1, 0, 2]))
    np.testing.assert_allclose(nearest.flatten(), [5.0, 0.2, 0.0, 0.1, 9.0])


def test_only_neighbours_within_twice_the_rounding_error_crowd():
    latents = torch.tensor([[0.0, 0.0], [3.0, 0.0]], requires_grad=True)
    quantized = torch.tensor([[0.0, 1.0], [3.0, 1.0]])
    near, far = torch.tensor([[1.0, 0.0], [3.0, 9.0]])
    loss = crowding(latents, quantized, torch.stack([near, far]))
    assert loss.item() == pytest.approx(np.log(2) / 2, abs=1e-3)
    loss.backward()
    assert latents.grad[0, 0] > 0, "descent takes it away from the neighbour at its right"
    assert latents.grad[1].tolist() == [0, 0]


def test_a_spread_latent_space_has_fewer_collisions():
    generator = np.random.default_rng(0)
    crowded = np.repeat(generator.normal(size=(75, 48)), 4, axis=0)
    crowded = unit(crowded + generator.normal(size=crowded.shape) * 0.25)
    parameters = {"latent_dim": 8, "learning_rate": 5e-3, "epochs": 40}
    quantizers = [make((12, 12, 12), spread=spread, **parameters).fit(crowded) for spread in (0.0, 0.3)]
    sharing = [collisions(quantizer.encode(crowded))["items_colliding"] for quantizer in quantizers]
    assert sharing[1] < 0.95 * sharing[0]


# --- training -------------------------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_beats_residual_kmeans(embeddings, fitted):
    loss = fitted.loss_
    assert loss["epoch"].tolist() == list(range(1, 26))
    assert loss["reconstruction"].iloc[-1] < 0.9 * loss["reconstruction"].iloc[0]
    assert np.isfinite(loss.to_numpy(dtype=float)).all()
    assert cosine(fitted, embeddings) > cosine(ResidualKMeans(SIZES).fit(embeddings), embeddings) - 0.02


@pytest.mark.parametrize(
    "choice",
    [{"codebook": "gradient"}, {"estimator": "rotation"}, {"sinkhorn_levels": (3,)}],
    ids=str,
)
def test_every_choice_trains_uses_its_codes_and_can_be_saved(embeddings, choice, tmp_path):
    quantizer = make(**choice).fit(embeddings)
    codes = quantizer.encode(embeddings)
    assert code_usage(codes, SIZES)["used"].min() > 0.9
    assert cosine(quantizer, embeddings) > 0.85
    loaded = load_quantizer(quantizer.save(tmp_path))
    np.testing.assert_array_equal(loaded.encode(embeddings), codes)
    for name, value in choice.items():
        assert getattr(loaded, name) == (list(value) if isinstance(value, tuple) else value)


def test_embeddings_mapped_from_a_file_are_never_copied_whole(embeddings, fitted, tmp_path):
    np.save(tmp_path / "embeddings.npy", np.tile(embeddings, (200, 1)))
    mapped = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    tracemalloc.start()
    codes = fitted.encode(mapped)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(codes, np.tile(fitted.encode(embeddings), (200, 1)))
    assert peak < 0.6 * mapped.nbytes


def test_the_reported_reconstruction_loss_is_the_share_of_variance(embeddings, fitted):
    error = np.square(embeddings - fitted.reconstruct(fitted.encode(embeddings))).sum()
    variance = np.square(embeddings - embeddings.mean(axis=0)).sum()
    assert fitted.loss_["reconstruction"].iloc[-1] == pytest.approx(error / variance, rel=0.1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"latent_dim": 49}, "latent_dim must be between 1 and the 48"),
        ({"epochs": 0}, "epochs and batch_size"),
        ({"learning_rate": 0.0}, "learning_rate positive"),
        ({"decay": 1.0}, "decay must lie between"),
        ({"spread": -0.1}, "spread must not be negative; got -0.1"),
        ({"codebook": "mean"}, "codebook must be one of 'ema', 'gradient'; got 'mean'"),
        ({"estimator": "gumbel"}, "estimator must be one of 'straight-through', 'rotation'; got 'gumbel'"),
        ({"sinkhorn_levels": (2,)}, r"sinkhorn_levels must name levels from 1 to 1; got \(2,\)"),
    ],
)
def test_rqvae_refuses_bad_parameters(embeddings, parameters, message):
    with pytest.raises(ValueError, match=message):
        RQVAE(**({"codebook_sizes": (4,), "latent_dim": 8, "progress": False} | parameters)).fit(embeddings)


def test_rqvae_refuses_equal_embeddings():
    with pytest.raises(ValueError, match="all embeddings are equal"):
        RQVAE((2,), latent_dim=2, progress=False).fit(np.ones((10, 4)))


def test_codes_do_not_depend_on_where_the_embeddings_lie_or_their_scale(embeddings):
    """Centring and one scale are inside: shifted and stretched embeddings give about the same partition."""
    codes = make((12,)).fit(embeddings).encode(embeddings)[:, 0]
    moved = make((12,)).fit(embeddings * 50 + 3).encode(embeddings * 50 + 3)[:, 0]
    together, moved_together = codes[:, None] == codes, moved[:, None] == moved
    assert (together == moved_together).mean() > 0.95


@pytest.mark.realdata
def test_beauty_titles_are_quantized_without_collapse():
    folder = next((root / "amazon_beauty" for root in data_root() if (root / "amazon_beauty").is_dir()), None)
    if folder is None:
        pytest.skip("no amazon_beauty below the data root")
    lines = (folder / "items.tsv").read_text(encoding="utf-8").splitlines()[1:1001]
    titles = [line.split("\t")[3] for line in lines]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(titles)
    points = unit(TruncatedSVD(64, random_state=0).fit_transform(words) + 1e-6)
    sizes = (64, 64, 64)
    learned = RQVAE(sizes, epochs=40, progress=False).fit(points)
    naive = ResidualKMeans(sizes).fit(points)
    tables = {q: reconstruction_by_depth(points, q, q.encode(points)) for q in (learned, naive)}
    assert code_usage(learned.encode(points), sizes)["used"].min() > 0.9
    assert tables[learned]["cosine"].iloc[-1] > tables[naive]["cosine"].iloc[-1] - 0.02
