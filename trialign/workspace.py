"""A run's folder: one folder a stage, each with its artifacts and a manifest of where they came from.

A stage is written into a temporary folder beside its final place and renamed when it is complete, so a killed run
leaves either the old stage or the new one, never half of one. The manifest records parameters, the ids of the stages
that were read, the hash of the code and the hash of every output; a stage for which all of them still hold is current.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialign.codehash import code_hash
from trialign.folders import link_or_copy, reading, remove_leftovers, replace_folder, writing
from trialign.provenance import (
    changed_outputs,
    changed_parameters,
    changed_sources,
    fingerprint,
    plain,
    sha256,
    versions,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL import Image

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def project_root() -> Path:
    """Return the folder of the project: the one above the package in a checkout, else the working directory."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def runs_root() -> Path:
    """Return the folder that holds all runs: ``$TRIALIGN_RUNS``, or ``runs/`` in the project."""
    return Path(os.environ.get("TRIALIGN_RUNS") or project_root() / "runs").resolve()


def notebooks_root() -> Path:
    """Return the folder of the notebooks: ``$TRIALIGN_NOTEBOOKS``, or ``notebooks/`` in the project."""
    return Path(os.environ.get("TRIALIGN_NOTEBOOKS") or project_root() / "notebooks").resolve()


class Workspace:
    """The folder of one run and the stages in it.

    Parameters
    ----------
    run
        Name of the run; a sweep's points are named ``sweep/point``.
    root
        Folder that holds all runs; by default `runs_root`.

    Attributes
    ----------
    name : str
        The run's name.
    root : Path
        Folder of all runs.
    folder : Path
        ``root / name``.

    Examples
    --------
    >>> import tempfile
    >>> workspace = Workspace("demo", root=tempfile.mkdtemp())
    >>> stage = workspace.begin("01_catalogue", {"items": 3})
    >>> _ = stage.json("statistics", {"items": 3})
    >>> folder = stage.commit(metrics={"items": 3})
    >>> workspace.is_current("01_catalogue", {"items": 3}, reads=[])
    True
    """

    def __init__(self, run: str | Path, root: str | Path | None = None) -> None:
        if not str(run) or any(part.startswith(".") for part in Path(run).parts):
            raise ValueError(f"a run can't be named {str(run)!r}: give a name that is not empty and starts with no dot")
        self.name = str(run)
        self.root = runs_root() if root is None else Path(root).resolve()
        self.folder = self.root / run

    def begin(
        self,
        stage: str,
        parameters: Mapping[str, Any],
        reads: Sequence[str] = (),
        sources: Sequence[str | Path] = (),
    ) -> "Stage":
        """Start writing a stage; nothing is seen of it until `Stage.commit`.

        Parameters
        ----------
        stage
            The stage's name: the stem of its notebook, such as ``04_semantic_ids``.
        parameters
            All knobs of the stage but ``run``.
        reads
            Names of the stages whose artifacts are read.
        sources
            Files and folders outside the run that are read; the stage is out of date when they change.

        Raises
        ------
        FileNotFoundError
            If a stage in `reads` or a source is missing.
        OSError
            If the folder can't be written; the message names it.
        """
        _check_name("stage", stage)
        inputs = {name: self.manifest(name)["id"] for name in reads}
        recorded = {str(Path(source).resolve()): fingerprint(source) for source in sources}
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            folder = self.folder / f".{stage}.{os.getpid()}"
            folder.mkdir()
        kept = {key: value for key, value in plain(parameters).items() if key != "run"}
        return Stage(stage, folder, self.folder / stage, kept, inputs, recorded)

    def artifact(self, stage: str) -> Path:
        """Return the folder of a stage's artifacts.

        Raises
        ------
        FileNotFoundError
            If the stage was not run yet; the message names the notebook to run.
        """
        folder = self.folder / stage
        if not (folder / "manifest.json").is_file():
            raise FileNotFoundError(
                f"run {self.name!r} has no stage {stage!r} yet: run notebooks/{stage}.ipynb first "
                f"with run = {self.name!r}, or all notebooks with `trialign run {self.name}`"
            )
        return folder

    def manifest(self, stage: str) -> dict[str, Any]:
        """Return a stage's manifest; FileNotFoundError as in `artifact`."""
        path = self.artifact(stage) / "manifest.json"
        with reading(path, f"run the stage again: trialign run {self.name} --from {stage[:2]}"):
            return json.loads(path.read_text("utf-8"))

    def stages(self) -> list[str]:
        """Return the names of the stages that are complete, in order."""
        return sorted(path.parent.name for path in self.folder.glob("[!.]*/manifest.json"))

    def copy_stage(self, stage: str, other: "Workspace") -> Path:
        """Take over a complete stage of another run, by hard links where the file system has them.

        A link is safe: a stage's files are never written again, a newer stage replaces them.
        """
        source = other.artifact(stage)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            copy = self.folder / f".{stage}.{os.getpid()}"
            shutil.copytree(source, copy, copy_function=link_or_copy)
            return replace_folder(copy, self.folder / stage)

    def is_current(self, stage: str, parameters: Mapping[str, Any], reads: Sequence[str]) -> bool:
        """Return whether running the stage again would read and do the same, and its outputs are all there."""
        return self.reason_to_run(stage, parameters, reads) is None

    def reason_to_run(
        self, stage: str, parameters: Mapping[str, Any], reads: Sequence[str] | None = None
    ) -> str | None:
        """Return in a few words why a stage is not current, or None where it is.

        Parameters
        ----------
        stage, parameters
            As for `begin`.
        reads
            As for `begin`; None takes the names that the stage read when it last ran.
        """
        try:
            manifest = self.manifest(stage)
        except FileNotFoundError:
            return "not run yet"
        except ValueError:
            return "its manifest can't be read"
        checks = (
            changed_parameters(manifest["parameters"], plain(parameters)),
            self._changed_inputs(manifest["inputs"], reads),
            changed_sources(manifest["sources"]),
            None if manifest["code"] == code_hash(stage, notebooks_root()) else "code changed",
            changed_outputs(self.folder / stage, manifest["outputs"]),
        )
        return next((reason for reason in checks if reason), None)

    def _changed_inputs(self, recorded: Mapping[str, str], reads: Sequence[str] | None) -> str | None:
        if reads is not None and set(reads) != set(recorded):
            return "it reads other stages"
        for name, identity in recorded.items():
            try:
                if self.manifest(name)["id"] != identity:
                    return f"{name} changed"
            except FileNotFoundError:
                return f"{name} is missing"
        return None


