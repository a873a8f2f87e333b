"""Figure of `trialign.sids.degradation.Degradation`: what is left of each representation, with intervals over seeds."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from trialign.plots.labels import draw_legend, plain_text
from trialign.plots.style import MUTED, PALETTE, figure_style, shorten
from trialign.sids.degradation import MEASURES, Degradation

_TITLES = {
    "cosine": "Cosine to its own embedding",
    "items_colliding": "Items that share their codes",
    "neighbours": "Own neighbours, first code",
    "purity": "Category purity, first code",
    "recovered_image": "Image-only attributes read",
    "recovered_text": "Text-only attributes read",
    "recovered_both": "Attributes in both read",
    "recovered_category": "Category read",
}
_SHARES = ("items_colliding", "neighbours", "purity")
_COLUMNS = 4


def degradation_panels(degradation: Degradation) -> Figure:
    """Draw each measure in a panel of its own, one row a representation.

    A dot is the mean over seeds, a line its 95 % interval by Student's t, small dots the single seeds; an open diamond
    is the same measure of the embedding itself, a dashed tick what chance would give. No measure can be above 1 and no
    share below 0: an interval ends there.

    Parameters
    ----------
    degradation
        From `trialign.sids.degradation.content_degradation`.
    """
    table = degradation.table
    measures = [measure for measure in MEASURES if measure in set(table["measure"])]
    names = list(dict.fromkeys(table["representation"]))
    columns = min(_COLUMNS, len(measures))
    lines = -(-len(measures) // columns)
    with figure_style():
        figure, panels = plt.subplots(
            lines, columns, figsize=(11.6, lines * (0.95 + 0.27 * len(names)) + 0.5), sharey=True, squeeze=False
        )
        for axes in panels.flat[len(measures) :]:
            axes.set_visible(False)
        for axes, measure in zip(panels.flat, measures):
            seeds = degradation.by_seed[degradation.by_seed["measure"] == measure]
            rows = table[table["measure"] == measure]
            possible = rows[["low", "high"]].clip(lower=0 if measure in _SHARES else None, upper=1)
            _draw(axes, rows.assign(low=possible["low"], high=possible["high"]), seeds, names)
            axes.set_title(_TITLES[measure], fontsize=10)
        for axes in panels[:, 0]:
            axes.set_yticks(range(len(names)), [textwrap.fill(shorten(name, 50), 24) for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            plain_text(axes.get_yticklabels())
        _legend(figure, table)
        return figure


def _draw(axes: Axes, table: pd.DataFrame, seeds: pd.DataFrame, names: list[str]) -> None:
    heights = table["representation"].map(names.index).to_numpy(dtype=float)
    axes.scatter(seeds["value"], seeds["representation"].map(names.index), s=9, color=PALETTE[5], zorder=2)
    axes.hlines(heights, table["low"], table["high"], color=PALETTE[0], linewidth=1.6, zorder=3)
    axes.scatter(table["mean"], heights, s=30, color=PALETTE[0], zorder=4)
    axes.scatter(
        table["embedding"],
        heights,
        s=34,
        marker="D",
        facecolors="none",
        edgecolors=PALETTE[3],
        linewidths=1.3,
        zorder=4,
    )
    chance = table["chance"].to_numpy()
    axes.vlines(chance, heights - 0.36, heights + 0.36, color=MUTED, linestyle="--", linewidth=1)
    for height, mean in zip(heights, table["mean"]):
        axes.annotate(
            f"{mean:.2f}", (mean, height), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7.5
        )
    columns = ["mean", "low", "high", "embedding", "chance"]
    drawn = pd.concat([seeds["value"], *(table[column] for column in columns)]).dropna()
    margin = max(0.12 * float(drawn.max() - drawn.min()), 0.01)
    axes.set_xlim(float(drawn.min()) - margin, float(drawn.max()) + margin)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)


def _legend(figure: Figure, table: pd.DataFrame) -> None:
    label = f"mean of {int(table['seeds'].iloc[0])} seeds, 95 % interval (Student's t)"
    handles = {
        label: Line2D([], [], color=PALETTE[0], marker="o"),
        "one seed": Line2D([], [], color=PALETTE[5], linestyle="", marker="o", markersize=3.5),
        "chance": Line2D([], [], color=MUTED, linestyle="--"),
    }
    if np.isfinite(table["embedding"]).any():
        handles["before quantization"] = Line2D(
            [], [], color=PALETTE[3], linestyle="", marker="D", markerfacecolor="none", markersize=6
        )
    draw_legend(figure, list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))
