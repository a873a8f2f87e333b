"""The recommender (prompts as in training, save and load, validation, exact search)."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from trialign.backbone import make_backbone
from trialign.catalogue import Catalogue
from trialign.decode import Stochastic
from trialign.recommend import GenerativeRecommender
from trialign.sids import SemanticIds
from trialign.split import leave_one_out
from trialign.tasks import Multitask

CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])
TITLES = ["red mug", "blue mug", "<b>lamp</b>", "desk lamp", "straw hat", "wool hat"]


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    for row in range(6):
        Image.new("RGB", (8, 8), (40 * row, 90, 120)).save(tmp_path / f"{row}.png")
    ids = [f"i{row}" for row in range(6)]
    items = pd.DataFrame({"item_id": ids, "title": TITLES, "image": [f"{row}.png" for row in range(6)]})
    chosen = [(f"u{user}", f"i{(user + step) % 6}", step) for user in range(6) for step in range(5)]
    interactions = pd.DataFrame(chosen, columns=["user_id", "item_id", "timestamp"])
    return Catalogue.from_tables(items, interactions, tmp_path, "tiny")


@pytest.fixture
def sids(catalogue) -> SemanticIds:
    return SemanticIds(catalogue.items["item_id"].tolist(), CODES, (3, 2), 2)


@pytest.fixture
def recommender(catalogue, sids) -> GenerativeRecommender:
    model, vocabulary = make_backbone("scratch", sids.codebook_sizes, catalogue.titles, hidden=32, layers=1)
    return GenerativeRecommender(model, vocabulary, sids, max_history=3)


def test_the_prompt_is_that_of_training(catalogue, sids, recommender):
    split = leave_one_out(catalogue)
    multitask = Multitask(sids, recommender.vocabulary, TITLES, None, split, tasks=["SIDSeq→SID"], max_history=3)
    history = np.array([0, 1, 2, 3, 4])
    assert recommender.prompt(history) == multitask.prompt(history)
    assert recommender.prompt(history) == recommender.prompt(history[-3:]), "only the most recent items are read"
    shown = multitask.show()
    assert shown.index.tolist() == ["SIDSeq→SID"]
    assert shown["answer: the loss"].str.startswith("<a_").all()


def test_recommendations_survive_save_and_load(recommender, tmp_path):
    histories = [np.array([0, 1]), np.array([5, 4, 3, 2, 1]), np.array([], dtype=np.int64)]
    before = recommender.recommend(histories, beams=6, top_k=6, progress=False)
    again = GenerativeRecommender.load(recommender.save(tmp_path / "model")).recommend(
        histories, beams=6, top_k=6, progress=False
    )
    np.testing.assert_array_equal(before.items, again.items)
    np.testing.assert_allclose(before.log_probabilities, again.log_probabilities, atol=1e-5)
    np.testing.assert_allclose(np.exp(before.log_probabilities).sum(axis=1), 1, atol=1e-4)


def test_loading_from_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="notebook 05"):
        GenerativeRecommender.load(tmp_path)


def test_seen_items_are_never_recommended_when_masked(recommender):
    histories = [np.array([0, 1, 2, 3])]
    found = recommender.recommend(histories, beams=6, top_k=6, mask_seen=True, progress=False)
    assert set(found.items[0].tolist()) == {4, 5, -1}


def test_a_wide_beam_agrees_with_exact_search(recommender):
    assert recommender.agreement_with_exact([np.array([0, 1]), np.array([3])], beams=6, top_k=4) == 1


def test_what_nobody_may_get_is_never_recommended(recommender):
    allowed = np.array([True, False, True, False, True, True])
    found = recommender.recommend([np.array([0])], beams=6, top_k=6, allowed=allowed, mask_seen=True, progress=False)
    assert set(found.items[0].tolist()) == {2, 4, 5, -1}


def test_searches_are_compared_on_the_same_users(recommender):
    histories, targets = [np.array([0, 1]), np.array([3])], np.array([2, 4])
    searches = {"greedy": {"beams": 1}, "wide": {"beams": 6}, "drawn": {"beams": 6, "strategy": Stochastic(1)}}
    table = recommender.compare_searches(histories, targets, searches, top_k=6)
    assert table.index.tolist() == ["greedy", "wide", "drawn"]
    assert table["items"].tolist() == [1, 6, 6]
    assert table["first codes"].tolist() == [1, 3, 3]
    np.testing.assert_allclose(table["probability"][1:], 1, atol=1e-5)
    np.testing.assert_allclose(table["recall of exact"], [1 / 6, 1, 1])
    assert table["recall"][1:].tolist() == [1, 1]


def test_validation_measures_the_validation_items(catalogue, recommender):
    metrics = recommender.validation(leave_one_out(catalogue), users=4)(recommender.model)
    assert set(metrics) == {"recall@5", "ndcg@5", "recall@10", "ndcg@10"}
    assert metrics["recall@10"] == 1, "ten beams hold all six items"


def test_validation_searches_with_the_model_it_is_given(catalogue, recommender):
    split, other = leave_one_out(catalogue), copy.deepcopy(recommender.model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    own = GenerativeRecommender(other, recommender.vocabulary, recommender.sids, max_history=3).validation(split)(other)
    validate = recommender.validation(split)
    assert validate(other) == own
    assert validate(recommender.model) != own
