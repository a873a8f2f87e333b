"""The eight tasks of triangular multitask training (TMT) and the examples they are trained on.

TriAlignGR (arXiv 2605.05249) trains one language model on eight tasks in three groups with one cross-entropy loss and
uniform task sampling. Tasks 7 and 8, which tie an image's description to the SID and to the title, are its own; tasks
1 to 6 are those of the line of work it builds on (MiniOneRec, SIDReasoner). The paper does not print its prompts: the
short templates below are this project's choice, the same for every backbone.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from trialign.catalogue import Split
from trialign.histories import Histories, thinned
from trialign.sids.semantic_ids import SemanticIds
from trialign.vocabulary import SidVocabulary

#: The label of positions that carry no loss, as in transformers.
IGNORED = -100

Group = Literal["recommendation", "text alignment", "visual"]
Input = Literal["SID history", "title history", "title", "SID", "description"]
Answer = Literal["SID", "title"]


@dataclass(frozen=True)
class Task:
    """One task: what the model reads and what it answers.

    Attributes
    ----------
    name
        As in the paper's table, such as ``"Title→SID"``.
    group
        ``"recommendation"``, ``"text alignment"`` or ``"visual"``.
    reads
        What replaces ``{input}`` in the template. Histories are oldest first; titles are one a line.
    answers
        What follows the prompt: ``"SID"`` (its codes, nothing after) or ``"title"`` (text, then the end token).
    template
        The prompt; it carries no loss.
    """

    name: str
    group: Group
    reads: Input
    answers: Answer
    template: str

    @property
    def parts(self) -> tuple[str, str]:
        """The texts before and after the input."""
        before, after = self.template.split("{input}")
        return before, after

    @property
    def is_causal(self) -> bool:
        """Whether one pass over a history supervises every item after the first, not only the last."""
        return self.reads == "SID history" and self.answers == "SID"


_ALL = (
    Task("SIDSeq→SID", "recommendation", "SID history", "SID", "User history:\n{input}"),
    Task("SIDSeq→Title", "recommendation", "SID history", "title", "User history:\n{input}\nNext title:\n"),
    Task("TitleSeq→SID", "recommendation", "title history", "SID", "User history:\n{input}\nNext item:\n"),
    Task("TitleSeq→Title", "recommendation", "title history", "title", "User history:\n{input}\nNext title:\n"),
    Task("Title→SID", "text alignment", "title", "SID", "Title:\n{input}\nItem:\n"),
    Task("SID→Title", "text alignment", "SID", "title", "Item:\n{input}\nTitle:\n"),
    Task("VisDesc→SID", "visual", "description", "SID", "Image:\n{input}\nItem:\n"),
    Task("VisDesc→Title", "visual", "description", "title", "Image:\n{input}\nTitle:\n"),
)

#: The eight tasks by name, in the order of the paper's table.
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


@dataclass(frozen=True)
class Example:
    """One training example: token ids, and the same ids as labels where the loss is taken (else -100)."""

    task: str
    input_ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.input_ids)


def _shares(tasks: Sequence[str], mixture: Mapping[str, float]) -> Float[np.ndarray, " tasks"]:
    """Return the probability of each task."""
    weights = np.asarray([mixture.get(name, 0.0) for name in tasks], dtype=np.float64)
    if set(mixture) != set(tasks) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"mixture must give each of the tasks {list(tasks)} a positive weight, and no other task; "
            f"got {dict(mixture)}"
        )
    return weights / weights.sum()


class HistoryPrompt:
    """The prompt of SIDSeq→SID: what the model reads before it recommends, in training and at inference.

    Parameters
    ----------
    vocabulary
        The tokenizer with the SID tokens.
    sids
        The items' SIDs; row by row those of the catalogue.
    max_history
        Items of history that a prompt shows, the most recent ones.
    """

    def __init__(self, vocabulary: SidVocabulary, sids: SemanticIds, max_history: int) -> None:
        self.max_history = max_history
        self.before, _ = (vocabulary.encode_text(part) for part in TASKS["SIDSeq→SID"].parts)
        self.sids = [[int(token) for token in row if token >= 0] for row in vocabulary.sequences(sids)]

    def __call__(self, history: Sequence[int] | Int[np.ndarray, " history"]) -> list[int]:
        """Return the prompt of a history of item rows, oldest first; the next tokens are the next item's SID."""
        return [*self.before, *(token for row in history[-self.max_history :] for token in self.sids[row])]


