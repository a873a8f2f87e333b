"""Language models that recommend: small ones from scratch with their own tokenizer, or pretrained ones from the hub.

Both kinds are known: decoders (Qwen3 and other causal language models) and encoder-decoders (T5, as in TIGER).
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from trialign.folders import reading
from trialign.sharding import is_first, is_sharded, whole_state
from trialign.tasks import TASKS
from trialign.vocabulary import SidVocabulary

_FILE = "backbone.json"
_PAD, _END = "<|pad|>", "<|end|>"


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


def scratch_backbone(
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
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        _preserve_variance(model)
    _add_dropout(model, dropout)
    _reset_generation(model, vocabulary)
    return model.eval()


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
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
    _reset_generation(model, vocabulary)
    return model.eval()


def hub_tokenizer(name_or_folder: str | Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a pretrained model by hub name or folder; no remote code is run."""
    return AutoTokenizer.from_pretrained(name_or_folder, trust_remote_code=False)


def hub_backbone(
    name_or_folder: str | Path, vocabulary: SidVocabulary, *, lora_rank: int | None = None, seed: int = 0
) -> PreTrainedModel | PeftModel:
    """Return a pretrained causal language model or T5 whose embeddings hold the SID tokens.

    The rows of the SID tokens start at the mean of the model's own token embeddings plus noise a tenth as large as
    their spread, so that they are likely inputs for the layers above and differ from each other. The generation
    configuration is reset: settings of a chat model (a repetition penalty, sampling) would distort the beam search.

    Parameters
    ----------
    name_or_folder
        Hub name or folder of a causal language model or T5 in safetensors; no remote code is run.
    vocabulary
        Made from that model's own tokenizer (`hub_tokenizer`).
    lora_rank
        None trains all weights. A number trains adapters of that rank on all linear layers, and the SID rows.
    seed
        Of the new rows and of the adapters.

    Raises
    ------
    ValueError
        If the vocabulary is smaller than the tokenizer of the model needs, or `lora_rank` is not positive.
    """
    if lora_rank is not None and lora_rank < 1:
        raise ValueError(f"lora_rank must be positive or None, got {lora_rank}")
    model = _model_class(name_or_folder).from_pretrained(
        name_or_folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _add_sid_rows(model, vocabulary)
        _reset_generation(model, vocabulary)
        return model.eval() if lora_rank is None else _with_adapters(model, vocabulary, lora_rank).eval()


def make_backbone(
    backbone: str | Path,
    codebook_sizes: Sequence[int],
    texts: Iterable[str],
    *,
    hidden: int = 128,
    layers: int = 2,
    lora_rank: int | None = None,
    seed: int = 0,
) -> tuple[PreTrainedModel | PeftModel, SidVocabulary]:
    """Return a backbone and its vocabulary, the SID tokens added.

    Parameters
    ----------
    backbone
        ``"scratch"`` for a small Qwen3 with a tokenizer of its own, ``"scratch-t5"`` for a small T5 with one, else the
        hub name or folder of a causal language model or a T5.
    codebook_sizes
        Codes per level, the suffix level included.
    texts
        What the tokenizer of a model from scratch is trained on.
    hidden, layers
        Width and depth of a model from scratch.
    lora_rank
        As for `hub_backbone`; a model from scratch has nothing to adapt and is trained whole.
    seed
        Of new weights.
    """
    if backbone in ("scratch", "scratch-t5"):
        vocabulary = SidVocabulary.add_to(scratch_tokenizer(texts), codebook_sizes)
        if backbone == "scratch":
            return scratch_backbone(vocabulary, hidden=hidden, layers=layers, seed=seed), vocabulary
        return scratch_t5(vocabulary, hidden=hidden, layers=layers, seed=seed), vocabulary
    vocabulary = SidVocabulary.add_to(hub_tokenizer(backbone), codebook_sizes)
    return hub_backbone(backbone, vocabulary, lora_rank=lora_rank, seed=seed), vocabulary


def save_backbone(model: PreTrainedModel | PeftModel, vocabulary: SidVocabulary, folder: str | Path) -> Path:
    """Write a model and its vocabulary to a folder; of a LoRA model only adapters and SID rows.

    A model that was trained sharded must be saved by all processes together; the first one writes.
    """
    folder = Path(folder)
    weights = whole_state(model) if is_sharded(model) else None
    if not is_first():
        return folder
    vocabulary.save(folder)
    if isinstance(model, PeftModel):
        # The SID rows are saved as trained tokens; the full embedding would be many times larger.
        model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)
        base = model.peft_config["default"].base_model_name_or_path
    else:
        model.save_pretrained(folder, state_dict=weights)
        base = None
    record = {"base": base, "attention": model.config._attn_implementation}
    (folder / _FILE).write_text(json.dumps(record), encoding="utf-8")
    return folder


