"""One self-contained page of a run: figures, tables, metrics, parameters and where everything came from."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trialign.workspace import Workspace

#: Values of the model parameters that mean a small stand-in from a package instead of the model the method asks for.
STAND_INS: Mapping[str, tuple[str, ...]] = {
    "captioner": ("embedded",),
    "miner": ("embedded", "retrieval", "smollm2"),
    "embedder": ("embedded", "embedded-text"),
    "backbone": ("scratch", "scratch-gpt2", "scratch-t5"),
}

#: What the method has in the place of each (method and model of the paper).
PAPER_MODELS: Mapping[str, str] = {
    "captioner": "a vision-language model (Qwen2.5-VL)",
    "miner": "an instruction-tuned language model (Qwen2.5-7B-Instruct)",
    "embedder": "a multimodal embedding model (gme-Qwen2-VL)",
    "backbone": "a pretrained language model",
}

MAX_ROWS = 20
MAX_HEADLINES = 8


def write_report(workspace: Workspace, path: Path | None = None) -> Path:
    """Write a run's page.

    Parameters
    ----------
    workspace
        The run; what is complete of it is shown.
    path
        Where to write; by default ``report.html`` in the run's folder.

    Returns
    -------
    Path
        The page: one file that needs no other and no network.

    Raises
    ------
    FileNotFoundError
        If the run has no complete stage.
    """
    names = workspace.stages()
    if not names:
        raise FileNotFoundError(f"{workspace.folder} has no complete stage: run `trialign run {workspace.name}` first")
    stages = [_stage(workspace, name) for name in names]
    environment = Environment(loader=PackageLoader("trialign"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html.jinja").render(
        run=workspace.name,
        asked=_asked(workspace),
        stages=stages,
        headlines=_headlines(stages),
        stand_ins=_stand_ins(stages),
        seconds=sum(stage["seconds"] for stage in stages),
        versions=stages[-1]["versions"],
    )
    path = path or workspace.folder / "report.html"
    path.write_text(page, "utf-8")
    return path


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested metrics as one level, names joined by dots; what is neither number, text nor None is left out."""
    flat: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, int | float | str):
            flat[f"{prefix}{name}"] = value
    return flat


def format_value(value: Any) -> str:
    """Return a number with four significant digits, thousands apart; a list with commas; anything else as text."""
    if isinstance(value, float):
        if value != value:
            return "–"
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, str):
        return value
    if value is None:
        return "–"
    if hasattr(value, "tolist"):
        return format_value(value.tolist())
    if isinstance(value, list | tuple):
        return ", ".join(format_value(entry) for entry in value)
    return str(value)


def _stage(workspace: Workspace, name: str) -> dict[str, Any]:
    manifest = workspace.manifest(name)
    folder = workspace.artifact(name)
    return manifest | {
        "number": name.split("_")[0],
        "title": name.partition("_")[2].replace("_", " ").capitalize().replace(" ids", " IDs") or name,
        "metrics": {key: format_value(value) for key, value in flatten(manifest["metrics"]).items()},
        "parameters": {key: format_value(value) for key, value in manifest["parameters"].items()},
        "raw_parameters": manifest["parameters"],
        "figures": [_figure(folder, record) for record in _records(folder / "figures.json")],
        "tables": [_table(folder, record) for record in _records(folder / "tables.json")],
    }


def _records(path: Path) -> list[dict[str, str]]:
    return json.loads(path.read_text("utf-8"))


def _figure(folder: Path, record: Mapping[str, str]) -> dict[str, Any]:
    from PIL import Image

    path = folder / "figures" / f"{record['name']}.png"
    with Image.open(path) as image:
        width, height = image.size
    data = base64.b64encode(path.read_bytes()).decode()
    return {**record, "source": f"data:image/png;base64,{data}", "width": width, "height": height}


def _table(folder: Path, record: Mapping[str, str]) -> dict[str, Any]:
    import pandas as pd

    frame = pd.read_parquet(folder / f"{record['name']}.parquet")
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]
    rows = [[format_value(value) for value in row] for row in frame.head(MAX_ROWS).itertuples(index=False)]
    return {**record, "columns": list(map(str, frame.columns)), "numeric": numeric, "rows": rows, "total": len(frame)}


def _headlines(stages: list[dict[str, Any]]) -> dict[str, str]:
    """Return the metrics of the last stage that has any: the end of the pipeline is what a run is for."""
    last = next((stage for stage in reversed(stages) if stage["metrics"]), None)
    return dict(list(last["metrics"].items())[:MAX_HEADLINES]) if last else {}


def _stand_ins(stages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return which stages used a small stand-in, by which name, and what the method has there."""
    return [
        {"stage": stage["stage"], "role": role, "used": stage["raw_parameters"][role], "instead": PAPER_MODELS[role]}
        for stage in stages
        for role, names in STAND_INS.items()
        if stage["raw_parameters"].get(role) in names
    ]


def _asked(workspace: Workspace) -> dict[str, str]:
    """Return how the run was asked for; empty for one made by hand in JupyterLab."""
    path = workspace.folder / "run.json"
    if not path.is_file():
        return {}
    asked = json.loads(path.read_text("utf-8"))
    knobs = " ".join(f"{name} = {value}" for name, value in asked["parameters"].items())
    named = {"profile": asked["profile"], "dataset": asked["dataset"], "parameters": knobs, "started": asked["started"]}
    return {key: value for key, value in named.items() if value}
