import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign.catalogue import Catalogue
from trialign.evaluate import ranking_metrics
from trialign.results import (
    DEPTH,
    METRICS,
    RANKINGS,
    Record,
    by_method,
    compare,
    figures,
    metrics_of,
    read_record,
    read_records,
    target_ranks,
    write_record,
)

ROOT = Path(__file__).resolve().parents[1]


def script(name):
    """Import a command of benchmarks/, which is no package; its neighbours are imported by name, as when it is run."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(ROOT / "benchmarks"))
results_page, recommenders = script("results_page"), script("recommenders")


def ranks_at(kept, masked=None):
    """What `target_ranks` returns where the true items stand at these places, 0 for nowhere, without ties."""
    columns = {}
    for ranking, places in zip(RANKINGS, (kept, masked or kept)):
        columns[f"{ranking} rank"] = np.array(places, dtype=np.int16)
        columns[f"{ranking} tied"] = np.ones(len(places), dtype=np.int16)
    return pd.DataFrame(columns)


def record_of(ranks, **changes):
    entries = {
        "method": "sasrec",
        "dataset": "toy",
        "seed": 0,
        "settings": {"hidden": 8, "sizes": [2, 3]},
        "users": len(ranks),
        "train_cpu_seconds": 12.4,
        "peak_mib": 1234,
        "validation": figures(ranks),
        "test": figures(ranks),
    }
    return Record(**(entries | changes))


@pytest.fixture
def ranks():
    return ranks_at([1, 2, 0, 7], [1, 1, 11, 6])


def test_metrics_by_hand(ranks):
    found = figures(ranks)
    second, seventh, sixth = 1 / np.log2(3), 1 / np.log2(8), 1 / np.log2(7)
    assert found["all"] == pytest.approx(
        {"recall@5": 0.5, "ndcg@5": (1 + second) / 4, "recall@10": 0.75, "ndcg@10": (1 + second + seventh) / 4}
    )
    assert found["seen masked"] == pytest.approx(
        {"recall@5": 0.5, "ndcg@5": 0.5, "recall@10": 0.75, "ndcg@10": (2 + sixth) / 4}
    )


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans())
def test_metrics_of_ranks_are_those_of_the_ranking(seed, per_group, tied):
    """Also where items share a SID, and where the end of the ranking cuts a tie."""
    rng = np.random.default_rng(seed)
    groups = np.arange(30) // per_group
    targets = rng.integers(30, size=6)
    orders = [np.concatenate([np.flatnonzero(groups == g) for g in rng.permutation(groups.max() + 1)]) for _ in targets]

    def recommend(histories, k, mask_seen):
        return np.array(orders)[:, ::-1][:, :k] if mask_seen else np.array(orders)[:, :k]

    shared = groups if tied else None
    ranks = target_ranks(recommend, [np.array([0])] * 6, targets, shared)
    assert set(ranks.dtypes) == {np.dtype(np.int16)}
    for ranking, mask_seen in RANKINGS.items():
        expected = ranking_metrics(recommend(None, DEPTH, mask_seen), targets, groups=shared)
        pd.testing.assert_frame_equal(metrics_of(ranks, ranking), expected)


def test_a_record_comes_back_as_it_was(tmp_path, ranks):
    record = record_of(ranks)
    path = write_record(record, ranks, tmp_path)
    assert path == tmp_path / "toy/sasrec-seed0.json"
    assert read_record(path) == record
    assert record.versions["trialign"] and record.versions["code"] and record.date.count("-") == 2
    for ranking in RANKINGS:
        pd.testing.assert_frame_equal(record.per_user(tmp_path, ranking), metrics_of(ranks, ranking))
    assert sorted(file.name for file in path.parent.iterdir()) == ["sasrec-seed0.json", "sasrec-seed0.parquet"]


def test_only_the_same_settings_replace_a_record(tmp_path, ranks):
    better = ranks_at([1, 1, 1, 1])
    write_record(record_of(ranks), ranks, tmp_path)
    path = write_record(record_of(better), better, tmp_path)
    assert read_record(path).test["all"]["recall@5"] == 1
    with pytest.raises(ValueError, match=r"other settings \(dropout, hidden\)"):
        write_record(record_of(ranks, settings={"hidden": 9, "sizes": (2, 3), "dropout": 0}), ranks, tmp_path)
    assert read_record(path).test["all"]["recall@5"] == 1
    write_record(record_of(better, settings={"hidden": 8, "sizes": (2, 3)}), better, tmp_path)  # the same, as a tuple


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries.pop("seed"), "missing seed, unknown nothing"),
        (lambda entries: entries.update(note="x"), "missing nothing, unknown note"),
        (lambda entries: entries["test"]["all"].update({"mrr": 0.1}), "test, all must hold the metrics .*holds.* mrr"),
        (lambda entries: entries["validation"]["all"].pop("ndcg@5"), "validation, all must hold the metrics"),
        (lambda entries: entries["test"].pop("seen masked"), "test must hold all, seen masked; it holds all"),
        (lambda entries: entries["test"]["all"].update({"ndcg@5": 3}), "ndcg@5 must lie in 0..1, it is 3"),
        (lambda entries: entries["test"]["all"].update({"ndcg@5": None}), "ndcg@5 must lie in 0..1, it is None"),
    ],
)
def test_a_bad_record_is_refused_by_name(tmp_path, ranks, change, message):
    path = write_record(record_of(ranks), ranks, tmp_path)
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message) as error:
        read_record(path)
    assert str(path) in str(error.value)


def test_files_that_are_no_record_are_refused(tmp_path):
    path = tmp_path / "a.json"
    for text, message in (("{", "no JSON"), ("[]", "no record")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_record(path)


def test_ranks_that_are_not_the_records_are_refused(tmp_path, ranks):
    with pytest.raises(ValueError, match="ranks are not those of the record"):
        write_record(record_of(ranks), ranks_at([1, 1, 1, 1]), tmp_path)
    record = record_of(ranks)
    file = write_record(record, ranks, tmp_path).with_suffix(".parquet")
    ranks.iloc[:3].to_parquet(file)
    with pytest.raises(ValueError, match="has 3 users, its record 4"):
        record.per_user(tmp_path, "all")
    ranks_at([1, 1, 1, 1]).to_parquet(file)
    with pytest.raises(ValueError, match=r"recall@5 is 1.000000, in its record 0.500000"):
        record.per_user(tmp_path, "all")
    file.unlink()
    with pytest.raises(FileNotFoundError, match="run the method again"):
        record.per_user(tmp_path, "all")


def test_a_comparison_is_positive_where_the_first_is_better(tmp_path, ranks):
    better, worse = ranks_at([1, 1, 1, 2] * 10), ranks_at([0, 1, 3, 0] * 10)
    records = []
    for seed, (method, places) in enumerate([("ours", better), ("ours", worse), ("sasrec", worse)]):
        records.append(record_of(places, method=method, seed=seed))
        write_record(records[-1], places, tmp_path)
    ours, other = records[:2], records[2:]
    table = compare(ours, other, tmp_path, "all", samples=200).set_index("metric")
    # Recall@5 of ours, seeds averaged: (1 + 0.5) / 2 a user; the other's is 0.5.
    assert table["mean"]["recall@5"] == pytest.approx(0.25)
    assert 0 < table["low"]["recall@5"] < 0.25 < table["high"]["recall@5"]
    assert compare(other, ours, tmp_path, "all", samples=200)["mean"][0] == pytest.approx(-0.25)
    few = record_of(ranks, method="few")
    write_record(few, ranks, tmp_path)
    with pytest.raises(ValueError, match="equally many users"):
        compare(ours, [few], tmp_path, "all")


def test_seeds_of_a_method_have_the_same_settings(tmp_path, ranks):
    for seed, hidden in ((1, 8), (0, 8), (2, 16)):
        write_record(record_of(ranks, seed=seed, settings={"hidden": hidden}), ranks, tmp_path)
    records = read_records(tmp_path, "toy")
    assert [record.seed for record in records] == [0, 1, 2]
    assert list(by_method(records[:2])) == ["sasrec"]
    with pytest.raises(ValueError, match="seeds 0 and 2 of sasrec have different settings"):
        by_method(records)


@pytest.fixture
def made_up(tmp_path):
    """Two methods on eight users, one with two seeds; the reference puts every true item first in one user of two."""
    for method, seed, places in (
        ("sasrec", 0, [1, 0] * 4),
        ("ours", 0, [1, 1] * 4),
        ("ours", 1, [1, 6] * 4),
    ):
        ranks = ranks_at(places)
        changes = {"train_cpu_seconds": 10.0 + 20 * seed, "settings": {"hidden": 8, "parameters": 12345}}
        write_record(record_of(ranks, method=method, seed=seed, **changes), ranks, tmp_path)
    facts = {"users": 8, "items": 30, "interactions": 1234, "repeats": 0, "pair_users": 5}
    facts |= {"same_order": 0.9, "same_order_by_chance": 0.6}
    (tmp_path / "toy/dataset.json").write_text(json.dumps(facts))
    entry = {"method": "P", "source": "a paper", "seen_masked": None, "figures": [0.05, [0.02, 0.03], None, 0.04]}
    (tmp_path / "published.json").write_text(json.dumps({"toy": [entry]}))
    return tmp_path


def test_the_page_of_made_up_records_by_hand(made_up):
    page = results_page.page(made_up, samples=50)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert "| sasrec | this project | kept | .5000 | .5000 | .5000 | .5000 |" in rows
    assert "| sasrec | this project | masked | .5000 | .5000 | .5000 | .5000 |" in rows
    # Ours, seed 0: every figure 1. Seed 1: half of the users at rank 6, so .5 at 5, and at 10 Recall 1 and NDCG
    # (1 + 1 / log2(7)) / 2 = .6781. The deviation of 1 and x is (1 - x) / sqrt(2).
    expected = ".7500 ± .3536 | .7500 ± .3536 | 1.0000 ± .0000 | .8391 ± .2276"
    assert f"| ours | this project, 2 seeds | kept | {expected} |" in rows
    assert "| P | a paper | not known | .0500 | .0200 - .0300 |  | .0400 |" in rows
    difference = next(row for row in rows if row.startswith("| ours - sasrec | kept |"))
    assert "| +0.5000 [" in difference
    assert any(row.startswith("| ours | 20 | 1,234 | 12,345 |") and row.endswith("| hidden 8 |") for row in rows)
    assert "8 users, 30 items, 1,234 interactions." in page


def test_methods_without_records_do_not_appear(made_up):
    for file in (made_up / "toy").glob("sasrec*"):
        file.unlink()
    page = results_page.page(made_up, samples=50)
    assert "| sasrec" not in page and "sasrec |" not in page
    assert "| ours |" in page


@pytest.mark.slow
def test_results_md_is_what_the_records_say():
    assert (ROOT / "RESULTS.md").read_text() == results_page.page(ROOT / "benchmarks/results")


def test_a_run_writes_its_record_and_never_shows_the_test_items(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"item_id": [str(i) for i in range(25)], "title": [f"item {i}" for i in range(25)]})
    interactions = pd.DataFrame(
        [(str(user), str(item), step) for user in range(12) for step, item in enumerate(rng.permutation(25)[:5])],
        columns=["user_id", "item_id", "timestamp"],
    )
    catalogue = Catalogue(items, interactions, tmp_path, "toy")
    monkeypatch.setattr(recommenders, "load", lambda name: catalogue)
    given_splits = []

    def last_item_again(catalogue, split, seed):
        given_splits.append(split)

        def recommend(histories, k, mask_seen):
            return np.array([[history[-1], *np.delete(np.arange(25), history[-1])][:k] for history in histories])

        return recommenders.Fitted(recommend, {"depth": 1})

    monkeypatch.setitem(recommenders.METHODS, "again", last_item_again)
    record = recommenders.run("again", "toy", 3, tmp_path)
    assert (given_splits[0].test == -1).all()
    assert read_record(tmp_path / "toy/again-seed3.json") == record
    assert (record.users, record.settings) == (12, {"depth": 1})
    facts = json.loads((tmp_path / "toy/dataset.json").read_text())
    assert (facts["users"], facts["items"], facts["interactions"], facts["repeats"]) == (12, 25, 60, 0)


def test_order_of_pairs_by_hand(monkeypatch):
    monkeypatch.setattr(recommenders, "PAIR_USERS", 3)
    histories = [np.array(h) for h in ([1, 2, 3], [1, 2], [4, 1, 2], [2, 1], [3, 4])]
    # Only items 1 and 2 have three users in common: three had 1 first, one had 2 first.
    assert recommenders._same_order(histories) == pytest.approx(3 / 4)


def test_metrics_are_named_as_records_hold_them(ranks):
    assert tuple(metrics_of(ranks, "all").columns) == METRICS
    assert replace(record_of(ranks), seed=1).path(Path("r")) == Path("r/toy/sasrec-seed1.json")
