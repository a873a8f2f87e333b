"""A grid of parameters: one run a point, equal stages shared between them, one table and one figure at the end."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from trialign.knobs import Notebook, check_value, literal, resolve
from trialign.plots.style import PALETTE, figure_style
from trialign.report import flatten
from trialign.runs import RunError, Runner, record_run
from trialign.workspace import Workspace

Point = dict[str, Any]


def parse_grid(notebooks: Sequence[Notebook], knobs: Mapping[str, str]) -> dict[str, list[Any]]:
    """Read the values of each swept parameter.

    Parameters
    ----------
    notebooks
        As from `trialign.knobs.find_notebooks`.
    knobs
        Parameter to text: a list of values, ``"[0, 1, 2]"``, or a single value, which is the same in all points.
        For a parameter that is itself a list, a list of lists is a list of values.

    Raises
    ------
    ValueError
        If a parameter is unknown or a value is not of its default's type.

    Examples
    --------
    >>> notebook = Notebook(Path("04_sids.ipynb"), {"codebook_sizes": [256], "seed": 0})
    >>> parse_grid([notebook], {"codebook_sizes": "[[16], [32]]", "seed": "3"})
    {'codebook_sizes': [[16], [32]], 'seed': [3]}
    """
    defaults = {name: value for notebook in reversed(notebooks) for name, value in notebook.defaults.items()}
    resolve(notebooks, dict.fromkeys(knobs.keys() - defaults.keys(), ""))  # names unknown parameters
    grid = {}
    for name, text in knobs.items():
        default = defaults[name]
        try:
            value = literal(text)
        except ValueError:
            value = text  # a string without quotes is one value
        is_values = isinstance(value, list) and (
            not isinstance(default, list | tuple) or all(isinstance(entry, list) for entry in value)
        )
        values = value if is_values else [text if isinstance(default, str) else value]
        if not values:
            raise ValueError(f"{name} = {text!r} has no value to run")
        grid[name] = [check_value(name, entry, default) for entry in values]
    return grid


def grid_points(grid: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Return every combination of the values, the last parameter changing fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def point_name(point: Point) -> str:
    """Return the name of a point's folder: its values, readable, with a short hash that keeps names apart."""
    words = [f"{name}={re.sub(r'[^A-Za-z0-9.]+', '-', str(value)).strip('-')[:32]}" for name, value in point.items()]
    return f"{'_'.join(words)}_{hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:6]}"


