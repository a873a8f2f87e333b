"""Atelier: a catalogue of products made by code, whose truth is known.

Products are drawn and described from attributes: scene, colour, pattern and silhouette are only in the image; brand,
use, feature, tier and origin only in the text; kind and material in both. Users have latent interests over them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from trialign.datasets.atelier.attributes import ATTRIBUTES, KINDS, Attribute, names, sample_attributes
from trialign.datasets.atelier.drawing import contact_sheet, draw_item, draw_items, draw_table
from trialign.datasets.atelier.interests import INTERESTS, Interest, lean, match, true_interests
from trialign.datasets.atelier.texts import write_texts
from trialign.datasets.atelier.users import Habits, k_core, make_histories

__all__ = [
    "ATTRIBUTES",
    "INTERESTS",
    "KINDS",
    "Atelier",
    "Attribute",
    "Habits",
    "Interest",
    "Truth",
    "contact_sheet",
    "draw_item",
    "draw_items",
    "load_truth",
    "make_atelier",
    "names",
]

#: JPEG settings: no colour subsampling keeps the edges of small patterns.
_JPEG: dict[str, Any] = {"quality": 86, "subsampling": 1, "optimize": True}


@dataclass(frozen=True, eq=False)
class Truth:
    """What is really the case in a made catalogue.

    Parameters
    ----------
    items
        item_id, every attribute, interests (list of one to four phrases, strongest first).
    users
        user_id, interests (two or three phrases), drift (a phrase taken up halfway, or "").
    attributes
        By attribute: where it can be seen and its possible values.
    interests
        By interest: where its attributes are ("image", "text" or "both"), what it likes, and that in words.
    """

    items: pd.DataFrame
    users: pd.DataFrame
    attributes: dict[str, Attribute]
    interests: dict[str, dict]

    def attribute_table(self) -> pd.DataFrame:
        """Return the attributes as a table: attribute, where it can be seen, its number of values, and some of them."""
        rows = [
            (name, entry.where, len(entry.values), ", ".join(entry.values[:6]))  # noqa: PD011
            for name, entry in self.attributes.items()
        ]
        table = pd.DataFrame(rows, columns=["attribute", "can be seen in", "values", "for example"])
        return table.sort_values("can be seen in", kind="stable", ignore_index=True)

    @property
    def where(self) -> dict[str, str]:
        """The only place that tells each attribute: ``"image"``, ``"text"`` or ``"both"``."""
        return {name: attribute.where for name, attribute in self.attributes.items()}


@dataclass(frozen=True, eq=False)
class Atelier:
    """A made catalogue.

    Parameters
    ----------
    items
        item_id, title, description, brand, category, image (path relative to the folder, "" without images).
    interactions
        user_id, item_id, timestamp (seconds, int64), ordered by user, then time.
    images
        One RGB picture an item, in the order of `items`; empty if none were drawn.
    truth
        What is really the case.
    """

    items: pd.DataFrame
    interactions: pd.DataFrame
    images: list[Image.Image]
    truth: Truth

    def save(self, folder: str | Path) -> Path:
        """Write the catalogue in the folder format, with its truth in ``truth/``.

        Files that are there already and have the same names are overwritten.

        Returns
        -------
        pathlib.Path
            The folder.
        """
        folder = Path(folder)
        (folder / "truth").mkdir(parents=True, exist_ok=True)
        if self.images:
            (folder / "images").mkdir(exist_ok=True)
            for path, image in zip(self.items["image"], self.images):
                image.save(folder / path, "JPEG", **_JPEG)
        self.items.to_parquet(folder / "items.parquet", index=False)
        self.interactions.to_parquet(folder / "interactions.parquet", index=False)
        _write(folder / "catalogue.json", {"name": "atelier", "images_root": "."})
        self.truth.items.to_parquet(folder / "truth" / "items.parquet", index=False)
        self.truth.users.to_parquet(folder / "truth" / "users.parquet", index=False)
        known = {name: {"where": a.where, "values": list(a.values)} for name, a in self.truth.attributes.items()}
        _write(folder / "truth" / "attributes.json", known)
        _write(folder / "truth" / "interests.json", self.truth.interests)
        return folder


def make_atelier(
    items: int = 480,
    users: int = 1200,
    seed: int = 7,
    *,
    visual_share: float = 0.5,
    mean_length: float = 11.5,
    noise: float = 0.1,
    image_size: int = 224,
    images: bool = True,
    threads: int = 2,
) -> Atelier:
    """Make a catalogue: products with pictures and texts, users with interests, and their histories.

    The result is a 5-core: items and users with fewer than five interactions are left out, so slightly fewer than asked
    for may remain.

    Parameters
    ----------
    items, users
        How many of each to make.
    seed
        The same seed gives the same tables to the byte, and the same pictures with one version of Pillow and NumPy.
    visual_share
        Share (0-1) of users' preference that goes to attributes that only the image shows.
    mean_length
        Mean length of a history (6-25); lower is sparser.
    noise
        Share (0-1) of choices that follow only popularity.
    image_size
        Side of the pictures in pixels.
    images
        Whether to draw them.
    threads
        Number of processes that draw.

    Returns
    -------
    Atelier
        The catalogue, its pictures and its truth.

    Raises
    ------
    ValueError
        Where a knob is out of range, or no 5-core remains.
    """
    if items < 1 or users < 1:
        raise ValueError(f"items is {items} and users is {users}; both must be at least 1")
    if image_size < 32:
        raise ValueError(f"image_size is {image_size}; products need at least 32 pixels")
    # One source of chance for each part: a change of one knob leaves the other parts as they are.
    for_items, for_texts, for_users = (np.random.default_rng((seed, part)) for part in range(3))
    attributes = sample_attributes(items, for_items, lean)
    matched = match(attributes)
    habits = Habits(visual_share=visual_share, mean_length=mean_length, noise=noise)
    history, people = make_histories(attributes, matched, users, habits, for_users)
    history = k_core(history)
    if history.empty:
        raise ValueError(f"no 5-core remains of {items} items and {users} users; make more users or longer histories")
    kept = np.sort(history["item"].unique())
    ids = pd.Series([f"A{row + 1:05d}" for row in range(items)])
    texts = write_texts(attributes, for_texts)
    pictures = draw_table(attributes, seed, image_size, threads) if images else []
    table = texts.assign(image=ids.map(lambda item: f"images/{item}.jpg") if images else "")
    table.insert(0, "item_id", ids)
    truth_items = attributes.assign(interests=true_interests(matched))
    truth_items.insert(0, "item_id", ids)
    interactions = pd.DataFrame(
        {
            "user_id": [_user_id(user) for user in history["user"]],
            "item_id": ids[history["item"]].to_numpy(),
            "timestamp": history["timestamp"].to_numpy(),
        }
    )
    return Atelier(
        table.loc[kept].reset_index(drop=True),
        interactions,
        [pictures[row] for row in kept] if images else [],
        Truth(truth_items.loc[kept].reset_index(drop=True), _people(people, history), ATTRIBUTES, _interest_table()),
    )


def load_truth(folder: str | Path) -> Truth:
    """Read the truth of a catalogue that `Atelier.save` wrote.

    Parameters
    ----------
    folder
        The catalogue's folder.

    Raises
    ------
    FileNotFoundError
        Where the folder holds no truth, as for all real catalogues.
    """
    truth = Path(folder) / "truth"
    if not (truth / "items.parquet").is_file():
        raise FileNotFoundError(
            f"{truth / 'items.parquet'} is missing: only catalogues that `python -m trialign.datasets.atelier --out "
            f"{folder}` makes have a truth"
        )
    known = json.loads((truth / "attributes.json").read_text(encoding="utf-8"))
    return Truth(
        _with_lists(pd.read_parquet(truth / "items.parquet")),
        _with_lists(pd.read_parquet(truth / "users.parquet")),
        {name: Attribute(entry["where"], tuple(entry["values"])) for name, entry in known.items()},
        json.loads((truth / "interests.json").read_text(encoding="utf-8")),
    )


def _user_id(user: int) -> str:
    return f"U{user + 1:05d}"


def _people(people: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    kept = people[people["user"].isin(history["user"])].reset_index(drop=True)
    kept.insert(0, "user_id", [_user_id(user) for user in kept["user"]])
    return kept.drop(columns="user")


def _interest_table() -> dict[str, dict]:
    return {
        phrase: {
            "where": interest.where,
            "description": interest.description(),
            "likes": {
                name: {"weight": weight, "values": list(values)}
                for name, (weight, values) in {**interest.seen, **interest.read}.items()
            },
        }
        for phrase, interest in INTERESTS.items()
    }


def _with_lists(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(interests=[list(phrases) for phrases in table["interests"]])


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
