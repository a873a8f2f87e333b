"""One recommender on one data set with one seed: fits it, evaluates it, and writes its record for RESULTS.md.

    python benchmarks/recommenders.py --dataset amazon-beauty --method item-knn
    python benchmarks/recommenders.py --dataset amazon-beauty --method sasrec --seed 1
    python benchmarks/recommenders.py --dataset atelier --method popularity --out /tmp/results

Writes ``<out>/<dataset>/<method>-seed<N>.json`` and ``.parquet`` (see `trialign.results`) and the facts of the data set
(``dataset.json``). Settings are chosen on the validation items, all items ranked; a method never gets the test items,
which are read once, at the end. CPU seconds are those of this process; run with OMP_NUM_THREADS=1.

To add a method, write a function of catalogue, split and seed that returns a `Fitted`, and name it in `METHODS`.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from generative import (
    TIGER,
    TIGER_CAUSAL,
    TRIALIGN,
    TRIALIGN_GPT2,
    TRIALIGN_ONE,
    AveragedSearch,
    System,
    parameters_of,
    train_member,
)
from scipy.special import softmax

from trialign.baselines import ItemKNN, Popularity, SASRec, top_items
from trialign.catalogue import Catalogue
from trialign.datasets import load
from trialign.results import RANKINGS, Recommend, Record, figures, target_ranks, write_record
from trialign.split import Split, leave_one_out

RESULTS = Path(__file__).with_name("results")

#: Users scored together: every item has a score for each.
USERS = 512

#: Item pairs that fewer users have in common say nothing of an order.
PAIR_USERS = 5


@dataclass(frozen=True)
class Fitted:
    """A fitted method.

    Attributes
    ----------
    recommend
        ``recommend(histories, k, mask_seen)`` returns item rows [users, k], best first, -1 where there are fewer.
    settings
        What it was fitted with; ``parameters``, the number of learned numbers, where there are any.
    groups
        Group of each item, where the method can't tell items of a group apart (one SID); None if it can.
    cpu_seconds
        CPU seconds of the fit, where another process has done it (a long training that was found finished).
    """

    recommend: Recommend
    settings: dict[str, Any]
    groups: np.ndarray | None = None
    cpu_seconds: float | None = None


def popularity(catalogue: Catalogue, split: Split, seed: int) -> Fitted:
    return Fitted(Popularity().fit(split).recommend, {})


#: The search starts from the first values, good ones on the validation items of Amazon Beauty.
KNN_GRID = {
    "popularity": (0.1, 0.0, 0.3, 0.5),
    "backward": (0.25, 0.0, 0.5, 1.0),
    "fade": (0.5, 0.0, 1.0),
    "shrinkage": (3.0, 0.0, 10.0, 30.0),
    "decay": (0.6, 0.4, 0.8),
    "history": (3, 1, 5, None),
    "neighbours": (300, 100, 1000),
}


def item_knn(catalogue: Catalogue, split: Split, seed: int) -> Fitted:
    model = ItemKNN.tuned(split, KNN_GRID)
    return Fitted(model.recommend, {name: getattr(model, name) for name in KNN_GRID})


#: Chosen on the validation items of Amazon Beauty; tried: dropout .3 and .5, learning rates from .0015 to .003, batches
#: of 256 and 1,024 positions with 512 to 2,048 negatives, histories of 20 and 50.
SASREC: dict[str, Any] = {
    "hidden": 128,
    "dropout": 0.5,
    "max_history": 20,
    "learning_rate": 1.5e-3,
    "batch_positions": 256,
    "negatives": 512,
    "passes": 14,
}


def sasrec(catalogue: Catalogue, split: Split, seed: int) -> Fitted:
    model = _fitted_sasrec(split, seed)
    return Fitted(model.recommend, {**SASREC, "parameters": _weights(model)})


def sasrec_two(catalogue: Catalogue, split: Split, seed: int) -> Fitted:
    """Average the probabilities of two models: what an ensemble gains, whatever its members are."""
    members = [_fitted_sasrec(split, seed + 1000 * member) for member in range(2)]

    def recommend(histories: Sequence[np.ndarray], k: int, mask_seen: bool) -> np.ndarray:
        lists = []
        for first in range(0, len(histories), USERS):
            some = histories[first : first + USERS]
            probabilities = np.mean([softmax(member.scores(some), axis=1) for member in members], axis=0)
            lists.append(top_items(probabilities, k, some, mask_seen))
        return np.concatenate(lists)

    return Fitted(recommend, {**SASREC, "members": len(members), "parameters": sum(map(_weights, members))})


def _fitted_sasrec(split: Split, seed: int) -> SASRec:
    settings = {name: value for name, value in SASREC.items() if name != "passes"}
    positions = sum(max(len(history) - 1, 0) for history in split.train)
    steps = SASREC["passes"] * positions // SASREC["batch_positions"]
    return SASRec(**settings, steps=steps, evaluate_every=steps // 4, seed=seed).fit(split)


def _weights(model: SASRec) -> int:
    return sum(weight.numel() for weight in model.model_.parameters())


def generative(system: System) -> Callable[[Catalogue, Split, int], Fitted]:
    """Return the method that generates semantic IDs as this system does; trainings that were killed go on."""

    def fit(catalogue: Catalogue, split: Split, seed: int) -> Fitted:
        trained = [train_member(catalogue, split, system, seed, member) for member in range(system.recipe.members)]
        recommenders = [each.recommender for each in trained]
        parameters = sum(parameters_of(each.model) for each in recommenders)
        seconds = sum(each.cpu_seconds for each in trained)
        settings = {**asdict(system.recipe), "parameters": parameters}
        return Fitted(AveragedSearch(recommenders), settings, cpu_seconds=seconds)

    return fit


METHODS: dict[str, Callable[[Catalogue, Split, int], Fitted]] = {
    "popularity": popularity,
    "item-knn": item_knn,
    "sasrec": sasrec,
    "sasrec-two": sasrec_two,
    "trialign": generative(TRIALIGN),
    "trialign-one": generative(TRIALIGN_ONE),
    "trialign-gpt2": generative(TRIALIGN_GPT2),
    "tiger": generative(TIGER),
    "tiger-causal": generative(TIGER_CAUSAL),
}


def run(method: str, dataset: str, seed: int, out: Path) -> Record:
    """Fit and evaluate a method, write its record and return it."""
    catalogue = load(dataset)
    split = leave_one_out(catalogue)
    start = time.process_time()
    fitted = METHODS[method](catalogue, replace(split, test=np.full_like(split.test, -1)), seed)
    seconds = time.process_time() - start
    validation, test = (
        target_ranks(fitted.recommend, split.histories(part), targets, fitted.groups)
        for part, targets in (("validation", split.validation), ("test", split.test))
    )
    record = Record(
        method=method,
        dataset=dataset,
        seed=seed,
        settings=fitted.settings,
        users=len(split.users),
        train_cpu_seconds=round(seconds if fitted.cpu_seconds is None else fitted.cpu_seconds, 1),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        validation=figures(validation),
        test=figures(test),
    )
    write_record(record, test, out)
    facts = json.dumps(dataset_facts(split), indent=1) + "\n"
    (out / dataset / "dataset.json").write_text(facts, "utf-8")
    return record


def dataset_facts(split: Split) -> dict[str, float]:
    """Return what RESULTS.md says of a data set.

    ``repeats`` counts the users who have an item twice. ``same_order`` is the mean share of users who had the two items
    of a pair in the more frequent order, over the pairs that at least `PAIR_USERS` users have in common;
    ``same_order_by_chance`` is the same for histories in a random order.
    """
    whole = [np.append(history, item) for history, item in zip(split.histories("test"), split.test)]
    every = [*whole, *split.train[len(whole) :]]
    shuffled = [np.random.default_rng(user).permutation(history) for user, history in enumerate(split.train)]
    return {
        "users": len(split.users),
        "items": split.n_items,
        "interactions": sum(map(len, every)),
        "repeats": sum(len(np.unique(history)) < len(history) for history in every),
        "pair_users": PAIR_USERS,
        "same_order": round(_same_order(split.train), 3),
        "same_order_by_chance": round(_same_order(shuffled), 3),
    }


def _same_order(histories: list[np.ndarray]) -> float:
    pairs = [history[np.stack(np.triu_indices(len(history), 1))] for history in histories]
    first, second = np.concatenate(pairs, axis=1)
    first, second = first[first != second], second[first != second]
    orders = pd.DataFrame({"low": np.minimum(first, second), "high": np.maximum(first, second), "up": first < second})
    counts = orders.groupby(["low", "high"])["up"].agg(["mean", "size"])
    shares = counts.loc[counts["size"] >= PAIR_USERS, "mean"]
    return float(np.maximum(shares, 1 - shares).mean()) if len(shares) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="amazon-beauty", help="name or folder of a catalogue (%(default)s)")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records (%(default)s)")
    options = parser.parse_args()
    record = run(options.method, options.dataset, options.seed, options.out)
    table = pd.DataFrame({(part, r): getattr(record, part)[r] for part in ("validation", "test") for r in RANKINGS}).T
    print(record.settings)
    print(table.round(4).to_string())
    print(f"{record.train_cpu_seconds} CPU s, {record.peak_mib} MiB: {record.path(options.out)}")


if __name__ == "__main__":
    main()
