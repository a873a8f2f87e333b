"""The scenes: what stands behind and under a product, and what its light does to it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from trialign.datasets.atelier.drawing_canvas import RGB, shifted
from trialign.datasets.atelier.drawing_paint import darker, lighter, mix, soften

#: Where products stand, in hundredths of the picture from its top.
GROUND = 86.0


@dataclass(frozen=True)
class Scene:
    """A background and its light.

    Parameters
    ----------
    image
        The background, RGB, as large as the picture.
    light
        What the scene's light makes of white, per channel (1 = as it is).
    shadow
        How dark shadows are, 0-1.
    cast
        How far the shadow on the ground reaches to the right, over the product's height.
    """

    image: Image.Image
    light: tuple[float, float, float]
    shadow: float
    cast: float


class Board:
    """A background in the making, at twice the size of the picture; coordinates are 0-100.

    Parameters
    ----------
    side
        Side of the finished picture in pixels.
    stops
        Pairs of height and colour: the vertical gradient it starts from.
    """

    def __init__(self, side: int, *stops: tuple[float, RGB]) -> None:
        self.side, self.pixels, self.unit = side, 2 * side, 2 * side / 100
        self.image = self.gradient(*stops)

    def gradient(self, *stops: tuple[float, RGB]) -> Image.Image:
        """Return a vertical gradient of the board's size."""
        y = np.linspace(0, 100, self.pixels)
        heights = [stop[0] for stop in stops]
        channels = [np.interp(y, heights, [stop[1][c] for stop in stops]) for c in range(3)]
        column = np.stack(channels, axis=1)[:, None, :].clip(0, 255).astype(np.uint8)
        return Image.fromarray(np.repeat(column, self.pixels, axis=1))

    def shapes(
        self, colour: RGB, polygons: list[np.ndarray], opacity: float = 1.0, blur: float = 0.0, add: bool = False
    ) -> None:
        """Fill polygons with one colour, out of focus by `blur` units; `add` adds light instead of covering."""
        if not polygons:  # a building without a lit window
            return
        step = max(1, int(blur * self.unit / 1.6))
        points = np.concatenate(polygons) * self.unit
        margin = 2.5 * blur * self.unit
        low = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(points.max(axis=0) + margin) + 1, self.pixels).astype(int)
        area = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        if (high <= low).any():
            return
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        mask = Image.new("L", (-(-size[0] // step), -(-size[1] // step)))
        draw = ImageDraw.Draw(mask)
        for polygon in polygons:
            draw.polygon(((polygon * self.unit - low) / step).ravel().tolist(), fill=int(255 * opacity))
        if blur:
            mask = mask.filter(ImageFilter.GaussianBlur(blur * self.unit / step))
        if step > 1:
            mask = mask.resize((mask.width * step, mask.height * step), Image.Resampling.BILINEAR).crop((0, 0, *size))
        if add:
            under = self.image.crop(area)
            light = [mask.point(lambda value, share=channel / 255: int(value * share)) for channel in _tone(colour)]
            self.image.paste(ImageChops.add(under, Image.merge("RGB", light)), area[:2])
        else:
            self.image.paste(_tone(colour), area, mask)

    def glow(self, x: float, y: float, radius: float, colour: RGB, strength: float) -> None:
        """Add a soft round light."""
        axis = np.linspace(0, 100, 64)
        fall = np.exp(-(((axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2) / (radius * radius)))
        light = (fall[..., None] * np.array(colour) * strength).clip(0, 255).astype(np.uint8)
        self.image = ImageChops.add(
            self.image, Image.fromarray(light).resize(self.image.size, Image.Resampling.BICUBIC)
        )

    def soften(self, radius: float) -> None:
        """Put everything so far out of focus."""
        self.image = soften(self.image, radius * self.unit)

    def planks(self, top: float, colour: RGB, rows: int, rng: np.random.Generator, edge: float = 0) -> None:
        """Lay a table of boards from a height down; `edge` is the thickness of a front edge at the bottom."""
        draw = ImageDraw.Draw(self.image)
        heights = top + (100 - edge - top) * np.linspace(0, 1, rows + 1) ** 1.25
        for upper, lower in pairwise(heights):
            tone = mix(colour, darker(colour, 0.25), rng.uniform(0, 0.5))
            draw.rectangle((0, upper * self.unit, self.pixels, lower * self.unit), fill=_tone(tone))
            for _ in range(9):
                y = rng.uniform(upper, lower) * self.unit
                x, length = rng.uniform(-20, 90) * self.unit, rng.uniform(15, 60) * self.unit
                draw.line((x, y, x + length, y + rng.normal(0, 1)), fill=_tone(darker(tone, rng.uniform(0.06, 0.2))))
            draw.line((0, upper * self.unit, self.pixels, upper * self.unit), fill=_tone(darker(tone, 0.4)), width=2)
        if edge:
            line = (100 - edge) * self.unit
            draw.rectangle((0, line, self.pixels, self.pixels), fill=_tone(darker(colour, 0.35)))
            draw.line((0, line, self.pixels, line), fill=_tone(lighter(colour, 0.35)), width=3)

    def done(self, light: tuple[float, float, float], shadow: float, cast: float) -> Scene:
        """Return the scene at the size of the picture."""
        return Scene(self.image.reduce(2), light, shadow, cast)


def _tone(colour: RGB) -> tuple[int, int, int]:
    return tuple(int(np.clip(v, 0, 255)) for v in colour)  # type: ignore[return-value]


def _disc(x: float, y: float, rx: float, ry: float | None = None) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 40)
    return np.stack([x + rx * np.cos(angles), y + (rx if ry is None else ry) * np.sin(angles)], axis=1)


def _quad(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def _leaf(x: float, y: float, length: float, width: float, angle: float) -> np.ndarray:
    """Return a leaf that starts at a point; the angle is in degrees, clockwise from the right."""
    t = np.linspace(0, np.pi, 14)
    along, across = length * (1 - np.cos(t)) / 2, width * np.sin(t) * (0.75 + 0.25 * np.cos(t))
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    upper = np.stack([x + along * cos - across * sin, y + along * sin + across * cos], axis=1)
    lower = np.stack([x + along * cos + across * sin, y + along * sin - across * cos], axis=1)
    return np.concatenate([upper, lower[::-1]])


def _frond(x: float, y: float, length: float, angle: float, leaves: int = 11, droop: float = 30) -> list[np.ndarray]:
    """Return a feathered palm leaf."""
    shapes = []
    for t in np.linspace(0.12, 1, leaves):
        turn = np.radians(angle + droop * t * t)
        px, py = x + length * t * np.cos(turn), y + length * t * np.sin(turn)
        for side in (-1, 1):
            shapes.append(_leaf(px, py, length * 0.42 * (1.15 - 0.6 * t), 1.0, angle + droop * t + side * 48))
    return shapes


def _ridge(base: float, height: float, rough: float, rng: np.random.Generator) -> np.ndarray:
    """Return a mountain ridge that fills everything below it."""
    line = np.zeros(2)
    for depth in range(6):
        between = (line[:-1] + line[1:]) / 2 + rng.normal(0, height * rough**depth, len(line) - 1)
        merged = np.empty(len(line) + len(between))
        merged[::2], merged[1::2] = line, between
        line = merged
    x = np.linspace(-2, 102, len(line))
    return np.concatenate([np.stack([x, base - np.abs(line)], axis=1), [[102, 101], [-2, 101]]])


def _studio(side: int, rng: np.random.Generator) -> Scene:
    wall: RGB = [(226, 210, 190), (190, 208, 218), (232, 198, 190), (194, 212, 192), (206, 196, 224), (236, 214, 168)][
        rng.integers(6)
    ]
    board = Board(
        side, (0, lighter(wall, 0.2)), (64, wall), (74, lighter(wall, 0.32)), (100, mix(wall, (150, 140, 130), 0.18))
    )
    board.glow(34, 28, 40, (255, 250, 240), 0.1)
    form = rng.integers(3)
    x = 50 + rng.uniform(-6, 6)
    if form == 0:
        board.shapes(mix(wall, (200, 140, 110), 0.28), [_disc(x, 42, 31)], opacity=0.75)
    elif form == 1:
        arch = np.concatenate([_disc(x, 38, 28)[20:], _quad(x - 28, 38, x + 28, 73)[[1, 2, 3]]])
        board.shapes(darker(wall, 0.13), [arch])
        board.shapes(lighter(wall, 0.25), [shifted(arch, 3, 2)], opacity=0.6, blur=1)
    board.shapes(darker(wall, 0.5), [_disc(53, 94, 44, 5)], opacity=0.22, blur=2.5)
    board.shapes(darker(wall, 0.2), [np.concatenate([_disc(50, 93, 42, 7)[:21], [[8, 87], [92, 87]]])])
    board.shapes(lighter(wall, 0.5), [_disc(50, 87, 42, 7.5)])
    return board.done((1.0, 0.995, 0.985), 0.34, 0.25)


def _sunlit_wall(side: int, rng: np.random.Generator) -> Scene:
    wall: RGB = [(222, 204, 178), (226, 208, 196), (212, 208, 190), (230, 214, 170)][rng.integers(4)]
    board = Board(side, (0, darker(wall, 0.2)), (74, darker(wall, 0.1)), (100, wall))
    slant, left, top = rng.uniform(0.2, 0.42), rng.uniform(6, 24), rng.uniform(4, 12)
    panes = []
    for column in range(3):
        for row in range(3):
            x0, y0 = left + column * 21, top + row * 20
            pane = _quad(x0, y0, x0 + 18.5, y0 + 17.5)
            pane[:, 1] += (pane[:, 0] - left) * slant
            pane[:, 0] += (pane[:, 1] - top) * 0.12
            panes.append(pane)
    board.shapes((255, 240, 200), panes, opacity=0.78, blur=0.55)
    x, y = rng.uniform(64, 88), rng.uniform(60, 70)
    twigs = [
        _leaf(x + rng.uniform(-3, 3), y - step * 5.2, rng.uniform(10, 16), 2.5, -90 + side_ * rng.uniform(30, 65))
        for step in range(8)
        for side_ in (-1, 1)
    ]
    board.shapes(darker(wall, 0.42), twigs, opacity=0.34, blur=0.9)
    table = lighter(wall, 0.35)
    board.shapes(table, [_quad(-1, 76, 101, 101)])
    board.shapes(darker(wall, 0.3), [_quad(-1, 75, 101, 76.6)], opacity=0.4, blur=0.6)
    sun = np.array([[4, 101], [30, 77], [88, 77], [80, 101]], dtype=float)
    board.shapes((255, 246, 216), [sun], opacity=0.65, blur=1.4)
    return board.done((1.03, 1.0, 0.93), 0.4, 0.55)


def _wooden_shelf(side: int, rng: np.random.Generator) -> Scene:
    wall: RGB = [(178, 186, 176), (196, 184, 172), (160, 176, 184), (206, 190, 164)][rng.integers(4)]
    wood: RGB = [(184, 132, 84), (160, 110, 70), (200, 152, 104)][rng.integers(3)]
    board = Board(side, (0, darker(wall, 0.18)), (50, wall), (82, lighter(wall, 0.1)), (100, darker(wall, 0.3)))
    board.glow(26, 18, 40, (255, 240, 214), 0.16)
    board.shapes(wood, [_quad(-1, -1, 101, 7)])
    board.shapes(darker(wood, 0.4), [_quad(-1, 6, 101, 9.5)])
    board.shapes((30, 24, 22), [_quad(-1, 9, 101, 15)], opacity=0.3, blur=2)
    _books(board, rng, 1 if rng.random() < 0.5 else 81)
    board.soften(0.35)
    board.planks(80, wood, 3, rng, edge=7)
    return board.done((1.0, 0.975, 0.94), 0.42, 0.3)


def _books(board: Board, rng: np.random.Generator, start: float) -> None:
    spines: list[RGB] = [(150, 70, 60), (60, 92, 110), (206, 186, 150), (90, 104, 84), (200, 150, 80), (72, 62, 78)]
    x = start
    for row in rng.permutation(len(spines))[:4]:
        width, height = rng.uniform(3.4, 5.4), rng.uniform(26, 40)
        board.shapes(spines[row], [_quad(x, 81 - height, x + width, 82)])
        board.shapes(lighter(spines[row], 0.35), [_quad(x + 0.5, 81 - height, x + 1.3, 82)], opacity=0.5)
        board.shapes((236, 214, 160), [_quad(x, 81 - height * 0.8, x + width, 82 - height * 0.76)], opacity=0.8)
        x += width + 0.25


def _cosy_room(side: int, rng: np.random.Generator) -> Scene:
    board = Board(side, (0, (74, 48, 38)), (60, (128, 84, 58)), (78, (92, 58, 42)), (100, (70, 44, 34)))
    board.glow(rng.uniform(14, 30), 24, 30, (255, 176, 92), 0.6)
    board.glow(82, 60, 26, (255, 140, 70), 0.3)
    board.shapes((66, 74, 72), [_quad(62, 46, 106, 84), _disc(64, 58, 8, 14)], opacity=0.9, blur=2.2)
    board.shapes((214, 196, 166), [_disc(84, 54, 12, 9)], opacity=0.8, blur=2.2)
    x = np.linspace(-4, 104, 15)
    sag = 11 + 8 * np.abs(np.sin(x / 33 + rng.uniform(0, 3)))
    for extra, radius, strength in ((0, 2.1, 0.9), (13, 1.5, 0.6)):
        lights = [_disc(px, py + extra + rng.normal(0, 1), radius) for px, py in zip(x + extra / 2, sag)]
        board.shapes((255, 196, 110), lights, opacity=0.35, blur=2.6, add=True)
        board.shapes((255, 214, 140), lights, opacity=strength, blur=0.5)
    board.planks(79, (148, 96, 60), 3, rng)
    board.shapes((255, 206, 140), [_disc(34, 88, 34, 7)], opacity=0.28, blur=3, add=True)
    return board.done((1.02, 0.93, 0.82), 0.5, 0.3)


def _garden(side: int, rng: np.random.Generator) -> Scene:
    board = Board(side, (0, (214, 232, 186)), (30, (150, 190, 110)), (76, (84, 138, 70)), (100, (60, 104, 54)))
    greens: list[RGB] = [(70, 128, 58), (122, 172, 84), (176, 206, 118), (48, 100, 52), (214, 228, 150)]
    for tone in greens + greens[::-1]:
        blobs = [_disc(rng.uniform(0, 100), rng.uniform(5, 80), rng.uniform(3, 10)) for _ in range(3)]
        board.shapes(tone, blobs, opacity=0.4)
    board.soften(2.2)
    board.glow(74, 8, 36, (255, 250, 190), 0.42)
    blooms: list[RGB] = [(250, 140, 160), (255, 214, 110), (250, 250, 246), (200, 150, 230)]
    bushes = [
        _leaf(x, rng.uniform(72, 84), rng.uniform(14, 30), 2.6, rng.uniform(-125, -55))
        for x in rng.uniform(-5, 105, 46)
    ]
    board.shapes((66, 124, 58), bushes[:26], blur=0.5)
    board.shapes((104, 160, 74), bushes[26:], blur=0.35)
    for x in np.concatenate([rng.uniform(0, 26, 7), rng.uniform(74, 100, 7)]):
        y, tone, r = rng.uniform(46, 74), blooms[rng.integers(4)], rng.uniform(1.5, 2.3)
        petals = [_disc(x + r * np.cos(a), y + r * np.sin(a), r * 0.85) for a in np.arange(5) * 1.2566]
        board.shapes(tone, petals, blur=0.25)
        board.shapes((244, 190, 70), [_disc(x, y, r * 0.6)])
    board.planks(80, (176, 158, 132), 3, rng, edge=4)
    board.shapes((255, 250, 214), [_disc(40, 90, 30, 6)], opacity=0.3, blur=3)
    return board.done((1.0, 1.01, 0.95), 0.4, 0.35)


def _beach(side: int, rng: np.random.Generator) -> Scene:
    low = rng.random() < 0.4
    sky = ((112, 178, 226), (214, 236, 244)) if not low else ((140, 160, 206), (255, 214, 170))
    board = Board(side, (0, sky[0]), (43, sky[1]), (100, sky[1]))
    clouds = [_disc(x, rng.uniform(8, 26), rng.uniform(7, 14), rng.uniform(1.4, 3)) for x in rng.uniform(0, 100, 7)]
    board.shapes((255, 255, 255), clouds, opacity=0.75, blur=1.4)
    board.glow(80, 14 if not low else 38, 20, (255, 236, 170), 0.5)
    sea = board.gradient((43, (52, 134, 182)), (58, (74, 182, 198)), (66, (176, 228, 218)))
    board.image.paste(sea.crop((0, int(43 * board.unit), board.pixels, board.pixels)), (0, int(43 * board.unit)))
    glints = [
        _quad(x, y, x + w, y + 0.35)
        for x, y, w in zip(rng.uniform(0, 95, 50), rng.uniform(44, 62, 50), rng.uniform(2, 9, 50))
    ]
    board.shapes((255, 255, 255), glints, opacity=0.45)
    x = np.linspace(-2, 102, 40)
    shore = 66 + 1.8 * np.sin(x / 11 + rng.uniform(0, 6)) + 0.04 * x
    for rise, tone in ((-1.6, (255, 255, 255)), (0, (206, 182, 140)), (2.2, (236, 214, 172))):
        board.shapes(tone, [np.concatenate([np.stack([x, shore + rise], axis=1), [[102, 101], [-2, 101]]])], blur=0.3)
    grains = rng.uniform(0, 1, (160, 2)) * (100, 27) + (0, 73)
    board.shapes((206, 178, 132), [_disc(gx, gy, 0.28) for gx, gy in grains], opacity=0.7)
    board.shapes((250, 234, 200), [_disc(gx + 0.7, gy + 0.4, 0.3) for gx, gy in grains[:90]], opacity=0.8)
    if rng.random() < 0.65:
        corner = rng.uniform(-12, 0)
        for angle in (15, 42, 70):
            board.shapes((44, 112, 84), _frond(corner, -4, rng.uniform(34, 44), angle), blur=0.25)
    return board.done((1.02, 1.0, 0.96), 0.42, 0.5)


def _mountains(side: int, rng: np.random.Generator) -> Scene:
    dusk = rng.random() < 0.45
    sky = ((92, 142, 200), (222, 234, 240)) if not dusk else ((106, 112, 176), (252, 200, 170))
    board = Board(side, (0, sky[0]), (52, sky[1]), (100, sky[1]))
    board.glow(rng.uniform(20, 80), 30, 26, (255, 240, 210), 0.3)
    near: RGB = (40, 74, 78)
    for base, height, share in ((50, 21, 0.72), (56, 13, 0.45), (63, 8, 0.2)):
        ridge = _ridge(base, height, 0.52, rng)
        tone = mix(near, sky[1], share) if not dusk else mix((60, 54, 96), sky[1], share * 0.9)
        board.shapes(tone, [ridge], blur=0.12)
        if base == 50:
            crest = ridge[:-2]
            depth = np.clip((47 - crest[:, 1]) / 3, 0, None) * rng.uniform(0.5, 1.1, len(crest))
            snow = np.concatenate([crest, (crest + np.stack([np.zeros(len(crest)), depth], axis=1))[::-1]])
            board.shapes((250, 250, 252), [snow], opacity=0.85, blur=0.15)
    pines = []
    for x in rng.uniform(-2, 102, 30):
        y, h = rng.uniform(70, 73), rng.uniform(5, 11)
        pines += [np.array([[x, y - h], [x + h * 0.24, y], [x - h * 0.24, y]])]
    board.shapes(darker(near, 0.25), pines, blur=0.1)
    lake = board.image.crop((0, int(44 * board.unit), board.pixels, int(72 * board.unit))).transpose(
        Image.Transpose.FLIP_TOP_BOTTOM
    )
    lake = Image.blend(lake, Image.new("RGB", lake.size, (96, 146, 172)), 0.4)
    board.image.paste(soften(lake, 3), (0, int(72 * board.unit)))
    board.shapes(
        (255, 255, 255),
        [_quad(x, y, x + 12, y + 0.3) for x, y in rng.uniform(0, 1, (14, 2)) * (95, 8) + (0, 73)],
        opacity=0.3,
    )
    rock = np.array([[-2, 84], [10, 80.5], [30, 79], [60, 79.5], [84, 80], [102, 83], [102, 102], [-2, 102]])
    board.shapes((150, 146, 142), [rock])
    board.shapes((104, 100, 102), [shifted(rock, 0, 13)], blur=0.5)
    specks = rng.uniform(0, 1, (70, 2)) * (100, 12) + (0, 81)
    board.shapes((118, 114, 112), [_disc(x, y, 1.1, 0.3) for x, y in specks], opacity=0.55)
    return board.done((0.97, 0.99, 1.02) if not dusk else (1.0, 0.95, 0.94), 0.42, 0.35)


def _night_city(side: int, rng: np.random.Generator) -> Scene:
    board = Board(side, (0, (14, 16, 44)), (45, (50, 38, 92)), (70, (150, 76, 118)), (100, (30, 24, 50)))
    stars = rng.uniform(0, 1, (36, 2)) * (100, 34)
    board.shapes((255, 255, 255), [_disc(x, y, 0.22) for x, y in stars], opacity=0.8)
    board.shapes((255, 244, 214), [_disc(rng.uniform(74, 90), 13, 4)])
    board.glow(82, 13, 13, (200, 190, 255), 0.3)
    for tone, low, high, lit in (((66, 50, 104), 30, 50, 0.25), ((30, 26, 62), 14, 40, 0.5)):
        x = -3.0
        while x < 100:
            width, height = rng.uniform(7, 14), rng.uniform(low, high)
            board.shapes(tone, [_quad(x, 80 - height, x + width, 82)])
            windows = [
                _quad(wx, wy, wx + 1.1, wy + 1.5)
                for wx in np.arange(x + 1.2, x + width - 1.6, 2.3)
                for wy in np.arange(82 - height, 78, 3.1)
                if rng.random() < lit
            ]
            board.shapes((255, 214, 130) if rng.random() < 0.8 else (150, 220, 255), windows, opacity=0.9)
            x += width + rng.uniform(0, 1.5)
    board.soften(0.45)
    for tone in ((255, 150, 90), (255, 90, 140), (110, 200, 255)):
        spots = [_disc(rng.uniform(0, 100), rng.uniform(60, 79), rng.uniform(1.6, 3.6)) for _ in range(5)]
        board.shapes(tone, spots, opacity=0.4, blur=0.35, add=True)
    board.shapes((46, 42, 62), [_quad(-1, 79.5, 101, 101)])
    board.shapes((120, 96, 140), [_quad(-1, 79.2, 101, 80.3)])
    board.shapes((255, 130, 120), [_disc(22, 90, 26, 5)], opacity=0.3, blur=3.5, add=True)
    board.shapes((90, 150, 255), [_disc(80, 92, 24, 5)], opacity=0.22, blur=3.5, add=True)
    return board.done((0.94, 0.9, 0.99), 0.6, 0.25)


#: How each scene is painted.
SCENES: dict[str, Callable[[int, np.random.Generator], Scene]] = {
    "studio": _studio,
    "sunlit wall": _sunlit_wall,
    "wooden shelf": _wooden_shelf,
    "cosy room": _cosy_room,
    "garden": _garden,
    "beach": _beach,
    "mountains": _mountains,
    "night city": _night_city,
}
