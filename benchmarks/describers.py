"""How far the embedded describers can be trusted, on the atelier catalogue whose truth is known.

``python benchmarks/describers.py [--json FILE] [--miners retrieval smollm2] [--sample 120]`` prints three tables:

captions
    share of captions that name the true value of each visible attribute;
interests
    for each miner the AUC with which its tags find the items of each latent interest
    (:func:`trialign.describe.quality.interest_agreement`), the mean largest cosine between an item's tags and its true
    interests, both beside the same for tags of another item, and how often the latent interest nearest to the tags is
    a true one;
speed
    items a second.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from trialign.catalogue import Catalogue
from trialign.datasets import load
from trialign.datasets.atelier import Truth, load_truth
from trialign.describe import ItemView, captioner, item_views, miner, parse_interests
from trialign.describe.parse import InterestAnswerError
from trialign.describe.quality import caption_accuracy, interest_agreement
from trialign.embed.text import TextEmbedder

ATTEMPTS = 3


def caption_all(views: Sequence[ItemView]) -> tuple[dict[str, str], float]:
    describer = captioner("embedded")
    describer.caption(views[:1])  # loading is not counted
    start = time.perf_counter()
    captions = dict(zip([view.item_id for view in views], describer.caption(views), strict=True))
    return captions, len(views) / (time.perf_counter() - start)


def mine_all(name: str, views: Sequence[ItemView]) -> tuple[dict[str, list[str]], float]:
    """Tags of every item that gets valid ones in three attempts, and items a second over all attempts."""
    asked = miner(name)
    asked.mine(views[:1], 0)
    tags: dict[str, list[str]] = {}
    start = time.perf_counter()
    for attempt in range(ATTEMPTS):
        missing = [view for view in views if view.item_id not in tags]
        for view, answer in zip(missing, asked.mine(missing, attempt) if missing else [], strict=True):
            try:
                tags[view.item_id] = parse_interests(answer, view.title).interests
            except InterestAnswerError:
                continue
    return tags, len(views) / (time.perf_counter() - start)


def nearness(tags: dict[str, list[str]], truth: Truth, *, seed: int = 0) -> dict[str, float]:
    """Cosines of tags to true interests, and how often the nearest latent interest is a true one."""
    known = truth.items.set_index("item_id")["interests"]
    ids = [item_id for item_id in tags if len(known[item_id])]
    phrases = list(truth.interests)
    encoder = TextEmbedder()
    latent = encoder.embed(phrases, progress=False)
    scores = np.stack([(encoder.embed(tags[item_id], progress=False) @ latent.T).max(axis=0) for item_id in ids])
    true = np.array([[phrase in set(known[item_id]) for phrase in phrases] for item_id in ids])
    other = scores[np.random.default_rng(seed).permutation(len(ids))]
    best = np.arange(len(ids))
    return {
        "cosine": float(np.where(true, scores, -1).max(axis=1).mean()),
        "cosine_shuffled": float(np.where(true, other, -1).max(axis=1).mean()),
        "precision@1": float(true[best, scores.argmax(axis=1)].mean()),
        "precision@1_shuffled": float(true[best, other.argmax(axis=1)].mean()),
    }


def compare_miners(names: Sequence[str], views: Sequence[ItemView], truth: Truth) -> pd.DataFrame:
    rows = []
    for name in names:
        tags, speed = mine_all(name, views)
        overall = interest_agreement(tags, truth).iloc[0]
        agreement = {"auc": overall["auc"], "auc_shuffled": overall["auc_shuffled"], **nearness(tags, truth)}
        rows.append(
            {
                "miner": name,
                "items": len(views),
                "valid": len(tags) / len(views),
                **agreement,
                "items_per_second": speed,
            }
        )
    return pd.DataFrame(rows)


def measure(catalogue: Catalogue, truth: Truth, miners: Sequence[str], sample: int) -> dict[str, pd.DataFrame]:
    captions, speed = caption_all(item_views(catalogue))
    views = item_views(catalogue, captions)
    chosen = np.random.default_rng(0).permutation(len(views))[:sample]
    return {
        "captions": caption_accuracy(captions, truth),
        "interests": compare_miners(miners, [views[row] for row in np.sort(chosen)], truth),
        "speed": pd.DataFrame([{"describer": "embedded captions", "items_per_second": speed}]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the tables to this file as well")
    parser.add_argument("--dataset", default="atelier", help="an atelier catalogue, by name or folder")
    parser.add_argument("--miners", nargs="+", default=["retrieval", "smollm2"])
    parser.add_argument("--sample", type=int, default=120, help="items that each miner is asked about")
    given = parser.parse_args()
    catalogue = load(given.dataset)
    tables = measure(catalogue, load_truth(catalogue.root), given.miners, given.sample)
    for name, table in tables.items():
        print(f"\n{name}\n{table.round(3).to_string(index=False)}")
    if given.json:
        found = {name: table.to_dict("records") for name, table in tables.items()}
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
