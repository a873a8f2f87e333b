"""Text and image vectors fused into one unit row an item, and the packaged default that does so."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from trialign.embed.image import image_features
from trialign.embed.memory import RowMemory
from trialign.embed.text import TextEmbedder, unit_rows
from trialign.models import efficientnet


def fuse(
    text: Float[np.ndarray, "items text"],
    image: Float[np.ndarray, "items image"],
    has_image: Bool[np.ndarray, "items"],
    image_weight: float,
) -> Float[np.ndarray, "items both"]:
    """Put ``[sqrt(1 - w) t ; sqrt(w) v]`` side by side, w being the image's weight.

    With unit rows the cosine of two items is then ``(1 - w) cos(t, t') + w cos(v, v')``. An item without an image has
    zeros in the image half and its text half scaled to length 1, so that every row has length 1.

    Raises
    ------
    ValueError
        If `image_weight` is not in 0..1.
    """
    if not 0 <= image_weight <= 1:
        raise ValueError(f"image_weight is {image_weight}: give a number from 0 (text only) to 1 (image only)")
    weights = np.where(has_image, image_weight, 0.0)[:, None]
    return unit_rows(np.concatenate([np.sqrt(1 - weights) * text, np.sqrt(weights) * image], axis=1))


def whiten(rows: Float[np.ndarray, "items dim"], dims: int, power: float) -> Float[np.ndarray, "items reduced"]:
    """Centre rows, keep their first principal components and even out the components' variances.

    Parameters
    ----------
    rows
        One feature row an item.
    dims
        Components kept, at most; no more than the rows have.
    power
        How far the variances are evened out: 0 not at all (plain PCA), 1 fully. Full whitening of few items makes
        them all equally far apart, so the default user of this function stops half way.

    Returns
    -------
    np.ndarray
        ``[items, min(dims, rank)]`` float32 unit rows; the sign of a component is that of its largest loading.
    """
    if len(rows) == 0:
        return np.zeros((0, min(dims, rows.shape[1])), np.float32)
    centred = (rows - rows.mean(axis=0)).astype(np.float64)
    left, spread, right = np.linalg.svd(centred, full_matrices=False)
    kept = min(dims, int((spread > 1e-6 * max(spread[0], 1e-12)).sum()))
    signs = np.sign(right[np.arange(kept), np.abs(right[:kept]).argmax(axis=1)])
    return unit_rows(left[:, :kept] * signs * spread[:kept] ** (1 - power))


class FusedEmbedder:
    """MiniLM of the enriched text and EfficientNet-Lite0 of the image, fused (the ``embedded`` default).

    Centring and principal components of the image features are those of the images in the call, so a catalogue is
    embedded in one call. Each text and each image file is read once, however often it is asked for.

    Parameters
    ----------
    image_weight
        Share of the image in the cosine, 0..1.
    image_dims
        Principal components kept of the 1280 image features.
    whitening
        How far their variances are evened out, 0..1 (:func:`whiten`).
    text
        What embeds the texts; None is the packaged MiniLM.
    batch_size
        Images read at once.
    """

    def __init__(
        self,
        image_weight: float = 0.5,
        image_dims: int = 128,
        whitening: float = 0.5,
        text: TextEmbedder | None = None,
        batch_size: int = 16,
    ):
        self.image_weight = image_weight
        self.image_dims = image_dims
        self.whitening = whitening
        self.text = text
        self.batch_size = batch_size
        self._memory = RowMemory()

    @cached_property
    def _text_embedder(self) -> TextEmbedder:
        return self.text or TextEmbedder()

    @property
    def name(self) -> str:
        """The models and the weight, as manifests and figures name them."""
        text = self.text.name if self.text else "all-MiniLM-L6-v2"
        return f"embedded ({text} + EfficientNet-Lite0, image weight {self.image_weight:g})"

    def embed(
        self, texts: Sequence[str], images: Sequence[Path | None], *, progress: bool = True
    ) -> Float[np.ndarray, "items dim"]:
        """Return one float32 unit row an item (384 text numbers, then the image's).

        Parameters
        ----------
        texts
            Enriched text of every item.
        images
            Image file of every item, None where there is none.
        progress
            Show bars.

        Raises
        ------
        ValueError
            If there are not as many images as texts, or an image cannot be read.
        """
        check_lengths(texts, images)
        text = self._text_embedder.embed(texts, images, progress=progress)
        present = np.array([path is not None for path in images], dtype=bool)
        features = self._memory.rows(
            [path for path in images if path is not None],
            lambda paths: image_features(paths, efficientnet(), self.batch_size, progress=progress),
        )
        reduced = whiten(features, self.image_dims, self.whitening)
        return fuse(text, spread_rows(reduced, present), present, self.image_weight)


def check_lengths(texts: Sequence[str], images: Sequence[Path | None]) -> None:
    """Raise ValueError unless there is one image entry (a path or None) a text."""
    if len(texts) != len(images):
        raise ValueError(f"{len(texts)} texts but {len(images)} images: give one image path (or None) for every text")


def spread_rows(
    rows: Float[np.ndarray, "some dim"], present: Bool[np.ndarray, "items"]
) -> Float[np.ndarray, "items dim"]:
    """Return `rows` at the positions where `present` is true and zeros elsewhere."""
    spread = np.zeros((len(present), rows.shape[1]), np.float32)
    spread[present] = rows
    return spread
