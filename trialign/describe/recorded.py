"""Descriptions that were written earlier and come as a file, with their provenance.

The file is JSON lines: ``item_id`` (or ``movieId``), ``caption``, ``interests`` (2 to 4, the strongest first) and,
optionally, ``reasoning``. Beside it lies its provenance: ``<stem>.provenance.json`` as `write_recording` makes it, or
a README in the same folder. Without either the file is refused: a caption whose author is unknown is no evidence.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trialign
from trialign.describe.backends import gather
from trialign.describe.views import ItemError, ItemView

#: Data sets whose descriptions ship with the project: folder below ``data/``.
SHIPPED = {"movielens-posters": "movielens", "atelier": "atelier"}

_NO_PROMPT = "not recorded; see the provenance"


@dataclass(frozen=True)
class Source:
    """Who wrote one kind of description: the model's name, its prompt and its settings."""

    model: str
    prompt: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class RecordedItem:
    """What a file says of one item; "" and an empty list where it says nothing."""

    caption: str = ""
    interests: list[str] = field(default_factory=list)
    reasoning: str = ""


@dataclass(frozen=True)
class Recording:
    """A file of descriptions, read.

    Attributes
    ----------
    path
        The file.
    items
        What it says, by item id.
    captions, interests
        Who wrote them.
    provenance
        Where they come from, in words.
    """

    path: Path
    items: Mapping[str, RecordedItem]
    captions: Source
    interests: Source
    provenance: str

    @classmethod
    def read(cls, source: str | Path) -> "Recording":
        """Read a file of descriptions and its provenance.

        Parameters
        ----------
        source
            The JSON-lines file, or the name of a data set whose descriptions ship with the project.

        Returns
        -------
        Recording
            The descriptions.

        Raises
        ------
        FileNotFoundError
            If the file or its provenance is missing.
        ValueError
            If a line is not a description; the message names file and line.
        """
        path = recording_path(source)
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        captions, interests, provenance = _read_provenance(path, digest)
        items = _read_items(path, content.decode("utf-8"))
        return cls(path, items, captions, interests, provenance)


def recording_path(source: str | Path) -> Path:
    """Return the file of a data set's name, or the path itself; FileNotFoundError if it is not there."""
    name = str(source)
    if name not in SHIPPED:
        if Path(source).is_file():
            return Path(source)
        known = ", ".join(SHIPPED)
        raise FileNotFoundError(f"{name} is neither a file of descriptions nor a data set that has one ({known})")
    roots = [Path(trialign.__file__).resolve().parents[1] / "data"]
    if "TRIALIGN_DATA" in os.environ:
        roots.append(Path(os.environ["TRIALIGN_DATA"]))
    places = [root / SHIPPED[name] / "descriptions.jsonl" for root in roots]
    for place in places:
        if place.is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise FileNotFoundError(f"no descriptions of {name}: looked for {looked}; name the file itself (recorded:<file>)")


class RecordedCaptioner:
    """Captions read from a file; the model's name is the one its provenance states.

    Parameters
    ----------
    source
        The file, the name of a data set, or a recording already read.
    """

    def __init__(self, source: str | Path | Recording):
        recording = source if isinstance(source, Recording) else Recording.read(source)
        self.model, self.prompt = recording.captions.model, recording.captions.prompt
        self.settings = recording.captions.settings
        self.provenance = recording.provenance
        self.batch_size = 1024
        self._recording = recording

    def caption(self, views: Sequence[ItemView]) -> list[str]:
        """Return the recorded captions; ItemError for an item without one."""
        return gather(self.stream(views), len(views))

    def stream(self, views: Sequence[ItemView], attempt: int = 0) -> Iterator[tuple[int, str | ItemError]]:
        """Yield each item's recorded caption, or why there is none."""
        for position, view in enumerate(views):
            item = self._recording.items.get(view.item_id, RecordedItem())
            yield position, item.caption or _unknown("caption", view, self._recording)


