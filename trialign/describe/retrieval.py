"""Interests by retrieval: the nearest phrases of a written list, made diverse by maximal marginal relevance."""

import hashlib
import json
import re
import textwrap
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float

from trialign.describe.interest_list import interest_list
from trialign.describe.views import ItemView
from trialign.embed.text import TextEmbedder

#: Parts of an item that are compared one by one, at most; a long description has more sentences.
MOST_PARTS = 24

#: Number of the method; a change of the answers counts it up, so that no cache gives the old ones.
METHOD = 1


class RetrievalMiner:
    """Mine interests without a language model: all-MiniLM-L6-v2 compares items with the phrases of a written list.

    The relevance of an interest is the mean of two cosines: to the item's whole text, and to that part of it (title,
    sentence of the text, clause of the caption) which is nearest; an item may serve an interest by one of its sides.
    The miner does not reason, and its answers say so: their reasoning part lists the most relevant interests with the
    part that speaks for each. A second attempt gives the same answer as the first.

    Parameters
    ----------
    interests
        The phrases to choose from; None is the package's list (:func:`interest_list`).
    tags
        Most tags an item gets; it gets at least 2.
    diversity
        Weight of being unlike the tags already chosen, 0..1 (Carbonell and Goldstein, 1998:
        ``(1 - diversity) * relevance - diversity * nearest chosen``).
    keep
        A tag must reach this share of the best relevance, the two most relevant phrases aside.
    batch_size
        Items compared at once.
    """

    model = "retrieval miner (all-MiniLM-L6-v2 against a written list; not a language model)"
    prompt = "nearest interests of title, text and caption, whole and by parts"

    def __init__(
        self,
        interests: Sequence[str] | None = None,
        tags: int = 4,
        diversity: float = 0.5,
        keep: float = 0.7,
        batch_size: int = 64,
    ):
        self.interests = list(interest_list() if interests is None else interests)
        self.tags = tags
        self.diversity = diversity
        self.keep = keep
        self.batch_size = batch_size
        if len(self.interests) < 2 or not 2 <= tags <= 4:
            raise ValueError(f"need at least 2 interests (have {len(self.interests)}) and 2 to 4 tags (have {tags})")

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What an answer depends on besides the item; part of the cache key."""
        digest = hashlib.sha256("\n".join(self.interests).encode()).hexdigest()[:16]
        return {
            "interests": digest,
            "method": METHOD,
            "tags": self.tags,
            "diversity": self.diversity,
            "keep": self.keep,
        }

    def mine(self, views: Sequence[ItemView], attempt: int = 0) -> list[str]:
        """Return one raw answer an item: what was compared, then ``{"interests": [...]}``.

        Parameters
        ----------
        views
            The items.
        attempt
            Without effect: retrieval has no chance in it.
        """
        if not views:
            return []
        sides = [_parts(view) for view in views]
        whole = self._encoder.embed([_text(view) for view in views], progress=False) @ self._phrases.T
        # Many items share a part ("brand: ...", "on a beach"): each is embedded once.
        distinct = sorted({part for parts in sides for part in parts})
        vectors = self._encoder.embed(distinct, progress=False)
        cosines = dict(zip(distinct, vectors @ self._phrases.T, strict=True))
        return [
            self._answer(row, parts, np.stack([cosines[part] for part in parts]))
            for row, parts in zip(whole, sides, strict=True)
        ]

    @cached_property
    def _encoder(self) -> TextEmbedder:
        return TextEmbedder(batch_size=self.batch_size)

    @cached_property
    def _phrases(self) -> Float[np.ndarray, "interests dim"]:
        return self._encoder.embed(self.interests, progress=False)

    @cached_property
    def _likeness(self) -> Float[np.ndarray, "interests interests"]:
        return self._phrases @ self._phrases.T

    def _answer(
        self, whole: Float[np.ndarray, "interests"], parts: Sequence[str], by_part: Float[np.ndarray, "parts interests"]
    ) -> str:
        relevance = (whole + by_part.max(axis=0)) / 2
        order = np.argsort(-relevance, kind="stable")
        near = order[: max(2, int((relevance >= self.keep * relevance.max()).sum()))]
        likeness = self._likeness[np.ix_(near, near)]
        chosen = near[marginal_relevance(relevance[near], likeness, self.tags, self.diversity)]
        speaking = [textwrap.shorten(parts[place], 40, placeholder=" …") for place in by_part.argmax(axis=0)]
        nearest = [f'{self.interests[index]} {relevance[index]:.2f} ("{speaking[index]}")' for index in order[:6]]
        reasoning = f"No reasoning, only retrieval. Nearest interests by cosine: {'; '.join(nearest)}."
        return reasoning + "\n" + json.dumps({"interests": [self.interests[index] for index in chosen]})


def marginal_relevance(
    relevance: Float[np.ndarray, "n"], likeness: Float[np.ndarray, "n n"], count: int, diversity: float
) -> list[int]:
    """Choose relevant and mutually unlike entries one by one (maximal marginal relevance).

    Parameters
    ----------
    relevance
        Cosine of each entry to the query.
    likeness
        Cosines between entries.
    count
        How many to choose, at most all.
    diversity
        0 ranks by relevance alone, 1 by unlikeness alone.

    Returns
    -------
    list of int
        Indices, the most relevant first, the others in the order of choice.
    """
    chosen = [int(np.argmax(relevance))]
    while len(chosen) < min(count, len(relevance)):
        score = (1 - diversity) * relevance - diversity * likeness[:, chosen].max(axis=1)
        score[chosen] = -np.inf
        chosen.append(int(np.argmax(score)))
    return chosen


def _text(view: ItemView) -> str:
    return "\n".join(part for part in (view.title, view.text, view.caption) if part)


def _parts(view: ItemView) -> list[str]:
    """Return title, caption and its clauses, sentences of the description, each once; never an empty list.

    Lines like ``brand: Oro`` after the first are not parts: alone they speak for "brand loyalty" and its like.
    """
    first, *lines = view.text.split("\n")
    described = " ".join([first, *(line for line in lines if not re.match(r"\w+: ", line))])
    sentences = re.split(r"(?<=[.!?:;])\s+", described)
    parts = [view.title, view.caption, *re.split(r"[,:;]", view.caption), *sentences]
    stripped = (" ".join(part.split()).strip(" .,:;") for part in parts)
    return list(dict.fromkeys(part for part in stripped if part))[:MOST_PARTS] or [""]
