"""A catalogue: items, their images and the interactions of users with them, read from and written to a folder."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int
from PIL import Image

from trialign.folder_format import (
    clean_interactions,
    clean_items,
    image_problems,
    ordered,
    read_folder,
    table_problems,
)
from trialign.images import ImageFolder, open_rgb
from trialign.split import Split, leave_one_out
from trialign.tables import SUFFIXES, Problem, Table, TableError, text_frame

__all__ = ["Catalogue", "FolderCheck", "Split", "check_folder", "leave_one_out"]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items with text and images, and the interactions of users with them.

    The tables are trusted as they are; `from_tables` and `load` check, clean and order them first.

    Parameters
    ----------
    items
        One row an item, RangeIndex: `item_id`, `title`, any text columns (usually description, brand, category), and
        `image`, a path relative to `root`. All strings, "" where there is none. The row number is what an item is
        called inside the package.
    interactions
        `user_id` and `item_id` (strings), `timestamp` (int64, any unit); users in the order of their first appearance,
        each user's rows by timestamp, ties in the order of the file.
    root
        The folder that image paths are relative to.
    name
        The catalogue's name.
    """

    items: pd.DataFrame
    interactions: pd.DataFrame
    root: Path
    name: str

    @classmethod
    def load(cls, folder: str | Path, name: str | None = None) -> "Catalogue":
        """Read a folder in the catalogue format.

        Parameters
        ----------
        folder
            Holds ``items.parquet|csv|tsv``, ``interactions.parquet|csv|tsv``, usually ``images/``, and maybe
            ``catalogue.json`` with the keys ``name`` and ``images_root``.
        name
            The catalogue's name; default: that of ``catalogue.json``, else the folder's.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        ValueError
            If a table is missing or breaks the format, or an image is missing or outside the folder. The message names
            file, line and fix of the first ten problems. `check_folder` lists all, and also decodes the images.
        """
        content = read_folder(Path(folder))
        problems = content.problems
        if content.items is not None:
            problems = problems + image_problems(content.items, content.root, decode=False)
        if problems or content.items is None or content.interactions is None:
            raise TableError(list(ordered(problems)))
        return cls(
            clean_items(content.items),
            _in_order(clean_interactions(content.interactions)),
            content.root,
            content.name if name is None else name,
        )

    @classmethod
    def from_tables(
        cls, items: pd.DataFrame | Table, interactions: pd.DataFrame | Table, root: str | Path, name: str
    ) -> "Catalogue":
        """Check, clean and order two tables, and make a catalogue of them.

        Parameters
        ----------
        items
            With at least `item_id` and `title`; other values become text, null becomes "". A `Table` tells the file and
            lines that messages name.
        interactions
            With `user_id`, `item_id` and `timestamp`.
        root
            The folder that image paths are relative to.
        name
            The catalogue's name.

        Raises
        ------
        ValueError
            If the tables break the catalogue format; the message names table, row (from 1) and fix.
        """
        first = items if isinstance(items, Table) else Table(text_frame(items), "items")
        second = interactions if isinstance(interactions, Table) else Table(text_frame(interactions), "interactions")
        problems = table_problems(first, second)
        if not problems:
            problems = image_problems(first, Path(root), decode=False)
        if problems:
            raise TableError(list(ordered(problems)))
        return cls(clean_items(first), _in_order(clean_interactions(second)), Path(root), name)

    def save(self, folder: str | Path, copy_images: bool = False) -> Path:
        """Write the catalogue as a folder: ``items.parquet``, ``interactions.parquet`` and ``catalogue.json``.

        Parameters
        ----------
        folder
            Made if need be.
        copy_images
            Copy the images too, which makes the folder whole by itself. Otherwise ``catalogue.json`` points to where
            they lie now.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ValueError
            If the folder already holds CSV or TSV tables, which would leave two tables of each kind.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for stem in ("items", "interactions"):
            for suffix in SUFFIXES[1:]:
                if (folder / f"{stem}{suffix}").exists():
                    raise ValueError(f"{folder / stem}{suffix}: already there; fix: save into another folder")
        self.items.to_parquet(folder / "items.parquet", index=False)
        self.interactions.to_parquet(folder / "interactions.parquet", index=False)
        if copy_images:
            for row in np.flatnonzero(self.items["image"] != ""):
                self._copy_image(int(row), folder)
        here = copy_images or not (self.items["image"] != "").any() or folder.resolve() == self.root.resolve()
        settings = {"name": self.name, "images_root": "." if here else str(self.root.resolve())}
        (folder / "catalogue.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        return folder

    def _copy_image(self, row: int, folder: Path) -> None:
        source, target = self.image_path(row), folder / str(self.items["image"].iloc[row])
        if source is not None and source.resolve() != target.resolve():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    @property
    def n_items(self) -> int:
        """Number of items, those without interactions included."""
        return len(self.items)

    @property
    def n_users(self) -> int:
        """Number of users with at least one interaction."""
        return int(self.interactions["user_id"].nunique())

    @property
    def titles(self) -> list[str]:
        """Titles by row."""
        return self.items["title"].tolist()

    @property
    def text_columns(self) -> list[str]:
        """Names of the text columns beside the title, in the table's order."""
        return [column for column in self.items.columns if column not in ("item_id", "title", "image")]

    def groups(self) -> list[str]:
        """Return a coarse group of each item, by row, to colour figures with.

        It is the first part of the category ("Kitchen" of "Kitchen > Mugs"); where nearly all items share that, as in
        a catalogue of beauty products, the next part. Items without a category are in the group "".
        """
        if "category" not in self.items:
            return [""] * self.n_items
        paths = [re.split(r"\s*[>|,]\s*", category) for category in self.items["category"]]
        for depth in range(max(map(len, paths))):
            groups = [path[min(depth, len(path) - 1)] for path in paths]
            if Counter(groups).most_common(1)[0][1] < 0.9 * len(groups):
                return groups
        return [path[0] for path in paths]

    def rows(self, item_ids: Sequence[str] | pd.Series) -> Int[np.ndarray, " ids"]:
        """Return the row of each item id, int64.

        Raises
        ------
        ValueError
            Naming ids that are not in the catalogue.
        """
        ids = pd.Index(item_ids, dtype="str")
        rows = self._index.get_indexer(ids)
        if (rows < 0).any():
            unknown = ids[rows < 0][:5].tolist()
            raise ValueError(f"{(rows < 0).sum()} ids are not in the catalogue {self.name!r}, for example {unknown}")
        return rows.astype(np.int64)

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.items["item_id"])

    @cached_property
    def _images(self) -> ImageFolder:
        return ImageFolder(self.root)

    def image_path(self, row: int) -> Path | None:
        """Return the path of an item's image, None where it has none.

        Raises
        ------
        FileNotFoundError
            If the file is gone.
        ValueError
            If the path leaves the catalogue's folder.
        """
        relative = self.items["image"].iloc[row]
        return self._images.resolve(relative) if relative else None

    def open_image(self, row: int) -> Image.Image | None:
        """Return an item's image, decoded, upright, RGB; None where it has none.

        Raises
        ------
        FileNotFoundError
            If the file is gone.
        ValueError
            If it is no readable image, or one beyond Pillow's decompression bomb limit.
        """
        path = self.image_path(row)
        return None if path is None else open_rgb(path)

    def select(self, rows: Sequence[int] | Int[np.ndarray, " rows"]) -> "Catalogue":
        """Return the catalogue of some items, in the given order, with the interactions on them.

        Raises
        ------
        ValueError
            If a row is given twice.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        if len(np.unique(chosen)) != len(chosen):
            raise ValueError("an item is selected twice; fix: give every row once")
        items = self.items.iloc[chosen].reset_index(drop=True)
        kept = self.interactions["item_id"].isin(items["item_id"])
        return Catalogue(items, self.interactions[kept].reset_index(drop=True), self.root, self.name)

    def with_images(self) -> "Catalogue":
        """Return the catalogue of the items that have an image."""
        return self.select(np.flatnonzero(self.items["image"] != ""))

    def k_core(self, k: int) -> "Catalogue":
        """Return the largest part in which every user and every item has at least `k` interactions.

        Users and items below `k` are removed in turns until none is left. Repeated interactions count each time.

        Raises
        ------
        ValueError
            If `k` is below 1 or nothing is left.
        """
        if k < 1:
            raise ValueError(f"k is {k}; fix: give at least 1")
        users, _ = pd.factorize(self.interactions["user_id"])
        items = self.rows(self.interactions["item_id"])
        alive = np.ones(len(items), dtype=bool)
        left = -1
        while left != alive.sum():
            left = alive.sum()
            for codes in (users, items):
                alive &= np.bincount(codes[alive], minlength=codes.max(initial=-1) + 1)[codes] >= k
        if not left:
            raise ValueError(f"the {k}-core of {self.name!r} is empty; fix: give a smaller k")
        core = Catalogue(self.items, self.interactions[alive].reset_index(drop=True), self.root, self.name)
        return core.select(np.unique(items[alive]))

    def statistics(self) -> pd.Series:
        """Return counts and shares: items, users, interactions, density, histories, items with image and text."""
        lengths = self.interactions["user_id"].value_counts()
        cells = self.n_items * self.n_users
        figures: dict[str, float] = {
            "items": self.n_items,
            "users": self.n_users,
            "interactions": len(self.interactions),
            "density": len(self.interactions) / cells if cells else float("nan"),
            "mean history": lengths.mean(),
            "median history": lengths.median(),
            "shortest history": lengths.min(),
            "longest history": lengths.max(),
            "items without interactions": self.n_items - self.interactions["item_id"].nunique(),
        }
        for column in ["image", *self.text_columns]:
            figures[f"share with {column}"] = float((self.items[column] != "").mean())
        return pd.Series(figures, name=self.name, dtype=float)


def _in_order(interactions: pd.DataFrame) -> pd.DataFrame:
    users, _ = pd.factorize(interactions["user_id"])
    order = np.lexsort((interactions["timestamp"].to_numpy(), users))  # stable: ties keep the order of the file
    return interactions.iloc[order].reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class FolderCheck:
    """What `check_folder` found.

    Attributes
    ----------
    folder
        The folder.
    problems
        All problems, by file and line.
    statistics
        Those of the catalogue, None while there are problems.
    """

    folder: Path
    problems: list[Problem]
    statistics: pd.Series | None

    def table(self) -> pd.DataFrame:
        """Return the problems as a table: file, row, problem, fix."""
        rows = [(problem.file, problem.row, problem.problem, problem.fix) for problem in self.problems]
        frame = pd.DataFrame(rows, columns=["file", "row", "problem", "fix"])
        return frame.astype({"row": "Int64"})

    def raise_problems(self) -> None:
        """Raise all problems as one ValueError; do nothing if there are none."""
        if self.problems:
            raise TableError(self.problems, shown=len(self.problems))


def check_folder(folder: str | Path, progress: bool = True) -> FolderCheck:
    """Look for everything that is wrong with a catalogue folder, decoding every image.

    Parameters
    ----------
    folder
        A folder in the catalogue format.
    progress
        Show a progress bar over the images.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    folder = Path(folder)
    content = read_folder(folder)
    problems = list(content.problems)
    if content.items is not None:
        problems += image_problems(content.items, content.root, decode=True, progress=progress)
    return FolderCheck(folder, list(ordered(problems)), None if problems else Catalogue.load(folder).statistics())
