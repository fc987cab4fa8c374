"""One composed clip before it is painted: who is there, what they do, the camera, the light.

Everything that a clip depends on is its seed and number; :mod:`peakzoom.data.synthetic.composed.paint` turns a batch of
scenes into pixels on whatever device.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from peakzoom.data.synthetic.composed.body import Body, Build, Capsule, Pose, about_x, about_y
from peakzoom.data.synthetic.composed.motions import PAIR, PI, SOLO, Clock
from peakzoom.data.synthetic.composed.things import ALONE, HANDLED, TWO, Shape

CLASSES = [*SOLO, *PAIR, *HANDLED, *ALONE]
STREAM = 11  # of the random numbers of composed clips


@dataclass
class Scene:
    """A clip in numbers; lengths in heights of the frame, from its middle, x to the right and y down.

    Attributes:
        label: index into :data:`CLASSES`.
        ends: (T, N, 2, 2), of tapered capsules; ``radii`` (T, N, 2), ``depth`` (T, N), ``colours`` (N, 3).
        shapes: textured ones, painted below the capsules, the first over the others; ``shape_colours`` (M, 2, 3).
        camera: (T, 3): x, y, and the zoom (1 is none) of all that is painted.
        place: random numbers of the background, the light and the recording.
    """

    label: int
    ends: np.ndarray
    radii: np.ndarray
    depth: np.ndarray
    colours: np.ndarray
    shapes: list[Shape]
    shape_colours: np.ndarray
    camera: np.ndarray
    place: dict[str, np.ndarray] = field(default_factory=dict)


def _idle(pose: Pose, rng: np.random.Generator, time: np.ndarray) -> None:
    """Slow motion that means nothing, and a posture of the arms."""
    u = rng.uniform
    for name, size in (("raise.a", 0.15), ("raise.o", 0.15), ("spread.a", 0.1), ("spread.o", 0.1), ("elbow.a", 0.2),
                       ("elbow.o", 0.2), ("bend", 0.06), ("lean", 0.05), ("twist", 0.12), ("nod", 0.15), ("turn", 0.25),
                       ("x", 0.02)):  # fmt: skip
        wander = np.sin(2 * PI * (u(0.2, 0.9) * time + u())) * u(0, 1)
        pose[name] = pose[name] + size * (wander + u(-0.8, 0.8))
    pose.add(spread_a=0.12, spread_o=0.12, elbow_=0.15, hip_a=u(-0.08, 0.08), hip_o=u(-0.08, 0.08))
    if u() < 0.3:
        pose.add(elbow_o=u(0.5, 2.0), raise_o=u(0, 0.5))


def _smooth(rng: np.random.Generator, time: np.ndarray, size: float) -> np.ndarray:
    """A way (T,) without corners."""
    waves = [rng.normal() / k * np.sin(PI * k * (time + rng.uniform(0, 2))) for k in (1, 2, 3)]
    return size * np.sum(waves, axis=0)


class _Stage:
    """Builds one scene."""

    def __init__(self, seed: int, number: int, length: int, label: int | None) -> None:
        self.rng = rng = np.random.default_rng([seed, STREAM, number])
        self.label = int(rng.integers(len(CLASSES))) if label is None else label
        self.length, self.time = length, np.linspace(0, 1, length)
        self.clock = Clock(rng, length)
        self.capsules: list[Capsule] = []
        self.shapes: list[Shape] = []
        self.view = rng.uniform(-PI, PI)
        self.follow = np.zeros((length, 2))

    def scene(self) -> Scene:
        name, rng, u = CLASSES[self.label], self.rng, self.rng.uniform
        if name in ALONE:
            moving = [Shape.still(rng, self.length) for _ in range(2 if name in TWO else 1)]
            ALONE[name](moving, self.clock)
            self.shapes += moving
        elif name in PAIR:
            self._two(name)
        else:
            self._one(name)
        self._passers_by(name in ALONE)
        ends, radii, depth, colours = self._project(name)
        return Scene(
            self.label, ends, radii, depth, colours, self.shapes, u(0.05, 1, (len(self.shapes), 2, 3)),
            self._camera(), self._place(),
        )  # fmt: skip

    def _pose(self) -> Pose:
        pose = Pose(self.length)
        _idle(pose, self.rng, self.time)
        return pose

    def _side(self) -> int:
        return int(self.rng.choice([-1, 1]))

    def _one(self, name: str) -> None:
        pose = self._pose()
        act = SOLO.get(name) or HANDLED[name][0]
        act(pose, self.clock)
        body = Body(pose, Build(self.rng), self._side())
        self.capsules += body.capsules
        if name in HANDLED:
            u = self.rng.uniform
            at, r = HANDLED[name][1](body, pose, self.clock), u(0.04, 0.09)
            stick = np.array([0, u(0.2, 0.4), 0]) if name in ("swing_bat", "shake_thing") else np.zeros(3)
            wide = np.array([u(0.05, 0.15), 0, 0]) if "box" in name or "weight" in name else np.zeros(3)
            self.capsules.append(
                Capsule(at - wide, at + stick + wide, r, r * (0.6 if stick.any() else 1), u(0.05, 1, 3))
            )

    def _two(self, name: str) -> None:
        rng, gap = self.rng, self.rng.uniform(0.62, 0.8)
        near, far = self._pose(), self._pose()
        if rng.uniform() < 0.5:
            near, far = far, near
        PAIR[name](near, far, self.clock)
        self.view = rng.choice([-1, 1]) * PI / 2 + rng.normal(0, 0.35)
        side = self._side()
        for pose, way in ((near, 1), (far, -1)):
            pose["z"] = pose["z"] - gap / 2
            turned = Body(pose, Build(rng), side)
            self.capsules += [
                each._replace(a=each.a * [way, 1, way], b=each.b * [way, 1, way]) for each in turned.capsules
            ]

    def _passers_by(self, alone: bool) -> None:
        """Others who stand or sway, and things that move and mean nothing."""
        rng, u = self.rng, self.rng.uniform
        for _ in range(int(rng.choice([0, 0, 0, 1, 2]))):
            pose = self._pose()
            pose.add(x=u(0.6, 1.4) * rng.choice([-1, 1]), z=u(-1.5, -0.3), yaw=u(-PI, PI))
            if u() < 0.3:
                SOLO["walk"](pose, Clock(rng, self.length))
            turn = about_y(np.full(self.length, -self.view))  # behind, as the camera sees it
            self.capsules += [
                each._replace(
                    a=np.einsum("tij,tj->ti", turn, each.a), b=np.einsum("tij,tj->ti", turn, each.b)
                )
                for each in Body(pose, Build(rng), 1).capsules
            ]
        for _ in range(int(rng.choice([0, 0, 1, 2]))):
            shape = Shape.still(rng, self.length)
            shape.go(u(-0.6, 0.6), u(-0.4, 0.4))
            if u() < 0.5 and not alone:
                shape.go(_smooth(rng, self.time, 0.1), _smooth(rng, self.time, 0.1))
            shape.grow(u(0.3, 1.0))
            self.shapes.append(shape)

    def _project(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A camera at some height and distance looks at the middle of what acts."""
        u, length = self.rng.uniform, self.length
        if not self.capsules:
            return (
                np.zeros((length, 0, 2, 2)),
                np.zeros((length, 0, 2)),
                np.zeros((length, 0)),
                np.zeros((0, 3)),
            )
        ends = np.stack([np.stack([each.a, each.b], 1) for each in self.capsules], 1)  # T, N, 2, 3
        radii = np.array([[each.radius_a, each.radius_b] for each in self.capsules])
        colours = np.clip(np.stack([each.colour for each in self.capsules]), 0, 1)
        if name in ALONE:  # people are far away behind what moves
            ends = ends + np.array([u(-1, 1), 0, -2])
        pitch = np.full(length, u(-0.1, 0.7) if u() < 0.6 else u(-0.1, 0.15))
        frame = about_x(pitch) @ about_y(np.full(length, self.view))
        seen = np.einsum("tij,tnej->tnei", frame, ends - np.array([0, u(0.4, 0.55), 0]))
        distance = u(2.2, 6)
        size = np.exp(u(np.log(0.3), np.log(1.05)))  # height of a person, in heights of the frame
        scale = size * distance / np.maximum(distance - seen[..., 2], 0.3)
        flat = np.stack([seen[..., 0], -seen[..., 1]], -1) * scale[..., None]
        room = max(0.0, 0.5 - 0.35 * size)
        flat = flat + np.array([u(-room, room), u(-room, room) * 0.6])
        path = flat[:, :18].mean(
            (1, 2)
        )  # of the first who acts: a camera follows who would leave the picture
        follow = np.maximum(0, 1 - u(0.3, 0.7) / np.maximum(np.ptp(path, axis=0), 1e-6))
        self.follow = -follow * (path - path.mean(0))
        return flat, radii * scale, seen[..., 2].mean(-1), colours

    def _camera(self) -> np.ndarray:
        rng, u, time = self.rng, self.rng.uniform, self.time
        kind = rng.choice(["still", "still", "pan", "shake", "zoom"])
        x = y = np.zeros(self.length)
        zoom = np.ones(self.length)
        if kind == "pan":
            x, y = _smooth(rng, time, 0.12), _smooth(rng, time, 0.04)
        if kind == "shake":
            x, y = rng.normal(0, 0.008, (2, self.length)).cumsum(1)
        if kind == "zoom":
            zoom = np.exp(rng.choice([-1, 1]) * u(0.05, 0.3) * (time - 0.5))
        return np.stack([x + self.follow[:, 0], y + self.follow[:, 1], zoom], axis=1)

    def _place(self) -> dict[str, np.ndarray]:
        """Random numbers of the background, the light and the recording."""
        rng, u = self.rng, self.rng.uniform
        time = self.time
        grey = u(0.1, 0.9, (8, 1))
        return {
            "palette": np.clip(grey + u(0, 0.7) ** 1.5 * u(-1, 1, (8, 3)), 0.02, 0.98),
            "edges": u(-1, 1, (6, 4)),  # direction, offset, width and strength of bands
            "texture": np.array([u(0.0, 0.4) ** 2, u(0, 0.12), u(), u(), u(0, 2 * PI), u(0.4, 1.5)]),
            "flow": np.stack([_smooth(rng, time, 0.05), _smooth(rng, time, 0.05)], 1) * (u() < 0.3),
            "light": (1 + u(-0.25, 0.25) + rng.normal(0, 0.03, self.length) * (u() < 0.3))[:, None]
            * (1 + u(-0.08, 0.08, 3)),
            "slope": u(-0.25, 0.25, 2),
            "record": np.array([u(0, 0.05) * (u() < 0.7), u() < 0.25, u() < 0.3, u(0.02, 0.08)]),
            "seed": np.array([rng.integers(2**31)]),
        }


def compose(seed: int, number: int, length: int = 16, label: int | None = None) -> Scene:
    """The clip of a number, in numbers; the same for the same arguments.

    Args:
        seed: of all clips.
        number: of this one.
        length: frames.
        label: index into :data:`CLASSES`; drawn when not given.
    """
    return _Stage(seed, number, length, label).scene()
