"""Long videos of a set's clips, one after another with gaps in which nothing happens, and the list of their segments.

::

    python benchmarks/joined.py CLIPS.csv OUT

A video holds the clips of one group, so groups stay apart. In a gap the last frame of the clip before stands still and
fades into the first one of the next. One camera films it all by hand: smooth shake and the noise of a sensor run
through clips and gaps alike, so that neither tells them apart. Every other group is for testing. Rows say ``start`` and
``end`` in seconds; what lies between is labelled by nobody.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from peakzoom.data.datasets import open_data
from peakzoom.data.entries import Entry
from peakzoom.data.synthetic.clips import empty_folder, write_frames
from peakzoom.data.synthetic.scene import ClipSpec
from peakzoom.utils.durable import write_csv
from peakzoom.utils.segments import time_text, written_time
from peakzoom.video.clips import resample
from peakzoom.video.decode import decode

RATE, SIZE = 15, (180, 240)  # frames a second; height, width
SHAKE, NOISE = 4.0, 3.0  # pixels at most; levels of 255, the deviation
FADE = 0.5  # seconds at the end of a gap


def frames_of(path: Path) -> Tensor:
    """A clip at RATE, inside SIZE with its sides blurred at the borders: uint8 (T, 3, H, W)."""
    video = decode(path)
    picked = video.frames[torch.from_numpy(resample(video.timestamps, RATE))].float()
    height, width = picked.shape[2:]
    scale = min(SIZE[0] / height, SIZE[1] / width)
    inner = F.interpolate(
        picked, (round(height * scale), round(width * scale)), mode="bilinear", antialias=True
    )
    down, right = SIZE[0] - inner.shape[2], SIZE[1] - inner.shape[3]
    padding = (right // 2, right - right // 2, down // 2, down - down // 2)
    return F.pad(inner, padding, mode="replicate").clamp(0, 255).byte()


def smooth(length: int, rng: np.random.Generator) -> np.ndarray:
    """A wandering value in [-1, 1], (length,)."""
    at = np.arange(length) / RATE
    waves = [np.sin(2 * np.pi * (rng.uniform(0.1, 0.9) * at + rng.uniform())) for _ in range(4)]
    return np.mean(waves, 0)


def film(frames: Tensor, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The frames (T, 3, H, W) as a camera in a hand sees them, one by one, uint8 (H, W, 3)."""
    moves = [SHAKE * smooth(len(frames), rng) for _ in range(2)]
    for number, frame in enumerate(frames):
        theta = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        theta[:, 2] = torch.tensor([2 * moves[1][number] / SIZE[1], 2 * moves[0][number] / SIZE[0]])
        grid = F.affine_grid(theta[None], [1, 3, *SIZE], align_corners=False)
        seen = F.grid_sample(frame[None].float(), grid, padding_mode="border", align_corners=False)[0]
        noisy = seen.permute(1, 2, 0).numpy() + rng.normal(0, NOISE, (*SIZE, 1))
        yield noisy.clip(0, 255).round().astype(np.uint8)


def join(
    clips: list[Tensor], gap: tuple[float, float], rng: np.random.Generator
) -> tuple[Tensor, list[tuple[int, int]]]:
    """All clips with a gap before, between and after them; the first frame of each, and the one after its last."""
    parts, places, at = [], [], 0
    fade = round(FADE * RATE)
    for number in range(len(clips) + 1):
        before = clips[number - 1][-1] if number else clips[0][0]
        after = clips[number][0] if number < len(clips) else before
        length = max(round(RATE * rng.uniform(*gap)), fade + 1)
        share = torch.zeros(length)
        share[-fade:] = torch.linspace(0, 1, fade)
        share = share[:, None, None, None]
        parts.append(((1 - share) * before + share * after).round().byte())
        at += length
        if number < len(clips):
            parts.append(clips[number])
            places.append((at, at + len(clips[number])))
            at += len(clips[number])
    return torch.cat(parts), places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a list of clips with groups")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--gap", type=float, nargs=2, default=(1.5, 5.0), help="seconds, least and most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    videos, out = open_data(options.data), empty_folder(options.out)
    out.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Entry]] = {}
    for entry in videos.entries:
        groups.setdefault(str(entry.group), []).append(entry)
    rows = []
    for number, name in enumerate(sorted(groups)):
        rng = np.random.default_rng([options.seed, number])
        entries = [groups[name][place] for place in rng.permutation(len(groups[name]))]
        frames, places = join([frames_of(entry.path) for entry in entries], tuple(options.gap), rng)
        spec = ClipSpec("wave", height=SIZE[0], width=SIZE[1], frames=len(frames), fps=RATE)
        write_frames(film(frames, rng), spec, out / f"{name}.mp4")
        split = "test" if number % 2 else "train"
        for entry, (start, end) in zip(entries, places, strict=True):
            rows.append(
                (
                    f"{name}.mp4",
                    videos.classes[entry.label],
                    split,
                    name,
                    *(time_text(written_time(frame / RATE)) for frame in (start, end)),
                )
            )
        print(f"{name}: {len(entries)} clips in {len(frames) / RATE:.1f} s, {split}", flush=True)
    write_csv(out / "clips.csv", ("path", "label", "split", "group", "start", "end"), rows)


if __name__ == "__main__":
    main()
