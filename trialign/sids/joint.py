"""Residual k-means whose levels are refined together: codes by beam search, codebooks by least squares, in turns.

Additive quantization (Babenko and Lempitsky, CVPR 2014) alternates the two steps; noise that fades out keeps the
alternation from settling early (LSQ++, Martinez et al., ECCV 2018). Fitting the later levels on residuals of length 1
at the start, the first level's cluster means, and the codebooks by group are this project's own.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from trialign.progress import tqdm
from trialign.sids.additive_search import search
from trialign.sids.quantizer import (
    check_codebook_sizes,
    check_codes,
    check_embeddings,
    constructor_parameters,
    read_quantizer,
    require_fitted,
    write_quantizer,
)
from trialign.sids.residual import ResidualQuantizer, fitting_sample, kmeans, nearest_codes

#: Iterations of k-means for the start; the alternation goes on from there.
START_ITERATIONS = 8

#: Steps of conjugate gradients that a refit takes from the codebooks before it.
STEPS = 3


class JointResidualKMeans(ResidualQuantizer):
    """Residual quantization with all codebooks fitted together.

    Plain residual k-means fits each level to what the greedy choice at the levels before it left over, and never
    looks back. Here the levels start on residuals of length 1, so that the codes go to directions and not to the few
    longest residuals, and then are refined in `rounds`: every item is encoded by beam search over all levels, and the
    codebooks of all levels but the first are fitted to these codes in one least-squares problem. Noise on the
    codebooks, fading from round to round, lets items leave poor choices.

    The first level holds the mean of the items that chose each of its codes, so that the prefix means what it shows.
    Its codes fall into `groups` of near centroids, and each later level has one codebook a group: code 7 of level 2
    may stand for one difference among lipsticks and another among hair dryers. A SID stays one code a level. With one
    group this is additive quantization; each further group adds as many parameters as the later levels have. On
    catalogues of some ten thousand items two groups lower the error of fitted items and keep that of new ones; more
    groups begin to learn the items by heart.

    Parameters
    ----------
    codebook_sizes
        Codes of each level, first level first.
    groups
        Groups of first-level codes, each with codebooks of its own at the later levels; lowered to the size of the
        first codebook where that is smaller.
    rounds
        Turns of encoding and fitting.
    search_width
        Beams that the encoding keeps in a round.
    width
        Beams that `encode` keeps; the last round uses it too.
    noise
        Standard deviation of the noise in the first round, in those of the residual, dimension by dimension.
    prefix_weight
        Weight of the squared distance to the first level's vector, beside 1 for that to the sum of all: how much a
        choice that is better in all may cost the prefix.
    sample
        Most items that the codebooks are fitted on, drawn by the seed; the embeddings may be a memory-mapped file.
    seed
        Seed of the sample, of k-means and of the noise.
    progress
        Whether to show a progress bar.

    Attributes
    ----------
    codebooks_ : list of float32 arrays
        The first level's has shape (codebook_size, dim), each later one's (codebook_size, groups, dim).
    group_of_ : int64 array, shape (codebook_size of the first level,)
        Group of each first-level code.
    n_features_in_ : int
        Width of the embeddings it was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> embeddings = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0]])
    >>> quantizer = JointResidualKMeans(codebook_sizes=(2, 2), progress=False).fit(embeddings)
    >>> bool(np.allclose(quantizer.reconstruct(quantizer.encode(embeddings)), embeddings, atol=0.01))
    True
    """

    group_of_: np.ndarray

    def __init__(
        self,
        codebook_sizes: Sequence[int] = (256, 256, 256),
        groups: int = 2,
        rounds: int = 36,
        search_width: int = 4,
        width: int = 16,
        noise: float = 1.2,
        prefix_weight: float = 0.1,
        sample: int = 262_144,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.codebook_sizes = codebook_sizes
        self.groups = groups
        self.rounds = rounds
        self.search_width = search_width
        self.width = width
        self.noise = noise
        self.prefix_weight = prefix_weight
        self.sample = sample
        self.seed = seed
        self.progress = progress

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Fit all codebooks.

        Raises
        ------
        ValueError
            If the embeddings are malformed, a codebook is larger than the number of items, or a parameter is out of
            range.
        """
        points = fitting_sample(check_embeddings(embeddings), self.sample, self.seed)
        sizes = check_codebook_sizes(self.codebook_sizes, len(points))
        if min(self.groups, self.rounds, self.search_width, self.width) < 1 or min(self.noise, self.prefix_weight) < 0:
            raise ValueError(
                "groups, rounds, search_width and width must be at least 1, noise and prefix_weight not negative"
            )
        generator = np.random.default_rng(self.seed)
        codes, first = self._start(points, sizes)
        groups = min(self.groups, sizes[0])
        self.group_of_ = nearest_codes(first, kmeans(first, groups, seed=self.seed))[0]
        zeros = [np.zeros((size, groups, points.shape[1]), dtype=np.float32) for size in sizes[1:]]
        codebooks = _refit(points, codes, self.group_of_, [first, *zeros])
        for turn in tqdm(range(self.rounds), desc="joint residual k-means", unit="round", disable=not self.progress):
            left = 1 - turn / self.rounds
            spread = (points - _decode(codes, self.group_of_, codebooks, len(sizes))).std(axis=0)
            shaken = list(_shaken(codebooks, spread * self.noise * left / len(sizes) ** 0.5, generator))
            width = self.search_width if turn + 1 < self.rounds else self.width
            codes = search(points, self.group_of_, shaken, self.prefix_weight, width, keep=1)[:, 0]
            codebooks = _refit(points, codes, self.group_of_, codebooks)
        self.codebooks_ = codebooks
        self.n_features_in_ = points.shape[1]
        return self

    def refit(self, embeddings: Float[np.ndarray, "items dim"], codes: Int[np.ndarray, "items levels"]) -> Self:
        """Fit the codebooks to codes that are given, as after collisions were resolved by reassignment.

        The reconstruction of these items comes nearer; `encode` may give some items other codes than before.

        Raises
        ------
        ValueError
            If embeddings or codes are malformed, or don't belong to this quantizer.
        """
        require_fitted(self)
        points = check_embeddings(embeddings, self.n_features_in_)
        codes, _ = check_codes(codes, [len(codebook) for codebook in self.codebooks_])
        if len(codes) != len(points):
            raise ValueError(f"{len(points)} embeddings for {len(codes)} rows of codes; give the same items in both")
        self.codebooks_ = _refit(points, codes, self.group_of_, self.codebooks_)
        return self

    def _start(self, points: np.ndarray, sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return codes of levels fitted one after the other on residuals of length 1, and the first level's means."""
        residual = points.copy()
        codes = np.empty((len(points), len(sizes)), dtype=np.int64)
        first = np.empty(0)
        for level, size in enumerate(sizes):
            directions = _unit(residual) if level else residual
            centroids = kmeans(directions, size, seed=self.seed + level, iterations=START_ITERATIONS)
            codes[:, level] = nearest_codes(directions, centroids)[0]
            means = _means(residual, codes[:, level], centroids)
            first = means if level == 0 else first
            residual -= means[codes[:, level]]
        return codes, first

    def encode(self, embeddings: Float[np.ndarray, "items dim"]) -> Int[np.ndarray, "items levels"]:
        """Return the int64 codes of each embedding: the nearest tuple that a beam search over the levels finds."""
        return self.beams(embeddings, 1)[:, 0]

    def beams(self, embeddings: Float[np.ndarray, "items dim"], width: int) -> Int[np.ndarray, "items width levels"]:
        """Return the best `width` code tuples of each embedding that a beam search finds, the best first.

        Best is the least squared distance, with that to the first level's vector added `prefix_weight` times.
        """
        require_fitted(self)
        points = check_embeddings(embeddings, self.n_features_in_)
        width = min(width, prod(len(codebook) for codebook in self.codebooks_))
        return search(points, self.group_of_, self.codebooks_, self.prefix_weight, max(width, self.width), keep=width)

    def reconstruct(
        self, codes: Int[np.ndarray, "items levels"], depth: int | None = None
    ) -> Float[np.ndarray, "items dim"]:
        """Return the sum of the first `depth` codebook vectors of each item (all levels if None)."""
        require_fitted(self)
        codes, depth = check_codes(codes, [len(codebook) for codebook in self.codebooks_], depth)
        return _decode(codes, self.group_of_, self.codebooks_, depth)

    def save(self, folder: str | Path) -> Path:
        """Write ``quantizer.json`` and ``quantizer.safetensors`` into the folder, which is made if needed."""
        require_fitted(self)
        tensors = {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks_)}
        return write_quantizer(folder, self, constructor_parameters(self), tensors | {"group_of": self.group_of_})

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
        quantizer = super().load(folder)
        quantizer.group_of_ = read_quantizer(folder, cls.__name__)[1]["group_of"]
        return quantizer


