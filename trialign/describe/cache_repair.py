"""Looking for damage in a description cache, and saving what can be read of a damaged one."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trialign.describe.cache import DescriptionCache, Entry
from trialign.describe.parse import parse_caption, parse_interests

#: Every SQLite file begins so.
_MAGIC = b"SQLite format 3\0"
_DIGITS = "0123456789abcdef"
_COLUMNS = (
    "key", "kind", "item_id", "model", "settings", "answer", "parsed", "status", "error", "attempts", "created",
)  # fmt: skip
# Texts are not joined: where their pages are damaged, the entries can still be read.
_RANGE = """
SELECT key, kind, item_id, model, settings, answer, parsed, status, error, attempts, created, prompt, provenance
FROM entries WHERE key >= ? AND key < ?
"""


@dataclass
class CacheReport:
    """What `verify` found.

    Attributes
    ----------
    path
        The file.
    ok, failed
        Readable entries by status.
    problems
        What is wrong, in words; empty for a sound file.
    """

    path: Path
    ok: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(path: str | Path) -> CacheReport:
    """Look through a cache: SQLite's own check, then every entry; nothing is changed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    path = _existing(path)
    report = CacheReport(path)
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            report.problems.append("it does not begin like a SQLite file")
    try:
        with closing(_opened(path)) as connection:
            checked = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
            report.problems += [f"SQLite: {line}" for line in checked if line != "ok"]
    except sqlite3.DatabaseError as error:
        report.problems.append(f"SQLite: {error}")
    unreadable: list[str] = []
    for entry in _entries(path, unreadable):
        report.ok += entry.status == "ok"
        report.failed += entry.status == "failed"
        if problem := _problem(entry):
            report.problems.append(f"entry {entry.key[:12]} of item {entry.item_id!r}: {problem}")
    report.problems += unreadable[:5]
    return report


def repair(path: str | Path) -> tuple[CacheReport, Path]:
    """Save all sound entries of a cache into a new file in its place.

    Entries that say something else than their answer are left out: they will be asked for again.

    Parameters
    ----------
    path
        The cache.

    Returns
    -------
    report : CacheReport
        Of the new file; its problems say what could not be saved.
    kept : Path
        The damaged file, which stays beside it under another name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    path = _existing(path)
    fresh = path.with_name(f".{path.name}.repaired")
    fresh.unlink(missing_ok=True)
    lost: list[str] = []
    with DescriptionCache(fresh) as cache:
        batch: list[Entry] = []
        for entry in _entries(path, lost):
            if problem := _problem(entry):
                lost.append(f"entry {entry.key[:12]} of item {entry.item_id!r}: {problem}")
                continue
            batch.append(entry)
        cache.put(*batch)
    kept = _free_name(path)
    for ending in ("", "-wal", "-shm"):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(kept.with_name(kept.name + ending))
    fresh.replace(path)
    report = verify(path)
    report.problems += lost
    return report, kept


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such cache; fix: give the file, usually runs/descriptions.sqlite")
    return path


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in range(10_000))
    return next(name for name in names if not name.exists())


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=60)


def _entries(path: Path, unreadable: list[str]) -> Iterator[Entry]:
    """Yield what can be read; keys are hashes, so damage in one of many ranges of keys leaves the others readable."""
    with _whole(path) as file:
        yield from _entries_of(file, unreadable)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield the file, or of one that was cut a copy as long as its header says: SQLite refuses all of a shorter one."""
    with path.open("rb") as file:
        header = file.read(32)
    page = int.from_bytes(header[16:18]) if len(header) == 32 else 0
    missing = (1 << 16 if page == 1 else page) * int.from_bytes(header[28:32]) - path.stat().st_size
    if missing <= 0:
        yield path
        return
    copy = path.with_name(f".{path.name}.{os.getpid()}.whole")
    try:
        shutil.copyfile(path, copy)
        os.truncate(copy, copy.stat().st_size + missing)
        yield copy
    finally:
        for ending in ("", "-wal", "-shm"):
            copy.with_name(copy.name + ending).unlink(missing_ok=True)


def _entries_of(path: Path, unreadable: list[str]) -> Iterator[Entry]:
    texts = dict(_rows(path, "SELECT hash, text FROM texts", ()) or [])
    pieces = [("", "g")]
    while pieces:
        low, high = pieces.pop()
        rows = _rows(path, _RANGE, (low, high))
        if rows is None and len(low) < 3:
            pieces += [(low + digit, low + following) for digit, following in zip(_DIGITS, [*_DIGITS[1:], "g"])]
        elif rows is None:
            unreadable.append(f"entries {low}… can't be read")
        for row in rows or ():
            try:
                yield _entry(row, texts)
            except (ValueError, TypeError) as error:
                unreadable.append(f"entry {str(row[0])[:12]} can't be read: {error}")


def _rows(path: Path, query: str, values: tuple[str, ...]) -> list[tuple[Any, ...]] | None:
    """Return the rows of a query, None if the file is damaged there."""
    try:
        # A new connection each time: one that has met damage may refuse whatever follows.
        with closing(_opened(path)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.DatabaseError:
        return None


def _entry(row: tuple[Any, ...], texts: Mapping[str, str]) -> Entry:
    values = dict(zip(_COLUMNS, row))
    values |= {name: json.loads(values[name]) for name in ("settings", "parsed")}
    return Entry(**values, prompt=texts.get(row[-2], ""), provenance=texts.get(row[-1], ""))


def _problem(entry: Entry) -> str:
    """Return what is wrong with an entry, "" if nothing."""
    if entry.status != "ok":
        return ""
    try:
        if entry.kind == "caption":
            read: Any = parse_caption(entry.answer)
        else:
            read = asdict(parse_interests(entry.answer))
    except ValueError as error:
        return f"its answer is not valid: {error}"
    return "" if read == entry.parsed else "what was read of its answer is not what the answer says"
