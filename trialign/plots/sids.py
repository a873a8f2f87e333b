"""Figures of the Semantic ID stage: what quantization keeps, how codes are used, what items share a prefix.

Each function takes the table or arrays that `trialign.sids` made, and returns a new figure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from trialign.plots.style import MUTED, PALETTE, figure_style, level_names, shorten, show_image
from trialign.sids.diagnostics import code_counts, code_usage, prefix_groups
from trialign.sids.layout import LayoutComparison
from trialign.sids.semantic_ids import token

#: Groups of a layout that get a colour of their own; the rest is drawn in grey as "other".
NAMED_GROUPS = 8

_MARKERS = "osD^vPX*"
_WHERE = {"image": "in the image only", "text": "in the text only", "both": "in image and text"}


def loss_curves(loss: pd.DataFrame) -> Figure:
    """Draw the losses of a quantizer by epoch, one panel a loss; `loss` has ``epoch`` and one column a loss."""
    columns = [name for name in ("reconstruction", "commitment") if name in loss]
    labels = {"reconstruction": "share of variance lost", "commitment": "squared distance to codes"}
    with figure_style():
        figure, panels = plt.subplots(1, len(columns), figsize=(4.2 * len(columns), 3.0), squeeze=False)
        for axes, name, colour in zip(panels[0], columns, PALETTE):
            axes.plot(loss["epoch"], loss[name], color=colour, linewidth=2)
            axes.set(title=f"{name.capitalize()} loss", xlabel="epoch", ylabel=labels[name])
            axes.set_ylim(0, 1.08 * loss[name].max() or 1)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


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
            for (name, table), colour, marker in zip(tables.items(), _cycle(PALETTE), _cycle(_MARKERS)):
                axes.plot(table["level"], table[measure], color=colour, marker=marker, linewidth=2, label=name)
            axes.set(title=title, xlabel="codes used")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[1].set_ylim(bottom=0)
        handles = panels[0].get_lines()
        _legend(figure, handles, list(tables), loc="outside lower center", ncols=min(4, len(tables)))
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
        _plain(left.get_yticklabels())
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
        handles = []
        for (name, table), colour, marker in zip(tables.items(), _cycle(PALETTE), _cycle(_MARKERS)):
            handles += axes.plot(
                table["depth"], table["preserved"], color=colour, marker=marker, linewidth=2, label=name
            )
            axes.plot(table["depth"], table["chance"], color=colour, linestyle="--", linewidth=1)
            if len(tables) == 1:
                _annotate_lift(axes, table)
        handles.append(Line2D([], [], color=MUTED, linestyle="--", linewidth=1))
        axes.set(title="Nearest neighbours that share the first codes", xlabel="codes compared", ylabel="share")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, 1.25 * max(table["preserved"].max() for table in tables.values()) or 1)
        axes.margins(x=0.2)
        _legend(axes, handles, [*tables, "any two items (chance)"], loc="upper right")
        return figure


def _annotate_lift(axes: Axes, table: pd.DataFrame) -> None:
    for row in table.itertuples():
        lift = f"\n{row.lift:.0f} × chance" if np.isfinite(row.lift) else ""
        text = f"{row.preserved:.1%}{lift}"
        axes.annotate(text, (row.depth, row.preserved), xytext=(7, 3), textcoords="offset points", fontsize=9)


def layout_panels(comparison: LayoutComparison, categories: Sequence[str], named_groups: int = NAMED_GROUPS) -> Figure:
    """Draw layouts side by side, coloured by category, with trustworthiness and silhouette below each title.

    The `named_groups` most common categories get a colour and a marker, all others are grey.
    """
    labels = np.asarray(categories, dtype=str)
    common = pd.Series(labels).value_counts().index[: min(named_groups, len(PALETTE))].tolist()
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
        names = [shorten(label) for label in common] + ["other"] * (len(handles) - len(common))
        _legend(figure, handles, names, loc="outside lower center", ncols=min(len(names), 5))
        return figure


def _scatter(
    axes: Axes, positions: Float[np.ndarray, "items 2"], labels: np.ndarray, common: Sequence[str], size: float
) -> list[Line2D]:
    handles = []
    rest = ~np.isin(labels, list(common))
    if rest.any():
        axes.scatter(*positions[rest].T, s=size * 0.7, color="#C4C4C4", linewidths=0)
    for label, colour, marker in zip(common, PALETTE, _MARKERS):
        axes.scatter(
            *positions[labels == label].T, s=size, color=colour, marker=marker, linewidths=0.2, edgecolors="#444444"
        )
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", markersize=7))
    if rest.any():
        handles.append(Line2D([], [], color="#C4C4C4", marker="o", linestyle="", markersize=7))
    return handles


def probe_bars(probes: pd.DataFrame) -> Figure:
    """Draw what a linear probe reads of each attribute, one bar a representation, grouped by where it can be seen.

    Parameters
    ----------
    probes
        Table of `trialign.sids.probes.compare_probes`. Bars are accuracies with 95 % intervals; the black tick on
        each is the majority baseline.
    """
    names = list(dict.fromkeys(probes["representation"]))
    groups = [where for where in _WHERE if where in set(probes["where"])]
    attributes = {where: list(dict.fromkeys(probes.loc[probes["where"] == where, "attribute"])) for where in groups}
    heights = [max(1, len(attributes[where])) for where in groups]
    bar = 0.8 / len(names)
    with figure_style():
        figure, panels = plt.subplots(
            len(groups),
            1,
            figsize=(7.4, 1.4 + sum(heights) * (0.16 + 0.17 * len(names)) + 0.3 * len(groups)),
            sharex=True,
            squeeze=False,
            height_ratios=heights,
        )
        for axes, where in zip(panels[:, 0], groups):
            order = {attribute: place for place, attribute in enumerate(attributes[where])}
            part = probes[probes["where"] == where]
            for number, (name, colour) in enumerate(zip(names, _cycle(PALETTE))):
                table = part[part["representation"] == name]
                places = table["attribute"].map(order).to_numpy(dtype=float) + (number - (len(names) - 1) / 2) * bar
                _accuracy_bars(axes, places, table, bar, colour)
            axes.set_yticks(range(len(order)), [shorten(attribute) for attribute in order])
            axes.set_title(_WHERE[where].capitalize())
            axes.set_ylim(len(order) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            _plain(axes.get_yticklabels())
        panels[-1, 0].set(xlabel="accuracy of a linear probe on held-out items", xlim=(0, 1.02))
        handles: list[Line2D] = [Line2D([], [], color=colour, linewidth=7) for _, colour in zip(names, _cycle(PALETTE))]
        handles.append(Line2D([], [], color="black", marker="|", linestyle="", markersize=9, markeredgewidth=2))
        columns = 5 if max(map(len, names)) < 12 else 2  # long names side by side would leave the figure
        _legend(figure, handles, [*names, "majority"], loc="outside lower center", ncols=min(columns, len(names) + 1))
        return figure


def _accuracy_bars(axes: Axes, places: np.ndarray, table: pd.DataFrame, height: float, colour: str) -> None:
    spread = np.abs(table[["low", "high"]].to_numpy().T - table["accuracy"].to_numpy())
    style = {"ecolor": MUTED, "elinewidth": 1, "capsize": 1.5}
    axes.barh(places, table["accuracy"], height=height * 0.92, color=colour, xerr=spread, error_kw=style)
    half = height * 0.46
    axes.vlines(table["majority"], places - half, places + half, color="black", linewidth=2)


def prefix_mosaic(
    codes: Int[np.ndarray, "items depth"],
    images: Sequence[Image.Image | None] | Callable[[int], Image.Image | None],
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
    image_of = images if callable(images) else images.__getitem__
    with figure_style():
        figure, panels = plt.subplots(
            len(rows),
            columns + 1,
            figsize=(1.45 + 0.92 * columns, (1.0 if titles is None else 1.18) * len(rows) + 0.35),
            squeeze=False,
            width_ratios=[1.35, *[1] * columns],
        )
        for axes_row, members in zip(panels, rows):
            label = "".join(token(level, int(code)) for level, code in enumerate(codes[members[0], :depth]))
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


def _cycle(values: Sequence[str]) -> Iterable[str]:
    while True:
        yield from values


def _plain(texts: Iterable[Text]) -> None:
    """Switch mathtext off: names may be untrusted."""
    for text in texts:
        text.set_parse_math(False)


def _legend(parent: Figure | Axes, handles: Sequence[Line2D], names: Sequence[str], **options: Any) -> None:
    # Matplotlib leaves out names that start with an underscore; a zero-width space keeps them.
    legend = parent.legend(
        list(handles), [f"\u200b{name}" if name.startswith("_") else name for name in names], **options
    )
    _plain(legend.get_texts())
