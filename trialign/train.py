"""Triangular multitask training: one model, one cross-entropy on the answers, tasks mixed uniformly."""

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from trialign.batches import answer_losses, check_output_layer, draw, micro_batches
from trialign.checkpoints import (
    Checkpoint,
    optimizer_tensors,
    set_optimizer_tensors,
    set_weights,
    trainable,
    weights_of,
)
from trialign.precision import autocast, resolve_precision
from trialign.progress import tqdm
from trialign.tasks import Multitask

#: Called with the model in evaluation mode; returns metrics by name, higher is better.
Validate = Callable[[PreTrainedModel | PeftModel], Mapping[str, float]]


def schedule(progress: float, warmup: float) -> float:
    """Return the share of the learning rate at a point of the training: linear warmup, then a cosine down to 0.

    Parameters
    ----------
    progress
        Share of the training that is done, 0 to 1.
    warmup
        Share of the training that warms up.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min((progress - warmup) / max(1 - warmup, 1e-9), 1.0)))


@dataclass
class _State:
    """Where a training is."""

    step: int = 0
    seconds: float = 0.0
    targets: int = 0
    finished: bool = False
    best_metric: float = -math.inf
    best_step: int = 0
    waited: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    losses: list[tuple[int, str, float, int]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Train a backbone on a mixture of tasks.

    A step draws examples from the step's own random stream until they hold `batch_tokens` tokens, cuts them into
    batches of similar length, and takes one AdamW step on the mean cross-entropy over all answer tokens. Since a
    step's examples depend only on the seed and the step, a training that was killed goes on from its checkpoint with
    the very losses it would have had.

    Parameters
    ----------
    model
        A causal language model with the SID tokens; it is trained in place.
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
        A torch device name; None takes CUDA where there is one, else the CPU.
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
        micro_tokens: int = 2048,
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
        self.progress = progress

    def fit(self) -> pd.DataFrame:
        """Train, or go on from the checkpoint, and return `losses_`.

        The model ends in evaluation mode with the weights of the best validation.

        Raises
        ------
        ValueError
            If a parameter is out of range, if the checkpoint is of other settings or data, if `validate` does not
            return `metric`, or if the loss is not finite.
        """
        self._check()
        self._device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model.to(self._device)  # type: ignore[arg-type]  # transformers wraps `to` without its types
        check_output_layer(self.model)
        self._optimizer = self._make_optimizer()
        self._state = _State()
        self._resume_or_begin()
        started = time.perf_counter() - self._state.seconds
        recent: deque[float] = deque(maxlen=20)
        with tqdm(total=self.steps, initial=self._state.step, disable=not self.progress, desc="training") as bar:
            while not self._state.finished:
                recent.append(self._train_step(self._progress()))
                self._state.seconds = time.perf_counter() - started
                bar.update()
                bar.set_postfix(self._postfix(recent), refresh=False)
                self._after_step(started)
        if self._state.best_weights:
            set_weights(self.model, self._state.best_weights)
        self.model.eval()
        return self._publish()

    # ------------------------------------------------------------------ one step

    def _train_step(self, progress: float) -> float:
        """Take the next optimizer step and return its loss."""
        state = self._state
        rate = self.learning_rate * schedule(progress, self.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        examples = draw(self.multitask, state.step, self.batch_tokens)
        answers = sum(sum(label >= 0 for label in example.labels[1:]) for example in examples)
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        losses, tasks = [], []
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed * 1_000_003 + state.step)  # dropout too depends on the step alone
            for batch in micro_batches(examples, self.micro_tokens, self.multitask.vocabulary.pad_token_id):
                with autocast(self.precision_, self._device):
                    each = answer_losses(self.model, batch.to(self._device))
                (each.sum() / answers).backward()
                losses.append(each.detach().cpu())
                tasks.extend(batch.answer_tasks)
        loss = torch.cat(losses)
        if not torch.isfinite(loss).all():
            raise ValueError(
                f"the loss at step {state.step + 1} is not finite: lower learning_rate or use precision='fp32'"
            )
        torch.nn.utils.clip_grad_norm_(list(trainable(self.model).values()), self.clip)
        self._optimizer.step()
        state.step += 1
        state.targets += sum(self._targets(example.task, example.labels) for example in examples)
        self._record(loss.numpy(), np.asarray(tasks))
        return float(loss.mean())

    def _targets(self, task: str, labels: list[int]) -> int:
        """Return how many items an example asks for: its first-level codes, or one title."""
        first_level = self._first_level
        found = sum(label in first_level for label in labels)
        return max(found, 1)

    def _record(self, losses: np.ndarray, tasks: np.ndarray) -> None:
        for task in np.unique(tasks):
            chosen = losses[tasks == task]
            self._state.losses.append((self._state.step, str(task), float(chosen.mean()), len(chosen)))

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

    def _after_step(self, started: float) -> None:
        state = self._state
        out_of_time = self.max_minutes is not None and state.seconds >= 60 * self.max_minutes
        state.finished = state.step >= self.steps or out_of_time
        if self.validate is not None and (state.finished or state.step % self.validate_every == 0):
            self._validate(self.validate)
            state.seconds = time.perf_counter() - started
        if self.checkpoint is not None and (state.finished or state.step % self.checkpoint_every == 0):
            self._snapshot().save(self.checkpoint)

    def _validate(self, validate: Validate) -> None:
        state = self._state
        self.model.eval()
        with torch.no_grad():
            metrics = {name: float(value) for name, value in validate(self.model).items()}
        if self.metric not in metrics:
            raise ValueError(f"validate returned {sorted(metrics)}, without the metric {self.metric!r}")
        state.validation.append({"step": state.step, "seconds": state.seconds, **metrics})
        if metrics[self.metric] > state.best_metric:
            state.best_metric, state.best_step, state.waited = metrics[self.metric], state.step, 0
            state.best_weights = weights_of(self.model)
        else:
            state.waited += 1
            state.finished |= self.patience is not None and state.waited >= self.patience

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

    def _make_optimizer(self) -> torch.optim.AdamW:
        embeddings = {id(layer.weight) for layer in self.model.modules() if isinstance(layer, torch.nn.Embedding)}
        decayed: list[Tensor] = []
        kept: list[Tensor] = []
        for name, parameter in trainable(self.model).items():
            is_matrix = parameter.ndim == 2 and id(parameter) not in embeddings and "trainable_tokens" not in name
            (decayed if is_matrix else kept).append(parameter)
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": kept, "weight_decay": 0.0}]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.learning_rate, betas=(0.9, 0.98)
        )

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

    def _snapshot(self) -> Checkpoint:
        state = self._state
        simple = ("seconds", "targets", "finished", "best_step", "waited")
        scalars = {name: getattr(state, name) for name in simple}
        scalars["best_metric"] = state.best_metric if state.best_weights else None
        return Checkpoint(
            state.step,
            {"settings": self._settings(), "precision": self.precision_, **scalars},
            {
                "weights": weights_of(self.model),
                "best": state.best_weights,
                "optimizer": optimizer_tensors(self._optimizer, self.model),
            },
            {"losses": self._loss_table(), "validation": pd.DataFrame(state.validation)},
        )

    def _resume_or_begin(self) -> None:
        found = None if self.checkpoint is None else Checkpoint.latest(self.checkpoint)
        if found is None:
            width = int(self.model.config.hidden_size)
            self.precision_ = resolve_precision(self.precision, self._device, width)
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
        best = found.scalars["best_metric"]
        self._state = _State(
            step=found.step,
            **{name: found.scalars[name] for name in ("seconds", "targets", "finished", "best_step", "waited")},
            best_metric=-math.inf if best is None else best,
            best_weights=dict(found.tensors.get("best", {})),
            losses=list(found.tables["losses"].itertuples(index=False, name=None)),
            validation=found.tables["validation"].to_dict("records"),
        )

    def _loss_table(self) -> pd.DataFrame:
        return pd.DataFrame(self._state.losses, columns=["step", "task", "loss", "answers"])

    def _publish(self) -> pd.DataFrame:
        state = self._state
        self.losses_ = self._loss_table()
        self.validation_ = pd.DataFrame(state.validation)
        self.best_step_ = state.best_step if state.best_weights else state.step
        self.steps_, self.seconds_, self.targets_ = state.step, state.seconds, state.targets
        return self.losses_
