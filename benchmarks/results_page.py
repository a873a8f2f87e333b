"""Make RESULTS.md from the records in benchmarks/results.

    python benchmarks/results_page.py
    python benchmarks/results_page.py --results /tmp/results --out /tmp/RESULTS.md

Every figure comes from a record, from a data set's ``dataset.json``, or from ``published.json``, which lists what
others report: [Recall@5, NDCG@5, Recall@10, NDCG@10], a pair where it is a range, null where it isn't known.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trialign.progress import tqdm
from trialign.results import METRICS, RANKINGS, Record, by_method, compare, read_records, seed_table

ROOT = Path(__file__).resolve().parents[1]

#: The method whose masking is told, and those that every other one is compared with.
REFERENCE = "sasrec"
COMPARED = (REFERENCE, "sasrec-two", "item-knn")

INTRODUCTION = """\
# Results

Made by `python benchmarks/results_page.py` from the records in [benchmarks/results](benchmarks/results), and those by
`python benchmarks/recommenders.py --dataset NAME --method NAME --seed N`. No figure here is typed by hand.

Leave-one-out: each user's last item is for test, the one before for validation. The true item is ranked among the whole
catalogue, once with the items that the user has seen *kept*, once with them *masked*. R is Recall, N is NDCG. Settings
are chosen on the validation items, seen items kept; test items are read once, after all choices."""

NOTES = """\
## What is comparable, and limits

- ± is the standard deviation over seeds; rows without it have one run. It says nothing about the draw of users: the
  intervals of the paired comparison do.
- Rows of *this project* share data, split and evaluation: they are comparable with each other.
- Other rows are copied, not run: another tuning, other code, perhaps another reading of the protocol. Where it is not
  known whether seen items were masked, neither of our two rows is the counterpart for sure; look at both.
- One machine without GPU, one thread: CPU seconds are for comparison within this page. They cover fitting and, where a
  method chooses its settings by itself, that choice too; memory is the whole process's, evaluation included,
  and where models were trained by processes of their own (`trialign`, and `trialign-one` on Sports), that of the
  evaluation alone.
- `trialign` is two models, each with semantic IDs of its own, whose probabilities are averaged; `trialign-one` is one
  of them. Averaging pays whatever is averaged: the counterpart of the first is `sasrec-two`, of the second `sasrec`.
  `trialign-gpt2` is one model again, of GPT-2's shape, with the settings that were chosen for the Qwen3 of the others.
- `tiger` is TIGER's own recipe, given about an hour; its paper trains on some 150 times as many examples.
  `tiger-causal` is our model and our recipe on the same semantic IDs, of the text alone: what it gains on `tiger` is
  due to model and recipe, what `trialign-one` gains on it to the semantic IDs. One seed each.
  `benchmarks/generative.py` says what else differs from the paper.
