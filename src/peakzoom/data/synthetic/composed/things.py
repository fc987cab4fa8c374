"""What things do: balls and boxes that a figure handles, and textured shapes that move, turn and deform by themselves.

Lengths of a handled thing are in heights of the figure, of a shape in heights of the frame. Arrays run over time first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from peakzoom.data.synthetic.composed.body import Body, Pose, about_y
from peakzoom.data.synthetic.composed.motions import PI, SOLO, Clock

# ---- handled by a figure: what the pose does, and where the thing is then, (T, 3)

Handled = tuple[Callable[[Pose, Clock], None], Callable[[Body, Pose, Clock], np.ndarray]]


def _ahead(pose: Pose, forward: np.ndarray | float, up: np.ndarray | float) -> np.ndarray:
    """A place before the figure."""
    way = np.stack(
        [np.zeros(pose.length), np.zeros(pose.length) + up, np.zeros(pose.length) + forward], axis=1
    )
    return np.einsum("tij,tj->ti", about_y(pose["yaw"]), way) + np.stack(
        [pose["x"], pose["y"], pose["z"]], axis=1
    )


def _held(body: Body, pose: Pose, clock: Clock) -> np.ndarray:
    return (body.points["hand.a"] + body.points["hand.o"]) / 2


def _in_hand(body: Body, pose: Pose, clock: Clock) -> np.ndarray:
    return body.points["hand.a"]


def _flies(body: Body, pose: Pose, clock: Clock) -> np.ndarray:
    gone = clock.gone[:, None]
    free = _ahead(pose, 0.4 + 2.0 * clock.gone, 0.9 + 0.3 * clock.gone - 0.6 * clock.gone**2)
    return np.where(gone > 0, free, body.points["hand.a"])


def _arrives(body: Body, pose: Pose, clock: Clock) -> np.ndarray:
    away = clock.gone[::-1]
    held = (body.points["hand.a"] + body.points["hand.o"]) / 2
    return np.where(away[:, None] > 0, _ahead(pose, 0.4 + 2.0 * away, 0.8 + 0.3 * away - 0.6 * away**2), held)


def _kicked(body: Body, pose: Pose, clock: Clock) -> np.ndarray:
    return _ahead(pose, 0.35 + 2.2 * clock.gone, 0.05 + np.maximum(0, 0.8 * clock.gone - 0.8 * clock.gone**2))


def _dribbled(body: Body, pose: Pose, clock: Clock) -> np.ndarray:
    hand = body.points["hand.a"].copy()
    hand[:, 1] *= np.abs(np.cos(clock.turns / 2))
    return hand


def _tossed(body: Body, pose: Pose, clock: Clock) -> np.ndarray:
    return (
        body.points["hand.a"] + np.array([0, 1.0, 0]) * (0.1 + 0.6 * np.abs(np.sin(clock.turns / 2)))[:, None]
    )


def _pushed(body: Body, pose: Pose, clock: Clock) -> np.ndarray:
    return _ahead(pose, 0.45, 0.15)


def _rolls(direction: int) -> Callable[[Body, Pose, Clock], np.ndarray]:
    def rolls(body: Body, pose: Pose, clock: Clock) -> np.ndarray:
        return _ahead(pose, 0.3 + 1.5 * (clock.flow if direction > 0 else 1 - clock.flow), 0.06)

    return rolls


def _carry(pose: Pose, clock: Clock) -> None:
    SOLO["walk"](pose, clock)
    pose.add(raise_a=0.7, raise_o=0.7, elbow_=0.9)


def _push_on(pose: Pose, clock: Clock) -> None:
    SOLO["walk"](pose, clock)
    pose.add(raise_=1.0, bend=0.5)


def _reach(pose: Pose, clock: Clock) -> None:
    pose.add(raise_=1.3 * clock.rise, elbow_=0.4, bend=0.1 * clock.rise)


HANDLED: dict[str, Handled] = {
    "throw_ball": (SOLO["throw"], _flies),
    "catch_ball": (_reach, _arrives),
    "kick_ball": (SOLO["kick"], _kicked),
    "dribble": (lambda p, c: p.add(raise_a=0.5, elbow_a=0.7 + 0.5 * np.abs(np.cos(c.turns / 2))), _dribbled),
    "toss": (lambda p, c: p.add(raise_a=0.5, elbow_a=1.0 + 0.4 * np.abs(np.sin(c.turns / 2))), _tossed),
    "lift_box": (SOLO["straighten"], _held),
    "put_down_box": (SOLO["bend_down"], _held),
    "carry_box": (_carry, _held),
    "push_box": (_push_on, _pushed),
    "swing_bat": (
        lambda p, c: p.add(raise_=1.3, twist=1.1 - 2.2 * c.rise, spread_a=-0.3, spread_o=-0.3),
        _held,
    ),
    "lift_weight": (SOLO["press_up"], _held),
    "shake_thing": (SOLO["hammer"], _in_hand),
    "ball_rolls_away": (SOLO["stand"], _rolls(1)),
    "ball_rolls_here": (SOLO["stand"], _rolls(-1)),
}


# ---- by themselves


@dataclass
class Shape:
    """A textured shape over time.

    Attributes:
        centre: (T, 2) as x, y, from the frame's middle.
        size: (T, 2), half its sides.
        angle, shear: (T,).
        lobes: how many, and how deep over time, (T,), and their turn.
        square: of its outline: 2 an ellipse, more a box.
    """

    centre: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    shear: np.ndarray
    depth: np.ndarray
    swirl: np.ndarray
    lobes: int = 3
    square: float = 2.0
    shown: np.ndarray = field(default_factory=lambda: np.ones(1))

    @classmethod
    def still(cls, rng: np.random.Generator, length: int) -> Shape:
        """One that rests near the middle."""
        u = rng.uniform
        half = u(0.06, 0.2) * np.array([1.0, u(0.6, 1.5)])
        return cls(
            np.tile(u(-0.2, 0.2, 2), (length, 1)), np.tile(half, (length, 1)), np.full(length, u(0, 2 * PI)),
            np.zeros(length), np.full(length, u(0, 0.3)), np.full(length, u(0, 2 * PI)),
            int(rng.integers(2, 6)), float(rng.choice([2.0, 2.0, 4.0, 8.0])), np.ones(length),
        )  # fmt: skip

    def go(self, x: np.ndarray | float = 0.0, y: np.ndarray | float = 0.0) -> None:
        """Move it."""
        self.centre = self.centre + np.stack(
            [np.zeros(len(self.angle)) + x, np.zeros(len(self.angle)) + y], 1
        )

    def grow(self, wide: np.ndarray | float, high: np.ndarray | float | None = None) -> None:
        """Change its sides."""
        high = wide if high is None else high
        one = np.ones(len(self.angle))
        self.size = self.size * np.stack([one * wide, one * high], 1)


Alone = Callable[[list[Shape], Clock], None]


def _fly(x: float, y: float) -> Alone:
    def fly(shapes: list[Shape], c: Clock) -> None:
        shapes[0].go(x * 0.7 * c.far * (c.flow - 0.5), y * 0.7 * c.far * (c.flow - 0.5))

    return fly


def _turn(rate: float) -> Alone:
    def turn(shapes: list[Shape], c: Clock) -> None:
        shapes[0].angle = shapes[0].angle + rate * 2 * PI * c.far * c.flow
        shapes[0].square, shapes[0].depth = 6.0, shapes[0].depth + 0.2

    return turn


def _orbit(direction: int) -> Alone:
    def orbit(shapes: list[Shape], c: Clock) -> None:
        shapes[0].go(0.22 * np.cos(direction * c.turns), 0.22 * np.sin(direction * c.turns))

    return orbit


def _bounce(shapes: list[Shape], c: Clock) -> None:
    shapes[0].go(0.4 * (c.flow - 0.5), 0.3 - 0.6 * np.abs(np.sin(c.turns / 2)))
    shapes[0].grow(1, 0.8 + 0.2 * np.abs(np.sin(c.turns / 2)))


def _zigzag(shapes: list[Shape], c: Clock) -> None:
    shapes[0].go(0.7 * (c.flow - 0.5), 0.35 / PI * np.arcsin(c.beat))


def _meet(way: np.ndarray, shapes: list[Shape]) -> None:
    for shape, side in zip(shapes, (-1, 1), strict=False):
        shape.centre[:] = 0
        shape.go(side * way, 0.03 * side)


def _chase(shapes: list[Shape], c: Clock) -> None:
    for shape, lag in zip(shapes, (0.0, 0.9), strict=False):
        shape.centre[:] = 0
        shape.go(0.28 * np.cos(c.turns - lag), 0.2 * np.sin(c.turns - lag))


def _swap(shapes: list[Shape], c: Clock) -> None:
    for shape, side in zip(shapes, (-1, 1), strict=False):
        shape.centre[:] = 0
        shape.go(side * 0.25 * np.cos(PI * c.rise), side * 0.2 * np.sin(PI * c.rise))


def _set(**changes: Callable[[Clock], np.ndarray]) -> Alone:
    def change(shapes: list[Shape], c: Clock) -> None:
        for name, way in changes.items():
            setattr(shapes[0], name, getattr(shapes[0], name) + way(c))

    return change


def _rock(shapes: list[Shape], c: Clock) -> None:
    shapes[0].angle, shapes[0].square = shapes[0].angle + 0.6 * c.beat, 6.0


ALONE: dict[str, Alone] = {
    "thing_goes_right": _fly(1, 0),
    "thing_goes_left": _fly(-1, 0),
    "thing_goes_down": _fly(0, 1),
    "thing_goes_up": _fly(0, -1),
    "thing_falls": lambda s, c: s[0].go(0, 0.8 * c.rise**2 - 0.4),
    "thing_rises_slowing": lambda s, c: s[0].go(0, 0.4 - 0.8 * np.sqrt(c.flow)),
    "thing_turns": _turn(1),
    "thing_turns_back": _turn(-1),
    "thing_grows": lambda s, c: s[0].grow(0.5 + 1.3 * c.rise),
    "thing_shrinks": lambda s, c: s[0].grow(0.5 + 1.3 * c.sink),
    "thing_pulsates": lambda s, c: s[0].grow(1 + 0.45 * c.beat),
    "thing_swings": lambda s, c: s[0].go(0.25 * c.far * c.beat, 0),
    "thing_bobs": lambda s, c: s[0].go(0, 0.25 * c.far * c.beat),
    "thing_bounces": _bounce,
    "thing_orbits": _orbit(1),
    "thing_orbits_back": _orbit(-1),
    "thing_zigzags": _zigzag,
    "thing_rocks": _rock,
    "thing_shears": _set(shear=lambda c: 0.8 * c.beat),
    "thing_ripples": _set(depth=lambda c: 0.35 * (1 + c.beat) / 2),
    "thing_swirls": _set(swirl=lambda c: 6 * c.far * c.flow, depth=lambda c: 0.25 + 0 * c.flow),
    "thing_flips": lambda s, c: s[0].grow(np.cos(c.turns / 2)),
    "thing_stretches": lambda s, c: s[0].grow(1 + 0.5 * c.beat, 1 - 0.4 * c.beat),
    "thing_blinks": lambda s, c: setattr(s[0], "shown", (c.beat > -0.2).astype(float)),
    "thing_rests": lambda s, c: None,
    "two_collide": lambda s, c: _meet(0.1 + 0.35 * np.abs(2 * c.flow - 1), s),
    "two_meet": lambda s, c: _meet(0.4 * c.sink, s),
    "two_part": lambda s, c: _meet(0.4 * c.rise, s),
    "two_chase": _chase,
    "two_swap": _swap,
}  # fmt: skip
TWO = {name for name in ALONE if name.startswith("two_")}
