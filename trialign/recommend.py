"""A trained model as a recommender: histories of items in, ranked items out."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from transformers import PreTrainedModel

from trialign.backbone import load_backbone, save_backbone
from trialign.decode import Beams, Strategy, Trie, beam_search, recall_of_exact, score_all
from trialign.evaluate import ranking_metrics
from trialign.folders import reading
from trialign.sharding import is_first
from trialign.sids import SemanticIds
from trialign.split import Split
from trialign.tasks import HistoryPrompt
from trialign.vocabulary import SidVocabulary

_FILE = "recommender.json"


class GenerativeRecommender:
    """Recommends by generating the semantic ID of the next item.

    Parameters
    ----------
    model
        A causal language model or T5 with the SID tokens.
    vocabulary
        Its tokenizer with the SID tokens.
    sids
        Semantic IDs of the catalogue's items, in its order.
    max_history
        Most recent items of a history that the model reads, as in training.

    Attributes
    ----------
    trie : Trie
        All SIDs as token sequences.
    """

    def __init__(
        self, model: PreTrainedModel | PeftModel, vocabulary: SidVocabulary, sids: SemanticIds, *, max_history: int = 20
    ) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.sids = sids
        self.max_history = max_history
        self.prompt = HistoryPrompt(vocabulary, sids, max_history)
        self.trie = Trie.build(vocabulary.sequences(sids))

    def token_name(self, token: int) -> str:
        """Return the text of a token id, such as ``<a_12>``."""
        return str(self.vocabulary.tokenizer.convert_ids_to_tokens(token))

    def recommend(
        self,
        histories: Sequence[Int[np.ndarray, " history"]],
        *,
        beams: int | Sequence[int] = 20,
        top_k: int = 20,
        strategy: Strategy | None = None,
        temperature: float = 1.0,
        mask_seen: bool = False,
        allowed: Bool[np.ndarray, " items"] | None = None,
        record: bool = False,
        progress: bool = True,
    ) -> Beams:
        """Return the most probable next items of each history.

        Parameters
        ----------
        histories
            Item rows, oldest first; may be empty.
        beams
            Prefixes kept at each level: one number, or one for each level.
        top_k
            Items returned a user.
        strategy
            Which prefixes are kept, the most probable ones by default: see `trialign.decode.beam_search`.
        temperature
            What logits are divided by: see `trialign.decode.beam_search`.
        mask_seen
            Never return an item of the (whole) history. It changes metrics a lot, so say which was done.
        allowed
            Whether each item may be returned to anybody, bool by item row; all by default.
        record
            Keep the whole search for inspection.
        progress
            Show a progress bar.
        """
        return beam_search(
            self.model,
            self.trie,
            [self.prompt(history) for history in histories],
            beams=beams,
            top_k=top_k,
            strategy=strategy,
            temperature=temperature,
            masked=list(histories) if mask_seen else None,
            allowed=allowed,
            record=record,
            progress=progress,
            pad_token_id=self.vocabulary.pad_token_id,
        )

    def validation(self, split: Split, *, users: int = 300, seed: int = 0) -> Callable[..., dict[str, float]]:
        """Return what a `Trainer` calls with its model: metrics on the validation items of users drawn once.

        Parameters
        ----------
        split
            The leave-one-out split; its test items are not looked at.
        users
            How many users are drawn; all, where there are fewer.
        seed
            Of the draw.
        """
        drawn = np.random.default_rng(seed).permutation(len(split.users))[:users]
        histories = split.histories("validation")
        prompts, targets = [self.prompt(histories[user]) for user in drawn], split.validation[drawn]

        def validate(model: PreTrainedModel | PeftModel) -> dict[str, float]:
            found = beam_search(
                model, self.trie, prompts, beams=20, top_k=10, progress=False, pad_token_id=self.vocabulary.pad_token_id
            )
            return ranking_metrics(found.items, targets).mean().to_dict()

        return validate

    def agreement_with_exact(
        self, histories: Sequence[Int[np.ndarray, " history"]], *, beams: int = 20, top_k: int = 10
    ) -> float:
        """Return the share of the exactly best `top_k` items that the beam search finds, between 0 and 1.

        Every item of the catalogue is scored, so this is for small catalogues or few users.
        """
        found = self.recommend(histories, beams=beams, top_k=top_k, progress=False).items
        return float(recall_of_exact(found, self.exact(histories)).mean())

    def exact(self, histories: Sequence[Int[np.ndarray, " history"]]) -> Float[np.ndarray, "users items"]:
        """Return the exact log-probability of every item after each history, float64; for small catalogues."""
        return np.stack([score_all(self.model, self.trie, self.prompt(history)) for history in histories])

    def compare_searches(
        self,
        histories: Sequence[Int[np.ndarray, " history"]],
        targets: Int[np.ndarray, " users"],
        searches: Mapping[str, Mapping[str, Any]],
        *,
        top_k: int = 10,
    ) -> pd.DataFrame:
        """Search for the same users in several ways.

        Parameters
        ----------
        histories
            Item rows, oldest first; every item is scored exactly for each, so a few users.
        targets
            The true next items.
        searches
            Name of each search, and what is passed to `recommend`, such as ``{"beams": 1}``.
        top_k
            Items asked of each search.

        Returns
        -------
        pandas.DataFrame
            A row a search, means over the users: items (found), probability (of all items found together), first codes
            (different ones among the items), recall of exact (share of the exactly best `top_k` found), recall (share
            of users whose true next item was found).
        """
        exact = self.exact(histories)
        rows = []
        for name, options in searches.items():
            found = self.recommend(histories, top_k=top_k, progress=False, **options)
            codes = [self.sids.codes[items[items >= 0], 0] for items in found.items]
            rows.append(
                {
                    "search": name,
                    "items": float((found.items >= 0).sum(axis=1).mean()),
                    "probability": float(np.exp(found.log_probabilities).sum(axis=1).mean()),
                    "first codes": float(np.mean([len(np.unique(some)) for some in codes])),
                    "recall of exact": float(recall_of_exact(found.items, exact).mean()),
                    "recall": float((found.items == np.asarray(targets)[:, None]).any(axis=1).mean()),
                }
            )
        return pd.DataFrame(rows).set_index("search")

    def save(self, folder: str | Path) -> Path:
        """Write model, vocabulary, SIDs and settings to a folder; of several processes the first one writes."""
        folder = save_backbone(self.model, self.vocabulary, folder)
        if is_first():
            self.sids.save(folder / "sids")
            (folder / _FILE).write_text(json.dumps({"max_history": self.max_history}), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "GenerativeRecommender":
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder holds no recommender.
        """
        file = Path(folder) / _FILE
        if not file.is_file():
            raise FileNotFoundError(f"{file} not found: train a model first (notebook 05)")
        model, vocabulary = load_backbone(folder)
        with reading(file, "train the model again (notebook 05)"):
            settings = json.loads(file.read_text("utf-8"))
            return cls(model, vocabulary, SemanticIds.load(Path(folder) / "sids"), **settings)
