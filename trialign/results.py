"""Records of evaluated recommenders: one JSON a run with its figures, one Parquet beside it with every user's rank.

A run is one method on one data set with one seed: ``<dataset>/<method>-seed<N>.json`` and ``.parquet``. The Parquet
has a row a user, in the order of `Split.users`, and int16 columns ``rank`` and ``tied`` for both `RANKINGS`, so that
every metric of the test items follows from it, and methods can be compared user by user (`Record.per_user`).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from trialign.codehash import code_hash
from trialign.evaluate import paired_difference, ranking_metrics
from trialign.provenance import plain, versions

#: What is ranked: all items of the catalogue, or all but those in the user's history.
RANKINGS = {"all": False, "seen masked": True}

#: The cut-offs of the metrics, and the number of items that are ranked for each user.
KS, DEPTH = (5, 10), 20

METRICS = tuple(f"{name}@{k}" for k in KS for name in ("recall", "ndcg"))

#: Histories (item rows, oldest first), number of items, whether seen items are left out: item rows, best first.
Recommend = Callable[[Sequence[Int[np.ndarray, " history"]], int, bool], Int[np.ndarray, "users k"]]

Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Record:
    """One run: what was fitted, at what cost, and how good it is.

    Attributes
    ----------
    method, dataset, seed
        Which run it is.
    settings
        What the method was fitted with, all that makes it this run and no other.
    users
        Number of users that are evaluated.
    train_cpu_seconds
        CPU seconds of the process while the method was fitted, its choice of settings included.
    peak_mib
        Largest memory of the process, in MiB.
    validation, test
        Ranking ("all", "seen masked") to metric to mean over users.
    versions
        Of the packages, and a hash of this project's code.
    date
        Day of the run, ISO 8601.
    """

    method: str
    dataset: str
    seed: int
    settings: dict[str, Any]
    users: int
    train_cpu_seconds: float
    peak_mib: float
    validation: Figures
    test: Figures
    versions: dict[str, str] = field(default_factory=lambda: versions() | {"code": _code()})
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def path(self, folder: Path) -> Path:
        """Return the record's JSON below a folder of results."""
        return folder / self.dataset / f"{self.method}-seed{self.seed}.json"

    def per_user(self, folder: Path, ranking: str) -> pd.DataFrame:
        """Return each user's test metrics, as `trialign.evaluate.ranking_metrics` does.

        Raises
        ------
        FileNotFoundError
            If the Parquet is missing.
        ValueError
            If its rows or their mean are not what the record says.
        """
        file = self.path(folder).with_suffix(".parquet")
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; fix: run the method again, both files are written together")
        ranks = pd.read_parquet(file)
        if len(ranks) != self.users:
            raise ValueError(f"{file} has {len(ranks)} users, its record {self.users}; fix: run the method again")
        metrics = metrics_of(ranks, ranking)
        for name, value in metrics.mean().items():
            if abs(value - self.test[ranking][str(name)]) > 1e-6:
                raise ValueError(
                    f"{file}: {ranking}, {name} is {value:.6f}, in its record {self.test[ranking][str(name)]:.6f}; "
                    "fix: run the method again"
                )
        return metrics


def target_ranks(
    recommend: Recommend,
    histories: Sequence[Int[np.ndarray, " history"]],
    targets: Int[np.ndarray, " users"],
    groups: Int[np.ndarray, " items"] | None = None,
) -> pd.DataFrame:
    """Rank items for every user, in both `RANKINGS`, and return where the true item stands.

    Parameters
    ----------
    recommend
        The method.
    histories
        What each user has seen, oldest first.
    targets
        Row of each user's true item.
    groups
        Group of each item that the method can't tell apart, see `trialign.evaluate.ranking_metrics`: items with one
        SID. None where every item has a score or a SID of its own.

    Returns
    -------
    pandas.DataFrame
        int16 columns, a pair for each ranking: ``<ranking> rank``, 1 for the best item and 0 where the true item is
        not among the first `DEPTH`; ``<ranking> tied``, how many items of its group share the places from there on.
    """
    columns = {}
    for ranking, mask_seen in RANKINGS.items():
        ranked = recommend(histories, DEPTH, mask_seen)
        metrics = ranking_metrics(ranked, targets, ks=range(1, DEPTH + 1), groups=groups)
        recall = metrics[[f"recall@{k}" for k in range(1, DEPTH + 1)]].to_numpy()
        # Recall@K is 0 before the tie begins, and 1 / (number of tied items) at its first place.
        found = recall[:, -1] > 0
        begin = np.where(found, (recall == 0).sum(axis=1), 0)
        first = recall[np.arange(len(recall)), begin]
        columns[f"{ranking} rank"] = np.where(found, begin + 1, 0).astype(np.int16)
        columns[f"{ranking} tied"] = np.rint(1 / np.where(found, first, 1)).astype(np.int16)
    return pd.DataFrame(columns)


def metrics_of(ranks: pd.DataFrame, ranking: str) -> pd.DataFrame:
    """Return the `METRICS` of each user, expected over the orders of a tie, from `target_ranks`."""
    begin = ranks[f"{ranking} rank"].to_numpy(np.int64) - 1
    size = ranks[f"{ranking} tied"].to_numpy(np.int64)
    begin = np.where(begin < 0, DEPTH, begin)
    columns = {}
    for k in KS:
        for name, gains in (("recall", np.ones(k)), ("ndcg", 1 / np.log2(np.arange(k) + 2))):
            total = np.concatenate([[0.0], np.cumsum(gains)])
            columns[f"{name}@{k}"] = (total[np.minimum(begin + size, k)] - total[np.minimum(begin, k)]) / size
    return pd.DataFrame(columns)


