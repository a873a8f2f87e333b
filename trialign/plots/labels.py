"""Names in figures: untrusted text drawn as it is, legends that leave no name out."""

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

MARKERS = "osD^vPX*"


def plain_text(texts: Iterable[Text]) -> None:
    """Switch mathtext off: names may be untrusted."""
    for text in texts:
        text.set_parse_math(False)


def draw_legend(parent: Figure | Axes, handles: Sequence[Artist], names: Sequence[str], **options: Any) -> None:
    """Add a legend with these names as plain text; `options` are matplotlib's."""
    # Matplotlib leaves out names that start with an underscore; a zero-width space keeps them.
    legend = parent.legend(
        list(handles), [f"\u200b{name}" if name.startswith("_") else name for name in names], **options
    )
    plain_text(legend.get_texts())
