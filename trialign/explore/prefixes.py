"""The prefix tree of semantic IDs: what lies below a prefix, and the words that tell it from its siblings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from trialign.catalogue import Catalogue
from trialign.sids import SemanticIds
from trialign.sids.semantic_ids import token

#: A word or interest of fewer items says nothing of a prefix.
_FEWEST = 2


@dataclass(frozen=True, eq=False)
class Child:
    """A prefix one code longer than another.

    Attributes
    ----------
    code
        Its last code; -1 for the items that end here, where siblings have a suffix.
    rows
        Its items, int64.
    words, interests
        What distinguishes it from its siblings, the most telling first.
    """

    code: int
    rows: Int[np.ndarray, " items"]
    words: list[str]
    interests: list[str]


class Terms:
    """Which items have which terms, and which terms mark a group of items.

    Parameters
    ----------
    texts
        The terms of every item; repetitions within an item don't count.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        counter = CountVectorizer(analyzer=lambda terms: terms, binary=True, dtype=np.int32)
        self._names: np.ndarray = np.array([], dtype=str)
        self._has = csr_matrix((len(texts), 0), dtype=np.int32)
        if any(len(text) for text in texts):
            self._has = counter.fit_transform(texts)
            self._names = counter.get_feature_names_out()

    def marking(self, groups: Sequence[Int[np.ndarray, " items"]], most: int) -> list[list[str]]:
        """Return for each group the terms that distinguish it from the others together.

        The score is the log-odds ratio with half an item added everywhere, divided by its standard error (Monroe,
        Colaresi and Quinn 2008, "Fightin' Words", with a flat prior): frequent and rare terms can be compared.
        """
        sizes = np.array([len(group) for group in groups])
        places = np.repeat(np.arange(len(groups)), sizes)
        rows = np.concatenate([np.asarray(group) for group in groups]) if len(groups) else np.array([], dtype=int)
        member = csr_matrix((np.ones(len(rows), np.int32), (places, rows)), shape=(len(groups), self._has.shape[0]))
        counts = np.asarray((member @ self._has).todense())
        scores = _log_odds(counts, sizes)
        scores[counts < np.minimum(_FEWEST, sizes[:, None])] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
        return [
            [str(self._names[term]) for term in terms if scores[place, term] > 0] for place, terms in enumerate(order)
        ]


def _log_odds(
    counts: Int[np.ndarray, "groups terms"], sizes: Int[np.ndarray, " groups"]
) -> Float[np.ndarray, "groups terms"]:
    inside, outside = counts + 0.5, counts.sum(axis=0) - counts + 0.5
    absent = sizes[:, None] - counts + 0.5
    absent_outside = (sizes.sum() - sizes)[:, None] - (counts.sum(axis=0) - counts) + 0.5
    ratio = np.log(inside / absent) - np.log(outside / absent_outside)
    return ratio / np.sqrt(1 / inside + 1 / outside)


class PrefixTree:
    """Walks the prefixes of a catalogue's semantic IDs.

    Parameters
    ----------
    sids
        Semantic IDs of the catalogue's items, in its order.
    catalogue
        The items.
    captions, interests
        By item id; words of titles and captions, and whole interest tags, are what marks a prefix.

    Raises
    ------
    ValueError
        If the SIDs are not of the catalogue's items.
    """

    def __init__(
        self,
        sids: SemanticIds,
        catalogue: Catalogue,
        captions: Mapping[str, str] | None = None,
        interests: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        ids = catalogue.items["item_id"].tolist()
        if ids != list(sids.item_ids):
            raise ValueError("the semantic IDs are of other items, or in another order; fix: load both of one run")
        self.sids = sids
        words = CountVectorizer(stop_words="english", token_pattern=r"(?u)\b[^\W\d]{3,}\b").build_analyzer()
        captions, interests = captions or {}, interests or {}
        self._words = Terms([words(f"{title} {captions.get(i, '')}") for i, title in zip(ids, catalogue.titles)])
        self._interests = Terms([list(interests.get(i, ())) for i in ids])

    def rows(self, prefix: Sequence[int]) -> Int[np.ndarray, " items"]:
        """Return the rows of the items whose SID starts with a prefix, ascending."""
        codes = self.sids.codes[:, : len(prefix)]
        return np.flatnonzero((codes == np.asarray(prefix, dtype=np.int64)).all(axis=1))

    def children(self, prefix: Sequence[int], words: int = 4, interests: int = 2) -> list[Child]:
        """Return the prefixes one code longer, those of most items first; none below a whole SID."""
        if len(prefix) >= self.sids.depth:
            return []
        rows = self.rows(prefix)
        codes, place = np.unique(self.sids.codes[rows, len(prefix)], return_inverse=True)
        groups = [rows[place == number] for number in range(len(codes))]
        marks = zip(self._words.marking(groups, words), self._interests.marking(groups, interests))
        children = [Child(int(code), group, *mark) for code, group, mark in zip(codes, groups, marks)]
        return sorted(children, key=lambda child: -len(child.rows))

    def name(self, prefix: Sequence[int]) -> str:
        """Return a prefix as tokens, such as ``<a_3><b_17>``; of the root, ``all items``."""
        return "".join(token(level, code) for level, code in enumerate(prefix) if code >= 0) or "all items"