def run_sweep(
    name: str,
    notebooks: Sequence[Notebook],
    grid: Mapping[str, Sequence[Any]],
    root: Path,
    console: Console,
    profile: str | None = None,
    dataset: str | None = None,
    kernel: str | None = None,
    threads: int | None = None,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Run every point of a grid into ``root/name/<point>/``; points that are done already are only read.

    Returns
    -------
    table : DataFrame
        One row a point: its parameters, then every metric of every stage (``<stage>.<metric>``) and the seconds.
    failures : dict
        Name of a point to the message of its failure; the other points are run all the same.
    """
    points = grid_points(grid)
    workspaces = [Workspace(f"{name}/{point_name(point)}", root) for point in points]
    failures: dict[str, str] = {}
    for number, (point, workspace) in enumerate(zip(points, workspaces, strict=True), start=1):
        console.print(f"point {number} of {len(points)}: {_label(point)}", style="bold", markup=False, highlight=False)
        knobs = {key: value if isinstance(value, str) else repr(value) for key, value in point.items()}
        parameters = resolve(notebooks, knobs, profile, dataset)
        record_run(workspace, profile, dataset, knobs)
        runner = Runner(
            workspace, notebooks, parameters, console, kernel=kernel, share_with=workspaces, threads=threads
        )
        try:
            runner.run()
        except RunError as error:
            failures[workspace.name] = str(error)
            console.print(str(error), style="red", markup=False, highlight=False)
    return collect(points, workspaces), failures


def collect(points: Sequence[Point], workspaces: Sequence[Workspace]) -> pd.DataFrame:
    """Return one row a point: its parameters, the metrics of its complete stages, their seconds together."""
    rows = []
    for point, workspace in zip(points, workspaces, strict=True):
        manifests = [workspace.manifest(stage) for stage in workspace.stages()]
        row = {key: value if isinstance(value, int | float | str) else str(value) for key, value in point.items()}
        for manifest in manifests:
            row |= {f"{manifest['stage']}.{key}": value for key, value in flatten(manifest["metrics"]).items()}
        rows.append({**row, "seconds": sum(manifest["seconds"] for manifest in manifests)})
    return pd.DataFrame(rows)


def find_metric(table: pd.DataFrame, parameters: Sequence[str], metric: str | None) -> str:
    """Return the column of a metric given by its full name or by its end, such as ``ndcg@10``.

    Parameters
    ----------
    table
        As from `collect`.
    parameters
        The swept parameters, which are columns but no metrics.
    metric
        The name; None takes the first metric of the last stage that has one.

    Raises
    ------
    ValueError
        If the name fits none or several; the message lists them.
    """
    numeric = [
        column
        for column in table.select_dtypes("number").columns
        if column not in parameters and column != "seconds" and table[column].notna().any()
    ]
    if metric is None:
        last = max((column.split(".")[0] for column in numeric), default="")
        fitting = [column for column in numeric if column.split(".")[0] == last][:1]
    else:
        fitting = [column for column in numeric if column == metric or column.endswith(f".{metric}")]
    if len(fitting) != 1:
        kind = "more than one metric ends in" if fitting else "no metric is named"
        raise ValueError(f"{kind} {metric!r}; there are {', '.join(fitting or numeric) or 'none'}")
    return fitting[0]


def draw_sweep(table: pd.DataFrame, parameters: Sequence[str], metric: str) -> Figure:
    """Draw a metric against the parameters that change: the first on the axis, the others as colours.

    ``seed`` is a repetition: its points stand above each other, and the line goes through their mean.
    """
    changing = [name for name in parameters if name != "seed" and len(table[name].unique()) > 1]
    axis = changing[0] if changing else next(iter(parameters))
    others = [name for name in changing if name != axis]
    labels = table[others].astype(str).agg(lambda row: ", ".join(f"{n} = {row[n]}" for n in others), axis=1)
    places = {value: place for place, value in enumerate(table[axis].unique())}
    with figure_style():
        figure = Figure(figsize=(max(5.0, 1.3 * len(places) + 3), 3.8), layout="constrained")
        axes = figure.subplots()
        for number, (label, group) in enumerate(table.groupby(labels, sort=False) if others else [("", table)]):
            colour = PALETTE[number % len(PALETTE)]
            axes.scatter(group[axis].map(places), group[metric], color=colour, s=28, alpha=0.7, zorder=3)
            mean = group.groupby(group[axis].map(places))[metric].mean()
            axes.plot(mean.index, mean, color=colour, label=str(label))
        axes.set_xticks(list(places.values()), [str(value) for value in places], parse_math=False)
        axes.tick_params(axis="x", labelrotation=30 if max(len(str(value)) for value in places) > 14 else 0)
        axes.set_xlabel(axis)
        axes.set_ylabel(metric)
        axes.margins(x=0.12, y=0.15)
        if others:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def save_sweep(folder: Path, table: pd.DataFrame, figure: Figure) -> list[Path]:
    """Write ``sweep.parquet``, ``sweep.csv``, ``sweep.md`` and ``sweep.png`` into the sweep's folder."""
    paths = [folder / f"sweep.{kind}" for kind in ("parquet", "csv", "md", "png")]
    table.to_parquet(paths[0])
    table.to_csv(paths[1], index=False)
    paths[2].write_text(markdown(table), "utf-8")
    figure.savefig(paths[3], dpi=150)
    return paths


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, numbers with four significant digits."""
    cells = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    lines = [list(map(_cell, table.columns)), ["---"] * table.shape[1], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _label(point: Point) -> str:
    return ", ".join(f"{name} = {value}" for name, value in point.items())
