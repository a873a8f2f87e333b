"""RQ-VAE: an encoder and a decoder around residual quantization, trained together.

Papers: RQ-VAE (Lee et al., arXiv 2203.01941) for the residual quantizer, its losses and EMA codebooks; VQ-VAE (van den
Oord et al., arXiv 1711.00937) for straight-through gradients and the stop-gradient losses; TIGER (Rajput et al.,
arXiv 2305.05065) for its use on item embeddings and the k-means start; TriAlignGR (arXiv 2605.05249) for three levels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from trialign.progress import tqdm
from trialign.sids.autoencoder import EMACodebook, ResidualAutoencoder
from trialign.sids.quantizer import (
    check_codebook_sizes,
    check_codes,
    check_embeddings,
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


class RQVAE:
    """Residual-quantized variational autoencoder of item embeddings.

    Loss (arXiv 2203.01941, section 3.1, on embeddings instead of feature maps), with ``z = E(x)``, ``z^(h)`` the sum
    of the first h codes and ``sg`` the stop-gradient::

        ||x - D(z^)||^2 + commitment * sum_h ||z - sg[z^(h)]||^2

    The decoder's gradient passes to the encoder straight through the quantizer. Codebooks follow by exponential moving
    averages, which collapse less than gradient codebooks and need no learning rate; they start from k-means on the
    residuals of all items (a sample of 65,536 of a larger catalogue), and codes that no item chose in an epoch are
    restarted until the last tenth of the epochs.

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
        Decay of the moving averages, per batch.
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
        self.seed = seed
        self.progress = progress

    def fit(self, embeddings: Float[np.ndarray, "items dim"]) -> Self:
        """Train encoder, codebooks and decoder.

        Raises
        ------
        ValueError
            If the embeddings are malformed or all equal, a codebook is larger than the number of items, the latent
            space is wider than the embeddings, or a training parameter is out of range.
        """
        points = torch.from_numpy(check_embeddings(embeddings))
        sizes = check_codebook_sizes(self.codebook_sizes, len(points))
        self._check_parameters(points)
        generator = torch.Generator().manual_seed(self.seed)
        network = self._new_network(points.shape[1])
        network.start_from_data(points)
        normalized = network.normalize(points)
        sample = normalized[torch.randperm(len(points), generator=generator)[:SAMPLE]]
        codebooks = self._start_codebooks(network, sample, sizes, min(self.batch_size, len(points)))
        self.loss_ = pd.DataFrame(list(self._train(network, codebooks, normalized, sample, generator)))
        self.network_ = network.eval()
        self.codebooks_ = [codebook.vectors.numpy().copy() for codebook in codebooks]
        self.n_features_in_ = points.shape[1]
        return self

    def _check_parameters(self, points: Float[Tensor, "items dim"]) -> None:
        if not 1 <= self.latent_dim <= points.shape[1]:
            raise ValueError(f"latent_dim must be between 1 and the {points.shape[1]} dimensions of the embeddings")
        if min(self.epochs, self.batch_size) < 1 or self.learning_rate <= 0 or self.commitment < 0:
            raise ValueError(
                "epochs and batch_size must be at least 1, learning_rate positive, commitment not negative"
            )
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must lie between 0 and 1; got {self.decay}")
        if bool((points == points[0]).all()):
            raise ValueError("all embeddings are equal, nothing can be told apart; check the embedder's input")

    def _new_network(self, dim: int) -> ResidualAutoencoder:
        with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers alone
            torch.manual_seed(self.seed)
            return ResidualAutoencoder(dim, self.latent_dim, self.hidden_dims)

    @torch.no_grad()
    def _start_codebooks(
        self, network: ResidualAutoencoder, sample: Float[Tensor, "items dim"], sizes: Sequence[int], batch_size: int
    ) -> list[EMACodebook]:
        residual = network.encode(sample).numpy().copy()
        codebooks = []
        for level, size in enumerate(sizes):
            vectors = kmeans(residual, size, seed=self.seed + level)
            residual -= vectors[nearest_codes(residual, vectors)[0]]
            codebooks.append(EMACodebook(torch.from_numpy(vectors.copy()), batch_size / size, self.decay))
        return codebooks

    def _train(
        self,
        network: ResidualAutoencoder,
        codebooks: list[EMACodebook],
        normalized: Float[Tensor, "items dim"],
        sample: Float[Tensor, "items dim"],
        generator: torch.Generator,
    ) -> Iterator[dict[str, float]]:
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        steps = self.epochs * -(-len(normalized) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        bar = tqdm(range(1, self.epochs + 1), desc="RQ-VAE", unit="epoch", disable=not self.progress)
        for epoch in bar:
            totals = np.zeros(2)
            for rows in torch.randperm(len(normalized), generator=generator).split(self.batch_size):
                reconstruction, commitment = _losses(network, codebooks, normalized[rows])
                optimizer.zero_grad()
                (reconstruction + self.commitment * commitment).backward()
                optimizer.step()
                schedule.step()
                totals += len(rows) * np.array([reconstruction.item(), commitment.item()])
            restarted = _restart(network, codebooks, sample, generator) if epoch <= 0.9 * self.epochs else 0
            reconstruction_mean, commitment_mean = totals / len(normalized)
            bar.set_postfix(reconstruction=f"{reconstruction_mean:.4f}", restarted=restarted)
            yield {
                "epoch": epoch,
                "reconstruction": reconstruction_mean,
                "commitment": commitment_mean,
                "restarted": restarted,
            }

    @torch.no_grad()
    def _latents(self, embeddings: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items latent"]:
        require_fitted(self)
        points = torch.from_numpy(check_embeddings(embeddings, self.n_features_in_))
        parts = [self.network_.encode(self.network_.normalize(part)) for part in points.split(CHUNK)]
        return torch.cat(parts).numpy()

    def encode(self, embeddings: Float[np.ndarray, "items dim"]) -> Int[np.ndarray, "items levels"]:
        """Return the int64 codes of each embedding, greedily level by level; new items need no refit."""
        return residual_encode(self._latents(embeddings), self.codebooks_)

    def beams(self, embeddings: Float[np.ndarray, "items dim"], width: int) -> Int[np.ndarray, "items width levels"]:
        """Return the best `width` code tuples of each embedding as a beam search finds them in latent space."""
        return residual_beams(self._latents(embeddings), self.codebooks_, width)

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
        return write_quantizer(folder, self, self._parameters(), tensors)

    def _parameters(self) -> dict[str, Any]:
        parameters = {name: value for name, value in vars(self).items() if not name.endswith("_")}
        for name in ("codebook_sizes", "hidden_dims"):
            parameters[name] = [int(size) for size in parameters[name]]
        return parameters

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


def _losses(
    network: ResidualAutoencoder, codebooks: Sequence[EMACodebook], batch: Float[Tensor, "items dim"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return reconstruction and commitment loss of a batch, and move the codebooks towards it.

    Both are squared norms an item, divided by the width of the embeddings so that 1 is the embeddings' variance.
    """
    items, dim = batch.shape
    latents = network.encode(batch)
    residual = latents.detach()
    quantized = torch.zeros_like(residual)
    commitment = latents.new_zeros(())
    for codebook in codebooks:
        codes = codebook.assign(residual)
        chosen = codebook.vectors[codes]
        codebook.update(residual, codes)
        quantized = quantized + chosen
        residual = residual - chosen
        commitment = commitment + (latents - quantized).square().sum() / (items * dim)
    straight_through = latents + (quantized - latents).detach()
    return (network.decode(straight_through) - batch).square().mean(), commitment


@torch.no_grad()
def _restart(
    network: ResidualAutoencoder,
    codebooks: Sequence[EMACodebook],
    sample: Float[Tensor, "items dim"],
    generator: torch.Generator,
) -> int:
    """Restart the dead codes of every level; return how many."""
    restarted = 0
    residual = network.encode(sample)
    for codebook in codebooks:
        restarted += codebook.restart_dead(residual, generator)
        residual = residual - codebook.vectors[codebook.assign(residual)]
    return restarted
