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

#: One kind of line for each task of a group.
_LINES = ("-", "--", ":", "-.")


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


def training_so_far(losses: pd.DataFrame, validation: pd.DataFrame, metric: str = "ndcg@10") -> Figure:
    """Draw a training that goes on: the losses of all tasks in one axes, a validation metric in another.

    The figure belongs to no pyplot state, so nothing shows it by itself and nothing needs to close it.

    Parameters
    ----------
    losses
        `Trainer.losses_` so far: step, task, loss; may be empty.
    validation
        `Trainer.validation_` so far; may be empty.
    metric
        Column of `validation` to draw.
    """
    with figure_style():
        figure = Figure(figsize=(9.6, 3.2))
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for name in [name for name in TASKS if (losses["task"] == name).any()]:
            part = losses[losses["task"] == name]
            where, smoothed = smooth(part["step"], part["loss"])
            group = [task for task in TASKS.values() if task.group == TASKS[name].group]
            left.plot(
                where, smoothed, color=GROUP_COLOURS[TASKS[name].group], linewidth=1.6,
                linestyle=_LINES[group.index(TASKS[name])], label=f"{smoothed[-1]:.2f}  {name}",
            )  # fmt: skip
        left.set(xlabel="optimizer step", ylabel="nats per answer token", title="Training loss")
        left.set_ylim(bottom=0)
        if left.lines:
            left.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
        if metric in validation:
            right.plot(validation["step"], validation[metric], marker="o", markersize=4)
        right.set(xlabel="optimizer step", ylabel=_metric_label(metric), title="Validation")
        right.set_xlim(left.get_xlim())
        right.set_ylim(bottom=0)
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
