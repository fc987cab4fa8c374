"""Mutated inputs, for as long as wished: a result, or a UserError of one line, and nothing else.

Six targets take turns: whole files of several formats; side data of JPEG frames; the header of a file with several
streams; the packets of one whose container is whole; manifests; the ``config.json`` of a model. Videos are decoded in
the guard, manifests and models are read here. Seeds are small files, made anew; a finding is kept in the folder that
``--keep`` names, with the number that makes it again.

    python benchmarks/fuzz.py --seconds 3600 --seed 7
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from odd_videos import Change, Stream, empty_packets, with_exif, write, write_streams

from peakzoom.data.layouts.manifest import read_manifest
from peakzoom.inference.recognizer import load
from peakzoom.model import PeakZoom
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.clips import CLIP_RULES
from peakzoom.video.guard import Guard, guards
from peakzoom.video.sampling import Views, decode_views
from peakzoom.video.views import Preprocess

PRE = Preprocess(size=16, frames=4, canvas=(16, 16), fps=7.0)
FORMATS = {"mp4": "libx264", "avi": "mpeg4", "mkv": "libx264", "gif": "gif", "ts": "mpeg2video"}
MANIFEST = b"path,label,class,split,group\na.mp4,1,wave,train,g1\nb.mp4,2,nod,test,g2\nc.mp4,1,wave,val,g3\n"
PIECES = (
    *(b"", b"\0", b"\n", b"\r", b",", b"\t", b";", b'"', b"\xff", b"-1", b"9" * 30, b"../", b"path"),
    b"\xef\xbb\xbf",
)
VALUES: tuple[Any, ...] = (
    *(None, "", "x", "\ud800", "9" * 500, [], [None], [1, 2], {}, {"a": 1}, True, False, -1, 0, 1, 7, 0.5),
    *(10**9, 10**30, 1e300, -1e300, float("nan"), float("inf"), [float("nan")] * 3, ["a"] * 3),
)
JSON_PIECES = (b"[", b"{", b"}", b'"', b",", b":", b"null", b"NaN", b"1e999", b"\\u0000", b"9" * 5000, b"-")


@dataclass(frozen=True)
class Kept:
    """What every mutant is made from."""

    folder: Path
    files: list[bytes]  # one of each format
    streams: bytes  # a file with several
    config: dict[str, Any]  # of the model beside it

    @property
    def model(self) -> Path:
        return self.folder / "model"


def kept(folder: Path) -> Kept:
    """Small files of every kind; a name's ending is not what FFmpeg goes by."""
    draw, files = np.random.default_rng(0), []
    for suffix, codec in FORMATS.items():
        path = folder / f"seed.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            assert isinstance(stream, VideoStream)
            stream.width = stream.height = 32
            stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
            for _ in range(8):
                picture = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        files.append(path.read_bytes())
    for each in "abc":
        (folder / f"{each}.mp4").write_bytes(files[0])

    def preview(stream: VideoStream) -> None:
        stream.disposition = av.stream.Disposition.attached_pic

    several = write_streams(
        folder / "several.mkv",
        Stream("mjpeg", 1, (16, 24), setup=preview),
        Stream("mpeg4"),
        Stream("mjpeg", 5),
    )
    torch.manual_seed(0)
    model = PeakZoom(
        "tcnn_xs",
        3,
        width=0.125,
        backbone_options={"max_stride": 16},
        classes=("a", "b", "c"),
        preprocess=Preprocess(size=32, frames=4, canvas=(36, 40)).to_dict(),
    )
    model.eval().save_pretrained(folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text("utf-8"))
    return Kept(folder, files, several.read_bytes(), config)


