"""SASRec: a causal transformer over item ids (Kang and McAuley 2018), trained with a softmax over items."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trialign.baselines.ranking import ROWS, settings_of, top_items, validation_ndcg
from trialign.progress import tqdm

if TYPE_CHECKING:
    from trialign.split import Split


class SASRec:
    """Self-attentive sequential recommendation with a cross-entropy over items at every position.

    The original draws one negative item per position for a binary loss; a softmax over all items, or over many drawn
    ones, is much stronger (Klenitskiy and Vasilev 2023, "Turning Dross Into Gold Loss"). Output and input embeddings
    are shared.

    Parameters
    ----------
    hidden
        Width of the model, a multiple of `heads`.
    layers, heads
        Number of transformer blocks, and of attention heads in each.
    dropout
        Dropout probability of embeddings and of what each attention and feed-forward layer adds.
    max_history
        Number of most recent items that are read.
    steps
        Largest number of optimizer steps. The default suits some 100,000 interactions; give larger sets more.
    evaluate_every
        Steps between two looks at the validation NDCG@10.
    patience
        Stop after this many looks without a better one; the best weights are kept.
    learning_rate, weight_decay
        Of AdamW; the rate falls along a cosine over all `steps`.
    batch_positions
        Predicted positions in a batch, on average: short histories are batched by more, long ones by fewer.
    negatives
        Items drawn for each batch, which stand for all that are no answer in it: the softmax is estimated from them
        and the batch's answers. None: over all items, as cheap where there are a few thousand.
    seed
        Seed of the weights, of dropout and of the order of the histories.
    progress
        Show a progress bar.

    Attributes
    ----------
    model_
        The torch module with the best weights.
    history_
        pandas.DataFrame: step, loss (mean since the row before), validation_ndcg@10.
    """

    #: The settings that `tuned` tries.
    GRID: Mapping[str, Sequence[Any]] = {"hidden": (64,), "dropout": (0.2, 0.5)}

    model_: "_Transformer"
    history_: pd.DataFrame

    def __init__(
        self,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
        max_history: int = 50,
        steps: int = 1500,
        evaluate_every: int = 100,
        patience: int = 5,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        batch_positions: int = 512,
        negatives: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.dropout = dropout
        self.max_history = max_history
        self.steps = steps
        self.evaluate_every = evaluate_every
        self.patience = patience
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_positions = batch_positions
        self.negatives = negatives
        self.seed = seed
        self.progress = progress

    @classmethod
    def tuned(
        cls,
        split: "Split",
        grid: Mapping[str, Sequence[Any]] | None = None,
        seed: int = 0,
        *,
        mask_seen: bool = False,
        progress: bool = True,
    ) -> "SASRec":
        """Return the fitted model whose settings give the best NDCG@10 on the validation items.

        Parameters
        ----------
        split
            Histories; the test items are not read.
        grid
            Setting to the values to try, `GRID` if None.
        seed
            Seed of every fit.
        mask_seen
            Whether items of the history are left out when the settings are compared.
        progress
            Show progress bars.
        """
        candidates = [
            cls(**{"seed": seed, "progress": progress, **settings})
            for settings in settings_of(cls.GRID if grid is None else grid)
        ]
        return max(candidates, key=lambda model: validation_ndcg(model.fit(split), split, mask_seen))

    def fit(self, split: "Split") -> "SASRec":
        """Train on the train histories, stopping by the validation items.

        Raises
        ------
        ValueError
            If `hidden` is no multiple of `heads`, `negatives` is below 1, or no train history has two items.
        """
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if self.negatives is not None and self.negatives < 1:
            raise ValueError(f"negatives must be at least 1, or None for all items; got {self.negatives}")
        windows = list(_windows(split.train, self.max_history + 1))
        if not windows:
            raise ValueError("no train history has two items: SASRec has nothing to learn from")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.model_ = _Transformer(
                split.n_items, self.hidden, self.layers, self.heads, self.dropout, self.max_history
            )
            self._train(split, windows)
        return self

    def recommend(
        self, histories: Sequence[Int[np.ndarray, " history"]], k: int, mask_seen: bool
    ) -> Int[np.ndarray, "users k"]:
        """Return the k most probable next items for each history.

        Parameters
        ----------
        histories
            Item rows, oldest first; an empty history gets the items of the largest output bias.
        k
            Number of items.
        mask_seen
            Leave out the items of the history.

        Returns
        -------
        ndarray
            int64 [users, k]; -1 where fewer items are left.
        """
        parts = [np.empty((0, k), dtype=np.int64)]
        for first in range(0, len(histories), ROWS):
            some = histories[first : first + ROWS]
            parts.append(top_items(self.scores(some), k, some, mask_seen))
        return np.concatenate(parts)

    def scores(self, histories: Sequence[Int[np.ndarray, " history"]]) -> Float[np.ndarray, "users items"]:
        """Return the logit of every item as the next one after each history, float32; see `recommend`."""
        rows, lengths = _right_padded([history[-self.max_history :] for history in histories])
        self.model_.eval()
        with torch.inference_mode():
            last = torch.zeros(len(rows), self.hidden)
            last[lengths > 0] = self.model_(rows, lengths)[lengths.cumsum(0)[lengths > 0] - 1]
            return self.model_.logits(last).numpy()

    def _train(self, split: "Split", windows: list[np.ndarray]) -> None:
        optimizer = torch.optim.AdamW(
            self.model_.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, betas=(0.9, 0.98)
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        batches = _batches(windows, self.batch_positions, np.random.default_rng(self.seed))
        rows: list[tuple[int, float, float]] = []
        losses: list[float] = []
        best_weights: dict[str, Tensor] = {}
        for step in tqdm(range(1, self.steps + 1), desc="SASRec", unit="step", disable=not self.progress):
            losses.append(self._step(next(batches), optimizer))
            schedule.step()
            if step % self.evaluate_every and step < self.steps:
                continue
            rows.append((step, float(np.mean(losses)), validation_ndcg(self, split, mask_seen=False)))
            losses.clear()
            best = int(np.argmax([score for *_, score in rows]))
            if best == len(rows) - 1:
                best_weights = {name: weight.clone() for name, weight in self.model_.state_dict().items()}
            if len(rows) - 1 - best >= self.patience:
                break
        self.model_.load_state_dict(best_weights)
        self.model_.eval()
        self.history_ = pd.DataFrame(rows, columns=["step", "loss", "validation_ndcg@10"])

    def _step(self, windows: list[np.ndarray], optimizer: torch.optim.Optimizer) -> float:
        """Take one optimizer step and return the mean loss of a position."""
        self.model_.train()
        # Every item but a window's first is an answer, given the items before it.
        answers = torch.from_numpy(np.concatenate([window[1:] for window in windows]).astype(np.int64))
        hidden = self.model_(*_right_padded([window[:-1] for window in windows]))
        loss = self._loss(hidden, answers)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model_.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def _loss(self, hidden: Float[Tensor, "positions hidden"], answers: Int[Tensor, " positions"]) -> Float[Tensor, ""]:
        """Return the mean cross-entropy over all items, or its estimate from the batch's answers and drawn items."""
        others = torch.ones(len(self.model_.bias), dtype=torch.bool)
        others[answers] = False
        rest = others.nonzero().squeeze(1)
        if self.negatives is None or self.negatives >= len(rest):
            return nn.functional.cross_entropy(self.model_.logits(hidden), answers)
        present, places = answers.unique(return_inverse=True)
        drawn = rest[torch.randperm(len(rest))[: self.negatives]]
        logits = self.model_.logits(hidden, torch.cat([present, drawn]))
        # Each drawn item stands for several that are no answer, so that the sum of exponentials is right on average.
        # Without this, items that are rarely an answer would be favoured: they'd seldom be compared with.
        weights = logits.new_zeros(logits.shape[1])
        weights[len(present) :] = math.log(len(rest) / self.negatives)
        return nn.functional.cross_entropy(logits + weights, places)


