"""Figures of a catalogue: its items as pictures, how often they are chosen, and what one user did."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure

from trialign.catalogue import Catalogue
from trialign.plots.style import MUTED, PALETTE, figure_style, shorten, show_image


def item_grid(
    catalogue: Catalogue, rows: Sequence[int] | None = None, count: int = 24, columns: int = 8, seed: int = 0
) -> Figure:
    """Draw items as a grid of images with their titles.

    Parameters
    ----------
    catalogue
        The items.
    rows
        Which items; default: `count` of them, drawn at random.
    count
        How many items are drawn at random.
    columns
        Images side by side.
    seed
        Of the random draw.
    """
    if rows is None:
        draw = np.random.default_rng(seed).choice(catalogue.n_items, min(count, catalogue.n_items), replace=False)
        rows = np.sort(draw).tolist()
    return _image_grid(catalogue, rows, [""] * len(rows), columns)


def history_strip(
    catalogue: Catalogue,
    history: Sequence[int] | Int[np.ndarray, " history"],
    count: int = 10,
    target: int | None = None,
) -> Figure:
    """Draw a user's history as a strip of images, oldest first.

    Parameters
    ----------
    catalogue
        The items.
    history
        Rows of the items, oldest first.
    count
        Only that many of the latest items are drawn.
    target
        Row of the item that came next, drawn last and marked.
    """
    rows = [int(row) for row in history][-count:]
    first = len(history) - len(rows) + 1
    notes = [str(place) for place in range(first, first + len(rows))]
    if target is not None:
        rows, notes = [*rows, int(target)], [*notes, "next"]
    figure = _image_grid(catalogue, rows, notes, len(rows))
    if target is not None:
        _frame(figure.axes[len(rows) - 1])
    return figure


def long_tail(catalogue: Catalogue) -> Figure:
    """Draw the long tail: interactions of each item by rank, and the share that the most chosen items hold."""
    counts = np.sort(catalogue.interactions["item_id"].value_counts().to_numpy())[::-1]
    counts = np.concatenate([counts, np.zeros(catalogue.n_items - len(counts), dtype=counts.dtype)])
    share = np.cumsum(counts) / max(counts.sum(), 1)
    ranks = np.arange(1, len(counts) + 1)
    with figure_style():
        figure, (tail, gain) = plt.subplots(1, 2, figsize=(9.5, 3.6))
        tail.plot(ranks[counts > 0], counts[counts > 0], color=PALETTE[0], linewidth=2)
        tail.set(
            xscale="log", yscale="log", xlabel="rank of the item", ylabel="interactions", title="Interactions by item"
        )
        gain.plot(ranks / len(ranks), share, color=PALETTE[0], linewidth=2)
        gain.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
        gain.annotate(
            "all items alike", (0.5, 0.5), (6, -4), textcoords="offset points", va="top", color=MUTED, fontsize=9
        )
        gain.set(xlabel="share of items, most chosen first", ylabel="share of interactions", title="Concentration")
        tenth = max(1, round(0.1 * len(counts)))
        gain.scatter([tenth / len(ranks)], [share[tenth - 1]], color=PALETTE[3], zorder=3)
        note = f"top 10 % of the items:\n{share[tenth - 1]:.0%} of the interactions"
        gain.annotate(note, (0.95, 0.06), xycoords="axes fraction", ha="right", color=PALETTE[3], fontsize=9)
    return figure


def history_lengths(catalogue: Catalogue) -> Figure:
    """Draw how many users have how many interactions, the median marked; the longest 1 % share the last bar."""
    lengths = catalogue.interactions["user_id"].value_counts().to_numpy()
    median, last = float(np.median(lengths)), int(np.quantile(lengths, 0.99))
    width = max(1, -(-(last - lengths.min()) // 40))  # bars of whole interactions: unequal ones would show false steps
    edges = np.arange(lengths.min(), last + width + 1, width) - 0.5
    with figure_style():
        figure, axes = plt.subplots(figsize=(6.5, 3.6))
        axes.hist(
            lengths.clip(max=edges[-1] - 0.5), bins=edges.tolist(), color=PALETTE[0], edgecolor="white", linewidth=0.5
        )
        axes.axvline(median, color=PALETTE[3], linewidth=1.5)
        at_top = axes.get_xaxis_transform()
        axes.text(median, 0.97, f"  median {median:g}", color=PALETTE[3], va="top", fontsize=9, transform=at_top)
        more = f"last bar: up to {lengths.max()}"
        axes.text(0.98, 0.97, more, color=MUTED, ha="right", va="top", fontsize=9, transform=axes.transAxes)
        axes.set(xlabel="interactions of a user", ylabel="users", title="Length of the histories")
    return figure


def _image_grid(catalogue: Catalogue, rows: Sequence[int], notes: Sequence[str], columns: int) -> Figure:
    """Draw items in lines of `columns`; a note stands above the title."""
    columns = max(1, min(columns, len(rows)))
    lines = max(1, -(-len(rows) // columns))
    with figure_style():
        figure, axes = plt.subplots(
            lines, columns, figsize=(1.5 * columns, (2.2 if any(notes) else 2.05) * lines), squeeze=False
        )
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, row, note in zip(axes.flat, rows, notes):
            title = textwrap.fill(shorten(catalogue.titles[row], 40), 21, max_lines=2, placeholder=" …")
            lines_of_title = title + "\n" * (1 - title.count("\n"))  # equal heights keep the images in line
            show_image(axis, catalogue.open_image(row), f"{note}\n{lines_of_title}" if note else lines_of_title)
    return figure


def _frame(axes: plt.Axes) -> None:
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=PALETTE[3], linewidth=2.5)
