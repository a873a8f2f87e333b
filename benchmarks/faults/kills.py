"""SIGKILL at random moments of every stage; the next run must complete, equal to an undisturbed one."""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from faults import Row
from faults.processes import Job, Tally, hashes, kill_at, moments, seconds_of
from faults.stubs import LoggingEmbedder, LoggingMiner, item_views, small_training
from trialign.describe import DescriptionCache, mine_interests
from trialign.embed import cache as embedding_cache
from trialign.embed.files import EmbeddedItems
from trialign.knobs import find_notebooks, resolve
from trialign.runs import Runner
from trialign.sids import ResidualKMeans
from trialign.sids.tokenization import Tokenization
from trialign.train import Trainer
from trialign.workspace import Workspace

_ITEMS = 60


def rows(times: int, seed: int) -> Iterator[Row]:
    """Kill each stage so many times."""
    yield killed("describe (60 items), killed", describe, asked_again, times, seed, ["table.json"])
    yield killed("embed (60 items in chunks of 10), killed", embed, embedded_again, times, seed, ["rows.npy"])
    yield killed("tokenize (400 items), killed", tokenize, nothing_counted, times, seed, ["made/**/*"])
    yield killed("train (24 steps, checkpoints every 2), killed", train, nothing_counted, times, seed, ["weights.npz"])
    yield killed("write a stage of a run, killed", stage, nothing_counted, times, seed, ["runs/demo/01_s/*.parquet"])
    yield killed("run two notebooks by papermill, killed", notebooks, stages_again, times, seed,
                 ["runs/demo/0*/*.parquet", "runs/demo/0*/total.json"])  # fmt: skip


def killed(name: str, job: Job, repeated: Callable[[Path], int], times: int, seed: int, kept: list[str]) -> Row:
    """Kill a job at random moments, run it again, and compare what it wrote with what an undisturbed one wrote."""
    tally, interrupted = Tally(), 0
    with tempfile.TemporaryDirectory() as root:
        whole = Path(root, "whole")
        seconds = min(seconds_of(job, whole), seconds_of(job, Path(root, "second")))
        expected = outputs(whole, kept)
        assert expected == outputs(Path(root, "second"), kept), f"{name}: two undisturbed runs differ"
        for number, moment in enumerate(moments(times, seconds, seed)):
            folder = Path(root, str(number))
            with tally.timed():
                interrupted += kill_at(job, folder, moment)
                finished = snapshot(folder)
                try:
                    seconds_of(job, folder)
                    tally.survived += 1
                except AssertionError as error:
                    print(error)
            tally.lost += outputs(folder, kept) != expected
            tally.repeated += repeated(folder) if finished is not None else 0
            shutil.rmtree(folder)
    note = f"{interrupted} killed while they ran, the others just after; artifacts equal an undisturbed run's"
    return Row(name, tally.injected, tally.survived, tally.lost, tally.repeated, tally.worst, note)


def outputs(folder: Path, kept: list[str]) -> dict[str, str]:
    """Return hashes of what counts, without what says when it was made."""
    found = hashes(folder, *kept)
    for name in found:
        if name.endswith("manifest.json"):
            manifest = json.loads((folder / name).read_text())
            found[name] = manifest.get("id", "") or json.dumps(manifest.get("outputs", {}), sort_keys=True)
    return found


def snapshot(folder: Path) -> Path:
    """Note what was asked and what was finished when the kill came."""
    asked = folder / "asked"
    (folder / "asked-before").write_text(asked.read_text() if asked.exists() else "")
    asked.unlink(missing_ok=True)
    cache = folder / "cache.sqlite"
    done: list[str] = []
    if cache.exists():
        with DescriptionCache(cache) as opened:
            query = "SELECT item_id FROM entries WHERE status = 'ok'"
            done = [row[0] for row in opened._connection.execute(query)]
    (folder / "done-before").write_text("\n".join(done))
    return folder


def describe(folder: Path) -> None:
    """Mine interests with a miner that takes a millisecond an item."""
    with DescriptionCache(folder / "cache.sqlite") as cache:
        miner = LoggingMiner(folder / "asked", wait=0.001)
        table = mine_interests(item_views(_ITEMS), miner, cache, progress=False)
    assert (table["source"] != "failed").all(), "the stand-in's answers are valid"
    table[["item_id", "interests", "reasoning"]].to_json(folder / "table.json")


def asked_again(folder: Path) -> int:
    """Return how many finished items were asked for again."""
    done = set((folder / "done-before").read_text().split())
    again = Counter((folder / "asked").read_text().split()) if (folder / "asked").exists() else Counter()
    return sum(count for item, count in again.items() if item in done)


def embed(folder: Path) -> None:
    """Embed in small chunks, so that there are files to lose."""
    embedding_cache.CHUNK = 10
    cache = embedding_cache.EmbeddingCache(folder / "cache")
    texts = [f"text{number}" for number in range(_ITEMS)]
    rows, _ = cache.embed(LoggingEmbedder(folder / "asked", wait=0.02), texts, [None] * _ITEMS, progress=False)
    np.save(folder / "rows.npy", rows)


def embedded_again(folder: Path) -> int:
    """Return how many rows of chunks that were written were computed again."""
    before, after = ((folder / name).read_text().split() if (folder / name).exists() else []
                     for name in ("asked-before", "asked"))  # fmt: skip
    finished = max(0, len(before) - 10)  # the last chunk asked for may not have been written yet
    return len(set(before[:finished]) & set(after))


def tokenize(folder: Path) -> None:
    """Fit a quantizer and write codes, embeddings and quantizer."""
    embeddings = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    items = EmbeddedItems([f"i{row}" for row in range(400)], embeddings, {"embeddings": "drawn"})
    Tokenization.fit(items, ResidualKMeans(codebook_sizes=(8, 8), seed=0)).save(folder / "made")


def train(folder: Path) -> None:
    """Train with checkpoints and keep the weights."""
    model, tasks, _ = small_training()
    Trainer(
        model, tasks, steps=24, batch_tokens=256, learning_rate=1e-2, seed=0, precision="fp32",
        checkpoint=folder / "checkpoint", checkpoint_every=2, progress=False,
    ).fit()  # fmt: skip
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    temporary = folder / "new.npz"
    np.savez(temporary, **weights)
    temporary.rename(folder / "weights.npz")


def stage(folder: Path) -> None:
    """Write a stage of twenty tables; whatever is seen of an earlier try must be whole."""
    space = Workspace("demo", folder / "runs")
    if space.stages():
        assert len(list(space.artifact("01_s").glob("*.parquet"))) == 20, "a stage that is seen is whole"
    written = space.begin("01_s", {"seed": 0})
    for number in range(20):
        written.table(f"t{number}", pd.DataFrame({"n": np.arange(2000) + number}))
    written.commit({"tables": 20})


def notebooks(folder: Path) -> None:
    """Run two notebooks that write a table each."""
    from faults.notebooks import write_two

    found = find_notebooks(write_two(folder))
    with (folder / "console").open("w") as console:
        space = Workspace("demo", folder / "runs")
        Runner(space, found, resolve(found, {}), Console(file=console), threads=1).run()


def stages_again(folder: Path) -> int:
    """Return how many complete stages were executed a second time."""
    before, after = ((folder / name).read_text().split() if (folder / name).exists() else []
                     for name in ("asked-before", "asked"))  # fmt: skip
    return len({stage for stage in before[:-1] if stage in after})


def nothing_counted(folder: Path) -> int:
    """Return 0: the stage calls no model whose answers are kept one by one."""
    return 0
