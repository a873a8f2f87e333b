"""What people say of a model's captions and interests: kept beside the answers, never in their place.

One JSON-lines file, only ever appended to: every line says which answer it judges, who judged, when, and what should
stand instead. The latest judgement of an item counts; where the model has answered anew since, it is out of date and
not applied.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
import pandas as pd
from filelock import FileLock

from trialign.describe.parse import parse_caption, parse_interests

Kind = Literal["caption", "interest"]
Verdict = Literal["accepted", "edited", "rejected"]

#: Column of the tables of `caption_items` and `mine_interests` that holds the answer.
COLUMNS: Mapping[Kind, str] = {"caption": "caption", "interest": "interests"}


@dataclass(frozen=True)
class Override:
    """One person's judgement of one answer.

    Attributes
    ----------
    item_id, kind
        What is judged.
    answer
        SHA-256 of the model's name and answer: `answer_key`.
    verdict
        ``accepted``, ``edited`` or ``rejected``.
    value
        What should stand instead, where it was edited: a caption, or a list of tags.
    reason
        Why, "" if nobody said.
    author, when
        Who judged, and when (UTC, ISO 8601).
    """

    item_id: str
    kind: Kind
    answer: str
    verdict: Verdict
    value: str | list[str] | None
    reason: str
    author: str
    when: str


def answer_key(model: str, answer: str | Sequence[str]) -> str:
    """Return the hash by which a judgement knows the answer that it is of."""
    text = json.dumps([model, answer if isinstance(answer, str) else list(answer)], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Overrides:
    """A file of judgements.

    Parameters
    ----------
    path
        The file, ending in ``.jsonl``; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(
        self,
        item_id: str,
        kind: Kind,
        answer: str,
        verdict: Verdict,
        author: str,
        value: str | Sequence[str] | None = None,
        reason: str = "",
    ) -> Override:
        """Append a judgement; it is on the disk when this returns.

        Parameters
        ----------
        item_id, kind
            What is judged.
        answer
            From `answer_key`.
        verdict
            ``accepted``, ``edited`` or ``rejected``.
        author
            Who judges.
        value
            Where it is edited: a caption, or 2 to 4 tags. It must pass the checks of a model's answer.
        reason
            Why.

        Raises
        ------
        ValueError
            If nobody is named, the verdict is unknown, or the value is missing or no valid answer.
        """
        if not author.strip():
            raise ValueError("an edit needs a name: say who judges")
        if verdict not in get_args(Verdict):
            raise ValueError(f"unknown verdict {verdict!r}: give one of {', '.join(get_args(Verdict))}")
        checked = _checked(kind, value) if verdict == "edited" else None
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        override = Override(item_id, kind, answer, verdict, checked, reason.strip(), author.strip(), when)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(asdict(override), ensure_ascii=False) + "\n").encode()
        with FileLock(f"{self.path}.lock"), self.path.open("ab+") as file:
            if file.tell() and not _ends_a_line(file):
                line = b"\n" + line  # a killed process left half a line; the next one must not be lost with it
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return override

    def read(self) -> list[Override]:
        """Return all judgements, oldest first.

        Warns
        -----
        UserWarning
            If lines can't be read, as after a kill while one was written: which; the others are returned.
        """
        if not self.path.is_file():
            return []
        found, broken = [], []
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                found.append(Override(**json.loads(line)))
            except (ValueError, TypeError):
                broken.append(number)
        if broken:
            message = f"{self.path}: lines {broken} can't be read and are left out; fix: remove or mend them"
            warnings.warn(message, UserWarning, stacklevel=2)
        return found

    def latest(self, kind: Kind, author: str | None = None) -> dict[str, Override]:
        """Return the latest judgement of each item, by item id; of one author or of all."""
        return {each.item_id: each for each in self.read() if each.kind == kind and author in (None, each.author)}

    def apply(self, table: pd.DataFrame, kind: Kind) -> pd.DataFrame:
        """Return a table of descriptions as people want it; the given one stays as it is.

        Parameters
        ----------
        table
            Of `caption_items` or `mine_interests`: item_id, caption or interests, model, source.

        Returns
        -------
        pandas.DataFrame
            The same rows. Edited ones have the new value and the source ``edited by NAME``, rejected ones no value and
            ``rejected by NAME``. Judgements of an answer that has changed since are not applied.
        """
        column, latest = COLUMNS[kind], self.latest(kind)
        values, sources = table[column].tolist(), table["source"].tolist()
        for place, (item_id, model, value) in enumerate(zip(table["item_id"], table["model"], values)):
            judged = latest.get(item_id)
            if judged is None or judged.verdict == "accepted" or judged.answer != answer_key(model, value):
                continue
            empty: str | list[str] = "" if kind == "caption" else []
            values[place] = empty if judged.value is None else judged.value
            sources[place] = f"{judged.verdict} by {judged.author}"
        return table.assign(**{column: values, "source": sources})

    def outdated(self, table: pd.DataFrame, kind: Kind) -> list[str]:
        """Return the ids of the items whose judged answer is no longer the model's."""
        latest = self.latest(kind)
        rows = zip(table["item_id"], table["model"], table[COLUMNS[kind]])
        return [i for i, model, value in rows if i in latest and latest[i].answer != answer_key(model, value)]


