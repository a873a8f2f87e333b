"""Content degradation: what separate embeddings of the same items lose, with intervals over seeds."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_1samp

from trialign.sids import ResidualKMeans
from trialign.sids.degradation import MEASURES, content_degradation, t_interval


def make_quantizer(seed):
    return ResidualKMeans((8, 8), seed=seed)


@pytest.fixture(scope="module")
def catalogue():
    """Colour is in the second embedding only."""
    generator = np.random.default_rng(0)
    brand, colour = generator.integers(4, size=120), generator.integers(4, size=120)
    text = generator.normal(size=(4, 12))[brand] + generator.normal(size=(120, 12)) * 0.2
    image = generator.normal(size=(4, 12))[colour] + generator.normal(size=(120, 12)) * 0.2
    items = pd.DataFrame({"brand": brand.astype(str), "colour": colour.astype(str)})
    truth = SimpleNamespace(items=items, where={"brand": "text", "colour": "image"})
    return {"text": text, "text + image": np.hstack([text, image])}, [f"b{value}" for value in brand], truth


def test_what_an_embedding_never_saw_is_lost_in_encoding(catalogue):
    representations, categories, truth = catalogue
    scd = content_degradation(representations, make_quantizer, categories, truth, progress=False)
    assert scd.table["representation"].unique().tolist() == list(representations)
    measures = ["cosine", "items_colliding", "neighbours", "purity", "recovered_image", "recovered_text"]
    assert scd.table["measure"].tolist() == measures * 2
    assert set(measures) <= set(MEASURES)
    before = scd.table.pivot_table(index="representation", columns="measure", values="embedding")
    assert abs(before.loc["text", "recovered_image"]) < 0.3
    assert before.loc["text + image", "recovered_image"] > 0.9
    assert scd.mean("text + image", "recovered_image") > 0.8 > 0.3 > scd.mean("text", "recovered_image")
    assert (scd.table["seeds"] == 3).all()
    assert (scd.table["low"] <= scd.table["mean"]).all()


def test_the_table_is_the_mean_of_its_seeds(catalogue):
    representations, categories, _ = catalogue
    scd = content_degradation(representations, make_quantizer, categories, seeds=[4, 5], progress=False)
    for row in scd.table.itertuples():
        values = scd.by_seed.query("representation == @row.representation and measure == @row.measure")["value"]
        assert row.mean == pytest.approx(values.mean())
    assert all(list(scd.codes[name]) == [4, 5] for name in representations)
    expected = make_quantizer(5).fit(representations["text"]).encode(representations["text"])
    np.testing.assert_array_equal(scd.codes["text"][5], expected)
    assert scd.wide().columns.tolist()[0] == "representation"
    assert " ± " in scd.wide()["cosine"].iloc[0]


def test_without_truth_the_category_is_probed(catalogue):
    representations, categories, _ = catalogue
    scd = content_degradation(representations, make_quantizer, categories, seeds=[0], progress=False)
    assert scd.mean("text", "recovered_category") > 0.8
    assert scd.table["low"].isna().all()
    assert scd.wide()["cosine"].str.fullmatch(r"0\.\d{3}").all()
    bare = content_degradation(representations, make_quantizer, seeds=[0], progress=False)
    assert bare.table["measure"].unique().tolist() == ["cosine", "items_colliding", "neighbours"]
    unlabelled = content_degradation(representations, make_quantizer, [""] * 120, seeds=[0], progress=False)
    assert "recovered_category" not in set(unlabelled.table["measure"])


def test_the_interval_is_students():
    values = np.array([0.2, 0.5, 0.3])
    mean, low, high = t_interval(values)
    reference = ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean, low, high], [1 / 3, reference.low, reference.high])
    half = t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    assert high - mean == pytest.approx(half)
    assert np.isnan(t_interval(np.array([1.0]))[1])


def test_representations_of_other_items_are_refused():
    with pytest.raises(ValueError, match="all of the same items"):
        content_degradation({"a": np.ones((9, 2)), "b": np.ones((8, 2))}, make_quantizer)
    with pytest.raises(ValueError, match="at least one seed"):
        content_degradation({"a": np.ones((9, 2))}, make_quantizer, seeds=[])
