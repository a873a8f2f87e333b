"""One page of figures of `trialign.sids.diagnose.Diagnostics`: what a quantizer keeps, at a glance."""

from collections.abc import Callable
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from trialign.plots.labels import MARKERS
from trialign.plots.sids import beside_chance
from trialign.plots.style import MUTED, PALETTE, figure_style
from trialign.sids.diagnose import EMBEDDING, RECONSTRUCTION, Diagnostics
from trialign.sids.probes import PLACES

_PLACES = {"image": "image only", "text": "text only", "both": "image and text", "category": "category"}


def diagnostics_page(diagnostics: Diagnostics, title: str = "") -> Figure:
    """Draw all diagnostics on one page, legible at a width of 1280 pixels.

    Panels: reconstruction by depth, use of each level's codes, collisions, agreement of seeds; neighbours and
    categories that share a prefix, and what a linear probe reads before and after quantization. A panel of what was not
    measured says so.

    Parameters
    ----------
    diagnostics
        From `trialign.sids.diagnose.diagnose`, or read from its JSON file.
    title
        Of the page; by default quantizer, codebook sizes and number of items.
    """
    facts = diagnostics.facts
    sizes = " × ".join(str(size) for size in facts["codebook_sizes"])
    title = title or f"{facts['quantizer']} {sizes} on {facts['items']:,} items"
    with figure_style():
        figure = plt.figure(figsize=(11.6, 6.8))
        upper, lower = figure.subfigures(2, 1)
        panels = [*upper.subplots(1, 4), *lower.subplots(1, 3, width_ratios=[1, 1.15, 1.9])]
        _reconstruction(panels[0], diagnostics.reconstruction)
        _usage(panels[1], diagnostics.usage)
        _collisions(panels[2], diagnostics.collisions)
        _where_measured(panels[3], "Agreement of seeds", diagnostics.stability, _stability)
        beside_chance(panels[4], {"": diagnostics.neighbours}, "preserved", "chance")
        panels[4].set(title=f"{facts['neighbours_per_item']} nearest neighbours", ylabel="share with the same prefix")
        _where_measured(panels[5], "Categories (dashed: chance)", diagnostics.categories, _categories)
        _where_measured(panels[6], "What a linear probe reads", diagnostics.probes, _probes)
        figure.suptitle(title, fontweight="bold", parse_math=False)
        return figure


