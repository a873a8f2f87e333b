"""The eight tasks on a catalogue with recorded descriptions: what each was learnt to, on items it never showed.

``python benchmarks/tasks.py [--dataset movielens-posters] [--steps N] [--seed 0] [--json FILE]`` trains one small Qwen3
on all eight tasks, drawn alike, and prints:

tasks
    `trialign.task_quality.task_quality` of the items held out from tasks 5-8 (a tenth of the catalogue, drawn;
    histories keep them), and of as many that were trained on, beside chance;
recommendation
    Recall@K and NDCG@K of the test items, seen items not masked, beside popularity and chance.

Captions and interests are the recorded ones that ``trialign run`` takes. Semantic IDs: MiniLM of the enriched text
(title, description, other columns, caption, interests), no images; joint residual k-means with three levels of 64
codes, all different by reassignment. Their fit sees the held-out items too: what is held out is the pairing of their
SIDs with their texts. The weights are those of the last step.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trialign.baselines import Popularity
from trialign.catalogue import Catalogue
from trialign.datasets import load
from trialign.describe.recorded import Recording
from trialign.embed import enriched_text
from trialign.embed.cache import EmbeddingCache
from trialign.embed.text import TextEmbedder
from trialign.evaluate import ranking_metrics, summarize
from trialign.models import cache_folder
from trialign.recommend import GenerativeRecommender
from trialign.scratch import scratch_qwen3, scratch_tokenizer
from trialign.sids import JointResidualKMeans, SemanticIds, resolve_collisions
from trialign.split import Split, leave_one_out
from trialign.task_quality import task_quality
from trialign.tasks import Multitask
from trialign.train import Trainer
from trialign.vocabulary import SidVocabulary

CODEBOOK_SIZES = (64, 64, 64)
KS = (5, 10)


def make_sids(catalogue: Catalogue, recording: Recording, seed: int) -> SemanticIds:
    """Return unique semantic IDs of the enriched texts."""
    captions = {item: told.caption for item, told in recording.items.items()}
    interests = {item: told.interests for item, told in recording.items.items()}
    texts = enriched_text(catalogue, captions, interests)
    kept = EmbeddingCache(cache_folder() / "benchmarks" / catalogue.name)
    vectors, _ = kept.embed(TextEmbedder(), texts, [None] * len(texts))
    quantizer = JointResidualKMeans(CODEBOOK_SIZES, seed=seed).fit(vectors)
    item_ids = catalogue.items["item_id"].tolist()
    return resolve_collisions(quantizer.encode(vectors), CODEBOOK_SIZES, item_ids, "reassign", quantizer, vectors)


def train(
    catalogue: Catalogue, split: Split, given: argparse.Namespace
) -> tuple[GenerativeRecommender, Multitask, Trainer]:
    """Train on the eight tasks, a tenth of the items held out from tasks 5-8."""
    recording = Recording.read(given.dataset)
    captions = {item: told.caption for item, told in recording.items.items()}
    sids = make_sids(catalogue, recording, given.seed)
    vocabulary = SidVocabulary.add_to(
        scratch_tokenizer([*catalogue.titles, *captions.values()], vocab_size=2048), sids.codebook_sizes
    )
    model = scratch_qwen3(
        vocabulary, hidden=given.hidden, layers=given.layers, dropout=0.1, attention_dropout=0.0, seed=given.seed
    )
    drawn = np.random.default_rng(given.seed).permutation(catalogue.n_items)
    held_out = drawn[: catalogue.n_items // 10].tolist()
    multitask = Multitask(sids, vocabulary, catalogue.titles, captions, split, held_out=held_out, seed=given.seed)
    recommender = GenerativeRecommender(model, vocabulary, sids)
    trainer = Trainer(
        model,
        multitask,
        steps=given.steps,
        batch_tokens=given.batch_tokens,
        learning_rate=given.learning_rate,
        seed=given.seed,
    )
    trainer.fit()
    return recommender, multitask, trainer


def quality(recommender: GenerativeRecommender, multitask: Multitask, seed: int) -> pd.DataFrame:
    """Return the quality of the tasks on items held out, and on as many others."""
    held_out = multitask.held_out
    others = np.setdiff1d(np.arange(recommender.trie.n_items), held_out)
    trained = np.random.default_rng(seed).choice(others, len(held_out), replace=False)
    sets = {"held out": held_out, "trained on": trained}
    tables = {name: task_quality(recommender, multitask, rows, seed=seed) for name, rows in sets.items()}
    return pd.concat(tables, names=["rows"]).reset_index("rows").reset_index(drop=True)


def recommendation(recommender: GenerativeRecommender, split: Split) -> pd.DataFrame:
    """Return the metrics of the test items beside popularity and chance."""
    histories = split.histories("test")
    found = {
        "trialign, eight tasks": recommender.recommend(histories).items,
        "popularity": Popularity().fit(split).recommend(histories, max(KS), mask_seen=False),
    }
    table = summarize({name: ranking_metrics(items, split.test, KS) for name, items in found.items()})
    chance = {}
    for k in KS:
        chance[f"recall@{k}"] = k / split.n_items
        chance[f"ndcg@{k}"] = float((1 / np.log2(np.arange(k) + 2)).sum() / split.n_items)
    return table.assign(chance=table["metric"].map(chance))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="movielens-posters", help="a data set with recorded descriptions")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens of one step")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--hidden", type=int, default=128, help="width of the model")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all records to this file as well")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    catalogue = load(given.dataset)
    split = leave_one_out(catalogue)
    recommender, multitask, trainer = train(catalogue, split, given)
    trained = time.process_time() - began
    tables = {
        "tasks": quality(recommender, multitask, given.seed),
        "recommendation": recommendation(recommender, split),
    }
    records: dict[str, Any] = {name: table.to_dict("records") for name, table in tables.items()}
    records["losses"] = last_losses(trainer.losses_).to_dict()
    records["settings"] = {
        **{name: value for name, value in vars(given).items() if name != "json"},
        "parameters": recommender.model.num_parameters(),
        "items": split.n_items,
        "held out": len(multitask.held_out),
        "targets": trainer.targets_,
        "precision": trainer.precision_,
        "cpu_seconds_to_train": trained,
        "cpu_seconds": time.process_time() - began,
    }
    for name in ("tasks", "recommendation"):
        print(f"\n{name}\n{tables[name].round(4).to_string(index=False)}")
    print(json.dumps(records["settings"]))
    if given.json:
        given.json.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def last_losses(losses: pd.DataFrame) -> pd.Series:
    """Return each task's mean loss over the last tenth of the steps."""
    return losses[losses["step"] > 0.9 * losses["step"].max()].groupby("task", sort=False)["loss"].mean()


if __name__ == "__main__":
    main()
