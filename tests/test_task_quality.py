"""Per-task quality: measured as used, on items held out, and no SID token in any text."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_examples import CAPTIONS, TITLES, cyclic_multitask, cyclic_sids, small_multitask, small_sids

from trialign.decode.text import generate_text, generate_tokens
from trialign.recommend import GenerativeRecommender
from trialign.scratch import scratch_qwen3, scratch_t5
from trialign.task_quality import task_quality, token_f1
from trialign.train import Trainer

ABOUT_ITEMS = ["Title→SID", "SID→Title", "VisDesc→SID", "VisDesc→Title"]


def favouring_sids(make, vocabulary):
    """A model whose logits of SID tokens are far above all others, whatever it reads."""
    model = make(vocabulary, hidden=32, layers=1, heads=2)
    sids = torch.from_numpy(vocabulary.all_sid_token_ids)

    def favour(_module, _inputs, logits):
        logits[..., sids] += 1000.0
        return logits

    return model, model.get_output_embeddings().register_forward_hook(favour)


def asked(multitask, task, rows):
    return [multitask.item_prompt(task, row) for row in rows]


# ---------------------------------------------------------------------- text answers


@pytest.mark.parametrize("make", [scratch_qwen3, scratch_t5])
def test_a_model_that_wants_to_say_sids_says_them_unless_they_are_out_of_reach(make):
    multitask = small_multitask()
    vocabulary = multitask.vocabulary
    model, hook = favouring_sids(make, vocabulary)
    prompts = asked(multitask, "SID→Title", [0, 1, 2, 4])
    free = generate_tokens(model, vocabulary, prompts, max_tokens=6, progress=False)
    assert all(set(answer) <= set(vocabulary.all_sid_token_ids.tolist()) for answer in free)
    kept = generate_text(model, vocabulary, prompts, max_tokens=6, progress=False)
    suppressed = vocabulary.all_sid_token_ids
    tokens = generate_tokens(model, vocabulary, prompts, suppressed=suppressed, max_tokens=6, progress=False)
    assert not np.isin(np.concatenate(tokens), suppressed).any()
    hook.remove()  # the text is the one that the same model prefers when it doesn't want to say SIDs
    assert generate_text(model, vocabulary, prompts, max_tokens=6, progress=False) == kept
    assert all(tokens)


def greedy(model, vocabulary, prompt, max_tokens):
    """The definition: one prompt, no cache, no padding."""
    tokens = list(prompt)
    for _ in range(max_tokens):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
        logits[torch.from_numpy(vocabulary.all_sid_token_ids)] = -torch.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] == vocabulary.eos_token_id:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]


def test_batches_of_prompts_of_all_lengths_are_answered_as_one_by_one():
    multitask = small_multitask()
    vocabulary = multitask.vocabulary
    model = scratch_qwen3(vocabulary, hidden=32, layers=2, heads=2, seed=1)
    prompts = [*asked(multitask, "Title→SID", [2, 0, 5]), *asked(multitask, "SID→Title", [0, 4]), [7]]
    expected = [greedy(model, vocabulary, prompt, 8) for prompt in prompts]
    assert len({len(prompt) for prompt in prompts}) > 2
    for batch_size in (1, 4, 64):
        found = generate_tokens(
            model, vocabulary, prompts, suppressed=vocabulary.all_sid_token_ids, max_tokens=8, batch_size=batch_size,
            progress=False,
        )  # fmt: skip
        assert found == expected


def test_the_answer_ends_before_the_end_token():
    multitask = small_multitask()
    vocabulary = multitask.vocabulary
    model = scratch_qwen3(vocabulary, hidden=32, layers=1, heads=2)
    word = vocabulary.encode_text("mug")[0]
    wanted = {0: word, 1: vocabulary.eos_token_id, 2: word}
    steps = iter(range(9))

    def say(_module, _inputs, logits):
        logits[..., wanted[next(steps)]] += 1000.0
        return logits

    model.get_output_embeddings().register_forward_hook(say)
    assert generate_tokens(model, vocabulary, [[7, 8]], max_tokens=5, progress=False) == [[word]]


def test_bad_input_of_text_answers():
    multitask = small_multitask()
    model = scratch_qwen3(multitask.vocabulary, hidden=32, layers=1, heads=2)
    with pytest.raises(ValueError, match="user 1 has no token"):
        generate_text(model, multitask.vocabulary, [[1], []])
    with pytest.raises(ValueError, match="at least 1"):
        generate_text(model, multitask.vocabulary, [[1]], max_tokens=0)


# ---------------------------------------------------------------------- token F1

WORDS = st.lists(st.sampled_from("abcd"), max_size=6)


def test_token_f1_by_hand():
    assert token_f1(["red", "mug"], ["red", "mug"]) == 1
    assert token_f1(["red", "red"], ["red", "mug"]) == 0.5  # the second "red" has no partner
    assert token_f1([], ["mug"]) == 0
    assert token_f1([], []) == 1


@given(WORDS, WORDS)
def test_token_f1_is_symmetric_and_1_only_for_the_same_words(answer, truth):
    value = token_f1(answer, truth)
    assert 0 <= value <= 1
    assert value == token_f1(truth, answer)
    assert (value == 1) == (sorted(answer) == sorted(truth))


# ---------------------------------------------------------------------- quality of the tasks


@pytest.fixture(scope="module")
def learnt():
    """A model that has learnt by heart all items but 1 and 6, and the tasks it learnt them from."""
    multitask = cyclic_multitask(tasks=ABOUT_ITEMS, held_out=[6, 1])
    model = scratch_qwen3(multitask.vocabulary, hidden=64, layers=2, heads=2, attention_dropout=0.0)
    Trainer(model, multitask, steps=120, batch_tokens=512, learning_rate=5e-3, progress=False).fit()
    return GenerativeRecommender(model, multitask.vocabulary, cyclic_sids()), multitask


def values(table, measure):
    return table[table["measure"] == measure].set_index("task")["value"].to_dict()


def test_what_was_learnt_by_heart_scores_1_and_sids_stay_out_of_text(learnt):
    trained = [row for row in range(12) if row not in (1, 6)]
    table = task_quality(*learnt, trained, progress=False)
    assert values(table, "accuracy@1") == {"Title→SID": 1, "VisDesc→SID": 1}
    assert values(table, "accuracy@10") == {"Title→SID": 1, "VisDesc→SID": 1}
    assert values(table, "first code") == {"Title→SID": 1, "VisDesc→SID": 1}
    assert values(table, "exact match") == {"SID→Title": 1, "VisDesc→Title": 1}
    assert values(table, "token F1") == {"SID→Title": 1, "VisDesc→Title": 1}
    assert values(table, "SID tokens") == {"SID→Title": 0, "VisDesc→Title": 0}
    assert (table["items"] == 10).all()
    chance = table.groupby("measure")["chance"].first()
    assert chance["accuracy@1"] == pytest.approx(1 / 12)
    assert chance["accuracy@10"] == pytest.approx(10 / 12)
    assert chance["first code"] == pytest.approx(1 / 3)  # three first codes of four items each
    assert chance["exact match"] == 0  # every answer is right, so none is another item's title
    assert chance["token F1"] == pytest.approx(2 / 3)  # "item number 3" against "item number 4"


def test_items_held_out_are_not_known(learnt):
    table = task_quality(*learnt, [1, 6], progress=False)
    assert set(values(table, "exact match").values()) == {0}
    assert set(values(table, "accuracy@1").values()) == {0}


def test_the_interval_is_of_the_items(learnt):
    table = task_quality(*learnt, range(12), progress=False)
    row = table[(table["task"] == "Title→SID") & (table["measure"] == "accuracy@1")].iloc[0]
    assert row["value"] == pytest.approx(10 / 12)
    assert row["low"] < row["value"] < row["high"] <= 1


def test_sids_in_text_are_measured_where_decoding_is_free():
    multitask = small_multitask()
    model, _ = favouring_sids(scratch_qwen3, multitask.vocabulary)
    recommender = GenerativeRecommender(model, multitask.vocabulary, small_sids())
    table = task_quality(recommender, multitask, range(6), max_tokens=4, progress=False)
    assert values(table, "SID tokens, free") == {"SID→Title": 1, "VisDesc→Title": 1}
    assert values(table, "SID tokens") == {"SID→Title": 0, "VisDesc→Title": 0}


def test_items_without_the_text_of_a_task_are_left_out_of_it():
    multitask = small_multitask()
    model = scratch_qwen3(multitask.vocabulary, hidden=32, layers=1, heads=2)
    recommender = GenerativeRecommender(model, multitask.vocabulary, small_sids())
    table = task_quality(recommender, multitask, range(6), max_tokens=4, progress=False)
    both = [item for item in CAPTIONS if TITLES[int(item[1])]]
    titled = sum(bool(title) for title in TITLES)
    assert table.groupby("task")["items"].first().to_dict() == {
        "Title→SID": titled,
        "SID→Title": titled,
        "VisDesc→SID": len(CAPTIONS),
        "VisDesc→Title": len(both),
    }


def test_bad_rows_are_refused():
    multitask = small_multitask()
    model = scratch_qwen3(multitask.vocabulary, hidden=32, layers=1, heads=2)
    recommender = GenerativeRecommender(model, multitask.vocabulary, small_sids())
    for rows, message in (([], "at least one"), ([2, 2], "each once"), ([6], "0..5"), ([-1], "0..5")):
        with pytest.raises(ValueError, match=message):
            task_quality(recommender, multitask, rows)
    with pytest.raises(ValueError, match="at least 20"):
        task_quality(recommender, multitask, [0], beams=10)
    with pytest.raises(ValueError, match="no task about single items"):
        task_quality(recommender, small_multitask(tasks=["SIDSeq→SID"]), [0])


# ---------------------------------------------------------------------- Multitask(held_out=...)


def test_held_out_items_are_shown_by_no_task_about_items_and_by_every_history():
    held = [0]
    multitask = small_multitask(held_out=held)
    texts = [tuple(multitask.vocabulary.encode_text(TITLES[row])) for row in held]
    sids = [tuple(multitask.history_prompt.sids[row]) for row in held]
    captions = [tuple(multitask.vocabulary.encode_text(CAPTIONS[f"i{row}"])) for row in held]

    def shows(example, parts):
        ids = example.input_ids
        return any(tuple(ids[at : at + len(part)]) == part for part in parts for at in range(len(ids)))

    examples = multitask.sample(600)
    about_items = [example for example in examples if example.task in ABOUT_ITEMS]
    assert {example.task for example in about_items} == set(ABOUT_ITEMS)
    assert not any(shows(example, [*texts, *sids, *captions]) for example in about_items)
    assert any(shows(example, sids) for example in examples if example.task == "SIDSeq→SID")
    assert any(shows(example, texts) for example in examples if example.task == "TitleSeq→Title")


def test_held_out_is_part_of_the_fingerprint_and_checked():
    assert small_multitask().fingerprint() == small_multitask(held_out=[]).fingerprint()
    prints = {small_multitask(held_out=rows).fingerprint() for rows in ([], [0], [0, 1])}
    assert len(prints) == 3
    assert small_multitask(held_out=[1, 0, 1]).fingerprint() in prints
    for rows in ([-1], [6]):
        with pytest.raises(ValueError, match="held_out must be item rows from 0 to 5"):
            small_multitask(held_out=rows)
