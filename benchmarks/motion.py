"""What the motion channels of the small T-CNN are worth on few clips (benchmarks/results.md).

Makes 600 synthetic clips, trains the half-width ``tcnn_xs`` alone with each gain (0 = no motion channels), and
prints the training accuracy of every 50 steps and the accuracy on held-out performers and backgrounds:

    python benchmarks/motion.py --steps 250 --gains 0 1 4
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

from peakzoom.data.cache import CachedVideo, FrameCache, fill
from peakzoom.data.datasets import open_data
from peakzoom.data.loading import ClipDataset, EpochSampler, ViewMaker, loader
from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
from peakzoom.model.backbones import motion
from peakzoom.model.backbones.tcnn import TCNN, tcnn_xs
from peakzoom.training.recipes import quickstart
from peakzoom.video.views import Preprocess, to_input


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--gains", type=float, nargs="+", default=[0, 1, 4])
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--difficulty", type=float, default=0.3)
    arguments = parser.parse_args()
    augment = quickstart().augment
    pre = Preprocess(size=96, canvas=(108, 108), stride=2)
    with tempfile.TemporaryDirectory() as folder:
        root = render_dataset(
            Path(folder) / "clips",
            DatasetSpec(train_clips=400, test_clips=200, difficulty=arguments.difficulty),
        )
        data = open_data(root / "clips.csv")
        cache = FrameCache(Path(folder) / "frames", pre.canvas)
        found = fill(cache, [entry.path for entry in data.entries], workers=2)
        cached = {path: video for path, video in found.items() if isinstance(video, CachedVideo)}
        train_set = ClipDataset(
            [each for each in data.entries if each.split == "train"], ViewMaker(pre, augment), cached
        )
        test_set = ClipDataset(
            [each for each in data.entries if each.split == "test"], ViewMaker(pre), cached
        )
        for gain in arguments.gains:
            motion.MOTION_GAIN = gain
            torch.manual_seed(0)
            network = tcnn_xs(len(data.classes), width=0.5, dropout=0.2, motion=gain > 0)
            print(f"gain {gain:g}:", flush=True)
            run(network, train_set, arguments.steps, arguments.lr, pre)
            network.eval()
            right = 0
            with torch.no_grad():
                for batch in loader(test_set, 20, 0):
                    right += int((network(to_input(batch.views, pre)[0]).argmax(1) == batch.labels).sum())
            print(f"  held out: {right / len(test_set):.3f}", flush=True)


def run(network: TCNN, train_set: ClipDataset, steps: int, lr: float, pre: Preprocess) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.05)
    sampler = EpochSampler(len(train_set))
    step, recent = 0, []
    network.train()
    for epoch in range(math.ceil(steps * 16 / len(train_set))):
        sampler.set_epoch(epoch)
        for batch in loader(train_set, 16, 0, sampler):
            rise, fall = (step + 1) / (0.1 * steps), 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, rise) * fall
            logits = network(to_input(batch.views, pre)[0])
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recent.append((logits.argmax(1) == batch.labels).float().mean().item())
            step += 1
            if step % 50 == 0:
                print(f"  step {step}: training accuracy {sum(recent[-50:]) / 50:.3f}", flush=True)
            if step == steps:
                return


if __name__ == "__main__":
    main()
