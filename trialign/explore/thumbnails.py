"""Small images of items for explorers, each made once."""

import base64
import html
import io
from functools import lru_cache

from PIL import Image, ImageOps

from trialign.catalogue import Catalogue
from trialign.explore.item_grid import Tile
from trialign.plots.style import shorten


class Thumbnails:
    """The items of a catalogue as tiles with small images.

    Parameters
    ----------
    catalogue
        The items.
    size
        Longer side of an image in pixels.
    kept
        Most images kept in memory, 3 to 6 kB each.
    """

    def __init__(self, catalogue: Catalogue, size: int = 96, kept: int = 2048) -> None:
        self.catalogue = catalogue
        self.size = size
        self.data_url = lru_cache(kept)(self._data_url)

    def tile(self, row: int, note: str = "", frame: str = "") -> Tile:
        """Return an item as a tile of an `ItemGrid`; see there for `note` and `frame`."""
        row = int(row)
        return Tile(row=row, title=self.catalogue.titles[row], note=note, image=self.data_url(row), frame=frame)

    def _data_url(self, row: int) -> str:
        """Return the image of an item as a ``data:`` address, "" if it has none."""
        image = self.catalogue.open_image(row)
        return "" if image is None else image_data_url(image, self.size)


def image_data_url(image: Image.Image, size: int) -> str:
    """Return an image, fitted into a square of `size` pixels, as a ``data:`` address of a JPEG file."""
    buffer = io.BytesIO()
    ImageOps.contain(image.convert("RGB"), (size, size)).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnail_html(catalogue: Catalogue, row: int, note: str = "", size: int = 96, frame: str = "transparent") -> str:
    """Return one item as an HTML tile: its image inlined, its title and a note escaped below.

    Parameters
    ----------
    catalogue
        The items.
    row
        Row number of the item.
    note
        A second line below the title, such as its SID.
    size
        Side of the image in pixels.
    frame
        CSS colour of the frame.
    """
    image = catalogue.open_image(row)
    picture = f'<div style="height:{size}px;background:#8884"></div>'
    if image is not None:
        buffer = io.BytesIO()
        ImageOps.contain(image, (size, size)).save(buffer, "JPEG", quality=80)
        data = base64.b64encode(buffer.getvalue()).decode()
        picture = f'<img alt="" style="max-height:{size}px;max-width:{size}px" src="data:image/jpeg;base64,{data}">'
    title, short = (html.escape(text) for text in (catalogue.titles[row], shorten(catalogue.titles[row], 40)))
    return (
        f'<div style="display:inline-block;vertical-align:top;width:{size + 20}px;margin:4px;padding:4px;'
        f'font-size:11px;line-height:1.25;border:2px solid {frame};border-radius:6px" title="{title}">{picture}'
        f"<br>{short}<br><code>{html.escape(note)}</code></div>"
    )
