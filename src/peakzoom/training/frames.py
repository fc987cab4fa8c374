"""Decoding the videos of a training into the cache, and what is learnt of them on the way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from peakzoom.data.cache import AUTO_LIMIT, CachedVideo, FrameCache, cache_home, fill, free_bytes
from peakzoom.data.entries import Entry, Problem
from peakzoom.data.loading import used_in_part
from peakzoom.training.distributed import is_main_process, launched, place
from peakzoom.training.options import Options, Say
from peakzoom.training.recipes import Recipe
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.progress import progress_bar
from peakzoom.video.clips import clip_span
from peakzoom.video.guard import guarded
from peakzoom.video.scan import probe


def _decode_all(
    entries: Sequence[Entry], recipe: Recipe, options: Options, say: Say
) -> tuple[dict[Path, CachedVideo], list[Problem], Recipe]:
    """Fill the cache (or look at the files, without one) and settle what the recipe leaves to the data."""
    paths = [entry.path for entry in entries]
    started = launched()
    workers = options.workers
    if workers is None:
        workers = max(1, (os.cpu_count() or 1) // (started[0] if started else 1))
    sample = paths[:: max(1, len(paths) // 16)][:16]
    infos = []
    for path in sample:
        try:
            infos.append(guarded(path, probe, path))
        except DecodeError:
            continue  # counted below, with all files, or by the loader when it meets the file
    if not infos:
        raise UserError(
            f"none of {len(sample)} videos could be decoded; run 'peakzoom data check' on this data"
        )
    pre = recipe.preprocess
    rates = [info.fps for info in infos if info.fps > 0]
    if recipe.same_rate and pre.fps is None and rates and max(rates) > 1.2 * min(rates):
        pre = replace(pre, fps=float(np.median(rates)))
        say(
            f"frame rates differ ({min(rates):.3g} to {max(rates):.3g}): all videos are taken at {pre.fps:.3g} a second"
        )
    lengths = [info.duration * pre.fps if pre.fps else info.frames for info in infos]

    height, width = pre.stored_canvas
    size = int(np.mean(lengths) * height * width * 3 * len(paths))
    folder = cache_home()
    use = options.cache == "on" or (
        options.cache == "auto" and size <= min(AUTO_LIMIT, free_bytes(folder) // 2)
    )
    cached: dict[Path, CachedVideo] = {}
    problems: list[Problem] = []
    if use:
        say(f"decoding {len(paths)} videos into {folder} (about {size / 1e9:.2g} GB at {width} x {height})")
        with progress_bar(f"decoding {len(paths)} videos", options.progress and is_main_process()) as told:
            # Each process begins elsewhere, and finds there what the others have decoded when it comes to it.
            rank, world = place()
            begin = rank * len(paths) // world
            turned = paths[begin:] + paths[:begin]
            found = fill(FrameCache(folder, pre.stored_canvas, pre.fps), turned, workers, told)
        for path in dict.fromkeys(paths):
            result = found[path]
            if isinstance(result, DecodeError):
                problems.append(Problem(str(path), result.reason))
            else:
                cached[path] = result
                if result.problem:
                    problems.append(used_in_part(path, result.problem))
        lengths = [video.frames for video in cached.values()] or lengths
    else:
        say(
            f"no cache of decoded frames ({size / 1e9:.3g} GB; --set cache=on makes one): "
            "videos are decoded each time, and broken ones are listed when they are met"
        )
    if recipe.stride is None:
        stride = max(1, round((recipe.reach * float(np.median(lengths)) - 1) / max(1, pre.frames - 1)))
        pre = replace(pre, stride=stride)
        say(
            f"frame stride {stride}: a clip of {pre.frames} frames spans {clip_span(pre.frames, stride)} "
            f"of a median video's {np.median(lengths):.0f}"
        )
    else:
        pre = replace(pre, stride=recipe.stride)
    return cached, problems, replace(recipe, preprocess=pre)
