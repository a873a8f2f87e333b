"""Quantizers side by side, ours and other libraries', on the same embeddings in one run.

    python benchmarks/quantizers.py --json results.json
    python benchmarks/quantizers.py --texts T --tools "joint, unique" "faiss residual"
    python benchmarks/quantizers.py --sizes 4096 2048 1024 --tools "joint, unique" "residual k-means"
    python benchmarks/quantizers.py --stream 10000000

Embeddings: titles (T), or titles with brand and categories (TBC), of the items of a catalogue, by the packaged
all-MiniLM-L6-v2, rows of length 1. One record a fit: ``tool``, ``text``, ``codebook_sizes``, ``cosine`` (mean over
items, a list by level), ``relative_error``, ``items_colliding`` (share), ``perplexity`` (a list), ``neighbours`` (share
of the ten nearest neighbours with the same prefix, by depth), ``pair_agreement`` (share of the pairs with the same
prefix that have the same category, by depth; TBC has the category in its text), ``numbers`` (floats in codebooks and
networks), ``cosine_new_items`` (of a tenth of the items that a second fit did not see), ``fit_cpu_seconds`` (fit, codes
and their resolution), ``items``, ``seed``.

Other libraries: faiss, and vector-quantize-pytorch where it is installed (``pip install -c constraints.txt
vector-quantize-pytorch``). CPU seconds are those of this process; run with OMP_NUM_THREADS=1.
"""

import argparse
import hashlib
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file

from trialign.datasets import load
from trialign.embed.text import TextEmbedder
from trialign.models import cache_folder
from trialign.progress import tqdm
from trialign.sids import (
    RQVAE,
    BalancedResidualKMeans,
    JointResidualKMeans,
    OptimizedProductQuantizer,
    ProductQuantizer,
    Quantizer,
    ResidualFSQ,
    ResidualKMeans,
    collisions,
    resolve_collisions,
)
from trialign.sids.diagnostics import category_purity, code_usage, cosines, neighbour_preservation
from trialign.sids.residual import residual_decode

#: From this many codes at a level on, a round of the joint fit costs seconds, and fewer are taken.
MANY_CODES, FEWER_ROUNDS = 1024, 5

#: An RQ-VAE whose encoder alone keeps items apart: a narrow latent space, and a loss against crowding.
FEW_COLLISIONS: dict[str, Any] = {
    "latent_dim": 12,
    "hidden_dims": (512, 256),
    "epochs": 40,
    "batch_size": 512,
    "learning_rate": 2e-3,
    "codebook": "gradient",
    "spread": 0.1,
}


@dataclass
class Fitted:
    """What a tool made of the embeddings: their codes, and how to encode and decode."""

    codes: np.ndarray
    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray, int], np.ndarray]
    numbers: int


Tool = Callable[[np.ndarray, Sequence[int], int], Fitted]


def ours(make: Callable[[Sequence[int], int], Quantizer]) -> Tool:
    """Return one of our quantizers as a tool: the encoder alone decides."""

    def fit(points: np.ndarray, sizes: Sequence[int], seed: int) -> Fitted:
        quantizer = make(sizes, seed).fit(points)
        return Fitted(quantizer.encode(points), quantizer.encode, quantizer.reconstruct, count_numbers(quantizer))

    return fit


def joint_unique(points: np.ndarray, sizes: Sequence[int], seed: int) -> Fitted:
    """Fit jointly, give colliding items their best free codes, and fit the codebooks to these."""
    quantizer = make_joint(sizes, seed).fit(points)
    ids = [str(row) for row in range(len(points))]
    codes = resolve_collisions(quantizer.encode(points), sizes, ids, "reassign", quantizer, points).codes
    quantizer.refit(points, codes)
    return Fitted(codes, quantizer.encode, quantizer.reconstruct, count_numbers(quantizer))


def make_joint(sizes: Sequence[int], seed: int, **options: Any) -> JointResidualKMeans:
    rounds = {"rounds": FEWER_ROUNDS} if max(sizes) > MANY_CODES else {}
    return JointResidualKMeans(sizes, seed=seed, progress=False, **rounds, **options)