def _reconstruction(axes: Axes, table: pd.DataFrame) -> None:
    for column, label, colour, marker in (
        ("cosine", "cosine", PALETTE[0], "o"),
        ("relative_error", "relative error", PALETTE[3], "s"),
    ):
        axes.plot(table["level"], table[column], color=colour, marker=marker, linewidth=2, label=label)
        other = table["relative_error" if column == "cosine" else "cosine"]
        for level, value, above in zip(table["level"], table[column], table[column] >= other):
            axes.annotate(
                f"{value:.2f}",
                (level, value),
                xytext=(0, 6 if above else -15),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
    axes.set(title="Reconstruction", xlabel="codes used", ylim=(0, 1.3))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center", ncols=2, fontsize=8.5, columnspacing=1.0, handlelength=1.5)


def _usage(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the items of each code as a multiple of even use, so that levels of all sizes share the axes."""
    for row, colour in zip(table.itertuples(), cycle(PALETTE)):
        ordered = np.sort(np.asarray(row.counts))[::-1] * row.codebook_size / max(1, row.items)
        edges = np.linspace(0, 1, len(ordered) + 1)
        label = f"level {row.level}: {row.perplexity:.0f} of {row.codebook_size}"
        axes.stairs(ordered, edges, color=colour, linewidth=2, label=label)
    axes.axhline(1, color=MUTED, linestyle="--", linewidth=1)
    axes.set(title="Use of the codes", xlabel="codes, most used first", ylabel="items (even use = 1)", xlim=(0, 1))
    axes.set_xticks([0, 0.5, 1])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="upper right", fontsize=8.5, title="perplexity", title_fontsize=8.5)


def _collisions(axes: Axes, table: pd.DataFrame) -> None:
    shares = 100 * table["items_colliding"]
    bars = axes.bar(table["stage"], shares, color=PALETTE[0], width=0.55)
    labels = [f"{share:.1f} %\nlargest: {group}" for share, group in zip(shares, table["largest_group"])]
    axes.bar_label(bars, labels=labels, padding=3, fontsize=9)
    axes.set(title="Items that share a SID", ylabel="% of items", xlabel="resolution of collisions")
    axes.set_ylim(0, 1.35 * max(shares.max(), 1))
    axes.margins(x=0.3)
    axes.grid(axis="x", visible=False)


def _stability(axes: Axes, table: pd.DataFrame) -> None:
    means = table.groupby("depth")["adjusted_rand"].mean()
    axes.scatter(table["depth"], table["adjusted_rand"], s=14, color=PALETTE[0], alpha=0.6, label="a pair")
    axes.plot(means.index, means, color=PALETTE[0], marker="o", linewidth=2, label="mean")
    for depth, value in means.dropna().items():
        axes.annotate(f"{value:.2f}", (depth, value), xytext=(7, 3), textcoords="offset points", fontsize=9)
    axes.axhline(0, color=MUTED, linestyle="--", linewidth=1)
    axes.set(xlabel="codes compared", ylabel="adjusted Rand index")
    axes.set_ylim(min(-0.05, table["adjusted_rand"].min()), 1.05)
    axes.margins(x=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _categories(axes: Axes, table: pd.DataFrame) -> None:
    curves = (
        ("purity", "purity_chance", "items: their prefix's main one"),
        ("pair_agreement", "pair_chance", "pairs with one prefix: the same"),
    )
    for (value, chance, label), colour, marker in zip(curves, PALETTE, MARKERS):
        axes.plot(table["depth"], table[value], color=colour, marker=marker, linewidth=2, label=label)
        axes.plot(table["depth"], table[chance], color=colour, linestyle="--", linewidth=1)
    axes.set(xlabel="codes compared", ylabel="share", ylim=(0, 1.5))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", fontsize=8.5)


def _probes(axes: Axes, table: pd.DataFrame) -> None:
    places = [place for place in PLACES if place in set(table["where"])]
    for number, (name, colour) in enumerate(((EMBEDDING, PALETTE[5]), (RECONSTRUCTION, PALETTE[0]))):
        part = table[table["representation"] == name]
        heights = np.arange(len(places)) + (number - 0.5) * 0.38
        means = [part.loc[part["where"] == place, "recovered"].mean() for place in places]
        label = "the embedding" if name == EMBEDDING else "what the SID stands for"
        axes.barh(heights, means, height=0.36, color=colour, label=label, alpha=0.85)
        for height, place, mean in zip(heights, places, means):
            each = part.loc[part["where"] == place, "recovered"]
            axes.text(1.06, height, f"{mean:.2f}", va="center", fontsize=9)
            axes.plot(each, np.full(len(each), height), "|", color="black", markersize=8)
    axes.set(xlabel="recovered: 0 = guessing, 1 = all (each attribute a tick)")
    axes.set_yticks(range(len(places)), [_PLACES[place] for place in places])
    axes.set_ylim(len(places) - 0.4, -1.1)
    axes.set_xlim(min(-0.05, axes.get_xlim()[0]), 1.16)
    axes.grid(axis="y", visible=False)
    axes.legend(loc="upper center", fontsize=8.5, ncols=2)


def _where_measured(
    axes: Axes, title: str, table: pd.DataFrame | None, draw: Callable[[Axes, pd.DataFrame], None]
) -> None:
    """Draw a panel, or say that there is nothing to draw."""
    axes.set_title(title)
    if table is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not measured", color=MUTED, ha="center", va="center", transform=axes.transAxes)
    else:
        draw(axes, table)
