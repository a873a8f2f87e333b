"""Which prefixes a search keeps at each level: the best, a random sample, or diverse groups.

A strategy sees all candidates of a step for a batch of users and chooses among them. It may give every prefix that it
keeps a number, its *state*, which comes back with the prefix's children at the next step.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int

from trialign.decode.record import Candidates


class Choice(NamedTuple):
    """What a strategy keeps.

    Attributes
    ----------
    chosen
        Indices of the candidates kept, best first, int64 [users, width]; -1 where there are fewer.
    state
        A number for each of them, float64 [users, width].
    """

    chosen: Int[np.ndarray, "users width"]
    state: Float[np.ndarray, "users width"]


class Strategy(Protocol):
    """How a beam search chooses among the candidates of a step."""

    def choose(
        self,
        candidates: Candidates,
        state: Float[np.ndarray, "users candidates"],
        width: int,
        users: Int[np.ndarray, " users"],
    ) -> Choice:
        """Choose at most `width` candidates for each user.

        Parameters
        ----------
        candidates
            Of this step; those with a log-probability of -inf must not be chosen.
        state
            The state of each candidate's parent; 0 for the root.
        width
            Beam width at this level.
        users
            Number of each user among the prompts, for random numbers that do not depend on the batch.
        """

    def priority(
        self, log_probabilities: Float[np.ndarray, "users beams"], state: Float[np.ndarray, "users beams"]
    ) -> Float[np.ndarray, "users beams"]:
        """Return what the leaves found are sorted by, greatest first."""


@dataclass(frozen=True)
class Best:
    """Keep the most probable prefixes: beam search, and greedy search with one beam."""

    def choose(
        self,
        candidates: Candidates,
        state: Float[np.ndarray, "users candidates"],
        width: int,
        users: Int[np.ndarray, " users"],
    ) -> Choice:
        """Choose the most probable candidates."""
        chosen = largest(candidates.log_probabilities, width)
        return Choice(chosen, np.zeros(chosen.shape))

    def priority(
        self, log_probabilities: Float[np.ndarray, "users beams"], state: Float[np.ndarray, "users beams"]
    ) -> Float[np.ndarray, "users beams"]:
        """Return the log-probabilities."""
        return log_probabilities


@dataclass(frozen=True)
class Stochastic:
    """Sample semantic IDs without replacement: stochastic beam search (Kool et al. 2019, arXiv 1903.06059).

    Every prefix carries a Gumbel-perturbed log-probability; that of a child is drawn under the condition that the
    largest among siblings is their parent's (its Algorithm 1 and Appendix B.3). The prefixes with the largest ones are
    kept, and the leaves found are an exact sample without replacement from the model's distribution, whatever the beam
    width. They are returned in the order of the draw, not of their probability; items that share a semantic ID are
    drawn together. Where items are masked, a prefix may take a place in the beam for the sake of a masked item alone;
    use more beams then.

    Parameters
    ----------
    seed
        Of the random numbers. They are a function of seed, user and prefix: neither the batch nor the number of beams
        changes them.
    """

    seed: int = 0

    def choose(
        self,
        candidates: Candidates,
        state: Float[np.ndarray, "users candidates"],
        width: int,
        users: Int[np.ndarray, " users"],
    ) -> Choice:
        """Choose the candidates with the largest perturbed log-probabilities."""
        log_probabilities = candidates.unmasked_log_probabilities.astype(np.float64)
        gumbel = -np.log(-np.log(_uniform(self.seed, users[:, None], candidates.nodes)))
        perturbed = log_probabilities + gumbel
        keys = np.where(candidates.stays, state, self._conditioned(candidates, perturbed, state))
        keys = np.where(np.isfinite(candidates.log_probabilities), keys, -np.inf)
        chosen = largest(keys, width)
        return Choice(chosen, np.take_along_axis(keys, np.maximum(chosen, 0), 1))

    def priority(
        self, log_probabilities: Float[np.ndarray, "users beams"], state: Float[np.ndarray, "users beams"]
    ) -> Float[np.ndarray, "users beams"]:
        """Return the perturbed log-probabilities: the order of the draw."""
        return np.where(np.isfinite(log_probabilities), state, -np.inf)

    @staticmethod
    def _conditioned(
        candidates: Candidates,
        perturbed: Float[np.ndarray, "users candidates"],
        parent: Float[np.ndarray, "users candidates"],
    ) -> Float[np.ndarray, "users candidates"]:
        """Condition the perturbed log-probabilities of siblings on the largest being their parent's (eq. 10)."""
        n_users = len(perturbed)
        families = np.arange(n_users)[:, None] * (candidates.columns.max() + 1) + candidates.columns
        largest_sibling = np.full(n_users * (candidates.columns.max() + 1), -np.inf)
        np.maximum.at(largest_sibling, families.ravel(), perturbed.ravel())
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = perturbed - largest_sibling[families]  # at most 0
            v = parent - perturbed + np.log1p(-np.exp(difference))
            return parent - np.maximum(v, 0) - np.log1p(np.exp(-np.abs(v)))


