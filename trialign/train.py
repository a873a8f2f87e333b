"""Triangular multitask training: one model and one cross-entropy on the answers of a mixture of tasks."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from trialign.batches import COARSE, EXACT, draw, micro_batches
from trialign.checkpoints import Checkpoint, set_optimizer_tensors, set_weights, trainable
from trialign.objectives import AnswerLoss
from trialign.observers import Observer, Step, TensorBoardLog
from trialign.optimizer import adamw, schedule
from trialign.precision import autocast, flushed_denormals, resolve_precision
from trialign.processes import Processes
from trialign.progress import tqdm
from trialign.sharding import gathered
from trialign.tasks import Example, Multitask
from trialign.training_state import TrainingState

#: Called with the model in evaluation mode; returns metrics by name, higher is better.
Validate = Callable[[PreTrainedModel | PeftModel], Mapping[str, float]]


class Trainer:
    """Train a backbone on a mixture of tasks.

    A step draws examples from the step's own random stream until they hold `batch_tokens` tokens, cuts them into
    batches of similar length, and takes one AdamW step on the mean cross-entropy over all answer tokens. Since a
    step's examples depend only on the seed and the step, a training that was killed goes on from its checkpoint with
    the very losses it would have had.

    Started by ``accelerate launch``, each process takes a share of every step's batches, and the gradients are summed:
    the steps are those of one process, only faster. Every process must make the same model and call `fit`. The first
    one alone validates, writes and shows. With ``--use_fsdp`` the processes share the weights as well. Each then
    validates, with room for the whole model, and the model stays sharded after `fit`: every process must save it
    (`save_backbone`, or a recommender's `save`), and what was saved is evaluated.

    Parameters
    ----------
    model
        A causal language model or T5 with the SID tokens; it is trained in place.
    multitask
        Where the examples come from.
    steps
        Optimizer steps.
    batch_tokens
        Tokens of one step, before padding.
    micro_tokens
        Most padded tokens that go through the model at once; bounds the memory.
    learning_rate, weight_decay, warmup, clip
        AdamW's peak rate and decay (of matrices; embeddings, norms and biases have none), the share of the training
        that warms up, and the norm at which gradients are clipped.
    seed
        Of dropout, where a model has it. (The examples have `Multitask.seed`.)
    precision
        ``"fp32"``, ``"bf16"`` (autocast; the weights stay fp32), or ``"auto"``: bf16 where timed products say it pays.
    device
        A torch device name; None takes this process's CUDA device where there is one, else the CPU.
    validate
        Called every `validate_every` steps and at the end with the model in evaluation mode; returns metrics.
    metric
        The metric of `validate` that decides which weights are kept.
    validate_every
        Steps from one validation to the next.
    patience
        Stop after so many validations without a better metric; None never stops early.
    max_minutes
        End at this wall time even if steps are left; the learning rate then falls with the time as well, so the
        training is complete when it ends. It makes losses depend on the speed of the machine; None doesn't.
    checkpoint
        Folder of the checkpoint. If it holds one, `fit` goes on from there.
    checkpoint_every
        Steps from one checkpoint to the next.
    log_folder
        Where losses and metrics are logged for TensorBoard; None logs nothing.
    observers
        Told of every step and validation, such as a `trialign.plots.live.LivePlot`.
    progress
        Show a progress bar with the running loss.

    Attributes
    ----------
    losses_
        Table of step, task, loss (mean over the task's answer tokens of the step, nats) and answers (their number).
    validation_
        Table of step, seconds and the metrics.
    best_step_
        The step whose weights the model has now (the last one without `validate`).
    steps_, seconds_
        Steps done, and their wall time with validation.
    targets_
        Answers trained on: items, counted once each (a title or a SID).
    precision_
        ``"fp32"`` or ``"bf16"``.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        multitask: Multitask,
        *,
        steps: int = 1000,
        batch_tokens: int = 1024,
        micro_tokens: int = 1024,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        clip: float = 1.0,
        seed: int = 0,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | None = None,
        validate: Validate | None = None,
        metric: str = "ndcg@10",
        validate_every: int = 100,
        patience: int | None = None,
        max_minutes: float | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 200,
        log_folder: str | Path | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = True,
    ):
        self.model = model
        self.multitask = multitask
        self.steps = steps
        self.batch_tokens = batch_tokens
        self.micro_tokens = micro_tokens
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.clip = clip
        self.seed = seed
        self.precision = precision
        self.device = device
        self.validate = validate
        self.metric = metric
        self.validate_every = validate_every
        self.patience = patience
        self.max_minutes = max_minutes
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.log_folder = log_folder
        self.observers = observers
        self.progress = progress

    def fit(self) -> pd.DataFrame:
        """Train, or go on from the checkpoint, and return `losses_`.

        The model ends in evaluation mode with the weights of the best validation.

        Raises
        ------
        ValueError
            If a parameter is out of range, if the checkpoint is of other settings or data, if `validate` does not
            return `metric`, or if the loss is not finite.
        ModuleNotFoundError
            If there is a `log_folder` but no TensorBoard.
        """
        self._check()
        self._processes = Processes()
        self._device = torch.device(self.device) if self.device else self._processes.device
        self._loss = AnswerLoss(self.model)
        self._processes.shard(self._loss)  # before it is moved: a device needs to hold a part only
        self._loss.to(self._device)
        self._optimizer = adamw(self.model, self.learning_rate, self.weight_decay)
        self._state = TrainingState()
        self._resume_or_begin()
        self._watching = self._begin_watching()
        self._started = time.perf_counter() - self._state.seconds
        try:
            with flushed_denormals():
                self._run()
        finally:
            for observer in self._watching:
                observer.on_end()
        if self._state.best_weights:
            set_weights(self.model, self._state.best_weights)
        self.model.eval()
        return self._publish()

    def _run(self) -> None:
        state, recent = self._state, deque[float](maxlen=20)
        silent = not (self.progress and self._processes.is_main)
        with tqdm(total=self.steps, initial=state.step, disable=silent, desc="training") as bar:
            while not state.finished:
                step = self._train_step()
                state.seconds = self._clock()
                recent.append(step.loss)
                for observer in self._watching:
                    observer.on_step(step)
                bar.update()
                bar.set_postfix(self._postfix(recent), refresh=False)
                self._after_step()

    # ------------------------------------------------------------------ one step

    def _train_step(self) -> Step:
        """Take the next optimizer step."""
        state = self._state
        rate = self.learning_rate * schedule(self._progress(), self.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        examples = draw(self._loss.objective.examples(self.multitask, state.step), self.batch_tokens)
        parameters = list(trainable(self.model).values())
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        sums = self._processes.sum(self._backward(examples))
        if not np.isfinite(sums).all():
            raise ValueError(
                f"the loss at step {state.step + 1} is not finite: lower learning_rate or use precision='fp32'"
            )
        self._processes.sum_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, self.clip)
        self._optimizer.step()
        state.step += 1
        state.targets += sum(self._targets(example.labels) for example in examples)
        return self._record(rate, sums)

    def _backward(self, examples: Sequence[Example]) -> Float[np.ndarray, "tasks 2"]:
        """Add this process's share to the gradients; return sum and number of its answer tokens' losses by task."""
        answers = sum(sum(label >= 0 for label in example.labels[1:]) for example in examples)
        rounding = COARSE if self.precision_ == "bf16" and self._device.type == "cpu" else EXACT
        pad_token_id = self.multitask.vocabulary.pad_token_id
        batches = micro_batches(examples, self.micro_tokens, pad_token_id, rounding)
        found: list[Tensor] = []
        tasks: list[str] = []
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            for number, batch, factor in self._processes.share(batches):
                # Dropout depends on the step and the batch alone, so neither a kill nor more processes change it.
                torch.manual_seed(self.seed * 1_000_003 + self._state.step + 1_000_000_007 * number)
                with autocast(self.precision_, self._device):
                    losses = self._loss(batch.to(self._device))
                (factor * losses.sum() / answers).backward()
                if factor:
                    found.append(losses.detach())
                    tasks.extend(batch.answer_tasks)
        # Only here is an accelerator waited for.
        each = torch.cat(found).cpu().double().numpy() if found else np.empty(0)
        chosen = [np.asarray(tasks) == task.name for task in self.multitask.tasks]
        return np.array([(each[rows].sum(), rows.sum()) for rows in chosen])

    def _record(self, rate: float, sums: Float[np.ndarray, "tasks 2"]) -> Step:
        """Keep the losses of the step that was taken."""
        names = [task.name for task in self.multitask.tasks]
        answers = {name: int(count) for name, count in zip(names, sums[:, 1]) if count}
        losses = {name: float(total / count) for name, (total, count) in zip(names, sums) if count}
        self._state.losses.extend((self._state.step, name, losses[name], answers[name]) for name in losses)
        return Step(self._state.step, rate, losses, answers)

    def _targets(self, labels: list[int]) -> int:
        """Return how many items an example asks for: its first-level codes, or one title."""
        return max(sum(label in self._first_level for label in labels), 1)

    def _clock(self) -> float:
        """Return the seconds since the training began; every process goes by the main one's clock."""
        return self._processes.agreed(time.perf_counter() - self._started)

    def _progress(self) -> float:
        """Return the share of the training that is done: steps, or time if that is further."""
        done = (self._state.step + 1) / (self.steps + 1)
        if self.max_minutes is None:
            return done
        return max(done, min(self._state.seconds / (60 * self.max_minutes), 1.0))

    def _postfix(self, recent: deque[float]) -> dict[str, str]:
        shown = {"loss": f"{np.mean(recent):.3f}"}
        if self._state.validation:
            shown[self.metric] = f"{self._state.validation[-1][self.metric]:.4f}"
        return shown

    # ------------------------------------------------------------------ between steps

    def _after_step(self) -> None:
        state = self._state
        out_of_time = self.max_minutes is not None and state.seconds >= 60 * self.max_minutes
        state.finished = state.step >= self.steps or out_of_time
        if self.validate is not None and (state.finished or state.step % self.validate_every == 0):
            self._validate(self.validate)
            state.seconds = self._clock()
        is_due = state.finished or state.step % self.checkpoint_every == 0
        if self.checkpoint is not None and is_due and (self._processes.is_main or self._processes.shards):
            kept = {"settings": self._settings(), "precision": self.precision_}
            snapshot = state.snapshot(self.model, self._optimizer, kept)  # of shared weights all have a part
            if self._processes.is_main:
                snapshot.save(self.checkpoint)

    def _validate(self, validate: Validate) -> None:
        self.model.eval()
        metrics: dict[str, float] = {}
        if self._processes.is_main or self._processes.shards:
            with torch.no_grad(), gathered(self._loss):
                metrics = {name: float(value) for name, value in validate(self.model).items()}
        metrics = self._processes.agreed(metrics)
        if self.metric not in metrics:
            raise ValueError(f"validate returned {sorted(metrics)}, without the metric {self.metric!r}")
        self._state.validated(metrics, self.metric, self.model, self.patience)
        for observer in self._watching:
            observer.on_validation(self._state.step, metrics)

    # ------------------------------------------------------------------ setting up and resuming

    def _check(self) -> None:
        positive = {
            "steps": self.steps,
            "batch_tokens": self.batch_tokens,
            "micro_tokens": self.micro_tokens,
            "learning_rate": self.learning_rate,
            "clip": self.clip,
            "validate_every": self.validate_every,
            "checkpoint_every": self.checkpoint_every,
        }
        wrong = {name: value for name, value in positive.items() if value <= 0}
        if wrong or not 0 <= self.warmup < 1:
            raise ValueError(f"must be positive (and 0 <= warmup < 1): {wrong or {'warmup': self.warmup}}")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ValueError(f"max_minutes must be positive or None, got {self.max_minutes}")
        if not trainable(self.model):
            raise ValueError("no parameter of the model is trainable")
        self._first_level = frozenset(self.multitask.vocabulary.sid_token_ids[0].tolist())

    def _settings(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with."""
        shapes = [(name, tuple(parameter.shape)) for name, parameter in trainable(self.model).items()]
        names = ("steps", "batch_tokens", "micro_tokens", "learning_rate", "weight_decay", "warmup", "clip", "seed")
        more = ("metric", "validate_every", "patience", "max_minutes")
        return {
            **{name: getattr(self, name) for name in (*names, *more)},
            "validated": self.validate is not None,
            "examples": self.multitask.fingerprint(),
            "model": hashlib.sha256(repr(shapes).encode()).hexdigest(),
        }

    def _resume_or_begin(self) -> None:
        found = None if self.checkpoint is None else Checkpoint.latest(self.checkpoint)
        if found is None:
            width = int(self.model.config.hidden_size)
            self.precision_ = self._processes.agreed(resolve_precision(self.precision, self._device, width))
            return
        saved, settings = found.scalars["settings"], self._settings()
        differing = {name: (saved.get(name), value) for name, value in settings.items() if saved.get(name) != value}
        if differing:
            raise ValueError(
                f"the checkpoint in {self.checkpoint} was made with other settings or data (saved, now): {differing}; "
                "remove the folder to train anew"
            )
        self.precision_ = found.scalars["precision"]  # "auto" must not change its mind halfway
        set_weights(self.model, found.tensors["weights"])
        set_optimizer_tensors(self._optimizer, self.model, found.tensors["optimizer"])
        self._state = TrainingState.of(found)

    def _begin_watching(self) -> list[Observer]:
        if not self._processes.is_main:
            return []
        log = [] if self.log_folder is None else [TensorBoardLog(self.log_folder)]
        watching = [*log, *self.observers]
        for observer in watching:
            observer.on_begin(self._state.loss_table(), self._state.validation_table())
        return watching

    def _publish(self) -> pd.DataFrame:
        state = self._state
        self.losses_ = state.loss_table()
        self.validation_ = state.validation_table()
        self.best_step_ = state.best_step if state.best_weights else state.step
        self.steps_, self.seconds_, self.targets_ = state.step, state.seconds, state.targets
        return self.losses_
