"""From a pose to polygons: a figure as tapered capsules with outlines, for Pillow to fill.

The drawing is this project's own; nothing is taken from a data set. Body coordinates as in
:mod:`peakzoom.data.synthetic.people`.
"""

from __future__ import annotations

import numpy as np

from peakzoom.data.synthetic.people import STAND, Colour, Look, Pose, Side, shade

# In drawing order: a colour, and per time x0, y0, x1, y1, ...
Polygons = list[tuple[Colour, list[list[float]]]]

# A capsule: its colour, ends (T, 2) and end radii, in drawn pixels.
Capsule = tuple[Colour, np.ndarray, np.ndarray, float, float]

# "hand", "foot", "head": centres (T, 2) and a radius, in drawn pixels.
Parts = dict[str, tuple[np.ndarray, float]]

INK: Colour = (38, 32, 38)  # outlines: keep a small hand visible before any background


class Sketch:
    """Tapered capsules over time, in parts: a part gets one outline around all of its capsules, then its colours.

    Capsules are given in body coordinates; ``origin`` (drawn pixels) and ``scale`` (drawn pixels per unit) place them.
    """

    CORNERS = 8  # points on each round end

    def __init__(self, origin: tuple[float, float], scale: float, outline: float, light: float) -> None:
        self.origin, self.scale, self.outline, self.light = np.array(origin), scale, outline, light
        self.parts: list[tuple[list[Capsule], list[Capsule]]] = []  # outlines and colours

    def part(self) -> None:
        """What follows gets an outline of its own, over what came before."""
        self.parts.append(([], []))

    def limb(
        self, a: np.ndarray, b: np.ndarray, ra: float, rb: float, colour: Colour, shine: bool = True, ink: bool = True
    ) -> None:  # fmt: skip
        """A capsule from points ``a`` to ``b`` (T, 2) with end radii ``ra`` and ``rb``."""
        a, b, ra, rb = self.place(a), self.place(b), ra * self.scale, rb * self.scale
        outlines, colours = self.parts[-1]
        if ink:
            outlines.append((INK, a, b, ra + self.outline, rb + self.outline))
        colours.append((colour, a, b, ra, rb))
        if shine:  # a lighter band towards the lamp makes a flat limb round
            move = np.array([self.light, -0.6]) * 0.42 * min(ra, rb)
            colours.append((shade(colour, 1.18), a + move, b + move, 0.42 * ra, 0.42 * rb))

    def flat(self, a: np.ndarray, b: np.ndarray, ra: float, rb: float, colour: Colour) -> None:
        """A capsule without the shine that makes limbs round."""
        self.limb(a, b, ra, rb, colour, shine=False)

    def mark(self, a: np.ndarray, b: np.ndarray, r: float, colour: Colour) -> None:
        """A capsule without shine and outline, such as a mouth."""
        self.limb(a, b, r, r, colour, shine=False, ink=False)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Body coordinates to drawn pixels."""
        return self.origin + self.scale * points

    def polygons(self) -> Polygons:
        """All capsules as polygons, in drawing order."""
        rows = [row for outlines, colours in self.parts for row in outlines + colours]
        ends = np.stack([np.stack([a, b], axis=1) for _, a, b, _, _ in rows], axis=1)  # (T, N, 2 ends, 2)
        radii = np.array([[ra, rb] for _, _, _, ra, rb in rows])  # (N, 2)
        axis = np.arctan2(*np.moveaxis(ends[:, :, 1] - ends[:, :, 0], -1, 0)[::-1])  # (T, N)
        fan = np.linspace(-np.pi / 2, np.pi / 2, self.CORNERS)
        turn = axis[:, :, None, None] + np.stack([fan + np.pi, fan])  # (T, N, 2, CORNERS)
        points = ends[:, :, :, None] + radii[:, :, None, None] * np.stack(
            [np.cos(turn), np.sin(turn)], axis=-1
        )
        points += 0.5  # Pillow cuts coordinates off to whole pixels
        outlines = points.reshape(*points.shape[:2], -1).transpose(1, 0, 2).tolist()
        return [(row[0], outline) for row, outline in zip(rows, outlines, strict=True)]


def _ray(angle: np.ndarray, outward: float) -> np.ndarray:
    return np.stack([outward * np.sin(angle), np.cos(angle)], axis=-1)


def _bend(
    root: np.ndarray, target: np.ndarray, upper: float, lower: float, turn: float
) -> tuple[np.ndarray, np.ndarray]:
    """Knee or elbow, and the end that gets nearest to ``target``, of two bones from ``root``; all (T, 2)."""
    way = target - root
    far = np.hypot(way[:, 0], way[:, 1])[:, None] + 1e-9
    unit = way / far
    far = np.clip(far, abs(upper - lower) + 1e-3, upper + lower - 1e-4)
    along = (upper**2 - lower**2 + far**2) / (2 * far)
    aside = np.sqrt(np.maximum(upper**2 - along**2, 0))
    return root + unit * along + turn * aside * unit[:, ::-1] * [-1, 1], root + unit * far


def draw_figure(sketch: Sketch, look: Look, pose: Pose, outward: float) -> Parts:
    """Adds a figure that stands on the sketch's origin; returns where the acting side's hand and foot and the head are.

    ``outward`` is +1 when the acting side is the right of the picture and -1 when it is the left.
    """
    hip = pose.hip - [0.0, STAND * (look.thigh + look.shin) + 0.02]
    neck = hip + pose.hip * [0.6, 0.0] - [0.0, look.torso]
    sides = ((pose.other, -outward), (pose.act, outward))  # the acting side last: on top
    foot = [_draw_leg(sketch, look, side, out, hip) for side, out in sides][-1]
    _draw_torso(sketch, look, hip, neck)
    head = _draw_head(sketch, look, neck, outward * pose.yaw, pose.pitch)
    hand = [_draw_arm(sketch, look, side, out, neck) for side, out in sides][-1]
    sizes = {"hand": 2.2 * look.hand, "foot": look.foot, "head": 1.7 * look.head}
    places = {"hand": hand, "foot": foot, "head": head}
    return {name: (sketch.place(places[name]), sketch.scale * size) for name, size in sizes.items()}


def _draw_leg(sketch: Sketch, look: Look, side: Side, out: float, hip: np.ndarray) -> np.ndarray:
    joint = hip + [out * look.hip, 0.0]
    heel = np.array([out * (look.hip + 0.02), -0.02]) + side.ankle * [out, 1.0]
    knee, heel = _bend(joint, heel, look.thigh, look.shin, -out)
    toe = heel + [0.0, 0.004] + 0.9 * look.foot * side.toe * [out, 1.0]
    sketch.part()
    sketch.limb(heel, toe, 0.021, 0.017, look.shoes)
    sketch.part()
    shin = look.skin if look.shorts else look.trousers
    sketch.limb(knee, heel, 0.030 * look.bulk, 0.020 * look.bulk, shin)
    sketch.limb(joint, knee, 0.046 * look.bulk, 0.032 * look.bulk, look.trousers)
    return (heel + toe) / 2


def _draw_torso(sketch: Sketch, look: Look, hip: np.ndarray, neck: np.ndarray) -> None:
    broad, narrow, shirt = look.shoulder - 0.03, look.hip - 0.012, look.shirt
    sketch.part()
    sketch.flat(neck + [0, 0.02], neck - [0, 0.05], 0.026, 0.024, shade(look.skin, 0.85))
    sketch.part()
    for x in (-1, 1):
        sketch.flat(neck + [x * broad, 0.025], hip + [x * narrow, -0.01], 0.034, 0.036 * look.bulk, shirt)
    sketch.flat(neck + [0, 0.055], hip - [0, 0.02], 0.062, 0.055 * look.bulk, shirt)
    sketch.flat(neck + [-broad, 0.025], neck + [broad, 0.025], 0.034, 0.034, shirt)
    sketch.mark(neck + [-0.3 * broad, 0.06], hip - [0.3 * narrow, 0.06], 0.018, shade(shirt, 1.15))
    sketch.mark(hip - [narrow, 0], hip + [narrow, 0], 0.040 * look.bulk, look.trousers)


def _draw_head(
    sketch: Sketch, look: Look, neck: np.ndarray, right: np.ndarray, down: np.ndarray
) -> np.ndarray:
    """A ball of hair with a face that slides over it as the head turns or nods."""
    r = look.head
    face = r * np.stack([0.42 * right, 0.40 * down], axis=1)
    centre = neck - [0, 0.035 + 0.95 * r] + 0.3 * face
    hair = look.skin if look.hair_style == "bald" else look.hair
    sketch.part()
    if look.hair_style == "bun":
        bun = centre - 0.5 * face - [0, 1.1 * r]
        sketch.flat(bun, bun, 0.38 * r, 0.38 * r, hair)
    for x in (-1, 1):
        if look.hair_style == "long":
            sketch.flat(centre + [0.6 * x * r, 0], centre + [0.66 * x * r, r], 0.45 * r, 0.35 * r, hair)
        else:
            ear = centre - 0.35 * face + [0.9 * x * r, 0.1 * r]
            sketch.flat(ear, ear, 0.2 * r, 0.2 * r, look.skin)
    sketch.flat(centre - [0, 0.12 * r], centre + [0, 0.3 * r], 0.92 * r, 0.74 * r, hair)
    middle, features = centre + 0.55 * face, centre + face
    sketch.mark(middle + [0, 0.02 * r], middle + [0, 0.3 * r], 0.7 * r, look.skin)
    if look.hair_style == "cap":
        crown, brim = centre + 0.25 * face - [0, 0.66 * r], features - [0, 0.4 * r]
        sketch.part()
        sketch.flat(crown - [0.42 * r, 0], crown + [0.42 * r, 0], 0.46 * r, 0.46 * r, look.shoes)
        sketch.mark(brim - [0.62 * r, 0], brim + [0.62 * r, 0], 0.12 * r, shade(look.shoes, 0.6))
    for x in (-1, 1):
        eye = features + [0.34 * x * r, -0.02 * r]
        sketch.mark(eye, eye, 0.19 * r, (245, 245, 240))
        sketch.mark(eye + 0.12 * face, eye + 0.12 * face, 0.11 * r, INK)
    nose, mouth = features + 0.15 * face, features + [0, 0.55 * r]
    sketch.mark(nose + [0, 0.08 * r], nose + [0, 0.25 * r], 0.08 * r, shade(look.skin, 0.72))
    sketch.mark(mouth - [0.2 * r, 0], mouth + [0.2 * r, 0], 0.07 * r, (150, 50, 50))
    return centre


def _draw_arm(sketch: Sketch, look: Look, side: Side, out: float, neck: np.ndarray) -> np.ndarray:
    joint = neck + [out * look.shoulder, 0.03]
    if side.reach is None:
        elbow = joint + look.upper_arm * _ray(side.shoulder, out)
        wrist = elbow + look.forearm * np.reshape(side.stretch, (-1, 1)) * _ray(side.elbow, out)
    else:
        elbow, wrist = _bend(joint, neck + side.reach * [out, 1.0], look.upper_arm, look.forearm, -out)
    ahead = wrist - elbow
    angle = np.arctan2(out * ahead[:, 0], ahead[:, 1]) + side.wrist
    knuckles = wrist + 0.75 * look.hand * _ray(angle, out)
    if side.cup:
        sketch.part()
        colour = (235, 235, 225) if sum(look.shirt) < 380 else (60, 90, 170)  # stands out from the shirt
        sketch.limb(knuckles + [0, 0.022], knuckles - [0, 0.045], 0.022, 0.028, colour)
    sketch.part()
    sketch.limb(joint, elbow, 0.031 * look.bulk, 0.025 * look.bulk, look.shirt)
    sleeve = look.shirt if look.long_sleeves else look.skin
    sketch.limb(elbow, wrist, 0.024 * look.bulk, 0.017 * look.bulk, sleeve)
    sketch.part()
    skin, stretched = shade(look.skin, 1.08), side.fingers[:, None]
    sketch.flat(wrist + 0.006 * _ray(angle, out), knuckles, 0.016, 0.022, skin)
    for place in (-1.0, -0.33, 0.33, 1.0):
        root = knuckles + 0.018 * place * _ray(angle + np.pi / 2, out)
        length = look.hand * (1.05 - 0.16 * abs(place)) * (0.12 + 0.88 * stretched)
        tip = root + length * _ray(angle + 0.42 * place * side.fingers, out)
        sketch.flat(root, tip, 0.0095, 0.0085, skin)
    root = wrist + 0.02 * _ray(angle - 0.9, out)
    thumb = root + look.hand * (0.35 + 0.45 * stretched) * _ray(angle - 0.5 - 0.6 * side.fingers, out)
    sketch.flat(root, thumb, 0.010, 0.009, skin)
    return knuckles + 0.4 * look.hand * _ray(angle, out)
