"""Which frames make a clip: frame numbers only, no pixels.

A clip is ``frames`` frames, ``stride`` apart; the stretch of video that it covers is its span,
``s = (frames - 1) * stride + 1``. Below, a digit is a frame that the clip takes and a dot one that it passes
over.

One clip of 4 frames, stride 3, start 2, from a video of 14 frames (span 10)::

    frame     0  1  2  3  4  5  6  7  8  9 10 11 12 13
              .  .  0  .  .  1  .  .  2  .  .  3  .  .
                    |<--------- span ---------->|

A video shorter than the span repeats from its beginning (docs/choices.md): of 7 frames, start 0, the same clip takes
0, 3, 6 and 2.

Training takes one clip at a random start (:func:`random_clip`). A test takes several, by one of the rules of
:data:`CLIP_RULES`, each ``rule(n, frames, stride, clips) -> (clips, frames)``. With 16 frames in the video,
clips of 4 frames, stride 2 and 3 clips they read::

    frame                0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15

    paper       clip 0   0  .  1  .  2  .  3  .  .  .  .  .  .  .  .  .     starts 0, 4, 9: both ends are seen
                clip 1   .  .  .  .  0  .  1  .  2  .  3  .  .  .  .  .
                clip 2   .  .  .  .  .  .  .  .  .  0  .  1  .  2  .  3

    slowfast    clip 0   0  .  1  .  2  .  .  3  .  .  .  .  .  .  .  .     starts 0, 2.67, 5.33, step 7/3;
                clip 1   .  .  0  .  .  1  .  2  .  3  .  .  .  .  .  .     the video's end is never seen
                clip 2   .  .  .  .  .  0  .  1  .  .  2  .  3  .  .  .

    tsn-uniform clip 0   0  .  .  .  1  .  .  .  2  .  .  .  3  .  .  .     the middles of 12 equal segments,
                clip 1   .  .  0  .  .  .  1  .  .  2  .  .  .  3  .  .     dealt out to the clips in turn
                clip 2   .  .  .  0  .  .  .  1  .  .  .  2  .  .  .  3

Frame numbers count from 0 (several of the sources count image files from 1). What surprises in the rules of other code
bases stands in docs/runs.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from peakzoom.utils.errors import UserError

# TSM samples "densely" in windows of 64 frames, as I3D does (ops/dataset.py of the TSM repository).
TSM_WINDOW = 64

# Matroska and FLV keep whole milliseconds: a frame due at 66.67 ms is stamped 67. A frame counts as on
# display from this much before its timestamp, or else a 30 fps video resampled to 30 fps would repeat and
# drop frames.
TIMESTAMP_ROUNDING = 1e-3


def clip_span(frames: int, stride: int) -> int:
    """Frames of video from a clip's first to its last frame, both counted: (frames - 1) * stride + 1."""
    return (frames - 1) * stride + 1


def clip_indices(start: int | np.ndarray, n: int, frames: int, stride: int) -> np.ndarray:
    """Frame numbers of a clip: ``start + stride * k`` for k = 0 .. frames - 1, modulo ``n``, the video's frames.

    ``start`` is the first frame, or an array of any shape of first frames, one a clip; the result is int64,
    ``(*start.shape, frames)``.
    """
    first = np.asarray(start, dtype=np.int64)
    return (first[..., None] + stride * np.arange(frames, dtype=np.int64)) % n


def random_clip(n: int, frames: int, stride: int, generator: torch.Generator) -> np.ndarray:
    """The training clip, int64 ``(frames,)``: each start in [0, n - span] is as likely as any other.

    A video shorter than the span starts at 0 and repeats (docs/method.md, section 6). One number is drawn whatever the
    length, so that the draws that follow do not depend on this video.
    """
    last = max(n - clip_span(frames, stride), 0)
    start = int(torch.randint(last + 1, (), generator=generator))
    return clip_indices(start, n, frames, stride)


