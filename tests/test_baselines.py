from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign.baselines import ItemKNN, Popularity, SASRec, top_items
from trialign.baselines.item_knn import _together
from trialign.baselines.ranking import climb
from trialign.baselines.sasrec import _windows
from trialign.evaluate import ranking_metrics


def make_split(sequences, n_items):
    """What `leave_one_out` returns, without a catalogue: the last item for test, the one before for validation."""
    arrays = [np.array(sequence, dtype=np.int64) for sequence in sequences]
    split = SimpleNamespace(
        users=[f"u{user}" for user in range(len(arrays))],
        train=[array[:-2] for array in arrays],
        validation=np.array([array[-2] for array in arrays]),
        n_items=n_items,
    )
    split.histories = lambda target: [array[: -2 if target == "validation" else -1] for array in arrays]
    return split


@pytest.fixture(scope="module")
def chain():
    """Users walk through 30 items in a fixed circle, with one random jump in five."""
    rng = np.random.default_rng(0)
    sequences = []
    for _ in range(300):
        sequence = [int(rng.integers(30))]
        for _ in range(9):
            sequence.append(int(rng.integers(30)) if rng.random() < 0.2 else (sequence[-1] * 7 + 1) % 30)
        sequences.append(sequence)
    return make_split(sequences, 30)


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=8, max_size=8), min_size=1, max_size=4),
    st.integers(1, 10),
    st.booleans(),
    st.data(),
)
def test_top_items_sort_by_score_then_row(scores, k, mask_seen, data):
    histories = [np.array(data.draw(st.lists(st.integers(0, 7), max_size=9)), dtype=np.int64) for _ in scores]
    top = top_items(np.array(scores, dtype=float), k, histories, mask_seen)
    for row, history, ranked in zip(scores, histories, top):
        left = [item for item in range(8) if not (mask_seen and item in history)]
        expected = sorted(left, key=lambda item: (-row[item], item))[:k]
        assert ranked.tolist() == expected + [-1] * (k - len(expected))


def test_popularity_by_hand():
    split = make_split([[2, 1, 0, 0], [2, 1, 3, 3], [2, 4, 4, 4]], 6)
    model = Popularity().fit(split)
    assert model.counts_.tolist() == [0, 2, 3, 0, 1, 0]
    histories = [np.array([2, 0]), np.array([], dtype=np.int64)]
    assert model.recommend(histories, 4, mask_seen=False).tolist() == [[2, 1, 4, 0]] * 2
    assert model.recommend(histories, 5, mask_seen=True).tolist() == [[1, 4, 3, 5, -1], [2, 1, 4, 0, 3]]


def test_item_knn_similarity_by_hand():
    split = make_split([[0, 1, 9, 9], [0, 1, 2, 9, 9], [0, 3, 9, 9]], 10)
    model = ItemKNN(neighbours=9, shrinkage=1.0, decay=0.5).fit(split)
    similarity = model.similarity_.toarray()
    assert similarity[0, 1] == pytest.approx(2 / (np.sqrt(3 * 2) + 1))
    assert similarity[2, 1] == pytest.approx(1 / (np.sqrt(1 * 2) + 1))
    assert similarity[3, 1] == 0
    assert (np.diag(similarity) == 0).all()
    # 3 is the older item: item 0 gets 0.5 s(3, 0) + s(2, 0), item 1 only s(2, 1).
    ranked = model.recommend([np.array([3, 2])], 2, mask_seen=False)[0]
    scores = {0: 0.5 * similarity[3, 0] + similarity[2, 0], 1: similarity[2, 1]}
    assert ranked.tolist() == sorted(scores, key=lambda item: -scores[item])
    nearest = ItemKNN(neighbours=1, shrinkage=1.0).fit(split).similarity_.toarray()
    assert (np.count_nonzero(nearest, axis=1) <= 1).all()
    assert nearest[0, 1] == similarity[0].max()


