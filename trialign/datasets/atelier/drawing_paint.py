"""Colours and materials: what covers a product."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter

from trialign.datasets.atelier.drawing_canvas import RGB, Shade, puffy, turned
from trialign.datasets.atelier.drawing_patterns import PATTERNS, whole

#: For each colour its own tone and the three tones that patterns on it use.
TONES: dict[str, tuple[RGB, tuple[RGB, RGB, RGB]]] = {
    "white": ((243, 240, 233), ((66, 84, 112), (214, 133, 102), (150, 172, 150))),
    "charcoal": ((66, 69, 76), ((226, 220, 208), (206, 154, 84), (132, 140, 152))),
    "navy": ((36, 56, 104), ((240, 234, 220), (226, 118, 88), (122, 160, 206))),
    "sky blue": ((132, 188, 228), ((250, 248, 240), (38, 92, 152), (250, 200, 118))),
    "teal": ((20, 132, 136), ((242, 236, 218), (244, 170, 96), (8, 80, 88))),
    "forest green": ((38, 92, 60), ((238, 230, 206), (214, 168, 80), (128, 172, 118))),
    "sage": ((166, 186, 152), ((250, 246, 234), (92, 116, 86), (222, 150, 120))),
    "mustard": ((222, 170, 50), ((252, 244, 222), (122, 76, 30), (44, 84, 108))),
    "terracotta": ((192, 96, 62), ((248, 230, 206), (108, 44, 30), (232, 176, 110))),
    "coral": ((248, 116, 100), ((255, 242, 228), (150, 38, 52), (250, 204, 116))),
    "blush pink": ((240, 184, 190), ((255, 248, 242), (184, 86, 108), (140, 164, 132))),
    "lavender": ((176, 156, 214), ((250, 244, 252), (92, 68, 142), (246, 206, 140))),
}

WOOD: RGB = (186, 136, 88)
DARK_WOOD: RGB = (112, 74, 48)
BRASS: RGB = (206, 166, 92)
STEEL: RGB = (176, 182, 188)
INK: RGB = (44, 42, 46)
CREAM: RGB = (246, 238, 222)

#: How much each material shines.
GLOSS = {"ceramic": 0.62, "glass": 0.75, "metal": 0.55, "leather": 0.16, "wood": 0.1}


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """Return the colour `share` of the way from a to b."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def darker(colour: RGB, share: float = 0.3) -> RGB:
    """Return the colour mixed with a warm black."""
    return mix(colour, (24, 18, 26), share)


def lighter(colour: RGB, share: float = 0.3) -> RGB:
    """Return the colour mixed with a warm white."""
    return mix(colour, (255, 252, 246), share)


@dataclass(frozen=True)
class Solid:
    """One colour, with the grain of a material.

    Parameters
    ----------
    colour
        Red, green and blue, 0-255.
    material
        One of the materials, or ``""`` for none.
    """

    colour: RGB
    material: str = ""

    def texture(self, width: int, height: int, unit: float) -> Float[np.ndarray, "height width 3"]:
        """Return the colours of a rectangle."""
        colours = np.broadcast_to(np.array(self.colour, np.float32), (height, width, 3))
        return grained(colours, self.material, unit)

    def shade(self) -> Shade:
        """Return the light of a turned body of this material."""
        return turned(GLOSS.get(self.material, 0), metal=self.material == "metal")


