"""How fast a recommender learns from each target: a published recipe, step by step towards ours.

``python benchmarks/training.py [--json FILE] [--quick]`` measures, on one thread, items supervised a CPU second:

baseline
    TIGER's recipe as it is usually written: a T5 of four and four layers, width 128, feed-forward 1024, six heads of
    64; an example is a history of up to twenty items and its next item; batches of 256 random examples, padded to the
    longest; the loss of transformers; AdamW.
causal
    the same examples and batches for a decoder of as many parameters (Qwen3's shape).
whole histories
    the same decoder; an example is a whole history, which supervises every item but the first; random batches of 64.
ours
    `trialign.train.Trainer`: whole histories in batches of similar length, the output layer at answers only; 4096
    tokens a step. At the baseline's size with four codes an item as the baseline has (three and a suffix), then with
    three codes, as the project has them (all different by reassignment), at 4.6, 2 and 1 million parameters; of
    Qwen3's shape, and of GPT-2's with ReLU layers.

Histories are the train histories of Amazon Beauty, codes are drawn: what is learnt does not change the speed. Each
recipe is warmed up; all take their turns, round after round, and medians over all steps are compared. The seconds are
the process's CPU seconds of whole steps, the making of examples and batches included. `cpu_seconds_per_epoch` is what
it takes to supervise every train target once, `ratio` is the speed over the baseline's of the same precision, and
`ratio_to_fp32` over the baseline's in fp32, as a loop runs that says nothing of precision.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from trialign.datasets import load
from trialign.histories import Histories
from trialign.observers import Step
from trialign.precision import Precision, autocast
from trialign.progress import tqdm
from trialign.scratch import scratch_gpt2, scratch_qwen3, scratch_tokenizer
from trialign.sids import SemanticIds
from trialign.split import Split, leave_one_out
from trialign.tasks import IGNORED, Multitask
from trialign.train import Trainer
from trialign.vocabulary import SidVocabulary

TASK = "SIDSeq→SID"
MAX_HISTORY = 20
CODES = 256
PAD = 0
CPU = torch.device("cpu")

#: Width, layers and heads of decoders by their parameters, in millions (of GPT-2's shape, a tenth fewer).
SHAPES = {"4.6 M": (256, 5, 4), "2 M": (256, 2, 4), "1 M": (128, 4, 4)}

#: Decoders from scratch by the name of their shape.
DECODERS: dict[str, Callable[..., PreTrainedModel]] = {
    "Qwen3": scratch_qwen3,
    "GPT-2": partial(scratch_gpt2, positions=128),
}

#: A step: targets supervised, CPU seconds.
Timed = tuple[int, float]


@dataclass
class Recipe:
    """A way to train, and the steps measured so far.

    Attributes
    ----------
    name, model, codes
        What the table says: of the recipe, of its model, and tokens an item.
    measure
        ``measure(steps, precision)`` trains a new model, warms it up and returns that many further steps.
    parameters
        Weights of the model.
    steps
        Measured a round.
    timed
        The steps measured, by precision.
    """

    name: str
    model: str
    codes: int
    measure: Callable[[int, Precision], list[Timed]]
    parameters: int
    steps: int
    timed: dict[Precision, list[Timed]] = field(default_factory=dict)

    def record(self, precision: Precision, targets: int, baseline: "Recipe") -> dict[str, Any]:
        """Return the medians."""
        rate = self.rate(precision)
        return {
            "recipe": self.name,
            "model": self.model,
            "codes": self.codes,
            "precision": precision,
            "parameters": self.parameters,
            "targets_per_cpu_second": rate,
            "cpu_seconds_per_epoch": targets / rate,
            "ratio": rate / baseline.rate(precision),
            "ratio_to_fp32": rate / baseline.rate("fp32") if "fp32" in baseline.timed else None,
            "steps": len(self.timed[precision]),
        }

    def rate(self, precision: Precision) -> float:
        """Return the median over the steps of targets a CPU second."""
        return float(np.median([targets / seconds for targets, seconds in self.timed[precision]]))


# ---------------------------------------------------------------------- the plain recipes

#: A model's inputs with labels, and the number of targets in them.
PlainBatch = tuple[Mapping[str, torch.Tensor], int]


def padded(rows: Sequence[Sequence[int]], fill: int) -> Int[torch.Tensor, "rows length"]:
    length = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])


class PlainData:
    """Random batches, padded to the longest, of examples made once.

    Parameters
    ----------
    split
        Its train histories are read.
    tokens
        Token ids of every item.
    """

    def __init__(self, split: Split, tokens: Int[np.ndarray, "items codes"]) -> None:
        histories = Histories(split.train)
        self.codes = tokens.shape[1]
        self.pairs: list[tuple[list[int], list[int]]] = []
        for target in np.flatnonzero(histories.positions > 0):
            history = tokens[histories.before(target)[-MAX_HISTORY:]]
            self.pairs.append((history.ravel().tolist(), tokens[histories.items[target]].tolist()))
        whole = [history[-MAX_HISTORY - 1 :] for history in split.train if len(history) > 1]
        self.whole = [tokens[history].ravel().tolist() for history in whole]

    def encoder_decoder(self, random: np.random.Generator) -> Iterator[PlainBatch]:
        """Yield batches of histories for the encoder and next items for the decoder."""
        while True:
            histories, answers = zip(*self._pairs(random))
            ids = padded(histories, PAD)
            yield {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": torch.tensor(answers)}, 256

    def causal(self, random: np.random.Generator) -> Iterator[PlainBatch]:
        """Yield batches of histories followed by their next item, which alone carries loss."""
        while True:
            chosen = self._pairs(random)
            labels = padded([[*[IGNORED] * len(history), *answer] for history, answer in chosen], IGNORED)
            yield self._decoder([[*history, *answer] for history, answer in chosen], labels), 256

    def whole_histories(self, random: np.random.Generator) -> Iterator[PlainBatch]:
        """Yield batches of whole histories: every item but the first carries loss."""
        while True:
            chosen = [self.whole[place] for place in random.choice(len(self.whole), 64, replace=False)]
            first = [IGNORED] * self.codes
            labels = padded([[*first, *row[self.codes :]] for row in chosen], IGNORED)
            yield self._decoder(chosen, labels), sum(len(row) // self.codes - 1 for row in chosen)

    def _pairs(self, random: np.random.Generator) -> list[tuple[list[int], list[int]]]:
        return [self.pairs[place] for place in random.choice(len(self.pairs), 256, replace=False)]

    @staticmethod
    def _decoder(rows: Sequence[Sequence[int]], labels: torch.Tensor) -> dict[str, torch.Tensor]:
        ids = padded(rows, PAD)
        return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": labels}


def train_plainly(
    make: Callable[[], PreTrainedModel],
    batches: Callable[[np.random.Generator], Iterator[PlainBatch]],
    steps: int,
    precision: Precision,
) -> list[Timed]:
    """Train as a loop of transformers and AdamW does; the first step warms up."""
    model = make().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    stream, timed = batches(np.random.default_rng(0)), []
    for _ in range(1 + steps):
        began = time.process_time()
        inputs, targets = next(stream)
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, CPU):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        timed.append((targets, time.process_time() - began))
    return timed[1:]


def tiger_t5() -> T5ForConditionalGeneration:
    """Return the baseline's model: four codes of 256 an item, a token that pads and starts the decoder."""
    sizes = {"d_model": 128, "d_ff": 1024, "d_kv": 64, "num_heads": 6, "num_layers": 4, "num_decoder_layers": 4}
    tokens = {"vocab_size": 4 * CODES + 1, "pad_token_id": PAD, "decoder_start_token_id": PAD}
    return T5ForConditionalGeneration(T5Config(**sizes, **tokens, dropout_rate=0.1, feed_forward_proj="relu"))


