"""Items below their prefixes: rows of a mosaic, and the steps of one item."""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from trialign.plots.style import MUTED, figure_style, shorten, show_image
from trialign.sids.diagnostics import cosines, prefix_groups
from trialign.sids.quantizer import Quantizer
from trialign.sids.semantic_ids import token

#: An image a row, or a function from row to image.
Images = Sequence[Image.Image | None] | Callable[[int], Image.Image | None]


def prefix_mosaic(
    codes: Int[np.ndarray, "items depth"],
    images: Images,
    depth: int = 1,
    prefixes: int = 8,
    columns: int = 10,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Show the items under the most common prefixes: one row a prefix, named by its tokens.

    Parameters
    ----------
    codes
        int of shape (items, depth).
    images
        One an item, or a function from row to image; only those drawn are asked for.
    depth
        Codes that make a prefix. Rows with the same parent stand beside each other, so that depth 2 shows what the
        second code adds.
    prefixes
        Rows at most.
    columns
        Items a row at most; when a prefix has more, the count at the row's start says so.
    titles
        Small titles above the images (untrusted text is drawn as it is).
    """
    rows = _common_prefixes(codes, depth, prefixes)
    columns = min(columns, max(4, *(len(members) for members in rows)))  # 4 leave room for the title
    image_of = image_function(images)
    with figure_style():
        figure, panels = plt.subplots(
            len(rows),
            columns + 1,
            figsize=(1.45 + 0.92 * columns, (1.0 if titles is None else 1.18) * len(rows) + 0.35),
            squeeze=False,
            width_ratios=[1.35, *[1] * columns],
        )
        for axes_row, members in zip(panels, rows):
            label = spelled(codes[members[0], :depth])
            axes_row[0].text(0, 0.62, label, fontsize=10, fontweight="bold", va="center", family="monospace")
            axes_row[0].text(
                0, 0.3, f"{len(members)} item{'s' * (len(members) > 1)}", fontsize=9, va="center", color=MUTED
            )
            for axes in axes_row:
                axes.set_axis_off()
            for axes, row in zip(axes_row[1:], members):
                show_image(axes, image_of(int(row)), "" if titles is None else shorten(titles[row], 12))
        figure.suptitle(f"Items that share their first {'code' if depth == 1 else f'{depth} codes'}", fontweight="bold")
        return figure


def _common_prefixes(codes: Int[np.ndarray, "items depth"], depth: int, prefixes: int) -> list[np.ndarray]:
    """Return the rows of items of the largest prefixes; prefixes with the same parent beside each other."""
    groups = prefix_groups(codes)[:depth]
    parent, group = groups[max(0, depth - 2)], groups[-1]
    size, parent_size = np.bincount(group), np.bincount(parent)
    parent_of = parent[np.unique(group, return_index=True)[1]]
    largest = np.argsort(-size, kind="stable")[:prefixes]
    # lexsort's last key counts most: large parents, then the parent itself, then large prefixes.
    order = np.lexsort((-size[largest], parent_of[largest], -parent_size[parent_of[largest]]))
    return [np.flatnonzero(group == number) for number in largest[order]]


def image_function(images: Images) -> Callable[[int], Image.Image | None]:
    """Return a function from row to image."""
    return images if callable(images) else images.__getitem__


def spelled(prefix: Int[np.ndarray, " depth"]) -> str:
    """Return the tokens of a prefix, such as ``<a_3><b_17>``."""
    return "".join(token(level, int(code)) for level, code in enumerate(prefix))


def quantization_steps(
    row: int,
    embeddings: Float[np.ndarray, "items dim"],
    quantizer: Quantizer,
    codes: Int[np.ndarray, "items levels"],
    images: Images,
    titles: Sequence[str] | None = None,
    columns: int = 9,
) -> Figure:
    """Show how one item gets its Semantic ID: after each code, how near it is described and who is described so too.

    The first row holds the items that are nearest in the embedding. Each further row is one code more: the cosine of
    the embedding and what the codes so far stand for, and the items that share them, nearest first.

    Parameters
    ----------
    row
        The item.
    embeddings
        What was quantized, float32 of shape (items, dim).
    quantizer
        Fitted.
    codes
        int of shape (items, levels), without a suffix level.
    images
        One an item, or a function from row to image; only those drawn are asked for.
    titles
        Small titles above the images (untrusted text is drawn as it is).
    columns
        Images a row at most, besides the item itself.
    """
    image_of = image_function(images)
    levels = codes.shape[1]
    similarity = cosines(embeddings, np.broadcast_to(embeddings[row], np.shape(embeddings)))
    similarity[row] = np.inf
    nearest = np.argsort(-similarity, kind="stable")[1:]
    with figure_style():
        figure, panels = plt.subplots(
            levels + 1,
            columns + 2,
            figsize=(2.5 + 0.92 * (columns + 1), 1.16 * (levels + 1) + 0.35),
            squeeze=False,
            width_ratios=[2.5, *[1] * (columns + 1)],
        )
        for axes in panels.flat:
            axes.set_axis_off()
        _step_label(panels[0, 0], "the embedding", f"its nearest of {len(codes):,} items")
        _step_images(panels[0], [row, *nearest[:columns]], image_of, titles)
        for depth in range(1, levels + 1):
            rebuilt = quantizer.reconstruct(codes[[row], :levels], depth=depth)
            sharing = nearest[(codes[nearest, :depth] == codes[row, :depth]).all(axis=1)]
            kept = float(cosines(embeddings[[row]], rebuilt)[0])
            others = f"{len(sharing)} other item{'s' * (len(sharing) != 1)} with {'it' if depth == 1 else 'them'}"
            _step_label(panels[depth, 0], spelled(codes[row, :depth]), f"cosine {kept:.2f}\n{others}")
            _step_images(panels[depth], [row, *sharing[:columns]], image_of, titles)
        title = "One item" if titles is None else shorten(titles[row], 60)
        figure.suptitle(f"{title}, code by code", fontweight="bold", parse_math=False)
        return figure


def _step_label(axes: Axes, name: str, text: str) -> None:
    axes.text(0, 0.6, name, fontsize=10, fontweight="bold", family="monospace", va="bottom")
    axes.text(0, 0.54, text, fontsize=9, color=MUTED, va="top", linespacing=1.35)


def _step_images(
    panels: np.ndarray,
    rows: Sequence[int],
    image_of: Callable[[int], Image.Image | None],
    titles: Sequence[str] | None,
) -> None:
    for axes, row in zip(panels[1:], rows):
        show_image(axes, image_of(int(row)), "" if titles is None else shorten(titles[row], 13))
    panels[1].add_patch(
        plt.Rectangle((0, 0), 1, 1, transform=panels[1].transAxes, fill=False, color="black", linewidth=1.6)
    )
