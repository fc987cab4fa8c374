"""Mutated videos and manifests, for as long as wished: a result, or a UserError of one line, and nothing else.

Videos are decoded in the guard, manifests are read here. Seeds are small files in several formats, made anew; a finding
is kept in the folder that ``--keep`` names, with the number that makes it again.

    python benchmarks/fuzz.py --seconds 3600 --seed 7
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from peakzoom.data.layouts.manifest import read_manifest
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.video.clips import CLIP_RULES
from peakzoom.video.guard import guards
from peakzoom.video.sampling import Views, decode_views
from peakzoom.video.views import Preprocess

PRE = Preprocess(size=16, frames=4, canvas=(16, 16), fps=7.0)
FORMATS = {"mp4": "libx264", "avi": "mpeg4", "mkv": "libx264", "gif": "gif", "ts": "mpeg2video"}
MANIFEST = b"path,label,class,split,group\na.mp4,1,wave,train,g1\nb.mp4,2,nod,test,g2\nc.mp4,1,wave,val,g3\n"
PIECES = (
    b"",
    b"\0",
    b"\n",
    b"\r",
    b",",
    b"\t",
    b";",
    b'"',
    b"\xff",
    b"-1",
    b"9" * 30,
    b"../",
    b"path",
    b"\xef\xbb\xbf",
)


def seeds(folder: Path) -> list[bytes]:
    """A small file of each format; the ending is not what FFmpeg goes by."""
    draw, made = np.random.default_rng(0), []
    for suffix, codec in FORMATS.items():
        path = folder / f"seed.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width = stream.height = 32
            stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
            for _ in range(8):
                picture = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        made.append(path.read_bytes())
    return made


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


def fuzz(seconds: float, seed: int, keep: Path | None = None, mutants: float = float("inf")) -> Counter[str]:
    """Outcomes of so many mutants, or of so many seconds; what is no allowed one is raised, and its file kept."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with TemporaryDirectory() as name, guards() as (guard,):
        folder = Path(name)
        clips = seeds(folder)
        for each in "abc":
            (folder / f"{each}.mp4").write_bytes(clips[0])
        number = 0
        while time.monotonic() < end and number < mutants:
            draw = random.Random(f"{seed} {number}")
            video = number % 2 == 0
            data = mutated(draw.choice(clips), draw) if video else mutated(MANIFEST, draw, PIECES)
            file = folder / ("mutant.mp4" if video else "mutant.csv")
            file.write_bytes(data)
            kind = "video" if video else "manifest"
            try:
                if video:
                    rule = draw.choice(list(CLIP_RULES))
                    decode_views(file, PRE, Views(rule, 2), guard)
                else:
                    read_manifest(file)
                counts[f"{kind}: result"] += 1
            except Exception as error:
                allowed = isinstance(error, DecodeError if video else UserError)
                if not allowed or "\n" in str(error):
                    if keep is not None:
                        (keep / f"{seed}-{number}{file.suffix}").write_bytes(data)
                    raise RuntimeError(f"seed {seed}, number {number}: {kind}") from error
                stopped = any(word in str(error) for word in ("was stopped", "crashed", "decoder ended"))
                counts[f"{kind}: {'stopped' if stopped else 'reason'}"] += 1
            number += 1
    return counts


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
