"""From a composed scene to pixels.

Everything is a distance: a tapered capsule covers a pixel by how far it lies from the line between its ends, so edges
are smooth without drawing larger. Capsules are laid over one another from the far to the near, frame by frame, each in
the part of the picture that it can reach.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from peakzoom.data.synthetic.composed.scene import Scene
from peakzoom.data.synthetic.composed.things import Shape

BANK, SIDE = 48, 256  # noise fields that all backgrounds and textures are cut from, and their side
WORLD = 1.5  # sides of the painted background, in sides of the frame; beyond it, it is mirrored


@lru_cache(maxsize=1)
def noise_fields() -> Tensor:
    """(BANK, 1, SIDE, SIDE) of mean 0 and deviation 1, from nearly white to cloudy; always the same."""
    draw = torch.Generator().manual_seed(0)
    rate = torch.fft.fftfreq(SIDE)[:, None] ** 2 + torch.fft.rfftfreq(SIDE)[None] ** 2
    steep = torch.linspace(0.5, 1.7, BANK)[:, None, None]
    parts = torch.randn((2, BANK, SIDE, SIDE // 2 + 1), generator=draw)
    spectrum = torch.complex(parts[0], parts[1]) / rate.clamp(min=1 / SIDE**2).sqrt().pow(steep)
    fields = torch.fft.irfft2(spectrum, s=(SIDE, SIDE))
    fields = (fields - fields.mean((1, 2), keepdim=True)) / fields.std((1, 2), keepdim=True)
    return fields[:, None]


def _sampled(picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(C, h, w) at places (T, H, W) in its own sides from its middle, mirrored beyond them: (T, C, H, W)."""
    grid = 2 * torch.stack((x, y), -1)
    pictures = picture.expand(len(x), *picture.shape)
    return F.grid_sample(pictures, grid, align_corners=False, padding_mode="reflection")


class _Canvas:
    """Frames that are being painted, and where their pixels are."""

    def __init__(self, frames: Tensor) -> None:
        self.frames, self.size = frames, frames.shape[-1]
        self.axis = (torch.arange(self.size) + 0.5) / self.size - 0.5

    def part(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice] | None:
        """Rows and columns of what lies between two corners (T, 2) in any frame; None outside the picture."""
        first = np.floor((low.min(0) + 0.5) * self.size - 1).clip(0, self.size).astype(int)
        last = np.ceil((high.max(0) + 0.5) * self.size + 1).clip(0, self.size).astype(int)
        if (first >= last).any():
            return None
        return slice(first[1], last[1]), slice(first[0], last[0])

    def cover(self, part: tuple[slice, slice], share: Tensor, colour: Tensor) -> None:
        """Lay a colour (T, 3, h, w) over a part by its share (T, h, w) of each pixel."""
        under = self.frames[:, :, part[0], part[1]]
        under += share[:, None] * (colour - under)


def _line(values: np.ndarray) -> Tensor:
    """(T,) as it is multiplied with pixels."""
    return torch.from_numpy(values.astype(np.float32))[:, None, None]


