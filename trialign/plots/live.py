"""A figure in a notebook that follows a training."""

import io
import time
from collections.abc import Mapping

import pandas as pd
from IPython.display import DisplayHandle, Image

from trialign.observers import Step
from trialign.plots.training import training_so_far


class LivePlot:
    """An observer of a `Trainer` that draws the loss of each task and the validation metric while it trains.

    One output of the cell is drawn again and again, and stays there when the training ends: in a notebook that
    papermill ran it is the final figure. A redraw is a message with an image; many of them a second would fill the
    queue of a reader that waits for the cell to end (see `trialign.progress.tqdm`), so they are few.

    Parameters
    ----------
    metric
        The validation metric to draw.
    every
        Seconds from one drawing to the next, at least.

    Examples
    --------
    >>> trainer = Trainer(model, multitask, observers=[LivePlot()])  # doctest: +SKIP
    """

    def __init__(self, metric: str = "ndcg@10", every: float = 10.0) -> None:
        self.metric = metric
        self.every = every

    def on_begin(self, losses: pd.DataFrame, validation: pd.DataFrame) -> None:
        """Begin with what was trained before; the first drawing comes after `every` seconds."""
        self._losses = losses[["step", "task", "loss"]].to_numpy().tolist()
        self._validation = validation.to_dict("records")
        self._handle: DisplayHandle | None = None
        self._drawn = time.monotonic()

    def on_step(self, step: Step) -> None:
        """Take note of the losses, and draw if it is time."""
        self._losses.extend([step.number, task, loss] for task, loss in step.losses.items())
        if time.monotonic() - self._drawn >= self.every:
            self._draw()

    def on_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of the metrics; the next drawing shows them."""
        self._validation.append({"step": step, **metrics})

    def on_end(self) -> None:
        """Draw the whole training."""
        self._draw()

    def _draw(self) -> None:
        losses = pd.DataFrame(self._losses, columns=["step", "task", "loss"])
        file = io.BytesIO()
        training_so_far(losses, pd.DataFrame(self._validation), self.metric).savefig(file, dpi=110)
        image = Image(data=file.getvalue(), format="png")
        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(image)
        else:
            self._handle.update(image)
        self._drawn = time.monotonic()
