"""The memory of one 1080p clip whose zoomed videos are read from large frames (benchmarks/performance.md); Linux.

The clip has 100 frames; the network is untrained, for what it sees changes nothing. A process for each factor predicts
it with the paper's 30 views; its peak is that of the whole process, decoding in another one left out:

    python benchmarks/zoom_memory.py 1 2 6 10 16
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory


def predict(clip: Path, factor: int) -> str:
    """A row of the table."""
    import resource

    import torch

    from peakzoom.inference.recognizer import Recognizer
    from peakzoom.model import PeakZoom
    from peakzoom.training.recipes import spatial

    recipe = spatial()
    pre = {**recipe.preprocess.to_dict(), "zoom_source": factor, "stride": 4}
    torch.manual_seed(0)
    options = {"max_stride": recipe.max_stride}
    model = PeakZoom("tcnn_xs", 3, width=0.5, backbone_options=options, preprocess=pre)
    recognizer, began = Recognizer.of(model.eval(), "cpu"), time.perf_counter()
    recognizer.predict(clip)
    took, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return f"| {factor} | {recognizer.preprocess.source_size} | {peak:.2f} | {took:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("factors", type=int, nargs="+")
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.clip:
        print(predict(arguments.clip, arguments.factors[0]))
        return
    from odd_videos import write

    print("| factor | side of the frames | peak, GB | seconds |\n|---|---|---|---|")
    with TemporaryDirectory() as folder:
        clip = write(Path(folder) / "clip.mp4", "libx264", 100, (1080, 1920))
        for factor in arguments.factors:
            command = [sys.executable, __file__, str(factor), "--clip", str(clip)]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="", flush=True
            )


if __name__ == "__main__":
    main()
