"""Reader of RecBole's atomic files: ``<name>.inter`` and ``<name>.item`` with typed headers.

The format: Zhao et al., "RecBole: Towards a Unified, Comprehensive and Efficient Framework for Recommendation
Algorithms", CIKM 2021.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from trialign.catalogue import Catalogue
from trialign.tables import Problem, Table, TableError, read_delimited

#: Names under which data sets in this format keep an item's title, the likeliest first.
TITLE_FIELDS = ("title", "movie_title", "item_name", "name", "product_name")

#: Types whose values are text; numbers (float, float_seq) are no text about an item.
_TEXT_TYPES = ("token", "token_seq")


def read_recbole(folder: str | Path, name: str | None = None, title: str | None = None) -> Catalogue:
    """Read RecBole's atomic files as a catalogue.

    Headers are typed, ``user_id:token``; fields are separated by tabs and taken literally. The ``.item`` file's
    fields of the types token and token_seq become text columns; ``image`` is the image's path if there is such a field.
    An item whose title is empty is called ``item <id>``. Timestamps may have fractions: they count for the order, then
    they are cut.

    Parameters
    ----------
    folder
        Holds one ``.inter`` and one ``.item`` file.
    name
        The catalogue's name; default: the file's.
    title
        The field that holds the title; default: the first of `TITLE_FIELDS` that is there.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If there are several of a kind, a field is missing, or the tables break the catalogue format.
    """
    folder = Path(folder)
    inter, item = _only(folder, ".inter"), _only(folder, ".item")
    items, interactions = _items(_fields(item), title), _interactions(_fields(inter))
    return Catalogue.from_tables(items, interactions, folder, name or inter.stem)


def _only(folder: Path, ending: str) -> Path:
    found = sorted(folder.glob(f"*{ending}"))
    if not found:
        raise FileNotFoundError(f"{folder}: no *{ending} file; fix: give a folder with RecBole's atomic files")
    if len(found) > 1:
        raise ValueError(f"{folder}: {len(found)} *{ending} files; fix: keep one of {', '.join(p.name for p in found)}")
    return found[0]


def _fields(path: Path) -> Table:
    table = read_delimited(path)
    untyped = [column for column in table.frame.columns if ":" not in column]
    if untyped:
        raise TableError([Problem(path.name, 1, f"field {untyped[0]!r} has no type", "write it as name:token")])
    return table


def _column(table: Table, field: str) -> pd.Series:
    for column in table.frame.columns:
        if column.split(":")[0] == field:
            return table.frame[column]
    names = ", ".join(column.split(":")[0] for column in table.frame.columns)
    raise TableError([Problem(table.file, 1, f"no field {field!r} (there are: {names})", f"add {field}:token")])


def _items(table: Table, title: str | None) -> Table:
    types = dict(column.split(":", 1) for column in table.frame.columns)
    chosen = title or next((field for field in TITLE_FIELDS if field in types), None)
    if chosen is None:
        raise TableError(
            [Problem(table.file, 1, "no title field", f"name it with title=, or call it {TITLE_FIELDS[0]!r}")]
        )
    ids, titles = _column(table, "item_id"), _column(table, chosen).str.strip()
    items = pd.DataFrame({"item_id": ids, "title": titles.where(titles != "", "item " + ids)})
    for field, kind in types.items():
        if kind in _TEXT_TYPES and field not in ("item_id", chosen):
            items[field] = _column(table, field)
    return table.with_frame(items)


def _interactions(table: Table) -> Table:
    users = _column(table, "user_id")
    times = pd.to_numeric(_column(table, "timestamp"), errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(times) | (times < 0))
    if len(wrong):
        fix = "write a number that is not negative, for example Unix seconds"
        raise TableError([table.problem(int(row), "timestamp is no time", fix) for row in wrong])
    order = np.lexsort((times, pd.factorize(users)[0]))
    frame = pd.DataFrame({"user_id": users, "item_id": _column(table, "item_id"), "timestamp": times.astype(np.int64)})
    return table.with_frame(frame.iloc[order])
