import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from test_trie import sequences
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from trialign.decode import Trie, beam_search, fates, recall_of_exact, score_all, where_lost
from trialign.decode.decoder_only import DecoderOnlyReader

VOCABULARY = 40
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {"num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None}


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
T5_SHAPE = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "eos_token_id": 19,
}


def _make(family):
    """Return a small model; ``qwen3 wide heads`` has heads that together are wider than the hidden states."""
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, **SMALL, **GROUPED}
    model = {
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8, tie_word_embeddings=True)),
        "qwen3 wide heads": lambda: Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=20)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**shape)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**shape)),
        "llama yarn": lambda: LlamaForCausalLM(LlamaConfig(**shape, rope_parameters=YARN)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**shape, sliding_window=None)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=None)
        ),
        "t5": lambda: T5ForConditionalGeneration(T5Config(**T5_SHAPE)),
        "t5 untied": lambda: T5ForConditionalGeneration(
            T5Config(**T5_SHAPE, tie_word_embeddings=False, feed_forward_proj="gated-gelu")
        ),
    }[family]()
    if family == "t5 untied":  # the checkpoint's own output layer comes with its weights
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 32))
    # Freshly made models are nearly uniform; larger weights make their choices distinct.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(0.3 if model.config.is_encoder_decoder else 6)
    return model.eval()


FAMILIES = ("qwen3", "qwen3 wide heads", "qwen2", "llama", "llama yarn", "mistral", "gpt2", "t5", "t5 untied")
MODELS = {family: _make(family) for family in FAMILIES}


def _next_token_logits(model, prompt, prefix):
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            output = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0, *prefix]]))
        else:
            output = model(input_ids=torch.tensor([[*prompt, *prefix]]))
    return output.logits[0, -1].double()


def brute_force(model, table, prompt):
    """Log-probability of each item by one whole forward pass a prefix, with no trie, cache, padding or batch."""
    rows = [row[row >= 0].tolist() for row in table]
    scores = np.zeros(len(rows))
    logits = {
        prefix: _next_token_logits(model, prompt, prefix)
        for prefix in {tuple(r[:d]) for r in rows for d in range(len(r))}
    }
    for item, row in enumerate(rows):
        for depth in range(len(row)):
            children = sorted({other[depth] for other in rows if other[:depth] == row[:depth]})
            steps = torch.log_softmax(logits[tuple(row[:depth])][children], 0)
            scores[item] += steps[children.index(row[depth])].item()
        scores[item] -= np.log(rows.count(row))
    return scores


def search(model, trie, prompts, **options):
    return beam_search(model, trie, prompts, progress=False, **options)


def scores_by_item(found, user, n_items):
    scores = np.full(n_items, np.nan)
    real = found.items[user] >= 0
    scores[found.items[user][real]] = found.log_probabilities[user][real]
    return scores


prompt = st.lists(st.integers(20, VOCABULARY - 1), min_size=1, max_size=7)


