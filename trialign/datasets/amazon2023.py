"""Reader of the raw files of Amazon Reviews 2023: reviews and item metadata as JSON lines, images by address.

The data set: Hou et al., "Bridging Language and Items for Retrieval and Recommendation", arXiv 2403.03952.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.json

from trialign.catalogue import Catalogue
from trialign.datasets.thumbnails import download_images, file_stem, images_there
from trialign.progress import tqdm
from trialign.tables import Problem, TableError

_REVIEW = pa.schema([("user_id", pa.string()), ("parent_asin", pa.string()), ("timestamp", pa.int64())])

#: Sizes of an image, the most useful first: `large` has about 500 pixels a side, `hi_res` up to 1500, `thumb` 40.
_SIZES = ("large", "hi_res", "thumb")

_ITEM_COLUMNS = ["item_id", "title", "description", "brand", "category", "image_url"]


def read_amazon2023(
    folder: str | Path, name: str | None = None, category: str | None = None, k: int = 5, progress: bool = False
) -> Catalogue:
    """Read one category as a catalogue: its k-core, with the images that `get_images` has downloaded.

    Items are parent products (`parent_asin`). A user's repeated reviews of one product count once, at the time of the
    first; every rating is an interaction. The description is the metadata's description and features, the brand its
    store, the category its category path. An item without title or metadata is called ``item <id>``. Popularity
    figures of the metadata (rating_number, average_rating) are left out: they look into the test period.

    Parameters
    ----------
    folder
        Holds ``<Category>.jsonl[.gz]`` and ``meta_<Category>.jsonl[.gz]``, and maybe ``images/``.
    name
        The catalogue's name; default: the category.
    category
        Needed where the folder holds several.
    k
        Users and items with fewer interactions are removed, in turns; 1 keeps all.
    progress
        Show progress bars.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a line is not as published (file and line are named), or nothing is left of the k-core.
    """
    folder = Path(folder)
    reviews, meta = _files(folder, category)
    interactions = _reviews(reviews)
    kept = _core_items(interactions, k)
    interactions = interactions[interactions["item_id"].isin(kept)]
    items = _metadata(meta, kept, progress)
    there = images_there(folder / "images")
    images = [there.get(file_stem(item), "") for item in items["item_id"]]
    items = items.drop(columns="image_url").assign(image=[f"images/{file}" if file else "" for file in images])
    return Catalogue.from_tables(items, interactions, folder, name or _category(reviews)).k_core(k)


def get_images(
    folder: str | Path, category: str | None = None, k: int = 5, workers: int = 16, progress: bool = True
) -> pd.DataFrame:
    """Download one image for each item of the k-core into ``images/``, skipping those that are there.

    Parameters
    ----------
    folder, category, k
        As of `read_amazon2023`.
    workers
        Downloads side by side.
    progress
        Show progress bars.

    Returns
    -------
    pandas.DataFrame
        As of `download_images`; failures are rows of it and stop nothing.
    """
    folder = Path(folder)
    reviews, meta = _files(folder, category)
    items = _metadata(meta, _core_items(_reviews(reviews), k), progress)
    addresses = items.loc[items["image_url"] != "", ["item_id", "image_url"]]
    pairs = dict(zip(addresses["item_id"], addresses["image_url"]))
    return download_images(pairs, folder / "images", workers=workers, progress=progress)


def _category(reviews: Path) -> str:
    return reviews.name.removesuffix(".gz").removesuffix(".jsonl")


def _files(folder: Path, category: str | None) -> tuple[Path, Path]:
    pattern = f"meta_{category or '*'}.jsonl"
    found = sorted({_plain(path): path for ending in ("", ".gz") for path in folder.glob(pattern + ending)}.values())
    if not found:
        raise FileNotFoundError(f"{folder}: no {pattern}[.gz]; fix: trialign data get amazon-2023:<Category>")
    if len(found) > 1:
        names = ", ".join(_plain(path).removeprefix("meta_") for path in found)
        raise ValueError(f"{folder}: several categories ({names}); fix: give category=, or one folder each")
    stem = _plain(found[0]).removeprefix("meta_")
    for ending in (".jsonl", ".jsonl.gz"):
        if (folder / f"{stem}{ending}").is_file():
            return folder / f"{stem}{ending}", found[0]
    raise FileNotFoundError(f"{folder}: no {stem}.jsonl[.gz]; fix: trialign data get amazon-2023:{stem}")


def _plain(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def _reviews(path: Path) -> pd.DataFrame:
    options = pyarrow.json.ParseOptions(explicit_schema=_REVIEW, unexpected_field_behavior="ignore")
    try:
        with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as stream:
            read = pyarrow.json.ReadOptions(block_size=1 << 24)
            frame = pyarrow.json.read_json(stream, read, options).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError([_wrong_line(path, error)]) from None
    if frame.isna().to_numpy().any():
        raise TableError([_wrong_line(path, ValueError("a field is null"))])
    frame = frame.rename(columns={"parent_asin": "item_id"})
    return frame.sort_values("timestamp", kind="stable").drop_duplicates(["user_id", "item_id"]).sort_index()


def _wrong_line(path: Path, error: Exception) -> Problem:
    """Find the line that the fast parser stumbled over; it does not tell."""
    needed = {"user_id": str, "parent_asin": str, "timestamp": int}
    try:
        for number, record in _records(path):
            for field, kind in needed.items():
                if not isinstance(record.get(field), kind):
                    fix = "take the file as published, or remove the line"
                    return Problem(path.name, number, f"{field} is missing or not of type {kind.__name__}", fix)
    except TableError as wrong:
        return wrong.problems[0]
    return Problem(path.name, None, f"not readable as JSON lines ({error})", "remove the file and download it again")


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line's number and object; stop with a TableError at a line that is none."""
    number = 0
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise TypeError(f"a {type(record).__name__}, not an object")
                    yield number, record
    except (EOFError, gzip.BadGzipFile) as error:
        fix = "remove the file and download it again"
        raise TableError([Problem(path.name, number, f"the compressed file ends early ({error})", fix)]) from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        fix = "take the file as published, or remove the line"
        raise TableError([Problem(path.name, number, f"not a JSON object ({error})", fix)]) from None


