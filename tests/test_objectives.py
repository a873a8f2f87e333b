"""Training of encoder-decoder models; that of decoders is in test_train.py."""

from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_t5
from training_examples import (
    CAPTIONS,
    TITLES,
    cyclic_multitask,
    cyclic_sids,
    small_multitask,
    small_sids,
    small_split,
)

from trialign.backbone import hub_backbone, hub_tokenizer
from trialign.batches import COARSE, collate, draw, micro_batches
from trialign.checkpoints import weights_of
from trialign.objectives import NextToken, PromptToAnswer, objective_of
from trialign.recommend import GenerativeRecommender
from trialign.scratch import scratch_qwen3, scratch_t5
from trialign.tasks import IGNORED, TASKS, Multitask
from trialign.train import Trainer
from trialign.vocabulary import SidVocabulary

FAST = {"batch_tokens": 200, "micro_tokens": 120, "precision": "fp32", "progress": False, "device": "cpu"}


def tiny(multitask, dropout=0.0):
    shape = {"hidden": 32, "layers": 2, "heads": 2, "head_size": 16, "feed_forward": 64}
    return scratch_t5(multitask.vocabulary, **shape, dropout=dropout)


def hub(folder, lora_rank):
    vocabulary = SidVocabulary.add_to(hub_tokenizer(tiny_t5(folder)), small_sids().codebook_sizes)
    multitask = Multitask(small_sids(), vocabulary, TITLES, CAPTIONS, small_split())
    return multitask, hub_backbone(folder, vocabulary, lora_rank=lora_rank)


def test_objective_by_kind_of_model():
    multitask = small_multitask()
    assert isinstance(objective_of(tiny(multitask)), PromptToAnswer)
    assert isinstance(objective_of(scratch_qwen3(multitask.vocabulary, hidden=32, layers=1, heads=2)), NextToken)


@pytest.mark.parametrize("kind", ["scratch", "hub", "lora"])
def test_losses_are_those_of_transformers(kind, tmp_path):
    if kind == "scratch":
        multitask = small_multitask()
        model = tiny(multitask)
    else:
        multitask, model = hub(tmp_path, 2 if kind == "lora" else None)
    examples = list(islice(multitask.pairs(), 24))
    assert {example.task for example in examples} == set(TASKS)
    objective = objective_of(model)
    objective.check(model)
    batch = collate(examples, multitask.vocabulary.pad_token_id)
    ours = objective.losses(model, batch)
    place = 0
    for example, task in zip(examples, batch.tasks):
        first = next(i for i, label in enumerate(example.labels) if label != IGNORED)
        answer = torch.tensor([example.input_ids[first:]])
        theirs = model(input_ids=torch.tensor([example.input_ids[:first]]), labels=answer).loss
        chosen = ours[place : place + answer.shape[1]]
        torch.testing.assert_close(chosen.mean(), theirs, atol=1e-5, rtol=1e-5)
        assert batch.answer_tasks[place : place + answer.shape[1]] == [task] * answer.shape[1]
        place += answer.shape[1]
    assert place == len(ours)
    # Batches of similar length, with rows of nothing but padding, give the same sum and finite gradients.
    parts = list(micro_batches(examples, 300, multitask.vocabulary.pad_token_id, COARSE))
    summed = sum(objective.losses(model, part).sum() for part in parts)
    torch.testing.assert_close(summed, ours.sum(), atol=1e-3, rtol=1e-5)
    assert sum(len(part.input_ids) for part in parts) > len(examples)
    summed.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_an_encoder_decoder_is_trained_on_pairs():
    multitask = small_multitask()
    losses = Trainer(tiny(multitask), multitask, steps=2, **FAST).fit()
    for step, part in losses.groupby("step"):
        examples = draw(multitask.pairs(step - 1), 200)
        expected = {t: sum(x != IGNORED for e in examples if e.task == t for x in e.labels) for t in part["task"]}
        assert dict(zip(part["task"], part["answers"])) == expected


def test_it_learns_recommends_and_round_trips(tmp_path):
    multitask = cyclic_multitask(tasks=["SIDSeq→SID", "Title→SID"])
    model = tiny(multitask)
    recommender = GenerativeRecommender(model, multitask.vocabulary, cyclic_sids())
    histories = [(np.arange(7) + user) % 12 for user in range(12)]

    def validate(trained):
        found = recommender.recommend(histories, beams=4, top_k=1, progress=False).items[:, 0]
        return {"ndcg@10": float((found == (7 + np.arange(12)) % 12).mean())}

    options = {**FAST, "batch_tokens": 500, "micro_tokens": 500, "learning_rate": 5e-3}
    trainer = Trainer(model, multitask, steps=240, validate=validate, validate_every=120, **options)
    losses = trainer.fit()
    assert (losses[losses["step"] <= 2].groupby("task")["loss"].mean() > 3).all()
    assert (losses[losses["step"] > 230].groupby("task")["loss"].mean() < 0.6).all()
    assert trainer.validation_["ndcg@10"].iloc[-1] >= 11 / 12
    loaded = GenerativeRecommender.load(recommender.save(tmp_path / "model"))
    ours, theirs = (each.recommend(histories, beams=4, top_k=3, progress=False) for each in (recommender, loaded))
    np.testing.assert_array_equal(ours.items, theirs.items)
    np.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, atol=1e-6)


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_a_killed_training_goes_on_exactly(tmp_path, lora_rank):
    def trainer(name, stop=None):
        multitask, model = hub(tmp_path / "t5", lora_rank)
        options = {**FAST, "steps": 6, "checkpoint": tmp_path / name, "checkpoint_every": 2, "learning_rate": 1e-2}
        observers = [] if stop is None else [Stopping(stop)]
        return Trainer(model, multitask, observers=observers, **options)

    whole = trainer("whole")
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        trainer("killed", stop=5).fit()
    resumed = trainer("killed")
    pd.testing.assert_frame_equal(resumed.fit(), whole.losses_, check_exact=True)
    weights = weights_of(resumed.model)
    assert all(torch.equal(weight, weights[name]) for name, weight in weights_of(whole.model).items())


class Stopping:
    """An observer that interrupts at a step."""

    def __init__(self, step):
        self.step = step

    def on_begin(self, losses, validation):
        pass

    def on_step(self, step):
        if step.number == self.step:
            raise KeyboardInterrupt

    def on_validation(self, step, metrics):
        pass

    def on_end(self):
        pass


def test_a_model_without_a_start_token_is_refused():
    multitask = small_multitask()
    model = tiny(multitask)
    model.config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        Trainer(model, multitask, **FAST).fit()
