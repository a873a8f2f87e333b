"""How well a model does the tasks about single items (5-8): does it know what a SID means, and what an image shows?

Recommendation metrics say whether the next item is found; they don't say which of the tasks was learnt. Here each task
is asked as it is used: SIDs by the beam search over the trie, titles by greedy decoding without SID tokens. Items that
the tasks never showed (`Multitask`'s `held_out`) tell understanding from memory.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from trialign.decode import beam_search
from trialign.decode.text import generate_tokens
from trialign.evaluate import bootstrap_interval, ranking_metrics
from trialign.recommend import GenerativeRecommender
from trialign.tasks import Multitask, Task

#: Items that a search returns: more than are counted, so that a tie at the tenth place is seen whole.
_RETURNED = 20

#: A measure, its value for each item, and what it would be by chance.
_Measured = tuple[str, Float[np.ndarray, " items"], float]


def task_quality(
    recommender: GenerativeRecommender,
    multitask: Multitask,
    rows: Sequence[int] | Int[np.ndarray, " items"],
    *,
    beams: int = 20,
    max_tokens: int = 32,
    samples: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Ask a model each of the tasks 5-8 about some items.

    Parameters
    ----------
    recommender
        The model with its SIDs.
    multitask
        Its tasks, prompts and true answers: those it was trained on.
    rows
        Item rows, each once. A task leaves out those without the text that it reads or answers.
    beams
        Width of the beam search, at least 20.
    max_tokens
        Longest text answer.
    samples, seed
        Of the bootstrap, and of the pairing of answers with other items' titles.
    progress
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        A row a task and measure: ``task, measure, value, low, high, chance, items``. The interval is the 95 % bootstrap
        interval over items.

        For answers that are SIDs: ``accuracy@1`` and ``accuracy@10`` (share of items that are first, or among the first
        ten; by chance: of a random order) and ``first code`` (share whose best answer has the true first code; by
        chance: of another item of the catalogue).

        For titles: ``exact match`` and ``token F1`` (`token_f1`), both of lower-cased words between blanks; by chance:
        of the answers to other items. ``SID tokens``: share of answers with a SID token. It is 0, since decoding never
        chooses one; ``SID tokens, free`` is the same where decoding may choose any token.

    Raises
    ------
    ValueError
        If there is no row, one is not in the catalogue or occurs twice, `beams` is below 20, or the tasks have none of
        5-8 or none that these rows have the texts for.
    """
    rows = _checked(rows, recommender.trie.n_items)
    if beams < _RETURNED:
        raise ValueError(f"beams must be at least {_RETURNED}, got {beams}")
    records = []
    for task, usable in _asked(multitask, rows):
        measured = (
            _sid_answers(recommender, multitask, task, usable, beams, progress)
            if task.answers == "SID"
            else _titles(recommender, multitask, task, usable, max_tokens, seed, progress)
        )
        for measure, values, chance in measured:
            value, low, high = bootstrap_interval(values, samples, seed)
            records.append((task.name, measure, value, low, high, chance, len(usable)))
    return pd.DataFrame(records, columns=["task", "measure", "value", "low", "high", "chance", "items"])


