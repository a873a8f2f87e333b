"""The latent interests: what each likes, and which of them a product meets."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from trialign.datasets.atelier.attributes import allowed

#: What is liked of an attribute: how much it counts, and the values.
Likes = dict[str, tuple[float, tuple[str, ...]]]

#: A product meets an interest where it has this share of what the interest likes.
MEETS = 0.6
#: No product is given more interests than this.
MOST = 4


@dataclass(frozen=True)
class Interest:
    """A soft preference over attributes.

    Parameters
    ----------
    seen
        What it likes of attributes that are only in the image.
    read
        What it likes of attributes that are in the text (or in both).
    """

    seen: Likes = field(default_factory=dict)
    read: Likes = field(default_factory=dict)

    @property
    def where(self) -> Literal["image", "text", "both"]:
        """The place whose attributes it depends on."""
        if self.seen and self.read:
            return "both"
        return "image" if self.seen else "text"

    @property
    def seen_share(self) -> float:
        """The share of image-only attributes in the weight of all that it likes."""
        seen = sum(weight for weight, _ in self.seen.values())
        return seen / (seen + sum(weight for weight, _ in self.read.values()))

    def description(self) -> str:
        """What it likes, in words: ``scene: beach; pattern: waves or stripes``."""
        return "; ".join(f"{name}: {' or '.join(values)}" for name, (_, values) in {**self.seen, **self.read}.items())


#: Every interest by its phrase: seven that only pictures tell, six of both kinds, seven that only texts tell.
INTERESTS: dict[str, Interest] = {
    "coastal living": Interest(
        seen={
            "scene": (2, ("beach",)),
            "pattern": (1, ("waves", "stripes")),
            "colour": (1, ("sky blue", "teal", "white", "navy")),
        }
    ),
    "calm minimalist home": Interest(
        seen={
            "pattern": (1.5, ("plain",)),
            "scene": (1, ("studio", "sunlit wall")),
            "colour": (1, ("white", "sage", "lavender")),
        }
    ),
    "bold retro style": Interest(
        seen={"pattern": (1.5, ("chevron", "checks")), "colour": (1.5, ("mustard", "terracotta", "coral"))}
    ),
    "night-owl creativity": Interest(
        seen={"scene": (1.7, ("night city",)), "colour": (1.3, ("charcoal", "navy", "lavender"))}
    ),
    "cottage romance": Interest(
        seen={
            "pattern": (1.6, ("floral",)),
            "scene": (1, ("garden",)),
            "colour": (1, ("blush pink", "lavender", "sage")),
        }
    ),
    "playful colour joy": Interest(
        seen={
            "pattern": (1.6, ("dots", "terrazzo")),
            "colour": (1, ("coral", "sky blue", "mustard")),
            "silhouette": (0.8, ("rounded",)),
        }
    ),
    "sharp modern design": Interest(
        seen={
            "silhouette": (1.5, ("angular",)),
            "colour": (1, ("charcoal", "white", "navy")),
            "scene": (0.8, ("studio", "night city")),
        }
    ),
    "weekend hiking": Interest(
        seen={"scene": (1.5, ("mountains",)), "colour": (0.6, ("forest green", "terracotta"))},
        read={"use": (1.4, ("camping",)), "feature": (0.8, ("waterproof", "lightweight", "insulated"))},
    ),
    "hygge evenings": Interest(
        seen={"scene": (1.5, ("cosy room",)), "colour": (0.6, ("terracotta", "mustard", "coral"))},
        read={"material": (0.9, ("wool", "wood")), "use": (1.1, ("reading",))},
    ),
    "slow mornings": Interest(
        seen={"scene": (1.4, ("sunlit wall",)), "colour": (0.6, ("white", "blush pink", "sage"))},
        read={"use": (1.4, ("breakfast",)), "kind": (0.8, ("mug", "bowl"))},
    ),
    "plant parenthood": Interest(
        seen={"scene": (1, ("garden",)), "colour": (0.8, ("forest green", "sage"))},
        read={"kind": (2.2, ("plant",)), "material": (0.6, ("ceramic", "wicker"))},
    ),
    "rustic craftsmanship": Interest(
        seen={"scene": (1.4, ("wooden shelf",)), "colour": (0.6, ("terracotta", "forest green"))},
        read={"feature": (1.2, ("handmade",)), "material": (0.8, ("wood", "ceramic", "wicker"))},
    ),
    "urban mobility": Interest(
        seen={"scene": (1.2, ("night city",)), "silhouette": (0.8, ("slender",))},
        read={"use": (1, ("travel", "workouts")), "kind": (0.8, ("bag", "sneaker", "bottle", "headphones"))},
    ),
    "quiet focused work": Interest(
        read={
            "use": (1.8, ("desk work",)),
            "feature": (0.6, ("noise cancelling", "rechargeable")),
            "kind": (0.8, ("notebook", "headphones", "lamp", "chair")),
        }
    ),
    "frequent travel": Interest(
        read={"use": (2, ("travel",)), "feature": (1, ("foldable", "lightweight", "insulated", "waterproof"))}
    ),
    "ethical consumption": Interest(
        read={"feature": (2, ("fair trade", "recycled", "vegan")), "brand": (1, ("Nomad Union", "Tallow & Pine"))}
    ),
    "thoughtful gift giving": Interest(read={"use": (1.8, ("gifting",)), "tier": (1.1, ("luxury",))}),
    "active wellbeing": Interest(
        read={"use": (2, ("workouts",)), "feature": (1, ("lightweight", "machine washable", "waterproof"))}
    ),
    "savvy student budgeting": Interest(
        read={"tier": (1.6, ("budget",)), "feature": (1.2, ("repairable", "rechargeable", "recycled", "foldable"))}
    ),
    "world craft heritage": Interest(
        read={
            "origin": (1.7, ("Japan", "Morocco", "India", "Mexico")),
            "feature": (1, ("handmade", "fair trade")),
            "material": (0.8, ("ceramic", "wicker", "linen")),
        }
    ),
}


@dataclass(frozen=True)
class Match:
    """How far each product has what each interest likes.

    Parameters
    ----------
    seen, read
        Shares (0-1) of what is liked of image-only and of other attributes; 0 where the interest has no such part.
    total
        Share of all that is liked.
    """

    seen: Float[np.ndarray, "interests items"]
    read: Float[np.ndarray, "interests items"]
    total: Float[np.ndarray, "interests items"]


def match(attributes: pd.DataFrame) -> Match:
    """Return how far products (one a row, one column an attribute) meet the interests, in the order of `INTERESTS`."""
    seen = np.stack([_share(interest.seen, attributes) for interest in INTERESTS.values()])
    read = np.stack([_share(interest.read, attributes) for interest in INTERESTS.values()])
    share = np.array([interest.seen_share for interest in INTERESTS.values()])[:, None]
    return Match(seen, read, share * seen + (1 - share) * read)


def true_interests(matched: Match) -> list[list[str]]:
    """Return the interests of each product, strongest first: one to four of them.

    Those whose share is at least `MEETS`, and the strongest alone where none is.
    """
    phrases = list(INTERESTS)
    order = np.argsort(-matched.total, axis=0, kind="stable")
    chosen = []
    for item in range(matched.total.shape[1]):
        met = [row for row in order[:MOST, item] if matched.total[row, item] >= MEETS - 1e-9]
        chosen.append([phrases[row] for row in (met or order[:1, item])])
    return chosen


def lean(kind: str, rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
    """Return the values that a product of a kind leans to: those of one interest for its picture, of one for its text.

    Where an interest has both parts it often is the same one, so that a shop's pictures and texts hang together.
    """
    seen = [interest for interest in INTERESTS.values() if interest.seen]
    read = [interest for interest in INTERESTS.values() if interest.read]
    picture = seen[rng.choice(len(seen), p=_fits(seen, kind))]
    text = picture if picture.read and rng.random() < 0.75 else read[rng.choice(len(read), p=_fits(read, kind))]
    return {name: values for name, (_, values) in {**picture.seen, **text.read}.items()}


def _fits(interests: list[Interest], kind: str) -> Float[np.ndarray, " interests"]:
    """Return chances: an interest is drawn where a product of this kind can meet it.

    Those of both kinds of attribute ask for more at once and are drawn more often, so that enough products meet them.
    """
    weights = []
    for interest in interests:
        likes = {**interest.seen, **interest.read}
        reachable = sum(w for name, (w, values) in likes.items() if set(values) & set(allowed(name, kind)))
        share = reachable / sum(w for w, _ in likes.values())
        weights.append(share**4 * (2.0 if interest.where == "both" else 1.0))
    return np.array(weights) / sum(weights)


def _share(likes: Likes, attributes: pd.DataFrame) -> Float[np.ndarray, " items"]:
    total = np.zeros(len(attributes))
    for name, (weight, values) in likes.items():
        total += weight * attributes[name].isin(values).to_numpy()
    return total / max(sum(weight for weight, _ in likes.values()), 1e-9)
