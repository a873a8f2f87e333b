"""One quantizer a modality, their codes side by side (MQL4GRec, arXiv 2504.05314)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from trialign.sids.product import nearest_tuples
from trialign.sids.quantizer import (
    Quantizer,
    check_codes,
    check_embeddings,
    constructor_parameters,
    read_quantizer,
    require_fitted,
    write_quantizer,
)
from trialign.sids.residual import CHUNK


class PerModality:
    """Quantize each modality of a concatenated embedding by itself (MQL4GRec, arXiv 2504.05314, section 3.1).

    The paper trains one RQ-VAE on the text and one on the image embeddings and writes both kinds of codes in one
    vocabulary, told apart by a prefix. Here the levels of the modalities follow one another and each level has a letter
    of its own in tokens: with three levels each, the text is written with a, b, c and the image with d, e, f.

    New items are encoded as each modality's quantizer encodes them.

    Parameters
    ----------
    quantizers
        An unfitted quantizer a modality, by the modality's name (an identifier, as a file name needs), in the order of
        their columns. They are parameters: `fit` leaves them as they are and fits copies.
    widths
        The number of columns of each modality, by the same names; together the width of the embeddings.

    Attributes
    ----------
    quantizers_ : dict of fitted quantizers by modality
    codebooks_ : list of float32 arrays
        Those of the first modality's levels, then those of the next.
    mean_ : float32 array, shape (dim,)
        The mean embedding of the training items; a modality that `reconstruct` leaves out stays at it.
    n_features_in_ : int
        Width of the embeddings it was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> from trialign.sids import ResidualKMeans
    >>> embeddings = np.random.default_rng(0).normal(size=(50, 10))
    >>> parts = {"text": ResidualKMeans((8, 8)), "image": ResidualKMeans((4,))}
    >>> quantizer = PerModality(parts, {"text": 7, "image": 3}).fit(embeddings)
    >>> quantizer.level_modalities, quantizer.encode(embeddings).shape
    (('text', 'text', 'image'), (50, 3))
    """

    quantizers_: dict[str, Quantizer]
    codebooks_: list[np.ndarray]
    mean_: np.ndarray
    n_features_in_: int

    def __init__(self, quantizers: Mapping[str, Quantizer], widths: Mapping[str, int]) -> None:
        self.quantizers = quantizers
        self.widths = widths

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each level, first modality first."""
        return tuple(int(size) for part in self.quantizers.values() for size in part.codebook_sizes)

    @property
    def level_modalities(self) -> tuple[str, ...]:
        """The modality that each level describes."""
        return tuple(name for name, part in self.quantizers.items() for _ in part.codebook_sizes)

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Fit each modality's quantizer on its columns.

        Raises
        ------
        ValueError
            If the embeddings are malformed, names and widths disagree with each other or with the embeddings, or a
            modality's quantizer refuses its columns.
        """
        points = check_embeddings(embeddings)
        self._check_parameters(points.shape[1])
        fitted = {}
        for (name, part), columns in zip(self.quantizers.items(), self._columns()):
            fitted[name] = type(part)(**constructor_parameters(part)).fit(points[:, columns])
        self._adopt(fitted, points.mean(axis=0))
        return self

    def _check_parameters(self, dim: int) -> None:
        if not self.quantizers or list(self.quantizers) != list(self.widths):
            raise ValueError(
                "quantizers and widths must name the same modalities in the same order, at least one; "
                f"got {list(self.quantizers)} and {list(self.widths)}"
            )
        wrong = [name for name in self.quantizers if not name.isidentifier()]
        if wrong:
            raise ValueError(f"modality names must be identifiers, as they name folders; got {wrong}")
        if min(self.widths.values()) < 1 or sum(self.widths.values()) != dim:
            raise ValueError(f"widths {dict(self.widths)} must be positive and sum to the {dim} columns of embeddings")

    def _columns(self) -> list[slice]:
        ends = np.cumsum(list(self.widths.values())).tolist()
        return [slice(end - width, end) for end, width in zip(ends, self.widths.values())]

    def _adopt(self, fitted: dict[str, Quantizer], mean: Float[np.ndarray, " dim"]) -> None:
        self.quantizers_ = fitted
        self.codebooks_ = [codebook for part in fitted.values() for codebook in part.codebooks_]
        self.mean_ = mean
        self.n_features_in_ = len(mean)

    def encode(self, embeddings: Float[np.ndarray, "items dim"]) -> Int[np.ndarray, "items levels"]:
        """Return the int64 codes of each embedding, one modality's levels after another's."""
        require_fitted(self)
        points = check_embeddings(embeddings, self.n_features_in_)
        parts = list(zip(self.quantizers_.values(), self._columns()))
        return np.concatenate(
            [
                np.concatenate([part.encode(points[start : start + CHUNK, columns]) for part, columns in parts], axis=1)
                for start in range(0, len(points), CHUNK)
            ]
        )

    def beams(self, embeddings: Float[np.ndarray, "items dim"], width: int) -> Int[np.ndarray, "items width levels"]:
        """Return the best `width` code tuples of each embedding, nearest first.

        Each modality gives its best tuples; the combinations of the smallest sum of squared errors are kept.
        """
        require_fitted(self)
        points = check_embeddings(embeddings, self.n_features_in_)
        step = max(1, CHUNK // max(1, width))
        return np.concatenate(
            [self._beams_of_chunk(points[start : start + step], width) for start in range(0, len(points), step)]
        )

    def _beams_of_chunk(self, points: np.ndarray, width: int) -> np.ndarray:
        tuples, errors = [], []
        for part, columns in zip(self.quantizers_.values(), self._columns()):
            own = points[:, columns]
            found = part.beams(own, width)
            rebuilt = part.reconstruct(found.reshape(-1, found.shape[2])).reshape(*found.shape[:2], -1)
            tuples.append(found)
            errors.append(np.square(rebuilt - own[:, None]).sum(axis=2))
        chosen = nearest_tuples(errors, width)
        return np.concatenate(
            [np.take_along_axis(found, chosen[:, :, modality, None], axis=1) for modality, found in enumerate(tuples)],
            axis=2,
        )

    def reconstruct(
        self, codes: Int[np.ndarray, "items levels"], depth: int | None = None
    ) -> Float[np.ndarray, "items dim"]:
        """Return what the first `depth` codes stand for; a modality without any of them stays at the mean."""
        require_fitted(self)
        codes, depth = check_codes(codes, [len(codebook) for codebook in self.codebooks_], depth)
        rebuilt = np.tile(self.mean_, (len(codes), 1))
        first = 0
        for part, columns in zip(self.quantizers_.values(), self._columns()):
            levels = min(len(part.codebooks_), depth - first)
            if levels > 0:
                rebuilt[:, columns] = part.reconstruct(codes[:, first : first + levels], levels)
            first += len(part.codebooks_)
        return rebuilt

    def save(self, folder: str | Path) -> Path:
        """Write ``quantizer.json``, ``quantizer.safetensors``, and a folder a modality with that quantizer's own."""
        require_fitted(self)
        for name, part in self.quantizers_.items():
            part.save(Path(folder) / name)
        parameters = {"widths": {name: int(width) for name, width in self.widths.items()}}
        return write_quantizer(folder, self, parameters, {"mean": self.mean_})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; codes of the loaded quantizer are bit-identical.

        Raises
        ------
        FileNotFoundError
            If the folder, or a modality's folder in it, holds no saved quantizer.
        ValueError
            If it holds another kind of quantizer, or a modality's kind is unknown.
        """
        from trialign.sids import load_quantizer  # here, because the registry it reads lists this class

        parameters, tensors = read_quantizer(folder, cls.__name__)
        fitted = {name: load_quantizer(Path(folder) / name) for name in parameters["widths"]}
        unfitted = {name: type(part)(**constructor_parameters(part)) for name, part in fitted.items()}
        quantizer = cls(unfitted, parameters["widths"])
        quantizer._adopt(fitted, tensors["mean"])
        return quantizer
