"""Encoder-decoder models (T5) read for the trie search."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from trialign.decode.attention import Layout, Memory, Path, attend_memory, attend_path, grown
from trialign.decode.models import Columns, OutputRows, padded, padding_bias, parts

#: Model types that `EncoderDecoderReader` knows.
ENCODER_DECODERS = ("t5",)


class EncoderDecoderReader:
    """Reads each prompt once with the encoder, whose outputs are the `Memory` of all the user's prefixes.

    Parameters
    ----------
    model
        A T5 model.
    prompts
        Token ids, one non-empty prompt a user.
    output
        The output layer.
    pad_token_id
        Fills shorter prompts; it is masked, so any valid token id does.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], output: OutputRows, pad_token_id: int
    ) -> None:
        self.model = model
        self.decoder: Any = model.get_decoder()
        self.output = output
        self.ids, self.mask = padded(prompts, pad_token_id, model.device)
        self.bias = padding_bias(self.mask, model.dtype)
        self.parts = list(parts([len(prompt) for prompt in prompts], model.device))
        self.columns = Columns(len(prompts), model.device)
        self.level = 0
        self.memories: list[Memory] = []
        self.paths: list[Path | None] = [None] * len(self.decoder.block)

    def read_prompts(self) -> Float[Tensor, "users 1 tokens"]:
        """Read the prompts and return the logits of the tokens of level 1."""
        for users, length in self.parts:
            self._read_part(users, length)
        start = self.ids.new_full((len(self.ids),), self.model.config.decoder_start_token_id)
        return self._logits(start, Layout(len(start), 1, None), torch.empty_like(start))

    def step(
        self, tokens: Int[np.ndarray, "users width"], parents: Int[np.ndarray, "users width"]
    ) -> Float[Tensor, "users width tokens"]:
        """Append one token to prefixes of the step before and return the logits of the tokens of the next level."""
        self.columns, layout, packed, places = self.columns.follow(tokens, parents)
        return self._logits(packed, layout, places)

    def fork(self) -> "EncoderDecoderReader":
        """Return a reader in the same state whose steps leave this one as it is."""
        return copy.copy(self)  # a step replaces what it changes

    def _read_part(self, users: slice, length: int) -> None:
        """Encode some users' prompts and keep what every layer of the decoder attends to."""
        encoder: Any = self.model.get_encoder()
        mask = self.mask[users, :length]
        encoded = encoder(input_ids=self.ids[users, :length], attention_mask=None if mask.all() else mask)[0]
        for place, block in enumerate(self.decoder.block):
            attention = block.layer[1].EncDecAttention
            key, value = (_heads(attention, project(encoded)) for project in (attention.k, attention.v))
            if place == len(self.memories):
                self.memories.append(Memory.empty(*self.ids.shape, like=key))
            self.memories[place].write(users, key, value)

    def _logits(
        self, tokens: Int[Tensor, " prefixes"], layout: Layout, places: Int[Tensor, " prefixes"]
    ) -> Float[Tensor, "users width tokens"]:
        hidden = self.decoder.embed_tokens(tokens)
        # How much a prefix attends to a token of its own depends on their distance alone: [tokens, heads, 1].
        first: Any = self.decoder.block[0].layer[0].SelfAttention
        bias = first.compute_bias(1, self.level + 1, device=tokens.device, past_seen_tokens=self.level)[0, :, 0].T
        paths: list[Path | None] = []
        for place, block in enumerate(self.decoder.block):
            hidden, path = self._attend_self(block.layer[0], hidden, bias[..., None], place, places)
            hidden = self._attend_prompt(block.layer[1], hidden, layout, self.memories[place])
            hidden = _finite(block.layer[2](hidden))
            paths.append(path)
        self.paths = paths
        self.level += 1
        hidden = self.decoder.final_layer_norm(hidden)
        if _scales_output(self.model):
            hidden = hidden * self.model.config.d_model**-0.5
        return layout.spread(self.output(hidden, self.level))

    def _attend_self(
        self,
        layer: Any,
        hidden: Float[Tensor, "prefixes hidden"],
        bias: Float[Tensor, "tokens heads 1"],
        place: int,
        places: Int[Tensor, " prefixes"],
    ) -> tuple[Float[Tensor, "prefixes hidden"], Path]:
        attention = layer.SelfAttention
        normed = layer.layer_norm(hidden)
        query, key, value = (_heads(attention, project(normed)) for project in (attention.q, attention.k, attention.v))
        path = grown(self.paths[place], places, key, value)
        return _finite(hidden + attention.o(attend_path(query, 1.0, path, bias))), path

    def _attend_prompt(
        self, layer: Any, hidden: Float[Tensor, "prefixes hidden"], layout: Layout, memory: Memory
    ) -> Float[Tensor, "prefixes hidden"]:
        attention = layer.EncDecAttention
        query = _heads(attention, attention.q(layer.layer_norm(hidden)))
        return _finite(hidden + attention.o(attend_memory(query, layout, 1.0, memory, self.bias)))


def _heads(attention: Any, projected: Float[Tensor, "... heads_times_size"]) -> Float[Tensor, "... heads size"]:
    return projected.unflatten(-1, (-1, attention.key_value_proj_dim))


def _finite(hidden: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Keep float16 from overflowing, as transformers does; other types can't."""
    if hidden.dtype != torch.float16:
        return hidden
    limit = torch.finfo(torch.float16).max - 1000
    return hidden.clamp(-limit, limit)


def _scales_output(model: PreTrainedModel) -> bool:
    """T5 with tied embeddings scales the decoder's output; transformers has named that setting in two ways."""
    return bool(getattr(model.config, "scale_decoder_outputs", model.config.tie_word_embeddings))
