"""The progress bar of everything that takes more than a few seconds."""

from typing import Any

from tqdm import auto


class tqdm(auto.tqdm):
    """tqdm's bar for terminals and notebooks, redrawn at most once a second.

    In a notebook every redraw is a handful of messages. Ten a second for some minutes fill the queue of a reader that
    waits for the cell to end, as nbval does, and ZeroMQ then drops the message that says it has ended.
    """

    def __init__(self, *arguments: Any, mininterval: float = 1.0, **options: Any) -> None:
        super().__init__(*arguments, mininterval=mininterval, **options)