def load_backbone(folder: str | Path) -> tuple[PreTrainedModel | PeftModel, SidVocabulary]:
    """Read what `save_backbone` wrote; the base of a LoRA model is loaded from where it came.

    Raises
    ------
    FileNotFoundError
        If the folder holds no saved backbone.
    """
    folder = Path(folder)
    if not (folder / _FILE).is_file():
        raise FileNotFoundError(f"{folder / _FILE} not found: train a model first (notebook 05)")
    vocabulary = SidVocabulary.load(folder)
    with reading(folder, "train the model again (notebook 05)"):
        record = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        if record["base"] is not None:
            return PeftModel.from_pretrained(hub_backbone(record["base"], vocabulary), folder).eval(), vocabulary
        model = _model_class(folder).from_pretrained(
            folder, use_safetensors=True, local_files_only=True, attn_implementation=record["attention"]
        )
        return model.eval(), vocabulary


def _model_class(name_or_folder: str | Path) -> Any:
    config = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False)
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


@torch.no_grad()
def _preserve_variance(model: Qwen3ForCausalLM) -> None:
    """Draw the weights so that every layer's output starts about as large as its input.

    The library's default, a deviation of 0.02 everywhere, suits wide models; at a width of 128 signals fade from layer
    to layer and the first hundreds of steps are lost. Here each matrix has deviation 1 / sqrt(inputs), those that
    write to the residual stream are smaller with depth, and tied output scores start with a deviation near 1.
    """
    writers = (2 * model.config.num_hidden_layers) ** -0.5
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            scale = writers if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            weight.normal_(std=scale * weight.shape[1] ** -0.5)


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


def _add_sid_rows(model: PreTrainedModel, vocabulary: SidVocabulary) -> None:
    """Grow the embeddings where needed (some models hold spare rows) and fill the SID rows."""
    text_tokens = int(vocabulary.all_sid_token_ids.min())
    embeddings = cast(Tensor, model.get_input_embeddings().weight).shape[0]
    if text_tokens > embeddings:
        raise ValueError(
            f"the tokenizer has {text_tokens} text tokens, the model {embeddings} embeddings: "
            "make the vocabulary from the model's own tokenizer"
        )
    if len(vocabulary) > embeddings:
        model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    rows = torch.as_tensor(vocabulary.all_sid_token_ids)
    weights = {id(layer.weight): cast(Tensor, layer.weight) for layer in _embedding_layers(model)}
    with torch.no_grad():
        for weight in weights.values():
            known = weight[:text_tokens]
            noise = 0.1 * known.std(dim=0) * torch.randn(len(rows), weight.shape[1])
            weight[rows] = (known.mean(dim=0) + noise).to(weight.dtype)


def _embedding_layers(model: PreTrainedModel) -> list[nn.Module]:
    return [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]


def _reset_generation(model: PreTrainedModel, vocabulary: SidVocabulary) -> None:
    model.generation_config = GenerationConfig(
        eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )


def _with_adapters(model: PreTrainedModel, vocabulary: SidVocabulary, rank: int) -> PeftModel:
    names = {id(module): name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    layers = _embedding_layers(model)
    if len(layers) == 2 and layers[0].weight is layers[1].weight:
        layers = layers[:1]  # tied: peft trains the shared rows once
    rows = vocabulary.all_sid_token_ids.tolist()
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        trainable_token_indices={names[id(layer)]: rows for layer in layers},
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
    )
    return get_peft_model(model, config)
