"""Inspect beams: choose a user, edit the history, turn the search's knobs, and follow the search level by level."""

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets

from trialign.catalogue import Catalogue
from trialign.explore.explorer import Explorer, heading_html, status_html, table_html
from trialign.explore.item_grid import HIT, ItemGrid
from trialign.explore.search_state import SearchState, fate_in_words, level_rows
from trialign.explore.thumbnails import Thumbnails
from trialign.explore.titles import TitleBox
from trialign.plots.beam_tree import percent
from trialign.recommend import GenerativeRecommender
from trialign.split import Split

_COLUMNS = ("rank", "prefix", "probability", "state", "items below", "one of them")


class BeamInspector(Explorer):
    """What `explore_beams` returns; its widgets can be set by code as well.

    Attributes
    ----------
    user, beams, temperature, mask_seen, level : widgets
        The knobs.
    history, answer : ItemGrid
        What the user chose, oldest first, and the most probable next items.
    remove, earlier, later, reset, replacement : widgets
        Edits of the history; they act on the item chosen in it.
    state : SearchState
        What was searched.
    """

    def __init__(self, recommender: GenerativeRecommender, catalogue: Catalogue, split: Split, top_k: int) -> None:
        self._split, self._thumbnails = split, Thumbnails(catalogue)
        self._histories = split.histories("test")
        self.state = SearchState(recommender, 0, top_k=top_k)
        wide = {"description_width": "initial"}
        self.user = widgets.BoundedIntText(
            value=0, min=0, max=len(split.users) - 1, description="user number", style=wide, layout={"width": "170px"}
        )
        self.user_id = widgets.Combobox(
            options=split.users[:1000], placeholder="or a user's id", description="user id", continuous_update=False
        )
        self.beams = widgets.IntSlider(20, min=1, max=50, description="beams", continuous_update=False)
        self.temperature = widgets.FloatSlider(
            1.0, min=0.2, max=3.0, step=0.1, description="temperature", continuous_update=False, style=wide
        )
        self.mask_seen = widgets.Checkbox(False, description="never recommend seen items", indent=False)
        self.level = widgets.IntSlider(1, min=1, max=recommender.trie.depth, description="level")
        self.remove = widgets.Button(description="remove", tooltip="Take the chosen item out of the history")
        self.earlier = widgets.Button(description="earlier", tooltip="Swap the chosen item with the one before")
        self.later = widgets.Button(description="later", tooltip="Swap the chosen item with the one after")
        self.reset = widgets.Button(description="reset", tooltip="The history as it was")
        self.replacement = TitleBox(catalogue, "replace by")
        self.history, self.answer = ItemGrid(label="history, oldest first"), ItemGrid(label="most probable next items")
        self._fate, self._steps, self._message = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._steps.add_class("trialign-beam-levels")
        self._fate.add_class("trialign-beam-fate")
        self._place: int | None = None
        edits = widgets.HBox([self.remove, self.earlier, self.later, self.reset, self.replacement])
        parts = [
            widgets.HBox([self.user, self.user_id, self.mask_seen], layout={"flex_flow": "row wrap"}),
            widgets.HBox([self.beams, self.temperature], layout={"flex_flow": "row wrap"}),
            widgets.HTML(heading_html("History, oldest first: choose an item to edit it")),
            self.history,
            edits,
            self._message,
            widgets.HTML(heading_html("Most probable next items")),
            self.answer,
            self._fate,
            self.level,
            self._steps,
        ]
        super().__init__(parts, self._still)
        self._listen()
        self._choose_user()

    def _listen(self) -> None:
        self._quiet = False
        for knob, act in (
            (self.user, self._choose_user),
            (self.user_id, self._find_user),
            (self.beams, self._search),
            (self.temperature, self._search),
            (self.mask_seen, self._search),
            (self.level, self._show_level),
        ):
            knob.observe(self._heard(act), names="value")
        self.history.observe(self._heard(self._choose_item), names="chosen")
        self.replacement.on_found(self._replace)
        edits: dict[widgets.Button, Callable[[int], None]] = {
            self.remove: self._remove,
            self.earlier: lambda place: self._swap(place, place - 1),
            self.later: lambda place: self._swap(place, place + 1),
        }
        for button, edit in edits.items():
            button.on_click(lambda _, edit=edit: self._edit(edit))
        self.reset.on_click(lambda _: self._choose_user())

    def _heard(self, act: Callable[[], None]) -> Callable[[Any], None]:
        def handler(_change: Any) -> None:
            if not self._quiet:
                act()

        return handler

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Set widgets without hearing of it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _find_user(self) -> None:
        if self.user_id.value in self._split.users:
            self.user.value = self._split.users.index(self.user_id.value)
        elif self.user_id.value:
            self._say(f"There is no user {self.user_id.value!r}.")

    def _choose_user(self) -> None:
        user = self.user.value
        self.state.history = self._histories[user].tolist()
        self.state.target = int(self._split.test[user])
        self._place = None
        self._say(f"User {self._split.users[user]}: {len(self.state.history)} items in the history.")
        self._search()

    def _choose_item(self) -> None:
        self._place = self.history.chosen if self.history.chosen >= 0 else None
        if self._place is not None:
            title = self._thumbnails.catalogue.titles[self.state.history[self._place]]
            self._say(f"Chosen: {title}, number {self._place + 1} of the history.")

    def _edit(self, edit: Callable[[int], None]) -> None:
        if self._place is None:
            self._say("Choose an item of the history first.")
            return
        edit(self._place)
        self._search()

    def _remove(self, place: int) -> None:
        """Take the item at a place out of the history."""
        self.state.remove(place)
        self._place = None
        self._say(f"Removed; {len(self.state.history)} items are left.")

    def _swap(self, place: int, other: int) -> None:
        if not 0 <= other < len(self.state.history):
            self._say("There is no item on that side.")
            return
        self.state.swap(place, other)
        self._place = other
        self._say(f"Moved to place {other + 1}.")

    def _replace(self, row: int) -> None:
        self._edit(lambda place: self.state.replace(place, row))

    def _search(self) -> None:
        state = self.state
        state.beams, state.temperature, state.mask_seen = self.beams.value, self.temperature.value, self.mask_seen.value
        self._answer = state.search()
        first = max(0, len(state.history) - 2 * state.top_k)
        with self._silence():
            # A tile is named by its place, since an item may be in a history twice.
            self.history.show(
                [
                    self._thumbnails.tile(state.history[place], f"{place + 1}", key=place)
                    for place in range(first, len(state.history))
                ]
            )
            self.answer.show(
                [
                    self._thumbnails.tile(int(row), *self._note(int(row), probability))
                    for row, probability in zip(self._answer.items, self._answer.probabilities)
                ]
            )
            levels = len(self._answer.record.levels)
            self.level.max = levels
            self.level.value = min(self._answer.fate.level or 1, levels)
        title = self._thumbnails.catalogue.titles[state.target]
        self._fate.value = status_html(fate_in_words(self._answer.fate, title))
        self._show_level()

    def _note(self, row: int, probability: float) -> tuple[str, str]:
        true = row == self.state.target
        return (f"{percent(probability)}, true" if true else percent(probability)), (HIT if true else "")

    def _show_level(self) -> None:
        rows, summary = level_rows(self._answer, self.state, self.level.value)
        titles = self._thumbnails.catalogue.titles
        cells = [
            (row.rank, row.tokens, percent(row.probability), row.where, row.items, titles[row.first_item])
            for row in rows
        ]
        table = table_html(cells, _COLUMNS, "candidates, most probable first")
        self._steps.value = (
            f'{heading_html(summary)}<div tabindex="0" style="max-height:360px;overflow:auto">{table}</div>'
        )

    def _say(self, text: str) -> None:
        self._message.value = status_html(text)

    def _still(self) -> str:
        user = html.escape(str(self._split.users[self.user.value]))
        return (
            f"<p><b>History of user {user}, oldest first</b></p>{self.history.still_html()}"
            f"{heading_html('Most probable next items')}{self.answer.still_html()}{self._fate.value}{self._steps.value}"
        )


def explore_beams(
    recommender: GenerativeRecommender, catalogue: Catalogue, split: Split, top_k: int = 10
) -> BeamInspector:
    """Return an explorer of the beam search: history above, most probable next items below, then level by level.

    The search is made anew at each change of user, history or knobs. The true next item is framed in green and named
    in words; where it was lost, the level opens at which it was pruned.

    Parameters
    ----------
    recommender
        The trained model with its trie.
    catalogue
        The items; titles are escaped.
    split
        Whose users can be chosen; the true next item is the test item.
    top_k
        Items recommended; of the history twice as many are shown.
    """
    return BeamInspector(recommender, catalogue, split, top_k)
