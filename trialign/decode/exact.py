"""Exact probabilities of all items: the trie walked level by level, every prefix that branches scored once."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from trialign.decode.models import PrefixReader, inference, prefix_reader
from trialign.decode.trie import Trie


def score_all(model: nn.Module, trie: Trie, prompt: Sequence[int], *, chunk: int = 256) -> Float[np.ndarray, " items"]:
    """Return the exact log-probability of every item after one prompt.

    Parameters
    ----------
    model
        As in `trialign.decode.beam_search`.
    trie
        The semantic IDs of the catalogue.
    prompt
        Token ids of one user's prompt.
    chunk
        Number of branching prefixes scored together; it bounds the memory, not the result.

    Returns
    -------
    ndarray
        Natural logarithm of each item's probability, float64, by item row; their exponentials sum to 1.

    Notes
    -----
    Probabilities are those of `trialign.decode.beam_search`: normalized over the trie's children at each step, shared
    equally by items with the same sequence. A prefix with one child has probability 1 for it and needs no model.
    """
    child_counts = np.diff(trie.child_offsets)
    parents = np.repeat(np.arange(trie.n_nodes), child_counts)  # of nodes 1, 2, ...
    step_scores = np.zeros(trie.n_nodes)
    branching = np.flatnonzero(child_counts > 1)
    # In the order of the items, so that the prefixes of a chunk share their ancestors.
    branching = branching[np.lexsort([trie.levels[branching], trie.item_first[branching]])]
    with inference(model):
        reader = prefix_reader(model, [prompt], trie.vocabulary, pad_token_id=0)
        root_logits = reader.read_prompts()[0]
        _write_children(trie, step_scores, np.array([0]), root_logits)
        for start in range(0, len(branching), chunk):
            _score_chunk(reader.fork(), trie, step_scores, branching[start : start + chunk], parents)
    scores = _sums_along_paths(trie, step_scores, parents)[trie.leaves]
    return scores - np.log((trie.item_last - trie.item_first)[trie.leaves])


def _score_chunk(
    reader: PrefixReader,
    trie: Trie,
    step_scores: Float[np.ndarray, " nodes"],
    prefixes: Int[np.ndarray, " prefixes"],
    parents: Int[np.ndarray, " edges"],
) -> None:
    """Read these prefixes and their ancestors, one level a step, and write the scores of their children."""
    above = np.array([0])
    for nodes in _levels_of(trie, prefixes, parents):
        columns = np.searchsorted(above, parents[nodes - 1])
        logits = reader.step(trie.tokens[nodes][None].astype(np.int64), columns[None])[0]
        _write_children(trie, step_scores, nodes, logits)
        above = nodes


def _levels_of(
    trie: Trie, prefixes: Int[np.ndarray, " prefixes"], parents: Int[np.ndarray, " edges"]
) -> Iterator[Int[np.ndarray, " nodes"]]:
    """Yield, from level 1 down, the prefixes of each level together with the ancestors of deeper ones, sorted."""
    levels = []
    below = np.empty(0, dtype=np.int64)
    for level in range(int(trie.levels[prefixes].max()), 0, -1):
        below = np.union1d(prefixes[trie.levels[prefixes] == level], parents[below - 1])
        levels.append(below)
    yield from reversed(levels)


def _write_children(
    trie: Trie,
    step_scores: Float[np.ndarray, " nodes"],
    nodes: Int[np.ndarray, " nodes"],
    logits: Float[torch.Tensor, "nodes vocabulary"],
) -> None:
    """Write the log-probability of each child of these nodes, given its parent."""
    tokens, children = trie.children_of(nodes)
    inside = children >= 0
    index = torch.from_numpy(np.searchsorted(trie.vocabulary, tokens)).to(logits.device)
    outside = torch.from_numpy(~inside).to(logits.device)
    allowed = logits.gather(1, index).masked_fill_(outside, -torch.inf)
    step_scores[children[inside]] = torch.log_softmax(allowed, dim=1).cpu().numpy()[inside]


def _sums_along_paths(
    trie: Trie, step_scores: Float[np.ndarray, " nodes"], parents: Int[np.ndarray, " edges"]
) -> Float[np.ndarray, " nodes"]:
    """Add up the scores from the root to each node."""
    totals = step_scores.copy()
    for level in range(1, trie.depth + 1):
        nodes = np.flatnonzero(trie.levels == level)
        totals[nodes] += totals[parents[nodes - 1]]
    return totals
