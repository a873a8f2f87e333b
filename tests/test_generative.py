"""The generative recipe of the results page: members with semantic IDs of their own, and the mean of their searches."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from trialign.catalogue import Catalogue
from trialign.checkpoints import Checkpoint
from trialign.split import leave_one_out

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
generative = importlib.import_module("generative")

ITEMS = 24
SMALL = generative.Recipe(codebook_sizes=(4, 4, 4), hidden=16, layers=1, heads=2, passes=2, batch_tokens=200)
OURS = replace(generative.TRIALIGN, recipe=SMALL)


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """Users who walk through the items in a circle; the vectors of the items are random, so no model is read."""
    items = pd.DataFrame({"item_id": [f"i{row}" for row in range(ITEMS)], "title": ["thing"] * ITEMS})
    rows = [(f"u{user}", f"i{(user + step) % ITEMS}", step) for user in range(30) for step in range(8)]
    vectors = np.random.default_rng(0).normal(size=(ITEMS, 40)).astype(np.float32)
    monkeypatch.setattr(generative, "item_vectors", lambda catalogue, split, recipe: vectors)
    return Catalogue(items, pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), tmp_path, "circle")


class Lists:
    """A recommender with given lists and probabilities, which counts how often it is asked."""

    def __init__(self, items, probabilities):
        self.found = SimpleNamespace(items=np.array([items]), log_probabilities=np.log([probabilities]))
        self.asked = 0

    def recommend(self, histories, *, beams, top_k):
        self.asked += 1
        return self.found


def test_searches_are_averaged_by_hand():
    one, two = Lists([7, 3, 5], [0.5, 0.2, 0.1]), Lists([3, 9, -1], [0.4, 0.3, 1.0])
    search = generative.AveragedSearch([one, two])
    histories = [np.array([3])]
    # The sums are 3: .6, 7: .5, 9: .3, 5: .1; what is -1 is no item, however probable.
    assert search(histories, 5, False).tolist() == [[3, 7, 9, 5, -1]]
    assert search(histories, 2, True).tolist() == [[7, 9]]
    assert (one.asked, two.asked) == (1, 1)


def test_members_have_semantic_ids_of_their_own_and_finished_ones_are_loaded(catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr(generative, "TRAININGS", tmp_path)
    split = leave_one_out(catalogue)
    both, again = ([generative.train_member(catalogue, split, OURS, 0, member) for member in (0, 1)] for _ in range(2))
    first, second = (member.recommender.sids for member in both)
    assert (first.codes != second.codes).any()
    for sids in (first, second):
        assert len(np.unique(sids.codes, axis=0)) == ITEMS, "no two items share one"
    assert [member.cpu_seconds for member in again] == [member.cpu_seconds for member in both]
    histories = split.histories("validation")
    lists = [
        generative.AveragedSearch([member.recommender for member in members], beams=8)(histories, 5, False)
        for members in (both, again)
    ]
    np.testing.assert_array_equal(*lists)
    assert (lists[0] >= 0).all()
    with pytest.raises(ValueError, match="another recipe"):
        generative.train_member(catalogue, split, replace(OURS, recipe=replace(SMALL, passes=3)), 0, 1)


def test_seconds_before_a_kill_are_counted(catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr(generative, "TRAININGS", tmp_path)
    split, folder = leave_one_out(catalogue), tmp_path / "circle/qwen3-seed0-member0"
    generative.train_member(catalogue, split, OURS, 0, 0)
    (folder / "training.json").unlink()  # as if it had been killed between the last checkpoint and its record
    before = Checkpoint.latest(folder / "checkpoint").scalars["seconds"]
    state = next((folder / "checkpoint").glob("step-*/state.json"))
    state.write_text(state.read_text().replace(json.dumps(before), json.dumps(before + 1000)))
    assert 1000 < generative.train_member(catalogue, split, OURS, 0, 0).cpu_seconds < 1100


def test_tiger_trains_on_codes_with_a_suffix_and_its_passes_go_over_targets(catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr(generative, "TRAININGS", tmp_path)
    split = leave_one_out(catalogue)
    recipe = replace(generative.TIGER.recipe, codebook_sizes=(2, 2), hidden=12, layers=1, heads=2, batch_tokens=500)
    trained = generative.train_member(catalogue, split, replace(generative.TIGER, recipe=recipe), 0, 0)
    sids = trained.recommender.sids
    assert sids.codes.shape[1] == 3 and (sids.codes[:, 2] > 0).any(), "24 items share 4 pairs of codes: a suffix"
    lists = generative.AveragedSearch([trained.recommender], beams=8)(split.histories("test"), 5, False)
    assert lists.shape == (30, 5) and (lists >= 0).all()
    # Each of 30 users has five train targets, after one to five items: on average a prompt, three items and the target.
    tokens = len(trained.recommender.prompt([])) + 4 * 3
    steps = json.loads((tmp_path / "circle/tiger-seed0-member0/training.json").read_text())["steps"]
    assert steps == pytest.approx(recipe.passes * 30 * 5 * tokens / 500, abs=1)
