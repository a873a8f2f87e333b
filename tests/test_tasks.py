from collections import Counter
from itertools import combinations, islice

import numpy as np
import pytest
from training_examples import CAPTIONS, TITLES, small_multitask, small_sids, small_split

from trialign.catalogue import Split
from trialign.scratch import scratch_tokenizer
from trialign.tasks import IGNORED, TASKS, Multitask
from trialign.vocabulary import SidVocabulary

CLEAN = ["Red mug", "Blue mug", "Oak chair", "", "Desk lamp with shade", "<a_1> <|end|>"]
SIDS = ["".join(small_sids().tokens(row)) for row in range(6)]


def decoded(multitask, example):
    """The prompt and the answer of an example as text."""
    tokenizer = multitask.vocabulary.tokenizer
    answered = [label != IGNORED for label in example.labels]
    first = answered.index(True)
    assert all(answered[first:]), "the answer is the end of the example"
    assert example.labels[first:] == example.input_ids[first:]
    return tokenizer.decode(example.input_ids[:first]), tokenizer.decode(example.input_ids[first:])


def all_examples(multitask, task):
    """The set of (prompt, answer) that a task ever gives."""
    assert [t.name for t in multitask.tasks] == [task]
    return {decoded(multitask, example) for example in multitask.sample(200)}


def test_the_eight_tasks_of_the_paper():
    assert list(TASKS) == [
        "SIDSeq→SID", "SIDSeq→Title", "TitleSeq→SID", "TitleSeq→Title",
        "Title→SID", "SID→Title", "VisDesc→SID", "VisDesc→Title",
    ]  # fmt: skip
    assert Counter(task.group for task in TASKS.values()) == {"recommendation": 4, "text alignment": 2, "visual": 2}
    prompts = [task.template for task in TASKS.values() if not task.name.endswith("Seq→Title")]
    assert len(set(prompts)) == len(prompts)


def test_label_mask_by_hand():
    multitask = small_multitask(tasks=["SIDSeq→SID"], seed=3)
    a, b, c = multitask.vocabulary.sid_token_ids
    before = multitask.vocabulary.encode_text("User history:\n")
    found = {tuple(example.input_ids): example.labels for example in multitask.sample(50)}
    # u0 read 0, 1, 2, 4: every item after the first is an answer. u1 read 2, 0. u2 has nothing to predict.
    first = [*before, a[0], b[0], c[0], a[0], b[0], c[1], a[1], b[0], a[2], b[1]]
    second = [*before, a[1], b[0], a[0], b[0], c[0]]
    assert found.keys() == {tuple(first), tuple(second)}
    assert found[tuple(first)] == [*[IGNORED] * (len(before) + 3), a[0], b[0], c[1], a[1], b[0], a[2], b[1]]
    assert found[tuple(second)] == [*[IGNORED] * (len(before) + 2), a[0], b[0], c[0]]


def test_long_histories_are_windowed():
    multitask = small_multitask(tasks=["SIDSeq→SID"], max_history=2)
    tokenizer, head = multitask.vocabulary.tokenizer, "User history:\n"
    texts = {tokenizer.decode(example.input_ids) for example in multitask.sample(100)}
    assert texts == {head + SIDS[0] + SIDS[1] + SIDS[2], head + SIDS[1] + SIDS[2] + SIDS[4], head + SIDS[2] + SIDS[0]}
    # u0 has 3 targets, which take two windows of two; u1 has 1.
    assert multitask.population_sizes() == {"SIDSeq→SID": 3}


def test_sid_history_to_title():
    expected = {
        ("User history:\n" + SIDS[0] + "\nNext title:\n", "Blue mug<|end|>"),
        ("User history:\n" + SIDS[0] + SIDS[1] + "\nNext title:\n", "Oak chair<|end|>"),
        ("User history:\n" + SIDS[0] + SIDS[1] + SIDS[2] + "\nNext title:\n", "Desk lamp with shade<|end|>"),
        ("User history:\n" + SIDS[2] + "\nNext title:\n", "Red mug<|end|>"),
    }
    assert all_examples(small_multitask(tasks=["SIDSeq→Title"]), "SIDSeq→Title") == expected


