"""The command line: run the notebooks, sweep parameters, write reports, make and check data.

Heavy modules are imported inside the commands: ``trialign --help`` answers at once.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

app = typer.Typer(
    name="trialign",
    help="A notebook workbench for multimodal generative recommendation with Semantic IDs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
data_app = typer.Typer(help="Catalogues: list, make, get and check them.", no_args_is_help=True)
app.add_typer(data_app, name="data")

ROOT_HELP = "Folder of all runs; by default $TRIALIGN_RUNS, or runs/ in the project."
KNOB_HELP = 'A notebook\'s parameter and its value: [bold]-p codebook_sizes "[64, 64]"[/bold]. May be repeated.'


class KnobCommand(TyperCommand):
    """A command whose ``-p`` takes a name and a value as two words, as papermill's does, or as ``name=value``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two words that follow each ``-p`` before the options are read."""
        joined: list[str] = []
        rest = iter(args)
        for word in rest:
            joined.append(word)
            if word in ("-p", "--parameter"):
                name = next(rest, None)
                if name is None:
                    break
                value = None if "=" in name else next(rest, None)
                joined.append(name if value is None else f"{name}={value}")
        return super().parse_args(ctx, joined)


Knobs = Annotated[list[str] | None, typer.Option("-p", "--parameter", metavar="NAME VALUE", help=KNOB_HELP)]
Profile = Annotated[str | None, typer.Option(help="embedded, laptop or paper: which models do the work.")]
Dataset = Annotated[str | None, typer.Option(help="A name of `trialign data list`, or a catalogue's folder.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads of a notebook; by default 1 for the embedded profile's small models, else the machine's."
    ),
]
Root = Annotated[Path | None, typer.Option("--runs", help=ROOT_HELP)]
Notebooks = Annotated[Path | None, typer.Option(help="Folder of the numbered notebooks.")]
Kernel = Annotated[str | None, typer.Option(help="Jupyter kernel; by default the interpreter that runs this command.")]