class Stage:
    """A stage while it is written; made by `Workspace.begin`.

    Attributes
    ----------
    folder : Path
        The temporary folder: whatever is written here becomes part of the stage.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        target: Path,
        parameters: Mapping[str, Any],
        inputs: Mapping[str, str],
        sources: Mapping[str, str],
    ) -> None:
        self.name = name
        self.folder = folder
        self._target = target
        self._parameters = dict(parameters)
        self._inputs = dict(inputs)
        self._sources = dict(sources)
        self._started = time.time()
        self._code = code_hash(name, notebooks_root())  # now: an edit while the stage is written makes it out of date
        self._figures: dict[str, str] = {}
        self._tables: dict[str, str] = {}

    def figure(self, name: str, fig: "Figure | Image.Image", caption: str = "") -> Path:
        """Save a figure (matplotlib or PIL) as ``figures/<name>.png`` and record it, with its caption, for the report.

        Figures keep the order in which they were first saved; saving a name again replaces the figure.
        """
        path = self._path(name, "figures", f"{name}.png")
        if hasattr(fig, "savefig"):
            # No software and version line: equal figures are then equal files.
            fig.savefig(path, metadata={"Software": None})
        else:
            fig.save(path)
        self._figures[name] = caption
        return path

    def table(self, name: str, frame: "pd.DataFrame | pd.Series", caption: str = "") -> Path:
        """Save a table as ``<name>.parquet`` and record it, with its caption, for the report."""
        path = self._path(name, f"{name}.parquet")
        frame = frame.to_frame() if frame.ndim == 1 else frame
        with writing(self.folder):
            frame.rename(columns=str).to_parquet(path)
        self._tables[name] = caption
        return path

    def json(self, name: str, obj: Any) -> Path:
        """Save a value as ``<name>.json``; NumPy values become plain ones."""
        path = self._path(name, f"{name}.json")
        with writing(self.folder):
            _write_json(path, obj)
        return path

    @property
    def checkpoint(self) -> Path:
        """A folder that outlives a killed run, for long computations to go on from; `commit` removes it.

        It belongs to this stage with these parameters, inputs and code: what was computed with others is not found.
        """
        state = json.dumps([self._parameters, self._inputs, self._code], sort_keys=True)
        key = hashlib.sha256(state.encode()).hexdigest()[:12]
        return self._target.parent / ".checkpoints" / f"{self.name}-{key}"

    def commit(self, metrics: Mapping[str, Any] | None = None) -> Path:
        """Write the manifest and put the stage in its place, in one rename.

        Parameters
        ----------
        metrics
            Numbers of this stage for the report and for sweeps; nested mappings are kept.

        Returns
        -------
        Path
            The stage's final folder.
        """
        self._check_open()
        with writing(self.folder):
            _write_json(self.folder / "figures.json", _records(self._figures))
            _write_json(self.folder / "tables.json", _records(self._tables))
            outputs = {
                path.relative_to(self.folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(self.folder.rglob("*"))
                if path.is_file()
            }
            _write_json(self.folder / "manifest.json", self._manifest(outputs, metrics or {}))
            folder = replace_folder(self.folder, self._target)
            for checkpoint in self.checkpoint.parent.glob(f"{self.name}-*"):
                shutil.rmtree(checkpoint)
            return folder

    def _manifest(self, outputs: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
        # What later stages read: a figure drawn otherwise leaves them current.
        content = {name: entry["sha256"] for name, entry in outputs.items() if not name.startswith("figures")}
        identity = [self.name, self._parameters, self._inputs, content]
        return {
            "stage": self.name,
            "id": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
            "parameters": self._parameters,
            "seed": self._parameters.get("seed"),
            "inputs": self._inputs,
            "sources": self._sources,
            "code": self._code,
            "outputs": outputs,
            "metrics": metrics,
            "versions": versions(),
            "seconds": round(time.time() - self._started, 2),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _path(self, name: str, *parts: str) -> Path:
        _check_name("artifact", name)
        self._check_open()
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(exist_ok=True)
        return path

    def _check_open(self) -> None:
        if not self.folder.is_dir():
            raise ValueError(f"stage {self.name!r} is already committed: call begin() again to write it anew")


def _records(captions: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "caption": caption} for name, caption in captions.items()]


def _write_json(path: Path, obj: Any) -> None:
    path.write_text(json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{kind} name {name!r}: use letters, digits, '_', '-' and '.'")
