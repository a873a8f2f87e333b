"""Figures of `trialign.ablations`: scores of variants with intervals over seeds, and differences from a baseline."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from trialign.plots.labels import MARKERS, draw_legend, plain_text
from trialign.plots.style import MUTED, PALETTE, figure_style

#: Colour and name of each outcome of `trialign.ablations.Results.difference`.
OUTCOMES = {"worse": PALETTE[3], "not clear": MUTED, "better": PALETTE[2]}

_SHIFT = 0.08


def score_lines(
    scores: Mapping[str, pd.DataFrame],
    xlabel: str,
    ylabel: str = "NDCG@10, test items",
    popularity: float | None = None,
) -> Figure:
    """Draw scores along variants that have an order, one line a series.

    A marker is the mean over seeds, small dots are the single seeds, a bar is the 95 % interval by Student's t; bars
    of the first series are drawn a little to the left of those of the second.

    Parameters
    ----------
    scores
        Name of a series to its `trialign.ablations.Results.scores`; all have variants of one order.
    xlabel, ylabel
        What the axes show.
    popularity
        Score of recommending what is popular, a dashed line; None draws none.
    """
    names = list(dict.fromkeys(name for table in scores.values() for name in table["variant"]))
    with figure_style():
        figure, axes = plt.subplots(figsize=(max(6.4, 0.8 * len(names) + 2.2), 4.0))
        handles = {}
        for number, (name, table) in enumerate(scores.items()):
            places = table["variant"].map(names.index).to_numpy(dtype=float)
            places = places + _SHIFT * (2 * number - len(scores) + 1)
            handles[name] = _line(axes, table, places, PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)])
        if popularity is not None:
            handles["popularity"] = axes.axhline(popularity, color=MUTED, linestyle="--", linewidth=1)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(axis="x", visible=False)
        plain_text(axes.get_xticklabels())
        draw_legend(figure, list(handles.values()), list(handles), loc="outside upper center", ncols=len(handles))
        return figure


def score_dots(scores: pd.DataFrame, xlabel: str = "NDCG@10, test items", popularity: float | None = None) -> Figure:
    """Draw scores of variants without an order, one row a variant; marks as in `score_lines`.

    Parameters
    ----------
    scores
        From `trialign.ablations.Results.scores`.
    xlabel
        What the axis shows.
    popularity
        As for `score_lines`.
    """
    with figure_style():
        figure, axes = plt.subplots(figsize=(7.4, 1.3 + 0.5 * len(scores)))
        for row, entry in enumerate(scores.itertuples()):
            axes.plot([entry.low, entry.high], [row, row], color=PALETTE[0], linewidth=2)
            axes.scatter(entry.values, [row] * len(entry.values), s=12, color=PALETTE[5], zorder=3)
            axes.scatter(entry.mean, row, s=42, color=PALETTE[0], zorder=4)
            axes.annotate(
                f"{entry.mean:.4f}", (entry.mean, row), (0, 8), textcoords="offset points", ha="center", size=8
            )
        if popularity is not None:
            axes.axvline(popularity, color=MUTED, linestyle="--", linewidth=1)
            axes.annotate("popularity", (popularity, -0.62), (4, 0), textcoords="offset points", size=8, color=MUTED)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{xlabel}: mean over seeds and its 95 % interval")
        _rows(axes, list(scores["variant"]))
        return figure


def difference_dots(differences: pd.DataFrame, xlabel: str = "NDCG@10 of the variant minus the baseline") -> Figure:
    """Draw how far each variant is from its baseline, with both intervals, one row a variant.

    The thick bar is the paired bootstrap interval over users, the thin one Student's t over seeds. Colours say the
    outcome: a difference is clear only where both leave out 0.

    Parameters
    ----------
    differences
        From `trialign.ablations.Results.differences` or `claims`: the first column names the rows.
    xlabel
        What the axis shows.
    """
    with figure_style():
        figure, axes = plt.subplots(figsize=(8.2, 1.6 + 0.5 * len(differences)))
        axes.axvline(0, color="black", linewidth=1)
        for row, entry in enumerate(differences.to_dict("records")):
            colour = OUTCOMES[entry["outcome"]]
            axes.plot([entry["users low"], entry["users high"]], [row, row], color=colour, linewidth=5, alpha=0.45)
            axes.plot([entry["seeds low"], entry["seeds high"]], [row, row], color=colour, linewidth=1.4)
            axes.scatter(entry["difference"], row, s=42, color=colour, zorder=4)
            text = f"{entry['difference']:+.4f} ({entry['relative']:+.0%})"
            place, box = (entry["difference"], row), {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            axes.annotate(text, place, (0, 9), textcoords="offset points", ha="center", size=8, bbox=box)
        axes.set_xlabel(xlabel)
        axes.margins(x=0.08)
        _rows(axes, list(differences.iloc[:, 0]))
        handles = {
            "over users (bootstrap)": Line2D([], [], color="black", linewidth=5, alpha=0.45),
            "over seeds (Student's t)": Line2D([], [], color="black", linewidth=1.4),
            **{name: Line2D([], [], color=colour, linestyle="", marker="o") for name, colour in OUTCOMES.items()},
        }
        draw_legend(figure, list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))
        return figure


def _line(axes: Axes, table: pd.DataFrame, places: np.ndarray, colour: str, marker: str) -> Line2D:
    for place, values in zip(places, table["values"]):
        axes.scatter([place] * len(values), values, s=10, color=colour, alpha=0.45, linewidths=0, zorder=2)
    axes.vlines(places, table["low"], table["high"], color=colour, linewidth=1.4, alpha=0.7)
    return axes.plot(places, table["mean"], color=colour, marker=marker, linewidth=1.6, zorder=3)[0]


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.75)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    plain_text(axes.get_yticklabels())
