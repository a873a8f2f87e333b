"""Small language models from scratch, and the tokenizer that they share: decoders (Qwen3, GPT-2) and T5."""

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from trialign.tasks import TASKS
from trialign.vocabulary import SidVocabulary

_PAD, _END = "<|pad|>", "<|end|>"

_Model = TypeVar("_Model", bound=PreTrainedModel)


def scratch_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the catalogue's own texts.

    Any text can be encoded and decoded back exactly, since every byte is a token.

    Parameters
    ----------
    texts
        Titles and captions.
    vocab_size
        Upper bound of the number of tokens before SID tokens; at least 258 (256 bytes, padding, end of text).

    Raises
    ------
    ValueError
        If there is no text, or the vocabulary cannot hold the bytes.
    """
    texts = [text for text in texts if text]
    if not texts or vocab_size < 258:
        raise ValueError(f"needs at least one text and vocab_size >= 258, got {len(texts)} texts and {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_PAD, _END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # The templates stand in every example: counted as often as the texts, their words become single tokens.
    templates = [" ".join(task.parts) for task in TASKS.values()] * len(texts)
    tokenizer.train_from_iterator([*texts, *templates], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END, clean_up_tokenization_spaces=False
    )


def scratch_qwen3(
    vocabulary: SidVocabulary,
    *,
    hidden: int = 128,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
    attention_dropout: float = 0.1,
    seed: int = 0,
) -> Qwen3ForCausalLM:
    """Return a small Qwen3 with random weights, tied embeddings and plain (eager) attention.

    Eager attention is faster than the fused kernel's backward pass on a CPU at these sizes.

    Parameters
    ----------
    vocabulary
        Decides the number of embeddings.
    hidden, layers, heads
        Width, depth and attention heads; `hidden` must be an even multiple of `heads`.
    dropout
        Share of the embeddings, and of what each attention and feed-forward layer adds, dropped in training. Qwen3
        itself has none, since large corpora need none; histories of a catalogue are few and soon learnt by heart.
    attention_dropout
        Share of attention weights dropped in training.
    seed
        Of the weights.

    Raises
    ------
    ValueError
        If the width cannot be split among the heads.
    """
    if hidden % (2 * heads):
        raise ValueError(f"hidden must be an even multiple of heads, got hidden={hidden}, heads={heads}")
    config = Qwen3Config(  # type: ignore[call-arg]  # attn_implementation is a keyword of every configuration
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=4096,
        attention_dropout=attention_dropout,
        tie_word_embeddings=True,
        eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
        bos_token_id=None,
        attn_implementation="eager",
    )
    model = _new(Qwen3ForCausalLM, config, vocabulary, seed)
    _add_dropout(model, dropout)
    return model


def scratch_gpt2(
    vocabulary: SidVocabulary,
    *,
    hidden: int = 128,
    layers: int = 2,
    heads: int = 4,
    positions: int = 1024,
    dropout: float = 0.0,
    attention_dropout: float = 0.1,
    seed: int = 0,
) -> GPT2LMHeadModel:
    """Return a small GPT-2 with random weights, tied embeddings, ReLU layers and plain (eager) attention.

    Quicker to train on a CPU than a Qwen3 of its size, most of all in bf16: its norms are one kernel each, its
    positions are learned and not computed, its feed-forward layers have no gate.

    Parameters
    ----------
    vocabulary
        Decides the number of embeddings.
    hidden, layers, heads
        Width, depth and attention heads; `hidden` must be a multiple of `heads`.
    positions
        Most tokens of a sequence; longer ones are refused.
    dropout
        Share of the embeddings, and of what each attention and feed-forward layer adds, dropped in training.
    attention_dropout
        Share of attention weights dropped in training.
    seed
        Of the weights.

    Raises
    ------
    ValueError
        If the width cannot be split among the heads.
    """
    if hidden % heads:
        raise ValueError(f"hidden must be a multiple of heads, got hidden={hidden}, heads={heads}")
    config = GPT2Config(  # type: ignore[call-arg]  # attn_implementation is a keyword of every configuration
        vocab_size=len(vocabulary),
        n_embd=hidden,
        n_layer=layers,
        n_head=heads,
        n_positions=positions,
        activation_function="relu",
        embd_pdrop=dropout,
        resid_pdrop=dropout,
        attn_pdrop=attention_dropout,
        eos_token_id=vocabulary.eos_token_id,
        bos_token_id=None,
        attn_implementation="eager",
    )
    return _new(GPT2LMHeadModel, config, vocabulary, seed)


def scratch_t5(
    vocabulary: SidVocabulary,
    *,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 6,
    head_size: int = 64,
    feed_forward: int = 1024,
    dropout: float = 0.1,
    seed: int = 0,
) -> T5ForConditionalGeneration:
    """Return a T5 with random weights and tied embeddings; by default of the size of TIGER's (arXiv 2305.05065).

    Parameters
    ----------
    vocabulary
        Decides the number of embeddings.
    hidden, layers, heads, head_size, feed_forward
        Width, layers of the encoder and as many of the decoder, attention heads and the width of each, and the width
        of the ReLU layers.
    dropout
        Share of activations dropped in training.
    seed
        Of the weights.
    """
    config = T5Config(  # type: ignore[call-arg]  # these are keywords of every configuration
        vocab_size=len(vocabulary),
        d_model=hidden,
        d_kv=head_size,
        d_ff=feed_forward,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        dropout_rate=dropout,
        feed_forward_proj="relu",
        tie_word_embeddings=True,
        pad_token_id=vocabulary.pad_token_id,
        eos_token_id=vocabulary.eos_token_id,
        decoder_start_token_id=vocabulary.pad_token_id,
    )
    return _new(T5ForConditionalGeneration, config, vocabulary, seed)


def _new(kind: type[_Model], config: PretrainedConfig, vocabulary: SidVocabulary, seed: int) -> _Model:
    """Return a model with random weights in evaluation mode; the random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        if isinstance(model, T5ForConditionalGeneration):
            _shrink_embeddings(model)
        else:
            _preserve_variance(model)
    reset_generation(model, vocabulary)
    return model.eval()


