"""Exact probabilities of all items: the trie walked level by level, every prefix that branches scored once."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from trialign.decode.models import PrefixReader, inference
from trialign.decode.readers import Readers, check_prompts
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

    Raises
    ------
    ValueError
        If the model's type or adapter is not one that the search knows, or the prompt is empty or too long for it.

    Notes
    -----
    Probabilities are those of `trialign.decode.beam_search`: normalized over the trie's children at each step, shared
    equally by items with the same sequence. A prefix with one child has probability 1 for it and needs no model.
    """
    check_prompts([prompt])
    step_scores = np.zeros(trie.n_nodes)
    branching = np.flatnonzero(np.diff(trie.child_offsets) > 1)
    # In the order of the items, so that the prefixes of a chunk share their ancestors.
    branching = branching[np.lexsort([trie.levels_of(branching), trie.item_first[branching]])]
    with inference(model):
        readers = Readers(model, [trie.vocabulary(level) for level in range(1, trie.depth + 1)], pad_token_id=0)
        reader = readers([prompt])
        root_logits = reader.read_prompts()[0]
        _write_children(trie, step_scores, np.array([0]), root_logits)
        for start in range(0, len(branching), chunk):
            _score_chunk(reader.fork(), trie, step_scores, branching[start : start + chunk])
    leaves = trie.leaves_of(np.arange(trie.n_items))
    return _sums_along_paths(trie, step_scores)[leaves] - np.log(trie.item_last[leaves] - trie.item_first[leaves])


def recall_of_exact(
    items: Int[np.ndarray, "users top_k"], exact: Float[np.ndarray, "users items"]
) -> Float[np.ndarray, " users"]:
    """Return the share of the exactly most probable items that a search found, by user.

    Parameters
    ----------
    items
        Item rows found, -1 for none; as many as are compared.
    exact
        Log-probability of every item, from `score_all`, a row a user.
    """
    k = min(items.shape[1], exact.shape[1])
    best = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    return (best[:, :, None] == items[:, None, :]).any(axis=2).mean(axis=1)


def _score_chunk(
    reader: PrefixReader, trie: Trie, step_scores: Float[np.ndarray, " nodes"], prefixes: Int[np.ndarray, " prefixes"]
) -> None:
    """Read these prefixes and their ancestors, one level a step, and write the scores of their children."""
    above = np.array([0])
    for nodes in _levels_of(trie, prefixes):
        columns = np.searchsorted(above, trie.parents[nodes])
        logits = reader.step(trie.tokens_of(nodes)[None], columns[None])[0]
        _write_children(trie, step_scores, nodes, logits)
        above = nodes


def _levels_of(trie: Trie, prefixes: Int[np.ndarray, " prefixes"]) -> Iterator[Int[np.ndarray, " nodes"]]:
    """Yield, from level 1 down, the prefixes of each level together with the ancestors of deeper ones, sorted."""
    levels = []
    levels_of_prefixes = trie.levels_of(prefixes)
    below = np.empty(0, dtype=np.int64)
    for level in range(int(levels_of_prefixes.max()), 0, -1):
        below = np.union1d(prefixes[levels_of_prefixes == level], trie.parents[below])
        levels.append(below)
    yield from reversed(levels)


def _write_children(
    trie: Trie,
    step_scores: Float[np.ndarray, " nodes"],
    nodes: Int[np.ndarray, " nodes"],
    logits: Float[torch.Tensor, "nodes tokens"],
) -> None:
    """Write the log-probability of each child of these nodes, given its parent."""
    children = trie.children_of(nodes)
    inside = children >= 0
    columns = torch.from_numpy(np.where(inside, trie.columns[children], 0).astype(np.int64)).to(logits.device)
    outside = torch.from_numpy(~inside).to(logits.device)
    allowed = logits.gather(1, columns).masked_fill_(outside, -torch.inf)
    step_scores[children[inside]] = torch.log_softmax(allowed, dim=1).cpu().numpy()[inside]


def _sums_along_paths(trie: Trie, step_scores: Float[np.ndarray, " nodes"]) -> Float[np.ndarray, " nodes"]:
    """Add up the scores from the root to each node."""
    totals = step_scores.copy()
    for start, end in zip(trie.level_starts[1:-1], trie.level_starts[2:]):
        totals[start:end] += totals[trie.parents[start:end]]
    return totals
