"""The generative recommenders of RESULTS.md: from a catalogue's texts and train histories to trained models.

Ours (`TRIALIGN`). Semantic IDs: MiniLM of title, brand and categories, reduced to 64 half-whitened components, beside
the co-occurrence vectors of the train histories (a quarter of the cosine); joint residual k-means with three levels of
512 codes, unique by reassignment. Model: a Qwen3 of 1.5 M parameters from scratch, trained on SIDSeq→SID alone, every
position of a history in one pass. All of it is made several times over, from different seeds: every member of the
ensemble has its own semantic IDs, and an item's probability is the mean of what the members give it.

TIGER's (`TIGER`, arXiv 2305.05065). Semantic IDs: an RQ-VAE of the text alone, three levels of 256 codes, and a suffix
for items that share theirs. Model: a T5 of four and four layers that learns from one target at a time, the history
before it as prompt. The paper's text encoder is Sentence-T5, its prompt begins with a token of the user's, and it
trains 200,000 steps of 256 examples; here are MiniLM, no such token, and about an hour of one core: two and a half
passes over the targets instead of almost 400. `TIGER_CAUSAL` trains our model by our recipe on TIGER's semantic IDs.

Members don't depend on each other. To train them side by side, one on each core, give each its own process:

    python benchmarks/generative.py --dataset amazon-beauty --seed 0 --member 0 &
    python benchmarks/generative.py --dataset amazon-beauty --seed 0 --member 1 &
    wait; python benchmarks/recommenders.py --dataset amazon-beauty --method trialign --seed 0
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from peft import PeftModel
from transformers import PreTrainedModel

from trialign.catalogue import Catalogue
from trialign.checkpoints import Checkpoint
from trialign.datasets import load
from trialign.embed.cache import EmbeddingCache
from trialign.embed.co_occurrence import co_occurrence_vectors
from trialign.embed.fusion import fuse, whiten
from trialign.embed.text import TextEmbedder
from trialign.models import cache_folder
from trialign.objectives import objective_of
from trialign.recommend import GenerativeRecommender
from trialign.scratch import scratch_gpt2, scratch_qwen3, scratch_t5, scratch_tokenizer
from trialign.sids import RQVAE, JointResidualKMeans, SemanticIds, resolve_collisions
from trialign.split import Split, leave_one_out
from trialign.tasks import Multitask
from trialign.train import Trainer
from trialign.vocabulary import SidVocabulary

TRAININGS = Path(__file__).parents[1] / "runs" / "benchmarks"

TEXT_COLUMNS = ("title", "brand", "category")

Backbone = Callable[[SidVocabulary, int], PreTrainedModel]


@dataclass(frozen=True)
class Recipe:
    """The settings of a run: of the semantic IDs, of the model and of its training.

    Chosen on the validation items of Amazon Beauty; benchmarks/README.md says what more passes would change.
    ``text_dims`` None keeps the text embedding as it is, ``behaviour_dims`` 0 leaves co-occurrence out. A pass of a
    decoder goes over all windows of the histories, one of a T5 over all targets.
    """

    members: int = 2
    codebook_sizes: tuple[int, ...] = (512, 512, 512)
    text_dims: int | None = 64
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
    return _shaped(partial(scratch_qwen3, attention_dropout=0.0), recipe)


def gpt2(recipe: Recipe) -> Backbone:
    """Return what makes a GPT-2 of the recipe's width and depth."""
    return _shaped(partial(scratch_gpt2, positions=128, attention_dropout=0.0), recipe)


def t5(recipe: Recipe) -> Backbone:
    """Return what makes a T5 of the recipe's width and depth; the width of its heads and inner layers is TIGER's."""
    return _shaped(scratch_t5, recipe)


def _shaped(make: Callable[..., PreTrainedModel], recipe: Recipe) -> Backbone:
    shape = {name: getattr(recipe, name) for name in ("hidden", "layers", "heads", "dropout")}
    return lambda vocabulary, seed: make(vocabulary, **shape, seed=seed)


