"""The made catalogue: deterministic, true to its attributes, and responsive to its knobs."""

import hashlib
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trialign.datasets.atelier import (
    ATTRIBUTES,
    INTERESTS,
    KINDS,
    Habits,
    contact_sheet,
    draw_item,
    draw_items,
    load_truth,
    make_atelier,
    names,
)
from trialign.datasets.atelier.attributes import allowed, sample_attributes
from trialign.datasets.atelier.drawing_paint import TONES
from trialign.datasets.atelier.drawing_patterns import PATTERNS
from trialign.datasets.atelier.drawing_scenes import SCENES
from trialign.datasets.atelier.interests import MEETS, match, true_interests
from trialign.datasets.atelier.users import COMPLEMENTS, k_core


def _values(name: str) -> tuple[str, ...]:
    return ATTRIBUTES[name].values  # noqa: PD011 - not a frame


@pytest.fixture(scope="module")
def tables():
    return make_atelier(images=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    made = make_atelier(items=60, users=160, seed=3, image_size=64, threads=1)
    return made, made.save(tmp_path_factory.mktemp("atelier"))


def _bytes(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def test_same_seed_same_bytes_and_another_seed_another_catalogue():
    first, again = (make_atelier(items=80, users=200, seed=5, images=False) for _ in range(2))
    other = make_atelier(items=80, users=200, seed=6, images=False)
    for table in (lambda a: a.items, lambda a: a.interactions, lambda a: a.truth.items, lambda a: a.truth.users):
        assert _bytes(table(first)) == _bytes(table(again))
    assert _bytes(first.items) != _bytes(other.items)
    assert _bytes(first.interactions) != _bytes(other.interactions)


def test_pictures_are_the_same_with_one_process_and_with_two():
    one, attributes = draw_items(18, seed=2, side=64, threads=1)
    two, again = draw_items(18, seed=2, side=64, threads=2)
    pd.testing.assert_frame_equal(attributes, again)
    assert [image.tobytes() for image in one] == [image.tobytes() for image in two]


def test_knobs_of_users_leave_the_products_as_they_are():
    items = {"items": 80, "users": 400, "images": False}
    calm, noisy = make_atelier(**items).truth.items, make_atelier(**items, noise=0.5, visual_share=0.1).truth.items
    both = calm.merge(noisy, on="item_id", suffixes=("", "_noisy"))
    assert len(both) > 60
    for name in ATTRIBUTES:
        assert (both[name] == both[f"{name}_noisy"]).all()


def test_everything_that_exists_can_be_drawn_and_chosen():
    assert set(TONES) == set(ATTRIBUTES["colour"].values)
    assert set(PATTERNS) == set(ATTRIBUTES["pattern"].values)
    assert set(SCENES) == set(ATTRIBUTES["scene"].values)
    assert set(COMPLEMENTS) == set(KINDS)
    assert {partner for pair in COMPLEMENTS.values() for partner in pair} <= set(KINDS)
    for interest in INTERESTS.values():
        for likes, places in ((interest.seen, names("image")), (interest.read, names("text", "both"))):
            for name, (weight, values) in likes.items():
                assert weight > 0 and name in places and set(values) <= set(_values(name))


def test_attributes_suit_their_kind(tables):
    for row in tables.truth.items.to_dict("records"):
        for name in ATTRIBUTES:
            assert row[name] in allowed(name, row["kind"], row["material"])
    assert not ((tables.truth.items["material"] == "wool") & (tables.truth.items["feature"] == "vegan")).any()


def test_texts_tell_text_attributes_and_never_image_attributes(tables):
    hidden = {word for name in names("image") for value in _values(name) for word in value.split()}
    texts = tables.items[["title", "description", "brand", "category"]].agg(" ".join, axis=1).str.lower()
    for text, truth in zip(texts, tables.truth.items.to_dict("records"), strict=True):
        assert not hidden & set(re.findall(r"[a-z]+", text)), text
        for name in names("text", "both"):
            assert truth[name].lower() in text, (name, text)


def test_texts_tell_no_other_value_of_a_text_attribute(tables):
    for text, truth in zip(tables.items["description"], tables.truth.items.to_dict("records"), strict=True):
        for name in ("use", "feature", "tier", "origin"):
            for value in _values(name):
                assert value == truth[name] or not re.search(rf"\b{value}\b", text), (value, text)


def test_titles_are_distinct_and_descriptions_short(tables):
    assert tables.items["title"].is_unique
    sentences = tables.items["description"].str.count(r"[.!?](?:\s|$)")
    assert sentences.between(1, 3).all()
    assert tables.items["description"].nunique() > 0.95 * len(tables.items)


def test_five_core_and_order(tables):
    history = tables.interactions
    assert history["user_id"].value_counts().min() >= 5
    assert history["item_id"].value_counts().min() >= 5
    assert set(history["item_id"]) == set(tables.items["item_id"])
    assert set(history["user_id"]) == set(tables.truth.users["user_id"])
    assert not history.duplicated(["user_id", "item_id"]).any()
    assert history["timestamp"].dtype == np.int64
    assert (history.groupby("user_id")["timestamp"].diff().dropna() > 0).all()
    assert history["user_id"].is_monotonic_increasing
    assert history["timestamp"].between(1_640_000_000, 1_900_000_000).all()


def test_size_of_the_default_catalogue(tables):
    assert 450 <= len(tables.items) <= 480
    assert tables.interactions["user_id"].nunique() == 1200
    assert 12_000 <= len(tables.interactions) <= 16_000
    assert tables.interactions.groupby("user_id").size().max() <= 25


def test_k_core_by_hand():
    # Item 3 has one user, so it goes; user "c" then has one item left and goes too.
    table = pd.DataFrame({"user": list("aabbcc"), "item": [1, 2, 1, 2, 1, 3], "timestamp": range(6)})
    kept = k_core(table, k=2)
    assert kept["user"].tolist() == list("aabb")
    assert kept["item"].tolist() == [1, 2, 1, 2]


def test_match_and_interests_by_hand():
    row = dict.fromkeys(ATTRIBUTES, "") | {"scene": "beach", "pattern": "waves", "colour": "coral", "tier": "luxury"}
    matched = match(pd.DataFrame([row]))
    place = {phrase: number for number, phrase in enumerate(INTERESTS)}
    assert matched.total[place["coastal living"], 0] == pytest.approx(3 / 4)
    assert matched.total[place["thoughtful gift giving"], 0] == pytest.approx(1.1 / 2.9)
    assert true_interests(matched) == [["coastal living"]]


def test_every_item_has_its_strongest_interests(tables):
    matched = match(tables.truth.items)
    phrases = list(INTERESTS)
    for item, own in enumerate(tables.truth.items["interests"]):
        shares = [matched.total[phrases.index(phrase), item] for phrase in own]
        assert 1 <= len(own) <= 4 and len(set(own)) == len(own)
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == matched.total[:, item].max()
        if len(own) > 1:
            assert min(shares) >= MEETS - 1e-9
    assert set(tables.truth.items["interests"].explode()) == set(phrases)


def test_users_have_two_or_three_interests_and_choose_by_them(tables):
    users = tables.truth.users
    assert users["interests"].str.len().isin([2, 3]).all()
    assert 0.2 < (users["drift"] != "").mean() < 0.4
    of_item = tables.truth.items.set_index("item_id")["interests"].map(set)
    of_user = users.set_index("user_id")["interests"].map(set)
    met = [
        bool(of_item[i] & of_user[u]) for u, i in zip(tables.interactions["user_id"], tables.interactions["item_id"])
    ]
    shuffled = tables.interactions["item_id"].sample(frac=1, random_state=0)
    by_chance = [bool(of_item[i] & of_user[u]) for u, i in zip(tables.interactions["user_id"], shuffled)]
    assert np.mean(met) > 1.5 * np.mean(by_chance)


def _dependence(made, where: str) -> float:
    """How much more often two items of one user share an attribute value than two items of different users."""
    history = made.interactions.merge(made.truth.items, on="item_id")
    excess = []
    for name in names(where):
        counts = pd.crosstab(history["user_id"], history[name]).to_numpy(float)
        size = counts.sum(axis=1)
        same = ((counts * (counts - 1)).sum(axis=1) / (size * (size - 1))).mean()
        overall = counts.sum(axis=0) / counts.sum()
        excess.append(same - (overall**2).sum())
    return float(np.mean(excess))


def test_visual_share_moves_preference_from_texts_to_images():
    read, mixed, seen = (make_atelier(images=False, users=500, visual_share=share) for share in (0.0, 0.5, 1.0))
    assert _dependence(read, "image") < 0.25 * _dependence(seen, "image")
    assert _dependence(seen, "text") < 0.25 * _dependence(read, "text")
    assert _dependence(read, "image") < _dependence(mixed, "image") < _dependence(seen, "image")
    assert _dependence(seen, "text") < _dependence(mixed, "text") < _dependence(read, "text")


def test_noise_and_length_do_what_they_say():
    steady, noisy = (make_atelier(images=False, users=500, noise=share) for share in (0.0, 0.9))
    assert _dependence(noisy, "image") < 0.3 * _dependence(steady, "image")
    for mean in (7.0, 18.0):
        made = make_atelier(images=False, items=120, users=500, mean_length=mean)
        assert made.interactions.groupby("user_id").size().mean() == pytest.approx(mean, rel=0.06)


def test_the_next_item_follows_the_last_one(tables):
    """Neighbours in a history share colour more often than items of the same user that are far apart."""
    rows = tables.interactions.merge(tables.truth.items, on="item_id").sort_values(["user_id", "timestamp"])
    by_user = rows.groupby("user_id")["colour"]
    close = (rows["colour"] == by_user.shift(1))[by_user.cumcount() >= 5].mean()
    far = (rows["colour"] == by_user.shift(5))[by_user.cumcount() >= 5].mean()
    assert close > 1.15 * far


def test_popularity_is_skewed(tables):
    counts = tables.interactions["item_id"].value_counts().to_numpy()
    assert counts[: len(counts) // 5].sum() > 0.35 * counts.sum()


def test_pictures_are_all_different(small):
    made, _ = small
    assert len({image.tobytes() for image in made.images}) == len(made.images)
    thumbs = np.stack([np.asarray(image.resize((16, 16)), float).ravel() for image in made.images])
    gaps = np.abs(thumbs[:, None] - thumbs[None]).mean(axis=-1) + 255 * np.eye(len(thumbs))
    assert gaps.min() > 2


@pytest.mark.parametrize("name", ["colour", "pattern", "scene", "silhouette", "material", "kind"])
def test_every_image_attribute_changes_the_picture(name):
    row = {"kind": "mug", "material": "ceramic", "colour": "teal", "pattern": "plain", "scene": "studio"}
    row["silhouette"] = "slender"
    pictures = {draw_item(row | {name: value}, seed=1, side=64).tobytes() for value in _values(name)}
    assert len(pictures) == len(_values(name))


@pytest.mark.parametrize("kind", KINDS)
def test_the_product_has_its_colour_and_stands_inside_the_picture(kind):
    row = sample_attributes(14, np.random.default_rng(0)).set_index("kind").loc[kind].to_dict() | {"kind": kind}
    row |= {"pattern": "plain", "scene": "studio"}
    coral, navy = (np.asarray(draw_item(row | {"colour": tone}, seed=4), float) for tone in ("coral", "navy"))
    changed = np.abs(coral - navy).sum(axis=2) > 60
    assert changed.mean() > 0.04
    assert (
        (coral[changed][:, 0] - coral[changed][:, 2]).mean() > 30 > (navy[changed][:, 0] - navy[changed][:, 2]).mean()
    )
    border = np.concatenate([changed[0], changed[:, 0], changed[:, -1], changed[-1]])
    assert border.mean() < 0.02


@settings(max_examples=25)
@given(st.integers(0, 2**31 - 1), st.data())
def test_any_combination_can_be_drawn(seed, data):
    row = sample_attributes(1, np.random.default_rng(seed)).iloc[0].to_dict()
    row["kind"] = data.draw(st.sampled_from(list(KINDS)))
    row["material"] = data.draw(st.sampled_from(KINDS[row["kind"]].materials))
    image = draw_item(row, seed, side=48)
    assert image.mode == "RGB" and image.size == (48, 48)
    assert np.asarray(image).std() > 5


def test_saved_folder_is_a_catalogue(small):
    catalogue = pytest.importorskip("trialign.catalogue")
    made, folder = small
    loaded = catalogue.Catalogue.load(folder)
    assert loaded.n_items == len(made.items)
    assert loaded.titles == made.items["title"].tolist()
    assert loaded.open_image(0).size == (64, 64)
    assert len(loaded.interactions) == len(made.interactions)


def test_truth_round_trip(small):
    made, folder = small
    truth = load_truth(folder)
    pd.testing.assert_frame_equal(truth.items, made.truth.items)
    pd.testing.assert_frame_equal(truth.users, made.truth.users)
    assert truth.attributes == ATTRIBUTES
    assert set(truth.interests) == set(INTERESTS)
    assert json.loads((folder / "catalogue.json").read_text()) == {"name": "atelier", "images_root": "."}


def test_load_truth_of_a_real_catalogue_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"truth.items\.parquet"):
        load_truth(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visual_share": 1.2}, "visual_share"),
        ({"noise": -0.1}, "noise"),
        ({"mean_length": 3}, "mean_length"),
        ({"items": 0}, "items"),
        ({"image_size": 8}, "image_size"),
        ({"items": 480, "users": 5}, "5-core"),
    ],
)
def test_bad_knobs_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_atelier(**{"images": False, "items": 40, "users": 60} | options)


def test_habits_reject_bad_shares():
    with pytest.raises(ValueError, match="stay"):
        Habits(stay=2)


def test_contact_sheet_lays_out_rows():
    tiles = [Image.new("RGB", (10, 10), colour) for colour in ("red", "lime", "blue")]
    sheet = contact_sheet(tiles, columns=2, gap=2)
    assert sheet.size == (26, 26)
    assert [sheet.getpixel(at) for at in ((7, 7), (19, 7), (7, 19), (19, 19))] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]
    with pytest.raises(ValueError, match="no images"):
        contact_sheet([])


def test_shipped_draw_is_small_and_is_what_the_code_makes(pytestconfig, tables):
    folder = pytestconfig.rootpath / "data" / "atelier"
    if not (folder / "items.parquet").is_file():
        pytest.skip("data/atelier is not in this checkout")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < 8_000_000
    shipped = pd.read_parquet(folder / "items.parquet")
    columns = ["item_id", "title", "description", "brand", "category"]
    pd.testing.assert_frame_equal(shipped[columns], tables.items[columns])
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "interactions.parquet"), tables.interactions)
    pd.testing.assert_frame_equal(load_truth(folder).items, tables.truth.items)
    digests = {hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in shipped["image"]}
    assert len(digests) == len(shipped) == len(list((folder / "images").iterdir()))