def faiss_residual(points: np.ndarray, sizes: Sequence[int], seed: int) -> Fitted:
    """Faiss's residual quantizer with its default beam, all levels refined together."""
    if any(size & (size - 1) for size in sizes):
        raise ValueError(f"faiss codes are whole bits: give powers of two instead of {list(sizes)}, or other --tools")
    quantizer = faiss.ResidualQuantizer(points.shape[1], _bits(sizes))
    quantizer.cp.seed = seed + 1
    quantizer.train(points)
    stacked = faiss.vector_to_array(quantizer.codebooks).reshape(-1, points.shape[1])
    books = np.split(stacked, np.cumsum(sizes)[:-1])
    bits = [int(size - 1).bit_length() for size in sizes]

    def encode(some: np.ndarray) -> np.ndarray:
        packed = quantizer.compute_codes(some)
        flat = np.unpackbits(packed, axis=1, bitorder="little")
        parts = np.split(flat[:, : sum(bits)], np.cumsum(bits)[:-1], axis=1)
        return np.stack([part.astype(np.int64) @ (1 << np.arange(part.shape[1])) for part in parts], axis=1)

    return Fitted(encode(points), encode, lambda codes, depth: residual_decode(codes, books, depth), stacked.size)


def _bits(sizes: Sequence[int]) -> faiss.UInt64Vector:
    bits = faiss.UInt64Vector()
    for size in sizes:
        bits.push_back(int(size - 1).bit_length())
    return bits


def vector_quantize_pytorch(points: np.ndarray, sizes: Sequence[int], seed: int) -> Fitted:
    """vector-quantize-pytorch's ResidualVQ: k-means start, dead codes replaced, EMA over 10 passes."""
    from vector_quantize_pytorch import ResidualVQ

    torch.manual_seed(seed)
    model = ResidualVQ(
        dim=points.shape[1], codebook_size=tuple(sizes), kmeans_init=True, threshold_ema_dead_code=2, decay=0.95
    )
    data = torch.from_numpy(points)
    model.train()
    with torch.no_grad():
        model(data[None])  # the start sees all items
        for _ in range(10):
            for rows in torch.randperm(len(data)).split(2048):
                model(data[rows][None])
    model.eval()
    books = [layer.codebook.detach().numpy().reshape(-1, points.shape[1]) for layer in model.layers]

    def encode(some: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(some)[None])[1][0].numpy().astype(np.int64)

    numbers = sum(book.size for book in books)
    return Fitted(encode(points), encode, lambda codes, depth: residual_decode(codes, books, depth), numbers)


TOOLS: dict[str, Tool] = {
    "joint, unique": joint_unique,
    "joint": ours(make_joint),
    "joint, one group": ours(lambda sizes, seed: make_joint(sizes, seed, groups=1)),
    "residual k-means": ours(lambda sizes, seed: ResidualKMeans(sizes, seed=seed)),
    "balanced residual k-means": ours(lambda sizes, seed: BalancedResidualKMeans(sizes, seed=seed)),
    "RQ-VAE": ours(lambda sizes, seed: RQVAE(sizes, seed=seed, progress=False)),
    "RQ-VAE, few collisions": ours(lambda sizes, seed: RQVAE(sizes, seed=seed, progress=False, **FEW_COLLISIONS)),
    "product": ours(lambda sizes, seed: ProductQuantizer(sizes, seed=seed)),
    "optimized product": ours(lambda sizes, seed: OptimizedProductQuantizer(sizes, seed=seed)),
    "residual FSQ": ours(lambda sizes, seed: ResidualFSQ(sizes, seed=seed)),
    "faiss residual": faiss_residual,
    "vector-quantize-pytorch": vector_quantize_pytorch,
}


def count_numbers(quantizer: Quantizer) -> int:
    network = getattr(quantizer, "network_", None)
    weights = 0 if network is None else sum(parameter.numel() for parameter in network.parameters())
    return sum(codebook.size for codebook in quantizer.codebooks_) + weights


def embeddings_of(dataset: str, text: str) -> tuple[np.ndarray, list[str]]:
    """Return the embeddings and the categories; the embeddings are kept in the cache folder."""
    catalogue = load(dataset)
    items = catalogue.items.fillna("").astype(str)
    columns = ["title"] if text == "T" else ["title", "brand", "category"]
    texts = [". ".join(part for part in row if part) for row in items[columns].itertuples(index=False, name=None)]
    key = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
    path = cache_folder() / "benchmarks" / f"{catalogue.name}-{text}-{key}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"embeddings": TextEmbedder().embed(texts)}, path)
    return load_file(path)["embeddings"], list(catalogue.groups())


