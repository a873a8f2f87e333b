"""Users with latent interests, and the histories that follow from them."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from trialign.datasets.atelier.interests import INTERESTS, MEETS, Match

#: What people like to get next, by the kind they got last.
COMPLEMENTS: dict[str, tuple[str, ...]] = {
    "mug": ("bowl", "bottle"),
    "bowl": ("mug", "plant"),
    "bottle": ("bag", "sneaker"),
    "lamp": ("clock", "chair"),
    "chair": ("cushion", "lamp"),
    "cushion": ("lamp", "plant"),
    "clock": ("lamp", "notebook"),
    "plant": ("bowl", "chair"),
    "shirt": ("hat", "sneaker"),
    "hat": ("shirt", "bag"),
    "sneaker": ("shirt", "bottle"),
    "bag": ("notebook", "hat"),
    "headphones": ("bag", "notebook"),
    "notebook": ("headphones", "mug"),
}

_SHORTEST, _LONGEST = 6, 25
_DAY = 86_400
_FIRST_DAY = 1_640_995_200  # 2022-01-01 00:00 UTC


@dataclass(frozen=True)
class Habits:
    """How users choose: the knobs of the histories.

    Parameters
    ----------
    visual_share
        Share (0-1) of preference that goes to image-only attributes.
    mean_length
        Mean length of a history; lower is sparser. Lengths lie between 6 and 25.
    noise
        Share of choices that follow nothing but popularity.
    strength
        Log-odds between a product that has all an interest likes and one that has none of it.
    stay
        Probability that the next choice follows the interest of the last one.
    popularity
        Standard deviation of the products' log-popularity.
    """

    visual_share: float = 0.5
    mean_length: float = 11.5
    noise: float = 0.1
    strength: float = 6.5
    stay: float = 0.72
    popularity: float = 0.5

    def __post_init__(self) -> None:
        for name in ("visual_share", "noise", "stay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share between 0 and 1")
        if not _SHORTEST <= self.mean_length <= _LONGEST:
            raise ValueError(f"mean_length is {self.mean_length}; give {_SHORTEST} to {_LONGEST} interactions")


def make_histories(
    attributes: pd.DataFrame, matched: Match, users: int, habits: Habits, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Let users choose products, each at most once a user.

    Parameters
    ----------
    attributes
        One row a product, one column an attribute.
    matched
        How far the products meet the interests.
    users
        Number of users.
    habits
        How they choose.
    rng
        Source of chance.

    Returns
    -------
    interactions : pandas.DataFrame
        user (number), item (row of `attributes`), timestamp (seconds, int64), interest (that it followed, or "").
        Ordered by user, then time.
    people : pandas.DataFrame
        user (number), interests (two or three phrases, strongest first), drift (a phrase taken up halfway, or "").
    """
    taste = _taste(matched, habits.visual_share)
    pull = _pull(attributes, habits.visual_share)
    log_popularity = rng.normal(0, habits.popularity, len(attributes))
    chances = _interest_chances(matched, habits.visual_share)
    phrases = list(INTERESTS)
    steps, people = [], []
    for user in range(users):
        own = rng.choice(len(phrases), size=2 + int(rng.random() < 0.5), replace=False, p=chances)
        drift = int(rng.choice(len(phrases), p=chances)) if rng.random() < 0.3 else -1
        length = int(np.clip(rng.poisson(habits.mean_length - _SHORTEST) + _SHORTEST, _SHORTEST, _LONGEST))
        length = min(length, len(attributes))
        items, causes = _walk(own, drift, length, habits, taste, pull, log_popularity, rng)
        times = _times(causes, rng)
        steps += [(user, item, time, phrases[c] if c >= 0 else "") for item, time, c in zip(items, times, causes)]
        people.append((user, [phrases[row] for row in own], phrases[drift] if drift >= 0 and drift not in own else ""))
    interactions = pd.DataFrame(steps, columns=["user", "item", "timestamp", "interest"])
    return interactions.astype({"timestamp": "int64"}), pd.DataFrame(people, columns=["user", "interests", "drift"])


