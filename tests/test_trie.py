import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign.decode import Trie, prefix_allowed_tokens_fn

SEQUENCES = np.array([[5, 1, 9, -1], [4, 2, 9, -1], [5, 1, 7, 3], [5, 1, 7, 0], [5, 1, 9, -1]])


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


def test_arrays_of_a_small_trie_by_hand():
    trie = Trie.build(SEQUENCES)
    assert trie.tokens.tolist() == [-1, 4, 5, 2, 1, 9, 7, 9, 0, 3]
    assert trie.child_offsets.tolist() == [1, 3, 4, 5, 6, 8, 8, 10, 10, 10, 10]
    assert trie.levels.tolist() == [0, 1, 1, 2, 2, 3, 3, 3, 4, 4]
    assert trie.item_order.tolist() == [1, 3, 2, 0, 4]
    assert trie.items_at(0).tolist() == [0, 1, 2, 3, 4]
    assert trie.items_at(trie.leaves[0]).tolist() == [0, 4]
    assert trie.items_at(6).tolist() == [2, 3]
    assert (trie.n_items, trie.n_nodes, trie.depth) == (5, 10, 4)
    assert trie.vocabulary.tolist() == [0, 1, 2, 3, 4, 5, 7, 9]
    assert trie.is_leaf(np.array([-1, 0, 5, 6, 7, 9])).tolist() == [False, False, True, False, True, True]


def test_children_of_many_nodes_are_padded():
    tokens, nodes = Trie.build(SEQUENCES).children_of(np.array([[0, 5], [6, -1]]))
    assert tokens.tolist() == [[[4, 5], [-1, -1]], [[0, 3], [-1, -1]]]
    assert nodes.tolist() == [[[1, 2], [-1, -1]], [[8, 9], [-1, -1]]]


@settings(deadline=None)
@given(sequences())
def test_every_sequence_is_found_and_leads_to_its_items(table):
    trie = Trie.build(table)
    for item, row in enumerate(table):
        sequence = row[row >= 0].tolist()
        leaf = trie.find(sequence)
        assert leaf == trie.leaves[item]
        assert trie.prefix(leaf) == sequence
        assert trie.items_at(leaf).tolist() == np.flatnonzero((table == row).all(axis=1)).tolist()


@settings(deadline=None)
@given(sequences(), st.integers(0, 12))
def test_step_agrees_with_children(table, token):
    trie = Trie.build(table)
    nodes = np.arange(-1, trie.n_nodes)
    for node, reached in zip(nodes, trie.step(nodes, np.array(token))):
        tokens, children = trie.children_of(np.array([node]))
        assert reached == (children[tokens == token].tolist() or [-1])[0]


@settings(deadline=None)
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


def test_prefix_function_for_generate():
    allowed = prefix_allowed_tokens_fn(Trie.build(SEQUENCES), start=2, end_token_id=99)
    assert allowed(0, torch.tensor([8, 8])) == [4, 5]
    assert allowed(0, torch.tensor([8, 8, 5, 1, 7])) == [0, 3]
    assert allowed(0, torch.tensor([8, 8, 5, 1, 9])) == [99]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.empty((0, 3), dtype=np.int64), "non-empty"),
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


def test_mask_of_unknown_rows_is_refused():
    with pytest.raises(ValueError, match="user 1"):
        Trie.build(SEQUENCES).mask([np.array([0]), np.array([5])])


def test_a_hundred_thousand_items_stay_small():
    table = np.random.default_rng(0).integers(0, 256, (100_000, 4)) + 256 * np.arange(4)
    trie = Trie.build(table)
    arrays = (trie.tokens, trie.child_offsets, trie.levels, trie.item_first, trie.item_last)
    size = sum(array.nbytes for array in (*arrays, trie.item_order, trie.leaves))
    assert size < 10 * 2**20
    assert (trie.prefix(int(trie.leaves[77])) == table[77]).all()
