"""What ``--zoom-source native`` gives and costs: small actions at 1080 lines, zoomed from the input or from the file.

For each seed the T-CNN of recipe ``quickstart`` is trained from the weights that come with the package. From it O + D
is trained twice, alike but for the frames that its zoomed video is read from: the network's own input of 96 pixels, or
frames as large as memory allows (``--zoom-source native``). Each row is a line of JSON with every prediction, pointing,
and the processor time of a view; ``pages.py`` writes what it says into the log (results.md).

    peakzoom data render hd --train-clips 320 --test-clips 240 --frames 8 --fps 5 --difficulty 0.5 --height 1080 \\
        --width 1920 --stature 0.4 --performers 60 --backgrounds 40 --test-share 0.4
    python benchmarks/native.py hd --work runs --out native.jsonl

The same command goes on where it stopped: what ``--out`` has is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peakzoom.data.datasets import open_data
from peakzoom.data.entries import VideoSet
from peakzoom.data.places import read_places
from peakzoom.evaluation.evaluate import evaluate
from peakzoom.evaluation.files import read_evaluation
from peakzoom.evaluation.results import Evaluation
from peakzoom.inference.cost import multiply_adds_by_pass
from peakzoom.inference.network import InferenceNetwork
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe, quickstart
from peakzoom.training.train import train
from peakzoom.video.sampling import Views, decode_views

VIEWS = Views(clips=2, crops=1)
TIMED = 7  # clips whose processor time is taken, the first not counted
ARMS = {"from the input": False, "from native frames": True}  # a row: whether it zooms from larger frames


def recipe(native: bool) -> Recipe:
    """The quickstart's on every frame of the clips; at its 16 clips a batch, frames would be decoded in every epoch."""
    base = quickstart()
    return replace(
        base,
        stride=1,
        batch_size=32,
        native_source=native,
        preprocess=replace(base.preprocess, zoom_source=1),
        tcnn=replace(base.tcnn, epochs=8),
    )


def processor_ms(call: Callable[[], object]) -> float:
    """Milliseconds of this process, on one thread, which others on the machine do not lengthen."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)


def cost(recognizer: Recognizer, data: VideoSet) -> dict[str, float]:
    """G multiply-adds of a view, and median processor milliseconds of decoding and of the network."""
    model, pre = recognizer.model, recognizer.preprocess
    network, decoding, computing = InferenceNetwork(model), [], []
    for entry in data.entries[:TIMED]:
        decoding.append(processor_ms(lambda: decode_views(entry.path, pre, VIEWS).view(0)))  # noqa: B023
        view = decode_views(entry.path, pre, VIEWS).view(0)
        with torch.inference_mode():
            computing.append(processor_ms(lambda: network(view)))  # noqa: B023
    return {
        "G multiply-adds": sum(multiply_adds_by_pass(model)),
        "decoding ms": statistics.median(decoding[1:]),
        "network ms": statistics.median(computing[1:]),
    }


def row(name: str, seed: int, run: Path, data: VideoSet, seconds: float) -> dict[str, Any]:
    """Evaluate a run on the test clips."""
    recognizer, folder = load(run, "cpu"), run / f"evaluation-{name.replace(' ', '-')}"
    found = evaluate(recognizer, data, folder, VIEWS, progress=False, resume=True)
    if not isinstance(found, Evaluation) or found.pointing is None:
        raise SystemExit(f"{folder} is no evaluation of one label with places")
    scores, pointing = read_evaluation(folder), found.pointing.rows()[-1]
    chances = scores.means["fused"]
    true = np.maximum(chances[np.arange(len(chances)), scores.labels], 1e-9)
    return {
        "variant": name, "real": data.entries[0].path.parents[1].name, "start": "T-CNN", "start clips": 0, "epochs": 3,
        "seed": seed, "zoom source": recognizer.preprocess.zoom_source, "size": recognizer.preprocess.size,
        "clips": len(chances), "accuracy": 100 * float((chances.argmax(1) == scores.labels).mean()),
        "nats": float(-np.log(true).mean()), "seconds": round(seconds),
        "branches": {key: round(100 * value.top1, 2) for key, value in found.branches.items()},
        "highest": 100 * pointing.highest, "enlarged": pointing.discriminative, **cost(recognizer, data),
        "outcomes": {
            "group": [entry.group for entry in data.entries],
            "label": scores.labels.tolist(),
            "chances": [[round(value, 5) for value in each] for each in chances.tolist()],
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="folder of peakzoom data render")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are added to this file")
    parser.add_argument("--seeds", default="0")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = open_data(asked.clips / "clips.csv")
    tested = [entry for entry in data.entries if entry.split == "test"]
    test = replace(data, entries=tested, places=read_places(asked.clips / "places.csv"))
    done = (
        [json.loads(line) for line in asked.out.read_text("utf-8").splitlines()] if asked.out.exists() else []
    )
    for seed in map(int, asked.seeds.split(",")):
        options = Options(seed=seed, val_fraction=0.0, accelerator="cpu", workers=1, progress=False)
        start = asked.work / f"tcnn-{seed}"
        train(data, recipe(False), start, replace(options, steps=("tcnn",)), resume=start.exists())
        for name, native in ARMS.items():
            if any((each["variant"], each["seed"]) == (name, seed) for each in done):
                continue
            run, began = asked.work / f"{name.replace(' ', '-')}-{seed}", time.monotonic()
            joint = replace(options, steps=("joint",), init=str(start))
            train(data, recipe(native), run, joint, resume=run.exists())
            found = row(name, seed, run, test, time.monotonic() - began)
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            kept = {key: value for key, value in found.items() if key != "outcomes"}
            print(json.dumps(kept), flush=True)


if __name__ == "__main__":
    main()
