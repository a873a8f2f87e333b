"""One catalogue with and without each input: what is embedded, and how often it is read."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trialign.catalogue import Catalogue
from trialign.embed.ablation import ABLATION, representation_name, representations
from trialign.embed.memory import RowMemory


class Recorder:
    """Stands for an embedder: keeps what it was asked for."""

    name = "recorder"

    def __init__(self):
        self.calls = []

    def embed(self, texts, images, *, progress=True):
        self.calls.append((list(texts), list(images)))
        return np.ones((len(texts), 2), np.float32)


@pytest.fixture
def catalogue(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    items = pd.DataFrame({"item_id": ["a", "b"], "title": ["Mug", "Lamp"], "image": ["a.png", ""]})
    interactions = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]})
    return Catalogue.from_tables(items, interactions, tmp_path, "small")


def test_each_representation_gets_its_inputs_and_no_other(catalogue):
    model = Recorder()
    embedded = representations(model, catalogue, {"a": "red"}, {"a": ["tea"]}, progress=False)
    assert tuple(embedded) == ABLATION
    texts = [texts[0] for texts, _ in model.calls]
    assert texts == [
        "Mug", "Mug\nimage: red", "Mug\nimage: red\ninterests: tea", "Mug",
        "Mug\nimage: red\ninterests: tea",
    ]  # fmt: skip
    path = catalogue.root / "a.png"
    assert [images for _, images in model.calls] == [[None, None]] * 3 + [[path, None]] * 2


def test_names_count_once_and_are_checked(catalogue):
    model = Recorder()
    name = representation_name(captions=True, interests=False, image=True)
    assert name == "text + captions + image"
    assert list(representations(model, catalogue, {}, {}, [name, "text", name], progress=False)) == [name, "text"]
    assert len(model.calls) == 2
    for wrong in ("captions", "text + image + captions", "text + sound", "text+image"):
        with pytest.raises(ValueError, match="no representation"):
            representations(model, catalogue, {}, {}, [wrong])


def test_a_memory_computes_each_row_once():
    asked = []

    def compute(keys):
        asked.extend(keys)
        return np.array([[len(key), 1.0] for key in keys]).reshape(len(keys), 2)

    memory = RowMemory()
    assert memory.rows([], compute).shape == (0, 2)
    assert memory.rows(["bb", "a", "bb"], compute).tolist() == [[2, 1], [1, 1], [2, 1]]
    assert memory.rows(["a", "ccc"], compute).tolist() == [[1, 1], [3, 1]]
    assert asked == ["bb", "a", "ccc"]
