"""Item vectors from train histories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trialign.embed.co_occurrence import _positive_pmi, _together, co_occurrence_vectors
from trialign.histories import Histories


def test_counts_of_two_histories_by_hand() -> None:
    counts = _together(Histories([np.array([0, 1, 2]), np.array([1, 0])]), 4, window=2, decay=0.5).toarray()
    # 0 and 1 stand side by side twice; 1 and 2 once; 0 and 2 two steps apart.
    assert counts.tolist() == [[0, 2, 0.5, 0], [2, 0, 1, 0], [0.5, 1, 0, 0], [0, 0, 0, 0]]


def test_a_pair_across_two_users_does_not_count() -> None:
    counts = _together(Histories([np.array([0, 1]), np.array([2, 3])]), 4, window=3, decay=1.0).toarray()
    assert counts[1, 2] == counts[0, 2] == counts[1, 3] == 0


def test_an_item_repeated_is_not_its_own_neighbour() -> None:
    counts = _together(Histories([np.array([0, 0, 1])]), 2, window=2, decay=1.0).toarray()
    assert counts.tolist() == [[0, 2], [2, 0]]


def test_positive_pmi_of_a_small_table_by_hand() -> None:
    counts = _together(Histories([np.array([0, 1]), np.array([0, 1]), np.array([1, 2])]), 3, window=1, decay=1.0)
    contexts = np.array([2, 3, 1]) ** 0.75
    expected = np.log(2 * contexts.sum() / (2 * contexts[1]))
    assert _positive_pmi(counts).toarray()[0, 1] == pytest.approx(max(expected, 0))


def test_items_of_one_company_are_alike_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    histories = [random.permutation(5) + 5 * (user % 2) for user in range(60)]
    rows = co_occurrence_vectors(histories, 11, dims=4)
    cosines = rows @ rows.T
    same = cosines[:5, :5][~np.eye(5, dtype=bool)].mean()
    assert same > cosines[:5, 5:10].mean() + 0.3
    assert not rows[10].any()  # nobody had it
    np.testing.assert_array_equal(rows, co_occurrence_vectors(histories, 11, dims=4))


@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=6), min_size=1, max_size=8))
def test_rows_are_unit_or_zero(histories: list[list[int]]) -> None:
    rows = co_occurrence_vectors([np.array(history) for history in histories], 8, dims=3)
    lengths = np.linalg.norm(rows, axis=1)
    assert rows.shape == (8, 3) and rows.dtype == np.float32 and np.isfinite(rows).all()
    assert (np.isclose(lengths, 1, atol=1e-5) | (lengths < 1e-3)).all()


@pytest.mark.parametrize("wrong", [{"dims": 5}, {"dims": 0}, {"window": 0}, {"decay": 0.0}, {"decay": 1.5}])
def test_parameters_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must lie"):
        co_occurrence_vectors([np.array([0, 1])], 5, **{"dims": 2, **wrong})
