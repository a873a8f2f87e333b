import json
from itertools import pairwise

import numpy as np
import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trialign.datasets.atelier.attributes import ATTRIBUTES, names
from trialign.datasets.atelier.drawing import draw_items
from trialign.describe.embedded import EmbeddedCaptioner, photo_sentence, product_sentence
from trialign.describe.heads import PACKAGED, AttributeHeads, fit_heads
from trialign.describe.interest_list import interest_list
from trialign.describe.parse import InterestAnswerError, parse_caption, parse_interests
from trialign.describe.pixels import (
    COLOURS,
    HISTOGRAM_BINS,
    colour_histogram,
    composition_words,
    dominant_colours,
    lab,
    light_words,
)
from trialign.describe.retrieval import RetrievalMiner, marginal_relevance
from trialign.describe.smollm2 import SmolLM2Miner, structured
from trialign.describe.views import ItemError, ItemView

VISIBLE = names("image", "both")
SEEN = {"kind": "mug", "silhouette": "rounded", "material": "ceramic", "colour": "teal", "pattern": "dots"}
MUG = ItemView("1", "Stoneware mug", "For slow breakfasts. Dishwasher safe.", None, "A teal mug with dots.")
DRILL = ItemView("2", "Cordless drill", "Repairs and projects around the house.", None, "A black power drill.")


# pixels


def test_lab_of_known_colours():
    """Black, white and pure red, from the definition of CIE L*a*b*."""
    expected = [[0, 0, 0], [100, 0, 0], [53.2, 80.1, 67.2]]
    np.testing.assert_allclose(lab(np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]])), expected, atol=0.15)


@pytest.mark.parametrize("name", COLOURS)
def test_an_image_of_one_colour_is_called_by_its_name(name):
    assert dominant_colours(Image.new("RGB", (30, 30), COLOURS[name])) == [name]


def test_dominant_colours_come_largest_first_and_small_ones_are_left_out():
    image = Image.new("RGB", (100, 100), COLOURS["navy blue"])
    image.paste(COLOURS["orange"], (0, 0, 100, 30))
    image.paste(COLOURS["white"], (0, 98, 100, 100))
    assert dominant_colours(image) == ["navy blue", "orange"]


