"""One vector from image and text together: the last hidden state of a Qwen2-VL, as gme-Qwen2-VL makes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from trialign.embed.fusion import check_lengths
from trialign.embed.image import open_image
from trialign.embed.text import unit_rows
from trialign.progress import tqdm

#: What gme-Qwen2-VL was trained with where no task is named.
INSTRUCTION = "You are a helpful assistant."

_IMAGE_START, _IMAGE_END = "<|vision_start|>", "<|vision_end|>"


class GmeEmbedder:
    """Embed image and enriched text in one pass (Zhang et al., 2024, GME; the paper's choice for CMSA).

    The item is put into a chat message; the hidden state after the last token, scaled to length 1, is its vector. An
    item without an image is embedded from its text alone by the same model. Only transformers' own Qwen2-VL is run,
    never code that comes with the weights, and torchvision is not needed.

    Parameters
    ----------
    model
        Name or folder of a Qwen2-VL, e.g. ``Alibaba-NLP/gme-Qwen2-VL-2B-Instruct``.
    instruction
        The system message.
    max_tokens
        Text tokens read of an item; the rest is cut.
    batch_size
        Items read at once.
    device
        Where torch runs it.
    dtype
        Precision of the weights, as torch names it.
    """

    def __init__(
        self,
        model: str,
        instruction: str = INSTRUCTION,
        max_tokens: int = 512,
        batch_size: int = 4,
        device: str = "cpu",
        dtype: str = "float32",
    ):
        self.model = model
        self.instruction = instruction
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype

    @property
    def name(self) -> str:
        """The model, as manifests and figures name it."""
        return f"gme:{self.model}"

    def embed(
        self, texts: Sequence[str], images: Sequence[Path | None], *, progress: bool = True
    ) -> Float[np.ndarray, "items dim"]:
        """Return one float32 unit row an item.

        Raises
        ------
        ValueError
            If the model is no Qwen2-VL, or an image cannot be read.
        """
        check_lengths(texts, images)
        model: Any = _load(self.model, self.dtype)
        model.to(self.device)
        reader = _Reader(self.model, self.instruction, self.max_tokens)
        # Items with and without images go apart: a batch then has one shape of input.
        order = sorted(range(len(texts)), key=lambda row: (images[row] is None, len(texts[row])))
        rows: dict[int, np.ndarray] = {}
        with (
            torch.inference_mode(),
            tqdm(total=len(texts), desc="embed items", unit="item", disable=not progress) as bar,
        ):
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                inputs = reader([texts[row] for row in batch], [images[row] for row in batch])
                hidden = model(**{name: value.to(self.device) for name, value in inputs.items()}).last_hidden_state
                # Padding is on the left, so the last position is every item's last token.
                rows.update(zip(batch, hidden[:, -1].float().cpu().numpy(), strict=True))
                bar.update(len(batch))
        return unit_rows(np.stack([rows[row] for row in range(len(texts))]))


class _Reader:
    """Turns texts and images into a batch of a Qwen2-VL's inputs; the vocabulary's ids are looked up once."""

    def __init__(self, model: str, instruction: str, max_tokens: int):
        from transformers import AutoTokenizer
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        self.images = Qwen2VLImageProcessorPil.from_pretrained(model)
        self.max_tokens = max_tokens
        self.image_id = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.head = self._layout(f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n")
        self.tail = self._layout("<|im_end|>\n<|im_start|>assistant\n<|endoftext|>")

    def __call__(self, texts: Sequence[str], paths: Sequence[Path | None]) -> dict[str, Tensor]:
        opened = [open_image(path) for path in paths if path is not None]
        pixels = dict(self.images(images=opened, return_tensors="pt")) if opened else {}
        # Every square of merge_size x merge_size patches becomes one token of the text.
        grids = pixels["image_grid_thw"].prod(dim=1) // self.images.merge_size**2 if opened else []
        counts = iter(int(count) for count in grids)
        rows = [self._ids(text, 0 if path is None else next(counts)) for text, path in zip(texts, paths, strict=True)]
        batch = self.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        ids = batch["input_ids"]
        kinds = (ids == self.image_id).int()  # 1 where a position stands for a piece of the image
        return {"input_ids": ids, "attention_mask": batch["attention_mask"], "mm_token_type_ids": kinds, **pixels}

    def _ids(self, text: str, image_tokens: int) -> list[int]:
        """Lay one item out; titles are data, so special tokens spelled in them are read as plain characters."""
        image = self._layout(_IMAGE_START) + [self.image_id] * image_tokens + self._layout(_IMAGE_END)
        words = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return self.head + (image if image_tokens else []) + words[: self.max_tokens] + self.tail

    def _layout(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _load(model: str, dtype: str) -> PreTrainedModel:
    """Load the Qwen2-VL without its language-model head."""
    from transformers import AutoConfig, Qwen2VLForConditionalGeneration

    kind = AutoConfig.from_pretrained(model, trust_remote_code=False).model_type
    if kind != "qwen2_vl":
        raise ValueError(f"{model} is of type {kind!r}: 'gme:' needs a Qwen2-VL such as gme-Qwen2-VL")
    whole = Qwen2VLForConditionalGeneration.from_pretrained(model, dtype=dtype, use_safetensors=True)
    return whole.model.eval()
