"""Figures of Semantic IDs: they draw what the tables say, with untrusted names as plain text."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trialign.plots import sids as plots
from trialign.sids import collisions
from trialign.sids.layout import LayoutComparison

NASTY = ["_hidden", "$x^{", "a" * 80, "<b>&"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(figure):
    figure.canvas.draw()
    return figure


def legend_names(figure):
    legend = figure.legends[0] if figure.legends else figure.axes[0].get_legend()
    return [text.get_text().lstrip("\u200b") for text in legend.get_texts()]


def panel_titles(figure):
    return [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]


def test_loss_curves():
    loss = pd.DataFrame({"epoch": [1, 2], "reconstruction": [0.4, 0.2], "commitment": [0.3, 0.1], "restarted": [1, 0]})
    figure = drawn(plots.loss_curves(loss))
    assert panel_titles(figure) == ["Reconstruction loss", "Commitment loss"]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.4, 0.2]


def test_reconstruction_curves_name_every_curve():
    table = pd.DataFrame({"level": [1, 2], "cosine": [0.7, 0.9], "relative_error": [0.5, 0.2]})
    figure = drawn(plots.reconstruction_curves(dict.fromkeys(NASTY, table)))
    assert legend_names(figure) == NASTY
    assert figure.axes[1].lines[0].get_ydata().tolist() == [0.5, 0.2]


def test_code_usage_panels():
    codes = np.array([[0, 1, 0], [0, 2, 1], [1, 2, -1]])
    figure = drawn(plots.code_usage_bars(codes, (4, 4, 2), levels=2))
    assert panel_titles(figure) == ["Level 1", "Level 2", "Suffix"]
    assert "50% of 4 used" in figure.axes[0].texts[0].get_text()
    assert figure.axes[0].patches[0].get_data()[0].tolist() == [2, 1, 0, 0]


def test_collision_bars():
    stages = {"raw": collisions(np.array([[0], [0], [1]])), "$suffix": collisions(np.array([[0], [1], [2]]))}
    figure = drawn(plots.collision_bars(stages))
    np.testing.assert_allclose([bar.get_width() for bar in figure.axes[0].patches], [200 / 3, 0])
    assert [bar.get_width() for bar in figure.axes[1].patches] == [2, 1]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["raw", "$suffix"]


@pytest.mark.parametrize("names", [["one"], ["one", "$two"]])
def test_neighbour_curves(names):
    table = pd.DataFrame({"depth": [1, 2], "preserved": [0.4, 0.0], "chance": [0.1, 0.0], "lift": [4.0, np.nan]})
    figure = drawn(plots.neighbour_curves(dict.fromkeys(names, table)))
    assert legend_names(figure) == [*names, "any two items (chance)"]
    assert len(figure.axes[0].lines) == 2 * len(names)
    annotations = [text.get_text() for text in figure.axes[0].texts]
    assert annotations == (["40.0%\n4 × chance", "0.0%"] if len(names) == 1 else [])


def test_layout_panels_name_at_most_eight_groups():
    generator = np.random.default_rng(0)
    layouts = {name: generator.normal(size=(60, 2)) for name in ("ours", "naive $")}
    scores = pd.DataFrame({"representation": list(layouts), "trustworthiness": 0.9, "silhouette": [0.1, np.nan]})
    categories = [NASTY[0]] * 15 + [f"category {row % 11}" for row in range(45)]
    figure = drawn(plots.layout_panels(LayoutComparison(layouts, scores), categories))
    names = legend_names(figure)
    assert len(names) == 9
    assert names[-1] == "other"
    assert names[0] == NASTY[0]
    assert "trustworthiness 0.900 · silhouette 0.100" in figure.axes[0].get_xlabel()
    points = sum(len(collection.get_offsets()) for collection in figure.axes[0].collections)
    assert points == 60
    few = drawn(plots.layout_panels(LayoutComparison(layouts, scores), ["a"] * 30 + ["b"] * 30))
    assert legend_names(few) == ["a", "b"]


def test_probe_bars_are_grouped_by_where():
    rows = [
        {"representation": name, "attribute": attribute, "where": where, "accuracy": accuracy, "majority": 0.2}
        for name, accuracy in (("embedding", 0.9), ("$from SIDs", 0.6))
        for attribute, where in (("brand", "text"), ("colour", "image"), ("shape", "image"))
    ]
    probes = pd.DataFrame(rows).assign(low=lambda table: table["accuracy"] - 0.1, high=lambda table: table["accuracy"])
    figure = drawn(plots.probe_bars(probes))
    assert panel_titles(figure) == ["In the image only", "In the text only"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["colour", "shape"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.9, 0.9, 0.6, 0.6]
    assert legend_names(figure) == ["embedding", "$from SIDs", "majority"]


def test_prefix_mosaic_shows_the_largest_prefixes_and_asks_for_no_other_image():
    codes = np.array([[0, 0]] * 3 + [[1, 0]] * 2 + [[1, 1]] * 2 + [[2, 0]])
    asked = []

    def image(row):
        asked.append(row)
        return Image.new("RGB", (30, 60), "red") if row % 2 else None

    figure = drawn(plots.prefix_mosaic(codes, image, prefixes=2, columns=4, titles=["$t_{", *"abcdefg"]))
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert labels == ["<a_1>", "4 items", "<a_0>", "3 items"]
    assert sorted(asked) == [0, 1, 2, 3, 4, 5, 6]
    assert "$t_{" in [axes.get_title() for axes in figure.axes]


def test_prefix_mosaic_of_two_codes_keeps_parents_together():
    codes = np.array([[0, 0]] * 3 + [[1, 0]] * 2 + [[1, 1]] * 3 + [[2, 0]])
    figure = drawn(plots.prefix_mosaic(codes, [None] * 9, depth=2))
    labels = [text.get_text() for axes in figure.axes for text in axes.texts][::2]
    assert labels == ["<a_1><b_1>", "<a_1><b_0>", "<a_0><b_0>", "<a_2><b_0>"]