def _unit(residual: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items dim"]:
    return residual / np.maximum(np.linalg.norm(residual, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _means(
    points: Float[np.ndarray, "items dim"], codes: Int[np.ndarray, " items"], otherwise: Float[np.ndarray, "codes dim"]
) -> Float[np.ndarray, "codes dim"]:
    """Return the mean of the points of each code; a code without points keeps the vector it had."""
    counts = np.bincount(codes, minlength=len(otherwise))
    sums = _members(codes[:, None], len(otherwise)) @ points
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], otherwise).astype(np.float32)


def _members(numbers: Int[np.ndarray, "items levels"], vectors: int) -> csr_array:
    """Return the 0/1 matrix of shape (vectors, items) that says which vectors make up an item."""
    items, levels = numbers.shape
    rows, columns = numbers.T.ravel(), np.tile(np.arange(items), levels)
    return csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(vectors, items))


def _decode(
    codes: Int[np.ndarray, "items levels"], group_of: Int[np.ndarray, " codes"], codebooks: list[np.ndarray], depth: int
) -> Float[np.ndarray, "items dim"]:
    total = codebooks[0][codes[:, 0]].copy()
    groups = group_of[codes[:, 0]]
    for level in range(1, depth):
        total += codebooks[level][codes[:, level], groups]
    return total


