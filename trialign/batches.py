"""Batches of similar length, and the loss on their answer positions only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from trialign.tasks import IGNORED, Example, Multitask

#: What one more pass through a small model costs, in tokens: operators are dispatched one by one.
_PASS_COST = 300


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples of similar length, padded at the end.

    No attention mask is needed: attention is causal, so no token sees the padding that follows it.
    """

    tasks: list[str]
    input_ids: Int[Tensor, "examples length"]
    labels: Int[Tensor, "examples length"]

    @property
    def answers(self) -> Bool[Tensor, "examples positions"]:
        """Which positions predict a labelled token (the token after them)."""
        return self.labels[:, 1:] != IGNORED

    @property
    def answer_tasks(self) -> list[str]:
        """The task of every answer token, in the order of `answer_losses`."""
        counts = self.answers.sum(dim=1).tolist()
        return [task for task, count in zip(self.tasks, counts) for _ in range(count)]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(self.tasks, self.input_ids.to(device), self.labels.to(device))


def draw(multitask: Multitask, step: int, tokens: int) -> list[Example]:
    """Return the examples of one optimizer step: from the step's own stream until they hold `tokens` tokens."""
    examples: list[Example] = []
    held = 0
    for example in multitask.stream(step):
        examples.append(example)
        held += len(example)
        if held >= tokens:
            break
    return examples


def collate(examples: Sequence[Example], pad_token_id: int) -> Batch:
    """Return the examples as one padded batch."""
    length = max(len(example) for example in examples)
    ids = [[*e.input_ids, *[pad_token_id] * (length - len(e))] for e in examples]
    labels = [[*e.labels, *[IGNORED] * (length - len(e))] for e in examples]
    return Batch([e.task for e in examples], torch.tensor(ids), torch.tensor(labels))


def micro_batches(examples: Sequence[Example], tokens: int, pad_token_id: int) -> Iterator[Batch]:
    """Yield batches of similar length and at most `tokens` padded tokens, the shortest examples first.

    Of eight tasks some prompts are ten tokens long and some two hundred: sorted by length, the examples are cut where
    padding and the fixed cost of a pass through the model together are least. An example longer than the bound is a
    batch of its own.
    """
    ordered = sorted(examples, key=len)
    for start, end in _cuts([len(example) for example in ordered], tokens):
        yield collate(ordered[start:end], pad_token_id)


def _cuts(lengths: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """Return the cheapest cuts of ascending lengths into batches, by dynamic programming over the distinct lengths."""
    ends = [i + 1 for i in range(len(lengths)) if i + 1 == len(lengths) or lengths[i] != lengths[i + 1]]
    best: dict[int, tuple[float, list[tuple[int, int]]]] = {0: (0.0, [])}
    for end in ends:
        options = []
        for start, (cost, cuts) in best.items():
            pieces = _pieces(start, end, lengths[end - 1], tokens)
            options.append((cost + (end - start) * lengths[end - 1] + _PASS_COST * len(pieces), cuts + pieces))
        best[end] = min(options, key=lambda option: option[0])
    return best[len(lengths)][1]


def _pieces(start: int, end: int, length: int, tokens: int) -> list[tuple[int, int]]:
    """Return a range of examples in equal pieces that keep the bound."""
    rows = max(tokens // length, 1)
    count = -(-(end - start) // rows)
    edges = [start + (end - start) * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def answer_losses(model: PreTrainedModel | PeftModel, batch: Batch) -> Float[Tensor, " answers"]:
    """Return the cross-entropy of every answer token, in nats.

    The output layer, which is the largest product of a small model, is computed at the answer positions only. The
    mean is the loss that transformers computes from the same labels.
    """
    decoder, head = _parts(model)
    hidden = decoder(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    answers = batch.answers
    logits = head(hidden[:, :-1][answers])
    return F.cross_entropy(logits.float(), batch.labels[:, 1:][answers], reduction="none")


@torch.no_grad()
def check_output_layer(model: PreTrainedModel | PeftModel) -> None:
    """Check that a model's logits are its output layer on its last hidden state, nothing more.

    Raises
    ------
    ValueError
        If they are not (a few families cap or scale their logits), since `answer_losses` would then be wrong.
    """
    training = model.training
    model.eval()
    decoder, head = _parts(model)
    ids = torch.arange(4, device=next(model.parameters()).device)[None]
    whole = model(input_ids=ids, use_cache=False).logits
    ours = head(decoder(input_ids=ids, use_cache=False).last_hidden_state)
    model.train(training)
    if not torch.allclose(whole, ours, atol=1e-3, rtol=1e-3):
        raise ValueError(f"{type(model).__name__} changes its logits after the output layer; choose another backbone")


def _parts(model: PreTrainedModel | PeftModel) -> tuple[nn.Module, nn.Module]:
    core = model.get_base_model() if isinstance(model, PeftModel) else model
    return core.get_decoder(), core.get_output_embeddings()
