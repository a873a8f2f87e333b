"""Beam search over the trie against transformers' `generate` with a dict trie, and the trie by itself.

``python benchmarks/decoding.py [--json FILE] [--quick]`` measures, on one thread:

search
    users a CPU second of three sides: `trialign.decode.beam_search`; `generate` with ``prefix_allowed_tokens_fn`` over
    nested dicts, as published recommenders do it; and `generate` with `TrieLogitsProcessor`, our trie without our
    search. All get the same users, the same number of beams and the same type, in batches of the same size unless
    ``--generate-batch`` says otherwise (on a CPU `generate` is quickest with small ones, in which twenty copies of each
    user's cache stay small). They run in one process, each warmed up, then in turns; the medians of the repeats are
    compared, and the answers: `same_top_sets` is the share of users for whom ours and the dict side's sets of items are
    the same, `largest_score_difference` that of the log-probabilities, `valid_share` the share of our answers whose
    codes lead to that item in the dict trie. Every item has `depth` tokens, `generate` makes exactly so many and no end
    token.

    In the setting `sorted` histories have different lengths, and every side sorts its users by length (`ratio`);
    `generate_unsorted` is the dict side with users as they come, as published code takes them (`ratio_unsorted`). In
    the other settings all histories have at least twenty items, so that nothing is gained by sorting.

    `prefixes_read` is how many prefixes of each level our model reads a user (at most the number of beams): those below
    which a single item is left are not read. `generate` reads all its beams at each level but the last.
trie
    seconds to build it, MiB of its arrays, seconds to add a thousand new items and to open it from a file, and
    `share_of_search`: the CPU seconds in `expand` (children, softmax over them, masks), in making the masks of seen
    items and in `Trie.tokens_of` and `Trie.is_leaf`, divided by those of the whole search.

Codes are drawn, three levels of 256, all sequences different: a triple of codes is drawn with a weight that falls with
the rank of its first code, and of its second code among those below the first (`drawn_sequences`). For 12,101 items
this gives 256 first codes and 5,785 prefixes of two, three fifths of which hold a single item; an average item shares
its prefix with 3.3 others. `prefixes` in each record counts the prefixes of each level. In the setting `suffix` every
item has a fourth token, as in TIGER.

Weights are random; the last norm is scaled so that logits have a standard deviation of 2. Such a model has no taste for
codes of many items, as a trained one has: more prefixes would branch then, and our model would read more of them.
Histories are those of Amazon Beauty where the data are on this machine (see data/README.md), otherwise made.

With ``--device cuda`` seconds are wall time and include the search's own work on the CPU; each side is warmed up with a
whole batch, and the clock is read once the GPU has finished. In bfloat16 sides differ by rounding, so the sets do too;
in float32 they must not. The trie is measured on the CPU whatever the device.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, T5Config
from transformers import T5ForConditionalGeneration as T5

import trialign.decode.beam as beam_module
from trialign.decode import Beams, ItemMask, Trie, TrieLogitsProcessor, beam_search
from trialign.decode.decoder_only import DecoderOnlyReader
from trialign.decode.encoder_decoder import EncoderDecoderReader
from trialign.decode.mask import MaskMaker
from trialign.progress import tqdm

PAD, START, END, FIRST_CODE = 0, 1, 2, 3
CODES = 256
SUFFIX = FIRST_CODE + 3 * CODES
BEAUTY_ITEMS = 12_101
VOCABULARY = SUFFIX + 64
SPREAD = 2.0
MADE = "made"

EXAMPLES = """examples:
  python benchmarks/decoding.py                          # all settings
  python benchmarks/decoding.py --quick                  # the two models at 12,101 items, once, with few users
  python benchmarks/decoding.py --only beauty sorted --users 64
  python benchmarks/decoding.py --models t5 --json t5.json
  python benchmarks/decoding.py --device cuda --dtype float32 bfloat16 --only beauty large --users 256 --repeats 1