@pytest.mark.parametrize(
    ("task", "ending", "answers"),
    [
        ("TitleSeq→SID", "\nNext item:\n", SIDS),
        ("TitleSeq→Title", "\nNext title:\n", [f"{title}<|end|>" for title in CLEAN]),
    ],
)
def test_title_histories(task, ending, answers):
    expected = {
        ("User history:\nRed mug" + ending, answers[1]),
        ("User history:\nRed mug\nBlue mug" + ending, answers[2]),
        ("User history:\nBlue mug\nOak chair" + ending, answers[4]),  # max_title_history
        ("User history:\nOak chair" + ending, answers[0]),
    }
    assert all_examples(small_multitask(tasks=[task], max_title_history=2), task) == expected


def test_alignment_tasks_leave_out_items_without_text():
    titled = [0, 1, 2, 4, 5]
    to_sid = {(f"Title:\n{CLEAN[row]}\nItem:\n", SIDS[row]) for row in titled}
    to_title = {(f"Item:\n{SIDS[row]}\nTitle:\n", f"{CLEAN[row]}<|end|>") for row in titled}
    assert all_examples(small_multitask(tasks=["Title→SID"]), "Title→SID") == to_sid
    assert all_examples(small_multitask(tasks=["SID→Title"]), "SID→Title") == to_title


def test_visual_tasks_leave_out_items_without_caption():
    captions = [CAPTIONS.get(f"i{row}", "") for row in range(6)]
    to_sid = {(f"Image:\n{captions[row]}\nItem:\n", SIDS[row]) for row in (0, 2, 3)}
    to_title = {(f"Image:\n{captions[row]}\nTitle:\n", f"{CLEAN[row]}<|end|>") for row in (0, 2)}  # 3 has no title
    assert all_examples(small_multitask(tasks=["VisDesc→SID"]), "VisDesc→SID") == to_sid
    assert all_examples(small_multitask(tasks=["VisDesc→Title"]), "VisDesc→Title") == to_title


def test_titles_are_data_and_never_tokens():
    multitask = small_multitask(tasks=["Title→SID", "SID→Title"])
    special = set(multitask.vocabulary.tokenizer.all_special_ids)
    title = multitask.answer("SID→Title", 5)
    assert not special & set(title[:-1]) and title[-1] == multitask.vocabulary.eos_token_id
    assert not special & set(multitask.item_prompt("Title→SID", 5))


def test_long_titles_are_cut():
    multitask = small_multitask(tasks=["SID→Title"], max_title_tokens=2)
    assert len(multitask.answer("SID→Title", 5)) == 3
    assert multitask.answer("SID→Title", 5)[:2] == multitask.vocabulary.encode_text("<a_1> <|end|>")[:2]


def test_inference_prompts_equal_the_training_layout():
    multitask = small_multitask()
    by_task = {}
    for example in multitask.sample(400):
        by_task.setdefault(example.task, []).append(example)
    whole = multitask.prompt([0, 1, 2]) + multitask.answer("SIDSeq→SID", 4)
    assert whole in [example.input_ids for example in by_task["SIDSeq→SID"]]
    titles = multitask.titles_prompt([0, 1, 2]) + multitask.answer("TitleSeq→SID", 4)
    assert titles in [example.input_ids for example in by_task["TitleSeq→SID"]]
    for task, row in [("Title→SID", 1), ("SID→Title", 2), ("VisDesc→SID", 3), ("VisDesc→Title", 0)]:
        assert multitask.item_prompt(task, row) + multitask.answer(task, row) in [e.input_ids for e in by_task[task]]


def test_prompts_show_the_most_recent_items():
    multitask = small_multitask(max_history=2, max_title_history=1)
    assert multitask.prompt([0, 1, 2, 4]) == multitask.prompt(np.array([2, 4]))
    assert multitask.titles_prompt([0, 1, 2, 3]) == multitask.titles_prompt([2])  # 3 has no title


def test_tasks_are_drawn_uniformly_and_examples_within_a_task():
    multitask = small_multitask(seed=11)
    n = 8000
    examples = multitask.sample(n)
    counts = np.array([sum(e.task == name for e in examples) for name in TASKS])
    assert ((counts - n / 8) ** 2 / (n / 8)).sum() < 24.3  # chi-square, 7 degrees, p = .001
    for name, size in [("Title→SID", 5), ("SIDSeq→Title", 4), ("VisDesc→SID", 3)]:
        each = np.array(list(Counter(tuple(e.input_ids) for e in examples if e.task == name).values()))
        assert len(each) == size == multitask.population_sizes()[name]
        assert ((each - each.mean()) ** 2 / each.mean()).sum() < 18.5  # at most 4 degrees, p = .001


