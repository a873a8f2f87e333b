"""Lamps, chairs, cushions, clocks and plants."""

import numpy as np

from trialign.datasets.atelier.drawing_canvas import (
    RGB,
    Canvas,
    Points,
    band,
    box,
    ellipse,
    flat,
    lathe,
    mirrored,
    moved,
    poly,
    puffy,
    shifted,
    spline,
    turned,
)
from trialign.datasets.atelier.drawing_paint import BRASS, CREAM, INK, Look, Solid, darker, lighter, mix

_WARM: RGB = (255, 206, 124)


def lamp(canvas: Canvas, look: Look) -> None:
    """Draw a lit table lamp: a thin stem, a mushroom, or a pyramid."""
    trim = Solid(BRASS, "metal") if look.material in ("metal", "wicker") else look.trim()
    cx = 50.0
    if look.silhouette == "slender":
        canvas.fill(lathe(cx, [(80, 13), (84, 13.5)], 0.2), trim, trim.shade())
        canvas.fill(box(cx - 1.1, 38, cx + 1.1, 81), trim, turned(0.5))
        shade, mouth = lathe(cx, [(17, 8), (43, 17)], 0.14, smooth=False), (43.0, 17.0)
    elif look.silhouette == "rounded":
        foot = [(46, 6), (56, 6.5), (68, 11), (78, 15), (84, 15.5)]
        canvas.fill(lathe(cx, foot, 0.16), look.cover.plain(0.16), look.cover.round())
        canvas.fill(ellipse(cx, 50.5, 11, 5), Solid((255, 240, 206)), flat())
        shade, mouth = lathe(cx, [(22, 2), (23.5, 12), (30, 23), (40, 29), (47, 30)], 0.15), (47.0, 30.0)
    else:
        base = poly((cx - 2, 52), (cx + 2, 52), (cx + 14, 83), (cx + 11, 86), (cx - 11, 86), (cx - 14, 83))
        canvas.fill(base, trim, flat(0.25))
        canvas.glaze(poly((cx, 52), (cx + 2, 52), (cx + 14, 83), (cx + 11, 86), (cx, 86)), INK, 0.28)
        shade, mouth = poly((cx - 13, 19), (cx + 13, 19), (cx + 27, 51), (cx - 27, 51)), (51.0, 27.0)
    height, radius = mouth
    tilt = 0.0 if look.silhouette == "angular" else 0.14
    canvas.fill(shade, look.cover.at(zoom=1.05, bend=radius * tilt), look.cover.round())
    canvas.glaze(ellipse(cx, height, radius * 0.95, 11), _WARM, 0.42, 4)
    canvas.glaze(ellipse(cx, height - 12, radius * 0.5, 8), (255, 244, 210), 0.25, 4)
    edge = ellipse(cx, height, radius, radius * tilt, 0, 180) if tilt else poly((cx - 27, 51), (cx + 27, 51))
    canvas.line(edge, mix(look.cover.base, _WARM, 0.6), 1.1)
    canvas.glow(cx, height + 6, radius * 1.5 + 6, _WARM)


def chair(canvas: Canvas, look: Look) -> None:
    """Draw a chair: with a tall back, a round shell, or a square armchair."""
    leg = Solid((70, 66, 66), "metal") if look.material == "metal" else Solid((166, 116, 74), "wood")
    {"slender": _tall_chair, "rounded": _shell_chair, "angular": _armchair}[look.silhouette](canvas, look, leg)


def _legs(canvas: Canvas, paint: Solid, feet: list[tuple[float, float, float, float]], width: float = 2.6) -> None:
    for x0, y0, x1, y1 in feet:
        line = np.linspace((x0, y0), (x1, y1), 6)
        canvas.fill(band(line, np.linspace(width, width * 0.6, 6)), paint, turned(0.2))


def _tall_chair(canvas: Canvas, look: Look, leg: Solid) -> None:
    _legs(canvas, Solid(darker(leg.colour, 0.3), leg.material), [(37, 56, 36, 79), (64, 56, 66, 79)])
    frame = look.cover.plain(0.12)
    for x in (34.5, 65.5):
        canvas.fill(band(np.linspace((x, 14), (x + (x - 50) * 0.03, 58), 8), 3), frame, turned(0.2))
    canvas.fill(
        spline((33, 15), (50, 12.5), (67, 15), (67, 26), (50, 24.5), (33, 26)), look.cover, look.cover.soft(3, 0.8)
    )
    canvas.fill(
        spline((35, 31), (50, 29.5), (65, 31), (65, 41), (50, 40), (35, 41)), look.cover, look.cover.soft(3, 0.8)
    )
    seat = spline((33, 54), (50, 52.5), (67, 54), (72, 62), (71, 65), (50, 67.5), (29, 65), (28, 62))
    canvas.fill(shifted(seat, 0, 2.6), look.cover.plain(0.4), flat())
    canvas.fill(seat, look.cover, look.cover.soft(4, 0.7))
    _legs(canvas, leg, [(32, 67, 29, 87), (68, 67, 71, 87)], 3)
    canvas.line(np.array([[31, 77.0], [69, 77]]), darker(leg.colour, 0.2), 1.3)


