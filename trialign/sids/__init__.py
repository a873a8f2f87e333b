"""Semantic IDs: quantizers with one interface, collisions, the codes of a catalogue, and diagnostics."""

from pathlib import Path
from typing import Any

from trialign.sids.balanced import BalancedResidualKMeans
from trialign.sids.collisions import collisions, resolve_collisions
from trialign.sids.extension import extend
from trialign.sids.fsq import ResidualFSQ
from trialign.sids.joint import JointResidualKMeans
from trialign.sids.modality import PerModality
from trialign.sids.product import OptimizedProductQuantizer, ProductQuantizer
from trialign.sids.quantizer import Quantizer, quantizer_kind
from trialign.sids.residual_kmeans import ResidualKMeans
from trialign.sids.rqvae import RQVAE
from trialign.sids.semantic_ids import SemanticIds

__all__ = [
    "QUANTIZERS",
    "RQVAE",
    "BalancedResidualKMeans",
    "JointResidualKMeans",
    "OptimizedProductQuantizer",
    "PerModality",
    "ProductQuantizer",
    "Quantizer",
    "ResidualFSQ",
    "ResidualKMeans",
    "SemanticIds",
    "collisions",
    "extend",
    "load_quantizer",
    "resolve_collisions",
]

#: The quantizers by class name, as saved quantizers name them.
QUANTIZERS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        RQVAE,
        ResidualKMeans,
        JointResidualKMeans,
        BalancedResidualKMeans,
        ProductQuantizer,
        OptimizedProductQuantizer,
        ResidualFSQ,
        PerModality,
    )
}


def load_quantizer(folder: str | Path) -> Quantizer:
    """Read a saved quantizer of any kind.

    Raises
    ------
    FileNotFoundError
        If the folder holds no saved quantizer.
    ValueError
        If its kind is unknown to this version.
    """
    kind = quantizer_kind(folder)
    if kind not in QUANTIZERS:
        raise ValueError(f"{folder}: unknown quantizer {kind!r}; known are {', '.join(sorted(QUANTIZERS))}")
    return QUANTIZERS[kind].load(folder)
