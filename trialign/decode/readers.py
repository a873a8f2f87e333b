"""The reader for a model, whatever its kind."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import nn

from trialign.decode.decoder_only import FAMILIES, DecoderOnlyReader
from trialign.decode.encoder_decoder import ENCODER_DECODERS, EncoderDecoderReader
from trialign.decode.models import OutputRows, PrefixReader, unwrapped


def check_prompts(prompts: Sequence[Sequence[int]]) -> None:
    """Refuse empty prompts.

    Raises
    ------
    ValueError
        If a prompt has no token; the message names its place.
    """
    for user, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"the prompt of user {user} has no token: begin every prompt with a start token")


class Readers:
    """Makes a `PrefixReader` for each batch of prompts.

    Parameters
    ----------
    model
        A causal language model (Qwen2, Qwen3, Llama, Mistral, GPT-2) or T5, plain or with a LoRA-like adapter of peft.
    vocabularies
        Token ids of each level, from level 1, sorted.
    pad_token_id
        Fills shorter prompts; it is masked, so any valid token id does.

    Raises
    ------
    ValueError
        If the model is of another type, its adapter learns a prompt, or a token is not one of the model's.
    """

    def __init__(self, model: nn.Module, vocabularies: Sequence[Int[np.ndarray, " tokens"]], pad_token_id: int) -> None:
        self.model = unwrapped(model)
        self.pad_token_id = pad_token_id
        known = (*FAMILIES, *ENCODER_DECODERS)
        if (kind := self.model.config.model_type) not in known:
            raise ValueError(f"beam search knows the model types {', '.join(known)}, not {kind!r}")
        self.output = OutputRows(self.model, vocabularies)

    def __call__(self, prompts: Sequence[Sequence[int]]) -> PrefixReader:
        """Return a reader for these prompts, one a user, which have passed `check_prompts`."""
        if self.model.config.model_type in ENCODER_DECODERS:
            return EncoderDecoderReader(self.model, prompts, self.output, self.pad_token_id)
        return DecoderOnlyReader(self.model, prompts, self.output, self.pad_token_id)
