"""Bad input: real clips cut off and with bytes flipped, odd files and names; what every way in makes of them.

Every file gives an answer or one line, and good files among them give what they give without them, bit for bit:

* ``predict``, ``watch``, ``explain`` and the web page are asked for the bad files one by one, with a good one between
  every two; the page is a real server, which gets what a browser can send.
* ``evaluate`` and ``train`` are given all of them at once, between eight good ones. Every bad file is scored, or named
  once in problems.csv. A training that decodes as it goes ends with the same weights on 0 and on 2 loader processes;
  one with a cache, with the weights of a training without the files that cannot be read.

    python benchmarks/bad_input.py --cuts 200 --flips 500
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from tiny import longer, made

from peakzoom.apps.watch.options import WatchOptions
from peakzoom.apps.watch.records import ScoredWindow, SourceProblem
from peakzoom.apps.watch.watch import watch
from peakzoom.data.check import check
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.explanation import explain, save
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import PeakZoom
from peakzoom.training.options import Options
from peakzoom.training.train import train
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.sampling import Views
from peakzoom.video.scan import probe
from peakzoom.video.views import Preprocess

PROTOCOL = Views(clips=2, crops=1)
OPTIONS = Options(steps=("tcnn",), accelerator="cpu", progress=False)
OUTCOMES = ("prediction", "with a problem", "reason", "stopped")
HEADER = "| input | files | " + " | ".join(OUTCOMES) + " | took, s |\n" + "|---" * 7 + "|"
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


def odd(clip: Path, folder: Path, huge: bool = True) -> Iterator[Path]:
    """What is no clip, or hardly one, or has an odd name; ``huge`` frames take seconds a file."""
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
    if huge:
        yield huge_frames(folder)


def huge_frames(folder: Path, frames: int = 3, height: int = 8640) -> Path:
    """Frames 16,000 pixels wide; of 8,640 lines they are about as large as FFmpeg allows."""
    return _write(folder / "16K.avi", height, 15360, frames, "png", pixels="gray")


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
        assert isinstance(stream, VideoStream)
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


def outcome(reason: str | None, problem: str | None) -> str:
    """One of :data:`OUTCOMES`, by the reason for no answer or the problem of a file; neither may have two lines."""
    for text in (reason, problem):
        assert text is None or (text and "\n" not in text), text
    if reason is None:
        return "with a problem" if problem else "prediction"
    stopped = any(word in reason for word in ("was stopped", "crashed", "decoder ended"))
    return "stopped" if stopped else "reason"


# One by one -------------------------------------------------------------------------------------------------------


def predicted(model: Recognizer, good: Sequence[Path], files: Sequence[Path], _: Path) -> Counter[str]:
    """Outcomes; a good file stands between the others, and does not change."""
    wanted = model.predict(good[0], PROTOCOL)
    mixed = [each for file in files for each in (file, good[0])]
    found = Counter[str]()
    for path, one in zip(mixed, model.predict_many(mixed, PROTOCOL, progress=False), strict=True):
        if path == good[0]:
            assert isinstance(one, Prediction), one
            assert all(np.array_equal(one.scores[name], wanted.scores[name]) for name in wanted.scores)
        elif isinstance(one, DecodeError):
            assert one.path == path
            found[outcome(one.reason, None)] += 1
        else:
            assert all(np.isfinite(each).all() for each in one.scores.values()), one
            found[outcome(None, one.problem)] += 1
    return found


def watched(model: Recognizer, good: Sequence[Path], files: Sequence[Path], _: Path) -> Counter[str]:
    """Outcomes of ``watch``: to the end, or one line."""

    def windows(path: Path) -> tuple[list[np.ndarray], list[str]]:
        records = list(watch(model, path, WatchOptions(every=0.5)))
        return (
            [each.scores for each in records if isinstance(each, ScoredWindow)],
            [each.reason for each in records if isinstance(each, SourceProblem)],
        )

    wanted = windows(good[0])[0]
    found = Counter[str]()
    for file in files:
        try:
            scores, problems = windows(file)
        except UserError as error:
            found[outcome(str(error), None)] += 1
        else:
            assert scores and all(np.isfinite(each).all() for each in scores), file
            found[outcome(None, "; ".join(problems) or None)] += 1
        assert np.array_equal(windows(good[0])[0], wanted)
    return found


def explained(model: Recognizer, good: Sequence[Path], files: Sequence[Path], folder: Path) -> Counter[str]:
    """Outcomes of ``explain``, whose film has every frame of the file."""

    def evidence(path: Path) -> dict[str, object]:
        return explain(model, path, views=PROTOCOL, progress=False).to_dict()

    wanted, found = evidence(good[0]), Counter[str]()
    for number, file in enumerate(files):
        try:
            seen = explain(model, file, views=PROTOCOL, progress=False)
            film, *_ = save(seen, folder / f"explained-{number}", progress=False)
        except DecodeError as error:
            found[outcome(error.reason, None)] += 1
        else:
            assert probe(film).frames == seen.info.frames, file
            found[outcome(None, seen.prediction.problem)] += 1
        assert evidence(good[0]) == wanted
    return found


def visited(model: Recognizer, good: Sequence[Path], files: Sequence[Path], _: Path) -> Counter[str]:
    """Outcomes of the web page: the table of its tab for several files, and the film of the other, which agree."""
    from visiting import Visitor

    from peakzoom.apps.serve.server import server

    found = Counter[str]()
    with server(model, PROTOCOL) as address:
        visitor = Visitor(address)
        wanted = visitor.recognise(good[0])["output"]["data"][0]["data"]
        for file in files:
            if not os.path.isfile(file):  # noqa: PTH113 - a browser sends no folders, and no file of such a name
                continue
            answer, film = visitor.recognise(file), visitor.recognise(file, film=True)
            if answer["success"]:
                ((_, name, score, problem),) = answer["output"]["data"][0]["data"]
                found[outcome(None if name else problem, problem or None if name else None)] += 1
                assert film["success"] == bool(name) == bool(score), (file, answer, film)
            else:  # the upload was refused
                assert not film["success"]
                found[outcome(answer["output"]["error"], None)] += 1
            if not film["success"]:
                outcome(film["output"]["error"], None)
            assert visitor.recognise(good[0])["output"]["data"][0]["data"] == wanted
    return found


# All at once ------------------------------------------------------------------------------------------------------


def together(model: Recognizer, good: Sequence[Path], files: Sequence[Path]) -> VideoSet:
    """The good files, spread over the others, of the model's classes in turn; every fourth is for validation."""
    step = len(files) // len(good) + 1
    mixed = [each for place, one in enumerate(good) for each in (one, *files[place * step :][:step])]
    entries = [
        Entry(path, place % len(model.classes), "val" if place % 4 == 3 else "train")
        for place, path in enumerate(mixed)
    ]
    return VideoSet(model.classes, entries, [], "bad")


