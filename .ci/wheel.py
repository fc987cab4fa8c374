"""Whether a built wheel, installed without an extra into an empty environment, answers a clip: `make package`.

This environment writes a clip and a model of the start weights; both environments predict, from an empty folder, and
the scores have to be the same. The empty one has what the wheel requires and nothing else, so that a file which the
wheel lacks, or a requirement which stands in an extra only, is found here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from peakzoom.data.synthetic.clips import write_clip
from peakzoom.data.synthetic.scene import ClipSpec
from peakzoom.model import PeakZoom
from peakzoom.model.starts import starts
from peakzoom.training.recipes import RECIPES

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
FOREIGN = ("lightning", "matplotlib", "gradio", "pytest")  # of extras; in the environment of the tests


def write_model(folder: Path) -> None:
    """Start weights under a classifier that learned nothing: the same numbers in every environment."""
    import torch

    torch.manual_seed(0)
    start = next(each for each in starts() if each.network == "tcnn_xs_local")
    made = asdict(RECIPES["small"]().preprocess)
    model = PeakZoom(start.network, num_classes=3, width=start.width, branches=("original",), preprocess=made)
    start.load(model.backbone)
    model.save_pretrained(folder)


def answered(python: str | Path, folder: Path) -> dict[str, object]:
    """The line of JSON that `peakzoom predict` of an environment prints."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-m", "peakzoom", "predict", "model", "clip.mp4", "--jsonl", "-"]
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def main() -> int:
    wheel = Path(sys.argv[1]).resolve()
    assert all(map(find_spec, FOREIGN)), "this is to run in the environment of the tests"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clip(ClipSpec("wave", height=96, width=128, frames=24), folder / "clip.mp4")
        write_model(folder / "model")
        venv.create(folder / "empty", with_pip=True)
        python = folder / "empty" / ("Scripts" if os.name == "nt" else "bin") / "python"
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "install", "--quiet", "--no-compile", "--constraint", CONSTRAINTS, wheel], check=True
        )
        subprocess.run([*pip, "check"], check=True)
        (folder / "empty" / "foreign.py").write_text(
            f"from importlib.util import find_spec; assert not any(map(find_spec, {FOREIGN}))\n"
        )
        subprocess.run([python, folder / "empty" / "foreign.py"], check=True)
        here, there = answered(sys.executable, folder), answered(python, folder)
    if here != there:
        print(f"{wheel.name} answers a clip otherwise: {there}, and here {here}", file=sys.stderr)
        return 1
    print(f"{wheel.name} in an empty environment answers a clip as here: {there['class']} {there['score']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
