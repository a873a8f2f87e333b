"""Beam search over the trie: every beam is a real item, the prompt is read once per user, the step is vectorized."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from trialign.decode.mask import ItemMask, MaskMaker, checked_rows
from trialign.decode.models import PrefixReader, inference
from trialign.decode.readers import Readers, check_prompts
from trialign.decode.record import Candidates, SearchRecord, search_records
from trialign.decode.strategies import Best, Strategy
from trialign.decode.trie import Trie
from trialign.progress import tqdm


@dataclass(frozen=True, eq=False)
class Beams:
    """What a beam search found.

    Attributes
    ----------
    items
        Item rows, best first, int64 [users, top_k]; -1 where the search found fewer. `trialign.decode.Stochastic`
        gives them in the order of its draw.
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
    beams: int | Sequence[int] = 20,
    top_k: int = 20,
    strategy: Strategy | None = None,
    temperature: float = 1.0,
    masked: Sequence[Int[np.ndarray, " masked"]] | None = None,
    allowed: Bool[np.ndarray, " items"] | None = None,
    record: bool = False,
    batch_size: int = 32,
    progress: bool = True,
    pad_token_id: int = 0,
) -> Beams:
    """Find the most probable items for each prompt.

    Parameters
    ----------
    model
        A causal language model (Qwen2, Qwen3, Llama, Mistral, GPT-2) or T5, plain or with a LoRA-like adapter of peft,
        on any device, in any floating type.
    trie
        The semantic IDs of the catalogue as token sequences.
    prompts
        Token ids, one prompt a user, each with at least one token (an empty history still has its start token).
    beams
        Number of prefixes kept at each level: one number, or one for each level, the last of which holds for all
        deeper ones. With as many beams as the trie has leaves the search is exact; with one it is greedy.
    top_k
        Number of items returned a user.
    strategy
        Which prefixes are kept: `trialign.decode.Best` (the default), `Stochastic` or `Diverse`.
    temperature
        What logits are divided by: above 1 the probabilities come nearer to each other, below 1 they part. It changes
        which items are found, since a prefix's probability weighs all below it.
    masked
        Item rows that must not be returned, one array a user. A prefix below which all items are masked is pruned at
        once, so that all but K masked gives exactly those K if ``beams >= K``.
    allowed
        Whether each item may be returned to anybody (in stock, of a category, not removed), bool by item row.
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
        If the model's type or adapter is unknown, a prompt is empty or too long for the model's sliding window or for
        RoPE scaling that depends on the length (dynamic, longrope), `masked` or `allowed` has a wrong length or type,
        a number is below 1, or the temperature is not above 0.

    Notes
    -----
    At each step the model's softmax is restricted to the children that the trie allows and normalized over them. An
    item's probability is the product along its sequence, divided by the number of items that share the sequence, so
    that the probabilities of all items of the catalogue sum to 1. Masked items are removed *after* that normalization:
    the items that remain keep the probabilities and the order they have without a mask. A leaf above the last level
    stays in the beam at no further cost and competes with longer prefixes at each level. Nor does the model read a
    prefix below which a single item is left: all that follows has probability 1. The checkpoint's generation config
    plays no part, and no end token is generated.
    """
    widths = [beams] if isinstance(beams, int) else list(beams)
    if min([*widths, top_k, batch_size], default=0) < 1 or not widths:
        raise ValueError(f"beams, top_k and batch_size must be at least 1, got {beams}, {top_k}, {batch_size}")
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if masked is not None and len(masked) != len(prompts):
        raise ValueError(f"masked must hold one array a prompt: {len(masked)} arrays for {len(prompts)} prompts")
    check_prompts(prompts)
    masked_rows = None if masked is None else checked_rows(masked, trie.n_items)
    items = np.full((len(prompts), top_k), -1, dtype=np.int64)
    log_probabilities = np.full((len(prompts), top_k), -np.inf, dtype=np.float32)
    records: list[SearchRecord | None] = [None] * len(prompts)
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
    make_mask = MaskMaker(trie, allowed)
    search = _Search(trie, widths, strategy or Best(), temperature, record)
    with inference(model), tqdm(total=len(prompts), unit="user", desc="beam search", disable=not progress) as bar:
        readers = Readers(model, [trie.vocabulary(level) for level in range(1, trie.depth + 1)], pad_token_id)
        for users in np.split(order, range(batch_size, len(order), batch_size)) if len(order) else []:
            mask = make_mask([masked_rows[user] for user in users] if masked_rows is not None else [])
            leaves, scores, priorities, steps = search(readers([prompts[user] for user in users]), mask, users)
            items[users], log_probabilities[users] = _items_of_leaves(trie, mask, leaves, scores, priorities, top_k)
            for user, user_record in zip(users, search_records(mask, steps)) if record else ():
                records[user] = user_record
            bar.update(len(users))
    return Beams(items, log_probabilities, [some for some in records if some is not None])


