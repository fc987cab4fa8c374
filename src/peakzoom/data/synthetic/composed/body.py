"""A jointed body in three dimensions: from joint angles over time to tapered capsules.

Lengths in fractions of a standing person's height; x to the body's left, y up, z forward. Angles in radians, zero for a
person who stands with hanging arms. Arrays run over time first: (T,) or (T, 3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

JOINTS = (
    # of an arm: forwards and up, sideways and up, bent elbow, wagged hand
    "raise", "spread", "elbow", "wrist",
    # of a leg: forwards, sideways, bent knee, lifted toes
    "hip", "open", "knee", "ankle",
)  # fmt: skip
TRUNK = ("bend", "lean", "twist", "nod", "turn")  # forwards, sideways, about the spine; the head's two
ROOT = ("x", "y", "z", "yaw", "tilt")  # the way of the whole body, its turn, and its fall forwards


class Pose(dict[str, np.ndarray]):
    """Angles and ways by name, (T,) each: joints with ``.a`` for the acting side and ``.o`` for the other."""

    def __init__(self, length: int) -> None:
        names = [f"{joint}.{side}" for joint in JOINTS for side in "ao"] + [*TRUNK, *ROOT]
        super().__init__({name: np.zeros(length) for name in names})
        self.length = length

    def add(self, **changes: np.ndarray | float) -> None:
        """Add to channels; ``raise_a`` stands for ``raise.a``, and ``raise_`` for both sides."""
        for key, change in changes.items():
            name, _, side = key.partition("_")
            for each in [f"{name}.{side}"] if side else [f"{name}.a", f"{name}.o"] if "_" in key else [name]:
                self[each] = self[each] + change


class Build:
    """Proportions and colours of a person."""

    def __init__(self, rng: np.random.Generator) -> None:
        u = rng.uniform
        self.thigh, self.shin, self.torso = u(0.22, 0.26), u(0.22, 0.26), u(0.26, 0.32)
        self.shoulder, self.pelvis = u(0.09, 0.125), u(0.05, 0.07)
        self.arm, self.forearm, self.hand = u(0.15, 0.18), u(0.13, 0.16), u(0.05, 0.065)
        self.head, self.foot, self.bulk = u(0.06, 0.08), u(0.10, 0.14), u(0.75, 1.4)
        tone = u(0.25, 1.0)
        self.skin = tone * np.array([1.0, u(0.68, 0.85), u(0.5, 0.72)])
        self.shirt, self.trousers, self.shoes = u(0.05, 1, (3, 3))
        self.hair = u(0.02, 0.6) * np.array([1.0, u(0.6, 1), u(0.4, 1)])
        self.sleeves, self.shorts, self.dress = u() < 0.5, u() < 0.35, u() < 0.15


class Capsule(NamedTuple):
    """Two ends (T, 3) with their radii, and a colour (3,) in [0, 1]."""

    a: np.ndarray
    b: np.ndarray
    radius_a: float
    radius_b: float
    colour: np.ndarray


def _rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """(T,) -> (T, 3, 3), about x, y or z."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.zeros((len(angle), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, i, i], matrix[:, i, j], matrix[:, j, i], matrix[:, j, j] = cos, -sin, sin, cos
    return matrix


def about_x(angle: np.ndarray) -> np.ndarray:
    """Turns up towards the front."""
    return _rotation(0, angle)


def about_y(angle: np.ndarray) -> np.ndarray:
    """Turns the front towards the left."""
    return _rotation(1, angle)


def about_z(angle: np.ndarray) -> np.ndarray:
    """Turns left towards up."""
    return _rotation(2, angle)


