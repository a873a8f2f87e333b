"""Showing a long list a page at a time."""

from collections.abc import Callable

import ipywidgets as widgets


class Pager(widgets.HBox):
    """Buttons to the pages of a list, and which part of it is shown.

    Parameters
    ----------
    what
        What is counted, in the plural.
    size
        How many are on a page.
    show
        Called with the first place (from 0) and the one after the last.

    Attributes
    ----------
    before, after : widgets.Button
        To the page before and the next one.
    """

    def __init__(self, what: str, size: int, show: Callable[[int, int], None]) -> None:
        self._what, self._size, self._show = what, size, show
        self._start = self._total = 0
        self.before = widgets.Button(description="before", tooltip=f"The {what} before these", layout={"width": "80px"})
        self.after = widgets.Button(description="after", tooltip=f"The {what} after these", layout={"width": "80px"})
        self._label = widgets.Label()
        self.before.on_click(lambda _: self._turn(-size))
        self.after.on_click(lambda _: self._turn(size))
        super().__init__([self.before, self.after, self._label])

    def reset(self, total: int) -> None:
        """Show the first page of a list of so many."""
        self._start, self._total = 0, total
        self._draw()

    def _turn(self, step: int) -> None:
        self._start += step
        self._draw()

    def _draw(self) -> None:
        end = min(self._start + self._size, self._total)
        self.before.disabled, self.after.disabled = self._start == 0, end == self._total
        self._label.value = f"{self._what} {self._start + 1} to {end} of {self._total}" if self._total else "none"
        self.layout.display = "flex" if self._total > self._size else "none"
        self._show(self._start, end)
