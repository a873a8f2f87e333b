"""The trie in the hands of transformers' generate and of vLLM-style processors."""

import warnings

import numpy as np
import pytest
import torch
from test_beam import FAMILIES, MODELS, search
from test_trie import SEQUENCES
from transformers import LogitsProcessorList

from trialign.decode import Trie, TrieLogitsProcessor, prefix_allowed_tokens_fn, request_logits_processor

END = 19


@pytest.fixture(scope="module")
def catalogue():
    """200 items; a few of them end a level before the others."""
    table = np.array([[a, 6 + b, 12 + c] for a in range(6) for b in range(6) for c in range(6)])
    table = table[np.random.default_rng(3).permutation(len(table))[:200]]
    alone = [(table[:, :2] == row[:2]).all(axis=1).sum() == 1 for row in table]
    table[alone, 2] = -1
    short = (table[:, 0] == 0) & (table[:, 1] == 6)
    table = table[~short]
    return np.concatenate([table, [[0, 6, -1]]])


def generate(model, trie, prompt, beams, **constraint):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=trie.depth + 1,
            renormalize_logits=True,
            length_penalty=0.0,
            pad_token_id=END,
            eos_token_id=END,
            return_dict_in_generate=True,
            output_scores=True,
            **constraint,
        )


@pytest.mark.parametrize("way", ["function", "processor"])
@pytest.mark.parametrize("family", FAMILIES)
def test_generate_finds_the_same_beams(family, way, catalogue):
    model, trie, beams = MODELS[family], Trie.build(catalogue), 7
    for prompt in ([20, 33, 21, 37], [25]):
        start = 1 if model.config.is_encoder_decoder else len(prompt)
        constraint = {
            "function": {"prefix_allowed_tokens_fn": prefix_allowed_tokens_fn(trie, start, END)},
            "processor": {"logits_processor": LogitsProcessorList([TrieLogitsProcessor(trie, start, END)])},
        }[way]
        output = generate(model, trie, prompt, beams, **constraint)
        leaves = [trie.find([t for t in row if t != END]) for row in output.sequences[:, start:].tolist()]
        found = search(model, trie, [prompt], beams=beams, top_k=beams)
        assert [int(trie.items_at(leaf)[0]) for leaf in leaves] == found.items[0].tolist()
        np.testing.assert_allclose(output.sequences_scores, found.log_probabilities[0], atol=1e-4)


def test_prefix_function_allows_children_then_the_end():
    allowed = prefix_allowed_tokens_fn(Trie.build(SEQUENCES), start=2, end_token_id=99)
    assert allowed(0, torch.tensor([8, 8])) == [4, 5]
    assert allowed(0, torch.tensor([8, 8, 5, 1, 7])) == [0, 3]
    assert allowed(0, torch.tensor([8, 8, 5, 1, 9])) == [99]


@pytest.mark.parametrize("generated", [[], [5], [5, 1, 7], [5, 1, 9], [4, 2, 9, 99]])
def test_all_ways_allow_the_same_tokens(generated):
    trie, scores = Trie.build(SEQUENCES), torch.arange(100.0)
    expected = prefix_allowed_tokens_fn(trie, 1, 99)(0, torch.tensor([8, *generated]))
    rows = torch.tensor([[8, *generated]] * 3)
    for row in TrieLogitsProcessor(trie, 1, 99)(rows, scores.repeat(3, 1)):
        assert torch.isfinite(row).nonzero().flatten().tolist() == expected
        assert (row[expected] == scores[expected]).all()
    one = request_logits_processor(trie, 99)(generated, scores)
    assert torch.isfinite(one).nonzero().flatten().tolist() == expected
    assert (one[expected] == scores[expected]).all()
