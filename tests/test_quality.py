"""Captions and interests against a truth made by hand, and captions that must find their items."""

import pandas as pd
import pytest

from trialign.catalogue import Catalogue
from trialign.datasets.atelier import Attribute, Truth
from trialign.describe.quality import caption_accuracy, caption_retrieval, interest_agreement

ITEMS = pd.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "colour": ["red", "blue", "red", "green"],
        "brand": ["Halden", "Halden", "Moor", "Moor"],
        "kind": ["mug", "lamp", "lamp", "mug"],
        "interests": [["slow mornings"], ["night reading"], ["night reading"], ["slow mornings"]],
    }
)


@pytest.fixture
def truth() -> Truth:
    return Truth(
        items=ITEMS,
        users=pd.DataFrame({"user_id": ["u"], "interests": [["slow mornings"]]}),
        attributes={
            "colour": Attribute("image", ("red", "blue", "green")),
            "brand": Attribute("text", ("Halden", "Moor")),
            "kind": Attribute("both", ("mug", "lamp")),
        },
        interests={"slow mornings": "coffee and quiet", "night reading": "a book by lamplight"},
    )


def test_caption_accuracy_counts_whole_words_of_visible_attributes(truth: Truth) -> None:
    captions = {"a": "A red mug.", "b": "A bluebell by a lamp.", "c": "A Red lamp.", "d": "Something plain."}
    table = caption_accuracy(captions, truth).set_index("attribute")
    assert table.loc["colour", "accuracy"] == 0.5, "'bluebell' does not say blue; case does not matter"
    assert table.loc["kind", "accuracy"] == 0.75
    assert "brand" not in table.index, "what is only in the text is not asked of a caption"


def test_shuffled_captions_know_less(truth: Truth) -> None:
    many = pd.concat([ITEMS.assign(item_id=ITEMS["item_id"] + str(copy)) for copy in range(50)], ignore_index=True)
    captions = dict(zip(many["item_id"], "A " + many["colour"] + " " + many["kind"], strict=True))
    table = caption_accuracy(captions, Truth(many, truth.users, truth.attributes, truth.interests)).set_index(
        "attribute"
    )
    assert (table["accuracy"] == 1).all()
    assert table.loc["colour", "shuffled"] == pytest.approx((0.5**2 + 2 * 0.25**2), abs=0.1)


def test_interest_agreement_of_true_tags_is_one_and_of_swapped_tags_is_zero(truth: Truth) -> None:
    true = dict(zip(ITEMS["item_id"], ITEMS["interests"], strict=True))
    swapped = {"a": true["b"], "b": true["a"], "c": true["a"], "d": true["b"]}
    assert interest_agreement(true, truth).set_index("interest").loc["all", "auc"] == 1
    assert interest_agreement(swapped, truth).set_index("interest").loc["all", "auc"] == 0


def test_items_without_tags_are_left_out(truth: Truth) -> None:
    tags = {"a": ["slow mornings"], "b": ["night reading"], "c": [], "d": ["slow mornings"]}
    table = interest_agreement(tags, truth).set_index("interest")
    assert table.loc["all", "items"] == 3
    assert table.loc["night reading", "items"] == 1


def test_a_caption_that_says_what_the_text_says_finds_its_item(tmp_path) -> None:
    titles = ["Espresso cups of white porcelain", "Trail running shoes", "Acoustic guitar strings", "Garden hose"]
    items = pd.DataFrame({"item_id": list("abcd"), "title": titles, "image": ""})
    interactions = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]})
    catalogue = Catalogue.from_tables(items, interactions, tmp_path, "tiny")
    good = {"a": "small coffee cups", "b": "a pair of sneakers for running", "c": "strings of a guitar", "d": "a hose"}
    table = caption_retrieval(catalogue, {"good": good, "useless": dict.fromkeys("ab", "an item")}).set_index(
        "captions by"
    )
    assert table.loc["good", "recall@1"] == 1
    assert table.loc["good", "mrr"] == 1
    assert table.loc["useless", "items"] == 2, "only items that have a caption count"
    assert table.loc["useless", "recall@1"] <= 0.5, "one caption for two items finds at most one of them"
