"""Where the class maps of every network by name are high: the pointing game on rendered clips, from scratch.

    python benchmarks/held.py clips --train 400 --test 400 --difficulties 0.2 --workers 16
    python benchmarks/named.py clips --out named.jsonl --network r3d_18 --network tsm --epochs 18 --lr 1e-3

The T-CNN's place is taken by each network in turn, alone, trained as stage 1 of recipe ``small`` but for its rate and
epochs, or from weights of the package where these fit (``--start``). A row has its accuracy on test clips of other
performers and places, two views each, and the share of frames whose highest peak lies on the acting part.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from branches import ORIGINAL, Looking, Row
from flat import can_flatten
from folds import begin_with
from held import CLASSES, Clips, draw, normalised, read
from localise import rounded
from measuring import right
from pointing import STARTS, Truth, controls, movement, pointing, views_of
from torch.utils.flop_counter import FlopCounterMode
from trainings import MODES, trained
from variants import RECIPE

from peakzoom.model import PeakZoom
from peakzoom.model.response import evidence_map
from peakzoom.model.starts import starts
from peakzoom.training.start import build

DIFFICULTY = 0.2


@torch.no_grad()
def looked_at(model: PeakZoom, clips: Clips) -> dict[str, Any]:
    """Accuracy and pointing of a trained model, and what it costs a view."""
    model = model.eval()
    views, truth, cells = views_of(clips), Truth(clips), model.backbone.cells
    logits, responses = [], []
    for part in views.split(50):
        video = normalised(part.float())
        maps, slices = model.class_maps(model.backbone.features(video))
        responses.append(evidence_map(maps, slices))
        logits.append(model(video).logits()["fused"])
    with FlopCounterMode(display=False) as counter:
        model(video[:1])
    moves, slack = movement(views), cells.stride[1] / 2
    accuracy, nats = right(torch.cat(logits), clips.labels, len(STARTS))
    return {
        "G multiply-adds": counter.get_total_flops() / 2e9,
        "M parameters": sum(each.numel() for each in model.backbone.parameters()) / 1e6,
        **controls(truth, moves, slack),
        str(DIFFICULTY): {
            "accuracy": accuracy, "nats": nats, **pointing(torch.cat(responses), cells, truth, moves)
        },
    }  # fmt: skip


def run(name: str, asked: argparse.Namespace, clips: Clips, test: Clips) -> dict[str, Any]:
    """Train a network and look where its maps are high."""
    stage = replace(RECIPE.tcnn, lr=asked.lr, epochs=asked.epochs)
    recipe = replace(RECIPE, model=name, width=asked.width, quiet=1.0 if name.endswith("_local") else 0.0)
    torch.manual_seed(asked.seed)
    model = build(recipe, CLASSES, joint=False).to(clips.frames.device)
    if asked.start:
        known = [each for each in starts() if (each.network, each.width) == (name, asked.width)]
        if not known:
            raise SystemExit(f"no weights come with the package for {name} at width {asked.width}")
        begin_with(model.backbone, known[0].file)
    steps = asked.epochs * len(clips.rows) // recipe.batch_size
    draws = draw(clips, range(len(clips.rows)), steps, recipe.batch_size, 1, recipe.augment, asked.seed)
    mode = asked.mode if can_flatten(model.backbone) else asked.mode.removeprefix("flat-")
    training = Looking(model, Row((ORIGINAL,)), recipe, stage, clips, draws, mode)
    seconds = trained([training])
    training.release()
    found = {
        "network": name, "width": asked.width, "start": "start" if asked.start else "", "seed": asked.seed,
        "epochs": asked.epochs, "lr": asked.lr, "mode": mode, "seconds": seconds, **looked_at(model, test),
    }  # fmt: skip
    return rounded(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="folder of benchmarks/held.py")
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are added to this file")
    parser.add_argument("--network", action="append", required=True, help="may be given again")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--start", action="store_true", help="from the weights of the package")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--lr", type=float, default=RECIPE.tcnn.lr)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", choices=MODES, default=MODES[0])
    parser.add_argument("--minutes", type=float, default=60, help="no training starts after that")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    until, device = time.monotonic() + 60 * asked.minutes, torch.device(asked.device)
    clips = read(asked.clips, "train", device, patience=120)
    test = read(asked.clips, f"test-{DIFFICULTY}", device, patience=120)
    for name in asked.network:
        if time.monotonic() > until:
            print(f"left out, no time: {name}", flush=True)
            continue
        row = run(name, asked, clips, test)
        with asked.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        easy, begun = row[str(DIFFICULTY)], row["start"] or "scratch"
        parts = ", ".join(f"{easy[f'frame {part}']:.0f}" for part in ("hand", "head", "foot"))
        print(
            f"{name} {asked.width:g} {begun}: {easy['accuracy']:.1f}%, highest peak {easy['frame']:.1f} ({parts}), "
            f"best three {easy['frame best 3']:.1f}, middle {row['middle']:.1f}, {row['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
