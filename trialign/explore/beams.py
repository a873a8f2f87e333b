"""Inspect beams: choose a user, change the search, see history and answer as images."""

import html

import ipywidgets as widgets
import numpy as np

from trialign.catalogue import Catalogue
from trialign.explore.explorer import Explorer
from trialign.explore.thumbnails import thumbnail_html
from trialign.recommend import GenerativeRecommender
from trialign.split import Split

#: Frame of the true next item, from the palette of the figures.
_HIT = "#009E73"


def explore_beams(recommender: GenerativeRecommender, catalogue: Catalogue, split: Split, top_k: int = 10) -> Explorer:
    """Return an explorer: a user's history above, the most probable next items below, the true one framed in green.

    Parameters
    ----------
    recommender
        The trained model with its trie.
    catalogue
        The items; titles are escaped.
    split
        Whose users can be chosen; the true next item is the test item.
    top_k
        Items shown.
    """
    histories = split.histories("test")
    user = widgets.BoundedIntText(value=0, min=0, max=len(split.users) - 1, description="user")
    beams = widgets.IntSlider(value=20, min=1, max=50, description="beams", continuous_update=False)
    mask = widgets.Checkbox(value=False, description="never recommend seen items", indent=False)
    page = widgets.HTML()

    def show(_change: object = None) -> None:
        history, target = histories[user.value], int(split.test[user.value])
        found = recommender.recommend([history], beams=beams.value, top_k=top_k, mask_seen=mask.value, progress=False)
        seen = "".join(thumbnail_html(catalogue, int(row)) for row in history[-top_k:])
        answer = "".join(
            thumbnail_html(catalogue, int(row), f"{np.exp(score):.1%}", frame=_HIT if row == target else "transparent")
            for row, score in zip(found.items[0], found.log_probabilities[0], strict=True)
            if row >= 0
        )
        page.value = (
            f"<p><b>History of user {html.escape(split.users[user.value])}</b>, oldest first (last {top_k})</p>"
            f"<div>{seen}</div><p><b>Most probable next items</b>; the true one is framed in green"
            f" (it is: {html.escape(catalogue.titles[target])})</p><div>{answer}</div>"
        )

    for knob in (user, beams, mask):
        knob.observe(show, names="value")
    show()
    return Explorer([widgets.HBox([user, beams, mask]), page], lambda: page.value)
