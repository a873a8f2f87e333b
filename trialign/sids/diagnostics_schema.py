"""The JSON form of `trialign.sids.diagnose.Diagnostics`: one table of columns, the JSON Schema made from it.

A file is one object: what was diagnosed, and one list of rows for each table. Floats are finite or null (null = not
defined, NaN in the tables). A table that was not measured is null.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

#: What the ``schema`` key of a file says; the number grows when a file of the form before can no longer be read.
SCHEMA_NAME = "trialign/sid-diagnostics/1"


class Column(NamedTuple):
    """One column of a table.

    Parameters
    ----------
    kind
        ``"integer"``, ``"number"`` (or null), ``"string"``, or ``"integers"`` (a list).
    description
        What it holds.
    """

    kind: str
    description: str


_SHARE = "share of items, 0 to 1"

#: Table → column → what it holds.
TABLES: Mapping[str, Mapping[str, Column]] = {
    "reconstruction": {
        "level": Column("integer", "codes used: 1 = the first code alone"),
        "cosine": Column("number", "mean cosine of embedding and reconstruction"),
        "relative_error": Column("number", "sum ||x - x^||^2 / sum ||x||^2"),
        "cosine_added": Column("number", "cosine less that of one code fewer"),
        "error_removed": Column("number", "relative error of one code fewer (1 without codes) less this one"),
    },
    "usage": {
        "level": Column("integer", "the level, from 1; this level's codes alone"),
        "codebook_size": Column("integer", "codes of the level"),
        "items": Column("integer", "items that have a code here"),
        "used": Column("number", "share of codes that some item has"),
        "entropy": Column("number", "entropy of the use in bits"),
        "perplexity": Column("number", "2 ** entropy: codes effectively in use"),
        "gini": Column("number", "0 = even use, towards 1 = all items on one code"),
        "counts": Column("integers", "items of each code, by code number"),
    },
    "collisions": {
        "stage": Column("string", "before or after the resolution of collisions"),
        "items": Column("integer", "all items"),
        "distinct": Column("integer", "different Semantic IDs"),
        "colliding": Column("integer", "items that share theirs with another item"),
        "items_colliding": Column("number", f"those, as a {_SHARE}"),
        "groups": Column("integer", "groups of items with one Semantic ID"),
        "largest_group": Column("integer", "items of the largest group; 1 without collisions"),
    },
    "neighbours": {
        "depth": Column("integer", "codes compared"),
        "preserved": Column("number", "share of the items' true nearest neighbours that share the prefix"),
        "chance": Column("number", "the same of any other item"),
        "lift": Column("number", "preserved / chance"),
    },
    "categories": {
        "depth": Column("integer", "codes compared"),
        "prefixes": Column("integer", "different prefixes in use"),
        "purity": Column("number", f"in the most common category of their prefix: {_SHARE}"),
        "purity_chance": Column("number", "the same with shuffled categories"),
        "pair_agreement": Column("number", "share of pairs of items with one prefix that have one category"),
        "pair_chance": Column("number", "the same of all pairs"),
    },
    "probes": {
        "representation": Column("string", "embedding, or reconstruction from all codes"),
        "attribute": Column("string", "what is read"),
        "where": Column("string", "where it can be seen: image, text or both; category where that is not known"),
        "items": Column("integer", "items used"),
        "values": Column("integer", "values told apart"),
        "accuracy": Column("number", "of a linear probe on held-out items"),
        "low": Column("number", "lower end of its 95 % interval over items"),
        "high": Column("number", "upper end"),
        "majority": Column("number", "share of the most common value"),
        "recovered": Column("number", "(accuracy - majority) / (1 - majority)"),
        "recovered_low": Column("number", "lower end of its 95 % interval over items"),
        "recovered_high": Column("number", "upper end"),
    },
    "stability": {
        "depth": Column("integer", "codes compared"),
        "first": Column("string", "name of one fit"),
        "second": Column("string", "name of another fit"),
        "adjusted_rand": Column("number", "1 = the same prefixes, 0 = alike by chance"),
        "neighbours_first": Column("number", "share of true nearest neighbours with one prefix in the first fit"),
        "neighbours_second": Column("number", "in the second fit"),
        "neighbours_both": Column("number", "in both"),
        "neighbours_if_unrelated": Column("number", "product of the two shares"),
    },
}

#: Tables that are null where the call was not given what they need.
OPTIONAL = ("categories", "probes", "stability")

#: Facts about what was diagnosed.
FACTS: Mapping[str, Column] = {
    "quantizer": Column("string", "class name of the quantizer"),
    "items": Column("integer", "items"),
    "dim": Column("integer", "width of the embeddings"),
    "codebook_sizes": Column("integers", "codes of each level of the quantizer, without a suffix level"),
    "neighbours_per_item": Column("integer", "nearest neighbours an item, by cosine"),
}

_TYPES: Mapping[str, Mapping[str, Any]] = {
    "integer": {"type": "integer"},
    "number": {"type": ["number", "null"]},
    "string": {"type": "string"},
    "integers": {"type": "array", "items": {"type": "integer", "minimum": 0}},
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a diagnostics file."""
    tables = {name: _table_schema(columns, name in OPTIONAL) for name, columns in TABLES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA_NAME,
        "description": "What a quantizer keeps of a catalogue's embeddings in its Semantic IDs.",
        **_object({"schema": {"const": SCHEMA_NAME}} | _properties(FACTS) | tables),
    }


def _properties(columns: Mapping[str, Column]) -> dict[str, Any]:
    return {name: {**_TYPES[column.kind], "description": column.description} for name, column in columns.items()}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _table_schema(columns: Mapping[str, Column], optional: bool) -> dict[str, Any]:
    rows = {"type": "array", "minItems": 1, "items": _object(_properties(columns))}
    return {"anyOf": [rows, {"type": "null"}]} if optional else rows
