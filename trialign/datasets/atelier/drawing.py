"""From attributes to a picture: the product, drawn, is set into its scene with its shadows."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

import numpy as np
import pandas as pd
from PIL import Image, ImageChops, ImageFilter

from trialign.datasets.atelier.attributes import sample_attributes
from trialign.datasets.atelier.drawing_canvas import RGB, Canvas
from trialign.datasets.atelier.drawing_desk import headphones, notebook
from trialign.datasets.atelier.drawing_home import chair, clock, cushion, lamp, plant
from trialign.datasets.atelier.drawing_kitchen import bottle, bowl, mug
from trialign.datasets.atelier.drawing_paint import Look, cover
from trialign.datasets.atelier.drawing_scenes import GROUND, SCENES, Scene
from trialign.datasets.atelier.drawing_wear import bag, hat, shirt, sneaker

#: How each kind is drawn.
DRAWINGS: dict[str, Callable[[Canvas, Look], None]] = {
    "mug": mug,
    "bowl": bowl,
    "bottle": bottle,
    "lamp": lamp,
    "chair": chair,
    "cushion": cushion,
    "clock": clock,
    "plant": plant,
    "shirt": shirt,
    "hat": hat,
    "sneaker": sneaker,
    "bag": bag,
    "headphones": headphones,
    "notebook": notebook,
}


def draw_item(attributes: dict[str, str], seed: int, side: int = 224) -> Image.Image:
    """Draw one product in its scene.

    Parameters
    ----------
    attributes
        At least ``kind``, ``material``, ``colour``, ``pattern``, ``scene`` and ``silhouette``.
    seed
        Chance for all that is no attribute: where clouds hang, what is in the bowl.
    side
        Side of the picture in pixels.

    Returns
    -------
    PIL.Image.Image
        RGB, square. The same arguments give the same picture with one version of Pillow and NumPy.
    """
    rng = np.random.default_rng(seed)
    scene = SCENES[attributes["scene"]](side, rng)
    canvas = Canvas(side)
    look = Look(
        cover(attributes["colour"], attributes["pattern"], attributes["material"], rng), attributes["silhouette"], rng
    )
    DRAWINGS[attributes["kind"]](canvas, look)
    return _composed(scene, canvas)


def draw_items(n: int, seed: int, side: int = 224, threads: int = 2) -> tuple[list[Image.Image], pd.DataFrame]:
    """Draw products with attributes by chance, for fitting and judging whatever reads pictures.

    Parameters
    ----------
    n
        Number of products.
    seed
        Another seed is another draw.
    side
        Side of the pictures in pixels.
    threads
        Number of processes that draw.

    Returns
    -------
    images : list of PIL.Image.Image
        RGB, square.
    attributes : pandas.DataFrame
        One row an image, one column an attribute; image-visible ones independent of each other given the kind.
    """
    attributes = sample_attributes(n, np.random.default_rng(seed))
    return draw_table(attributes, seed, side, threads), attributes


def draw_table(attributes: pd.DataFrame, seed: int, side: int = 224, threads: int = 2) -> list[Image.Image]:
    """Draw a table of products, one picture a row; see `draw_items`."""
    rows = attributes.to_dict("records")
    seeds = np.random.default_rng((seed, 1)).integers(1 << 31, size=len(rows)).tolist()
    if threads <= 1 or len(rows) < 16:
        return [draw_item(row, own, side) for row, own in zip(rows, seeds)]
    with ProcessPoolExecutor(threads) as pool:
        return list(pool.map(draw_item, rows, seeds, repeat(side), chunksize=8))


def contact_sheet(images: Sequence[Image.Image], columns: int = 12, gap: int = 4) -> Image.Image:
    """Lay pictures of one size out in a grid on white.

    Parameters
    ----------
    images
        Pictures, row by row.
    columns
        Pictures in a row.
    gap
        Pixels between them.

    Raises
    ------
    ValueError
        Where there are no pictures.
    """
    if not images:
        raise ValueError("contact_sheet: no images; pass at least one")
    width, height = images[0].width + gap, images[0].height + gap
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (min(columns, len(images)) * width + gap, rows * height + gap), "white")
    for place, image in enumerate(images):
        sheet.paste(image, (gap + place % columns * width, gap + place // columns * height))
    return sheet


def _composed(scene: Scene, canvas: Canvas) -> Image.Image:
    product = canvas.finished()
    picture = scene.image.copy()
    alpha = product.getchannel("A")
    for shadow, strength in _shadows(alpha, scene):
        picture.paste((24, 18, 30), (0, 0), shadow.point(lambda value, s=strength: int(value * s)))
    lit = [
        band.point(lambda value, f=factor: int(min(255, value * f)))
        for band, factor in zip(product.split(), scene.light)
    ]
    picture.paste(Image.merge("RGB", lit), (0, 0), alpha)
    for x, y, radius, colour in canvas.glows:
        picture = ImageChops.screen(
            picture, _halo(picture.size, x, y, radius, colour, 0.1 + 0.5 * (scene.shadow - 0.34))
        )
    return picture


def _shadows(alpha: Image.Image, scene: Scene) -> list[tuple[Image.Image, float]]:
    """Return the soft shadow behind the product, the one it casts on the ground and the dark line of contact."""
    small = alpha.reduce(2)
    unit, ground, squash = small.width / 100, GROUND * small.width / 100, 0.22
    behind = ImageChops.offset(small, int(2.5 * unit), int(1.5 * unit))
    # Every ground pixel looks up the product at the height it lies in the shadow of.
    cast = small.transform(
        small.size,
        Image.Transform.AFFINE,
        (1, scene.cast / squash, -scene.cast / squash * ground, 0, 1 / squash, ground - ground / squash),
        Image.Resampling.BILINEAR,
    )
    contact = Image.new("L", small.size)
    foot = small.crop((0, int(ground - 4 * unit), small.width, int(ground + 2 * unit))).getbbox()
    if foot:
        contact.paste(255, (foot[0], int(ground - unit), foot[2], int(ground + 2.4 * unit)))
    layers = ((behind, 3.0, 0.3), (cast, 1.6, 0.8), (contact, 1.3, 0.9))
    return [
        (
            layer.filter(ImageFilter.GaussianBlur(blur * unit)).resize(alpha.size, Image.Resampling.BILINEAR),
            strength * scene.shadow,
        )
        for layer, blur, strength in layers
    ]


def _halo(size: tuple[int, int], x: float, y: float, radius: float, colour: RGB, strength: float) -> Image.Image:
    axis = np.linspace(0, 100, 56)
    fall = np.exp(-(((axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2) / radius**2))[..., None]
    light = (fall * np.array(colour) * strength).clip(0, 255).astype(np.uint8)
    return Image.fromarray(light).resize(size, Image.Resampling.BICUBIC)
