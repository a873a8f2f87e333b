"""How soon explorers show something, how soon they answer, and what two hundred interactions leave in memory.

    python benchmarks/explorers.py                     12,101 items (as many as Amazon Beauty), images of atelier
    python benchmarks/explorers.py --map 1000000       the map alone, with a million items
    python benchmarks/explorers.py --json FILE

Seconds are of wall time in the kernel, without the browser's drawing; run with OMP_NUM_THREADS=1.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from trialign.catalogue import Catalogue
from trialign.datasets import load
from trialign.explore.beams import explore_beams
from trialign.explore.desk import explore_descriptions
from trialign.explore.map import explore_map
from trialign.explore.map_points import principal_layout
from trialign.explore.sids import explore_sids
from trialign.provenance import versions
from trialign.recommend import GenerativeRecommender
from trialign.scratch import scratch_qwen3, scratch_tokenizer
from trialign.sids import ResidualKMeans, SemanticIds, resolve_collisions
from trialign.split import leave_one_out
from trialign.vocabulary import SidVocabulary

_SIZES = (256, 256, 256)


def made_catalogue(items: int) -> Catalogue:
    """Return a catalogue of so many items that show atelier's images, with a thousand users."""
    atelier = load("atelier")
    rows = np.arange(items) % atelier.n_items
    frame = atelier.items.iloc[rows].reset_index(drop=True)
    frame["item_id"] = [f"i{number}" for number in range(items)]
    draw = np.random.default_rng(0)
    users = np.repeat(np.arange(1000), 12)
    chosen = draw.integers(items, size=len(users))
    seen = pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in users],
            "item_id": frame["item_id"].to_numpy()[chosen],
            "timestamp": np.tile(np.arange(12), 1000),
        }
    )
    return Catalogue(frame, seen, atelier.root, f"made, {items} items")


def seconds(job: Callable[[], object]) -> tuple[float, object]:
    """Return how long a job takes, and what it returns."""
    started = time.perf_counter()
    made = job()
    return time.perf_counter() - started, made


def resident() -> float:
    """Return the process's memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(items: int) -> list[dict[str, object]]:
    """Return a row an explorer: first view and median reaction, in seconds."""
    catalogue = made_catalogue(items)
    ids = catalogue.items["item_id"].tolist()
    vectors = np.random.default_rng(1).normal(size=(items, 64)).astype(np.float32)
    quantizer = ResidualKMeans(codebook_sizes=_SIZES, seed=0).fit(vectors)
    sids = resolve_collisions(quantizer.encode(vectors), _SIZES, ids, "suffix", quantizer, vectors)
    vocabulary = SidVocabulary.add_to(scratch_tokenizer(["title"], vocab_size=300), sids.codebook_sizes)
    recommender = GenerativeRecommender(scratch_qwen3(vocabulary, hidden=128, layers=2), vocabulary, sids)
    captions = dict(zip(ids, catalogue.titles))
    tags = {item: ["slow mornings", "quiet design"] for item in ids}
    layouts = {"embedding": principal_layout(vectors), "other": principal_layout(vectors[:, :32])}
    split = leave_one_out(catalogue)
    told = {"model": "made", "source": "made", "error": ""}
    captioned = pd.DataFrame({"item_id": ids, "caption": catalogue.titles, **told})
    mined = pd.DataFrame({"item_id": ids, "interests": list(tags.values()), "reasoning": "", **told})
    with tempfile.TemporaryDirectory() as folder:
        judged = Path(folder, "judgements.jsonl")
        views = {
            "semantic IDs": lambda: explore_sids(
                sids, catalogue, captions=captions, interests=tags, embeddings=vectors, quantizer=quantizer
            ),
            "map": lambda: explore_map(catalogue, sids, layouts, interests=tags),
            "beams": lambda: explore_beams(recommender, catalogue, split),
            "desk": lambda: explore_descriptions(catalogue, captioned, mined, judged),
        }
        first = {name: seconds(make) for name, make in views.items()}
        made = {name: view for name, (_, view) in first.items()}
        acts: dict[str, Callable[[int], object]] = {
            "semantic IDs": lambda turn: made["semantic IDs"].walk_to(turn * 37 % items),
            "map": lambda turn: setattr(made["map"].search, "value", ("mug", "lamp", "clock")[turn % 3]),
            "beams": lambda turn: setattr(made["beams"].user, "value", turn % 500 + 1),
            "desk": lambda turn: made["desk"].show(turn * 37 % items),
        }
        rows = []
        for name, act in acts.items():
            for turn in range(60):
                act(turn)
            before = resident()
            times = [seconds(lambda act=act, turn=turn: act(turn))[0] for turn in range(60, 260)]
            rows.append(
                {
                    "explorer": name,
                    "first view, s": round(first[name][0], 2),
                    "reaction, ms": round(1000 * float(np.median(times))),
                    "slowest, ms": round(1000 * max(times)),
                    "memory after 200, MiB": round(resident() - before, 1),
                }
            )
    return rows


def measure_map(items: int) -> list[dict[str, object]]:
    """Return a row for a map of so many items, without images."""
    ids = [f"i{number}" for number in range(items)]
    frame = pd.DataFrame({"item_id": ids, "title": [f"Title {n % 997}" for n in range(items)], "image": ""})
    frame["category"] = [f"kind {n % 12}" for n in range(items)]
    seen = pd.DataFrame({"user_id": ["u"] * 3, "item_id": ids[:3], "timestamp": [1, 2, 3]})
    catalogue = Catalogue(frame[["item_id", "title", "category", "image"]], seen, Path(), "made")
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 256, size=(items, 3))
    sids = SemanticIds(ids, codes, _SIZES, 3)
    points = {name: draw.normal(size=(items, 2)).astype(np.float32) for name in ("one", "two")}
    before = resident()
    first, view = seconds(lambda: explore_map(catalogue, sids, points))
    recolour, _ = seconds(lambda: setattr(view.colour, "value", "code of level 1"))
    search, _ = seconds(lambda: setattr(view.search, "value", "title 12"))
    return [
        {
            "explorer": f"map, {items:,} items",
            "first view, s": round(first, 1),
            "other colour, s": round(recolour, 1),
            "search, s": round(search, 1),
            "memory, MiB": round(resident() - before),
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=12_101, help="(%(default)s)")
    parser.add_argument("--map", type=int, help="measure the map alone, with so many items")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    given = parser.parse_args()
    rows = measure_map(given.map) if given.map else measure(given.items)
    print(pd.DataFrame(rows).to_string(index=False))
    if given.json:
        given.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
