"""The same trie for other decoders: functions that constrain `transformers.generate` and vLLM."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from trialign.decode.trie import Trie


def prefix_allowed_tokens_fn(trie: Trie, start: int, end_token_id: int) -> Callable[[int, Tensor], list[int]]:
    """Return the trie as the function that `transformers.generate` takes under this name.

    `TrieLogitsProcessor` does the same for all beams at once and is much quicker.

    Parameters
    ----------
    trie
        The trie.
    start
        Where the semantic ID begins in a sequence: the (padded) length of the prompt for a decoder-only model,
        1 for an encoder-decoder model, whose decoder begins with its start token.
    end_token_id
        The token allowed after a leaf.

    Notes
    -----
    Pass ``renormalize_logits=True`` and ``length_penalty=0.0`` to `generate` to get the probabilities of
    `trialign.decode.beam_search`, and reset the checkpoint's generation config: a repetition penalty or a temperature
    in it changes what is found.
    """

    def allowed(_batch: int, sequence: Tensor) -> list[int]:
        return _allowed(trie, sequence[start:].tolist(), end_token_id).tolist()

    return allowed


class TrieLogitsProcessor(LogitsProcessor):
    """The trie for ``generate(..., logits_processor=LogitsProcessorList([...]))``, all beams looked up together.

    Parameters
    ----------
    trie, start, end_token_id
        As for `prefix_allowed_tokens_fn`, whose notes hold here too.
    """

    def __init__(self, trie: Trie, start: int, end_token_id: int) -> None:
        self.trie = trie
        self.start = start
        self.end_token_id = end_token_id

    def __call__(self, input_ids: Int[Tensor, "rows length"], scores: Float[Tensor, "rows tokens"]) -> Tensor:
        """Set the scores of all tokens that the trie does not allow to -inf."""
        nodes = np.zeros(len(input_ids), dtype=np.int64)
        for tokens in input_ids[:, self.start :].T.cpu().numpy():
            nodes = self.trie.step(nodes, tokens)
        children = self.trie.children_of(nodes)
        rows, places = np.nonzero(children >= 0)
        tokens = self.trie.tokens_of(children[rows, places])
        ended = np.flatnonzero(~(children >= 0).any(axis=1))
        rows, tokens = np.append(rows, ended), np.append(tokens, np.full(len(ended), self.end_token_id))
        index = torch.from_numpy(rows).to(scores.device), torch.from_numpy(tokens).to(scores.device)
        constrained = torch.full_like(scores, -torch.inf)
        constrained[index] = scores[index]
        return constrained


def request_logits_processor(trie: Trie, end_token_id: int) -> Callable[[Sequence[int], Tensor], Tensor]:
    """Return the trie as a logits processor of one request, as vLLM takes it.

    It gets the tokens generated so far and the logits of the next one. vLLM's V1 engine wraps such a function in a
    subclass of its `AdapterLogitsProcessor`; earlier versions took it in ``SamplingParams(logits_processors=[...])``.

    Parameters
    ----------
    trie
        The trie.
    end_token_id
        The token allowed after a leaf.
    """

    def constrain(generated: Sequence[int], logits: Float[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
        tokens = torch.from_numpy(_allowed(trie, list(generated), end_token_id)).to(logits.device)
        return torch.full_like(logits, -torch.inf).index_copy_(0, tokens, logits[tokens])

    return constrain


def _allowed(trie: Trie, generated: list[int], end_token_id: int) -> Int[np.ndarray, " tokens"]:
    """Return the tokens that may follow; the end token after a leaf, and after what the trie does not know."""
    node = trie.find(generated)
    if node < 0 or trie.is_leaf(np.array(node)):
        return np.array([end_token_id], dtype=np.int64)
    return trie.tokens_of(np.arange(trie.child_offsets[node], trie.child_offsets[node + 1]))
