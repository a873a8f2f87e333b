"""Mugs, bowls and bottles."""

import numpy as np

from trialign.datasets.atelier.drawing_canvas import RGB, Canvas, ball, band, ellipse, flat, lathe, spline, turned
from trialign.datasets.atelier.drawing_paint import CREAM, INK, Look, Solid, darker, lighter

_DRINKS: tuple[RGB, ...] = ((92, 56, 34), (196, 150, 104), (176, 92, 40), (128, 150, 84))
_FRUIT: tuple[RGB, ...] = ((242, 150, 44), (206, 60, 52), (244, 208, 76), (140, 176, 70), (120, 66, 120))


def mug(canvas: Canvas, look: Look) -> None:
    """Draw a mug with its drink: a tall latte mug, a belly mug or a camp mug."""
    profiles: dict[str, list[tuple[float, float]]] = {
        "slender": [(28, 15.5), (44, 15), (66, 13.5), (83, 11)],
        "rounded": [(44, 20), (52, 23.5), (63, 25.5), (75, 23), (82.5, 15)],
        "angular": [(42, 24), (82.5, 19)],
    }
    profile, tilt = profiles[look.silhouette], 0.17
    (top, rim), (bottom, _) = profile[0], profile[-1]
    side, high = rim - 1 if look.silhouette != "rounded" else rim + 3, (bottom - top)
    cx = 47.0
    handle = spline(
        (cx + side - 2, top + high * 0.2),
        (cx + side + 10, top + high * 0.22),
        (cx + side + 12.5, top + high * 0.45),
        (cx + side + 8, top + high * 0.66),
        (cx + side - 4, top + high * 0.76),
        closed=False,
    )
    canvas.fill(band(handle, 4.6), look.cover.plain(0.1), look.cover.soft(3, 0.9))
    canvas.fill(ellipse(cx, top, rim, rim * tilt), look.cover.plain(-0.25), flat())
    canvas.fill(ellipse(cx, top + 0.35, rim - 1.5, (rim - 1.5) * tilt), look.cover.plain(0.12), turned(hollow=True))
    drink = ellipse(cx, top + 1.8, rim - 2.6, (rim - 3.6) * tilt)
    canvas.fill(drink, Solid(look.pick(*_DRINKS)), flat(0.3))
    canvas.glaze(ellipse(cx - 5, top + 1.2, 5, 0.8), (255, 255, 255), 0.35, 0.8)
    body = lathe(cx, profile, tilt, smooth=look.silhouette != "angular", front=True)
    canvas.fill(body, look.cover.at(bend=rim * tilt), look.cover.round())
    canvas.line(ellipse(cx, top, rim - 0.5, rim * tilt, 3, 177), lighter(look.cover.base, 0.45), 0.9)
    if look.silhouette == "angular" or look.material == "metal":
        canvas.line(ellipse(cx, top, rim - 0.4, rim * tilt, 0, 180), darker(look.cover.base, 0.45), 1.2)
    canvas.glaze(ellipse(cx, bottom + 2, rim, 4), INK, 0.28, 1.6)


def bowl(canvas: Canvas, look: Look) -> None:
    """Draw a bowl of fruit: on a foot, half a ball, or a cone."""
    profiles: dict[str, list[tuple[float, float]]] = {
        "slender": [(42, 27), (50, 25.5), (58, 19), (64, 7), (72, 4.5), (79, 6), (84, 15)],
        "rounded": [(50, 32), (60, 31), (70, 26), (78, 17), (83, 12)],
        "angular": [(50, 35), (53, 34), (83, 13)],
    }
    profile, tilt, cx = profiles[look.silhouette], 0.24, 50.0
    top, rim = profile[0]
    canvas.fill(ellipse(cx, top, rim, rim * tilt), look.cover.plain(-0.2), flat())
    canvas.fill(ellipse(cx, top + 0.5, rim - 1.8, (rim - 1.8) * tilt), look.cover.plain(0.2), turned(hollow=True))
    _fruit(canvas, look, cx, top, rim)
    glass = look.material == "glass"
    body = lathe(cx, profile, tilt, smooth=look.silhouette != "angular", front=True)
    canvas.fill(body, look.cover.at(bend=rim * tilt), look.cover.round(), opacity=0.72 if glass else 1.0)
    canvas.line(ellipse(cx, top, rim - 0.6, rim * tilt, 2, 178), lighter(look.cover.base, 0.5), 1.1)
    bottom, foot = profile[-1]
    canvas.glaze(ellipse(cx, bottom + 2, foot + 5, 5), INK, 0.3, 1.8)
    if glass:
        canvas.glaze(ellipse(cx - rim * 0.55, top + 14, 2, 8), (255, 255, 255), 0.6, 0.7)


