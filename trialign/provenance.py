"""What a manifest records of a stage, and whether it still holds: parameters, sources, outputs, versions."""

import hashlib
import math
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

#: The packages whose versions a manifest records.
RECORDED_PACKAGES = (
    "trialign", "torch", "transformers", "tokenizers", "peft", "sentence-transformers", "faiss-cpu",
    "scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "pillow", "matplotlib",
)  # fmt: skip


def plain(value: Any) -> Any:
    """Return the value as JSON holds it: tuples and arrays as lists, NumPy scalars as numbers, NaN as None.

    Raises
    ------
    TypeError
        If the value holds something that JSON has no form for.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, pandas Series, torch tensors
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    raise TypeError(f"{type(value).__name__} can't be written as JSON; pass numbers, strings, lists or dictionaries")


def fingerprint(source: str | Path) -> str:
    """Return a hash of the names, sizes and modification times of a file or of all files in a folder.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(f"{path.relative_to(source)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of those `RECORDED_PACKAGES` that are installed."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # an optional one
            continue
    return found


def changed_parameters(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Name the parameters that differ between two runs of a stage; ``run`` itself does not count."""
    wanted = {key: value for key, value in wanted.items() if key != "run"}
    absent = object()  # None is a value that a parameter may have
    names = recorded.keys() | wanted.keys()
    changed = sorted(name for name in names if recorded.get(name, absent) != wanted.get(name, absent))
    return f"parameter changed: {', '.join(changed)}" if changed else None


def changed_sources(recorded: Mapping[str, str]) -> str | None:
    """Name the first source whose `fingerprint` is not the recorded one."""
    for source, before in recorded.items():
        if not Path(source).exists():
            return f"{source} is missing"
        if fingerprint(source) != before:
            return f"{source} changed"
    return None


def changed_outputs(folder: Path, outputs: Mapping[str, Any]) -> str | None:
    """Name the first output in a stage's folder that is missing or not as it was written."""
    for name, entry in outputs.items():
        path = folder / name
        if not path.is_file():
            return f"output {name} is missing"
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            return f"output {name} was altered"
    return None
