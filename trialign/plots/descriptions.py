"""Figures of captions and interests: images beside the words, and how far the words can be trusted."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from trialign.catalogue import Catalogue
from trialign.plots.style import MUTED, PALETTE, figure_style, shorten, show_image


def caption_cards(catalogue: Catalogue, captions: Mapping[str, str], rows: Sequence[int], columns: int = 4) -> Figure:
    """Draw items with their title above and their caption below.

    Parameters
    ----------
    catalogue
        The items.
    captions
        Caption by item id.
    rows
        Row numbers of the items to draw.
    columns
        Images side by side.
    """
    words = {row: captions.get(catalogue.items["item_id"][row], "") or "(no caption)" for row in rows}
    return _images_with_words(catalogue, words, columns)


def interest_cards(
    catalogue: Catalogue, interests: Mapping[str, Sequence[str]], rows: Sequence[int], columns: int = 4
) -> Figure:
    """Draw items with their title above and their interests below, one a line; parameters as in `caption_cards`."""
    words = {}
    for row in rows:
        tags = interests.get(catalogue.items["item_id"][row], [])
        words[row] = "\n".join(f"• {tag}" for tag in tags) or "(no interests)"
    return _images_with_words(catalogue, words, columns)


def _images_with_words(catalogue: Catalogue, words: Mapping[int, str], columns: int) -> Figure:
    """Draw images in a grid, each above a cell of its own for the words, so that neither runs into the other."""
    wrapped = {row: [textwrap.fill(line, 36) for line in text.splitlines()] for row, text in words.items()}
    most = max(sum(part.count("\n") + 1 for part in parts) for parts in wrapped.values())
    lines = -(-len(words) // columns)
    heights = [3.1, 0.2 * most + 0.1] * lines
    with figure_style():
        figure, axes = plt.subplots(
            2 * lines, columns, figsize=(2.7 * columns, sum(heights)), squeeze=False, height_ratios=heights
        )
        for axis in axes.flat:
            axis.set_axis_off()
        for place, (row, parts) in enumerate(wrapped.items()):
            line, column = divmod(place, columns)
            show_image(axes[2 * line, column], catalogue.open_image(row), shorten(catalogue.titles[row], 38))
            axes[2 * line + 1, column].text(
                0.5, 1, "\n".join(parts), ha="center", va="top", fontsize=8.5, parse_math=False
            )
    return figure


def caption_accuracy_bars(accuracy: pd.DataFrame) -> Figure:
    """Draw the share of captions that name the true value, by attribute, beside that of shuffled captions.

    Parameters
    ----------
    accuracy
        As `trialign.describe.quality.caption_accuracy` returns it.
    """
    ordered = accuracy.iloc[::-1]
    labels = [
        f"{name} ({'image only' if where == 'image' else 'image and text'})"
        for name, where in zip(ordered["attribute"], ordered["where"], strict=True)
    ]
    with figure_style():
        figure, axes = plt.subplots(figsize=(7.5, 0.45 * len(ordered) + 1.3))
        axes.barh(labels, ordered["accuracy"], height=0.6, color=PALETTE[0], label="caption of the item")
        axes.barh(labels, ordered["shuffled"], height=0.22, color=PALETTE[1], label="caption of another item")
        for position, value in enumerate(ordered["accuracy"]):
            axes.annotate(
                f"{value:.0%}", (value, position), (4, 0), textcoords="offset points", va="center", fontsize=9
            )
        axes.set_xlim(0, 1.1)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_xlabel("share of captions that name the true value")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def frequent_interests(interests: Mapping[str, Sequence[str]], top: int = 20) -> Figure:
    """Draw how many items carry each of the most frequent interests.

    Parameters
    ----------
    interests
        Tags by item id.
    top
        How many interests to draw.
    """
    counts = Counter(tag for tags in interests.values() for tag in tags).most_common(top)[::-1]
    with figure_style():
        figure, axes = plt.subplots(figsize=(7.5, 0.27 * len(counts) + 1))
        axes.barh(range(len(counts)), [count for _, count in counts], color=PALETTE[2])
        # Tags are a model's words about untrusted titles: drawn as they are, never read as mathtext.
        axes.set_yticks(range(len(counts)), [shorten(tag, 40) for tag, _ in counts], parse_math=False)
    axes.set_xlabel("items")
    axes.grid(axis="y", visible=False)
    return figure


def interest_agreement_dots(agreement: pd.DataFrame) -> Figure:
    """Draw the AUC of mined tags by latent interest, beside that of shuffled tags.

    Parameters
    ----------
    agreement
        As `trialign.describe.quality.interest_agreement` returns it.
    """
    ordered = agreement.iloc[::-1]
    positions = np.arange(len(ordered))
    with figure_style():
        figure, axes = plt.subplots(figsize=(7.5, 0.3 * len(ordered) + 1.4))
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle="--")
        axes.hlines(positions, ordered["auc_shuffled"], ordered["auc"], color="#CFCFCF", linewidth=2)
        axes.plot(ordered["auc_shuffled"], positions, "o", color=PALETTE[1], label="tags of another item")
        axes.plot(ordered["auc"], positions, "o", color=PALETTE[0], label="tags of the item")
        axes.set_yticks(
            positions,
            [
                f"{shorten(name, 40)} ({items})"
                for name, items in zip(ordered["interest"], ordered["items"], strict=True)
            ],
        )
        axes.set_xlim(0.3, 1.02)
        axes.set_xlabel("AUC: an item that serves the interest ranks above one that does not")
        figure.legend(loc="outside upper left", ncols=2)
    return figure
