"""Describing a whole catalogue: look up, ask for what is missing, keep each answer at once.

A run may be killed at any moment and started again: answers in the cache are not asked for again. A backend that
streams repeats nothing; one that answers in batches repeats at most the batch that was in flight.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any

import pandas as pd

import trialign
from trialign.describe.backends import Captioner, Describer, Miner, Streaming
from trialign.describe.cache import DescriptionCache, Entry, Kind, caption_key, interest_key
from trialign.describe.parse import parse_caption, parse_interests
from trialign.describe.turns import turn
from trialign.describe.views import ItemError, ItemView, load_image
from trialign.progress import tqdm

_Ask = Callable[[Sequence[ItemView], int], list[str]]


def caption_items(
    views: Sequence[ItemView],
    captioner: Captioner,
    cache: DescriptionCache,
    *,
    retry_failed: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """Describe the images of items (CMSA, pathway 1: ``v_text = VLM(image, prompt)``).

    Parameters
    ----------
    views
        The items. Those with equal images share one caption.
    captioner
        Who describes.
    cache
        Where captions are looked up and kept.
    retry_failed
        Whether items that failed in an earlier run are asked for again.
    progress
        Whether to show a bar with rate and remaining time.

    Returns
    -------
    pandas.DataFrame
        One row an item, in the order of `views`: ``item_id``, ``caption`` ("" if there is none), ``model``, ``source``
        (``cache``, ``made``, ``failed`` or ``no image``) and ``error``. Failed items are tried again by the next run.

    Warns
    -----
    UserWarning
        If captions failed: how many, and why the first few.
    """
    job = _Job(
        kind="caption",
        backend=captioner,
        ask=lambda views, attempt: captioner.caption(views),
        read=lambda answer, view: parse_caption(answer),
        key=lambda view: caption_key(view, captioner),
        settled=_settled(retry_failed),
    )
    outcomes = _describe([view for view in views if view.image is not None], job, cache, progress)
    rows = []
    for view in views:
        if view.image is None:
            rows.append((view.item_id, "", captioner.model, "no image", ""))
            continue
        outcome = next(outcomes)
        caption = outcome.entry.parsed or ""
        rows.append((view.item_id, caption, captioner.model, outcome.source, outcome.entry.error))
    table = pd.DataFrame(rows, columns=["item_id", "caption", "model", "source", "error"])
    _warn_of_failures(table, "captions")
    return table


def mine_interests(
    views: Sequence[ItemView],
    miner: Miner,
    cache: DescriptionCache,
    *,
    retries: int = 2,
    retry_failed: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """Name the deep interests of items (MDIM: step-by-step reasoning, then 2 to 4 tags).

    Parameters
    ----------
    views
        The items, with their captions.
    miner
        Who reasons.
    cache
        Where answers are looked up and kept.
    retries
        How often an item is asked again if its answer is not valid.
    retry_failed
        Whether items that failed in an earlier run are asked for again.
    progress
        Whether to show a bar with rate and remaining time.

    Returns
    -------
    pandas.DataFrame
        One row an item, in the order of `views`: ``item_id``, ``interests`` (list of str, empty if failed),
        ``reasoning`` (for a failed item its last raw answer), ``model``, ``source`` (``cache``, ``made`` or
        ``failed``) and ``error``. Failed items are tried again by the next run, their attempts counted on.

    Warns
    -----
    UserWarning
        If items failed: how many, and why the first few.
    """
    job = _Job(
        kind="interest",
        backend=miner,
        ask=miner.mine,
        read=lambda answer, view: asdict(parse_interests(answer, view.title)),
        key=lambda view: interest_key(view, miner),
        settled=_settled(retry_failed),
        retries=retries,
    )
    rows: list[tuple[Any, ...]] = []
    for view, outcome in zip(views, _describe(views, job, cache, progress), strict=True):
        entry = outcome.entry
        read = entry.parsed or {"interests": [], "reasoning": entry.answer}
        rows.append((view.item_id, read["interests"], read["reasoning"], miner.model, outcome.source, entry.error))
    table = pd.DataFrame(rows, columns=["item_id", "interests", "reasoning", "model", "source", "error"])
    _warn_of_failures(table, "interests")
    return table


@dataclass(frozen=True)
class _Job:
    """What differs between captions and interests."""

    kind: Kind
    backend: Describer
    ask: _Ask
    read: Callable[[str, ItemView], Any]
    key: Callable[[ItemView], str]
    settled: frozenset[str]
    retries: int = 0


def _settled(retry_failed: bool) -> frozenset[str]:
    """Return the states of an entry for which nobody is asked."""
    return frozenset({"ok"} if retry_failed else {"ok", "failed"})


@dataclass(frozen=True)
class _Question:
    """One thing to ask: a key, an item that has it, and how often it was asked before."""

    key: str
    view: ItemView
    attempt: int


@dataclass(frozen=True)
class _Outcome:
    """What came of one item."""

    entry: Entry
    source: str


def _describe(views: Sequence[ItemView], job: _Job, cache: DescriptionCache, progress: bool) -> Iterator[_Outcome]:
    """Look up all items, ask for the missing ones, and return the outcomes in the order of the items."""
    keys, unread = _keys(views, job, progress)
    entries = cache.lookup(key for key in keys if key)
    if all(key in entries and entries[key].status in job.settled for key in keys if key):
        cached = set(entries)
    else:
        with turn(cache, job.kind, job.backend):
            entries = cache.lookup(key for key in keys if key)  # another process may have had its turn before
            cached = {key for key, entry in entries.items() if entry.status in job.settled}
            entries |= _asked(views, keys, entries, cached, job, cache, progress)
    return iter([_outcome(key, entries, cached, unread, view) for key, view in zip(keys, views, strict=True)])


def _asked(
    views: Sequence[ItemView],
    keys: Sequence[str],
    entries: dict[str, Entry],
    cached: set[str],
    job: _Job,
    cache: DescriptionCache,
    progress: bool,
) -> dict[str, Entry]:
    """Ask for what is not cached, and return the new entries by key."""
    questions: dict[str, _Question] = {}
    for key, view in zip(keys, views, strict=True):
        if key and key not in cached:
            asked_before = entries[key].attempts if key in entries else 0
            questions.setdefault(key, _Question(key, view, asked_before))  # items with equal keys: the first one asks
    label = shorten(f"{job.kind}s by {job.backend.model}", 48, placeholder=" …")  # room for the bar beside it
    total = len(cached) + len(questions)
    with tqdm(total=total, initial=len(cached), desc=label, unit="item", disable=not progress) as bar:
        return {entry.key: entry for entry in _made(list(questions.values()), job, cache, bar)}


def _keys(views: Sequence[ItemView], job: _Job, progress: bool) -> tuple[list[str], dict[str, Entry]]:
    """Return each item's key; "" and a failed entry, by item id, for those whose image can't be read."""
    keys: list[str] = []
    unread: dict[str, Entry] = {}
    # Reading ten thousand images takes a while; a bar for less would only flicker.
    for view in tqdm(views, desc="look up", unit="item", leave=False, delay=2, disable=not progress):
        try:
            keys.append(job.key(view))
        except OSError as error:
            keys.append("")
            unread[view.item_id] = _entry(job, _Question("", view, 0), "", None, str(_fault_of_item(error, view)))
    return keys, unread


def _made(questions: list[_Question], job: _Job, cache: DescriptionCache, bar: tqdm) -> Iterator[Entry]:
    """Ask until each question has a valid answer or no attempt is left; keep and yield every answer as it comes."""
    failures = 0
    for left in range(job.retries, -1, -1):
        again = []
        for attempt, group in sorted(_by_attempt(questions).items()):
            for position, answer in _answers(job, [question.view for question in group], attempt):
                question = group[position]
                entry = _judged(job, question, answer)
                cache.put(entry)
                if entry.status == "failed" and left:
                    again.append(_Question(question.key, question.view, attempt + 1))
                    continue
                failures += entry.status == "failed"
                if failures:
                    bar.set_postfix(failed=failures, refresh=False)
                bar.update()
                yield entry
        questions = again


def _by_attempt(questions: Sequence[_Question]) -> dict[int, list[_Question]]:
    groups: dict[int, list[_Question]] = defaultdict(list)
    for question in questions:
        groups[question.attempt].append(question)
    return groups


def _answers(job: _Job, views: Sequence[ItemView], attempt: int) -> Iterator[tuple[int, str | ItemError]]:
    """Yield (position, answer) from a streaming backend as they come, from any other batch by batch."""
    answered = 0
    if isinstance(job.backend, Streaming):
        for position, answer in job.backend.stream(views, attempt):
            answered += 1
            yield position, answer
    else:
        for start in range(0, len(views), job.backend.batch_size):
            for position, answer in _batch(job, views[start : start + job.backend.batch_size], attempt):
                answered += 1
                yield start + position, answer
    if answered != len(views):
        raise ValueError(f"{job.backend.model} gave {answered} answers for {len(views)} items")


def _batch(job: _Job, views: Sequence[ItemView], attempt: int) -> Iterator[tuple[int, str | ItemError]]:
    """Ask for one batch. If an item spoils it, ask one by one, so that only the guilty one fails."""
    try:
        answers = job.ask(views, attempt)
    except (ItemError, OSError) as error:
        if len(views) > 1:
            for position, view in enumerate(views):
                for _, answer in _batch(job, [view], attempt):
                    yield position, answer
            return
        yield 0, _fault_of_item(error, views[0])
        return
    yield from enumerate(answers)


def _fault_of_item(error: ItemError | OSError, view: ItemView) -> ItemError:
    """Return the item's error. An OSError is one only if the image can't be decoded; any other stops the run."""
    if isinstance(error, ItemError):
        return error
    if view.image is None:
        raise error
    try:
        load_image(view)
    except ItemError as unreadable:
        return unreadable
    raise error


def _judged(job: _Job, question: _Question, answer: str | ItemError) -> Entry:
    """Return the cache entry of an answer: valid, or failed with what is wrong."""
    if isinstance(answer, ItemError):
        return _entry(job, question, "", None, str(answer))
    try:
        return _entry(job, question, answer, job.read(answer, question.view), "")
    except ValueError as error:
        return _entry(job, question, answer, None, str(error))


def _entry(job: _Job, question: _Question, answer: str, parsed: Any, error: str) -> Entry:
    backend = job.backend
    made_by = f"made by trialign {trialign.__version__}, {type(backend).__name__}"
    return Entry(
        key=question.key,
        kind=job.kind,
        item_id=question.view.item_id,
        model=backend.model,
        prompt=backend.prompt,
        settings=backend.settings,
        answer=answer,
        parsed=parsed,
        status="failed" if error else "ok",
        error=error,
        attempts=question.attempt + 1,
        provenance=getattr(backend, "provenance", made_by),
    )


def _outcome(
    key: str, entries: dict[str, Entry], cached: set[str], unread: dict[str, Entry], view: ItemView
) -> _Outcome:
    entry = entries[key] if key else unread[view.item_id]
    if entry.status == "failed":
        return _Outcome(entry, "failed")
    return _Outcome(entry, "cache" if key in cached else "made")


def _warn_of_failures(table: pd.DataFrame, what: str) -> None:
    failed = table[table["source"] == "failed"]
    if failed.empty:
        return
    first = "; ".join(f"{row.item_id}: {row.error}" for row in failed.head(3).itertuples())
    message = f"{len(failed)} of {len(table)} items have no {what}; run again to ask only for them. First: {first}"
    warnings.warn(message, UserWarning, stacklevel=3)