def mutated(data: bytes, draw: random.Random, pieces: tuple[bytes, ...] = ()) -> bytes:
    """Some of: bytes replaced, parts cut out, repeated, or put in."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 2, 4, 16, 64))):
        at = draw.randrange(len(found) + 1)
        until = min(len(found), at + draw.choice((1, 2, 4, 8, 100)))
        kind = draw.randrange(6 if pieces else 5)
        if kind <= 2:
            found[at:until] = draw.randbytes(until - at)
        elif kind == 3:
            del found[at:until]
        elif kind == 4:
            found[at:at] = found[at:until]
        else:
            found[at:at] = draw.choice(pieces)
    return bytes(found)


# Mutants: each writes one file and returns its path -----------------------------------------------------------------


def any_file(given: Kept, draw: random.Random) -> Path:
    """Bytes of a whole file."""
    return _written(given.folder / "mutant.mp4", mutated(draw.choice(given.files), draw))


def side_data(given: Kept, draw: random.Random) -> Path:
    """JPEG frames whose EXIF is damaged, or has any orientation; the pictures are whole."""
    orientation = draw.choice((*range(1, 9), 0, 9, 65535))

    def change(number: int, data: bytes) -> bytes:
        exif = with_exif(orientation)(number, data)
        length = len(exif) - len(data)
        damaged = mutated(exif[6 : 2 + length], draw) if draw.random() < 0.8 else exif[6 : 2 + length]
        return exif[:4] + (len(damaged) + 2).to_bytes(2, "big") + damaged + data[2:]

    return write(given.folder / "mutant.avi", frames=3, change=change)


def streams(given: Kept, draw: random.Random) -> Path:
    """A damaged header of a file with several streams."""
    header = given.streams.index(b"\x1f\x43\xb6\x75")  # the first cluster of a Matroska file
    whole = mutated(given.streams[:header], draw) + given.streams[header:]
    return _written(given.folder / "mutant.mkv", whole)


def packets(given: Kept, draw: random.Random) -> Path:
    """Packets that cannot be decoded in a container that is whole."""
    codec = draw.choice(("mpeg4", "mjpeg", "libx264"))
    share = draw.choice((0.05, 0.3, 1))

    def change(number: int, data: bytes) -> bytes:
        if draw.random() >= share:
            return data
        return draw.choice(
            (bytes(len(data)), data[: draw.randrange(len(data) + 1)] or b"\0", mutated(data, draw))
        )

    made: Change = change
    if draw.random() < 0.2:  # packets without data, which the writer of these files would leave out
        numbers = [number for number in range(12) if draw.random() < share]
        return empty_packets(write(given.folder / "mutant.mp4", codec), *numbers)
    suffix = "avi" if codec == "mpeg4" else "mkv"
    return write(given.folder / f"mutant.{suffix}", codec, change=made)


def manifest(given: Kept, draw: random.Random) -> Path:
    """A manifest."""
    return _written(given.folder / "mutant.csv", mutated(MANIFEST, draw, PIECES))


def config(given: Kept, draw: random.Random) -> Path:
    """A model's settings: some values are others, or bytes are."""
    file, settings = given.model / "config.json", json.loads(json.dumps(given.config))
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        within, key = draw.choice(list(_places(settings)))
        within[key] = copy.deepcopy(draw.choice(VALUES))
    text = json.dumps(settings).encode()
    return _written(file, mutated(text, draw, JSON_PIECES) if draw.random() < 0.3 else text)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) within plain data."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


# What is done with them ----------------------------------------------------------------------------------------------


def decoded(guard: Guard, file: Path, draw: random.Random) -> None:
    """As every command reads a video."""
    try:
        decode_views(file, PRE, Views(draw.choice(list(CLIP_RULES)), 2), guard)
    except UserError as error:
        if not isinstance(error, DecodeError):  # which alone is one file's reason
            raise RuntimeError("no reason of this file") from error
        raise


def listed(guard: Guard, file: Path, draw: random.Random) -> None:
    """As every command reads a manifest."""
    read_manifest(file)


def loaded(guard: Guard, file: Path, draw: random.Random) -> None:
    """As every command loads a model; one that loads gives a prediction."""
    model = load(file.parent, "cpu")
    scores = model.engine(torch.full((1, *model.preprocess.view_shape), 100, dtype=torch.uint8))["fused"]
    if not torch.isfinite(scores).all():
        raise ArithmeticError("a score is no number")


TARGETS: dict[
    str, tuple[Callable[[Kept, random.Random], Path], Callable[[Guard, Path, random.Random], None]]
] = {
    "video": (any_file, decoded),
    "side data": (side_data, decoded),
    "streams": (streams, decoded),
    "packets": (packets, decoded),
    "manifest": (manifest, listed),
    "config.json": (config, loaded),
}


@contextmanager
def finding(number: str, keep: Path | None, file: Path) -> Iterator[None]:
    """Keep the file, and raise with the number that makes it again."""
    try:
        yield
    except Exception as error:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{number}-{file.name}").write_bytes(file.read_bytes())
        raise RuntimeError(f"seed and number {number}: {file.name}") from error


def fuzz(seconds: float, seed: int, keep: Path | None = None, mutants: float = float("inf")) -> Counter[str]:
    """Outcomes of so many mutants, or of so many seconds; what is no allowed one is raised, and its file kept."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with TemporaryDirectory() as name, guards() as (guard,):
        given, number, kinds = kept(Path(name)), 0, list(TARGETS)
        while time.monotonic() < end and number < mutants:
            draw, kind = random.Random(f"{seed} {number}"), kinds[number % len(kinds)]
            make, use = TARGETS[kind]
            file = make(given, draw)
            with finding(f"{seed}-{number}", keep, file):
                counts[f"{kind}: {_outcome(partial(use, guard, file, draw))}"] += 1
            number += 1
    return counts


def _outcome(use: Callable[[], None]) -> str:
    """Of one mutant; whatever is not allowed is raised."""
    try:
        use()
    except UserError as error:
        said = str(error)
        if not said.isprintable():
            raise RuntimeError("not one line of letters") from error
        return (
            "stopped"
            if any(word in said for word in ("was stopped", "crashed", "decoder ended"))
            else "reason"
        )
    return "result"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    for outcome, count in sorted(fuzz(asked.seconds, asked.seed, asked.keep).items()):
        print(f"{outcome}: {count}")


if __name__ == "__main__":
    main()
