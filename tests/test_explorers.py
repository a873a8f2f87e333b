"""The explorers, driven as code: what they show is right, escaped, and stays small."""

import gc
import tracemalloc
from html.parser import HTMLParser

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest
from explorer_run import EVIL, explorers_of, make_run, read_run

from trialign.decode import where_lost
from trialign.explore.neighbours import Spaces
from trialign.explore.prefixes import PrefixTree, Terms
from trialign.explore.runs import explore_runs, runs_table
from trialign.explore.search_state import SearchState, fate_in_words, level_rows
from trialign.plots.parallel import parallel_coordinates


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def made(run):
    return read_run(run.folder)


@pytest.fixture
def explorers(made, tmp_path):
    return explorers_of(made, tmp_path / "judgements.jsonl")


class Texts(HTMLParser):
    """The texts of a page, and the tags that may do something."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.acting = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "iframe", "object", "link") or any(name.startswith("on") for name, _ in attrs):
            self.acting.append((tag, attrs))
        assert tag != "img" or dict(attrs)["src"].startswith("data:image/"), attrs

    def handle_data(self, data):
        self.texts.append(data)


def notes(grid):
    return [tile["note"] for tile in grid.tiles]


def test_every_still_picture_is_whole_and_harmless(explorers):
    for name, explorer in explorers.items():
        page = Texts(explorer.still())
        assert page.acting == [], name
        assert len(" ".join(page.texts)) > 100, name
    assert EVIL in Texts(explorers["desk"].still()).texts, "the harmful title is shown as what it is"


def test_no_widget_gets_an_untrusted_title_as_markup(explorers):
    for explorer in explorers.values():
        for part in all_parts(explorer):
            if isinstance(part, widgets.HTML):
                assert Texts(part.value).acting == []
            description = getattr(part, "description", "")
            assert "onerror" not in description, "descriptions are markup"


def all_parts(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from all_parts(child)


# --- semantic IDs


def test_walking_the_tree_keeps_to_the_prefix(explorers, made):
    view = explorers["sids"]
    assert sum(len(child.rows) for child in view._children) == len(made.catalogue.items)
    code = view.children_grid.tiles[0]["key"]
    view.children_grid.chosen = code
    assert view.prefix == [code]
    expected = np.flatnonzero(made.sids.codes[:, 0] == code)
    assert [tile["key"] for tile in view.items_grid.tiles] == expected.tolist()[: len(view.items_grid.tiles)]
    view.crumbs.children[0].click()
    assert view.prefix == []


def test_an_item_is_found_by_a_part_of_its_title_in_any_case(explorers, made):
    view = explorers["sids"]
    title = made.catalogue.titles[7]
    view.lookup.text.value = title.upper()
    row = view.lookup.matches.value or view.lookup.matches.options[1][1]
    view.lookup.matches.value = row
    assert made.catalogue.titles[row] == title
    assert view.details.row == row
    assert view.prefix == made.sids.codes[row, :1].tolist()
    view.lookup.text.value = "no such thing"
    assert view.lookup.matches.options[0][0] == "no such title"


def test_neighbours_agree_with_brute_force(made):
    spaces = Spaces(made.sids, made.embeddings, made.quantizer)
    unit = made.embeddings / np.linalg.norm(made.embeddings, axis=1, keepdims=True)
    expected = np.argsort(-(unit @ unit[5]), kind="stable")
    rows, cosines = spaces.by_embedding(5, 4)
    assert rows.tolist() == [row for row in expected if row != 5][:4]
    np.testing.assert_allclose(cosines, unit[rows] @ unit[5], rtol=1e-5)
    rows, shared = spaces.by_sid(5, 59)
    by_hand = [next((k for k, (a, b) in enumerate(zip(made.sids.codes[row], made.sids.codes[5])) if a != b), 2)
               for row in rows]  # fmt: skip
    assert [min(length, 2) for length in shared.tolist()] == by_hand
    assert (np.diff(shared) <= 0).all()
    own = made.sids.codes[5, :2].tolist()
    assert 5 in spaces.of_codes(own, 60)[0][spaces.of_codes(own, 60)[1] > 0.9999]


def test_another_code_is_said_to_exist_or_not(explorers, made):
    view = explorers["sids"]
    view.details.show(5)
    taken = {tuple(codes) for codes in made.sids.codes[:, :2].tolist()}
    for code in range(8):
        view.details.code.value = code
        exists = (code, int(made.sids.codes[5, 1])) in taken
        assert ("is that of no item" in view.details._changed.value) == (not exists)


def test_marking_terms_are_those_of_one_group():
    terms = Terms([["mug", "red"], ["mug", "blue"], ["mug"], ["hat", "red"], ["hat", "blue"], ["hat"]])
    assert terms.marking([np.arange(3), np.arange(3, 6)], most=3) == [["mug"], ["hat"]], "colours mark nobody"
    assert Terms([[], []]).marking([np.array([0]), np.array([1])], most=3) == [[], []]


def test_sids_of_other_items_are_refused(made):
    other = made.catalogue.select(np.arange(30))
    with pytest.raises(ValueError, match="other items"):
        PrefixTree(made.sids, other)
    with pytest.raises(ValueError, match="59 embeddings for 60 items"):
        Spaces(made.sids, made.embeddings[:59], made.quantizer)


# --- map


def test_choosing_by_text_fills_table_and_tiles(explorers, made):
    view = explorers["map"]
    view.search.value = "LAMP"
    expected = [row for row, title in enumerate(made.catalogue.titles) if "lamp" in title.lower()]
    assert expected
    assert view.chosen.tolist() == expected
    assert [tile["key"] for tile in view.tiles.tiles] == expected[:12]
    assert len(view.table._df) == len(expected)
    token = f"<a_{made.sids.codes[0, 0]}>"
    view.search.value = token
    assert (made.sids.codes[view.chosen, 0] == made.sids.codes[0, 0]).all(), "a prefix chooses its items"


def test_a_lasso_in_either_layout_chooses(explorers):
    view = explorers["map"]
    second = list(view.scatters.values())[1]
    second.widget.selection = np.array([3, 1], dtype=np.uint32)
    assert view.chosen.tolist() == [3, 1]
    assert "2 of 60 items" in view._count.value


def test_tooltips_have_the_image(explorers):
    view = explorers["map"]
    widget = next(iter(view.scatters.values())).widget
    sent = []
    widget.send = sent.append
    widget._handle_custom_msg({"type": "tooltip", "index": 0, "properties": ["title"], "preview": "title"}, [])
    (message,) = sent
    assert message["preview"].startswith("data:image/jpeg;base64,")
    assert message["properties"] == {"title": EVIL}, "set as text by the browser: see tests/browser"


def test_colours_are_named_in_words(explorers):
    view = explorers["map"]
    for name in view.colour.options:
        view.colour.value = name
        assert view._legend.value


def test_a_layout_of_other_items_is_refused(made):
    from trialign.explore.map import explore_map

    with pytest.raises(ValueError, match="layout 'one' has shape"):
        explore_map(made.catalogue, made.sids, {"one": np.zeros((3, 2), dtype=np.float32)})


# --- beams


def test_the_answer_is_that_of_the_recommender(explorers, made):
    view = explorers["beams"]
    view.user.value = 2
    expected = made.recommender.recommend([np.array(view.state.history)], beams=20, top_k=10, progress=False)
    assert [tile["key"] for tile in view.answer.tiles] == expected.items[0].tolist()
    assert [tile["title"] for tile in view.history.tiles] == [made.catalogue.titles[row] for row in view.state.history]


def test_masking_and_width_change_the_answer(explorers):
    view = explorers["beams"]
    view.beams.value = 50
    view.mask_seen.value = True
    assert not {tile["key"] for tile in view.answer.tiles} & set(view.state.history)
    view.beams.value = 1
    assert len(view.answer.tiles) == 1


def test_temperature_flattens(made):
    state = SearchState(made.recommender, 0, [1, 2, 3], beams=60, top_k=60)
    sharp = state.search()
    state.temperature = 3.0
    flat = state.search()
    assert flat.probabilities[0] < sharp.probabilities[0]
    assert flat.probabilities.sum() == pytest.approx(1, abs=1e-4)


def test_histories_are_edited_and_put_back(explorers):
    view = explorers["beams"]
    before = list(view.state.history)
    view.remove.click()
    assert "Choose an item" in view._message.value, "nothing is chosen yet"
    view.history.chosen = 1
    view.remove.click()
    assert view.state.history == before[:1] + before[2:]
    view.history.chosen = 1
    view.earlier.click()
    assert view.state.history[:2] == [before[2], before[0]]
    view.history.chosen = 0
    view.earlier.click()
    assert "no item on that side" in view._message.value
    view.replacement.text.value = "cushion"
    view.history.chosen = 0
    view.replacement.matches.value = view.replacement.matches.options[1][1]
    assert view.state.history[0] == view.replacement.matches.value
    view.reset.click()
    assert view.state.history == before


def test_each_level_says_where_the_true_item_is(made):
    state = SearchState(made.recommender, 7, [1, 2, 3], beams=2)
    answer = state.search()
    fate = where_lost(answer.record, 7)
    assert answer.fate == fate
    rows, summary = level_rows(answer, state, fate.level)
    (true,) = [row for row in rows if row.true]
    assert true.rank == fate.rank
    assert true.status == {"found": "alive"}.get(fate.status, fate.status)
    assert sum(row.status == "alive" for row in rows) == 2
    assert "2 prefixes alive" in summary
    assert "was " in fate_in_words(fate, "it")


def test_an_unknown_user_is_told(explorers):
    view = explorers["beams"]
    view.user_id.value = "nobody"
    assert "no user" in view._message.value


# --- runs


def test_runs_are_compared_by_what_differs(run):
    table, parameters = runs_table([run])
    assert parameters == []
    assert table["05_multitask_training.best validation NDCG@10"].tolist() == [0.1]
    with pytest.raises(ValueError, match="no runs"):
        runs_table([])


def test_a_failed_run_is_counted_and_the_best_is_named(explorers):
    view = explorers["runs"]
    assert "1 runs have no value" in view._message.value
    assert "0.08 with codebook_sizes = [32, 32], seed = 0" in view._message.value
    view.parameter.value = "seed"
    assert 'alt="06_beam_search.ndcg@10 against seed"' in view._figure.value


def test_runs_without_metrics_or_differences_are_told():
    with pytest.raises(ValueError, match="no metrics yet"):
        explore_runs(pd.DataFrame({"run": ["a"], "seed": [0]}), ["seed"])
    with pytest.raises(ValueError, match="no parameter differs"):
        parallel_coordinates(pd.DataFrame({"seed": [1, 1], "score": [0.1, 0.2]}), ["seed"], "score")


# --- all


def test_two_hundred_interactions_leave_no_memory_behind(explorers, made):
    sids, beams = explorers["sids"], explorers["beams"]

    def interact(times):
        for turn in range(times):
            beams.user.value = turn % 20
            sids.walk([int(code) for code in made.sids.codes[turn % 60, : turn % 2]])
            sids.details.show(turn % 60)

    interact(30)  # images and lazily made arrays
    gc.collect()
    tracemalloc.start()
    known = len(widgets.Widget.get_manager_state()["state"])
    interact(200)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 50e6
    assert len(widgets.Widget.get_manager_state()["state"]) <= known + 10, "replaced widgets are closed"
