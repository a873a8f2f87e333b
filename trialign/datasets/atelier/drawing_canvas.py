"""The drawing board: outlines in a 0-100 square, filled with a lit texture on a supersampled transparent layer."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageChops, ImageDraw, ImageFilter

#: An outline: x and y between 0 and 100, y downwards.
Points = Float[np.ndarray, "points 2"]
#: Lightness factors of a filled shape, and the white added for its highlights (both 0-1 and a little over).
Light = tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]
#: From a shape's mask (0-1) and the pixels of one unit to its light.
Shade = Callable[[Float[np.ndarray, "height width"], float], Light]
RGB = tuple[float, float, float]

#: The side of the layer over the side of the picture: edges are anti-aliased by averaging this many pixels squared.
SUPERSAMPLE = 3


class Paint(Protocol):
    """Anything that can colour a rectangle."""

    def texture(self, width: int, height: int, unit: float) -> Float[np.ndarray, "height width 3"]:
        """Return colours (0-255); `unit` is the number of pixels in one hundredth of the square's side."""


# ---- outlines -------------------------------------------------------------------------------------------------------


def ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> Points:
    """Return points along an ellipse's arc, in degrees clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, max(8, int(abs(stop - start) / 6) + 2)))
    return np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0) -> Points:
    """Return a rectangle, with round corners if asked."""
    if radius <= 0:
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)
    r = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    corners = [(x1 - r, y0 + r, -90), (x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180)]
    return np.concatenate([ellipse(x, y, r, r, start, start + 90) for x, y, start in corners])


def poly(*points: tuple[float, float]) -> Points:
    """Return the polygon through the points."""
    return np.array(points, dtype=float)


def spline(*points: tuple[float, float], closed: bool = True, steps: int = 12) -> Points:
    """Return a smooth (Catmull-Rom) curve through the points."""
    p = np.array(points, dtype=float)
    around = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    a, b, c, d = around[:-3, None], around[1:-2, None], around[2:-1, None], around[3:, None]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, p[-1:]])


def lathe(
    cx: float, profile: Sequence[tuple[float, float]], tilt: float = 0.13, smooth: bool = True, front: bool = False
) -> Points:
    """Return the outline of a turned body.

    Parameters
    ----------
    cx
        Its axis.
    profile
        Pairs of height and radius, from the top down; the side is a smooth curve through them.
    tilt
        Height over width of the circles at top and bottom: how far one looks down on it.
    smooth
        Whether the side is a curve; else straight lines.
    front
        Whether the top edge is the near half of the top circle, so that what is inside shows above it.
    """
    knots = [(radius, y) for y, radius in profile]
    side = spline(*knots, closed=False) if smooth else np.array(knots, dtype=float)
    right = np.stack([cx + side[:, 0], side[:, 1]], axis=1)
    left = np.stack([cx - side[::-1, 0], side[::-1, 1]], axis=1)
    (top, top_radius), (bottom, bottom_radius) = profile[0], profile[-1]
    under = ellipse(cx, bottom, bottom_radius, bottom_radius * tilt, 0, 180)
    over = ellipse(cx, top, top_radius, top_radius * tilt, 180, 0 if front else 360)
    return np.concatenate([right, under, left, over])


def moved(
    points: Points,
    dx: float = 0,
    dy: float = 0,
    scale: float = 1,
    turn: float = 0,
    about: tuple[float, float] | None = None,
) -> Points:
    """Return the points scaled and turned (degrees, clockwise) about a centre, then shifted."""
    centre = np.array(about) if about is not None else points.mean(axis=0)
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return (points - centre) @ np.array([[cos, sin], [-sin, cos]]) * scale + centre + (dx, dy)


def shifted(points: Points, dx: float, dy: float) -> Points:
    """Return the points shifted."""
    return points + np.array([dx, dy])


def mirrored(points: Points, cx: float = 50) -> Points:
    """Return the points mirrored at a vertical line."""
    return points * (-1, 1) + (2 * cx, 0)


def band(points: Points, width: float | Float[np.ndarray, " points"]) -> Points:
    """Return the outline of a ribbon of a width along a line."""
    along = np.gradient(points, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    half = np.broadcast_to(np.asarray(width, dtype=float) / 2, len(points))[:, None]
    return np.concatenate([points + normal * half, (points - normal * half)[::-1]])


# ---- light: it comes from the upper left ----------------------------------------------------------------------------


def flat(lift: float = 0.08) -> Shade:
    """Return the light of a flat thing: a faint diagonal fall-off."""

    def shade(mask: np.ndarray, unit: float) -> Light:
        height, width = mask.shape
        fall = np.linspace(1, -1, width)[None, :] * 0.5 + np.linspace(1, -1, height)[:, None] * 0.5
        return (1 + lift * fall).astype(np.float32), np.zeros((1, 1), np.float32)

    return shade


def turned(gloss: float = 0.0, metal: bool = False, hollow: bool = False) -> Shade:
    """Return the light of a turned body (or of its hollow inside), following its outline row by row."""
    knots = np.array([0, 0.1, 0.24, 0.4, 0.62, 0.82, 0.93, 1])
    bands = np.array([0.66, 0.86, 1.32, 1.02, 0.74, 0.92, 1.14, 0.72])

    def shade(mask: np.ndarray, unit: float) -> Light:
        height, width = mask.shape
        inside = mask > 0.5
        left = inside.argmax(axis=1)[:, None]
        right = width - inside[:, ::-1].argmax(axis=1)[:, None]
        across = np.clip((np.arange(width)[None, :] - left + 0.5) / np.maximum(right - left, 1), 0, 1)
        table = np.linspace(0, 1, 128)
        n = (1 - 2 * table) if hollow else (2 * table - 1)
        lambert = np.clip(-0.55 * n + 0.83 * np.sqrt(np.maximum(1 - n * n, 0)), 0, 1)
        tone = np.asarray(np.interp(table, knots, bands) if metal else 0.56 + 0.52 * lambert)
        shine = gloss * (np.exp(-(((table - 0.25) / 0.055) ** 2)) + 0.3 * np.exp(-(((table - 0.94) / 0.03) ** 2)))
        index = (across * 127).astype(np.int32)
        down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        window = np.clip((down - 0.05) * 9, 0, 1) * np.clip((0.92 - down) * 4, 0, 1)
        return (
            tone.astype(np.float32)[index] * (1.05 - 0.16 * down),
            shine.astype(np.float32)[index] * window * (0 if hollow else 1),
        )

    return shade


def puffy(radius: float = 5, strength: float = 1.0, gloss: float = 0.0) -> Shade:
    """Return the light of a soft, bulging thing: its mask, blurred, is taken as its height."""

    def shade(mask: np.ndarray, unit: float) -> Light:
        height, width = mask.shape
        step = max(1, int(radius * unit / 5))
        margin = 3
        small = Image.fromarray((mask * 255).astype(np.uint8)).resize(
            (max(2, width // step), max(2, height // step)), Image.Resampling.BOX
        )
        room = Image.new("L", (small.width + 2 * margin, small.height + 2 * margin))
        room.paste(small, (margin, margin))
        relief = np.asarray(room.filter(ImageFilter.GaussianBlur(radius * unit / step * 0.55)), np.float32) / 255
        height_map = relief * radius * unit / step
        slope = 0.5 * np.gradient(height_map, axis=1) + 0.75 * np.gradient(height_map, axis=0)
        light = np.asarray(slope)[margin:-margin, margin:-margin]
        core = relief[margin:-margin, margin:-margin]
        tone = np.clip(1 + 0.34 * strength * light - 0.22 * strength * (1 - core), 0.35, 1.35)
        shine = gloss * np.clip(light - 0.35, 0, 1)
        return _enlarged(tone, width, height), _enlarged(shine, width, height)

    return shade


def ball(gloss: float = 0.0) -> Shade:
    """Return the light of a ball that fills the shape's box."""

    def shade(mask: np.ndarray, unit: float) -> Light:
        height, width = mask.shape
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
        lambert = np.clip(-0.42 * x - 0.5 * y + 0.75 * z, 0, 1)
        shine = gloss * np.exp(-((x + 0.38) ** 2 + (y + 0.45) ** 2) / 0.035)
        return 0.5 + 0.6 * lambert, shine

    return shade


