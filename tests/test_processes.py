"""Trainings of several processes, started by accelerate, and trainings whose process is killed."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_examples import small_multitask
from typer.testing import CliRunner

from trialign import sharding
from trialign.backbone import hub_backbone, load_backbone, save_backbone
from trialign.batches import answer_losses, collate
from trialign.checkpoints import Checkpoint, weights_of
from trialign.cli import app
from trialign.datasets import load
from trialign.objectives import AnswerLoss, PromptToAnswer
from trialign.processes import Processes
from trialign.recommend import GenerativeRecommender
from trialign.scratch import scratch_qwen3, scratch_t5
from trialign.sharding import is_sharded
from trialign.train import Trainer

BACKBONES = {
    "qwen3": lambda vocabulary: scratch_qwen3(vocabulary, hidden=32, layers=2, heads=2, attention_dropout=0.2),
    "t5": lambda vocabulary: scratch_t5(vocabulary, hidden=32, layers=1, heads=2, head_size=16, feed_forward=64),
}


def trainer(backbone, folder, steps=6, model=None, **options):
    """Make a small training with dropout and several batches a step."""
    multitask = small_multitask()
    model = model or BACKBONES[backbone](multitask.vocabulary)
    small = {"batch_tokens": 300, "micro_tokens": 120, "precision": "fp32", "device": "cpu", "progress": False}
    return Trainer(model, multitask, steps=steps, checkpoint=folder / "checkpoint", **{**small, **options})


def train_and_save(backbone, folder, **options):
    """Train in this process, which may be one of several, and write losses, weights and the validations done here."""
    validations = []

    def validate(model):
        validations.append(time.time())
        losses = answer_losses if backbone != "t5" else PromptToAnswer().losses
        found = losses(model, collate(trained.multitask.sample(8), trained.multitask.vocabulary.pad_token_id))
        return {"ndcg@10": -float(found.mean())}

    trained = trainer(backbone, folder, validate=validate, validate_every=3, checkpoint_every=3, **options)
    trained.fit()
    assert is_sharded(trained.model) == ("ACCELERATE_USE_FSDP" in os.environ)
    name = os.environ.get("RANK", "0")
    trained.losses_.to_parquet(folder / f"losses-{name}.parquet")
    trained.validation_.to_parquet(folder / f"validation-{name}.parquet")
    save_file(weights_of(trained.model), folder / f"weights-{name}.safetensors")
    save_backbone(trained.model, trained.multitask.vocabulary, folder / "model")
    (folder / f"validations-{name}").write_text(str(len(validations)))


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from test_processes import {function}
{function}(Path({folder!r}))
"""

SHARDED = ("--use_fsdp", "--fsdp_version", "2")


@pytest.mark.parametrize(("named", "units"), [(["Qwen3DecoderLayer"], 3), (["AnotherLayer"], 1), (None, 1)])
def test_a_model_without_the_layers_it_names_is_sharded_as_one_unit_and_says_so(named, units, monkeypatch):
    sharded = []
    monkeypatch.setattr(sharding, "init_device_mesh", lambda *arguments: None)
    monkeypatch.setattr(sharding, "fully_shard", lambda module, mesh: sharded.append(module))
    model = BACKBONES["qwen3"](small_multitask().vocabulary)
    model._no_split_modules = named
    warned = pytest.warns(UserWarning, match="Qwen3ForCausalLM has none") if units == 1 else nullcontext()
    with warned:
        sharding.shard(loss := AnswerLoss(model), model, torch.device("cpu"), 2)
    assert len(sharded) == units and sharded[-1] is loss


def launch(function, folder, tests, *options):
    """Call a function of this module with a folder in two processes."""
    run_in_two(SCRIPT.format(tests=str(tests), function=function.__name__, folder=str(folder)), folder, *options)


