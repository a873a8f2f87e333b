"""The leave-one-out split: what is trained on, and which items are held out for validation and test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Int

if TYPE_CHECKING:
    from trialign.catalogue import Catalogue

#: Interactions a user needs to be evaluated: one to train on, one for validation, one for test.
EVALUABLE = 3


@dataclass(frozen=True, eq=False)
class Split:
    """Each user's last item is for test, the one before for validation, the rest for training.

    Parameters
    ----------
    users
        Ids of the users that are evaluated.
    train
        Rows of the training items, oldest first: first the histories of `users`, then those of `excluded`.
    validation, test
        Row of the held-out items of each of `users`.
    n_items
        Number of items of the catalogue.
    excluded
        Ids of the users with fewer than three interactions; all they did is for training.
    """

    users: list[str]
    train: list[Int[np.ndarray, " history"]]
    validation: Int[np.ndarray, " users"]
    test: Int[np.ndarray, " users"]
    n_items: int
    excluded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not len(self.users) == len(self.validation) == len(self.test) == len(self.train) - len(self.excluded):
            raise ValueError("a split needs a training history, a validation and a test item for every user")

    def histories(self, target: Literal["validation", "test"]) -> list[Int[np.ndarray, " history"]]:
        """Return what may be seen of each of `users` before a target: for test the validation item too.

        Raises
        ------
        ValueError
            If `target` is neither "validation" nor "test".
        """
        if target not in ("validation", "test"):
            raise ValueError(f"target is {target!r}; fix: give 'validation' or 'test'")
        train = self.train[: len(self.users)]
        if target == "validation":
            return train
        return [np.append(history, item) for history, item in zip(train, self.validation)]


def leave_one_out(catalogue: Catalogue) -> Split:
    """Split every user's history: the last item for test, the one before for validation, the rest for training.

    Users with fewer than three interactions can't be evaluated; they stay in the training part only and are listed
    in `Split.excluded`.

    Parameters
    ----------
    catalogue
        Its interactions are in order.

    Returns
    -------
    Split
        Users in the order of their first appearance.
    """
    rows = catalogue.rows(catalogue.interactions["item_id"])
    codes, users = pd.factorize(catalogue.interactions["user_id"])
    histories = np.split(rows, np.flatnonzero(np.diff(codes)) + 1) if len(rows) else []
    kept = [history for history in histories if len(history) >= EVALUABLE]
    short = [place for place, history in enumerate(histories) if len(history) < EVALUABLE]
    return Split(
        users=[str(users[place]) for place, history in enumerate(histories) if len(history) >= EVALUABLE],
        train=[history[:-2] for history in kept] + [histories[place] for place in short],
        validation=np.array([history[-2] for history in kept], dtype=np.int64),
        test=np.array([history[-1] for history in kept], dtype=np.int64),
        n_items=catalogue.n_items,
        excluded=[str(users[place]) for place in short],
    )
