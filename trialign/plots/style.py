"""The look shared by all figures: a colour-blind-safe palette, light grids, readable labels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from PIL import Image, ImageOps

#: Okabe and Ito's palette (2008), safe for the common kinds of colour blindness; black last.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")

#: The colour of reference lines, muted text and everything that is context and not the subject.
MUTED = "#7A7A7A"


@contextmanager
def figure_style() -> Iterator[None]:
    """Return a context in which figures take the project's look; nothing global changes.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> with figure_style():
    ...     figure, axes = plt.subplots()
    """
    with mpl.rc_context(
        {
            "axes.prop_cycle": cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "grid.color": "#E6E6E6",
            "font.size": 10,
            "legend.frameon": False,
            "figure.dpi": 110,
            "savefig.dpi": 150,
            "figure.constrained_layout.use": True,
        }
    ):
        yield
        interactive = mpl.is_interactive()
    # The first figure of a notebook loads its backend, which switches interactive mode on. Leaving the context must not
    # switch it off again: later figures would not be shown.
    mpl.interactive(interactive)


def show_image(axes: Axes, image: Image.Image | None, title: str = "", size: int = 160) -> None:
    """Draw an image, fitted into a square on white, with a small title; a grey square where there is none.

    Parameters
    ----------
    axes
        Where to draw; its frame and ticks are removed.
    image
        Any PIL image, or None.
    title
        Text above the image; drawn as plain text (no mathtext), since titles are untrusted.
    size
        Side of the square in pixels.
    """
    square = Image.new("RGB", (size, size), "#EDEDED" if image is None else "white")
    if image is not None:
        fitted = ImageOps.contain(image.convert("RGB"), (size, size))
        square.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    axes.imshow(np.asarray(square))
    axes.set_axis_off()
    axes.set_title(title, fontsize=8, fontweight="normal", loc="center", parse_math=False)


def shorten(text: str, length: int = 28) -> str:
    """Return the text, cut at `length` characters with an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def level_names(levels: int) -> Sequence[str]:
    """Return the labels of SID levels as axes show them: ``level 1``, ``level 2``, ..."""
    return [f"level {level}" for level in range(1, levels + 1)]
