"""The codes of one level of an RQ-VAE while it is trained: how they follow the residuals, and who gets which.

Papers: VQ-VAE (van den Oord et al., arXiv 1711.00937) for codes as moving averages (appendix A.1) and codes that learn
by gradients (equation 3).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Codebook:
    """One level's codes: the nearest to a residual, and a new place for codes that nothing chooses.

    Parameters
    ----------
    vectors
        Start of the codes, float32 of shape (codebook_size, latent).
    """

    def __init__(self, vectors: Float[Tensor, "codes latent"]) -> None:
        self.vectors = vectors
        self.used = torch.zeros(len(vectors))

    def distances(self, residual: Float[Tensor, "items latent"]) -> Float[Tensor, "items codes"]:
        """Return squared distances less each residual's own squared norm, which no choice depends on."""
        vectors = self.vectors.detach()
        return vectors.square().sum(1) - 2 * residual @ vectors.T

    def assign(self, residual: Float[Tensor, "items latent"]) -> Int[Tensor, " items"]:
        """Return each residual's nearest code."""
        return self.distances(residual).argmin(1)

    def update(self, residual: Float[Tensor, "items latent"], codes: Int[Tensor, " items"]) -> None:
        """Take note of a batch's choice of codes."""
        self.used += torch.bincount(codes, minlength=len(self.used))

    def move(self, codes: Int[Tensor, " codes"], places: Float[Tensor, "codes latent"]) -> None:
        """Put codes in other places."""
        self.vectors.detach()[codes] = places

    def restart_dead(self, residual: Float[Tensor, "items latent"], generator: torch.Generator) -> int:
        """Put codes that no residual chose since the last call on badly represented residuals; return how many.

        The residuals are drawn with probability proportional to their squared error, as k-means++ does.
        """
        dead = torch.nonzero(self.used == 0).flatten()
        self.used.zero_()
        if len(dead) == 0:
            return 0
        errors = (residual - self.vectors.detach()[self.assign(residual)]).square().sum(1) + 1e-12
        chosen = torch.multinomial(errors, len(dead), replacement=len(dead) > len(residual), generator=generator)
        self.move(dead, residual[chosen])
        return len(dead)


class EMACodebook(Codebook):
    """Codes as moving averages of the residuals given to them (arXiv 1711.00937, appendix A.1).

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
        super().__init__(vectors.clone())
        self.decay = decay
        self.start_count = count
        self.counts = torch.full((len(vectors),), count)
        self.sums = vectors * count

    def update(self, residual: Float[Tensor, "items latent"], codes: Int[Tensor, " items"]) -> None:
        """Move the codes towards the mean of a batch's residuals."""
        super().update(residual, codes)
        given = torch.bincount(codes, minlength=len(self.counts)).to(residual.dtype)
        self.counts.mul_(self.decay).add_(given, alpha=1 - self.decay)
        self.sums.mul_(self.decay).index_add_(0, codes, residual, alpha=1 - self.decay)
        # A code without residuals keeps its place: its sum and its count shrink alike, down to the smallest floats.
        alive = (self.counts > 1e-12)[:, None]
        self.vectors = torch.where(alive, self.sums / self.counts.clamp_min(1e-12)[:, None], self.vectors)

    def move(self, codes: Int[Tensor, " codes"], places: Float[Tensor, "codes latent"]) -> None:
        """Put codes in other places, with the weight they had at the start."""
        super().move(codes, places)
        self.counts[codes] = self.start_count
        self.sums[codes] = places * self.start_count


class GradientCodebook(Codebook):
    """Codes that the optimizer moves along the gradient of the codebook loss (arXiv 1711.00937, equation 3).

    Parameters
    ----------
    vectors
        Start of the codes, float32 of shape (codebook_size, latent); a trainable copy of them is `vectors`.
    """

    def __init__(self, vectors: Float[Tensor, "codes latent"]) -> None:
        super().__init__(nn.Parameter(vectors.clone()))
