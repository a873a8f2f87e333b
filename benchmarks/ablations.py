"""Ablations of TriAlignGR on one catalogue: trains every variant with every seed and records each user's rank.

    python benchmarks/ablations.py --dataset atelier
    python benchmarks/ablations.py --dataset atelier --seeds 3 4
    python benchmarks/ablations.py --dataset atelier --questions noise sids --steps 100 --out /tmp/ablations
    python benchmarks/ablations.py --dataset movielens-posters --steps 1500

One JSON file a variant and seed (see `trialign.ablations`); runs that are recorded are skipped, so a killed command
goes on where it was. Notebook 07 reads the files. Captions and interests are those recorded for the data set
(data/<dataset>/descriptions.jsonl). CPU seconds are of this process; run with OMP_NUM_THREADS=1.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from trialign import describe
from trialign.ablations import CLAIMS, QUESTIONS, Results, Settings, Study, Variant, conclusion, distinct
from trialign.datasets import load
from trialign.describe import DescriptionCache
from trialign.profiles import profile_parameters
from trialign.progress import tqdm

RESULTS = Path(__file__).with_name("results") / "ablations"


def make_study(dataset: str, captioner: str, miner: str, settings: Settings) -> Study:
    """Return the study of a data set with descriptions by name, as notebooks 02 and 03 would make them."""
    catalogue = load(dataset)
    views = describe.item_views(catalogue)
    who, why = describe.captioner(captioner), describe.miner(miner)
    with DescriptionCache(":memory:") as cache:
        captions = describe.caption_items(views, who, cache).set_index("item_id")["caption"].to_dict()
        views = describe.item_views(catalogue, captions)
        interests = describe.mine_interests(views, why, cache).set_index("item_id")["interests"].map(list).to_dict()
    return Study(catalogue, captions, interests, settings, described_by={"captions": who.model, "interests": why.model})


def settings_of(dataset: str, steps: int) -> Settings:
    """Return the settings of the embedded profile, with what the data set needs otherwise."""
    chosen = profile_parameters("embedded", dataset)
    sizes = chosen.get("codebook_sizes", Settings().codebook_sizes)
    return Settings(steps=steps, embedder=chosen["embedder"], codebook_sizes=tuple(sizes))


def variants_of(questions: Sequence[str]) -> list[Variant]:
    """Return the variants that questions need, each once; "claims" needs those that the verdict is made of."""
    claims = CLAIMS if "claims" in questions else ()
    compared = [variant for claim in claims for variant in (claim.variant, claim.baseline)]
    return list(dict.fromkeys([*distinct(name for name in questions if name != "claims"), *compared]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="atelier", help="a name of `trialign data list`, or a folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = f"any of: {'; '.join(QUESTIONS)}; claims, what the verdict is made of (default: all)"
    names = [*QUESTIONS, "claims"]
    parser.add_argument(
        "--questions", nargs="+", default=list(QUESTIONS), choices=names, metavar="QUESTION", help=asked
    )
    parser.add_argument("--steps", type=int, default=Settings().steps, help="of the full model (default: %(default)s)")
    parser.add_argument("--captioner", help="as in notebook 02 (default: recorded:DATASET)")
    parser.add_argument("--miner", help="as in notebook 03 (default: recorded:DATASET)")
    parser.add_argument("--out", type=Path, help="folder of the records (default: results/ablations/DATASET)")
    given = parser.parse_args()
    recorded = f"recorded:{given.dataset}"
    out = given.out or RESULTS / Path(given.dataset).name
    study = make_study(
        given.dataset, given.captioner or recorded, given.miner or recorded, settings_of(given.dataset, given.steps)
    )
    runs = [(seed, variant) for seed in given.seeds for variant in variants_of(given.questions)]
    for seed, variant in tqdm(runs, desc="ablations", unit="run"):
        record = study.record(variant, seed, out)
        score, seconds = record.per_user().mean(), record.cpu_seconds
        tqdm.write(f"seed {seed}  {variant.slug:<64} NDCG@10 {score:.4f}  {record.steps} steps, {seconds:.0f} CPU s")
    results = Results.read(out)
    print(results.claims().to_string(index=False))
    print(conclusion(results.claims()))


if __name__ == "__main__":
    main()
