"""Recorded descriptions, the factories, and the views of a catalogue."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import trialign
from trialign.catalogue import Catalogue
from trialign.datasets import load
from trialign.describe import (
    DescriptionCache,
    ItemError,
    ItemView,
    caption_items,
    captioner,
    item_views,
    load_image,
    mine_interests,
    miner,
)
from trialign.describe.parse import parse_interests
from trialign.describe.recorded import SHIPPED, Recording

LINES = [
    {"movieId": "7", "caption": "A red mug.", "interests": ["slow mornings", "quiet design"]},
    {"item_id": "8", "caption": "", "interests": ["one thing"], "reasoning": "Thin."},
]


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "films" / "descriptions.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (path.parent / "README.txt").write_text("Made by a large model.")
    return path


@pytest.fixture
def views(tmp_path):
    Image.new("RGB", (8, 8), "tomato").save(tmp_path / "7.png")
    Image.new("RGB", (8, 8), "navy").save(tmp_path / "8.png")
    return [ItemView(name, f"Title {name}", "", tmp_path / f"{name}.png") for name in "78"]


def test_a_readme_is_provenance_enough(recording, views, tmp_path):
    backend = captioner(f"recorded:{recording}")
    assert backend.model == "recorded, see films/README.txt"
    assert backend.provenance == "Made by a large model."
    assert backend.caption(views[:1]) == ["A red mug."]
    with DescriptionCache(tmp_path / "c.sqlite") as cache:
        with pytest.warns(UserWarning, match="1 of 2 items have no captions"):
            table = caption_items(views, backend, cache, progress=False)
        assert table["source"].tolist() == ["made", "failed"]
        assert table["error"].tolist() == ["", "descriptions.jsonl has no caption of item '8'"]
        with pytest.warns(UserWarning, match="1 distinct interests"):
            mined = mine_interests(views, miner(f"recorded:{recording}"), cache, progress=False)
        assert mined["interests"].tolist() == [["slow mornings", "quiet design"], []]
        assert set(table["model"]) == {backend.model}


def test_unknown_items(recording):
    stranger = ItemView("9", "Nobody", "", None)
    with pytest.raises(ItemError, match="no caption of item '9'"):
        captioner(f"recorded:{recording}").caption([stranger])
    with pytest.raises(ItemError, match="no interests of item '9'"):
        miner(f"recorded:{recording}").mine([stranger], 0)


def test_without_provenance_it_is_refused(recording):
    (recording.parent / "README.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"put descriptions\.provenance\.json or a README"):
        Recording.read(recording)


def test_a_provenance_names_the_model(recording):
    beside = recording.with_name("descriptions.provenance.json")
    beside.write_text(json.dumps({"captions": {"model": "big-vlm"}, "interests": {}}))
    with pytest.raises(ValueError, match='"interests" has no "model"'):
        Recording.read(recording)
    beside.write_text(json.dumps({"captions": {"model": "big-vlm"}, "interests": {"model": "big-llm"}}))
    assert (captioner(f"recorded:{recording}").model, miner(f"recorded:{recording}").model) == ("big-vlm", "big-llm")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 3: "),
        ("[]", "line 3: not an object with item_id"),
        ('{"caption": "A mug."}', "line 3: not an object with item_id"),
        ('{"item_id": "7"}', "line 3: item '7' was described before"),
        ('{"item_id": "9", "caption": null}', "line 3: caption and reasoning of item '9' must be text"),
        ('{"item_id": "9", "interests": "calm"}', "line 3: interests of item '9' must be a list of text"),
    ],
)
def test_bad_lines_are_named(recording, line, problem):
    with recording.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=rf"descriptions\.jsonl, {problem}"):
        Recording.read(recording)


def test_names_resolve_and_choices_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIALIGN_DATA", str(tmp_path))
    monkeypatch.setitem(SHIPPED, "made-up", "made-up-folder")
    with pytest.raises(FileNotFoundError, match="no descriptions of made-up: looked for"):
        captioner("recorded:made-up")
    (tmp_path / "made-up-folder").mkdir()
    (tmp_path / "made-up-folder" / "descriptions.jsonl").write_text(json.dumps(LINES[0]))
    (tmp_path / "made-up-folder" / "README.md").write_text("Made up.")
    assert captioner("recorded:made-up").provenance == "Made up."
    with pytest.raises(FileNotFoundError, match=r"neither a file of descriptions nor a data set that has one \(movie"):
        miner("recorded:nothing.jsonl")
    for make, name in ((captioner, "smollm2"), (captioner, "recorded:"), (miner, "gpt"), (miner, "hub")):
        with pytest.raises(ValueError, match=rf"called '{name}'; the choices are embedded, "):
            make(name)
    with pytest.raises(ValueError, match="names no model and address"):
        captioner("server:qwen")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_descriptions_are_valid(name):
    path = Path(trialign.__file__).parents[1] / "data" / SHIPPED[name] / "descriptions.jsonl"
    if not path.is_file():
        pytest.skip(f"data/{SHIPPED[name]} is not here: the package is installed without its project")
    recording = Recording.read(name)
    assert len(recording.items) > 300
    assert all(2 <= len(item.interests) <= 4 for item in recording.items.values())
    assert recording.provenance


def test_views_of_a_catalogue(tmp_path):
    Image.new("RGB", (8, 8), "tomato").save(tmp_path / "1.png")
    items = pd.DataFrame(
        {
            "item_id": ["1", "2"],
            "title": ["Mug", "Cup"],
            "brand": ["Aa", ""],
            "description": ["A mug.", ""],
            "image": ["1.png", ""],
        }
    )
    interactions = pd.DataFrame({"user_id": ["u"], "item_id": ["1"], "timestamp": [1]})
    catalogue = Catalogue(items=items, interactions=interactions, root=tmp_path, name="two")
    mug, cup = item_views(catalogue, {"1": "A red mug."})
    assert mug == ItemView("1", "Mug", "A mug.\nbrand: Aa", tmp_path / "1.png", "A red mug.")
    assert cup == ItemView("2", "Cup", "", None, "")
    assert load_image(mug).getpixel((0, 0)) == (255, 99, 71)
    with pytest.raises(ItemError, match="item '2' has no image"):
        load_image(cup)
    (tmp_path / "1.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(ItemError, match=r"image 1\.png of item '1' can't be read"):
        load_image(mug)


def test_the_shipped_descriptions_of_atelier_are_what_the_embedded_models_say():
    every = item_views(load("atelier"))
    views = [every[row] for row in (0, 150, 300, 466)]
    recorded = captioner("recorded:atelier").caption(views)
    assert captioner("embedded").caption(views) == recorded, "remake them: trialign data describe atelier"
    seen = [replace(view, caption=caption) for view, caption in zip(views, recorded, strict=True)]
    said, kept = (
        [parse_interests(answer, view.title).interests for answer, view in zip(who.mine(seen, 0), seen, strict=True)]
        for who in (miner("embedded"), miner("recorded:atelier"))
    )
    assert said == kept
