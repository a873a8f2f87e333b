"""What a kind of model learns from: how examples become its inputs, and where its loss is taken."""

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from trialign.batches import Batch, answer_losses, check_output_layer
from trialign.tasks import IGNORED, Example, Multitask


class Objective(Protocol):
    """The training objective of a kind of model: one cross-entropy on the answers, whatever reads the prompts."""

    def examples(self, multitask: Multitask, step: int) -> Iterator[Example]:
        """Yield the step's examples without end."""

    def losses(self, model: PreTrainedModel | PeftModel, batch: Batch) -> Float[Tensor, " answers"]:
        """Return the cross-entropy (nats) of every answer token, in the order of `Batch.answer_tasks`."""

    def check(self, model: PreTrainedModel | PeftModel) -> None:
        """Check that the losses are right for this model; raise a ValueError if not."""


class NextToken:
    """A decoder reads prompt and answer as one sequence; a window of SIDs is supervised at every item but the first."""

    def examples(self, multitask: Multitask, step: int) -> Iterator[Example]:
        """Yield the step's examples without end: `Multitask.stream`."""
        return multitask.stream(step)

    def losses(self, model: PreTrainedModel | PeftModel, batch: Batch) -> Float[Tensor, " answers"]:
        """Return the cross-entropy of every answer token: `trialign.batches.answer_losses`."""
        return answer_losses(model, batch)

    def check(self, model: PreTrainedModel | PeftModel) -> None:
        """Check that the logits are the output layer on the last hidden state, nothing more."""
        check_output_layer(model)


class PromptToAnswer:
    """An encoder reads the prompt in both directions, a decoder writes the answer."""

    def examples(self, multitask: Multitask, step: int) -> Iterator[Example]:
        """Yield the step's examples without end: `Multitask.pairs`, since an encoder sees the whole prompt."""
        return multitask.pairs(step)

    def losses(self, model: PreTrainedModel | PeftModel, batch: Batch) -> Float[Tensor, " answers"]:
        """Return the cross-entropy of every answer token, the decoder being given the answer's tokens before it."""
        answered = batch.labels != IGNORED
        starts, counts = answered.int().argmax(dim=1), answered.sum(dim=1)
        places = torch.arange(batch.labels.shape[1], device=batch.labels.device)
        # Rows of padding have neither: they are given one token, so that no softmax is over nothing.
        width = max(int(starts.max()), 1)
        mask = places[:width] < starts.clamp(min=1)[:, None]
        places = places[: int(counts.max())]
        answered = places < counts[:, None]
        columns = (starts[:, None] + places).clamp(max=batch.labels.shape[1] - 1)
        answers = batch.input_ids.gather(1, columns)
        inputs = F.pad(answers, (1, -1), value=model.config.decoder_start_token_id)
        output = model(
            input_ids=batch.input_ids[:, :width], attention_mask=mask.long(), decoder_input_ids=inputs, use_cache=False
        )
        return F.cross_entropy(output.logits[answered].float(), answers[answered], reduction="none")

    def check(self, model: PreTrainedModel | PeftModel) -> None:
        """Check that the model says which token its decoder starts with."""
        if model.config.decoder_start_token_id is None:
            raise ValueError(f"{type(model).__name__} has no decoder_start_token_id: set it in the model's config")


class AnswerLoss(nn.Module):
    """A model and its objective as one module: where its weights are sharded, its forward pass makes them whole.

    Parameters
    ----------
    model
        A causal language model or T5.

    Raises
    ------
    ValueError
        If the losses would be wrong for this model.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.model = model
        self.objective = objective_of(model)
        self.objective.check(model)

    def forward(self, batch: Batch) -> Float[Tensor, " answers"]:
        """Return the cross-entropy (nats) of every answer token: `Objective.losses`."""
        return self.objective.losses(self.model, batch)


def objective_of(model: PreTrainedModel | PeftModel) -> Objective:
    """Return the objective of the model's kind: `PromptToAnswer` for encoder-decoders, else `NextToken`."""
    return PromptToAnswer() if model.config.is_encoder_decoder else NextToken()
