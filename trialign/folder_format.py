"""The catalogue folder: what its tables must hold, and every way in which a given folder falls short."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pandera.pandas as pandera
from pandera.errors import SchemaErrors

from trialign.images import ImageError, ImageFolder, open_rgb
from trialign.progress import tqdm
from trialign.tables import Problem, Table, TableError, as_text, find_table, read_table

#: Texts that a data frame writes for a missing cell; no title is meant by them.
_MISSING = ("nan", "NaN", "<NA>")


def _filled(values: pd.Series) -> pd.Series:
    return values.astype("str").str.strip() != ""


def _titled(values: pd.Series) -> pd.Series:
    return _filled(values) & ~values.astype("str").isin(_MISSING)


def _whole(values: pd.Series) -> pd.Series:
    if pd.api.types.is_integer_dtype(values):
        return values.notna()
    return values.str.fullmatch(r"-?\d{1,18}(\.0*)?")


def _not_negative(values: pd.Series) -> pd.Series:
    if pd.api.types.is_integer_dtype(values):
        return values >= 0
    return ~values.str.fullmatch(r"-\d+(\.0*)?")


#: Fix for each failed check, by the check's message.
_FIXES = {
    "item_id is empty": "give the row the item's id",
    "user_id is empty": "give the row the user's id",
    "title is empty": "give the item a title, or remove it and its interactions",
    "timestamp is not a whole number": "write whole numbers, for example Unix seconds",
    "timestamp is negative": "write Unix seconds, or the position in the user's history",
}

#: What the items table must hold; further columns are text and free.
ITEMS = pandera.DataFrameSchema(
    {
        "item_id": pandera.Column(
            checks=pandera.Check(_filled, error="item_id is empty"), unique=True, report_duplicates="exclude_first"
        ),
        "title": pandera.Column(checks=pandera.Check(_titled, error="title is empty")),
    },
    unique_column_names=True,
)

#: What the interactions table must hold.
INTERACTIONS = pandera.DataFrameSchema(
    {
        "user_id": pandera.Column(checks=pandera.Check(_filled, error="user_id is empty")),
        "item_id": pandera.Column(checks=pandera.Check(_filled, error="item_id is empty")),
        "timestamp": pandera.Column(
            checks=[
                pandera.Check(_whole, error="timestamp is not a whole number"),
                pandera.Check(_not_negative, error="timestamp is negative"),
            ]
        ),
    },
    unique_column_names=True,
)


def schema_problems(table: Table, schema: pandera.DataFrameSchema) -> list[Problem]:
    """Return the rows that were malformed and everything in the table that its schema forbids."""
    found = list(table.malformed)
    for place, column in enumerate(table.frame.columns, start=1):
        if not str(column).strip() or str(column).startswith("Unnamed:"):
            fix = "name it, or write the table without its index (index=False)"
            found.append(table.problem(None, f"column {place} has no name", fix))
    try:
        schema.validate(table.frame, lazy=True)
    except SchemaErrors as errors:
        for case in errors.failure_cases.itertuples():
            found.append(_schema_problem(table, str(case.check), str(case.column), case.failure_case, case.index))
    return found


def _schema_problem(table: Table, check: str, column: str, value: object, row: object) -> Problem:
    if check == "column_in_dataframe":
        columns = ", ".join(map(str, table.frame.columns))
        return table.problem(None, f"no column {value!r} (there are: {columns})", f"add the column {value!r}")
    if check == "field_uniqueness":
        return table.problem(int(str(row)), f"{column} {value!r} was used before", "give every item one row and one id")
    if check in _FIXES:
        shown = f" ({value!r})" if str(value).strip() else ""
        return table.problem(int(str(row)), check + shown, _FIXES[check])
    return table.problem(None, f"{column}: {check} ({value!r})", "name every column once")


def unknown_item_problems(interactions: Table, item_ids: pd.Series) -> list[Problem]:
    """Return the interactions whose item is not in the items table."""
    ids = interactions.frame["item_id"].astype("str")
    unknown = ~ids.isin(item_ids.astype("str")) & _filled(ids)
    fix = "add the item to the items table or remove the interaction"
    return [interactions.problem(int(row), f"unknown item {ids[row]!r}", fix) for row in ids.index[unknown]]


def image_problems(items: Table, root: Path, decode: bool, progress: bool = False) -> list[Problem]:
    """Return the items whose image is missing or outside the folder, and with `decode` also the unreadable ones."""
    if "image" not in items.frame.columns:
        return []
    folder, found = ImageFolder(root), []
    for row, relative in enumerate(tqdm(as_text(items.frame["image"]), "images", disable=not progress, leave=False)):
        if not relative:
            continue
        try:
            path = folder.resolve(relative)
            if decode:
                open_rgb(path)
        except FileNotFoundError:
            found.append(items.problem(row, f"image {relative!r} is missing", "add the file or empty the cell"))
        except ImageError as error:
            found.append(items.problem(row, f"image {relative!r}: {error.problem}", error.fix))
    return found


def table_problems(items: Table, interactions: Table) -> list[Problem]:
    """Return every problem of the two tables of a catalogue, image files aside."""
    found = schema_problems(items, ITEMS) + schema_problems(interactions, INTERACTIONS)
    if items.frame.empty:
        found.append(items.problem(None, "there are no items", "add a row an item"))
    if "item_id" in items.frame and "item_id" in interactions.frame:
        found += unknown_item_problems(interactions, items.frame["item_id"])
    return found


def clean_items(table: Table) -> pd.DataFrame:
    """Return a valid items table: strings only, `item_id` and `title` first, `image` last, RangeIndex."""
    frame = table.frame.apply(as_text)
    frame["image"] = frame.get("image", "")
    others = [column for column in frame.columns if column not in ("item_id", "title", "image")]
    return frame[["item_id", "title", *others, "image"]].astype("str").reset_index(drop=True)


def clean_interactions(table: Table) -> pd.DataFrame:
    """Return a valid interactions table: user_id, item_id as strings, timestamp as int64, in the table's order."""
    frame = table.frame
    times = frame["timestamp"]
    if not pd.api.types.is_integer_dtype(times):
        times = times.str.replace(r"\.0*$", "", regex=True)
    return pd.DataFrame(
        {
            "user_id": as_text(frame["user_id"]),
            "item_id": as_text(frame["item_id"]),
            "timestamp": times.astype("int64"),
        }
    ).reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class FolderContent:
    """What was found in a catalogue folder; the tables are None where a file is missing or unreadable.

    Attributes
    ----------
    items, interactions
        The two tables as read.
    root
        The folder that image paths are relative to.
    name
        The catalogue's name.
    problems
        What is wrong, image files aside.
    """

    items: Table | None
    interactions: Table | None
    root: Path
    name: str
    problems: list[Problem]


