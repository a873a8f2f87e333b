"""The cache of captions and interests: one SQLite file, content-addressed, safe against a kill at any moment.

An entry's key is the SHA-256 of everything its answer depends on: image bytes, prompt, model, settings, and for
interests the item's title, text and caption. Nothing is looked up by item id, so renamed or shared items cost nothing
and a changed image is described anew.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from trialign.describe.backends import Captioner, Describer, Miner
from trialign.describe.parse import parse_caption, parse_interests
from trialign.describe.recorded import RecordedCaptioner, RecordedMiner, Recording, Source, write_recording
from trialign.describe.views import ItemView

Kind = Literal["caption", "interest"]

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS texts (hash TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    item_id TEXT NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL REFERENCES texts (hash),
    settings TEXT NOT NULL,
    answer TEXT NOT NULL,
    parsed TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
    error TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    created TEXT NOT NULL,
    provenance TEXT NOT NULL REFERENCES texts (hash)
) WITHOUT ROWID;
"""
_SELECT = """
SELECT key, kind, item_id, model, prompts.text, settings, answer, parsed, status, error, attempts, created, origins.text
FROM entries JOIN texts AS prompts ON prompts.hash = prompt JOIN texts AS origins ON origins.hash = provenance
"""
# A failure never replaces an answer: two runs may work on the same items, and one of them may be unlucky.
_UPSERT = """
INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    item_id = excluded.item_id, answer = excluded.answer, parsed = excluded.parsed, status = excluded.status,
    error = excluded.error, attempts = excluded.attempts, created = excluded.created, provenance = excluded.provenance
WHERE excluded.status = 'ok' OR entries.status = 'failed'
"""


@dataclass(frozen=True)
class Entry:
    """One description in the cache.

    Attributes
    ----------
    key
        SHA-256 of what the answer depends on: `caption_key` or `interest_key`.
    kind
        ``caption`` or ``interest``.
    item_id
        The item it was last asked for; not part of the key.
    model, prompt, settings
        Who answered, to what, how set.
    answer
        The raw answer.
    parsed
        The caption (str), or ``{"interests": [...], "reasoning": "..."}``; None if the answer is not valid.
    status, error
        ``ok`` and "", or ``failed`` and the reason.
    attempts
        How often the model was asked.
    created
        When, UTC, ISO 8601.
    provenance
        Where the answer comes from, in words.
    """

    key: str
    kind: Kind
    item_id: str
    model: str
    prompt: str
    settings: Mapping[str, Any]
    answer: str
    parsed: Any
    status: Literal["ok", "failed"]
    error: str = ""
    attempts: int = 1
    created: str = ""
    provenance: str = ""


def caption_key(view: ItemView, captioner: Captioner) -> str:
    """Return the key of an item's caption: SHA-256 over image bytes, prompt, model and settings.

    Raises
    ------
    OSError
        If the image can't be read.
    """
    return _key("caption", image_hash(view.image), captioner, [])


def interest_key(view: ItemView, miner: Miner) -> str:
    """Return the key of an item's interests: the caption's parts, then title, text and caption.

    An image that can't be read counts as none: interests are mined from text, so they need not wait for it.
    """
    try:
        image = image_hash(view.image)
    except OSError:
        image = ""
    return _key("interest", image, miner, [view.title, view.text, view.caption])


