"""Rows kept by what they were computed from, so that an embedder reads each text and each image once."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

Key = TypeVar("Key", bound=Hashable)


class RowMemory:
    """Feature rows by key, for as long as the embedder that holds it lives.

    Examples
    --------
    >>> import numpy as np
    >>> memory = RowMemory()
    >>> memory.rows(["mug", "lamp", "mug"], lambda keys: np.array([[len(key)] for key in keys], np.float32)).tolist()
    [[3.0], [4.0], [3.0]]
    >>> memory.rows(["lamp"], lambda keys: np.zeros((0, 1), np.float32)).tolist()  # nothing is computed again
    [[4.0]]
    """

    def __init__(self) -> None:
        self._rows: dict[Hashable, np.ndarray] = {}

    def rows(
        self, keys: Sequence[Key], compute: Callable[[Sequence[Key]], Float[np.ndarray, "new dim"]]
    ) -> Float[np.ndarray, "keys dim"]:
        """Return one row a key.

        Parameters
        ----------
        keys
            What rows are asked for; some may be equal.
        compute
            Gives the rows of those keys that are new, each of them once, in the order of their first appearance.
        """
        new = [key for key in dict.fromkeys(keys) if key not in self._rows]
        if new or not keys:
            computed = compute(new)
            if not keys:
                return computed
            self._rows.update(zip(new, computed, strict=True))
        return np.stack([self._rows[key] for key in keys])
