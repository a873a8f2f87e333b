"""Semantic IDs together with what made them, in one folder: fitted, extended by new items, or imported.

The folder holds ``sids/`` (`SemanticIds`), ``quantizer/``, ``embeddings.safetensors`` and ``manifest.json``. It is
written beside its place and renamed when it is whole, so a killed run leaves the old folder or the new one.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import pandas as pd

from trialign.embed.files import EmbeddedItems, read_embeddings
from trialign.folders import reading, remove_leftovers, replace_folder, writing
from trialign.provenance import changed_outputs, plain, sha256, versions
from trialign.sids import JointResidualKMeans, SemanticIds, collisions, load_quantizer, resolve_collisions
from trialign.sids.diagnostics import code_usage, reconstruction_by_depth
from trialign.sids.extension import Method, extend
from trialign.sids.quantizer import RECORD, Quantizer

#: What a tokenization's folder holds; the cache of embeddings only until the folder is whole.
SIDS, QUANTIZER, EMBEDDINGS, MANIFEST, CACHE = (
    "sids", "quantizer", "embeddings.safetensors", "manifest.json", ".embedded",
)  # fmt: skip

#: How a manifest says that `Tokenization.save` wrote it.
MADE_BY = "trialign tokenize"


@dataclass(frozen=True, eq=False)
class Tokenization:
    """Semantic IDs and what they were made with.

    Attributes
    ----------
    sids
        The Semantic IDs.
    quantizer
        The fitted quantizer; None for imported SIDs.
    items
        The items' embeddings, in the order of `sids`; None for imported SIDs.
    inputs
        What they were made from: ``catalogue``, ``text`` and ``embedder``; or ``embeddings`` and its ``sha256``; or
        ``index`` and its ``sha256``; after `extend` also ``like``.
    seconds
        Time that each part of the work took.
    """

    sids: SemanticIds
    quantizer: Quantizer | None = None
    items: EmbeddedItems | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def fit(cls, items: EmbeddedItems, quantizer: Quantizer, method: Method = "suffix") -> Self:
        """Fit a quantizer on the items' embeddings and give every item its SID.

        Parameters
        ----------
        items
            Items and embeddings.
        quantizer
            An unfitted quantizer; it is fitted here. Where it has balanced codes of the items of the fit (``codes_``),
            these are the items' codes.
        method
            As for `resolve_collisions`; ``"none"`` leaves items that share a SID as they are.

        Raises
        ------
        ValueError
            If the quantizer refuses the embeddings, or the method is unknown.
        """
        started = time.perf_counter()
        quantizer.fit(items.embeddings)
        fitted = time.perf_counter()
        # Balanced codes belong to the items of the fit alone; encode knows nothing of other items.
        codes = getattr(quantizer, "codes_", None)
        codes = quantizer.encode(items.embeddings) if codes is None else codes
        sids = _resolved(codes, quantizer, items, method)
        if method == "reassign" and isinstance(quantizer, JointResidualKMeans):
            quantizer.refit(items.embeddings, sids.codes)  # items that moved pull their new codes' vectors along
            gap = items.embeddings - quantizer.reconstruct(sids.codes)
            error = float(np.square(gap, dtype=np.float64).sum(axis=1).mean())
            sids = replace(sids, resolution={**sids.resolution, "squared_error_after": error})
        seconds = {"fit": fitted - started, "encode and resolve": time.perf_counter() - fitted}
        return cls(sids, quantizer, items, items.inputs, seconds)

    @classmethod
    def from_index(
        cls, path: str | Path, item_ids: Sequence[str] | None = None, codebook_sizes: Sequence[int] | None = None
    ) -> Self:
        """Import a published index JSON (`SemanticIds.from_index`).

        Parameters
        ----------
        path, codebook_sizes
            As for `SemanticIds.from_index`.
        item_ids
            The catalogue's items: the SIDs are put into their order. None keeps the file's.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            As `SemanticIds.from_index`, or if the file lacks an item or holds one that is not in the catalogue.
        """
        sids = SemanticIds.from_index(path, codebook_sizes)
        if item_ids is not None:
            _check_same_items(path, sids.item_ids, item_ids)
            sids = sids.select(item_ids)
        return cls(sids, inputs={"index": str(path), "sha256": sha256(Path(path))})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder holds no finished tokenization.
        ValueError
            If a file in it is missing or not as it was written.
        """
        folder = Path(folder)
        manifest = _manifest(folder)
        if manifest is None:
            raise FileNotFoundError(f"{folder} holds no {MANIFEST} of `trialign tokenize`: give its --out folder")
        reason = changed_outputs(folder, manifest["outputs"])
        if reason:
            raise ValueError(f"{folder}: {reason}; tokenize again")
        sids = SemanticIds.load(folder / SIDS)
        if not (folder / QUANTIZER).is_dir():
            return cls(sids, inputs=manifest["inputs"])
        items = read_embeddings(folder / EMBEDDINGS)
        return cls(sids, load_quantizer(folder / QUANTIZER), items, manifest["inputs"])

    def extend(self, new: EmbeddedItems) -> Self:
        """Add new items, encoded by the same quantizer; nobody's SID changes (`trialign.sids.extension.extend`).

        Raises
        ------
        ValueError
            If these SIDs were imported, so that there is no quantizer; or as `extend`.
        """
        if self.quantizer is None or self.items is None:
            raise ValueError("these SIDs were imported from an index: there is no quantizer to encode new items with")
        started = time.perf_counter()
        sids, items = self.sids, self.items
        if len(new):
            codes = self.quantizer.encode(new.embeddings)
            sids = extend(sids, new.item_ids, codes, self.quantizer, new.embeddings)
            items = items.append(new)
        seconds = {"encode and resolve": time.perf_counter() - started}
        return replace(self, sids=sids, items=items, seconds=seconds)

    def select(self, item_ids: Sequence[str]) -> Self:
        """Return the same for some items, in the given order."""
        row_of = {item_id: row for row, item_id in enumerate(self.sids.item_ids)}
        sids = self.sids.select(item_ids)
        items = None if self.items is None else self.items.select([row_of[item_id] for item_id in item_ids])
        return replace(self, sids=sids, items=items)

    def levels(self) -> pd.DataFrame:
        """Describe the levels.

        Returns
        -------
        pandas.DataFrame
            One row a level: ``level`` (1, 2, ..., ``suffix``); ``codes``, the codebook size; ``used``, the share of
            codes in use; ``perplexity`` of the use; and with a quantizer ``cosine``, the mean cosine between embedding
            and reconstruction from the codes so far (NaN for the suffix).
        """
        sids = self.sids
        usage = code_usage(sids.codes, sids.codebook_sizes)
        names = [*map(str, range(1, sids.levels + 1)), *["suffix"] * (sids.depth - sids.levels)]
        table = usage[["codebook_size", "used", "perplexity"]].rename(columns={"codebook_size": "codes"})
        table.insert(0, "level", names)
        if self.quantizer is not None and self.items is not None:
            kept = reconstruction_by_depth(self.items.embeddings, self.quantizer, sids.codes)
            table["cosine"] = kept["cosine"]
        return table

    def metrics(self) -> dict[str, Any]:
        """Return the numbers of the manifest: items, levels, and the items that share their SID before and after.

        Before means without suffixes; a new item that moved to free codes (`extend`) is counted where it is now.
        """
        after = collisions(self.sids.codes)
        before = collisions(self.sids.codes[:, : self.sids.levels])["colliding"]
        recorded = self.sids.resolution.get("items_colliding_before")
        added = int(self.sids.resolution.get("items_added", 0))
        if recorded is not None and self.sids.resolution.get("method") == "reassign":
            # The codes before are gone; the share was taken before items were added.
            before = round(recorded * (len(self.sids) - added))
        return {
            "items": len(self.sids),
            "items_added": added,
            "items_added_moved": int(self.sids.resolution.get("items_added_moved", 0)),
            "colliding_before": int(before),
            "colliding_after": int(after["colliding"]),
            "levels": self.levels().to_dict("records"),
        }

    def save(self, folder: str | Path, index: str | Path | None = None) -> Path:
        """Write everything into a folder, as a whole or not at all; what it held of an earlier tokenization goes.

        Parameters
        ----------
        folder
            Made if needed.
        index
            Write the index JSON of published systems there, too (`SemanticIds.to_index`). A file inside the folder is
            one of its outputs.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ValueError
            If the folder holds something else.
        OSError
            If it can't be written; the message names it.
        """
        target = check_target(folder)
        outside = index is not None and not Path(index).resolve().is_relative_to(target)
        with writing(target, "name another folder"):
            unfinished = target.with_name(f".{target.name}.{os.getpid()}")
            unfinished.mkdir(parents=True)
            self.sids.save(unfinished / SIDS)
            if self.quantizer is not None and self.items is not None:
                self.quantizer.save(unfinished / QUANTIZER)
                self.items.save(unfinished / EMBEDDINGS)
            if index is not None and not outside:
                self.sids.to_index(unfinished / Path(index).resolve().relative_to(target))
            manifest = plain(self._manifest(unfinished))
            (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
            replace_folder(unfinished, target)
        if index is not None and outside:
            with writing(Path(index), "name another file"):
                whole = self.sids.to_index(Path(index).with_name(f".{Path(index).name}.{os.getpid()}"))
                whole.replace(index)
        return target

    def _manifest(self, folder: Path) -> dict[str, Any]:
        outputs = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        record = folder / QUANTIZER / RECORD
        return {
            "made_by": MADE_BY,
            "inputs": self.inputs,
            "quantizer": json.loads(record.read_text("utf-8")) if record.is_file() else None,
            "seed": None if self.quantizer is None else getattr(self.quantizer, "seed", None),
            "resolution": self.sids.resolution,
            "outputs": outputs,
            "metrics": self.metrics(),
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def collision_method(name: str) -> Method:
    """Return the name of a way to tell items apart that share a SID.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    for method in get_args(Method):
        if name == method:
            return method
    raise ValueError(f"no collision method {name!r}; there are {', '.join(get_args(Method))}")


def check_target(folder: str | Path) -> Path:
    """Return the full path of a folder that a tokenization may be written to: new, empty, or of an earlier one.

    What a killed call left beside it is removed first.

    Raises
    ------
    ValueError
        If it is a file, or holds something that no tokenization wrote, which would be lost.
    """
    folder = Path(folder).resolve()
    remove_leftovers(folder.parent, folder.name)
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder")
    manifest = _manifest(folder)
    written = {CACHE} if manifest is None else {CACHE, MANIFEST, *(Path(name).parts[0] for name in manifest["outputs"])}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in written)
    if foreign:
        raise ValueError(f"{folder} holds {foreign[0]}, which tokenizing would remove; name a folder of its own")
    return folder


def _manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a tokenization, None where the folder holds none."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    with reading(path, "tokenize again"):
        manifest = json.loads(path.read_text("utf-8"))
    return manifest if manifest.get("made_by") == MADE_BY else None


def _resolved(codes: np.ndarray, quantizer: Quantizer, items: EmbeddedItems, method: Method) -> SemanticIds:
    if method != "none":
        return resolve_collisions(codes, quantizer.codebook_sizes, items.item_ids, method, quantizer, items.embeddings)
    share = float(collisions(codes)["items_colliding"])
    resolution = {"method": "none", "items_colliding_before": share, "items_colliding_after": share}
    sizes = tuple(quantizer.codebook_sizes)
    return SemanticIds(items.item_ids, codes, sizes, len(sizes), resolution)


def _check_same_items(path: str | Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    for more, fewer, where in (
        (wanted, found, "in the catalogue and not in the file"),
        (found, wanted, "in the file and not in the catalogue"),
    ):
        others = set(fewer)
        lacking = [item_id for item_id in more if item_id not in others]
        if lacking:
            raise ValueError(
                f"{path}: {len(lacking)} items are {where}, e.g. {lacking[0]!r}; give the file of this catalogue"
            )
