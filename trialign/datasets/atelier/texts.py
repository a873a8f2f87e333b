"""Titles and descriptions: they tell what only texts tell, and never what only pictures show."""

import numpy as np
import pandas as pd

from trialign.datasets.atelier.attributes import KINDS

# fmt: off
_HEADS = (
    "Hal", "Bren", "Os", "Tor", "Mar", "El", "Vin", "Sol", "Kes", "Ar", "Lin", "Dal", "Fen", "Nor", "Wes", "Al", "Ber",
    "Cam", "Dor", "Ev", "Gar", "Hol", "Is", "Jor", "Kar", "Lor", "Mor", "Ner", "Or", "Pel", "Quin", "Ros", "Sel",
    "Tal", "Ul", "Ver", "Wil", "Yar", "Zan", "Bal",
)
_TAILS = (
    "den", "ley", "mar", "by", "ton", "wick", "ra", "sund", "holm", "vik", "mere", "ford", "ano", "ella", "is", "une",
    "do", "stead", "lund", "ria", "ham", "eno", "ette", "gard",
)
# fmt: on

#: How a use is said before a noun.
_FOR = {
    "breakfast": "breakfast",
    "desk work": "desk",
    "travel": "travel",
    "camping": "camping",
    "gifting": "gift",
    "entertaining": "party",
    "family life": "family",
    "workouts": "training",
    "reading": "reading",
}

#: The noun of a title and the measures that follow it; none where there is nothing to measure.
_NOUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mug": ("mug", ("250 ml", "300 ml", "350 ml", "400 ml")),
    "bowl": ("bowl", ("16 cm", "20 cm", "24 cm", "28 cm")),
    "bottle": ("bottle", ("500 ml", "600 ml", "750 ml", "1 l")),
    "lamp": ("lamp", ("32 cm", "38 cm", "45 cm", "LED")),
    "chair": ("chair", ("", "set of two", "assembled")),
    "cushion": ("cushion", ("40 cm", "45 cm", "50 cm", "feather-free filling")),
    "clock": ("clock", ("silent movement", "quartz", "with alarm")),
    "plant": ("plant", ("12 cm pot", "14 cm pot", "17 cm pot")),
    "shirt": ("shirt", ("unisex", "relaxed fit", "regular fit")),
    "hat": ("hat", ("one size", "S to XL", "packable")),
    "sneaker": ("sneakers", ("unisex", "sizes 36 to 46", "wide fit")),
    "bag": ("bag", ("12 l", "16 l", "20 l", "24 l")),
    "headphones": ("headphones", ("wireless", "30 h battery", "wired")),
    "notebook": ("notebook", ("A5, 192 pages", "A6, 128 pages", "B5, 160 pages", "ruled")),
}

# The first sentence says what it is, the others what it is for, what it costs and where it comes from.
_OPENINGS = (
    "{A_thing} for {use}.",
    "The {model} is {a_thing} for {use}.",
    "{A_thing} that {brand} designed for {use}.",
    "Made for {use}: {a_thing} by {brand}.",
    "With {use} in mind we chose this: {a_thing}.",
    "{brand} rethinks the classic {noun}: {a_thing}, made with {use} in mind.",
)
_ORIGINS = (
    "Made in {origin} and sold at a {tier} price.",
    "It comes from {origin} and belongs to the {tier} line.",
    "Our partners in {origin} build it, and it keeps a {tier} price.",
    "A {tier} choice from {origin}.",
    "Produced in {origin}; you will find it among our {tier} favourites.",
    "From {origin}, in the {tier} segment.",
)
_CLOSINGS = (
    "",
    "",
    "",
    "Comes with a two-year guarantee.",
    "Ships without plastic.",
    "Customers praise how well it lasts.",
    "Easy to care for.",
    "A favourite of our team.",
)


def write_texts(attributes: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Write the texts of products.

    Parameters
    ----------
    attributes
        One row a product, one column an attribute.
    rng
        Source of chance for names, measures and templates.

    Returns
    -------
    pandas.DataFrame
        Columns title (all different), description, brand, category; the rows of `attributes`.
    """
    names = _model_names(attributes["kind"].tolist(), rng)
    rows = [_texts(row, model, rng) for row, model in zip(attributes.to_dict("records"), names)]
    return pd.DataFrame(rows, columns=["title", "description", "brand", "category"], index=attributes.index)


def _texts(row: dict[str, str], model: str, rng: np.random.Generator) -> dict[str, str]:
    noun, measures = _NOUNS[row["kind"]]
    before = [_FOR[row["use"]], row["material"], row["feature"]][rng.choice(3, p=[0.4, 0.35, 0.25])]
    measure = measures[rng.integers(len(measures))]
    thing = _thing(row)
    words = {
        **row,
        "model": model,
        "noun": noun,
        "a_thing": thing,
        "A_thing": thing[0].upper() + thing[1:],
    }
    sentences = [str(rng.choice(pool)).format(**words) for pool in (_OPENINGS, _ORIGINS, _CLOSINGS)]
    return {
        "title": f"{model} {before} {noun}" + (f", {measure}" if measure else ""),
        "description": " ".join(sentence for sentence in sentences if sentence),
        "brand": row["brand"],
        "category": KINDS[row["kind"]].category,
    }


def _thing(row: dict[str, str]) -> str:
    """Return what it is, with material and feature: ``an insulated metal mug``."""
    quality = f"{row['feature']} {row['material']}"
    article = "an" if quality[0] in "aeiou" else "a"
    if row["kind"] == "plant":
        return f"a plant in {article} {quality} pot"
    if row["kind"] in ("headphones", "sneaker"):
        return f"a pair of {quality} {_NOUNS[row['kind']][0]}"
    return f"{article} {quality} {row['kind']}"


def _model_names(kinds: list[str], rng: np.random.Generator) -> list[str]:
    """Return a name for each product; no two products of a kind share one."""
    names = np.array([head + tail for head in _HEADS for tail in _TAILS])
    orders = {kind: names[rng.permutation(len(names))] for kind in KINDS}
    used = dict.fromkeys(KINDS, 0)
    chosen = []
    for kind in kinds:
        series, place = divmod(used[kind], len(names))
        chosen.append(str(orders[kind][place]) + (f" {series + 1}" if series else ""))
        used[kind] += 1
    return chosen