def _enlarged(values: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))


# ---- the layer ------------------------------------------------------------------------------------------------------


class Canvas:
    """A transparent square on which a product is built up, back to front.

    Parameters
    ----------
    side
        Side of the finished picture in pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.unit = side * SUPERSAMPLE / 100
        self.layer = Image.new("RGBA", (side * SUPERSAMPLE, side * SUPERSAMPLE))
        self.glows: list[tuple[float, float, float, RGB]] = []

    def fill(
        self,
        outline: Points,
        paint: Paint,
        shade: Shade | None = None,
        opacity: float = 1.0,
        inside: Points | None = None,
    ) -> None:
        """Fill an outline, or the part of it that lies inside another one, with a paint under a light."""
        placed = self._mask(outline)
        if placed is None:
            return
        mask, left, top = placed
        if inside is not None:
            bounds = Image.new("L", mask.size)
            ImageDraw.Draw(bounds).polygon((inside * self.unit - (left, top)).ravel().tolist(), fill=255)
            mask = ImageChops.multiply(mask, bounds)
        values = np.asarray(mask, np.float32) / 255
        colours = paint.texture(mask.width, mask.height, self.unit)
        tone, shine = (shade or flat())(values, self.unit)
        lit = colours * tone[..., None] + 255 * shine[..., None]
        piece = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
        if opacity >= 1:
            self.layer.paste(piece, (left, top), mask)
        else:
            piece.putalpha(mask.point(lambda value: int(value * opacity)))
            self.layer.alpha_composite(piece, (left, top))

    def glaze(self, outline: Points, colour: RGB, opacity: float, blur: float = 0) -> None:
        """Lay a veil of colour over what is there already, without growing the product's outline."""
        placed = self._mask(outline, margin=blur * 2)
        if placed is None:
            return
        mask, left, top = placed
        if blur:
            mask = _soft(mask, blur * self.unit)
        under = self.layer.crop((left, top, left + mask.width, top + mask.height))
        mixed = under.copy()
        mixed.paste((*(int(v) for v in colour), 255), (0, 0), mask.point(lambda value: int(value * opacity)))
        mixed.putalpha(under.getchannel("A"))
        self.layer.paste(mixed, (left, top))

    def line(self, points: Points, colour: RGB, width: float, opacity: float = 1.0) -> None:
        """Draw a line of a width in units; with an opacity below 1 it only tints what is there."""
        if opacity < 1:
            self.glaze(band(points, width), colour, opacity)
            return
        draw = ImageDraw.Draw(self.layer)
        path = [tuple(p) for p in points * self.unit]
        pixels = max(1, round(width * self.unit))
        fill = (*(int(np.clip(v, 0, 255)) for v in colour), 255)
        draw.line(path, fill=fill, width=pixels, joint="curve")
        r = pixels / 2
        for x, y in (path[0], path[-1]):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def glow(self, x: float, y: float, radius: float, colour: RGB) -> None:
        """Remember a soft light that the product throws on the whole picture."""
        self.glows.append((x, y, radius, colour))

    def finished(self) -> Image.Image:
        """Return the layer at the size of the picture, edges smoothed."""
        return self.layer.reduce(SUPERSAMPLE)

    def _mask(self, outline: Points, margin: float = 0) -> tuple[Image.Image, int, int] | None:
        pixels = outline * self.unit
        low = np.maximum(np.floor(pixels.min(axis=0) - margin * self.unit), 0).astype(int)
        high = np.minimum(np.ceil(pixels.max(axis=0) + margin * self.unit) + 1, self.layer.size).astype(int)
        if (high - low < 1).any():
            return None
        mask = Image.new("L", (int(high[0] - low[0]), int(high[1] - low[1])))
        ImageDraw.Draw(mask).polygon((pixels - low).ravel().tolist(), fill=255)
        return mask, int(low[0]), int(low[1])


def _soft(mask: Image.Image, radius: float) -> Image.Image:
    """Blur on a quarter of the pixels: veils are smooth, nobody sees the difference."""
    small = mask.resize((max(1, mask.width // 4), max(1, mask.height // 4)), Image.Resampling.BOX)
    return small.filter(ImageFilter.GaussianBlur(radius / 4)).resize(mask.size, Image.Resampling.BILINEAR)