def _background(scene: Scene, size: int) -> Tensor:
    """(T, 3, size, size): noise of two kinds and hard bands, seen through the camera."""
    place, bank = scene.place, noise_fields()
    palette = torch.from_numpy(place["palette"].astype(np.float32))[..., None, None]
    strength, fine_strength, left, top, _, scale = place["texture"].tolist()
    seed, wide = int(place["seed"][0]), int(WORLD * size)
    axis = WORLD * ((torch.arange(wide) + 0.5) / wide - 0.5)
    x, y = axis[None, None, :].expand(1, wide, wide), axis[None, :, None].expand(1, wide, wide)
    coarse = _sampled(bank[BANK // 3 + seed % (BANK - BANK // 3)], scale * x + left, scale * y + top)[0]
    image = palette[0] + (palette[1] - 0.5) * 0.5 * coarse
    for number, (turn, offset, width, strong) in enumerate(place["edges"].tolist()):
        if number == 0:  # the floor
            share = ((y[0] - 0.2 * offset - 0.15) * size).clamp(0, 1)
        elif strong > 0:
            way = np.sin(3.2 * turn) * x[0] + np.cos(3.2 * turn) * y[0] - 0.7 * offset
            share = ((0.15 * abs(width) - way.abs()) * size).clamp(0, 1)
        else:
            continue
        image = image + share * (palette[2 + number] - image)
    image = image + strength * _sampled(bank[(seed // 7) % BANK], 2 * scale * x, 2 * scale * y)[0]
    camera, length = scene.camera, len(scene.camera)
    still = not np.ptp(camera, axis=0).any()
    ax = torch.arange(size).add(0.5).div(size).sub(0.5)
    seen = camera[:1] if still else camera
    zoom = _line(seen[:, 2])
    px = (ax[None, None, :] / zoom - _line(seen[:, 0])).expand(len(seen), size, size)
    py = (ax[None, :, None] / zoom - _line(seen[:, 1])).expand(len(seen), size, size)
    frames = _sampled(image, px / WORLD, py / WORLD).expand(length, 3, size, size).clone()
    if place["flow"].any():  # water, leaves, smoke
        flow = place["flow"]
        moving = _sampled(
            bank[(seed // 11) % BANK],
            scale * ((px + _line(flow[:, 0])).expand(length, size, size)),
            scale * ((py + _line(flow[:, 1])).expand(length, size, size)),
        )
        frames += (0.05 + fine_strength) * moving
    return frames


def _paint_shape(canvas: _Canvas, shape: Shape, tint: np.ndarray, camera: np.ndarray, seed: int) -> None:
    zoom = camera[:, 2]
    centre = (shape.centre + camera[:, :2]) * zoom[:, None]
    size = shape.size * zoom[:, None]
    reach = (np.abs(size).max(1) * (1 + np.abs(shape.depth)) * (1.5 + np.abs(shape.shear)))[:, None]
    part = canvas.part(centre - reach, centre + reach)
    if part is None:
        return
    x, y = canvas.axis[None, None, part[1]], canvas.axis[None, part[0], None]
    dx, dy = x - _line(centre[:, 0]), y - _line(centre[:, 1])
    cos, sin = _line(np.cos(shape.angle)), _line(np.sin(shape.angle))
    v = cos * dy - sin * dx
    u = cos * dx + sin * dy - _line(shape.shear) * v
    thin = np.where(np.abs(size) < 0.004, 0.004, size)
    u, v = u / _line(thin[:, 0]), v / _line(thin[:, 1])
    edge = 1 + _line(shape.depth) * torch.cos(shape.lobes * torch.atan2(v, u) + _line(shape.swirl))
    if shape.square == 2:
        radius = (u * u + v * v).sqrt()
    else:
        radius = (u.abs().pow(shape.square) + v.abs().pow(shape.square)).pow(1 / shape.square)
    share = ((edge - radius) * _line(np.abs(thin).min(1)) * canvas.size + 0.5).clamp(0, 1)
    if not shape.shown.all():
        share = share * _line(np.broadcast_to(shape.shown, len(size)))
    noise = _sampled(noise_fields()[(seed // 3) % BANK], 0.2 * u, 0.2 * v)
    mix = (0.5 + 0.6 * noise).clamp(0, 1)
    colours = torch.from_numpy(tint.astype(np.float32))[..., None, None]
    canvas.cover(part, share, colours[0] * mix + colours[1] * (1 - mix))


def _paint_capsules(canvas: _Canvas, scene: Scene) -> None:
    """Of two that cover a pixel the nearer one shows; ``nearest`` (T, S, S) is how near that is."""
    zoom = scene.camera[:, None, None, 2]
    ends = (scene.ends + scene.camera[:, None, None, :2]) * zoom[..., None]
    radii = scene.radii * zoom
    nearest = torch.full((len(ends), canvas.size, canvas.size), -torch.inf)
    for number in scene.depth.mean(0).argsort():  # far to near where nobody changes places: edges blend well
        depth = _line(scene.depth[:, number])
        _paint_capsule(canvas, ends[:, number], radii[:, number], scene.colours[number], (depth, nearest))


def _paint_capsule(
    canvas: _Canvas, ends: np.ndarray, radii: np.ndarray, colour: np.ndarray, hidden: tuple[Tensor, Tensor]
) -> None:
    """Ends (T, 2, 2), radii (T, 2), colour (3,); its depth (T, 1, 1), and the nearest so far."""
    reach = radii.max(1)[:, None]
    part = canvas.part(ends.min(1) - reach, ends.max(1) + reach)
    if part is None:
        return
    a, b = ends[:, 0], ends[:, 1] - ends[:, 0]
    square = np.maximum((b * b).sum(1), 1e-8)
    px = canvas.axis[None, None, part[1]] - _line(a[:, 0])
    py = canvas.axis[None, part[0], None] - _line(a[:, 1])
    along = (px * _line(b[:, 0] / square) + py * _line(b[:, 1] / square)).clamp_(0, 1)
    dx, dy = px - along * _line(b[:, 0]), py - along * _line(b[:, 1])
    gap = (dx * dx + dy * dy).sqrt_()
    radius = along.mul_(_line(radii[:, 1] - radii[:, 0])).add_(_line(radii[:, 0]))
    share = ((radius - gap) * canvas.size + 0.5).clamp_(0, 1)
    depth, nearest = hidden[0], hidden[1][:, part[0], part[1]]
    share *= depth >= nearest
    nearest.copy_(torch.where(share > 0.5, depth, nearest))
    # Round: darker towards the border, lit from above.
    light = 1.08 - 0.28 * (gap / radius).clamp_(max=1) - 0.25 * (dy / radius).clamp_(-1, 1)
    canvas.cover(part, share, torch.from_numpy(colour.astype(np.float32))[:, None, None] * light[:, None])


def _recorded(scene: Scene, frames: Tensor) -> Tensor:
    """Light, blur, noise, coarse steps of a compression; uint8."""
    place, size = scene.place, frames.shape[-1]
    axis = (torch.arange(size) + 0.5) / size - 0.5
    across, down = (2 * place["slope"]).tolist()
    frames *= 1 + across * axis + down * axis[:, None]
    frames *= torch.from_numpy(place["light"].astype(np.float32))[..., None, None]
    grain, blurred, blocky, step = place["record"].tolist()
    if blurred:
        frames = F.avg_pool2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), 3, 1)
    if grain:
        white, seed = noise_fields()[0, 0].flatten(), int(place["seed"][0])
        starts = [(seed + 7919 * t) % (SIDE * SIDE - size * size) for t in range(len(frames))]
        noise = torch.stack([white[start : start + size * size].view(1, size, size) for start in starts])
        frames += grain * noise
    if blocky:
        coarse = F.interpolate(F.avg_pool2d(frames, 4), scale_factor=4.0)
        frames = coarse + torch.round((frames - coarse) / step) * step
    return (frames * 255).round_().clamp_(0, 255).to(torch.uint8)


def paint(scene: Scene, size: int) -> Tensor:
    """The frames of a scene, uint8 (T, 3, size, size); ``size`` a multiple of 4, at most 240."""
    canvas, seed = _Canvas(_background(scene, size)), int(scene.place["seed"][0])
    for number in reversed(range(len(scene.shapes))):
        tint = scene.shape_colours[number]
        _paint_shape(canvas, scene.shapes[number], tint, scene.camera, seed + 17 * number)
    _paint_capsules(canvas, scene)
    return _recorded(scene, canvas.frames)
