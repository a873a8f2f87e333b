"""Semantic ID content degradation, measured: what is lost on the way from an item to its codes, and by which input.

TriAlignGR (arXiv 2605.05249) names two losses. In encoding: what the embedding never saw, such as the image. In
quantization: what the codes round away. The same measures of several embeddings of one catalogue, with and without
captions, interests and images, show both. A quantizer starts from random numbers, so each is fitted with several seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import t as student

from trialign.progress import tqdm
from trialign.sids.collisions import collisions
from trialign.sids.diagnostics import category_purity, cosines, neighbour_preservation
from trialign.sids.probes import PLACES, KnownAttributes, probe_attributes, probe_targets
from trialign.sids.quantizer import Quantizer

#: Measure → what it says, in the order of tables and figures.
MEASURES: Mapping[str, str] = {
    "cosine": "cosine of the embedding and its reconstruction",
    "items_colliding": "items that share their codes",
    "neighbours": "true neighbours with the same first code",
    "purity": "items in the main category of their first code",
    "recovered_image": "recovered of what is in the image only",
    "recovered_text": "recovered of what is in the text only",
    "recovered_both": "recovered of what is in image and text",
    "recovered_category": "recovered of the category",
}


@dataclass(frozen=True, eq=False)
class Degradation:
    """What `content_degradation` measured.

    Parameters
    ----------
    table
        One row a representation and measure: ``representation``; ``measure``, a key of `MEASURES`; ``mean`` over the
        seeds; ``low`` and ``high``, its 95 % interval by Student's t (NaN with one seed); ``seeds``, their number;
        ``chance``, what unrelated codes would have (NaN where that means nothing); ``embedding``, the same measure of
        the embedding itself, before quantization (NaN where that means nothing).
    by_seed
        One row a representation, seed and measure: ``representation``, ``seed``, ``measure``, ``value``, ``chance``.
    codes
        Representation → seed → int64 codes of shape (items, levels), for `trialign.sids.stability.stability`.
    """

    table: pd.DataFrame
    by_seed: pd.DataFrame
    codes: Mapping[str, Mapping[int, Int[np.ndarray, "items levels"]]]

    def wide(self) -> pd.DataFrame:
        """Return the means with their intervals as text: one row a representation, one column a measure."""
        texts = [_with_interval(row.mean, row.low, row.high) for row in self.table.itertuples()]
        cells = self.table.assign(text=texts).pivot_table(
            index="representation", columns="measure", values="text", aggfunc="first", sort=False
        )
        cells.columns.name = None
        return cells.reset_index()

    def mean(self, representation: str, measure: str) -> float:
        """Return the mean over the seeds of one measure of one representation."""
        chosen = (self.table["representation"] == representation) & (self.table["measure"] == measure)
        return float(self.table.loc[chosen, "mean"].item())


def content_degradation(
    representations: Mapping[str, Float[np.ndarray, "items _"]],
    make_quantizer: Callable[[int], Quantizer],
    categories: Sequence[str] | None = None,
    truth: KnownAttributes | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    neighbours: int = 10,
    progress: bool = True,
) -> Degradation:
    """Quantize several embeddings of one catalogue with several seeds, and measure what is left of each.

    The intervals are over the seeds of the quantizer: they say whether two representations differ by more than a
    quantizer's luck. With three seeds Student's factor is 4.3, so they are wide, and none is over the items.

    Parameters
    ----------
    representations
        Name → embeddings of the same items in the same order, widths may differ.
    make_quantizer
        Gives an unfitted quantizer for a seed.
    categories
        One a row; None leaves ``purity`` out.
    truth
        Known attributes to probe; without it the probes read the category. The folds are the same everywhere.
    seeds
        Seeds of the fits.
    neighbours
        True nearest neighbours an item, by cosine in the embedding itself.
    progress
        Show a bar.

    Raises
    ------
    ValueError
        If there is no representation or no seed, or they disagree in rows.
    """
    sizes = {name: len(vectors) for name, vectors in representations.items()}
    if not sizes or not seeds or len(set(sizes.values())) > 1:
        raise ValueError(f"give at least one seed and one representation, all of the same items; got rows {sizes}")
    targets = probe_targets(truth, categories)
    rows: list[dict[str, Any]] = []
    codes: dict[str, dict[int, np.ndarray]] = {}
    with tqdm(total=len(sizes) * len(seeds), desc="content degradation", unit="fit", disable=not progress) as bar:
        for name, vectors in representations.items():
            codes[name] = {}
            for seed in seeds:
                quantizer = make_quantizer(seed).fit(vectors)
                codes[name][seed] = quantizer.encode(vectors)
                measured = _measures(vectors, quantizer, codes[name][seed], categories, neighbours)
                measured |= _recovered(quantizer.reconstruct(codes[name][seed]), targets)
                rows += [
                    {"representation": name, "seed": seed, "measure": measure, "value": value, "chance": chance}
                    for measure, (value, chance) in measured.items()
                ]
                bar.update()
    by_seed = pd.DataFrame(rows)
    before = {
        (name, measure): value
        for name, vectors in representations.items()
        for measure, (value, _) in _recovered(vectors, targets).items()
    }
    return Degradation(_over_seeds(by_seed, before), by_seed, codes)


def _measures(
    embeddings: np.ndarray,
    quantizer: Quantizer,
    codes: np.ndarray,
    categories: Sequence[str] | None,
    neighbours: int,
) -> dict[str, tuple[float, float]]:
    """Return measure to its value and its value by chance."""
    first = codes[:, :1]
    near = neighbour_preservation(embeddings, first, neighbours).iloc[0]
    measured = {
        "cosine": (float(cosines(embeddings, quantizer.reconstruct(codes)).mean()), np.nan),
        "items_colliding": (float(collisions(codes)["items_colliding"]), np.nan),
        "neighbours": (float(near["preserved"]), float(near["chance"])),
    }
    if categories is not None:
        pure = category_purity(first, categories).iloc[0]
        measured["purity"] = float(pure["purity"]), float(pure["purity_chance"])
    return measured


def _recovered(
    vectors: np.ndarray, targets: tuple[pd.DataFrame, Mapping[str, str]] | None
) -> dict[str, tuple[float, float]]:
    """Return what a probe recovers, averaged over the attributes of each place; chance is 0 by definition."""
    if targets is None:
        return {}
    means = probe_attributes(vectors, *targets, samples=1).groupby("where")["recovered"].mean()
    return {f"recovered_{place}": (float(means[place]), 0.0) for place in PLACES if place in means}


def _over_seeds(by_seed: pd.DataFrame, before: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    rows = []
    for (name, measure), part in by_seed.groupby(["representation", "measure"], sort=False):
        mean, low, high = t_interval(part["value"].to_numpy())
        rows.append(
            {
                "representation": name,
                "measure": measure,
                "mean": mean,
                "low": low,
                "high": high,
                "seeds": len(part),
                "chance": float(part["chance"].mean()),
                "embedding": before.get((str(name), str(measure)), np.nan),
            }
        )
    return pd.DataFrame(rows)


def t_interval(values: Float[np.ndarray, " seeds"], level: float = 0.95) -> tuple[float, float, float]:
    """Return mean, lower and upper end of Student's t interval of the mean; the ends are NaN for one value.

    Examples
    --------
    >>> [round(end, 3) for end in t_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.484, 4.484]
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    half = float(student.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def _with_interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.3f}" if np.isnan(low) else f"{mean:.3f} ± {(high - low) / 2:.3f}"