"""


def qwen3(hidden: int = 256, layers: int = 4, **shape: int) -> PreTrainedModel:
    torch.manual_seed(0)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": hidden // 8}
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, max_position_embeddings=256,
        tie_word_embeddings=True, bos_token_id=START, eos_token_id=END, pad_token_id=PAD,
        **{"intermediate_size": 4 * hidden, **heads, **shape},
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    return spread(model, model.model.norm)


def t5(width: int = 128, layers: int = 4, heads: int = 6, feed_forward: int = 1024) -> PreTrainedModel:
    """The shape of TIGER's model (Rajput et al. 2023, arXiv 2305.05065, section 4)."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=width, d_kv=64, d_ff=feed_forward, num_layers=layers, num_heads=heads,
        decoder_start_token_id=PAD, eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip
    model = T5(config).eval()
    return spread(model, model.decoder.final_layer_norm)


def spread(model: PreTrainedModel, last_norm: Any) -> PreTrainedModel:
    """Scale the last norm so that logits have the standard deviation `SPREAD`."""
    ids = torch.arange(FIRST_CODE, FIRST_CODE + 64, device=model.device)[None]
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        last_norm.weight *= SPREAD / model(input_ids=ids, **decoder).logits.std()
    return model


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3": qwen3,
    "t5": t5,
    "qwen3 x8": lambda: qwen3(512, 8),
    "t5 x8": lambda: t5(256, 8, 12, 2048),
    # Shapes of Qwen3-0.6B and T5-base, with the vocabulary of the codes.
    "qwen3 large": lambda: qwen3(1024, 28, intermediate_size=3072, num_attention_heads=16, head_dim=128),
    "t5 large": lambda: t5(768, 12, 12, 3072),
}


def drawn_sequences(items: int, seed: int = 0) -> np.ndarray:
    """Draw different clustered triples of codes, as tokens: int64 [items, 3], in random order.

    All 256^3 triples have a weight: ``1 / (rank + 20)`` of the first code times ``1 / (rank + 20)^3`` of the second,
    whose ranks are another random order below each first code. The triples are drawn without replacement by these
    weights (the smallest of exponential variables divided by them), so that a large catalogue fills the tree evenly.
    """
    rng = np.random.default_rng(seed)
    ranks = np.arange(CODES, dtype=np.float32) + 21
    first = rng.permutation(1 / ranks)
    second = rng.permuted(np.tile(ranks**-3, (CODES, 1)), axis=1)
    keys = rng.standard_exponential((CODES, CODES, CODES), dtype=np.float32)
    keys /= (first[:, None] * second)[:, :, None]
    triples = rng.permutation(np.argpartition(keys.ravel(), items)[:items])
    return FIRST_CODE + CODES * np.arange(3) + np.stack(np.unravel_index(triples, keys.shape), axis=1)


def suffixed(sequences: np.ndarray) -> np.ndarray:
    """Return the sequences with a fourth token, as in TIGER; it is the same one, since no codes collide."""
    return np.pad(sequences, ((0, 0), (0, 1)), constant_values=SUFFIX)


def recorded_histories(dataset: str) -> list[np.ndarray] | None:
    """Histories of item rows, oldest first, in random order of users; None where the data are not on this machine."""
    if dataset == MADE:
        return None
    from trialign.datasets import load  # needs more packages than the search itself

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
    return [[START, *sequences[rows[-20:]].ravel().tolist()] for rows in users]


class DictTrie:
    """The baseline's trie: nested dicts, walked from the root for every beam at every step."""

    def __init__(self, sequences: np.ndarray) -> None:
        self.root: dict[int, Any] = {}
        self.items: dict[tuple[int, ...], int] = {}
        for item, tokens in enumerate(sequences.tolist()):
            node = self.root
            for token in tokens:
                node = node.setdefault(token, {})
            self.items[tuple(tokens)] = item

    def allowed(self, generated: list[int]) -> list[int]:
        """Return the tokens that may follow."""
        node = self.root
        for token in generated:
            node = node[token]
        return list(node)


def dict_constraint(trie: DictTrie, start: int) -> dict[str, Any]:
    """Constrain `generate` as published code does: a function called for every beam."""
    return {"prefix_allowed_tokens_fn": lambda _user, sequence: trie.allowed(sequence[start:].tolist())}


def array_constraint(trie: Trie, start: int) -> dict[str, Any]:
    """Constrain `generate` by our trie, all beams at once."""
    return {"logits_processor": LogitsProcessorList([TrieLogitsProcessor(trie, start, END)])}


