"""A million answers in one cache, and a catalogue of five million interactions."""

import gc
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd

from faults import Row
from trialign.catalogue import Catalogue
from trialign.describe import DescriptionCache, ItemView, mine_interests

#: What a catalogue of five million interactions may take: seconds and MiB.
_SECONDS, _MIB = 60.0, 4096


def rows(times: int, seed: int) -> Iterator[Row]:
    """Scale with `times`: 50 gives a million answers and five million interactions."""
    yield answers(20_000 * times)
    for kind in ("parquet", "csv"):
        yield interactions(100_000 * times, kind, seed)


class _Stub:
    """A miner that answers at once."""

    model, prompt, settings, batch_size = "stub", "Why?", {"seed": 0}, 1000

    def mine(self, views: list[ItemView], attempt: int) -> list[str]:
        return [f'For {view.item_id}.\n{{"interests": ["slow mornings", "quiet design"]}}' for view in views]


def _in_process(job: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Run a job in a process of its own; its figures, with its peak memory in MiB beyond what it began with."""

    def run(pipe: Connection) -> None:
        gc.collect()
        held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
        Path("/proc/self/clear_refs").write_text("5")
        figures = job()
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        pipe.send(figures | {"mib": int(peak.split()[1]) / 1024, "began": held})

    here, there = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=run, args=(there,))
    process.start()
    there.close()
    figures = here.recv()
    process.join()
    return figures


def answers(count: int) -> Row:
    """Put so many answers into a cache one by one, and look all of them up again."""
    with tempfile.TemporaryDirectory() as root:
        path = Path(root, "cache.sqlite")

        def run() -> dict[str, float]:
            views = [ItemView(str(number), f"Title {number}", "A text.", None) for number in range(count)]
            started = time.monotonic()
            with DescriptionCache(path) as cache:
                mine_interests(views, _Stub(), cache, progress=False)
            return {"seconds": time.monotonic() - started}

        first, second = _in_process(run), _in_process(run)
        size = path.stat().st_size / 1e6
        with DescriptionCache(path) as cache:
            lost = count - len(cache)
    note = (
        f"{count / first['seconds']:,.0f} answers/s, each committed by itself; {size:,.0f} MB; "
        f"peak {first['mib']:,.0f} MiB; a run that finds all of them takes {second['seconds']:.0f} s"
    )
    name = f"{count:,} items' answers through the cache"
    return Row(name, 1, int(not lost), lost, 0, first["seconds"], note)


def interactions(count: int, kind: str, seed: int) -> Row:
    """Open a catalogue of so many interactions, a fiftieth as many items, a twenty-fifth as many users."""
    draw = np.random.default_rng(seed)
    items, users = max(2, count // 50), max(2, count // 25)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        ids = np.array([f"item{number}" for number in range(items)])
        names = np.array([f"user{number}" for number in range(users)])
        seen = pd.DataFrame(
            {
                "user_id": names[draw.integers(users, size=count)],
                "item_id": ids[draw.integers(items, size=count)],
                "timestamp": draw.integers(1_600_000_000, 1_700_000_000, size=count),
            }
        )
        table = pd.DataFrame({"item_id": ids, "title": [f"Title {number}" for number in range(items)], "image": ""})
        for stem, frame in (("items", table), ("interactions", seen)):
            if kind == "csv":
                frame.to_csv(folder / f"{stem}.csv", index=False)
            else:
                frame.to_parquet(folder / f"{stem}.parquet", index=False)
        del seen, table, ids, names

        def run() -> dict[str, float]:
            started = time.monotonic()
            catalogue = Catalogue.load(folder)
            return {"seconds": time.monotonic() - started, "read": float(len(catalogue.interactions))}

        figures = _in_process(run)
    good = figures["read"] == count and figures["seconds"] < _SECONDS and figures["mib"] < _MIB
    note = (
        f"opened in {figures['seconds']:.0f} s, peak {figures['mib']:,.0f} MiB (bounds: {_SECONDS:.0f} s, {_MIB:,} MiB)"
    )
    return Row(f"{count:,} interactions from {kind.upper()}", 1, int(good), int(count - figures["read"]), 0,
               figures["seconds"], note)  # fmt: skip
