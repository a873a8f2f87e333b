"""Trainings of several processes, started by accelerate, and trainings whose process is killed."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_examples import small_multitask

from trialign.backbone import scratch_backbone, scratch_t5
from trialign.checkpoints import Checkpoint, weights_of
from trialign.processes import Processes
from trialign.train import Trainer

BACKBONES = {
    "qwen3": lambda vocabulary: scratch_backbone(vocabulary, hidden=32, layers=2, heads=2, attention_dropout=0.2),
    "t5": lambda vocabulary: scratch_t5(vocabulary, hidden=32, layers=1, heads=2, head_size=16, feed_forward=64),
}


def trainer(backbone, folder, steps=6, **options):
    """Make a small training with dropout and several batches a step."""
    multitask = small_multitask()
    model = BACKBONES[backbone](multitask.vocabulary)
    small = {"batch_tokens": 300, "micro_tokens": 120, "precision": "fp32", "device": "cpu", "progress": False}
    return Trainer(model, multitask, steps=steps, checkpoint=folder / "checkpoint", **small, **options)


def train_and_save(backbone, folder):
    """Train in this process, which may be one of several, and write losses, weights and the validations done here."""
    validations = []

    def validate(model):
        validations.append(time.time())
        return {"ndcg@10": float(len(validations))}

    trained = trainer(backbone, folder, validate=validate, validate_every=3)
    trained.fit()
    name = os.environ.get("RANK", "0")
    trained.losses_.to_parquet(folder / f"losses-{name}.parquet")
    save_file(weights_of(trained.model), folder / f"weights-{name}.safetensors")
    (folder / f"validations-{name}").write_text(str(len(validations)))


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from test_processes import BACKBONES, train_and_save
for backbone in BACKBONES:
    train_and_save(backbone, Path({folder!r}) / backbone)
"""


def test_two_processes_take_the_steps_of_one(tmp_path, request):
    for backbone in BACKBONES:
        for started in ("one", "two"):
            (tmp_path / started / backbone).mkdir(parents=True)
        train_and_save(backbone, tmp_path / "one" / backbone)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(request.path.parent), folder=str(tmp_path / "two")))
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    command = [sys.executable, *launch.split(), "--dynamo_backend", "no", "--main_process_port", "0", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for backbone in BACKBONES:
        one, two = tmp_path / "one" / backbone, tmp_path / "two" / backbone
        weights = load_file(one / "weights-0.safetensors")
        for rank in "01":
            losses = [pd.read_parquet(file) for file in (two / f"losses-{rank}.parquet", one / "losses-0.parquet")]
            pd.testing.assert_frame_equal(*losses, rtol=1e-5)
            for name, weight in load_file(two / f"weights-{rank}.safetensors").items():
                torch.testing.assert_close(weight, weights[name], atol=1e-5, rtol=1e-5)
        assert [(two / f"validations-{rank}").read_text() for rank in "01"] == ["2", "0"]
        assert Checkpoint.latest(two / "checkpoint").step == 6


def test_one_process_does_everything():
    alone = Processes()
    assert alone.is_main and list(alone.share("abc")) == [(0, "a"), (1, "b"), (2, "c")]
    assert alone.agreed({"x": 1}) == {"x": 1}
    np.testing.assert_array_equal(alone.sum(np.arange(3)), np.arange(3))


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_sharded_launch_is_refused(variable, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ValueError, match=f"{variable} is not supported"):
        trainer("qwen3", tmp_path).fit()


# ---------------------------------------------------------------------- killed


class Counter:
    """An observer that lets another process see the step."""

    def __init__(self, shared):
        self.shared = shared

    def on_begin(self, losses, validation):
        pass

    def on_step(self, step):
        self.shared.value = step.number

    def on_validation(self, step, metrics):
        pass

    def on_end(self):
        pass


def drift(model):
    """A metric that prefers early weights, so that the best ones are not the last."""
    return {"ndcg@10": -float(sum(weight.abs().sum() for weight in weights_of(model).values()))}


def train_visibly(backbone, folder, shared):
    trainer(backbone, folder, **KILLED, observers=[Counter(shared)]).fit()


KILLED = {"steps": 60, "checkpoint_every": 4, "validate": drift, "validate_every": 7}


@pytest.mark.parametrize(("backbone", "seed"), [("qwen3", 0), ("t5", 1)])
def test_killed_again_and_again_the_final_losses_are_those_of_an_undisturbed_run(backbone, seed, tmp_path):
    luck = random.Random(seed)
    context = multiprocessing.get_context("fork")
    kills = 0
    for step in sorted(luck.sample(range(3, 56), 4)):
        shared = context.Value("i", 0)
        process = context.Process(target=train_visibly, args=(backbone, tmp_path, shared))
        process.start()
        while shared.value < step and process.is_alive():
            time.sleep(0.001)
        time.sleep(luck.uniform(0, 0.05))  # anywhere in a step, a validation, or the writing of a checkpoint
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills == 4
    resumed = trainer(backbone, tmp_path, **KILLED)
    undisturbed = trainer(backbone, tmp_path / "undisturbed", **KILLED)
    losses = resumed.fit()
    assert Checkpoint.latest(tmp_path / "checkpoint").step == 60
    pd.testing.assert_frame_equal(losses, undisturbed.fit(), rtol=0, atol=1e-6)
    metrics = [each.validation_.drop(columns="seconds") for each in (resumed, undisturbed)]
    pd.testing.assert_frame_equal(*metrics, rtol=0, atol=1e-6)
    assert resumed.best_step_ == undisturbed.best_step_
    weights = weights_of(undisturbed.model)
    for name, weight in weights_of(resumed.model).items():
        torch.testing.assert_close(weight, weights[name], atol=1e-6, rtol=0)