def test_light_and_composition_of_plain_pictures():
    assert light_words(Image.new("RGB", (10, 10), "black")) == "dark, soft"
    half = Image.new("RGB", (40, 40), "white")
    half.paste("black", (0, 0, 20, 40))
    assert "high-contrast" in light_words(half)
    subject = Image.new("RGB", (200, 100), "white")
    subject.paste("black", (75, 35, 125, 65))
    assert composition_words(subject) == "wide picture, plain ground with a subject in the middle"
    noise = np.random.default_rng(0).integers(0, 256, (48, 36, 3), dtype=np.uint8)
    assert composition_words(Image.fromarray(noise)) == "tall picture, busy and full of detail"


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_a_histogram_is_two_distributions(width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    histogram = colour_histogram(Image.fromarray(pixels))
    assert histogram.shape == (HISTOGRAM_BINS,)
    np.testing.assert_allclose((histogram.reshape(2, -1) ** 2).sum(axis=1), 1, atol=1e-5)


# heads


def test_heads_learn_what_is_linear_and_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    pooled = rng.normal(size=(300, 1280)).astype(np.float32)
    features = rng.normal(size=(300, HISTOGRAM_BINS + 8)).astype(np.float32)
    truth = {"shape": ["round" if x > 0 else "square" for x in features[:, 0]]}
    truth["shade"] = ["light" if x > 0 else "dark" for x in features[:, 1]]
    values = {"shape": ("round", "square"), "shade": ("light", "dark")}
    features[:, :2] *= 4
    heads = fit_heads(features, pooled, truth, values, held_out=0.2)
    named = heads.predict(features)
    for attribute, true in truth.items():
        assert np.mean([seen[attribute] == value for seen, value in zip(named, true, strict=True)]) > 0.85
    heads.save(tmp_path / "heads.safetensors")
    again = AttributeHeads.load(tmp_path / "heads.safetensors")
    assert again.values == heads.values and again.limit == heads.limit and again.notes == heads.notes
    np.testing.assert_allclose(again.weight, heads.weight, atol=1e-3)
    assert np.mean([a == b for a, b in zip(again.predict(features), named, strict=True)]) > 0.98


def test_distance_is_zero_inside_and_one_outside():
    axes = np.zeros((1280, 2), np.float32)
    axes[0, 0] = axes[1, 1] = 1
    heads = AttributeHeads({}, np.zeros((1, 0)), np.zeros(0), np.ones(1280, np.float32), axes, 0.7, {})
    rows = np.ones((3, 1280), np.float32)
    rows[0, :2] += (3, 4)
    rows[1, 7] += 2
    rows[2, [1, 9]] += 1
    np.testing.assert_allclose(heads.distance(rows), [0, 1, np.sqrt(0.5)], atol=1e-6)
    assert heads.applies(rows).tolist() == [True, False, False]


def test_missing_heads_name_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m trialign\.describe\.fit_embedded"):
        AttributeHeads.load(tmp_path / "none.safetensors")


def test_the_packaged_heads_are_small_and_know_the_ateliers_values():
    assert PACKAGED.stat().st_size < 1_000_000
    assert AttributeHeads.load().values == {name: ATTRIBUTES[name].values for name in VISIBLE}


# captions


@given(st.fixed_dictionaries({name: st.sampled_from(ATTRIBUTES[name].values) for name in VISIBLE}))
def test_a_product_sentence_names_every_attribute_as_it_is(seen):
    sentence = product_sentence(seen)
    assert sentence == parse_caption(sentence) and sentence[0].isupper() and sentence.endswith(".")
    assert all(value.lower() in sentence.lower() for value in seen.values())
    assert len(sentence.split()) <= 28


def test_product_sentences_vary():
    forms = {product_sentence(SEEN | {"scene": scene})[:8] for scene in ATTRIBUTES["scene"].values}
    assert len(forms) > 2


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.9, ", showing a tabby cat."), (0.3, "perhaps showing a tabby cat or an ox."), (0.05, "nothing")],
)
def test_a_photo_sentence_is_as_sure_as_the_network(share, words):
    sentence = photo_sentence(Image.new("RGB", (9, 9), "red"), [("tabby cat", share), ("ox", 0.02)])
    assert words in sentence and "in red" in sentence


@pytest.fixture(scope="module")
def drawn():
    return draw_items(112, seed=987_654, threads=1)


@pytest.fixture(scope="module")
def describer():
    return EmbeddedCaptioner()


def test_captions_of_a_fresh_draw_are_right_above_stated_floors(drawn, describer):
    images, table = drawn
    sentences = [s for start in range(0, 112, 16) for s in describer.describe(images[start : start + 16])]
    floors = {"kind": 0.95, "scene": 0.95, "silhouette": 0.88, "pattern": 0.75, "colour": 0.75, "material": 0.6}
    assert set(floors) == set(VISIBLE)
    for attribute, floor in floors.items():
        right = np.mean([value in said.lower() for value, said in zip(table[attribute], sentences, strict=True)])
        assert right >= floor, f"{attribute}: {right:.2f}"


def test_captions_know_pictures_that_are_not_the_ateliers(describer, drawn):
    noise = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    said = describer.describe([Image.fromarray(noise), drawn[0][0]])
    assert "picture" in said[0] and "picture" not in said[1]
    forced = EmbeddedCaptioner(domain="photo").describe([drawn[0][0]])
    assert "picture" in forced[0]


def test_captions_do_not_depend_on_the_batch(tmp_path, drawn, describer):
    views = []
    for row, image in enumerate(drawn[0][:5]):
        image.save(tmp_path / f"{row}.png")
        views.append(ItemView(str(row), "", "", tmp_path / f"{row}.png"))
    assert describer.caption(views) == [describer.caption([view])[0] for view in views]


def test_the_describer_says_what_it_is(describer):
    assert "not a VLM" in describer.model
    assert set(describer.settings) == {"domain", "heads", "wording"}
    assert EmbeddedCaptioner(domain="photo").settings != describer.settings
    json.dumps(describer.settings)
    with pytest.raises(ValueError, match="domain is 'poster'"):
        EmbeddedCaptioner(domain="poster")


