"""All diagnostics of one set of Semantic IDs in one call, as one table, one JSON file and one page of figures."""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from trialign.sids.collisions import collisions
from trialign.sids.diagnostics import (
    category_purity,
    code_counts,
    code_usage,
    neighbour_preservation,
    reconstruction_by_depth,
)
from trialign.sids.diagnostics_schema import FACTS, OPTIONAL, SCHEMA_NAME, TABLES
from trialign.sids.probes import KnownAttributes, compare_probes, probe_targets, recovered_by_where
from trialign.sids.quantizer import Quantizer, check_embeddings
from trialign.sids.semantic_ids import SemanticIds
from trialign.sids.stability import stability

#: How the two representations that are probed are called.
EMBEDDING, RECONSTRUCTION = "embedding", "reconstruction"


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """What is known about one set of Semantic IDs; made by `diagnose`.

    Columns of every table, with their meaning, are in `trialign.sids.diagnostics_schema.TABLES`.

    Parameters
    ----------
    facts
        ``quantizer`` (class name), ``items``, ``dim``, ``codebook_sizes``, ``neighbours_per_item``.
    reconstruction
        What the first codes give back of the embedding, by depth, and what each level adds.
    usage
        How evenly the codes of each level are used.
    collisions
        Items that share a Semantic ID, before resolution and, where Semantic IDs were given, after.
    neighbours
        Near items that share a prefix, by depth, beside chance.
    categories
        Categories of items that share a prefix, by depth, beside chance; None without categories.
    probes
        What a linear probe reads from the embedding and from its reconstruction; None where nothing is known.
    stability
        Prefixes of several seeds, compared; None where one fit was given.
    """

    facts: Mapping[str, Any]
    reconstruction: pd.DataFrame
    usage: pd.DataFrame
    collisions: pd.DataFrame
    neighbours: pd.DataFrame
    categories: pd.DataFrame | None = None
    probes: pd.DataFrame | None = None
    stability: pd.DataFrame | None = None

    def table(self) -> pd.DataFrame:
        """Return all of it as one table.

        Returns
        -------
        pandas.DataFrame
            One row a measure: ``aspect``; ``measure``; one column a level (``level 1``, ...: that level's codes for
            the use of codes, the first codes up to it for all else); ``whole SID``; ``embedding``, the same measure
            before quantization. What a measure has no value for is NaN.
        """
        rows = [*self._level_rows(), *self._stability_rows(), *self._collision_rows(), *self._probe_rows()]
        levels = [f"level {level}" for level in self.usage["level"]]
        return pd.DataFrame(rows, columns=["aspect", "measure", *levels, "whole SID", EMBEDDING])

    def _level_rows(self) -> list[dict[str, Any]]:
        measures = [
            ("reconstruction", "cosine to the embedding", self.reconstruction, "cosine"),
            ("reconstruction", "cosine added by the level", self.reconstruction, "cosine_added"),
            ("reconstruction", "relative squared error", self.reconstruction, "relative_error"),
            ("codes", "share of codes used", self.usage, "used"),
            ("codes", "entropy in bits", self.usage, "entropy"),
            ("codes", "perplexity", self.usage, "perplexity"),
            ("codes", "Gini", self.usage, "gini"),
            ("neighbours", "true neighbours with the same prefix", self.neighbours, "preserved"),
            ("neighbours", "... by chance", self.neighbours, "chance"),
            ("categories", "items in their prefix's main category", self.categories, "purity"),
            ("categories", "... by chance", self.categories, "purity_chance"),
            ("categories", "pairs with one prefix in one category", self.categories, "pair_agreement"),
            ("categories", "... by chance", self.categories, "pair_chance"),
        ]
        return [
            _row(aspect, measure, table[column]) for aspect, measure, table, column in measures if table is not None
        ]

    def _stability_rows(self) -> list[dict[str, Any]]:
        if self.stability is None:
            return []
        means = self.stability.drop(columns=["first", "second"]).groupby("depth").mean()
        measures = {
            "adjusted Rand index of two seeds, mean": "adjusted_rand",
            "true neighbours with the same prefix in both": "neighbours_both",
            "... if seeds were unrelated": "neighbours_if_unrelated",
        }
        return [_row("seeds", measure, means[column]) for measure, column in measures.items()]

    def _collision_rows(self) -> list[dict[str, Any]]:
        return [
            {"aspect": "collisions", "measure": f"{label}, {stage['stage']} resolution", "whole SID": stage[column]}
            for label, column in (("items that share their SID", "items_colliding"), ("largest group", "largest_group"))
            for stage in self.collisions.to_dict("records")
        ]

    def _probe_rows(self) -> list[dict[str, Any]]:
        if self.probes is None:
            return []
        recovered = recovered_by_where(self.probes)
        return [
            {
                "aspect": "probes",
                "measure": f"recovered of what is in {where}" if where != "category" else "recovered of the category",
                "whole SID": recovered.loc[RECONSTRUCTION, where],
                EMBEDDING: recovered.loc[EMBEDDING, where],
            }
            for where in recovered
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the form of `trialign.sids.diagnostics_schema.json_schema`: plain values, NaN as None."""
        record: dict[str, Any] = {"schema": SCHEMA_NAME, **{name: _plain(self.facts[name]) for name in FACTS}}
        for name, columns in TABLES.items():
            table = getattr(self, name)
            rows = None if table is None else table[list(columns)].to_dict("records")
            record[name] = rows and [{key: _plain(value) for key, value in row.items()} for row in rows]
        return record

    def to_json(self, path: str | Path) -> Path:
        """Write `to_dict` as a JSON file; floats are finite or null."""
        path = Path(path)
        path.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no diagnostics file of this version, or lacks a table or a column.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; write it with Diagnostics.to_json(path)")
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.get("schema") != SCHEMA_NAME:
            raise ValueError(f"{path} is no {SCHEMA_NAME!r} file; write it again with diagnose(...).to_json(path)")
        missing = [name for name in (*FACTS, *TABLES) if name not in record]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}; write it again with diagnose(...).to_json(path)")
        tables = {name: _table(name, record[name], path) for name in TABLES}
        return cls({name: record[name] for name in FACTS}, **tables)


def diagnose(
    embeddings: Float[np.ndarray, "items dim"],
    quantizer: Quantizer,
    sids: SemanticIds | Int[np.ndarray, "items levels"],
    categories: Sequence[str] | None = None,
    truth: KnownAttributes | None = None,
    codes_by_seed: Mapping[Hashable, Int[np.ndarray, "items levels"]] | None = None,
    neighbours: int = 10,
    seed: int = 0,
) -> Diagnostics:
    """Measure everything that this package can say about Semantic IDs.

    Nothing is assumed of the quantizer but `codebook_sizes`, `encode` and `reconstruct` up to a depth, so levels may
    be residuals, sub-spaces or anything else.

    Parameters
    ----------
    embeddings
        What was quantized.
    quantizer
        Fitted.
    sids
        Semantic IDs, or the codes of the quantizer alone. With Semantic IDs, collisions are counted before resolution
        (in what the quantizer itself gives) and after it; all other tables are about the codes that items really
        carry, without a suffix.
    categories
        One a row, "" for unknown.
    truth
        Known attributes; without it the probes read the category, if there is one.
    codes_by_seed
        Seed → codes of the same items by a quantizer fitted with that seed, for `trialign.sids.stability.stability`.
    neighbours
        Nearest neighbours an item; lowered where there are no more items than that.
    seed
        Seed of the probes' folds and of shuffled categories.

    Raises
    ------
    ValueError
        If rows disagree, or there are fewer than two items.

    Examples
    --------
    >>> import numpy as np
    >>> from trialign.sids import ResidualKMeans
    >>> embeddings = np.random.default_rng(0).normal(size=(60, 8))
    >>> quantizer = ResidualKMeans(codebook_sizes=(4, 4)).fit(embeddings)
    >>> diagnostics = diagnose(embeddings, quantizer, quantizer.encode(embeddings))
    >>> diagnostics.table()["aspect"].unique().tolist()
    ['reconstruction', 'codes', 'neighbours', 'collisions']
    """
    points = check_embeddings(embeddings)
    sizes = [int(size) for size in quantizer.codebook_sizes]
    whole = sids.codes if isinstance(sids, SemanticIds) else np.asarray(sids)
    codes = whole[:, : len(sizes)]
    neighbours = max(1, min(neighbours, len(points) - 1))
    targets = probe_targets(truth, categories)
    pair = {EMBEDDING: points, RECONSTRUCTION: quantizer.reconstruct(codes)}
    return Diagnostics(
        facts={
            "quantizer": type(quantizer).__name__,
            "items": len(points),
            "dim": points.shape[1],
            "codebook_sizes": sizes,
            "neighbours_per_item": neighbours,
        },
        reconstruction=reconstruction_by_depth(points, quantizer, codes),
        usage=code_usage(codes, sizes).assign(counts=[counts.tolist() for counts in code_counts(codes, sizes)]),
        collisions=_collision_table(
            {"before": quantizer.encode(points), "after": whole} if isinstance(sids, SemanticIds) else {"before": codes}
        ),
        neighbours=neighbour_preservation(points, codes, neighbours),
        categories=None if categories is None else category_purity(codes, categories, seed=seed),
        probes=None if targets is None else compare_probes(pair, *targets, seed=seed),
        stability=None if codes_by_seed is None else _named(stability(codes_by_seed, points, neighbours)),
    )


def _collision_table(stages: Mapping[str, np.ndarray]) -> pd.DataFrame:
    table = pd.DataFrame([{"stage": stage, **collisions(codes).to_dict()} for stage, codes in stages.items()])
    return table.infer_objects()


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the fits' names as text, as files have them."""
    return table.assign(first=table["first"].astype(str), second=table["second"].astype(str))


def _row(aspect: str, measure: str, values: pd.Series) -> dict[str, Any]:
    by_level = {f"level {level}": value for level, value in enumerate(values, start=1)}
    return {"aspect": aspect, "measure": measure, **by_level}


def _plain(value: Any) -> Any:
    """Return a value for JSON: NumPy numbers as Python's, what is not finite as None."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _table(name: str, rows: list[dict[str, Any]] | None, path: Path) -> pd.DataFrame | None:
    if rows is None and name in OPTIONAL:
        return None
    columns = TABLES[name]
    table = pd.DataFrame(rows)
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{path}: table {name!r} lacks {', '.join(missing)}; write it again")
    numbers = [column for column, entry in columns.items() if entry.kind == "number"]
    return table[list(columns)].astype(dict.fromkeys(numbers, "float64"))
