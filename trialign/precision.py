"""Whether bfloat16 pays on this machine, and the autocast context for it."""

import time
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]

_WORTHWHILE = 1.5  # casting costs something too


@lru_cache(maxsize=4)
def bf16_speedup(device: str = "cpu", size: int = 512) -> float:
    """Return how many times faster a bf16 matrix product is than one in fp32, timed once a process (milliseconds).

    Processors with bf16 units reach 4-8; others emulate it and stay below 1.
    """
    return _product_seconds(device, torch.float32, size) / _product_seconds(device, torch.bfloat16, size)


def resolve_precision(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """Return the precision to train in: as asked for, or for ``"auto"`` the one that a timed product favours.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', got {precision!r}")
    if precision != "auto":
        return precision
    return "bf16" if bf16_speedup(str(device)) >= _WORTHWHILE else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Return the context in which products run in that precision; weights and the optimizer stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def _product_seconds(device: str, dtype: torch.dtype, size: int) -> float:
    left = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(8):  # the least of a few: the first ones warm up, and other programs may be running
        start = time.perf_counter()
        (left @ left)[0, 0].item()  # item() waits for an accelerator to finish
        best = min(best, time.perf_counter() - start)
    return best