def figures(ranks: pd.DataFrame) -> Figures:
    """Return the mean of every metric over users, for both rankings: what a record holds."""
    return {
        ranking: {str(name): float(value) for name, value in metrics_of(ranks, ranking).mean().items()}
        for ranking in RANKINGS
    }


def write_record(record: Record, ranks: pd.DataFrame, folder: Path) -> Path:
    """Write a record and its users' test ranks (`target_ranks`), and return the JSON's path.

    A record of the same run with the same settings is replaced.

    Raises
    ------
    ValueError
        If the record is malformed, the ranks are not its own, or a record with other settings stands there.
    """
    entries = plain(asdict(record))
    path = record.path(folder)
    _check(entries, path)
    if len(ranks) != record.users or figures(ranks) != record.test:
        raise ValueError(f"{path}: the ranks are not those of the record; fix: give `figures(ranks)` as its test")
    if path.exists() and (there := read_record(path)).settings != entries["settings"]:
        changed = sorted(
            name
            for name in there.settings.keys() | entries["settings"].keys()
            if there.settings.get(name) != entries["settings"].get(name)
        )
        raise ValueError(
            f"{path} holds a run with other settings ({', '.join(changed)}); fix: remove it, or give the method "
            "another name or the results another folder"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each file is complete before it takes its place; a pair of two runs is found out by `Record.per_user`.
    written = path.with_name(f".{path.name}")
    ranks.to_parquet(written, index=False, compression="zstd")
    written.replace(path.with_suffix(".parquet"))
    written.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
    written.replace(path)
    return path


def read_record(path: Path) -> Record:
    """Read a record.

    Raises
    ------
    ValueError
        If it is no JSON, or an entry is missing, unknown or not what it should be.
    """
    try:
        entries = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}); fix: run the method again") from None
    _check(entries, path)
    return Record(**entries)


def read_records(folder: Path, dataset: str) -> list[Record]:
    """Read all records of a data set, sorted by method and seed."""
    records = [read_record(path) for path in (folder / dataset).glob("*-seed*.json")]
    return sorted(records, key=lambda record: (record.method, record.seed))


def by_method(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group records by method.

    Raises
    ------
    ValueError
        If two seeds of a method have different settings: their mean would be the mean of two methods.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        group = groups.setdefault(record.method, [])
        if group and group[0].settings != record.settings:
            raise ValueError(
                f"{record.dataset}: seeds {group[0].seed} and {record.seed} of {record.method} have different "
                "settings; fix: run both with the same ones"
            )
        group.append(record)
    return groups


def seed_table(records: Sequence[Record], ranking: str) -> pd.DataFrame:
    """Return mean and sample standard deviation of the test metrics over a method's seeds.

    Returns
    -------
    pandas.DataFrame
        Indexed by metric; columns mean and sd, the latter NaN for one seed.
    """
    frame = pd.DataFrame([record.test[ranking] for record in records])
    return pd.DataFrame({"mean": frame.mean(), "sd": frame.std(ddof=1)})


def compare(a: Sequence[Record], b: Sequence[Record], folder: Path, ranking: str, samples: int = 1000) -> pd.DataFrame:
    """Return ``a - b`` on the test items with bootstrap intervals over users; each user's seeds are averaged first.

    Parameters
    ----------
    a, b
        The records of two methods on one data set, a record a seed.
    folder
        The folder of results.
    ranking
        One of `RANKINGS`.
    samples
        Number of resamples of the users.

    Returns
    -------
    pandas.DataFrame
        metric, mean, low, high, see `trialign.evaluate.paired_difference`; positive where `a` is better.

    Raises
    ------
    ValueError
        If the records are not of the same users.
    """
    if len({(record.dataset, record.users) for record in [*a, *b]}) != 1:
        raise ValueError("records to compare must be of one data set and equally many users")
    mean_a, mean_b = (_mean([record.per_user(folder, ranking) for record in records]) for records in (a, b))
    return paired_difference(mean_a, mean_b, samples=samples)


def _mean(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame(np.mean([frame.to_numpy() for frame in frames], axis=0), columns=frames[0].columns)


def _check(entries: Mapping[str, Any], path: Path) -> None:
    """Refuse entries that are no record, by name."""
    names = {entry.name for entry in fields(Record)}
    if not isinstance(entries, Mapping) or entries.keys() != names:
        found = set(entries) if isinstance(entries, Mapping) else set()
        missing, unknown = ", ".join(sorted(names - found)), ", ".join(sorted(found - names))
        raise ValueError(
            f"{path} is no record: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}; "
            "fix: run the method again"
        )
    for part in ("validation", "test"):
        if sorted(entries[part]) != sorted(RANKINGS):
            raise ValueError(f"{path}: {part} must hold {', '.join(RANKINGS)}; it holds {', '.join(entries[part])}")
        for ranking, metrics in entries[part].items():
            if sorted(metrics) != sorted(METRICS):
                raise ValueError(
                    f"{path}: {part}, {ranking} must hold the metrics {', '.join(METRICS)}; it holds "
                    f"{', '.join(metrics)}"
                )
            for name, value in metrics.items():
                if not isinstance(value, float | int) or not 0 <= value <= 1:
                    raise ValueError(f"{path}: {part}, {ranking}, {name} must lie in 0..1, it is {value}")


def _code() -> str:
    """Return a short hash of all code of the package."""
    return code_hash("results", Path(__file__).parent)[:12]