def item_vectors(catalogue: Catalogue, split: Split, recipe: Recipe) -> Float[np.ndarray, "items dim"]:
    """Return text and co-occurrence of every item as one unit row; only train histories are read."""
    columns = [column for column in TEXT_COLUMNS if column in catalogue.items]
    table = catalogue.items[columns].fillna("").astype(str)
    texts = [". ".join(part for part in row if part) for row in table.itertuples(index=False, name=None)]
    kept = EmbeddingCache(cache_folder() / "benchmarks" / catalogue.name)
    content, _ = kept.embed(TextEmbedder(), texts, [None] * len(texts))
    if recipe.text_dims is not None:
        content = whiten(content, recipe.text_dims, 0.5)
    if not recipe.behaviour_dims:
        return content
    behaviour = co_occurrence_vectors(split.train, split.n_items, recipe.behaviour_dims)
    return fuse(content, behaviour, behaviour.any(axis=1), recipe.behaviour_weight)


#: Makes the semantic IDs of items, by their ids, from their vectors: ``make(vectors, item_ids, codebook_sizes, seed)``.
MakeSids = Callable[[Float[np.ndarray, "items dim"], Sequence[str], tuple[int, ...], int], SemanticIds]


def joint_kmeans(
    vectors: Float[np.ndarray, "items dim"], item_ids: Sequence[str], codebook_sizes: tuple[int, ...], seed: int
) -> SemanticIds:
    """Return semantic IDs of joint residual k-means, unique by reassignment."""
    quantizer = JointResidualKMeans(codebook_sizes, seed=seed).fit(vectors)
    codes = quantizer.encode(vectors)
    return resolve_collisions(codes, codebook_sizes, item_ids, "reassign", quantizer, vectors)


def rqvae(
    vectors: Float[np.ndarray, "items dim"], item_ids: Sequence[str], codebook_sizes: tuple[int, ...], seed: int
) -> SemanticIds:
    """Return semantic IDs of an RQ-VAE as wide as TIGER's; items that share their codes get a suffix."""
    quantizer = RQVAE(codebook_sizes, latent_dim=32, hidden_dims=(512, 256, 128), seed=seed).fit(vectors)
    return resolve_collisions(quantizer.encode(vectors), codebook_sizes, item_ids, "suffix")


@dataclass(frozen=True)
class System:
    """A generative recommender: a name for its folders, its settings, what makes its semantic IDs and its model."""

    name: str
    recipe: Recipe
    make_sids: MakeSids
    backbone: Callable[[Recipe], Backbone]


TRIALIGN = System("qwen3", Recipe(), joint_kmeans, qwen3)
TRIALIGN_ONE = replace(TRIALIGN, recipe=Recipe(members=1))
TRIALIGN_GPT2 = replace(TRIALIGN_ONE, name="gpt2", backbone=gpt2)

#: TIGER's text and codes.
_TIGER_ITEMS: dict[str, Any] = {
    "codebook_sizes": (256, 256, 256),
    "text_dims": None,
    "behaviour_dims": 0,
    "behaviour_weight": 0.0,
}
TIGER = System(
    "tiger",
    Recipe(members=1, **_TIGER_ITEMS, layers=4, heads=6, drop_items=0.0, passes=2.5, learning_rate=3e-3),
    rqvae,
    t5,
)
TIGER_CAUSAL = System("tiger-causal", Recipe(members=1, **_TIGER_ITEMS), rqvae, qwen3)


@dataclass(frozen=True)
class Trained:
    """A trained recommender, and the CPU seconds of its semantic IDs and its training with all validations."""

    recommender: GenerativeRecommender
    cpu_seconds: float


def train_member(catalogue: Catalogue, split: Split, system: System, seed: int, member: int) -> Trained:
    """Train a member of an ensemble, in its own folder under ``runs/``; see `train`.

    Members of one ensemble, and of ensembles with other seeds below 1000, have different seeds.
    """
    folder = TRAININGS / catalogue.name / f"{system.name}-seed{seed}-member{member}"
    return train(catalogue, split, system, seed + 1000 * member, folder)