def test_a_mixture_draws_tasks_by_its_weights():
    mixture = {"SIDSeq→SID": 3, "Title→SID": 1, "SID→Title": 0.5}
    multitask = small_multitask(tasks=list(mixture), mixture=mixture, seed=4)
    n = 6000
    counts = Counter(example.task for example in multitask.sample(n))
    expected = {name: n * weight / 4.5 for name, weight in mixture.items()}
    assert sum((counts[name] - e) ** 2 / e for name, e in expected.items()) < 13.8  # 2 degrees, p = .001
    pairs = Counter(example.task for example in islice(multitask.pairs(), n))
    assert sum((pairs[name] - e) ** 2 / e for name, e in expected.items()) < 13.8
    # Only the proportions count, and they decide the examples.
    scaled = small_multitask(tasks=list(mixture), mixture={name: 8 * w for name, w in mixture.items()}, seed=4)
    assert scaled.sample(50) == multitask.sample(50) and scaled.fingerprint() == multitask.fingerprint()
    assert small_multitask(tasks=list(mixture), seed=4).fingerprint() != multitask.fingerprint()


@pytest.mark.parametrize(
    "mixture",
    [
        {},
        {"Title→SID": 1},
        {"Title→SID": 1, "SID→Title": 0},
        {"Title→SID": 1, "SID→Title": -1},
        {"Title→SID": 1, "SID→Title": np.nan},
        {"Title→SID": 1, "SID→Title": 1, "SIDSeq→SID": 1},
    ],
)
def test_a_wrong_mixture_is_refused(mixture):
    with pytest.raises(ValueError, match=r"mixture must give each of the tasks \['Title→SID', 'SID→Title'\]"):
        small_multitask(tasks=["Title→SID", "SID→Title"], mixture=mixture)


def test_pairs_ask_for_one_target_each():
    multitask = small_multitask(seed=2)
    found = Counter(decoded(multitask, e) for e in islice(multitask.pairs(), 8000) if e.task == "SIDSeq→SID")
    head = "User history:\n"
    assert found.keys() == {
        (head + SIDS[0], SIDS[1]), (head + SIDS[0] + SIDS[1], SIDS[2]),
        (head + SIDS[0] + SIDS[1] + SIDS[2], SIDS[4]), (head + SIDS[2], SIDS[0]),
    }  # fmt: skip
    counts = np.array(list(found.values()))  # uniform over targets, not over users
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 16.3  # 3 degrees, p = .001
    # The prompt is that of inference; the other tasks are as in the stream, where they are pairs already.
    shown = small_multitask(tasks=["SIDSeq→SID"], max_history=2)
    assert (head + SIDS[1] + SIDS[2], SIDS[4]) in {decoded(shown, e) for e in islice(shown.pairs(), 100)}
    others = [name for name in TASKS if name != "SIDSeq→SID"]
    same = small_multitask(tasks=others)
    assert list(islice(same.pairs(3), 40)) == same.sample(40, step=3)


def windows(multitask, n=4000):
    """How often each window of items occurs among the causal examples, as tuples of rows."""
    rows = {sid: row for row, sid in enumerate(SIDS)}
    found = Counter()
    for example in multitask.sample(n):
        text = multitask.vocabulary.tokenizer.decode(example.input_ids).removeprefix("User history:\n")
        found[tuple(rows["<a_" + part] for part in text.split("<a_")[1:])] += 1
    return found


def test_dropped_items_leave_subsequences_of_two_and_more():
    found = windows(small_multitask(tasks=["SIDSeq→SID"], drop_items=0.5))
    whole = (0, 1, 2, 4)
    subsequences = {part for size in (2, 3, 4) for part in combinations(whole, size)}
    assert found.keys() == subsequences | {(2, 0)}
    # Of 16 subsets of four items 1 has four, 4 have three; the 11 others become pairs, uniformly by symmetry.
    drawn = sum(found[part] for part in subsequences)
    for size, share in ((4, 1 / 16), (3, 4 / 16), (2, 11 / 16)):
        assert sum(found[part] for part in combinations(whole, size)) / drawn == pytest.approx(share, abs=0.04)
    assert windows(small_multitask(tasks=["SIDSeq→SID"])).keys() == {whole, (2, 0)}