def _along(frame: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    """A way (T, 3) in a frame (T, 3, 3)."""
    return frame @ np.array([x, y, z])


class Body:
    """A pose of a person in the world: named points (T, 3) and what is drawn.

    Args:
        pose: angles over time.
        build: who it is.
        side: +1 when the acting side is the left.
    """

    def __init__(self, pose: Pose, build: Build, side: int) -> None:
        self.capsules: list[Capsule] = []
        self.points: dict[str, np.ndarray] = {}
        root = about_y(pose["yaw"]) @ about_x(pose["tilt"])
        reach = [
            build.thigh * np.cos(pose[f"hip.{s}"]) + build.shin * np.cos(pose[f"hip.{s}"] - pose[f"knee.{s}"])
            for s in "ao"
        ]
        height = np.maximum(*reach) + 0.02  # one foot stands
        way = np.stack([pose["x"], pose["y"], pose["z"]], axis=1)
        hip = way + root @ np.array([0.0, 1.0, 0.0]) * height[:, None]
        trunk = root @ about_y(pose["twist"]) @ about_z(pose["lean"]) @ about_x(pose["bend"])
        neck = hip + _along(trunk, 0, build.torso, 0)
        self._trunk(build, root, trunk, hip, neck)
        self._head(build, trunk @ about_y(pose["turn"]) @ about_x(pose["nod"]), neck)
        for name, sign in (("a", side), ("o", -side)):
            self._leg(build, pose, name, sign, root, hip)
            self._arm(build, pose, name, sign, trunk, neck)

    def _draw(self, a: np.ndarray, b: np.ndarray, ra: float, rb: float, colour: np.ndarray) -> None:
        self.capsules.append(Capsule(a, b, ra, rb, colour))

    def _trunk(
        self, build: Build, root: np.ndarray, trunk: np.ndarray, hip: np.ndarray, neck: np.ndarray
    ) -> None:
        k = build.bulk
        chest = hip + _along(trunk, 0, 0.72 * build.torso, 0)
        self.points |= {"hip": hip, "chest": chest, "neck": neck}
        across = _along(trunk, build.shoulder - 0.02, 0.95 * build.torso, 0)
        other = _along(trunk, -build.shoulder + 0.02, 0.95 * build.torso, 0)
        self._draw(hip + across, hip + other, 0.036 * k, 0.036 * k, build.shirt)
        self._draw(hip, chest, 0.068 * k, 0.085 * k, build.shirt)
        side = _along(root, build.pelvis, 0, 0)
        self._draw(hip + side, hip - side, 0.055 * k, 0.055 * k, build.trousers)
        if build.dress:
            self._draw(hip, hip - _along(root, 0, 0.16, 0), 0.07 * k, 0.11 * k, build.shirt)

    def _head(self, build: Build, frame: np.ndarray, neck: np.ndarray) -> None:
        r = build.head
        low, high = neck + _along(frame, 0, 0.9 * r, 0.1 * r), neck + _along(frame, 0, 1.7 * r, 0.1 * r)
        self.points["head"] = high
        self._draw(neck, low, 0.03, 0.03, build.skin)
        self._draw(low, high, 0.85 * r, r, build.skin)
        back = _along(frame, 0, 0.25 * r, -0.45 * r)
        self._draw(high + back, low + back, 0.95 * r, 0.7 * r, build.hair)
        nose = _along(frame, 0, -0.15 * r, 0.95 * r)
        self._draw(high + nose, high + nose, 0.16 * r, 0.16 * r, 0.8 * build.skin)

    def _arm(
        self, build: Build, pose: Pose, name: str, sign: int, trunk: np.ndarray, neck: np.ndarray
    ) -> None:
        k = build.bulk
        upper = trunk @ about_z(sign * pose[f"spread.{name}"]) @ about_x(-pose[f"raise.{name}"])
        fore = upper @ about_x(-pose[f"elbow.{name}"])
        hand = fore @ about_z(sign * pose[f"wrist.{name}"])
        shoulder = neck + _along(trunk, sign * build.shoulder, -0.02, 0)
        elbow = shoulder + _along(upper, 0, -build.arm, 0)
        wrist = elbow + _along(fore, 0, -build.forearm, 0)
        tip = wrist + _along(hand, 0, -build.hand, 0)
        self.points |= {f"hand.{name}": tip, f"elbow.{name}": elbow, f"shoulder.{name}": shoulder}
        self._draw(shoulder, elbow, 0.036 * k, 0.030 * k, build.shirt)
        self._draw(elbow, wrist, 0.028 * k, 0.022 * k, build.shirt if build.sleeves else build.skin)
        self._draw(wrist, tip, 0.024, 0.027, build.skin)

    def _leg(self, build: Build, pose: Pose, name: str, sign: int, root: np.ndarray, hip: np.ndarray) -> None:
        k = build.bulk
        thigh = root @ about_z(sign * pose[f"open.{name}"]) @ about_x(-pose[f"hip.{name}"])
        shin = thigh @ about_x(pose[f"knee.{name}"])
        top = hip + _along(root, sign * build.pelvis, 0, 0)
        knee = top + _along(thigh, 0, -build.thigh, 0)
        ankle = knee + _along(shin, 0, -build.shin, 0)
        toe = ankle + _along(
            shin @ about_x(-pose[f"ankle.{name}"]), 0.2 * sign * build.foot, -0.01, build.foot
        )
        self.points |= {f"foot.{name}": toe, f"knee.{name}": knee}
        self._draw(top, knee, 0.052 * k, 0.040 * k, build.trousers)
        self._draw(knee, ankle, 0.038 * k, 0.028 * k, build.skin if build.shorts else build.trousers)
        self._draw(ankle, toe, 0.026, 0.024, build.shoes)
