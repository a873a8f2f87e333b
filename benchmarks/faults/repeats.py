"""The same seed twice, in processes that differ in what must not matter."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from faults import Row
from faults.stubs import small_training
from trialign.evaluate import ranking_metrics
from trialign.recommend import GenerativeRecommender
from trialign.sids import QUANTIZERS, PerModality, ResidualKMeans
from trialign.sids.build import new_quantizer
from trialign.train import Trainer

_SIZES = (8, 8)


def rows(times: int, seed: int) -> Iterator[Row]:
    """Do all things in pairs of processes with other hash seeds, and once with another number of threads."""
    pairs = max(1, times // 12)
    same: Counter[str] = Counter()
    started = time.monotonic()
    for number in range(pairs):
        first, second = _digests(f"{seed + 1}{number}", 1), _digests(f"{seed + 2}{number}", 1)
        same.update(name for name in THINGS if first[name] == second[name])
    seconds = (time.monotonic() - started) / pairs
    for name in THINGS:
        note = "bit for bit, in two processes with other PYTHONHASHSEEDs"
        yield Row(f"{name}: the same seed twice", pairs, same[name], pairs - same[name], 0, seconds, note)
    other = _digests("7", 2)
    equal = [name for name in THINGS if first[name] == other[name]]
    differing = sorted(set(THINGS) - set(equal))
    told = ", ".join(differing) or "none"
    note = f"bit for bit: {len(equal)} of {len(THINGS)}; not: {told} (threads add in another order)"
    yield Row("one thread and two: what differs, stated", 1, 1, 0, 0, seconds, note)


def _embeddings() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)


def _codes(name: str) -> bytes:
    fitted = new_quantizer(name, _SIZES, seed=0, epochs=3, progress=False).fit(_embeddings())
    return fitted.encode(_embeddings()).tobytes()


def _codes_by_modality() -> bytes:
    parts = {
        "text": new_quantizer("RQVAE", (8,), seed=0, epochs=3, latent_dim=16, progress=False),
        "image": ResidualKMeans((8,)),
    }
    fitted = PerModality(parts, {"text": 40, "image": 24}).fit(_embeddings())
    return fitted.encode(_embeddings()).tobytes()


def _weights() -> bytes:
    model, tasks, _ = small_training()
    Trainer(
        model, tasks, steps=12, batch_tokens=256, learning_rate=1e-2, seed=0, precision="fp32", progress=False
    ).fit()
    return b"".join(value.detach().numpy().tobytes() for _, value in sorted(model.state_dict().items()))


def _metrics() -> bytes:
    model, tasks, sids = small_training()
    recommender = GenerativeRecommender(model, tasks.vocabulary, sids)
    histories = [np.arange(user % 5) for user in range(20)]
    found = recommender.recommend(histories, beams=12, top_k=12, progress=False)
    metrics = ranking_metrics(found.items, np.arange(20) % 12)
    return found.items.tobytes() + found.log_probabilities.tobytes() + metrics.to_numpy().tobytes()


#: What must be the same, by name.
THINGS: dict[str, Callable[[], bytes]] = {
    **{f"SIDs by {name}": lambda name=name: _codes(name) for name in sorted(set(QUANTIZERS) - {"PerModality"})},
    "SIDs by PerModality": _codes_by_modality,
    "weights of a training": _weights,
    "beams and metrics": _metrics,
}


def _digests(hash_seed: str, threads: int) -> dict[str, str]:
    """Do all things in a fresh process; their hashes by name."""
    code = "from faults.repeats import *; print(json.dumps({name: digest(make()) for name, make in THINGS.items()}))"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=elsewhere, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def digest(content: bytes) -> str:
    """Return the SHA-256 of what was made."""
    return hashlib.sha256(content).hexdigest()
