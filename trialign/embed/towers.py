"""Two-tower models (CLIP, SigLIP and their like) by name or folder: one vector a text, one an image, fused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trialign.embed.fusion import check_lengths, fuse, spread_rows
from trialign.embed.image import open_image
from trialign.embed.memory import RowMemory
from trialign.embed.text import unit_rows
from trialign.progress import tqdm


class TowersEmbedder:
    """Embed with a model of two towers that share one space; each text and each image file is read once.

    Parameters
    ----------
    model
        Name or folder of a transformers model with ``get_text_features`` and ``get_image_features``; its weights are
        read from safetensors and no code that comes with it is run.
    image_weight
        Share of the image in the cosine, 0..1 (:func:`trialign.embed.fusion.fuse`).
    batch_size
        Items read at once.
    device
        Where torch runs it.
    """

    def __init__(self, model: str, image_weight: float = 0.5, batch_size: int = 16, device: str = "cpu"):
        self.model = model
        self.image_weight = image_weight
        self.batch_size = batch_size
        self.device = device
        self._texts, self._images = RowMemory(), RowMemory()

    @property
    def name(self) -> str:
        """The model and the weight, as manifests and figures name them."""
        return f"towers:{self.model} (image weight {self.image_weight:g})"

    def embed(
        self, texts: Sequence[str], images: Sequence[Path | None], *, progress: bool = True
    ) -> Float[np.ndarray, "items dim"]:
        """Return one float32 unit row an item: the text tower's numbers, then the image tower's.

        A text longer than the text tower reads (77 tokens for CLIP, 64 for SigLIP) is cut there.

        Raises
        ------
        ValueError
            If the model has not two towers, or an image cannot be read.
        """
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        check_lengths(texts, images)
        model = (
            AutoModel.from_pretrained(self.model, use_safetensors=True, trust_remote_code=False).eval().to(self.device)
        )
        if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
            raise ValueError(f"{self.model} is a {type(model).__name__}, not a two-tower model like CLIP or SigLIP")
        tokenizer = AutoTokenizer.from_pretrained(self.model, trust_remote_code=False)
        processor = AutoImageProcessor.from_pretrained(self.model, backend="pil", trust_remote_code=False)
        limit = model.config.text_config.max_position_embeddings

        def text_rows(batch: Sequence[str]) -> Tensor:
            read = tokenizer(list(batch), padding="max_length", truncation=True, max_length=limit, return_tensors="pt")
            return _vectors(model.get_text_features(**read.to(self.device)))

        def image_rows(batch: Sequence[Path]) -> Tensor:
            pixels = processor([open_image(path) for path in batch], return_tensors="pt").pixel_values
            return _vectors(model.get_image_features(pixel_values=pixels.to(self.device)))

        present = np.array([path is not None for path in images], dtype=bool)
        text = self._texts.rows(texts, lambda new: self._batched(new, text_rows, "embed texts", progress))
        some = self._images.rows(
            [path for path in images if path is not None],
            lambda paths: self._batched(paths, image_rows, "embed images", progress),
        )
        image = spread_rows(some, present) if present.any() else np.zeros_like(text)
        return fuse(text, image, present, self.image_weight)

    def _batched(self, inputs, encode, label: str, progress: bool) -> Float[np.ndarray, "items dim"]:
        """Encode in batches under a bar; unit rows."""
        rows = []
        with torch.inference_mode(), tqdm(total=len(inputs), desc=label, unit="item", disable=not progress) as bar:
            for start in range(0, len(inputs), self.batch_size):
                batch = inputs[start : start + self.batch_size]
                rows.append(encode(batch).float().cpu().numpy())
                bar.update(len(batch))
        return unit_rows(np.concatenate(rows)) if rows else np.zeros((0, 0), np.float32)


def _vectors(output) -> Tensor:
    """Return the vectors of a tower: transformers 5 wraps them in an output object, version 4 did not."""
    return output if isinstance(output, Tensor) else output.pooler_output
