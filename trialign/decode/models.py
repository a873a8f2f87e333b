"""How a transformers model is read for the trie search: the prompt once per user, then many prefixes a step.

A reader per kind of model (`decoder_only`, `encoder_decoder`) calls the model's own layers, adapters included, and does
the attention itself (`attention`), so that nothing of a prompt is copied for its beams. Nothing here calls `generate`:
a checkpoint's generation config has no say.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from trialign.decode.attention import Layout

#: Tokens of prompts that a CPU reads together.
CPU_TOKENS = 768


class PrefixReader(Protocol):
    """A model that has read one prompt a user and goes on for several prefixes of each."""

    def read_prompts(self) -> Float[Tensor, "users 1 tokens"]:
        """Read the prompts and return the logits of the tokens of level 1."""

    def step(
        self, tokens: Int[np.ndarray, "users width"], parents: Int[np.ndarray, "users width"]
    ) -> Float[Tensor, "users width tokens"]:
        """Append one token to prefixes of the step before and return the logits of the tokens of the next level.

        `parents` says which column of the step before each prefix continues (0 after `read_prompts`). Where a token
        is -1 there is no prefix, nothing is computed, and the logits mean nothing.
        """

    def fork(self) -> "PrefixReader":
        """Return a reader in the same state whose steps leave this one as it is."""


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model itself, the wrapper of a LoRA-like adapter (whose layers stay in it) taken off.

    Raises
    ------
    ValueError
        If the adapter learns a prompt: that lives in the wrapper, and would be lost with it.
    """
    if isinstance(model, PeftModel) and (adapter := model.active_peft_config).is_prompt_learning:
        raise ValueError(
            f"the adapter {adapter.peft_type} learns a prompt, which the search would not read: "
            "use a LoRA-like adapter, whose layers are in the model"
        )
    plain: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return plain


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode without gradients, and back into the mode it was in."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


class OutputRows:
    """The output layer, for the tokens of each level of a trie only.

    Parameters
    ----------
    model
        The model.
    vocabularies
        Token ids of each level, from level 1.

    Raises
    ------
    ValueError
        If a token is not one of the model's.
    """

    def __init__(self, model: PreTrainedModel, vocabularies: Sequence[Int[np.ndarray, " tokens"]]) -> None:
        size = model.config.get_text_config().vocab_size
        if (largest := max(int(tokens[-1]) for tokens in vocabularies)) >= size:
            raise ValueError(
                f"the trie has token {largest}, the model only {size} tokens: "
                "resize the model's embeddings to the tokenizer with the SID tokens"
            )
        self.tokens = [torch.from_numpy(tokens).to(model.device) for tokens in vocabularies]
        layer: Any = model.get_output_embeddings()
        # peft wraps the layer when it trains some tokens; its rows can't be taken then, the whole layer is applied.
        self.whole = layer if type(layer) is not nn.Linear else None
        if self.whole is None:
            self.weights = [layer.weight[tokens] for tokens in self.tokens]
            self.biases = [None if layer.bias is None else layer.bias[tokens] for tokens in self.tokens]

    def __call__(self, hidden: Float[Tensor, "... hidden"], level: int) -> Float[Tensor, "... tokens"]:
        """Return the logits, in float32, of the tokens of a level."""
        if self.whole is not None:
            return self.whole(hidden)[..., self.tokens[level - 1]].float()
        return nn.functional.linear(hidden, self.weights[level - 1], self.biases[level - 1]).float()


class Columns:
    """Follows which packed prefix stands in which column, from step to step.

    Parameters
    ----------
    users
        Number of users; each has one column, the prompt's, before the first step.
    device
        Of the model.
    """

    def __init__(self, users: int, device: torch.device) -> None:
        self.device = device
        self.places = np.arange(users)[:, None]  # of each column: the place of its prefix among the packed ones

    def follow(
        self, tokens: Int[np.ndarray, "users width"], parents: Int[np.ndarray, "users width"]
    ) -> tuple["Columns", Layout, Int[Tensor, " prefixes"], Int[Tensor, " prefixes"]]:
        """Return the columns after a step, their layout, the tokens and the places of the parents, packed."""
        present = tokens >= 0
        after = Columns(len(tokens), self.device)
        after.places = np.cumsum(present).reshape(present.shape) - 1
        rows = None if present.all() else torch.from_numpy(np.flatnonzero(present)).to(self.device)
        parent_places = np.take_along_axis(self.places, np.where(present, parents, 0), 1)[present]
        layout = Layout(tokens.shape[0], tokens.shape[1], rows)
        packed = torch.from_numpy(np.ascontiguousarray(tokens[present], dtype=np.int64)).to(self.device)
        return after, layout, packed, torch.from_numpy(parent_places).to(self.device)


def padded(
    prompts: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> tuple[Int[Tensor, "users length"], Bool[Tensor, "users length"]]:
    """Return the prompts as one array, padded at the end, and where they have tokens."""
    lengths = np.array([len(prompt) for prompt in prompts])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(prompt, dtype=np.int64) for prompt in prompts])
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def parts(lengths: Sequence[int], device: torch.device) -> Iterator[tuple[slice, int]]:
    """Yield the users whose prompts are read together, and the length of the longest of their prompts.

    On a CPU they are so few that what a layer computes stays in its cache, and of similar length if the users are
    sorted; on a GPU they are all.
    """
    together = max(1, CPU_TOKENS // max(lengths)) if device.type == "cpu" else len(lengths)
    for first in range(0, len(lengths), together):
        users = slice(first, first + together)
        yield users, max(lengths[users])


def padding_bias(mask: Bool[Tensor, "users length"], dtype: torch.dtype) -> Float[Tensor, "users 1 1 length"] | None:
    """Return what is added to attention scores: 0 at tokens, the least number at padding; None without padding."""
    if bool(mask.all()):
        return None
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask, torch.finfo(dtype).min)[:, None, None]
