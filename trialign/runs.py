"""Run the notebooks in order through papermill into a run's folder, and only those that are not current."""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.console import Console

from trialign.codehash import SOLUTION
from trialign.knobs import Notebook
from trialign.workspace import Workspace

if TYPE_CHECKING:
    from nbformat import NotebookNode


class RunError(RuntimeError):
    """A run that can't start or did not end; its message is meant for the person who started it."""


@dataclass(frozen=True)
class Runner:
    """Runs notebooks into one run's folder.

    Parameters
    ----------
    workspace
        The run.
    notebooks
        As from `trialign.knobs.find_notebooks`.
    parameters
        As from `trialign.knobs.resolve`.
    console
        Where progress is told.
    kernel
        Name of a Jupyter kernel; None takes the interpreter that runs this, whatever kernels are installed.
    share_with
        Runs whose stages are taken over where they are what this run would make.
    threads
        Threads of a notebook's computations; None leaves it to the environment variable OMP_NUM_THREADS or the machine.
    """

    workspace: Workspace
    notebooks: Sequence[Notebook]
    parameters: Mapping[str, Mapping[str, Any]]
    console: Console
    kernel: str | None = None
    share_with: Sequence[Workspace] = ()
    threads: int | None = None

    @property
    def name(self) -> str:
        """The run's name below the folder of all runs."""
        return self.workspace.name

    def run(self, start: str | None = None, force: bool = False) -> dict[str, float]:
        """Run every notebook whose stage is not current, in order.

        Parameters
        ----------
        start
            Number or name of a notebook: it and all after it are run even where they are current.
        force
            Run all of them.

        Returns
        -------
        dict
            Stage to seconds, for the notebooks that were run.

        Raises
        ------
        RunError
            If another process writes this run, or a notebook fails.
        ValueError
            If there is no notebook `start`.
        """
        forced = self._forced(start, force)
        folder = self.workspace.folder
        (folder / "notebooks").mkdir(parents=True, exist_ok=True)
        with _locked(folder), _environment(self._environment()):
            return {
                notebook.stage: seconds
                for notebook in self.notebooks
                if (seconds := self._step(notebook, notebook.stage in forced)) is not None
            }

    def _forced(self, start: str | None, force: bool) -> set[str]:
        stages = [notebook.stage for notebook in self.notebooks]
        if force or start is None:
            return set(stages) if force else set()
        matching = [stage for stage in stages if stage == start or stage.split("_")[0] == start.zfill(2)]
        if not matching:
            raise ValueError(f"no notebook {start!r} to start from; there are {', '.join(stages)}")
        return set(stages[stages.index(matching[0]) :])

    def _environment(self) -> dict[str, str]:
        threads = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        return threads | {
            "TRIALIGN_RUNS": str(self.workspace.root),
            "TRIALIGN_NOTEBOOKS": str(self.notebooks[0].path.parent.resolve()),
            # Idle OpenMP threads sleep: spinning makes training several times slower where others share the cores.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000"),
        }

    def _step(self, notebook: Notebook, forced: bool) -> float | None:
        """Run one notebook where it has to be; return its seconds, or None where it was current."""
        stage, parameters = notebook.stage, self.parameters[notebook.stage]
        reason = "asked for" if forced else self.workspace.reason_to_run(stage, parameters)
        if reason is None:
            self._say(stage, "up to date", "green")
            return None
        if not forced and (other := self._shared(stage, parameters)) is not None:
            self.workspace.copy_stage(stage, other)
            self._say(stage, f"taken over from {other.name}", "green")
            return None
        self._say(stage, f"runs ({reason})", "cyan")
        started = time.perf_counter()
        self._execute(notebook, parameters)
        seconds = time.perf_counter() - started
        self._say(stage, f"done in {seconds:.1f} s", "green")
        left = self.workspace.reason_to_run(stage, parameters)
        if left is not None:
            self._say(stage, f"will run again next time: {left}", "yellow")
        return seconds

    def _shared(self, stage: str, parameters: Mapping[str, Any]) -> Workspace | None:
        """Return a run that has this stage as this run would make it."""
        for other in self.share_with:
            if other.folder == self.workspace.folder or other.reason_to_run(stage, parameters) is not None:
                continue
            inputs = other.manifest(stage)["inputs"]
            if all(self.workspace.manifest(name)["id"] == identity for name, identity in inputs.items()):
                return other
        return None

    def _execute(self, notebook: Notebook, parameters: Mapping[str, Any]) -> None:
        import papermill  # a second, and not needed where every stage is current
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError

        executed = self.workspace.folder / "notebooks" / notebook.path.name
        given = {**parameters, "run": self.name} if "run" in notebook.defaults else dict(parameters)
        own = {} if self.kernel else {"kernel_manager_class": _own_kernel_manager()}
        try:
            papermill.execute_notebook(
                _without_solutions(notebook.path),
                executed,
                parameters=given,
                kernel_name=self.kernel or "python3",
                language="python",
                progress_bar={"desc": notebook.stage, "leave": False},
                cwd=notebook.path.parent,
                **own,
            )
        except PapermillExecutionError as error:
            raise RunError(f"{notebook.stage} failed{_in_short(error)}\nexecuted notebook: {executed}") from error
        except DeadKernelError as error:
            message = (
                f"{notebook.stage}: its process died, most often for want of memory\nexecuted notebook: {executed}"
            )
            raise RunError(message) from error

    def _say(self, stage: str, text: str, colour: str) -> None:
        self.console.print(f"{stage:<24}", end="", markup=False, highlight=False)
        self.console.print(text, style=colour, markup=False, highlight=False)


def record_run(workspace: Workspace, profile: str | None, dataset: str | None, knobs: Mapping[str, str]) -> None:
    """Write ``run.json``: how the run was asked for, for the report."""
    workspace.folder.mkdir(parents=True, exist_ok=True)
    asked = {"profile": profile, "dataset": dataset, "parameters": dict(knobs)}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"run": workspace.name, **asked, "started": started}, indent=2, ensure_ascii=False)
    (workspace.folder / "run.json").write_text(text + "\n", "utf-8")


def _own_kernel_manager() -> type:
    """Return a kernel manager for the interpreter that runs this, since kernels by name may belong to another."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class OwnKernelManager(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            # The kernel's own log tells of transports and shutdowns; errors of cells come as outputs.
            return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=CRITICAL"]))

    return OwnKernelManager


def _without_solutions(path: Path) -> "NotebookNode":
    """Return a notebook without the cells that solve its exercises: they are for readers and may take long."""
    from papermill.iorw import load_notebook_node

    notebook = load_notebook_node(str(path))
    notebook.cells = [cell for cell in notebook.cells if SOLUTION not in cell.metadata.get("tags", [])]
    return notebook


def _in_short(error: Any) -> str:
    """Return where in its cell a notebook failed, and the error's last line."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for part in error.traceback for line in part.splitlines()]
    arrow = next((line.strip() for line in lines if re.match(r"-+> *\d+ ", line)), "")
    return f" in cell In [{error.exec_count}]\n  {arrow}\n{error.ename}: {error.evalue}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the run's lock, or say who does."""
    lock, holder = FileLock(folder / ".lock"), folder / ".lock.holder"
    try:
        lock.acquire(blocking=False)
    except Timeout:
        who = holder.read_text("utf-8") if holder.is_file() else "another process"
        raise RunError(f"{folder} is being written by {who}; wait for it, or give this run another name") from None
    try:
        holder.write_text(f"process {os.getpid()}, started {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}", "utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which the kernels inherit, and put the old ones back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
