"""Shirts, hats, sneakers and bags."""

import numpy as np

from trialign.datasets.atelier.drawing_canvas import (
    Canvas,
    Points,
    band,
    box,
    ellipse,
    flat,
    mirrored,
    moved,
    poly,
    puffy,
    shifted,
    spline,
    turned,
)
from trialign.datasets.atelier.drawing_paint import BRASS, CREAM, INK, Look, Solid, darker, lighter


def shirt(canvas: Canvas, look: Look) -> None:
    """Draw a shirt on a hanger: long-sleeved, a loose tee, or boxy with a collar."""
    hook = spline((50, 14), (50, 9), (54, 6), (52, 2.5), (48, 3.5), closed=False)
    canvas.line(hook, (150, 146, 140), 1.0)
    canvas.fill(
        band(spline((27, 22), (50, 13.5), (73, 22), closed=False), 2.6), Solid((178, 128, 82), "wood"), turned(0.2)
    )
    sleeve, body = _shirt_parts(look.silhouette)
    cloth = look.cover.at(zoom=1.15)
    canvas.fill(ellipse(50, 18, 9.5, 4.2), look.cover.plain(0.45), flat())
    for part in (sleeve, mirrored(sleeve)):
        canvas.fill(
            part, look.cover.at(zoom=1.15).plain(0.1) if look.cover.pattern == "plain" else cloth, look.cover.soft(5, 1)
        )
    canvas.fill(body, cloth, look.cover.soft(6, 0.9))
    for x, lean in ((38, 3), (50, -2), (62, -4)):
        fold = spline((x, 44), (x + 2 + lean, 60), (x + lean, 80), (x - 1.5 + lean, 62))
        canvas.glaze(fold, INK, 0.14, 1.6)
        canvas.glaze(shifted(fold, 3, 0), (255, 255, 255), 0.12, 1.6)
    if look.silhouette == "angular":
        for side in (lambda points: points, mirrored):
            canvas.fill(
                side(poly((50, 26), (40, 15.5), (37.5, 21), (44, 31))), look.cover.plain(-0.15), look.cover.soft(2, 0.8)
            )
        canvas.line(np.array([[50, 27.0], [50, 81]]), darker(look.cover.base, 0.4), 0.7, opacity=0.7)
        for y in np.arange(35, 80, 9.5):
            canvas.fill(ellipse(50, y, 1.1, 1.1), Solid(CREAM), puffy(1, 1))
    else:
        neck = ellipse(50, 17.5, 9.6, 7.4, 0, 180)
        canvas.fill(band(neck, 2.3), look.cover.plain(0.14), puffy(2, 0.6))


def _shirt_parts(silhouette: str) -> tuple[Points, Points]:
    """Return the left sleeve and the body."""
    neck = ellipse(50, 17.5, 9.6, 7.4, 180, 0)
    if silhouette == "slender":
        sleeve = spline((32, 22), (24, 30), (18, 52), (14, 74), (20.5, 77), (27, 58), (33, 42), steps=8)
        body = np.concatenate(
            [
                neck,
                spline(
                    (60, 17.5),
                    (68, 22),
                    (67, 40),
                    (65, 60),
                    (66.5, 84),
                    (50, 86),
                    (33.5, 84),
                    (35, 60),
                    (33, 40),
                    (32, 22),
                    (40, 17.5),
                    closed=False,
                ),
            ]
        )
    elif silhouette == "rounded":
        sleeve = spline((30, 22), (20, 31), (14, 45), (23, 51), (31, 43), steps=8)
        body = np.concatenate(
            [
                neck,
                spline(
                    (60, 17.5),
                    (71, 22.5),
                    (70, 40),
                    (70, 60),
                    (73, 76),
                    (66, 84),
                    (50, 86.5),
                    (34, 84),
                    (27, 76),
                    (30, 60),
                    (30, 40),
                    (29, 22.5),
                    (40, 17.5),
                    closed=False,
                ),
            ]
        )
    else:
        sleeve = poly((28, 21), (12, 44), (24, 52), (31, 42))
        body = np.concatenate(
            [neck, poly((60, 17.5), (72, 21), (71, 83), (70, 85), (30, 85), (29, 83), (28, 21), (40, 17.5))]
        )
    return sleeve, body


def hat(canvas: Canvas, look: Look) -> None:
    """Draw a hat: wide-brimmed, a beanie, or a cap."""
    {"slender": _brimmed_hat, "rounded": _beanie, "angular": _cap}[look.silhouette](canvas, look)