@dataclass(frozen=True)
class Diverse:
    """Search in groups, each kept from repeating the codes of those before it: diverse beam search.

    Vijayakumar et al. 2016 (arXiv 1610.02424), with the Hamming penalty: at each level the groups choose one after
    another, and a candidate loses `penalty` for every beam of the groups before that took the same code at this level.
    Penalties only steer the choice; the probabilities reported are the model's. Other than in the paper, a prefix
    belongs to one group, so that no item is found twice.

    Parameters
    ----------
    groups
        Number of groups; each keeps an equal share of the beams, rounded up for the first ones.
    penalty
        Natural logarithm of the factor by which each repetition makes a candidate less likely; 0 or more.

    Raises
    ------
    ValueError
        If `groups` is below 1 or `penalty` below 0.
    """

    groups: int = 4
    penalty: float = 0.5

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.groups < 1 or self.penalty < 0:
            raise ValueError(f"groups must be at least 1 and penalty 0, got {self.groups} and {self.penalty}")

    def choose(
        self,
        candidates: Candidates,
        state: Float[np.ndarray, "users candidates"],
        width: int,
        users: Int[np.ndarray, " users"],
    ) -> Choice:
        """Let the groups choose one after another; the state is the number of a prefix's group, from 1."""
        free = candidates.log_probabilities.astype(np.float64)
        codes = candidates.codes
        taken = np.zeros((len(codes), int(codes.max(initial=0)) + 1))
        groups = min(self.groups, width)
        parts = []
        for group in range(1, groups + 1):
            share = (width + groups - group) // groups
            repeated = np.where(codes >= 0, np.take_along_axis(taken, np.maximum(codes, 0), 1), 0)
            own = np.where((state == 0) | (state == group), free - self.penalty * repeated, -np.inf)
            chosen = largest(own, share)
            rows, places = np.nonzero(chosen >= 0)
            indices = chosen[rows, places]
            free[rows, indices] = -np.inf
            new = codes[rows, indices] >= 0
            np.add.at(taken, (rows[new], codes[rows[new], indices[new]]), 1)
            parts.append((chosen, np.full(chosen.shape, float(group))))
        chosen, numbers = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return Choice(chosen, numbers)

    def priority(
        self, log_probabilities: Float[np.ndarray, "users beams"], state: Float[np.ndarray, "users beams"]
    ) -> Float[np.ndarray, "users beams"]:
        """Return the log-probabilities."""
        return log_probabilities


def largest(keys: Float[np.ndarray, "users candidates"], width: int) -> Int[np.ndarray, "users width"]:
    """Return the indices of the largest keys of each user, largest first; -1 where only -inf is left."""
    best = torch.from_numpy(keys).topk(min(width, keys.shape[1]), dim=1)
    return torch.where(best.values.isfinite(), best.indices, -1).numpy()


def _uniform(seed: int, users: Int[np.ndarray, "..."], nodes: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return a number in (0, 1) for each seed, user and node: splitmix64 (Steele et al. 2014) of the three."""
    mixed = _splitmix(np.array(seed % 2**64, dtype=np.uint64))
    mixed = _splitmix(mixed ^ users.astype(np.uint64))
    mixed = _splitmix(mixed ^ nodes.astype(np.uint64))
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53


def _splitmix(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