def generate(
    model: PreTrainedModel,
    constraint: Callable[[int], dict[str, Any]],
    rows: dict[tuple[int, ...], int],
    prompts: Sequence[list[int]],
    beams: int,
    batch: int,
) -> Beams:
    """Search with `transformers.generate`, users in the order given; `rows` says which item has a sequence."""
    found, scores = [], []
    encoder_decoder = model.config.is_encoder_decoder
    depth = len(next(iter(rows)))
    model.generation_config = GenerationConfig()  # nothing of a checkpoint's may change the result
    config = GenerationConfig(
        num_beams=beams, num_return_sequences=beams, max_new_tokens=depth, do_sample=False, length_penalty=0.0,
        renormalize_logits=True, pad_token_id=PAD, return_dict_in_generate=True, output_scores=True,
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
                **constraint(start),
            )
        found += [rows[tuple(sequence)] for sequence in answer.sequences[:, start:].tolist()]
        scores.append(answer.sequences_scores.float().cpu().numpy())
    return Beams(np.array(found).reshape(-1, beams), np.concatenate(scores).reshape(-1, beams))


@dataclass(frozen=True)
class Setting:
    """One comparison."""

    name: str
    dtype: str
    model: str
    items: int
    users: int
    batch: int
    generate_batch: int


def clock_of(device: str) -> Callable[[], float]:
    """CPU seconds, or wall seconds once the GPU has finished."""
    if device == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def device_name(device: str) -> str:
    """The GPU's model, or cpu."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def compare(setting: Setting, given: argparse.Namespace, recorded: list[np.ndarray] | None) -> dict[str, Any]:
    """Run all sides in turns and return one record."""
    known = recorded if setting.items == BEAUTY_ITEMS else None
    users = made_histories(setting.items) if known is None else known
    sequences = drawn_sequences(setting.items)
    if setting.name == "suffix":
        sequences = suffixed(sequences)
    if setting.name != "sorted":
        users = [rows for rows in users if len(rows) >= 20]
    prompts = prompts_of(users[: setting.users], sequences)
    trie, dict_trie = Trie.build(sequences), DictTrie(sequences)
    with torch.device(given.device):  # made in place: drawing the large models' weights takes a CPU long
        model: Any = MODELS[setting.model]().to(getattr(torch, setting.dtype))
    sides = sides_of(setting, model, trie, dict_trie, given.beams)
    read, answers = prefixes_read(lambda: sides["ours"](prompts), trie.depth)
    for search in sides.values():  # the first call loads and allocates; a GPU chooses its kernels by the batch's shape
        search(prompts[: 4 if given.device == "cpu" else setting.batch])
    seconds, their_answers = in_turns(sides, prompts, given)
    speeds = {side: len(prompts) / median for side, median in seconds.items()}
    same, difference = agreement(answers, their_answers)
    unit = "cpu_second" if given.device == "cpu" else "second"
    return {
        "setting": setting.name,
        "model": setting.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "catalogue": setting.items,
        "prefixes": np.diff(trie.level_starts)[1:].tolist(),
        "depth": trie.depth,
        "users": len(prompts),
        "batch": setting.batch,
        "generate_batch": setting.generate_batch,
        "beams": given.beams,
        **{f"{side}_users_per_{unit}": speed for side, speed in speeds.items()},
        "ratio": speeds["ours"] / speeds["generate"],
        "ratio_array": speeds["ours"] / speeds["generate_array"],
        "ratio_unsorted": speeds["ours"] / speeds.get("generate_unsorted", speeds["generate"]),
        "same_top_sets": same,
        "largest_score_difference": difference,
        "valid_share": valid_share(answers, trie, dict_trie),
        "prefixes_read": [round(count / len(prompts), 2) for count in read],
        "repeats": given.repeats,
        "histories": MADE if known is None else given.dataset,
        "device": device_name(given.device),
        "dtype": setting.dtype,
    }


def sides_of(
    setting: Setting, model: PreTrainedModel, trie: Trie, dict_trie: DictTrie, beams: int
) -> dict[str, Callable[[list[list[int]]], Beams]]:
    """Return each side as a function of the prompts; `beam_search` sorts them itself."""

    def ours(prompts: list[list[int]]) -> Beams:
        return beam_search(model, trie, prompts, beams=beams, top_k=beams, batch_size=setting.batch, progress=False)

    their_batch = setting.generate_batch

    def by_dict(prompts: list[list[int]]) -> Beams:
        return generate(model, partial(dict_constraint, dict_trie), dict_trie.items, prompts, beams, their_batch)

    def by_array(prompts: list[list[int]]) -> Beams:
        return generate(model, partial(array_constraint, trie), dict_trie.items, prompts, beams, their_batch)

    sides = {"ours": ours, "generate": in_order(by_dict), "generate_array": in_order(by_array)}
    return {**sides, "generate_unsorted": by_dict} if setting.name == "sorted" else sides


def in_order(search: Callable[[list[list[int]]], Beams]) -> Callable[[list[list[int]]], Beams]:
    """Return the search with its users sorted by the length of their prompts, and the answers in the old order."""

    def ordered(prompts: list[list[int]]) -> Beams:
        order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
        found = search([prompts[user] for user in order])
        back = np.argsort(order)
        return Beams(found.items[back], found.log_probabilities[back])

    return ordered


def in_turns(
    sides: dict[str, Callable[[list[list[int]]], Beams]], prompts: list[list[int]], given: argparse.Namespace
) -> tuple[dict[str, float], Beams]:
    """Return the median seconds of a search of each side, and what the dict side found."""
    clock = clock_of(given.device)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    found = {}
    for _ in range(given.repeats):
        for side, search in sides.items():
            began, runs = clock(), 0
            while runs == 0 or clock() - began < 1:  # a search of ours may take a tenth of a second
                found[side] = search(prompts)
                runs += 1
            seconds[side].append((clock() - began) / runs)
    return {side: statistics.median(times) for side, times in seconds.items()}, found["generate"]


def prefixes_read(search: Callable[[], Beams], depth: int) -> tuple[np.ndarray, Beams]:
    """Search, and count the prefixes of levels 1 to depth - 1 that the model reads for all users."""
    counts = np.zeros(depth - 1, dtype=np.int64)

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(reader: Any, tokens: np.ndarray, parents: np.ndarray) -> Any:
            levels = (tokens[tokens >= 0] - FIRST_CODE) // CODES
            np.add.at(counts, levels, 1)
            return step(reader, tokens, parents)

        return run

    with ExitStack() as patches:
        for reader in (DecoderOnlyReader, EncoderDecoderReader):
            patches.enter_context(mock.patch.object(reader, "step", counted(reader.step)))
        return counts, search()


def valid_share(found: Beams, trie: Trie, dict_trie: DictTrie) -> float:
    """Share of answers whose codes, as the array trie has them, lead to the same item in the dict trie."""
    rows = found.items.ravel()
    codes = trie.sequences(np.maximum(rows, 0)).tolist()
    return float(np.mean([dict_trie.items.get(tuple(code)) == row for code, row in zip(codes, rows, strict=True)]))


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
    drawn = suffixed(drawn_sequences(items + 1000))
    sequences, new = drawn[:items], drawn[items:]
    seconds: dict[str, list[float]] = {"build": [], "add": [], "open": []}

    def timed(name: str, act: Callable[[], Trie]) -> Trie:
        began = time.process_time()
        result = act()
        seconds[name].append(time.process_time() - began)
        return result

    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.repeats):
            trie = timed("build", lambda: Trie.build(sequences))
            timed("add", partial(trie.add, new))
            trie.save(folder)
            timed("open", lambda: Trie.load(folder))
    return {
        "items": items,
        "nodes": trie.n_nodes,
        "prefixes": np.diff(trie.level_starts)[1:].tolist(),
        "build_seconds": statistics.median(seconds["build"]),
        "mib": trie.nbytes / 2**20,
        "add_1000_seconds": statistics.median(seconds["add"]),
        "open_seconds": statistics.median(seconds["open"]),
        **{f"share_of_search {name}": share_of_search(name, sequences, trie, given) for name in ("qwen3", "t5")},
    }


def share_of_search(name: str, sequences: np.ndarray, trie: Trie, given: argparse.Namespace) -> float:
    """CPU time of the trie's and the masks' part of a search, divided by that of the whole; median of the repeats."""
    model = MODELS[name]()
    rng = np.random.default_rng(2)
    prompts = prompts_of([rng.integers(0, len(sequences), 20) for _ in range(2 * given.batch)], sequences)
    seen = [rng.integers(0, len(sequences), 20) for _ in prompts]
    search = partial(beam_search, model, trie, masked=seen, batch_size=given.batch, progress=False)
    search(prompts)
    shares = []
    for _ in range(given.repeats):
        with trie_timed() as timer:
            began = time.process_time()
            search(prompts)
        shares.append(timer.seconds / (time.process_time() - began))
    return statistics.median(shares)


@contextmanager
def trie_timed() -> Iterator["_Timer"]:
    """Time all functions that have to do with the trie and masks; one called within another counts once."""
    timer = _Timer()
    functions: list[tuple[Any, str]] = [
        (beam_module, "expand"), (Trie, "tokens_of"), (Trie, "is_leaf"), (MaskMaker, "__call__"),
        (ItemMask, "allows_positions"),
    ]  # fmt: skip
    with ExitStack() as patches:
        for owner, name in functions:
            patches.enter_context(mock.patch.object(owner, name, timer.timed(getattr(owner, name))))
        yield timer


class _Timer:
    """Adds up the CPU seconds of functions."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.running = False

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed unless a timed one is running."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            if self.running:
                return function(*arguments, **keywords)
            self.running, began = True, time.process_time()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds += time.process_time() - began
                self.running = False

        return run