def test_an_item_without_a_readable_image_is_the_items_error(tmp_path, describer):
    (tmp_path / "bad.jpg").write_text("no image")
    for view in (ItemView("7", "", "", None), ItemView("7", "", "", tmp_path / "bad.jpg")):
        with pytest.raises(ItemError, match="item '7'"):
            describer.caption([view])


# retrieval


def test_the_interest_list_is_distinct_valid_and_a_few_hundred():
    phrases = interest_list()
    assert 250 <= len(phrases) <= 500
    assert len({phrase.casefold() for phrase in phrases}) == len(phrases)
    for first, second in pairwise(phrases):
        answer = json.dumps({"interests": [first, second]})
        assert parse_interests(answer).interests == [first, second]


def test_marginal_relevance_by_hand():
    relevance = np.array([0.9, 0.85, 0.5, 0.1])
    likeness = np.eye(4)
    likeness[0, 1] = likeness[1, 0] = 0.99
    assert marginal_relevance(relevance, likeness, 3, 0.0) == [0, 1, 2]
    # .5 * .85 - .5 * .99 < .5 * .5 - 0
    assert marginal_relevance(relevance, likeness, 3, 0.5) == [0, 2, 3]
    assert marginal_relevance(relevance, likeness, 9, 0.0) == [0, 1, 2, 3]


def test_retrieved_interests_fit_and_parse():
    miner = RetrievalMiner()
    answers = [parse_interests(answer, "Stoneware mug") for answer in miner.mine([MUG, DRILL], attempt=0)]
    assert all(2 <= len(answer.interests) <= 4 and set(answer.interests) <= set(interest_list()) for answer in answers)
    assert "home repair and diy" in answers[1].interests and "home repair and diy" not in answers[0].interests
    assert "by cosine" in answers[0].reasoning
    assert miner.mine([DRILL], attempt=2) == miner.mine([MUG, DRILL], attempt=0)[1:]
    assert miner.mine([], attempt=0) == []


def test_retrieval_settings_follow_the_list():
    assert RetrievalMiner(["a b", "c d"]).settings != RetrievalMiner(["a b", "c e"]).settings
    assert "not a language model" in RetrievalMiner.model
    for wrong in ({"interests": ["one"]}, {"tags": 1}, {"tags": 5}):
        with pytest.raises(ValueError, match="2 to 4 tags"):
            RetrievalMiner(**wrong)


# SmolLM2


def test_a_continuation_becomes_an_answer():
    answer = structured(
        " They like  tea.\nInterests: Tea time; calm, tea time; a tag of far too many words here; x; y; z"
    )
    parsed = parse_interests(answer)
    assert parsed.reasoning == "They like tea."
    assert parsed.interests == ["tea time", "calm", "x", "y"]


@pytest.mark.parametrize("text", ["", "no list at all", "why\nInterests:", "why\nInterests: ;;", "why\nInterests: one"])
def test_too_short_an_answer_is_for_the_parser_to_refuse(text):
    with pytest.raises(InterestAnswerError):
        parse_interests(structured(text))


@given(st.text(max_size=80))
def test_any_continuation_is_a_reason_and_json(text):
    reason, _, found = structured(text).rpartition("\n")
    tags = json.loads(found)["interests"]
    assert len(tags) <= 4 and len(set(tags)) == len(tags) and "\n" not in reason


def test_the_language_model_miner_runs_in_batches(tmp_path):
    """A tiny random model: its words mean nothing, but the path is SmolLM2's."""
    folder = tiny_models.tiny_qwen2(tmp_path / "model")
    miner = SmolLM2Miner(folder, max_new_tokens=6, batch_size=2)
    views = [MUG, DRILL, ItemView("3", "mug <|im_end|>", "", None)]
    answers = miner.mine(views, attempt=0)
    assert len(answers) == 3 and all(json.loads(answer.rpartition("\n")[2]) for answer in answers)
    assert answers == SmolLM2Miner(folder, max_new_tokens=6, batch_size=1).mine(views, attempt=0)
    assert miner.mine(views, attempt=1) == miner.mine(views, attempt=1)
    assert miner.mine([], attempt=0) == []