def train(catalogue: Catalogue, split: Split, system: System, seed: int, folder: Path) -> Trained:
    """Train a model of the system, or go on where a killed run was; a finished one in `folder` is loaded.

    Raises a ValueError if what is finished there was trained by another recipe.

    Of a run that was killed and went on, the CPU seconds since its last start count, and before that the seconds on the
    clock up to the checkpoint that it went on from.
    """
    recipe = system.recipe
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "training.json"
    # Which other members there are is no matter of one member's training.
    settings = json.loads(json.dumps({**asdict(recipe), "members": None}))
    if record.is_file():
        found = json.loads(record.read_text())
        if {**found["recipe"], "members": None} != settings:
            raise ValueError(f"{folder} was trained by another recipe, {found['recipe']}; remove it to train anew")
        return Trained(GenerativeRecommender.load(folder / "model"), found["cpu_seconds"])
    started = time.process_time()
    checkpoint = Checkpoint.latest(folder / "checkpoint")
    earlier = checkpoint.scalars["seconds"] if checkpoint else 0.0
    vectors, item_ids = item_vectors(catalogue, split, recipe), list(catalogue.items["item_id"])
    sids = system.make_sids(vectors, item_ids, recipe.codebook_sizes, seed)
    vocabulary = SidVocabulary.add_to(scratch_tokenizer(["title"], vocab_size=300), sids.codebook_sizes)
    model = system.backbone(recipe)(vocabulary, seed)
    titles = [""] * catalogue.n_items  # no task reads them
    multitask = Multitask(
        sids, vocabulary, titles, None, split,
        tasks=["SIDSeq→SID"], drop_items=recipe.drop_items, max_history=recipe.max_history, seed=seed,
    )  # fmt: skip
    recommender = GenerativeRecommender(model, vocabulary, sids, max_history=recipe.max_history)
    steps = steps_of(model, multitask, split, recipe)
    trainer = Trainer(
        model,
        multitask,
        steps=steps,
        batch_tokens=recipe.batch_tokens,
        micro_tokens=recipe.micro_tokens,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        seed=seed,
        validate=recommender.validation(split, users=2000),
        validate_every=-(-steps // 8),
        checkpoint=folder / "checkpoint",
        checkpoint_every=-(-steps // 24),
    )
    trainer.fit()
    recommender.save(folder / "model")
    trainer.validation_.to_csv(folder / "validation.csv", index=False)
    seconds = earlier + time.process_time() - started
    record.write_text(json.dumps({"cpu_seconds": seconds, "recipe": settings, "steps": steps, "seed": seed}))
    return Trained(recommender, seconds)


def steps_of(model: PreTrainedModel, multitask: Multitask, split: Split, recipe: Recipe) -> int:
    """Return the optimizer steps that go through all examples of the train histories as often as the recipe says."""
    sample = islice(objective_of(model).examples(multitask, 0), 2000)
    tokens = np.mean([len(example) for example in sample])
    windows = multitask.population_sizes()["SIDSeq→SID"]
    targets = sum(max(len(history) - 1, 0) for history in split.train)
    examples = targets if model.config.is_encoder_decoder else windows
    return round(recipe.passes * examples * tokens / recipe.batch_tokens)


class AveragedSearch:
    """Ranks by the mean of the probabilities that an item has in the searches of all members.

    An item that a search has not found counts as improbable there. Both rankings come from the same searches: seen
    items are left out of their lists, which are longer than asked.

    Parameters
    ----------
    recommenders
        The members.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="amazon-beauty", help="name or folder of a catalogue (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the ensemble (%(default)s)")
    parser.add_argument("--member", type=int, required=True, help="which one is trained, from 0")
    given = parser.parse_args()
    catalogue = load(given.dataset)
    trained = train_member(catalogue, leave_one_out(catalogue), TRIALIGN, given.seed, given.member)
    print(f"{trained.cpu_seconds:.0f} CPU s")


if __name__ == "__main__":
    main()
