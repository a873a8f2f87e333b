"""All diagnostics in one call, their JSON form, seeds compared, and quantizers by name."""

import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign.sids import ProductQuantizer, ResidualKMeans, SemanticIds, resolve_collisions
from trialign.sids.build import new_quantizer
from trialign.sids.diagnose import Diagnostics, diagnose
from trialign.sids.diagnostics import reconstruction_by_depth
from trialign.sids.diagnostics_schema import TABLES, json_schema
from trialign.sids.stability import stability


@pytest.fixture(scope="module")
def case():
    """Sixty items of three categories, of which six are equal to six others."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    points = generator.normal(size=(3, 8))[labels] + generator.normal(size=(60, 8)) * 0.3
    points[:6] = points[6:12]
    truth = SimpleNamespace(
        items=pd.DataFrame({"colour": labels.astype(str), "noise": generator.choice(["a", "b"], 60)}),
        where={"colour": "image", "noise": "text"},
    )
    quantizer = ResidualKMeans((6, 4), seed=0).fit(points)
    sids = resolve_collisions(quantizer.encode(points), (6, 4), [str(row) for row in range(60)])
    return points, quantizer, sids, [f"category {label}" for label in labels], truth


def full(case, **options):
    points, quantizer, sids, categories, truth = case
    by_seed = {seed: ResidualKMeans((6, 4), seed=seed).fit(points).encode(points) for seed in range(2)}
    return diagnose(points, quantizer, sids, categories, truth, by_seed, **options)


def test_one_call_measures_everything(case):
    points, quantizer, sids, *_ = case
    diagnostics = full(case)
    assert diagnostics.facts == {
        "quantizer": "ResidualKMeans", "items": 60, "dim": 8, "codebook_sizes": [6, 4], "neighbours_per_item": 10,
    }  # fmt: skip
    assert sids.depth == 3
    assert diagnostics.collisions["stage"].tolist() == ["before", "after"]
    assert diagnostics.collisions["colliding"].iloc[0] >= 12
    assert diagnostics.collisions["colliding"].iloc[1] == 0
    pd.testing.assert_frame_equal(
        diagnostics.reconstruction, reconstruction_by_depth(points, quantizer, sids.codes[:, :2])
    )
    assert [len(counts) for counts in diagnostics.usage["counts"]] == [6, 4]
    assert [sum(counts) for counts in diagnostics.usage["counts"]] == [60, 60]
    colour = diagnostics.probes.query("attribute == 'colour'").set_index("representation")["recovered"]
    assert colour.min() > 0.9
    table = diagnostics.table()
    assert table.columns.tolist() == ["aspect", "measure", "level 1", "level 2", "whole SID", "embedding"]
    assert not table.duplicated(["aspect", "measure", "level 1"]).any()
    cosine = table.query("measure == 'cosine to the embedding'").iloc[0]
    assert cosine["level 2"] == diagnostics.reconstruction["cosine"].iloc[1]


def test_what_a_level_adds_sums_to_the_whole(case):
    points, quantizer, sids, *_ = case
    table = reconstruction_by_depth(points, quantizer, sids.codes)
    np.testing.assert_allclose(table["cosine_added"].cumsum(), table["cosine"])
    np.testing.assert_allclose(1 - table["error_removed"].cumsum(), table["relative_error"])


def test_levels_need_not_be_residuals(case):
    points, *_ = case
    quantizer = ProductQuantizer((6, 4), seed=0).fit(points)
    diagnostics = diagnose(points, quantizer, quantizer.encode(points))
    assert diagnostics.reconstruction["level"].tolist() == [1, 2]
    assert diagnostics.reconstruction["relative_error"].is_monotonic_decreasing
    assert diagnostics.collisions["stage"].tolist() == ["before"]
    assert diagnostics.categories is diagnostics.probes is diagnostics.stability is None


def test_reassigned_items_are_measured_by_the_codes_they_carry(case):
    points, quantizer, *_ = case
    codes = quantizer.encode(points)[:20]
    sids = resolve_collisions(codes, (6, 4), list("abcdefghijklmnopqrst"), "reassign", quantizer, points[:20])
    diagnostics = diagnose(points[:20], quantizer, sids)
    assert diagnostics.collisions["colliding"].tolist()[1] == 0 < diagnostics.collisions["colliding"].tolist()[0]
    greedy = reconstruction_by_depth(points[:20], quantizer, codes)["cosine"].iloc[-1]
    assert diagnostics.reconstruction["cosine"].iloc[-1] < greedy


@pytest.mark.parametrize("everything", [True, False])
def test_json_gives_back_the_same_tables_and_keeps_to_its_schema(case, tmp_path, everything):
    points, quantizer, sids, *_ = case
    diagnostics = full(case) if everything else diagnose(points, quantizer, sids)
    path = diagnostics.to_json(tmp_path / "diagnostics.json")
    again = Diagnostics.from_json(path)
    assert again.facts == diagnostics.facts
    for name in TABLES:
        first, second = getattr(diagnostics, name), getattr(again, name)
        assert (first is None) == (second is None)
        if first is not None:
            pd.testing.assert_frame_equal(second, first[list(TABLES[name])], check_dtype=False)
    pd.testing.assert_frame_equal(again.table(), diagnostics.table())
    if importlib.util.find_spec("jsonschema"):
        import jsonschema

        jsonschema.Draft202012Validator.check_schema(json_schema())
        jsonschema.validate(json.loads(path.read_text()), json_schema())


def test_what_is_not_defined_is_null(tmp_path):
    points = np.random.default_rng(0).normal(size=(12, 4))
    quantizer = ResidualKMeans((12,)).fit(points)
    codes = quantizer.encode(points)
    diagnostics = diagnose(points, quantizer, codes, codes_by_seed={0: codes, 1: codes})
    record = json.loads(diagnostics.to_json(tmp_path / "d.json").read_text(), parse_constant=pytest.fail)
    assert record["neighbours"][0]["lift"] is None
    assert record["stability"][0]["adjusted_rand"] is None
    assert np.isnan(Diagnostics.from_json(tmp_path / "d.json").neighbours["lift"].item())


def test_files_of_another_form_are_refused(case, tmp_path):
    path = tmp_path / "diagnostics.json"
    with pytest.raises(FileNotFoundError, match=r"diagnostics\.json is missing"):
        Diagnostics.from_json(path)
    path.write_text('{"schema": "trialign/sid-diagnostics/0"}')
    with pytest.raises(ValueError, match=r"diagnostics\.json is no 'trialign/sid-diagnostics/1' file"):
        Diagnostics.from_json(path)
    record = full(case).to_dict()
    for row in record["usage"]:
        del row["gini"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="table 'usage' lacks gini"):
        Diagnostics.from_json(path)
    del record["usage"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="lacks usage"):
        Diagnostics.from_json(path)


def test_rows_that_disagree_are_refused(case):
    points, quantizer, sids, *_ = case
    with pytest.raises(ValueError, match="59 embeddings for 60 rows"):
        diagnose(points[1:], quantizer, sids)


def test_a_few_items_lower_the_number_of_neighbours():
    points = np.random.default_rng(0).normal(size=(4, 3))
    quantizer = ResidualKMeans((2,)).fit(points)
    sids = SemanticIds(list("abcd"), np.column_stack([quantizer.encode(points), range(4)]), (2, 4), 1)
    assert diagnose(points, quantizer, sids, ["x"] * 4).facts["neighbours_per_item"] == 3


# --- seeds compared -------------------------------------------------------------------------------------------------


def test_stability_by_hand():
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    table = stability({"a": codes, "b": codes[:, ::-1], "c": codes})
    assert table["depth"].tolist() == [1, 1, 1, 2, 2, 2]
    assert table[["first", "second"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]] * 2
    # Two partitions of four items in pairs with no pair in common: (0 - 2 * 2 / 6) / (2 - 2 * 2 / 6) = -1 / 2.
    np.testing.assert_allclose(table["adjusted_rand"], [-0.5, 1, -0.5, np.nan, np.nan, np.nan])


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_renumbered_codes_are_the_same_prefixes(seed):
    generator = np.random.default_rng(seed)
    codes = generator.integers(5, size=(40, 3))
    renumbered = np.column_stack([generator.permutation(5)[codes[:, level]] for level in range(3)])
    points = generator.normal(size=(40, 4))
    table = stability({0: codes, 1: renumbered}, points)
    assert (table["adjusted_rand"].dropna() == 1).all()
    np.testing.assert_array_equal(table["neighbours_both"], table["neighbours_first"])


def test_unrelated_fits_agree_by_chance():
    generator = np.random.default_rng(0)
    fits = {seed: generator.integers(8, size=(2000, 1)) for seed in range(2)}
    row = stability(fits, generator.normal(size=(2000, 6))).iloc[0]
    assert abs(row["adjusted_rand"]) < 0.01
    assert row["neighbours_both"] == pytest.approx(row["neighbours_if_unrelated"], abs=0.005)


def test_stability_refuses_what_cannot_be_compared():
    codes = np.zeros((5, 2), dtype=int)
    with pytest.raises(ValueError, match="at least two fits"):
        stability({0: codes})
    with pytest.raises(ValueError, match="all of one shape"):
        stability({0: codes, 1: codes[:, :1]})
    with pytest.raises(ValueError, match="one embedding a row"):
        stability({0: codes, 1: codes}, np.ones((4, 2)), 2)


# --- by name --------------------------------------------------------------------------------------------------------


def test_a_quantizer_by_name_takes_the_options_it_knows():
    learned = new_quantizer("RQVAE", [8, 8], seed=3, epochs=7, progress=False)
    assert (learned.epochs, learned.seed, learned.codebook_sizes) == (7, 3, [8, 8])
    assert isinstance(new_quantizer("ResidualKMeans", [8], epochs=7), ResidualKMeans)
    with pytest.raises(ValueError, match=r"choose one of .*RQVAE"):
        new_quantizer("VQ", [8])
    with pytest.raises(ValueError, match=r"no quantizer has an option epoch$"):
        new_quantizer("RQVAE", [8], epoch=7)
