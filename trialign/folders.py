"""Folders that are replaced as a whole: written beside their place under a temporary name, then renamed."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from safetensors import SafetensorError


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary folders of this process and of processes that are gone.

    A folder that a killed process had moved aside, and put nothing in its place, is put back.

    Parameters
    ----------
    folder
        Where they lie, as ``.NAME.PROCESS`` and ``.NAME.PROCESS.old``.
    name
        Only those of this name; None takes all, for a folder that holds nothing else of that form.
    """
    stem = ".+?" if name is None else re.escape(name)
    for path in sorted(folder.glob(".*")):
        match = re.fullmatch(rf"\.({stem})\.(\d+)(\.old)?", path.name)
        if not match or not path.is_dir() or _is_other_process(int(match[2])):
            continue
        if match[3] and not (folder / match[1]).exists():
            path.rename(folder / match[1])
        else:
            shutil.rmtree(path)


def replace_folder(folder: Path, target: Path) -> Path:
    """Rename a complete temporary folder to its place; what stood there goes."""
    replaced = folder.with_name(folder.name + ".old")
    if target.exists():
        target.rename(replaced)
    folder.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    return target


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Put a file at a second place: by a hard link where the file system has them, else as a copy."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links, or another device
        shutil.copy2(source, target)


def _is_other_process(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def writing(folder: Path, fix: str = "set TRIALIGN_RUNS to another folder") -> Iterator[None]:
    """Turn a full disk or a missing permission into an error that names the folder and the way out."""
    causes = {
        errno.ENOSPC: "the disk is full",
        errno.EFBIG: "the file may not grow",
        errno.EDQUOT: "the disk quota is used up",
    }
    causes |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "no permission to write there")
    try:
        yield
    except OSError as error:
        if error.errno not in causes:
            raise
        message = f"{causes[error.errno]}; make room or {fix}"
        raise OSError(error.errno, message, str(folder)) from error
    except SafetensorError as error:  # tells the system's error in its text alone
        number = re.search(r"os error (\d+)", str(error))
        if number is None or int(number[1]) not in causes:
            raise
        raise OSError(int(number[1]), f"{causes[int(number[1])]}; make room or {fix}", str(folder)) from error


@contextmanager
def reading(path: Path, fix: str) -> Iterator[None]:
    """Turn what a library says of a damaged file into a ValueError that names it and the way out.

    Parameters
    ----------
    path
        The file or folder that is read.
    fix
        What to do about it.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (SafetensorError, pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); fix: {fix}") from error
    except OSError as error:
        if error.errno is not None:
            raise  # the system's own, which names the file
        raise ValueError(f"{path} is damaged ({error}); fix: {fix}") from error
