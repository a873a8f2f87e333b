"""Reader of the MovieLens layout (ml-latest and ml-latest-small), with posters and overviews where they lie beside it.

The data set: Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from trialign.catalogue import Catalogue
from trialign.tables import Problem, Table, TableError, read_table

#: What MovieLens writes for a film without genres.
_NO_GENRES = "(no genres listed)"

#: Columns of items.tsv and the text columns they become. `user_tags` stay out: the users whose ratings are to be
#: predicted wrote them, at the time of rating.
_RICH = {"overview": "description", "director": "director", "plot_keywords": "keywords"}


def read_movielens(folder: str | Path, only_posters: bool = False, name: str | None = None) -> Catalogue:
    """Read MovieLens files as a catalogue; every rating, high or low, is an interaction.

    ``movies.csv`` gives title (as published, with the year), genres (as category) and year; ``ratings.csv`` gives the
    interactions.
    Where there is an ``items.tsv`` (movieId, overview, director, plot_keywords, poster) it adds description, director,
    keywords and the image. A user's ratings are ordered by (timestamp, movieId), since many share a second.

    Parameters
    ----------
    folder
        Holds ``movies.csv`` and ``ratings.csv``, maybe ``items.tsv`` and ``posters/``.
    only_posters
        Keep only films with a poster.
    name
        The catalogue's name; default: the folder's.

    Raises
    ------
    FileNotFoundError
        If ``movies.csv`` or ``ratings.csv`` is missing.
    ValueError
        If a table breaks its layout, or `only_posters` is asked of a folder without ``items.tsv``.
    """
    folder = Path(folder)
    catalogue = Catalogue.from_tables(_films(folder), _ratings(folder), folder, name or folder.resolve().name)
    if not only_posters:
        return catalogue
    if not (catalogue.items["image"] != "").any():
        raise ValueError(f"{folder}: no film has a poster; fix: add items.tsv with a column 'poster', and posters/")
    return catalogue.with_images()


def _read(folder: Path, file: str, columns: tuple[str, ...]) -> Table:
    if not (folder / file).is_file():
        raise FileNotFoundError(f"{folder / file}: no such file; fix: give a folder with movies.csv and ratings.csv")
    table = read_table(folder / file)
    missing = [column for column in columns if column not in table.frame]
    if missing:
        raise TableError([Problem(file, None, f"no column {missing[0]!r}", "take the file as MovieLens publishes it")])
    return table


def _films(folder: Path) -> Table:
    table = _read(folder, "movies.csv", ("movieId", "title", "genres"))
    movies = table.frame
    items = pd.DataFrame(
        {
            "item_id": movies["movieId"],
            "title": movies["title"].str.strip(),
            "description": "",
            "category": movies["genres"].replace(_NO_GENRES, "").str.replace("|", " | ", regex=False),
            "year": movies["title"].str.extract(r"\((\d{4})\)\s*$")[0].fillna(""),
            "image": "",
        }
    )
    if (folder / "items.tsv").is_file():
        rich = _read(folder, "items.tsv", ("movieId", "poster", *_RICH)).frame.drop_duplicates("movieId")
        rich = rich.set_index("movieId").reindex(items["item_id"]).fillna("").reset_index(drop=True)
        for source, column in _RICH.items():
            items[column] = rich[source].str.replace(r"\s*\|\s*", " | ", regex=True)
        items["image"] = rich["poster"]
    return table.with_frame(items)


def _ratings(folder: Path) -> Table:
    table = _read(folder, "ratings.csv", ("userId", "movieId", "timestamp"))
    columns = {"userId": "user_id", "movieId": "item_id", "timestamp": "timestamp"}
    ratings = table.frame[list(columns)].rename(columns=columns)
    films = pd.to_numeric(ratings["item_id"], errors="coerce")
    users, _ = pd.factorize(ratings["user_id"])
    return table.with_frame(ratings.iloc[np.lexsort((films, users))])  # ties in time are then in order of movieId
