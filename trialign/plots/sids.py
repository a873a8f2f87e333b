"""Figures of the Semantic ID stage: what quantization keeps, how codes are used, what items share a prefix.

Each function takes the table or arrays that `trialign.sids` made, and returns a new figure.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from trialign.plots.labels import MARKERS, draw_legend, plain_text
from trialign.plots.style import MUTED, PALETTE, figure_style, level_names, shorten
from trialign.sids.diagnostics import code_counts, code_usage
from trialign.sids.layout import LayoutComparison

#: Groups of a layout that get a colour and a marker of their own; the rest is drawn in grey as "other".
NAMED_GROUPS = 8


def reconstruction_curves(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw cosine and relative error of reconstructions by depth, one curve a name.

    Parameters
    ----------
    tables
        Name of a quantizer or of a representation → table of `trialign.sids.diagnostics.reconstruction_by_depth`.
    """
    with figure_style():
        figure, panels = plt.subplots(1, 2, figsize=(8.6, 3.4))
        for axes, measure, title in zip(
            panels, ("cosine", "relative_error"), ("Cosine to the embedding", "Relative squared error")
        ):
            for (name, table), colour, marker in zip(tables.items(), cycle(PALETTE), cycle(MARKERS)):
                axes.plot(table["level"], table[measure], color=colour, marker=marker, linewidth=2, label=name)
            axes.set(title=title, xlabel="codes used")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[1].set_ylim(bottom=0)
        handles = panels[0].get_lines()
        draw_legend(figure, handles, list(tables), loc="outside lower center", ncols=min(4, len(tables)))
        return figure


def code_usage_bars(
    codes: Int[np.ndarray, "items depth"], codebook_sizes: Sequence[int], levels: int | None = None
) -> Figure:
    """Draw how many items each code has, codes sorted by use, one panel a level, with use and perplexity written in.

    The dashed line is even use. A suffix level (-1 = no code), the one after `levels`, counts only the items that have
    a suffix.
    """
    names = [*level_names(len(codebook_sizes) if levels is None else levels), "suffix"]
    counts = code_counts(codes, codebook_sizes)
    usage = code_usage(codes, codebook_sizes)
    with figure_style():
        figure, panels = plt.subplots(1, len(counts), figsize=(3.1 * len(counts), 3.0), squeeze=False)
        for axes, level_counts, row, name in zip(panels[0], counts, usage.itertuples(), names):
            ordered = np.sort(level_counts)[::-1]
            edges = np.arange(len(ordered) + 1)
            axes.stairs(ordered, edges, fill=True, color=PALETTE[(row.level - 1) % len(PALETTE)])
            axes.axhline(row.items / row.codebook_size, color=MUTED, linestyle="--", linewidth=1)
            text = f"{row.used:.0%} of {row.codebook_size} used\nperplexity {row.perplexity:.0f}\nGini {row.gini:.2f}"
            axes.text(0.96, 0.96, text, transform=axes.transAxes, ha="right", va="top", fontsize=9)
            axes.set(title=name.capitalize(), xlabel="codes, most used first", xlim=(0, len(ordered)))
            axes.set_ylim(0, max(1, ordered[0]) * 1.35)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0, 0].set_ylabel("items")
        return figure


def collision_bars(stages: Mapping[str, pd.Series]) -> Figure:
    """Draw the share of items that share a SID, and the largest group, e.g. before and after resolution.

    Parameters
    ----------
    stages
        Name → series of `trialign.sids.collisions`, in the order to draw.
    """
    names = list(stages)
    shares = [100 * float(series["items_colliding"]) for series in stages.values()]
    groups = [int(series["largest_group"]) for series in stages.values()]
    with figure_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 1.5 + 0.42 * len(names)), sharey=True)
        for axes, values, labels in (
            (left, shares, [f"{share:.2g} %" if share < 1 else f"{share:.1f} %" for share in shares]),
            (right, groups, [str(group) for group in groups]),
        ):
            bars = axes.barh(range(len(names)), values, color=PALETTE[0], height=0.65)
            axes.bar_label(bars, labels=labels, padding=4)
            axes.set_xlim(0, max(*values, 1) * 1.2)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=axes is right))
            axes.grid(axis="y", visible=False)
        left.set(title="Items that share their SID", xlabel="% of items")
        right.set(title="Largest group with one SID", xlabel="items")
        left.set_yticks(range(len(names)), [shorten(name, 36) for name in names])
        left.invert_yaxis()
        plain_text(left.get_yticklabels())
        return figure


