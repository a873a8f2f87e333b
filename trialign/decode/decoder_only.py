"""Decoder-only models (Qwen2, Qwen3, Llama, Mistral, GPT-2) read for the trie search."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import rotate_half

from trialign.decode.attention import Layout, Memory, Path, attend_memory, attend_memory_and_path, grown
from trialign.decode.models import Columns, OutputRows, padded, padding_bias, parts

Heads = tuple[Tensor, Tensor, Tensor]


class Family(Protocol):
    """The parts of a decoder that differ between families; leading dimensions of tensors are free."""

    @property
    def layers(self) -> Sequence[Any]:
        """The decoder's layers, in order."""

    def embed(self, ids: Int[Tensor, "..."], positions: Int[Tensor, "..."]) -> Float[Tensor, "... hidden"]:
        """Return what enters the first layer."""

    def rotation(self, positions: Int[Tensor, "..."], dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Return cosines and sines for these positions, or None for a family with learned positions."""

    def heads(self, layer: Any, hidden: Float[Tensor, "... hidden"], rotation: tuple[Tensor, Tensor] | None) -> Heads:
        """Return query, key and value of a layer, [..., heads, head_size] each."""

    def finish(
        self, layer: Any, hidden: Float[Tensor, "... hidden"], attended: Float[Tensor, "... heads_times_size"]
    ) -> Float[Tensor, "... hidden"]:
        """Return the layer's output from its input and its attention."""

    def scale(self, layer: Any) -> float:
        """Return the factor of attention scores."""

    def normed(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """Return what enters the output layer."""


class LlamaFamily:
    """Llama, Mistral, Qwen2 and Qwen3: rotary positions, grouped key heads, gated feed-forward layers."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.decoder: Any = model.base_model
        self.layers: Sequence[Any] = cast(Any, self.decoder).layers

    def embed(self, ids: Int[Tensor, "..."], positions: Int[Tensor, "..."]) -> Float[Tensor, "... hidden"]:
        """Return what enters the first layer."""
        return self.decoder.embed_tokens(ids)

    def rotation(self, positions: Int[Tensor, "..."], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, with an axis for the heads."""
        like = torch.empty(0, dtype=dtype, device=positions.device)
        cosines, sines = self.decoder.rotary_emb(like, positions.reshape(1, -1))
        return tuple(part.reshape(*positions.shape, 1, -1) for part in (cosines, sines))  # type: ignore[return-value]

    def heads(self, layer: Any, hidden: Float[Tensor, "... hidden"], rotation: tuple[Tensor, Tensor] | None) -> Heads:
        """Return query, key and value of a layer; queries and keys turned to their positions."""
        assert rotation is not None
        attention = layer.self_attn
        normed = layer.input_layernorm(hidden)
        query, key, value = (
            project(normed).unflatten(-1, (-1, attention.head_dim))
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):  # Qwen3
            query, key = attention.q_norm(query), attention.k_norm(key)
        cosines, sines = rotation
        return query * cosines + rotate_half(query) * sines, key * cosines + rotate_half(key) * sines, value

    def finish(
        self, layer: Any, hidden: Float[Tensor, "... hidden"], attended: Float[Tensor, "... heads_times_size"]
    ) -> Float[Tensor, "... hidden"]:
        """Return the layer's output from its input and its attention."""
        hidden = hidden + layer.self_attn.o_proj(attended)
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

    def scale(self, layer: Any) -> float:
        """Return the factor of attention scores."""
        return layer.self_attn.scaling

    def normed(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """Return what enters the output layer."""
        return self.decoder.norm(hidden)


class GPT2Family:
    """GPT-2: learned positions, one projection for query, key and value."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.decoder: Any = model.base_model
        self.layers: Sequence[Any] = cast(Any, self.decoder).h

    def embed(self, ids: Int[Tensor, "..."], positions: Int[Tensor, "..."]) -> Float[Tensor, "... hidden"]:
        """Return what enters the first layer."""
        return self.decoder.wte(ids) + self.decoder.wpe(positions)

    def rotation(self, positions: Int[Tensor, "..."], dtype: torch.dtype) -> None:
        """Return None: positions are learned."""

    def heads(self, layer: Any, hidden: Float[Tensor, "... hidden"], rotation: tuple[Tensor, Tensor] | None) -> Heads:
        """Return query, key and value of a layer."""
        attention = layer.attn
        projected = attention.c_attn(layer.ln_1(hidden)).unflatten(-1, (3, -1, attention.head_dim))
        query, key, value = projected.unbind(-3)
        return query, key, value

    def finish(
        self, layer: Any, hidden: Float[Tensor, "... hidden"], attended: Float[Tensor, "... heads_times_size"]
    ) -> Float[Tensor, "... hidden"]:
        """Return the layer's output from its input and its attention."""
        hidden = hidden + layer.attn.c_proj(attended)
        return hidden + layer.mlp(layer.ln_2(hidden))

    def scale(self, layer: Any) -> float:
        """Return the factor of attention scores."""
        return layer.attn.scaling

    def normed(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """Return what enters the output layer."""
        return self.decoder.ln_f(hidden)


#: Model type to family. Their output layer is a plain matrix product (no soft cap, no scale), which the search relies
#: on.
FAMILIES: dict[str, type[LlamaFamily] | type[GPT2Family]] = {
    "qwen2": LlamaFamily,
    "qwen3": LlamaFamily,
    "llama": LlamaFamily,
    "mistral": LlamaFamily,
    "gpt2": GPT2Family,
}


class DecoderOnlyReader:
    """Reads each prompt once and keeps its keys and values as the `Memory` of all the user's prefixes.

    Of the prompt, the last layer computes the last token only: nothing looks at the other outputs.

    Parameters
    ----------
    model
        A model of one of `FAMILIES`.
    prompts
        Token ids, one non-empty prompt a user.
    output
        The output layer.
    pad_token_id
        Fills shorter prompts; it is masked, so any valid token id does.

    Raises
    ------
    ValueError
        If a prompt and its longest continuation do not fit into the model's sliding window or its learned positions, or
        exceed those beyond which its RoPE scaling (dynamic, longrope) depends on the length of what is read.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], output: OutputRows, pad_token_id: int
    ) -> None:
        self.family: Family = FAMILIES[model.config.model_type](model)
        self.output = output
        self.ids, mask = padded(prompts, pad_token_id, model.device)
        _check_windows(model, self.ids.shape[1], len(output.tokens))
        self.bias = padding_bias(mask, model.dtype)
        self.lengths = mask.sum(1)
        self.parts = list(parts([len(prompt) for prompt in prompts], model.device))
        self.columns = Columns(len(prompts), model.device)
        self.level = 0
        self.memories: list[Memory] = []
        self.paths: list[Path | None] = [None] * len(self.family.layers)

    def read_prompts(self) -> Float[Tensor, "users 1 tokens"]:
        """Read the prompts and return the logits of the tokens of level 1."""
        family, last = self.family, self.family.layers[-1]
        ends = [self._read_part(users, length) for users, length in self.parts]
        query, hidden = (torch.cat(of_parts) for of_parts in zip(*ends, strict=True))
        layout = Layout(len(hidden), 1, None)
        attended = attend_memory(query, layout, family.scale(last), self.memories[-1], self.bias)
        hidden = family.finish(last, hidden, attended)
        self.level = 1
        return self.output(family.normed(hidden), self.level)[:, None]

    def step(
        self, tokens: Int[np.ndarray, "users width"], parents: Int[np.ndarray, "users width"]
    ) -> Float[Tensor, "users width tokens"]:
        """Append one token to prefixes of the step before and return the logits of the tokens of the next level."""
        family = self.family
        self.columns, layout, packed, places = self.columns.follow(tokens, parents)
        owners = torch.arange(layout.users, device=packed.device).repeat_interleave(layout.width)
        positions = self.lengths[layout.pack(owners.unflatten(0, (layout.users, layout.width)))] + self.level - 1
        hidden = family.embed(packed, positions)
        rotation = family.rotation(positions, hidden.dtype)
        paths: list[Path | None] = []
        for place, (layer, memory) in enumerate(zip(family.layers, self.memories, strict=True)):
            query, key, value = family.heads(layer, hidden, rotation)
            path = grown(self.paths[place], places, key, value)
            attended = attend_memory_and_path(query, layout, family.scale(layer), memory, self.bias, path)
            hidden = family.finish(layer, hidden, attended)
            paths.append(path)
        self.paths = paths
        self.level += 1
        return layout.spread(self.output(family.normed(hidden), self.level))

    def fork(self) -> "DecoderOnlyReader":
        """Return a reader in the same state whose steps leave this one as it is."""
        return copy.copy(self)  # a step replaces what it changes

    def _read_part(
        self, users: slice, length: int
    ) -> tuple[Float[Tensor, "users heads head_size"], Float[Tensor, "users hidden"]]:
        """Read some users' prompts and return the last layer's query and input of each prompt's last token."""
        family = self.family
        positions = torch.arange(length, device=self.ids.device)
        hidden = family.embed(self.ids[users, :length], positions)
        rotation = family.rotation(positions, hidden.dtype)
        for place, layer in enumerate(family.layers):
            query, key, value = family.heads(layer, hidden, rotation)
            if place == len(self.memories):
                self.memories.append(Memory.empty(*self.ids.shape, like=key))
            self.memories[place].write(users, key, value)
            if place < len(family.layers) - 1:
                hidden = family.finish(layer, hidden, _causal(query, key, value, family.scale(layer)))
        rows = torch.arange(len(hidden), device=hidden.device)
        ends = self.lengths[users] - 1
        return query[rows, ends], hidden[rows, ends]


def _causal(
    query: Float[Tensor, "users length heads size"],
    key: Float[Tensor, "users length kv_heads size"],
    value: Float[Tensor, "users length kv_heads size"],
    scale: float,
) -> Float[Tensor, "users length heads_times_size"]:
    """Return causal attention within each prompt; padding at the end is seen by padding only."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    grouped = query.shape[1] != key.shape[1]
    attended = nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=grouped
    )
    return attended.transpose(1, 2).flatten(2)


def _check_windows(model: PreTrainedModel, length: int, depth: int) -> None:
    """Refuse prompts for which some window of the model is too short.

    The last of `depth` tokens is never read, and the one before it must still see the first of the prompt.
    """
    for window, what in _windows(model.config):
        if length + depth - 1 > window:
            raise ValueError(
                f"a prompt has {length} tokens, but at most {window - depth + 1} fit into the model's {what} "
                f"with semantic IDs of up to {depth} tokens: shorten the history"
            )


def _windows(config: Any) -> Iterator[tuple[int, str]]:
    """Yield the lengths up to which the model reads a text as the search does, and what sets them."""
    if config.model_type == "gpt2":
        yield config.n_positions, f"{config.n_positions} positions"
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    if window is not None and slides:  # here every layer sees the whole prompt
        yield window, f"sliding window {window}"
    # Beyond these, a position's angles depend on the longest text read with it: an item's score on the batch.
    rope = getattr(config, "rope_parameters", None) or {}
    scaling = rope.get("rope_type")
    if scaling in ("dynamic", "longrope"):
        usual = config.max_position_embeddings if scaling == "dynamic" else rope["original_max_position_embeddings"]
        yield usual, f"{usual} positions without {scaling} RoPE scaling"
