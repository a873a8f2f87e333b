"""The processes that share one training, as `accelerate launch` starts them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env, reduce
from torch import nn

from trialign.objectives import AnswerLoss
from trialign.sharding import shard

T = TypeVar("T")

_UNSUPPORTED = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM", "FSDP_OFFLOAD_PARAMS")


class Processes:
    """The processes of one training, each of which does a share of every step's batches.

    ``accelerate launch --multi_gpu --num_processes 2 train.py`` starts two, on GPUs or, where there are none, on the
    CPU; each holds the whole model. With ``--use_fsdp`` each holds a part of it: see `trialign.sharding`, which reads
    none of accelerate's further FSDP options. Started without accelerate, there is one process and nothing is
    exchanged.

    Attributes
    ----------
    shards
        Whether the processes are to share the weights as well as the work.
    is_main
        Whether this process validates, writes and shows; one of them does.
    device
        The CUDA device of this process, where there is one, else the CPU.

    Raises
    ------
    ValueError
        If the processes were launched with DeepSpeed, Megatron, or FSDP that keeps weights on the CPU.
    """

    def __init__(self) -> None:
        if asked := [name for name in _UNSUPPORTED if parse_flag_from_env(name)]:
            raise ValueError(
                f"{', '.join(asked)} is not supported: launch with `accelerate launch --multi_gpu`, with "
                "--use_fsdp for a model that is too large for one device, or train adapters only (lora_rank)"
            )
        # Told of no GPU, accelerate connects several processes only if it is told to use the CPU.
        use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
        self._state = PartialState(cpu=use_cpu)
        self._number = self._state.num_processes
        self.shards = parse_flag_from_env("ACCELERATE_USE_FSDP") and self._number > 1
        self.is_main = self._state.is_main_process
        self.device = self._state.device

    def shard(self, loss: AnswerLoss) -> None:
        """Spread the weights over the processes, if these were launched to share them."""
        if self.shards:
            shard(loss, loss.model, self.device, self._number)

    def share(self, batches: Iterable[T]) -> Iterator[tuple[int, T, float]]:
        """Yield this process's share of a step's batches: number, batch, and the factor of its losses.

        All shares together are all batches. Processes that share the weights gather them together, so those with
        fewer batches pass the first one again with a factor of 0; the others' factors undo that gradients are averaged.
        """
        every = list(batches)
        own = range(self._state.process_index, len(every), self._number)
        for number in own:
            yield number, every[number], float(self._number if self.shards else 1)
        if self.shards and len(own) < -(-len(every) // self._number):
            yield 0, every[0], 0.0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of what all processes have computed."""
        if self._number == 1:
            return values
        return reduce(torch.from_numpy(values).to(self._state.device), "sum").cpu().numpy()

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give every process the sum of all processes' gradients; those of shared weights have been summed already."""
        if self._number == 1 or self.shards:
            return
        # A process without a batch has no gradients, and a parameter that no batch used has none anywhere.
        users = self.sum(np.array([parameter.grad is not None for parameter in parameters], dtype=np.int64))
        used = [parameter for parameter, by in zip(parameters, users) if by]
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in used]
        summed = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
        for parameter, gradient in zip(used, summed.split([parameter.numel() for parameter in used])):
            parameter.grad = gradient.view_as(parameter)

    def agreed(self, value: T) -> T:
        """Return the main process's value in every process."""
        if self._number == 1:
            return value
        values = [value]
        broadcast_object_list(values)
        return values[0]
