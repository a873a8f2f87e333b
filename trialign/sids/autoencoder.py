"""The encoder and the decoder of an RQ-VAE, and a loss against latents that lie too near one another.

Papers: RQ-VAE (Lee et al., arXiv 2203.01941); TIGER (arXiv 2305.05065) for its use on item embeddings.
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


def crowding(
    latents: Float[Tensor, "items latent"],
    quantized: Float[Tensor, "items latent"],
    neighbours: Float[Tensor, "items latent"],
) -> Float[Tensor, ""]:
    """Return how crowded latents lie: the mean of ``max(0, log(2 e / d))``.

    d is the distance from a latent to its nearest neighbour, e that to its own quantized self, taken as a constant.
    Two latents that share all codes lie at most the sum of their e apart, so only items that may share theirs count.
    Without the limit this is the loss of "Spreading vectors for similarity search" (Sablayrolles et al., arXiv
    1806.03198).
    """
    errors = (latents - quantized).detach().square().sum(1)
    gaps = (latents - neighbours).square().sum(1)
    return (4 * errors / (gaps + 1e-3 * errors.mean())).clamp_min(1e-12).log().clamp_min(0).mean() / 2


def nearest_within(
    latents: Float[Tensor, "items latent"], groups: Int[Tensor, " items"]
) -> Float[Tensor, "items latent"]:
    """Return the nearest other latent in each one's group; itself where it is alone."""
    nearest = latents.clone()
    order = groups.argsort(stable=True)
    for members in order.split(torch.bincount(groups).tolist()):
        for rows in members.split(1024) if len(members) > 1 else ():
            gaps = torch.cdist(latents[rows], latents[members])
            gaps.masked_fill_(rows[:, None] == members, torch.inf)
            nearest[rows] = latents[members[gaps.argmin(1)]]
    return nearest