@settings(max_examples=12)
@given(st.sampled_from(FAMILIES), sequences(max_items=9), st.lists(prompt, min_size=1, max_size=3))
def test_enough_beams_equal_brute_force(family, table, prompts):
    model, trie, n_items = MODELS[family], Trie.build(table), len(table)
    found = search(model, trie, prompts, beams=n_items, top_k=n_items, batch_size=2)
    for user, one in enumerate(prompts):
        expected = brute_force(model, table, one)
        np.testing.assert_allclose(scores_by_item(found, user, n_items), expected, atol=2e-4)
        np.testing.assert_allclose(score_all(model, trie, one, chunk=2), expected, atol=2e-4)
        assert np.exp(expected).sum() == pytest.approx(1)
        assert (np.diff(found.log_probabilities[user]) <= 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_model_equals_brute_force(family):
    """The prompts differ in length, so that positions and padding matter."""
    table = np.array([[a, 6 + b, 12 + c] for a in range(2) for b in range(2) for c in range(2)])
    prompts = [list(range(22, 36)), [30, 31]]
    found = search(MODELS[family], Trie.build(table), prompts, beams=8, top_k=8)
    for user, one in enumerate(prompts):
        expected = brute_force(MODELS[family], table, one)
        np.testing.assert_allclose(scores_by_item(found, user, 8), expected, atol=2e-4)
        np.testing.assert_allclose(score_all(MODELS[family], Trie.build(table), one), expected, atol=2e-4)


def test_as_many_beams_as_leaves_are_exact_and_as_many_as_the_widest_level_are_not():
    """No level has more than three prefixes, but the leaves [0] and [2, 9] compete with deeper ones."""
    table = np.array([[0, -1, -1], [1, 7, 12], [1, 7, 13], [1, 8, 14], [2, 9, -1]])
    trie = Trie.build(table)
    assert np.diff(trie.level_starts).max() == 3
    exact, narrow = (search(MODELS["qwen3"], trie, [[25, 26]], beams=beams, top_k=5) for beams in (5, 3))
    expected = brute_force(MODELS["qwen3"], table, [25, 26])
    np.testing.assert_allclose(scores_by_item(exact, 0, 5), expected, atol=2e-4)
    assert (narrow.items[0] >= 0).sum() == 3


@settings(max_examples=12)
@given(st.sampled_from(("qwen3", "t5")), sequences(max_items=12, fewest=3), st.data())
def test_masked_items_go_and_the_rest_keep_their_probabilities(family, table, data):
    model, trie, n_items = MODELS[family], Trie.build(table), len(table)
    masked = [data.draw(st.sets(st.integers(0, n_items - 1))) for _ in range(2)]
    prompts = [[30, 31], [32]]
    arrays = [np.array(sorted(rows), dtype=np.int64) for rows in masked]
    found = search(model, trie, prompts, beams=n_items, top_k=n_items, masked=arrays)
    for user, rows in enumerate(masked):
        expected = score_all(model, trie, prompts[user])
        expected[sorted(rows)] = np.nan
        np.testing.assert_allclose(scores_by_item(found, user, n_items), expected, atol=2e-4)
        assert (found.items[user] >= 0).sum() == n_items - len(rows)


@pytest.fixture(scope="module")
def catalogue():
    """200 items, fixed depth 3, sequences without collision."""
    table = np.array([[a, 6 + b, 12 + c] for a in range(6) for b in range(6) for c in range(6)])
    return table[np.random.default_rng(3).permutation(len(table))[:200]]


@pytest.mark.parametrize("family", ["qwen3", "t5"])
def test_result_does_not_depend_on_the_batch(family, catalogue):
    trie = Trie.build(catalogue)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(20, VOCABULARY, rng.integers(1, 12)).tolist() for _ in range(9)]
    together = search(MODELS[family], trie, prompts, beams=5, top_k=5, batch_size=4, pad_token_id=7)
    for user, one in enumerate(prompts):
        alone = search(MODELS[family], trie, [one], beams=5, top_k=5)
        assert alone.items[0].tolist() == together.items[user].tolist()
        np.testing.assert_allclose(alone.log_probabilities[0], together.log_probabilities[user], atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_all_but_k_masked_gives_those_k(family, catalogue):
    trie = Trie.build(catalogue)
    kept = [3, 77, 140]
    masked = [np.setdiff1d(np.arange(200), kept), np.arange(200)]
    found = search(MODELS[family], trie, [[25, 26], [30]], beams=3, top_k=5, masked=masked)
    assert sorted(found.items[0, :3].tolist()) == kept
    assert found.items[0, 3:].tolist() == [-1, -1]
    assert (found.items[1] == -1).all() and np.isneginf(found.log_probabilities[1]).all()


@settings(max_examples=8)
@given(st.sampled_from(("qwen3", "gpt2", "t5")), sequences(max_items=12, fewest=3), st.integers(1, 3))
def test_a_narrow_beam_equals_beam_search_by_hand(family, table, beams):
    """The reference keeps a sorted list of prefixes and runs a whole forward pass for each."""
    model, trie = MODELS[family], Trie.build(table)
    rows = [tuple(row[row >= 0].tolist()) for row in table]
    alive = {(): 0.0}
    for depth in range(max(map(len, rows))):
        grown = {prefix: score for prefix, score in alive.items() if prefix in rows}
        for prefix, score in alive.items():
            children = sorted({row[depth] for row in rows if row[:depth] == prefix and len(row) > depth})
            if children:
                steps = torch.log_softmax(_next_token_logits(model, [30, 31], prefix)[children], 0)
                grown |= {(*prefix, child): score + step.item() for child, step in zip(children, steps)}
        alive = dict(sorted(grown.items(), key=lambda entry: -entry[1])[:beams])
    expected = {item: alive[row] - np.log(rows.count(row)) for item, row in enumerate(rows) if row in alive}
    scores = scores_by_item(search(model, trie, [[30, 31]], beams=beams, top_k=len(rows)), 0, len(rows))
    assert set(np.flatnonzero(~np.isnan(scores))) == set(expected)
    np.testing.assert_allclose(scores[sorted(expected)], [expected[item] for item in sorted(expected)], atol=2e-4)


def test_the_model_reads_no_prefix_with_a_single_item_below(monkeypatch):
    """Of prefixes [1] and [2] only [1] has a choice left; [1, 7] and [1, 8] have none."""
    read = []
    step = DecoderOnlyReader.step
    monkeypatch.setattr(
        DecoderOnlyReader, "step", lambda self, tokens, parents: read.append(tokens) or step(self, tokens, parents)
    )
    table = np.array([[1, 7, 13], [1, 8, 14], [2, 9, 15]])
    found = search(MODELS["qwen3"], Trie.build(table), [[25, 26]], top_k=3, record=True)
    assert [tokens.tolist() for tokens in read] == [[[1]]]
    expected = brute_force(MODELS["qwen3"], table, [25, 26])
    np.testing.assert_allclose(scores_by_item(found, 0, 3), expected, atol=2e-4)
    assert [len(level.nodes) for level in found.records[0].levels] == [2, 3, 3]


def test_beam_width_by_level(catalogue):
    model, trie = MODELS["qwen3"], Trie.build(catalogue)
    found = search(model, trie, [[25, 26], [30]], beams=[6, 9], top_k=9, record=True)
    for record in found.records:
        assert [int(level.alive.sum()) for level in record.levels] == [6, 9, 9]
    same = search(model, trie, [[25, 26], [30]], beams=9, top_k=9, batch_size=1)
    wide = search(model, trie, [[25, 26], [30]], beams=[9], top_k=9)
    assert same.items.tolist() == wide.items.tolist()


@settings(max_examples=10)
@given(sequences(max_items=12, fewest=3), st.data())
def test_what_nobody_may_get_goes_and_the_rest_keep_their_probabilities(table, data):
    model, trie, n_items = MODELS["gpt2"], Trie.build(table), len(table)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=n_items, max_size=n_items)))
    seen = [np.array([0]), np.array([], dtype=np.int64)]
    found = search(model, trie, [[30, 31], [32]], beams=n_items, top_k=n_items, allowed=allowed, masked=seen)
    for user, one in enumerate([[30, 31], [32]]):
        expected = score_all(model, trie, one)
        expected[~allowed] = np.nan
        expected[seen[user]] = np.nan
        np.testing.assert_allclose(scores_by_item(found, user, n_items), expected, atol=2e-4)


