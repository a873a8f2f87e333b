"""Balanced assignment by entropic optimal transport: every code takes an equal share of the items.

Papers: Sinkhorn distances (Cuturi, arXiv 1306.0895) for the iteration; LC-Rec (Zheng et al., arXiv 2311.09049) for its
use on the last level of an RQ-VAE, so that fewer items share their codes.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
def sinkhorn(costs: Float[Tensor, "items codes"], epsilon: float, iterations: int = 50) -> Float[Tensor, "items codes"]:
    """Return the logarithm of the transport plan: each item gives weight 1, each code receives items / codes.

    The plan minimizes ``sum(plan * costs) - epsilon * entropy(plan)``; scaling rows and columns in turn finds it. In
    the log domain nothing overflows however small `epsilon` is. Rows are scaled last, so their sums are exact and
    those of the columns as exact as the iterations allow.

    Parameters
    ----------
    costs
        Cost of giving an item to a code, in any unit.
    epsilon
        Softness, in the unit of the costs: near zero the plan is a hard balanced assignment, a large one is uniform.
    iterations
        Scalings of columns and rows.

    Raises
    ------
    ValueError
        If `epsilon` is not positive or `iterations` is below 1.
    """
    if epsilon <= 0 or iterations < 1:
        raise ValueError(f"epsilon must be positive and iterations at least 1; got {epsilon} and {iterations}")
    items, codes = costs.shape
    scores = -costs / epsilon
    share = math.log(items / codes)
    rows = -scores.logsumexp(dim=1, keepdim=True)
    for _ in range(iterations):
        columns = share - (scores + rows).logsumexp(dim=0, keepdim=True)
        rows = -(scores + columns).logsumexp(dim=1, keepdim=True)
    return scores + rows + columns


def balanced_codes(
    distances: Float[Tensor, "items codes"], epsilon: float = 0.02, iterations: int = 20
) -> Int[Tensor, " items"]:
    """Return each item's code of the largest weight in the plan; `epsilon` counts in mean distances."""
    scale = distances.mean().clamp_min(1e-12)
    return sinkhorn(distances / scale, epsilon, iterations).argmax(dim=1)
