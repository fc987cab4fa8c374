"""One synthetic clip: a drawn person in a drawn place, before a camera that moves.

What tells an action is often small (see :mod:`peakzoom.data.synthetic.people`), which is what the zoomed branches are
for; :func:`telling_parts` says where it is. Reading order: a clip's specification, its place, its scene, its frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from peakzoom.data.synthetic.figures import Polygons, Sketch, draw_figure
from peakzoom.data.synthetic.people import EVERY_ACTION, Look, hsv, idle_pose, shade, standing_height
from peakzoom.utils.errors import UserError

SUPERSAMPLE = 2  # drawn at twice the size, then averaged: Pillow's polygons have hard edges on whole pixels
MARGIN = 14  # pixels of background beyond each border of the frame, room for the camera to move
BYSTANDERS = 10_000  # their numbers begin here; performers' end before it
IDLE = "idle"  # in place of an action: the person stands
STREAM = {
    "place": 2,
    "clip": 3,
    "grain": 4,
    "train": 5,
    "test": 6,
    "share": 7,
    "events": 8,
    "together": 9,
}  # independent random streams


@dataclass(frozen=True)
class ClipSpec:
    """Everything that a synthetic clip depends on; the same specification gives the same pixels.

    Two specifications that differ only in ``action`` share person, place, camera, noise, timing and idle motion.
    ``action`` is a name of :data:`~peakzoom.data.synthetic.people.EVERY_ACTION`, "nod" or "nod_fast", and ``also`` are
    further ones at the same time, of other parts of the body. ``world`` changes who performer 3 and
    what background 5 are; ``difficulty`` in [0, 1] scales clutter, other moving things, camera motion, noise, the range
    of the figure's size, and idle motion. ``stature`` above 0 up to 1 is a factor on how tall all people are, which
    otherwise nearly fill the frame.
    """

    action: str
    performer: int = 0
    background: int = 0
    seed: int = 0
    world: int = 0
    height: int = 192
    width: int = 256
    frames: int = 32
    fps: float = 15.0
    difficulty: float = 0.5
    also: tuple[str, ...] = ()
    stature: float = 1.0

    def __post_init__(self) -> None:
        for name in self.actions:
            if name not in EVERY_ACTION:
                raise UserError(f"no action is called {name!r}; there are {', '.join(EVERY_ACTION)}")
        parts = [EVERY_ACTION[name].part for name in self.actions]
        if len(set(parts)) < len(parts):
            raise UserError(
                f"{' and '.join(self.actions)} move one part of the body; give actions of different ones"
            )
        if self.height < 32 or self.width < 32 or self.height % 2 or self.width % 2:
            raise UserError(
                f"frames of {self.height} x {self.width} cannot be drawn; give even sides of at least 32"
            )
        if self.frames < 1 or not self.fps > 0:
            raise UserError(f"{self.frames} frames at {self.fps} fps make no clip; both must be positive")
        if not 0 <= self.difficulty <= 1:
            raise UserError(f"difficulty is {self.difficulty}; it must lie in [0, 1]")
        if not 0 < self.stature <= 1:
            raise UserError(f"stature is {self.stature}; it must be more than 0 and at most 1")

    @property
    def actions(self) -> tuple[str, ...]:
        """All that is done at once; nothing where the person stands."""
        return (*(() if self.action == IDLE else (self.action,)), *self.also)


@lru_cache(maxsize=64)
def _background(world: int, background: int, height: int, width: int, difficulty: float) -> Image.Image:
    """A place without people, drawn once: (height, width) plus margins, supersampled."""
    rng = np.random.default_rng([world, STREAM["place"], background])
    u = rng.uniform
    h, w = SUPERSAMPLE * (height + 2 * MARGIN), SUPERSAMPLE * (width + 2 * MARGIN)
    floor = int(h * u(0.6, 0.72))  # above the feet of all figures
    kind = str(rng.choice(["room", "tiles", "stripes", "outdoor", "noise"]))
    wall, ground = hsv(u(), u(0.05, 0.45), u(0.5, 0.95)), hsv(u(0.03, 0.15), u(0.1, 0.6), u(0.3, 0.75))
    if kind == "outdoor":
        wall, ground = (
            hsv(u(0.5, 0.62), u(0.1, 0.5), u(0.75, 1.0)),
            hsv(u(0.15, 0.4), u(0.2, 0.6), u(0.35, 0.75)),
        )
    image = Image.new("RGB", (w, h), wall)
    draw = ImageDraw.Draw(image)
    if kind == "tiles":
        side, gap = int(u(0.08, 0.2) * h), shade(wall, 0.8)
        for way in range(0, w, side):
            draw.line([way, 0, way, h], fill=gap, width=3)
            draw.line([0, way, w, way], fill=gap, width=3)
    elif kind == "stripes":
        step, lean, other = u(0.04, 0.15) * w, u(-0.5, 0.5) * h, shade(wall, u(0.75, 0.9))
        for way in np.arange(-h, w + h, 2 * step).tolist():
            draw.polygon([way, 0, way + step, 0, way + step + lean, h, way + lean, h], fill=other)
    clutter = round(difficulty * u(3, 9))
    draw.rectangle([0, floor, w, h], fill=ground)
    if kind == "outdoor":
        for _ in range(4 + clutter):  # hedges and crowns
            x, y, r = u(0, w), floor - u(0, 0.25) * h, u(0.04, 0.12) * h
            leaf = hsv(u(0.2, 0.4), u(0.3, 0.7), u(0.3, 0.65))
            draw.rectangle([x - r / 8, y, x + r / 8, floor], fill=(96, 72, 50))
            for _ in range(5):
                dx, dy, k = u(-r, r), u(-r, r) * 0.7, u(0.5, 0.9) * r
                draw.ellipse(
                    [x + dx - k, y + dy - k, x + dx + k, y + dy + k], fill=shade(leaf, u(0.85, 1.15))
                )
    else:
        draw.rectangle([0, floor - 7, w, floor], fill=shade(wall, 0.7))  # skirting board
        for line in np.linspace(floor, h, int(u(2, 7))).tolist():
            draw.line([0, line, w, line], fill=shade(ground, 0.85), width=2)
        for _ in range(clutter):
            x, tall, wide = u(0, w), u(0.12, 0.4) * h, u(0.05, 0.16) * w
            colour = hsv(u(), u(0.1, 0.8), u(0.3, 0.95))
            # Furniture on the floor, or a picture or window on the wall.
            low = floor + u(0, 0.06) * h if u() < 0.5 else u(0.35, 0.6) * h
            box = [x, low - tall, x + wide, low]
            draw.rectangle(box, fill=colour, outline=shade(colour, 0.55), width=3)
            for k in np.linspace(0.2, 0.8, int(u(0, 4))):
                draw.line([x, low - tall * k, x + wide, low - tall * k], fill=shade(colour, 0.7), width=3)
    coarse, strength = (12, 22.0) if kind == "noise" else (30, 7.0)
    cloud = 128 + strength * (0.4 + difficulty) * rng.normal(0, 1, (h // coarse + 1, w // coarse + 1))
    stain = Image.fromarray(np.clip(cloud, 0, 255).astype(np.uint8)).resize((w, h), Image.Resampling.BICUBIC)
    texture = np.asarray(stain, dtype=np.int16) - 128
    slope = np.linspace(-1, 1, h)[:, None] * u(-14, 14) + np.linspace(-1, 1, w)[None] * u(-14, 14)
    lit = np.asarray(image, dtype=np.int16) + (texture + slope.astype(np.int16))[..., None]
    blur = ImageFilter.BoxBlur(u(0, 2))
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).filter(blur)


class Scene:
    """A clip before its frames are drawn; lengths in drawn pixels.

    All random numbers of a clip are drawn here, and are the same ones whatever the action. What is drawn per frame has
    a stream of its own, so that a longer clip or another frame rate keeps the motion. The order of the steps is that of
    the draws: a change of it changes every clip.

    The place with all that does not move is the ``canvas``; ``shapes`` move, and ``parts`` are the performer's.
    """

    def __init__(self, spec: ClipSpec) -> None:
        self.spec, self.d = spec, spec.difficulty
        self.rng = np.random.default_rng([spec.world, STREAM["clip"], spec.seed])
        self.grain = np.random.default_rng([spec.world, STREAM["grain"], spec.seed])
        self.u = self.rng.uniform
        self.time = np.arange(spec.frames) / spec.fps
        self.canvas = _background(
            spec.world, spec.background, spec.height, spec.width, spec.difficulty
        ).copy()
        if self.u() < 0.5:
            self.canvas = self.canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        self.shapes: Polygons = []
        self._move_camera()
        self._place_performer()
        self._add_bystanders()
        self._add_balls()
        self._draw_performer()
        self._expose()

    def _move_camera(self) -> None:
        """A slow pan and a tremble, in whole drawn pixels (half a pixel of the frame)."""
        u, d, s = self.u, self.d, SUPERSAMPLE
        reach, rate = s * (MARGIN - 2) * d * u(0.2, 0.8, 2) * [1, 0.4], u(0.1, 0.3, 2)
        pan = reach * np.sin(2 * np.pi * rate * self.time[:, None] + u(0, 2 * np.pi, 2))
        tremble = np.cumsum(self.grain.normal(0, 0.5 * d * s, (len(self.time), 2)), axis=0)
        shift = np.rint(s * MARGIN + pan + tremble - tremble.mean(axis=0))
        self.camera = np.clip(shift, 0, 2 * s * MARGIN).astype(int)  # (T, 2), the frame's left upper corner

    def _place_performer(self) -> None:
        """Looks, size, place, side and timing."""
        spec, u, d, s = self.spec, self.u, self.d, SUPERSAMPLE
        self.look = look = Look(spec.world, spec.performer)
        tall = s * min(spec.height, 0.85 * spec.width) * u(0.80 - 0.22 * d, 0.83 + 0.04 * d) * spec.stature
        self.scale = tall / standing_height(look)  # of one unit of the body
        room = max(0.0, s * (spec.width / 2 - 8 * d) - 0.44 * self.scale)  # a kicking foot stays in the frame
        self.x = self.canvas.width / 2 + room * u(-1, 1) * (0.15 + 0.85 * d)  # of the feet
        # Heels stand above the lower border: toes point down in the picture, and the camera trembles.
        self.y = s * (MARGIN + 0.92 * spec.height) - u(0, 0.5) * max(0.0, 0.89 * s * spec.height - tall)
        self.outward = self.rng.choice([-1.0, 1.0])  # +1 when the acting side is the right of the picture
        self.light = self.rng.choice([-0.6, 0.6])  # the side that the lamp is on
        self.period, self.phase = u(0.55, 1.05) / look.speed, u()  # seconds; share of a period
        self.vigour = look.vigour * u(0.9, 1.1)

    def _add_bystanders(self) -> None:
        """People who stand still, drawn into the canvas, or sway."""
        u, d, (w, h) = self.u, self.d, self.canvas.size
        for _ in range(2):
            shown, moves, place, size = u() < 0.75 * d, u() < 0.5 * d, u(0.02, 0.98) * w, u(0.5, 0.8)
            person = Look(self.spec.world, BYSTANDERS + int(self.rng.integers(1000)))
            time = self.time if moves else self.time[:1]
            pose = idle_pose(np.random.default_rng(self.rng.integers(2**31)), time, 1.0)
            if not shown or abs(place - self.x) <= 0.45 * self.scale:
                continue
            sketch = Sketch((place, self.y - 0.03 * h), self.scale * size, 0.5 * SUPERSAMPLE, self.light)
            draw_figure(sketch, person, pose, 1.0)
            if moves:
                self.shapes += sketch.polygons()
                continue
            draw = ImageDraw.Draw(self.canvas)
            for fill, points in sketch.polygons():
                draw.polygon(points[0], fill=fill)

    def _add_balls(self) -> None:
        """Balls that pass by."""
        u, d, (w, h) = self.u, self.d, self.canvas.size
        for _ in range(2):
            shown, r, colour = u() < 0.6 * d, u(0.02, 0.05) * h, hsv(u(), u(0.3, 0.9), u(0.4, 1))
            begin, way = u([0, 0.1 * h], [w, 0.9 * h]), u([-0.3 * w, -0.1 * h], [0.3 * w, 0.1 * h])
            if shown:
                path = begin + way * self.time[:, None]
                sketch = Sketch((0, 0), 1.0, 0.5 * SUPERSAMPLE, self.light)
                sketch.part()
                sketch.limb(path, path, r, r, colour)
                self.shapes += sketch.polygons()

    def _draw_performer(self) -> None:
        x, y, scale = self.x, self.y, self.scale
        shadow = [x - 0.2 * scale, y - 0.015 * scale, x + 0.2 * scale, y + 0.035 * scale]
        ImageDraw.Draw(self.canvas).ellipse(shadow, fill=(70, 66, 62))
        pose = idle_pose(self.rng, self.time, self.d)
        for name in self.spec.actions:
            action = EVERY_ACTION[name]
            beat = np.sin(2 * np.pi * (self.time / (self.period * action.period) + self.phase))
            action.move(pose, beat, self.vigour)
        sketch = Sketch((x, y), scale, 0.7 * SUPERSAMPLE, self.light)
        self.parts = draw_figure(sketch, self.look, pose, self.outward)
        self.shapes += sketch.polygons()

    def _expose(self) -> None:
        """Brightness, the light's colour, flicker and noise."""
        u, d, grain, spec = self.u, self.d, self.grain, self.spec
        gain = u(0.9 - 0.15 * d, 1.08 + 0.12 * d) * (1 + u(-0.05, 0.05, 3) * (0.5 + d))
        flicker = 1 + grain.normal(0, 0.012 * d, spec.frames)
        levels = np.clip(np.outer(flicker, np.outer(gain, np.arange(256))), 0, 255)
        self.tables = levels.astype(int).tolist()  # per frame 3 x 256
        self.shifts = grain.integers(0, 17, (spec.frames, 2))  # where a frame's noise begins
        noise = grain.normal(0, 0.6 + 3.4 * d, (spec.height + 16, spec.width + 16, 3))
        self.noise = np.rint(noise).astype(np.int16)


