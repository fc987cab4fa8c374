"""The videos of a training decoded into the cache, and what the recipe leaves to them: rate, stride, size of frames."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from peakzoom.data.cache import AUTO_LIMIT, CachedVideo, FrameCache, fill, frames_home
from peakzoom.data.entries import Problem
from peakzoom.data.loading import used_but
from peakzoom.training.distributed import is_main_process, launched, place
from peakzoom.training.native import with_source
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe
from peakzoom.utils.durable import free_bytes
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.processors import processors
from peakzoom.utils.progress import progress_bar
from peakzoom.utils.segments import segment_of
from peakzoom.utils.words import counted
from peakzoom.video.clips import clip_span
from peakzoom.video.guard import guarded
from peakzoom.video.scan import VideoInfo, probe
from peakzoom.video.views import Preprocess, differ

log = logging.getLogger(__name__)

SAMPLE = 16  # videos that are looked at before all are decoded


@dataclass(frozen=True)
class Frames:
    """Decoded videos.

    Attributes:
        preprocess: how clips are made of them, with their rate and stride.
        cached: frames by video; empty without a cache.
        problems: of videos that gave no frames, or not all. Without a cache nothing is known of them yet.
        lost: the videos that gave none.
    """

    preprocess: Preprocess
    cached: dict[Path, CachedVideo] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    lost: set[Path] = field(default_factory=set)


def decode_all(paths: Sequence[Path], recipe: Recipe, options: Options) -> Frames:
    """Fill the cache, or look at some of the files without one, and settle what the recipe leaves to the data.

    Raises:
        UserError: of the files that are looked at first none can be decoded.
    """
    infos = _probe(paths[:: max(1, len(paths) // SAMPLE)][:SAMPLE])
    pre = with_source(recipe, _with_rate(recipe, infos), infos)
    lengths = [info.duration * pre.fps if pre.fps else info.frames for info in infos]
    height, width = pre.stored_canvas
    size = int(np.mean(lengths) * height * width * 3 * len(paths))
    folder = frames_home()
    if options.cache == "on" or (
        options.cache == "auto" and size <= min(AUTO_LIMIT, free_bytes(folder) // 2)
    ):
        log.info(
            f"decoding {counted(len(paths), 'video')} into {folder} (about {size / 1e9:.2g} GB at {width} x {height})"
        )
        frames = _fill(FrameCache(folder, pre.stored_canvas, pre.fps), paths, options, pre)
        lengths = [video.frames for video in frames.cached.values()] or lengths
    elif options.cache == "auto" and any(map(segment_of, paths)):
        raise UserError(
            f"segments of files are trained on from a cache of decoded frames, which would take {size / 1e9:.3g} GB in "
            f"{folder}: --set cache=on makes it all the same, a smaller --size makes it smaller"
        )
    else:
        log.info(
            f"no cache of decoded frames ({size / 1e9:.3g} GB; --set cache=on makes one): "
            "videos are decoded each time, and broken ones are listed when they are met"
        )
        frames = Frames(pre)
    pre = _with_stride(recipe, pre, float(np.median(lengths)))
    _say_short(pre, lengths, "" if frames.cached else " that were looked at")
    return replace(frames, preprocess=pre)


def _probe(sample: Sequence[Path]) -> list[VideoInfo]:
    infos = []
    for path in sample:
        with suppress(DecodeError):  # counted when all are decoded, or by the loader when it meets the file
            infos.append(guarded(path, probe, path))
    if not infos:
        raise UserError(
            f"none of {counted(len(sample), 'video')} could be decoded; run 'peakzoom data check' on this data"
        )
    return infos


def _with_rate(recipe: Recipe, infos: Sequence[VideoInfo]) -> Preprocess:
    """Videos of different rates are brought to the median one, where the recipe wants that; one rate is noted."""
    pre = recipe.preprocess
    rates = [info.fps for info in infos if info.fps > 0]
    if pre.fps is not None or not rates:
        return pre
    median = statistics.median_low(rates)  # one that some video has
    if not differ(rates):
        return replace(pre, trained_fps=median)
    found = f"frame rates differ ({min(rates):.3g} to {max(rates):.3g})"
    if not recipe.same_rate:
        log.info(
            f"{found}, and videos are taken as they are: --set same_rate=true brings them to {median:.3g}"
        )
        return pre
    log.info(f"{found}: all videos are taken at {median:.3g} a second")
    return replace(pre, fps=median)


def _with_stride(recipe: Recipe, pre: Preprocess, length: float) -> Preprocess:
    """The recipe's stride, or the one at which a clip spans its share of the median video."""
    if recipe.stride is not None:
        return replace(pre, stride=recipe.stride)
    stride = max(1, round((recipe.reach * length - 1) / max(1, pre.frames - 1)))
    log.info(
        f"frame stride {stride}: a clip of {counted(pre.frames, 'frame')} spans {clip_span(pre.frames, stride)}, "
        f"and a median video has {length:.0f}"
    )
    return replace(pre, stride=stride)


def _say_short(pre: Preprocess, lengths: Sequence[float], which: str) -> None:
    """Log how many videos are shorter than a clip; ``which`` says which ones were counted."""
    span = clip_span(pre.frames, pre.stride)
    if short := sum(round(length) < span for length in lengths):
        log.info(
            f"{short} of {counted(len(lengths), 'video')}{which} {'is' if short == 1 else 'are'} shorter than a clip, "
            f"which spans {counted(span, 'frame')}: clips of these repeat from the beginning"
        )


def _fill(cache: FrameCache, paths: Sequence[Path], options: Options, pre: Preprocess) -> Frames:
    """Decode what the cache does not have yet."""
    workers = options.workers
    if workers is None:
        processes, _ = launched() or (1, 1)
        workers = max(1, processors() // processes)
    # Each process begins elsewhere, and finds there what the others have decoded when it comes to it.
    rank, world = place()
    begin = rank * len(paths) // world
    with progress_bar(
        f"decoding {counted(len(paths), 'video')}", options.progress and is_main_process()
    ) as report:
        results = fill(cache, [*paths[begin:], *paths[:begin]], workers, report)
    if renewed := sum(isinstance(each, CachedVideo) and each.renewed for each in results.values()):
        log.warning(
            f"{renewed} of {len(results)} videos were damaged in the cache {cache.folder} and have been decoded anew: "
            "look at that disk"
        )
    frames = Frames(pre)
    for path in dict.fromkeys(paths):
        result = results[path]
        if isinstance(result, DecodeError):
            frames.problems.append(Problem(str(path), result.reason))
            frames.lost.add(path)
            continue
        frames.cached[path] = result
        if result.problem:
            frames.problems.append(used_but(path, result.problem))
    return frames
