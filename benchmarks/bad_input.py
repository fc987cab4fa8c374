"""Bad input: real clips cut off and with bytes flipped, odd files and names; what every command's library call says.

Every file gives a prediction or one line; a good file is scored before, in between and after, and its scores stay the
same bit for bit.

    python benchmarks/bad_input.py --cuts 200 --flips 500
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch

from peakzoom.errors import DecodeError, UserError
from peakzoom.model import PeakZoom
from peakzoom.predict import Prediction, Protocol, Recognizer
from peakzoom.video.check import check
from peakzoom.video.entries import Entry, VideoSet
from peakzoom.video.views import Preprocess
from peakzoom.watch import Ended, watch

PROTOCOL = Protocol(clips=2, crops=1)
OUTCOMES = ("prediction", "with a problem", "reason", "stopped")
HEADER = "| input | files | " + " | ".join(OUTCOMES) + " | slowest, s |\n" + "|---" * 7 + "|"
NAMES = (
    b"a b.mp4",
    b"a'b\"c.mp4",
    b"a\nb.mp4",
    b"\xff\xfe.mp4",
    b"-v.mp4",
    b"a:b.mp4",
    b"%d.mp4",
    b"[b].mp4",
)


def cuts(clips: Sequence[Path], count: int, seed: int, folder: Path) -> Iterator[Path]:
    """Beginnings of clips, cut off at random bytes."""
    draw = random.Random(seed)
    for number in range(count):
        clip = clips[number % len(clips)]
        data = clip.read_bytes()
        yield _put(folder / f"cut{number}{clip.suffix}", data[: draw.randrange(1, len(data))])


def flips(clips: Sequence[Path], count: int, seed: int, folder: Path) -> Iterator[Path]:
    """Clips with some bytes replaced, half of them among the first 2000, where headers are."""
    draw = random.Random(seed)
    for number in range(count):
        clip = clips[number % len(clips)]
        data = bytearray(clip.read_bytes())
        for _ in range(draw.choice((1, 4, 16, 64))):
            end = min(len(data), 2000) if draw.random() < 0.5 else len(data)
            data[draw.randrange(end)] = draw.randrange(256)
        yield _put(folder / f"flip{number}{clip.suffix}", bytes(data))


def odd(clip: Path, folder: Path) -> Iterator[Path]:
    """What is no clip, or hardly one, or is named so that it might not be found."""
    yield _put(folder / "empty.mp4", b"")
    (folder / "folder.mp4").mkdir()
    yield folder / "folder.mp4"
    os.mkfifo(folder / "pipe.mp4")
    yield folder / "pipe.mp4"
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    yield folder / "loop.mp4"
    (folder / "nowhere.mp4").symlink_to(folder / "gone")
    yield folder / "nowhere.mp4"
    yield folder / ("a" * 300 + ".mp4")
    for name in NAMES:
        yield _put(Path(os.fsdecode(os.fsencode(folder) + b"/" + name)), clip.read_bytes())
    yield _write(folder / "one pixel.avi", 1, 1, 5, "ffv1")
    yield _write(folder / "one frame.mp4", 64, 64, 1)
    yield many_frames_claimed(folder)
    yield huge_frames_claimed(folder)
    yield _write(folder / "16K.avi", 8640, 15360, 3, "png", pixels="gray")  # about as large as FFmpeg allows


def many_frames_claimed(folder: Path) -> Path:
    """An MP4 whose table of sizes claims 100,000 frames."""
    path = _write(folder / "many.mp4", 64, 64, 5)
    data = bytearray(path.read_bytes())
    place = data.index(b"stsz")
    data[place + 12 : place + 16] = struct.pack(">I", 100_000)
    place = data.index(b"stts")
    data[place + 12 : place + 16] = struct.pack(">I", 100_000)
    return _put(path, bytes(data))


def huge_frames_claimed(folder: Path) -> Path:
    """An AVI of 64 x 64 frames whose headers claim 16384 x 16384."""
    path = _write(folder / "claims.avi", 64, 64, 5, "mpeg4")
    data, size = path.read_bytes(), struct.pack("<II", 64, 64)
    return _put(path, data.replace(size, struct.pack("<II", 16384, 16384)))


def _put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _write(
    path: Path,
    height: int,
    width: int,
    frames: int,
    codec: str = "libx264",
    pixels: str = "",
) -> Path:
    draw = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = width, height
        stream.pix_fmt = pixels or ("bgr0" if codec == "ffv1" else "yuv420p")
        for _ in range(frames):
            if pixels == "gray":
                frame = av.VideoFrame.from_ndarray(np.zeros((height, width), np.uint8), format="gray")
            else:
                picture = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def recognizer() -> Recognizer:
    """A small network with random weights."""
    torch.manual_seed(0)
    pre = Preprocess(size=32, frames=4, canvas=(32, 40))
    return Recognizer.of(PeakZoom("tcnn_xs", 3, width=0.25, preprocess=pre.to_dict()), "cpu")


def outcome(found: Prediction | DecodeError) -> str:
    """One of :data:`OUTCOMES`; a reason that is no line, or a score that is no number, ends everything."""
    if isinstance(found, DecodeError):
        assert found.reason and "\n" not in found.reason, found
        stopped = any(word in found.reason for word in ("was stopped", "crashed", "decoder ended"))
        return "stopped" if stopped else "reason"
    assert all(np.isfinite(each).all() for each in found.scores.values()), found
    assert "\n" not in (found.problem or ""), found
    return "with a problem" if found.problem else "prediction"


def predicted(model: Recognizer, good: Path, files: Sequence[Path]) -> tuple[Counter[str], float]:
    """Outcomes, and the slowest file's seconds; the good file stands between the others, and does not change."""
    wanted = model.predict(good, PROTOCOL)
    mixed = [each for file in files for each in (file, good)]
    found, slowest, began = Counter[str](), 0.0, time.monotonic()
    for path, one in zip(mixed, model.predict_many(mixed, PROTOCOL, progress=False), strict=True):
        slowest, began = max(slowest, time.monotonic() - began), time.monotonic()
        if path == good:
            assert isinstance(one, Prediction), one
            assert all(np.array_equal(one.scores[name], wanted.scores[name]) for name in wanted.scores)
        else:
            found[outcome(one)] += 1
    return found, slowest


