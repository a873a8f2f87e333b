"""Interests by a small language model that runs offline: SmolLM2-135M-Instruct with two worked examples."""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from trialign.describe.backends import retry_temperature
from trialign.describe.views import ItemView
from trialign.models import smollm2_folder

#: Without examples the model repeats the title; two show it what an interest is.
PROMPT = """\
Each item is followed by the reason why people choose it and by two to four interests those people share.

Item: Trail Runner 40 head torch. Light, waterproof, for nights outside. A small black lamp on a strap.
Why people choose it: They love being outdoors after dark and want to feel safe and prepared on the trail.
Interests: night hiking; feeling prepared; weekend camping

Item: Velvet reading chair in emerald. Deep seat, brass legs. A green armchair beside a bookshelf in warm light.
Why people choose it: They want a corner of their home that is comfortable, elegant and made for quiet hours.
Interests: quiet reading hours; elegant interiors; cosy evenings

"""

#: Words of an item's text that the model reads: its memory is short, and so are the examples.
ITEM_WORDS = 60


class SmolLM2Miner:
    """Mine interests with SmolLM2-135M-Instruct, two-shot, on the CPU.

    Small as the model is, its tags are usable but weak; :class:`~trialign.describe.retrieval.RetrievalMiner` is far
    faster. The first attempt is greedy, further ones are sampled, warmer each time, with the attempt as seed.

    Parameters
    ----------
    folder
        Folder of the model; None is the packaged one (:func:`trialign.models.smollm2_folder`).
    max_new_tokens
        Length of an answer.
    batch_size
        Items generated at once.
    """

    model = "SmolLM2-135M-Instruct (Q4_1, two-shot)"
    prompt = PROMPT

    def __init__(
        self,
        folder: str | Path | None = None,
        max_new_tokens: int = 56,
        batch_size: int = 16,
    ):
        self.folder = folder
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What an answer depends on besides the item; part of the cache key."""
        return {
            "folder": "" if self.folder is None else Path(self.folder).name,
            "max_new_tokens": self.max_new_tokens,
        }

    def mine(self, views: Sequence[ItemView], attempt: int = 0) -> list[str]:
        """Return one raw answer an item: the model's reason, then ``{"interests": [...]}`` from its list.

        An answer with fewer than two different tags stays too short and is for the parser to refuse.

        Parameters
        ----------
        views
            The items.
        attempt
            0 is greedy; higher numbers sample, each its own way.
        """
        answers: list[str] = []
        for start in range(0, len(views), self.batch_size):
            prompts = [PROMPT + _question(view) for view in views[start : start + self.batch_size]]
            answers += [structured(text) for text in self._continue(prompts, attempt)]
        return answers

    def _continue(self, prompts: list[str], attempt: int) -> list[str]:
        tokenizer, model = self._loaded
        # Titles are data: what looks like a special token in one is read as plain characters.
        read = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", split_special_tokens=True)
        sampling: dict[str, bool | float] = {"do_sample": False}
        if attempt:
            sampling = {"do_sample": True, "temperature": retry_temperature(attempt), "top_p": 0.9}
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(attempt)
            tokens = model.generate(
                **read,
                **sampling,
                max_new_tokens=self.max_new_tokens,
                stop_strings=["\n\n"],
                tokenizer=tokenizer,
                pad_token_id=tokenizer.pad_token_id,
            )
        return tokenizer.batch_decode(tokens[:, read["input_ids"].shape[1] :], skip_special_tokens=True)

    @cached_property
    def _loaded(self) -> tuple[PreTrainedTokenizerBase, Any]:
        folder = Path(self.folder) if self.folder is not None else smollm2_folder()
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
        return tokenizer, model.eval()


def structured(continuation: str) -> str:
    r"""Turn "reason ... Interests: a; b; c" into the answer format, duplicates removed, at most four tags.

    Examples
    --------
    >>> print(structured(" They like tea.\nInterests: tea time; calm; Tea Time\n\nItem: another"))
    They like tea.
    {"interests": ["tea time", "calm"]}
    """
    reason, _, listed = continuation.split("\n\n")[0].partition("\nInterests:")
    tags: dict[str, None] = {}
    for part in re.split(r"[;,\n]", listed):
        tag = " ".join(part.split()).strip(" .").casefold()
        if tag and len(tag.split()) <= 5:
            tags.setdefault(tag)
    return " ".join(reason.split()) + "\n" + json.dumps({"interests": list(tags)[:4]})


def _question(view: ItemView) -> str:
    parts = (" ".join(part.split()).rstrip(".") for part in (view.title, view.caption, view.text) if part)
    words = ". ".join(parts).split()[:ITEM_WORDS]
    return f"Item: {' '.join(words)}.\nWhy people choose it:"
