"""Parallel coordinates: each run a line through its parameters, coloured by its metric."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from trialign.plots.labels import plain_text
from trialign.plots.style import MUTED, figure_style, shorten


def parallel_coordinates(table: pd.DataFrame, parameters: Sequence[str], metric: str) -> Figure:
    """Draw every run as a line from parameter to parameter to the metric; lighter is better.

    Numbers are placed by size, other values in the order in which they appear. A run without the metric is dashed grey
    and ends at the last parameter.

    Parameters
    ----------
    table
        One row a run.
    parameters
        Columns drawn, from left to right; those with a single value are left out.
    metric
        The column of the last axis and of the colours.

    Raises
    ------
    ValueError
        If no parameter changes.
    """
    changing = [name for name in parameters if len(set(table[name].astype(str))) > 1]
    if not changing:
        raise ValueError("no parameter differs between these runs; fix: compare runs made with different knobs")
    axes_names = [*changing, metric]
    places = np.stack([_places(table[name]) for name in axes_names], axis=1)
    values = table[metric].to_numpy(dtype=np.float64)
    known = values[np.isfinite(values)]
    shade = Normalize(*((known.min(), known.max()) if len(known) else (0, 1)))
    colours = mpl.colormaps["cividis"]
    with figure_style():
        figure = Figure(figsize=(2.1 * len(axes_names) + 1.5, 3.6), layout="constrained")
        axes = figure.subplots()
        for run, value in zip(places, values):
            if np.isfinite(value):
                axes.plot(run, color=colours(shade(value)), linewidth=2, alpha=0.85)
            else:
                axes.plot(run[:-1], color=MUTED, linewidth=1, linestyle="--")
        for number, name in enumerate(axes_names):
            axes.axvline(number, color=MUTED, linewidth=0.8)
            _write_values(axes, number, table[name], places[:, number])
        axes.set_xticks(range(len(axes_names)), [shorten(name, 24) for name in axes_names])
        axes.set(yticks=[], xlim=(-0.3, len(axes_names) - 0.4), ylim=(-0.08, 1.08))
        axes.grid(False)
        axes.spines[["left", "bottom"]].set_visible(False)
        plain_text(axes.get_xticklabels())
    return figure


def _places(column: pd.Series) -> Float[np.ndarray, " runs"]:
    """Return where a column's values lie between 0 and 1; NaN stays."""
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(dtype=np.float64)
    else:
        texts = column.astype(str)
        numbers = texts.map({value: place for place, value in enumerate(texts.unique())}).to_numpy(dtype=np.float64)
    low, high = np.nanmin(numbers, initial=np.inf), np.nanmax(numbers, initial=-np.inf)
    return np.full(len(numbers), 0.5) if not high > low else (numbers - low) / (high - low)


def _write_values(axes: Axes, number: int, column: pd.Series, places: Float[np.ndarray, " runs"]) -> None:
    """Write a column's values at its axis: all of a few, else the ends."""
    numeric = pd.api.types.is_numeric_dtype(column)
    shown = pd.Series(places, index=column).dropna()
    shown = shown[~shown.index.duplicated()].sort_values()
    if len(shown) > 6:
        shown = shown.iloc[[0, -1]]
    for value, place in shown.items():
        text = f"{value:.4g}" if numeric else shorten(str(value), 16)
        axes.annotate(text, (number, place), xytext=(4, 2), textcoords="offset points", fontsize=8, parse_math=False)
