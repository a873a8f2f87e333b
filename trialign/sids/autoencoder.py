"""The two learned parts of an RQ-VAE: the encoder and decoder around the quantizer, and a level's codebook.

Papers: VQ-VAE (van den Oord et al., arXiv 1711.00937) for codebooks as moving averages; RQ-VAE (Lee et al.,
arXiv 2203.01941) for a stack of them on residuals.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class ResidualAutoencoder(nn.Module):
    """Encoder and decoder: each a linear map plus a multi-layer perceptron (GELU) whose last layer starts at zero.

    The linear maps start as the first principal components, so training starts from residual k-means in PCA space and
    only improves on it; without them the same networks need many times the epochs (project's choice; the papers use
    the perceptron alone). Inputs are centred and divided by one scalar inside, which leaves angles between items alone.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, latent_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        widths = (dim, *hidden_dims, latent_dim)
        self.encoder, self.decoder = _perceptron(widths), _perceptron(widths[::-1])
        self.encoder_linear = nn.Linear(dim, latent_dim, bias=False)
        self.decoder_linear = nn.Linear(latent_dim, dim, bias=False)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def start_from_data(self, embeddings: Float[Tensor, "items dim"]) -> None:
        """Set centre, scale and principal components from the training embeddings."""
        self.mean.copy_(embeddings.mean(dim=0))
        centred = embeddings - self.mean
        self.scale.copy_(centred.square().mean().sqrt())
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        components = vectors.flip(1)[:, : self.encoder_linear.out_features].T
        self.encoder_linear.weight.copy_(components)
        self.decoder_linear.weight.copy_(components.T)

    def normalize(self, embeddings: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """Return centred embeddings of unit mean square."""
        return (embeddings - self.mean) / self.scale

    def encode(self, normalized: Float[Tensor, "items dim"]) -> Float[Tensor, "items latent"]:
        """Return latents."""
        return self.encoder_linear(normalized) + self.encoder(normalized)

    def decode(self, latents: Float[Tensor, "items latent"]) -> Float[Tensor, "items dim"]:
        """Return normalized embeddings."""
        return self.decoder_linear(latents) + self.decoder(latents)


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after), nn.GELU()]
    last = nn.Linear(widths[-2], widths[-1])
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class EMACodebook:
    """One level's codes as moving averages of the residuals given to them (arXiv 1711.00937, appendix A.1).

    Parameters
    ----------
    vectors
        Start of the codes, float32 of shape (codebook_size, latent).
    count
        Residuals a batch gives to a code on average; the weight of the start.
    decay
        Share of the average that a batch leaves in place.
    """

    def __init__(self, vectors: Float[Tensor, "codes latent"], count: float, decay: float) -> None:
        self.vectors = vectors
        self.decay = decay
        self.start_count = count
        self.counts = torch.full((len(vectors),), count)
        self.sums = vectors * count
        self.used = torch.zeros(len(vectors))

    def assign(self, residual: Float[Tensor, "items latent"]) -> Int[Tensor, " items"]:
        """Return each residual's nearest code."""
        return (self.vectors.square().sum(1) - 2 * residual @ self.vectors.T).argmin(1)

    def update(self, residual: Float[Tensor, "items latent"], codes: Int[Tensor, " items"]) -> None:
        """Move the codes towards the mean of a batch's residuals."""
        given = torch.bincount(codes, minlength=len(self.counts)).to(residual.dtype)
        self.used += given
        self.counts.mul_(self.decay).add_(given, alpha=1 - self.decay)
        self.sums.mul_(self.decay).index_add_(0, codes, residual, alpha=1 - self.decay)
        # A code without residuals keeps its place: its sum and its count shrink alike, down to the smallest floats.
        alive = (self.counts > 1e-12)[:, None]
        self.vectors = torch.where(alive, self.sums / self.counts.clamp_min(1e-12)[:, None], self.vectors)

    def restart_dead(self, residual: Float[Tensor, "items latent"], generator: torch.Generator) -> int:
        """Put codes that no residual chose since the last call on badly represented residuals; return how many.

        The residuals are drawn with probability proportional to their squared error, as k-means++ does.
        """
        dead = torch.nonzero(self.used == 0).flatten()
        self.used.zero_()
        if len(dead) == 0:
            return 0
        errors = (residual - self.vectors[self.assign(residual)]).square().sum(1) + 1e-12
        chosen = torch.multinomial(errors, len(dead), replacement=len(dead) > len(residual), generator=generator)
        self.vectors[dead] = residual[chosen]
        self.counts[dead] = self.start_count
        self.sums[dead] = self.vectors[dead] * self.start_count
        return len(dead)
