"""The generative recommender of RESULTS.md: from a catalogue's texts and train histories to a trained model.

Semantic IDs: MiniLM of title, brand and categories, reduced to 64 half-whitened components, beside the co-occurrence
vectors of the train histories (a quarter of the cosine); joint residual k-means with three levels of 512 codes, unique
by reassignment; this several times over from different seeds, each time with tokens of its own. Model: a Qwen3 from
scratch, trained on SIDSeq→SID alone, every position of a history in one pass. A training history is written in one of
the tokenizations at a time, so the model meets it in several forms (MTGRec, SIGIR 2025, trains on several identifiers
an item too); to recommend, the history is read in each, and the probabilities are averaged.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from peft import PeftModel
from transformers import PreTrainedModel

from trialign.backbone import load_backbone, save_backbone, scratch_backbone, scratch_t5, scratch_tokenizer
from trialign.catalogue import Catalogue
from trialign.embed.cache import EmbeddingCache
from trialign.embed.co_occurrence import co_occurrence_vectors
from trialign.embed.fusion import fuse, whiten
from trialign.embed.text import TextEmbedder
from trialign.models import cache_folder
from trialign.recommend import GenerativeRecommender
from trialign.sids import JointResidualKMeans, SemanticIds, resolve_collisions
from trialign.split import Split
from trialign.tasks import Multitask
from trialign.train import Trainer
from trialign.vocabulary import SidVocabulary

TEXT_COLUMNS = ("title", "brand", "category")

Backbone = Callable[[SidVocabulary, int], PreTrainedModel]


@dataclass(frozen=True)
class Recipe:
    """The settings of a run: of the semantic IDs, of the model and of its training.

    Chosen on the validation items of Amazon Beauty; benchmarks/README.md says what more passes would change.
    """

    tokenizations: int = 3
    codebook_sizes: tuple[int, ...] = (512, 512, 512)
    text_dims: int = 64
    behaviour_dims: int = 64
    behaviour_weight: float = 0.25
    hidden: int = 128
    layers: int = 6
    heads: int = 4
    dropout: float = 0.1
    drop_items: float = 0.15
    passes: float = 20
    batch_tokens: int = 4096
    micro_tokens: int = 1024
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    max_history: int = 20


def qwen3(recipe: Recipe) -> Backbone:
    """Return what makes the recipe's Qwen3."""
    return lambda vocabulary, seed: scratch_backbone(
        vocabulary,
        hidden=recipe.hidden,
        layers=recipe.layers,
        heads=recipe.heads,
        dropout=recipe.dropout,
        attention_dropout=0.0,
        seed=seed,
    )


def tiger(recipe: Recipe) -> Backbone:
    """Return what makes a T5 of TIGER's size; of the recipe it has the dropout."""
    return lambda vocabulary, seed: scratch_t5(vocabulary, dropout=recipe.dropout, seed=seed)


def item_vectors(catalogue: Catalogue, split: Split, recipe: Recipe) -> Float[np.ndarray, "items dim"]:
    """Return text and co-occurrence of every item as one unit row; only train histories are read."""
    columns = [column for column in TEXT_COLUMNS if column in catalogue.items]
    table = catalogue.items[columns].fillna("").astype(str)
    texts = [". ".join(part for part in row if part) for row in table.itertuples(index=False, name=None)]
    kept = EmbeddingCache(cache_folder() / "benchmarks" / catalogue.name)
    content, _ = kept.embed(TextEmbedder(), texts, [None] * len(texts))
    behaviour = co_occurrence_vectors(split.train, split.n_items, recipe.behaviour_dims)
    known = behaviour.any(axis=1)
    return fuse(whiten(content, recipe.text_dims, 0.5), behaviour, known, recipe.behaviour_weight)


def make_sids(catalogue: Catalogue, split: Split, recipe: Recipe, seed: int) -> list[SemanticIds]:
    """Return unique semantic IDs of the catalogue's items, once for each tokenization; no two have a code in common."""
    vectors = item_vectors(catalogue, split, recipe)
    ids = list(catalogue.items["item_id"])
    sizes = np.asarray(recipe.codebook_sizes)
    tokenizations = []
    for number in range(recipe.tokenizations):
        quantizer = JointResidualKMeans(recipe.codebook_sizes, seed=seed + 1000 * number).fit(vectors)
        codes = quantizer.encode(vectors)
        sids = resolve_collisions(codes, recipe.codebook_sizes, ids, "reassign", quantizer, vectors)
        own = tuple((sizes * recipe.tokenizations).tolist())
        tokenizations.append(replace(sids, codes=sids.codes + number * sizes, codebook_sizes=own))
    return tokenizations


def side_by_side(tokenizations: Sequence[SemanticIds], split: Split) -> tuple[SemanticIds, Split]:
    """Return all tokenizations as the items of one catalogue, and the train histories once in each."""
    copies = range(len(tokenizations))
    first = tokenizations[0]
    ids = [f"{number}:{item}" for number in copies for item in first.item_ids]
    codes = np.concatenate([sids.codes for sids in tokenizations])
    sids = SemanticIds(ids, codes, first.codebook_sizes, first.levels)
    train = [history + number * split.n_items for number in copies for history in split.train]
    nobody = np.empty(0, dtype=np.int64)
    users = [f"{number}:{user}" for number in copies for user in [*split.users, *split.excluded]]
    return sids, Split([], train, nobody, nobody, len(ids), users)


