r"""The moving picture of the first page: what `peakzoom explain` shows of some clips, one after the other, as a GIF.

    peakzoom quickstart
    peakzoom train quickstart/clips/clips.csv --recipe quickstart --out runs/three --set faintest=0.5 \
        --set branches=original,discriminative,complementary
    python docs/make/moving.py runs/three --data quickstart/clips --out docs/images/peakzoom.gif

The clips are generated ones, so that nobody was filmed and no licence of a data set hangs on the picture: of three
classes the first test clip, whatever the model says of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import peakzoom
from peakzoom.explanation.draw import EvidenceVideo
from peakzoom.inference.recognizer import Recognizer

WIDTH, RATE, COLOURS = 838, 10, 160  # pixels, pictures a second, of the palette


def pictures(recognizer: Recognizer, clip: Path, seconds: float) -> Iterator[Image.Image]:
    """The pictures of one clip at the rate of the GIF, from its beginning."""
    evidence = peakzoom.explain(recognizer, clip)
    with evidence.video:
        due = 0.0
        for number, picture in EvidenceVideo(evidence).frames():
            if evidence.times[number] >= due and due < seconds:
                yield sized(picture)
                due += 1 / RATE


def sized(picture: np.ndarray) -> Image.Image:
    """As wide as the first page."""
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    return Image.fromarray(picture).resize((WIDTH, height), Image.Resampling.LANCZOS)


def write(shown: list[Image.Image], out: Path) -> None:
    """One palette for all pictures, so that still parts stay still."""
    tallest = max(picture.height for picture in shown)
    canvases = []
    for picture in shown:
        canvas = Image.new("RGB", (WIDTH, tallest), "white")
        canvas.paste(picture, (0, 0))
        canvases.append(canvas)
    few = canvases[:: max(1, len(canvases) // 12)]
    together = Image.new("RGB", (WIDTH, tallest * len(few)))
    for number, canvas in enumerate(few):
        together.paste(canvas, (0, number * tallest))
    palette = together.quantize(COLOURS, Image.Quantize.MEDIANCUT)
    frames = [canvas.quantize(palette=palette, dither=Image.Dither.NONE) for canvas in canvases]
    frames[0].save(
        out, save_all=True, append_images=frames[1:], duration=1000 // RATE, loop=0, optimize=True, disposal=1
    )


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="a folder a class, as the quickstart has it")
    parser.add_argument("--classes", default="wave,tap_foot,nod")
    parser.add_argument("--seconds", type=float, default=6.0, help="of the whole picture")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    recognizer = peakzoom.load(asked.run)
    clips = [min((asked.data / name).glob("test_*")) for name in asked.classes.split(",")]
    each = asked.seconds / len(clips)
    write([picture for clip in clips for picture in pictures(recognizer, clip, each)], asked.out)


if __name__ == "__main__":
    main()
