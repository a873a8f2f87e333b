"""Where the embeddings of SID tokens start: at random, from the codebook vectors, or from the words of titles.

    python benchmarks/sid_starts.py                      atelier, seeds 0, 1, 2, about 8 CPU minutes
    python benchmarks/sid_starts.py --seeds 0 --steps 100 --json /tmp/starts.json

The small backbone is trained from scratch on all eight tasks, as notebook 05 does with fewer steps; everything but the
start is equal. The last column is the first validation, where a start should help most. Run with OMP_NUM_THREADS=1.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from ablations import make_study

from trialign.ablations import FULL, Settings
from trialign.backbone import make_backbone
from trialign.embed import embedder
from trialign.embed.ablation import representations
from trialign.evaluate import ranking_metrics
from trialign.provenance import versions
from trialign.recommend import GenerativeRecommender
from trialign.sid_embeddings import codebook_rows, initialize_sid_embeddings, title_rows
from trialign.sids import resolve_collisions
from trialign.sids.build import new_quantizer
from trialign.tasks import Multitask
from trialign.train import Trainer

STARTS = ("random", "codebooks", "titles")
RESULTS = Path(__file__).with_name("results") / "sid_starts.json"


def compare(dataset: str, seed: int, steps: int) -> list[dict[str, object]]:
    """Return a row a start: metrics of models that differ in nothing else."""
    study = make_study(dataset, f"recorded:{dataset}", f"recorded:{dataset}", Settings())
    catalogue, sizes = study.catalogue, Settings().codebook_sizes
    vectors = representations(
        embedder("embedded"), catalogue, study.captions, study.interests, [FULL.inputs], progress=False
    )[FULL.inputs]
    quantizer = new_quantizer("RQVAE", sizes, seed, epochs=Settings().epochs, progress=False).fit(vectors)
    ids = catalogue.items["item_id"].tolist()
    sids = resolve_collisions(quantizer.encode(vectors), sizes, ids, "suffix", quantizer, vectors)
    rows = []
    for start in STARTS:
        model, vocabulary = make_backbone(
            "scratch", sids.codebook_sizes, [*catalogue.titles, *study.captions.values()], hidden=128, seed=seed
        )
        if start == "codebooks":
            level_rows = codebook_rows(quantizer.codebooks_, model.config.hidden_size, seed)
            initialize_sid_embeddings(model, vocabulary, level_rows)
        elif start == "titles":
            initialize_sid_embeddings(model, vocabulary, title_rows(model, vocabulary, sids, catalogue.titles))
        recommender = GenerativeRecommender(model, vocabulary, sids)
        tasks = Multitask(sids, vocabulary, catalogue.titles, study.captions, study.split, seed=seed)
        trainer = Trainer(
            model, tasks, steps=steps, batch_tokens=1024, learning_rate=3e-3, seed=seed, precision="fp32",
            validate=recommender.validation(study.split), validate_every=-(-steps // 4), progress=False,
        )  # fmt: skip
        trainer.fit()
        found = recommender.recommend(study.split.histories("test"), progress=False)
        curve = trainer.validation_["ndcg@10"]
        row = {
            "start": start,
            "seed": seed,
            "ndcg@10": float(ranking_metrics(found.items, study.split.test)["ndcg@10"].mean()),
            "best validation": float(curve.max()),
            "first validation": float(curve.iloc[0]),
        }
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="atelier", help="with recorded descriptions (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400, help="(%(default)s)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the record goes")
    given = parser.parse_args()
    rows = [row for seed in given.seeds for row in compare(given.dataset, seed, given.steps)]
    record = {"dataset": given.dataset, "steps": given.steps, "versions": versions(), "rows": rows}
    given.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    table = pd.DataFrame(rows).drop(columns="seed").groupby("start", sort=False).agg(["mean", "std"])
    print(table.round(4).to_string())


if __name__ == "__main__":
    main()
