"""What the settings of the attention do to what the complementary branch sees, before any joint training.

Takes the T-CNN of a run (stage 1) and lets every branch answer with its classifier, as ``attention.py`` does. A row is
one change of the settings; accuracy and mean negative log-likelihood (nats) of O, D, C, the mean of O and D, and the
mean of the three, on the run's test videos.

    python benchmarks/complementary.py runs/a --clips 2 --videos 200
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import attention as forms
import numpy as np
import torch

from peakzoom.data.runs import run_videos
from peakzoom.inference.recognizer import Recognizer
from peakzoom.video.sampling import Views, decode_views

SHARES = ("eval_mode", "erase")  # which peaks fall to the branch, and how much of each
NAMES = ("original", "discriminative", "complementary", "O + D", "O + D + C")


def change(**values: float | str) -> Callable[[Any], None]:
    def set_values(model: Any) -> None:
        for key, value in values.items():
            if key in SHARES:
                model.config = replace(model.config, **{key: value})
            elif isinstance(value, float) and key.startswith("beta"):
                getattr(model.attention, key).data.fill_(value)
            else:
                setattr(model.attention, key, value)

    return set_values


SETTINGS: dict[str, Callable[[Any], None]] = {
    "as it is (0.424, base 0.09)": change(),
    "beta_com 0.127, as D's": change(beta_com=0.127),
    "beta_com 0.25": change(beta_com=0.25),
    "beta_com 0.6": change(beta_com=0.6),
    "base 0.3": change(base=0.3),
    "base 1": change(base=1.0),
    "base 3": change(base=3.0),
    "faintest 0.5": change(faintest=0.5),
    "beta_com 0.127, base 0.3": change(beta_com=0.127, base=0.3),
    "peaks below 0.5 alone": change(eval_mode="threshold"),
    "peaks below 0.5 alone, faintest 0.5": change(eval_mode="threshold", faintest=0.5),
    "no further peaks": change(erase=0.0),
    "no further peaks, faintest 0.5": change(erase=0.0, faintest=0.5),
}


def test(run: Path, setting: Callable[[Any], None], clips: int, videos: int) -> dict[str, list[float]]:
    """Right or not, and NLL, of each answer."""
    model = forms.three_branches(run, "evidence, erase", 2)
    setting(model)
    recognizer = Recognizer.of(model, "cpu")
    answers: dict[str, list[float]] = {}
    tested = [entry for entry in run_videos(run).entries if entry.split == "test"][:videos]
    for entry in tested:
        views = decode_views(entry.path, recognizer.preprocess, Views(clips=clips, crops=1))
        scores = dict(recognizer.score(views).scores)
        scores["O + D"] = (scores["original"] + scores["discriminative"]) / 2
        scores["O + D + C"] = np.mean([scores[name] for name in NAMES[:3]], axis=0)
        for name in NAMES:
            answers.setdefault(name, []).append(float(scores[name].argmax() == entry.label))
            answers.setdefault(f"{name} NLL", []).append(-float(np.log(scores[name][entry.label])))
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--clips", type=int, default=2, help="of a video, middle crop")
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument(
        "--setting", action="append", choices=SETTINGS, help="in place of all; may be given again"
    )
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    print("| setting | " + " | ".join(NAMES) + " |\n|" + "---|" * (len(NAMES) + 1))
    for name in asked.setting or SETTINGS:
        answers = test(asked.run, SETTINGS[name], asked.clips, asked.videos)
        cells = [f"{100 * np.mean(answers[key]):.1f} ({np.mean(answers[f'{key} NLL']):.3f})" for key in NAMES]
        print("| " + " | ".join([name, *cells]) + " |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
