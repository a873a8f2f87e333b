"""Linear heads on image features that name visible attributes, and the score that says whether they apply at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from safetensors.numpy import load_file, save
from torch.nn import functional

from trialign.describe.pixels import HISTOGRAM_BINS, colour_histogram
from trialign.embed.image import feature_maps
from trialign.models import ImageFeatures

#: The heads that ship with the package.
PACKAGED = Path(__file__).with_name("embedded_heads.safetensors")


@dataclass(frozen=True)
class Looks:
    """What is measured of a batch of images.

    Attributes
    ----------
    pooled
        EfficientNet-Lite0's 1280 features, the mean over all places.
    features
        The last layer's mean over the middle of the picture, mean and spread of the inner block, and the colour
        histogram: what the heads read.
    """

    pooled: Float[np.ndarray, "images 1280"]
    features: Float[np.ndarray, "images features"]


def look(images: Sequence[Image.Image], model: ImageFeatures) -> Looks:
    """Measure opened RGB images (one batch)."""
    last, inner = feature_maps(images, model)
    maps = [last[:, :, 2:5, 2:5].mean(dim=(2, 3)), inner.mean(dim=(2, 3)), inner.std(dim=(2, 3))]
    colours = np.stack([colour_histogram(image) for image in images])
    return Looks(last.mean(dim=(2, 3)).numpy(), np.concatenate([*(part.numpy() for part in maps), colours], axis=1))


@dataclass(frozen=True, eq=False)
class AttributeHeads:
    """Fitted heads.

    Attributes
    ----------
    values
        The values of each attribute, in the order of the classes.
    weight, bias
        Of all heads, one beside the other: ``features @ weight + bias`` are the classes' scores.
    centre, axes
        Mean and leading principal directions of the pooled features in the domain, the latter as columns.
    limit
        Largest distance (:meth:`distance`) at which an image counts as of the domain.
    notes
        How they were made: seed, number of images, accuracy on images held out.
    """

    values: dict[str, tuple[str, ...]]
    weight: Float[np.ndarray, "features classes"]
    bias: Float[np.ndarray, "classes"]
    centre: Float[np.ndarray, "1280"]
    axes: Float[np.ndarray, "1280 axes"]
    limit: float
    notes: dict[str, Any]

    def predict(self, features: Float[np.ndarray, "images features"]) -> list[dict[str, str]]:
        """Return the most probable value of every attribute, one mapping an image."""
        scores = features @ self.weight + self.bias
        named: list[dict[str, str]] = [{} for _ in features]
        for attribute, place in self._places().items():
            for row, best in enumerate(scores[:, place].argmax(axis=1)):
                named[row][attribute] = self.values[attribute][best]
        return named

    def distance(self, pooled: Float[np.ndarray, "images 1280"]) -> Float[np.ndarray, "images"]:
        """Return how far images are from the domain: the part of the centred features outside its main directions.

        0 is inside, 1 is as far as it gets.
        """
        centred = pooled - self.centre
        outside = centred - (centred @ self.axes) @ self.axes.T
        return np.linalg.norm(outside, axis=1) / np.linalg.norm(centred, axis=1)

    def applies(self, pooled: Float[np.ndarray, "images 1280"]) -> Bool[np.ndarray, "images"]:
        """Say of each image whether it is like those the heads were fitted on."""
        return self.distance(pooled) <= self.limit

    def save(self, file: Path) -> None:
        """Write the numbers (half precision, the bias single) to a safetensors file, the rest to a JSON beside it."""
        arrays = {name: np.ascontiguousarray(getattr(self, name), np.float16) for name in ("weight", "centre", "axes")}
        # Not save_file, which makes the file unreadable for other users.
        file.write_bytes(save({**arrays, "bias": np.ascontiguousarray(self.bias, np.float32)}))
        rest = {"values": self.values, "limit": self.limit, "notes": self.notes}
        file.with_suffix(".json").write_text(json.dumps(rest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: Path = PACKAGED) -> "AttributeHeads":
        """Read heads that :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If one of the two files is missing.
        """
        for needed in (file, file.with_suffix(".json")):
            if not needed.is_file():
                raise FileNotFoundError(f"{needed} is missing: run `python -m trialign.describe.fit_embedded`")
        rest = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        values = {attribute: tuple(names) for attribute, names in rest["values"].items()}
        arrays = {name: array.astype(np.float32) for name, array in load_file(file).items()}
        return cls(values=values, limit=rest["limit"], notes=rest["notes"], **arrays)

    def _places(self) -> dict[str, slice]:
        """Return where each attribute's classes lie."""
        ends = np.cumsum([len(names) for names in self.values.values()])
        return {name: slice(end - len(self.values[name]), end) for name, end in zip(self.values, ends, strict=True)}


