"""Catalogues by name: where data lie, what there is, and how each public layout is read."""

from trialign.datasets.registry import available, data_root, load
from trialign.datasets.truth import known_truth

__all__ = ["available", "data_root", "known_truth", "load"]
