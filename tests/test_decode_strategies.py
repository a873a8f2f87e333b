"""Greedy, stochastic and diverse search, against exact probabilities and against references written out by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_beam import MODELS, search
from test_trie import sequences

from trialign.decode import Best, Diverse, Stochastic, Trie, score_all

PROMPT = [25, 26]


@pytest.fixture(scope="module")
def trie():
    table = np.array([[a, 6 + b, 12 + c] for a in range(4) for b in range(4) for c in range(4)])
    return Trie.build(table[np.random.default_rng(3).permutation(64)[:50]])


def test_best_is_the_default_and_one_beam_is_greedy(trie):
    model = MODELS["qwen3"]
    assert search(model, trie, [PROMPT], strategy=Best()).items.tolist() == search(model, trie, [PROMPT]).items.tolist()
    greedy = search(model, trie, [PROMPT], beams=1, top_k=1, record=True)
    for level in greedy.records[0].levels:
        assert level.alive.tolist() == [True] + [False] * (len(level.nodes) - 1)
        assert level.log_probabilities[0] == level.log_probabilities.max()


@pytest.mark.parametrize("family", ["qwen3", "t5"])
def test_stochastic_samples_without_replacement_from_the_exact_distribution(family):
    """Ordered pairs of draws have the probability p(i) p(j) / (1 - p(i)); suffixed and unsuffixed items alike."""
    table = np.array([[0, 6, -1], [1, 7, 12], [1, 7, 13], [1, 8, -1], [2, 6, -1]])
    small, draws = Trie.build(table), 4000
    p = np.exp(score_all(MODELS[family], small, PROMPT))
    options = {"beams": 2, "top_k": 2, "batch_size": 2000}
    found = search(MODELS[family], small, [PROMPT] * draws, strategy=Stochastic(seed=1), **options)
    counts = np.zeros((5, 5))
    np.add.at(counts, (found.items[:, 0], found.items[:, 1]), 1)
    for i, j in itertools.product(range(5), repeat=2):
        expected = 0 if i == j else p[i] * p[j] / (1 - p[i])
        error = 4.5 * np.sqrt(draws * expected * (1 - expected)) + 1e-9
        assert abs(counts[i, j] - draws * expected) <= error, (i, j)
    np.testing.assert_allclose(found.log_probabilities, np.log(p)[found.items], atol=1e-4)


def test_stochastic_draws_depend_on_seed_and_user_but_not_on_the_batch(trie):
    model, prompts = MODELS["gpt2"], [PROMPT, [30], PROMPT, [31, 32, 33]]
    together = search(model, trie, prompts, beams=6, top_k=6, strategy=Stochastic(seed=3))
    apart = search(model, trie, prompts, beams=6, top_k=6, strategy=Stochastic(seed=3), batch_size=1)
    assert together.items.tolist() == apart.items.tolist()
    wider = search(model, trie, prompts, beams=50, top_k=6, strategy=Stochastic(seed=3))
    assert together.items.tolist() == wider.items.tolist(), "the sample does not depend on the beam width"
    assert together.items[0].tolist() != together.items[2].tolist(), "users with one prompt draw for themselves"
    other = search(model, trie, prompts, beams=6, top_k=6, strategy=Stochastic(seed=4))
    assert other.items.tolist() != together.items.tolist()


def test_stochastic_never_returns_a_masked_item(trie):
    masked = [np.arange(40)]
    found = search(MODELS["gpt2"], trie, [PROMPT], beams=50, top_k=50, masked=masked, strategy=Stochastic())
    assert sorted(found.items[0, :10].tolist()) == list(range(40, 50))
    assert (found.items[0, 10:] == -1).all()


def diverse_by_hand(record_levels, trie, beams, groups, penalty):
    """Diverse beam search over known prefix probabilities, one user, with lists."""
    alive = [(0, 0.0, 0)]
    for step in record_levels:
        scores = dict(zip(step.nodes.tolist(), step.log_probabilities.tolist(), strict=True))
        taken, chosen = [], []
        for group in range(1, groups + 1):
            own = [node for node, _, number in alive if number in (0, group)]
            children = [[node] if trie.is_leaf(node) else trie.children_of(node).tolist() for node in own]
            left = [child for some in children for child in some if child not in [node for node, *_ in chosen]]
            token = {c: -1 if c in own else int(trie.tokens_of(np.array(c))) for c in left}
            worth = {c: scores[c] - penalty * (taken.count(token[c]) if token[c] >= 0 else 0) for c in left}
            best = sorted(left, key=lambda c: -worth[c])[: (beams + groups - group) // groups]
            chosen += [(c, scores[c], group) for c in best]
            taken += [token[c] for c in best]
        alive = chosen
    return {node for node, *_ in alive}


@settings(max_examples=20)
@given(sequences(max_items=14, fewest=4), st.integers(1, 3), st.integers(3, 6), st.sampled_from([0.0, 0.3, 5.0]))
def test_diverse_equals_diverse_beam_search_by_hand(table, groups, beams, penalty):
    trie, n_items = Trie.build(table), len(table)
    everything = search(MODELS["qwen3"], trie, [PROMPT], beams=n_items, top_k=n_items, record=True)
    found = search(
        MODELS["qwen3"], trie, [PROMPT], beams=beams, top_k=n_items, strategy=Diverse(groups, penalty), record=True
    )
    last = found.records[0].levels[-1]
    expected = diverse_by_hand(everything.records[0].levels, trie, beams, groups, penalty)
    assert set(last.nodes[last.alive].tolist()) == expected
    items = found.items[0][found.items[0] >= 0]
    assert len(set(items.tolist())) == len(items), "no item twice"


def test_one_group_is_beam_search_and_a_high_penalty_spreads_codes(trie):
    model = MODELS["qwen3"]
    plain = search(model, trie, [PROMPT, [30]], beams=8, top_k=8)
    single = search(model, trie, [PROMPT, [30]], beams=8, top_k=8, strategy=Diverse(1))
    assert single.items.tolist() == plain.items.tolist()
    spread = search(model, trie, [PROMPT, [30]], beams=4, top_k=4, strategy=Diverse(4, penalty=1e6))
    for user in range(2):
        codes = trie.sequences(spread.items[user])
        assert [len(set(column)) for column in codes.T[:1]] == [4]
    exact = score_all(model, trie, PROMPT)
    np.testing.assert_allclose(spread.log_probabilities[0], exact[spread.items[0]], atol=1e-4)


def test_diverse_refuses_bad_parameters():
    for options in ({"groups": 0}, {"penalty": -1.0}):
        with pytest.raises(ValueError, match="at least 1"):
            Diverse(**options)