def test_item_knn_counts_pairs_by_order_and_distance_by_hand():
    split = make_split([[0, 1, 2, 9, 9], [2, 1, 9, 9], [1, 1, 0, 9, 9]], 10)
    similarity = ItemKNN(shrinkage=0, backward=0.25, fade=1.0, popularity=0.0).fit(split).similarity_.toarray()
    # Users of 0: two, of 1: three, of 2: two. 1 comes one step after 0 once, and one step before it once.
    assert similarity[0, 1] == pytest.approx((1 + 0.25) / np.sqrt(2))
    assert similarity[1, 0] == pytest.approx((1 + 0.25) / np.sqrt(3))
    assert similarity[0, 2] == pytest.approx(0.5 / np.sqrt(2))
    assert similarity[2, 0] == pytest.approx(0.25 * 0.5 / np.sqrt(2))
    popular = ItemKNN(shrinkage=0, backward=0, popularity=1.0).fit(split).similarity_.toarray()
    assert popular[0, 1] == pytest.approx(1 / (np.sqrt(2) * 3))
    assert popular[2, 0] == 0


@given(st.lists(st.lists(st.integers(0, 8), max_size=9), min_size=1, max_size=8))
def test_item_knn_counts_without_order_are_the_users_in_common(histories):
    arrays = [np.array(history, dtype=np.int64) for history in histories]
    seen = np.array([np.bincount(array, minlength=9) > 0 for array in arrays]).astype(float)
    expected = seen.T @ seen
    np.fill_diagonal(expected, 0)
    whole = _together(arrays, 9, backward=1.0, fade=0.0).toarray()
    np.testing.assert_array_equal(whole, expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trialign.baselines.item_knn._PAIRS", 3)
        np.testing.assert_array_equal(_together(arrays, 9, backward=1.0, fade=0.0).toarray(), whole)


def test_item_knn_reads_a_window_of_the_history():
    split = make_split([[0, 1, 9, 9]] * 3 + [[2, 3, 9, 9]] * 3, 10)
    histories = [np.array([0, 2])], [np.array([2])]
    window = ItemKNN(history=1, decay=1.0).fit(split)
    assert window.recommend(histories[0], 3, False).tolist() == window.recommend(histories[1], 3, False).tolist()
    assert window.recommend(histories[0], 1, False).tolist() == [[3]]
    assert 0 not in window.recommend(histories[0], 9, mask_seen=True)  # masked, though outside the window


def test_climbing_a_grid_ends_where_no_single_change_helps():
    worth = {(0, 0): 0, (1, 0): 2, (0, 1): 3, (1, 1): 1, (2, 0): 1, (2, 1): 4}
    tried = []

    def score(settings):
        tried.append(tuple(settings.values()))
        return worth[tried[-1]]

    # From (0, 0): a = 1, where b = 1 is worse; no change of one setting beats 2 there.
    assert climb({"a": (0, 1, 2), "b": (0, 1)}, score) == {"a": 1, "b": 0}
    assert len(tried) == len(set(tried))
    assert climb({"b": (0, 1), "a": (0, 1, 2)}, lambda s: worth[s["a"], s["b"]]) == {"b": 1, "a": 2}


def test_item_knn_follows_recency():
    split = make_split([[0, 1, 9, 9]] * 3 + [[2, 3, 9, 9]] * 3, 10)
    model = ItemKNN(decay=0.5).fit(split)
    assert model.recommend([np.array([0, 2])], 1, mask_seen=True).tolist() == [[3]]
    assert model.recommend([np.array([2, 0])], 1, mask_seen=True).tolist() == [[1]]


def test_tuned_item_knn_is_the_best_of_its_grid(chain):
    grid = {"neighbours": (1, 30), "decay": (0.3, 1.0)}

    def ndcg(model):
        ranked = model.recommend(chain.histories("validation"), 10, mask_seen=False)
        return ranking_metrics(ranked, chain.validation)["ndcg@10"].mean()

    others = [ItemKNN(neighbours=n, decay=d).fit(chain) for n in grid["neighbours"] for d in grid["decay"]]
    tuned = ItemKNN.tuned(chain, grid)
    assert ndcg(tuned) == max(map(ndcg, others))
    assert tuned.decay == 0.3


@pytest.fixture(scope="module")
def sasrec(chain):
    return SASRec(hidden=32, steps=120, evaluate_every=20, dropout=0.1, max_history=6, seed=1, progress=False).fit(
        chain
    )


def test_sasrec_learns_the_order_of_items(chain, sasrec):
    ranked = sasrec.recommend(chain.histories("validation"), 10, mask_seen=False)
    hits = ranking_metrics(ranked, chain.validation, ks=(1,))["recall@1"].mean()
    assert hits > 0.7  # four in five steps follow the circle
    popular = Popularity().fit(chain).recommend(chain.histories("validation"), 10, mask_seen=False)
    assert hits > 3 * ranking_metrics(popular, chain.validation, ks=(1,))["recall@1"].mean()
    history = sasrec.history_
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_sasrec_keeps_the_best_weights(chain, sasrec):
    ranked = sasrec.recommend(chain.histories("validation"), 10, mask_seen=False)
    ndcg = ranking_metrics(ranked, chain.validation)["ndcg@10"].mean()
    assert ndcg == pytest.approx(sasrec.history_["validation_ndcg@10"].max(), abs=1e-6)


def test_sasrec_is_deterministic_and_leaves_torchs_seed_alone(chain):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    runs = [SASRec(hidden=16, steps=8, progress=False).fit(chain) for _ in range(2)]
    assert torch.rand(1) == expected
    weights = [run.model_.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_sasrec_reads_only_what_came_before(sasrec):
    sasrec.model_.eval()
    rows = torch.tensor([[3, 4, 5, 6], [3, 4, 9, 1]])
    hidden = sasrec.model_(rows, torch.tensor([4, 4]))
    torch.testing.assert_close(hidden[:2], hidden[4:6])
    assert not torch.allclose(hidden[2], hidden[6])


def test_sasrecs_drawn_negatives_estimate_the_softmax_over_all_items(chain, sasrec):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 32, generator=generator)
    answers = torch.tensor([3, 3, 8, 20, 1])
    exact = torch.nn.functional.cross_entropy(sasrec.model_.logits(hidden), answers)
    drawn = SASRec(hidden=32, negatives=6)
    drawn.model_ = sasrec.model_
    one = hidden[:1], answers[:1]  # exp of one position's loss is a sum over items, and its estimate unbiased
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        mean = torch.stack([drawn._loss(*one).exp() for _ in range(4000)]).mean()
    alone = torch.nn.functional.cross_entropy(sasrec.model_.logits(one[0]), one[1])
    assert mean.item() == pytest.approx(alone.exp().item(), rel=0.05)
    drawn.negatives = 26  # all that are no answer
    assert drawn._loss(hidden, answers).item() == pytest.approx(exact.item(), rel=1e-6)
    fitted = SASRec(hidden=16, steps=60, dropout=0.1, negatives=10, seed=1, progress=False).fit(chain)
    assert fitted.history_["loss"].iloc[-1] < np.log(30)


def test_sasrec_ranks_a_history_the_same_alone_and_in_a_batch(sasrec):
    histories = [np.arange(20), np.array([3]), np.array([], dtype=np.int64)]
    together = sasrec.recommend(histories, 5, mask_seen=True)
    for history, ranked in zip(histories, together):
        assert sasrec.recommend([history], 5, mask_seen=True)[0].tolist() == ranked.tolist()
        assert not set(ranked) & set(history)


def test_tuned_sasrec_takes_its_settings_from_the_grid(chain):
    tuned = SASRec.tuned(chain, {"steps": (2, 60), "hidden": (16,)}, seed=3, progress=False)
    assert (tuned.hidden, tuned.steps, tuned.seed) == (16, 60, 3)


@given(st.integers(0, 25), st.integers(2, 9))
def test_every_item_but_the_first_is_predicted_once(size, length):
    windows = list(_windows([np.arange(size)], length))
    assert all(2 <= len(window) <= length for window in windows)
    assert sorted(item for window in windows for item in window[1:]) == list(range(1, size))


def test_bad_parameters_are_named(chain):
    with pytest.raises(ValueError, match="decay"):
        ItemKNN(decay=0).fit(chain)
    with pytest.raises(ValueError, match="history must be"):
        ItemKNN(history=0).fit(chain)
    with pytest.raises(ValueError, match="backward and popularity"):
        ItemKNN(backward=2).fit(chain)
    with pytest.raises(ValueError, match="multiple of heads"):
        SASRec(hidden=9, progress=False).fit(chain)
    with pytest.raises(ValueError, match="negatives must be"):
        SASRec(negatives=0, progress=False).fit(chain)
    with pytest.raises(ValueError, match="nothing to learn"):
        SASRec(progress=False).fit(make_split([[0, 1, 2]], 3))
    with pytest.raises(ValueError, match="k must be"):
        Popularity().fit(chain).recommend([np.array([1])], 0, mask_seen=False)
