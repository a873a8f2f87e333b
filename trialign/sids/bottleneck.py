"""The residual quantizer inside an RQ-VAE while it is trained: codes, losses, and gradients past the rounding.

Papers: RQ-VAE (Lee et al., arXiv 2203.01941, section 3.1) for the losses; VQ-VAE (van den Oord et al., arXiv
1711.00937) for straight-through gradients; the rotation trick (Fifty et al., arXiv 2410.06424).
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from trialign.sids.codebooks import Codebook
from trialign.sids.sinkhorn import balanced_codes

Estimator = Callable[[Float[Tensor, "items latent"], Float[Tensor, "items latent"]], Float[Tensor, "items latent"]]


def straight_through(
    latents: Float[Tensor, "items latent"], quantized: Float[Tensor, "items latent"]
) -> Float[Tensor, "items latent"]:
    """Return `quantized`; gradients pass to `latents` as they are (arXiv 1711.00937, section 3.2)."""
    return latents + (quantized - latents).detach()


def rotation_trick(
    latents: Float[Tensor, "items latent"], quantized: Float[Tensor, "items latent"]
) -> Float[Tensor, "items latent"]:
    """Return `quantized`; gradients are turned and scaled as a latent is onto its code (arXiv 2410.06424, section 4).

    The rotation from direction e to direction q is ``I - 2 r r' + 2 q e'`` with ``r = (e + q) / ||e + q||``, taken as
    a constant.
    """
    quantized = quantized.detach()
    norms = latents.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)
    code_norms = quantized.norm(dim=1, keepdim=True).clamp_min(1e-12)
    start, end = latents.detach() / norms, quantized / code_norms
    middle = start + end
    middle = middle / middle.norm(dim=1, keepdim=True).clamp_min(1e-12)
    along_middle = (latents * middle).sum(1, keepdim=True) * middle
    along_start = (latents * start).sum(1, keepdim=True) * end
    turned = (latents - 2 * along_middle + 2 * along_start) * (code_norms / norms)
    return turned + (quantized - turned).detach()  # the value exactly, also where a norm is zero


class Quantized(NamedTuple):
    """A batch after quantization, and the losses that tie latents and codes together (sums of squares, for gradients).

    Attributes
    ----------
    latents
        The sum of the chosen codes, with gradients to the encoder; shape (items, latent).
    commitment
        ``sum_h ||z - sg[z^(h)]||^2`` over the batch.
    codebook
        ``sum_h ||sg[r^(h)] - c^(h)||^2`` over the batch; only codes that learn by gradients feel it.
    """

    latents: Tensor
    commitment: Tensor
    codebook: Tensor


class ResidualBottleneck:
    """A stack of codebooks on residuals.

    Parameters
    ----------
    codebooks
        One a level.
    estimator
        How gradients pass the quantizer.
    sinkhorn_levels
        Levels (1 = first) on which the codes of a batch are balanced.
    """

    def __init__(self, codebooks: Sequence[Codebook], estimator: Estimator, sinkhorn_levels: Collection[int]) -> None:
        self.codebooks = codebooks
        self.estimator = estimator
        self.sinkhorn_levels = sinkhorn_levels

    def quantize(self, latents: Float[Tensor, "items latent"]) -> Quantized:
        """Quantize a batch and move the codebooks towards it."""
        residual = latents.detach()
        total = torch.zeros_like(residual)
        commitment, codebook_loss = latents.new_zeros(()), latents.new_zeros(())
        for level, codebook in enumerate(self.codebooks, start=1):
            distances = codebook.distances(residual)
            if level in self.sinkhorn_levels:
                codes = balanced_codes(distances + residual.square().sum(1, keepdim=True))
            else:
                codes = distances.argmin(1)
            chosen = codebook.vectors[codes]
            codebook.update(residual, codes)
            codebook_loss = codebook_loss + (residual - chosen).square().sum()
            total = total + chosen.detach()
            residual = residual - chosen.detach()
            commitment = commitment + (latents - total).square().sum()
        return Quantized(self.estimator(latents, total), commitment, codebook_loss)

    @torch.no_grad()
    def restart_dead(self, latents: Float[Tensor, "items latent"], generator: torch.Generator) -> int:
        """Restart the codes of every level that nothing chose since the last call; return how many."""
        restarted = 0
        for codebook in self.codebooks:
            restarted += codebook.restart_dead(latents, generator)
            latents = latents - codebook.vectors[codebook.assign(latents)]
        return restarted
