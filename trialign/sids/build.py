"""A quantizer by name, with its parameters as plain values or as the command line gives them."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from trialign.knobs import literal, parse_value
from trialign.sids import QUANTIZERS
from trialign.sids.quantizer import Quantizer


def build_quantizer(name: str, parameters: Mapping[str, Any], seed: int | None = None) -> Quantizer:
    """Make an unfitted quantizer.

    Parameters
    ----------
    name
        One of `trialign.sids.QUANTIZERS`.
    parameters
        Values by parameter name. A string is read as a Python or JSON literal of the type of the parameter's default.
        A quantizer inside a quantizer is written as in ``quantizer.json``:
        ``{"quantizer": "ResidualKMeans", "parameters": {"codebook_sizes": [64, 64]}}``.
    seed
        Given to the quantizer, and to those inside it, unless they take none or `parameters` name one.

    Raises
    ------
    ValueError
        If there is no such quantizer, it has no such parameter or lacks one, or a value is of another type.

    Examples
    --------
    >>> build_quantizer("ResidualKMeans", {"codebook_sizes": "[8, 8]"}, seed=3).codebook_sizes
    [8, 8]
    """
    if name not in QUANTIZERS:
        raise ValueError(f"no quantizer {name!r}; there are {', '.join(sorted(QUANTIZERS))}")
    declared = signature(QUANTIZERS[name]).parameters
    unknown = [parameter for parameter in parameters if parameter not in declared]
    if unknown:
        raise ValueError(f"{name} has no parameter {unknown[0]!r}; there are {', '.join(declared)}")
    values = {} if seed is None or "seed" not in declared else {"seed": seed}
    values |= {key: _value(key, value, declared[key], seed) for key, value in parameters.items()}
    lacking = [key for key, entry in declared.items() if entry.default is Parameter.empty and key not in values]
    if lacking:
        raise ValueError(f"{name} needs the parameter {lacking[0]!r}")
    return QUANTIZERS[name](**values)


def _value(key: str, value: Any, declared: Parameter, seed: int | None) -> Any:
    default = declared.default
    if isinstance(value, str) and default is Parameter.empty:
        try:
            value = literal(value)
        except ValueError as error:
            raise ValueError(f"{key} = {value!r} is no Python or JSON literal") from error
    elif isinstance(value, str):
        value = parse_value(key, value, default)
    if isinstance(default, tuple) and all(type(entry) is int for entry in default):
        wrong = [entry for entry in value if type(entry) is not int]
        if wrong:
            raise ValueError(f"{key} = {value!r} must hold whole numbers; {wrong[0]!r} is none")
    return _with_quantizers(value, seed)


def _with_quantizers(value: Any, seed: int | None) -> Any:
    """Return the value with each description of a quantizer in it replaced by that quantizer."""
    if not isinstance(value, Mapping):
        return value
    if "quantizer" in value:
        return build_quantizer(value["quantizer"], value.get("parameters", {}), seed)
    return {key: _with_quantizers(entry, seed) for key, entry in value.items()}


def new_quantizer(name: str, codebook_sizes: Sequence[int], seed: int = 0, **training: Any) -> Quantizer:
    """Make an unfitted quantizer of codebook sizes, with those training options that it knows.

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
    taken = {kind: set(signature(QUANTIZERS[kind]).parameters) for kind in QUANTIZERS}
    plain = sorted(kind for kind, options in taken.items() if {"codebook_sizes", "seed"} <= options)
    if name not in plain:
        raise ValueError(f"no quantizer {name!r} is made from codebook sizes; choose one of {', '.join(plain)}")
    unknown = set(training) - set().union(*taken.values())
    if unknown:
        raise ValueError(f"no quantizer has an option {', '.join(sorted(unknown))}")
    known = {option: value for option, value in training.items() if option in taken[name]}
    return build_quantizer(name, {"codebook_sizes": codebook_sizes, **known}, seed)
