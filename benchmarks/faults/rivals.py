"""Two processes at once on one cache, one run, one folder."""

import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from faults import Row
from faults.kills import notebooks, outputs, tokenize
from faults.notebooks import write_two
from faults.processes import Job, Tally, finish, seconds_of, start
from faults.stubs import LoggingEmbedder, LoggingMiner, item_views
from trialign.describe import DescriptionCache, mine_interests
from trialign.embed.cache import EmbeddingCache
from trialign.workspace import Workspace

_ITEMS = 40


def rows(times: int, seed: int) -> Iterator[Row]:
    """Let processes work on the same things at the same time, so many times."""
    yield cache_shared(2, times)
    yield cache_shared(4, max(1, times // 2))
    yield shared("the same texts embedded into one cache by two", embed, ["rows.npy"], times)
    yield shared("one tokenization's folder written by two", tokenize, ["made/**/*"], times)
    yield shared("one stage of a run committed by two", commit, ["runs/demo/01_s/*.parquet"], times)
    yield run_shared(max(1, times // 5))


def cache_shared(processes: int, times: int) -> Row:
    """Describe overlapping halves of a catalogue by several processes into one cache."""
    tally = Tally()
    for _ in range(times):
        with tempfile.TemporaryDirectory() as root, tally.timed():
            folder = Path(root)
            workers = [start(lambda place, shift=shift: _describe(place, shift), folder) for shift in range(processes)]
            ended = [finish(worker) for worker in workers]
            waited = "waiting for its answers" in (folder / "said").read_text()
            tally.survived += all(ended) and waited
            counts = Counter((folder / "asked").read_text().split())
            tally.repeated += sum(count - 1 for count in counts.values())
            tally.lost += _lost_entries(folder / "cache.sqlite")
            tally.repeated += _asked_when_finished(folder)
    note = "all but one say that they wait, and then find the answers"
    name = f"one cache described into by {processes} processes"
    return Row(name, tally.injected, tally.survived, tally.lost, tally.repeated, tally.worst, note)


def _describe(folder: Path, shift: int) -> None:
    views = item_views(_ITEMS)
    views = views[shift * 7 :] + views[: shift * 7]
    with DescriptionCache(folder / "cache.sqlite") as cache:
        table = mine_interests(views, LoggingMiner(folder / "asked", wait=0.002), cache, progress=False)
    assert (table["source"] != "failed").all()


def _lost_entries(path: Path) -> int:
    """Return how many items have no valid entry; all of them if the file is damaged."""
    with sqlite3.connect(path) as connection:
        if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            return _ITEMS
        return _ITEMS - connection.execute("SELECT count(*) FROM entries WHERE status = 'ok'").fetchone()[0]


def _asked_when_finished(folder: Path) -> int:
    """Return how many questions a run after all of them asks: none, since every item has its answer."""
    (folder / "asked").unlink()
    _describe(folder, 0)
    return len((folder / "asked").read_text().split()) if (folder / "asked").exists() else 0


def embed(folder: Path) -> None:
    """Embed the same texts into one cache."""
    texts = [f"text{number}" for number in range(_ITEMS)]
    rows, _ = EmbeddingCache(folder / "cache").embed(
        LoggingEmbedder(folder / "asked", wait=0.02), texts, [None] * _ITEMS, progress=False
    )
    temporary = folder / f"{time.monotonic_ns()}.tmp.npy"
    np.save(temporary, rows)
    temporary.rename(folder / "rows.npy")


def commit(folder: Path) -> None:
    """Write the same stage."""
    written = Workspace("demo", folder / "runs").begin("01_s", {"seed": 0})
    for number in range(5):
        written.table(f"t{number}", pd.DataFrame({"n": np.arange(2000) + number}))
    written.commit()


def shared(name: str, job: Job, kept: list[str], times: int) -> Row:
    """Do the same job twice at once in one folder; what is there afterwards equals one job's."""
    tally, refused = Tally(), 0
    with tempfile.TemporaryDirectory() as root:
        seconds_of(job, Path(root, "whole"))
        expected = outputs(Path(root, "whole"), kept)
        for number in range(times):
            folder = Path(root, str(number))
            with tally.timed():
                workers = [start(job, folder), start(job, folder)]
                ended = [finish(worker) for worker in workers]
                said = (folder / "said").read_text()
            tally.survived += all(ended) or (any(ended) and "Traceback" in said and "OSError" in said)
            refused += not all(ended)
            if not any(ended):
                print(said)
            tally.lost += outputs(folder, kept) != expected
    note = "both end; the folder is one's, whole" if not refused else f"{refused} times one of them is refused"
    return Row(name, tally.injected, tally.survived, tally.lost, 0, tally.worst, note)


def run_shared(times: int) -> Row:
    """Start the same run twice: the second is told who writes it."""
    tally, told = Tally(), 0
    for _ in range(times):
        with tempfile.TemporaryDirectory() as root, tally.timed():
            folder = Path(root)
            write_two(folder)
            workers = [start(notebooks, folder), start(notebooks, folder)]
            ended = [finish(worker) for worker in workers]
            said = (folder / "said").read_text()
            refused = "is being written by" in said
            told += refused
            tally.survived += any(ended) and (all(ended) or refused)
            counts = Counter((folder / "asked").read_text().split())
            tally.repeated += sum(count - 1 for count in counts.values())
            tally.lost += len(Workspace("demo", folder / "runs").stages()) != 2
    note = f"{told} times the second is told which process writes the run, and to wait or take another name"
    return Row("one run started by two", tally.injected, tally.survived, tally.lost, tally.repeated, tally.worst, note)
