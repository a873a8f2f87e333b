"""A catalogue of six items for the tests of training, small enough to check by hand."""

import numpy as np

from trialign.catalogue import Split
from trialign.scratch import scratch_tokenizer
from trialign.sids.semantic_ids import SemanticIds
from trialign.tasks import Multitask
from trialign.vocabulary import SidVocabulary

TITLES = ["Red mug", "Blue mug", "Oak chair", "", "Desk  lamp\nwith shade", "<a_1> <|end|>"]
CAPTIONS = {"i0": "A red mug on a table", "i2": "A wooden chair", "i3": "A green plant"}


def small_sids() -> SemanticIds:
    """Two levels of three codes and a suffix; items 0 and 1 collide before it."""
    codes = np.array([[0, 0, 0], [0, 0, 1], [1, 0, -1], [1, 2, -1], [2, 1, -1], [2, 2, -1]])
    return SemanticIds([f"i{row}" for row in range(6)], codes, (3, 3, 2), 2)


def small_split() -> Split:
    """Two evaluated users and a third whose short history is for training only; items 3 and 5 are held out."""
    train = [np.array([0, 1, 2, 4]), np.array([2, 0]), np.array([4])]
    return Split(["u0", "u1"], train, np.array([3, 5]), np.array([5, 3]), n_items=6, excluded=["u2"])


def small_multitask(**options) -> Multitask:
    """The tasks of the six items with a tokenizer trained on their texts."""
    sids = small_sids()
    vocabulary = SidVocabulary.add_to(scratch_tokenizer([*TITLES, *CAPTIONS.values()], 400), sids.codebook_sizes)
    return Multitask(sids, vocabulary, TITLES, CAPTIONS, small_split(), **options)


def cyclic_sids(items: int = 12) -> SemanticIds:
    """Two levels, three codes and four, one item for each pair."""
    codes = np.array([divmod(row, 4) for row in range(items)])
    return SemanticIds([f"i{row}" for row in range(items)], codes, (3, 4), 2)


def cyclic_multitask(items: int = 12, users: int = 30, **options) -> Multitask:
    """Users who walk through the items in a circle, so that the next item is certain once learnt."""
    sids = cyclic_sids(items)
    titles = [f"item number {row}" for row in range(items)]
    captions = {f"i{row}": f"a picture of {row}" for row in range(items)}
    train = [(np.arange(8) + user) % items for user in range(users)]
    held = [(8 + np.arange(users)) % items, (9 + np.arange(users)) % items]
    split = Split([f"u{user}" for user in range(users)], train, *held, n_items=items)
    vocabulary = SidVocabulary.add_to(scratch_tokenizer([*titles, *captions.values()], 300), sids.codebook_sizes)
    return Multitask(sids, vocabulary, titles, captions, split, **options)
