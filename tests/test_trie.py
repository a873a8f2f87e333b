import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trialign.decode import Trie

SEQUENCES = np.array([[5, 1, 9, -1], [4, 2, 9, -1], [5, 1, 7, 3], [5, 1, 7, 0], [5, 1, 9, -1]])
ARRAYS = (
    "columns", "child_offsets", "item_first", "item_last", "item_order", "level_starts", "level_tokens", "token_starts",
)  # fmt: skip


@st.composite
def sequences(draw, max_items=14, codes=3, depth=3, fewest=1):
    """Random codes at three levels; where items collide, the draw decides whether they get suffix codes."""
    rows = draw(st.lists(st.tuples(*[st.integers(0, codes - 1)] * depth), min_size=fewest, max_size=max_items))
    suffixed = draw(st.booleans())
    seen: dict[tuple, int] = {}
    table = np.full((len(rows), depth + 1), -1)
    for item, row in enumerate(rows):
        table[item, :depth] = np.array(row) + codes * np.arange(depth)
        if suffixed and rows.count(row) > 1:
            table[item, depth] = codes * depth + seen.setdefault(row, 0)
            seen[row] += 1
    return table


def prefixes(trie, nodes):
    return {tuple(trie.prefix(int(node))) for node in nodes}


def test_arrays_of_a_small_trie_by_hand():
    trie = Trie.build(SEQUENCES)
    assert trie.tokens_of(np.arange(-1, 10)).tolist() == [-1, -1, 4, 5, 2, 1, 9, 7, 9, 0, 3]
    assert trie.child_offsets.tolist() == [1, 3, 4, 5, 6, 8, 8, 10, 10, 10, 10]
    assert trie.levels_of(np.arange(-1, 10)).tolist() == [-1, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4]
    assert trie.parents.tolist() == [-1, 0, 0, 1, 2, 3, 4, 4, 6, 6]
    assert trie.item_order.tolist() == [1, 3, 2, 0, 4]
    assert trie.leaves_of([0, 1, 2, 3, 4]).tolist() == [7, 5, 9, 8, 7]
    assert trie.items_at(0).tolist() == [0, 1, 2, 3, 4]
    assert trie.items_at(7).tolist() == [0, 4]
    assert trie.items_at(6).tolist() == [2, 3]
    assert (trie.n_items, trie.n_nodes, trie.depth) == (5, 10, 4)
    assert [trie.vocabulary(level).tolist() for level in (1, 2, 3, 4)] == [[4, 5], [1, 2], [7, 9], [0, 3]]
    assert trie.is_leaf(np.array([-1, 0, 5, 6, 7, 9])).tolist() == [False, False, True, False, True, True]


def test_children_of_many_nodes_are_padded():
    children = Trie.build(SEQUENCES).children_of(np.array([[0, 5], [6, -1]]))
    assert children.tolist() == [[[1, 2], [-1, -1]], [[8, 9], [-1, -1]]]


@given(sequences())
def test_every_sequence_is_found_and_leads_to_its_items(table):
    trie = Trie.build(table)
    for item, row in enumerate(table):
        sequence = row[row >= 0].tolist()
        leaf = trie.find(sequence)
        assert leaf == trie.leaves_of(item)
        assert trie.prefix(leaf) == sequence
        assert trie.items_at(leaf).tolist() == np.flatnonzero((table == row).all(axis=1)).tolist()
    assert (trie.sequences(np.arange(len(table))) == table[:, : trie.depth]).all()


@given(sequences(), st.integers(0, 12))
def test_step_agrees_with_children(table, token):
    trie = Trie.build(table)
    nodes = np.arange(-1, trie.n_nodes)
    for node, reached in zip(nodes, trie.step(nodes, np.array(token))):
        children = trie.children_of(np.array([node]))
        assert reached == (children[trie.tokens_of(children) == token].tolist() or [-1])[0]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2**31 - 1)), min_size=1, max_size=9))
def test_any_token_ids_and_codebook_sizes_do(rows):
    """Sorting packs codes into one integer where they fit; here the row bits and the ids do not matter."""
    table = np.array(rows)
    trie = Trie.build(table)
    assert (trie.sequences(trie.item_order) == table[np.lexsort(table.T[::-1])]).all()


def test_sequences_too_long_for_one_integer_are_sorted_all_the_same():
    table = np.random.default_rng(0).integers(0, 30, (500, 20))
    trie = Trie.build(table)
    assert trie.item_order.tolist() == np.lexsort(table.T[::-1]).tolist()
    assert (trie.sequences(np.arange(500)) == table).all()


@given(sequences(max_items=8), st.data())
def test_items_added_give_the_trie_of_all_items(table, data):
    """The added rows continue the table: codes that are new, old, equal to old ones, or longer than any before."""
    more = data.draw(sequences(max_items=5, codes=4))[:, :3] + 20
    colliding = table[data.draw(st.lists(st.integers(0, len(table) - 1), max_size=3))]
    depth = table.shape[1]
    added = np.concatenate([np.pad(more, ((0, 0), (0, depth - 3)), constant_values=-1), colliding])
    trie, rebuilt = Trie.build(table).add(added), Trie.build(np.concatenate([table, added]))
    for name in ARRAYS:
        array, expected = getattr(trie, name), getattr(rebuilt, name)
        assert array.dtype == expected.dtype, name
        np.testing.assert_array_equal(array, expected, err_msg=name)


def test_added_items_may_have_longer_sequences():
    table, longer = np.array([[1, 2], [3, 4]]), np.array([[1, 5, 6], [0, 5, 7]])
    trie = Trie.build(table).add(longer)
    assert trie.sequences(np.arange(4)).tolist() == [[1, 2, -1], [3, 4, -1], [1, 5, 6], [0, 5, 7]]
    with pytest.raises(ValueError, match=r"items \[0\] are prefixes of those of items \[2\]"):
        Trie.build(table).add(np.array([[1, 2, 3]]))