def _brimmed_hat(canvas: Canvas, look: Look) -> None:
    brim = spline((6, 72), (20, 66), (50, 63), (80, 66), (94, 72), (84, 80), (50, 85), (16, 80))
    canvas.fill(shifted(brim, 0, 1.2), look.cover.plain(0.45), flat())
    canvas.fill(brim, look.cover, look.cover.soft(5, 0.8))
    canvas.glaze(ellipse(50, 74, 27, 5.5), INK, 0.35, 2)
    crown = spline(
        (27, 72),
        (29, 54),
        (34, 41),
        (43, 38.5),
        (50, 41),
        (57, 38.5),
        (66, 41),
        (71, 54),
        (73, 72),
        (62, 76),
        (50, 77),
        (38, 76),
    )
    canvas.fill(crown, look.cover, look.cover.round())
    canvas.glaze(spline((42, 41), (50, 45), (58, 41), (53, 52), (47, 52)), INK, 0.25, 1.6)
    ribbon = np.concatenate([ellipse(50, 65, 22.3, 4, 180, 0), ellipse(50, 71.5, 23.2, 4.6, 0, 180)])
    canvas.fill(ribbon, Solid(look.cover.accents[1], "linen"), turned(0.1))


def _beanie(canvas: Canvas, look: Look) -> None:
    canvas.fill(ellipse(50, 25, 9, 8.6), look.cover.plain(-0.3), puffy(6, 1))
    for angle in np.arange(0, 360, 20):
        tip = np.radians(angle)
        canvas.line(
            np.array([[50 + 6 * np.cos(tip), 25 + 6 * np.sin(tip)], [50 + 9.8 * np.cos(tip), 25 + 9.4 * np.sin(tip)]]),
            lighter(look.cover.base, 0.45),
            0.9,
        )
    dome = spline((22, 72), (23, 54), (31, 39), (43, 32), (50, 31), (57, 32), (69, 39), (77, 54), (78, 72), (50, 76))
    canvas.fill(dome, look.cover.at(zoom=1.15), look.cover.soft(11, 1.05))
    cuff = spline(
        (19, 67),
        (35, 70),
        (50, 71),
        (65, 70),
        (81, 67),
        (82.5, 75),
        (80, 83),
        (65, 86),
        (50, 87),
        (35, 86),
        (20, 83),
        (17.5, 75),
    )
    canvas.glaze(shifted(cuff, 0, -2), INK, 0.3, 1.4)
    canvas.fill(cuff, look.cover.plain(0.12), look.cover.soft(6, 1))
    for x in np.linspace(23, 77, 15):
        canvas.line(np.array([[x, 70.5], [x + (x - 50) * 0.02, 84.5]]), INK, 0.6, opacity=0.2)


def _cap(canvas: Canvas, look: Look) -> None:
    crown = poly((24, 74), (25, 56), (31, 44), (42, 37), (55, 36.5), (66, 42), (72, 52), (74, 74), (50, 78))
    canvas.fill(crown, look.cover, look.cover.soft(11, 1.05))
    for curve in (
        spline((47, 37), (38, 50), (36, 76), closed=False),
        spline((50, 37), (60, 50), (62, 76), closed=False),
    ):
        canvas.line(curve, darker(look.cover.base, 0.4), 0.6, opacity=0.6)
    canvas.fill(ellipse(48.5, 36.8, 2.6, 1.6), look.cover.plain(0.3), puffy(2, 1))
    visor = poly((38, 72), (72, 68), (92, 77), (93, 80), (70, 85), (44, 83), (30, 78))
    canvas.glaze(shifted(visor, -2, -3), INK, 0.35, 1.4)
    canvas.fill(shifted(visor, 0, 1.6), look.cover.plain(0.5), flat())
    canvas.fill(visor, look.cover.plain(0.14), look.cover.soft(4, 0.9))
    stitch = poly((40, 74), (71, 70.5), (88, 77.5), (70, 82.5), (45, 81))
    canvas.line(stitch, lighter(look.cover.base, 0.35), 0.4, opacity=0.7)
    patch = ellipse(49, 58, 7, 6.5)
    canvas.fill(patch, Solid(look.cover.accents[1]), puffy(2, 0.5))
    canvas.fill(moved(patch, scale=0.55), Solid(look.cover.accents[0]), flat())


