"""Compare runs: a table, a metric against a parameter, and parallel coordinates."""

import html
import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from itables.widget import ITable
from matplotlib.figure import Figure

from trialign.explore.explorer import Explorer, heading_html, status_html, table_html
from trialign.plots.parallel import parallel_coordinates
from trialign.sweeps import collect, draw_sweep
from trialign.workspace import Workspace


def runs_table(workspaces: Sequence[Workspace]) -> tuple[pd.DataFrame, list[str]]:
    """Return the metrics of runs, and the parameters that differ between them.

    Parameters
    ----------
    workspaces
        The runs, such as the points of a sweep; those without a complete stage have empty cells.

    Returns
    -------
    table : DataFrame
        A row a run: ``run``, the parameters that differ (``<stage>.<parameter>`` where stages disagree), every metric
        (``<stage>.<metric>``) and seconds.
    parameters : list of str
        The columns that are parameters.

    Raises
    ------
    ValueError
        If there is no run.
    """
    if not workspaces:
        raise ValueError("no runs to compare; fix: name at least one run that was started with `trialign run`")
    given = pd.DataFrame([_parameters(workspace) for workspace in workspaces])
    differing = [name for name in given if len(set(given[name].map(str))) > 1]
    points: list[dict[str, Any]] = [
        {"run": workspace.name, **{name: given[name].iloc[row] for name in differing}}
        for row, workspace in enumerate(workspaces)
    ]
    return collect(points, workspaces), differing


def _parameters(workspace: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in workspace.stages():
        for name, value in workspace.manifest(stage)["parameters"].items():
            found.setdefault(name if found.get(name, value) == value else f"{stage}.{name}", value)
    return found


def sweep_runs(folder: str | Path) -> list[Workspace]:
    """Return the points of a sweep as runs.

    Raises
    ------
    FileNotFoundError
        If the folder holds no runs.
    """
    folder = Path(folder)
    found = sorted(path.parent for path in folder.glob("*/run.json"))
    if not found:
        raise FileNotFoundError(f"{folder}: no runs of a sweep here; fix: run `trialign sweep {folder.name} ...` first")
    return [Workspace(f"{folder.name}/{path.name}", folder.parent) for path in found]


class RunComparison(Explorer):
    """What `explore_runs` returns; its widgets can be set by code as well.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row a run.
    metric, parameter : widgets.Dropdown
        What is compared, and against which parameter.
    table : itables.widget.ITable
        All runs, to sort and search.
    """

    def __init__(self, frame: pd.DataFrame, parameters: Sequence[str]) -> None:
        self.frame = frame
        self._parameters = list(parameters)
        metrics = [
            name
            for name in frame.select_dtypes("number")
            if name not in {*parameters, "seconds"} and frame[name].notna().any()
        ]
        if not metrics:
            raise ValueError("these runs have no metrics yet; fix: let at least one stage of one run complete")
        ndcg = [name for name in metrics if "ndcg@10" in name]
        self.metric = widgets.Dropdown(options=metrics, value=(ndcg or metrics)[0], description="metric")
        self.parameter = widgets.Dropdown(options=self._parameters or ["run"], description="against")
        self.table = ITable(frame, maxBytes=0, classes="display compact")
        self._figure, self._lines, self._message = widgets.HTML(), widgets.HTML(), widgets.HTML()
        parts = [
            widgets.HBox([self.metric, self.parameter], layout={"flex_flow": "row wrap"}),
            self._message,
            self._figure,
            self._lines,
            self.table,
        ]
        super().__init__(parts, self._still)
        self.add_class("trialign-runs")
        for knob in (self.metric, self.parameter):
            knob.observe(lambda _: self._draw(), names="value")
        self._draw()

    def _draw(self) -> None:
        metric, parameter = self.metric.value, self.parameter.value
        known = self.frame[self.frame[metric].notna()]
        missing = len(self.frame) - len(known)
        best = known.loc[known[metric].idxmax()]
        names = [name for name in (self._parameters or ["run"]) if name in known]
        told = ", ".join(f"{name} = {best[name]}" for name in names)
        also = f" {missing} runs have no value: they failed or are not done." if missing else ""
        self._message.value = status_html(f"Largest {metric}: {best[metric]:.4g} with {told}.{also}")
        order = [parameter, *(name for name in self._parameters if name != parameter)]
        shown = known.astype({name: str for name in order if known[name].map(type).eq(list).any()})
        self._figure.value = _image(draw_sweep(shown, order, metric), f"{metric} against {parameter}")
        self._lines.value = ""
        if len(self._parameters) > 1:
            figure = parallel_coordinates(self.frame, self._parameters, metric)
            self._lines.value = _image(figure, f"Each run a line through {', '.join(self._parameters)} to {metric}")

    def _still(self) -> str:
        columns = [*(name for name in ["run", *self._parameters] if name in self.frame), self.metric.value]
        rows = self.frame[columns].to_numpy().tolist()
        return (
            f"{heading_html(f'{len(self.frame)} runs')}{self._message.value}{self._figure.value}{self._lines.value}"
            f"{table_html(rows, columns, 'runs')}"
        )


def explore_runs(frame: pd.DataFrame, parameters: Sequence[str]) -> RunComparison:
    """Return a comparison of runs: which parameter moves which metric.

    Parameters
    ----------
    frame, parameters
        From `runs_table`, as in ``explore_runs(*runs_table(sweep_runs("runs/sizes")))``.

    Raises
    ------
    ValueError
        If no run has a metric.
    """
    return RunComparison(frame, parameters)


def _image(figure: Figure, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    data = b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" style="max-width:100%" src="data:image/png;base64,{data}">'
