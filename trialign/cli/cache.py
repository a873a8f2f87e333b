"""``trialign cache``: look after the file that keeps captions and interests."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trialign.cli.base import tell, told

cache_app = typer.Typer(help="The cache of captions and interests: check and mend it.", no_args_is_help=True)

Cache = Annotated[Path | None, typer.Argument(help="The cache; by default descriptions.sqlite in the folder of runs.")]


@cache_app.command("verify")
@told
def cache_verify(path: Cache = None) -> None:
    """Look through a cache for damage; nothing is changed.

    Example:

        trialign cache verify runs/descriptions.sqlite
    """
    from trialign.describe.cache_repair import verify

    report = verify(path or _default())
    tell(Console(), f"{report.path}: {report.ok} answers, {report.failed} failed items", *report.problems)
    if not report.sound:
        raise ValueError(f"{report.path} is damaged; save what can be read with: trialign cache repair {report.path}")


@cache_app.command("repair")
@told
def cache_repair(path: Cache = None) -> None:
    """Save what can be read of a damaged cache into a new one; the damaged file is kept beside it.

    Example:

        trialign cache repair runs/descriptions.sqlite
    """
    from trialign.describe.cache_repair import repair

    report, kept = repair(path or _default())
    tell(Console(), f"{report.path}: {report.ok} answers and {report.failed} failed items are saved")
    tell(Console(), f"the file as it was: {kept}", *(f"lost: {problem}" for problem in report.problems))


def _default() -> Path:
    from trialign.workspace import runs_root

    return runs_root() / "descriptions.sqlite"
