"""A quantizer by name, with the training options that it knows."""

import inspect
from collections.abc import Sequence
from typing import Any

from trialign.sids import QUANTIZERS
from trialign.sids.quantizer import Quantizer


def new_quantizer(name: str, codebook_sizes: Sequence[int], seed: int = 0, **training: Any) -> Quantizer:
    """Make an unfitted quantizer.

    Parameters
    ----------
    name
        A key of `trialign.sids.QUANTIZERS` whose class takes codebook sizes (not one made of other quantizers).
    codebook_sizes, seed
        As for the quantizer.
    **training
        Options of training, such as ``epochs`` and ``progress``. A quantizer without gradients has no epochs: what
        its class does not take is left out, so that one set of notebook parameters serves all of them.

    Raises
    ------
    ValueError
        If there is no such quantizer, or an option that no quantizer takes.

    Examples
    --------
    >>> new_quantizer("ResidualKMeans", [8, 8], seed=1, epochs=50).seed
    1
    """
    taken = {kind: set(inspect.signature(QUANTIZERS[kind]).parameters) for kind in QUANTIZERS}
    plain = sorted(kind for kind, options in taken.items() if {"codebook_sizes", "seed"} <= options)
    if name not in plain:
        raise ValueError(f"no quantizer {name!r} is made from codebook sizes; choose one of {', '.join(plain)}")
    unknown = set(training) - set().union(*taken.values())
    if unknown:
        raise ValueError(f"no quantizer has an option {', '.join(sorted(unknown))}")
    known = {option: value for option, value in training.items() if option in taken[name]}
    quantizer: Quantizer = QUANTIZERS[name](codebook_sizes=codebook_sizes, seed=seed, **known)
    return quantizer
