"""Decoding that does not starve the model: other decoders, and the part of an evaluation that is not the network.

First table: the frames of the paper's 30 views, at the size each recipe tests at, from three decoders in turn, one
thread each. peakzoom counts and chooses the frames itself (``decode_views``); TorchCodec and a loop over OpenCV's
VideoCapture, neither of which peakzoom needs, are told which frames and what size, and resize with peakzoom's
``resize``. Their pixels are set against peakzoom's in grey levels of 255, and their frames against peakzoom's frame
of the same number and its neighbours among those chosen: one that is nearer to a neighbour is probably another frame.
From a short side of 720 on peakzoom resizes while it converts, so there the difference is the resize's too.

Second: random weights, three branches, 30 views. Decoding, cutting the views and the network one after the other (the
network's time is that of one batch of three views times ten), then all clips as evaluations run them, without a
thread that decodes (workers 0) and with one that decodes ahead while the network works (workers 1). The first clip's
decoding can hide behind nothing.

Figures are milliseconds, median (fastest to slowest) of the rounds.

    python benchmarks/decoding.py --rounds 3
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import cell, in_turn, machine, number_from, show
from torch import Tensor

from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import PeakZoom
from peakzoom.training.recipes import RECIPES
from peakzoom.utils.errors import DecodeError
from peakzoom.video.sampling import Views, decode_ahead, decode_views
from peakzoom.video.views import resize

FOLDER = Path(os.environ.get("PEAKZOOM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CLIPS = (
    "clips/ucf101_v_ApplyEyeMakeup_g01_c01.avi",
    "ut_interaction/hugging/ut_hugging_g02_i10.avi",
    "ut_interaction/punching/ut_punching_g01_i00.avi",
    "clips/decord_kinetics_flipping_a_pancake.mkv",
    "clips/mmaction2_test.mp4",
    "clips/videollava_sample_demo_22.mp4",
    "clips/ntu_S001C001P001R001A001_rgb.avi",
)
EVALUATED = (CLIPS[1], CLIPS[3], CLIPS[6])
NETWORKS = (("paper", "tcnn"), ("small", "tcnn_xs"))  # recipe, whose preprocessing; backbone
CLASSES = 101

# From a file, frame numbers (K,) and (height, width) to uint8 (K, 3, height, width).
Decoder = Callable[[Path, np.ndarray, tuple[int, int]], Tensor]

DECODERS_HEADER = (
    "| clip | recipe | decoder | ms | of peakzoom's | mean difference | largest | frames nearer to a neighbour |\n"
    + "|---" * 8
    + "|"
)
SHARES_HEADER = (
    "| network | clip | decoding, ms | cutting views, ms | network, ms | not the network "
    "| workers 0, ms | workers 1, ms | of the network's |\n" + "|---" * 9 + "|"
)


def torchcodec() -> Decoder:
    from torchcodec.decoders import VideoDecoder

    def frames(path: Path, numbers: np.ndarray, size: tuple[int, int]) -> Tensor:
        decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact")
        return resize(decoder.get_frames_at(numbers.tolist()).data, *size)

    return frames


def opencv() -> Decoder:
    import cv2

    def frames(path: Path, numbers: np.ndarray, size: tuple[int, int]) -> Tensor:
        found = torch.empty((len(numbers), *size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        slots = {int(number): slot for slot, number in enumerate(numbers)}
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        for number in range(int(numbers[-1]) + 1):
            if not capture.grab():
                raise RuntimeError(f"OpenCV reads {number} frames of {path}, expected {numbers[-1] + 1}")
            if number in slots:
                pixels = torch.from_numpy(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
                found[slots[number]] = resize(pixels.permute(2, 0, 1)[None], *size)[0]
        capture.release()
        return found

    return frames


OTHERS: dict[str, Callable[[], Decoder]] = {"TorchCodec": torchcodec, "OpenCV": opencv}


def differences(ours: Tensor, theirs: Tensor) -> tuple[float, int, int]:
    """Mean and largest difference in grey levels, and how many frames of theirs are nearer to a neighbour of ours."""
    mine, other = ours.short(), theirs.short()
    apart = (other - mine).abs()
    here = apart.float().mean((1, 2, 3))
    before, after = torch.full_like(here, torch.inf), torch.full_like(here, torch.inf)
    before[1:] = (other[1:] - mine[:-1]).abs().float().mean((1, 2, 3))
    after[:-1] = (other[:-1] - mine[1:]).abs().float().mean((1, 2, 3))
    return float(here.mean()), int(apart.max()), int((torch.minimum(before, after) < here).sum())


def decoders(rounds: int) -> Iterator[str]:
    """Lines of the first table: a clip, a recipe and a decoder each."""
    others = {}
    for name, load in OTHERS.items():
        try:
            others[name] = load()
        except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: TorchCodec without FFmpeg
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            yield f"| all | all | {name} | does not import: {reason} | | | | |"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for clip in CLIPS:
            for recipe, _ in NETWORKS:
                yield from side_by_side(FOLDER / clip, recipe, others, rounds)
    finally:
        torch.set_num_threads(threads)


def side_by_side(path: Path, recipe: str, others: dict[str, Decoder], rounds: int) -> Iterator[str]:
    """The lines of one clip and recipe."""
    pre = RECIPES[recipe]().preprocess
    video = decode_views(path, pre, Views()).video
    info, index, size = video.info, video.index, (video.frames.shape[2], video.frames.shape[3])
    clip = f"{path.stem}: {info.codec}, {info.width} x {info.height}, {len(index)} of {info.frames} frames"
    clip = f"{clip} | {recipe}, {size[1]} x {size[0]}"
    calls: dict[str, Callable[[], object]] = {"peakzoom": partial(decode_views, path, pre, Views())}
    pixels = {"peakzoom": "| | |"}
    for name, decoder in others.items():
        try:
            found = decoder(path, index, size)
        except (RuntimeError, IndexError) as error:
            yield f"| {clip} | {name} | fails: {str(error).splitlines()[0]} | | | | |"
            continue
        pixels[name] = "| {:.2f} | {} | {}".format(*differences(video.frames, found))
        calls[name] = partial(decoder, path, index, size)
    spent = in_turn(calls, rounds)
    for name, each in spent.items():
        ratio = statistics.median(each) / statistics.median(spent["peakzoom"])
        yield f"| {clip} | {name} | {cell(each)} | {ratio:.2f} {pixels[name]} |"


def evaluation(recognizer: Recognizer, paths: list[Path], workers: int) -> None:
    """All videos as an evaluation scores them."""
    for views in decode_ahead(paths, recognizer.preprocess, Views(), workers):
        if isinstance(views, DecodeError):
            raise views
        recognizer.score(views)


def shares(rounds: int) -> Iterator[str]:
    """Lines of the second table: a network and a clip each, then all clips as evaluations run them."""
    paths = [FOLDER / clip for clip in EVALUATED]
    for recipe, backbone in NETWORKS:
        torch.manual_seed(0)
        pre = RECIPES[recipe]().preprocess
        recognizer = Recognizer.of(PeakZoom(backbone, CLASSES, preprocess=pre.to_dict()), "cpu")
        network = f"{backbone}, {pre.size}"
        spent = {path: one_after_the_other(recognizer, path, rounds) for path in paths}
        for path, parts in spent.items():
            middle = {part: statistics.median(each) for part, each in parts.items()}
            rest = 1 - middle["network"] / sum(middle.values())
            yield f"| {network} | {path.stem} | {' | '.join(map(cell, parts.values()))} | {rest:.1%} | | | |"
        whole = in_turn(
            {str(workers): partial(evaluation, recognizer, paths, workers) for workers in (0, 1)},
            rounds,
            warm=0,
        )
        decoding, cutting, alone = (
            sum(statistics.median(parts[part]) for parts in spent.values())
            for part in ("decoding", "cutting", "network")
        )
        rest = 1 - alone / (decoding + cutting + alone)
        yield (
            f"| {network} | all | {decoding:.0f} | {cutting:.0f} | {alone:.0f} | {rest:.1%} "
            f"| {cell(whole['0'])} | {cell(whole['1'])} | {statistics.median(whole['1']) / alone:.2f} |"
        )


def one_after_the_other(recognizer: Recognizer, path: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each part of one video's scoring; the network's are those of one batch times their number."""
    views = decode_views(path, recognizer.preprocess, Views())
    batches = list(views.batches())
    calls: dict[str, Callable[[], object]] = {
        "decoding": partial(decode_views, path, recognizer.preprocess, Views()),
        "cutting": lambda: list(views.batches()),
        "network": partial(recognizer.engine, batches[0]),
    }
    spent = in_turn(calls, rounds)
    return spent | {"network": [len(batches) * each for each in spent["network"]]}


def main() -> None:
    rounds = number_from(__doc__, "--rounds", 3)
    print(machine())
    show(DECODERS_HEADER, decoders(rounds))
    print()
    show(SHARES_HEADER, shares(rounds))


if __name__ == "__main__":
    main()