def problems_in(file: Path) -> dict[str, str]:
    """Reason by path of a problems.csv, in which no path may stand twice."""
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = [(row["path"], row["reason"]) for row in csv.DictReader(stream)]
    assert len(dict(rows)) == len(rows), rows
    return dict(rows)


def counted(files: Iterable[Path], problems: Mapping[str, str], in_part: str) -> Counter[str]:
    """Outcomes by a table of problems, which names these files alone; those that were used begin with ``in_part``."""
    names = [str(each) for each in files]
    assert set(problems) <= set(names), set(problems) - set(names)
    found = Counter[str]()
    for name in names:
        text = problems.get(name)
        used = text is None or text.startswith(in_part)
        found[outcome(None, text) if used else outcome(text, None)] += 1
    return found


def checked(model: Recognizer, good: Sequence[Path], files: Sequence[Path], folder: Path) -> Counter[str]:
    """Outcomes of ``data check``."""
    problems = check(together(model, good, files), workers=2).problems
    assert len({each.path for each in problems}) == len(problems)
    return counted(files, {each.path: each.reason for each in problems}, "readable")


def evaluated(model: Recognizer, good: Sequence[Path], files: Sequence[Path], folder: Path) -> Counter[str]:
    """Outcomes of ``evaluate``; a file is scored or has its reason, and the good ones' rows do not change."""

    def rows(data: VideoSet, out: Path) -> dict[str, list[list[str]]]:
        evaluate(model, data, out, PROTOCOL, progress=False)
        with (out / "scores.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            found: dict[str, list[list[str]]] = {}
            for path, *row in csv.reader(stream):
                found.setdefault(path, []).append(row)
            return found

    data = together(model, good, files)
    alone = replace(data, entries=[each for each in data.entries if each.path in good])
    wanted, scored = rows(alone, folder / "alone"), rows(data, folder / "mixed")
    assert wanted.items() <= scored.items()
    problems = problems_in(folder / "mixed" / "problems.csv")
    unscored = {path for path, reason in problems.items() if not reason.startswith("scored, but")}
    assert not unscored & scored.keys() and len(unscored) + len(scored) == len(data.entries) + 1  # the header
    return counted(files, problems, "scored, but")


def trained(
    model: Recognizer, good: Sequence[Path], files: Sequence[Path], folder: Path, cache: str
) -> Counter[str]:
    """Outcomes of ``train``, of which the weights say that the bad files change nothing."""
    data, here = together(model, good, files), replace(OPTIONS, cache=cache)

    def run(name: str, data: VideoSet, workers: int) -> dict[str, bytes]:
        out = train(data, longer(2, 1), folder / name, replace(here, workers=workers))
        return made(out)

    one, problems = run("one", data, 0), problems_in(folder / "one" / "problems.csv")
    if cache == "off":
        assert run("other", data, 2) == one
    else:
        lost = {path for path, reason in problems.items() if not reason.startswith("used, but")}
        readable = [each for each in data.entries if str(each.path) not in lost]
        other = run("other", replace(data, entries=readable), 0)
        same = [name for name in one if name.endswith(("model.safetensors", "metrics.csv"))]
        assert len(same) == 3 and all(one[name] == other[name] for name in same)
    return counted(files, problems, "used, but")


def decoding_as_it_goes(
    model: Recognizer, good: Sequence[Path], files: Sequence[Path], at: Path
) -> Counter[str]:
    """:func:`trained` without a cache."""
    return trained(model, good, files, at, "off")


def decoding_before(
    model: Recognizer, good: Sequence[Path], files: Sequence[Path], folder: Path
) -> Counter[str]:
    """:func:`trained` with a cache, which is new."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        return trained(model, good, files, folder, "on")
    finally:
        del os.environ["XDG_CACHE_HOME"]
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


WAYS: dict[str, Callable[[Recognizer, Sequence[Path], Sequence[Path], Path], Counter[str]]] = {
    "predict": predicted,
    "data check": checked,
    "evaluate": evaluated,
    "train": decoding_as_it_goes,
    "train, cached": decoding_before,
    "watch": watched,
    "explain": explained,
    "web page": visited,
}


def row(name: str, found: Counter[str], took: float) -> str:
    """A line of the table."""
    cells = [str(found[each]) for each in OUTCOMES]
    return f"| {name} | {sum(found.values())} | {' | '.join(cells)} | {took:.0f} |"


def real_clips() -> tuple[list[Path], list[Path], list[Path]]:
    """Eight good clips, small real clips of different formats, and all odd ones."""
    from decoding import FOLDER

    nasty = sorted(each for each in (FOLDER / "nasty").rglob("*") if each.suffix not in (".txt", ""))
    good = sorted(each for each in (FOLDER / "ut_interaction").glob("*/*.avi"))[:8]
    return good, good[:4] + [each for each in nasty if 5000 < each.stat().st_size < 120_000], nasty


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--no-odd", action="store_true", help="cut off and flipped ones alone")
    asked = parser.parse_args()
    good, clips, nasty = real_clips()
    model = recognizer()
    print(HEADER)
    with TemporaryDirectory() as name:
        folder = Path(name)
        kinds = {
            "odd files and names": [] if asked.no_odd else list(odd(good[0], folder)),
            "the data's nasty files": [] if asked.no_odd else nasty,
            f"{asked.cuts} cut off": list(cuts(clips, asked.cuts, asked.seed, folder)),
            f"{asked.flips} with bytes flipped": list(flips(clips, asked.flips, asked.seed, folder)),
        }
        for kind, files in kinds.items():
            for way in asked.ways if files else ():
                began = time.monotonic()
                with TemporaryDirectory() as work:
                    found = WAYS[way](model, good, files, Path(work))
                print(row(f"{way}: {kind}", found, time.monotonic() - began), flush=True)


if __name__ == "__main__":
    main()
