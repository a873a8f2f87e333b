"""Reader of S3-Rec style sequence files with an item table beside them (the Amazon 2014 benchmarks of the field).

The preprocessing: Zhou et al., "S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual Information
Maximization", CIKM 2020. The reviews: McAuley et al., SIGIR 2015; He and McAuley, WWW 2016.
"""

import ast
from pathlib import Path

import numpy as np
import pandas as pd

from trialign.catalogue import Catalogue
from trialign.tables import Problem, Table, TableError, read_table

#: Columns of items.tsv that become text columns. Out stay `asin` (an identifier), `sales_rank` (it tells the item's
#: popularity, test period included) and `keyphrases` (a model's digest of the other columns; they only fill in titles).
_TEXT = {"description": "description", "brand": "brand", "categories": "category", "price": "price"}


def read_sequences(folder: str | Path, name: str | None = None) -> Catalogue:
    """Read ``sequential.txt`` and ``items.tsv`` as a catalogue.

    A line of ``sequential.txt`` is a user and the user's items, oldest first, separated by spaces; the timestamp of an
    interaction is its position in the line, from 0. ``items.tsv`` has the columns item_id and any of title, keyphrases,
    description, brand, categories, price. An item without a title takes its key phrases for one, and one that has
    neither is called ``item <id>``.

    Parameters
    ----------
    folder
        Holds the two files.
    name
        The catalogue's name; default: the folder's.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a user has two lines or no item, an item is unknown, or the item table breaks its layout.
    """
    folder = Path(folder)
    for file in ("sequential.txt", "items.tsv"):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder / file}: no such file; fix: give a folder with sequential.txt and items.tsv"
            )
    items = _items(folder)
    interactions = _interactions(folder / "sequential.txt", set(items.frame["item_id"]))
    return Catalogue.from_tables(items, interactions, folder, name or folder.resolve().name)


def _items(folder: Path) -> Table:
    table = read_table(folder / "items.tsv")
    if "item_id" not in table.frame:
        raise TableError([Problem("items.tsv", None, "no column 'item_id'", "add it to the header")])
    frame = table.frame
    items = pd.DataFrame({"item_id": frame["item_id"]})
    items["title"] = "item " + frame["item_id"]
    for column in ("keyphrases", "title"):  # the better source last
        if column in frame:
            items["title"] = frame[column].str.strip().where(frame[column].str.strip() != "", items["title"])
    for source, column in _TEXT.items():
        if source in frame:
            items[column] = frame[source].str.strip()
    if "category" in items:
        items["category"] = items["category"].map(_category_path)
    return table.with_frame(items)


def _category_path(text: str) -> str:
    """Return ``Beauty | Makeup`` for ``'Beauty', 'Makeup'``; a text that isn't a list of quoted strings as it is.

    The last category may lack its closing quote in the published files.
    """
    if not text.startswith(("'", '"')):
        return text
    for closing in ("", "'", '"'):
        try:
            parts = ast.literal_eval(f"[{text}{closing}]")
        except (SyntaxError, ValueError):
            continue
        return " | ".join(str(part) for part in parts)
    return text


def _interactions(path: Path, known: set[str]) -> pd.DataFrame:
    users: list[str] = []
    histories: list[list[str]] = []
    lines: list[int] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            user, *history = line.split()
            users.append(user)
            histories.append(history)
            lines.append(number)
    problems = _line_problems(path.name, users, histories, lines, known)
    if problems:
        raise TableError(problems)
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    return pd.DataFrame(
        {
            "user_id": np.repeat(np.array(users, dtype=object), lengths),
            "item_id": [item for history in histories for item in history],
            "timestamp": np.arange(lengths.sum()) - np.repeat(starts, lengths),
        }
    )


def _line_problems(
    file: str, users: list[str], histories: list[list[str]], lines: list[int], known: set[str]
) -> list[Problem]:
    problems, seen = [], set()
    for user, history, line in zip(users, histories, lines):
        if user in seen:
            problems.append(Problem(file, line, f"user {user!r} has a line already", "join the user's lines"))
        if not history:
            problems.append(Problem(file, line, f"user {user!r} has no items", "remove the line"))
        problems += [
            Problem(file, line, f"unknown item {item!r}", "add the item to items.tsv or remove it here")
            for item in history
            if item not in known
        ]
        seen.add(user)
    return problems
