"""Beam search over the trie against transformers' `generate` with a dict trie, and the trie by itself.

``python benchmarks/decoding.py [--json FILE] [--quick]`` measures, on one thread:

search
    users a CPU second of `trialign.decode.beam_search` and of `generate` with ``prefix_allowed_tokens_fn`` over nested
    dicts, as published recommenders do it. Both get the same prompts in the same batches of the same size, the same
    number of beams and float32; both run in one process, in turns; the medians of the repeats are compared, and their
    answers: `same_top_sets` is the share of users whose sets of items are the same, `largest_score_difference` that of
    the log-probabilities, `valid_share` the share of our answers that are items of the catalogue. The baseline gets a
    generation config without anything that would change its result. In the setting `sorted` histories have different
    lengths: our search sorts its users, the baseline takes them as they come, as published code does, and is measured
    on the first users only, since it takes so long.
trie
    seconds to build it, MiB of its arrays, seconds to add a thousand items and to open it from a file, and the share
    of a search that is spent on all that has to do with the trie (looking up children, masking, the softmax over them).

Weights are random: they decide nothing about speed. Histories are those of Amazon Beauty where the data are on this
machine (see data/README.md), otherwise made; codes are random, with suffix codes where items collide.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from transformers import GenerationConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, T5Config
from transformers import T5ForConditionalGeneration as T5

import trialign.decode.beam as beam_module
from trialign.datasets import load
from trialign.decode import Beams, Trie, beam_search
from trialign.progress import tqdm

PAD, START, END, FIRST_CODE = 0, 1, 2, 3
CODES = 256
SUFFIXES = 64
BEAUTY_ITEMS = 12_101
VOCABULARY = FIRST_CODE + 3 * CODES + SUFFIXES

EXAMPLES = """examples:
  python benchmarks/decoding.py                          # all settings, about eight minutes on one core
  python benchmarks/decoding.py --quick                  # the two models at 12,101 items, once: under two minutes
  python benchmarks/decoding.py --models t5 --json t5.json
  python benchmarks/decoding.py --device cuda --dtype bfloat16 --models qwen3    # wall seconds instead of CPU seconds
"""


def qwen3(hidden: int = 256, layers: int = 4) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, head_dim=hidden // 8, max_position_embeddings=256,
        tie_word_embeddings=True, bos_token_id=START, eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def t5(width: int = 128, layers: int = 4, heads: int = 6) -> PreTrainedModel:
    """The shape of TIGER's model (Rajput et al. 2023, arXiv 2305.05065, section 4)."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=width, d_kv=64, d_ff=8 * width, num_layers=layers, num_heads=heads,
        decoder_start_token_id=PAD, eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip
    return T5(config).eval()


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3": qwen3,
    "t5": t5,
    "qwen3 x8": lambda: qwen3(512, 8),
    "t5 x8": lambda: t5(256, 8, 12),
}


def made_sequences(items: int, seed: int = 0) -> np.ndarray:
    """Random codes of three levels as tokens, and a suffix code where items collide: int64 [items, 4], -1 padded."""
    codes = np.random.default_rng(seed).integers(0, CODES, (items, 3))
    keys = codes @ np.array([CODES**2, CODES, 1])
    order = np.argsort(keys, kind="stable")
    begins = np.append(True, np.diff(keys[order]) != 0)
    counts = np.diff(np.append(np.flatnonzero(begins), items))
    suffixes = np.empty(items, dtype=np.int64)
    suffixes[order] = np.arange(items) - np.repeat(np.flatnonzero(begins), counts)
    collides = np.empty(items, dtype=bool)
    collides[order] = np.repeat(counts > 1, counts)
    sequences = np.full((items, 4), -1)
    sequences[:, :3] = FIRST_CODE + CODES * np.arange(3) + codes
    sequences[collides, 3] = FIRST_CODE + 3 * CODES + suffixes[collides]
    return sequences


def recorded_histories(dataset: str) -> list[np.ndarray] | None:
    """Histories of item rows, oldest first, in random order of users; None where the data are not on this machine."""
    try:
        catalogue = load(dataset)
    except FileNotFoundError:
        return None
    rows = pd.Series(np.arange(catalogue.n_items), index=catalogue.items["item_id"])
    table = catalogue.interactions.sort_values(["user_id", "timestamp"])
    users = [rows[ids].to_numpy() for _, ids in table.groupby("user_id")["item_id"]]
    return [users[user] for user in np.random.default_rng(1).permutation(len(users))]


def made_histories(items: int) -> list[np.ndarray]:
    """Histories of one to forty items, a few of them far more popular than the others."""
    rng = np.random.default_rng(1)
    popular = rng.permutation(items)
    return [popular[(items * rng.random(length) ** 3).astype(int)] for length in rng.integers(1, 41, 3000)]


def prompts_of(users: Sequence[np.ndarray], sequences: np.ndarray) -> list[list[int]]:
    """The start token and the tokens of the last twenty items."""
    return [[START, *sequences[rows[-20:]][sequences[rows[-20:]] >= 0].tolist()] for rows in users]


