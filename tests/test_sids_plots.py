"""Figures of Semantic IDs: they draw what the tables say, with untrusted names as plain text."""

import itertools
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trialign.plots import sids as plots
from trialign.plots.degradation import degradation_panels
from trialign.plots.diagnostics_page import diagnostics_page
from trialign.plots.prefix_map import Box, prefix_map, squarify
from trialign.plots.prefix_tree import prefix_mosaic, quantization_steps
from trialign.sids import ResidualKMeans, collisions, resolve_collisions
from trialign.sids.degradation import content_degradation
from trialign.sids.diagnose import diagnose
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
    assert legend_names(figure) == [*names, "any two items (×: times that)"]
    assert len(figure.axes[0].lines) == 2 * len(names)
    annotations = [text.get_text() for text in figure.axes[0].texts]
    assert annotations == (["40.0%\n4 ×", "0.0%"] if len(names) == 1 else [])


def test_layout_panels_name_at_most_eight_groups():
    generator = np.random.default_rng(0)
    layouts = {name: generator.normal(size=(60, 2)) for name in ("ours", "naive $")}
    scores = pd.DataFrame({"representation": list(layouts), "trustworthiness": 0.9, "silhouette": [0.1, np.nan]})
    categories = [NASTY[0]] * 15 + [f"category {row % 11}" for row in range(45)]
    everything = LayoutComparison(layouts, scores, np.arange(60), 60)
    figure = drawn(plots.layout_panels(everything, categories))
    names = legend_names(figure)
    assert len(names) == 9
    assert names[-1] == "other"
    assert names[0] == NASTY[0]
    assert "trustworthiness 0.900 · silhouette 0.100" in figure.axes[0].get_xlabel()
    points = sum(len(collection.get_offsets()) for collection in figure.axes[0].collections)
    assert points == 60
    assert figure.get_suptitle() == "t-SNE of all 60 items"
    few = drawn(plots.layout_panels(everything, ["a"] * 30 + ["b"] * 30))
    assert legend_names(few) == ["a", "b"]


def test_a_layout_of_a_sample_says_so_and_colours_the_right_items():
    layouts = {"ours": np.zeros((2, 2))}
    scores = pd.DataFrame({"representation": ["ours"], "trustworthiness": 0.9, "silhouette": 0.1})
    sample = LayoutComparison(layouts, scores, np.array([1, 3]), 1000)
    figure = drawn(plots.layout_panels(sample, ["a", "b"] * 500))
    assert legend_names(figure) == ["b"]
    assert figure.get_suptitle() == "t-SNE of 2 of 1,000 items, drawn at random; numbers are of these"


def test_prefix_mosaic_shows_the_largest_prefixes_and_asks_for_no_other_image():
    codes = np.array([[0, 0]] * 3 + [[1, 0]] * 2 + [[1, 1]] * 2 + [[2, 0]])
    asked = []

    def image(row):
        asked.append(row)
        return Image.new("RGB", (30, 60), "red") if row % 2 else None

    figure = drawn(prefix_mosaic(codes, image, prefixes=2, columns=4, titles=["$t_{", *"abcdefg"]))
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert labels == ["<a_1>", "4 items", "<a_0>", "3 items"]
    assert sorted(asked) == [0, 1, 2, 3, 4, 5, 6]
    assert "$t_{" in [axes.get_title() for axes in figure.axes]


def test_prefix_mosaic_of_two_codes_keeps_parents_together():
    codes = np.array([[0, 0]] * 3 + [[1, 0]] * 2 + [[1, 1]] * 3 + [[2, 0]])
    figure = drawn(prefix_mosaic(codes, [None] * 9, depth=2))
    labels = [text.get_text() for axes in figure.axes for text in axes.texts][::2]
    assert labels == ["<a_1><b_1>", "<a_1><b_0>", "<a_0><b_0>", "<a_2><b_0>"]


# --- one item, code by code -----------------------------------------------------------------------------------------


def test_the_steps_show_who_shares_each_prefix_nearest_first():
    embeddings = np.array([[1.0, 0.0], [0.8, 0.2], [0.9, 0.1], [0.0, 1.0]])
    quantizer = ResidualKMeans((2, 2)).fit(embeddings)
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0]])
    figure = drawn(quantization_steps(0, embeddings, quantizer, codes, [None] * 4, ["$a_{", "b", "c", "d"], columns=3))
    titles = [[axes.get_title() for axes in figure.axes[5 * row : 5 * row + 5]] for row in range(3)]
    assert titles == [["", "$a_{", "c", "b", "d"], ["", "$a_{", "c", "b", ""], ["", "$a_{", "b", "", ""]]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts[2] == "<a_0>"
    assert texts[3].endswith("2 other items with it")
    assert texts[4] == "<a_0><b_0>"
    assert texts[5].endswith("1 other item with them")
    assert figure.get_suptitle() == "$a_{, code by code"


# --- the map --------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.floats(0.5, 20), st.floats(0.5, 20))
def test_boxes_of_a_treemap_have_their_share_and_do_not_overlap(sizes, width, height):
    sizes = sorted(sizes, reverse=True)
    boxes = squarify(sizes, Box(1.0, 2.0, width, height))
    areas = np.array([box.width * box.height for box in boxes])
    np.testing.assert_allclose(areas, np.array(sizes) / sum(sizes) * width * height, rtol=1e-6)
    for box in boxes:
        assert box.x >= 1 - 1e-9
        assert box.y >= 2 - 1e-9
        assert box.x + box.width <= 1 + width + 1e-6
        assert box.y + box.height <= 2 + height + 1e-6
    for first, second in itertools.combinations(boxes, 2):
        across = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
        down = min(first.y + first.height, second.y + second.height) - max(first.y, second.y)
        assert min(across, down) < 1e-6


