"""The whole prefix tree as one map: areas for first codes, cells inside them for second codes, items in the cells."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from trialign.plots.labels import draw_legend
from trialign.plots.prefix_tree import Images, image_function
from trialign.plots.style import MUTED, PALETTE, figure_style, shorten
from trialign.sids.diagnostics import prefix_groups
from trialign.sids.semantic_ids import token

#: Size of the map in inches, pixels an inch of the images in it, and the smallest side of an image in inches.
_WIDTH, _HEIGHT, _DPI, _SMALLEST = 11.4, 7.0, 160, 0.2
_HEADER = 0.17
#: Colours of categories: without black, which swallows what is drawn on it.
_COLOURS, _OTHER = PALETTE[:-1], "#C4C4C4"


class Box(NamedTuple):
    """A rectangle: left, top, width and height, in inches, y downwards."""

    x: float
    y: float
    width: float
    height: float


class _Cell(NamedTuple):
    """A box of the map, with the rows of its items."""

    box: Box
    rows: np.ndarray


def squarify(sizes: Sequence[float], box: Box) -> list[Box]:
    """Divide a box into boxes of areas in proportion to the sizes, none much longer than wide.

    The squarified treemap (Bruls, Huizing and van Wijk 2000): boxes are laid into a row along the shorter side as long
    as that makes them more square.

    Parameters
    ----------
    sizes
        All above 0, best in descending order.
    box
        What is divided.

    Returns
    -------
    list of Box
        One a size, in the same order.
    """
    areas = np.asarray(sizes, dtype=np.float64) * (box.width * box.height / np.sum(sizes))
    boxes: list[Box] = []
    start = 0
    while start < len(areas):
        side = min(box.width, box.height)
        end = start + 1
        while end < len(areas) and _worst(areas[start : end + 1], side) <= _worst(areas[start:end], side):
            end += 1
        row, box = _row_of_boxes(areas[start:end], box)
        boxes += row
        start = end
    return boxes


def _worst(areas: Float[np.ndarray, " boxes"], side: float) -> float:
    """Return the largest ratio of the sides of boxes in a row along a side."""
    total = areas.sum()
    return float(max(side**2 * areas.max() / total**2, total**2 / (side**2 * areas.min())))


def _row_of_boxes(areas: Float[np.ndarray, " boxes"], box: Box) -> tuple[list[Box], Box]:
    """Lay boxes along the shorter side; return them and what of the box is left."""
    if box.width >= box.height:
        width = areas.sum() / box.height
        tops = box.y + np.concatenate([[0], np.cumsum(areas)[:-1]]) / width
        row = [Box(box.x, float(top), float(width), float(area / width)) for top, area in zip(tops, areas)]
        return row, Box(box.x + float(width), box.y, max(0.0, box.width - float(width)), box.height)
    height = areas.sum() / box.width
    lefts = box.x + np.concatenate([[0], np.cumsum(areas)[:-1]]) / height
    row = [Box(float(left), box.y, float(area / height), float(height)) for left, area in zip(lefts, areas)]
    return row, Box(box.x, box.y + float(height), box.width, max(0.0, box.height - float(height)))


def prefix_map(
    codes: Int[np.ndarray, "items depth"],
    images: Images | None = None,
    categories: Sequence[str] | None = None,
    most_images: int = 800,
) -> Figure:
    """Draw the tree of the first two codes as a treemap, with item images where there is room for them.

    An area is a first code, a cell in it a second code; both are as large as their share of the items. A cell has the
    colour of its most common category, the paler the less pure it is.

    Parameters
    ----------
    codes
        int of shape (items, depth); with depth 1 there are areas only.
    images
        One an item, or a function from row to image (None for an item without one); only those drawn are asked for.
        None draws none.
    categories
        One a row; the seven most common have a colour, all others are grey. None colours every area by itself.
    most_images
        Images drawn at most, those of the largest cells first.
    """
    codes = np.asarray(codes)
    areas = _divided(codes[:, :1], np.arange(len(codes)), Box(0, 0, _WIDTH, _HEIGHT))
    inside = [
        _divided(codes[:, :2], area.rows, _below_header(area.box)) if codes.shape[1] > 1 else [area] for area in areas
    ]
    cells = [cell for part in inside for cell in part]
    named, colours = _colours(inside, categories)
    with figure_style():
        figure, axes = plt.subplots(figsize=(_WIDTH + 0.2, _HEIGHT + 0.8))
        axes.set(xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
        axes.set_axis_off()
        axes.set_aspect("equal")
        patches = [Rectangle(cell.box[:2], cell.box.width, cell.box.height) for cell in cells]
        axes.add_collection(PatchCollection(patches, facecolors=colours, edgecolors="white", linewidths=0.6))
        _draw_areas(axes, codes, areas)
        if images is None:
            _label_cells(axes, codes, cells)
        else:
            _draw_images(axes, inside, image_function(images), most_images)
        if named:
            names = [shorten(name) if name else "(no category)" for name in named]
            names += ["other"] * (not set(named).issuperset(map(str, categories or ())))
            handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in [*_COLOURS[: len(named)], _OTHER]]
            draw_legend(figure, handles[: len(names)], names, loc="outside lower center", ncols=len(names))
        second = f" and second code ({len(cells):,} cells)" if codes.shape[1] > 1 else ""
        figure.suptitle(f"{len(codes):,} items by first code ({len(areas):,} areas){second}", fontweight="bold")
        return figure


def _divided(prefixes: Int[np.ndarray, "items depth"], rows: Int[np.ndarray, " some"], box: Box) -> list[_Cell]:
    """Divide a box among the prefixes of some items, the largest first."""
    group = prefix_groups(prefixes[rows])[-1]
    sizes = np.bincount(group)
    order = np.argsort(-sizes, kind="stable")
    members = [rows[group == number] for number in order]
    return [_Cell(*pair) for pair in zip(squarify(sizes[order].tolist(), box), members)]


def _has_header(box: Box) -> bool:
    return box.width > 0.55 and box.height > 0.45


def _below_header(box: Box) -> Box:
    """Return what cells may fill of an area: a margin, and a strip for its token where that fits, are left free."""
    margin = min(0.02, box.width / 8, box.height / 8)
    top = _HEADER if _has_header(box) else margin
    return Box(box.x + margin, box.y + top, box.width - 2 * margin, box.height - top - margin)


def _colours(
    inside: Sequence[Sequence[_Cell]], categories: Sequence[str] | None
) -> tuple[list[str], list[tuple[float, ...]]]:
    """Return the categories that have a colour, and each cell's colour, mixed with white.

    The colour is that of the cell's most common category, the stronger the larger its share; without categories it is
    the area's own.
    """
    if categories is None:
        return [], [_mixed(_COLOURS[number % len(_COLOURS)], 0.4) for number, part in enumerate(inside) for _ in part]
    counted = pd.Series(list(categories), dtype=str).value_counts()
    kind = counted.index.get_indexer(np.asarray(categories, dtype=str))
    colours = []
    for cell in (cell for part in inside for cell in part):
        counts = np.bincount(kind[cell.rows])
        most = int(counts.argmax())
        name = _COLOURS[most] if most < len(_COLOURS) else _OTHER
        colours.append(_mixed(name, 0.75 * float(counts[most]) / len(cell.rows)))
    return counted.index[: len(_COLOURS)].tolist(), colours


def _mixed(colour: str, strength: float) -> tuple[float, ...]:
    return tuple(strength * part + 1 - strength for part in to_rgb(colour))


def _draw_areas(axes: Axes, codes: Int[np.ndarray, "items depth"], areas: Sequence[_Cell]) -> None:
    for box, rows in areas:
        axes.add_patch(Rectangle(box[:2], box.width, box.height, fill=False, edgecolor="#404040", linewidth=0.7))
        if _has_header(box):
            name = token(0, int(codes[rows[0], 0]))
            text = f"{name} · {len(rows)}" if box.width > 0.85 else name
            axes.text(box.x + 0.04, box.y + _HEADER / 2 + 0.01, text, fontsize=6.5, va="center", color="#202020")


def _label_cells(axes: Axes, codes: Int[np.ndarray, "items depth"], cells: Sequence[_Cell]) -> None:
    """Write second code and number of items into the cells with room for it."""
    for box, rows in cells if codes.shape[1] > 1 else []:
        if box.width > 0.5 and box.height > 0.3:
            text = f"{token(1, int(codes[rows[0], 1]))}\n{len(rows)}"
            axes.text(box.x + box.width / 2, box.y + box.height / 2, text, fontsize=6.5, ha="center", va="center")


def _draw_images(
    axes: Axes, inside: Sequence[Sequence[_Cell]], image_of: Callable[[int], Image.Image | None], most: int
) -> None:
    """Paste the images on one transparent picture, so that hundreds of them cost one artist."""
    canvas = Image.new("RGBA", (int(_WIDTH * _DPI), int(_HEIGHT * _DPI)), (0, 0, 0, 0))
    shown = _shown(inside)[:most]
    for row, place in shown:
        image = image_of(row)
        side = int(place.width * _DPI)
        if image is not None:
            fitted = ImageOps.contain(image.convert("RGB"), (side, side))
            left, top = int(place.x * _DPI), int(place.y * _DPI)
            canvas.paste(fitted, (left + (side - fitted.width) // 2, top + (side - fitted.height) // 2))
    axes.imshow(np.asarray(canvas), extent=(0, _WIDTH, _HEIGHT, 0), zorder=3, interpolation="antialiased")
    axes.set(xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
    hidden = sum(len(cell.rows) for part in inside for cell in part) - len(shown)
    if hidden:
        axes.set_title(f"{len(shown):,} images; no room for those of {hidden:,} items", fontsize=9, color=MUTED, pad=2)


def _shown(inside: Sequence[Sequence[_Cell]]) -> list[tuple[int, Box]]:
    """Return rows and places of the images that there is room for, those of large cells first.

    An area whose cells are all too small has one image of its largest cell on top of it.
    """
    found = []
    for part in inside:
        placed = [(len(cell.rows), int(row), place) for cell in part for row, place in zip(cell.rows, _places(*cell))]
        box, rows = part[0]
        width = max(cell.box.x + cell.box.width for cell in part) - box.x
        height = max(cell.box.y + cell.box.height for cell in part) - box.y
        side = min(0.45, width / 2, height / 2)
        if not placed and side >= _SMALLEST:
            placed = [(len(rows), int(rows[0]), Box(box.x + 0.02, box.y + 0.02, side, side))]
        found += placed
    return [(row, place) for _, row, place in sorted(found, key=lambda entry: -entry[0])]


def _places(box: Box, rows: Int[np.ndarray, " items"]) -> Iterator[Box]:
    """Yield square places for up to so many items: as large as fits all of them, or as small as is legible."""
    gap, items = 0.02, len(rows)
    width, height = box.width - gap, box.height - gap
    counts = np.arange(1, items + 1)
    sides = np.minimum(width / counts, height / np.ceil(items / counts))  # by number of columns
    side = max(float(sides.max()), _SMALLEST) if len(sides) else 0.0
    columns, lines = int(width / side + 1e-9), int(height / side + 1e-9)
    left = box.x + gap / 2 + (width - columns * side) / 2 if columns else 0.0
    used = min(lines, -(-items // columns)) if columns else 0
    top = box.y + gap / 2 + (height - used * side) / 2
    for number in range(min(items, columns * lines)):
        yield Box(
            left + (number % columns) * side + gap / 2,
            top + (number // columns) * side + gap / 2,
            side - gap,
            side - gap,
        )