def neighbour_curves(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the share of true nearest neighbours that share a prefix, by depth; dashed: what chance would give.

    Parameters
    ----------
    tables
        Name → table of `trialign.sids.diagnostics.neighbour_preservation`.
    """
    with figure_style():
        figure, axes = plt.subplots(figsize=(6.4, 3.6))
        beside_chance(axes, tables, "preserved", "chance")
        axes.set(title="Nearest neighbours that share the first codes", ylabel="share")
        handles = [*axes.get_lines()[::2], Line2D([], [], color=MUTED, linestyle="--", linewidth=1)]
        draw_legend(axes, handles, [*tables, "any two items (×: times that)"], loc="upper right")
        return figure


def beside_chance(axes: Axes, tables: Mapping[str, pd.DataFrame], value: str, chance: str) -> None:
    """Draw a share by depth, one curve a name, and dashed what chance would give.

    One curve alone gets its numbers written beside it, and how many times chance they are.

    Parameters
    ----------
    axes
        Where to draw.
    tables
        Name → table with a column ``depth``.
    value, chance
        The columns drawn.
    """
    for (name, table), colour, marker in zip(tables.items(), cycle(PALETTE), cycle(MARKERS)):
        axes.plot(table["depth"], table[value], color=colour, marker=marker, linewidth=2, label=name)
        axes.plot(table["depth"], table[chance], color=colour, linestyle="--", linewidth=1)
        if len(tables) == 1:
            _annotate_lift(axes, table["depth"], table[value], table[chance])
    axes.set_xlabel("codes compared")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.25 * max(table[[value, chance]].max().max() for table in tables.values()) or 1)
    axes.margins(x=0.2)


def _annotate_lift(axes: Axes, depths: pd.Series, values: pd.Series, chances: pd.Series) -> None:
    for depth, value, chance in zip(depths, values, chances):
        lift = value / chance if chance > 0 and np.isfinite(value) else 0.0
        text = f"{value:.1%}\n{lift:.0f} ×" if lift >= 2 else f"{value:.1%}"
        axes.annotate(text, (depth, value), xytext=(5, 3), textcoords="offset points", fontsize=9)


def layout_panels(comparison: LayoutComparison, categories: Sequence[str]) -> Figure:
    """Draw layouts side by side, coloured by category, with trustworthiness and silhouette below each.

    Parameters
    ----------
    comparison
        Of `trialign.sids.layout.compare_layouts`; where it is of a sample, the figure says so.
    categories
        One a row of the whole catalogue. The `NAMED_GROUPS` most common get a colour and a marker; all others are grey.
    """
    labels = np.asarray(categories, dtype=str)[comparison.rows]
    common = pd.Series(labels).value_counts().index[:NAMED_GROUPS].tolist()
    scores = comparison.scores.set_index("representation")
    size = float(np.clip(4000 / max(1, len(labels)), 4, 22))
    with figure_style():
        figure, panels = plt.subplots(1, len(scores), figsize=(4.4 * len(scores), 4.6), squeeze=False)
        for axes, (name, positions) in zip(panels[0], comparison.layouts.items()):
            handles = _scatter(axes, positions, labels, common, size)
            axes.set_title(shorten(name, 44), parse_math=False)
            trust, silhouette = scores.loc[name, ["trustworthiness", "silhouette"]]
            axes.set_xlabel(f"trustworthiness {trust:.3f} · silhouette {silhouette:.3f}", fontsize=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[["left", "bottom"]].set_color("#D0D0D0")
        figure.suptitle(f"t-SNE of {comparison.caption}", x=0.01, ha="left", fontsize=9, color=MUTED)
        names = [shorten(label) for label in common] + ["other"] * (len(handles) - len(common))
        draw_legend(figure, handles, names, loc="outside lower center", ncols=min(len(names), 5))
        return figure


def _scatter(
    axes: Axes, positions: Float[np.ndarray, "items 2"], labels: np.ndarray, common: Sequence[str], size: float
) -> list[Line2D]:
    handles = []
    rest = ~np.isin(labels, list(common))
    if rest.any():
        axes.scatter(*positions[rest].T, s=size * 0.7, color="#C4C4C4", linewidths=0)
    for label, colour, marker in zip(common, PALETTE, MARKERS):
        axes.scatter(
            *positions[labels == label].T, s=size, color=colour, marker=marker, linewidths=0.2, edgecolors="#444444"
        )
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", markersize=7))
    if rest.any():
        handles.append(Line2D([], [], color="#C4C4C4", marker="o", linestyle="", markersize=7))
    return handles
