"""Diagnostics: exact small cases, and agreement with plain reference computations."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy
from sklearn.linear_model import Ridge
from sklearn.model_selection import StratifiedKFold

from trialign.sids import ResidualKMeans
from trialign.sids.diagnostics import (
    category_purity,
    code_usage,
    cosines,
    gini,
    nearest_neighbours,
    neighbour_preservation,
    prefix_groups,
    reconstruction_by_depth,
)
from trialign.sids.layout import code_features, compare_layouts, layout, layout_scores
from trialign.sids.probes import PENALTY, compare_probes, probe_attributes, probe_targets, recovered_by_where


def test_reconstruction_by_depth_by_hand():
    quantizer = ResidualKMeans((1, 2))
    quantizer.codebooks_ = [np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0], [0.0, -1.0]], np.float32)]
    quantizer.n_features_in_ = 2
    embeddings = np.array([[1.0, 1.0], [1.0, -1.0]])
    codes = quantizer.encode(embeddings)
    assert codes.tolist() == [[0, 0], [0, 1]]
    with_suffix = np.column_stack([codes, [-1, -1]])
    for given_codes in (codes, with_suffix):
        table = reconstruction_by_depth(embeddings, quantizer, given_codes)
        assert table["level"].tolist() == [1, 2]
        np.testing.assert_allclose(table["cosine"], [np.sqrt(0.5), 1.0])
        np.testing.assert_allclose(table["relative_error"], [0.5, 0.0], atol=1e-12)
    with pytest.raises(ValueError, match="3 embeddings for 2 rows"):
        reconstruction_by_depth(np.ones((3, 2)), quantizer, codes)


def test_cosine_of_a_zero_vector_is_zero():
    assert cosines(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [3.0, 4.0]])).tolist() == [0.0, 1.0]


def test_code_usage_by_hand():
    codes = np.array([[0, 0], [1, -1], [2, 1], [3, -1]])
    table = code_usage(codes, (4, 8))
    assert table["items"].tolist() == [4, 2]
    assert table["used"].tolist() == [1.0, 0.25]
    np.testing.assert_allclose(table["entropy"], [2.0, 1.0])
    np.testing.assert_allclose(table["perplexity"], [4.0, 2.0])
    np.testing.assert_allclose(table["gini"], [0.0, 0.75])
    one = code_usage(np.zeros((5, 1), dtype=int), (10,)).iloc[0]
    assert (one["perplexity"], one["entropy"]) == (1.0, 0.0)
    assert one["gini"] == pytest.approx(0.9)
    with pytest.raises(ValueError, match="one size a level"):
        code_usage(codes, (4,))
    with pytest.raises(ValueError, match="outside its codebook"):
        code_usage(codes, (3, 8))


@settings(max_examples=60)
@given(arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 50)).filter(lambda counts: counts.sum() > 0))
def test_usage_agrees_with_reference_formulas(counts):
    codes = np.repeat(np.arange(len(counts)), counts)[:, None]
    row = code_usage(codes, (len(counts),)).iloc[0]
    assert row["entropy"] == pytest.approx(entropy(counts, base=2), abs=1e-9)
    assert 1 - 1e-9 <= row["perplexity"] <= len(counts) + 1e-6
    mean_difference = np.abs(counts[:, None] - counts).mean()
    assert gini(counts) == pytest.approx(mean_difference / (2 * counts.mean()), abs=1e-9)


def test_nearest_neighbours_agree_with_brute_force():
    points = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    np.testing.assert_array_equal(nearest_neighbours(points, 5), np.argsort(-similarity, axis=1)[:, :5])


def test_no_item_is_its_own_neighbour_even_among_equals():
    found = nearest_neighbours(np.ones((9, 3)), 4)
    assert found.shape == (9, 4)
    assert (found != np.arange(9)[:, None]).all()


def test_neighbour_preservation_by_hand():
    """Two tight groups of three; codes keep the first group together and split the second."""
    angles = np.array([0.0, 0.01, 0.02, 1.5, 1.51, 1.52])
    embeddings = np.column_stack([np.cos(angles), np.sin(angles)])
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [1, 2]])
    table = neighbour_preservation(embeddings, codes, neighbours=2)
    assert table["depth"].tolist() == [1, 2]
    np.testing.assert_allclose(table["preserved"], [1.0, 2 / 12])
    np.testing.assert_allclose(table["chance"], [6 / 15, 1 / 15])
    np.testing.assert_allclose(table["lift"], [2.5, 2.5])
    apart = neighbour_preservation(embeddings, np.arange(6)[:, None], neighbours=2)
    assert apart["preserved"].item() == 0
    assert np.isnan(apart["lift"].item())
    with pytest.raises(ValueError, match="between 1 and 5"):
        neighbour_preservation(embeddings, codes, neighbours=6)


def test_random_codes_preserve_neighbours_by_chance():
    generator = np.random.default_rng(0)
    table = neighbour_preservation(generator.normal(size=(800, 8)), generator.integers(4, size=(800, 2)))
    np.testing.assert_allclose(table["lift"], 1.0, atol=0.15)


def test_category_purity_by_hand():
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1]])
    table = category_purity(codes, ["mug", "mug", "lamp", "lamp", "lamp"])
    assert table["prefixes"].tolist() == [2, 4]
    np.testing.assert_allclose(table["purity"], [4 / 5, 1.0])
    np.testing.assert_allclose(table["pair_agreement"], [2 / 4, 1.0])
    np.testing.assert_allclose(table["pair_chance"], [4 / 10, 4 / 10])
    assert (table["purity_chance"] <= 1).all()
    assert table["purity_chance"].iloc[0] < table["purity_chance"].iloc[1]
    single = category_purity(np.arange(3)[:, None], ["a", "b", "a"])
    assert single["purity"].item() == single["purity_chance"].item() == 1.0
    assert np.isnan(single["pair_agreement"].item())
    with pytest.raises(ValueError, match="one category a row"):
        category_purity(codes, ["mug"])


def test_prefix_groups_refine():
    codes = np.random.default_rng(0).integers(3, size=(50, 3))
    groups = prefix_groups(codes)
    for shallow, deep in itertools.pairwise(groups):
        assert pd.DataFrame({"deep": deep, "shallow": shallow}).groupby("deep")["shallow"].nunique().max() == 1


# --- probes ---------------------------------------------------------------------------------------------------------

ATTRIBUTES = {"colour": "image", "brand": "text", "noise": "both"}


@pytest.fixture(scope="module")
def known():
    """Colour lies in the first half of the vectors, brand in the second, noise nowhere."""
    generator = np.random.default_rng(0)
    values = {"colour": generator.integers(4, size=240), "brand": generator.integers(3, size=240)}
    image = generator.normal(size=(4, 20))[values["colour"]] + generator.normal(size=(240, 20)) * 0.4
    text = generator.normal(size=(3, 20))[values["brand"]] + generator.normal(size=(240, 20)) * 0.4
    truth = pd.DataFrame({name: [f"{name} {value}" for value in codes] for name, codes in values.items()})
    truth["noise"] = generator.choice(["a", "a", "b"], size=240)
    return image, text, truth


def test_probes_find_what_is_there_and_nothing_else(known):
    image, text, truth = known
    table = compare_probes({"both": np.hstack([image, text]), "text": text}, truth, ATTRIBUTES)
    assert table["representation"].tolist() == ["both"] * 3 + ["text"] * 3
    recovered = table.pivot_table(index="representation", columns="attribute", values="recovered")
    assert recovered.loc["both", ["colour", "brand"]].min() > 0.9
    assert recovered.loc["text", "brand"] > 0.9
    assert abs(recovered.loc["text", "colour"]) < 0.25
    assert (recovered["noise"] < 0.15).all()
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()
    np.testing.assert_allclose(
        table["recovered"], (table["accuracy"] - table["majority"]) / (1 - table["majority"]), atol=1e-12
    )
    means = recovered_by_where(table)
    assert means.columns.tolist() == ["image", "text", "both"]
    assert means.loc["text", "image"] == pytest.approx(recovered.loc["text", "colour"])


def test_probes_leave_out_unknown_and_rare_values(known):
    _, text, truth = known
    changed = truth.copy()
    changed.loc[:9, "brand"] = ""
    changed.loc[10:12, "brand"] = "rare"
    changed.loc[13:14, "brand"] = None
    row = probe_attributes(text, changed, {"brand": "text"}).iloc[0]
    assert (row["items"], row["values"]) == (225, 3)
    expected = changed["brand"].iloc[15:].value_counts(normalize=True).iloc[0]
    assert row["majority"] == pytest.approx(expected)


def test_probes_agree_with_scikit_learns_ridge_on_the_same_folds(known):
    image, _, truth = known
    centred = image - image.mean(axis=0)
    centred /= np.sqrt((centred**2).sum(axis=1).mean())
    labels = truth["colour"].factorize()[0]
    hits = np.zeros(len(labels), dtype=bool)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=1).split(centred, truth["colour"]):
        fitted = Ridge(alpha=PENALTY).fit(centred[train], np.eye(labels.max() + 1)[labels[train]])
        hits[test] = fitted.predict(centred[test]).argmax(axis=1) == labels[test]
    row = probe_attributes(image, truth, {"colour": "image"}, seed=1).iloc[0]
    assert row["accuracy"] == pytest.approx(hits.mean())


def test_probes_do_not_care_for_turns_lengths_and_empty_columns(known):
    image, _, truth = known
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0]
    changed = np.hstack([image @ turn * 7 + 3, np.zeros((240, 5))])
    pair = [probe_attributes(vectors, truth, {"colour": "image"}) for vectors in (image, changed)]
    pd.testing.assert_frame_equal(*pair)


def test_what_can_be_probed(known):
    _, _, truth = known
    targets = probe_targets(SimpleNamespace(items=truth, where=ATTRIBUTES), ["x"] * 240)
    assert targets[1] == ATTRIBUTES
    table, where = probe_targets(None, ["a", "b", ""] * 80)
    assert where == {"category": "category"}
    assert table["category"].tolist()[:3] == ["a", "b", ""]
    assert probe_targets(None, ["a", ""] * 120) is None
    assert probe_targets(None, None) is None


def test_probes_are_repeatable_and_refuse_bad_input(known):
    image, _, truth = known
    pair = [probe_attributes(image, truth, {"colour": "image"}, seed=3) for _ in range(2)]
    pd.testing.assert_frame_equal(*pair)
    with pytest.raises(ValueError, match="240 embeddings for 239 rows"):
        probe_attributes(image, truth.iloc[1:], ATTRIBUTES)
    with pytest.raises(ValueError, match="no column 'shape'"):
        probe_attributes(image, truth, {"shape": "image"})
    with pytest.raises(ValueError, match="'colour' has fewer than two values"):
        probe_attributes(image, truth.assign(colour="red"), {"colour": "image"})


# --- layouts --------------------------------------------------------------------------------------------------------


def groups_of_points(items=90, groups=3, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(items) % groups
    return generator.normal(size=(groups, 12))[labels] * 3 + generator.normal(size=(items, 12)) * 0.3, labels


def test_layouts_keep_groups_apart_and_numbers_tell_good_from_bad():
    points, labels = groups_of_points()
    noise = np.random.default_rng(1).normal(size=points.shape)
    comparison = compare_layouts(points, {"good": points, "bad": noise}, [f"g{label}" for label in labels])
    scores = comparison.scores.set_index("representation")
    assert list(comparison.layouts) == ["good", "bad"]
    assert scores.loc["good", "trustworthiness"] > 0.9 > scores.loc["bad", "trustworthiness"]
    assert scores.loc["good", "silhouette"] > 0.5 > scores.loc["bad", "silhouette"]
    positions = comparison.layouts["good"]
    assert (positions.shape, positions.dtype) == ((90, 2), np.float32)
    np.testing.assert_array_equal(layout(points), positions)


@pytest.mark.parametrize("items", [5, 7, 31])
def test_few_items_lower_the_perplexity(items):
    points, labels = groups_of_points(items)
    positions = layout(points)
    assert np.isfinite(positions).all()
    assert np.isfinite(layout_scores(points, positions, labels)["trustworthiness"])


def test_a_large_catalogue_is_sampled_alike_for_all_layouts():
    points, labels = groups_of_points()
    both = {"good": points, "again": points.copy()}
    comparison = compare_layouts(points, both, labels.astype(str), seed=3, items=40)
    assert (len(comparison.rows), comparison.total) == (40, 90)
    assert (np.diff(comparison.rows) > 0).all()
    np.testing.assert_array_equal(comparison.layouts["good"], layout(points[comparison.rows], seed=3))
    np.testing.assert_array_equal(comparison.layouts["good"], comparison.layouts["again"])
    assert comparison.caption == "40 of 90 items, drawn at random; numbers are of these"
    whole = compare_layouts(points, {"good": points}, labels.astype(str))
    assert whole.caption == "all 90 items"
    with pytest.raises(ValueError, match="'good' has other rows than the 90 embeddings"):
        compare_layouts(points, {"good": points[1:]}, labels.astype(str))


def test_layout_edges():
    points, _ = groups_of_points(20)
    assert layout(points[:, :1]).shape == (20, 2)
    assert np.isnan(layout_scores(points, layout(points), ["same"] * 20)["silhouette"])
    with pytest.raises(ValueError, match="at least 5 items; got 4"):
        layout(points[:4])
    with pytest.raises(ValueError, match="one row an item"):
        layout_scores(points, np.zeros((20, 2)), ["a"])


def test_code_features_weigh_early_codes_more():
    features = code_features(np.array([[1, 0, -1], [0, 1, 1]]), (2, 2, 2))
    assert features.tolist() == [[0, 1, 0.5, 0, 0, 0], [1, 0, 0, 0.5, 0, 0.25]]


def test_items_without_a_known_category_say_nothing_about_purity():
    codes = np.array([[0], [0], [0], [1], [1]])
    table = category_purity(codes, ["", "", "", "a", "b"])
    assert table[["prefixes", "purity", "pair_agreement"]].to_numpy().tolist() == [[1, 0.5, 0.0]]
    unknown = category_purity(codes, [""] * 5)
    assert unknown["prefixes"].tolist() == [0]
    assert unknown[["purity", "purity_chance", "pair_agreement", "pair_chance"]].isna().all(axis=None)