def _core_items(interactions: pd.DataFrame, k: int) -> set[str]:
    """Return the items of the k-core, so that only their metadata is kept in memory."""
    ids = pd.DataFrame({"item_id": pd.unique(interactions["item_id"])})
    whole = Catalogue(ids.assign(title="-", image=""), interactions, Path(), "reviews")
    return set(whole.k_core(k).items["item_id"])


def _metadata(path: Path, kept: set[str], progress: bool) -> pd.DataFrame:
    found: dict[str, dict[str, str]] = {}
    for number, record in tqdm(_records(path), path.name, unit=" items", disable=not progress):
        item = record.get("parent_asin")
        if not isinstance(item, str):
            raise TableError([Problem(path.name, number, "parent_asin is missing", "take the file as published")])
        if item in kept and item not in found:
            found[item] = _item(item, record)
    for item in sorted(kept - found.keys()):
        found[item] = _item(item, {})
    return pd.DataFrame(list(found.values()), columns=_ITEM_COLUMNS)


def _item(item: str, record: dict[str, Any]) -> dict[str, str]:
    return {
        "item_id": item,
        "title": _line(record.get("title")) or f"item {item}",
        "description": _line([*_parts(record.get("description")), *_parts(record.get("features"))]),
        "brand": _line(record.get("store")),
        "category": " | ".join(_parts(record.get("categories"))) or _line(record.get("main_category")),
        "image_url": _address(record.get("images")),
    }


def _parts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [" ".join(part.split()) for part in values if isinstance(part, str) and part.strip()]


def _line(value: Any) -> str:
    return " ".join(_parts(value))


def _address(images: Any) -> str:
    """Return the address of the main image in the most useful size, "" where there is none."""
    listed = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    for image in sorted(listed, key=lambda image: image.get("variant") != "MAIN"):
        for size in _SIZES:
            if isinstance(image.get(size), str) and image[size]:
                return image[size]
    return ""