@dataclass(frozen=True)
class Trained:
    """A trained model with each tokenization; the CPU seconds of semantic IDs and training with all validations."""

    recommenders: list[GenerativeRecommender]
    cpu_seconds: float


def train(
    catalogue: Catalogue,
    split: Split,
    recipe: Recipe,
    seed: int,
    folder: Path,
    *,
    backbone: Callable[[Recipe], Backbone] = qwen3,
    validated_users: int = 2000,
) -> Trained:
    """Train by the recipe, or go on where a killed run was; a finished one in `folder` is loaded.

    The CPU seconds of a run that was killed and went on are those since its last start, and those before that start
    up to the last checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "training.json"
    if record.is_file():
        model, vocabulary = load_backbone(folder / "model")
        found = [SemanticIds.load(path) for path in sorted(folder.glob("sids-*"))]
        recommenders = [
            GenerativeRecommender(model, vocabulary, sids, max_history=recipe.max_history) for sids in found
        ]
        return Trained(recommenders, json.loads(record.read_text())["cpu_seconds"])
    started = time.process_time()
    tokenizations = make_sids(catalogue, split, recipe, seed)
    every, histories = side_by_side(tokenizations, split)
    vocabulary = SidVocabulary.add_to(scratch_tokenizer(["title"], vocab_size=300), every.codebook_sizes)
    model = backbone(recipe)(vocabulary, seed)
    titles = [""] * len(every)  # no task reads them
    multitask = Multitask(
        every, vocabulary, titles, None, histories,
        tasks=["SIDSeq→SID"], drop_items=recipe.drop_items, max_history=recipe.max_history, seed=seed,
    )  # fmt: skip
    recommenders = [
        GenerativeRecommender(model, vocabulary, sids, max_history=recipe.max_history) for sids in tokenizations
    ]
    steps = steps_of(multitask, recipe)
    trainer = Trainer(
        model,
        multitask,
        steps=steps,
        batch_tokens=recipe.batch_tokens,
        micro_tokens=recipe.micro_tokens,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        seed=seed,
        validate=recommenders[0].validation(split, users=validated_users),
        validate_every=-(-steps // 8),
        checkpoint=folder / "checkpoint",
        checkpoint_every=-(-steps // 24),
    )
    trainer.fit()
    save_backbone(model, vocabulary, folder / "model")
    for number, sids in enumerate(tokenizations):
        sids.save(folder / f"sids-{number}")
    trainer.validation_.to_csv(folder / "validation.csv", index=False)
    seconds = time.process_time() - started
    record.write_text(json.dumps({"cpu_seconds": seconds, "recipe": asdict(recipe), "steps": steps, "seed": seed}))
    return Trained(recommenders, seconds)


def steps_of(multitask: Multitask, recipe: Recipe) -> int:
    """Return the optimizer steps that go through the train histories as often as the recipe says."""
    sample = multitask.sample(2000)
    tokens = np.mean([len(example) for example in sample])
    histories = multitask.population_sizes()["SIDSeq→SID"] / recipe.tokenizations
    return round(recipe.passes * histories * tokens / recipe.batch_tokens)


class AveragedSearch:
    """Ranks by the mean of the probabilities that an item has in the searches of all tokenizations.

    An item that a search has not found counts as improbable there. Both rankings come from the same searches: seen
    items are left out of their lists, which are longer than asked.

    Parameters
    ----------
    recommenders
        The trained model, with each tokenization.
    beams
        Width of every search, and items of its list.
    """

    def __init__(self, recommenders: Sequence[GenerativeRecommender], beams: int = 30) -> None:
        self.recommenders = recommenders
        self.beams = beams
        self._histories: Sequence[np.ndarray] = ()
        self._found: list[np.ndarray] = []

    def __call__(self, histories: Sequence[np.ndarray], k: int, mask_seen: bool) -> np.ndarray:
        """Return the k most probable items of each user, int64 [users, k], -1 where there are fewer."""
        if histories is not self._histories:
            searches = [each.recommend(histories, beams=self.beams, top_k=self.beams) for each in self.recommenders]
            items = np.concatenate([search.items for search in searches], axis=1)
            probabilities = np.exp(np.concatenate([search.log_probabilities for search in searches], axis=1))
            self._found = [by_probability(*row) for row in zip(items, probabilities)]
            self._histories = histories
        lists = np.full((len(histories), k), -1)
        for user, (items, history) in enumerate(zip(self._found, histories)):
            left = items[~np.isin(items, history)][:k] if mask_seen else items[:k]
            lists[user, : len(left)] = left
        return lists


def by_probability(items: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the items, each once, by the sum of their probabilities; -1 is no item."""
    there = items >= 0
    distinct, place = np.unique(items[there], return_inverse=True)
    return distinct[np.argsort(-np.bincount(place, probabilities[there]), kind="stable")]


def parameters_of(model: PreTrainedModel | PeftModel) -> int:
    """Return the number of the model's weights."""
    return sum(parameter.numel() for parameter in model.parameters())