def fit_heads(
    features: Float[np.ndarray, "images features"],
    pooled: Float[np.ndarray, "images 1280"],
    truth: Mapping[str, Sequence[str]],
    values: Mapping[str, Sequence[str]],
    *,
    decay: float = 3e-3,
    colour_scale: float = 2.0,
    axes: int = 64,
    held_out: float = 0.1,
    seed: int = 0,
) -> AttributeHeads:
    """Fit a multinomial logistic regression an attribute, all at once, on standardized features.

    Parameters
    ----------
    features, pooled
        From :func:`look`.
    truth
        The true value of each attribute, one an image.
    values
        The possible values of each attribute.
    decay
        Weight of the squared weights in the loss.
    colour_scale
        How much larger than the other features those of the colour histogram are made, so that the decay holds
        them back less: they are few beside the network's.
    axes
        Main directions kept for the domain's score.
    held_out
        Share of the images that only the notes' accuracy and the domain's limit see.
    seed
        Of the choice of those.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    test, train = np.split(order, [max(1, round(held_out * len(order)))])
    known = {name: np.array([list(names).index(value) for value in truth[name]]) for name, names in values.items()}
    mean, spread = features[train].mean(axis=0), features[train].std(axis=0) + 1e-3
    spread[-HISTOGRAM_BINS:] /= colour_scale
    weight, bias = _minimize(
        (features[train] - mean) / spread, {name: codes[train] for name, codes in known.items()}, values, decay
    )
    centre = pooled[train].mean(axis=0)
    directions = np.linalg.svd(pooled[train] - centre, full_matrices=False)[2][:axes].T
    heads = AttributeHeads(
        values={name: tuple(names) for name, names in values.items()},
        # Standardization is folded in, so that the heads read plain features.
        weight=weight / spread[:, None],
        bias=bias - (mean / spread) @ weight,
        centre=centre,
        axes=directions,
        limit=1.0,
        notes={},
    )
    # A quarter of the way from the farthest held-out image to what has nothing in common with the domain.
    limit = float(heads.distance(pooled[test]).max() * 0.75 + 0.25)
    named = heads.predict(features[test])
    accuracy = {
        name: float(np.mean([named[i][name] == truth[name][row] for i, row in enumerate(test)])) for name in values
    }
    notes = {"images": len(train), "held_out": len(test), "accuracy": accuracy, "decay": decay, "seed": seed}
    return AttributeHeads(heads.values, heads.weight, heads.bias, centre, directions, limit, notes)


def _minimize(
    inputs: Float[np.ndarray, "images features"],
    codes: Mapping[str, Int[np.ndarray, "images"]],
    values: Mapping[str, Sequence[str]],
    decay: float,
) -> tuple[Float[np.ndarray, "features classes"], Float[np.ndarray, "classes"]]:
    """Minimize the summed cross-entropies with L-BFGS; the problem is convex, so the start does not matter."""
    x = torch.from_numpy(inputs.astype(np.float32))
    y = {name: torch.from_numpy(column) for name, column in codes.items()}
    sizes = [len(names) for names in values.values()]
    weight = torch.zeros(x.shape[1], sum(sizes), requires_grad=True)
    bias = torch.zeros(sum(sizes), requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=150, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        scores = torch.split(x @ weight + bias, sizes, dim=1)
        total = sum(functional.cross_entropy(part, y[name]) for part, name in zip(scores, values, strict=True))
        total = total + decay * weight.square().sum()
        total.backward()
        return total

    solver.step(loss)
    return weight.detach().numpy(), bias.detach().numpy()
