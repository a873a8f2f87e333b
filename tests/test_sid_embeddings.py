import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_qwen2, tiny_t5
from training_examples import TITLES, small_multitask, small_sids

from trialign.backbone import hub_backbone, hub_tokenizer, load_backbone, save_backbone
from trialign.scratch import scratch_qwen3, scratch_t5
from trialign.sid_embeddings import codebook_rows, initialize_sid_embeddings, title_rows
from trialign.sids.joint import JointResidualKMeans
from trialign.vocabulary import SidVocabulary

SIZES = (3, 3, 2)
VOCABULARY = small_multitask().vocabulary


def sid_rows(model, vocabulary, level):
    """The embeddings of a level's SID tokens, as the model sees them."""
    embed = (model.get_base_model() if hasattr(model, "peft_config") else model).get_input_embeddings()
    return embed(torch.as_tensor(vocabulary.sid_token_ids[level])).detach().numpy()


def scratch():
    return scratch_qwen3(VOCABULARY, hidden=32, layers=1, heads=2)


def test_codebooks_keep_their_angles_and_share_one_map():
    random = np.random.default_rng(0)
    codebooks = [random.normal(size=(12, 64)), random.normal(size=(5, 64))]
    first, second = codebook_rows(codebooks, hidden=512)
    assert first.shape == (12, 512) and second.shape == (5, 512)
    # One linear map: that of a sum is the sum, also across levels.
    (together,) = codebook_rows([codebooks[0][:5] + codebooks[1]], hidden=512)
    np.testing.assert_allclose(together, first[:5] + second, atol=1e-4)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (codebooks[0], first)]
    np.testing.assert_allclose(unit[0] @ unit[0].T, unit[1] @ unit[1].T, atol=0.2)
    assert not np.allclose(codebook_rows(codebooks, 512, seed=1)[0], first)


def test_codebooks_of_a_quantizer_whose_levels_differ_in_shape():
    points = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    quantizer = JointResidualKMeans(codebook_sizes=(3, 3), groups=2, rounds=1).fit(points)
    assert {codebook.ndim for codebook in quantizer.codebooks_} == {2, 3}
    model = scratch()
    suffix = sid_rows(model, VOCABULARY, 2)
    initialize_sid_embeddings(model, VOCABULARY, codebook_rows(quantizer.codebooks_, 32))
    np.testing.assert_array_equal(sid_rows(model, VOCABULARY, 2), suffix)  # no codebook, no change


@settings(max_examples=20)
@given(st.floats(1e-3, 1e3), st.integers(0, 2**16))
def test_rows_have_the_size_of_text_embeddings_whatever_theirs(scale, seed):
    model = scratch()
    weight = model.get_input_embeddings().weight.detach().numpy()
    text = weight[: VOCABULARY.all_sid_token_ids.min()].copy()
    given_rows = scale * np.random.default_rng(seed).normal(size=(3, 32)) + scale
    initialize_sid_embeddings(model, VOCABULARY, [given_rows])
    rows = sid_rows(model, VOCABULARY, 0)
    np.testing.assert_allclose(rows.mean(axis=0), text.mean(axis=0), atol=1e-5)
    spread = [np.sqrt(np.square(each - each.mean(axis=0)).sum(axis=1).mean()) for each in (text, rows)]
    assert spread[1] == pytest.approx(spread[0], rel=1e-3)
    # Directions are kept: the centred rows are parallel to the centred input.
    centred, wanted = rows - rows.mean(axis=0), given_rows - given_rows.mean(axis=0)
    cosines = (centred * wanted).sum(axis=1) / np.linalg.norm(centred, axis=1) / np.linalg.norm(wanted, axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    np.testing.assert_array_equal(weight[: len(text)], text)  # no text token moved


def test_title_rows_by_hand():
    model, sids = scratch(), small_sids()
    weight = model.get_input_embeddings().weight.detach().numpy()
    mean = [weight[VOCABULARY.encode_text(title)].mean(axis=0) if title else None for title in TITLES]
    first, second, suffix = title_rows(model, VOCABULARY, sids, TITLES)
    # First codes: 0 of items 0 and 1; 1 of items 2 and 3, of which 3 has no title; 2 of items 4 and 5.
    np.testing.assert_allclose(first, [(mean[0] + mean[1]) / 2, mean[2], (mean[4] + mean[5]) / 2], atol=1e-6)
    np.testing.assert_allclose(second[0], (mean[0] + mean[1] + mean[2]) / 3, atol=1e-6)
    np.testing.assert_allclose(second[1], mean[4], atol=1e-6)
    np.testing.assert_allclose(suffix, [mean[0], mean[1]], atol=1e-6)
    # Without a title no row: the token stays as it is.
    silent = title_rows(model, VOCABULARY, sids, ["Red mug", "Blue mug", "", "", "Desk lamp", ""])
    assert np.isnan(silent[0][1]).all() and not np.isnan(silent[0][[0, 2]]).any()
    before = sid_rows(model, VOCABULARY, 0)
    initialize_sid_embeddings(model, VOCABULARY, silent)
    after = sid_rows(model, VOCABULARY, 0)
    np.testing.assert_array_equal(after[1], before[1])
    assert (after[[0, 2]] != before[[0, 2]]).all()


@pytest.mark.parametrize("build", [tiny_qwen2, tiny_t5])
def test_trained_rows_of_lora_are_set_and_saved(build, tmp_path):
    folder = build(tmp_path / "base")
    vocabulary = SidVocabulary.add_to(hub_tokenizer(folder), SIZES)
    whole, adapted = (hub_backbone(folder, vocabulary, lora_rank=rank) for rank in (None, 2))
    rows = codebook_rows([np.random.default_rng(0).normal(size=(3, 5))] * 2, 64)
    for model in (whole, adapted):
        initialize_sid_embeddings(model, vocabulary, rows)
    for level in range(3):
        np.testing.assert_array_equal(sid_rows(adapted, vocabulary, level), sid_rows(whole, vocabulary, level))
    loaded, _ = load_backbone(save_backbone(adapted, vocabulary, tmp_path / "saved"))
    np.testing.assert_array_equal(sid_rows(loaded, vocabulary, 0), sid_rows(whole, vocabulary, 0))


def test_encoder_and_decoder_of_t5_have_the_rows():
    model = scratch_t5(VOCABULARY, hidden=32, layers=1, heads=2, head_size=8, feed_forward=32)
    initialize_sid_embeddings(model, VOCABULARY, title_rows(model, VOCABULARY, small_sids(), TITLES))
    ids = torch.as_tensor(VOCABULARY.sid_token_ids[0])
    expected = torch.from_numpy(sid_rows(model, VOCABULARY, 0))
    for embeddings in (model.encoder.embed_tokens, model.decoder.embed_tokens, model.lm_head):
        assert torch.equal(embeddings.weight[ids], expected)


def test_bad_input():
    model = scratch()
    before = sid_rows(model, VOCABULARY, 0)
    for wrong in ([np.ones((3, 32)), np.ones((3, 31))], [*[np.ones((3, 32))] * 2, *[np.ones((2, 32))] * 2]):
        with pytest.raises(ValueError, match=r"levels need rows of shapes \[\(3, 32\), \(3, 32\), \(2, 32\)\], got"):
            initialize_sid_embeddings(model, VOCABULARY, wrong)
    np.testing.assert_array_equal(sid_rows(model, VOCABULARY, 0), before)
    with pytest.raises(ValueError, match="5 titles for 6 items"):
        title_rows(model, VOCABULARY, small_sids(), TITLES[:5])
