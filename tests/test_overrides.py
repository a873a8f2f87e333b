"""What people say of a model's answers: kept, applied, measured, and never lost."""

import multiprocessing

import pandas as pd
import pytest

from trialign.describe.overrides import Overrides, agreement, answer_key, kappa
from trialign.explore.desk import export_descriptions

CAPTIONS = pd.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "caption": ["A red mug.", "A blue hat.", "A lamp.", "A bowl."],
        "model": "m",
        "source": "made",
        "error": "",
    }
)
INTERESTS = pd.DataFrame(
    {"item_id": ["a", "b"], "interests": [["calm", "tea time"], ["sun", "sea air"]], "model": "m", "source": "made"}
)


def key(row, table=CAPTIONS, column="caption"):
    return answer_key("m", table[column][row])


@pytest.fixture
def overrides(tmp_path):
    return Overrides(tmp_path / "judgements.jsonl")


def test_edits_and_rejections_are_applied_and_the_answers_stay(overrides):
    overrides.add("a", "caption", key(0), "edited", "ann", "A scarlet mug.", "the colour")
    overrides.add("b", "caption", key(1), "rejected", "ann")
    overrides.add("c", "caption", key(2), "accepted", "ann")
    out = overrides.apply(CAPTIONS, "caption")
    assert out["caption"].tolist() == ["A scarlet mug.", "", "A lamp.", "A bowl."]
    assert out["source"].tolist() == ["edited by ann", "rejected by ann", "made", "made"]
    assert CAPTIONS["caption"][0] == "A red mug."


def test_tags_are_edited_under_the_rules_of_answers(overrides):
    answer = key(0, INTERESTS, "interests")
    overrides.add("a", "interest", answer, "edited", "ann", ["Slow Mornings", "tea time"])
    assert overrides.apply(INTERESTS, "interest")["interests"][0] == ["slow mornings", "tea time"]
    with pytest.raises(ValueError, match="1 distinct interests"):
        overrides.add("a", "interest", answer, "edited", "ann", ["calm"])
    with pytest.raises(ValueError, match="needs a name"):
        overrides.add("a", "interest", answer, "rejected", "  ")
    with pytest.raises(ValueError, match="unknown verdict"):
        overrides.add("a", "interest", answer, "liked", "ann")
    assert len(overrides.read()) == 1, "what was refused is not kept"


def test_the_latest_judgement_counts_and_all_are_kept(overrides):
    overrides.add("a", "caption", key(0), "rejected", "ann")
    overrides.add("a", "caption", key(0), "accepted", "bob")
    assert overrides.apply(CAPTIONS, "caption")["caption"][0] == "A red mug."
    assert [each.author for each in overrides.read()] == ["ann", "bob"]
    assert all(each.when.endswith("+00:00") for each in overrides.read())


def test_a_judgement_of_an_older_answer_is_not_applied(overrides):
    overrides.add("a", "caption", answer_key("m", "An older answer."), "rejected", "ann")
    assert overrides.apply(CAPTIONS, "caption")["caption"][0] == "A red mug."
    assert overrides.outdated(CAPTIONS, "caption") == ["a"]


def test_half_a_line_of_a_killed_process_costs_nothing_else(overrides):
    overrides.add("a", "caption", key(0), "rejected", "ann")
    whole = overrides.path.read_bytes()
    overrides.path.write_bytes(whole + whole[: len(whole) // 2])
    overrides.add("b", "caption", key(1), "rejected", "ann")
    with pytest.warns(UserWarning, match=r"lines \[2\]"):
        assert [each.item_id for each in overrides.read()] == ["a", "b"]


def _judge(path, name):
    for _ in range(50):
        Overrides(path).add("a", "caption", "0" * 64, "accepted", name)


def test_two_desks_at_once_lose_nothing(overrides):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_judge, args=(overrides.path, name)) for name in ("ann", "bob")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert pd.Series([each.author for each in overrides.read()]).value_counts().to_dict() == {"ann": 50, "bob": 50}


def test_agreement_by_hand(overrides):
    overrides.add("a", "caption", key(0), "edited", "ann", "A red cup.")
    overrides.add("b", "caption", key(1), "rejected", "ann")
    overrides.add("c", "caption", key(2), "accepted", "ann")
    (row,) = agreement(CAPTIONS, overrides, "caption").to_dict("records")
    # {a, red, mug.} and {a, red, cup.} share 2 of 4 words.
    assert row == {
        "model": "m",
        "judged": 3,
        "accepted": pytest.approx(1 / 3),
        "edited": pytest.approx(1 / 3),
        "rejected": pytest.approx(1 / 3),
        "overlap": pytest.approx((0.5 + 0 + 1) / 3),
    }


def test_kappa_by_hand(overrides):
    verdicts = {"ann": ["accepted", "accepted", "rejected", "rejected"], "bob": ["accepted", "rejected"] * 2}
    for author, given in verdicts.items():
        for row, verdict in enumerate(given):
            overrides.add(CAPTIONS["item_id"][row], "caption", key(row), verdict, author)
    # They agree on 2 of 4, and both accept half: chance is .5 as well.
    assert kappa(overrides, "caption", "ann", "bob") == pytest.approx(0)
    assert kappa(overrides, "caption", "ann", "ann") == pytest.approx(1)
    assert pd.isna(kappa(overrides, "caption", "ann", "nobody"))


def test_answers_and_judgements_are_exported_side_by_side(overrides, tmp_path):
    overrides.add("a", "caption", key(0), "edited", "ann", "A scarlet mug.", "the colour")
    tables = {"caption": CAPTIONS, "interest": INTERESTS}
    for ending, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        out = read(export_descriptions(tmp_path / f"all{ending}", tables, overrides))
        row = out.iloc[0]
        assert (row["answer"], row["final"], row["author"], row["reason"]) == (
            "A red mug.", "A scarlet mug.", "ann", "the colour",
        )  # fmt: skip
        assert len(out) == 6
    with pytest.raises(ValueError, match="unknown ending"):
        export_descriptions(tmp_path / "all.xlsx", tables, overrides)
