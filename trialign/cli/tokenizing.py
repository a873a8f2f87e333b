"""``trialign tokenize``: Semantic IDs of a catalogue or of embeddings, in one folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from trialign.cli.base import pairs, show, tell, told

if TYPE_CHECKING:
    from trialign.catalogue import Catalogue
    from trialign.embed.files import EmbeddedItems
    from trialign.sids.quantizer import Quantizer
    from trialign.sids.tokenization import Tokenization

PARAMETER_HELP = "A parameter of the quantizer and its value: [bold]-p epochs 200[/bold]. May be repeated."


@told
def tokenize(
    out: Annotated[Path, typer.Option(help="Folder to write, of its own; that of an earlier call is replaced.")],
    catalogue: Annotated[
        str | None, typer.Argument(help="A name of `trialign data list`, or a catalogue's folder.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Instead of a catalogue: .safetensors with one matrix of floats, or .npy.")
    ] = None,
    item_ids: Annotated[
        Path | None,
        typer.Option(
            help="Ids of the embeddings' rows: a table with the column item_id, a JSON list, or text, an id a line. By "
            "default those in the safetensors metadata, else item_ids.parquet|csv|tsv|json|txt beside the embeddings."
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Text columns to embed, with commas; by default all: title,brand,category.")
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(help="embedded (the default), embedded-text, text:MODEL, towers:MODEL or gme:MODEL."),
    ] = None,
    quantizer: Annotated[
        str | None, typer.Option(help="RQVAE (the default), ResidualKMeans, ...; a wrong name lists all.")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", metavar="NAME VALUE", help=PARAMETER_HELP)
    ] = None,
    codebook_sizes: Annotated[
        str | None, typer.Option(help='Codes of each level: "[256, 256, 256]"; by default the quantizer\'s own.')
    ] = None,
    collisions: Annotated[
        str | None, typer.Option(help="Items that share a SID: suffix (the default), reassign or none.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the quantizer; by default 0.")] = None,
    index: Annotated[
        Path | None, typer.Option(help="Also write the index JSON of published systems to this file.")
    ] = None,
    from_index: Annotated[
        Path | None, typer.Option(help="Import the SIDs of an index JSON instead of fitting a quantizer.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(help="Folder of an earlier call: new items get SIDs from its quantizer, old ones keep theirs."),
    ] = None,
) -> None:
    """Give every item of a catalogue a Semantic ID; write SIDs, quantizer and embeddings into one folder.

    The folder holds sids/, quantizer/, embeddings.safetensors and manifest.json.

    Called again with another quantizer, it embeds nothing again. A call that was killed leaves the old folder whole.

    For example:

        trialign tokenize atelier --out sids/atelier --codebook-sizes "[64, 64, 64]"

        trialign tokenize my_catalogue/ --out sids/mine --text title,brand --quantizer ResidualKMeans -p iterations 50

        trialign tokenize --embeddings vectors.npy --item-ids ids.txt --out sids/theirs --index sids/theirs.index.json

        trialign tokenize my_catalogue/ --like sids/mine --out sids/mine-with-new-items

        trialign tokenize --from-index Office.index.json --out sids/office
    """
    fitting = {
        "--text": text,
        "--embedder": embedder,
        "--quantizer": quantizer,
        "-p": parameters,
        "--collisions": collisions,
        "--seed": seed,
    }
    _refuse_together({"--like": like}, fitting | {"--from-index": from_index, "--codebook-sizes": codebook_sizes})
    _refuse_together({"--from-index": from_index}, fitting | {"--embeddings": embeddings})
    _refuse_together({"--embeddings": embeddings}, {"CATALOGUE": catalogue, "--text": text, "--embedder": embedder})
    if item_ids and not embeddings:
        raise ValueError("--item-ids names the rows of --embeddings: give both")
    from trialign import tokenize as work
    from trialign.sids.tokenization import check_target, collision_method

    check_target(out)
    if from_index:
        known = None if catalogue is None else _catalogue(catalogue)
        made = work.import_index(from_index, known, _sizes(codebook_sizes))
    elif like:
        made = work.extend_like(_source(catalogue, embeddings, item_ids), out, like)
    else:
        unfitted = _quantizer(quantizer or "RQVAE", parameters, _sizes(codebook_sizes), seed or 0)
        columns = None if text is None else [column.strip() for column in text.split(",")]
        source = _source(catalogue, embeddings, item_ids)
        method = collision_method(collisions or "suffix")
        made = work.tokenize(source, out, unfitted, method, embedder or "embedded", columns)
    folder = made.save(out, index)
    _report(Console(), made, folder, index)


def _refuse_together(chosen: dict[str, Any], others: dict[str, Any]) -> None:
    """Raise ValueError where an option is given beside one that takes its place."""
    for option in (name for name, value in chosen.items() if value is not None):
        clashing = [name for name, value in others.items() if value is not None and value != []]
        if clashing:
            raise ValueError(f"{option} and {clashing[0]} can't be given together; leave one of them out")


def _sizes(text: str | None) -> list[int] | None:
    from trialign.knobs import literal

    if text is None:
        return None
    try:
        sizes = literal(text)
    except ValueError:
        sizes = None
    if not isinstance(sizes, list | tuple) or not sizes or not all(type(size) is int for size in sizes):
        raise ValueError(f'--codebook-sizes {text}: give a list of whole numbers, as in "[256, 256, 256]"')
    return list(sizes)


def _quantizer(name: str, words: list[str] | None, sizes: list[int] | None, seed: int) -> "Quantizer":
    from trialign.sids.build import build_quantizer

    parameters: dict[str, Any] = dict(pairs(words))
    for parameter, option in (("codebook_sizes", "--codebook-sizes"), ("seed", "--seed")):
        if parameter in parameters:
            raise ValueError(f"-p {parameter}: give it as {option}")
    if sizes is not None:
        parameters["codebook_sizes"] = sizes
    return build_quantizer(name, parameters, seed)


def _catalogue(name_or_folder: str) -> "Catalogue":
    from trialign.datasets import load

    return load(name_or_folder)


def _source(catalogue: str | None, embeddings: Path | None, item_ids: Path | None) -> "Catalogue | EmbeddedItems":
    from trialign.embed.files import read_embeddings

    if embeddings is not None:
        return read_embeddings(embeddings, item_ids)
    if catalogue is None:
        raise ValueError("nothing to tokenize: name a catalogue, or give --embeddings FILE or --from-index FILE")
    return _catalogue(catalogue)


def _report(console: Console, made: "Tokenization", folder: Path, index: Path | None) -> None:
    metrics = made.metrics()
    items = metrics["items"]
    show(console, made.levels(), f"{items:,} items in {made.sids.levels} levels")
    before, after = metrics["colliding_before"], metrics["colliding_after"]
    shares = f"{before:,} before ({before / items:.1%}), {after:,} after ({after / items:.1%})"
    tell(console, f"items that share a SID: {shares}")
    if metrics["items_added"]:
        tell(
            console,
            f"items added to the SIDs first made: {metrics['items_added']:,}, "
            f"{metrics['items_added_moved']:,} of them moved to the nearest free codes",
        )
    empty = made.inputs.get("without_content")
    if empty:
        tell(console, f"{empty:,} items have no text in these columns and no image: all of them are embedded alike")
    if made.seconds:
        tell(console, "seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in made.seconds.items()))
    tell(console, f"{'SIDs' if made.quantizer is None else 'SIDs, quantizer and embeddings'} are in {folder}")
    if index is not None:
        tell(console, f"index JSON: {index}")
