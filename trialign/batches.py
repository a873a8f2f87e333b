"""Batches of similar length, and the loss on their answer positions only."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from trialign.tasks import IGNORED, Example

#: What one more pass through a small model costs, in tokens: its hundreds of operators are dispatched one by one.
_PASS_COST = 300


@dataclass(frozen=True)
class Rounding:
    """What the shapes of batches are rounded up to multiples of.

    Attributes
    ----------
    length
        Of the tokens of a row.
    tokens
        Of the tokens of a batch, as far as whole rows allow.
    answers
        Of the positions that the output layer is computed at.
    """

    length: int = 1
    tokens: int = 1
    answers: int = 1


#: No shape is rounded: nothing but what the longest row needs is padded.
EXACT = Rounding()

#: Few different shapes: on a CPU the kernels for bf16 products are made anew for each, which costs time and memory
#: that a small model does not win back.
COARSE = Rounding(length=8, tokens=128, answers=128)


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples of similar length, padded at the end; there may be more rows, of padding only, than examples.

    A decoder needs no attention mask: attention is causal, so no token sees the padding that follows it.
    """

    tasks: list[str]
    input_ids: Int[Tensor, "rows length"]
    labels: Int[Tensor, "rows length"]
    rounding: Rounding = EXACT

    @property
    def answers(self) -> Bool[Tensor, "rows positions"]:
        """Which positions predict a labelled token (the token after them)."""
        return self.labels[:, 1:] != IGNORED

    @property
    def answer_tasks(self) -> list[str]:
        """The task of every answer token, in the order of `answer_losses`."""
        counts = self.answers.sum(dim=1).tolist()
        return [task for task, count in zip(self.tasks, counts) for _ in range(count)]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return replace(self, input_ids=self.input_ids.to(device), labels=self.labels.to(device))


def draw(stream: Iterable[Example], tokens: int) -> list[Example]:
    """Return the first examples of a stream, as many as it takes to hold `tokens` tokens."""
    examples: list[Example] = []
    held = 0
    for example in stream:
        examples.append(example)
        held += len(example)
        if held >= tokens:
            break
    return examples


def collate(examples: Sequence[Example], pad_token_id: int, *, rows: int = 0, length: int = 0) -> Batch:
    """Return the examples as one padded batch of at least that many rows and that length."""
    rows, length = max(rows, len(examples)), max(length, *map(len, examples))
    input_ids = torch.full((rows, length), pad_token_id)
    labels = torch.full((rows, length), IGNORED)
    for row, example in enumerate(examples):
        input_ids[row, : len(example)] = torch.tensor(example.input_ids)
        labels[row, : len(example)] = torch.tensor(example.labels)
    return Batch([example.task for example in examples], input_ids, labels)


def micro_batches(
    examples: Sequence[Example], tokens: int, pad_token_id: int, rounding: Rounding = EXACT
) -> Iterator[Batch]:
    """Yield batches of similar length and at most `tokens` padded tokens, the shortest examples first.

    Of eight tasks some prompts are ten tokens long and some two hundred: sorted by length, the examples are cut where
    padding and the fixed cost of a pass through the model together are least. An example longer than the bound is a
    batch of its own.
    """
    ordered = sorted(examples, key=len)
    lengths = [-(-len(example) // rounding.length) * rounding.length for example in ordered]
    for start, end in _cuts(lengths, tokens, rounding):
        length = lengths[end - 1]
        rows = _rows(end - start, length, tokens, rounding)
        yield replace(collate(ordered[start:end], pad_token_id, rows=rows, length=length), rounding=rounding)


def _rows(examples: int, length: int, tokens: int, rounding: Rounding) -> int:
    """Return the number of examples, rounded up to a whole step of tokens if the bound allows."""
    step = max(rounding.tokens // length, 1)
    return max(min(-(-examples // step) * step, tokens // length), examples)


def _cuts(lengths: Sequence[int], tokens: int, rounding: Rounding) -> list[tuple[int, int]]:
    """Return the cheapest cuts of ascending lengths into batches, by dynamic programming over the distinct lengths."""
    ends = [i + 1 for i in range(len(lengths)) if i + 1 == len(lengths) or lengths[i] != lengths[i + 1]]
    best: dict[int, tuple[int, list[tuple[int, int]]]] = {0: (0, [])}
    for end in ends:
        length = lengths[end - 1]
        options = []
        for start, (cost, cuts) in best.items():
            pieces = _pieces(start, end, max(tokens // length, 1))
            padded = sum(length * _rows(stop - first, length, tokens, rounding) for first, stop in pieces)
            options.append((cost + padded + _PASS_COST * len(pieces), cuts + pieces))
        best[end] = min(options, key=lambda option: option[0])
    return best[len(lengths)][1]


def _pieces(start: int, end: int, rows: int) -> list[tuple[int, int]]:
    """Return a range of examples in pieces of at most that many, all but the last one full."""
    return [(first, min(first + rows, end)) for first in range(start, end, rows)]


def answer_losses(model: PreTrainedModel | PeftModel, batch: Batch) -> Float[Tensor, " answers"]:
    """Return the cross-entropy of every answer token, in nats.

    The output layer, which is the largest product of a small model, is computed at the answer positions only. The
    mean is the loss that transformers computes from the same labels.

    Raises
    ------
    ValueError
        If an example is longer than the positions that a GPT-2 has.
    """
    decoder, head = _parts(model)
    # Nothing after the position that predicts the last answer token is read: not that token, nor padding.
    answered = batch.answers.any(dim=0).nonzero()
    width = int(answered.max()) + 1 if len(answered) else 1
    positions = getattr(model.config, "n_positions", width)
    if width > positions:
        raise ValueError(f"an example has {width} tokens, the model {positions} positions: shorten histories or texts")
    hidden = decoder(input_ids=batch.input_ids[:, :width], use_cache=False).last_hidden_state
    targets = batch.labels[:, 1 : width + 1].flatten()
    places = (targets != IGNORED).nonzero().squeeze(1)
    answers = len(places)
    padded = F.pad(places, (0, -answers % batch.rounding.answers))
    logits = head(hidden.flatten(0, 1)[padded])[:answers]
    return F.cross_entropy(logits.float(), targets[places], reduction="none")


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
    return cast(nn.Module, core.get_decoder()), cast(nn.Module, core.get_output_embeddings())  # type: ignore[operator]
