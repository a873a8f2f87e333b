"""Who watches a training: the protocol, and TensorBoard."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes
    ----------
    number
        Counted from 1.
    learning_rate
        Of this step.
    losses, answers
        By task: mean cross-entropy of its answer tokens (nats), and how many there were.
    """

    number: int
    learning_rate: float
    losses: Mapping[str, float]
    answers: Mapping[str, int]

    @property
    def loss(self) -> float:
        """Mean cross-entropy of all answer tokens of the step, nats."""
        return sum(self.losses[task] * self.answers[task] for task in self.losses) / sum(self.answers.values())


class Observer(Protocol):
    """Told what happens in a training; it must leave model and random state alone."""

    def on_begin(self, losses: pd.DataFrame, validation: pd.DataFrame) -> None:
        """A training begins, or goes on after the steps in these tables (`Trainer.losses_` and `validation_`)."""

    def on_step(self, step: Step) -> None:
        """A step was taken."""

    def on_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """The model was validated after a step."""

    def on_end(self) -> None:
        """The training has ended, or was interrupted."""


class TensorBoardLog:
    """Writes losses, learning rate and validation metrics for TensorBoard.

    Scalars: ``loss/all``, ``loss/<task>``, ``learning_rate`` and ``validation/<metric>``. Look at them with
    ``tensorboard --logdir FOLDER``. Where a training goes on from a checkpoint, what was logged after it is hidden.

    Parameters
    ----------
    folder
        Where the event files go; made if needed.

    Raises
    ------
    ModuleNotFoundError
        If TensorBoard isn't installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModuleNotFoundError("a log folder needs TensorBoard: pip install tensorboard") from error
        self.folder = Path(folder)
        self._open: Any = SummaryWriter

    def on_begin(self, losses: pd.DataFrame, validation: pd.DataFrame) -> None:
        """Open an event file; events of steps that are to be done again are purged."""
        done = 0 if losses.empty else int(losses["step"].iloc[-1])
        self._writer = self._open(str(self.folder), purge_step=done + 1)

    def on_step(self, step: Step) -> None:
        """Write the loss, the loss of each task, and the learning rate."""
        self._writer.add_scalar("loss/all", step.loss, step.number)
        for task, loss in step.losses.items():
            self._writer.add_scalar(f"loss/{task}", loss, step.number)
        self._writer.add_scalar("learning_rate", step.learning_rate, step.number)

    def on_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"validation/{name}", value, step)

    def on_end(self) -> None:
        """Write what is still in memory and close the file."""
        self._writer.close()