def agreement(table: pd.DataFrame, overrides: Overrides, kind: Kind) -> pd.DataFrame:
    """Say how far people agree with a model.

    Returns
    -------
    pandas.DataFrame
        A row a model: judged (items with a judgement of the present answer), accepted, edited and rejected (shares of
        those), overlap (mean Jaccard index of the model's and the person's words, or tags: 1 accepted, 0 rejected).
    """
    latest, column = overrides.latest(kind), COLUMNS[kind]
    rows = []
    for item_id, model, value in zip(table["item_id"], table["model"], table[column]):
        judged = latest.get(item_id)
        if judged is not None and judged.answer == answer_key(model, value):
            rows.append((model, judged.verdict, _overlap(value, judged)))
    found = pd.DataFrame(rows, columns=["model", "verdict", "overlap"])
    out = []
    for model, group in found.groupby("model", sort=False):
        shares = {verdict: float((group["verdict"] == verdict).mean()) for verdict in get_args(Verdict)}
        out.append({"model": model, "judged": len(group), **shares, "overlap": float(group["overlap"].mean())})
    return pd.DataFrame(out, columns=["model", "judged", *get_args(Verdict), "overlap"])


def kappa(overrides: Overrides, kind: Kind, one: str, other: str) -> float:
    """Return Cohen's kappa (1960) of two people on which answers they keep as they are; NaN without common items.

    1 is full agreement, 0 what two people would reach who judge as often so, at random.
    """
    first, second = overrides.latest(kind, one), overrides.latest(kind, other)
    common = [item for item in first if item in second and first[item].answer == second[item].answer]
    if not common:
        return float("nan")
    a = np.array([first[item].verdict == "accepted" for item in common])
    b = np.array([second[item].verdict == "accepted" for item in common])
    agreed, chance = float((a == b).mean()), float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return 1.0 if chance == 1 else (agreed - chance) / (1 - chance)


def _checked(kind: Kind, value: str | Sequence[str] | None) -> str | list[str]:
    if kind == "caption":
        return parse_caption(value if isinstance(value, str) else "")
    tags = [value] if isinstance(value, str) else list(value or [])
    return parse_interests(json.dumps({"interests": tags})).interests


def _overlap(value: str | Sequence[str], judged: Override) -> float:
    if judged.verdict != "edited" or judged.value is None:
        return float(judged.verdict == "accepted")
    a, b = (set(text.lower().split()) if isinstance(text, str) else set(text) for text in (value, judged.value))
    return len(a & b) / len(a | b) if a | b else 1.0


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