def token_f1(answer: Sequence[str], truth: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall of an answer's words, each counted as often as it occurs.

    As in SQuAD (arXiv 1606.05250, section 6.1). 1 if both are empty.

    Examples
    --------
    >>> round(token_f1(["the", "red", "mug"], ["red", "mug", "(1999)", "mug"]), 3)
    0.571
    """
    if not answer and not truth:
        return 1.0
    shared = sum((Counter(answer) & Counter(truth)).values())
    return 2 * shared / (len(answer) + len(truth))


def _checked(rows: Sequence[int] | Int[np.ndarray, " items"], items: int) -> Int[np.ndarray, " items"]:
    checked = np.asarray(rows, dtype=np.int64)
    if not len(checked) or len(np.unique(checked)) < len(checked):
        raise ValueError(f"rows must hold at least one item, each once; got {len(checked)} rows")
    if checked.min() < 0 or checked.max() >= items:
        raise ValueError(f"rows must lie in 0..{items - 1}, got {checked.min()}..{checked.max()}")
    return checked


def _asked(multitask: Multitask, rows: Int[np.ndarray, " items"]) -> Iterator[tuple[Task, Int[np.ndarray, " items"]]]:
    """Yield the tasks about single items, each with the rows that have its texts."""
    about_items = [task for task in multitask.tasks if task.reads in ("title", "SID", "description")]
    usable = [[row for row in rows.tolist() if _has_texts(multitask, task, row)] for task in about_items]
    found = [(task, np.asarray(some, dtype=np.int64)) for task, some in zip(about_items, usable) if some]
    if not found:
        raise ValueError("no task about single items (5-8) has its texts for any of these rows: choose other rows")
    yield from found


def _has_texts(multitask: Multitask, task: Task, row: int) -> bool:
    try:
        multitask.item_prompt(task.name, row)
    except ValueError:
        return False
    return task.answers == "SID" or len(multitask.answer(task.name, row)) > 1  # a title is more than its end


def _sid_answers(
    recommender: GenerativeRecommender,
    multitask: Multitask,
    task: Task,
    rows: Int[np.ndarray, " items"],
    beams: int,
    progress: bool,
) -> list[_Measured]:
    trie, codes = recommender.trie, recommender.sids.codes[:, 0]
    found = beam_search(
        recommender.model,
        trie,
        [multitask.item_prompt(task.name, row) for row in rows.tolist()],
        beams=beams,
        top_k=_RETURNED,
        progress=progress,
        pad_token_id=recommender.vocabulary.pad_token_id,
    )
    hits = ranking_metrics(found.items, rows, ks=(1, 10), groups=trie.leaves_of(np.arange(trie.n_items)))
    first = (codes[found.items[:, 0]] == codes[rows]).astype(float)
    share_of_code = np.bincount(codes)[codes] / len(codes)
    return [
        *((f"accuracy@{k}", hits[f"recall@{k}"].to_numpy(), min(k / trie.n_items, 1.0)) for k in (1, 10)),
        ("first code", first, float(share_of_code.mean())),
    ]


def _titles(
    recommender: GenerativeRecommender,
    multitask: Multitask,
    task: Task,
    rows: Int[np.ndarray, " items"],
    max_tokens: int,
    seed: int,
    progress: bool,
) -> list[_Measured]:
    model, vocabulary = recommender.model, recommender.vocabulary
    sid_tokens = vocabulary.all_sid_token_ids
    prompts = [multitask.item_prompt(task.name, row) for row in rows.tolist()]
    free = generate_tokens(model, vocabulary, prompts, max_tokens=max_tokens, progress=progress)
    text = generate_tokens(model, vocabulary, prompts, suppressed=sid_tokens, max_tokens=max_tokens, progress=progress)

    def words(tokens: list[int]) -> list[str]:
        return str(vocabulary.tokenizer.decode(tokens, skip_special_tokens=True)).lower().split()

    answers = [words(tokens) for tokens in text]
    truths = [words(multitask.answer(task.name, row)) for row in rows.tolist()]
    others = _others(len(rows), seed)
    measures = {"exact match": lambda answer, truth: float(answer == truth), "token F1": token_f1}
    measured: list[_Measured] = []
    for name, score in measures.items():
        values = np.array([score(answer, truth) for answer, truth in zip(answers, truths)])
        by_chance = [score(answer, truths[other]) for answer, other in zip(answers, others)]
        measured.append((name, values, float(np.mean(by_chance)) if len(rows) > 1 else float("nan")))
    for name, tokens in (("SID tokens", text), ("SID tokens, free", free)):
        measured.append((name, np.array([float(np.isin(answer, sid_tokens).any()) for answer in tokens]), float("nan")))
    return measured


def _others(items: int, seed: int) -> Int[np.ndarray, " items"]:
    """Return for each place another one, drawn: no place its own, if there are two."""
    order = np.random.default_rng(seed).permutation(items)
    others = np.empty(items, dtype=np.int64)
    others[order] = np.roll(order, 1)
    return others