def read_folder(folder: Path) -> FolderContent:
    """Read the tables of a catalogue folder and collect their problems.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; fix: give the folder that holds the items table")
    problems: list[Problem] = []
    root, name = _settings(folder, problems)
    items, interactions = (_table(folder, stem, problems) for stem in ("items", "interactions"))
    if items is not None and interactions is not None:
        problems += table_problems(items, interactions)
        if interactions.frame.empty:
            problems.append(interactions.problem(None, "there are no interactions", "add a row an interaction"))
    elif items is not None:
        problems += schema_problems(items, ITEMS)
    elif interactions is not None:
        problems += schema_problems(interactions, INTERACTIONS)
    return FolderContent(items, interactions, root, name, problems)


def _table(folder: Path, stem: str, problems: list[Problem]) -> Table | None:
    try:
        return read_table(find_table(folder, stem))
    except FileNotFoundError as error:
        fix = str(error).rsplit("; fix: ", 1)[-1]
        problems.append(Problem(f"{stem}.*", None, f"there is no {stem} table", fix))
    except TableError as error:
        problems += error.problems
    return None


def _settings(folder: Path, problems: list[Problem]) -> tuple[Path, str]:
    path = folder / "catalogue.json"
    if not path.exists():
        return folder, folder.resolve().name
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return folder / str(settings.get("images_root", ".")), str(settings.get("name", folder.resolve().name))
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        fix = 'write {"name": "...", "images_root": "."} or remove the file'
        problems.append(Problem(path.name, getattr(error, "lineno", None), f"not a JSON object ({error})", fix))
        return folder, folder.resolve().name


def ordered(problems: list[Problem]) -> Iterator[Problem]:
    """Yield problems by file and row, those of whole files first."""
    yield from sorted(problems, key=lambda problem: (problem.file, problem.row or 0))
