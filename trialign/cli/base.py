"""What the commands share: options, errors in plain words, tables."""

import os
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

#: Control characters but line break and tab, and the marks that turn the direction of writing.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

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
            message = printable(f"error: {error}")
            Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            Console(stderr=True).print("stopped; the same command goes on from here", style="yellow")
            raise typer.Exit(130) from None

    return wrapper


def pairs(words: list[str] | None) -> dict[str, str]:
    """Split ``name=value`` words at the first sign."""
    pairs = {}
    for word in words or []:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise ValueError(f"-p {word}: give a name and a value, as in -p seed 1")
        pairs[name] = value
    return pairs


def threads_of(asked: int | None, profile: str | None) -> int | None:
    """Return the threads of a run; small models only burn more processor time with more than one."""
    small = profile in (None, "embedded") and "OMP_NUM_THREADS" not in os.environ
    return asked or (1 if small else None)


def name_or_full_path(dataset: str) -> str:
    """Return a folder's full path, since notebooks run in a folder of their own; a known name as it is."""
    if not Path(dataset).is_dir():
        return dataset
    from trialign.datasets.registry import ENTRIES

    return dataset if dataset in ENTRIES else str(Path(dataset).resolve())


def show(console: Console, frame: Any, title: str) -> None:
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
        table.add_row(*(Text(printable(format_value(value))) for value in row))
    console.print(table)


def tell(console: Console, *lines: str) -> None:
    """Print lines as they are, a long one unbroken."""
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    r"""Return a text with what would steer a terminal written out: titles and messages of servers are untrusted.

    Examples
    --------
    >>> printable("red \x1b[31mmug")
    'red \\x1b[31mmug'
    """
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)
