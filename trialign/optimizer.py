"""The optimizer of a training and its learning rate."""

import math

import torch
from torch import Tensor, nn

from trialign.checkpoints import trainable


def schedule(progress: float, warmup: float) -> float:
    """Return the share of the learning rate at a point of the training: linear warmup, then a cosine down to 0.

    Parameters
    ----------
    progress
        Share of the training that is done, 0 to 1.
    warmup
        Share of the training that warms up.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min((progress - warmup) / max(1 - warmup, 1e-9), 1.0)))


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over the trained parameters: matrices decay; embeddings, norms and biases do not."""
    embeddings = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    decayed: list[Tensor] = []
    kept: list[Tensor] = []
    for name, parameter in trainable(model).items():
        is_matrix = parameter.ndim == 2 and id(parameter) not in embeddings and "trainable_tokens" not in name
        (decayed if is_matrix else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, betas=(0.9, 0.98))