class DictTrie:
    """The baseline's trie: nested dicts, walked from the root for every beam at every step."""

    def __init__(self, sequences: np.ndarray) -> None:
        self.root: dict[int, Any] = {}
        self.items: dict[tuple[int, ...], int] = {}
        ended: dict[int, Any] = {END: {PAD: None}}
        for item, row in enumerate(sequences.tolist()):
            tokens = [token for token in row if token >= 0]
            node = self.root
            for token in tokens[:-1]:
                node = node.setdefault(token, {})
            node[tokens[-1]] = ended
            self.items[tuple(tokens)] = item

    def allowed(self, generated: list[int]) -> list[int]:
        """Return the tokens that may follow; padding after the end."""
        node = self.root
        for token in generated:
            if token == END:
                return [PAD]
            node = node[token]
        return list(node)


def generate(
    model: PreTrainedModel, trie: DictTrie, prompts: Sequence[list[int]], beams: int, batch: int, tokens: int
) -> Beams:
    """Search with `transformers.generate`; `tokens` is the length of the longest semantic ID and its end token."""
    found, scores = [], []
    encoder_decoder = model.config.is_encoder_decoder
    config = GenerationConfig(
        num_beams=beams, num_return_sequences=beams, max_new_tokens=tokens, do_sample=False, length_penalty=0.0,
        renormalize_logits=True, pad_token_id=PAD, eos_token_id=END, return_dict_in_generate=True, output_scores=True,
        decoder_start_token_id=PAD if encoder_decoder else None,
    )  # fmt: skip
    for first in range(0, len(prompts), batch):
        users = prompts[first : first + batch]
        length = max(map(len, users))
        ids, mask = torch.full((2, len(users), length), PAD)
        for row, prompt in enumerate(users):
            where = slice(0, len(prompt)) if encoder_decoder else slice(length - len(prompt), length)
            ids[row, where], mask[row, where] = torch.tensor(prompt), 1
        start = 1 if encoder_decoder else length
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            answer: Any = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=config,
                prefix_allowed_tokens_fn=lambda _row, sequence, start=start: trie.allowed(sequence[start:].tolist()),
            )
        for sequence in answer.sequences[:, start:].tolist():
            found.append(trie.items[tuple(token for token in sequence if token not in (PAD, END))])
        scores.append(answer.sequences_scores.float().cpu().numpy())
    return Beams(np.array(found).reshape(-1, beams), np.concatenate(scores).reshape(-1, beams))


@dataclass(frozen=True)
class Setting:
    """One comparison."""

    model: str
    items: int
    sorted: bool
    users: int
    generate_users: int
    batch: int


def clock_of(device: str) -> Callable[[], float]:
    """CPU seconds, or wall seconds once the device has finished."""
    if device == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def compare(setting: Setting, given: argparse.Namespace, recorded: list[np.ndarray] | None) -> dict[str, Any]:
    """Run both sides in turns and return one record."""
    known = recorded if setting.items == BEAUTY_ITEMS else None
    users = made_histories(setting.items) if known is None else known
    sequences = made_sequences(setting.items)
    trie, dict_trie = Trie.build(sequences), DictTrie(sequences)
    model: Any = MODELS[setting.model]().to(given.device, getattr(torch, given.dtype))
    if not setting.sorted:
        users = [rows for rows in users if len(rows) >= 20]
    prompts = prompts_of(users[: setting.users], sequences)
    sides: dict[str, tuple[Callable[[int], Beams], int]] = {
        "ours": (
            lambda some: beam_search(
                model, trie, prompts[:some], beams=given.beams, top_k=given.beams, batch_size=setting.batch,
                progress=False,
            ),
            setting.users,
        ),
        "generate": (
            lambda some: generate(model, dict_trie, prompts[:some], given.beams, setting.batch, trie.depth + 1),
            setting.generate_users,
        ),
    }  # fmt: skip
    clock = clock_of(given.device)
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    answers: dict[str, Beams] = {}
    sides["ours"][0](setting.batch)  # the first call of a process allocates
    for _ in range(given.repeats):
        for side, (search, count) in sides.items():
            began = clock()
            answers[side] = search(count)
            speeds[side].append(count / (clock() - began))
    ours, theirs = (statistics.median(speeds[side]) for side in sides)
    same, difference = agreement(answers["ours"], answers["generate"])
    unit = "cpu_second" if given.device == "cpu" else "second"
    return {
        "model": setting.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "catalogue": setting.items,
        "batch": setting.batch,
        "beams": given.beams,
        "sorted": setting.sorted,
        f"users_per_{unit}": ours,
        f"generate_users_per_{unit}": theirs,
        "ratio": ours / theirs,
        "same_top_sets": same,
        "largest_score_difference": difference,
        "valid_share": float(((answers["ours"].items >= 0) & (answers["ours"].items < setting.items)).mean()),
        "users": setting.users,
        "generate_users": setting.generate_users,
        "repeats": given.repeats,
        "histories": "made" if known is None else given.dataset,
        "device": given.device,
        "dtype": given.dtype,
    }