def checked(files: Sequence[Path]) -> Counter[str]:
    """Outcomes of ``data check``."""
    report = check(VideoSet(["a"], [Entry(file, 0) for file in files], [], "bad"), workers=2)
    found: Counter[str] = Counter()
    for problem in report.problems:
        assert problem.reason and "\n" not in problem.reason, problem
        found["with a problem" if problem.reason.startswith("readable") else "reason"] += 1
    found["prediction"] = len(set(files)) - sum(found.values())
    return found


def watched(model: Recognizer, files: Sequence[Path]) -> Counter[str]:
    """Outcomes of ``watch``: to the end, or one line."""
    found: Counter[str] = Counter()
    for file in files:
        try:
            *_, last = watch(model, file)
        except UserError as error:
            if "\n" in str(error):
                raise
            found["reason"] += 1
            continue
        assert isinstance(last, Ended)
        found["prediction"] += 1
    return found


def row(name: str, found: Counter[str], slowest: float | None) -> str:
    """A line of the table."""
    cells = [str(found[each]) for each in OUTCOMES]
    return f"| {name} | {sum(found.values())} | {' | '.join(cells)} | {'' if slowest is None else f'{slowest:.1f}'} |"


def real_clips() -> tuple[list[Path], list[Path]]:
    """Small real clips of different formats, and all odd ones."""
    from decoding import FOLDER

    nasty = sorted(each for each in (FOLDER / "nasty").rglob("*") if each.suffix not in (".txt", ""))
    clips = sorted(each for each in (FOLDER / "ut_interaction").glob("*/*.avi"))[:4]
    clips += [each for each in nasty if each.stat().st_size < 120_000 and each.stat().st_size > 5000]
    return clips, nasty


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    clips, nasty = real_clips()
    model, good = recognizer(), clips[0]
    print(HEADER)
    with TemporaryDirectory() as name:
        folder = Path(name)
        kinds = {
            "odd files and names": list(odd(good, folder)),
            "the data's nasty files": nasty,
            f"{asked.cuts} cut off": list(cuts(clips, asked.cuts, asked.seed, folder)),
            f"{asked.flips} with bytes flipped": list(flips(clips, asked.flips, asked.seed, folder)),
        }
        for kind, files in kinds.items():
            found, slowest = predicted(model, good, files)
            print(row(f"predict: {kind}", found, slowest), flush=True)
            print(row(f"data check: {kind}", checked(files), None), flush=True)
            if kind in list(kinds)[:2]:
                print(row(f"watch: {kind}", watched(model, files), None), flush=True)


if __name__ == "__main__":
    main()
