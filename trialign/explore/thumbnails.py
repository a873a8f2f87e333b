"""Small images with escaped captions, as HTML for widgets."""

import base64
import html
import io

from PIL import ImageOps

from trialign.catalogue import Catalogue
from trialign.plots.style import shorten


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
