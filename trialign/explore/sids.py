"""Walk the prefix tree of semantic IDs: choose a code a level, see the items below."""

import html

import ipywidgets as widgets
import numpy as np

from trialign.catalogue import Catalogue
from trialign.explore.explorer import Explorer
from trialign.explore.thumbnails import thumbnail_html
from trialign.sids import SemanticIds

#: The choice that does not restrict a level.
ANY = "any"


def explore_prefixes(sids: SemanticIds, catalogue: Catalogue, limit: int = 24) -> Explorer:
    """Return an explorer with one drop-down a level; below it, the items whose SID starts with the chosen codes.

    Parameters
    ----------
    sids
        Semantic IDs of the catalogue's items, in its order.
    catalogue
        The items; titles are escaped.
    limit
        The most items shown; the count above them is of all.
    """
    choices = [
        widgets.Dropdown(description=f"level {level + 1}", layout={"width": "190px"}) for level in range(sids.levels)
    ]
    page = widgets.HTML()

    def chosen_prefix() -> list[int]:
        prefix = []
        for choice in choices:
            if choice.value in (None, ANY):
                break
            prefix.append(int(choice.value))
        return prefix

    def refill(first: int) -> None:
        """Offer at each level from `first` on only codes that lead to an item, most used first."""
        for level in range(first, sids.levels):
            prefix = chosen_prefix()
            reachable = len(prefix) >= level
            below = _below(sids, prefix[:level])[:, level] if reachable else np.array([], dtype=np.int64)
            codes, counts = np.unique(below, return_counts=True)
            order = np.argsort(-counts, kind="stable")
            options = [(f"{codes[i]}  ({counts[i]} items)", str(codes[i])) for i in order]
            choices[level].options = [(ANY, ANY), *options]  # the first one is then chosen

    def show() -> None:
        prefix = chosen_prefix()
        rows = np.flatnonzero((sids.codes[:, : len(prefix)] == prefix).all(axis=1))
        tokens = "".join(sids.tokens(int(rows[0]))[: len(prefix)]) if prefix else "(every prefix)"
        tiles = "".join(thumbnail_html(catalogue, int(row), "".join(sids.tokens(int(row)))) for row in rows[:limit])
        page.value = f"<p><b>{html.escape(tokens)}</b>: {rows.size} items</p><div>{tiles}</div>"

    def changed(level: int) -> None:
        refill(level + 1)
        show()

    refill(0)
    for level, choice in enumerate(choices):
        choice.observe(lambda _, level=level: changed(level), names="value")
    if len(choices[0].options) > 1:
        choices[0].value = choices[0].options[1][1]
    return Explorer([widgets.HBox(choices), page], lambda: page.value)


def _below(sids: SemanticIds, prefix: list[int]) -> np.ndarray:
    return sids.codes[(sids.codes[:, : len(prefix)] == prefix).all(axis=1)]
