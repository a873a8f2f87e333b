"""Small images of items for explorers, each made once."""

import base64
import io
from functools import lru_cache

from PIL import Image, ImageOps

from trialign.catalogue import Catalogue
from trialign.explore.item_grid import Tile


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

    def tile(self, row: int, note: str = "", frame: str = "", key: int | None = None) -> Tile:
        """Return an item as a tile of an `ItemGrid`; see `Tile` for what it holds. Its key is the row if not given."""
        row = int(row)
        title, image = self.catalogue.titles[row], self.data_url(row)
        return Tile(key=row if key is None else key, title=title, note=note, image=image, frame=frame)

    def _data_url(self, row: int) -> str:
        """Return the image of an item as a ``data:`` address, "" if it has none."""
        image = self.catalogue.open_image(row)
        return "" if image is None else image_data_url(image, self.size)


def image_data_url(image: Image.Image, size: int) -> str:
    """Return an image, fitted into a square of `size` pixels, as a ``data:`` address of a JPEG file."""
    buffer = io.BytesIO()
    ImageOps.contain(image.convert("RGB"), (size, size)).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
