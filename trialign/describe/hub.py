"""Captioners and miners of the transformers library, by name or folder: image-text-to-text and chat models.

Only safetensors weights, never code of the hub. Decoding is greedy; the sampling settings that instruct models ship
with (temperature, repetition penalty) are dropped, so that the settings in the cache are all there is.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trialign.describe.backends import JSON, retry_temperature
from trialign.describe.prompts import CAPTION_PROMPT, INTEREST_PROMPT, interest_prompt
from trialign.describe.qwen_vl import MODEL_TYPES, qwen_vl_processor
from trialign.describe.views import ItemView, load_image


class HubCaptioner:
    """Captions by an image-text-to-text model (CMSA; the paper takes Qwen2.5-VL).

    The weights are loaded at the first item that is not in the cache; whether the model is there is checked at once.

    Parameters
    ----------
    name_or_folder
        A model of the hub (``Qwen/Qwen2.5-VL-3B-Instruct``) or a folder.
    batch_size
        Images in one forward pass.
    max_new_tokens
        Most tokens of a caption.
    max_pixels
        Larger images are scaled down to so many pixels first, at the same aspect ratio: what bounds memory and time.
    dtype
        ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
    device
        ``auto`` (CUDA, else Apple's MPS, else CPU) or a torch device.
    revision
        A commit or tag of the hub.
    prompt
        What is asked.

    Raises
    ------
    FileNotFoundError
        If the model is neither a folder nor in the local cache nor on a hub that can be reached.
    """

    def __init__(
        self,
        name_or_folder: str,
        *,
        batch_size: int = 8,
        max_new_tokens: int = 96,
        max_pixels: int = 512 * 512,
        dtype: str = "auto",
        device: str = "auto",
        revision: str | None = None,
        prompt: str = CAPTION_PROMPT,
    ):
        require_model(name_or_folder, revision)
        self.name_or_folder = name_or_folder
        self.batch_size = batch_size
        self.device = device
        self.revision = revision
        self.prompt = prompt
        self.model = model_label(name_or_folder, revision)
        self.settings: dict[str, JSON] = {"max_new_tokens": max_new_tokens, "max_pixels": max_pixels, "dtype": dtype}

    def caption(self, views: Sequence[ItemView]) -> list[str]:
        """Return the model's answer for each item's image; ItemError if an image can't be read."""
        model, processor = self._loaded
        images = [_bounded(load_image(view), self.settings["max_pixels"]) for view in views]
        chats = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": self.prompt}]}]
            for image in images
        ]
        inputs = processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        return _generate(model, processor.tokenizer, inputs, self.settings["max_new_tokens"])

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, Any]:
        """The model and its processor."""
        config = AutoConfig.from_pretrained(self.name_or_folder, revision=self.revision, trust_remote_code=False)
        if config.model_type in MODEL_TYPES:
            processor = qwen_vl_processor(self.name_or_folder, revision=self.revision)
        else:
            processor = AutoProcessor.from_pretrained(
                self.name_or_folder, revision=self.revision, trust_remote_code=False
            )
        _require_chat(processor.chat_template or processor.tokenizer.chat_template, self.name_or_folder)
        _prepare_tokenizer(processor.tokenizer)
        model = _load(AutoModelForImageTextToText, self.name_or_folder, self.revision, self.settings, self.device)
        return model, processor