def _shell_chair(canvas: Canvas, look: Look, leg: Solid) -> None:
    _legs(canvas, Solid(darker(leg.colour, 0.3), leg.material), [(40, 66, 35, 81), (60, 66, 65, 81)])
    shell = spline(
        (24, 58),
        (21, 44),
        (27, 26),
        (40, 17),
        (50, 15.5),
        (60, 17),
        (73, 26),
        (79, 44),
        (76, 58),
        (66, 70),
        (50, 73),
        (34, 70),
    )
    canvas.fill(shell, look.cover.plain(0.2), look.cover.soft(5))
    inner = spline(
        (29, 56), (26.5, 44), (32, 29), (42, 21.5), (50, 20.5), (58, 21.5), (68, 29), (73.5, 44), (71, 56), (50, 62)
    )
    canvas.fill(inner, look.cover.at(zoom=1.1), look.cover.soft(9, 0.9))
    seat = spline((27, 58), (38, 53), (50, 52), (62, 53), (73, 58), (71, 67), (50, 71.5), (29, 67))
    canvas.glaze(shifted(seat, 0, -2), INK, 0.3, 1.8)
    canvas.fill(seat, look.cover.plain(-0.12), look.cover.soft(5, 1.0))
    _legs(canvas, leg, [(35, 70, 27, 87), (65, 70, 73, 87)], 3.2)


def _armchair(canvas: Canvas, look: Look, leg: Solid) -> None:
    _legs(canvas, leg, [(22, 78, 21, 87), (78, 78, 79, 87), (34, 78, 34, 84), (66, 78, 66, 84)], 3.4)
    canvas.fill(box(24, 26, 76, 66, 4), look.cover.at(zoom=1.1), look.cover.soft(4, 0.9))
    canvas.fill(box(29, 54, 71, 66, 3), look.cover.plain(-0.1), look.cover.soft(4, 1.1))
    canvas.glaze(box(29, 64, 71, 67), INK, 0.4, 1)
    canvas.fill(box(26, 65.5, 74, 79, 1.5), look.cover.plain(0.08), look.cover.soft(3, 0.8))
    for left in (14, 72):
        canvas.fill(box(left, 43, left + 14, 80, 3), look.cover.at(zoom=1.1), look.cover.soft(4))
    canvas.glaze(box(28, 44, 31, 80), INK, 0.25, 1.4)


def cushion(canvas: Canvas, look: Look) -> None:
    """Draw a cushion: long, round or square."""
    fabric = look.cover.at(zoom=1.25)
    if look.silhouette == "slender":
        outline = spline(
            (11, 54),
            (30, 56),
            (50, 55.5),
            (70, 56),
            (89, 54),
            (90.5, 68),
            (89, 86),
            (70, 85.5),
            (50, 86),
            (30, 85.5),
            (11, 86),
            (9.5, 70),
        )
        canvas.fill(outline, fabric, look.cover.soft(9, 1.1))
        for x in (10.5, 89.5):
            for y in np.linspace(57, 83, 9):
                canvas.line(
                    np.array([[x, y], [x + np.sign(x - 50) * 3, y + 0.8]]), lighter(look.cover.accents[0], 0.1), 0.8
                )
        return
    if look.silhouette == "rounded":
        outline = ellipse(50, 54, 32, 31.5)
        canvas.fill(outline, fabric, look.cover.soft(12, 1.1))
        for angle in range(0, 360, 30):
            ray = moved(poly((50, 50), (50.5, 30), (49.5, 30)), turn=angle, about=(50, 54))
            canvas.glaze(ray, INK, 0.3, 0.8)
        canvas.fill(ellipse(50, 54, 3, 2.9), look.cover.plain(0.2), puffy(2, 1))
        canvas.line(ellipse(50, 54, 31.2, 30.7), lighter(look.cover.base, 0.3), 0.9)
        return
    corner = spline(
        (19, 24),
        (35, 28),
        (50, 27),
        (65, 28),
        (81, 24),
        (78, 40),
        (78.5, 55),
        (78, 70),
        (81, 86),
        (65, 84),
        (50, 85),
        (35, 84),
        (19, 86),
        (22, 70),
        (21.5, 55),
        (22, 40),
    )
    turn = look.rng.uniform(-7, 7)
    canvas.fill(moved(corner, turn=turn), fabric, look.cover.soft(11, 1.15))
    edge = moved(corner, scale=0.985, turn=turn)
    canvas.line(np.concatenate([edge, edge[:1]]), lighter(look.cover.base, 0.35), 0.8)
    for x in (36, 64):
        canvas.glaze(spline((x, 40), (x + 4, 50), (x + 1, 62), (x - 1, 51)), INK, 0.12, 2)


