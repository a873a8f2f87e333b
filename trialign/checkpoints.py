"""Checkpoints of a training: tensors as safetensors, tables as Parquet, scalars as JSON; whole or not there at all."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trialign.folders import reading
from trialign.sharding import part_like, whole


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a training needs to go on as if it had never stopped.

    Attributes
    ----------
    step
        Optimizer steps done.
    scalars
        JSON values.
    tensors
        Groups of named tensors (weights, best weights, optimizer state); an empty group is left out.
    tables
        Losses and validation figures so far.
    """

    step: int
    scalars: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def save(self, folder: str | Path) -> Path:
        """Write to ``folder/step-<n>``, complete before it gets that name, and remove the older ones."""
        folder = Path(folder)
        final = folder / f"step-{self.step:08d}"
        partial = folder / f".{final.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, group in self.tensors.items():
            if group:
                save_file({key: tensor.contiguous() for key, tensor in group.items()}, partial / f"{name}.safetensors")
        for name, table in self.tables.items():
            table.to_parquet(partial / f"{name}.parquet", index=False)
        record = {"step": self.step, "scalars": dict(self.scalars)}
        (partial / "state.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for older in folder.glob("step-*"):
            if older != final:
                shutil.rmtree(older)
        return final

    @classmethod
    def latest(cls, folder: str | Path) -> "Checkpoint | None":
        """Return the last complete checkpoint of a folder, or None if there is none yet."""
        found = sorted(Path(folder).glob("step-*/state.json"))
        if not found:
            return None
        place = found[-1].parent
        with reading(place, "remove this checkpoint; the training then begins anew"):
            record = json.loads(found[-1].read_text(encoding="utf-8"))
            tensors = {file.stem: load_file(file) for file in place.glob("*.safetensors")}
            tables = {file.stem: pd.read_parquet(file) for file in place.glob("*.parquet")}
            return cls(record["step"], record["scalars"], tensors, tables)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the trained weights on the CPU; where they are sharded, all processes must ask."""
    return {name: whole(parameter) for name, parameter in trainable(model).items()}


@torch.no_grad()
def set_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights of `weights_of` back.

    Raises
    ------
    ValueError
        If they are not those of this model.
    """
    parameters = trainable(model)
    if parameters.keys() != weights.keys():
        raise ValueError(f"the weights are of another model: {sorted(parameters.keys() ^ weights.keys())[:4]} differ")
    for name, parameter in parameters.items():
        parameter.copy_(part_like(weights[name], parameter))


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the optimizer's state as ``<kind>/<parameter>`` tensors; see `weights_of`."""
    return {
        f"{kind}/{name}": whole(tensor)
        for name, parameter in trainable(model).items()
        for kind, tensor in optimizer.state.get(parameter, {}).items()
    }


def set_optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put the state of `optimizer_tensors` back."""
    parameters = trainable(model)
    for key, tensor in tensors.items():
        kind, name = key.split("/", 1)
        parameter = parameters[name]
        # The step count stays where PyTorch keeps it; moments live beside their parameter.
        place = tensor.clone() if tensor.ndim == 0 else part_like(tensor, parameter)
        optimizer.state[parameter][kind] = place
