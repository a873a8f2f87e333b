"""What is near an item: in its embedding, in what its codes stand for, and in its semantic ID."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from trialign.sids import SemanticIds
from trialign.sids.quantizer import Quantizer


@dataclass(frozen=True, eq=False)
class Spaces:
    """The three spaces in which items are near each other.

    Parameters
    ----------
    sids
        Semantic IDs of the items.
    embeddings
        What was quantized, float32 of shape (items, dim).
    quantizer
        The fitted quantizer.

    Raises
    ------
    ValueError
        If there are not as many embeddings as SIDs.
    """

    sids: SemanticIds
    embeddings: Float[np.ndarray, "items dim"]
    quantizer: Quantizer

    def __post_init__(self) -> None:
        if len(self.embeddings) != len(self.sids):
            raise ValueError(f"{len(self.embeddings)} embeddings for {len(self.sids)} items; fix: load both of one run")

    @cached_property
    def _unit(self) -> Float[np.ndarray, "items dim"]:
        return _unit(self.embeddings)

    @cached_property
    def _rebuilt(self) -> Float[np.ndarray, "items dim"]:
        return _unit(self.quantizer.reconstruct(self.sids.codes[:, : self.sids.levels]))

    def by_embedding(self, row: int, most: int) -> tuple[Int[np.ndarray, " found"], Float[np.ndarray, " found"]]:
        """Return the items nearest by cosine of embeddings, and the cosines."""
        return _nearest(self._unit @ self._unit[row], most, row)

    def by_reconstruction(self, row: int, most: int) -> tuple[Int[np.ndarray, " found"], Float[np.ndarray, " found"]]:
        """Return the items nearest by cosine of reconstructions, and the cosines."""
        return _nearest(self._rebuilt @ self._rebuilt[row], most, row)

    def by_sid(self, row: int, most: int) -> tuple[Int[np.ndarray, " found"], Int[np.ndarray, " found"]]:
        """Return the items that share the longest prefix (ties: nearest reconstruction), and its length."""
        shared = self.shared(row)
        order = np.lexsort((-(self._rebuilt @ self._rebuilt[row]), -shared))
        order = order[order != row][:most]
        return order, shared[order]

    def shared(self, row: int) -> Int[np.ndarray, " items"]:
        """Return how many first codes each item shares with one."""
        same = self.sids.codes == self.sids.codes[row]
        return np.cumprod(same, axis=1).sum(axis=1)

    def of_codes(
        self, codes: Sequence[int], most: int
    ) -> tuple[Int[np.ndarray, " found"], Float[np.ndarray, " found"]]:
        """Return the items whose reconstructions are nearest to what these codes stand for, and the cosines."""
        point = _unit(self.quantizer.reconstruct(np.array([codes], dtype=np.int64)))[0]
        return _nearest(self._rebuilt @ point, most)

    def by_depth(self, row: int, other: int) -> list[tuple[int, int, int, float]]:
        """Return for each level: level, both items' codes, and the cosine of what their codes so far stand for."""
        both = self.sids.codes[[row, other], : self.sids.levels]
        cosine = [
            float(np.prod(_unit(self.quantizer.reconstruct(both, depth)), axis=0).sum())
            for depth in range(1, self.sids.levels + 1)
        ]
        return [
            (level + 1, int(both[0, level]), int(both[1, level]), cosine[level]) for level in range(self.sids.levels)
        ]

    def cosine(self, row: int, other: int) -> float:
        """Return the cosine of two embeddings."""
        return float(self._unit[row] @ self._unit[other])


def _unit(points: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    points = np.asarray(points, dtype=np.float32)
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _nearest(
    similarity: Float[np.ndarray, " items"], most: int, itself: int | None = None
) -> tuple[Int[np.ndarray, " found"], Float[np.ndarray, " found"]]:
    order = np.argsort(-similarity, kind="stable")
    order = order[order != itself][:most] if itself is not None else order[:most]
    return order, similarity[order]