- Settings of trained models were sought on Amazon Beauty, a few of them, and are used unchanged elsewhere.
- These data sets have no images: nothing here measures the visual part of the pipeline.
- Items that share a semantic ID are a tie: a metric is its mean over the orders of the tie."""


def page(results: Path, samples: int = 1000) -> str:
    """Return RESULTS.md, a section for each data set that has records.

    Parameters
    ----------
    results
        Folder of the records.
    samples
        Resamples of the users for the intervals.
    """
    published = json.loads((results / "published.json").read_text("utf-8"))
    datasets = sorted(file.parent.name for file in results.glob("*/dataset.json"))
    sections = [
        section(name, results, published.get(name, []), samples)
        for name in tqdm(datasets, desc="data sets", unit="set")
    ]
    return "\n\n".join([INTRODUCTION, *sections, NOTES]) + "\n"


def section(dataset: str, results: Path, published: Sequence[dict[str, Any]], samples: int) -> str:
    """Return a data set's section: facts, figures, paired comparisons, costs."""
    facts = json.loads((results / dataset / "dataset.json").read_text("utf-8"))
    methods = by_method(read_records(results, dataset))
    methods = dict(sorted(methods.items(), key=lambda entry: seed_table(entry[1], "all")["mean"]["ndcg@10"]))
    parts = [f"## {dataset}", _facts(facts, methods), _figures(methods, published)]
    if differences := _differences(methods, results, samples):
        parts += ["Differences on the same users, seeds averaged, with 95 % bootstrap intervals over users:"]
        parts += [markdown_table(["methods", "seen items", "R@10", "N@10"], differences)]
    return "\n\n".join([*parts, "What it takes, a run:", _costs(methods)])


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Return a share as the tables write it: ``.0384``."""
    return f"{value:.4f}".replace("0.", ".", 1)


def _facts(facts: dict[str, Any], methods: dict[str, list[Record]]) -> str:
    lines = [f"{facts['users']:,} users, {facts['items']:,} items, {facts['interactions']:,} interactions."]
    if REFERENCE in methods and not facts["repeats"]:
        kept, masked = (number(seed_table(methods[REFERENCE], r)["mean"]["ndcg@10"]) for r in RANKINGS)
        lines += [
            f"No user has an item twice, so masking seen items alone lifts {REFERENCE}'s NDCG@10 from {kept} to "
            f"{masked}:",
            "a part of the gaps between published figures may be no more than this.",
        ]
    lines += [
        f"Where {facts['pair_users']} users or more have two items in common, {facts['same_order']:.0%} of them had "
        f"these in the same order, on average ({facts['same_order_by_chance']:.0%}",
        "in shuffled histories): a method that reads the order gains by it, wherever that order comes from.",
    ]
    return "\n".join(lines)


def _figures(methods: dict[str, list[Record]], published: Sequence[dict[str, Any]]) -> str:
    rows = []
    for name, records in methods.items():
        for ranking in RANKINGS:
            table = seed_table(records, ranking)
            cells = [
                number(table["mean"][metric]) + (f" ± {number(table['sd'][metric])}" if len(records) > 1 else "")
                for metric in METRICS
            ]
            seeds = f", {len(records)} seeds" if len(records) > 1 else ""
            rows.append([name, f"this project{seeds}", "masked" if RANKINGS[ranking] else "kept", *cells])
    for entry in published:
        seen = {None: "not known", True: "masked", False: "kept"}[entry["seen_masked"]]
        rows.append([entry["method"], entry["source"], seen, *map(_published, entry["figures"])])
    return markdown_table(["method", "source", "seen items", "R@5", "N@5", "R@10", "N@10"], rows)


def _published(figure: float | list[float] | None) -> str:
    if figure is None:
        return ""
    return " - ".join(map(number, figure)) if isinstance(figure, list) else number(figure)


def _differences(methods: dict[str, list[Record]], results: Path, samples: int) -> list[list[str]]:
    pairs = [
        (name, other)
        for place, other in enumerate(COMPARED)
        for name in methods
        if other in methods and name not in COMPARED[: place + 1]
    ]
    rows = []
    for name, other in pairs:
        for ranking, mask_seen in RANKINGS.items():
            table = compare(methods[name], methods[other], results, ranking, samples).set_index("metric")
            cells = [
                f"{row['mean']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
                for _, row in table.loc[["recall@10", "ndcg@10"]].iterrows()
            ]
            rows.append([f"{name} - {other}", "masked" if mask_seen else "kept", *cells])
    return rows


def _costs(methods: dict[str, list[Record]]) -> str:
    rows = []
    for name, records in methods.items():
        settings = dict(records[0].settings)
        parameters = settings.pop("parameters", None)
        seconds = sum(record.train_cpu_seconds for record in records) / len(records)
        ndcg = sum(record.validation["all"]["ndcg@10"] for record in records) / len(records)
        rows.append([
            name,
            f"{seconds:.0f}",
            f"{max(record.peak_mib for record in records):,.0f}",
            f"{parameters:,}" if parameters else "",
            number(ndcg),
            ", ".join(f"{key} {value}" for key, value in settings.items()),
        ])  # fmt: skip
    header = ["method", "CPU s", "peak MiB", "parameters", "validation N@10, seen kept", "settings"]
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results", help="folder of the records")
    parser.add_argument("--out", type=Path, default=ROOT / "RESULTS.md", help="the page (%(default)s)")
    options = parser.parse_args()
    options.out.write_text(page(options.results), "utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
