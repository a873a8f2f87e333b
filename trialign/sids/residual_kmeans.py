"""Residual k-means: the naive quantizer, one k-means a level on what the levels before it left over."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from trialign.sids.quantizer import (
    check_codebook_sizes,
    check_codes,
    check_embeddings,
    kmeans,
    nearest_codes,
    read_quantizer,
    require_fitted,
    residual_beams,
    residual_decode,
    residual_encode,
    write_quantizer,
)


class ResidualKMeans:
    """Residual quantization with codebooks from k-means, in the embedding space itself.

    There is no encoder and nothing is trained by gradients; each level is fitted once, in order. This is the plain
    form of residual vector quantization (the "RQ-KMeans" that TIGER-like systems compare with, arXiv 2305.05065),
    and the baseline that a learned quantizer has to beat.

    Parameters
    ----------
    codebook_sizes
        Codes of each level, first level first.
    iterations
        Lloyd iterations a level.
    seed
        Seed of the start of k-means.

    Attributes
    ----------
    codebooks_ : list of float32 arrays, shape (codebook_size, dim)
    n_features_in_ : int
        Width of the embeddings it was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> embeddings = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0]])
    >>> quantizer = ResidualKMeans(codebook_sizes=(4, 2)).fit(embeddings)
    >>> codes = quantizer.encode(embeddings)
    >>> bool(np.allclose(quantizer.reconstruct(codes), embeddings))
    True
    """

    codebooks_: list[np.ndarray]
    n_features_in_: int

    def __init__(self, codebook_sizes: Sequence[int] = (256, 256, 256), iterations: int = 25, seed: int = 0) -> None:
        self.codebook_sizes = codebook_sizes
        self.iterations = iterations
        self.seed = seed

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Fit each level on the residuals of the levels before it.

        Raises
        ------
        ValueError
            If the embeddings are malformed or a codebook is larger than the number of items.
        """
        residual = check_embeddings(embeddings).copy()
        sizes = check_codebook_sizes(self.codebook_sizes, len(residual))
        codebooks = []
        for level, size in enumerate(sizes):
            codebook = kmeans(residual, size, seed=self.seed + level, iterations=self.iterations)
            codes, _ = nearest_codes(residual, codebook)
            residual -= codebook[codes]
            codebooks.append(codebook)
        self.codebooks_ = codebooks
        self.n_features_in_ = residual.shape[1]
        return self

    def encode(self, embeddings: Float[np.ndarray, "items dim"]) -> Int[np.ndarray, "items levels"]:
        """Return the int64 codes of each embedding, greedily level by level."""
        require_fitted(self)
        return residual_encode(check_embeddings(embeddings, self.n_features_in_), self.codebooks_)

    def beams(self, embeddings: Float[np.ndarray, "items dim"], width: int) -> Int[np.ndarray, "items width levels"]:
        """Return the best `width` code tuples of each embedding as a beam search finds them, nearest first."""
        require_fitted(self)
        return residual_beams(check_embeddings(embeddings, self.n_features_in_), self.codebooks_, width)

    def reconstruct(
        self, codes: Int[np.ndarray, "items levels"], depth: int | None = None
    ) -> Float[np.ndarray, "items dim"]:
        """Return the sum of the first `depth` codebook vectors of each item (all levels if None)."""
        require_fitted(self)
        codes, depth = check_codes(codes, [len(codebook) for codebook in self.codebooks_], depth)
        return residual_decode(codes, self.codebooks_, depth)

    def save(self, folder: str | Path) -> Path:
        """Write ``quantizer.json`` and ``quantizer.safetensors`` into the folder, which is made if needed."""
        require_fitted(self)
        parameters = {
            "codebook_sizes": [int(size) for size in self.codebook_sizes],
            "iterations": self.iterations,
            "seed": self.seed,
        }
        tensors = {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks_)}
        return write_quantizer(folder, self, parameters, tensors)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; codes of the loaded quantizer are bit-identical.

        Raises
        ------
        FileNotFoundError
            If the folder holds no saved quantizer.
        ValueError
            If it holds another kind of quantizer.
        """
        parameters, tensors = read_quantizer(folder, cls.__name__)
        quantizer = cls(**parameters)
        quantizer.codebooks_ = [tensors[f"codebook.{level}"] for level in range(len(parameters["codebook_sizes"]))]
        quantizer.n_features_in_ = quantizer.codebooks_[0].shape[1]
        return quantizer
