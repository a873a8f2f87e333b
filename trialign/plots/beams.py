"""Figures of recommendations: what was recommended, how good it is, and where the search lost the true next item.

The picture of one search is in `trialign.plots.beam_tree`.
"""

import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, ScalarFormatter

from trialign.plots.beam_tree import beam_tree, percent
from trialign.plots.style import MUTED, PALETTE, figure_style, level_names, shorten, show_image

if TYPE_CHECKING:
    from trialign.catalogue import Catalogue

__all__ = [
    "beam_tree",
    "lost_by_level",
    "mass_and_entropy",
    "metric_intervals",
    "ranks_when_lost",
    "recommendation_strip",
]

#: Images in a row of the strip.
_IN_A_ROW = 10


def recommendation_strip(
    catalogue: "Catalogue",
    history: Int[np.ndarray, " history"],
    ranked: Int[np.ndarray, " k"],
    target: int | None = None,
    log_probabilities: Float[np.ndarray, " k"] | None = None,
) -> Figure:
    """Draw a user's last items above the items recommended, the hit framed.

    Parameters
    ----------
    catalogue
        For images and titles.
    history
        Item rows, oldest first; the last ten are shown.
    ranked
        Recommended item rows, best first; the first ten are shown, -1 left out.
    target
        Item row that the user really chose next. It is shown at the end of the history's row and gets a green
        frame, there and among the recommended.
    log_probabilities
        Natural logarithm of the probability of each recommended item, written under its rank.
    """
    history = np.asarray(history)[-_IN_A_ROW:]
    ranked = np.asarray(ranked)[:_IN_A_ROW]
    columns = _IN_A_ROW + 1
    with figure_style():
        figure = plt.figure(figsize=(1.32 * columns, 4.6))
        above, below = figure.subfigures(2, 1, height_ratios=(1, 1.08))
        for part, heading in (
            (above, "History, oldest first" if len(history) else "History: empty"),
            (below, "Recommended"),
        ):
            part.suptitle(heading, x=0.005, ha="left", fontsize=11, fontweight="bold")
        seen, given = above.subplots(1, columns), below.subplots(1, columns)
        for axes in (*seen, *given):
            axes.set_axis_off()
        for axes, row in zip(seen, history):
            show_image(axes, catalogue.open_image(int(row)), _wrapped(catalogue.titles[row]))
        for rank, (axes, row) in enumerate(zip(given, ranked)):
            if row < 0:
                continue
            probability = "" if log_probabilities is None else f"  ({percent(float(np.exp(log_probabilities[rank])))})"
            heading = f"{rank + 1}.{probability}\n{_wrapped(catalogue.titles[row])}"
            show_image(axes, catalogue.open_image(int(row)), heading)
            if row == target:
                _frame(axes)
        if target is not None:
            show_image(seen[-1], catalogue.open_image(target), _wrapped(catalogue.titles[target]))
            _frame(seen[-1])
            # Outside the layout, or this label would move the images.
            seen[-1].text(
                0.5, -0.07, "true next item", transform=seen[-1].transAxes, ha="center", va="top", fontsize=9,
                fontweight="bold", color=PALETTE[2], in_layout=False,
            )  # fmt: skip
        return figure


def metric_intervals(summary: pd.DataFrame, level: float = 0.95) -> Figure:
    """Draw each method's mean and interval, one panel a metric.

    Parameters
    ----------
    summary
        method, metric, mean, low, high: from `trialign.evaluate.summarize`.
    level
        Confidence level of the intervals, for the caption.
    """
    metrics = list(dict.fromkeys(summary["metric"]))
    methods = list(dict.fromkeys(summary["method"]))
    with figure_style():
        height = 1.5 + 0.42 * len(methods)
        figure, panels = plt.subplots(
            1, len(metrics), figsize=(2.0 + 2.5 * len(metrics), height), sharey=True, squeeze=False
        )
        for axes, metric in zip(panels[0], metrics):
            table = summary[summary["metric"] == metric].set_index("method").reindex(methods)
            for y, (_, row) in enumerate(table.iterrows()):
                colour = PALETTE[y % len(PALETTE)]
                errors = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
                axes.errorbar(row["mean"], y, xerr=errors, fmt="o", color=colour, capsize=4, linewidth=2, markersize=7)
                axes.annotate(
                    f"{row['mean']:.4f}", (row["mean"], y), (0, 8), textcoords="offset points", ha="center", fontsize=8
                )
            axes.set_title(_metric_name(metric))
            axes.set_xlim(left=0)
            axes.margins(x=0.1)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.grid(axis="y", visible=False)
        panels[0, 0].set_yticks(range(len(methods)), methods)
        panels[0, 0].set_ylim(len(methods) - 0.5, -0.7)
        figure.supxlabel(f"mean over users, {level:.0%} bootstrap interval", fontsize=9, color=MUTED)
        return figure


