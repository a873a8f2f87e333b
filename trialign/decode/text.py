"""Text answers: greedy decoding in batches, with SID tokens out of reach.

A model that has learnt SIDs and text shares one vocabulary between them, so nothing in the model itself keeps a title
free of SID tokens. `generate_text` takes their probability away before each token is chosen.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from trialign.decode.models import inference
from trialign.decode.readers import check_prompts
from trialign.progress import tqdm
from trialign.vocabulary import SidVocabulary


def generate_text(
    model: PreTrainedModel | PeftModel,
    vocabulary: SidVocabulary,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int = 32,
    batch_size: int = 64,
    progress: bool = True,
) -> list[str]:
    """Return the most probable text, token by token (greedy), after each prompt; never with a SID token.

    Parameters
    ----------
    model
        A causal language model or T5 with the SID tokens.
    vocabulary
        Its tokenizer with the SID tokens.
    prompts
        Token ids, such as those of `Multitask.item_prompt`.
    max_tokens
        Answers that have not ended by then are cut.
    batch_size
        Prompts that are answered together; those of similar length are.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        If a prompt is empty, or `max_tokens` or `batch_size` is below 1.
    """
    answers = generate_tokens(
        model,
        vocabulary,
        prompts,
        suppressed=vocabulary.all_sid_token_ids,
        max_tokens=max_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    return [str(vocabulary.tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]


def generate_tokens(
    model: PreTrainedModel | PeftModel,
    vocabulary: SidVocabulary,
    prompts: Sequence[Sequence[int]],
    *,
    suppressed: Sequence[int] | Int[np.ndarray, " tokens"] = (),
    max_tokens: int = 32,
    batch_size: int = 64,
    progress: bool = True,
) -> list[list[int]]:
    """Return the tokens of the greedy answer to each prompt, without the end token.

    Parameters
    ----------
    suppressed
        Token ids that no answer may have: their logits are set to minus infinity before each choice.
    model, vocabulary, prompts, max_tokens, batch_size, progress
        As for `generate_text`.

    Raises
    ------
    ValueError
        As `generate_text`.
    """
    if min(max_tokens, batch_size) < 1:
        raise ValueError(f"max_tokens and batch_size must be at least 1, got {max_tokens} and {batch_size}")
    check_prompts(prompts)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        suppress_tokens=[int(token) for token in suppressed] or None,
    )
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    with inference(model):
        for places in tqdm(batches, disable=not progress, desc="answering"):
            found = _answers(model, [prompts[place] for place in places], config)
            for place, answer in zip(places, found):
                answers[place] = answer
    return answers


def _answers(
    model: PreTrainedModel | PeftModel, prompts: Sequence[Sequence[int]], config: GenerationConfig
) -> Iterator[list[int]]:
    """Yield the answers to a batch of prompts, up to the end token."""
    lengths = np.array([len(prompt) for prompt in prompts])
    width, places = lengths.max(), np.arange(lengths.max())
    encoder = model.config.is_encoder_decoder
    # A decoder goes on where the prompt ends, so its padding stands in front.
    mask = places < lengths[:, None] if encoder else places >= width - lengths[:, None]
    ids = np.full(mask.shape, config.pad_token_id, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(prompt, dtype=np.int64) for prompt in prompts])
    generated: Tensor = model.generate(  # type: ignore[operator]
        input_ids=torch.from_numpy(ids).to(model.device),
        attention_mask=torch.from_numpy(mask).long().to(model.device),
        generation_config=config,
    )
    for row in generated[:, 1 if encoder else int(width) :].tolist():
        yield row[: row.index(config.eos_token_id)] if config.eos_token_id in row else row
