"""The command line: run the notebooks, sweep parameters, write reports, make Semantic IDs, make and check data.

Heavy modules are imported inside the commands: ``trialign --help`` answers at once.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trialign.cli.base import (
    Dataset,
    Kernel,
    KnobCommand,
    Knobs,
    Notebooks,
    Profile,
    Root,
    Threads,
    name_or_full_path,
    pairs,
    show,
    tell,
    threads_of,
    told,
)
from trialign.cli.cache import cache_app
from trialign.cli.data import data_app
from trialign.cli.tokenizing import tokenize

app = typer.Typer(
    name="trialign",
    help="A notebook workbench for multimodal generative recommendation with Semantic IDs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


@app.command(cls=KnobCommand)
@told
def run(
    name: Annotated[str | None, typer.Argument(help="Name of the run; by default the data set's, else `demo`.")] = None,
    parameters: Knobs = None,
    profile: Profile = None,
    dataset: Dataset = None,
    start: Annotated[str | None, typer.Option("--from", help="Run this notebook and all after it: 04.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run all notebooks, current or not.")] = False,
    root: Root = None,
    notebooks: Notebooks = None,
    kernel: Kernel = None,
    threads: Threads = None,
) -> None:
    """Run all notebooks in order into runs/NAME/; stages that are current are skipped.

    For example:

        trialign run demo

        trialign run posters --dataset movielens-posters

        trialign run small -p codebook_sizes "[16, 16, 16]" -p seed 1

        trialign run demo --from 04
    """
    from trialign.knobs import find_notebooks, resolve
    from trialign.runs import Runner, record_run
    from trialign.workspace import Workspace, notebooks_root

    console = Console()
    found = find_notebooks(notebooks or notebooks_root())
    knobs = pairs(parameters)
    if "dataset" in knobs:
        knobs["dataset"] = name_or_full_path(knobs["dataset"])
    dataset = dataset and name_or_full_path(dataset)
    resolved = resolve(found, knobs, profile, dataset)
    workspace = Workspace(name or (Path(dataset).name if dataset else "demo"), root)
    record_run(workspace, profile, dataset, knobs)
    runner = Runner(workspace, found, resolved, console, kernel=kernel, threads=threads_of(threads, profile))
    seconds = runner.run(start, force)
    summary = f"{len(seconds)} of {len(found)} notebooks run in {sum(seconds.values()):.0f} s"
    tell(
        console,
        summary,
        f"executed notebooks: {workspace.folder / 'notebooks'}",
        f"report: trialign report {workspace.name}",
    )


@app.command(cls=KnobCommand)
@told
def sweep(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")] = "sweep",
    parameters: Knobs = None,
    metric: Annotated[str | None, typer.Option(help="The metric to draw: ndcg@10.")] = None,
    profile: Profile = None,
    dataset: Dataset = None,
    root: Root = None,
    notebooks: Notebooks = None,
    kernel: Kernel = None,
    threads: Threads = None,
) -> None:
    """Run a grid of parameters; write one table and one figure. Started again, it goes on where it was.

    Example:

        trialign sweep sizes -p codebook_sizes "[[16,16,16],[32,32,32]]" -p seed "[0,1,2]"
    """
    from trialign.knobs import find_notebooks
    from trialign.sweeps import draw_sweep, find_metric, parse_grid, run_sweep, save_sweep
    from trialign.workspace import notebooks_root, runs_root

    console = Console()
    knobs = pairs(parameters)
    if not knobs:
        raise ValueError('nothing to sweep: give at least one parameter, such as -p seed "[0, 1, 2]"')
    found = find_notebooks(notebooks or notebooks_root())
    grid = parse_grid(found, knobs)
    dataset = dataset and name_or_full_path(dataset)
    folder = root or runs_root()
    table, failures = run_sweep(
        name, found, grid, folder, console, profile, dataset, kernel, threads_of(threads, profile)
    )
    column = find_metric(table, list(grid), metric)
    paths = save_sweep(folder / name, table, draw_sweep(table, list(grid), column))
    show(console, table[[*grid, column, "seconds"]], f"{name}: {column}")
    tell(console, *map(str, paths))
    if failures:
        raise ValueError(f"{len(failures)} of {len(table)} points failed: {', '.join(failures)}")


@app.command()
@told
def report(
    name: Annotated[str, typer.Argument(help="Name of the run.")] = "demo",
    out: Annotated[Path | None, typer.Option(help="Where to write; by default runs/NAME/report.html.")] = None,
    root: Root = None,
) -> None:
    """Write one self-contained HTML page of a run: figures, tables, metrics, provenance.

    Example:

        trialign report demo
    """
    from trialign.report import write_report
    from trialign.workspace import Workspace

    path = write_report(Workspace(name, root), out)
    tell(Console(), f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


@app.command()
@told
def lab(port: Annotated[int, typer.Option(help="Port of the server.")] = 8888) -> None:
    """Open JupyterLab at the first notebook, for this machine alone.

    The server listens on 127.0.0.1, whatever Jupyter's configuration says, and asks for its token.

    Example:

        trialign lab --port 8899
    """
    from trialign.knobs import find_notebooks
    from trialign.workspace import notebooks_root

    first = find_notebooks(notebooks_root())[0].path
    if shutil.which("jupyter", path=str(Path(sys.executable).parent)) is None:
        raise FileNotFoundError(f"no jupyter beside {sys.executable}: install the package jupyterlab")
    command = [sys.executable, "-m", "jupyter", "lab", "--ServerApp.ip=127.0.0.1", f"--port={port}", first.name]
    raise typer.Exit(subprocess.run(command, cwd=first.parent, check=False).returncode)


app.command(cls=KnobCommand)(tokenize)
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")
