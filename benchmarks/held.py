"""Clips that a GPU holds whole, for many short trainings: rendered or decoded once into plain arrays, changed there.

Frames are kept as a training caches them (216 x 216, uint8) and cropped, mirrored and recoloured where the network is,
by the draws of a recipe. Test clips are the middle crop at the network's size, with the place of the acting part.

    python benchmarks/held.py CLIPS --train 400 --test 400 --workers 16      # quickstart's settings; CLIPS is a folder
    python benchmarks/held.py CLIPS --train 0 --real WEIZMANN/clips.csv      # adds CLIPS/real-weizmann.npy

Networks of another size than 96 pixels: ``HELD_SIZE=224`` before this command and before those that read its clips.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from peakzoom.cli.quickstart_run import DIFFICULTY, FPS, FRAMES
from peakzoom.data.datasets import open_data
from peakzoom.data.synthetic.clips import DatasetSpec
from peakzoom.data.synthetic.people import ACTIONS
from peakzoom.data.synthetic.scene import ClipSpec, render_clip, telling_parts
from peakzoom.training.recipes import small
from peakzoom.video.clips import clip_indices, clip_span
from peakzoom.video.decode import decode
from peakzoom.video.scan import HOLD_BYTES, scan
from peakzoom.video.views import Augment, Preprocess, draw_change, resize


def _preprocess(size: int) -> Preprocess:
    """Recipe small's; at another size with a canvas as much wider than the crop, and frames no larger than it."""
    pre = small().preprocess
    canvas = size * pre.canvas[0] // pre.size
    return pre if size == pre.size else replace(pre, size=size, canvas=(canvas, canvas), zoom_source=1)


PRE = _preprocess(int(os.environ.get("HELD_SIZE", "96")))  # what starts a process hands it on
DRAWN = (192, 256) if PRE.size <= 128 else (256, 342)  # height and width of rendered clips
SIDE = PRE.stored_canvas[0]  # of the frames that are kept
MARGIN = (PRE.canvas[0] - PRE.size) // 2  # pixels of the canvas on each side of the middle crop
TEST_DIFFICULTIES = (0.2, 0.5, 0.7)
CLASSES = list(ACTIONS)


def middle_source(frames: Tensor) -> Tensor:
    """The middle crop as it is stored, uint8: (T, 3, 216, 216) -> (T, 3, 192, 192)."""
    edge = MARGIN * PRE.zoom_source
    return frames[..., edge : SIDE - edge, edge : SIDE - edge]


def middle(frames: Tensor) -> Tensor:
    """The middle crop at the network's size, uint8: (T, 3, 216, 216) -> (T, 3, 96, 96)."""
    return F.avg_pool2d(middle_source(frames).float(), PRE.zoom_source).round_().to(torch.uint8)


def _render(job: tuple[ClipSpec, Path, int, bool]) -> dict[str, Any]:
    spec, file, number, test = job
    torch.set_num_threads(1)
    frames = resize(torch.from_numpy(render_clip(spec)), SIDE, SIDE)
    np.load(file, mmap_mode="r+")[number] = (middle(frames) if test else frames).numpy()
    row: dict[str, Any] = {"label": CLASSES.index(spec.action)}
    if test:
        part, centres, radius = telling_parts(spec)[0]
        scale = np.array([PRE.canvas[1] / spec.width, PRE.canvas[0] / spec.height])
        row |= {
            "part": part,
            "centres": (centres * scale - MARGIN).tolist(),
            "radii": (radius * scale).tolist(),
        }
    return row


def _length(path: Path) -> int:
    """Frames of a file, counted by decoding."""
    return scan(path, HOLD_BYTES).info.frames


def _decode(job: tuple[Path, Path, int]) -> int:
    path, file, number = job
    torch.set_num_threads(1)
    frames = decode(path, None, PRE.stored_canvas).frames.numpy()
    np.load(file, mmap_mode="r+")[number, : len(frames)] = frames
    return len(frames)


def new_array(file: Path, shape: tuple[int, ...]) -> None:
    """Make a file of zeros that processes fill in parts."""
    np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape).flush()


