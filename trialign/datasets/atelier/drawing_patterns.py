"""The patterns of products: each is drawn on a sheet that has the ground colour already."""

from collections.abc import Callable

import numpy as np
from PIL import ImageDraw

from trialign.datasets.atelier.drawing_canvas import RGB

#: The tones of a pattern: three accents, then the ground.
Tones = tuple[RGB, RGB, RGB, RGB]


def whole(colour: RGB | np.ndarray) -> tuple[int, int, int]:
    """Return the colour in whole numbers, as Pillow wants it."""
    return tuple(int(np.clip(v, 0, 255)) for v in colour)  # type: ignore[return-value]


def _plain(
    draw: ImageDraw.ImageDraw, width: int, height: int, unit: float, tones: Tones, rng: np.random.Generator
) -> None:
    """Draw nothing: the ground is the pattern."""


def _stripes(
    draw: ImageDraw.ImageDraw, width: int, height: int, unit: float, tones: Tones, rng: np.random.Generator
) -> None:
    period, thick = 8.5 * unit, 2.9 * unit
    for start in np.arange(-rng.uniform(0, 1) * period, height, period):
        draw.rectangle((0, start, width, start + thick), fill=whole(tones[0]))
        draw.rectangle((0, start + thick * 1.5, width, start + thick * 1.75), fill=whole(tones[1]))


def _dots(
    draw: ImageDraw.ImageDraw, width: int, height: int, unit: float, tones: Tones, rng: np.random.Generator
) -> None:
    period, r = 7.4 * unit, 1.75 * unit
    for row, y in enumerate(np.arange(0, height + period, period * 0.86)):
        for column, x in enumerate(np.arange(-period, width + period, period)):
            cx = x + (row % 2) * period / 2
            tone = tones[0] if (column + row // 2) % 4 else tones[1]
            draw.ellipse((cx - r, y - r, cx + r, y + r), fill=whole(tone))


def _checks(
    draw: ImageDraw.ImageDraw, width: int, height: int, unit: float, tones: Tones, rng: np.random.Generator
) -> None:
    # Gingham: one ink both ways, its crossings drawn full, so the weave shows without blending modes.
    period = 10 * unit
    half = np.array(tones[3]) * 0.58 + np.array(tones[0]) * 0.42
    for x in np.arange(0, width, period):
        draw.rectangle((x, 0, x + period * 0.46, height), fill=whole(half))
    for y in np.arange(0, height, period):
        draw.rectangle((0, y, width, y + period * 0.46), fill=whole(half))
        for x in np.arange(0, width, period):
            draw.rectangle((x, y, x + period * 0.46, y + period * 0.46), fill=whole(tones[0]))


def _floral(
    draw: ImageDraw.ImageDraw, width: int, height: int, unit: float, tones: Tones, rng: np.random.Generator
) -> None:
    period = 11 * unit
    for row, y in enumerate(np.arange(0, height + period, period * 0.82)):
        for x in np.arange(-period, width + period, period):
            cx, cy = x + (row % 2) * period / 2 + rng.normal(0, 0.7) * unit, y + rng.normal(0, 0.7) * unit
            _flower(draw, cx, cy, unit * rng.uniform(0.9, 1.2), tones, rng.uniform(0, 2 * np.pi), int(rng.integers(2)))


def _flower(draw: ImageDraw.ImageDraw, x: float, y: float, unit: float, tones: Tones, turn: float, tone: int) -> None:
    for side in (turn + 0.6, turn + 3.4):
        tip = (x + 5.2 * unit * np.cos(side), y + 5.2 * unit * np.sin(side))
        across = (1.1 * unit * np.sin(side), -1.1 * unit * np.cos(side))
        middle = (x + 3.6 * unit * np.cos(side), y + 3.6 * unit * np.sin(side))
        leaf = [
            (x, y),
            (middle[0] + across[0], middle[1] + across[1]),
            tip,
            (middle[0] - across[0], middle[1] - across[1]),
        ]
        draw.polygon(leaf, fill=whole(tones[2]))
    for angle in turn + np.arange(5) * 2 * np.pi / 5:
        px, py, r = x + 1.9 * unit * np.cos(angle), y + 1.9 * unit * np.sin(angle), 1.5 * unit
        draw.ellipse((px - r, py - r, px + r, py + r), fill=whole(tones[tone]))
    r = 1.05 * unit
    draw.ellipse((x - r, y - r, x + r, y + r), fill=whole(tones[1 - tone]))


def _terrazzo(
    draw: ImageDraw.ImageDraw, width: int, height: int, unit: float, tones: Tones, rng: np.random.Generator
) -> None:
    count = int(width * height / (unit * unit) / 17)
    centres = rng.uniform(0, 1, (count, 2)) * (width, height)
    for (x, y), size, turn, tone in zip(
        centres, rng.gamma(4, 0.34, count) * unit, rng.uniform(0, 6, count), rng.integers(0, 3, count)
    ):
        angles = turn + np.sort(rng.uniform(0, 2 * np.pi, 6))
        r = size * rng.uniform(0.7, 1.25, 6)
        draw.polygon(list(zip(x + r * np.cos(angles), y + 0.8 * r * np.sin(angles))), fill=whole(tones[tone]))


def _waves(
    draw: ImageDraw.ImageDraw, width: int, height: int, unit: float, tones: Tones, rng: np.random.Generator
) -> None:
    period, x = 8.4 * unit, np.linspace(-10, width + 10, 90)
    for row, y in enumerate(np.arange(0, height + period, period)):
        ripple = y + 1.9 * unit * np.sin(x / (2.5 * unit))
        line = list(zip(x, ripple)) + list(zip(x[::-1], ripple[::-1] + (2.7 if row % 2 else 1.3) * unit))
        draw.polygon(line, fill=whole(tones[0] if row % 2 else tones[2]))


def _chevron(
    draw: ImageDraw.ImageDraw, width: int, height: int, unit: float, tones: Tones, rng: np.random.Generator
) -> None:
    period, half = 9 * unit, 5.2 * unit
    xs = np.arange(-half, width + 2 * half, half)
    for row, y in enumerate(np.arange(-period, height + period, period)):
        zig = y + np.where(np.arange(len(xs)) % 2 == 0, 0, half * 0.72)
        thick = 2.6 * unit if row % 2 else 1.2 * unit
        draw.polygon(
            list(zip(xs, zig)) + list(zip(xs[::-1], zig[::-1] + thick)), fill=whole(tones[0 if row % 2 else 1])
        )


#: From a sheet, its width and height, the pixels of a unit, the tones and chance to the pattern on the sheet.
PATTERNS: dict[str, Callable[[ImageDraw.ImageDraw, int, int, float, Tones, np.random.Generator], None]] = {
    "plain": _plain,
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "floral": _floral,
    "terrazzo": _terrazzo,
    "waves": _waves,
    "chevron": _chevron,
}