_scene = lru_cache(maxsize=1)(Scene)  # its frames are drawn, and its telling parts are asked for


def clip_frames(spec: ClipSpec) -> Iterator[np.ndarray]:
    """The frames of a clip one by one, uint8 (H, W, 3)."""
    scene = _scene(spec)
    for t in range(spec.frames):
        yield draw_frame(scene, t)


def draw_frame(scene: Scene, t: int) -> np.ndarray:
    """Frame number t of a scene, uint8 (H, W, 3)."""
    spec, s = scene.spec, SUPERSAMPLE
    frame = scene.canvas.copy()
    draw = ImageDraw.Draw(frame)
    for colour, points in scene.shapes:
        draw.polygon(points[t], fill=colour)
    left, top = (int(v) for v in scene.camera[t])
    frame = frame.reduce(s, box=(left, top, left + s * spec.width, top + s * spec.height))
    dy, dx = scene.shifts[t]
    pixels = scene.noise[dy : dy + spec.height, dx : dx + spec.width] + np.asarray(
        frame.point(scene.tables[t])
    )
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def render_clip(spec: ClipSpec) -> np.ndarray:
    """The pixels of a clip before they are compressed, uint8 (T, 3, H, W) RGB; pure and deterministic."""
    return np.ascontiguousarray(np.stack(list(clip_frames(spec))).transpose(0, 3, 1, 2))


def telling_parts(spec: ClipSpec) -> list[tuple[str, np.ndarray, float]]:
    """Where each action shows, in pixels of the frame.

    Each is the part's name ("hand", "foot", "head"; for clap one of the hands), its centres (T, 2) as x, y, and a
    radius that holds it.
    """
    scene, found = _scene(spec), []
    for action in spec.actions:
        name = EVERY_ACTION[action].part
        centres, radius = scene.parts[name]
        found.append((name, (centres - scene.camera) / SUPERSAMPLE, radius / SUPERSAMPLE))
    return found
