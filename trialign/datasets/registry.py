"""The named catalogues, the folders they are looked for in, and the layout of any other folder."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trialign.catalogue import Catalogue
from trialign.datasets.amazon2023 import read_amazon2023
from trialign.datasets.movielens import read_movielens
from trialign.datasets.recbole import read_recbole
from trialign.datasets.sequences import read_sequences
from trialign.tables import SUFFIXES

_PROJECT = Path(__file__).resolve().parents[2]


def _movielens_posters(folder: Path, name: str) -> Catalogue:
    return read_movielens(folder, only_posters=True, name=name).k_core(5)


def _movielens_small(folder: Path, name: str) -> Catalogue:
    return read_movielens(folder, name=name).k_core(5)


@dataclass(frozen=True)
class Entry:
    """A named catalogue: its folder below a data root, how it is read, and what a reader should know of it."""

    folder: str
    read: Callable[[Path, str], Catalogue]
    items: int
    purpose: str
    source: str


#: Items of the public sets are those of the files described in data/README.md; other files may hold others.
ENTRIES = {
    "atelier": Entry(
        "atelier",
        Catalogue.load,
        467,
        "drawn products whose truth is known: the offline default, and the yardstick of every claim",
        "ships with the project",
    ),
    "movielens-posters": Entry(
        "movielens_posters",
        _movielens_posters,
        3633,
        "films with posters and overviews, 5-core: real images and real histories",
        "bring the folder yourself: posters can't be redistributed",
    ),
    "movielens-small": Entry(
        "ml-latest-small",
        _movielens_small,
        3650,
        "films with title and genres, 5-core: no images",
        "trialign data get movielens-small",
    ),
    "amazon-beauty": Entry(
        "amazon_beauty",
        read_sequences,
        12101,
        "the field's benchmark (2014, 5-core), to stand beside published tables; text only",
        "bring the folder yourself",
    ),
    "amazon-sports": Entry(
        "amazon_sports",
        read_sequences,
        18357,
        "the same, larger; key phrases stand in for titles",
        "bring the folder yourself",
    ),
    "amazon-office": Entry(
        "amazon_office",
        read_sequences,
        2420,
        "the same, small, with descriptions: quick experiments",
        "bring the folder yourself",
    ),
}


def data_root(root: str | Path | None = None) -> list[Path]:
    """Return the folders in which named catalogues are looked for, first match first.

    They are `root`, the folders of the environment variable ``TRIALIGN_DATA`` (separated as in ``PATH``), the project's
    ``data/``, ``data/`` of the working directory, and ``shared/data`` beside the project; those that exist.

    Parameters
    ----------
    root
        A folder to look in first.

    Raises
    ------
    FileNotFoundError
        If `root` or a folder of ``TRIALIGN_DATA`` does not exist.
    """
    named = [] if root is None else [("root", Path(root))]
    listed = os.environ.get("TRIALIGN_DATA", "")
    named += [("TRIALIGN_DATA", Path(part)) for part in listed.split(os.pathsep) if part]
    for origin, folder in named:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; fix: correct {origin}")
    usual = [_PROJECT / "data", Path("data"), _PROJECT.parent / "shared" / "data"]
    candidates = [folder.resolve() for _, folder in named] + [folder.resolve() for folder in usual]
    return [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]


def find(name: str, root: str | Path | None = None) -> Path | None:
    """Return the folder of a named catalogue, None where it is in none of the data roots."""
    for base in data_root(root):
        folder = base / ENTRIES[name].folder
        if folder.is_dir():
            return folder
    return None


def load(name_or_folder: str | Path, root: str | Path | None = None) -> Catalogue:
    """Load a catalogue by name, or from a folder in the catalogue format or any of the public layouts.

    Parameters
    ----------
    name_or_folder
        A name of `available`, or a folder that holds ``items.*`` and ``interactions.*`` (the catalogue format),
        ``movies.csv`` and ``ratings.csv`` (MovieLens), ``items.tsv`` and ``sequential.txt`` (S3-Rec style), ``*.inter``
        and ``*.item`` (RecBole) or ``<Category>.jsonl[.gz]`` and ``meta_<Category>.jsonl[.gz]`` (Amazon Reviews 2023).
    root
        A folder to look in first for names; see `data_root`.

    Raises
    ------
    FileNotFoundError
        If the name's folder is nowhere, or there is neither such a name nor such a folder.
    ValueError
        If the folder has none of these layouts, or its content breaks its layout.
    """
    name = str(name_or_folder)
    if name in ENTRIES:
        folder = find(name, root)
        if folder is None:
            searched = ", ".join(str(base) for base in data_root(root))
            entry = ENTRIES[name]
            raise FileNotFoundError(
                f"{name}: no folder {entry.folder!r} in {searched}; fix: {entry.source}, or set TRIALIGN_DATA"
            )
        return ENTRIES[name].read(folder, name)
    folder = Path(name_or_folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: neither a folder nor one of {', '.join(ENTRIES)}; fix: correct the name")
    return layout(folder)(folder, folder.resolve().name)


def layout(folder: Path) -> Callable[[Path, str], Catalogue]:
    """Return the reader that fits a folder's files.

    Raises
    ------
    ValueError
        If none does.
    """
    names = {path.name for path in folder.iterdir()}
    endings = {ending for name in names for ending in (".inter", ".item") if name.endswith(ending)}
    if any(f"interactions{suffix}" in names for suffix in SUFFIXES):
        return Catalogue.load
    if {"movies.csv", "ratings.csv"} <= names:
        return _movielens_any
    if {"items.tsv", "sequential.txt"} <= names:
        return read_sequences
    if endings == {".inter", ".item"}:
        return read_recbole
    if any(name.startswith("meta_") and ".jsonl" in name for name in names):
        return read_amazon2023
    if any(f"items{suffix}" in names for suffix in SUFFIXES):
        return Catalogue.load  # its error names the interactions table that is missing
    raise ValueError(
        f"{folder}: no known layout; fix: add items.csv (item_id, title, ...) and interactions.csv (user_id, item_id, "
        "timestamp), see data/README.md"
    )


def _movielens_any(folder: Path, name: str) -> Catalogue:
    return read_movielens(folder, name=name)


def available(root: str | Path | None = None) -> pd.DataFrame:
    """Return the named catalogues: name, items, found (bool), folder, purpose, source.

    Parameters
    ----------
    root
        A folder to look in first; see `data_root`.
    """
    rows = []
    for name, entry in ENTRIES.items():
        folder = find(name, root)
        found = folder is not None
        rows.append((name, entry.items, found, str(folder) if found else "", entry.purpose, entry.source))
    return pd.DataFrame(rows, columns=["name", "items", "found", "folder", "purpose", "source"])
