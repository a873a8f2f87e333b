"""Text embedding through sentence-transformers: the packaged MiniLM, or any model by name or folder."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from trialign.embed.memory import RowMemory
from trialign.models import minilm_folder
from trialign.progress import tqdm

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class TextEmbedder:
    """Embed texts; the images are not looked at. A text is read once, however often it is asked for.

    Parameters
    ----------
    model
        Name or folder of a sentence-transformers model; None is the packaged all-MiniLM-L6-v2 (384 numbers). What a
        model does not read (beyond 256 tokens for MiniLM) has no say in the vector.
    batch_size
        Texts read at once.
    """

    def __init__(self, model: str | None = None, batch_size: int = 64):
        self.model = model
        self.batch_size = batch_size
        self._memory = RowMemory()

    @cached_property
    def encoder(self) -> "SentenceTransformer":
        """The loaded model; loading takes a second, so an embedder keeps it."""
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(
            self.model or str(minilm_folder()),
            device="cpu",
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )

    @property
    def name(self) -> str:
        """The model, as manifests and figures name it."""
        return f"text:{self.model}" if self.model else "embedded-text (all-MiniLM-L6-v2)"

    def embed(
        self, texts: Sequence[str], images: Sequence[Path | None] = (), *, progress: bool = True
    ) -> Float[np.ndarray, "items dim"]:
        """Return one float32 unit row a text.

        Parameters
        ----------
        texts
            One text an item.
        images
            Ignored; here so that all embedders are called alike.
        progress
            Show a bar.
        """
        return self._memory.rows(texts, lambda new: self._read(new, progress))

    def _read(self, texts: Sequence[str], progress: bool) -> Float[np.ndarray, "items dim"]:
        # Texts of similar length share a batch, so that little is padded.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        rows: list[np.ndarray] = [np.empty(0)] * len(texts)
        with tqdm(total=len(texts), desc="embed texts", unit="item", disable=not progress) as bar:
            for start in range(0, len(texts), self.batch_size):
                chosen = order[start : start + self.batch_size]
                vectors = self.encoder.encode(
                    [texts[row] for row in chosen], batch_size=len(chosen), show_progress_bar=False
                )
                for row, vector in zip(chosen, vectors, strict=True):
                    rows[row] = vector
                bar.update(len(chosen))
        if not rows:
            return np.zeros((0, int(self.encoder.get_embedding_dimension() or 0)), np.float32)
        return unit_rows(np.stack(rows))


def unit_rows(rows: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items dim"]:
    """Return the rows as float32, each divided by its length; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