#: Of each silhouette: heel, collar, tongue, instep, toe; and the thickness of the sole.
_UPPERS: dict[str, tuple[tuple[tuple[float, float], ...], float]] = {
    "slender": (
        (
            (12, 81),
            (10.5, 70),
            (11.5, 60),
            (15, 57),
            (21, 61),
            (30, 63),
            (37, 59),
            (43, 57),
            (52, 64),
            (66, 71),
            (80, 74),
            (88.5, 78),
            (90, 82),
        ),
        4.2,
    ),
    "rounded": (
        (
            (11, 76),
            (9.5, 64),
            (11, 53),
            (15, 50),
            (22, 55),
            (30, 56),
            (37, 51),
            (44, 50),
            (53, 57),
            (66, 62),
            (80, 64),
            (89.5, 70),
            (91, 77),
        ),
        9.0,
    ),
    "angular": (
        (
            (13, 80),
            (12, 66),
            (13.5, 50),
            (13, 33),
            (16, 29),
            (25, 31),
            (34, 30),
            (39, 29),
            (43, 42),
            (51, 56),
            (64, 65),
            (79, 69),
            (88.5, 75),
            (90, 81),
        ),
        5.2,
    ),
}


def sneaker(canvas: Canvas, look: Look) -> None:
    """Draw a pair of sneakers: low, chunky, or high-topped."""
    knots, sole = _UPPERS[look.silhouette]
    outline = np.array(knots)
    _shoe(canvas, look, shifted(outline, 3.5, -6), sole, far=True)
    _shoe(canvas, look, shifted(outline, -3, 0), sole, far=False)


def _shoe(canvas: Canvas, look: Look, knots: Points, sole: float, far: bool) -> None:
    upper = np.concatenate(
        [spline(*map(tuple, knots), closed=False), shifted(knots[-1:], -2, 3), shifted(knots[:1], 2, 3)]
    )
    left, right, bottom = knots[0][0], knots[-1][0], knots[-1][1]
    canvas.fill(upper, look.cover.plain(0.3) if far else look.cover, look.cover.soft(8, 1.05))
    if not far:
        _shoe_parts(canvas, look, knots, upper)
    base = spline(
        (left - 1.5, bottom - 1),
        (left + 20, bottom),
        (left + 45, bottom + 0.4),
        (right - 8, bottom - 0.8),
        (right + 1, bottom - 2.6),
        (right + 2.2, bottom - 0.5),
        (right - 3, bottom + sole * 0.75),
        (right - 16, bottom + sole),
        (left + 40, bottom + sole),
        (left + 4, bottom + sole),
        (left - 2, bottom + sole * 0.8),
    )
    canvas.glaze(shifted(base, 0, -1.5), INK, 0.32, 1.1)
    canvas.fill(base, Solid((222, 216, 206) if far else (250, 247, 240)), puffy(3, 0.9))
    if not far:
        stripe = spline(
            (left - 1, bottom + sole * 0.5),
            (left + 40, bottom + sole * 0.58),
            (right + 0.5, bottom + sole * 0.28),
            closed=False,
        )
        canvas.line(stripe, look.cover.accents[1], 0.8)


