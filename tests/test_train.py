import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from tiny_models import tiny_qwen2
from training_examples import CAPTIONS, TITLES, cyclic_multitask, small_multitask, small_sids, small_split
from transformers import (
    Cohere2Config,
    Cohere2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from trialign.backbone import hub_backbone, hub_tokenizer
from trialign.batches import COARSE, EXACT, answer_losses, check_output_layer, collate, draw, micro_batches
from trialign.checkpoints import Checkpoint, weights_of
from trialign.optimizer import schedule
from trialign.plots.training import smooth, task_losses, validation_curve
from trialign.precision import bf16_speedup, flushed_denormals, resolve_precision
from trialign.scratch import scratch_gpt2, scratch_qwen3
from trialign.tasks import IGNORED, TASKS, Example, Multitask
from trialign.train import Trainer
from trialign.vocabulary import SidVocabulary

CPU = torch.device("cpu")
FAST = {"batch_tokens": 200, "micro_tokens": 120, "precision": "fp32", "progress": False, "device": "cpu"}


def tiny(multitask, dropout=0.0):
    return scratch_qwen3(multitask.vocabulary, hidden=32, layers=2, heads=2, attention_dropout=dropout)


def foreign_models(size):
    common = {"vocab_size": size, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": 1}
    return {
        "llama": LlamaForCausalLM(LlamaConfig(**common, **heads, pad_token_id=0)),
        "gpt2": GPT2LMHeadModel(
            GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1)
        ),
        "cohere": Cohere2ForCausalLM(Cohere2Config(**common, **heads, pad_token_id=0, logit_scale=0.1)),
    }


# ---------------------------------------------------------------------- batches and the loss


@settings(max_examples=60)
@given(st.lists(st.integers(2, 90), min_size=1, max_size=60), st.integers(20, 300), st.sampled_from([EXACT, COARSE]))
def test_micro_batches_hold_every_example_once(lengths, bound, rounding):
    examples = [Example("t", [i + 1] * n, [IGNORED] * (n - 1) + [i + 1]) for i, n in enumerate(lengths)]
    batches = list(micro_batches(examples, bound, 0, rounding))
    assert all(batch.input_ids.shape[1] % rounding.length == 0 for batch in batches)
    found = [[token for token in row.tolist() if token] for batch in batches for row in batch.input_ids if row.any()]
    assert sorted(found) == sorted(example.input_ids for example in examples)
    assert sum(len(batch.tasks) for batch in batches) == len(examples)
    assert all(batch.input_ids.numel() <= bound or len(batch.tasks) == 1 for batch in batches)
    assert all(((batch.input_ids == 0) <= (batch.labels == IGNORED)).all() for batch in batches)


def test_batches_of_similar_length_are_hardly_padded():
    multitask = cyclic_multitask(max_title_history=8)
    examples = draw(multitask.stream(0), 4096)
    held = sum(map(len, examples))
    assert 4096 <= held < 4096 + max(map(len, examples))
    padded = sum(batch.input_ids.numel() for batch in micro_batches(examples, 2048, 0))
    assert padded < 1.2 * held < collate(examples, 0).input_ids.numel()


@pytest.mark.parametrize("kind", ["scratch", "scratch gpt2", "llama", "gpt2", "qwen2", "lora"])
def test_our_loss_is_the_loss_of_transformers(kind, tmp_path):
    multitask = small_multitask()
    if kind in ("qwen2", "lora"):
        folder = tiny_qwen2(tmp_path)
        vocabulary = SidVocabulary.add_to(hub_tokenizer(folder), small_sids().codebook_sizes)
        multitask = Multitask(small_sids(), vocabulary, TITLES, CAPTIONS, small_split())
        model = hub_backbone(folder, vocabulary, lora_rank=2 if kind == "lora" else None)
    elif kind == "scratch":
        model = tiny(multitask)
    elif kind == "scratch gpt2":
        model = scratch_gpt2(multitask.vocabulary, hidden=32, layers=2, heads=2)
    else:
        model = foreign_models(len(multitask.vocabulary))[kind].eval()
    check_output_layer(model)
    batch = collate(multitask.sample(24), multitask.vocabulary.pad_token_id)
    lengths = torch.tensor([len(example) for example in multitask.sample(24)])
    mask = (torch.arange(batch.input_ids.shape[1]) < lengths[:, None]).long()
    theirs = model(input_ids=batch.input_ids, attention_mask=mask, labels=batch.labels).loss
    ours = answer_losses(model, batch)
    assert len(ours) == len(batch.answer_tasks) == int((batch.labels[:, 1:] != IGNORED).sum())
    torch.testing.assert_close(ours.mean(), theirs, atol=1e-5, rtol=1e-5)
    # Cut into batches of similar length the sum is the same: padding reaches no answer.
    for rounding in (EXACT, COARSE):
        parts = micro_batches(multitask.sample(24), 100, multitask.vocabulary.pad_token_id, rounding)
        summed = sum(answer_losses(model, part).sum() for part in parts)
        torch.testing.assert_close(summed / len(ours), theirs, atol=1e-5, rtol=1e-5)


def test_an_example_longer_than_a_gpt2_s_positions_is_refused():
    multitask = small_multitask()
    batch = collate(multitask.sample(24), multitask.vocabulary.pad_token_id)
    longest = int(batch.answers.any(dim=0).nonzero().max()) + 1
    shape = {"hidden": 32, "layers": 1, "heads": 2}
    assert len(answer_losses(scratch_gpt2(multitask.vocabulary, positions=longest, **shape), batch))
    with pytest.raises(ValueError, match=f"{longest} tokens, the model {longest - 1} positions"):
        answer_losses(scratch_gpt2(multitask.vocabulary, positions=longest - 1, **shape), batch)


def test_a_model_that_scales_its_logits_is_refused():
    with pytest.raises(ValueError, match="changes its logits"):
        check_output_layer(foreign_models(60)["cohere"])


def test_prompts_carry_no_loss():
    multitask = small_multitask()
    model = tiny(multitask)
    batch = collate(multitask.sample(8), multitask.vocabulary.pad_token_id)
    answer_losses(model, batch).sum().backward()
    hidden = model.get_decoder()(input_ids=batch.input_ids).last_hidden_state
    assert answer_losses(model, batch).numel() < hidden[..., 0].numel() / 2
    blind = batch.labels.clone()
    blind[:] = IGNORED
    assert answer_losses(model, type(batch)(batch.tasks, batch.input_ids, blind)).numel() == 0


# ---------------------------------------------------------------------- the training


def test_schedule():
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == pytest.approx(1.0)
    assert schedule(0.55, 0.1) == pytest.approx(0.5)
    assert schedule(1.0, 0.1) == pytest.approx(0.0, abs=1e-12)
    assert schedule(0.0, 0.0) == 1.0


def test_losses_are_recorded_by_task():
    multitask = small_multitask()
    trainer = Trainer(tiny(multitask), multitask, steps=4, **FAST)
    losses = trainer.fit()
    assert list(losses.columns) == ["step", "task", "loss", "answers"]
    assert losses["step"].unique().tolist() == [1, 2, 3, 4]
    assert set(losses["task"]) <= set(TASKS) and np.isfinite(losses["loss"]).all()
    for step, part in losses.groupby("step"):
        examples = draw(multitask.stream(step - 1), 200)
        expected = {t: sum(x != IGNORED for e in examples if e.task == t for x in e.labels) for t in part["task"]}
        assert dict(zip(part["task"], part["answers"])) == expected
    # The first step's loss is that of the untrained model.
    untrained, examples = tiny(multitask), draw(multitask.stream(0), 200)
    batch = collate(examples, multitask.vocabulary.pad_token_id)
    each, tasks = answer_losses(untrained, batch).detach().numpy(), np.array(batch.answer_tasks)
    for row in losses[losses["step"] == 1].itertuples():
        assert row.loss == pytest.approx(each[tasks == row.task].mean(), rel=1e-5)
    assert (trainer.steps_, trainer.best_step_, trainer.precision_) == (4, 4, "fp32")
    assert not trainer.model.training


def test_targets_count_items_once():
    multitask = small_multitask(tasks=["SIDSeq→SID", "SIDSeq→Title"])
    trainer = Trainer(tiny(multitask), multitask, steps=1, **FAST)
    trainer.fit()
    items = 0
    for example in draw(multitask.stream(0), 200):
        a = set(multitask.vocabulary.sid_token_ids[0].tolist())
        items += sum(label in a for label in example.labels) if example.task == "SIDSeq→SID" else 1
    assert trainer.targets_ == items


def test_learning_happens():
    multitask = cyclic_multitask(tasks=["SIDSeq→SID", "Title→SID"])
    model = scratch_qwen3(multitask.vocabulary, hidden=64, layers=2, heads=2)
    losses = Trainer(model, multitask, steps=90, learning_rate=1e-2, **{**FAST, "batch_tokens": 500}).fit()
    last = losses[losses["step"] > 75].groupby("task")["loss"].mean()
    first = losses[losses["step"] <= 3].groupby("task")["loss"].mean()
    assert (first > 4).all() and (last < 0.6).all(), (first, last)
    # The held-out items go on in the circle: greedy answers to the inference prompt are right.
    right = 0
    for user in range(12):
        prompt = multitask.prompt((np.arange(8) + user) % 12)
        expected = multitask.answer("SIDSeq→SID", (8 + user) % 12)
        ids = torch.tensor([[*prompt, *expected]])
        with torch.no_grad():
            predicted = model(ids).logits[0, len(prompt) - 1 : -1].argmax(dim=-1)
        right += predicted.tolist() == expected
    assert right >= 11


class Interrupted(Exception):
    pass


def interrupt_at(calls):
    """A validation that dies at the given call, as a killed process does; the earliest weights are the best."""
    start = weights_of(tiny(small_multitask()))
    seen = {"calls": 0}

    def validate(model):
        seen["calls"] += 1
        if seen["calls"] == calls:
            raise Interrupted
        moved = sum((weight - start[name]).abs().sum() for name, weight in weights_of(model).items() if name in start)
        return {"ndcg@10": -float(moved)}

    return validate


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resume_gives_the_losses_of_an_undisturbed_training(tmp_path, dropout):
    def trainer(folder, validate):
        multitask = small_multitask()
        model = tiny(multitask, dropout)
        options = {"steps": 14, "validate_every": 4, "checkpoint_every": 3, "seed": 5, **FAST}
        return Trainer(model, multitask, validate=validate, checkpoint=folder, **options)

    torch.manual_seed(7)
    whole = trainer(tmp_path / "whole", interrupt_at(-1))
    whole.fit()
    assert whole.best_step_ == 4
    with pytest.raises(Interrupted):
        trainer(tmp_path / "killed", interrupt_at(2)).fit()  # dies in step 8; the last checkpoint is of step 6
    assert [folder.name for folder in (tmp_path / "killed").iterdir()] == ["step-00000006"]
    torch.manual_seed(123)  # a new process has another random state
    resumed = trainer(tmp_path / "killed", interrupt_at(-1))
    resumed.fit()
    pd.testing.assert_frame_equal(whole.losses_, resumed.losses_, check_exact=True)
    pd.testing.assert_frame_equal(
        whole.validation_.drop(columns="seconds"), resumed.validation_.drop(columns="seconds"), check_exact=True
    )
    for name, weight in weights_of(whole.model).items():
        assert torch.equal(weight, weights_of(resumed.model)[name]), name
    assert (whole.targets_, whole.best_step_) == (resumed.targets_, resumed.best_step_)
    # Finished is finished: once more trains nothing.
    again = trainer(tmp_path / "killed", interrupt_at(1))
    pd.testing.assert_frame_equal(again.fit(), whole.losses_)


def test_lora_trains_and_resumes(tmp_path):
    folder = tiny_qwen2(tmp_path / "qwen2")

    def trainer(steps_done, checkpoint):
        vocabulary = SidVocabulary.add_to(hub_tokenizer(folder), small_sids().codebook_sizes)
        multitask = Multitask(small_sids(), vocabulary, TITLES, CAPTIONS, small_split())
        model = hub_backbone(folder, vocabulary, lora_rank=2)
        validate = interrupt_at(steps_done)
        options = {"steps": 6, "validate_every": 1, "checkpoint_every": 2, "checkpoint": checkpoint, **FAST}
        return Trainer(model, multitask, learning_rate=1e-2, validate=validate, **options)

    whole = trainer(-1, tmp_path / "whole").fit()
    with pytest.raises(Interrupted):
        trainer(4, tmp_path / "killed").fit()
    pd.testing.assert_frame_equal(whole, trainer(-1, tmp_path / "killed").fit(), check_exact=True)
    sizes = [file.stat().st_size for file in (tmp_path / "whole").rglob("weights.safetensors")]
    assert sizes[0] < (folder / "model.safetensors").stat().st_size / 3  # adapters and SID rows only


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    multitask = small_multitask()
    Trainer(tiny(multitask), multitask, steps=2, checkpoint=tmp_path, **FAST).fit()
    with pytest.raises(ValueError, match=r"other settings.*learning_rate"):
        Trainer(tiny(multitask), multitask, steps=2, learning_rate=1.0, checkpoint=tmp_path, **FAST).fit()
    other = small_multitask(seed=1)
    with pytest.raises(ValueError, match="examples"):
        Trainer(tiny(other), other, steps=2, checkpoint=tmp_path, **FAST).fit()


def test_checkpoints_are_whole_and_without_pickle(tmp_path):
    tensors = {"weights": {"a/b": torch.arange(3.0)}, "best": {}}
    Checkpoint(1, {"x": 1}, tensors, {"losses": pd.DataFrame({"step": [1]})}).save(tmp_path)
    Checkpoint(2, {"x": 2}, tensors, {"losses": pd.DataFrame({"step": [1, 2]})}).save(tmp_path)
    (tmp_path / ".step-00000003.partial").mkdir()  # killed while writing
    found = Checkpoint.latest(tmp_path)
    assert (found.step, found.scalars, len(found.tables["losses"])) == (2, {"x": 2}, 2)
    assert torch.equal(found.tensors["weights"]["a/b"], torch.arange(3.0))
    files = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {".safetensors", ".parquet", ".json"}
    assert json.loads((tmp_path / "step-00000002" / "state.json").read_text())["step"] == 2
    assert Checkpoint.latest(tmp_path / "nothing") is None


def test_early_stopping_keeps_the_best_weights():
    multitask = small_multitask()
    scores, kept = iter([0.1, 0.5, 0.3, 0.2, 0.9]), []

    def validate(model):
        assert not model.training
        kept.append(weights_of(model))
        return {"ndcg@10": next(scores), "recall@10": 0.0}

    trainer = Trainer(
        tiny(multitask), multitask, steps=50, validate=validate, validate_every=2, patience=2, warmup=0.0, **FAST
    )
    trainer.fit()
    assert (trainer.steps_, trainer.best_step_) == (8, 4)
    assert trainer.validation_["ndcg@10"].tolist() == [0.1, 0.5, 0.3, 0.2]
    assert all(torch.equal(weight, kept[1][name]) for name, weight in weights_of(trainer.model).items())
    assert not all(torch.equal(weight, kept[2][name]) for name, weight in kept[1].items())


def test_a_time_budget_ends_the_training_annealed():
    multitask = small_multitask()
    trainer = Trainer(tiny(multitask), multitask, steps=100_000, max_minutes=3 / 60, **FAST)
    trainer.fit()
    assert 2 < trainer.steps_ < 100_000 and 3 <= trainer.seconds_ < 30
    assert trainer._optimizer.param_groups[0]["lr"] < 0.1 * trainer.learning_rate


def test_bad_settings():
    multitask = small_multitask()
    for wrong in ({"steps": 0}, {"warmup": 1.0}, {"learning_rate": -1.0}, {"max_minutes": 0}, {"precision": "fp8"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Trainer(tiny(multitask), multitask, **{**FAST, **wrong}).fit()
    with pytest.raises(ValueError, match="without the metric"):
        Trainer(tiny(multitask), multitask, steps=1, validate=lambda model: {"hit@1": 0.0}, **FAST).fit()
    frozen = tiny(multitask).requires_grad_(False)
    with pytest.raises(ValueError, match="trainable"):
        Trainer(frozen, multitask, **FAST).fit()
    broken = tiny(multitask)
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    with pytest.raises(ValueError, match=r"not finite|changes its logits"):
        Trainer(broken, multitask, steps=1, **FAST).fit()


def test_tiny_numbers_are_zero_while_a_model_trains_and_only_then():
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor can't take tiny numbers for 0")

    def is_zero():
        return (torch.tensor(1e-40) * 1.0).item() == 0

    seen, multitask = [], small_multitask()

    def validate(model):
        seen.append(is_zero())
        return {"ndcg@10": 0.0}

    Trainer(tiny(multitask), multitask, **{**FAST, "steps": 1, "validate": validate}).fit()
    assert seen == [True] and not is_zero()
    with flushed_denormals():
        with flushed_denormals():
            assert is_zero()
        assert is_zero(), "what was so before stays so"
    assert not is_zero()


def test_precision_is_probed():
    assert resolve_precision("fp32", CPU, 64) == "fp32" and resolve_precision("bf16", CPU, 64) == "bf16"
    assert resolve_precision("auto", CPU, 512) == ("bf16" if bf16_speedup("cpu", 512) >= 3 else "fp32")
    multitask = small_multitask()
    options = {**FAST, "steps": 3}
    exact = Trainer(tiny(multitask), multitask, **options).fit()
    rounded = Trainer(tiny(multitask), multitask, **{**options, "precision": "bf16"}).fit()
    difference = (exact["loss"] - rounded["loss"]).abs().max()
    assert 0 < difference < 0.05


# ---------------------------------------------------------------------- figures


def test_smooth_keeps_the_mean():
    steps, values = smooth(list(range(100)), list(range(100)), points=10)
    np.testing.assert_allclose(values, np.arange(4.5, 100, 10))
    np.testing.assert_allclose(steps, values)
    assert len(smooth([1, 2], [3.0, 4.0])[0]) == 2


def test_figures_draw_every_task():
    names = list(TASKS)
    losses = pd.DataFrame(
        [(s, t, 3 / (1 + s), 5) for s in range(20) for t in names], columns=["step", "task", "loss", "answers"]
    )
    figure = task_losses(losses)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"{i}  {t}" for i, t in enumerate(names, 1)]
    few = task_losses(losses[losses["task"].isin(names[4:6])])
    assert [axes.get_title(loc="left") for axes in few.axes] == ["5  Title→SID", "6  SID→Title"]
    curve = validation_curve(pd.DataFrame({"step": [10, 20, 30], "ndcg@10": [0.1, 0.3, 0.2]}))
    assert "kept: step 20" in [text.get_text() for text in curve.axes[0].texts]
    with pytest.raises(ValueError, match="empty"):
        task_losses(losses[:0])
    with pytest.raises(ValueError, match="ndcg@10"):
        validation_curve(pd.DataFrame())
    plt.close("all")