@dataclass(frozen=True)
class Cover:
    """A colour, a pattern in tones that suit it, and the grain of a material: the main paint of a product.

    Parameters
    ----------
    base, accents
        The ground colour and the three tones of the pattern.
    pattern
        One of the patterns.
    material
        One of the materials.
    seed
        Where flowers and flecks fall.
    zoom
        Size of the pattern; 1 suits a mug.
    bend
        How far a turned body curves the pattern's rows down in the middle, in units; 0 for flat things.
    """

    base: RGB
    accents: tuple[RGB, RGB, RGB]
    pattern: str
    material: str
    seed: int
    zoom: float = 1.0
    bend: float = 0.0

    def texture(self, width: int, height: int, unit: float) -> Float[np.ndarray, "height width 3"]:
        """Return the colours of a rectangle."""
        sheet = Image.new("RGB", (width, height + int(self.bend * unit)), whole(self.base))
        rng = np.random.default_rng(self.seed)
        PATTERNS[self.pattern](
            ImageDraw.Draw(sheet), sheet.width, sheet.height, unit * self.zoom, (*self.accents, self.base), rng
        )
        colours = np.asarray(sheet, np.float32)
        if self.bend:
            across = np.linspace(-1, 1, width)
            columns = ((np.arcsin(across * 0.96) / np.arcsin(0.96) + 1) / 2 * (width - 1)).astype(np.int32)
            sink = (self.bend * unit * (1 - np.sqrt(1 - across**2))).astype(np.int32)
            colours = colours[np.arange(height)[:, None] + sink[None, :], columns[None, :]]
        return grained(colours, self.material, unit)

    def at(self, zoom: float = 1.0, bend: float = 0.0) -> "Cover":
        """Return the same paint with its pattern at another size or bend."""
        return replace(self, zoom=zoom, bend=bend)

    def plain(self, share: float = 0.0) -> Solid:
        """Return the ground colour alone, darker by a share (lighter where negative), with the same grain."""
        colour = darker(self.base, share) if share >= 0 else lighter(self.base, -share)
        return Solid(colour, self.material)

    def round(self) -> Shade:
        """Return the light of a turned body of this material."""
        return turned(GLOSS.get(self.material, 0), metal=self.material == "metal")

    def soft(self, radius: float = 5, strength: float = 1.0) -> Shade:
        """Return the light of a bulging thing of this material."""
        return puffy(radius, strength, GLOSS.get(self.material, 0))


@dataclass(frozen=True)
class Look:
    """What a product's drawing is told.

    Parameters
    ----------
    cover
        Its main paint.
    silhouette
        One of the silhouettes.
    rng
        Source of chance for small things (what is in the bowl, the time on the clock).
    """

    cover: Cover
    silhouette: str
    rng: np.random.Generator

    @property
    def material(self) -> str:
        """The material of the main paint."""
        return self.cover.material

    def trim(self) -> Solid:
        """Return the paint of legs, stands and lids: what goes with the material."""
        tones = {"wood": WOOD, "metal": STEEL, "ceramic": WOOD, "glass": STEEL, "wicker": WOOD, "leather": DARK_WOOD}
        grains = {"metal": "metal", "glass": "metal"}
        return Solid(tones.get(self.material, WOOD), grains.get(self.material, "wood"))

    def pick(self, *options: RGB) -> RGB:
        """Return one of the colours by chance."""
        return options[int(self.rng.integers(len(options)))]


def cover(colour: str, pattern: str, material: str, rng: np.random.Generator) -> Cover:
    """Return the main paint of a product: its tones vary a little from one product to the next."""
    base, accents = TONES[colour]
    shift = rng.normal(0, 5, 3)
    tones = [tuple(np.clip(np.array(tone) + shift, 0, 255)) for tone in (base, *accents)]
    seed = int(rng.integers(1 << 31))
    order = rng.permutation(3) if pattern in ("terrazzo", "floral") else np.array([0, 1, 2])
    return Cover(tones[0], tuple(tones[1 + i] for i in order), pattern, material, seed)


# ---- materials ------------------------------------------------------------------------------------------------------


def grained(colours: np.ndarray, material: str, unit: float) -> Float[np.ndarray, "height width 3"]:
    """Return the colours with the grain of a material on them."""
    if material not in _GRAINS:
        return colours
    height, width = colours.shape[:2]
    grain = _grain(material, round(unit * 100))
    top, left = min(37, grain.shape[0] - height), min(53, grain.shape[1] - width)
    piece = grain[max(top, 0) :, max(left, 0) :][:height, :width, None]
    if piece.shape[:2] != (height, width):
        piece = np.pad(piece, ((0, height - piece.shape[0]), (0, width - piece.shape[1]), (0, 0)), mode="edge")
    if material == "wood":
        # A stain lets the wood through: the colour stays the product's, the veins are the wood's.
        colours = colours * 0.8 + np.array(WOOD, np.float32) * 0.2
    return colours * piece


