"""The record of a beam search: what was alive and pruned at each level, and where a given item was lost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from trialign.decode.mask import ItemMask
from trialign.decode.trie import Trie

Status = Literal["found", "pruned", "masked"]


@dataclass(frozen=True, eq=False)
class Candidates:
    """All candidates of one step, for a batch of users; -1 and -inf are padding.

    The children of open prefixes come first, then every prefix alive before the step, of which the leaves stay.

    Attributes
    ----------
    before
        Trie node of each prefix alive before the step, int64.
    nodes
        Trie node of each candidate, int64.
    columns
        Column in `before` of the prefix that each candidate continues; a leaf that stays continues itself. int64.
    codes
        Place of each candidate's last token in the level's vocabulary, int64; -1 for a leaf that stays.
    log_probabilities
        Natural logarithm of the prefix probability, float32; -inf where nothing below is allowed.
    unmasked_log_probabilities
        The same before the user's masked items were taken out.
    alive
        Whether the candidate was kept, bool; all False before the choice.
    """

    before: Int[np.ndarray, "users beams"]
    nodes: Int[np.ndarray, "users candidates"]
    columns: Int[np.ndarray, "users candidates"]
    codes: Int[np.ndarray, "users candidates"]
    log_probabilities: Float[np.ndarray, "users candidates"]
    unmasked_log_probabilities: Float[np.ndarray, "users candidates"]
    alive: Bool[np.ndarray, "users candidates"]

    @property
    def stays(self) -> Bool[np.ndarray, " candidates"]:
        """Which candidates are prefixes of the step before, and not children."""
        return np.arange(self.nodes.shape[1]) >= self.nodes.shape[1] - self.before.shape[1]

    @property
    def parents(self) -> Int[np.ndarray, "users candidates"]:
        """Trie node that each candidate continues, int64; a leaf that stays continues itself."""
        return np.take_along_axis(self.before, self.columns, 1)

    def with_alive(self, chosen: Int[np.ndarray, "users beams"]) -> "Candidates":
        """Return the candidates with those at the chosen indices (-1: none) marked as alive."""
        alive = np.zeros((len(self.nodes), self.nodes.shape[1] + 1), dtype=bool)
        np.put_along_axis(alive, chosen, True, axis=1)  # -1 is the column too many
        return replace(self, alive=alive[:, :-1])


@dataclass(frozen=True, eq=False)
class SearchLevel:
    """One level of one user's search, most probable prefix first, masked prefixes last.

    Attributes
    ----------
    nodes
        Trie node of each prefix, int64.
    parents
        Trie node it continues, int64; a leaf that stays in the beam from a level before continues itself.
    log_probabilities
        Natural logarithm of each prefix's probability, float32.
    alive
        Whether the beam kept it, bool.
    masked
        Whether it was pruned because no allowed item lies below it, bool.
    """

    nodes: Int[np.ndarray, " prefixes"]
    parents: Int[np.ndarray, " prefixes"]
    log_probabilities: Float[np.ndarray, " prefixes"]
    alive: Bool[np.ndarray, " prefixes"]
    masked: Bool[np.ndarray, " prefixes"]


@dataclass(frozen=True, eq=False)
class SearchRecord:
    """The whole search of one user, level 1 first.

    Attributes
    ----------
    trie
        The trie that was searched.
    levels
        One `SearchLevel` a step.
    mask
        The items that must not be returned to this user.
    """

    trie: Trie
    levels: list[SearchLevel]
    mask: ItemMask

    def table(self) -> pd.DataFrame:
        """Return the search as a table: level, prefix (tokens), probability, alive, masked, items (below it)."""
        frames = [
            pd.DataFrame(
                {
                    "level": level,
                    "prefix": [self.trie.prefix(int(node)) for node in step.nodes],
                    "probability": np.exp(step.log_probabilities),
                    "alive": step.alive,
                    "masked": step.masked,
                    "items": self.trie.item_last[step.nodes] - self.trie.item_first[step.nodes],
                }
            )
            for level, step in enumerate(self.levels, start=1)
        ]
        return pd.concat(frames, ignore_index=True)

    def mass(self) -> pd.DataFrame:
        """Return how much probability the beam holds at each level, and how it is spread.

        Returns
        -------
        pandas.DataFrame
            level, alive (number of prefixes), mass (probability of all alive prefixes together), entropy (in nats, of
            the alive prefixes' probabilities normalized to 1).
        """
        rows = []
        for level, step in enumerate(self.levels, start=1):
            alive = np.exp(step.log_probabilities[step.alive].astype(np.float64))
            share = alive[alive > 0] / max(alive.sum(), np.finfo(np.float64).tiny)
            rows.append((level, int(step.alive.sum()), alive.sum(), float(-(share * np.log(share)).sum())))
        return pd.DataFrame(rows, columns=["level", "alive", "mass", "entropy"])


@dataclass(frozen=True)
class Fate:
    """What became of one item in a search.

    Attributes
    ----------
    status
        "found": its semantic ID was in the final beam, and the user may be given it. "pruned": a prefix of it fell out
        of the beam. "masked": the user may not be given it, and either nothing else below that prefix or, at the last
        level, only other items that share its semantic ID.
    level
        Level, from 1, at which its prefix was last a candidate.
    rank
        Rank of the prefix among the candidates of that level, 1 the most probable; 0 if masked.
    log_probability
        Natural logarithm of the prefix's probability there.
    """

    status: Status
    level: int
    rank: int
    log_probability: float


def where_lost(record: SearchRecord, item_row: int) -> Fate:
    """Follow one item through a search.

    Parameters
    ----------
    record
        From ``beam_search(..., record=True)``.
    item_row
        Row of the item.

    Returns
    -------
    Fate
        The level and rank at which its prefix died, or of its leaf in the final beam.

    Raises
    ------
    ValueError
        If there is no such item in the trie.
    """
    if not 0 <= item_row < record.trie.n_items:
        raise ValueError(f"item row {item_row} is not in the trie of {record.trie.n_items} items")
    path = record.trie.path(int(record.trie.leaves_of(np.array(item_row))))
    fate = Fate("masked", 0, 0, -np.inf)
    for level, step in enumerate(record.levels, start=1):
        node = path[min(level, len(path)) - 1]
        where = np.flatnonzero(step.nodes == node)
        if not where.size:
            return fate
        index = int(where[0])
        status: Status = "masked" if step.masked[index] else "found" if step.alive[index] else "pruned"
        rank = 0 if step.masked[index] else index + 1
        fate = Fate(status, level, rank, float(step.log_probabilities[index]))
        if status != "found":
            return fate
    position = record.trie.positions[item_row]
    if fate.status == "found" and not record.mask.allows_positions(position.reshape(1))[0]:
        return replace(fate, status="masked", rank=0)
    return fate


def fates(records: Sequence[SearchRecord], targets: Int[np.ndarray, " users"]) -> pd.DataFrame:
    """Follow each user's target item through that user's search.

    Returns
    -------
    pandas.DataFrame
        One row a user: status, level, rank, log_probability (see `Fate`).
    """
    rows = [where_lost(record, int(target)) for record, target in zip(records, targets, strict=True)]
    return pd.DataFrame([vars(fate) for fate in rows], columns=["status", "level", "rank", "log_probability"])


def mass_by_level(records: Sequence[SearchRecord]) -> pd.DataFrame:
    """Return `SearchRecord.mass` of many users, with a column user (place in `records`)."""
    tables = [record.mass() for record in records]
    return pd.concat(tables, keys=range(len(tables)), names=["user"]).reset_index("user").reset_index(drop=True)


def search_records(mask: ItemMask, steps: Sequence[Candidates]) -> list[SearchRecord]:
    """Turn the steps of a batch, searched under this mask, into one record a user."""
    parents = [step.parents for step in steps]
    records = []
    for user in range(len(steps[0].nodes)):
        levels = [_level(step, above, user) for step, above in zip(steps, parents, strict=True)]
        records.append(SearchRecord(mask.trie, levels, mask.of_user(user)))
    return records


def _level(step: Candidates, parents: Int[np.ndarray, "users candidates"], user: int) -> SearchLevel:
    real = np.flatnonzero((step.nodes[user] >= 0) & np.isfinite(step.unmasked_log_probabilities[user]))
    masked = ~np.isfinite(step.log_probabilities[user, real])
    scores = step.unmasked_log_probabilities[user, real]
    order = np.lexsort([-scores, ~step.alive[user, real], masked])
    real, masked = real[order], masked[order]
    return SearchLevel(
        nodes=step.nodes[user, real],
        parents=parents[user, real],
        log_probabilities=scores[order].astype(np.float32),
        alive=step.alive[user, real],
        masked=masked,
    )
