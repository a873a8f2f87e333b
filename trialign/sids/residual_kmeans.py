"""Residual k-means: the naive quantizer, one k-means a level on what the levels before it left over."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from jaxtyping import Float

from trialign.sids.quantizer import check_codebook_sizes, check_embeddings
from trialign.sids.residual import ResidualQuantizer, fitting_sample, kmeans, nearest_codes


class ResidualKMeans(ResidualQuantizer):
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
    sample
        Most items that the codebooks are fitted on, drawn by the seed; the embeddings may be a memory-mapped file.
    seed
        Seed of the sample and of the start of k-means.

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

    def __init__(
        self,
        codebook_sizes: Sequence[int] = (256, 256, 256),
        iterations: int = 25,
        sample: int = 262_144,
        seed: int = 0,
    ) -> None:
        self.codebook_sizes = codebook_sizes
        self.iterations = iterations
        self.sample = sample
        self.seed = seed

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Fit each level on the residuals of the levels before it.

        Raises
        ------
        ValueError
            If the embeddings are malformed or a codebook is larger than the number of items.
        """
        residual = np.array(fitting_sample(check_embeddings(embeddings), self.sample, self.seed))
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
