"""Cheap stand-ins for models that write down what they are asked, and small inputs for every stage."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from trialign.backbone import make_backbone
from trialign.describe import ItemView
from trialign.sids import SemanticIds
from trialign.split import Split
from trialign.tasks import Multitask


def item_views(count: int) -> list[ItemView]:
    """Return items without images."""
    return [ItemView(str(number), f"Title {number}", f"Text of item {number}.", None) for number in range(count)]


class LoggingMiner:
    """A miner that streams, answers at once, and appends the id of each item it is asked for to a file."""

    model, prompt, settings, batch_size = "logging", "Why?", {"seed": 0}, 1

    def __init__(self, log: Path, wait: float = 0.0) -> None:
        self.log, self.wait = log, wait

    def mine(self, views: Sequence[ItemView], attempt: int) -> list[str]:
        """Return an answer for each item."""
        return [answer for _, answer in self.stream(views, attempt)]

    def stream(self, views: Sequence[ItemView], attempt: int = 0) -> Iterator[tuple[int, str]]:
        """Yield answers one by one."""
        for position, view in enumerate(views):
            file = os.open(self.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.write(file, f"{view.item_id}\n".encode())
            os.close(file)
            time.sleep(self.wait)
            yield (
                position,
                f'For {view.item_id}.\n{{"interests": ["slow mornings", "gifts for {view.item_id} friends"]}}',
            )


class LoggingEmbedder:
    """An embedder whose rows follow from the texts; appends how many it is asked for to a file."""

    name = "logging"

    def __init__(self, log: Path, wait: float = 0.0) -> None:
        self.log, self.wait = log, wait

    def embed(
        self, texts: Sequence[str], images: Sequence[Path | None], *, progress: bool = True
    ) -> Float[np.ndarray, "items dim"]:
        """Return a row a text, drawn with the text as the seed."""
        with self.log.open("a") as file:
            file.writelines(f"{text}\n" for text in texts)
        time.sleep(self.wait)
        rows = [np.random.default_rng(list(text.encode())).normal(size=16) for text in texts]
        return np.array(rows, dtype=np.float32)


def small_training() -> tuple[Any, Multitask, SemanticIds]:
    """Return a model of a few thousand weights, tasks of twelve items in a circle, and their semantic IDs."""
    items, users = 12, 30
    codes = np.array([divmod(row, 4) for row in range(items)])
    sids = SemanticIds([f"i{row}" for row in range(items)], codes, (3, 4), 2)
    titles = [f"item number {row}" for row in range(items)]
    train = [(np.arange(8) + user) % items for user in range(users)]
    held = [(8 + np.arange(users)) % items, (9 + np.arange(users)) % items]
    split = Split([f"u{user}" for user in range(users)], train, *held, n_items=items)
    model, vocabulary = make_backbone("scratch", sids.codebook_sizes, titles, hidden=16, layers=1, seed=0)
    tasks = Multitask(sids, vocabulary, titles, {}, split, tasks=["SIDSeq→SID", "SID→Title"], seed=0)
    return model, tasks, sids
