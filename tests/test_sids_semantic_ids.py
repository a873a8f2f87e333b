"""Semantic IDs of a catalogue: both directions, tokens, files, and the index JSON of other systems."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign.sids import SemanticIds
from trialign.sids.semantic_ids import level_letters, token


def example():
    codes = np.array([[12, 3, 7, 0], [12, 3, 7, 1], [12, 5, 0, -1], [0, 3, 7, -1]])
    return SemanticIds(["p1", "p2", "p3", "ä b"], codes, (16, 8, 8, 2), 3, {"method": "suffix"})


def test_items_to_codes_and_back():
    sids = example()
    assert sids.codes_of("p2") == (12, 3, 7, 1)
    assert sids.codes_of("p3") == (12, 5, 0)
    for row, item_id in enumerate(sids.item_ids):
        assert sids.items_of(sids.codes_of(item_id)).tolist() == [row]
    assert sids.items_of([12, 3, 7]).tolist() == [0, 1]
    assert sids.items_of([12]).tolist() == [0, 1, 2]
    assert sids.items_of([12, 5, 0, -1]).tolist() == [2]
    assert sids.items_of([9]).tolist() == []
    assert sids.items_of([9]).dtype == np.int64
    assert (len(sids), sids.depth, sids.levels) == (4, 4, 3)
    with pytest.raises(ValueError, match="no item 'p9'"):
        sids.codes_of("p9")


def test_tokens():
    sids = example()
    assert sids.tokens(0) == ["<a_12>", "<b_3>", "<c_7>", "<d_0>"]
    assert sids.tokens(2) == ["<a_12>", "<b_5>", "<c_0>"]
    assert [level_letters(level) for level in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        "a", "z", "aa", "ab", "az", "ba", "zz", "aaa",
    ]  # fmt: skip
    assert len({token(level, code) for level in range(64) for code in range(3)}) == 64 * 3


def test_the_table_names_its_columns():
    table = example().table()
    assert table.columns.tolist() == ["item_id", "level_1", "level_2", "level_3", "suffix"]
    assert table["suffix"].tolist() == [0, 1, -1, -1]


def test_save_and_load_round_trip(tmp_path):
    sids = example()
    loaded = SemanticIds.load(sids.save(tmp_path / "sids"))
    assert loaded.item_ids == sids.item_ids
    assert loaded.codebook_sizes == (16, 8, 8, 2)
    assert (loaded.levels, dict(loaded.resolution)) == (3, {"method": "suffix"})
    np.testing.assert_array_equal(loaded.codes, sids.codes)
    assert pd.read_parquet(tmp_path / "sids" / "semantic_ids.parquet")["item_id"].tolist() == sids.item_ids


def test_codes_are_a_protected_copy():
    codes = np.array([[1, 2], [0, 1]])
    sids = SemanticIds(["a", "b"], codes, (4, 4), 2)
    codes[0, 0] = 3
    assert sids.codes_of("a") == (1, 2)
    with pytest.raises(ValueError, match="read-only"):
        sids.codes[0, 0] = 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], [[0, 0], [0, 1]], (2, 2), 2), "shape"),
        ((["a", "b"], [[0, 0], [0, 1]], (2, 2, 2), 2), "shape"),
        ((["a", "a"], [[0, 0], [0, 1]], (2, 2), 2), "occur twice, e.g. 'a'"),
        ((["a", "b"], [[0, 0], [0, 2]], (2, 2), 2), "'b' .row 1. has code 2 at level 2"),
        ((["a", "b"], [[0, -1], [0, 1]], (2, 2), 2), "'a' .row 0. has code -1 at level 2"),
        ((["a", "b"], [[-1, -1], [0, 1]], (2, 2), 1), "'a' .row 0. has code -1 at level 1"),
        ((["a", "b"], [[0, -2], [0, 1]], (2, 2), 1), "code -2 at level 2"),
        ((["a"], [[0, 0, 0]], (2, 2, 2), 1), "at most one suffix level"),
    ],
)
def test_inconsistent_ids_are_refused(arguments, message):
    item_ids, codes, sizes, levels = arguments
    with pytest.raises(ValueError, match=message):
        SemanticIds(item_ids, np.array(codes), sizes, levels)


def test_index_json_round_trip(tmp_path):
    sids = example()
    path = sids.to_index(tmp_path / "index.json")
    assert json.loads(path.read_text(encoding="utf-8"))["p1"] == ["<a_12>", "<b_3>", "<c_7>", "<d_0>"]
    back = SemanticIds.from_index(path, codebook_sizes=(16, 8, 8, 2))
    assert (back.item_ids, back.levels, back.codebook_sizes) == (sids.item_ids, 3, (16, 8, 8, 2))
    np.testing.assert_array_equal(back.codes, sids.codes)
    assert SemanticIds.from_index(path).codebook_sizes == (13, 6, 8, 2)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.tuples(*[st.integers(0, 300)] * 3), min_size=1, max_size=20))
def test_any_index_survives_import_and_export(tmp_path_factory, index):
    path = tmp_path_factory.mktemp("index") / "index.json"
    sids = SemanticIds(list(index), np.array(list(index.values())), (301, 301, 301), 3)
    back = SemanticIds.from_index(sids.to_index(path))
    assert back.item_ids == list(index)
    np.testing.assert_array_equal(back.codes, sids.codes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must hold an object"),
        ("{}", "at least one item"),
        ('{"x": ["<a_1>", "<c_2>"]}', "item 'x': token 2 is '<c_2>'; it must look like <b_0>"),
        ('{"x": ["a_1"]}', "must look like <a_0>"),
        ('{"x": [3]}', "token 1 is 3"),
        ('{"x": []}', "0 to 0 tokens"),
        ('{"x": ["<a_1>"], "y": ["<a_1>", "<b_1>", "<c_1>"]}', "1 to 3 tokens"),
    ],
)
def test_malformed_index_files_are_refused(tmp_path, text, message):
    path = tmp_path / "index.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        SemanticIds.from_index(path)


def test_missing_or_mixed_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"semantic_ids\.parquet is missing"):
        SemanticIds.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="index JSON"):
        SemanticIds.from_index(tmp_path / "none.json")
    example().save(tmp_path)
    pd.read_parquet(tmp_path / "semantic_ids.parquet").iloc[:2].to_parquet(tmp_path / "semantic_ids.parquet")
    with pytest.raises(ValueError, match=r"has 2 items, .* says 4"):
        SemanticIds.load(tmp_path)
