"""One synthetic clip: a drawn person in a drawn place, before a camera that moves.

What tells an action is often small (see :mod:`peakzoom.data.synthetic.people`), which is what the zoomed branches are
for; :func:`telling_part` says where it is. Reading order: a clip's specification, its place, its scene, its frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from peakzoom.data.synthetic.figures import Parts, Polygons, Sketch, draw_figure
from peakzoom.data.synthetic.people import (
    ACTIONS,
    Look,
    hsv,
    idle_pose,
    performer_look,
    shade,
    standing_height,
)
from peakzoom.utils.errors import UserError

SUPERSAMPLE = 2  # drawn at twice the size, then averaged: Pillow's polygons have hard edges on whole pixels
MARGIN = 14  # pixels of background beyond each border of the frame, room for the camera to move
BYSTANDERS = 10_000  # their numbers begin here; performers' end before it
SLOW = {"drink": 1.3, "kick": 1.2, "clap": 0.9}  # period against the drawn one: a cup takes longer than a nod
STREAM = {"place": 2, "clip": 3, "grain": 4, "train": 5, "test": 6, "share": 7}  # independent random streams


@dataclass(frozen=True)
class ClipSpec:
    """Everything that a synthetic clip depends on; the same specification gives the same pixels.

    Two specifications that differ only in ``action`` share person, place, camera, noise, timing and idle motion.
    ``world`` changes who performer 3 and what background 5 are; ``difficulty`` in [0, 1] scales clutter, other moving
    things, camera motion, noise, the range of the figure's size, and idle motion.
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

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise UserError(f"no action is called {self.action!r}; there are {', '.join(ACTIONS)}")
        if self.height < 32 or self.width < 32 or self.height % 2 or self.width % 2:
            raise UserError(
                f"frames of {self.height} x {self.width} cannot be drawn; give even sides of at least 32"
            )
        if self.frames < 1 or not self.fps > 0:
            raise UserError(f"{self.frames} frames at {self.fps} fps make no clip; both must be positive")
        if not 0 <= self.difficulty <= 1:
            raise UserError(f"difficulty is {self.difficulty}; it must lie in [0, 1]")


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


@dataclass
class Scene:
    """A clip before its frames are drawn; lengths in drawn pixels."""

    canvas: Image.Image  # the place, with all that does not move
    shapes: Polygons
    camera: np.ndarray  # (T, 2) int, the frame's left upper corner
    parts: Parts
    tables: list[list[int]]  # per frame 3 x 256 brightness levels
    noise: np.ndarray  # int16 (H + 16, W + 16, 3)
    shifts: np.ndarray  # (T, 2), where a frame's noise begins


@dataclass(frozen=True)
class _Performer:
    """Who acts, where and how; lengths in drawn pixels."""

    look: Look
    x: float  # of the feet
    y: float
    scale: float  # of one unit of the body
    outward: float  # +1 when the acting side is the right of the picture, else -1
    light: float  # the side that the lamp is on
    beat: np.ndarray  # (T,), -1 to 1, the action's motion
    vigour: float


def _scene(spec: ClipSpec) -> Scene:
    """All random numbers of a clip: the same ones whatever the action.

    What is drawn per frame has a stream of its own, so that a longer clip or another frame rate keeps the motion. The
    order of the steps below is that of the draws: a change of it changes every clip.
    """
    rng = np.random.default_rng([spec.world, STREAM["clip"], spec.seed])
    grain = np.random.default_rng([spec.world, STREAM["grain"], spec.seed])
    time = np.arange(spec.frames) / spec.fps
    canvas = _background(spec.world, spec.background, spec.height, spec.width, spec.difficulty).copy()
    if rng.uniform() < 0.5:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    camera = _camera(spec, rng, grain, time)
    performer = _performer(spec, rng, time, canvas.width)
    shapes = _bystanders(spec, rng, time, canvas, performer) + _balls(
        spec, rng, time, canvas, performer.light
    )

    x, y, scale = performer.x, performer.y, performer.scale
    shadow = [x - 0.2 * scale, y - 0.015 * scale, x + 0.2 * scale, y + 0.035 * scale]
    ImageDraw.Draw(canvas).ellipse(shadow, fill=(70, 66, 62))
    pose = idle_pose(rng, time, spec.difficulty)
    ACTIONS[spec.action][0](pose, performer.beat, performer.vigour)
    sketch = Sketch((x, y), scale, 0.7 * SUPERSAMPLE, performer.light)
    parts = draw_figure(sketch, performer.look, pose, performer.outward)
    shapes += sketch.polygons()
    return Scene(canvas, shapes, camera, parts, *_exposure(spec, rng, grain))


def _camera(
    spec: ClipSpec, rng: np.random.Generator, grain: np.random.Generator, time: np.ndarray
) -> np.ndarray:
    """A slow pan and a tremble, (T, 2), in whole drawn pixels (half a pixel of the frame)."""
    u, d, s = rng.uniform, spec.difficulty, SUPERSAMPLE
    reach, rate, phase = s * (MARGIN - 2) * d * u(0.2, 0.8, 2) * [1, 0.4], u(0.1, 0.3, 2), u(0, 2 * np.pi, 2)
    pan = reach * np.sin(2 * np.pi * rate * time[:, None] + phase)
    tremble = np.cumsum(grain.normal(0, 0.5 * d * s, (spec.frames, 2)), axis=0)
    shift = np.rint(s * MARGIN + pan + tremble - tremble.mean(axis=0))
    return np.clip(shift, 0, 2 * s * MARGIN).astype(int)