class Multitask:
    """Examples of the chosen tasks, built one by one: first a task is drawn, then one of its examples uniformly.

    Only ``split.train`` is read of the interactions: validation and test items are in no history and are the target
    of no recommendation task. The alignment and visual tasks (5-8) pair an item with its own text, for all items of
    the catalogue, since text is known before anybody interacts.

    Parameters
    ----------
    sids
        The items' SIDs; row by row those of the catalogue.
    vocabulary
        The tokenizer with the SID tokens.
    titles
        Title of every row. Line breaks and repeated blanks become one blank. Items without a title are left out of
        title histories and of the tasks that need their title.
    captions
        Image descriptions by item id (CMSA, pathway 1), or None. Items without one are left out of tasks 7 and 8.
    split
        The leave-one-out split.
    tasks
        Names of tasks; the paper uses all eight.
    mixture
        How often each task is drawn: a positive weight for every name in `tasks`, of any sum. None draws them
        uniformly, as the paper does. The weights count examples, not tokens.
    drop_items
        Share of the items that SIDSeq→SID leaves out of a training history, each at random, so that the same history
        is seen in many versions; a window keeps at least two. 0 leaves out none.
    held_out
        Rows of items that tasks 5-8 never show, to ask about them later; histories and their targets keep them.
    max_history
        Items of history that a prompt shows, the most recent ones.
    max_title_history
        The same for histories of titles, which cost several tokens an item.
    max_title_tokens, max_caption_tokens
        Longer titles and captions are cut.
    seed
        Of the sampling: the same seed and step give the same examples.

    Raises
    ------
    ValueError
        For an unknown task, a mixture of other tasks or without positive weights, `drop_items` outside [0, 1), rows
        held out that the catalogue lacks, lengths that don't agree, or if a task has no example (such as task 7 without
        captions).
    """

    def __init__(
        self,
        sids: SemanticIds,
        vocabulary: SidVocabulary,
        titles: Sequence[str],
        captions: Mapping[str, str] | None,
        split: Split,
        *,
        tasks: Sequence[str] = tuple(TASKS),
        mixture: Mapping[str, float] | None = None,
        drop_items: float = 0.0,
        held_out: Collection[int] = (),
        max_history: int = 20,
        max_title_history: int = 10,
        max_title_tokens: int = 24,
        max_caption_tokens: int = 48,
        seed: int = 0,
    ):
        unknown = [name for name in tasks if name not in TASKS]
        if unknown or not tasks:
            raise ValueError(f"unknown tasks {unknown}: choose one or more of {list(TASKS)}")
        if not len(sids.item_ids) == len(titles) == split.n_items:
            raise ValueError(
                f"{len(sids.item_ids)} SIDs, {len(titles)} titles and a split of {split.n_items} items: "
                "all must be of the same catalogue"
            )
        if min(max_history, max_title_history, max_title_tokens, max_caption_tokens) < 1:
            raise ValueError("max_history, max_title_history, max_title_tokens and max_caption_tokens must be positive")
        if not 0 <= drop_items < 1:
            raise ValueError(f"drop_items must be at least 0 and below 1, got {drop_items}")
        self.held_out = sorted({int(row) for row in held_out})
        if self.held_out and not 0 <= self.held_out[0] <= self.held_out[-1] < split.n_items:
            raise ValueError(f"held_out must be item rows from 0 to {split.n_items - 1}, got {self.held_out}")
        self.vocabulary = vocabulary
        self.tasks = tuple(TASKS[name] for name in tasks)
        self._shares = None if mixture is None else _shares(tasks, mixture)
        self.drop_items = drop_items
        self.max_history = max_history
        self.max_title_history = max_title_history
        self.seed = seed
        captions = captions or {}
        self.history_prompt = HistoryPrompt(vocabulary, sids, max_history)
        self._sids = self.history_prompt.sids
        self._titles = [self._text(title, max_title_tokens) for title in titles]
        self._captions = [self._text(captions.get(item, ""), max_caption_tokens) for item in sids.item_ids]
        self._parts = {task.name: tuple(vocabulary.encode_text(text) for text in task.parts) for task in TASKS.values()}
        self._line_break = vocabulary.encode_text("\n")
        self._histories = Histories(split.train)
        self._pairs = {task.name: self._population(task) for task in self.tasks}
        self._populations = {
            task.name: self._histories.windows(max_history) if task.is_causal else self._pairs[task.name]
            for task in self.tasks
        }

    # ------------------------------------------------------------------ sampling

    def stream(self, step: int = 0) -> Iterator[Example]:
        """Yield examples without end; the same seed and step always give the same ones."""
        return self._draw(step, self._populations, self._example)

    def pairs(self, step: int = 0) -> Iterator[Example]:
        """Yield examples of a prompt and one answer without end, for models that read the prompt in both directions.

        They differ from `stream` in SIDSeq→SID: an encoder would see the answers inside a window, so an example has a
        single target, drawn uniformly from all train targets, and the history before it as prompt.
        """
        return self._draw(step, self._pairs, self._pair)

    def _draw(
        self,
        step: int,
        populations: Mapping[str, Int[np.ndarray, " examples"]],
        build: Callable[[Task, int, np.random.Generator], Example],
    ) -> Iterator[Example]:
        random = np.random.default_rng([self.seed, step])
        while True:
            task = self.tasks[random.choice(len(self.tasks), p=self._shares)]
            population = populations[task.name]
            yield build(task, int(population[random.integers(len(population))]), random)

    def sample(self, n: int, step: int = 0) -> list[Example]:
        """Return the first `n` examples of a step's stream."""
        return list(islice(self.stream(step), n))

    def show(self) -> pd.DataFrame:
        """Return one example of each task as text: task, prompt (no loss) and answer (the loss is taken here)."""
        rows = []
        for task in self.tasks:
            random = np.random.default_rng(self.seed)
            population = self._populations[task.name]
            example = self._example(task, int(population[random.integers(len(population))]), random)
            first = next(place for place, label in enumerate(example.labels) if label != IGNORED)
            decode = self.vocabulary.tokenizer.decode
            rows.append((task.name, decode(example.input_ids[:first]), decode(example.input_ids[first:])))
        return pd.DataFrame(rows, columns=["task", "prompt: no loss", "answer: the loss"]).set_index("task")

    def population_sizes(self) -> dict[str, int]:
        """Return per task the number of different examples (causal windows of long histories: their least number)."""
        return {name: len(population) for name, population in self._populations.items()}

    def fingerprint(self) -> str:
        """Return a hash of everything that decides which examples a step gives."""
        parts: tuple[Any, ...] = (
            [(task.name, task.template) for task in self.tasks],
            None if self._shares is None else self._shares.tolist(),
            (self.max_history, self.max_title_history, self.drop_items, self.seed, *self.held_out),
            (self._sids, self._titles, self._captions),
            (self._histories.items.tolist(), self._histories.positions.tolist()),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    # ------------------------------------------------------------------ prompts of inference

    def prompt(self, history: Sequence[int] | Int[np.ndarray, " history"]) -> list[int]:
        """Return the prompt of SIDSeq→SID, laid out as in training; see `HistoryPrompt`."""
        return self.history_prompt(history)

    def titles_prompt(self, history: Sequence[int] | Int[np.ndarray, " history"]) -> list[int]:
        """Return the prompt of TitleSeq→SID; the last `max_title_history` items that have a title are shown."""
        return self._prompt(TASKS["TitleSeq→SID"], history)

    def item_prompt(self, task: str, row: int) -> list[int]:
        """Return the prompt of one of the tasks about a single item (5-8).

        Raises
        ------
        ValueError
            If the task reads a history, or the item lacks the text.
        """
        if TASKS[task].reads in ("SID history", "title history"):
            raise ValueError(f"{task} reads a history: use prompt or titles_prompt")
        if not self._field(TASKS[task].reads, row):
            raise ValueError(f"row {row} has no {TASKS[task].reads}, which {task} reads")
        return self._prompt(TASKS[task], [row])

    def answer(self, task: str, row: int) -> list[int]:
        """Return the token ids that a task answers for an item: the SID, or the title and the end token."""
        if TASKS[task].answers == "SID":
            return self._sids[row]
        return [*self._titles[row], self.vocabulary.eos_token_id]

    # ------------------------------------------------------------------ the parts of an example

    def _text(self, text: str, max_tokens: int) -> list[int]:
        return self.vocabulary.encode_text(" ".join(text.split()))[:max_tokens]

    def _field(self, name: Input, row: int) -> list[int]:
        return {"title": self._titles, "SID": self._sids, "description": self._captions}[name][row]

    def _prompt(self, task: Task, rows: Sequence[int] | Int[np.ndarray, " rows"]) -> list[int]:
        if len(rows) == 0:
            raise ValueError(f"{task.name} needs at least one item to read, got an empty history")
        before, after = self._parts[task.name]
        return [*before, *self._input(task, rows), *after]

    def _input(self, task: Task, rows: Sequence[int] | Int[np.ndarray, " rows"]) -> list[int]:
        if task.reads == "SID history":
            return [token for row in rows[-self.max_history :] for token in self._sids[row]]
        if task.reads != "title history":
            return self._field(task.reads, rows[0])
        titled = [self._titles[row] for row in rows if self._titles[row]][-self.max_title_history :]
        if not titled:
            raise ValueError(f"{task.name}: no item of this history has a title")
        lines = [token for title in titled for token in (*title, *self._line_break)]
        return lines[: -len(self._line_break)]

    def _example(self, task: Task, index: int, random: np.random.Generator) -> Example:
        if task.is_causal:
            window = self._histories.window(index, self.max_history, random)
            return self._causal_example(task, thinned(window, self.drop_items, 2, random))
        return self._pair(task, index, random)

    def _pair(self, task: Task, index: int, random: np.random.Generator) -> Example:
        if task.reads in ("SID history", "title history"):
            history = self._histories.before(index)
            if task.is_causal:
                history = thinned(history[-self.max_history :], self.drop_items, 1, random)
            prompt, target = self._prompt(task, history), int(self._histories.items[index])
        else:
            prompt, target = self._prompt(task, [index]), index
        answer = self.answer(task.name, target)
        return Example(task.name, [*prompt, *answer], [*[IGNORED] * len(prompt), *answer])

    def _causal_example(self, task: Task, rows: Int[np.ndarray, " window"]) -> Example:
        before, _ = self._parts[task.name]
        unsupervised = [*before, *self._sids[rows[0]]]
        supervised = [token for row in rows[1:] for token in self._sids[row]]
        return Example(task.name, [*unsupervised, *supervised], [*[IGNORED] * len(unsupervised), *supervised])

    # ------------------------------------------------------------------ what there is to sample from

    def _population(self, task: Task) -> Int[np.ndarray, " examples"]:
        """Return what identifies a task's pairs of prompt and answer: flat positions of targets, or item rows."""
        titled = np.asarray([bool(title) for title in self._titles])
        if task.reads in ("SID history", "title history"):
            items, positions = self._histories.items, self._histories.positions
            usable = positions >= 1
            if task.answers == "title":
                usable &= titled[items]
            if task.reads == "title history":
                seen = np.concatenate([[0], np.cumsum(titled[items])])
                flat = np.arange(len(items))
                usable &= seen[flat] > seen[flat - positions]
            population = np.flatnonzero(usable)
        else:
            usable = np.asarray([bool(self._field(task.reads, row)) for row in range(len(self._sids))])
            usable[self.held_out] = False
            if task.answers == "title":
                usable &= titled
            population = np.flatnonzero(usable)
        if len(population) == 0:
            raise ValueError(f"task {task.name} has no example: {self._missing(task)}")
        return population

    @staticmethod
    def _missing(task: Task) -> str:
        if task.reads == "description":
            return "no item not held out has a caption (and title, if that is asked); make captions or drop tasks 7-8"
        if task.reads in ("SID history", "title history"):
            return "no user has two train interactions (with titles, where titles are needed)"
        return "no item not held out has a title"