def measured(
    name: str, text: str, points: np.ndarray, categories: Sequence[str], sizes: Sequence[int], seed: int
) -> dict:
    """Fit one tool and return its record."""
    start = time.process_time()
    fitted = TOOLS[name](points, sizes, seed)
    seconds = time.process_time() - start
    rebuilt = [fitted.decode(fitted.codes, depth) for depth in range(1, len(sizes) + 1)]
    preserved = neighbour_preservation(points, fitted.codes)
    return {
        "tool": name,
        "text": text,
        "codebook_sizes": list(sizes),
        "cosine": [float(cosines(points, some).mean()) for some in rebuilt],
        "relative_error": float(np.square(points - rebuilt[-1]).sum() / np.square(points).sum()),
        "items_colliding": float(collisions(fitted.codes)["items_colliding"]),
        "perplexity": code_usage(fitted.codes, sizes)["perplexity"].tolist(),
        "neighbours": preserved["preserved"].tolist(),
        "pair_agreement": category_purity(fitted.codes, categories)["pair_agreement"].tolist(),
        "numbers": fitted.numbers,
        "cosine_new_items": new_items(name, points, sizes, seed),
        "fit_cpu_seconds": seconds,
        "items": len(points),
        "seed": seed,
    }


def new_items(name: str, points: np.ndarray, sizes: Sequence[int], seed: int) -> float:
    """Return the cosine of a tenth of the items, drawn by the seed, after a fit on the others."""
    order = np.random.default_rng(seed).permutation(len(points))
    held, known = np.sort(order[: len(points) // 10]), np.sort(order[len(points) // 10 :])
    fitted = TOOLS[name](points[known], sizes, seed)
    return float(cosines(points[held], fitted.decode(fitted.encode(points[held]), len(sizes))).mean())


def stream(items: int, dim: int, part: int, batch: int = 50_000) -> dict[str, float]:
    """Encode a part of a stream of made embeddings; return items a CPU second, and what all would take."""
    quantizer = ResidualKMeans((256, 256, 256), iterations=5).fit(next(_batches(1, batch, dim)))
    seconds, encoded, before = 0.0, 0, _peak_mib()
    for points in tqdm(_batches(-(-part // batch), batch, dim), total=-(-part // batch), unit="batch"):
        start = time.process_time()
        quantizer.encode(points)
        seconds += time.process_time() - start
        encoded += len(points)
    speed = encoded / seconds
    return {
        "items_measured": encoded,
        "dim": dim,
        "items_per_cpu_second": speed,
        "cpu_seconds_for_all": items / speed,
        "items": items,
        "peak_mib": _peak_mib(),
        "peak_mib_before": before,
    }


def _batches(batches: int, batch: int, dim: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((1000, dim), dtype=np.float32)
    for _ in range(batches):
        points = centres[generator.integers(1000, size=batch)]
        points += 0.7 * generator.standard_normal((batch, dim), dtype=np.float32)
        yield points / np.linalg.norm(points, axis=1, keepdims=True)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the records to this file as well")
    parser.add_argument("--dataset", default="amazon-beauty", help="a catalogue, by name or folder")
    parser.add_argument("--texts", nargs="+", default=["T", "TBC"], choices=["T", "TBC"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 256, 256])
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS), metavar="TOOL")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--stream", type=int, metavar="ITEMS", help="instead: the speed of encoding so many items")
    parser.add_argument("--part", type=int, default=500_000, help="items of the stream that are really encoded")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.stream:
        found: Any = stream(given.stream, 256, min(given.part, given.stream))
        print(json.dumps(found, indent=1))
    else:
        found = compare(given)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def compare(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all tools, texts and seeds asked for, and print each record as it comes."""
    records = []
    if find_spec("vector_quantize_pytorch") is None and "vector-quantize-pytorch" in given.tools:
        given.tools = [name for name in given.tools if name != "vector-quantize-pytorch"]
        print("vector-quantize-pytorch is not installed and left out")
    for text in given.texts:
        points, categories = embeddings_of(given.dataset, text)
        for name in given.tools:
            for seed in given.seeds:
                records.append(measured(name, text, points, categories, given.sizes, seed))
                print(pd.Series(records[-1]).map(_short).to_string(), end="\n\n", flush=True)
    return records


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [round(entry, 4) for entry in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