def clock(canvas: Canvas, look: Look) -> None:
    """Draw a clock: a tall case, a round alarm clock, or a hexagon on feet."""
    if look.silhouette == "slender":
        case = np.concatenate([ellipse(50, 34, 17, 17, 180, 360), poly((67, 84), (33, 84))])
        canvas.fill(box(30, 81, 70, 86.5, 1), look.cover.plain(0.3), flat())
        canvas.fill(case, look.cover, look.cover.soft(4, 0.9))
        canvas.fill(box(40, 53, 60, 79, 3), Solid(darker(look.cover.base, 0.65)), flat())
        canvas.line(np.array([[50, 53.0], [51.5, 70]]), BRASS, 0.8)
        canvas.fill(ellipse(51.6, 71, 4, 4), Solid(BRASS), puffy(3, 1, 0.5))
        _face(canvas, look, 50, 35, 12.5)
        return
    if look.silhouette == "rounded":
        trim = Solid(BRASS, "metal")
        for side in (-1, 1):
            canvas.fill(moved(box(48, 78, 52, 88, 2), dx=side * 17, turn=-side * 28), trim, turned(0.4))
            canvas.fill(ellipse(50 + side * 15, 24, 9, 6.5, 180 + side * 16, 360 + side * 16), trim, puffy(4, 1, 0.5))
        canvas.line(np.array([[50, 16.0], [50, 25]]), darker(BRASS, 0.2), 2)
        canvas.fill(ellipse(50, 15.5, 2.6, 2), trim, puffy(2, 1, 0.4))
        canvas.fill(ellipse(50, 54, 31, 31), look.cover, look.cover.soft(7))
        _face(canvas, look, 50, 54, 21)
        return
    angles = np.radians(np.arange(0, 360, 60))
    outline = np.stack([50 + 36 * np.cos(angles), 53 + 36 * np.sin(angles)], axis=1)
    for x in (36, 64):
        canvas.fill(box(x - 2, 82, x + 2, 88, 1), Solid((166, 116, 74), "wood"), turned())
    canvas.fill(outline, look.cover, look.cover.soft(5, 0.9))
    _face(canvas, look, 50, 53, 20)


def _face(canvas: Canvas, look: Look, cx: float, cy: float, r: float) -> None:
    canvas.glaze(ellipse(cx, cy, r + 1.2, r + 1.2), INK, 0.5, 0.6)
    canvas.fill(ellipse(cx, cy, r, r), Solid((250, 246, 236)), flat(0.06))
    canvas.glaze(ellipse(cx, cy - r * 0.92, r * 0.9, r * 0.22), INK, 0.2, 1.2)
    for tick in range(12):
        turn = np.radians(tick * 30)
        reach = np.array([np.cos(turn), np.sin(turn)])
        inner = 0.74 if tick % 3 == 0 else 0.82
        canvas.line(
            np.array([(cx, cy) + reach * r * inner, (cx, cy) + reach * r * 0.9]), INK, 0.9 if tick % 3 == 0 else 0.5
        )
    hour, minute = look.rng.uniform(0, 360), look.rng.uniform(0, 360)
    for angle, length, width in ((hour, 0.48, 1.7), (minute, 0.72, 1.2)):
        end = (cx + r * length * np.cos(np.radians(angle)), cy + r * length * np.sin(np.radians(angle)))
        canvas.line(np.array([(cx, cy), end]), INK, width)
    canvas.fill(ellipse(cx, cy, 1.5, 1.5), Solid(darker(look.cover.base, 0.1)), flat())