def run_in_two(program, folder, *options):
    """Run a program in a folder in two processes."""
    script = folder / "script.py"
    script.write_text(program, encoding="utf-8")
    launcher = "-m accelerate.commands.launch --num_processes 2 --num_machines 1 --mixed_precision no"
    command = [sys.executable, *launcher.split(), "--dynamo_backend", "no", "--main_process_port", "0", *options]
    done = subprocess.run([*command, script], cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def train_both(folder):
    for backbone in BACKBONES:
        (folder / backbone).mkdir(parents=True, exist_ok=True)
        train_and_save(backbone, folder / backbone)


def assert_same_training(one, two):
    """Compare losses, validations and weights of two processes with those of one."""
    weights = load_file(one / "weights-0.safetensors")
    for rank in "01":
        for table in ("losses", "validation"):
            files = two / f"{table}-{rank}.parquet", one / f"{table}-0.parquet"
            tables = [pd.read_parquet(file).drop(columns="seconds", errors="ignore") for file in files]
            pd.testing.assert_frame_equal(*tables, rtol=1e-5)
        for name, weight in load_file(two / f"weights-{rank}.safetensors").items():
            torch.testing.assert_close(weight, weights[name], atol=1e-5, rtol=1e-5)
    saved = [load_backbone(folder / "model")[0].state_dict() for folder in (one, two)]
    for name, weight in saved[0].items():
        torch.testing.assert_close(saved[1][name], weight, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("options", "validations"), [(("--multi_gpu",), ["2", "0"]), (SHARDED, ["2", "2"])])
def test_two_processes_take_the_steps_of_one(options, validations, tmp_path, request):
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    train_both(one)
    launch(train_both, two, request.path.parent, *options)
    for backbone in BACKBONES:
        assert_same_training(one / backbone, two / backbone)
        assert [(two / backbone / f"validations-{rank}").read_text() for rank in "01"] == validations
        assert Checkpoint.latest(two / backbone / "checkpoint").step == 6


class Stop(Exception):
    """What ends a training in the middle of a test."""


class Watcher:
    """An observer that calls a function with the number of every step."""

    def __init__(self, see):
        self.see = see

    def on_step(self, step):
        self.see(step.number)

    def on_begin(self, losses, validation):
        pass

    def on_validation(self, step, metrics):
        pass

    def on_end(self):
        pass


def stop_at_four(step):
    if step == 4:
        raise Stop


def adapted(folder):
    """Return a model of which adapters and SID rows are trained."""
    multitask = small_multitask()
    base = save_backbone(BACKBONES["qwen3"](multitask.vocabulary), multitask.vocabulary, folder / "base")
    return hub_backbone(base, multitask.vocabulary, lora_rank=2)


def train_adapted(folder):
    train_and_save("qwen3", folder, model=adapted(folder / os.environ.get("RANK", "0")))


def test_processes_that_share_the_weights_of_adapters_go_on_from_the_checkpoint_of_one(tmp_path, request):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    train_adapted(one)
    with pytest.raises(Stop):
        train_and_save("qwen3", two, model=adapted(two / "stopped"), observers=[Watcher(stop_at_four)])
    assert Checkpoint.latest(two / "checkpoint").step == 3
    launch(train_adapted, two, request.path.parent, *SHARDED)
    assert_same_training(one, two)


def test_the_program_of_the_readme_trains_sharded_and_saves_a_recommender(tmp_path, request, monkeypatch):
    readme = (request.config.rootpath / "README.md").read_text("utf-8")
    program = readme.split("```python\n# train.py\n")[1].split("```")[0]
    for written, small in {"my_catalogue": "atelier", "Qwen/Qwen3-8B": "scratch", "steps=2000": "steps=2"}.items():
        assert written in program
        program = program.replace(written, small)
    items = load("atelier").items["item_id"]
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(len(items), 8)).astype(np.float32))
    (tmp_path / "ids.txt").write_text("\n".join(items), encoding="utf-8")
    made = [
        "tokenize",
        "--embeddings",
        "vectors.npy",
        "--item-ids",
        "ids.txt",
        "--out",
        "sids/mine",
        "--quantizer",
        "ResidualKMeans",
    ]
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, [*made, "--codebook-sizes", "[8, 8, 8]"]).exit_code == 0
    run_in_two(program, tmp_path, *SHARDED)
    found = GenerativeRecommender.load(tmp_path / "model").recommend([np.array([0, 1])], top_k=5, progress=False)
    assert (found.items >= 0).all()


def test_one_process_does_everything():
    alone = Processes()
    assert alone.is_main and list(alone.share("abc")) == [(0, "a", 1.0), (1, "b", 1.0), (2, "c", 1.0)]
    assert alone.agreed({"x": 1}) == {"x": 1}
    np.testing.assert_array_equal(alone.sum(np.arange(3)), np.arange(3))


@pytest.mark.parametrize("variable", ["FSDP_OFFLOAD_PARAMS", "ACCELERATE_USE_DEEPSPEED"])
def test_what_accelerate_offers_and_we_do_not_is_refused(variable, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ValueError, match=f"{variable} is not supported"):
        trainer("qwen3", tmp_path).fit()


# ---------------------------------------------------------------------- killed


def drift(model):
    """A metric that prefers early weights, so that the best ones are not the last."""
    return {"ndcg@10": -float(sum(weight.abs().sum() for weight in weights_of(model).values()))}


def train_visibly(backbone, folder, shared):
    trainer(backbone, folder, **KILLED, observers=[Watcher(partial(setattr, shared, "value"))]).fit()


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
