"""Semantic IDs of a catalogue: both directions, tokens, files, and the index JSON of other systems."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign.decode.trie import Trie
from trialign.sids import ResidualKMeans, SemanticIds, resolve_collisions
from trialign.sids.extension import extend
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


def test_an_index_of_plain_codes_and_numbered_items_is_read(tmp_path):
    path = tmp_path / "index.json"
    path.write_text('\ufeff{"0": [1, 5, 0], "10": [1, 5, 0, 2], "2": [0, 7, 3]}', encoding="utf-8")
    sids = SemanticIds.from_index(path)
    assert (sids.item_ids, sids.levels, sids.codebook_sizes) == (["0", "10", "2"], 3, (2, 8, 4, 3))
    assert sids.codes_of("10") == (1, 5, 0, 2)
    assert sids.codes_of("2") == (0, 7, 3)
    with pytest.raises(ValueError, match=r"index\.json: item '0' .row 0. has code 5 at level 2, outside"):
        SemanticIds.from_index(path, codebook_sizes=(2, 5, 4, 3))


def test_item_ids_of_any_script_with_quotes_and_of_any_length_survive_files(tmp_path):
    item_ids = ["日本語", 'say "hi"', "it's\\back", "tab\tline\nbreak", "x" * 100_000, "🎈", " "]
    sids = SemanticIds(item_ids, np.arange(len(item_ids))[:, None], (len(item_ids),), 1)
    for back in (SemanticIds.load(sids.save(tmp_path)), SemanticIds.from_index(sids.to_index(tmp_path / "i.json"))):
        assert back.item_ids == item_ids
        np.testing.assert_array_equal(back.codes, sids.codes)


def test_some_items_in_another_order_keep_their_sids():
    sids = example()
    chosen = sids.select(["ä b", "p2"])
    assert (chosen.item_ids, chosen.codebook_sizes) == (["ä b", "p2"], sids.codebook_sizes)
    assert [chosen.codes_of(item_id) for item_id in chosen.item_ids] == [(0, 3, 7), (12, 3, 7, 1)]
    with pytest.raises(ValueError, match=r"1 items have no SID among these 4 items, e\.g\. 'p9'"):
        sids.select(["p1", "p9"])


@settings(max_examples=50)
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
        ('{"x": []}', "0 to 0 tokens"),
        ('{"x": ["<a_1>"], "y": ["<a_1>", "<b_1>", "<c_1>"]}', "1 to 3 tokens, as items 'x' and 'y'"),
        ('{"x": ["<a_1>"], "y": ["<a_2>"], "x": ["<a_3>"]}', r"item 'x' is there twice, as .*<a_1>.* and .*<a_3>"),
        ('{"x": [1, "<b_2>"]}', "item 'x': token 1 is 1; it must look like <a_0>"),
        ('{"x": [1, -1]}', "item 'x': code 2 is -1; codes are 0 or more"),
        ('{"x": [true]}', "token 1 is True"),
        ('{"x": [1.5]}', "token 1 is 1.5"),
        ('{"x": ["<a_12345678901>"]}', "item 'x': token 1 is '<a_12345678901>'; a code has at most 9 digits"),
        ('{"x": "<a_1><b_2>"}', "item 'x': its SID is \"<a_1><b_2>\"; it must be a list"),
        ('{"x": {"sid": [1]}}', "its SID is {.*}; it must be a list"),
        ('{"x": ["<a_1>"', r"index\.json is not readable as JSON"),
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


def grid_quantizer():
    """Codes (a, b) stand for the point 10 a + b, so every nearest tuple is plain."""
    quantizer = ResidualKMeans((3, 4))
    quantizer.codebooks_ = [np.array([[0], [10], [20]], np.float32), np.array([[0], [1], [2], [3]], np.float32)]
    quantizer.n_features_in_ = 1
    return quantizer


def points(*values):
    return np.array(values, dtype=np.float32)[:, None]


def test_extending_by_hand_with_suffixes():
    """(0, 1) is open with suffixes 0 and 1; (1, 2) is closed, and 11 and 13 are its nearest free neighbours."""
    old = SemanticIds(["a", "b", "c"], np.array([[0, 1, 0], [0, 1, 1], [1, 2, -1]]), (3, 4, 2), 2)
    quantizer, embeddings = grid_quantizer(), points(1.0, 12.2, 20.0, 1.1, 12.1, 23.0, 20.1)
    codes = quantizer.encode(embeddings)
    new = extend(old, ["d", "e", "f", "g", "h", "i", "j"], codes, quantizer, embeddings)
    assert {item_id: new.codes_of(item_id) for item_id in new.item_ids} == {
        "a": (0, 1, 0), "b": (0, 1, 1), "c": (1, 2),
        "d": (0, 1, 2), "g": (0, 1, 3),  # the next free suffixes
        "e": (1, 3), "h": (1, 1),  # moved, in row order: 13 is nearer to 12.2 than 11
        "f": (2, 0, 0), "j": (2, 0, 1), "i": (2, 3),  # new tuples
    }  # fmt: skip
    assert new.codebook_sizes == (3, 4, 4)
    assert dict(new.resolution) == {"items_added": 7, "items_added_moved": 2}
    Trie.build(new.codes)
    with pytest.raises(ValueError, match="2 new items have the codes of an item whose SID has no suffix"):
        extend(old, ["d", "e", "f", "g", "h", "i", "j"], codes)


def test_extending_adds_a_suffix_level_only_where_new_items_share_codes():
    old = SemanticIds(["a"], np.array([[0, 1]]), (3, 4), 2, {"method": "suffix"})
    assert extend(old, ["b", "c"], np.array([[0, 2], [0, 3]])).depth == 2
    new = extend(old, ["b", "c"], np.array([[0, 2], [0, 2]]))
    assert new.codes.tolist() == [[0, 1, -1], [0, 2, 0], [0, 2, 1]]
    assert new.codebook_sizes == (3, 4, 2)


def test_extending_by_hand_without_suffixes():
    old = SemanticIds(["a"], np.array([[1, 2]]), (3, 4), 2, {"method": "reassign", "squared_error_after": 0.5})
    quantizer, embeddings = grid_quantizer(), points(12.0, 20.0, 20.2)
    new = extend(old, ["b", "c", "d"], quantizer.encode(embeddings), quantizer, embeddings)
    assert new.codes.tolist() == [[1, 2], [1, 1], [2, 0], [2, 1]]
    plain = extend(old, ["b", "c", "d"], quantizer.encode(embeddings), method="none")
    assert plain.codes.tolist() == [[1, 2], [1, 2], [2, 0], [2, 0]]


def test_extending_refuses_what_it_cannot_place():
    old = SemanticIds(["a", "b"], np.array([[1, 2], [0, 0]]), (3, 4), 2)
    quantizer = grid_quantizer()
    for arguments, message in [
        ((["a"], [[0, 1]]), "item 'a' has a SID already"),
        ((["c", "c"], [[0, 1], [0, 2]]), "item 'c' has a SID already or is among the new items twice"),
        ((["c"], [[0, 1], [0, 2]]), "2 rows of codes for 1 new item ids"),
        ((["c"], [[0, 4]]), "row 0 has code 4 at level 2, outside"),
        ((["c"], [[0, 1]], quantizer, points(1, 2)), "2 embeddings for 1 rows of codes"),
        ((["c"], [[0, 1]], None, None, "hope"), "unknown method 'hope'"),
        ((["c"], [[0, 0]], ResidualKMeans((2, 2)), points(0)), "codebook sizes"),
    ]:
        with pytest.raises(ValueError, match=message):
            extend(old, arguments[0], np.array(arguments[1]), *arguments[2:])
    everywhere = np.array([[a, b] for a in range(3) for b in range(4)])
    full = SemanticIds([f"i{row}" for row in range(12)], everywhere, (3, 4), 2)
    with pytest.raises(ValueError, match="1 new items need code tuples that nobody has, 0 of 12 are free"):
        extend(full, ["c"], np.array([[0, 0]]), quantizer, points(0))


@settings(max_examples=100)
@given(
    st.lists(st.floats(-2, 26, width=32), min_size=1, max_size=8),
    st.lists(st.lists(st.floats(-2, 26, width=32), max_size=4), min_size=1, max_size=3),
    st.sampled_from(["suffix", "reassign"]),
)
def test_extending_never_changes_a_sid_and_keeps_all_apart(first, later, method):
    quantizer = grid_quantizer()
    names = iter(f"item {number}" for number in range(100))
    embeddings = points(*first)
    codes = quantizer.encode(embeddings)
    sids = resolve_collisions(codes, (3, 4), [next(names) for _ in first], method, quantizer, embeddings)
    for values in later:
        added = points(*values) if values else np.empty((0, 1), np.float32)
        if len(sids) + len(added) > 12:
            break
        codes = quantizer.encode(added) if values else np.empty((0, 2), dtype=np.int64)
        grown = extend(sids, [next(names) for _ in values], codes, quantizer, added)
        assert grown.item_ids[: len(sids)] == sids.item_ids
        assert [grown.codes_of(item) for item in sids.item_ids] == [sids.codes_of(item) for item in sids.item_ids]
        everyone = [grown.codes_of(item) for item in grown.item_ids]
        assert len(set(everyone)) == len(grown)
        prefixes = {codes[:length] for codes in everyone for length in range(1, len(codes))}
        assert not prefixes & set(everyone)
        sids = grown