def _refit(
    points: Float[np.ndarray, "items dim"],
    codes: Int[np.ndarray, "items levels"],
    group_of: Int[np.ndarray, " codes"],
    codebooks: list[np.ndarray],
) -> list[np.ndarray]:
    """Return the first level's means, and the later levels' codebooks that fit what they leave with the least error.

    The least-squares problem is solved by conjugate gradients from the codebooks given, with a trace of ridge: the
    matrix has two or three ones a row, so a step costs little more than reading the points.
    """
    first = _means(points, codes[:, 0], codebooks[0])
    if len(codebooks) == 1:
        return [first]
    shapes = [codebook.shape for codebook in codebooks[1:]]
    offsets = np.concatenate([[0], np.cumsum([size * groups for size, groups, _ in shapes])])
    groups = shapes[0][1]
    members = _members(offsets[:-1] + codes[:, 1:] * groups + group_of[codes[:, 0]][:, None], int(offsets[-1]))
    vectors = np.concatenate([codebook.reshape(-1, points.shape[1]) for codebook in codebooks[1:]])
    residual = points - first[codes[:, 0]]
    vectors = _least_squares(members, residual, vectors)
    parts = (vectors[start:end] for start, end in pairwise(offsets))
    return [first, *(part.reshape(shape) for part, shape in zip(parts, shapes))]


def _least_squares(
    members: csr_array, targets: Float[np.ndarray, "items dim"], vectors: Float[np.ndarray, "vectors dim"]
) -> Float[np.ndarray, "vectors dim"]:
    """Take `STEPS` of conjugate gradients, preconditioned by the number of items a vector has, for all dimensions."""
    ridge, across = np.float32(1e-2), members.T.tocsr()
    scale = 1 / (np.asarray(members.sum(axis=1), dtype=np.float32)[:, None] + ridge)

    def product(some: np.ndarray) -> np.ndarray:
        return np.asarray(members @ (across @ some)) + ridge * some

    gap = np.asarray(members @ targets) - product(vectors)
    step = scale * gap
    size = (gap * step).sum(axis=0)
    for _ in range(STEPS):
        image = product(step)
        length = size / np.maximum((step * image).sum(axis=0), np.finfo(np.float32).tiny)
        vectors = vectors + length * step
        gap = gap - length * image
        new_size = (gap * scale * gap).sum(axis=0)
        step = scale * gap + new_size / np.maximum(size, np.finfo(np.float32).tiny) * step
        size = new_size
    return vectors.astype(np.float32)


def _shaken(
    codebooks: list[np.ndarray], spread: Float[np.ndarray, " dim"], generator: np.random.Generator
) -> Iterator[np.ndarray]:
    for codebook in codebooks:
        yield codebook + generator.standard_normal(codebook.shape, dtype=np.float32) * spread
