"""What the campaign of repeats covers, and what each artifact says of its making."""

import json

import numpy as np
import pytest
import torch
from faults import repeats
from faults.stubs import LoggingMiner, item_views

from trialign.catalogue import Catalogue
from trialign.datasets import load
from trialign.describe import DescriptionCache, mine_interests
from trialign.describe.cache import interest_key
from trialign.provenance import sha256
from trialign.sids import QUANTIZERS, ResidualKMeans
from trialign.tokenize import tokenize
from trialign.workspace import Workspace


def test_every_quantizer_is_repeated():
    assert {f"SIDs by {name}" for name in QUANTIZERS} <= set(repeats.THINGS)


def test_another_seed_would_be_seen(monkeypatch):
    """The hashes tell different SIDs and weights apart, so that equal ones mean something."""
    name = "SIDs by ResidualKMeans"
    before = repeats.digest(repeats.THINGS[name]())
    assert repeats.digest(repeats.THINGS[name]()) == before
    whole = repeats.new_quantizer
    monkeypatch.setattr(repeats, "new_quantizer", lambda *args, **options: whole(*args, **{**options, "seed": 1}))
    assert repeats.digest(repeats.THINGS[name]()) != before


@pytest.mark.parametrize("name", ["SIDs by PerModality", "beams and metrics"])
def test_a_second_time_in_one_process_is_equal(name):
    torch.manual_seed(1)
    first = repeats.THINGS[name]()
    torch.manual_seed(2)
    assert repeats.THINGS[name]() == first


def test_a_stage_says_data_settings_and_code(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "items.csv").write_text("a")
    space = Workspace("demo", tmp_path / "runs")
    space.begin("01_first", {"miner": "embedded", "seed": 3}, sources=[data]).commit()
    stage = space.begin("02_second", {"steps": 5}, ["01_first"])
    stage.json("numbers", [1])
    told = space.manifest("01_first")
    folder = stage.commit()
    assert told["parameters"] == {"miner": "embedded", "seed": 3}
    assert told["seed"] == 3
    assert list(told["sources"]) == [str(data)]
    assert told["versions"]["trialign"]
    assert len(told["code"]) == 64
    second = space.manifest("02_second")
    assert second["inputs"] == {"01_first": told["id"]}
    assert second["outputs"]["numbers.json"]["sha256"] == sha256(folder / "numbers.json")


def test_a_tokenization_says_data_model_settings_and_code(tmp_path):
    whole = load("atelier").select(np.arange(12))
    catalogue = Catalogue(whole.items.assign(image=""), whole.interactions, whole.root, "some")
    made = tokenize(catalogue, tmp_path / "t", ResidualKMeans((4, 4), seed=2), text=["title"], progress=False)
    folder = made.save(tmp_path / "t")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["quantizer"]["quantizer"] == "ResidualKMeans"
    assert manifest["quantizer"]["parameters"]["codebook_sizes"] == [4, 4]
    assert manifest["seed"] == 2
    assert manifest["inputs"]["embedder"] == "embedded"
    assert manifest["inputs"]["text"] == ["title"]
    assert "some" in str(manifest["inputs"]["catalogue"])
    assert manifest["versions"]["trialign"]
    for name, entry in manifest["outputs"].items():
        assert entry["sha256"] == sha256(folder / name)


def test_a_description_says_item_model_prompt_and_settings(tmp_path):
    views, miner = item_views(2), LoggingMiner(tmp_path / "log")
    with DescriptionCache(tmp_path / "cache.sqlite") as cache:
        mine_interests(views, miner, cache, progress=False)
        entry = cache.get(interest_key(views[1], miner))
    assert (entry.item_id, entry.model, entry.prompt, dict(entry.settings)) == ("1", "logging", "Why?", {"seed": 0})
    assert entry.created
    assert entry.attempts == 1
