"""Headphones and notebooks."""

import numpy as np

from trialign.datasets.atelier.drawing_canvas import (
    Canvas,
    band,
    box,
    ellipse,
    flat,
    mirrored,
    moved,
    poly,
    puffy,
    spline,
    turned,
)
from trialign.datasets.atelier.drawing_paint import BRASS, CREAM, INK, STEEL, Look, Solid, darker, lighter


def headphones(canvas: Canvas, look: Look) -> None:
    """Draw headphones: a thin band with small pads, big round cups, or square cups."""
    slim = look.silhouette == "slender"
    span, top = (27.0, 17.0) if slim else (29.0, 14.0)
    arc = spline(
        (50 - span, 60),
        (50 - span - 1, 42),
        (50 - span * 0.72, top + 9),
        (50, top),
        (50 + span * 0.72, top + 9),
        (50 + span + 1, 42),
        (50 + span, 60),
        closed=False,
    )
    canvas.fill(band(arc, 1.8 if slim else 2.4), Solid(STEEL, "metal"), puffy(2, 1, 0.3))
    middle = arc[14:-14]
    canvas.fill(band(middle, 3.4 if slim else 7.5), look.cover.plain(0.05), look.cover.soft(4, 1))
    if not slim:
        inner = moved(middle, dy=3.6, scale=0.93)
        canvas.fill(band(inner, 3), Solid(darker(look.cover.base, 0.55), "leather"), puffy(2, 0.8))
    for mirror in (False, True):
        _cup(canvas, look, 50 - span, mirror)


def _cup(canvas: Canvas, look: Look, x: float, mirror: bool) -> None:
    shapes = {
        "slender": (ellipse(x, 66, 10.5, 12), ellipse(x + 4.5, 66, 9.5, 11.5)),
        "rounded": (ellipse(x, 66, 17, 20.5), ellipse(x + 7.5, 66, 14.5, 19.5)),
        "angular": (box(x - 15, 46, x + 14, 87, 4), box(x - 4, 47.5, x + 21, 85.5, 4)),
    }
    shell, pad = shapes[look.silhouette]
    side = mirrored if mirror else (lambda points: points)
    canvas.fill(side(pad), Solid(darker(look.cover.base, 0.62), "leather"), puffy(5, 1))
    canvas.fill(side(shell), look.cover.at(zoom=0.95), look.cover.soft(7, 1))
    ring = moved(shell, scale=0.86)
    canvas.line(side(np.concatenate([ring, ring[:1]])), lighter(look.cover.base, 0.35), 0.7)
    hub = moved(shell, scale=0.26)
    canvas.fill(side(hub), Solid(BRASS if look.material != "metal" else STEEL, "metal"), puffy(3, 1, 0.5))


def notebook(canvas: Canvas, look: Look) -> None:
    """Draw a notebook with a pencil: narrow, round-cornered with a strap, or wide with a spiral."""
    frames = {"slender": (33, 20, 66, 85, 0.6), "rounded": (25, 21, 74, 85, 7.0), "angular": (17, 30, 82, 85, 0.0)}
    x0, y0, x1, y1, radius = frames[look.silhouette]
    turn = look.rng.uniform(-5, 5)
    place = lambda points: moved(points, turn=turn, about=(50, 86))  # noqa: E731
    depth = 3.2
    canvas.fill(place(box(x0 + depth, y0 - depth, x1 + depth, y1 - depth, radius)), look.cover.plain(0.4), flat())
    for layer in np.linspace(0.82, 0.18, 5):
        page = box(
            x0 + depth * layer + 0.6, y0 - depth * layer, x1 + depth * layer - 0.5, y1 - depth * layer - 0.6, radius
        )
        canvas.fill(place(page), Solid(darker(CREAM, 0.03 + 0.14 * (round(layer * 6) % 2))), flat())
    canvas.fill(place(box(x0, y0, x1, y1, radius)), look.cover.at(zoom=1.1), look.cover.soft(2, 0.55))
    if look.silhouette == "angular":
        for y in np.linspace(y0 + 4, y1 - 4, 12):
            canvas.fill(place(ellipse(x0 + 3.2, y, 0.9, 0.9)), Solid(INK), flat())
            canvas.line(place(ellipse(x0 + 0.7, y - 0.4, 2.6, 1.4, 20, 340)), darker(STEEL, 0.35), 0.8)
    else:
        canvas.glaze(place(box(x0, y0, x0 + 4.5, y1, 0)), INK, 0.25)
        canvas.line(
            place(poly((x0 + 4.6, y0 + 0.5), (x0 + 4.6, y1 - 0.5))), lighter(look.cover.base, 0.3), 0.4, opacity=0.7
        )
    if look.silhouette == "rounded":
        canvas.fill(place(box(x1 - 9, y0 - 0.4, x1 - 6.6, y1 + 0.4)), Solid(look.cover.accents[1]), turned(0.1))
        canvas.fill(
            place(poly((40, y1 - 1), (43, y1 - 1), (43, y1 + 5), (41.5, y1 + 3.6), (40, y1 + 5))),
            Solid(look.cover.accents[1]),
            flat(),
        )
    label_x, label_y = (x0 + x1) / 2 + 1, y0 + (y1 - y0) * 0.3
    wide = min(11.0, (x1 - x0) * 0.28)
    canvas.fill(place(box(label_x - wide, label_y - 5, label_x + wide, label_y + 5, 1)), Solid((252, 248, 238)), flat())
    for step, reach in ((-1.4, 0.7), (1.4, 0.5)):
        canvas.line(
            place(poly((label_x - wide * reach, label_y + step), (label_x + wide * reach, label_y + step))), INK, 0.6
        )
    _pencil(canvas, look, x1 + 6)


def _pencil(canvas: Canvas, look: Look, x: float) -> None:
    tilt = look.rng.uniform(4, 10)
    place = lambda points: moved(points, turn=tilt, about=(x, 86))  # noqa: E731
    tone = look.pick((244, 196, 70), (210, 80, 70), (70, 120, 150), (60, 130, 100))
    canvas.fill(place(box(x - 1.5, 44, x + 1.5, 80)), Solid(tone), turned(0.4))
    canvas.fill(place(box(x - 1.5, 41, x + 1.5, 44.4)), Solid(STEEL), turned(0.4))
    canvas.fill(place(box(x - 1.5, 38, x + 1.5, 41.4, 1.2)), Solid((240, 150, 150)), turned(0.1))
    canvas.fill(place(poly((x - 1.5, 80), (x + 1.5, 80), (x, 86))), Solid((232, 200, 156)), flat())
    canvas.fill(place(poly((x - 0.5, 84), (x + 0.5, 84), (x, 86))), Solid(INK), flat())
