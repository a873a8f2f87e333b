"""Whether bfloat16 pays on this machine, the autocast context for it, and numbers too small to be worth their time."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]

# Products are a part of a step's time, and making kernels for bf16 costs time and half a GiB. Measured on a processor
# with bf16 units: a speedup of 2.4 (width 128) shortens a step by 7 %, one of 3.9 (width 256) by a third.
_WORTHWHILE = 3.0


@lru_cache(maxsize=16)
def bf16_speedup(device: str = "cpu", width: int = 512) -> float:
    """Return how many times faster a layer of that width is in bf16 than in fp32, casts included.

    Timed once a process, in milliseconds. Processors with bf16 units reach 2-5; others emulate it and stay below 1.
    """
    inputs, weights = torch.ones(1024, width, device=device), torch.ones(width, 3 * width, device=device)
    exact = _least_seconds(lambda: inputs @ weights)
    rounded = _least_seconds(lambda: (inputs.bfloat16() @ weights.bfloat16()).float())
    return exact / rounded


def resolve_precision(precision: Literal["auto", "fp32", "bf16"], device: torch.device, width: int) -> Precision:
    """Return the precision to train in: as asked for, or for ``"auto"`` the one that pays for a model of that width.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', got {precision!r}")
    if precision != "auto":
        return precision
    return "bf16" if bf16_speedup(str(device), width) >= _WORTHWHILE else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Return the context in which products run in that precision; weights and the optimizer stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Return the context in which this thread takes numbers below 1e-38 for 0, where the processor can.

    Processors compute with such numbers many times more slowly. Where attention has become sure of itself, most of its
    weights and of their gradients are that small: a T5 then takes twice as long for a step. Threads that were started
    before to share this one's work keep their ways.
    """
    before = _flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes_denormals() -> bool:
    return (torch.tensor(1e-310, dtype=torch.float64) * 1.0).item() == 0.0


def _least_seconds(product: Callable[[], torch.Tensor]) -> float:
    best = float("inf")
    for _ in range(8):  # the least of a few: the first ones warm up, and other programs may be running
        start = time.perf_counter()
        product()[0, 0].item()  # item() waits for an accelerator to finish
        best = min(best, time.perf_counter() - start)
    return best
