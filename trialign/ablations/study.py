"""Train and evaluate one variant after the other on one catalogue, everything else being equal."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from trialign import embed
from trialign.ablations.records import (
    DEPTH,
    RANKINGS,
    Record,
    metric_of,
    ranks_of,
    read_record,
    record_path,
    write_record,
)
from trialign.ablations.variants import FULL, Variant
from trialign.backbone import make_backbone
from trialign.baselines import Popularity
from trialign.catalogue import Catalogue
from trialign.embed.ablation import representations
from trialign.provenance import plain
from trialign.recommend import GenerativeRecommender
from trialign.sids import SemanticIds, collisions, resolve_collisions
from trialign.sids.build import new_quantizer
from trialign.split import leave_one_out
from trialign.tasks import Multitask
from trialign.train import Trainer
from trialign.vocabulary import SidVocabulary

#: Examples from which the mean length of each task's examples is taken.
_SAMPLE = 4000


@dataclass(frozen=True)
class Settings:
    """What all variants have in common.

    Attributes
    ----------
    steps, batch_tokens, learning_rate
        Of the training: optimizer steps of the full model, tokens of each, and AdamW's peak rate.
    hidden, layers
        Of the backbone, a small Qwen3 trained from scratch.
    embedder, quantizer, codebook_sizes, epochs
        Of the semantic IDs, as in notebook 04; items with equal codes get a suffix code.
    validations, validated_users
        How often a training is validated, on how many users; the best weights are kept.
    beams
        Width of the search, in the evaluation.
    """

    steps: int = 400
    batch_tokens: int = 1024
    learning_rate: float = 3e-3
    hidden: int = 128
    layers: int = 2
    embedder: str = "embedded"
    quantizer: str = "RQVAE"
    codebook_sizes: Sequence[int] = (64, 64, 64)
    epochs: int = 100
    validations: int = 4
    validated_users: int = 300
    beams: int = 20


def shuffled_captions(captions: Mapping[str, str], share: float, seed: int = 0) -> dict[str, str]:
    """Give a share of the items the captions of others among them; no item drawn keeps its own.

    With one seed, the items drawn at a smaller share are among those drawn at a larger one.

    Parameters
    ----------
    captions
        Item id to caption.
    share
        From 0 (as they are) to 1 (all). A single item drawn has nobody to change with and keeps its caption.
    seed
        Of the draw.

    Examples
    --------
    >>> sorted(shuffled_captions({"a": "mug", "b": "lamp"}, 1.0).items())
    [('a', 'lamp'), ('b', 'mug')]
    """
    ids = list(captions)
    drawn = np.random.default_rng(seed).permutation(len(ids))[: round(share * len(ids))]
    others = {ids[to]: captions[ids[given]] for to, given in zip(drawn, np.roll(drawn, 1))}
    return {**captions, **others}


class Study:
    """Runs variants on one catalogue. Texts and images are embedded once, semantic IDs made once a seed.

    Parameters
    ----------
    catalogue
        The catalogue, with images.
    captions, interests
        Item id to caption, and to interest tags. The tags are taken as they are: where they were mined from captions,
        a variant without captions, or with shuffled ones, still has what the miner read in the true ones.
    settings
        What all variants have in common.
    described_by
        Who wrote captions and interests, for the records.
    model
        The embedder; None makes the one that `settings` names when it is first needed.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        captions: Mapping[str, str],
        interests: Mapping[str, Sequence[str]],
        settings: Settings | None = None,
        *,
        described_by: Mapping[str, str] | None = None,
        model: embed.Embedder | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.captions = dict(captions)
        self.interests = dict(interests)
        self.settings = settings or Settings()
        self.described_by = dict(described_by or {})
        self.split = leave_one_out(catalogue)
        self._model = model
        self._sids: dict[tuple[str, float, int], SemanticIds] = {}

    def semantic_ids(self, variant: Variant, seed: int) -> SemanticIds:
        """Return the semantic IDs of a variant's inputs, made with a seed; variants with the same inputs share them."""
        key = (variant.inputs, variant.shuffled, seed)
        if key not in self._sids:
            settings = self.settings
            self._model = self._model or embed.embedder(settings.embedder)
            captions = shuffled_captions(self.captions, variant.shuffled, seed)
            names = [variant.inputs]
            rows = representations(self._model, self.catalogue, captions, self.interests, names, progress=False)
            vectors, sizes = rows[variant.inputs], settings.codebook_sizes
            fitted = new_quantizer(settings.quantizer, sizes, seed, epochs=settings.epochs, progress=False).fit(vectors)
            ids = self.catalogue.items["item_id"].tolist()
            self._sids[key] = resolve_collisions(fitted.encode(vectors), sizes, ids, "suffix", fitted, vectors)
        return self._sids[key]

    def run(self, variant: Variant, seed: int) -> Record:
        """Make the variant's semantic IDs, train and evaluate."""
        return self.evaluate(variant, seed, self.semantic_ids(variant, seed))

    def record(self, variant: Variant, seed: int, folder: str | Path) -> Record:
        """Return the record of a run from a folder, or run and write it there.

        Raises
        ------
        ValueError
            If the record there is of other settings or another catalogue.
        """
        path = record_path(folder, variant, seed)
        if not path.is_file():
            record = self.run(variant, seed)
            write_record(record, folder)
            return record
        record = read_record(path)
        wanted = (plain(asdict(self.settings)), self.catalogue.name)
        if (record.settings, record.dataset) != wanted:
            raise ValueError(
                f"{path} is a run of {record.dataset} with the settings {record.settings}, not {wanted[1]} with "
                f"{wanted[0]}; fix: give another folder, or remove the old records"
            )
        return record

    def evaluate(self, variant: Variant, seed: int, sids: SemanticIds) -> Record:
        """Train a variant on given semantic IDs and rank the items for every user.

        Every variant has the same tokenizer, tokens a step and schedule and, for ``budget = "compute"``, the same
        number of steps.
        """
        started, settings = time.process_time(), self.settings
        texts = [*self.catalogue.titles, *self.captions.values()]
        model, vocabulary = make_backbone(
            "scratch", sids.codebook_sizes, texts, hidden=settings.hidden, layers=settings.layers, seed=seed
        )
        recommender = GenerativeRecommender(model, vocabulary, sids)
        steps = self._steps(variant, seed, sids, vocabulary)
        trainer = Trainer(
            model,
            self._multitask(variant, seed, sids, vocabulary),
            steps=steps,
            batch_tokens=settings.batch_tokens,
            learning_rate=settings.learning_rate,
            seed=seed,
            precision="fp32",  # "auto" is decided by a stopwatch: variants must not differ in it
            validate=recommender.validation(self.split, users=settings.validated_users),
            validate_every=-(-steps // settings.validations),
            progress=False,
        )
        losses = trainer.fit()
        ranks = self._ranks(recommender)
        embedder = self._model.name if self._model else settings.embedder
        return Record(
            variant=variant,
            seed=seed,
            dataset=self.catalogue.name,
            items=self.catalogue.n_items,
            described_by={**self.described_by, "embeddings": embedder},
            settings=plain(asdict(settings)),
            steps=steps,
            best_step=trainer.best_step_,
            answers=losses.groupby("task")["answers"].sum().astype(int).to_dict(),
            colliding=float(collisions(sids.codes[:, : sids.levels])["items_colliding"]),
            ranks=ranks,
            popularity=self._popularity(),
            cpu_seconds=round(time.process_time() - started, 1),
        )

    def _multitask(self, variant: Variant, seed: int, sids: SemanticIds, vocabulary: SidVocabulary) -> Multitask:
        captions = shuffled_captions(self.captions, variant.shuffled, seed) if variant.captions else None
        return Multitask(
            sids, vocabulary, self.catalogue.titles, captions, self.split, tasks=variant.task_names, seed=seed
        )

    def _steps(self, variant: Variant, seed: int, sids: SemanticIds, vocabulary: SidVocabulary) -> int:
        """Return the steps of a variant: tasks are drawn equally often, so tokens are shared by their mean lengths."""
        if variant.budget == "compute":
            return self.settings.steps
        sample = self._multitask(FULL, seed, sids, vocabulary).sample(_SAMPLE)
        lengths = pd.Series([len(example) for example in sample]).groupby([example.task for example in sample]).mean()
        return max(1, round(self.settings.steps * float(lengths[variant.task_names].sum() / lengths.sum())))

    def _ranks(self, recommender: GenerativeRecommender) -> dict[str, list[int]]:
        split, ranks = self.split, {}
        asked = {
            "validation": (split.histories("validation"), split.validation),
            "test": (split.histories("test"), split.test),
        }
        for ranking in RANKINGS:
            name, _, masked = ranking.partition(", ")
            histories, targets = asked[name]
            found = recommender.recommend(
                histories, beams=self.settings.beams, top_k=DEPTH, mask_seen=bool(masked), progress=False
            )
            ranks[ranking] = ranks_of(found.items, targets).tolist()
        return ranks

    def _popularity(self) -> float:
        ranked = Popularity().fit(self.split).recommend(self.split.histories("test"), DEPTH, False)
        return float(metric_of(ranks_of(ranked, self.split.test), "ndcg@10").mean())
