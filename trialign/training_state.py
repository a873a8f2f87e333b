"""Where a training is: what it has done so far, and how that goes into a checkpoint and comes back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pandas as pd
import torch
from torch import Tensor, nn

from trialign.checkpoints import Checkpoint, optimizer_tensors, weights_of

_SCALARS = ("seconds", "targets", "finished", "best_step", "waited")


@dataclass
class TrainingState:
    """Where a training is.

    Attributes
    ----------
    step, seconds, targets
        Optimizer steps done, their wall time with validation, and answers trained on.
    finished
        Whether no step is left to do.
    best_metric, best_step, best_weights
        The best validation, its step and its weights on the CPU.
    waited
        Validations since the best one.
    losses
        Rows of step, task, loss and answers.
    validation
        Rows of step, seconds and the metrics.
    """

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

    def validated(self, metrics: Mapping[str, float], metric: str, model: nn.Module, patience: int | None) -> None:
        """Take note of a validation: keep the weights if they are the best, finish if none was for too long."""
        self.validation.append({"step": self.step, "seconds": self.seconds, **metrics})
        if metrics[metric] > self.best_metric:
            self.best_metric, self.best_step, self.waited = metrics[metric], self.step, 0
            self.best_weights = weights_of(model)
        else:
            self.waited += 1
            self.finished |= patience is not None and self.waited >= patience

    def loss_table(self) -> pd.DataFrame:
        """Return step, task, loss and answers."""
        return pd.DataFrame(self.losses, columns=["step", "task", "loss", "answers"])

    def validation_table(self) -> pd.DataFrame:
        """Return step, seconds and the metrics."""
        return pd.DataFrame(self.validation)

    def snapshot(self, model: nn.Module, optimizer: torch.optim.Optimizer, more: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint of this moment; `more` are scalars to keep with it."""
        scalars = {name: getattr(self, name) for name in _SCALARS}
        scalars["best_metric"] = self.best_metric if self.best_weights else None
        return Checkpoint(
            self.step,
            {**more, **scalars},
            {
                "weights": weights_of(model),
                "best": self.best_weights,
                "optimizer": optimizer_tensors(optimizer, model),
            },
            {"losses": self.loss_table(), "validation": self.validation_table()},
        )

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Return the state that a `snapshot` was made of."""
        best = checkpoint.scalars["best_metric"]
        return cls(
            step=checkpoint.step,
            **{name: checkpoint.scalars[name] for name in _SCALARS},
            best_metric=-math.inf if best is None else best,
            best_weights=dict(checkpoint.tensors.get("best", {})),
            losses=list(checkpoint.tables["losses"].itertuples(index=False, name=None)),
            validation=checkpoint.tables["validation"].to_dict("records"),
        )
