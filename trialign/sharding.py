"""Weights that are spread over the processes of a training, each holding a part of every matrix (FSDP)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.distributed
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel


def shard(loss: nn.Module, model: PreTrainedModel | PeftModel, device: torch.device, processes: int) -> None:
    """Spread a model's weights over the processes, in place; gradients then come averaged over them.

    A layer's weights are whole only while it computes. Embeddings, output layer and what else is in no layer are
    whole from the loss's forward pass to its backward pass. Of a model that names no layers that is everything, and a
    warning says so.

    Parameters
    ----------
    loss
        A module around the model; the model is trained through it.
    model
        Its transformer layers are those that transformers names as not to be split.
    device
        Where the parts are kept.
    processes
        How many there are.
    """
    mesh = init_device_mesh(device.type, (processes,))
    core = model.get_base_model() if isinstance(model, PeftModel) else model
    names = set(getattr(core, "_no_split_modules", None) or ())
    layers = [module for module in core.modules() if type(module).__name__ in names]
    if not layers:
        message = (
            f"{type(core).__name__} has none of the layers that must not be split ({sorted(names)}, from its "
            "_no_split_modules): each process holds all of its weights while a step computes, which saves less memory"
        )
        warnings.warn(message, UserWarning, stacklevel=2)
    for module in layers:
        fully_shard(module, mesh=mesh)
    fully_shard(loss, mesh=mesh)


@contextmanager
def gathered(loss: nn.Module) -> Iterator[None]:
    """Make the model whole in every process, so that it or its layers can be used by themselves.

    All processes must enter, do the same and leave: what a forward pass leaves behind in one of them decides what is
    sent in the next step. Nothing happens where nothing is sharded.
    """
    sharded = [module for module in loss.modules() if isinstance(module, FSDPModule)]
    layers = sharded[1:]  # the first is the loss itself, which stays whole after a forward pass anyway
    for layer in layers:
        layer.set_reshard_after_forward(False, recurse=False)
    for module in sharded:
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
        for layer in layers:
            layer.set_reshard_after_forward(True, recurse=False)


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model's weights are spread over processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU; where the tensor is sharded, all processes must ask, and all get it whole."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().clone()


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a sharded model on the CPU, by name; all processes must ask."""
    return {name: whole(tensor) for name, tensor in model.state_dict().items()}


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a copy of a whole tensor on the device of another one, or of it the part that this process has."""
    tensor = tensor.to(like.device, copy=True)
    if not isinstance(like, DTensor):
        return tensor
    # Every process has the whole tensor and cuts out its own part: nothing is sent.
    return cast(DTensor, distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None))


def is_first() -> bool:
    """Return whether this process is the first of those that share the weights, or the only one."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