@pytest.mark.parametrize("family", ["qwen3", "t5"])
def test_search_of_a_saved_trie_and_of_one_with_added_items_is_the_same(family, catalogue, tmp_path):
    built = Trie.build(catalogue)
    tries = (built, Trie.load(built.save(tmp_path)), Trie.build(catalogue[:150]).add(catalogue[150:]))
    expected, *others = (search(MODELS[family], trie, [[25, 26], [30]], beams=9) for trie in tries)
    for found in others:
        assert found.items.tolist() == expected.items.tolist()
        assert found.log_probabilities.tolist() == expected.log_probabilities.tolist()


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "t5"])
def test_the_models_own_type_is_used(family, catalogue):
    """bfloat16 has eight bits of precision: sums in another order differ by some hundredths."""
    trie, prompts = Trie.build(catalogue), [[25, 26], [30, 31, 32]]
    half = _make(family).bfloat16()
    found = search(half, trie, prompts, beams=200, top_k=200)
    assert all(parameter.dtype == torch.bfloat16 for parameter in half.parameters())
    for user, one in enumerate(prompts):
        expected = brute_force(half, catalogue, one)
        np.testing.assert_allclose(scores_by_item(found, user, 200), expected, atol=0.06)


def test_recall_of_exact_counts_the_best_items_found(catalogue):
    model, trie = MODELS["qwen3"], Trie.build(catalogue)
    prompts = [[25, 26], [30], [31, 32]]
    exact = np.stack([score_all(model, trie, one) for one in prompts])
    assert recall_of_exact(np.argsort(-exact, axis=1)[:, :10], exact).tolist() == [1, 1, 1]
    assert recall_of_exact(np.array([[7, -1]] * 3), np.tile(-np.arange(200.0), (3, 1))).tolist() == [0, 0, 0]
    assert recall_of_exact(np.array([[1, -1]]), -np.arange(200.0)[None]).tolist() == [0.5]
    best = [set(row[:10].tolist()) for row in np.argsort(-exact, axis=1)]
    narrow, wide = (search(model, trie, prompts, beams=beams, top_k=10).items for beams in (10, 200))
    shares = [len(some & set(items.tolist())) / 10 for some, items in zip(best, narrow, strict=True)]
    assert 0 < min(shares) < 1, "the narrow search misses some of the best items"
    assert recall_of_exact(narrow, exact).tolist() == shares
    assert recall_of_exact(wide, exact).tolist() == [1, 1, 1]