def _performer(spec: ClipSpec, rng: np.random.Generator, time: np.ndarray, canvas_width: int) -> _Performer:
    """Looks, size, place, side and timing."""
    u, d, s = rng.uniform, spec.difficulty, SUPERSAMPLE
    look = performer_look(spec.world, spec.performer)
    tall = s * min(spec.height, 0.85 * spec.width) * u(0.80 - 0.22 * d, 0.83 + 0.04 * d)
    scale = tall / standing_height(look)
    room = max(0.0, s * (spec.width / 2 - 8 * d) - 0.44 * scale)  # a kicking foot stays in the frame
    x = canvas_width / 2 + room * u(-1, 1) * (0.15 + 0.85 * d)
    # Heels stand above the lower border: toes point down in the picture, and the camera trembles.
    y = s * (MARGIN + 0.92 * spec.height) - u(0, 0.5) * max(0.0, 0.89 * s * spec.height - tall)
    outward, light = rng.choice([-1.0, 1.0]), rng.choice([-0.6, 0.6])
    period = u(0.55, 1.05) / look.speed * SLOW.get(spec.action, 1.0)  # seconds
    beat = np.sin(2 * np.pi * (time / period + u()))
    return _Performer(look, x, y, scale, outward, light, beat, look.vigour * u(0.9, 1.1))


def _bystanders(
    spec: ClipSpec, rng: np.random.Generator, time: np.ndarray, canvas: Image.Image, performer: _Performer
) -> Polygons:
    """People who stand still, drawn into the canvas, or sway: their polygons."""
    u, d, (w, h) = rng.uniform, spec.difficulty, canvas.size
    shapes: Polygons = []
    for _ in range(2):
        shown, moves, place, size = u() < 0.75 * d, u() < 0.5 * d, u(0.02, 0.98) * w, u(0.5, 0.8)
        person = performer_look(spec.world, BYSTANDERS + int(rng.integers(1000)))
        pose = idle_pose(np.random.default_rng(rng.integers(2**31)), time if moves else time[:1], 1.0)
        if not shown or abs(place - performer.x) <= 0.45 * performer.scale:
            continue
        sketch = Sketch(
            (place, performer.y - 0.03 * h), performer.scale * size, 0.5 * SUPERSAMPLE, performer.light
        )
        draw_figure(sketch, person, pose, 1.0)
        if moves:
            shapes += sketch.polygons()
        else:
            draw = ImageDraw.Draw(canvas)
            for fill, points in sketch.polygons():
                draw.polygon(points[0], fill=fill)
    return shapes


def _balls(
    spec: ClipSpec, rng: np.random.Generator, time: np.ndarray, canvas: Image.Image, light: float
) -> Polygons:
    """Balls that pass by."""
    u, d, (w, h) = rng.uniform, spec.difficulty, canvas.size
    shapes: Polygons = []
    for _ in range(2):
        shown, r, colour = u() < 0.6 * d, u(0.02, 0.05) * h, hsv(u(), u(0.3, 0.9), u(0.4, 1))
        path = u([0, 0.1 * h], [w, 0.9 * h]) + u([-0.3 * w, -0.1 * h], [0.3 * w, 0.1 * h]) * time[:, None]
        if shown:
            sketch = Sketch((0, 0), 1.0, 0.5 * SUPERSAMPLE, light)
            sketch.part()
            sketch.limb(path, path, r, r, colour)
            shapes += sketch.polygons()
    return shapes


def _exposure(
    spec: ClipSpec, rng: np.random.Generator, grain: np.random.Generator
) -> tuple[list[list[int]], np.ndarray, np.ndarray]:
    """Brightness levels of each frame, the noise, and where in it each frame's begins: the last fields of a scene."""
    u, d = rng.uniform, spec.difficulty
    gain = u(0.9 - 0.15 * d, 1.08 + 0.12 * d) * (1 + u(-0.05, 0.05, 3) * (0.5 + d))  # and the light's colour
    flicker = 1 + grain.normal(0, 0.012 * d, spec.frames)
    levels = np.clip(np.outer(flicker, np.outer(gain, np.arange(256))), 0, 255)
    shifts = grain.integers(0, 17, (spec.frames, 2))
    noise = np.rint(grain.normal(0, 0.6 + 3.4 * d, (spec.height + 16, spec.width + 16, 3))).astype(np.int16)
    return levels.astype(int).tolist(), noise, shifts


def clip_frames(spec: ClipSpec) -> Iterator[np.ndarray]:
    """The frames of a clip one by one, uint8 (H, W, 3)."""
    scene, s = _scene(spec), SUPERSAMPLE
    for t in range(spec.frames):
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
        yield np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def render_clip(spec: ClipSpec) -> np.ndarray:
    """The pixels of a clip before they are compressed, uint8 (T, 3, H, W) RGB; pure and deterministic."""
    return np.ascontiguousarray(np.stack(list(clip_frames(spec))).transpose(0, 3, 1, 2))


def telling_part(spec: ClipSpec) -> tuple[str, np.ndarray, float]:
    """Where the action shows, in pixels of the frame.

    Returns the part's name ("hand", "foot", "head"; for clap one of the hands), its centres (T, 2) as x, y, and a
    radius that holds it.
    """
    scene = _scene(spec)
    name = ACTIONS[spec.action][1]
    centres, radius = scene.parts[name]
    return name, (centres - scene.camera) / SUPERSAMPLE, radius / SUPERSAMPLE
