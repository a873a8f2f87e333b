"""One user's search as an explorer asks for it: a history that may be edited, knobs, and what became of each prefix."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from trialign.decode import Fate, SearchRecord, where_lost
from trialign.plots.beam_tree import percent
from trialign.recommend import GenerativeRecommender


@dataclass(frozen=True)
class Answer:
    """What a search gave.

    Attributes
    ----------
    items
        Item rows, best first, int64; as many as were found.
    probabilities
        Of each of them, float64.
    record
        The whole search.
    fate
        What became of the true next item.
    """

    items: Int[np.ndarray, " found"]
    probabilities: np.ndarray
    record: SearchRecord
    fate: Fate


@dataclass
class SearchState:
    """A history and the knobs of its search; every change is made here, and `search` answers.

    Attributes
    ----------
    recommender
        The trained model with its trie.
    target
        Row of the true next item.
    history
        Item rows, oldest first; edited in place by the methods.
    beams, temperature, mask_seen, top_k
        As for `GenerativeRecommender.recommend`.
    """

    recommender: GenerativeRecommender
    target: int
    history: list[int] = field(default_factory=list)
    beams: int = 20
    temperature: float = 1.0
    mask_seen: bool = False
    top_k: int = 10

    def remove(self, place: int) -> None:
        """Take the item at a place (from 0) out of the history."""
        del self.history[place]

    def swap(self, place: int, other: int) -> None:
        """Exchange the items at two places of the history."""
        self.history[place], self.history[other] = self.history[other], self.history[place]

    def replace(self, place: int, row: int) -> None:
        """Put another item at a place of the history."""
        self.history[place] = row

    def search(self) -> Answer:
        """Search with the present history and knobs."""
        found = self.recommender.recommend(
            [np.array(self.history, dtype=np.int64)],
            beams=self.beams,
            top_k=self.top_k,
            temperature=self.temperature,
            mask_seen=self.mask_seen,
            record=True,
            progress=False,
        )
        real = found.items[0] >= 0
        record = found.records[0]
        probabilities = np.exp(found.log_probabilities[0][real].astype(np.float64))
        return Answer(found.items[0][real], probabilities, record, where_lost(record, self.target))


@dataclass(frozen=True)
class PrefixRow:
    """One prefix of a level, as a line of a table.

    Attributes
    ----------
    rank
        1 for the most probable candidate.
    node
        Its trie node.
    tokens
        The prefix as text.
    probability
        Of the prefix, between 0 and 1.
    status
        ``alive``, ``pruned`` or ``masked``.
    items
        Items below it.
    first_item
        Row of one of them.
    true
        Whether the true next item lies below.
    """

    rank: int
    node: int
    tokens: str
    probability: float
    status: str
    items: int
    first_item: int
    true: bool

    @property
    def where(self) -> str:
        """Status in words, with the true item named."""
        return f"{self.status}, the true item is below" if self.true else self.status


def level_rows(
    answer: Answer, state: SearchState, level: int, alive: int = 20, pruned: int = 10
) -> tuple[list[PrefixRow], str]:
    """Return the prefixes of a level, most probable first, and a sentence about all of them.

    Parameters
    ----------
    answer
        What `SearchState.search` gave.
    state
        Of that search.
    level
        From 1 to the number of levels searched.
    alive, pruned
        Most prefixes of each kind; the one above the true item is always among them.
    """
    step, trie = answer.record.levels[level - 1], answer.record.trie
    path = trie.path(int(trie.leaves_of(np.array(state.target))))
    true_node = path[min(level, len(path)) - 1]
    kept, lost = np.flatnonzero(step.alive), np.flatnonzero(~step.alive)
    shown = np.concatenate([kept[:alive], lost[:pruned], np.flatnonzero(step.nodes == true_node)])
    rows = [_prefix_row(answer, state, level, int(index), true_node) for index in np.unique(shown)]
    mass = np.exp(step.log_probabilities[kept].astype(np.float64)).sum()
    summary = f"Level {level}: {kept.size} prefixes alive hold {percent(mass)} of the probability, {lost.size} fell."
    return rows, summary


def _prefix_row(answer: Answer, state: SearchState, level: int, index: int, true_node: int) -> PrefixRow:
    step, trie = answer.record.levels[level - 1], answer.record.trie
    node = int(step.nodes[index])
    below = trie.items_at(node)
    return PrefixRow(
        rank=index + 1,
        node=node,
        tokens="".join(state.recommender.token_name(token) for token in trie.prefix(node)),
        probability=float(np.exp(step.log_probabilities[index])),
        status="masked" if step.masked[index] else "alive" if step.alive[index] else "pruned",
        items=len(below),
        first_item=int(below[0]),
        true=node == true_node,
    )


def fate_in_words(fate: Fate, title: str) -> str:
    """Say what became of the true next item."""
    where = {
        "found": f"was found, as number {fate.rank} of the last level",
        "pruned": f"was pruned at level {fate.level}: its prefix stood at rank {fate.rank}",
        "masked": f"was masked at level {fate.level}: it may not be recommended to this user",
    }
    return f"The true next item, {title}, {where[fate.status]}."
