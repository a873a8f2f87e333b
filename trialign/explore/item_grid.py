"""A grid of items: images with titles that can be chosen by mouse, touch or keyboard."""

import html
from pathlib import Path
from typing import Any, TypedDict

import anywidget
import traitlets

#: Frame of what is right: the true next item, an item that was found.
HIT = "#009E73"
#: Frame of what was chosen.
CHOSEN = "#0072B2"
#: Frame of what is wrong or was lost.
MISS = "#D55E00"

_FOLDER = Path(__file__).parent


class Tile(TypedDict):
    """One item of a grid; plain values, since it goes to the browser.

    Attributes
    ----------
    key
        What `ItemGrid.chosen` is when the tile is chosen: the item's row number, or its place in a history.
    title
        Its title as it is; both views escape it.
    note
        A second line, such as its SID or a probability.
    image
        A ``data:`` address of its image, "" if it has none.
    frame
        A CSS colour, "" for no frame.
    """

    key: int
    title: str
    note: str
    image: str
    frame: str


class ItemGrid(anywidget.AnyWidget):
    """Tiles that a person can choose from; Tab reaches the grid, arrow keys walk, Enter or Space chooses.

    Attributes
    ----------
    label : str
        What screen readers call the grid.
    tiles : list of Tile
        The items, in reading order.
    chosen : int
        Key of the tile chosen last, -1 for none; `show` resets it.
    """

    _esm = _FOLDER / "item_grid.js"
    _css = _FOLDER / "item_grid.css"

    label = traitlets.Unicode("items").tag(sync=True)
    tiles: traitlets.List[Any] = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)

    def show(self, tiles: list[Tile]) -> None:
        """Replace the tiles; nothing is chosen then."""
        with self.hold_sync():
            self.chosen = -1
            self.tiles = tiles

    def still_html(self) -> str:
        """Return the grid as HTML without a script, every text escaped."""
        if not self.tiles:
            return f"<p>{html.escape(self.label)}: none</p>"
        tiles = "".join(_tile_html(tile) for tile in self.tiles)
        return f'<div role="list" aria-label="{html.escape(self.label)}">{tiles}</div>'


def _tile_html(tile: Tile) -> str:
    picture = '<div style="height:96px;background:#8884"></div>'
    if tile["image"]:
        picture = f'<img alt="" style="max-height:96px;max-width:96px" src="{html.escape(tile["image"])}">'
    title, note, frame = (html.escape(tile[key]) for key in ("title", "note", "frame"))
    return (
        '<div role="listitem" style="display:inline-block;vertical-align:top;width:116px;margin:4px;padding:4px;'
        f'font-size:11px;line-height:1.25;border:2px solid {frame or "transparent"};border-radius:6px" '
        f'title="{title}">{picture}<div style="max-height:3.8em;overflow:hidden">{title}</div>'
        f"<code>{note}</code></div>"
    )
