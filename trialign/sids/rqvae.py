"""RQ-VAE: an encoder and a decoder around residual quantization, trained together.

Papers: RQ-VAE (Lee et al., arXiv 2203.01941) for the residual quantizer, its losses and EMA codebooks; VQ-VAE (van den
Oord et al., arXiv 1711.00937) for straight-through gradients and the stop-gradient losses; TIGER (Rajput et al.,
arXiv 2305.05065) for its use on item embeddings and the k-means start; TriAlignGR (arXiv 2605.05249) for three levels;
the rotation trick (arXiv 2410.06424), LC-Rec (arXiv 2311.09049) and "Spreading vectors" (arXiv 1806.03198) for choices.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from trialign.progress import tqdm
from trialign.sids.autoencoder import ResidualAutoencoder, crowding, nearest_within
from trialign.sids.bottleneck import Estimator, ResidualBottleneck, rotation_trick, straight_through
from trialign.sids.codebooks import Codebook, EMACodebook, GradientCodebook
from trialign.sids.quantizer import (
    check_codebook_sizes,
    check_codes,
    check_embeddings,
    constructor_parameters,
    read_quantizer,
    require_fitted,
    write_quantizer,
)
from trialign.sids.residual import (
    CHUNK,
    kmeans,
    nearest_codes,
    residual_beams,
    residual_decode,
    residual_encode,
)

#: Most items used to place codebooks at the start and restarted codes later; more would cost time and change little.
SAMPLE = 65_536

#: How codes may follow the residuals, and how gradients may pass the quantizer.
CODEBOOKS = ("ema", "gradient")
ESTIMATORS: dict[str, Estimator] = {"straight-through": straight_through, "rotation": rotation_trick}


class RQVAE:
    """Residual-quantized variational autoencoder of item embeddings.

    Loss (arXiv 2203.01941, section 3.1, on embeddings instead of feature maps), with ``z = E(x)``, ``z^(h)`` the sum
    of the first h codes and ``sg`` the stop-gradient::

        ||x - D(z^)||^2 + commitment * sum_h ||z - sg[z^(h)]||^2

    Codebooks start from k-means on the residuals of all items (a sample of 65,536 of a larger catalogue), and codes
    that no item chose in an epoch are restarted until the last tenth of the epochs. How codes follow the residuals, how
    the decoder's gradient reaches the encoder, and what is done against items that share their codes are parameters.

    New items go through the encoder and get the nearest code of each level; nothing of other items is looked at, and
    nothing is balanced then. Embeddings may be mapped from a file (`numpy.memmap` of float32): `fit` reads a batch,
    `encode` 4,096 rows at a time.

    Parameters
    ----------
    codebook_sizes
        Codes of each level, first level first (paper: 4096, 2048, 1024).
    latent_dim
        Width of the space in which codes are chosen; at most the width of the embeddings.
    hidden_dims
        Widths of the encoder's hidden layers; the decoder mirrors them.
    epochs, learning_rate, batch_size
        Training with Adam; the learning rate falls to zero along a cosine.
    commitment
        Weight of the commitment loss.
    decay
        Decay of the moving averages, per batch; not used by codes that learn by gradients.
    codebook
        ``"ema"``: codes are moving averages of their residuals (arXiv 1711.00937, appendix A.1). ``"gradient"``: they
        follow the gradient of ``sum_h ||sg[r^(h)] - c^(h)||^2`` (equation 3 there, on residuals).
    estimator
        How the decoder's gradient reaches the encoder: ``"straight-through"`` copies it (arXiv 1711.00937, section
        3.2), ``"rotation"`` turns and scales it as the latent is turned into its code (arXiv 2410.06424).
    sinkhorn_levels
        Levels (1 = first) on which the codes of a training batch are balanced by optimal transport; LC-Rec
        (arXiv 2311.09049) names the last. It needs batches of several items a code.
    spread
        Weight of a loss against crowding: the mean of ``max(0, log(2 e / d))``, with d the distance of a latent to the
        nearest other one that had the same first code when the epoch began, and e the distance to its own quantized
        self (after arXiv 1806.03198; see `crowding`). It keeps like items apart that a reconstruction has no reason to
        tell apart: fewer share their codes, at some cost in reconstruction. It does most with a small `latent_dim`,
        wide `hidden_dims` and ``codebook="gradient"``, at a weight around 0.1.
    seed
        Seed of the weights, the order of items, k-means and restarts. On CPU, with one number of threads, a fit is
        a function of the data and the parameters.
    progress
        Whether to show a progress bar.

    Attributes
    ----------
    codebooks_ : list of float32 arrays, shape (codebook_size, latent_dim)
    loss_ : pandas.DataFrame
        One row an epoch: ``epoch``; ``reconstruction``, the squared error as a share of the embeddings' variance;
        ``commitment``, before weighting, in the same unit, summed over levels; ``restarted``, codes.
    n_features_in_ : int
        Width of the embeddings it was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> embeddings = np.random.default_rng(0).normal(size=(64, 8))
    >>> quantizer = RQVAE(codebook_sizes=(8, 8), latent_dim=4, hidden_dims=(16,), epochs=5, progress=False)
    >>> quantizer.fit(embeddings).encode(embeddings).shape
    (64, 2)
    """

    codebooks_: list[np.ndarray]
    loss_: pd.DataFrame
    n_features_in_: int
    network_: ResidualAutoencoder

    def __init__(
        self,
        codebook_sizes: Sequence[int] = (256, 256, 256),
        latent_dim: int = 64,
        hidden_dims: Sequence[int] = (256, 128),
        epochs: int = 100,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        commitment: float = 0.25,
        decay: float = 0.95,
        codebook: str = "ema",
        estimator: str = "straight-through",
        sinkhorn_levels: Sequence[int] = (),
        spread: float = 0.0,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.codebook_sizes = codebook_sizes
        self.latent_dim = latent_dim
        self.hidden_dims = hidden_dims
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.commitment = commitment
        self.decay = decay
        self.codebook = codebook
        self.estimator = estimator
        self.sinkhorn_levels = sinkhorn_levels
        self.spread = spread
        self.seed = seed
        self.progress = progress

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Train encoder, codebooks and decoder.

        Raises
        ------
        ValueError
            If the embeddings are malformed or all equal, a codebook is larger than the number of items, the latent
            space is wider than the embeddings, or a training parameter is out of range or unknown.
        """
        points = check_embeddings(embeddings)
        sizes = check_codebook_sizes(self.codebook_sizes, len(points))
        self._check_parameters(points, len(sizes))
        generator = torch.Generator().manual_seed(self.seed)
        network = self._new_network(points.shape[1])
        sample = _rows(points, torch.randperm(len(points), generator=generator)[:SAMPLE])
        network.start_from_data(sample)
        sample = network.normalize(sample)
        codebooks = self._start_codebooks(network, sample, sizes, min(self.batch_size, len(points)))
        bottleneck = ResidualBottleneck(codebooks, ESTIMATORS[self.estimator], self.sinkhorn_levels)
        self.loss_ = pd.DataFrame(list(self._train(network, bottleneck, points, sample, generator)))
        self.network_ = network.eval()
        self.codebooks_ = [codebook.vectors.detach().numpy().copy() for codebook in codebooks]
        self.n_features_in_ = points.shape[1]
        return self

    def _check_parameters(self, points: Float[np.ndarray, "items dim"], levels: int) -> None:
        if not 1 <= self.latent_dim <= points.shape[1]:
            raise ValueError(f"latent_dim must be between 1 and the {points.shape[1]} dimensions of the embeddings")
        if min(self.epochs, self.batch_size) < 1 or self.learning_rate <= 0 or self.commitment < 0:
            raise ValueError(
                "epochs and batch_size must be at least 1, learning_rate positive, commitment not negative"
            )
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must lie between 0 and 1; got {self.decay}")
        if self.spread < 0:
            raise ValueError(f"spread must not be negative; got {self.spread}")
        for name, value, choices in (("codebook", self.codebook, CODEBOOKS), ("estimator", self.estimator, ESTIMATORS)):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
        if any(not 1 <= level <= levels for level in self.sinkhorn_levels):
            raise ValueError(f"sinkhorn_levels must name levels from 1 to {levels}; got {tuple(self.sinkhorn_levels)}")
        if (points.min(axis=0) == points.max(axis=0)).all():
            raise ValueError("all embeddings are equal, nothing can be told apart; check the embedder's input")

    def _new_network(self, dim: int) -> ResidualAutoencoder:
        with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers alone
            torch.manual_seed(self.seed)
            return ResidualAutoencoder(dim, self.latent_dim, self.hidden_dims)

    @torch.no_grad()
    def _start_codebooks(
        self, network: ResidualAutoencoder, sample: Float[Tensor, "items dim"], sizes: Sequence[int], batch_size: int
    ) -> list[Codebook]:
        residual = network.encode(sample).numpy().copy()
        codebooks: list[Codebook] = []
        for level, size in enumerate(sizes):
            vectors = kmeans(residual, size, seed=self.seed + level)
            residual -= vectors[nearest_codes(residual, vectors)[0]]
            start = torch.from_numpy(vectors.copy())
            if self.codebook == "ema":
                codebooks.append(EMACodebook(start, batch_size / size, self.decay))
            else:
                codebooks.append(GradientCodebook(start))
        return codebooks

    def _train(
        self,
        network: ResidualAutoencoder,
        bottleneck: ResidualBottleneck,
        points: Float[np.ndarray, "items dim"],
        sample: Float[Tensor, "items dim"],
        generator: torch.Generator,
    ) -> Iterator[dict[str, float]]:
        codes = [codebook.vectors for codebook in bottleneck.codebooks if isinstance(codebook, GradientCodebook)]
        optimizer = torch.optim.Adam([*network.parameters(), *codes], lr=self.learning_rate)
        steps = self.epochs * -(-len(points) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        bar = tqdm(range(1, self.epochs + 1), desc="RQ-VAE", unit="epoch", disable=not self.progress)
        for epoch in bar:
            totals = np.zeros(2)
            neighbours = self._neighbours(network, bottleneck, points) if self.spread > 0 else None
            for rows in torch.randperm(len(points), generator=generator).split(self.batch_size):
                batch = network.normalize(_rows(points, rows))
                latents = network.encode(batch)
                quantized = bottleneck.quantize(latents)
                reconstruction = (network.decode(quantized.latents) - batch).square().mean()
                commitment = quantized.commitment / batch.numel()
                optimizer.zero_grad()
                loss = reconstruction + self.commitment * commitment + quantized.codebook / batch.numel()
                if neighbours is not None:
                    loss = loss + self.spread * crowding(latents, quantized.latents.detach(), neighbours[rows])
                loss.backward()
                optimizer.step()
                schedule.step()
                totals += len(rows) * np.array([reconstruction.item(), commitment.item()])
            restarted = 0
            if epoch <= 0.9 * self.epochs:
                restarted = bottleneck.restart_dead(network.encode(sample).detach(), generator)
            reconstruction_mean, commitment_mean = totals / len(points)
            bar.set_postfix(reconstruction=f"{reconstruction_mean:.4f}", restarted=restarted)
            yield {
                "epoch": epoch,
                "reconstruction": reconstruction_mean,
                "commitment": commitment_mean,
                "restarted": restarted,
            }

    @torch.no_grad()
    def _neighbours(
        self, network: ResidualAutoencoder, bottleneck: ResidualBottleneck, points: Float[np.ndarray, "items dim"]
    ) -> Float[Tensor, "items latent"]:
        """Return, for every item, the nearest other latent among the items that share its first code."""
        chunks = torch.arange(len(points)).split(CHUNK)
        latents = torch.cat([network.encode(network.normalize(_rows(points, rows))) for rows in chunks])
        first = bottleneck.codebooks[0]
        codes = torch.cat([first.assign(part) for part in latents.split(CHUNK)])
        return nearest_within(latents, codes)

    @torch.no_grad()
    def _latents(self, embeddings: Float[np.ndarray, "items dim"]) -> Iterator[Float[np.ndarray, "chunk latent"]]:
        require_fitted(self)
        points = check_embeddings(embeddings, self.n_features_in_)
        for start in range(0, len(points), CHUNK):
            part = torch.from_numpy(np.array(points[start : start + CHUNK]))
            yield self.network_.encode(self.network_.normalize(part)).numpy()

    def encode(self, embeddings: Float[np.ndarray, "items dim"]) -> Int[np.ndarray, "items levels"]:
        """Return the int64 codes of each embedding, greedily level by level; new items need no refit."""
        return np.concatenate([residual_encode(part, self.codebooks_) for part in self._latents(embeddings)])

    def beams(self, embeddings: Float[np.ndarray, "items dim"], width: int) -> Int[np.ndarray, "items width levels"]:
        """Return the best `width` code tuples of each embedding as a beam search finds them in latent space."""
        return np.concatenate([residual_beams(part, self.codebooks_, width) for part in self._latents(embeddings)])

    @torch.no_grad()
    def reconstruct(
        self, codes: Int[np.ndarray, "items levels"], depth: int | None = None
    ) -> Float[np.ndarray, "items dim"]:
        """Decode the sum of the first `depth` codebook vectors of each item (all levels if None)."""
        require_fitted(self)
        codes, depth = check_codes(codes, [len(codebook) for codebook in self.codebooks_], depth)
        latents = torch.from_numpy(residual_decode(codes, self.codebooks_, depth))
        parts = [self.network_.decode(part) * self.network_.scale + self.network_.mean for part in latents.split(CHUNK)]
        return torch.cat(parts).numpy()

    def save(self, folder: str | Path) -> Path:
        """Write ``quantizer.json`` and ``quantizer.safetensors`` into the folder, which is made if needed."""
        require_fitted(self)
        tensors = {f"network.{name}": tensor.numpy() for name, tensor in self.network_.state_dict().items()}
        tensors |= {f"codebook.{level}": codebook for level, codebook in enumerate(self.codebooks_)}
        tensors |= {f"loss.{name}": self.loss_[name].to_numpy() for name in self.loss_}
        return write_quantizer(folder, self, constructor_parameters(self), tensors)

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
        quantizer.n_features_in_ = len(tensors["network.mean"])
        quantizer.network_ = quantizer._new_network(quantizer.n_features_in_).eval()
        weights = {name: torch.from_numpy(tensors[f"network.{name}"]) for name in quantizer.network_.state_dict()}
        quantizer.network_.load_state_dict(weights)
        quantizer.codebooks_ = [tensors[f"codebook.{level}"] for level in range(len(parameters["codebook_sizes"]))]
        columns = ("epoch", "reconstruction", "commitment", "restarted")
        quantizer.loss_ = pd.DataFrame({name: tensors[f"loss.{name}"] for name in columns})
        return quantizer


def _rows(points: Float[np.ndarray, "items dim"], rows: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen dim"]:
    return torch.from_numpy(np.asarray(points[rows.numpy()]))
