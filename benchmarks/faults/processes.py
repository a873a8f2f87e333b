"""Jobs in processes of their own, which share what this one has imported, and can be killed."""

import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trialign.provenance import sha256

#: Seconds after which a job counts as hanging.
PATIENCE = 300.0

Job = Callable[[Path], None]


def start(job: Job, folder: Path) -> multiprocessing.Process:
    """Start a job; what it prints goes to ``folder/said``."""

    def run() -> None:
        with (folder / "said").open("a", buffering=1) as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout = sys.stderr = said
            try:
                job(folder)
            except Exception:
                traceback.print_exc()
                os._exit(1)

    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def finish(process: multiprocessing.Process) -> bool:
    """Wait for a job; False if it failed or hangs."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        return False
    return process.exitcode == 0


def seconds_of(job: Job, folder: Path) -> float:
    """Run a job undisturbed; its seconds. AssertionError if it fails."""
    started = time.monotonic()
    done = finish(start(job, folder))
    assert done, (folder / "said").read_text()
    return time.monotonic() - started


def kill_at(job: Job, folder: Path, seconds: float) -> bool:
    """Start a job and kill it after so many seconds; False if it had ended by then."""
    process = start(job, folder)
    process.join(seconds)
    alive = process.is_alive()
    if alive:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive


def hashes(folder: Path, *patterns: str) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder that fits a pattern."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(found)}


@dataclass
class Tally:
    """Counts of a campaign."""

    injected: int = 0
    survived: int = 0
    lost: int = 0
    repeated: int = 0
    worst: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count one injection and keep the longest time."""
        started = time.monotonic()
        self.injected += 1
        yield
        self.worst = max(self.worst, time.monotonic() - started)


def moments(times: int, seconds: float, seed: int) -> list[float]:
    """Return random moments of a job that takes so many seconds."""
    draw = random.Random(seed)
    return [draw.uniform(0, seconds) for _ in range(times)]
