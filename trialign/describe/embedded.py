"""Captions that need no large model: a small describer, honest about being one.

It is not a vision-language model. For pictures like those of the atelier catalogue it names what linear heads on
EfficientNet-Lite0 features see (kind, silhouette, material, colour, pattern, scene); of any other picture it tells
dominant colours, light and composition, and what ImageNet's classes suggest. How often it is right on atelier is in
the heads' notes, and ``benchmarks/describers.py`` measures it on the shipped catalogue.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from trialign.describe.heads import PACKAGED, AttributeHeads, look
from trialign.describe.pixels import composition_words, dominant_colours, light_words
from trialign.describe.views import ItemError, ItemView
from trialign.embed.image import open_image
from trialign.models import ImageFeatures, efficientnet, imagenet_labels

Domain = Literal["auto", "atelier", "photo"]

#: Number of the way captions are worded; a change of the sentences counts it up, so that no cache gives the old ones.
WORDING = 1

#: How the place of a product is said; a scene without an entry is said plainly.
_PLACES = {
    "studio": "photographed in a studio",
    "sunlit wall": "in front of a sunlit wall",
    "wooden shelf": "on a wooden shelf",
    "cosy room": "in a cosy room",
    "garden": "standing in a garden",
    "beach": "on a beach",
    "mountains": "with mountains behind",
    "night city": "before a night city",
}


class EmbeddedCaptioner:
    """Describe images with EfficientNet-Lite0, linear heads and pixel statistics; not a VLM.

    Parameters
    ----------
    domain
        ``"atelier"`` uses the heads for every picture, ``"photo"`` for none. ``"auto"`` uses them where the share of
        the picture's features that lies outside the main directions of atelier pictures is below a fitted limit
        (:meth:`AttributeHeads.applies`).
    batch_size
        Images read at once.
    """

    model = "embedded describer (EfficientNet-Lite0 and linear heads; not a VLM)"
    prompt = "visible attributes in one sentence"

    def __init__(self, domain: Domain = "auto", batch_size: int = 16):
        if domain not in ("auto", "atelier", "photo"):
            raise ValueError(f"domain is {domain!r}: give 'auto', 'atelier' or 'photo'")
        self.domain = domain
        self.batch_size = batch_size

    @cached_property
    def settings(self) -> dict[str, str | int]:
        """What a caption depends on besides the image; part of the cache key."""
        heads = hashlib.sha256(PACKAGED.read_bytes()).hexdigest()[:16]
        return {"domain": self.domain, "heads": heads, "wording": WORDING}

    def caption(self, views: Sequence[ItemView]) -> list[str]:
        """Return one sentence an item.

        Raises
        ------
        ItemError
            If an item has no image or it cannot be read.
        """
        sentences: list[str] = []
        for start in range(0, len(views), self.batch_size):
            sentences += self.describe([_image(view) for view in views[start : start + self.batch_size]])
        return sentences

    def describe(self, images: Sequence[Image.Image]) -> list[str]:
        """Return one sentence for each opened RGB image of a batch."""
        looks = look(images, self._network)
        known = self._heads.predict(looks.features)
        labels = self._labels(looks.pooled)
        inside = self._inside(looks.pooled)
        return [
            product_sentence(known[row]) if inside[row] else photo_sentence(image, labels[row])
            for row, image in enumerate(images)
        ]

    def attributes(self, images: Sequence[Image.Image]) -> list[dict[str, str]]:
        """Return what the heads name in each image of a batch, whatever the domain."""
        return self._heads.predict(look(images, self._network).features)

    def _inside(self, pooled: Float[np.ndarray, "images 1280"]) -> Sequence[bool]:
        if self.domain == "auto":
            return self._heads.applies(pooled).tolist()
        return [self.domain == "atelier"] * len(pooled)

    def _labels(self, pooled: Float[np.ndarray, "images 1280"]) -> list[list[tuple[str, float]]]:
        """Return the two most probable ImageNet classes of each image, with their probabilities."""
        shares = torch.softmax(self._network.logits(torch.from_numpy(pooled)), dim=1)
        best = shares.topk(2, dim=1)
        return [
            [(self._names[index], share) for index, share in zip(indices, values, strict=True)]
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    # Loaded at the first image, then kept: captioners are called batch by batch.
    @cached_property
    def _network(self) -> ImageFeatures:
        return efficientnet()

    @cached_property
    def _heads(self) -> AttributeHeads:
        return AttributeHeads.load()

    @cached_property
    def _names(self) -> list[str]:
        return imagenet_labels()


def product_sentence(seen: Mapping[str, str]) -> str:
    """Put the visible attributes of a product into one sentence; which of four forms depends on the attributes.

    Parameters
    ----------
    seen
        Values of ``kind``, ``silhouette``, ``material``, ``colour``, ``pattern`` and ``scene``; they are used verbatim.

    Examples
    --------
    >>> product_sentence({"kind": "mug", "silhouette": "rounded", "material": "ceramic", "colour": "teal",
    ...                   "pattern": "dots", "scene": "beach"})
    'A rounded mug in teal with dots, made of ceramic, on a beach.'
    """
    names = ("kind", "silhouette", "material", "colour", "pattern", "scene")
    kind, shape, material, colour, pattern, scene = (seen[name] for name in names)
    code = hashlib.sha256("|".join(seen[name] for name in names).encode()).digest()[0]
    pattern, place = _pattern(pattern), _PLACES.get(scene, f"in this setting: {scene}")
    forms: tuple[Callable[[], str], ...] = (
        lambda: f"{_article(shape)} {shape} {kind} in {colour} {pattern}, made of {material}, {place}.",
        lambda: f"{place}: {_article(shape)} {shape} {colour} {kind} {pattern}, made of {material}.",
        lambda: f"{_article(colour)} {colour} {kind} {pattern}, {shape} in shape and made of {material}, {place}.",
        lambda: f"{_article(material)} {material} {kind}, {shape} and {colour} {pattern}, {place}.",
    )
    sentence = forms[code % len(forms)]()
    return sentence[0].upper() + sentence[1:]


def photo_sentence(image: Image.Image, labels: Sequence[tuple[str, float]]) -> str:
    """Tell colours, light, composition and the ImageNet classes of any picture, unsure where the network is.

    Parameters
    ----------
    image
        An RGB image.
    labels
        ImageNet class names with probabilities, the most probable first.
    """
    colours = _listed(dominant_colours(image))
    things = [f"{_article(name)} {name}" for name, _ in labels]
    share = labels[0][1]
    if share >= 0.5:
        thing = f"showing {things[0]}"
    elif share >= 0.12:
        thing = f"perhaps showing {' or '.join(things[:2])}"
    else:
        thing = f"nothing recognised with confidence, nearest {things[0]}"
    light = light_words(image)
    return f"{light[0].upper()}{light[1:]} {composition_words(image)}, in {colours}, {thing}."


def _pattern(pattern: str) -> str:
    """Return how a pattern follows the thing it is on: ``with dots``, ``with a floral pattern``."""
    if pattern == "plain":
        return "in a plain finish"
    return f"with {pattern}" if pattern.endswith("s") else f"with {_article(pattern)} {pattern} pattern"


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _image(view: ItemView) -> Image.Image:
    if view.image is None:
        raise ItemError(f"item {view.item_id!r} has no image to describe")
    try:
        return open_image(view.image)
    except (FileNotFoundError, ValueError) as error:
        raise ItemError(f"item {view.item_id!r}: {error}") from error