def image_hash(path: Path | None) -> str:
    """Return the SHA-256 of an image file, or "" for no image."""
    if path is None:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DescriptionCache:
    """Captions and interests on disk, each committed when it is put.

    The file is SQLite in WAL mode: a process killed at any moment loses at most the entry it was writing, and two
    processes may use the file at once (a writer waits up to a minute for the other). The file must be on a local disk:
    WAL does not work over network file systems. Use a cache from the thread that opened it.

    Parameters
    ----------
    path
        The file; it and its folder are made if missing.

    Raises
    ------
    ValueError
        If the file is not such a cache.

    Examples
    --------
    >>> with DescriptionCache(getfixture("tmp_path") / "descriptions.sqlite") as cache:
    ...     len(cache)
    0
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # isolation_level=None: transactions begin and end where this module says so, nowhere else.
        with _told(self.path):
            self._connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            try:
                _prepare(self._connection)
            except sqlite3.DatabaseError:
                self._connection.close()
                raise
            except ValueError as error:
                self._connection.close()
                raise ValueError(f"{self.path}: {error}") from error

    def get(self, key: str) -> Entry | None:
        """Return the entry of a key, or None."""
        return self.lookup([key]).get(key)

    def lookup(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Return the entries of those keys that are there."""
        wanted, found = list(dict.fromkeys(keys)), {}
        with _told(self.path):
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                for row in self._connection.execute(f"{_SELECT} WHERE key IN ({marks})", part):
                    found[row[0]] = _entry(row)
        return found

    def put(self, *entries: Entry) -> None:
        """Write entries in one transaction; when it returns, they are committed.

        An entry with the same key is replaced, except an ``ok`` one by a ``failed`` one.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with _told(self.path), self._transaction():
            for entry in entries:
                prompt, provenance = self._text(entry.prompt), self._text(entry.provenance)
                self._connection.execute(_UPSERT, _row(entry, prompt, provenance, entry.created or now))

    def summary(self) -> pd.DataFrame:
        """Count the entries: ``kind``, ``model``, ``status``, ``entries``, ``first`` and ``last`` creation time."""
        query = """
        SELECT kind, model, status, count(*) AS entries, min(created) AS first, max(created) AS last
        FROM entries GROUP BY kind, model, status ORDER BY kind, model, status
        """
        cursor = self._connection.execute(query)
        return pd.DataFrame(cursor.fetchall(), columns=[column[0] for column in cursor.description])

    def import_descriptions(self, path: str | Path, views: Sequence[ItemView]) -> pd.Series:
        """Take descriptions from a JSON-lines file that has a provenance (see `recorded`).

        Each enters under the key that its model, prompt and settings, as the provenance tells them, give it: the
        captioner or miner that made it will find it, and so will the ``recorded:`` backend on the same file.

        Parameters
        ----------
        path
            The file, or the name of a data set that has one.
        views
            The items the file may speak of. A view without caption takes the file's caption for its interests' key.

        Returns
        -------
        pandas.Series
            How many ``captions`` and ``interests`` were taken, and of how many items the file says nothing
            (``missing``).

        Raises
        ------
        InterestAnswerError
            If the file's interests of an item are not valid.
        """
        recording = Recording.read(path)
        captioner, miner = RecordedCaptioner(recording), RecordedMiner(recording)
        captions, interests = [], []
        for view in views:
            if view.item_id not in recording.items:
                continue
            item = recording.items[view.item_id]
            if item.caption and view.image is not None:
                parsed = parse_caption(item.caption)
                key = caption_key(view, captioner)
                captions.append(_imported(key, "caption", view, captioner, item.caption, parsed))
            if item.interests:
                seen = replace(view, caption=view.caption or (item.caption if view.image is not None else ""))
                answer = miner.mine([view], 0)[0]
                read = asdict(parse_interests(answer, view.title))
                interests.append(_imported(interest_key(seen, miner), "interest", view, miner, answer, read))
        self.put(*captions, *interests)
        missing = sum(view.item_id not in recording.items for view in views)
        return pd.Series({"captions": len(captions), "interests": len(interests), "missing": missing})

    def export_descriptions(
        self, path: str | Path, views: Sequence[ItemView], captioner: Captioner, miner: Miner, notes: str
    ) -> Path:
        """Write what this captioner and this miner said of the items as JSON lines with a provenance file beside.

        The pair can be shipped: `import_descriptions` on another machine gives the same entries.

        Parameters
        ----------
        path
            The JSON-lines file; the provenance goes to the same name with ``.provenance.json``.
        views
            The items, in the file's order; failed and missing descriptions are left out.
        captioner, miner
            Whose descriptions.
        notes
            Whatever a reader should know: how they were made, limits, licence.

        Returns
        -------
        pathlib.Path
            The JSON-lines file.
        """
        readable = [view for view in views if view.image is not None]
        caption_keys = {view.item_id: caption_key(view, captioner) for view in readable}
        captions = self._answers(caption_keys)
        seen = [replace(view, caption=view.caption or _parsed(captions, view, "")) for view in views]
        interests = self._answers({view.item_id: interest_key(view, miner) for view in seen})
        lines = []
        for view in views:
            line: dict[str, Any] = {"item_id": view.item_id}
            if view.item_id in captions:
                line["caption"] = captions[view.item_id].parsed
            if view.item_id in interests:
                line |= interests[view.item_id].parsed
            if len(line) > 1:
                lines.append(line)
        sources = {"captions": _source(captioner), "interests": _source(miner)}
        created = max((entry.created for entry in [*captions.values(), *interests.values()]), default="")
        return write_recording(Path(path), lines, sources, created, notes)

    def close(self) -> None:
        """Close the file; the cache can't be used after it."""
        self._connection.close()

    def __len__(self) -> int:
        return self._connection.execute("SELECT count(*) FROM entries").fetchone()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answers(self, keys: Mapping[str, str]) -> dict[str, Entry]:
        """Return the valid entries by item id."""
        found = self.lookup(keys.values())
        entries = {item_id: found[key] for item_id, key in keys.items() if key in found}
        return {item_id: entry for item_id, entry in entries.items() if entry.status == "ok"}

    def _text(self, text: str) -> str:
        """Store a prompt or a provenance once and return its hash."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._connection.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (digest, text))
        return digest

    @contextmanager
    def _transaction(self):
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # a full disk has rolled it back already
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what SQLite says into errors that name the file and the way out."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # of an entry, not of the file
    except sqlite3.OperationalError as error:  # full, locked, not to be written: not a matter of the file's content
        fix = "make room on its disk, allow writing to its folder, or name another file"
        raise OSError(f"{path} can't be used: {error}; fix: {fix}") from error
    except sqlite3.DatabaseError as error:
        fix = f"save what can be read with `trialign cache repair {path}`, or name another file"
        raise ValueError(f"{path} is no sound description cache: {error}; fix: {fix}") from error


def _prepare(connection: sqlite3.Connection) -> None:
    """Switch a file to WAL and make the tables, unless it is so already."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, _VERSION):
        raise ValueError(f"the cache has layout {version}, this version reads {_VERSION}; name another file")
    for wait in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 0):
        # SQLite does not wait for another process here, as it does for every other lock.
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            if not wait:
                raise
            time.sleep(wait)
    # In WAL mode NORMAL survives a killed process; a power cut may take the last entries but never the file.
    connection.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")


