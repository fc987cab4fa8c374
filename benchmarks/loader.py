"""Whether the loader keeps the device busy: training steps on clips from cached frames, and on clips that are there.

Frames as a training caches them (random pixels, which changes nothing about time), clips chosen, cropped and changed as
a recipe has it, on a GPU by the GPU. In turn: the loader alone, the T-CNN's step alone on one batch again and again,
and both as a training does. "Busy" is what the step alone would have taken of the time of both. On a GPU in bfloat16.

    python benchmarks/loader.py --rounds 3              # on a GPU where there is one; about two minutes
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from timing import show_steps, wait
from training import ON_CPU, ON_GPU, Step, at_size

from peakzoom.data.cache import CachedVideo
from peakzoom.data.entries import Entry
from peakzoom.data.loading import ClipDataset, EpochSampler, ViewMaker, loader
from peakzoom.training.start import build

HEADER = (
    "| recipe, size | clips | loader processes | loader alone, clips a second | step alone | both | busy |\n"
    + "|---" * 7
    + "|"
)
VIDEOS, FRAMES, REPEATED = 48, 120, 10_000  # cached videos, frames of each, times it stands in the list
AHEAD = 2  # batches that each loader process holds ready, PyTorch's default
CLASSES = [str(number) for number in range(101)]


def cached(folder: Path, height: int, width: int) -> dict[Path, CachedVideo]:
    """Videos of random pixels, as :class:`~peakzoom.data.cache.FrameCache` keeps them."""
    random, found = np.random.default_rng(0), {}
    for number in range(VIDEOS):
        file = folder / f"{height}-{width}-{number}.npy"
        np.save(file, random.integers(0, 256, (FRAMES, height, width, 3), np.uint8))
        found[folder / f"{number}.mp4"] = CachedVideo(file, FRAMES, 25.0, None)
    return found


def rows(rounds: int, device: torch.device) -> Iterator[str]:
    """One line a network and number of loader processes."""
    gpu = device.type == "cuda"
    cores, steps = os.cpu_count() or 2, 20 if gpu else 10
    for name, size, clips in ON_GPU if gpu else ON_CPU:
        recipe = at_size(name, size)
        torch.manual_seed(0)
        step = Step(build(recipe, CLASSES, joint=False), recipe.preprocess, clips, device, half=gpu)
        with TemporaryDirectory() as folder:
            videos = cached(Path(folder), *recipe.preprocess.stored_canvas)
            entries = [Entry(path, place % len(CLASSES), "train") for place, path in enumerate(videos)]
            entries *= REPEATED  # no epoch ends while it is timed
            dataset = ClipDataset(entries, ViewMaker(recipe.preprocess, recipe.augment), videos)
            dataset.maker.defer = gpu and recipe.augment.computes  # as in a training
            for workers in sorted({1, max(1, cores // 2), max(1, cores - 1)}):
                stream = iter(loader(dataset, clips, workers, EpochSampler(len(dataset)), gpu))
                spent: dict[str, list[float]] = {"loader": [], "step": [], "both": []}
                for turn in range(-1, rounds):
                    for what, times in spent.items():
                        for _ in range(AHEAD * workers if what != "step" else 0):
                            next(stream)  # what was loaded ahead
                        start = time.perf_counter()
                        for _ in range(steps):
                            if what == "step":
                                step()
                                continue
                            batch = next(stream)
                            if what == "both":
                                step(*batch.to(device, recipe.preprocess.source_size)[:2])
                        wait(device)
                        if turn >= 0:
                            times.append(time.perf_counter() - start)
                medians = {what: statistics.median(times) for what, times in spent.items()}
                rates = " | ".join(f"{steps * clips / medians[what]:.1f}" for what in spent)
                yield (
                    f"| {name}, {size} | {clips} | {workers} | {rates} | {medians['step'] / medians['both']:.0%} |"
                )


def main() -> None:
    show_steps(__doc__, 3, HEADER, rows)


if __name__ == "__main__":
    main()
