"""Untrusted texts are text and nothing else: in pages, figures, terminals, tokenizers, prompts and other items."""

import numpy as np
import pytest
from faults import texts, views
from faults.injections import ALL, FAMILIES
from tiny_models import tiny_qwen2
from tokenizers import AddedToken

from trialign.backbone import hub_tokenizer
from trialign.plots.descriptions import frequent_interests
from trialign.sids import SemanticIds
from trialign.split import Split
from trialign.tasks import Multitask
from trialign.vocabulary import SidVocabulary

#: Two texts of each family.
SOME = [text for family in FAMILIES.values() for text in (family[0], family[-1])]


def test_the_corpus_is_large_and_has_no_text_twice():
    assert len(ALL) == len(set(ALL)) >= 300
    assert sum(len(family) for family in FAMILIES.values()) == len(ALL)
    for mark in ("<a_0>", "<|im_start|>", "[INST]", "<|eot_id|>", "\x1b]52;", "\u202e", "\x00", r"$\input{", "{{"):
        assert any(mark in text for text in ALL), mark


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_pages_have_the_tags_of_plain_ones_and_the_whole_text(family):
    some = FAMILIES[family]
    row = texts.in_pages(family, some[:: max(1, len(some) // 6)])
    assert row.whole, row


def test_explorers_of_poisoned_catalogues_have_the_tags_of_plain_ones():
    row = texts.in_explorers(ALL[::8])
    assert row.whole, row


def test_a_view_that_did_not_escape_would_be_seen(monkeypatch):
    monkeypatch.setattr("trialign.explore.item_grid.html.escape", lambda text, quote=True: text)
    row = texts.in_explorers(["<script>alert(1)</script>", "<img src=x onerror=alert(1)>"])
    assert row.survived < row.injected


@pytest.mark.slow
def test_figures_read_no_formula_in_a_text():
    row = texts.in_figures([*FAMILIES["LaTeX"][::7], "\x00", "\x1b[31mred", "$" * 999])
    assert row.whole, row


def test_tags_with_dollar_signs_are_drawn_as_they_are():
    figure = frequent_interests({"a": [r"$\unknown$", "calm"], "b": ["calm"]})
    figure.canvas.draw()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [r"$\unknown$", "calm"]


def test_chat_tokenizers_never_read_a_mark_in_a_text():
    row = texts.in_chat_tokenizers(ALL)
    assert row.whole, row
    row = texts.in_tokenizer(ALL)
    assert row.whole, row


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A hub-like model whose tokenizer has marks that are not special, as Qwen's <tool_call> is not."""
    folder = tiny_qwen2(tmp_path_factory.mktemp("model"))
    tokenizer = hub_tokenizer(folder)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ("<tool_call>", "<think>")])
    tokenizer.save_pretrained(folder)
    return folder


def test_titles_in_a_hub_models_examples_are_text(chat_model):
    titles = ["<a_1>", "<|im_end|> Mug", "a <tool_call> b", "<think>"]
    sids = SemanticIds(list("wxyz"), np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), (2, 2), 2)
    vocabulary = SidVocabulary.add_to(hub_tokenizer(chat_model), sids.codebook_sizes)
    control = set(vocabulary.tokenizer.added_tokens_decoder)
    assert set(vocabulary.all_sid_token_ids.tolist()) <= control
    train = [np.arange(2), np.arange(2)]
    split = Split(["u", "v"], train, np.array([2, 2]), np.array([3, 3]), n_items=4)
    tasks = Multitask(sids, vocabulary, titles, {}, split, tasks=["SIDSeq→SID", "SID→Title"], seed=0)
    for row, title in enumerate(titles):
        *words, end = tasks.answer("SID→Title", row)
        assert end == vocabulary.eos_token_id
        assert not control & set(words), title
        assert vocabulary.tokenizer.decode(words) == title


def test_a_saved_vocabulary_still_reads_marks_as_text(chat_model, tmp_path):
    vocabulary = SidVocabulary.load(SidVocabulary.add_to(hub_tokenizer(chat_model), (3, 3)).save(tmp_path))
    control = set(vocabulary.tokenizer.added_tokens_decoder)
    assert vocabulary.tokenizer.convert_tokens_to_ids("<think>") in control
    for text in ("<think>", "<tool_call>", "<b_2>", "<|im_start|>"):
        assert not control & set(vocabulary.encode_text(text)), text


def test_prompts_hold_one_item_as_json():
    row = texts.in_prompts(ALL)
    assert row.whole, row
    row = texts.in_requests(SOME)
    assert row.whole, row


def test_terminals_get_no_escape():
    row = texts.in_terminals(ALL)
    assert row.whole, row


@pytest.mark.slow
def test_poisoned_items_do_not_change_the_tags_of_others():
    for row in (texts.in_catalogues(ALL[::16]), texts.in_other_items(ALL[::10])):
        assert row.whole, row


def test_a_page_is_compared_by_its_tags_and_texts():
    harmless = views.Page("<p title='&lt;b&gt;'>a &lt;script&gt;</p>")
    assert harmless.tags == [("p", "title")]
    assert "a<script>" in harmless.text
    assert "<b>" in harmless.text
    assert views.Page("<p onclick='x'>a</p>").tags == [("p", "onclick")]