def agreement(ours: Beams, theirs: Beams) -> tuple[float, float]:
    """Share of users with the same set of items, and the largest difference of an item's log-probabilities."""
    same, difference = 0, 0.0
    users = len(theirs.items)
    for user in range(users):
        one = dict(zip(ours.items[user].tolist(), ours.log_probabilities[user].tolist(), strict=True))
        other = dict(zip(theirs.items[user].tolist(), theirs.log_probabilities[user].tolist(), strict=True))
        same += one.keys() == other.keys()
        difference = max([difference, *(abs(one[item] - other[item]) for item in one.keys() & other.keys())])
    return same / users, difference


def measure_trie(items: int, given: argparse.Namespace) -> dict[str, Any]:
    """Build the trie several times, save, open and extend it, and see what a search spends on it."""
    sequences = made_sequences(items)
    suffixed = np.where(sequences < 0, FIRST_CODE + 3 * CODES, sequences)  # as in TIGER: a suffix for every item
    seconds: dict[str, list[float]] = {"build": [], "add": [], "open": []}

    def timed(name: str, act: Callable[[], Trie]) -> Trie:
        began = time.process_time()
        result = act()
        seconds[name].append(time.process_time() - began)
        return result

    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.repeats):
            trie = timed("build", lambda: Trie.build(suffixed))
            timed("add", partial(trie.add, suffixed[:1000]))
            trie.save(folder)
            timed("open", lambda: Trie.load(folder))
    return {
        "items": items,
        "nodes": trie.n_nodes,
        "build_seconds": statistics.median(seconds["build"]),
        "mib": trie.nbytes / 2**20,
        "add_1000_seconds": statistics.median(seconds["add"]),
        "open_seconds": statistics.median(seconds["open"]),
        **{f"share_of_search {name}": share_of_search(name, suffixed, trie, given) for name in ("qwen3", "t5")},
    }


def share_of_search(name: str, sequences: np.ndarray, trie: Trie, given: argparse.Namespace) -> float:
    """CPU time of the trie's part of each step, divided by that of the whole search; the median of the repeats."""
    model = MODELS[name]()
    rng = np.random.default_rng(2)
    prompts = prompts_of([rng.integers(0, len(sequences), 20) for _ in range(2 * given.batch)], sequences)
    seen = [rng.integers(0, len(sequences), 20) for _ in prompts]
    shares = []
    for _ in range(given.repeats):
        timer = _Timer(beam_module.expand)
        with mock.patch.object(beam_module, "expand", timer):
            began = time.process_time()
            beam_search(model, trie, prompts, masked=seen, batch_size=given.batch, progress=False)
        shares.append(timer.seconds / (time.process_time() - began))
    return statistics.median(shares)


class _Timer:
    """A function that adds up its own CPU seconds."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        began = time.process_time()
        result = self.function(*arguments)
        self.seconds += time.process_time() - began
        return result


def settings(given: argparse.Namespace) -> list[Setting]:
    """What is measured: both models on a small and a large catalogue, sorted, and models eight times as large."""
    batch = given.batch
    found = [Setting(name, BEAUTY_ITEMS, False, 2 * batch, batch, batch) for name in ("t5", "qwen3")]
    if not given.quick:
        found += [Setting(name, BEAUTY_ITEMS, True, 512, 2 * batch, batch) for name in ("t5", "qwen3")]
        found += [Setting(name, 1_000_000, False, 2 * batch, batch, batch) for name in ("t5", "qwen3")]
        half = batch // 2  # these take long
        found += [Setting(name, BEAUTY_ITEMS, False, half, half, half) for name in ("t5 x8", "qwen3 x8")]
    return [setting for setting in found if setting.model.split()[0] in given.models]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all records to this file as well")
    parser.add_argument("--quick", action="store_true", help="only 12,101 items, one repeat, a trie of a million items")
    parser.add_argument("--models", nargs="+", choices=["t5", "qwen3"], default=["t5", "qwen3"])
    parser.add_argument("--batch", type=int, default=32, help="users a batch, on both sides")
    parser.add_argument("--beams", type=int, default=20, help="beams and items returned, on both sides")
    parser.add_argument("--repeats", type=int, help="of each side, in turns; default 3, with --quick 1")
    parser.add_argument("--dataset", default="amazon-beauty", help="whose histories are read, where it is found")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32", help="of the models: float32, bfloat16")
    given = parser.parse_args()
    given.repeats = given.repeats or (1 if given.quick else 3)
    torch.set_num_threads(1)
    recorded = recorded_histories(given.dataset)
    records: dict[str, list[dict[str, Any]]] = {"search": [], "trie": []}
    tries = [1_000_000] if given.quick else [10_000, 1_000_000, 10_000_000]
    work = [("search", partial(compare, setting, given, recorded)) for setting in settings(given)]
    work += [("trie", partial(measure_trie, items, given)) for items in tries]
    for name, measure in tqdm(work, desc="records", unit="record"):
        records[name].append(measure())
        tqdm.write(json.dumps(records[name][-1]))
        if given.json:
            given.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    for name, rows in records.items():
        print(f"\n{name}\n{pd.DataFrame(rows).round(5).to_string(index=False)}")


if __name__ == "__main__":
    main()