@lru_cache(maxsize=32)
def _grain(material: str, pixels: int) -> Float[np.ndarray, "height width"]:
    """Return the lightness factors of a square of the whole picture, made once."""
    rng = np.random.default_rng(len(material) * 101 + ord(material[0]))
    return _GRAINS[material](pixels, pixels / 100, rng).astype(np.float32)


def _noise(pixels: int, rng: np.random.Generator, across: float, down: float) -> np.ndarray:
    """Return smooth noise, standardized; `across` and `down` are the sizes of its blobs in pixels."""
    shape = (max(2, int(pixels / across)), max(2, int(pixels / down)))
    values = rng.normal(0, 1, (shape[1], shape[0])).astype(np.float32)
    smooth = np.asarray(Image.fromarray(values).resize((pixels, pixels), Image.Resampling.BICUBIC))
    return (smooth - smooth.mean()) / smooth.std()


def _wood_grain(pixels: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    y = np.arange(pixels)[:, None] / unit
    warp = _noise(pixels, rng, 45 * unit, 12 * unit) * 1.6
    veins = np.sin((y + warp) * 2.3) * 0.55 + np.sin((y + warp * 1.4) * 5.1) * 0.3
    return 1 + 0.1 * veins + 0.035 * _noise(pixels, rng, 14 * unit, 0.5 * unit)


def _brushed(pixels: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    return 1 + 0.022 * _noise(pixels, rng, 16 * unit, 0.35 * unit)


def _leather_grain(pixels: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    return 1 + 0.04 * _noise(pixels, rng, 0.75 * unit, 0.75 * unit) + 0.022 * _noise(pixels, rng, 9 * unit, 9 * unit)


def _linen_weave(pixels: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    rows = _noise(pixels, rng, 3.5 * unit, 0.55 * unit)
    columns = _noise(pixels, rng, 0.55 * unit, 3.5 * unit)
    return 1 + 0.055 * rows + 0.055 * columns


def _cotton_weave(pixels: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    return 1 + 0.02 * _noise(pixels, rng, 0.6 * unit, 0.6 * unit) + 0.03 * _noise(pixels, rng, 14 * unit, 10 * unit)


def _knit(pixels: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:pixels, 0:pixels] / unit
    stitch = np.abs(np.sin(x * np.pi / 2.4))
    rows = np.sin((y * 2.1 + stitch * 1.5) * np.pi)
    return 1 + 0.1 * rows * (0.5 + 0.5 * stitch) - 0.13 * (stitch < 0.22)


def _basket(pixels: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:pixels, 0:pixels] / unit
    row = np.floor(y / 2.2)
    over = np.cos((x / 2.6 + row % 2) * np.pi)
    strand = np.sin((y / 2.2 % 1) * np.pi)
    return (0.7 + 0.26 * strand + 0.16 * over * strand) * (1 + 0.04 * _noise(pixels, rng, 3 * unit, 2 * unit))


_GRAINS: dict[str, Callable[[int, float, np.random.Generator], np.ndarray]] = {
    "wood": _wood_grain,
    "metal": _brushed,
    "leather": _leather_grain,
    "linen": _linen_weave,
    "cotton": _cotton_weave,
    "wool": _knit,
    "wicker": _basket,
}


def soften(image: Image.Image, radius: float) -> Image.Image:
    """Return the image out of focus; wide blurs work on fewer pixels."""
    step = max(1, int(radius / 2))
    if step == 1:
        return image.filter(ImageFilter.GaussianBlur(radius))
    small = image.reduce(step).filter(ImageFilter.GaussianBlur(radius / step))
    return small.resize(image.size, Image.Resampling.BICUBIC)