@dataclass(frozen=True, eq=False)
class _Search:
    """The search of one batch of users after another."""

    trie: Trie
    widths: list[int]
    strategy: Strategy
    temperature: float
    record: bool

    def __call__(
        self, reader: PrefixReader, mask: ItemMask, users: Int[np.ndarray, " users"]
    ) -> tuple[
        Int[np.ndarray, "users beams"],
        Float[np.ndarray, "users beams"],
        Float[np.ndarray, "users beams"],
        list[Candidates],
    ]:
        """Return the leaves found (-1: none), their log-probabilities and priorities and, if asked, every step."""
        trie = self.trie
        nodes = np.zeros((len(users), 1), dtype=np.int64)
        scores = np.zeros((len(users), 1), dtype=np.float32)
        state = np.zeros((len(users), 1))
        logits = reader.read_prompts()
        steps: list[Candidates] = []
        while True:
            candidates = expand(trie, mask, nodes, scores, logits / self.temperature)
            width = self.widths[min(len(steps), len(self.widths) - 1)]
            parent_state = np.take_along_axis(state, candidates.columns, 1)
            chosen, state = self.strategy.choose(candidates, parent_state, width, users)
            steps.append(candidates.with_alive(chosen) if self.record else candidates)
            found = np.where(chosen >= 0, np.take_along_axis(candidates.nodes, chosen, 1), -1)
            order = np.argsort(self._standing(found), axis=1, kind="stable")
            chosen, state = np.take_along_axis(chosen, order, 1), np.take_along_axis(state, order, 1)
            nodes = np.take_along_axis(found, order, 1)
            scores = np.where(nodes >= 0, np.take_along_axis(candidates.log_probabilities, chosen, 1), -np.inf)
            standing = self._standing(nodes)
            branching, going_on = (int((standing <= most).sum(1).max()) for most in (0, 1))
            if going_on == 0:
                return nodes, scores, self.strategy.priority(scores, state), steps
            parents = np.take_along_axis(candidates.columns, chosen, 1)
            logits = self._read(reader, nodes[:, :branching], parents[:, :branching], going_on, len(steps) + 1)

    def _standing(self, nodes: Int[np.ndarray, "users beams"]) -> Int[np.ndarray, "users beams"]:
        """Return 0 for prefixes that the model must read, 1 where the trie leaves one way on, 2 for leaves and none."""
        several = self.trie.item_last[nodes] - self.trie.item_first[nodes] > 1
        return np.where(self.trie.is_leaf(nodes) | (nodes < 0), 2, np.where(several, 0, 1))

    def _read(
        self,
        reader: PrefixReader,
        nodes: Int[np.ndarray, "users branching"],
        parents: Int[np.ndarray, "users branching"],
        width: int,
        level: int,
    ) -> Float[torch.Tensor, "users width tokens"]:
        """Return the logits after the first columns; the others have one child each, whose probability is 1 anyway."""
        if nodes.shape[1] == 0:
            return torch.zeros(len(nodes), width, len(self.trie.vocabulary(level)))
        tokens = np.where(self._standing(nodes) == 0, self.trie.tokens_of(nodes), -1)
        return nn.functional.pad(reader.step(tokens, parents), (0, 0, 0, width - nodes.shape[1]))