def _key(kind: Kind, image: str, backend: Describer, texts: Sequence[str]) -> str:
    settings = json.dumps(dict(backend.settings), sort_keys=True)
    parts = json.dumps([kind, image, backend.prompt, backend.model, settings, *texts])
    return hashlib.sha256(parts.encode()).hexdigest()


def _row(entry: Entry, prompt: str, provenance: str, created: str) -> tuple[Any, ...]:
    settings = json.dumps(dict(entry.settings), sort_keys=True)
    parsed = json.dumps(entry.parsed, ensure_ascii=False)
    head = (entry.key, entry.kind, entry.item_id, entry.model, prompt, settings, entry.answer, parsed)
    return (*head, entry.status, entry.error, entry.attempts, created, provenance)


def _entry(row: Sequence[Any]) -> Entry:
    fields = list(row)
    fields[5], fields[7] = json.loads(fields[5]), json.loads(fields[7])
    return Entry(*fields)


def _imported(
    key: str, kind: Kind, view: ItemView, backend: RecordedCaptioner | RecordedMiner, answer: str, parsed: Any
) -> Entry:
    return Entry(
        key=key,
        kind=kind,
        item_id=view.item_id,
        model=backend.model,
        prompt=backend.prompt,
        settings=backend.settings,
        answer=answer,
        parsed=parsed,
        status="ok",
        provenance=backend.provenance,
    )


def _parsed(entries: Mapping[str, Entry], view: ItemView, default: str) -> str:
    return entries[view.item_id].parsed if view.item_id in entries else default


def _source(backend: Describer) -> Source:
    return Source(backend.model, backend.prompt, dict(backend.settings))