def lost_by_level(fates: pd.DataFrame, levels: int | None = None) -> Figure:
    """Draw at which level the search lost the true next items, and how many stayed in the beam to the end.

    Parameters
    ----------
    fates
        status, level, rank: from `trialign.decode.fates`.
    levels
        Number of levels, the largest in the table if None.
    """
    levels = int(fates["level"].max()) if levels is None else levels
    pruned = fates[fates["status"] == "pruned"]
    counts = [int((pruned["level"] == level).sum()) for level in range(1, levels + 1)]
    names = [f"pruned at\n{name}" for name in level_names(levels)]
    colours = [PALETTE[3]] * levels
    if (masked := int((fates["status"] == "masked").sum())) > 0:
        names, counts, colours = [*names, "masked"], [*counts, masked], [*colours, MUTED]
    names.append("in the\nfinal beam")
    counts.append(int((fates["status"] == "found").sum()))
    colours.append(PALETTE[2])
    shares = np.array(counts) / max(len(fates), 1)
    with figure_style():
        figure, axes = plt.subplots(figsize=(1.6 + 1.15 * len(names), 3.4))
        bars = axes.bar(names, shares, color=colours, width=0.65)
        axes.bar_label(bars, [f"{share:.0%}\n({count})" for share, count in zip(shares, counts)], fontsize=9, padding=2)
        axes.set(title=f"Where {len(fates)} true next items went", ylabel="share of users")
        axes.set_ylim(0, max(1e-6, float(shares.max(initial=0))) * 1.25)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="x", visible=False)
        return figure


def mass_and_entropy(mass: pd.DataFrame) -> Figure:
    """Draw how much probability the beam holds at each level, and how it is spread over the prefixes alive.

    Parameters
    ----------
    mass
        user, level, alive, mass, entropy (nats): from `trialign.decode.mass_by_level`.
    """
    levels = np.arange(1, int(mass["level"].max()) + 1)
    panels = {"mass": "Probability in the beam", "entropy": "Entropy of the beam (nats)"}
    with figure_style():
        figure, both = plt.subplots(1, 2, figsize=(4.6 + 1.1 * len(levels), 3.2))
        for axes, (column, label), colour in zip(both, panels.items(), PALETTE, strict=False):
            low, middle, high = (mass.groupby("level")[column].quantile(share) for share in (0.25, 0.5, 0.75))
            axes.fill_between(levels, low, high, color=colour, alpha=0.25, linewidth=0)
            axes.plot(levels, middle, color=colour, marker="o", linewidth=2)
            axes.set(title=label, xticks=levels, xticklabels=level_names(len(levels)))
            axes.set_xlim(0.8, len(levels) + 0.2)
            axes.set_ylim(bottom=0)
        both[0].set_ylim(0, 1)
        both[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        most = np.log(mass.groupby("level")["alive"].max().reindex(levels))
        both[1].plot(levels, most, color=MUTED, linestyle=":", label="all prefixes alike")
        both[1].legend(loc="best", fontsize=8)
        both[1].set_ylim(0, 1.15 * float(most.max()) + 0.05)
        users = mass["user"].nunique()
        figure.supxlabel(f"median and quartiles over {users} users", fontsize=9, color=MUTED)
        return figure


def ranks_when_lost(fates: pd.DataFrame, beams: int, levels: int | None = None) -> Figure:
    """Draw at what rank the true next items were pruned: just outside the beam, or far behind?

    Parameters
    ----------
    fates
        status, level, rank: from `trialign.decode.fates`.
    beams
        Beam width, drawn as a line; prefixes of this rank or smaller stay alive.
    levels
        Number of levels, the largest in the table if None.
    """
    levels = int(fates["level"].max()) if levels is None else levels
    pruned = fates[fates["status"] == "pruned"]
    with figure_style():
        figure, axes = plt.subplots(figsize=(6.4, 3.4))
        for level, name, colour in zip(range(1, levels + 1), level_names(levels), cycle(PALETTE)):
            ranks = np.sort(pruned.loc[pruned["level"] == level, "rank"])
            if not len(ranks):
                continue
            label = f"pruned at {name}: {len(ranks)} users, median rank {np.median(ranks):.0f}"
            axes.step(ranks, np.arange(1, len(ranks) + 1) / len(ranks), where="post", color=colour, label=label)
        axes.axvline(beams, color=MUTED, linestyle=":")
        axes.annotate(
            f"{beams} beams", (beams, 1.0), (4, 3), textcoords="offset points", fontsize=8, color=MUTED, ha="left"
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 1.08)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(
            title="Rank of the true prefix where it was pruned",
            xlabel="rank among the candidates of the level",
            ylabel="share of those pruned",
        )
        if len(pruned):
            axes.legend(loc="lower right", fontsize=8)
        return figure


def _frame(axes: Axes) -> None:
    """Draw the frame of a hit around an image."""
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=PALETTE[2], linewidth=4, clip_on=False)
    )


def _wrapped(title: str, width: int = 17, lines: int = 2) -> str:
    """Return a title of exactly so many lines, so that the images of a row stand at one height."""
    wrapped: Sequence[str] = textwrap.wrap(title, width) or [""]
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], shorten(" ".join(wrapped[lines - 1 :]), width)]
    return "\n".join([*wrapped, *[" "] * (lines - len(wrapped))])


def _metric_name(metric: str) -> str:
    name, at, k = metric.partition("@")
    return ("NDCG" if name == "ndcg" else name.capitalize()) + at + k