# ---------------------------------------------------------------------- ours


class Clock:
    """An observer that keeps the CPU seconds and the targets of each step of a training on histories."""

    def __init__(self, codes: int) -> None:
        self.codes = codes
        self.marks: list[float] = []
        self.targets: list[int] = []

    def on_begin(self, losses: pd.DataFrame, validation: pd.DataFrame) -> None:
        """Nothing is measured before the first step has warmed up."""

    def on_step(self, step: Step) -> None:
        """Keep the time, and how many items were supervised."""
        self.marks.append(time.process_time())
        self.targets.append(sum(step.answers.values()) // self.codes)

    def on_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """There is none."""

    def on_end(self) -> None:
        """Nothing is open."""

    def timed(self) -> list[Timed]:
        """Return all steps but the first."""
        return [(targets, end - start) for targets, (start, end) in zip(self.targets[1:], pairwise(self.marks))]


class Catalogue:
    """Drawn SIDs, all different, of a number of codes each, and their vocabulary."""

    def __init__(self, split: Split, codes: int) -> None:
        drawn = np.random.default_rng(0).choice(CODES**3, split.n_items, replace=False)
        columns = np.stack(np.unravel_index(drawn, (CODES,) * 3), axis=1)
        suffix = np.random.default_rng(1).integers(CODES, size=(split.n_items, codes - 3))
        item_ids = [str(row) for row in range(split.n_items)]
        self.sids = SemanticIds(item_ids, np.hstack([columns, suffix]), (CODES,) * codes, codes)
        self.vocabulary = SidVocabulary.add_to(scratch_tokenizer(["title"], vocab_size=300), self.sids.codebook_sizes)
        self.split = split
        self.codes = codes

    def model(self, decoder: str, size: str) -> PreTrainedModel:
        """Return one of the `DECODERS`, untrained, in one of the `SHAPES`."""
        hidden, layers, heads = SHAPES[size]
        return DECODERS[decoder](
            self.vocabulary, hidden=hidden, layers=layers, heads=heads, dropout=0.1, attention_dropout=0.0
        )

    def train(self, decoder: str, size: str, steps: int, precision: Precision) -> list[Timed]:
        """Train one with `Trainer`; the first step warms up."""
        titles = [""] * self.split.n_items  # the task reads none
        multitask = Multitask(
            self.sids, self.vocabulary, titles, None, self.split, tasks=[TASK], max_history=MAX_HISTORY
        )
        clock = Clock(self.codes)
        Trainer(
            self.model(decoder, size), multitask, steps=steps + 1, batch_tokens=4096, micro_tokens=4096,
            precision=precision, observers=[clock], progress=False,
        ).fit()  # fmt: skip
        return clock.timed()


# ---------------------------------------------------------------------- the comparison


def recipes(split: Split, quick: bool) -> list[Recipe]:
    """Return all recipes, the baseline first."""
    three, four = Catalogue(split, 3), Catalogue(split, 4)
    plain = PlainData(split, 1 + np.arange(4) * CODES + four.sids.codes)

    def theirs(name: str, model: str, make: Callable[[], PreTrainedModel], batches: Any, steps: int) -> Recipe:
        def measure(steps: int, precision: Precision) -> list[Timed]:
            return train_plainly(make, batches, steps, precision)

        return Recipe(name, model, 4, measure, make().num_parameters(), steps)

    def ours(catalogue: Catalogue, decoder: str, size: str) -> Recipe:
        def measure(steps: int, precision: Precision) -> list[Timed]:
            return catalogue.train(decoder, size, steps, precision)

        parameters = catalogue.model(decoder, size).num_parameters()
        return Recipe("ours", f"{decoder}, {size}", catalogue.codes, measure, parameters, 4)

    def plain_decoder() -> PreTrainedModel:
        return four.model("Qwen3", "4.6 M")

    steps = [
        theirs("baseline", "T5", tiger_t5, plain.encoder_decoder, 2),
        theirs("causal", "Qwen3, 4.6 M", plain_decoder, plain.causal, 1),
        theirs("whole histories", "Qwen3, 4.6 M", plain_decoder, plain.whole_histories, 4),
    ]
    if quick:
        return [*steps[::2], *(ours(three, decoder, "2 M") for decoder in DECODERS)]
    of_baseline = [ours(four, decoder, "4.6 M") for decoder in DECODERS]
    return [*steps, *of_baseline, *(ours(three, decoder, size) for decoder in DECODERS for size in SHAPES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all records to this file as well")
    parser.add_argument("--quick", action="store_true", help="one round of four recipes, under three CPU minutes")
    parser.add_argument("--rounds", type=int, help="turns of each recipe; default 3, with --quick 1")
    precisions = ["fp32", "bf16"]
    parser.add_argument("--precision", nargs="+", choices=precisions, help="default both, with --quick fp32")
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen: list[Precision] = given.precision or precisions[: 1 if given.quick else 2]
    split = leave_one_out(load("amazon-beauty"))
    targets = sum(len(history) - 1 for history in split.train)
    measured = recipes(split, given.quick)
    rounds = given.rounds or (1 if given.quick else 3)
    turns = [(recipe, precision) for _ in range(rounds) for precision in chosen for recipe in measured]
    for recipe, precision in tqdm(turns, desc="turns"):
        recipe.timed.setdefault(precision, []).extend(recipe.measure(recipe.steps, precision))
    records = [recipe.record(precision, targets, measured[0]) for precision in chosen for recipe in measured]
    print(pd.DataFrame(records).round(1).to_string(index=False))
    if given.json:
        given.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
