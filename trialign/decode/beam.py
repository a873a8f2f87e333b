"""Beam search over the trie: every beam is a real item, the prompt is read once per user, the step is vectorized."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from trialign.decode.models import PrefixReader, inference, prefix_reader
from trialign.decode.record import Candidates, SearchRecord, search_records
from trialign.decode.trie import ItemMask, Trie
from trialign.progress import tqdm


@dataclass(frozen=True, eq=False)
class Beams:
    """What a beam search found.

    Attributes
    ----------
    items
        Item rows, best first, int64 [users, top_k]; -1 where the search found fewer.
    log_probabilities
        Natural logarithm of each item's probability, float32 [users, top_k]; -inf where there is no item.
    records
        The whole search of each user, if it was asked for; otherwise empty.
    """

    items: Int[np.ndarray, "users top_k"]
    log_probabilities: Float[np.ndarray, "users top_k"]
    records: list[SearchRecord] = field(default_factory=list)


def beam_search(
    model: nn.Module,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int = 20,
    top_k: int = 20,
    masked: Sequence[Int[np.ndarray, " masked"]] | None = None,
    record: bool = False,
    batch_size: int = 64,
    progress: bool = True,
    pad_token_id: int = 0,
) -> Beams:
    """Find the most probable items for each prompt.

    Parameters
    ----------
    model
        A causal language model (Qwen2, Qwen3, Llama, Mistral, GPT-2) or T5, plain or wrapped by peft, on any device.
    trie
        The semantic IDs of the catalogue as token sequences.
    prompts
        Token ids, one prompt a user, each with at least one token (an empty history still has its start token).
    beams
        Number of prefixes kept at each level; with as many beams as the trie has prefixes at its widest level the
        search is exact.
    top_k
        Number of items returned a user.
    masked
        Item rows that must not be returned, one array a user. A prefix below which all items are masked is pruned at
        once, so that all but K masked gives exactly those K if ``beams >= K``.
    record
        Keep the whole search, pruned prefixes included, for inspection; for some users, not for millions.
    batch_size
        Users searched together. Users are sorted by the length of their prompt first, so little padding is read.
    progress
        Show a progress bar.
    pad_token_id
        Token that fills shorter prompts; it is masked, any valid id gives the same result.

    Returns
    -------
    Beams

    Raises
    ------
    ValueError
        If the model's type is unknown, a prompt is empty, `masked` has another length than `prompts`, or a number is
        below 1.

    Notes
    -----
    At each step the model's softmax is restricted to the children that the trie allows and normalized over them. An
    item's probability is the product along its sequence, divided by the number of items that share the sequence, so
    that the probabilities of all items of the catalogue sum to 1. Masked items are removed *after* that normalization:
    the items that remain keep the probabilities and the order they have without a mask. A leaf above the last level
    stays in the beam at no further cost and competes with longer prefixes at each level. The checkpoint's generation
    config plays no part, and no end token is generated.
    """
    if min(beams, top_k, batch_size) < 1:
        raise ValueError(f"beams, top_k and batch_size must be at least 1, got {beams}, {top_k}, {batch_size}")
    if masked is not None and len(masked) != len(prompts):
        raise ValueError(f"masked must hold one array a prompt: {len(masked)} arrays for {len(prompts)} prompts")
    items = np.full((len(prompts), top_k), -1, dtype=np.int64)
    log_probabilities = np.full((len(prompts), top_k), -np.inf, dtype=np.float32)
    records: list[SearchRecord | None] = [None] * len(prompts)
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
    with inference(model), tqdm(total=len(prompts), unit="user", desc="beam search", disable=not progress) as bar:
        for users in np.split(order, range(batch_size, len(order), batch_size)) if len(order) else []:
            mask = trie.mask([masked[user] for user in users] if masked is not None else [])
            reader = prefix_reader(model, [prompts[user] for user in users], trie.vocabulary, pad_token_id)
            leaves, scores, steps = _search(reader, trie, mask, len(users), beams, record)
            items[users], log_probabilities[users] = _items_of_leaves(trie, mask, leaves, scores, top_k)
            for user, user_record in zip(users, search_records(trie, steps)) if record else ():
                records[user] = user_record
            bar.update(len(users))
    return Beams(items, log_probabilities, [some for some in records if some is not None])


def _search(
    reader: PrefixReader, trie: Trie, mask: ItemMask, users: int, beams: int, record: bool
) -> tuple[Int[np.ndarray, "users beams"], Float[np.ndarray, "users beams"], list[Candidates]]:
    """Search one batch: return the leaves found (-1: none), their log-probabilities and, if asked, every step."""
    nodes = np.zeros((users, 1), dtype=np.int64)
    scores = np.zeros((users, 1), dtype=np.float32)
    logits = reader.read_prompts()
    steps: list[Candidates] = []
    while True:
        candidates = _expand(trie, mask, nodes, scores, logits)
        chosen = _best(candidates, beams)
        if record:
            steps.append(candidates.with_alive(chosen))
        # Open prefixes come first: only they are read by the model, as columns 0 .. width - 1 of the next step.
        chosen = _open_first(trie, candidates, chosen)
        parents = np.take_along_axis(candidates.columns, chosen, 1)
        nodes = np.take_along_axis(candidates.nodes, chosen, 1)
        scores = np.take_along_axis(candidates.log_probabilities, chosen, 1)
        nodes = np.where(np.isfinite(scores), nodes, -1)
        is_open = (nodes >= 0) & ~trie.is_leaf(nodes)
        width = int(is_open.sum(1).max())
        if width == 0:
            return nodes, scores, steps
        # Where a user has fewer open prefixes than others, the columns left over are read and their logits ignored.
        tokens = np.where(is_open, trie.tokens[nodes], trie.vocabulary[0])[:, :width]
        logits = reader.step(tokens, np.where(is_open, parents, 0)[:, :width])


def _expand(
    trie: Trie,
    mask: ItemMask,
    nodes: Int[np.ndarray, "users beams"],
    scores: Float[np.ndarray, "users beams"],
    logits: Float[torch.Tensor, "users open vocabulary"],
) -> Candidates:
    """Return all that may be alive after this step: the children of open prefixes, and the leaves already found."""
    users, width = logits.shape[:2]
    tokens, children = trie.children_of(nodes[:, :width])
    index = torch.from_numpy(np.searchsorted(trie.vocabulary, tokens)).to(logits.device)
    # A leaf's row is all padding; its softmax is undefined and never used.
    outside = torch.from_numpy(children < 0).to(logits.device)
    allowed = logits.gather(2, index).masked_fill_(outside, -torch.inf)
    steps = torch.log_softmax(allowed, dim=2).cpu().numpy()
    grown = np.where(children >= 0, scores[:, :width, None] + steps, -np.inf)
    finished = trie.is_leaf(nodes)
    columns = np.arange(nodes.shape[1])
    below = [np.broadcast_to(columns[:width, None], children.shape).reshape(users, -1), np.tile(columns, (users, 1))]
    candidate_nodes = np.concatenate([children.reshape(users, -1), np.where(finished, nodes, -1)], axis=1)
    candidate_scores = np.concatenate([grown.reshape(users, -1), np.where(finished, scores, -np.inf)], axis=1)
    allows = mask.allows(candidate_nodes) if mask.keys.size else candidate_nodes >= 0
    columns_of = np.concatenate(below, axis=1)
    return Candidates(
        nodes=candidate_nodes,
        parents=np.take_along_axis(nodes, columns_of, 1),
        columns=columns_of,
        unmasked_log_probabilities=candidate_scores,
        log_probabilities=np.where(allows, candidate_scores, -np.inf).astype(np.float32),
        alive=np.zeros(candidate_nodes.shape, dtype=bool),
    )


def _best(candidates: Candidates, beams: int) -> Int[np.ndarray, "users beams"]:
    """Return the indices of the best candidates, best first."""
    scores = torch.from_numpy(candidates.log_probabilities)
    return scores.topk(min(beams, scores.shape[1]), dim=1).indices.numpy()


def _open_first(
    trie: Trie, candidates: Candidates, chosen: Int[np.ndarray, "users beams"]
) -> Int[np.ndarray, "users beams"]:
    """Reorder the chosen candidates: prefixes that go on first, otherwise in the order of their probability."""
    nodes = np.take_along_axis(candidates.nodes, chosen, 1)
    dead = ~np.isfinite(np.take_along_axis(candidates.log_probabilities, chosen, 1))
    order = np.argsort(trie.is_leaf(nodes) | dead, axis=1, kind="stable")
    return np.take_along_axis(chosen, order, 1)


def _items_of_leaves(
    trie: Trie,
    mask: ItemMask,
    leaves: Int[np.ndarray, "users beams"],
    scores: Float[np.ndarray, "users beams"],
    top_k: int,
) -> tuple[Int[np.ndarray, "users top_k"], Float[np.ndarray, "users top_k"]]:
    """Return the best items below the leaves; items that share a leaf share its probability equally."""
    users = len(leaves)
    first = trie.item_first[leaves]
    counts = np.where(leaves >= 0, trie.item_last[leaves] - first, 0)
    ranks = np.arange(counts.max(initial=1))
    positions = np.minimum(first[..., None] + ranks, trie.n_items - 1)
    exists = (ranks < counts[..., None]) & (mask.allows_positions(positions) if mask.keys.size else True)
    shared = scores[..., None] - np.log(np.maximum(counts, 1), dtype=np.float32)[..., None]
    each = np.where(exists, shared, -np.inf).reshape(users, -1)
    rows = np.where(exists, trie.item_order[positions], -1).reshape(users, -1)
    # Stable: items of one leaf stay together, in the order of their rows.
    order = np.argsort(-each, axis=1, kind="stable")[:, :top_k]
    items = np.full((users, top_k), -1, dtype=np.int64)
    log_probabilities = np.full((users, top_k), -np.inf, dtype=np.float32)
    items[:, : order.shape[1]] = np.take_along_axis(rows, order, 1)
    log_probabilities[:, : order.shape[1]] = np.take_along_axis(each, order, 1)
    return items, log_probabilities
