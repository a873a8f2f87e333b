"""Recorded variants compared: means with intervals over seeds, differences over seeds and users, a plain verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trialign.ablations.records import Record, read_record
from trialign.ablations.variants import FULL, QUESTIONS, Variant
from trialign.evaluate import bootstrap_interval
from trialign.sids.degradation import t_interval


@dataclass(frozen=True)
class Claim:
    """A comparison in which TriAlignGR expects the first variant to be worse than the second.

    Attributes
    ----------
    name
        What is done to the second variant.
    variant, baseline
        What is compared.
    decisive
        Whether the paper's claim fails if this costs nothing.
    """

    name: str
    variant: Variant
    baseline: Variant = FULL
    decisive: bool = False


#: Share of the baseline's NDCG@10 below which a loss counts as none.
MARGIN = 0.05

_COLUMNS = (
    "baseline", "difference", "relative", "users low", "users high", "seeds low", "seeds high", "seeds", "outcome",
)  # fmt: skip

_PARTS, _SIDS = QUESTIONS["components"], QUESTIONS["sids"]

#: What must cost something if TriAlignGR is right, the decisive ones first.
CLAIMS: Sequence[Claim] = (
    Claim("leaving tasks 7-8 out, equal compute", QUESTIONS["tasks"]["1-6"], decisive=True),
    Claim("leaving tasks 7-8 out, equal examples", QUESTIONS["tasks, equal examples"]["1-6"], decisive=True),
    Claim("shuffling all captions", QUESTIONS["noise"]["100 %"], decisive=True),
    Claim("training task 1 alone, equal compute", QUESTIONS["tasks"]["1"]),
    Claim("training task 1 alone, equal examples", QUESTIONS["tasks, equal examples"]["1"]),
    Claim("leaving CMSA out", _PARTS["minus CMSA"]),
    Claim("leaving MDIM out", _PARTS["minus MDIM"]),
    Claim("the original SID, tasks 1-6", _SIDS["original SID, tasks 1-6"], _SIDS["new SID, tasks 1-6"]),
)


class Results:
    """The records of one catalogue with one set of settings.

    Parameters
    ----------
    records
        One a variant and seed, in any order; some may be missing.

    Raises
    ------
    ValueError
        If there is none, or they differ in catalogue, users, descriptions or settings: they can't be compared then.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        if not records:
            raise ValueError("no records to compare")
        self.records = list(records)
        for record in self.records:
            if _common(record) != _common(self.records[0]):
                raise ValueError(
                    f"records of different studies can't be compared: {record.variant.slug}, seed {record.seed} has "
                    f"{_common(record)}, another one {_common(self.records[0])}; fix: keep them in different folders"
                )
        self._by_variant: dict[Variant, dict[int, Record]] = {}
        for record in self.records:
            self._by_variant.setdefault(record.variant, {})[record.seed] = record

    @classmethod
    def read(cls, folder: str | Path) -> "Results":
        """Read all records of a folder."""
        return cls([read_record(path) for path in sorted(Path(folder).glob("*_seed-*.json"))])

    @property
    def dataset(self) -> str:
        """Name of the catalogue."""
        return self.records[0].dataset

    @property
    def popularity(self) -> float:
        """NDCG@10 on the test items of always recommending what is popular."""
        return self.records[0].popularity

    def seeds(self, *variants: Variant) -> list[int]:
        """Return the seeds with which all of these variants were run."""
        return sorted(set.intersection(*(set(self._by_variant.get(variant, {})) for variant in variants)))

    def scores(self, variants: Mapping[str, Variant], metric: str = "ndcg@10", ranking: str = "test") -> pd.DataFrame:
        """Return a row a variant that was run: mean, low, high (Student's t over seeds), values (one a seed)."""
        rows = []
        for label, variant in variants.items():
            runs = self._by_variant.get(variant, {})
            if runs:
                values = [float(runs[seed].per_user(ranking, metric).mean()) for seed in sorted(runs)]
                rows.append((label, *t_interval(np.array(values)), values))
        return pd.DataFrame(rows, columns=["variant", "mean", "low", "high", "values"])

    def difference(
        self, variant: Variant, baseline: Variant = FULL, metric: str = "ndcg@10", ranking: str = "test"
    ) -> dict[str, Any]:
        """Return how much better a variant is than another, with two intervals of 95 %.

        The interval over users is a paired bootstrap of each user's difference, averaged over the seeds: it says
        whether other users would change the sign. The interval over seeds is Student's t of the seeds' mean
        differences: it says whether other seeds would. Neither holds the other's chance, so a difference counts as
        clear only where both leave out 0.

        Parameters
        ----------
        variant, baseline
            What is compared, on the seeds that both have.
        metric, ranking
            As for `Record.per_user`.

        Returns
        -------
        dict
            ``baseline`` (its mean), ``difference``, ``relative`` (to the baseline), ``users low``, ``users high``,
            ``seeds low``, ``seeds high`` (NaN with one seed), ``seeds`` (their number) and ``outcome``: "worse",
            "better" or "not clear".

        Raises
        ------
        ValueError
            If no seed was run with both.
        """
        seeds = self.seeds(variant, baseline)
        if not seeds:
            raise ValueError(f"no seed was run with both {variant.slug} and {baseline.slug}")
        base = np.stack([self._by_variant[baseline][seed].per_user(ranking, metric) for seed in seeds])
        each = np.stack([self._by_variant[variant][seed].per_user(ranking, metric) for seed in seeds]) - base
        mean, users_low, users_high = bootstrap_interval(each.mean(axis=0))
        _, seeds_low, seeds_high = t_interval(each.mean(axis=1))
        # With one seed the ends over seeds are NaN, and neither holds.
        worse, better = users_high < 0 and seeds_high < 0, users_low > 0 and seeds_low > 0
        return {
            "baseline": float(base.mean()),
            "difference": mean,
            "relative": mean / float(base.mean()) if base.any() else np.nan,
            "users low": users_low,
            "users high": users_high,
            "seeds low": seeds_low,
            "seeds high": seeds_high,
            "seeds": len(seeds),
            "outcome": "worse" if worse else "better" if better else "not clear",
        }

    def differences(self, variants: Mapping[str, Variant], baseline: Variant = FULL, **options: str) -> pd.DataFrame:
        """Return `difference` of every variant that was run but the baseline itself, a row each."""
        rows = [
            {"variant": label, **self.difference(variant, baseline, **options)}
            for label, variant in variants.items()
            if variant != baseline and self.seeds(variant, baseline)
        ]
        return pd.DataFrame(rows, columns=["variant", *_COLUMNS])

    def claims(self, claims: Sequence[Claim] = CLAIMS, **options: str) -> pd.DataFrame:
        """Return a row a claim that the records can answer: what is done, whether it decides, and `difference`."""
        rows = [
            {
                "what": claim.name,
                "decisive": claim.decisive,
                **self.difference(claim.variant, claim.baseline, **options),
            }
            for claim in claims
            if self.seeds(claim.variant, claim.baseline)
        ]
        return pd.DataFrame(rows, columns=["what", "decisive", *_COLUMNS])