@torch.no_grad()
def _preserve_variance(model: PreTrainedModel) -> None:
    """Draw the weights so that every layer's output starts about as large as its input.

    The library's default, a deviation of 0.02 everywhere, suits wide models; at a width of 128 signals fade from layer
    to layer and the first hundreds of steps are lost. Here each matrix has deviation 1 / sqrt(inputs), those that
    write to the residual stream are smaller with depth, and tied output scores start with a deviation near 1.
    """
    writers = (2 * model.config.num_hidden_layers) ** -0.5
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            # GPT-2's layers keep their weights as inputs by outputs, and its embeddings as everyone does.
            inputs = weight.shape[0] if ".c_" in name else weight.shape[1]
            scale = writers if name.endswith(("o_proj.weight", "down_proj.weight", "c_proj.weight")) else 1.0
            weight.normal_(std=scale * inputs**-0.5)


@torch.no_grad()
def _shrink_embeddings(model: T5ForConditionalGeneration) -> None:
    """Start a T5's embeddings, and what writes to the residual stream, as small as those of the decoders.

    The library starts embeddings with deviation 1, for an optimizer that moves each matrix in proportion to its size
    (Adafactor). AdamW moves all weights by as much, which is little of so large ones. The last norm gives the tied
    output scores back what smaller embeddings take from them.
    """
    hidden, writers = model.config.d_model, (2 * model.config.num_layers) ** -0.5
    for name, weight in model.named_parameters():
        if name.endswith((".o.weight", ".wo.weight")):
            weight.mul_(writers)
    model.shared.weight.mul_(hidden**-0.5)
    model.decoder.final_layer_norm.weight.mul_(hidden**0.5)


def _add_dropout(model: Qwen3ForCausalLM, share: float) -> None:
    """Drop a share of the embeddings and of each layer's outputs while the model is in training mode."""

    def drop(module: nn.Module, _: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention returns its weights too
            return (functional.dropout(output[0], share, module.training), *output[1:])
        return functional.dropout(output, share, module.training)

    if share:
        layers = [part for layer in model.model.layers for part in (layer.self_attn, layer.mlp)]
        for module in (model.model.embed_tokens, *layers):
            module.register_forward_hook(drop)


def reset_generation(model: PreTrainedModel, vocabulary: SidVocabulary) -> None:
    """Give a model a plain generation configuration with the tokens of its vocabulary.

    Settings of a chat model (a repetition penalty, sampling) would distort the beam search.
    """
    model.generation_config = GenerationConfig(
        eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
