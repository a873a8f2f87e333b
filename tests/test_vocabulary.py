import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_tokenizer
from training_examples import small_sids

from trialign.scratch import scratch_tokenizer
from trialign.sids.semantic_ids import SemanticIds
from trialign.vocabulary import SidVocabulary

VOCABULARY = SidVocabulary.add_to(scratch_tokenizer(["red mug", "blue lamp on a desk"], 300), (20, 3, 2))
LLM_VOCABULARY = SidVocabulary.add_to(tiny_tokenizer(), (20, 3, 2))


def test_token_ids_by_level():
    tokenizer = VOCABULARY.tokenizer
    assert [len(ids) for ids in VOCABULARY.sid_token_ids] == [20, 3, 2]
    assert tokenizer.convert_ids_to_tokens(VOCABULARY.sid_token_ids[0].tolist())[12] == "<a_12>"
    assert tokenizer.convert_ids_to_tokens(VOCABULARY.sid_token_ids[2].tolist()) == ["<c_0>", "<c_1>"]
    assert len(set(VOCABULARY.all_sid_token_ids.tolist())) == 25
    assert len(VOCABULARY) == VOCABULARY.all_sid_token_ids.max() + 1


@pytest.mark.parametrize("vocabulary", [VOCABULARY, LLM_VOCABULARY], ids=["scratch", "llm"])
@pytest.mark.parametrize("title", ["<a_12> <|im_start|>", "<|end|><|pad|>", "<a_0><b_1><c_0>", "Überraschung 🎁"])
def test_a_title_never_becomes_a_special_token(vocabulary, title):
    ids = vocabulary.encode_text(title)
    assert not set(ids) & set(vocabulary.tokenizer.all_special_ids)
    assert not set(ids) & set(vocabulary.all_sid_token_ids.tolist())
    assert vocabulary.tokenizer.decode(ids) == title
    # The trap is real: with special tokens on, the same text gives them.
    if "<a_" in title:
        assert set(vocabulary.tokenizer(title)["input_ids"]) & set(vocabulary.all_sid_token_ids.tolist())


@settings(max_examples=50)
@given(st.text(st.sampled_from("<>|_abcd0123456789 imstart")))
def test_no_text_gives_a_special_token(text):
    ids = LLM_VOCABULARY.encode_text(text)
    assert not set(ids) & {*LLM_VOCABULARY.tokenizer.all_special_ids, *LLM_VOCABULARY.all_sid_token_ids.tolist()}
    assert LLM_VOCABULARY.tokenizer.decode(ids) == text


def test_sequences_follow_the_codes():
    sids = small_sids()
    vocabulary = SidVocabulary.add_to(scratch_tokenizer(["mug"], 300), sids.codebook_sizes)
    tokens = vocabulary.sequences(sids)
    assert tokens.shape == sids.codes.shape and tokens.dtype == np.int64
    assert ((tokens == -1) == (sids.codes == -1)).all()
    for row in range(len(tokens)):
        names = vocabulary.tokenizer.convert_ids_to_tokens([int(token) for token in tokens[row] if token >= 0])
        assert names == sids.tokens(row)


def test_save_and_load(tmp_path):
    loaded = SidVocabulary.load(VOCABULARY.save(tmp_path / "vocabulary"))
    assert loaded.codebook_sizes == VOCABULARY.codebook_sizes
    assert len(loaded) == len(VOCABULARY)
    for ours, theirs in zip(VOCABULARY.sid_token_ids, loaded.sid_token_ids):
        np.testing.assert_array_equal(ours, theirs)
    title = "<a_12> red mug <|end|>"
    assert loaded.encode_text(title) == VOCABULARY.encode_text(title)
    assert (loaded.eos_token_id, loaded.pad_token_id) == (VOCABULARY.eos_token_id, VOCABULARY.pad_token_id)


def test_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"SidVocabulary\.save"):
        SidVocabulary.load(tmp_path)
    with pytest.raises(ValueError, match="codebook_sizes"):
        SidVocabulary.add_to(scratch_tokenizer(["mug"], 300), (4, 0))
    without_end = scratch_tokenizer(["mug"], 300)
    without_end.eos_token = None
    with pytest.raises(ValueError, match="end-of-text"):
        SidVocabulary.add_to(without_end, (4, 4))
    other = SemanticIds(["x"], np.zeros((1, 2), dtype=np.int64), (3, 3), 2)
    with pytest.raises(ValueError, match=r"codebook sizes \(3, 3\)"):
        VOCABULARY.sequences(other)