@given(sequences(fewest=2), st.data())
def test_a_mask_leaves_the_prefixes_of_the_trie_of_the_items_left(table, data):
    trie = Trie.build(table)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table))))
    seen = np.array(data.draw(st.lists(st.integers(0, len(table) - 1), max_size=4)), dtype=np.int64)
    left = allowed.copy()
    left[seen] = False
    nodes = np.arange(trie.n_nodes)
    reachable = prefixes(trie, nodes[trie.mask([seen], allowed).allows(nodes[None])[0]])
    rebuilt = Trie.build(table[left]) if left.any() else None
    assert reachable == (set() if rebuilt is None else prefixes(rebuilt, range(rebuilt.n_nodes)))


@given(sequences(), st.data())
def test_mask_allows_a_node_when_an_item_below_is_left(table, data):
    trie = Trie.build(table)
    rows = st.lists(st.integers(0, len(table) - 1), max_size=len(table) + 2)
    masked = data.draw(st.lists(rows, min_size=1, max_size=3))
    mask = trie.mask([np.array(some, dtype=np.int64) for some in masked])
    nodes = np.tile(np.arange(-1, trie.n_nodes), (len(masked), 1))
    expected = [[node >= 0 and bool(set(trie.items_at(node)) - set(some)) for node in nodes[0]] for some in masked]
    assert mask.allows(nodes).tolist() == expected
    positions = np.tile(np.arange(trie.n_items), (len(masked), 1))
    expected = [[trie.item_order[position] not in some for position in range(trie.n_items)] for some in masked]
    assert mask.allows_positions(positions).tolist() == expected


def test_a_mask_of_nothing_is_false():
    trie = Trie.build(SEQUENCES)
    assert not trie.mask()
    assert not trie.mask([np.array([], dtype=np.int64)], np.ones(5, dtype=bool))
    assert trie.mask([np.array([2])])


def test_a_saved_trie_is_opened_without_being_read(tmp_path):
    trie = Trie.build(SEQUENCES)
    again = Trie.load(trie.save(tmp_path / "trie"))
    for name in ARRAYS:
        assert isinstance(getattr(again, name), np.memmap), name
        np.testing.assert_array_equal(getattr(again, name), getattr(trie, name))
    assert {file.suffix for file in (tmp_path / "trie").iterdir()} == {".npy"}
    assert again.leaves_of(np.arange(5)).tolist() == trie.leaves_of(np.arange(5)).tolist()


@pytest.mark.parametrize(
    ("name", "kept", "message"),
    [
        ("child_offsets", 10, "has 10 entries, but 11"),
        ("item_first", 3, "has 3 entries, but 10"),
        ("item_last", 0, "has 0 entries, but 10"),
        ("item_order", 4, "has 4 entries, but 5"),
        ("level_tokens", 7, "has 7 entries, but 8"),
        ("level_starts", 5, "has 5 entries, but 6"),
    ],
)
def test_an_array_that_does_not_fit_the_others_is_named(tmp_path, name, kept, message):
    trie = Trie.build(SEQUENCES)
    trie.save(tmp_path)
    np.save(tmp_path / f"{name}.npy", getattr(trie, name)[:kept])
    with pytest.raises(ValueError, match=rf"{name}.npy {message}"):
        Trie.load(tmp_path)


def test_a_broken_folder_is_named(tmp_path):
    trie = Trie.build(SEQUENCES)
    trie.save(tmp_path)
    np.save(tmp_path / "level_starts.npy", trie.level_starts + 1)
    with pytest.raises(ValueError, match=r"level_starts.npy ends with 11, but there are 10 nodes"):
        Trie.load(tmp_path)
    (tmp_path / "columns.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"columns.npy not found"):
        Trie.load(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.empty((0, 3), dtype=np.int64), "non-empty"),
        (np.empty((2, 0), dtype=np.int64), r"items \[0, 1\]"),
        (np.array([[1.0, 2.0]]), "integer"),
        (np.array([[1, 2], [-1, -1]]), r"items \[1\]"),
        (np.array([[1, 2, 3], [1, -1, 3]]), r"items \[1\]"),
        (np.array([[1, 2, -1], [1, 3, 4], [1, 2, 5]]), r"items \[0\] are prefixes of those of items \[2\]"),
        (np.array([[-2, 1]]), "only as padding"),
    ],
)
def test_bad_sequences_are_named(table, message):
    with pytest.raises(ValueError, match=message):
        Trie.build(table)


def test_bad_masks_are_refused():
    trie = Trie.build(SEQUENCES)
    with pytest.raises(ValueError, match="user 1"):
        trie.mask([np.array([0]), np.array([5])])
    with pytest.raises(ValueError, match="user 0 must be integer item rows, got bool"):
        trie.mask([np.array([False, True, False, False, False])])
    with pytest.raises(ValueError, match="user 0 must be integer item rows, got float64"):
        trie.mask([np.array([1.5])])
    assert not trie.mask([[]])
    with pytest.raises(ValueError, match="each of 5 items"):
        trie.mask(allowed=np.ones(4, dtype=bool))
    with pytest.raises(ValueError, match=r"item rows must lie in 0\.\.4"):
        trie.leaves_of([5])


def test_a_hundred_thousand_items_stay_small():
    table = np.random.default_rng(0).integers(0, 256, (100_000, 4)) + 256 * np.arange(4)
    trie = Trie.build(table)
    assert trie.nbytes < 4 * 2**20
    assert (trie.prefix(int(trie.leaves_of(77))) == table[77]).all()
