"""What the zoomed videos are worth to a network that has never seen one: the attention without the joint training.

Takes the T-CNN of a run (step 1), gives it the three branches with every branch answering as the original does, and
tests on the run's test videos: accuracy and mean negative log-likelihood (nats) of O, D, C and their mean. Between the
forms of the attention only the places that are enlarged differ, so the table says which form finds better places.

- ``gate``: the paper's response (Eq. 3)
- ``evidence``: :func:`peakzoom.model.evidence_map` in its place
- ``evidence, erase``: and further peaks (:func:`peakzoom.model.further_peaks`)
- ``of another clip``: as before, but each clip is enlarged where another test video's attention was: what is left of
  the gain is that of looking at three sizes (the first two or three videos have but themselves to borrow from)

``sure``: share of slices whose entropy is below delta (Eq. 3), so that one class makes the gate's response. ``peaks``:
mean number a frame.

    peakzoom train clips.csv --out runs/a --test-groups 1,2 --val-fraction 0 --steps tcnn
    python benchmarks/attention.py runs/a [runs/b ...]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peakzoom.data.runs import run_videos
from peakzoom.inference.engines.eager import TorchEngine
from peakzoom.inference.recognizer import Recognizer
from peakzoom.model import PeakZoom, top_k_entropy
from peakzoom.model.load import find_model, read_model
from peakzoom.training.start import start_from
from peakzoom.video.sampling import Views, decode_views

FORMS: dict[str, dict[str, Any]] = {  # settings of the network
    "gate": {"response": "gate", "erase": 0.0},
    "evidence": {"response": "evidence", "erase": 0.0},
    "evidence, erase": {"response": "evidence", "erase": 0.15},
    "of another clip": {"response": "evidence", "erase": 0.15},
}


class Borrowing(PeakZoom):
    """Zooms where the clip ``apart`` before this one was attended to."""

    apart = 7  # more than the clips of one video

    def find_peaks(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.__dict__.setdefault("seen", [])
        seen.append(super().find_peaks(placed))
        return seen[max(0, len(seen) - 1 - self.apart)]


def three_branches(run: Path, form: str, source: int) -> PeakZoom:
    folder = find_model(run / "tcnn")
    trained = read_model(folder)
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))  # what it was made with
    options = {key: saved[key] for key in ("width", "backbone_options", "attention_per") if key in saved}
    model = (Borrowing if form == "of another clip" else PeakZoom)(
        saved["backbone"],
        len(trained.classes),
        classes=trained.classes,
        preprocess={**trained.preprocess, "zoom_source": source},
        **options,
        **FORMS[form],
    )
    start_from(model, run / "tcnn")
    model.start_heads_from_original()
    return model.eval()


def test(run: Path, form: str, source: int, clips: int) -> tuple[dict[str, list[float]], float, float]:
    """Right or not and NLL of each answer, the share of sure slices, peaks a frame."""
    model = three_branches(run, form, source)
    recognizer = Recognizer.of(model, "cpu")
    assert isinstance(recognizer.engine, TorchEngine)
    model = recognizer.engine.network.model  # the rewritten copy, which predicts
    sure: list[float] = []
    peaks: list[float] = []
    class_maps, find_peaks = model.class_maps, model.find_peaks

    def note_sure(features: Tensor) -> tuple[Tensor, Tensor]:
        maps, scores = class_maps(features)
        sure.append(float((top_k_entropy(scores, model.config.top) < model.config.delta).float().mean()))
        return maps, scores

    def note_peaks(placed: Tensor) -> tuple[Tensor, Tensor]:
        responses, found = find_peaks(placed)
        peaks.append(float(found.sum((-2, -1)).float().mean()))
        return responses, found

    model.class_maps, model.find_peaks = note_sure, note_peaks  # type: ignore[method-assign]
    answers: dict[str, list[float]] = {}
    for entry in run_videos(run).entries:
        if entry.split != "test":
            continue
        views = decode_views(entry.path, recognizer.preprocess, Views(clips=clips, crops=1))
        scores = dict(recognizer.score(views).scores)
        del scores["fused"]
        scores["mean"] = np.mean(list(scores.values()), axis=0)
        for name, values in scores.items():
            answers.setdefault(name, []).append(float(values.argmax() == entry.label))
            answers.setdefault(f"{name} NLL", []).append(-float(np.log(values[entry.label])))
    return answers, float(np.mean(sure)), float(np.mean(peaks))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--zoom-source", type=int, default=2)
    parser.add_argument("--clips", type=int, default=3, help="of a video, middle crop")
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    names = ("original", "discriminative", "complementary", "mean")
    heads = ["run", "attention", "sure", "peaks", *(f"{name[0].upper()}{name[1:]}" for name in names)]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for run in asked.runs:
        for form in FORMS:
            answers, sure, peaks = test(run, form, asked.zoom_source, asked.clips)
            cells = [
                f"{100 * np.mean(answers[name]):.1f} ({np.mean(answers[f'{name} NLL']):.3f})"
                for name in names
            ]
            print("| " + " | ".join([run.name, form, f"{sure:.0%}", f"{peaks:.1f}", *cells]) + " |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
