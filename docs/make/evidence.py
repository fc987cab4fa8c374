"""The two pictures of docs/explain.md: the middle frame of ``evidence.mp4``, and ``evidence.png``, of one test clip.

    python docs/make/evidence.py runs/three quickstart/clips

The run is that of ``docs/make/moving.py``. The clip is the first test clip of a class, whatever the model says of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

import peakzoom
from peakzoom.explanation import plot
from peakzoom.explanation.draw import EvidenceVideo

IMAGES = Path(__file__).parents[1] / "images"


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, help="a folder a class, as the quickstart has it")
    parser.add_argument("--class", dest="name", default="wave")
    asked = parser.parse_args()
    evidence = peakzoom.explain(peakzoom.load(asked.run), min((asked.data / asked.name).glob("test_*")))
    with evidence.video:
        middle = len(evidence.times) // 2
        frame = next(picture for number, picture in EvidenceVideo(evidence).frames() if number == middle)
        Image.fromarray(frame).save(IMAGES / "evidence.png", optimize=True)
        plot(evidence).savefig(IMAGES / "evidence-sheet.png", dpi=80, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
