"""Embeddings kept on disk by what each row was computed from, so that a second call computes only what is new."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from trialign.embed import Embedder
from trialign.embed.fusion import FusedEmbedder
from trialign.provenance import fingerprint

#: Items embedded before what is there is written: what a killed run may lose.
CHUNK = 2048


def is_joint(embedder: Embedder, images: Sequence[Path | None]) -> bool:
    """Return whether an item's row depends on the other items of the call.

    It does where principal components of the images are taken, as in the ``embedded`` default: the same item embedded
    with others lies elsewhere, in another space.
    """
    return isinstance(embedder, FusedEmbedder) and any(image is not None for image in images)


def row_keys(embedder: Embedder, texts: Sequence[str], images: Sequence[Path | None]) -> UInt8[np.ndarray, "items 32"]:
    """Return a SHA-256 of what each row is computed from: the embedder's name, the text, the image file.

    An image counts by its file's size and time of change. Where rows depend on each other (`is_joint`), all texts and
    images count for each row.
    """
    parts = [
        json.dumps([embedder.name, text, None if image is None else fingerprint(image)])
        for text, image in zip(texts, images, strict=True)
    ]
    whole = hashlib.sha256("\n".join(parts).encode()).hexdigest() if is_joint(embedder, images) else ""
    digests = [hashlib.sha256(f"{whole}\n{part}".encode()).digest() for part in parts]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(parts), 32)


class EmbeddingCache:
    """Rows by key in the files of a folder, one file a chunk of items.

    Parameters
    ----------
    folder
        Made when the first rows are kept. A file in it that can't be read is left aside, and its rows are computed
        again.
    also
        A further file with the tensors ``embeddings`` and ``keys``, which is only read.
    """

    def __init__(self, folder: str | Path, also: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.also = None if also is None else Path(also)

    def embed(
        self, embedder: Embedder, texts: Sequence[str], images: Sequence[Path | None], *, progress: bool = True
    ) -> tuple[Float[np.ndarray, "items dim"], UInt8[np.ndarray, "items 32"]]:
        """Return the embedding and the key of each item; only rows that are nowhere in the files are computed."""
        keys = row_keys(embedder, texts, images)
        names = [key.tobytes() for key in keys]
        rows = self._read(set(names))
        missing = list({name: row for row, name in enumerate(names) if name not in rows}.values())
        step = CHUNK
        if missing and is_joint(embedder, images):
            missing = list(range(len(names)))
            step = len(names)
        for start in range(0, len(missing), step):
            chosen = missing[start : start + step]
            found = embedder.embed([texts[row] for row in chosen], [images[row] for row in chosen], progress=progress)
            self._write(found, keys[chosen])
            rows |= {names[row]: vector for row, vector in zip(chosen, found, strict=True)}
        return np.stack([rows[name] for name in names]), keys

    def _read(self, wanted: set[bytes]) -> dict[bytes, np.ndarray]:
        paths = sorted(self.folder.glob("*.safetensors"))
        if self.also is not None and self.also.is_file():
            paths.append(self.also)
        rows: dict[bytes, np.ndarray] = {}
        for path in paths:
            try:
                tensors = load_file(path)
            except SafetensorError:  # cut off: its rows are computed again
                continue
            if {"embeddings", "keys"} <= tensors.keys():
                pairs = zip(tensors["keys"], tensors["embeddings"])
                rows |= {key.tobytes(): row for key, row in pairs if key.tobytes() in wanted}
        return rows

    def _write(self, rows: np.ndarray, keys: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:16]}.safetensors"
        unfinished = path.with_suffix(f".{os.getpid()}")
        save_file({"embeddings": np.ascontiguousarray(rows), "keys": np.ascontiguousarray(keys)}, unfinished)
        unfinished.replace(path)