def expand(
    trie: Trie,
    mask: ItemMask,
    nodes: Int[np.ndarray, "users beams"],
    scores: Float[np.ndarray, "users beams"],
    logits: Float[torch.Tensor, "users open tokens"],
) -> Candidates:
    """Return all that may be alive after a step: the children of open prefixes, and the leaves already found.

    Parameters
    ----------
    trie
        The trie.
    mask
        Masked items of the users.
    nodes
        Prefixes alive, those that go on first; -1 is none.
    scores
        Their log-probabilities, float32.
    logits
        Of the tokens of the next level, after each of the first columns of `nodes`.
    """
    users, width = logits.shape[:2]
    children = trie.children_of(nodes[:, :width])
    missing = children < 0
    columns = np.where(missing, 0, trie.columns[children]).astype(np.int64)
    allowed = logits.gather(2, torch.from_numpy(columns).to(logits.device))
    if missing.any():  # the softmax of a row without children is undefined and never used
        allowed = allowed.masked_fill_(torch.from_numpy(missing).to(logits.device), -torch.inf)
    steps = torch.log_softmax(allowed, dim=2).cpu().numpy()
    grown = np.where(missing, np.float32(-np.inf), scores[:, :width, None] + steps)
    stays = np.where(trie.is_leaf(nodes), nodes, -1)
    candidate_nodes = np.concatenate([children.reshape(users, -1), stays], axis=1)
    candidate_scores = np.concatenate([grown.reshape(users, -1), np.where(stays >= 0, scores, -np.inf)], axis=1)
    own = np.arange(nodes.shape[1])
    parent_columns = np.concatenate([np.repeat(own[:width], children.shape[2]), own])
    masked_scores = candidate_scores
    if mask:
        masked_scores = np.where(mask.allows(candidate_nodes), candidate_scores, np.float32(-np.inf))
    codes = np.where(missing, -1, columns).reshape(users, -1)
    return Candidates(
        before=nodes,
        nodes=candidate_nodes,
        columns=np.broadcast_to(parent_columns, candidate_nodes.shape),
        codes=np.concatenate([codes, np.full_like(stays, -1)], axis=1),
        log_probabilities=masked_scores.astype(np.float32, copy=False),
        unmasked_log_probabilities=candidate_scores.astype(np.float32, copy=False),
        alive=np.zeros(candidate_nodes.shape, dtype=bool),
    )


def _items_of_leaves(
    trie: Trie,
    mask: ItemMask,
    leaves: Int[np.ndarray, "users beams"],
    scores: Float[np.ndarray, "users beams"],
    priorities: Float[np.ndarray, "users beams"],
    top_k: int,
) -> tuple[Int[np.ndarray, "users top_k"], Float[np.ndarray, "users top_k"]]:
    """Return the best items below the leaves; items that share a leaf share its probability equally."""
    users = len(leaves)
    first = trie.item_first[leaves]
    counts = np.where(leaves >= 0, trie.item_last[leaves] - first, 0)
    ranks = np.arange(counts.max(initial=1))
    positions = np.minimum(first[..., None] + ranks, trie.n_items - 1)
    exists = ranks < counts[..., None]
    if mask:
        exists &= mask.allows_positions(positions)
    shared = np.log(np.maximum(counts, 1), dtype=np.float32)[..., None]
    each = np.where(exists, scores[..., None] - shared, np.float32(-np.inf)).reshape(users, -1)
    keys = np.where(exists, priorities[..., None] - shared, -np.inf).reshape(users, -1)
    rows = np.where(exists, trie.item_order[positions], -1).reshape(users, -1)
    # Stable: items of one leaf stay together, in the order of their rows.
    order = np.argsort(-keys, axis=1, kind="stable")[:, :top_k]
    items = np.full((users, top_k), -1, dtype=np.int64)
    log_probabilities = np.full((users, top_k), -np.inf, dtype=np.float32)
    items[:, : order.shape[1]] = np.take_along_axis(rows, order, 1)
    log_probabilities[:, : order.shape[1]] = np.take_along_axis(each, order, 1)
    return items, log_probabilities