def plant(canvas: Canvas, look: Look) -> None:
    """Draw a plant in a pot: upright blades in a tall pot, broad leaves in a ball, a cactus in a square."""
    cx = 50.0
    profiles: dict[str, list[tuple[float, float]]] = {
        "slender": [(52, 13.5), (84, 11)],
        "rounded": [(56, 14.5), (62, 19.5), (71, 21.5), (80, 18), (85, 12)],
        "angular": [(58, 21), (84.5, 16)],
    }
    profile, tilt = profiles[look.silhouette], 0.16
    top, rim = profile[0]
    canvas.fill(ellipse(cx, top, rim, rim * tilt), look.cover.plain(0.25), turned(hollow=True))
    canvas.fill(ellipse(cx, top + 0.5, rim - 1.6, (rim - 1.6) * tilt), Solid((70, 50, 40)), flat())
    {"slender": _blades, "rounded": _broad_leaves, "angular": _cactus}[look.silhouette](canvas, look, cx, top)
    body = lathe(cx, profile, tilt, smooth=look.silhouette == "rounded", front=True)
    canvas.fill(body, look.cover.at(bend=rim * tilt), look.cover.round())
    if look.silhouette != "rounded":
        collar = lathe(cx, [(top, rim + 0.8), (top + 5, rim + 0.5)], tilt, front=True)
        canvas.fill(collar, look.cover.plain(0.06), look.cover.round())
        canvas.glaze(ellipse(cx, top + 6 + rim * tilt, rim, 1.4), INK, 0.3, 0.8)
    canvas.line(ellipse(cx, top, rim, rim * tilt, 4, 176), lighter(look.cover.base, 0.45), 0.9)
    canvas.glaze(ellipse(cx, 87, rim, 3.6), INK, 0.3, 1.6)


def _blade(canvas: Canvas, spine: Points, width: float, tone: RGB) -> None:
    taper = width * np.sin(np.linspace(0.35, np.pi, len(spine))) ** 0.7
    canvas.fill(band(spine, taper), Solid(tone), puffy(3, 0.9, 0.1))
    canvas.line(spine[2:-3], lighter(tone, 0.3), 0.6, opacity=0.6)


def _blades(canvas: Canvas, look: Look, cx: float, top: float) -> None:
    for step, lean in enumerate(look.rng.permutation(np.linspace(-17, 17, 9))):
        height = 36 - abs(lean) * 0.5 + look.rng.uniform(-4, 4)
        spine = spline(
            (cx + lean * 0.35, top + 1), (cx + lean * 0.7, top - height * 0.5), (cx + lean, top - height), closed=False
        )
        _blade(canvas, spine, 4.8, mix((54, 112, 66), (126, 164, 84), step / 9))


def _broad_leaves(canvas: Canvas, look: Look, cx: float, top: float) -> None:
    for step, angle in enumerate((-158, -25, -130, -50, -142, -72, -110, -90, -35)):
        reach = look.rng.uniform(20, 33) if step < 7 else look.rng.uniform(15, 22)
        turn = np.radians(angle)
        x, y = cx + reach * 0.95 * np.cos(turn), top - 3 + reach * np.sin(turn)
        canvas.line(
            spline((cx, top + 1), (cx + (x - cx) * 0.4, top - reach * 0.5), (x, y), closed=False), (74, 122, 64), 1.0
        )
        tone = mix((36, 96, 58), (112, 168, 84), look.rng.uniform(0, 1))
        leaf = spline((x - 9, y), (x - 5, y - 6), (x + 2, y - 6), (x + 11, y), (x + 2, y + 6), (x - 5, y + 6))
        canvas.fill(moved(leaf, turn=angle + 15, about=(x, y)), Solid(tone), puffy(4, 1, 0.15))
        rib = moved(np.linspace((x - 7, y), (x + 9, y), 5), turn=angle + 15, about=(x, y))
        canvas.line(rib, lighter(tone, 0.4), 0.5, opacity=0.8)


def _cactus(canvas: Canvas, look: Look, cx: float, top: float) -> None:
    tone = mix((70, 130, 84), (120, 158, 96), look.rng.uniform(0, 1))
    arm = spline((cx + 4, top - 14), (cx + 14, top - 15), (cx + 16, top - 27), closed=False)
    parts = [band(arm, np.full(len(arm), 6.0)), ellipse(cx + 16, top - 27, 3, 3)]
    if look.rng.random() < 0.6:
        parts += [shifted(mirrored(part, cx), 0, 5) for part in parts]
    for part in parts:
        canvas.fill(part, Solid(tone), puffy(4, 1))
    canvas.fill(box(cx - 8, top - 40, cx + 8, top + 2, 8), Solid(tone), turned(0.1))
    for x in (-4.5, -1.5, 1.5, 4.5):
        canvas.line(np.array([[cx + x, top - 36.0], [cx + x, top]]), darker(tone, 0.3), 0.5, opacity=0.7)
    dots = [(cx + x, y) for x in (-6, -3, 0, 3, 6) for y in np.arange(top - 34, top - 1, 5)]
    for x, y in dots:
        canvas.fill(ellipse(x, y, 0.5, 0.5), Solid(CREAM), flat())
    for petal in range(5):
        turn = np.radians(petal * 72 - 90)
        canvas.fill(
            ellipse(cx + 2.2 * np.cos(turn), top - 41 + 2 * np.sin(turn), 2.3, 2.1),
            Solid((246, 120, 150)),
            puffy(2, 0.8),
        )
    canvas.fill(ellipse(cx, top - 41, 1.5, 1.3), Solid((255, 220, 110)), flat())
