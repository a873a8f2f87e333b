"""What exists in the atelier: its attributes, where each can be seen, and which values suit which kind of product."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Attribute:
    """One property that every product has.

    Parameters
    ----------
    where
        The only place that tells it: the ``"image"``, the ``"text"``, or ``"both"``.
    values
        Its possible values, as natural words.
    """

    where: Literal["image", "text", "both"]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """What a kind of product may be made of, be used for and be good at.

    Parameters
    ----------
    category
        Where a shop would list it, from general to special.
    materials, uses, features
        The values of those attributes that make sense for it.
    """

    category: str
    materials: tuple[str, ...]
    uses: tuple[str, ...]
    features: tuple[str, ...]


#: The kinds of product, with what each may be.
KINDS: dict[str, Kind] = {
    "mug": Kind(
        "Kitchen > Mugs",
        ("ceramic", "metal", "wood"),
        ("breakfast", "desk work", "travel", "camping", "gifting"),
        ("dishwasher safe", "insulated", "handmade", "fair trade", "lightweight"),
    ),
    "bowl": Kind(
        "Kitchen > Bowls",
        ("ceramic", "wood", "glass", "metal"),
        ("breakfast", "entertaining", "family life", "camping", "gifting"),
        ("dishwasher safe", "handmade", "fair trade", "recycled", "lightweight"),
    ),
    "bottle": Kind(
        "Kitchen > Bottles",
        ("glass", "metal", "ceramic"),
        ("workouts", "travel", "camping", "desk work", "family life"),
        ("dishwasher safe", "insulated", "lightweight", "recycled", "waterproof"),
    ),
    "lamp": Kind(
        "Home > Lamps",
        ("metal", "ceramic", "wicker", "wood"),
        ("reading", "desk work", "entertaining", "family life"),
        ("rechargeable", "handmade", "fair trade", "repairable", "recycled"),
    ),
    "chair": Kind(
        "Home > Chairs",
        ("wood", "metal", "wicker", "leather"),
        ("reading", "desk work", "entertaining", "camping", "family life"),
        ("foldable", "handmade", "repairable", "recycled", "fair trade", "lightweight"),
    ),
    "cushion": Kind(
        "Home > Cushions",
        ("cotton", "linen", "wool", "leather"),
        ("reading", "family life", "entertaining", "gifting", "travel"),
        ("machine washable", "handmade", "fair trade", "vegan", "recycled"),
    ),
    "clock": Kind(
        "Home > Clocks",
        ("wood", "metal", "ceramic"),
        ("desk work", "reading", "gifting", "travel", "family life"),
        ("rechargeable", "repairable", "handmade", "recycled", "lightweight"),
    ),
    "plant": Kind(
        "Home > Plants",
        ("ceramic", "wood", "metal", "wicker"),
        ("gifting", "desk work", "entertaining", "family life"),
        ("fair trade", "handmade", "recycled", "repairable", "lightweight"),
    ),
    "shirt": Kind(
        "Clothing > Shirts",
        ("cotton", "linen", "wool"),
        ("travel", "workouts", "entertaining", "camping", "gifting"),
        ("machine washable", "fair trade", "vegan", "recycled", "lightweight"),
    ),
    "hat": Kind(
        "Clothing > Hats",
        ("wool", "cotton", "wicker"),
        ("travel", "camping", "workouts", "gifting"),
        ("foldable", "waterproof", "handmade", "vegan", "lightweight", "fair trade"),
    ),
    "sneaker": Kind(
        "Clothing > Sneakers",
        ("cotton", "leather", "wool"),
        ("workouts", "travel", "camping", "family life"),
        ("waterproof", "machine washable", "vegan", "repairable", "lightweight", "recycled"),
    ),
    "bag": Kind(
        "Accessories > Bags",
        ("leather", "cotton", "wicker"),
        ("travel", "workouts", "desk work", "family life", "camping"),
        ("waterproof", "foldable", "vegan", "repairable", "fair trade", "recycled"),
    ),
    "headphones": Kind(
        "Electronics > Headphones",
        ("metal", "leather", "wood"),
        ("travel", "workouts", "desk work", "reading"),
        ("noise cancelling", "rechargeable", "foldable", "waterproof", "repairable", "lightweight"),
    ),
    "notebook": Kind(
        "Stationery > Notebooks",
        ("leather", "linen", "cotton"),
        ("desk work", "travel", "reading", "gifting"),
        ("recycled", "handmade", "vegan", "fair trade", "waterproof", "lightweight"),
    ),
}

#: Every attribute of a product. Values in the image never appear in a text, and the other way round.
ATTRIBUTES: dict[str, Attribute] = {
    "kind": Attribute("both", tuple(KINDS)),
    "material": Attribute(
        "both", ("ceramic", "wood", "metal", "glass", "leather", "cotton", "linen", "wool", "wicker")
    ),
    "colour": Attribute(
        "image",
        (
            "white",
            "charcoal",
            "navy",
            "sky blue",
            "teal",
            "forest green",
            "sage",
            "mustard",
            "terracotta",
            "coral",
            "blush pink",
            "lavender",
        ),
    ),
    "pattern": Attribute("image", ("plain", "stripes", "dots", "checks", "floral", "terrazzo", "waves", "chevron")),
    "scene": Attribute(
        "image",
        ("studio", "sunlit wall", "wooden shelf", "cosy room", "garden", "beach", "mountains", "night city"),
    ),
    "silhouette": Attribute("image", ("slender", "rounded", "angular")),
    "brand": Attribute(
        "text",
        (
            "Maren & Loft",
            "Osterby",
            "Kitsumi",
            "Casa Verano",
            "Tallow & Pine",
            "Northbound",
            "Lumiva",
            "Paperhaus",
            "Hartwell",
            "Nomad Union",
        ),
    ),
    "use": Attribute(
        "text",
        (
            "breakfast",
            "desk work",
            "travel",
            "camping",
            "gifting",
            "entertaining",
            "family life",
            "workouts",
            "reading",
        ),
    ),
    "feature": Attribute(
        "text",
        (
            "dishwasher safe",
            "insulated",
            "handmade",
            "fair trade",
            "lightweight",
            "recycled",
            "waterproof",
            "rechargeable",
            "repairable",
            "foldable",
            "machine washable",
            "vegan",
            "noise cancelling",
        ),
    ),
    "tier": Attribute("text", ("budget", "mid-range", "luxury")),
    "origin": Attribute("text", ("Portugal", "Japan", "Denmark", "Mexico", "India", "Italy", "Scotland", "Morocco")),
}

#: How often a value is drawn where nothing pulls: plain things and mid-range prices are common, as in a shop.
_COMMON: dict[str, float] = {"plain": 2.5, "mid-range": 1.6, "studio": 1.3}

#: The values that a product leans to, by attribute, and how likely an attribute follows.
Leaning = dict[str, tuple[str, ...]]
_PULL = 0.65

#: Materials and features that no product has together.
_CONTRADICTIONS = {
    ("wool", "vegan"),
    ("wool", "waterproof"),
    ("leather", "machine washable"),
    ("wood", "dishwasher safe"),
    ("wicker", "waterproof"),
    ("ceramic", "lightweight"),
}


def names(*where: str) -> list[str]:
    """Return the names of the attributes that are seen in one of the given places."""
    return [name for name, attribute in ATTRIBUTES.items() if attribute.where in where]


def allowed(attribute: str, kind: str, material: str = "") -> tuple[str, ...]:
    """Return the values of an attribute that suit a kind of product (and its material: no wool is vegan)."""
    of_kind = KINDS[kind]
    features = tuple(feature for feature in of_kind.features if (material, feature) not in _CONTRADICTIONS)
    special = {"material": of_kind.materials, "use": of_kind.uses, "feature": features, "kind": (kind,)}
    return special.get(attribute, ATTRIBUTES[attribute].values)


def sample_attributes(
    n: int, rng: np.random.Generator, lean: Callable[[str, np.random.Generator], Leaning] | None = None
) -> pd.DataFrame:
    """Draw the attributes of products.

    Kinds come in equal shares, in random order. Without leaning the other attributes are independent given the kind,
    except that a feature must also suit the material.

    Parameters
    ----------
    n
        Number of products.
    rng
        Source of chance.
    lean
        From a kind and the source of chance to the values that a product of this kind leans to; None for no leaning.

    Returns
    -------
    pandas.DataFrame
        One row a product, one column an attribute of `ATTRIBUTES`.
    """
    kinds = rng.permutation(np.resize(np.array(list(KINDS)), n)).tolist()
    rows = [_product(kind, lean(kind, rng) if lean else {}, rng) for kind in kinds]
    return pd.DataFrame(rows, columns=list(ATTRIBUTES))


def _product(kind: str, leaning: Leaning, rng: np.random.Generator) -> dict[str, str]:
    row = {"kind": kind}
    for name in list(ATTRIBUTES)[1:]:
        values = allowed(name, kind, row.get("material", ""))
        liked = tuple(value for value in leaning.get(name, ()) if value in values)
        if liked and rng.random() < _PULL:
            values = liked
        weights = np.array([_COMMON.get(value, 1.0) for value in values])
        row[name] = values[rng.choice(len(values), p=weights / weights.sum())]
    return row
