"""Folders that are replaced as a whole: written beside their place under a temporary name, then renamed."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    causes = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
    causes |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "no permission to write there")
    try:
        yield
    except OSError as error:
        if error.errno not in causes:
            raise
        message = f"{causes[error.errno]}; make room or {fix}"
        raise OSError(error.errno, message, str(folder)) from error
