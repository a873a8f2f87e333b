"""Turns: two processes that would ask one model the same questions take turns, so that no answer is paid for twice."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from trialign.describe.backends import Describer
from trialign.describe.cache import DescriptionCache, Kind
from trialign.progress import tqdm


@contextmanager
def turn(cache: DescriptionCache, kind: Kind, backend: Describer) -> Iterator[None]:
    """Hold the right to ask a model for entries of a cache; released by the system if the process is killed.

    Another process that asks the same model the same prompt waits, and says so; then it finds the answers. Processes
    with other models, prompts or settings work side by side.

    Parameters
    ----------
    cache
        Where the answers will be kept; one in memory belongs to nobody else.
    kind
        ``caption`` or ``interest``.
    backend
        Who is asked.
    """
    if cache.path.name == ":memory:":
        yield
        return
    parts = json.dumps([kind, backend.model, backend.prompt, dict(backend.settings)], sort_keys=True)
    digest = hashlib.sha256(parts.encode()).hexdigest()[:12]
    lock = FileLock(cache.path.with_name(f".{cache.path.name}.{digest}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        tqdm.write(f"another process asks {backend.model} for {kind}s into {cache.path}: waiting for its answers")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
