"""What can be said of an image from its pixels alone: colours with names, light, contrast, composition."""

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

#: Everyday colour names with a typical sRGB value each.
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (18, 18, 20),
    "charcoal grey": (62, 64, 68),
    "grey": (132, 132, 132),
    "silver grey": (192, 192, 194),
    "white": (246, 246, 244),
    "cream": (240, 228, 200),
    "beige": (206, 180, 145),
    "brown": (112, 72, 42),
    "dark brown": (60, 38, 26),
    "maroon": (105, 22, 32),
    "red": (200, 32, 36),
    "coral": (240, 120, 100),
    "orange": (235, 125, 30),
    "yellow": (242, 208, 55),
    "olive green": (112, 112, 50),
    "green": (58, 140, 66),
    "dark green": (24, 66, 44),
    "teal": (20, 124, 124),
    "light blue": (150, 196, 226),
    "blue": (40, 92, 180),
    "navy blue": (22, 36, 84),
    "purple": (108, 56, 140),
    "lavender": (186, 170, 216),
    "pink": (238, 160, 182),
}

#: Side of the small copy of an image that is counted.
_SIDE = 48
#: Bins of the colour histogram along L, a and b.
_BINS = (6, 7, 7)
#: Numbers of a colour histogram: middle and border.
HISTOGRAM_BINS = 2 * 6 * 7 * 7


def lab(pixels: Float[np.ndarray, "*places 3"]) -> Float[np.ndarray, "*places 3"]:
    """Convert sRGB (0..255) to CIE L*a*b* under D65, where distances are roughly those that people see."""
    scaled = np.asarray(pixels, dtype=np.float64) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def dominant_colours(image: Image.Image, most: int = 3, share: float = 0.08) -> list[str]:
    """Return the names of the colours that cover most of an image, the largest first.

    Parameters
    ----------
    image
        An RGB image.
    most
        How many names at most; there is at least one.
    share
        Part of the image that a further colour must cover.
    """
    places = lab(_small(image)).reshape(-1, 3)
    prototypes = lab(np.array(list(COLOURS.values())))
    nearest = ((places[:, None] - prototypes) ** 2).sum(axis=2).argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(COLOURS)) / len(places)
    order = np.argsort(-counts, kind="stable")[:most]
    return [list(COLOURS)[index] for place, index in enumerate(order) if place == 0 or counts[index] >= share]


def light_words(image: Image.Image) -> str:
    """Name brightness and contrast of an RGB image, as in ``dark, high-contrast``."""
    lightness = lab(_small(image))[..., 0]
    level, spread = lightness.mean(), lightness.std()
    light = "dark" if level < 35 else "bright" if level > 68 else "evenly lit"
    contrast = "high-contrast" if spread > 28 else "soft" if spread < 14 else ""
    return ", ".join(word for word in (light, contrast) if word)


def composition_words(image: Image.Image) -> str:
    """Name shape and arrangement of an RGB image, as in ``tall picture, plain ground with a subject in the middle``."""
    lightness = lab(_small(image))[..., 0]
    ratio = image.width / image.height
    shape = "wide" if ratio > 1.15 else "tall" if ratio < 0.87 else "square"
    detail = (np.abs(np.diff(lightness, axis=0)).mean() + np.abs(np.diff(lightness, axis=1)).mean()) / 2
    inside = centre_mask(_SIDE)
    if lightness[~inside].std() < 9 and lightness[inside].std() > 1.5 * lightness[~inside].std():
        return f"{shape} picture, plain ground with a subject in the middle"
    return f"{shape} picture, " + ("busy and full of detail" if detail > 9 else "calm with large areas")


def colour_histogram(image: Image.Image) -> Float[np.ndarray, "bins"]:
    """Return square roots of Lab histograms of an RGB image's middle and of its border, one after the other."""
    places = lab(_small(image))
    codes = _codes(places)
    inside = centre_mask(_SIDE)
    size = int(np.prod(_BINS))
    counts = [np.bincount(codes[mask], minlength=size) / mask.sum() for mask in (inside, ~inside)]
    return np.sqrt(np.concatenate(counts)).astype(np.float32)


def centre_mask(side: int) -> np.ndarray:
    """Return a ``[side, side]`` mask that is true in the middle half of a square, along both directions."""
    along = np.abs((np.arange(side) + 0.5) / side - 0.5) < 0.25
    return along[:, None] & along


def _small(image: Image.Image) -> Int[np.ndarray, "side side 3"]:
    return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX))


def _codes(places: Float[np.ndarray, "side side 3"]) -> Int[np.ndarray, "side side"]:
    """Number the histogram's bin of every place: L over 0..100, a and b over -70..70."""
    low, high = np.array([0.0, -70.0, -70.0]), np.array([100.0, 70.0, 70.0])
    bins = np.array(_BINS)
    indices = np.clip((places - low) / (high - low) * bins, 0, bins - 1).astype(np.int64)
    return (indices[..., 0] * bins[1] + indices[..., 1]) * bins[2] + indices[..., 2]
