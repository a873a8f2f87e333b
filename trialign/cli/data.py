"""``trialign data``: list, make, describe, get and check catalogues."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trialign.cli.base import name_or_full_path, show, tell, told

data_app = typer.Typer(help="Catalogues: list, make, get and check them.", no_args_is_help=True)


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
    show(Console(), frame[["name", "items", "what it is, and where"]], "data sets")


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
    tell(Console(), f"made {folder}; use it with: trialign run --dataset {folder}")


@data_app.command("describe")
@told
def data_describe(
    dataset: Annotated[str, typer.Argument(help="A name of `trialign data list`, or a catalogue's folder.")],
    out: Annotated[Path, typer.Option(help="JSON-lines file to write; its provenance is written beside it.")],
    captioner: Annotated[str, typer.Option(help="Who describes the images.")] = "embedded",
    miner: Annotated[str, typer.Option(help="Who names the interests.")] = "embedded",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed/--keep-failed", help="Ask again for items that failed before.")
    ] = True,
    notes: Annotated[str, typer.Option(help="What a reader should know: how made, limits, licence.")] = "",
) -> None:
    """Record captions and interests of a catalogue, to ship them or to use them elsewhere as `recorded:FILE`.

    Example:

        trialign data describe atelier --out data/atelier/descriptions.jsonl
    """
    from trialign import describe
    from trialign.datasets import load
    from trialign.workspace import runs_root

    catalogue = load(name_or_full_path(dataset))
    chosen = describe.captioner(captioner), describe.miner(miner)
    runs_root().mkdir(parents=True, exist_ok=True)
    cache = describe.DescriptionCache(runs_root() / "descriptions.sqlite")
    captions = describe.caption_items(describe.item_views(catalogue), chosen[0], cache, retry_failed=retry_failed)
    views = describe.item_views(catalogue, dict(zip(captions["item_id"], captions["caption"])))
    interests = describe.mine_interests(views, chosen[1], cache, retry_failed=retry_failed)
    for what, table in (("no caption", captions), ("no interests", interests)):
        failed = table.loc[table["source"] == "failed", ["item_id", "error"]]
        if len(failed):
            show(Console(), failed, f"{what}: {len(failed)} of {len(table)} items")
    written = cache.export_descriptions(out, views, *chosen, notes)
    tell(Console(), f"wrote {written}", f"use it with: trialign run -p captioner recorded:{written}")


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
        show(console, get_images(folder)["status"].value_counts().reset_index(), "images")
    tell(console, f"{name} lies in {folder}; use it with: trialign run --dataset {folder}")


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
        show(Console(), check.table(), f"what is wrong with {folder}")
        raise ValueError(f"{len(check.problems)} problems in {folder}")
    show(Console(), check.statistics.rename("value").rename_axis("statistic").reset_index(), f"{folder} is sound")