def render(
    folder: Path, train: int, test: int, seed: int, workers: int, difficulties: Sequence[float], first: int
) -> None:
    """Write test clips of each difficulty and training clips, the ``first`` of these before all others.

    ``NAME.json`` is written when ``NAME.npy`` is whole; ``train.json`` lists as many clips as are there so far.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def of_split(wanted: str, difficulty: float) -> list[ClipSpec]:
        like = DatasetSpec(
            train,
            test,
            height=DRAWN[0],
            width=DRAWN[1],
            frames=FRAMES,
            fps=FPS,
            difficulty=difficulty,
            seed=seed,
        )
        return [spec for _, split, spec in like.clips() if split == wanted]

    plans: list[tuple[str, list[ClipSpec], int]] = []
    for difficulty in difficulties:
        plans.append((f"test-{difficulty}", of_split("test", difficulty), 0))
    every = of_split("train", DIFFICULTY)
    plans.insert(1, ("train", every[:first], 0))
    plans.append(("train", every[first:], first))
    new_array(folder / "train.npy", (train, FRAMES, 3, SIDE, SIDE))
    rows: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(workers) as pool:
        for name, specs, begin in plans:
            is_test, file = name != "train", folder / f"{name}.npy"
            if is_test:
                new_array(file, (len(specs), FRAMES, 3, PRE.size, PRE.size))
            jobs = [(spec, file, begin + number, is_test) for number, spec in enumerate(specs)]
            rows.setdefault(name, []).extend(pool.map(_render, jobs, chunksize=4))
            draft = folder / f"{name}.draft"
            draft.write_text(json.dumps(rows[name]))
            draft.rename(folder / f"{name}.json")
            print(f"{name}: {len(rows[name])} clips", flush=True)


def read_real(table: Path, folder: Path, workers: int) -> None:
    """Write ``real-NAME.npy`` and ``.json`` of whatever data set peakzoom reads; NAME is its folder's."""
    entries = open_data(table).entries
    array = folder / f"real-{table.parent.name}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [entry.path for entry in entries]
    with ProcessPoolExecutor(workers) as pool:
        new_array(array, (len(entries), max(pool.map(_length, paths, chunksize=2)), 3, SIDE, SIDE))
        lengths = list(pool.map(_decode, [(path, array, number) for number, path in enumerate(paths)]))
    found = [
        {"label": entry.label, "group": entry.group or str(entry.path), "frames": frames}
        for entry, frames in zip(entries, lengths, strict=True)
    ]
    array.with_suffix(".json").write_text(json.dumps(found))
    print(f"{array.stem}: {len(entries)} clips", flush=True)


@dataclass
class Clips:
    """Frames uint8 (N, F, 3, S, S) on a device, classes (N,), and what else is known of each clip."""

    frames: Tensor
    labels: Tensor
    rows: list[dict[str, Any]]

    @property
    def lengths(self) -> list[int]:
        return [row.get("frames", self.frames.shape[1]) for row in self.rows]


def read(
    folder: Path, name: str, device: torch.device, count: int | None = None, patience: float = 0
) -> Clips:
    """An array and its list, of ``count`` clips at least where that is given; waits for them if it must."""
    until = time.monotonic() + patience
    while True:
        file = folder / f"{name}.json"
        rows = json.loads(file.read_text()) if file.exists() else []
        if rows and len(rows) >= (count or 1):
            break
        if time.monotonic() > until:
            raise SystemExit(f"{file} lists {len(rows)} clips, expected {count or 'some'}")
        time.sleep(0.5)
    rows = rows[:count]
    stored = np.load(folder / f"{name}.npy", mmap_mode="r")
    longest = max(row.get("frames", stored.shape[1]) for row in rows)
    frames = torch.empty((len(rows), longest, *stored.shape[2:]), dtype=torch.uint8, device=device)
    for number in range(len(rows)):  # a large array is never in memory whole
        frames[number] = torch.from_numpy(np.array(stored[number, :longest])).to(device)
    return Clips(frames, torch.tensor([row["label"] for row in rows], device=device), rows)


@dataclass
class Draws:
    """All random choices of a training, a row a step, on the device."""

    frames: Tensor  # int64 (steps, B, T), into clips and frames laid end to end
    labels: Tensor  # int64 (steps, B)
    crop: Tensor  # float32 (steps, B, 2, 3), as affine_grid takes it
    colour: Tensor  # float32 (steps, B, 2), gain and contrast