class HubMiner:
    """Interests by a chat model (MDIM; the paper takes Qwen2.5-7B-Instruct).

    The first attempt is greedy; later ones sample, warmer each time.

    Parameters
    ----------
    name_or_folder
        A chat model of the hub (``Qwen/Qwen2.5-7B-Instruct``) or a folder.
    batch_size
        Items in one forward pass.
    max_new_tokens
        Most tokens of an answer, reasoning included.
    dtype, device, revision
        As in HubCaptioner.
    seed
        Of the sampling at later attempts.
    prompt
        What is asked, with ``{item}`` where the item's JSON goes.

    Raises
    ------
    FileNotFoundError
        If the model is neither a folder nor in the local cache nor on a hub that can be reached.
    """

    def __init__(
        self,
        name_or_folder: str,
        *,
        batch_size: int = 8,
        max_new_tokens: int = 512,
        dtype: str = "auto",
        device: str = "auto",
        revision: str | None = None,
        seed: int = 0,
        prompt: str = INTEREST_PROMPT,
    ):
        require_model(name_or_folder, revision)
        self.name_or_folder = name_or_folder
        self.batch_size = batch_size
        self.device = device
        self.revision = revision
        self.prompt = prompt
        self.model = model_label(name_or_folder, revision)
        self.settings: dict[str, JSON] = {"max_new_tokens": max_new_tokens, "dtype": dtype, "seed": seed}

    def mine(self, views: Sequence[ItemView], attempt: int) -> list[str]:
        """Return the model's answer for each item."""
        model, tokenizer = self._loaded
        chats = [[{"role": "user", "content": interest_prompt(view, self.prompt)}] for view in views]
        texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
        inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")  # the layout has them
        limit, seed = self.settings["max_new_tokens"], self.settings["seed"] + attempt
        return _generate(model, tokenizer, inputs, limit, temperature=retry_temperature(attempt), seed=seed)

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model and its tokenizer."""
        tokenizer = AutoTokenizer.from_pretrained(self.name_or_folder, revision=self.revision, trust_remote_code=False)
        _require_chat(tokenizer.chat_template, self.name_or_folder)
        _prepare_tokenizer(tokenizer)
        return _load(AutoModelForCausalLM, self.name_or_folder, self.revision, self.settings, self.device), tokenizer


def require_model(name_or_folder: str, revision: str | None = None) -> None:
    """Check that a model can be loaded, within seconds.

    Raises
    ------
    FileNotFoundError
        If it is no folder with a ``config.json``, not in the local hub cache and not on a hub that answers; the
        message says what to do.
    """
    folder = Path(name_or_folder)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{name_or_folder} holds no config.json; save the model with save_pretrained")
        return
    advice = f"fetch it with `hf download {name_or_folder}` where there is a network, or give the folder it lies in"
    if folder.is_absolute() or name_or_folder.startswith(".") or name_or_folder.count("/") > 1:
        raise FileNotFoundError(f"there is no folder {name_or_folder}; save the model there or give a name of the hub")
    if isinstance(try_to_load_from_cache(name_or_folder, "config.json", revision=revision), str):
        return
    try:
        HfApi().model_info(name_or_folder, revision=revision, timeout=5)
    except HfHubHTTPError as error:
        # Unknown names, gated models and missing revisions; the hub's own message has links and request ids.
        reason = type(error).__name__
        raise FileNotFoundError(f"the hub does not give out model {name_or_folder} ({reason}); {advice}") from error
    except Exception as error:
        # Offline mode, no network, a time-out: httpx, requests and the hub each have their own classes for it.
        reason = type(error).__name__
        raise FileNotFoundError(
            f"model {name_or_folder} is not on this machine and the hub can't be asked ({reason}); {advice}"
        ) from error


def model_label(name_or_folder: str, revision: str | None = None) -> str:
    """Return a model's name as tables and the cache state it.

    A hub name is taken as it is, with ``@revision`` if one is given. A folder becomes its last part and a fingerprint
    (configuration, and size, begin and end of each weight file): other weights in a folder of the same name are
    another model, and the same folder on another machine is the same one.
    """
    folder = Path(name_or_folder)
    if not folder.is_dir():
        return name_or_folder if revision is None else f"{name_or_folder}@{revision}"
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for weights in sorted(folder.glob("*.safetensors")):
        size = weights.stat().st_size
        with weights.open("rb") as file:
            digest.update(f"{weights.name} {size}".encode() + file.read(2**20))
            file.seek(max(size - 2**20, 0))
            digest.update(file.read())
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"


def _load(
    auto_class: Any, name_or_folder: str, revision: str | None, settings: dict[str, JSON], device: str
) -> PreTrainedModel:
    model = auto_class.from_pretrained(
        name_or_folder, revision=revision, dtype=settings["dtype"], use_safetensors=True, trust_remote_code=False
    )
    return model.to(_device(device)).eval()


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _require_chat(template: Any, name_or_folder: str) -> None:
    if not template:
        raise ValueError(f"{name_or_folder} has no chat template, so it is no instruct model; name one that is")


def _prepare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad on the left: generation goes on from the last position of every row."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _bounded(image: Any, max_pixels: int) -> Any:
    pixels = image.width * image.height
    if pixels <= max_pixels:
        return image
    scale = (max_pixels / pixels) ** 0.5
    return image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Mapping[str, torch.Tensor],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Return the text that follows each row of a left-padded batch."""
    # Token ids stay integers; pixels take the type of the weights.
    placed = {
        name: values.to(model.device, model.dtype) if values.is_floating_point() else values.to(model.device)
        for name, values in inputs.items()
    }
    decoding = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=_end_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        do_sample=temperature > 0,
        **({"temperature": temperature, "top_p": 0.95} if temperature > 0 else {}),
    )
    model.generation_config = decoding  # generate() fills unset values from the model's own: there must be none
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        tokens = model.generate(**placed, generation_config=decoding)  # type: ignore[operator]
    answers = tokens[:, placed["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return every token that ends an answer: instruct models often have one more than their tokenizer says."""
    own = model.generation_config.eos_token_id
    ends = own if isinstance(own, list) else [own]
    return sorted({token for token in [*ends, tokenizer.eos_token_id] if token is not None})
