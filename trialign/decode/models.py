"""How a transformers model is read for the trie search: the prompt once per user, then many prefixes a step.

Two classes with one interface hide the difference between decoder-only and encoder-decoder models. Both return logits
of the trie's tokens only: the output layer is multiplied for a few thousand rows and not for the whole vocabulary.
Nothing here calls `generate`, so a checkpoint's generation config has no say.
"""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

#: Model types whose output layer is a plain matrix product (no soft cap, no scale), which the search relies on.
DECODER_ONLY = ("qwen2", "qwen3", "llama", "mistral", "gpt2")
ENCODER_DECODER = ("t5",)


_Reader = TypeVar("_Reader", "DecoderOnlyReader", "EncoderDecoderReader")


class PrefixReader(Protocol):
    """A model that has read one prompt a user and goes on for several prefixes of each."""

    def read_prompts(self) -> Float[Tensor, "users 1 vocabulary"]:
        """Read the prompts and return the logits of the first token."""

    def step(
        self, tokens: Int[np.ndarray, "users beams"], parents: Int[np.ndarray, "users beams"]
    ) -> Float[Tensor, "users beams vocabulary"]:
        """Append one token to prefixes of the step before and return the logits of what follows.

        `parents` says which column of the step before each prefix continues (0 after `read_prompts`).
        """

    def fork(self) -> "PrefixReader":
        """Return a reader in the same state whose steps leave this one as it is."""


