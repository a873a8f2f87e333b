from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from test_beam import MODELS, search

from trialign.decode import Trie, fates, mass_by_level, where_lost
from trialign.evaluate import ranking_metrics, summarize
from trialign.plots.beam_tree import beam_tree, percent
from trialign.plots.beams import (
    lost_by_level,
    mass_and_entropy,
    metric_intervals,
    ranks_when_lost,
    recommendation_strip,
)
from trialign.plots.style import figure_style

TITLE = "A $5 mug, \\alpha & <b>co</b> "


@pytest.fixture(scope="module")
def catalogue():
    """Titles that mathtext would choke on; item 0 has no image."""
    return SimpleNamespace(
        titles=[f"{TITLE}{row}" for row in range(60)],
        open_image=lambda row: None if row == 0 else Image.new("RGB", (40, 60), (4 * row, 90, 90)),
    )


@pytest.fixture(scope="module")
def found():
    table = np.array([[a, 6 + b, 12 + c] for a in range(4) for b in range(5) for c in range(3)])
    return search(MODELS["qwen3"], Trie.build(table), [[25, 26], [30]], beams=6, top_k=6, record=True)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def words(figure: Figure) -> list[str]:
    """Draw the figure, and return all that is written in it."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(Text)]


def test_tree_shows_items_best_first_and_marks_the_true_one(catalogue, found):
    written = words(beam_tree(found.records[0], found.items[0], catalogue, target=int(found.items[0, 1])))
    for rank, item in enumerate(found.items[0], start=1):
        assert f"{rank}. {catalogue.titles[item]}" in written
    marked = [text for text in written if "true next item" in text]
    assert marked == [f"{percent(float(np.exp(found.log_probabilities[0, 1])))}  true next item"]
    assert "level 3" in written and "level 4" not in written


def test_tree_does_not_count_masked_prefixes_as_pruned(catalogue):
    """Of the three first codes one is masked; of the two others a beam of one keeps one."""
    trie = Trie.build(np.array([[0, 6], [1, 7], [2, 8]]))
    answer = search(MODELS["qwen3"], trie, [[25]], beams=1, top_k=1, record=True, masked=[np.array([2])])
    written = words(beam_tree(answer.records[0], answer.items[0], catalogue))
    assert [text.split("\n")[0] for text in written if "alive ·" in text] == [
        "1 alive · 1 pruned",
        "1 alive · 0 pruned",
    ]


def test_tree_says_where_the_true_item_was_lost(catalogue, found):
    record = found.records[0]
    lost = {item: where_lost(record, item) for item in range(60) if item not in found.items[0]}
    for level in {fate.level for fate in lost.values()}:
        item, fate = next(entry for entry in lost.items() if entry[1].level == level)
        written = words(beam_tree(record, found.items[0], catalogue, target=item))
        assert f"true next item, pruned at level {level}: rank {fate.rank} there" in written
        assert catalogue.titles[item] in written


def test_target_below_the_shown_leaves_is_added(catalogue, found):
    written = words(beam_tree(found.records[1], found.items[1], catalogue, target=int(found.items[1, 5]), leaves=2))
    ranks = sorted(text[:2] for text in written if TITLE in text)
    assert ranks == ["1.", "2.", "6."]


def test_tree_without_items_is_refused(catalogue, found):
    with pytest.raises(ValueError, match="no item"):
        beam_tree(found.records[0], np.array([-1]), catalogue)


def test_strip_frames_the_hit(catalogue):
    hit = recommendation_strip(catalogue, np.arange(14), np.array([20, 21, -1]), 21, np.log([0.5, 0.25, 0.1]))
    written = words(hit)
    assert any(text.startswith("2.  (25%)\n") for text in written)
    assert "true next item" in written
    miss = recommendation_strip(catalogue, np.array([], dtype=int), np.array([20]), 21)
    words(miss)
    frames = [sum(len(axes.patches) for part in figure.subfigs for axes in part.axes) for figure in (hit, miss)]
    assert frames == [2, 1]


def test_intervals_have_a_panel_a_metric():
    ranked = np.argsort(np.random.default_rng(0).random((50, 20)))
    figure = metric_intervals(summarize({"a": ranking_metrics(ranked, np.arange(50) % 20)}))
    assert {"Recall@5", "NDCG@5", "Recall@10", "NDCG@10"} <= set(words(figure))


def test_lost_by_level_counts_every_user(found):
    table = fates(found.records, np.array([int(found.items[0, 0]), int(found.items[1, 2])]))
    table = pd.concat([table, pd.DataFrame({"status": ["pruned", "masked"], "level": [2, 1], "rank": [9, 0]})])
    written = words(lost_by_level(table))
    assert [text for text in written if "(" in text] == ["0%\n(0)", "25%\n(1)", "0%\n(0)", "25%\n(1)", "50%\n(2)"]


def test_mass_and_entropy_are_those_of_the_records(found):
    mass = mass_by_level(found.records)
    assert mass.groupby("user")["level"].apply(list).tolist() == [[1, 2, 3]] * 2
    np.testing.assert_allclose(mass.loc[mass["level"] == 3, "mass"], np.exp(found.log_probabilities).sum(axis=1))
    figure = mass_and_entropy(mass)
    assert "median and quartiles over 2 users" in words(figure)
    middle = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(middle, mass.groupby("level")["mass"].median())


def test_ranks_of_lost_items_are_drawn_by_level():
    table = pd.DataFrame({"status": ["pruned"] * 3 + ["found"], "level": [1, 1, 2, 3], "rank": [9, 30, 12, 1]})
    figure = ranks_when_lost(table, beams=6)
    written = words(figure)
    assert "pruned at level 1: 2 users, median rank 20" in written
    assert "pruned at level 2: 1 users, median rank 12" in written
    assert "6 beams" in written
    assert figure.axes[0].lines[0].get_xdata().tolist() == [9, 30]
    words(ranks_when_lost(table[3:], beams=6))


def test_ranks_of_more_levels_than_colours_are_all_drawn():
    levels = np.arange(1, 11)
    table = pd.DataFrame({"status": "pruned", "level": levels, "rank": 10 + levels})
    written = words(ranks_when_lost(table, beams=6))
    assert sum(text.startswith("pruned at") for text in written) == 10


def test_later_figures_of_a_notebook_are_shown_too():
    """Loading the notebook's backend, with the first figure, switches interactive mode on."""
    before = mpl.is_interactive()
    with figure_style():
        mpl.interactive(True)
    after = mpl.is_interactive()
    mpl.interactive(before)
    assert after


def test_percent_keeps_small_probabilities_apart():
    assert [percent(value) for value in (1, 0.9951, 0.0994, 0.0123, 0.00045, 1e-6, 0)] == [
        "100%", "100%", "9.9%", "1.2%", "0.045%", "<0.001%", "0%",
    ]  # fmt: skip
