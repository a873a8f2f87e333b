"""Language models that recommend: pretrained ones from the hub, or by name small ones (`trialign.scratch`).

Both kinds are known: decoders (Qwen3 and other causal language models) and encoder-decoders (T5, as in TIGER).
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trialign.folders import reading
from trialign.scratch import reset_generation, scratch_gpt2, scratch_qwen3, scratch_t5, scratch_tokenizer
from trialign.sharding import is_first, is_sharded, whole_state
from trialign.vocabulary import SidVocabulary

_FILE = "backbone.json"

#: Small models with random weights by their names as a backbone.
SCRATCH: dict[str, Callable[..., PreTrainedModel]] = {
    "scratch": scratch_qwen3,
    "scratch-gpt2": scratch_gpt2,
    "scratch-t5": scratch_t5,
}


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
        reset_generation(model, vocabulary)
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
        ``"scratch"`` for a small Qwen3 with a tokenizer of its own, ``"scratch-gpt2"`` or ``"scratch-t5"`` for a small
        GPT-2 or T5 with one, else the hub name or folder of a causal language model or a T5.
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
    if backbone in SCRATCH:
        vocabulary = SidVocabulary.add_to(scratch_tokenizer(texts), codebook_sizes)
        return SCRATCH[str(backbone)](vocabulary, hidden=hidden, layers=layers, seed=seed), vocabulary
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