def k_core(interactions: pd.DataFrame, k: int = 5) -> pd.DataFrame:
    """Return the interactions of users and items that keep at least k of them, all others left out in turn."""
    kept = interactions
    while len(kept):
        by_user = kept.groupby("user")["item"].transform("size")
        by_item = kept.groupby("item")["user"].transform("size")
        enough = (by_user >= k) & (by_item >= k)
        if enough.all():
            break
        kept = kept[enough]
    return kept.reset_index(drop=True)


def _interest_chances(matched: Match, visual_share: float) -> Float[np.ndarray, " interests"]:
    """Return how likely users have each interest: the mass on image-only attributes is the visual share.

    Interests that many products meet are more common (by the square root of their number), as supply follows demand.
    """
    met = np.sqrt(1.0 + (matched.total >= MEETS).sum(axis=1))
    seen = np.array([interest.seen_share for interest in INTERESTS.values()])
    by_seen, by_read = met * seen, met * (1 - seen)
    return visual_share * by_seen / by_seen.sum() + (1 - visual_share) * by_read / by_read.sum()


def _taste(matched: Match, visual_share: float) -> Float[np.ndarray, "interests items"]:
    """Return how much each interest likes each item (0-1) when its two parts are weighed by the visual share."""
    share = np.array([interest.seen_share for interest in INTERESTS.values()])[:, None]
    seen, read = visual_share * share, (1 - visual_share) * (1 - share)
    return (seen * matched.seen + read * matched.read) / np.maximum(seen + read, 1e-9)


def _pull(attributes: pd.DataFrame, visual_share: float) -> Float[np.ndarray, "items items"]:
    """Return the log-odds that the last item (row) gives to the next one (column).

    Kinds that go together, a matching colour (only seen) and the same brand (only read).
    """
    kind = attributes["kind"].to_numpy()
    goes_with = np.array([[b in COMPLEMENTS[a] for b in COMPLEMENTS] for a in COMPLEMENTS])
    number = {name: row for row, name in enumerate(COMPLEMENTS)}
    rows = np.array([number[name] for name in kind])
    colour = pd.factorize(attributes["colour"])[0]
    brand = pd.factorize(attributes["brand"])[0]
    return (
        1.5 * goes_with[rows][:, rows]
        - 1.0 * (rows[:, None] == rows[None, :])
        + 1.6 * visual_share * (colour[:, None] == colour[None, :])
        + 1.6 * (1 - visual_share) * (brand[:, None] == brand[None, :])
    )


def _walk(
    own: Int[np.ndarray, " interests"],
    drift: int,
    length: int,
    habits: Habits,
    taste: Float[np.ndarray, "interests items"],
    pull: Float[np.ndarray, "items items"],
    log_popularity: Float[np.ndarray, " items"],
    rng: np.random.Generator,
) -> tuple[list[int], list[int]]:
    """Return the items of one user in order, and the interest that each followed (-1: none)."""
    weights = np.array([0.5, 0.3, 0.2])[: len(own)]
    items: list[int] = []
    causes: list[int] = []
    interest = -1
    free = np.zeros(len(log_popularity))
    for step in range(length):
        if interest < 0 or rng.random() > habits.stay:
            interest = int(rng.choice(own, p=weights / weights.sum()))
            if drift >= 0 and step >= length // 2 and rng.random() < 0.5:
                interest = drift
        guided = rng.random() >= habits.noise
        odds = log_popularity + free
        if guided:
            odds = odds + habits.strength * taste[interest] + (pull[items[-1]] if items else 0)
        chances = np.exp(odds - odds.max())
        item = int(np.searchsorted(np.cumsum(chances), rng.random() * chances.sum()))
        items.append(item)
        causes.append(interest if guided else -1)
        free[item] = -np.inf
    return items, causes


def _times(causes: list[int], rng: np.random.Generator) -> Int[np.ndarray, " steps"]:
    """Return rising times in seconds: minutes to days inside a bout of one interest, weeks between bouts."""
    same = np.array([True] + [a == b for a, b in pairwise(causes)])
    days = np.where(same, rng.lognormal(-0.5, 1.4, len(causes)), rng.lognormal(2.6, 0.9, len(causes)))
    days[0] = rng.uniform(0, 600)
    moments = _FIRST_DAY + np.cumsum(np.minimum(days, 120)) * _DAY + rng.normal(19, 2.5) * 3600
    return np.maximum.accumulate(moments.astype(np.int64)) + np.arange(len(causes))