def conclusion(claims: pd.DataFrame) -> str:
    """Say what the decisive claims of `Results.claims` came to: a line with the verdict, and one for each of them.

    The claim *holds* where each of them is a clear loss. It *fails* where one is none: a clear gain, or no clear loss
    and none above `MARGIN` possible. Otherwise it *isn't shown*: there is no clear loss, and too little data to say
    that there is none.
    """
    decisive = claims[claims["decisive"].astype(bool)]
    if len(decisive) < sum(claim.decisive for claim in CLAIMS):
        return "Not settled: records of the decisive comparisons are missing."
    rows = decisive.to_dict("records")
    free = [row["what"] for row in rows if row["outcome"] == "better" or _possible_loss(row) < MARGIN]
    unclear = [row["what"] for row in rows if row["outcome"] == "not clear" and row["what"] not in free]
    if free:
        verdict = f"TriAlignGR's claim fails here: no cost of {' and of '.join(free)}."
    elif unclear:
        verdict = f"TriAlignGR's claim isn't shown here: no clear cost of {' and of '.join(unclear)}."
    else:
        verdict = "TriAlignGR's claim holds here: all that must cost something does."
    return "\n".join([verdict, *map(_sentence, rows)])


def _possible_loss(row: Mapping[str, Any]) -> float:
    """Return the largest loss in either interval as a share of the baseline; infinite with one seed."""
    if row["outcome"] == "worse" or not np.isfinite([row["relative"], row["seeds low"]]).all():
        return np.inf
    return max(0.0, -min(row["users low"], row["seeds low"])) / row["baseline"]


def _sentence(row: Mapping[str, Any]) -> str:
    change = f"{row['what'][0].upper()}{row['what'][1:]}: NDCG@10 {row['difference']:+.4f} ({row['relative']:+.1%})"
    if row["outcome"] != "not clear":
        return f"{change}, a clear {'loss' if row['outcome'] == 'worse' else 'gain'}."
    possible = _possible_loss(row)
    limit = (
        f"a loss of {min(possible, 1):.0%} can't be excluded"
        if np.isfinite(possible)
        else "one seed tells nothing of others"
    )
    return f"{change}, not clear: {limit}."


def _common(record: Record) -> tuple[Any, ...]:
    return (
        record.dataset,
        record.items,
        {ranking: len(ranks) for ranking, ranks in record.ranks.items()},
        record.described_by,
        record.settings,
    )
