"""Tiny models of the real architectures with random weights, built offline and saved to a folder for the tests.

Every builder returns the folder it wrote, which loads like any hub model::

    folder = tiny_qwen2_5_vl(tmp_path / "vlm")
    AutoModelForImageTextToText.from_pretrained(folder)

All share one byte-level tokenizer, so any text round-trips, and Qwen's special tokens and chat layout.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
CORPUS = ("a red mug on a table", "describe the item in the image", "the next item of this user is")

CHAT_TEMPLATE = """\
{%- for message in messages %}{{ "<|im_start|>" ~ message.role ~ "\n" }}
{%- if message.content is string %}{{ message.content }}
{%- else %}{% for part in message.content %}
{%- if part.type == "image" %}{{ "<|vision_start|><|image_pad|><|vision_end|>" }}{% else %}{{ part.text }}{% endif %}
{%- endfor %}{% endif %}{{ "<|im_end|>\n" }}
{%- endfor %}{% if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}"""


def tiny_tokenizer(corpus: Iterable[str] = CORPUS, vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on a few sentences; its first ids are Qwen's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END, *VISION],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[START, *VISION],
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_qwen2_5_vl(folder: Path, seed: int = 0) -> Path:
    """Save a two-layer Qwen2.5-VL with its tokenizer and image processor; returns the folder."""
    tokenizer = tiny_tokenizer()
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    torch.manual_seed(seed)
    config = Qwen2_5_VLConfig(text_config=_mrope_text(tokenizer), vision_config=vision, **_vision_tokens(tokenizer))
    return _save_vision(folder, Qwen2_5_VLForConditionalGeneration(config), tokenizer)


def tiny_qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """Save a two-layer Qwen2-VL (the architecture of gme-Qwen2-VL); returns the folder."""
    tokenizer = tiny_tokenizer()
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
    torch.manual_seed(seed)
    config = Qwen2VLConfig(text_config=_mrope_text(tokenizer), vision_config=vision, **_vision_tokens(tokenizer))
    return _save_vision(folder, Qwen2VLForConditionalGeneration(config), tokenizer)


def tiny_qwen2(folder: Path, seed: int = 0) -> Path:
    """Save a two-layer Qwen2 (also the architecture of Qwen2.5) with its tokenizer; returns the folder."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    return _save(folder, Qwen2ForCausalLM(Qwen2Config(**_decoder(tokenizer), tie_word_embeddings=True)), tokenizer)


def tiny_qwen3(folder: Path, seed: int = 0) -> Path:
    """Save a two-layer Qwen3 with its tokenizer; returns the folder."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = Qwen3Config(**_decoder(tokenizer), head_dim=16, tie_word_embeddings=True)
    return _save(folder, Qwen3ForCausalLM(config), tokenizer)


def tiny_t5(folder: Path, seed: int = 0) -> Path:
    """Save a two-layer T5 encoder-decoder with the same tokenizer; returns the folder."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return _save(folder, T5ForConditionalGeneration(config), tokenizer)


def _decoder(tokenizer: PreTrainedTokenizerFast) -> dict:
    """Sizes shared by the decoder-only models."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _mrope_text(tokenizer: PreTrainedTokenizerFast) -> dict:
    """The text half of a Qwen-VL: rotary dimensions split between time, height and width."""
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}
    return {**_decoder(tokenizer), "rope_parameters": rope}


def _vision_tokens(tokenizer: PreTrainedTokenizerFast) -> dict:
    """The ids that Qwen-VL's configuration needs to find an image inside the text."""
    names = {
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
    }
    return {key: tokenizer.convert_tokens_to_ids(token) for key, token in names.items()}


def _save_vision(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112).save_pretrained(folder)
    return _save(folder, model, tokenizer)


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)