def test_one_item_catalogue_and_no_prompts():
    trie = Trie.build(np.array([[1, 7, 13]]))
    found = search(MODELS["qwen3"], trie, [[25]], beams=20, top_k=3)
    assert found.items.tolist() == [[0, -1, -1]]
    assert found.log_probabilities[0, 0] == pytest.approx(0, abs=1e-6)
    assert search(MODELS["qwen3"], trie, []).items.shape == (0, 20)


def test_items_that_share_a_sequence_share_its_probability():
    trie = Trie.build(np.array([[1, 7], [1, 8], [1, 7]]))
    found = search(MODELS["qwen3"], trie, [[25, 26]], top_k=3)
    scores = scores_by_item(found, 0, 3)
    assert scores[0] == scores[2]
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-5)


def test_generation_config_of_the_checkpoint_is_ignored(catalogue):
    model, trie = MODELS["qwen3"], Trie.build(catalogue)
    before = search(model, trie, [[25, 26]])
    original = model.generation_config.to_dict()
    model.generation_config.update(
        do_sample=True, temperature=3.0, repetition_penalty=9.0, top_k=1, eos_token_id=1, bad_words_ids=[[0]]
    )
    after = search(model, trie, [[25, 26]])
    model.generation_config.update(**original)
    assert before.items.tolist() == after.items.tolist()


def test_training_mode_is_put_back_and_dropout_is_off(catalogue):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=1, n_head=2, n_positions=64)).train()
    trie = Trie.build(catalogue)
    first, second = (search(model, trie, [[25, 26]]).items.tolist() for _ in range(2))
    assert first == second
    assert model.training


def test_record_holds_the_whole_search(catalogue):
    model, trie = MODELS["qwen3"], Trie.build(catalogue)
    prompts = [[25, 26], [39]]
    found = search(model, trie, prompts, beams=4, top_k=4, record=True)
    for user, record in enumerate(found.records):
        assert len(record.levels) == 3
        assert [int(level.alive.sum()) for level in record.levels] == [4, 4, 4]
        alive = {0}
        for level in record.levels:
            children = trie.children_of(np.array(sorted(alive)))
            assert sorted(level.nodes) == sorted(children[children >= 0])
            assert level.alive[:4].all() and (np.diff(level.log_probabilities) <= 0).all()
            alive = set(level.nodes[level.alive].tolist())
        assert {int(trie.leaves_of(item)) for item in found.items[user]} == alive
        assert np.exp(record.levels[0].log_probabilities).sum() == pytest.approx(1, abs=1e-5)
        mass = record.mass()["mass"]
        assert mass.is_monotonic_decreasing
        assert mass.iloc[-1] == pytest.approx(np.exp(found.log_probabilities[user]).sum(), abs=1e-5)
        assert record.table()["alive"].sum() == 12


def test_where_each_item_was_lost(catalogue):
    model, trie = MODELS["llama"], Trie.build(catalogue)
    best_of_all = int(search(model, trie, [[25, 26]], beams=4).items[0, 0])
    found = search(model, trie, [[25, 26]], beams=4, top_k=4, record=True, masked=[np.array([best_of_all])])
    record = found.records[0]
    fate = where_lost(record, best_of_all)
    assert (fate.status, fate.level, fate.rank) == ("masked", 3, 0)
    for item in range(200):
        fate = where_lost(record, item)
        assert (fate.status == "found") == (item in found.items[0])
        if fate.status == "pruned":
            level = record.levels[fate.level - 1]
            assert level.nodes[fate.rank - 1] == trie.path(int(trie.leaves_of(item)))[fate.level - 1]
            assert fate.rank > 4
    best = where_lost(record, int(found.items[0, 0]))
    assert (best.status, best.level, best.rank) == ("found", 3, 1)
    assert best.log_probability == pytest.approx(float(found.log_probabilities[0, 0]), abs=1e-5)
    table = fates(found.records, found.items[:, 1])
    assert table.loc[0, ["status", "rank"]].tolist() == ["found", 2]
    with pytest.raises(ValueError, match="item row 200"):
        where_lost(record, 200)