def even_clips(n: int, frames: int, stride: int, clips: int = 10) -> np.ndarray:
    """The paper's test clips: starts spread evenly over [0, n - span], both ends included, rounded down.

    start_i = floor(i (n - s) / (clips - 1)), i = 0 .. clips - 1 (docs/method.md, section 6). A single clip, of which
    the paper does not speak, is the middle one. A video not longer than the span gives ``clips`` equal clips.
    """
    last = max(n - clip_span(frames, stride), 0)
    starts = np.array([last // 2]) if clips == 1 else np.arange(clips, dtype=np.int64) * last // (clips - 1)
    return clip_indices(starts, n, frames, stride)


def clips_around(wanted: np.ndarray, n: int, frames: int, stride: int) -> np.ndarray:
    """A clip for each wanted frame that has it as near its middle as the video allows: int64 ``(wanted, frames)``.

    Here frame 5 of 12, clips of 4 frames, stride 3, which begin at 2, since one that began at -1 does not exist::

        frame    0 1 2 3 4 5 6 7 8 9 10 11
        clip         0     1     2       3

    A clip goes on at the beginning of the video only where no clip that has the frame ends with it.
    """
    first = np.asarray(wanted, dtype=np.int64)
    beyond = first + clip_span(frames, stride) - n  # how far a clip that began with the frame would reach
    place = np.minimum(np.maximum(frames // 2, -(-beyond // stride)), first // stride)
    return clip_indices(first - stride * place, n, frames, stride)


def tsm_dense_clips(n: int, frames: int, stride: int, clips: int = 10) -> np.ndarray:
    """TSM's dense test: starts over the first frames of all 64-frame windows, step 64 // frames, modulo n.

    With P = max(1, 1 + n - 64): start_i = floor(linspace(0, P - 1, clips))_i. Source:
    mit-han-lab/temporal-shift-module, ops/dataset.py, ``TSNDataSet._get_test_indices`` with ``dense_sample`` (there
    ``clips`` is fixed at 10).

    More than 64 frames would make the step 0: refused here.
    """
    if frames > TSM_WINDOW:
        raise UserError(
            f"{frames} frames do not fit TSM's window of {TSM_WINDOW}; take the rule 'paper' instead"
        )
    # linspace itself, not an integer formula: its rounding is part of the published numbers.
    starts = np.linspace(0, max(n - TSM_WINDOW, 0), num=clips, dtype=np.int64)
    return clip_indices(starts, n, frames, TSM_WINDOW // frames)


def slowfast_clips(n: int, frames: int, stride: int, clips: int = 10) -> np.ndarray:
    """SlowFast's uniform test clips (30 fps source: its change of frame rate is not part of this rule).

    With clip size c = frames * stride and delta = max(n - c, 0): the clip runs from start_i = delta i / clips
    (a fraction) to start_i + c - 1; its frames are linspace(start_i, start_i + c - 1, frames), clamped to [0,
    n - 1], rounded down. Source: facebookresearch/SlowFast, slowfast/datasets/decoder.py,
    ``get_start_end_idx`` (use_offset off, its default) and ``temporal_sampling``.

    The source computes linspace in float32, which loses one frame now and then; here the positions are exact.
    """
    size = frames * stride
    delta = max(n - size, 0)
    i = np.arange(clips, dtype=np.int64)[:, None]
    k = np.arange(frames, dtype=np.int64)[None, :]
    steps = max(frames - 1, 1)  # a clip of one frame is its start
    # floor(delta i / clips + k (size - 1) / steps) over one denominator
    index = (delta * i * steps + k * (size - 1) * clips) // (clips * steps)
    return np.minimum(index, n - 1)


def tsn_uniform_clips(n: int, frames: int, stride: int, clips: int = 1) -> np.ndarray:
    """TSN's test frames: the video in equal segments, the middle frame of each.

    With K segments and tick = n / K, segment j gives frame floor(tick / 2 + tick j). One clip: K = frames,
    which is the rule of TSN and of TSM without dense_sample. Sources: yjxiong/tsn-pytorch, dataset.py,
    ``TSNDataSet._get_test_indices``; mit-han-lab/temporal-shift-module, ops/dataset.py, the same name.

    More clips are this module's extension: K = frames * clips, and clip i takes segments i, i + clips, i + 2 clips ...
    """
    tick = n / (frames * clips)
    middles = (tick / 2.0 + tick * np.arange(frames * clips)).astype(np.int64)
    return middles.reshape(frames, clips).T.copy()


# (n, frames, stride, clips) -> int64 (clips, frames) in [0, n)
ClipRule = Callable[[int, int, int, int], np.ndarray]

CLIP_RULES: dict[str, ClipRule] = {
    "paper": even_clips,
    "tsm-dense": tsm_dense_clips,
    "slowfast": slowfast_clips,
    "tsn-uniform": tsn_uniform_clips,
}


def resample(timestamps: np.ndarray, fps: float) -> np.ndarray:
    """The frames on display at times 0, 1 / fps, 2 / fps, ... while the video lasts.

    A video of variable frame rate becomes one of constant rate, and every video gets the same rate::

        frame on display    0     1  2              3     4          (uneven timestamps)
        time                |-----|--|--------------|-----|-----|
        1 / fps grid        ^   ^   ^   ^   ^   ^   ^   ^   ^   ^
        taken               0   0   1   2   2   2   3   3   4   4    (an earlier frame stays until the next is
        due)

    The last frame stays for the mean interval (last - first) / (n - 1), so n frames at a constant rate
    resampled to that rate are the n frames, and a video of one frame gives that frame once. A frame counts as
    due 1 ms before its timestamp (or a quarter of the mean interval if that is less), for containers that
    keep whole milliseconds.

    Timestamps are float64 ``(n,)``, seconds, not decreasing; the result is int64 ``(m,)``, m >= 1, in [0, n), and does
    not decrease either. UserError if the timestamps do not advance.
    """
    if len(timestamps) == 1:
        return np.zeros(1, dtype=np.int64)
    times = timestamps - timestamps[0]
    interval = times[-1] / (len(times) - 1)
    if interval <= 0:
        raise UserError(
            f"all {len(times)} timestamps are equal, so a frame rate cannot be applied; keep every frame"
        )
    slack = min(TIMESTAMP_ROUNDING, interval / 4)
    count = max(int(np.ceil((times[-1] + interval - slack) * fps)), 1)
    grid = np.arange(count) / fps
    return np.searchsorted(times, grid + slack, side="right").astype(np.int64) - 1