def told(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with its expected errors told in plain words and exit status 1, without a traceback."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        from trialign.runs import RunError

        try:
            command(*args, **kwargs)
        except (RunError, ValueError, OSError) as error:
            Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            Console(stderr=True).print("stopped; the same command goes on from here", style="yellow")
            raise typer.Exit(130) from None

    return wrapper


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
    knobs = _pairs(parameters)
    if "dataset" in knobs:
        knobs["dataset"] = _name_or_full_path(knobs["dataset"])
    dataset = dataset and _name_or_full_path(dataset)
    resolved = resolve(found, knobs, profile, dataset)
    workspace = Workspace(name or (Path(dataset).name if dataset else "demo"), root)
    record_run(workspace, profile, dataset, knobs)
    runner = Runner(workspace, found, resolved, console, kernel=kernel, threads=_threads(threads, profile))
    seconds = runner.run(start, force)
    summary = f"{len(seconds)} of {len(found)} notebooks run in {sum(seconds.values()):.0f} s"
    _tell(
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
    knobs = _pairs(parameters)
    if not knobs:
        raise ValueError('nothing to sweep: give at least one parameter, such as -p seed "[0, 1, 2]"')
    found = find_notebooks(notebooks or notebooks_root())
    grid = parse_grid(found, knobs)
    dataset = dataset and _name_or_full_path(dataset)
    folder = root or runs_root()
    table, failures = run_sweep(
        name, found, grid, folder, console, profile, dataset, kernel, _threads(threads, profile)
    )
    column = find_metric(table, list(grid), metric)
    paths = save_sweep(folder / name, table, draw_sweep(table, list(grid), column))
    _show(console, table[[*grid, column, "seconds"]], f"{name}: {column}")
    _tell(console, *map(str, paths))
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
    _tell(Console(), f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


@app.command()
@told
def lab(port: Annotated[int, typer.Option(help="Port of the server.")] = 8888) -> None:
    """Open JupyterLab at the first notebook.

    Example:

        trialign lab --port 8899
    """
    from trialign.knobs import find_notebooks
    from trialign.workspace import notebooks_root

    first = find_notebooks(notebooks_root())[0].path
    if shutil.which("jupyter", path=str(Path(sys.executable).parent)) is None:
        raise FileNotFoundError(f"no jupyter beside {sys.executable}: install the package jupyterlab")
    command = [sys.executable, "-m", "jupyter", "lab", f"--port={port}", first.name]
    raise typer.Exit(subprocess.run(command, cwd=first.parent, check=False).returncode)


@data_app.command("list")
@told
def data_list() -> None:
    """List the known data sets and where they lie.

    Example:

        trialign data list
    """
    from trialign.datasets import available

    frame = available()
    where = [f"in {row.folder}" if row.found else f"not here: {row.source}" for row in frame.itertuples()]
    frame["what it is, and where"] = [f"{purpose}\n{place}" for purpose, place in zip(frame["purpose"], where)]
    _show(Console(), frame[["name", "items", "what it is, and where"]], "data sets")


@data_app.command("make")
@told
def data_make(
    name: Annotated[str, typer.Argument(help="What to make: atelier.")] = "atelier",
    items: Annotated[int, typer.Option(min=1, help="Number of items.")] = 480,
    users: Annotated[int, typer.Option(min=1, help="Number of users.")] = 1200,
    seed: Annotated[int, typer.Option(help="Equal seeds make equal catalogues.")] = 7,
    visual_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of preference on image-only attributes.")
    ] = 0.5,
    mean_length: Annotated[float, typer.Option(min=6, max=25, help="Mean history length: the sparsity.")] = 11.5,
    noise: Annotated[float, typer.Option(min=0, max=1, help="Share of interactions that follow no interest.")] = 0.1,
    out: Annotated[Path | None, typer.Option(help="Folder to write; by default data/NAME-SEED.")] = None,
) -> None:
    """Make a catalogue whose truth is known: drawn products, users with latent interests.

    Example:

        trialign data make atelier --items 480 --users 1200 --seed 11 --out data/atelier-11
    """
    if name != "atelier":
        raise ValueError(f"no generator {name!r}; there is atelier")
    from trialign.datasets.atelier import make_atelier
    from trialign.workspace import project_root

    folder = out or project_root() / "data" / f"{name}-{seed}"
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name another folder with --out")
    made = make_atelier(
        items=items, users=users, seed=seed, visual_share=visual_share, mean_length=mean_length, noise=noise
    )
    made.save(folder)
    _tell(Console(), f"made {folder}; use it with: trialign run --dataset {folder}")


@data_app.command("describe")
@told
def data_describe(
    dataset: Annotated[str, typer.Argument(help="A name of `trialign data list`, or a catalogue's folder.")],
    out: Annotated[Path, typer.Option(help="JSON-lines file to write; its provenance is written beside it.")],
    captioner: Annotated[str, typer.Option(help="Who describes the images.")] = "embedded",
    miner: Annotated[str, typer.Option(help="Who names the interests.")] = "embedded",
    notes: Annotated[str, typer.Option(help="What a reader should know: how made, limits, licence.")] = "",
) -> None:
    """Record captions and interests of a catalogue, to ship them or to use them elsewhere as `recorded:FILE`.

    Example:

        trialign data describe atelier --out data/atelier/descriptions.jsonl
    """
    from trialign import describe
    from trialign.datasets import load
    from trialign.workspace import runs_root

    catalogue = load(_name_or_full_path(dataset))
    chosen = describe.captioner(captioner), describe.miner(miner)
    runs_root().mkdir(parents=True, exist_ok=True)
    cache = describe.DescriptionCache(runs_root() / "descriptions.sqlite")
    captions = describe.caption_items(describe.item_views(catalogue), chosen[0], cache)
    views = describe.item_views(catalogue, dict(zip(captions["item_id"], captions["caption"])))
    describe.mine_interests(views, chosen[1], cache)
    written = cache.export_descriptions(out, views, *chosen, notes)
    _tell(Console(), f"wrote {written}", f"use it with: trialign run -p captioner recorded:{written}")


@data_app.command("get")
@told
def data_get(
    name: Annotated[str, typer.Argument(help="movielens-small, or amazon-2023:CATEGORY.")],
    images: Annotated[bool, typer.Option(help="Also the items' images, where the data set has links to them.")] = True,
    mirror: Annotated[str | None, typer.Option(help="Address of another place with the same files.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Insist on this hash of the archive or the reviews file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder in which its folder is made; by default data/.")] = None,
) -> None:
    """Download a public data set; a download that was cut off goes on where it was.

    For example:

        trialign data get movielens-small

        trialign data get amazon-2023:All_Beauty
    """
    import httpx

    from trialign.datasets.amazon2023 import get_images
    from trialign.datasets.download import get
    from trialign.workspace import project_root

    try:
        folder = get(name, out or project_root() / "data", mirror, f"sha256:{sha256}" if sha256 else None)
    except httpx.HTTPError as error:
        raise OSError(f"{name} could not be downloaded: {error}") from error
    console = Console()
    if images and name.startswith("amazon-2023:"):
        _show(console, get_images(folder)["status"].value_counts().reset_index(), "images")
    _tell(console, f"{name} lies in {folder}; use it with: trialign run --dataset {folder}")


@data_app.command("check")
@told
def data_check(folder: Annotated[Path, typer.Argument(help="A catalogue's folder.")]) -> None:
    """Check a catalogue's folder and print all that is wrong with it.

    Example:

        trialign data check my_catalogue/
    """
    from trialign.catalogue import check_folder

    check = check_folder(folder)
    if check.statistics is None:
        _show(Console(), check.table(), f"what is wrong with {folder}")
        raise ValueError(f"{len(check.problems)} problems in {folder}")
    _show(Console(), check.statistics.rename("value").rename_axis("statistic").reset_index(), f"{folder} is sound")


def _pairs(words: list[str] | None) -> dict[str, str]:
    """Split ``name=value`` words at the first sign."""
    pairs = {}
    for word in words or []:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise ValueError(f"-p {word}: give a name and a value, as in -p seed 1")
        pairs[name] = value
    return pairs


def _threads(asked: int | None, profile: str | None) -> int | None:
    """Return the threads of a run; small models only burn more processor time with more than one."""
    small = profile in (None, "embedded") and "OMP_NUM_THREADS" not in os.environ
    return asked or (1 if small else None)


def _name_or_full_path(dataset: str) -> str:
    """Return a folder's full path, since notebooks run in a folder of their own; a known name as it is."""
    if not Path(dataset).is_dir():
        return dataset
    from trialign.datasets.registry import ENTRIES

    return dataset if dataset in ENTRIES else str(Path(dataset).resolve())


def _show(console: Console, frame: Any, title: str) -> None:
    """Print a table; its texts are shown as they are."""
    from rich.table import Table
    from rich.text import Text

    from trialign.report import format_value

    table = Table(
        title=title, title_justify="left", show_lines=frame.map(str).map(lambda text: "\n" in text).any(axis=None)
    )
    for column in frame.columns:
        table.add_column(Text(str(column)), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(format_value(value)) for value in row))
    console.print(table)


def _tell(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