def test_masked_item_is_named_masked():
    trie = Trie.build(np.array([[1, 7], [1, 8], [2, 9]]))
    found = search(MODELS["qwen3"], trie, [[25]], record=True, masked=[np.array([2, 0])])
    assert [where_lost(found.records[0], item).status for item in range(3)] == ["masked", "found", "masked"]
    assert [where_lost(found.records[0], item).level for item in range(3)] == [2, 2, 1]


def test_a_masked_item_whose_sid_another_item_shares_is_not_found():
    """Items 0 and 2 share a SID; each user must not get one of them, and nobody may get item 3."""
    trie = Trie.build(np.array([[1, 7], [1, 8], [1, 7], [1, 8]]))
    masked = [np.array([2]), np.array([0])]
    allowed = np.array([True, True, True, False])
    found = search(MODELS["qwen3"], trie, [[25], [26, 27]], record=True, masked=masked, allowed=allowed)
    statuses = [[where_lost(record, item).status for item in range(4)] for record in found.records]
    assert statuses == [["found", "found", "masked", "masked"], ["masked", "found", "found", "masked"]]
    fate = where_lost(found.records[0], 2)
    assert (fate.level, fate.rank) == (2, 0)


def test_a_leaf_above_the_last_level_stays_at_no_cost():
    trie = Trie.build(np.array([[1, 7, -1], [2, 8, 14], [2, 8, 15]]))
    found = search(MODELS["t5"], trie, [[25]], beams=3, record=True)
    second, third = found.records[0].levels[1:]
    leaf = trie.leaves_of(0)
    assert third.log_probabilities[third.nodes == leaf] == second.log_probabilities[second.nodes == leaf]
    assert third.parents[third.nodes == leaf] == leaf
    assert where_lost(found.records[0], 0).status == "found"


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_the_logits_of_every_step(temperature):
    table = np.array([[a, 6 + b, 12 + c] for a in range(2) for b in range(2) for c in range(2)])
    model = MODELS["gpt2"]
    found = search(model, Trie.build(table), [[25, 26]], beams=8, top_k=8, temperature=temperature)
    scores = np.zeros(8)
    for item, row in enumerate(table.tolist()):
        for depth in range(3):
            siblings = sorted({other[depth] for other in table.tolist() if other[:depth] == row[:depth]})
            logits = _next_token_logits(model, [25, 26], row[:depth])[siblings] / temperature
            scores[item] += torch.log_softmax(logits, 0)[siblings.index(row[depth])].item()
    np.testing.assert_allclose(scores_by_item(found, 0, 8), scores, atol=2e-4)


def test_a_temperature_of_one_changes_nothing(catalogue):
    model, trie = MODELS["qwen3"], Trie.build(catalogue)
    plain, one = search(model, trie, [[25]]), search(model, trie, [[25]], temperature=1.0)
    np.testing.assert_array_equal(plain.log_probabilities, one.log_probabilities)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        search(model, trie, [[25]], temperature=0)


def test_bad_input_is_named(catalogue):
    model, trie = MODELS["qwen3"], Trie.build(catalogue)
    with pytest.raises(ValueError, match="prompt of user 1"):
        search(model, trie, [[25], []])
    with pytest.raises(ValueError, match="prompt of user 0"):
        search(model, trie, [[], [25]])
    with pytest.raises(ValueError, match="prompt of user 0"):
        score_all(model, trie, [])
    with pytest.raises(ValueError, match="masked rows of user 0 must lie"):
        search(model, trie, [[25], [25, 26]], masked=[np.array([200]), np.array([3])])
    with pytest.raises(ValueError, match="masked rows of user 1 must be integer item rows, got bool"):
        search(model, trie, [[25], [25, 26]], masked=[np.array([3]), np.zeros(200, dtype=bool)])
    with pytest.raises(ValueError, match="1 arrays for 2 prompts"):
        search(model, trie, [[25], [26]], masked=[np.array([1])])
    for options in ({"beams": 0}, {"beams": []}, {"beams": [3, 0]}, {"top_k": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            search(model, trie, [[25]], **options)
    with pytest.raises(ValueError, match="resize the model's embeddings"):
        search(model, Trie.build(np.array([[VOCABULARY]])), [[25]])


def test_prompts_beyond_a_sliding_window_are_refused(catalogue):
    torch.manual_seed(0)
    config = MistralConfig(vocab_size=VOCABULARY, **SMALL, **GROUPED, sliding_window=6, attn_implementation="eager")
    model = MistralForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.ndim == 2 else 1)
    longest = [25, 26, 27, 28]  # with the first two of three codes: six tokens
    found = search(model, Trie.build(catalogue), [longest], beams=200, top_k=200)
    expected = brute_force(model, catalogue, longest)
    np.testing.assert_allclose(scores_by_item(found, 0, 200), expected, atol=2e-4)
    with pytest.raises(ValueError, match="5 tokens, but at most 4 fit into the model's sliding window 6"):
        search(model, Trie.build(catalogue), [[*longest, 29]])


def test_prompts_beyond_the_positions_of_gpt2_are_refused(catalogue):
    longest = [25, 26] * 31  # with the first two of three codes: 64 tokens
    found = search(MODELS["gpt2"], Trie.build(catalogue), [longest], beams=200, top_k=200)
    expected = brute_force(MODELS["gpt2"], catalogue, longest)
    np.testing.assert_allclose(scores_by_item(found, 0, 200), expected, atol=2e-4)
    with pytest.raises(ValueError, match="63 tokens, but at most 62 fit into the model's 64 positions"):
        search(MODELS["gpt2"], Trie.build(catalogue), [[*longest, 29]])


SCALED = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "short_factor": [1.0] * 4,
        "long_factor": [3.0] * 4,
        "original_max_position_embeddings": 8,
    },
}


