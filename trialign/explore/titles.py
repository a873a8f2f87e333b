"""Looking an item up by its title."""

from collections.abc import Callable

import ipywidgets as widgets

from trialign.catalogue import Catalogue


class TitleBox(widgets.HBox):
    """A field for a part of a title, and the items that have it.

    Parameters
    ----------
    catalogue
        The items.
    label
        What the field is called.
    most
        Most items offered.

    Attributes
    ----------
    text : widgets.Text
        A part of a title, in any case; Enter or leaving the field looks it up.
    matches : widgets.Dropdown
        The items found; choosing one tells it.
    """

    def __init__(self, catalogue: Catalogue, label: str, most: int = 50) -> None:
        self._titles = [title.lower() for title in catalogue.titles]
        self._catalogue, self._most = catalogue, most
        self._found: list[Callable[[int], None]] = []
        self.text = widgets.Text(placeholder="part of a title", description=label, continuous_update=False)
        self.matches = widgets.Dropdown(options=[("no title looked up", None)], layout={"width": "320px"})
        self.text.observe(lambda _: self._look_up(), names="value")
        self.matches.observe(lambda change: self._tell(change.new), names="value")
        super().__init__([self.text, self.matches])
        self.add_class("trialign-title-box")

    def on_found(self, call: Callable[[int], None]) -> None:
        """Have `call` called with the row of the item that is chosen."""
        self._found.append(call)

    def _look_up(self) -> None:
        wanted = self.text.value.strip().lower()
        rows = [row for row, title in enumerate(self._titles) if wanted in title] if wanted else []
        first = f"{len(rows)} items: choose one" if rows else "no such title"
        names = [(f"{self._catalogue.titles[row]} ({self._catalogue.items['item_id'][row]})", row) for row in rows]
        self.matches.options = [(first, None), *names[: self._most]]
        if len(rows) == 1:
            self.matches.value = rows[0]

    def _tell(self, row: int | None) -> None:
        if row is not None:
            for call in self._found:
                call(row)
