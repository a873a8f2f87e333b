"""Malformed catalogues: each loads with what is stated, or is refused by an error of ours; never a hang."""

import multiprocessing
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from faults import Row
from faults.malformed import FAMILIES, write_sound
from trialign.catalogue import Catalogue, check_folder
from trialign.split import leave_one_out

#: Seconds that a catalogue may take, and bytes that a process may hold beyond what it starts with.
PATIENCE, MEMORY = 10.0, 2 << 30


def rows(times: int, seed: int) -> Iterator[Row]:
    """Open forty catalogues a family for each of `times`, every one with a fault of it and up to two others."""
    for family in FAMILIES:
        yield opened(family, 4 * times, seed)


def opened(family: str, count: int, seed: int) -> Row:
    """Make and open catalogues with a fault of a family, in a process that is replaced where it hangs or dies."""
    outcomes: Counter[str] = Counter()
    worst, worker = 0.0, _Worker()
    for number in range(count):
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root, "catalogue")
            faults = make(folder, family, seed * 1_000_003 + number)
            started = time.monotonic()
            outcome = worker.open(folder)
            worst = max(worst, time.monotonic() - started)
        outcomes[outcome.partition(":")[0]] += 1
        if outcome.startswith("LEAKED"):
            print(f"{family} {number} {faults}: {outcome}")
    peak = worker.close()
    note = f"{outcomes['loaded']} load, {outcomes['refused']} are refused with file, row and fix; peak {peak} MiB"
    survived = outcomes["loaded"] + outcomes["refused"]
    return Row(f"catalogues: {family}", count, survived, 0, 0, worst, note)


def make(folder: Path, family: str, seed: int) -> list[str]:
    """Write a catalogue with a fault of a family, and of up to two others; return their names."""
    draw = random.Random(f"{family} {seed}")
    write_sound(folder)
    names = [family, *draw.sample(list(FAMILIES), draw.choice([0, 0, 1, 2]))]
    for name in names:
        try:
            FAMILIES[name](folder, draw)
        except (OSError, IndexError, ValueError):
            continue  # an earlier fault left nothing to spoil
    return names


def look(folder: Path) -> str:
    """Do with a catalogue what notebooks do first; return what came of it."""
    try:
        check_folder(folder, progress=False)
        catalogue = Catalogue.load(folder)
        for row in range(catalogue.n_items):
            catalogue.open_image(row)
        leave_one_out(catalogue)
        catalogue.k_core(2)
    except (ValueError, FileNotFoundError, OSError) as error:
        return "refused" if _is_ours(error) else f"LEAKED: {type(error).__module__}.{type(error).__name__}: {error}"
    except Exception as error:
        return f"LEAKED: {type(error).__module__}.{type(error).__name__}: {error}"
    return "loaded" if _is_sound(catalogue) else "LEAKED: it loaded and is not sound"


def _is_ours(error: BaseException) -> bool:
    return "fix:" in str(error)


def _is_sound(catalogue: Catalogue) -> bool:
    seen = catalogue.interactions
    return bool(
        catalogue.items["item_id"].is_unique
        and seen["item_id"].isin(catalogue.items["item_id"]).all()
        and seen["timestamp"].dtype == np.int64
        and (catalogue.items["title"].str.strip() != "").all()
    )


class _Worker:
    """A process that opens catalogues one after the other, with a bound on its memory."""

    def __init__(self) -> None:
        self._peak = 0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()

    def open(self, folder: Path) -> str:
        """Return the outcome of a catalogue."""
        self._here.send(str(folder))
        try:
            if self._here.poll(PATIENCE):
                outcome, peak = self._here.recv()
                self._peak = max(self._peak, peak)
                return outcome
            outcome = "LEAKED: it hangs"
        except (EOFError, ConnectionResetError):
            outcome = "LEAKED: the process died"
        self._process.kill()
        self._process.join()
        self._start()
        return outcome

    def close(self) -> int:
        """End the process; return its peak memory in MiB."""
        self._process.kill()
        self._process.join()
        return self._peak


def _serve(pipe: Connection) -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    while True:
        outcome = look(Path(pipe.recv()))
        pipe.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