class RecordedMiner:
    """Interests read from a file; the model's name is the one its provenance states.

    Parameters
    ----------
    source
        The file, the name of a data set, or a recording already read.
    """

    def __init__(self, source: str | Path | Recording):
        recording = source if isinstance(source, Recording) else Recording.read(source)
        self.model, self.prompt = recording.interests.model, recording.interests.prompt
        self.settings = recording.interests.settings
        self.provenance = recording.provenance
        self.batch_size = 1024
        self._recording = recording

    def mine(self, views: Sequence[ItemView], attempt: int) -> list[str]:
        """Return the recorded interests as answers; ItemError for an item without."""
        return gather(self.stream(views, attempt), len(views))

    def stream(self, views: Sequence[ItemView], attempt: int = 0) -> Iterator[tuple[int, str | ItemError]]:
        """Yield each item's recorded reasoning and interests, or why there are none."""
        for position, view in enumerate(views):
            item = self._recording.items.get(view.item_id, RecordedItem())
            yield position, _answer(item) if item.interests else _unknown("interests", view, self._recording)


def write_recording(
    path: Path, lines: Sequence[Mapping[str, Any]], sources: Mapping[str, Source], created: str, notes: str
) -> Path:
    """Write a file of descriptions and its provenance; both appear whole or not at all.

    Parameters
    ----------
    path
        The JSON-lines file; the provenance goes beside it, ``<stem>.provenance.json``.
    lines
        One mapping an item, with the keys of the module's head.
    sources
        ``captions`` and ``interests``: who wrote them.
    created
        When, ISO 8601.
    notes
        Whatever a reader should know.

    Returns
    -------
    pathlib.Path
        The JSON-lines file.
    """
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    provenance = {
        "created": created,
        "notes": notes,
        "sha256": hashlib.sha256(content).hexdigest(),
        **{kind: asdict(source) for kind, source in sources.items()},
    }
    _replace(path, content)
    _replace(_provenance_path(path), (json.dumps(provenance, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def _read_provenance(path: Path, digest: str) -> tuple[Source, Source, str]:
    beside = _provenance_path(path)
    if beside.is_file():
        told = json.loads(beside.read_text(encoding="utf-8"))
        # A file edited since its provenance was written is not the model's any more: other keys in the cache.
        edited = {} if told.get("sha256") == digest else {"recording": digest}
        return _told(beside, told, "captions", edited), _told(beside, told, "interests", edited), told.get("notes", "")
    for name in ("README.md", "README.txt", f"{path.stem}_README.txt"):
        readme = path.with_name(name)
        if readme.is_file():
            source = Source(f"recorded, see {path.parent.name}/{name}", _NO_PROMPT, {"recording": digest})
            return source, source, readme.read_text(encoding="utf-8")
    raise FileNotFoundError(
        f"{path} has no provenance: put {beside.name} or a README beside it that says who wrote the descriptions"
    )


def _told(path: Path, told: Mapping[str, Any], kind: str, edited: Mapping[str, Any]) -> Source:
    source = told.get(kind, {})
    if not isinstance(source, dict) or not source.get("model"):
        raise ValueError(f'{path}: "{kind}" has no "model"; state who wrote the {kind}')
    return Source(source["model"], source.get("prompt", _NO_PROMPT), {**source.get("settings", {}), **edited})


def _read_items(path: Path, text: str) -> dict[str, RecordedItem]:
    items: dict[str, RecordedItem] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item_id, item = _read_item(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if item_id in items:
            raise ValueError(f"{path}, line {number}: item {item_id!r} was described before")
        items[item_id] = item
    return items


def _read_item(fields: Any) -> tuple[str, RecordedItem]:
    if not isinstance(fields, dict) or not {"item_id", "movieId"} & fields.keys():
        raise ValueError("not an object with item_id (or movieId)")
    item_id = str(fields.get("item_id", fields.get("movieId")))
    caption, reasoning = fields.get("caption", ""), fields.get("reasoning", "")
    interests = fields.get("interests", [])
    if not isinstance(caption, str) or not isinstance(reasoning, str):
        raise ValueError(f"caption and reasoning of item {item_id!r} must be text")
    if not isinstance(interests, list) or not all(isinstance(tag, str) for tag in interests):
        raise ValueError(f"interests of item {item_id!r} must be a list of text")
    return item_id, RecordedItem(caption, interests, reasoning)


def _answer(item: RecordedItem) -> str:
    """Write recorded interests as a model would have answered, so that they pass the same checks."""
    tags = json.dumps({"interests": item.interests}, ensure_ascii=False)
    return f"{item.reasoning}\n{tags}" if item.reasoning else tags


def _unknown(what: str, view: ItemView, recording: Recording) -> ItemError:
    return ItemError(f"{recording.path.name} has no {what} of item {view.item_id!r}")


def _provenance_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.provenance.json")


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