def _fruit(canvas: Canvas, look: Look, cx: float, top: float, rim: float) -> None:
    tones = look.rng.permutation(len(_FRUIT))[:2]
    for step, x in enumerate(np.linspace(-0.56, 0.56, 4)):
        r = rim * look.rng.uniform(0.22, 0.28)
        y = top - rim * 0.1 - look.rng.uniform(0, 2) + abs(x) * 3
        tone = _FRUIT[tones[step % 2]]
        canvas.fill(ellipse(cx + x * rim, y, r, r * 0.95), Solid(tone), ball(0.35))
        canvas.line(np.array([[cx + x * rim, y - r * 0.8], [cx + x * rim + 0.8, y - r * 1.1]]), (90, 66, 40), 0.7)
    r = rim * 0.25
    canvas.fill(ellipse(cx - 1, top - rim * 0.02, r, r * 0.95), Solid(_FRUIT[tones[0]]), ball(0.35))


def bottle(canvas: Canvas, look: Look) -> None:
    """Draw a bottle with a stopper: tall, bellied, or square-shouldered."""
    profiles: dict[str, list[tuple[float, float]]] = {
        "slender": [(24, 5.2), (30, 5.4), (36, 9), (43, 12.6), (52, 13), (76, 13), (84, 12)],
        "rounded": [(33, 5.6), (38, 6.2), (45, 13), (54, 20.5), (65, 23), (76, 20.5), (84, 14)],
        "angular": [(29, 9), (34, 9), (37, 17), (82, 17), (84, 15.5)],
    }
    profile, tilt, cx = profiles[look.silhouette], 0.13, 50.0
    top, neck = profile[0]
    widest = max(radius for _, radius in profile)
    body = lathe(cx, profile, tilt, smooth=look.silhouette != "angular")
    glass = look.material == "glass"
    if glass:
        canvas.fill(body, Solid(lighter(look.cover.base, 0.55)), turned(0.2), opacity=0.55)
        inner = [(max(y, top + 14), max(radius - 1.3, 1)) for y, radius in profile if y > top + 8]
        canvas.fill(lathe(cx, inner, tilt), look.cover.at(bend=widest * tilt), turned(0.3), opacity=0.8)
        canvas.glaze(ellipse(cx - widest * 0.55, 62, 1.3, 15), (255, 255, 255), 0.75, 0.5)
        canvas.glaze(ellipse(cx + widest * 0.72, 66, 0.7, 12), (255, 255, 255), 0.5, 0.4)
    else:
        canvas.fill(body, look.cover.at(bend=widest * tilt), look.cover.round())
    canvas.fill(lathe(cx, [(top - 1, neck + 0.7), (top + 1.2, neck + 0.7)], tilt), look.cover.plain(0.3), turned(0.4))
    cap = Solid((188, 140, 92), "wood") if glass or look.material == "ceramic" else Solid((196, 200, 204), "metal")
    canvas.fill(lathe(cx, [(top - 8, neck), (top - 1.4, neck)], tilt, smooth=False), cap, cap.shade())
    canvas.fill(ellipse(cx, top - 8, neck, neck * tilt), Solid(lighter(cap.colour, 0.3), cap.material), flat())
    if look.silhouette == "angular":
        loop = ellipse(cx, top - 8, neck * 0.85, 6, 180, 360)
        canvas.fill(band(loop, 1.8), Solid(darker(CREAM, 0.55), "leather"), flat())
    canvas.glaze(ellipse(cx, 86, widest, 3.6), INK, 0.3, 1.6)
