"""Records of ablation runs: one JSON file a variant and seed, with the rank of every user's true next item."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from trialign.ablations.variants import Variant
from trialign.provenance import plain, versions
from trialign.workspace import project_root

#: What a record's ranks are of: the validation items, and the test items with seen items kept or masked.
RANKINGS = ("validation", "test", "test, seen masked")

#: Places that are ranked for each user.
DEPTH = 20


@dataclass(frozen=True, eq=False)
class Record:
    """One variant, trained with one seed and evaluated.

    Attributes
    ----------
    variant, seed
        Which run it is.
    dataset, items
        Name and size of the catalogue.
    described_by
        Who wrote ``captions`` and ``interests``, and what made the ``embeddings``.
    settings
        All that the variants have in common: `trialign.ablations.Settings` as plain values.
    steps, best_step
        Optimizer steps taken, and after which of them the weights were kept (best validation).
    answers
        Task to the number of answer tokens it was trained on.
    colliding
        Share of the items that shared their codes before a suffix told them apart.
    ranks
        One of `RANKINGS` to the rank of each user's true item, 1 for the best, 0 where it is not among the first
        `DEPTH`. Every item has a semantic ID of its own, so there are no ties.
    popularity
        NDCG@10 on the test items, seen items kept, of always recommending what is popular.
    cpu_seconds
        Of the run without embeddings.
    versions, date
        Of the packages; day of the run, ISO 8601.
    """

    variant: Variant
    seed: int
    dataset: str
    items: int
    described_by: dict[str, str]
    settings: dict[str, Any]
    steps: int
    best_step: int
    answers: dict[str, int]
    colliding: float
    ranks: dict[str, list[int]]
    popularity: float
    cpu_seconds: float
    versions: dict[str, str] = field(default_factory=versions)
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def per_user(self, ranking: str = "test", metric: str = "ndcg@10") -> np.ndarray:
        """Return one number a user, float64; see `metric_of`."""
        return metric_of(np.asarray(self.ranks[ranking]), metric)


def metric_of(ranks: Int[np.ndarray, " users"], metric: str) -> np.ndarray:
    """Return ``recall@K`` or ``ndcg@K`` of each user from the rank of the one true item.

    Raises
    ------
    ValueError
        If it is neither, or K is beyond `DEPTH`.

    Examples
    --------
    >>> metric_of(np.array([1, 3, 0, 11]), "ndcg@10").tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    name, _, cut = metric.partition("@")
    if name not in ("recall", "ndcg") or not cut.isdigit() or not 1 <= int(cut) <= DEPTH:
        raise ValueError(f"metric must be recall@K or ndcg@K with K from 1 to {DEPTH}, got {metric!r}")
    found = (ranks >= 1) & (ranks <= int(cut))
    gains = 1 / np.log2(np.maximum(ranks, 1) + 1) if name == "ndcg" else np.ones(len(ranks))
    return np.where(found, gains, 0.0)


def ranks_of(ranked: Int[np.ndarray, "users k"], targets: Int[np.ndarray, " users"]) -> Int[np.ndarray, " users"]:
    """Return the rank of each user's target, from 1; 0 where it is not among the ranked items.

    Examples
    --------
    >>> ranks_of(np.array([[7, 3], [4, 5]]), np.array([3, 9])).tolist()
    [2, 0]
    """
    hits = ranked == np.asarray(targets)[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def record_path(folder: str | Path, variant: Variant, seed: int) -> Path:
    """Return where the record of a variant and seed lies in a folder."""
    return Path(folder) / f"{variant.slug}_seed-{seed}.json"


def write_record(record: Record, folder: str | Path) -> Path:
    """Write a record, whole or not at all, and return its path."""
    path = record_path(folder, record.variant, record.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.{os.getpid()}")
    written.write_text(json.dumps(plain(asdict(record)), ensure_ascii=False) + "\n", "utf-8")
    return written.replace(path)


def read_record(path: str | Path) -> Record:
    """Read a record.

    Raises
    ------
    ValueError
        If it is no record: no JSON, entries missing or unknown, or ranks that are not all of the same users.
    """
    path = Path(path)
    try:
        entries = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}); fix: remove it and run its variant again") from None
    names = {entry.name for entry in fields(Record)}
    if not isinstance(entries, Mapping) or entries.keys() != names:
        differing = sorted(names ^ set(entries if isinstance(entries, Mapping) else ()))
        raise ValueError(f"{path} is no record ({', '.join(differing)}); fix: remove it and run its variant again")
    if set(entries["ranks"]) != set(RANKINGS) or len({len(ranks) for ranks in entries["ranks"].values()}) != 1:
        raise ValueError(f"{path}: ranks must hold {', '.join(RANKINGS)} of the same users; fix: run its variant again")
    variant = Variant(**{**entries["variant"], "tasks": tuple(entries["variant"]["tasks"])})
    return Record(**{**entries, "variant": variant})


def find_records(name_or_folder: str | Path) -> Path:
    """Return the folder of records: a folder, or the shipped ones of a data set by its name.

    Raises
    ------
    FileNotFoundError
        If there is no record in it; the message says which command makes them.
    """
    shipped = project_root() / "benchmarks" / "results" / "ablations" / name_or_folder
    folder = Path(name_or_folder) if Path(name_or_folder).is_dir() else shipped
    if not any(folder.glob("*_seed-*.json")):
        raise FileNotFoundError(
            f"no records of ablations in {folder}; fix: make them with "
            f"`python benchmarks/ablations.py --dataset {name_or_folder} --out {folder}`"
        )
    return folder


def provenance(records: list[Record]) -> pd.Series:
    """Return what a reader should know of records that belong together: models, settings, dates, versions."""
    first = records[0]
    dates = sorted({record.date for record in records})
    return pd.Series(
        {
            "data set": f"{first.dataset}, {first.items} items, {len(first.ranks['test'])} users",
            **{f"{what} by": who for what, who in first.described_by.items()},
            "runs": f"{len(records)}: {len({record.variant for record in records})} variants, seeds "
            + ", ".join(map(str, sorted({record.seed for record in records}))),
            "settings": ", ".join(f"{name} {value}" for name, value in first.settings.items()),
            "made": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
            "CPU seconds a run": f"{np.median([record.cpu_seconds for record in records]):.0f} (median)",
            "with": ", ".join(
                f"{name} {first.versions[name]}" for name in ("python", "torch", "transformers", "numpy")
            ),
        },
        name="recorded",
    )