def settings(given: argparse.Namespace) -> list[Setting]:
    """What is measured: small, sorted, suffixed and large catalogues, and larger models."""
    theirs = given.generate_batch or given.batch
    half, their_half = given.batch // 2, max(1, theirs // 2)  # the large models take long
    found = [
        Setting(
            name,
            dtype,
            f"{model} {name}" if name in ("x8", "large") else model,
            1_000_000 if name == "million" else BEAUTY_ITEMS,
            *sizes,
        )
        for name, *sizes in (
            ("beauty", given.users, given.batch, theirs),
            ("sorted", 2 * given.users, given.batch, theirs),
            ("suffix", given.users, given.batch, theirs),
            ("million", given.users, given.batch, theirs),
            ("x8", half, half, their_half),
            ("large", given.users, given.batch, theirs),
        )
        for model in given.models
        for dtype in given.dtype
    ]
    return [setting for setting in found if setting.name in given.only]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all records to this file as well")
    parser.add_argument("--quick", action="store_true", help="only `beauty` and a trie of a million items, one repeat")
    parts = ["beauty", "sorted", "suffix", "million", "x8", "trie"]
    parser.add_argument(
        "--only", nargs="+", choices=[*parts, "large"], help="what is measured; default all but large, meant for a GPU"
    )
    parser.add_argument("--users", type=int, help="users searched, twice as many if sorted; default 64, --quick 32")
    parser.add_argument("--models", nargs="+", choices=["t5", "qwen3"], default=["t5", "qwen3"])
    parser.add_argument("--batch", type=int, default=32, help="users a batch")
    parser.add_argument("--generate-batch", type=int, help="users a batch of generate; default as many as --batch")
    parser.add_argument("--beams", type=int, default=20, help="beams and items returned, on all sides")
    parser.add_argument("--repeats", type=int, help="of each side, in turns; default 3, with --quick 1")
    parser.add_argument(
        "--dataset", default="amazon-beauty", help="whose histories are read, where it is found; or made"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda: there users a second of wall time are told")
    dtypes = ["float32", "bfloat16"]
    parser.add_argument("--dtype", nargs="+", choices=dtypes, default=dtypes[:1], help="of the models")
    given = parser.parse_args()
    given.repeats = given.repeats or (1 if given.quick else 3)
    given.only = given.only or (["beauty", "trie"] if given.quick else parts)
    given.users = given.users or (32 if given.quick else 64)
    torch.set_num_threads(1)
    recorded = recorded_histories(given.dataset)
    records: dict[str, list[dict[str, Any]]] = {"search": [], "trie": []}
    tries = [1_000_000] if given.quick else [10_000, 1_000_000, 10_000_000]
    work = [("search", partial(compare, setting, given, recorded)) for setting in settings(given)]
    work += [("trie", partial(measure_trie, items, given)) for items in tries if "trie" in given.only]
    for name, measure in tqdm(work, desc="records", unit="record"):
        records[name].append(measure())
        tqdm.write(json.dumps(records[name][-1]))
        if given.json:
            given.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    for name, rows in records.items():
        if rows:
            print(f"\n{name}\n{pd.DataFrame(rows).round(5).to_string(index=False)}")


if __name__ == "__main__":
    main()