class _Transformer(nn.Module):
    """Pre-norm causal transformer over item rows.

    Histories come padded on the right; what is computed and returned are their positions alone, one history after the
    other. Most histories are short and a few long, so padding would be most of the work.
    """

    def __init__(self, n_items: int, hidden: int, layers: int, heads: int, dropout: float, max_history: int) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items, hidden)
        self.positions = nn.Embedding(max_history, hidden)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.bias = nn.Parameter(torch.zeros(n_items))
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self, rows: Int[Tensor, "users length"], lengths: Int[Tensor, " users"]
    ) -> Float[Tensor, "positions hidden"]:
        places = torch.arange(rows.shape[1]).expand(rows.shape)
        real = places < lengths[:, None]
        # Scaled as in the paper's code: beside what the blocks add the item itself would be lost, and training is slow.
        items = self.items(rows[real]) * math.sqrt(self.items.embedding_dim)
        hidden = self.dropout(items + self.positions(places[real]))
        for block in self.blocks:
            hidden = block(hidden, real)
        return self.norm(hidden)

    def logits(
        self, hidden: Float[Tensor, "positions hidden"], items: Int[Tensor, " items"] | None = None
    ) -> Float[Tensor, "positions items"]:
        """Return the logits of the given item rows, of all items if None."""
        if items is None:
            return nn.functional.linear(hidden, self.items.weight, self.bias)
        return nn.functional.linear(hidden, self.items(items), self.bias[items])


class _Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each with a norm before it and dropout on what it adds.

    torch's own encoder layer also drops attention weights and inner activations: half of its time on a processor.
    """

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.project_in = nn.Linear(hidden, 3 * hidden)
        self.project_out = nn.Linear(hidden, hidden)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden: Float[Tensor, "positions hidden"], real: Bool[Tensor, "users length"]
    ) -> Float[Tensor, "positions hidden"]:
        projected = self.project_in(self.attention_norm(hidden))
        # Only attention needs the rectangle; causality hides the padding, which stands on the right.
        padded = projected.new_zeros(*real.shape, projected.shape[1])
        padded[real] = projected
        query, key, value = padded.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.dropout(self.project_out(mixed.transpose(1, 2).flatten(2)[real]))
        return hidden + self.dropout(self.feed_forward(hidden))


def _windows(histories: Sequence[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Cut histories into windows, from the end, that overlap by one item: each item but the first is predicted once."""
    for history in histories:
        end = len(history)
        while end > 1:
            yield np.asarray(history[max(0, end - length) : end])
            end -= length - 1


def _batches(windows: list[np.ndarray], positions: int, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Yield batches of about so many predicted positions for ever, every window once a pass, in a new order each."""
    total = sum(len(window) - 1 for window in windows)
    n_batches = min(len(windows), math.ceil(total / positions))
    while True:
        for batch in np.array_split(rng.permutation(len(windows)), n_batches):
            yield [windows[index] for index in batch]


def _right_padded(
    histories: Sequence[np.ndarray],
) -> tuple[Int[Tensor, "users length"], Int[Tensor, " users"]]:
    """Return item rows, padded on the right with row 0, and the lengths."""
    lengths = torch.tensor([len(history) for history in histories])
    rows = torch.zeros(len(histories), max(1, int(lengths.max())), dtype=torch.long)
    for user, history in enumerate(histories):
        rows[user, : len(history)] = torch.from_numpy(np.array(history, dtype=np.int64))
    return rows, lengths
