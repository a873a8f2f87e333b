"""The picture of one beam search: prefixes alive and pruned at each level, items with their images at the leaves."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image, ImageOps

from trialign.decode.record import Fate, SearchRecord, where_lost
from trialign.plots.style import MUTED, PALETTE, figure_style, shorten

if TYPE_CHECKING:
    from trialign.catalogue import Catalogue

_ALIVE, _TRUE, _LOST, _FADED = PALETTE[0], PALETTE[2], PALETTE[3], "#BDBDBD"
#: Width of a level, of the leaves, and height of a row, in inches; side of an image in pixels.
_LEVEL, _LEAF, _ROW, _SIDE = 1.85, 3.6, 0.62, 96


def percent(probability: float) -> str:
    """Return a probability as a percentage with two significant digits at most.

    Examples
    --------
    >>> [percent(p) for p in (1.0, 0.1234, 0.01234, 0.0001234, 0.0)]
    ['100%', '12%', '1.2%', '0.012%', '0%']
    """
    value = 100 * probability
    if value >= 9.95 or value <= 0:
        return f"{value:.0f}%"
    if value < 1e-3:
        return "<0.001%"
    digits = 1 if value >= 1 else 1 - int(np.floor(np.log10(value)))
    return f"{value:.{digits}f}%"


def beam_tree(
    record: SearchRecord,
    ranked: Int[np.ndarray, " k"],
    catalogue: "Catalogue",
    target: int | None = None,
    leaves: int = 10,
    pruned: int = 3,
    token_name: Callable[[int], str] = str,
) -> Figure:
    """Draw one search as a tree: levels from left to right, items at the leaves.

    Parameters
    ----------
    record
        From ``beam_search(..., record=True)``.
    ranked
        The items found, best first, a row of `Beams.items`; -1 is left out.
    catalogue
        For images and titles.
    target
        Row of the item that the user really chose next. Its path is green where it was found and red where it was lost.
    leaves
        Number of items shown; the target is added if it was found further down.
    pruned
        Number of pruned prefixes shown faded at each level, the most probable ones.
    token_name
        Token id to its text, for instance ``tokenizer.convert_ids_to_tokens``.

    Raises
    ------
    ValueError
        If `ranked` holds no item.
    """
    fate = None if target is None else where_lost(record, target)
    layout = _lay_out(record, np.asarray(ranked), target, leaves, pruned, fate)
    with figure_style():
        depth = len(record.levels)
        figure, axes = plt.subplots(figsize=(_LEVEL * depth + _LEAF + 0.6, _ROW * (layout.height + 1.6)))
        axes.set_xlim(-0.25, depth + _LEAF / _LEVEL)
        axes.set_ylim(layout.height - 0.3, -1.5)
        axes.set_axis_off()
        _draw_headers(axes, record)
        if any(kind == "faded" for *_, kind in layout.nodes.values()):
            note = "pruned, the\nmost probable\nof each level"
            axes.text(-0.2, len(layout.items) + 0.25, note, va="center", fontsize=7.5, color=MUTED)
        _draw_edges(axes, layout)
        _draw_prefixes(axes, record, layout, token_name)
        for item, y in layout.items.items():
            _draw_item(axes, record, catalogue, item, y, int(np.flatnonzero(ranked == item)[0]) + 1, item == target)
        if target is not None and fate is not None and target not in layout.items:
            _draw_lost(axes, layout, catalogue, target, fate, depth)
        return figure


@dataclass(frozen=True)
class _Layout:
    """Where things stand: y of each shown item; (level, y, kind) of each node; edges as pairs of nodes with a kind."""

    items: dict[int, float]
    nodes: dict[int, tuple[int, float, str]]
    edges: list[tuple[int, int, str]]
    height: float
    lost_y: float


def _lay_out(
    record: SearchRecord, ranked: np.ndarray, target: int | None, leaves: int, pruned: int, fate: Fate | None
) -> _Layout:
    trie = record.trie
    found = [int(item) for item in ranked if item >= 0]
    if not found:
        raise ValueError("ranked holds no item: there is no tree to draw")
    shown = found[:leaves] + [item for item in found[leaves:] if item == target]
    leaves_shown = trie.leaves_of(np.array(shown))
    paths = {item: trie.path(int(leaf)) for item, leaf in zip(shown, leaves_shown)}
    # Subtrees stand in the order of their best item, so no two edges cross.
    best: dict[int, int] = {}
    for rank, item in enumerate(shown):
        for node in paths[item]:
            best.setdefault(node, rank)
    shown.sort(key=lambda item: ([best[node] for node in paths[item]], item))
    items = {item: float(y) for y, item in enumerate(shown)}

    true_path = trie.path(int(trie.leaves_of(np.array(target)))) if target is not None else []
    nodes: dict[int, tuple[int, float, str]] = {0: (0, float(np.mean(list(items.values()))), "root")}
    below: dict[int, list[float]] = {}
    for item, path in paths.items():
        for node in path:
            below.setdefault(node, []).append(items[item])
    for node, ys in below.items():
        on_true_path = node in true_path and target in items
        nodes[node] = (int(trie.levels_of(np.array(node))), float(np.mean(ys)), "true" if on_true_path else "alive")

    lost_y = len(items) + 0.55 * pruned + 0.6
    lost = fate is not None and target not in items
    if lost and fate is not None:
        for node in true_path[: fate.level]:
            if node in nodes:
                nodes[node] = (*nodes[node][:2], "passed")
            else:
                nodes[node] = (int(trie.levels_of(np.array(node))), lost_y, "lost")
    for level, step in enumerate(record.levels, start=1):
        dead = step.nodes[~step.alive & ~step.masked]
        new = [int(node) for node in dead if node not in nodes]
        for place, node in enumerate(new[:pruned]):
            nodes[node] = (level, len(items) + 0.25 + 0.55 * place, "faded")
    edges = [
        (parent, node, kind)
        for node, (_, _, kind) in nodes.items()
        if node and (parent := ([0, *trie.path(node)])[-2]) in nodes
    ]
    height = len(items) + 0.55 * pruned + (1.2 if lost else 0.3)
    return _Layout(items, nodes, edges, height, lost_y)


def _draw_headers(axes: Axes, record: SearchRecord) -> None:
    for level, step in enumerate(record.levels, start=1):
        alive, pruned = int(step.alive.sum()), int((~step.alive & ~step.masked).sum())
        mass = percent(float(np.exp(step.log_probabilities[step.alive]).sum()))
        text = f"{alive} alive · {pruned} pruned\n{mass} of probability alive"
        axes.text(level, -1.35, f"level {level}", ha="center", va="top", fontweight="bold")
        axes.text(level, -1.0, text, ha="center", va="top", fontsize=7.5, color=MUTED)
    axes.text(len(record.levels) + 0.38, -1.35, "items", va="top", fontweight="bold")


def _draw_edges(axes: Axes, layout: _Layout) -> None:
    """Draw the edges as smooth steps, the faded ones underneath."""
    styles = {"faded": (_FADED, 0.7), "lost": (_LOST, 2.0), "passed": (_LOST, 2.0), "true": (_TRUE, 2.4)}
    # The curve is flat at both ends, where the labels of the nodes stand.
    t = np.linspace(0, 1, 60)
    bend = np.clip((t - 0.12) / 0.58, 0, 1)
    ease = bend * bend * (3 - 2 * bend)
    for parent, node, kind in sorted(layout.edges, key=lambda edge: edge[2] != "faded"):
        (x0, y0, _), (x1, y1, _) = layout.nodes[parent], layout.nodes[node]
        colour, width = styles.get(kind, (_ALIVE, 1.3))
        axes.plot(x0 + (x1 - x0) * t, y0 + (y1 - y0) * ease, color=colour, linewidth=width, zorder=1, alpha=0.8)


def _draw_prefixes(axes: Axes, record: SearchRecord, layout: _Layout, token_name: Callable[[int], str]) -> None:
    """Draw the nodes, their area growing with the probability, each with its last token and probability."""
    scores = {int(node): step for step in record.levels for node in step.nodes}
    colours = {"faded": _FADED, "lost": _LOST, "passed": _LOST, "true": _TRUE, "root": "black"}
    for node, (x, y, kind) in layout.nodes.items():
        colour = colours.get(kind, _ALIVE)
        if node == 0:
            axes.scatter(x, y, s=90, color=colour, zorder=3)
            axes.text(x, y - 0.25, "prompt", ha="center", fontsize=8)
            continue
        step = scores[node]
        index = int(np.flatnonzero(step.nodes == node)[0])
        probability = float(np.exp(step.log_probabilities[index]))
        alive = bool(step.alive[index])
        axes.scatter(
            x,
            y,
            s=25 + 220 * probability,
            color=colour if alive else "white",
            edgecolor=colour,
            linewidth=1.4,
            zorder=3,
        )
        label = f"{token_name(int(record.trie.tokens_of(np.array(node))))}  {percent(probability)}"
        axes.text(
            x, y - 0.17, label, ha="center", va="bottom", fontsize=7.5, parse_math=False, zorder=4,
            color=MUTED if kind == "faded" else "black",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.6},
        )  # fmt: skip


def _draw_item(
    axes: Axes, record: SearchRecord, catalogue: "Catalogue", item: int, y: float, rank: int, is_target: bool
) -> None:
    """Draw an item with rank, title and probability, joined to its leaf."""
    trie, last = record.trie, record.levels[-1]
    leaf = int(trie.leaves_of(np.array(item)))
    sharing = int(trie.item_last[leaf] - trie.item_first[leaf])
    probability = float(np.exp(last.log_probabilities[last.nodes == leaf][0])) / sharing
    x = len(record.levels) + 0.38
    axes.plot(
        [int(trie.levels_of(np.array(leaf))), x], [y, y], color=_TRUE if is_target else _FADED, linewidth=1, zorder=0.5
    )
    note = f"{percent(probability)}" + (f" · one of {sharing} items with this SID" if sharing > 1 else "")
    heading = "  true next item" if is_target else ""
    _draw_entry(axes, catalogue, item, x, y, f"{rank}. ", note + heading, _TRUE if is_target else None)


def _draw_lost(axes: Axes, layout: _Layout, catalogue: "Catalogue", target: int, fate: Fate, depth: int) -> None:
    """Draw the true next item below the others, with where and how it was lost."""
    reasons = {
        "pruned": f"true next item, pruned at level {fate.level}: rank {fate.rank} there",
        "masked": "true next item, masked for this user",
        "found": "true next item, in the beam but not ranked",
    }
    _draw_entry(axes, catalogue, target, depth + 0.38, layout.lost_y, "", reasons[fate.status], _LOST)


def _draw_entry(
    axes: Axes, catalogue: "Catalogue", item: int, x: float, y: float, before: str, note: str, colour: str | None
) -> None:
    picture = Image.new("RGB", (_SIDE, _SIDE), "#EDEDED")
    if (image := catalogue.open_image(item)) is not None:
        picture = ImageOps.pad(image.convert("RGB"), (_SIDE, _SIDE), color="white")
    frame = {"edgecolor": colour or "#DDDDDD", "linewidth": 2.5 if colour else 0.8, "boxstyle": "square,pad=0.05"}
    # An offset image is measured in pixels of 1/72 inch: the zoom makes it nine tenths of a row high.
    box = OffsetImage(np.asarray(picture), zoom=0.86 * _ROW * 72 / _SIDE)
    axes.add_artist(AnnotationBbox(box, (x + 0.15, y), frameon=True, pad=0.05, bboxprops=frame, zorder=3))
    title = before + shorten(" ".join(textwrap.wrap(catalogue.titles[item])), 44 - len(before))
    axes.text(x + 0.36, y - 0.06, title, va="bottom", fontsize=8.5, parse_math=False)
    axes.text(x + 0.36, y + 0.06, note, va="top", fontsize=8, color=colour or MUTED)
