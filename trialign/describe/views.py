"""What a captioner or a miner sees of an item, and the error that concerns one item alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from trialign.catalogue import Catalogue


class ItemError(ValueError):
    """One item can't be described; the others can. The run marks the item as failed and goes on."""


@dataclass(frozen=True)
class ItemView:
    """One item as the describers see it.

    Attributes
    ----------
    item_id
        The item's id in the catalogue.
    title
        Its title: untrusted text.
    text
        Description first, then every other text column as ``name: value``, one a line; "" where there is none.
    image
        Path of its image, or None.
    caption
        Its caption, once there is one: what interest mining reads of the image.
    """

    item_id: str
    title: str
    text: str
    image: Path | None
    caption: str = ""


def item_views(catalogue: "Catalogue", captions: Mapping[str, str] | None = None) -> list[ItemView]:
    """Return the catalogue's items as the describers see them, in row order.

    Parameters
    ----------
    catalogue
        The items.
    captions
        Captions by item id, for interest mining; items without one have the caption "".

    Returns
    -------
    list of ItemView
        One an item.
    """
    captions = {} if captions is None else captions
    columns = sorted(catalogue.text_columns, key=lambda name: name != "description")
    texts = catalogue.items[["item_id", "title", *columns]].to_dict("records")
    return [
        ItemView(
            item_id=fields["item_id"],
            title=fields["title"],
            text=_text({name: fields[name] for name in columns}),
            image=catalogue.image_path(row),
            caption=captions.get(fields["item_id"], ""),
        )
        for row, fields in enumerate(texts)
    ]


def load_image(view: ItemView) -> Image.Image:
    """Return the item's image, decoded, as RGB.

    Raises
    ------
    ItemError
        If the item has no image or its file can't be read; the message names the file and the item.
    """
    if view.image is None:
        raise ItemError(f"item {view.item_id!r} has no image")
    try:
        with Image.open(view.image) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports broken PNG chunks as SyntaxError and some broken headers as ValueError.
        raise ItemError(f"image {view.image.name} of item {view.item_id!r} can't be read: {error}") from error


def _text(fields: Mapping[str, str]) -> str:
    lines = [value if name == "description" else f"{name}: {value}" for name, value in fields.items() if value]
    return "\n".join(lines)