def prefix_reader(
    model: nn.Module, prompts: Sequence[Sequence[int]], tokens: Int[np.ndarray, " vocabulary"], pad_token_id: int
) -> PrefixReader:
    """Return the reader for this kind of model.

    Parameters
    ----------
    model
        A causal language model (Qwen2, Qwen3, Llama, Mistral, GPT-2) or T5, plain or wrapped by peft.
    prompts
        Token ids, one non-empty prompt a user.
    tokens
        The tokens whose logits are wanted.
    pad_token_id
        Fills shorter prompts; it is masked, so any valid token id does.

    Raises
    ------
    ValueError
        If the model is of another type, or a prompt is empty.
    """
    plain = unwrapped(model)
    for user, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"the prompt of user {user} has no token: begin every prompt with a start token")
    if plain.config.model_type in ENCODER_DECODER:
        return EncoderDecoderReader(plain, prompts, tokens, pad_token_id)
    return DecoderOnlyReader(plain, prompts, tokens, pad_token_id)


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model itself, peft's wrapper (whose layers stay in it) taken off.

    Raises
    ------
    ValueError
        If the search does not know this type of model.
    """
    plain: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    known = DECODER_ONLY + ENCODER_DECODER
    if plain.config.model_type not in known:
        raise ValueError(f"beam search knows the model types {', '.join(known)}, not {plain.config.model_type!r}")
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


class DecoderOnlyReader:
    """Prefixes of all beams as one packed sequence a user, behind the user's prompt.

    The key-value cache holds each prompt once, then the tokens of all prefixes alive at level 1, 2, ...; a tree-shaped
    attention mask lets each prefix see the prompt and its own ancestors only. Nothing is copied or reordered when beams
    are pruned. This is the attention of speculative decoding's token trees (SpecInfer, Miao et al. 2024, section 4.2).
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], tokens: np.ndarray, pad_token_id: int
    ) -> None:
        if model.config._attn_implementation not in ("eager", "sdpa"):
            raise ValueError(
                f"attention {model.config._attn_implementation!r} takes no tree-shaped mask: "
                'load the model with attn_implementation="sdpa"'
            )
        self.head = _Head(model, tokens)
        self.decoder: nn.Module = model.base_model
        self.cache = DynamicCache()
        self.prompt_ids, self.prompt_mask = _padded(prompts, pad_token_id, model.device, side="left")
        _check_window(model, self.prompt_ids.shape[1])
        self.depth = 0
        # ancestry[u, w, s]: does prefix w of the last step contain token s of the tree part of the cache?
        self.ancestry = torch.zeros(len(prompts), 1, 0, dtype=torch.bool, device=model.device)

    def read_prompts(self) -> Float[Tensor, "users 1 vocabulary"]:
        """Read the prompts and return the logits of the first token."""
        positions = (self.prompt_mask.long().cumsum(1) - 1).clamp(min=0)
        hidden = self._hidden(self.prompt_ids, self.prompt_mask, positions)
        return self.head(hidden[:, -1:])

    def step(
        self, tokens: Int[np.ndarray, "users beams"], parents: Int[np.ndarray, "users beams"]
    ) -> Float[Tensor, "users beams vocabulary"]:
        """Append one token to prefixes of the step before and return the logits of what follows."""
        device = self.ancestry.device
        users, beams = tokens.shape
        index = torch.from_numpy(parents).to(device)[..., None].expand(-1, -1, self.ancestry.shape[2])
        own = torch.eye(beams, dtype=torch.bool, device=device).expand(users, -1, -1)
        self.ancestry = torch.cat([self.ancestry.gather(1, index), own], dim=2)
        seen = torch.cat([self.prompt_mask[:, None].expand(-1, beams, -1), self.ancestry], dim=2)
        positions = (self.prompt_mask.sum(1, keepdim=True) + self.depth).expand(-1, beams)
        self.depth += 1
        hidden = self._hidden(torch.from_numpy(tokens).to(device), _additive(seen, self.head.dtype), positions)
        return self.head(hidden)

    def fork(self) -> "DecoderOnlyReader":
        """Return a reader in the same state whose steps leave this one as it is."""
        return _fork(self)

    def _hidden(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        cache = {_cache_keyword(self.decoder): self.cache}
        output = self.decoder(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **cache)
        return output.last_hidden_state


class EncoderDecoderReader:
    """The prompt read once by the encoder; beams as rows of the decoder's batch.

    The cross-attention cache is repeated when the beams first branch and is left alone after, since beams of one user
    share it; only the decoder's own cache, a few tokens long, follows the beams.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], tokens: np.ndarray, pad_token_id: int
    ) -> None:
        self.head = _Head(model, tokens)
        self.model = model
        self.ids, self.mask = _padded(prompts, pad_token_id, model.device, side="right")
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.beams = 1

    def read_prompts(self) -> Float[Tensor, "users 1 vocabulary"]:
        """Read the prompts and return the logits of the first token."""
        self.encoded = self.model.get_encoder()(input_ids=self.ids, attention_mask=self.mask).last_hidden_state
        start = torch.full_like(self.ids[:, :1], self.model.config.decoder_start_token_id)
        return self._logits(start)[:, None]

    def step(
        self, tokens: Int[np.ndarray, "users beams"], parents: Int[np.ndarray, "users beams"]
    ) -> Float[Tensor, "users beams vocabulary"]:
        """Append one token to prefixes of the step before and return the logits of what follows."""
        users, beams = tokens.shape
        parent_rows = torch.from_numpy(np.arange(users)[:, None] * self.beams + parents).flatten().to(self.ids.device)
        self.cache.self_attention_cache.batch_select_indices(parent_rows)
        if beams != self.beams:
            self.cache.cross_attention_cache.batch_select_indices(parent_rows)
            self.encoded, self.mask = self.encoded[parent_rows], self.mask[parent_rows]
            self.beams = beams
        logits = self._logits(torch.from_numpy(tokens.reshape(-1, 1)).to(self.ids.device))
        return logits.view(users, beams, -1)

    def fork(self) -> "EncoderDecoderReader":
        """Return a reader in the same state whose steps leave this one as it is."""
        return _fork(self)

    def _logits(self, ids: Tensor) -> Float[Tensor, "rows vocabulary"]:
        decoder: nn.Module = self.model.get_decoder()
        output = decoder(
            input_ids=ids,
            encoder_hidden_states=self.encoded,
            encoder_attention_mask=self.mask,
            use_cache=True,
            **{_cache_keyword(decoder): self.cache},
        )
        hidden = output.last_hidden_state[:, -1]
        if _scales_output(self.model):
            hidden = hidden * self.model.config.d_model**-0.5
        return self.head(hidden)


def _fork(reader: _Reader) -> _Reader:
    """Copy a reader; steps change nothing in place but the cache, which is therefore copied for real."""
    fork = copy.copy(reader)
    fork.cache = copy.deepcopy(reader.cache)
    return fork


class _Head:
    """The rows of the output layer that belong to some tokens."""

    def __init__(self, model: PreTrainedModel, tokens: np.ndarray) -> None:
        layer = model.get_output_embeddings()
        self.tokens = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).to(model.device)
        self.dtype = model.dtype
        if self.tokens.max() >= model.config.get_text_config().vocab_size:
            raise ValueError(
                f"the trie has token {int(self.tokens.max())}, the model only {model.config.vocab_size} tokens: "
                "resize the model's embeddings to the tokenizer with the SID tokens"
            )
        # peft wraps the layer when it trains some tokens; its rows can't be taken then, the whole layer is applied.
        self.layer = layer if type(layer) is not nn.Linear else None
        if self.layer is None:
            self.weight = layer.weight[self.tokens]
            self.bias = None if layer.bias is None else layer.bias[self.tokens]

    def __call__(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... vocabulary"]:
        if self.layer is not None:
            return self.layer(hidden)[..., self.tokens].float()
        return nn.functional.linear(hidden, self.weight, self.bias).float()


def _padded(
    prompts: Sequence[Sequence[int]], pad_token_id: int, device: torch.device, side: str
) -> tuple[Int[Tensor, "users length"], Bool[Tensor, "users length"]]:
    """Return the prompts as one array, padded on this side, and where they have tokens."""
    length = max(len(prompt) for prompt in prompts)
    ids = np.full((len(prompts), length), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids, dtype=bool)
    for row, prompt in enumerate(prompts):
        where = slice(length - len(prompt), None) if side == "left" else slice(0, len(prompt))
        ids[row, where], mask[row, where] = prompt, True
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _additive(seen: Bool[Tensor, "users beams keys"], dtype: torch.dtype) -> Float[Tensor, "users 1 beams keys"]:
    """Return the mask that is added to attention scores: 0 where seen, the least number elsewhere."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _check_window(model: PreTrainedModel, length: int) -> None:
    """Refuse prompts that a sliding-window layer would cut: the tree mask gives every layer the whole prompt."""
    window = getattr(model.config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(model.config, "layer_types", None) or ["sliding_attention"])
    if window is not None and slides and length >= window:
        raise ValueError(f"a prompt has {length} tokens, the model's sliding window {window}: shorten the history")


def _scales_output(model: PreTrainedModel) -> bool:
    """T5 with tied embeddings scales the decoder's output; transformers has named that setting in two ways."""
    return bool(getattr(model.config, "scale_decoder_outputs", model.config.tie_word_embeddings))


def _cache_keyword(module: nn.Module) -> str:
    """Transformers renamed the argument that takes the cache in version 5."""
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"
