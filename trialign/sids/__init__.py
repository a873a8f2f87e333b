"""Semantic IDs: quantizers with one interface, collisions, the codes of a catalogue, and diagnostics."""

from pathlib import Path

from trialign.sids.collisions import collisions, resolve_collisions
from trialign.sids.quantizer import Quantizer, quantizer_kind
from trialign.sids.residual_kmeans import ResidualKMeans
from trialign.sids.rqvae import RQVAE
from trialign.sids.semantic_ids import SemanticIds

__all__ = [
    "QUANTIZERS",
    "RQVAE",
    "Quantizer",
    "ResidualKMeans",
    "SemanticIds",
    "collisions",
    "load_quantizer",
    "resolve_collisions",
]

#: The quantizers by class name, as saved quantizers name them.
QUANTIZERS: dict[str, type[RQVAE] | type[ResidualKMeans]] = {"RQVAE": RQVAE, "ResidualKMeans": ResidualKMeans}


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