def test_dropped_items_are_never_the_target_of_a_pair():
    multitask = small_multitask(tasks=["SIDSeq→SID"], drop_items=0.5)
    found = {decoded(multitask, example) for example in islice(multitask.pairs(), 1000)}
    third = {prompt.removeprefix("User history:\n") for prompt, answer in found if answer == SIDS[4]}
    parts = [part for size in (1, 2, 3) for part in combinations((0, 1, 2), size)]
    assert third == {"".join(SIDS[row] for row in part) for part in parts}
    assert {answer for _, answer in found} == {SIDS[0], SIDS[1], SIDS[2], SIDS[4]}


def test_dropping_items_depends_on_seed_and_step_alone_and_touches_no_other_task():
    ours, again = small_multitask(drop_items=0.4, seed=1), small_multitask(drop_items=0.4, seed=1)
    assert ours.sample(60, step=5) == again.sample(60, step=5) != ours.sample(60, step=6)
    assert ours.fingerprint() == again.fingerprint() != small_multitask(seed=1).fingerprint()
    for name in (name for name in TASKS if name != "SIDSeq→SID"):
        assert small_multitask(tasks=[name], drop_items=0.9).sample(20) == small_multitask(tasks=[name]).sample(20)
    for wrong in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match="drop_items"):
            small_multitask(drop_items=wrong)


def test_same_seed_and_step_same_examples():
    ours, again, other = small_multitask(seed=1), small_multitask(seed=1), small_multitask(seed=2)
    assert ours.sample(20, step=5) == again.sample(20, step=5)
    assert ours.sample(20, step=5) == ours.sample(40, step=5)[:20]
    assert ours.sample(20, step=5) != ours.sample(20, step=6)
    assert ours.sample(20, step=5) != other.sample(20, step=5)
    assert ours.fingerprint() == again.fingerprint() != other.fingerprint()


def test_held_out_interactions_are_in_no_recommendation_example():
    multitask = small_multitask()
    recommendation = [e for e in multitask.sample(2000) if TASKS[e.task].group == "recommendation"]
    texts = {multitask.vocabulary.tokenizer.decode(example.input_ids) for example in recommendation}
    assert len(recommendation) > 800
    for row in (3, 5):  # held out for every user
        assert not any(SIDS[row] in text or (CLEAN[row] and CLEAN[row] in text) for text in texts)
    # What is held out changes nothing in what is trained on.
    split = small_split()
    swapped = Split(split.users, split.train, split.test, split.validation, 6, split.excluded)
    other = Multitask(small_sids(), multitask.vocabulary, TITLES, CAPTIONS, swapped)
    assert other.fingerprint() == multitask.fingerprint()


def test_bad_input():
    sids, split = small_sids(), small_split()
    vocabulary = SidVocabulary.add_to(scratch_tokenizer(["mug"], 300), sids.codebook_sizes)
    with pytest.raises(ValueError, match=r"VisDesc→SID has no example.*captions"):
        Multitask(sids, vocabulary, TITLES, None, split)
    assert Multitask(sids, vocabulary, TITLES, None, split, tasks=list(TASKS)[:6]).sample(3)
    with pytest.raises(ValueError, match="unknown tasks"):
        Multitask(sids, vocabulary, TITLES, CAPTIONS, split, tasks=["Title→Price"])
    with pytest.raises(ValueError, match="5 titles"):
        Multitask(sids, vocabulary, TITLES[:5], CAPTIONS, split)
    with pytest.raises(ValueError, match="max_history"):
        Multitask(sids, vocabulary, TITLES, CAPTIONS, split, max_history=0)
    multitask = small_multitask()
    with pytest.raises(ValueError, match="empty history"):
        multitask.titles_prompt([])
    with pytest.raises(ValueError, match="no description"):
        multitask.item_prompt("VisDesc→SID", 1)
    with pytest.raises(ValueError, match="no item of this history has a title"):
        multitask.titles_prompt([3])
