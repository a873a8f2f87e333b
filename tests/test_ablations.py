"""Ablations: the variants, what one run is, its record, and what is concluded from many."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign.ablations import (
    CLAIMS,
    FULL,
    QUESTIONS,
    Record,
    Results,
    Settings,
    Study,
    Variant,
    conclusion,
    distinct,
    find_records,
    read_record,
    shuffled_captions,
    write_record,
)
from trialign.ablations.records import DEPTH, RANKINGS, metric_of, provenance, ranks_of
from trialign.ablations.variants import without
from trialign.catalogue import Catalogue
from trialign.evaluate import ranking_metrics
from trialign.plots.ablations import OUTCOMES, difference_dots, score_dots, score_lines
from trialign.tasks import TASKS

ITEMS = 12
SMALL = Settings(
    steps=12, batch_tokens=256, hidden=16, layers=1, quantizer="ResidualKMeans", codebook_sizes=(4, 4), validations=1
)


class Letters:
    """An embedder that counts letters and keeps what it was asked for."""

    name = "letters"

    def __init__(self):
        self.asked = []

    def embed(self, texts, images, *, progress=True):
        self.asked.append((list(texts), [image is not None for image in images]))
        counts = np.array([[text.count(letter) for letter in "abcdeilmnorst:;\n"] for text in texts], np.float32) + 0.1
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture
def study(tmp_path) -> Study:
    ids = [f"i{row}" for row in range(ITEMS)]
    items = pd.DataFrame({"item_id": ids, "title": [f"thing {'abcdefghijkl'[row]}" for row in range(ITEMS)]})
    chosen = [(f"u{user}", f"i{(user + step) % ITEMS}", step) for user in range(20) for step in range(7)]
    interactions = pd.DataFrame(chosen, columns=["user_id", "item_id", "timestamp"])
    catalogue = Catalogue.from_tables(items, interactions, tmp_path, "circle")
    captions = {item: f"a picture of {row}" for row, item in enumerate(ids)}
    interests = {item: ["tea", "slow mornings"] for item in ids}
    by = {"captions": "a test", "interests": "a test"}
    return Study(catalogue, captions, interests, SMALL, described_by=by, model=Letters())


# ---------------------------------------------------------------------- variants


def test_equal_variants_are_run_once():
    variants = distinct()
    assert variants[0] == FULL
    assert len(variants) == len(set(variants)) == len({variant.slug for variant in variants}) == 24
    assert sum(variant.budget == "compute" for variant in variants) == 17
    assert {variant for named in QUESTIONS.values() for variant in named.values()} == set(variants)
    assert distinct(["noise"]) == [Variant(shuffled=share) for share in (0, 0.25, 0.5, 0.75, 1)]


def test_variants_are_what_their_labels_say():
    assert QUESTIONS["tasks"]["1"].task_names == ["SIDSeq→SID"]
    assert QUESTIONS["tasks"]["1-8"] == QUESTIONS["tasks, equal examples"]["1-8"] == FULL
    assert FULL.task_names == list(TASKS)
    parts = QUESTIONS["components"]
    assert parts["minus CMSA"].inputs == "text + interests"
    assert parts["minus CMSA"].tasks == parts["minus visual tasks 7-8"].tasks == (1, 2, 3, 4, 5, 6)
    assert parts["minus MDIM"] == Variant(interests=False)
    assert parts["minus recommendation tasks 2-4"].tasks == (1, 5, 6, 7, 8)
    assert without("text alignment").tasks == (1, 2, 3, 4, 7, 8)
    assert QUESTIONS["sids"]["original SID, tasks 1-6"].inputs == "text"
    assert {claim.variant for claim in CLAIMS} | {claim.baseline for claim in CLAIMS} <= set(distinct())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": (2, 3)}, "1 among them"),
        ({"tasks": (1, 3, 2)}, "ascending"),
        ({"tasks": (1, 9)}, "from 1 to 8"),
        ({"shuffled": 1.5}, "from 0 to 1"),
        ({"captions": False}, "leave out tasks 7 and 8"),
        ({"tasks": (1,), "captions": False, "shuffled": 0.5}, "nothing to shuffle"),
        ({"budget": "minutes"}, "'compute' or 'examples'"),
    ],
)
def test_a_variant_that_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Variant(**wrong)
    with pytest.raises(ValueError, match="no question 'nose'"):
        distinct(["nose"])


@given(st.integers(0, 30), st.floats(0, 1), st.integers(0, 5))
def test_captions_change_places_and_none_is_lost(items, share, seed):
    captions = {str(item): f"caption of {item}" for item in range(items)}
    shuffled = shuffled_captions(captions, share, seed)
    moved = {item for item in captions if shuffled[item] != captions[item]}
    drawn = round(share * items)
    assert list(shuffled) == list(captions)
    assert sorted(shuffled.values()) == sorted(captions.values())
    assert len(moved) == (drawn if drawn > 1 else 0), "nobody drawn keeps the own caption"
    assert shuffled == shuffled_captions(captions, share, seed)
    everybody = shuffled_captions(captions, 1.0, seed)
    assert moved <= {item for item in captions if everybody[item] != captions[item]}


# ---------------------------------------------------------------------- metrics and records


@settings(max_examples=30)
@given(st.data())
def test_metrics_from_ranks_are_those_of_the_ranking(data):
    users = data.draw(st.integers(1, 5))
    ranked = np.array([data.draw(st.permutations(range(30)))[:DEPTH] for _ in range(users)])
    targets = np.array([data.draw(st.integers(0, 29)) for _ in range(users)])
    expected = ranking_metrics(ranked, targets)
    for metric in expected:
        np.testing.assert_allclose(metric_of(ranks_of(ranked, targets), metric), expected[metric])


def test_a_metric_beyond_the_ranking_is_refused():
    for metric in ("ndcg@21", "ndcg@0", "hits@5", "ndcg"):
        with pytest.raises(ValueError, match="recall@K or ndcg@K"):
            metric_of(np.array([1]), metric)


def made(variant: Variant, seed: int, ranks: list[int], **other) -> Record:
    """A record of given ranks, without a training."""
    described = {"captions": "x", "interests": "y", "embeddings": "z"}
    settings = json.loads(json.dumps(Settings().__dict__))
    values = (variant, seed, "circle", ITEMS, described, settings, 5, 4, {"SIDSeq→SID": 9}, 0.1)
    return replace(Record(*values, dict.fromkeys(RANKINGS, ranks), 0.04, 2.0), **other)


def test_a_record_survives_the_disk(tmp_path):
    record = made(Variant((1, 7), shuffled=0.25), 3, [1, 0, 20])
    path = write_record(record, tmp_path / "new")
    assert path.name == "tasks-17_text+captions+interests+image_shuffled-25_seed-3.json"
    assert read_record(path).__dict__ == record.__dict__
    assert [file.name for file in path.parent.iterdir()] == [path.name], "no temporary file is left"
    assert find_records(path.parent) == path.parent


def test_what_is_no_record_is_told_with_its_file(tmp_path):
    path = write_record(made(FULL, 0, [1, 2]), tmp_path)
    whole = json.loads(path.read_text())
    for broken, message in (
        ("{", "is no JSON"),
        (json.dumps({**whole, "more": 1}), r"is no record \(more\)"),
        (json.dumps({**whole, "ranks": {**whole["ranks"], "test": [1]}}), "of the same users"),
    ):
        path.write_text(broken)
        with pytest.raises(ValueError, match=rf"(?s){re.escape(str(path))}.*{message}.*fix: "):
            read_record(path)


def test_missing_records_name_the_command():
    with pytest.raises(FileNotFoundError, match=r"benchmarks/ablations\.py --dataset nowhere"):
        find_records("nowhere")


# ---------------------------------------------------------------------- one run


def test_a_run_trains_its_tasks_alone_and_ranks_every_user(study):
    record = study.run(Variant((1, 5, 7)), seed=1)
    assert set(record.answers) == {"SIDSeq→SID", "Title→SID", "VisDesc→SID"}
    assert record.steps == 12
    assert record.best_step <= 12
    assert (record.dataset, record.items, record.seed) == ("circle", ITEMS, 1)
    assert record.described_by == {"captions": "a test", "interests": "a test", "embeddings": "letters"}
    for ranks in record.ranks.values():
        assert len(ranks) == 20
        assert set(ranks) <= set(range(ITEMS + 1))
    seen = np.array(record.ranks["test"]), np.array(record.ranks["test, seen masked"])
    assert (seen[0] > 0).all(), "a beam of twenty holds all of twelve items"
    assert (seen[1] <= seen[0]).all(), "masking can only move a new item up"
    assert study.run(Variant((1, 5, 7)), seed=1).ranks == record.ranks, "a seed decides everything"


def test_equal_examples_take_the_steps_of_the_tasks_tokens(study):
    sids = study.semantic_ids(FULL, 0)
    steps = {last: study.evaluate(Variant(FULL.tasks[:last], budget="examples"), 0, sids).steps for last in (1, 6, 8)}
    assert 1 <= steps[1] < steps[6] < steps[8] == SMALL.steps
    one = study.evaluate(FULL, 0, sids).answers["SIDSeq→SID"]
    alone = study.evaluate(Variant((1,), budget="examples"), 0, sids).answers["SIDSeq→SID"]
    favoured = study.evaluate(Variant((1,)), 0, sids).answers["SIDSeq→SID"]
    assert abs(alone - one) < 0.5 * one < 2 * one < favoured


def test_inputs_decide_the_semantic_ids_and_are_embedded_once(study):
    asked = study._model.asked
    full = study.semantic_ids(FULL, 0)
    assert study.semantic_ids(Variant((1,)), 0) is full
    assert len(asked) == 1
    assert "image: a picture of 3" in asked[0][0][3]
    assert "interests: tea; slow mornings" in asked[0][0][3]
    study.semantic_ids(QUESTIONS["sids"]["original SID, tasks 1-6"], 0)
    assert asked[1][0] == study.catalogue.titles
    study.semantic_ids(Variant(shuffled=1.0), 0)
    assert all(mine != other for mine, other in zip(asked[0][0], asked[2][0])), "every caption is another item's"
    assert sorted(text.splitlines()[1] for text in asked[0][0]) == sorted(text.splitlines()[1] for text in asked[2][0])


def test_recorded_runs_are_not_run_again(study, tmp_path, monkeypatch):
    record = study.record(Variant((1,)), 0, tmp_path / "records")
    monkeypatch.setattr(study, "run", lambda *_: pytest.fail("a recorded run was run again"))
    assert study.record(Variant((1,)), 0, tmp_path / "records").ranks == record.ranks
    study.settings = replace(SMALL, steps=13)
    with pytest.raises(ValueError, match=r"(?s)'steps': 12.*'steps': 13.*fix: give another folder"):
        study.record(Variant((1,)), 0, tmp_path / "records")


# ---------------------------------------------------------------------- many runs


def results_of(ranks_by_variant, seeds=3, users=200) -> Results:
    """Records in which every user of a variant has one rank, another one for every seed."""
    return Results(
        [
            made(variant, seed, [ranks[seed]] * users)
            for variant, ranks in ranks_by_variant.items()
            for seed in range(seeds)
        ]
    )


def test_scores_and_differences_by_hand():
    alone = QUESTIONS["tasks"]["1"]
    results = results_of({FULL: (1, 1, 3), alone: (3, 3, 0)})
    scores = results.scores(QUESTIONS["tasks"]).set_index("variant")
    assert scores.index.tolist() == ["1", "1-8"], "variants that were not run are left out"
    assert scores.loc["1-8", "values"] == [1.0, 1.0, 0.5]
    assert scores.loc["1-8", "mean"] == pytest.approx(5 / 6)
    half = 4.302652729911275 * np.std([1, 1, 0.5], ddof=1) / 3**0.5
    assert scores.loc["1-8", "high"] == pytest.approx(5 / 6 + half)
    found = results.difference(alone)
    assert found["difference"] == pytest.approx(-0.5)
    assert found["relative"] == pytest.approx(-0.6)
    assert (found["seeds"], found["outcome"]) == (3, "worse")
    assert found["seeds low"] == found["seeds high"] == pytest.approx(-0.5)
    assert results.difference(FULL, alone)["outcome"] == "better"
    recalls = results.difference(alone, metric="recall@10")
    assert recalls["difference"] == pytest.approx(-1 / 3)
    assert recalls["outcome"] == "not clear", "one seed of three"
    table = results.differences(QUESTIONS["tasks"])
    assert table["variant"].tolist() == ["1"]


def test_a_difference_is_paired_by_seed_and_user():
    alone = QUESTIONS["tasks"]["1"]
    easy, hard = [1] * 10, [0] * 10
    full, other = [made(FULL, 0, easy + hard), made(FULL, 5, hard + easy)], made(alone, 5, hard + easy)
    results = Results([*full, other])
    assert results.seeds(FULL, alone) == [5]
    found = results.difference(alone)
    assert (found["difference"], found["users low"], found["users high"], found["seeds"]) == (0.0, 0.0, 0.0, 1)
    assert np.isnan(found["seeds low"])
    with pytest.raises(ValueError, match="no seed was run with both"):
        results.difference(QUESTIONS["noise"]["25 %"])


def test_one_seed_or_mixed_seeds_make_nothing_clear():
    alone = QUESTIONS["tasks"]["1"]
    assert results_of({FULL: (1,), alone: (0,)}, seeds=1).difference(alone)["outcome"] == "not clear"
    assert results_of({FULL: (1, 0, 1), alone: (0, 1, 0)}).difference(alone)["outcome"] == "not clear"


def decisive(*ranks):
    return results_of({FULL: (2, 2, 2), **{claim.variant: rank for claim, rank in zip(CLAIMS, ranks)}})


def test_the_verdict_follows_the_numbers():
    worse, same, better, unclear = (9, 9, 8), (2, 2, 2), (1, 1, 1), (1, 2, 9)
    said = conclusion(decisive(worse, worse, worse).claims())
    assert said.startswith("TriAlignGR's claim holds here")
    assert said.count("a clear loss") == 3
    said = conclusion(decisive(worse, same, better).claims())
    assert said.startswith(
        f"TriAlignGR's claim fails here: no cost of {CLAIMS[1].name} and of {CLAIMS[2].name}.\nLeaving tasks"
    )
    assert "NDCG@10 +0.0000 (+0.0%), not clear: a loss of 0% can't be excluded" in said
    assert said.count("a clear gain") == 1
    said = conclusion(decisive(worse, unclear, worse).claims())
    assert said.startswith(f"TriAlignGR's claim isn't shown here: no clear cost of {CLAIMS[1].name}.")
    wide = conclusion(decisive(worse, (1, 1, 0), worse).claims())
    assert "not clear: a loss of 100% can't be excluded" in wide  # there is no more to lose
    assert conclusion(results_of({FULL: (1, 1, 1)}).claims()).startswith("Not settled")
    one = results_of({FULL: (2,), **{claim.variant: (9,) for claim in CLAIMS}}, seeds=1)
    assert "isn't shown" in conclusion(one.claims())
    assert conclusion(one.claims()).count("one seed tells nothing of others") == 3


def test_records_of_different_studies_are_not_mixed(tmp_path):
    for other in ({"dataset": "square"}, {"settings": {"steps": 1}}, {"ranks": {name: [1] for name in RANKINGS}}):
        with pytest.raises(ValueError, match="different studies"):
            Results([made(FULL, 0, [1, 2]), replace(made(FULL, 1, [1, 2]), **other)])
    with pytest.raises(ValueError, match="no records"):
        Results.read(tmp_path)
    write_record(made(FULL, 0, [1, 2]), tmp_path)
    write_record(made(FULL, 1, [1, 2], date="2001-02-03"), tmp_path)
    told = provenance(Results.read(tmp_path).records)
    assert told["data set"] == "circle, 12 items, 2 users"
    assert told["runs"] == "2: 1 variants, seeds 0, 1"
    assert told["made"].startswith("2001-02-03 to ")


# ---------------------------------------------------------------------- figures


def test_figures_show_every_variant_as_plain_text():
    ranks = dict.fromkeys(distinct(), (2, 3, 4)) | {QUESTIONS["noise"]["100 %"]: (9, 10, 12)}
    results = results_of(ranks)
    lines = score_lines({"a": results.scores(QUESTIONS["tasks"])}, "tasks", popularity=results.popularity)
    assert [text.get_text() for text in lines.axes[0].get_xticklabels()] == list(QUESTIONS["tasks"])
    assert [text.get_text() for text in lines.legends[0].get_texts()] == ["a", "popularity"]
    dots = score_dots(results.scores(QUESTIONS["sids"]).replace("new SID, all 8 tasks", "$x$ & _y"))
    assert [text.get_text() for text in dots.axes[0].get_yticklabels()][2] == "$x$ & _y"
    dots.canvas.draw()
    claims = results.claims()
    figure = difference_dots(claims)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == claims["what"].tolist()
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == [f"{row.difference:+.4f} ({row.relative:+.0%})" for row in claims.itertuples()]
    assert [text.get_text() for text in figure.legends[0].get_texts()][2:] == list(OUTCOMES)