def _shoe_parts(canvas: Canvas, look: Look, knots: Points, upper: Points) -> None:
    """Draw heel, toe cap, collar and laces of the near shoe."""
    left, right, bottom = knots[0][0], knots[-1][0], knots[-1][1]
    collar, tongue = knots[3], knots[-6]
    trim = Solid(look.cover.accents[1], "leather")
    canvas.fill(ellipse(left - 1, bottom, 11, bottom - collar[1] - 4), trim, puffy(3, 0.7), inside=upper)
    canvas.fill(ellipse(right + 1, bottom + 5, 19, 14), look.cover.plain(-0.4), puffy(4, 0.8), inside=upper)
    canvas.line(ellipse(right + 1, bottom + 5, 19, 14, 184, 246), darker(look.cover.base, 0.4), 0.5, opacity=0.7)
    lining = spline(
        tuple(shifted(collar, 1, 1)),
        tuple(shifted((collar + tongue) / 2, 0, 1)),
        tuple(shifted(tongue, -3, 1)),
        closed=False,
    )
    rim = spline(*map(tuple, knots[3:-5]), closed=False)
    canvas.line(shifted(rim, 0.3, 0.8), look.cover.plain(0.5).colour, 1.7)
    canvas.line(shifted(lining, 0, 1.6), look.cover.plain(0.35).colour, 0.5, opacity=0.5)
    front = spline(tuple(tongue), *map(tuple, knots[-5:-3]), closed=False)
    for point in front[3 : int(len(front) * 0.86) : max(2, len(front) // 7)]:
        canvas.line(np.array([shifted(point, -6.2, 3.4), shifted(point, -0.6, 0.9)]), (250, 247, 240), 1.3)
        canvas.fill(ellipse(point[0] - 6.4, point[1] + 3.6, 0.8, 0.8), Solid(INK), flat())


def bag(canvas: Canvas, look: Look) -> None:
    """Draw a bag: a tall tote, a backpack, or a satchel."""
    {"slender": _tote, "rounded": _backpack, "angular": _satchel}[look.silhouette](canvas, look)


def _strap(look: Look) -> Solid:
    return (
        Solid(darker(look.cover.base, 0.35), "leather")
        if look.material == "leather"
        else Solid((150, 100, 62), "leather")
    )


def _tote(canvas: Canvas, look: Look) -> None:
    strap = _strap(look)
    back = spline((39, 42), (41, 22), (50, 12), (59, 22), (61, 42), closed=False)
    canvas.fill(band(shifted(back, 1.5, -1), 2.2), Solid(darker(strap.colour, 0.3), "leather"), flat())
    canvas.fill(poly((31, 37), (69, 37), (67, 41), (33, 41)), look.cover.plain(0.5), flat())
    body = spline((31, 38), (50, 40.5), (69, 38), (70.5, 60), (72, 85), (50, 87), (28, 85), (29.5, 60))
    canvas.fill(body, look.cover.at(zoom=1.15), look.cover.soft(6, 0.9))
    canvas.fill(band(shifted(back, 0, 4), 2.6), strap, puffy(2, 0.7))
    for x in (39, 61):
        canvas.fill(box(x - 2.2, 44, x + 2.2, 53, 1), strap, puffy(2, 0.7))
        canvas.fill(ellipse(x, 50.5, 0.8, 0.8), Solid(BRASS), puffy(1, 1, 0.5))
    canvas.glaze(spline((36, 56), (40, 70), (37, 82), (34, 70)), INK, 0.16, 2)


def _backpack(canvas: Canvas, look: Look) -> None:
    strap = _strap(look)
    canvas.fill(band(spline((43, 19), (45, 11), (55, 11), (57, 19), closed=False), 2.6), strap, flat())
    for side in (lambda points: points, mirrored):
        canvas.fill(side(spline((25, 56), (20, 60), (19, 80), (26, 83))), look.cover.plain(0.3), look.cover.soft(4))
    body = spline((26, 84), (24, 60), (27, 33), (37, 19), (50, 16.5), (63, 19), (73, 33), (76, 60), (74, 84), (50, 87))
    canvas.fill(body, look.cover.at(zoom=1.1), look.cover.soft(9, 1.05))
    zip_line = spline((31, 56), (32, 36), (40, 25), (50, 23), (60, 25), (68, 36), (69, 56), closed=False)
    canvas.line(zip_line, darker(look.cover.base, 0.5), 1.1)
    canvas.fill(ellipse(69, 57.5, 1.1, 2), Solid(BRASS), puffy(1, 1, 0.5))
    pocket = spline((31, 58), (50, 56.5), (69, 58), (70, 72), (68, 82.5), (50, 84), (32, 82.5), (30, 72))
    canvas.glaze(shifted(pocket, 0, -1), INK, 0.35, 1.4)
    canvas.fill(pocket, look.cover.plain(0.1), look.cover.soft(5, 1))
    canvas.line(np.array([[33, 63.0], [67, 63]]), darker(look.cover.base, 0.5), 0.8)
    canvas.fill(box(45, 39, 55, 46, 1.5), strap, puffy(2, 0.7))


def _satchel(canvas: Canvas, look: Look) -> None:
    strap = _strap(look)
    canvas.fill(band(spline((27, 44), (33, 22), (50, 14), (67, 22), (73, 44), closed=False), 2.6), strap, puffy(2, 0.6))
    canvas.fill(box(16, 41, 84, 86, 3), look.cover.plain(0.22), look.cover.soft(5, 0.9))
    flap = poly((14.5, 39), (85.5, 39), (86, 66), (76, 71), (24, 71), (14, 66))
    canvas.glaze(shifted(flap, 0, 2), INK, 0.4, 1.4)
    canvas.fill(flap, look.cover.at(zoom=1.1), look.cover.soft(5, 0.9))
    stitch = poly((17, 41.5), (17, 64.5), (25, 69), (75, 69), (83, 64.5), (83, 41.5))
    canvas.line(stitch, lighter(look.cover.base, 0.35), 0.5, opacity=0.8)
    for x in (32, 68):
        canvas.fill(box(x - 2.6, 58, x + 2.6, 79, 1), strap, puffy(2, 0.8))
        canvas.fill(box(x - 3.4, 69, x + 3.4, 75, 1), Solid(BRASS, "metal"), puffy(2, 1, 0.5))
        canvas.fill(box(x - 1.8, 70.6, x + 1.8, 73.4), strap, flat())