def draw(
    clips: Clips, numbers: Iterable[int], steps: int, batch: int, stride: int, augment: Augment, seed: int
) -> Draws:
    """Batches of a training on some of the clips, which pass in a new order every epoch."""
    numbers, random = list(numbers), np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-steps * batch // len(numbers))
    order = np.concatenate([random.permutation(numbers) for _ in range(epochs)])[: steps * batch]
    lengths = np.array(clips.lengths)[order]
    starts = random.integers(0, np.maximum(lengths - clip_span(PRE.frames, stride), 0) + 1)
    longest = clips.frames.shape[1]
    chosen = [
        clip * longest + clip_indices(int(start), int(length), PRE.frames, stride)
        for clip, start, length in zip(order, starts, lengths, strict=True)
    ]
    changes = [draw_change(SIDE, SIDE, PRE, augment, generator) for _ in order]
    box = np.array([(each.left, each.top, each.width, each.height) for each in changes]) / SIDE
    sign = np.array([-1 if each.flip else 1 for each in changes])
    crop = np.zeros((len(order), 2, 3), np.float32)
    crop[:, 0, 0], crop[:, 1, 1] = sign * box[:, 2], box[:, 3]
    crop[:, :, 2] = 2 * box[:, :2] + box[:, 2:] - 1
    colour = np.array([(each.gain, each.contrast) for each in changes], np.float32)
    device = clips.frames.device

    def table(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device).unflatten(0, (steps, batch))

    labels = clips.labels[torch.from_numpy(order).to(device)].unflatten(0, (steps, batch))
    return Draws(table(np.stack(chosen)), labels, table(crop), table(colour))


def normalised(views: Tensor) -> Tensor:
    """Pixels from 0 to 255, (B, T, 3, s, s), as the network takes them, (B, 3, T, s, s)."""
    return ((views - 255 * PRE.mean[0]) / (255 * PRE.std[0])).transpose(1, 2)


def training_sources(frames: Tensor, chosen: Tensor, crop: Tensor, colour: Tensor) -> Tensor:
    """The frames that zoomed videos of a batch are read from in training, (B, 3, T, s, s), normalised.

    Args:
        frames: uint8 (N, F, 3, S, S).
        chosen, crop, colour: a step of :class:`Draws`.
    """
    batch, length = chosen.shape
    flat = frames.view(-1, frames.shape[2] * SIDE * SIDE).index_select(0, chosen.flatten())
    images = flat.view(batch, length * 3, SIDE, SIDE).float()
    side = PRE.source_size
    grid = F.affine_grid(crop, [batch, 1, side, side], align_corners=False)
    views = F.grid_sample(images, grid, padding_mode="border", align_corners=False).unflatten(1, (length, 3))
    mean = views.mean((1, 2, 3, 4), keepdim=True)
    gain, contrast = colour[:, 0, None, None, None, None], colour[:, 1, None, None, None, None]
    return normalised((gain * (contrast * (views - mean) + mean)).clamp(0, 255))


def smaller(sources: Tensor) -> Tensor:
    """What a network sees of these, (B, 3, T, s, s)."""
    return F.avg_pool3d(sources, (1, PRE.zoom_source, PRE.zoom_source))


def training_views(frames: Tensor, chosen: Tensor, crop: Tensor, colour: Tensor) -> Tensor:
    """What a network sees of a batch in training, (B, 3, T, s, s)."""
    return smaller(training_sources(frames, chosen, crop, colour))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--train", type=int, default=400, help="rendered clips; 0: none, for tests neither")
    parser.add_argument("--test", type=int, default=400, help="of each difficulty")
    parser.add_argument("--difficulties", default=",".join(map(str, TEST_DIFFICULTIES)), help="of the tests")
    parser.add_argument(
        "--first", type=int, default=400, help="training clips that can be read before the others"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--real", type=Path, action="append", default=[])
    asked = parser.parse_args()
    for table in asked.real:
        read_real(table, asked.clips, asked.workers)
    if asked.train:
        difficulties = [float(each) for each in asked.difficulties.split(",")]
        settings = (asked.train, asked.test, asked.seed, asked.workers, difficulties, asked.first)
        render(asked.clips, *settings)


if __name__ == "__main__":
    main()
