"""Figures of a training: the loss of every task, and the validation metrics."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trialign.plots.style import MUTED, PALETTE, figure_style
from trialign.tasks import TASKS

#: One colour for each group of tasks.
GROUP_COLOURS = {"recommendation": PALETTE[0], "text alignment": PALETTE[2], "visual": PALETTE[3]}


def smooth(steps: Sequence[int], values: Sequence[float], points: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return the curve as means over equal stretches of steps: each point is a plain mean, none lags behind.

    Parameters
    ----------
    steps, values
        The curve, steps ascending.
    points
        Most points of the result.
    """
    stretches = np.array_split(np.arange(len(steps)), min(points, len(steps)))
    columns = (np.asarray(steps, dtype=float), np.asarray(values, dtype=float))
    where, smoothed = (np.asarray([column[s].mean() for s in stretches]) for column in columns)
    return where, smoothed


def task_losses(losses: pd.DataFrame) -> Figure:
    """Draw the loss of each trained task, one small axes a task, coloured by group.

    Tasks that answer with a SID share one scale and tasks that answer with a title another, since a token of text
    and a SID token are not equally hard.

    Parameters
    ----------
    losses
        `Trainer.losses_`: step, task, loss (nats per answer token).

    Raises
    ------
    ValueError
        If the table holds no losses.
    """
    names = [name for name in TASKS if (losses["task"] == name).any()]
    if not names:
        raise ValueError("the table of losses is empty: train first")
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    curves = {name: smooth(part["step"], part["loss"]) for name, part in losses.groupby("task", observed=True)}
    tops = {
        answer: max(curves[name][1].max() for name in names if TASKS[name].answers == answer)
        for answer in {TASKS[name].answers for name in names}
    }
    with figure_style():
        figure, grid = plt.subplots(
            rows, columns, figsize=(2.7 * columns, 2.15 * rows + 0.4), sharex=True, squeeze=False
        )
        for axes, name in zip(grid.flat, names):
            part = losses[losses["task"] == name]
            _task_curve(axes, name, part, curves[name], top=1.08 * tops[TASKS[name].answers])
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        figure.supxlabel("optimizer step", fontsize=10)
        figure.supylabel("cross-entropy (nats per answer token)", fontsize=10)
        _group_legend(figure, names)
    return figure


def validation_curve(validation: pd.DataFrame, metrics: Sequence[str] = ("ndcg@10", "recall@10")) -> Figure:
    """Draw validation metrics against the step, and mark the step whose weights are kept (by the first metric).

    Parameters
    ----------
    validation
        `Trainer.validation_`: step and metrics.
    metrics
        Columns to draw; those that the table lacks are left out, except the first.

    Raises
    ------
    ValueError
        If the table is empty or lacks the first metric.
    """
    if validation.empty or metrics[0] not in validation:
        raise ValueError(f"the validation table has no {metrics[0]!r}: give the trainer a validate function")
    with figure_style():
        figure, axes = plt.subplots(figsize=(6.2, 3.4))
        for colour, metric in zip(PALETTE, [metric for metric in metrics if metric in validation]):
            axes.plot(validation["step"], validation[metric], marker="o", markersize=4, color=colour)
            last = validation.iloc[-1]
            axes.annotate(
                _metric_label(metric), (last["step"], last[metric]), xytext=(7, 0), textcoords="offset points",
                color=colour, va="center", fontweight="bold", annotation_clip=False,
            )  # fmt: skip
        best = validation.loc[validation[metrics[0]].idxmax()]
        axes.axvline(best["step"], color=MUTED, linestyle=":", linewidth=1.2)
        axes.annotate(
            f"kept: step {int(best['step'])}", (best["step"], 0), xytext=(-4, 4), textcoords="offset points",
            color=MUTED, fontsize=8.5, ha="right", rotation=90, va="bottom",
        )  # fmt: skip
        axes.set(xlabel="optimizer step", ylabel="validation", title="Next item of the validation users")
        axes.set_ylim(bottom=0)
    return figure


def _task_curve(axes: Axes, name: str, part: pd.DataFrame, curve: tuple[np.ndarray, np.ndarray], top: float) -> None:
    colour = GROUP_COLOURS[TASKS[name].group]
    axes.plot(part["step"], part["loss"], color=colour, alpha=0.18, linewidth=0.7)
    axes.plot(*curve, color=colour, linewidth=1.8)
    axes.annotate(
        f"{curve[1][-1]:.2f}", (curve[0][-1], curve[1][-1]), xytext=(0, 7), textcoords="offset points",
        color=colour, fontsize=9, fontweight="bold", ha="right",
    )  # fmt: skip
    axes.set_title(f"{list(TASKS).index(name) + 1}  {name}", fontsize=10)
    axes.set_ylim(0, top)


def _group_legend(figure: Figure, names: Sequence[str]) -> None:
    groups = list(dict.fromkeys(TASKS[name].group for name in names))
    handles = [plt.Line2D([], [], color=GROUP_COLOURS[group], linewidth=3, label=group) for group in groups]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), fontsize=10)


def _metric_label(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{'NDCG' if name == 'ndcg' else name.capitalize()}@{k}" if k else name
