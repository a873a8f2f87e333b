import base64
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_examples import small_multitask

from trialign.observers import Step
from trialign.plots import live
from trialign.plots.training import training_so_far
from trialign.scratch import scratch_qwen3
from trialign.tasks import TASKS
from trialign.train import Trainer

FAST = {"batch_tokens": 200, "micro_tokens": 200, "precision": "fp32", "progress": False, "device": "cpu"}


class Recorder:
    """Writes down what it is told, and interrupts at a step."""

    def __init__(self, stop_at=0):
        self.stop_at, self.told = stop_at, []

    def on_begin(self, losses, validation):
        self.told.append(("begin", losses["step"].nunique(), len(validation)))

    def on_step(self, step):
        self.told.append(("step", step))
        if step.number == self.stop_at:
            raise KeyboardInterrupt

    def on_validation(self, step, metrics):
        self.told.append(("validation", step, metrics))

    def on_end(self):
        self.told.append(("end",))


def trainer(**options):
    multitask = small_multitask()
    model = scratch_qwen3(multitask.vocabulary, hidden=32, layers=1, heads=2)

    def validate(model):
        return {"ndcg@10": 0.25, "recall@10": 0.5}

    return Trainer(model, multitask, steps=6, validate=validate, validate_every=3, **options, **FAST)


def test_observers_are_told_of_every_step_and_validation(tmp_path):
    recorder = Recorder(stop_at=5)
    options = {"checkpoint": tmp_path, "checkpoint_every": 4}
    with pytest.raises(KeyboardInterrupt):
        trainer(observers=[recorder], **options).fit()
    kinds = [told[0] for told in recorder.told]
    assert kinds == ["begin", "step", "step", "step", "validation", "step", "step", "end"]
    assert recorder.told[0] == ("begin", 0, 0)
    assert recorder.told[4] == ("validation", 3, {"ndcg@10": 0.25, "recall@10": 0.5})
    again = Recorder()
    losses = trainer(observers=[again], **options).fit()
    assert again.told[0] == ("begin", 4, 1)
    steps = [told[1] for told in again.told if told[0] == "step"]
    assert [step.number for step in steps] == [5, 6]
    for step in steps:
        part = losses[losses["step"] == step.number]
        assert dict(zip(part["task"], part["loss"])) == step.losses
        assert step.loss == pytest.approx(np.average(part["loss"], weights=part["answers"]))


def test_tensorboard_has_every_step_once_after_a_resume(tmp_path):
    options = {"checkpoint": tmp_path / "checkpoint", "checkpoint_every": 2, "log_folder": tmp_path / "log"}
    with pytest.raises(KeyboardInterrupt):
        trainer(observers=[Recorder(stop_at=5)], **options).fit()  # the last checkpoint is of step 4
    resumed = trainer(**options)
    losses = resumed.fit()
    log = EventAccumulator(str(tmp_path / "log"))
    log.Reload()
    tags = {f"loss/{task}" for task in losses["task"]} | {"loss/all", "learning_rate"}
    assert set(log.Tags()["scalars"]) == tags | {"validation/ndcg@10", "validation/recall@10"}
    assert [event.step for event in log.Scalars("loss/all")] == [1, 2, 3, 4, 5, 6]
    for task, part in losses.groupby("task"):
        events = log.Scalars(f"loss/{task}")
        assert [event.step for event in events] == part["step"].tolist()
        np.testing.assert_allclose([event.value for event in events], part["loss"], rtol=1e-6)
    assert [(event.step, event.value) for event in log.Scalars("validation/recall@10")] == [(3, 0.5), (6, 0.5)]
    rates = [event.value for event in log.Scalars("learning_rate")]
    assert max(rates) <= 3e-3 and rates[-1] < rates[0]


def test_without_tensorboard_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        trainer(log_folder=tmp_path / "log").fit()
    trainer().fit()  # who logs nothing needs nothing


# ---------------------------------------------------------------------- the live plot


def test_the_live_plot_is_drawn_seldom_and_in_one_place(monkeypatch):
    shown, now = [], [0.0]

    class Handle:
        def display(self, image):
            shown.append((now[0], "display", len(image.data)))

        def update(self, image):
            shown.append((now[0], "update", len(image.data)))

    monkeypatch.setattr(live, "DisplayHandle", Handle)
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    plot = live.LivePlot(every=10)
    plot.on_begin(pd.DataFrame(columns=["step", "task", "loss", "answers"]), pd.DataFrame())
    for number in range(1, 101):
        now[0] += 0.25
        plot.on_step(Step(number, 1e-3, {"Title→SID": 1 / number}, {"Title→SID": 3}))
    plot.on_validation(100, {"ndcg@10": 0.5})
    plot.on_end()
    assert [(moment, kind) for moment, kind, _ in shown] == [(10.0, "display"), (20.0, "update"), (25.0, "update")]


def test_the_figure_of_a_training_that_goes_on():
    empty = training_so_far(pd.DataFrame(columns=["step", "task", "loss"]), pd.DataFrame())
    assert not empty.axes[0].lines and empty.axes[1].get_title(loc="left") == "Validation"
    losses = pd.DataFrame([(s, t, 2.0 / s) for s in range(1, 5) for t in TASKS], columns=["step", "task", "loss"])
    left, right = training_so_far(losses, pd.DataFrame({"step": [2, 4], "ndcg@10": [0.1, 0.2]})).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == [f"0.50  {name}" for name in TASKS]
    assert len({(line.get_color(), line.get_linestyle()) for line in left.lines}) == len(TASKS)
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.1, 0.2])


CELL = """
import sys; sys.path.insert(0, {tests!r})
from test_observers import trainer
from trialign.plots.live import LivePlot
losses = trainer(observers=[LivePlot(every=0)]).fit()
"""


def test_a_notebook_that_was_run_holds_the_final_figure(request):
    code = CELL.format(tests=str(request.path.parent))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    images = [output for output in notebook.cells[0].outputs if output.output_type == "display_data"]
    assert len(images) == 1  # seven drawings, one output
    assert base64.b64decode(images[0].data["image/png"]).startswith(b"\x89PNG")