def test_equal_boxes_in_a_square_are_squares():
    assert all(box.width == pytest.approx(box.height) for box in squarify([1, 1, 1, 1], Box(0, 0, 2, 2)))


@pytest.mark.parametrize(("items", "images"), [(1, True), (12, True), (12, False), (12_000, True)])
def test_the_map_serves_few_and_many_items(items, images):
    generator = np.random.default_rng(0)
    codes = generator.integers((4, 6, 9) if items < 100 else (64, 64, 9), size=(items, 3))
    asked = []

    def image(row):
        asked.append(row)
        return Image.new("RGB", (8, 8), "red") if row % 2 else None

    figure = drawn(prefix_map(codes, image if images else None, NASTY * (items // 4) if items > 1 else None))
    cells = len(np.unique(codes[:, :2], axis=0))
    assert f"({cells:,} cells)" in figure.get_suptitle()
    assert len(figure.axes[0].collections[0].get_paths()) == cells
    assert len(asked) == len(set(asked)) == (0 if not images else min(items, 64))
    assert len(figure.axes[0].images) == images
    if items == 12_000:
        assert figure.axes[0].get_title(loc="left") == "64 images; no room for those of 11,936 items"
    if items > 1:
        assert legend_names(figure) == [*NASTY[:2], "a" * 27 + "…", "<b>&"]


def test_the_map_draws_at_most_so_many_images_those_of_large_cells_first():
    asked = []
    codes = np.array([[0, 0]] * 6 + [[0, 1]] * 2 + [[1, 0]] * 4)
    drawn(prefix_map(codes, lambda row: asked.append(row), most_images=8))
    assert asked == [0, 1, 2, 3, 4, 5, 8, 9]


def test_the_map_names_seven_categories_at_most():
    figure = drawn(prefix_map(np.zeros((9, 2), dtype=int), None, list("abcdefghi")))
    assert legend_names(figure) == [*"abcdefg", "other"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["<a_0> · 9", "<b_0>\n9"]


def test_the_map_of_one_level_has_areas_only():
    figure = drawn(prefix_map(np.array([[0], [0], [1]])))
    assert figure.get_suptitle() == "3 items by first code (2 areas)"


# --- the page and the degradation -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    generator = np.random.default_rng(0)
    categories = [f"${row % 3}" for row in range(60)]
    points = generator.normal(size=(3, 8))[np.arange(60) % 3] + generator.normal(size=(60, 8)) * 0.3
    scd = content_degradation(
        {"_a": points, "$b": points[:, :4]}, lambda seed: ResidualKMeans((6, 4), seed=seed), categories, progress=False
    )
    return points, categories, scd


def test_the_page_has_a_panel_for_each_subject(measured):
    points, categories, scd = measured
    quantizer = ResidualKMeans((6, 4)).fit(points)
    sids = resolve_collisions(quantizer.encode(points), (6, 4), [str(row) for row in range(60)])
    diagnostics = diagnose(points, quantizer, sids, categories, codes_by_seed=scd.codes["_a"])
    figure = drawn(diagnostics_page(diagnostics))
    titles = [
        "Reconstruction", "Use of the codes", "Items that share a SID", "Agreement of seeds", "10 nearest neighbours",
        "Categories (dashed: chance)", "What a linear probe reads",
    ]  # fmt: skip
    assert panel_titles(figure) == titles
    assert figure.get_suptitle() == "ResidualKMeans 6 × 4 on 60 items"
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), diagnostics.reconstruction["cosine"])
    assert figure.get_size_inches()[0] * figure.dpi <= 1280


def test_the_page_says_what_was_not_measured(measured):
    points, *_ = measured
    quantizer = ResidualKMeans((6, 4)).fit(points)
    figure = drawn(diagnostics_page(diagnose(points, quantizer, quantizer.encode(points)), "$mine"))
    assert figure.get_suptitle() == "$mine"
    assert sum(text.get_text() == "not measured" for axes in figure.axes for text in axes.texts) == 3


def test_degradation_panels_draw_means_intervals_and_seeds(measured):
    *_, scd = measured
    figure = drawn(degradation_panels(scd))
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert len(visible) == scd.table["measure"].nunique() == 5
    assert [label.get_text() for label in visible[0].get_yticklabels()] == ["_a", "$b"]
    seeds, intervals, means = visible[0].collections[:3]
    assert len(seeds.get_offsets()) == 6
    assert len(intervals.get_segments()) == 2
    cosine = scd.table[scd.table["measure"] == "cosine"]
    np.testing.assert_allclose(means.get_offsets()[:, 0], cosine["mean"])
    assert legend_names(figure)[0].startswith("mean of 3 seeds, 95 % interval")


def test_intervals_of_the_degradation_lie_inside_their_panel_and_shares_between_0_and_1(measured):
    *_, scd = measured
    wide = scd.table.assign(low=scd.table["mean"] - 3, high=scd.table["mean"] + 3)
    figure = drawn(degradation_panels(replace(scd, table=wide)))
    for axes, measure in zip(figure.axes, wide["measure"].unique()):
        ends = np.array([segment[:, 0] for segment in axes.collections[1].get_segments()])
        assert axes.get_xlim()[0] < ends.min()
        assert ends.max() < axes.get_xlim()[1]
        assert ends.max() == 1
        assert (ends.min() == 0) == (measure in {"items_colliding", "neighbours", "purity"})