@pytest.mark.parametrize("kind", SCALED)
def test_rope_that_depends_on_the_length_is_refused_beyond_its_window_only(kind, catalogue):
    """Up to there the scores are those of whole forward passes, with any other prompt beside."""
    torch.manual_seed(0)
    length = 8 if kind == "dynamic" else 32
    shape = {**SMALL, **GROUPED, "max_position_embeddings": length}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **shape, rope_parameters=SCALED[kind])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.ndim == 2 else 1)
    longest = list(range(25, 31))  # with the first two of three codes: eight tokens
    found = search(model, Trie.build(catalogue), [longest, [39]], beams=200, top_k=200)
    for user, one in enumerate([longest, [39]]):
        np.testing.assert_allclose(scores_by_item(found, user, 200), brute_force(model, catalogue, one), atol=2e-4)
    for refused in (
        lambda one: search(model, Trie.build(catalogue), [[39], one]),
        lambda one: score_all(model, Trie.build(catalogue), one),
    ):
        with pytest.raises(
            ValueError, match=f"7 tokens, but at most 6 fit into the model's 8 positions without {kind} RoPE"
        ):
            refused([*longest, 31])


@pytest.mark.parametrize("family", ["qwen3", "t5"])
def test_result_does_not_depend_on_how_many_prompts_are_read_together(family, catalogue, monkeypatch):
    """Parts of one, two and all prompts."""
    trie = Trie.build(catalogue)
    prompts = [[25], list(range(20, 32)), [26, 27, 28], [30, 31], [33, 34, 35, 36, 37]]
    expected = [search(MODELS[family], trie, [one], beams=9, top_k=9) for one in prompts]
    for tokens in (1, 24, 1000):
        monkeypatch.setattr("trialign.decode.models.CPU_TOKENS", tokens)
        found = search(MODELS[family], trie, prompts, beams=9, top_k=9)
        for user, alone in enumerate(expected):
            assert found.items[user].tolist() == alone.items[0].tolist()
            np.testing.assert_allclose(found.log_probabilities[user], alone.log_probabilities[0], atol=1e-4)


def test_unknown_model_types_are_refused(catalogue):
    model = _make("qwen3")
    model.config.model_type = "gemma2"
    with pytest.raises(ValueError, match="gemma2"):
        search(model, Trie.build(catalogue), [[25]])


def test_lora_with_trained_tokens_scores_like_the_wrapped_model(catalogue):
    lora = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=list(range(18)), init_lora_weights=False)
    model = get_peft_model(_make("qwen3"), lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "token" in name and parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    few = catalogue[:20]
    scores = score_all(model, Trie.build(few), [25, 26])
    np.testing.assert_allclose(scores, brute_force(model, few, [25, 26]), atol=2e-4)
    assert not np.allclose(scores, brute_force(MODELS["qwen3"], few, [25, 26]), atol=0.1)


def test_adapters_that_learn_a_prompt_are_refused(catalogue):
    model = get_peft_model(_make("qwen3"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="PROMPT_TUNING learns a prompt"):
        search(model, Trie.build(catalogue), [[25]])
