"""Makes the start weights that come with the package, from a seed alone: on clips that are composed while it trains.

Every network sees the same clips, which loader processes paint as they are needed, each once and once more from a small
store, cropped and stretched in time anew. It stops after ``--minutes`` and goes on where it was when called again.

    python scripts/start.py runs/start --clips 200000 --workers 15        # a GPU: ten minutes
    python scripts/start.py runs/start --clips 60000 --workers 2          # two cores: some hours, in pieces if need be

Writes NETWORK.pt (all that going on needs), log.jsonl, and at the end NETWORK.safetensors in half precision.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from peakzoom.data.synthetic.composed.paint import paint
from peakzoom.data.synthetic.composed.scene import CLASSES, compose
from peakzoom.model.backbones import BACKBONES
from peakzoom.model.pooling import drop_channels, gather, quiet_loss, score
from peakzoom.model.response import class_response_maps
from peakzoom.training.module import schedule
from peakzoom.training.recipes import StageSettings, small

NETWORKS = {  # name of the file: backbone, width
    "tcnn_xs_local-0.5": ("tcnn_xs_local", 0.5),
    "tcnn_xs_local-1": ("tcnn_xs_local", 1.0),
    "tcnn_s_local-1": ("tcnn_s_local", 1.0),
    "tcnn_xs-0.5": ("tcnn_xs", 0.5),
}
PRE = small().preprocess
FRAMES, PAINTED, SIZE = PRE.frames, 112, PRE.size
SETTINGS = StageSettings(
    epochs=1, optimizer="adamw", lr=3e-3, final_lr=1e-5, warmup=0.03, weight_decay=0.02, label_smoothing=0.1
)
QUIET = 0.5


class Composed(Dataset[tuple[Tensor, int]]):
    """Clips by number, uint8 (T, 3, S, S), and their class."""

    def __init__(self, seed: int, first: int, last: int) -> None:
        self.seed, self.first, self.last = seed, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        torch.set_num_threads(1)
        scene = compose(self.seed, self.first + index, FRAMES)
        return paint(scene, PAINTED), scene.label


def views(clips: Tensor, draw: torch.Generator | None) -> Tensor:
    """A crop of each clip, some of them slower, as the networks take them: (B, T, 3, S, S) -> (B, 3, T, s, s)."""
    batch, length = clips.shape[:2]
    if draw is None:
        side = torch.full((batch, 1), SIZE / PAINTED)
        ratio, at, rate = torch.zeros((batch, 1)), torch.zeros((batch, 2)), torch.ones(batch)
        gain = torch.ones((batch, 1))
    else:
        side = (0.5 + 0.5 * torch.rand((batch, 1), generator=draw)).sqrt()
        ratio = 0.15 * torch.randn((batch, 1), generator=draw).clamp(-1.5, 1.5)
        at = 2 * torch.rand((batch, 2), generator=draw) - 1
        slow = torch.rand(batch, generator=draw) < 0.3
        rate = torch.where(slow, 0.4 + 0.6 * torch.rand(batch, generator=draw), torch.ones(batch))
        gain = 1 + 0.3 * (2 * torch.rand((batch, 1), generator=draw) - 1)
    wide = torch.cat((side * ratio.exp(), side / ratio.exp()), 1).clamp(max=1)
    affine = torch.zeros((batch, 2, 3))
    affine[:, 0, 0], affine[:, 1, 1] = wide[:, 0], wide[:, 1]
    affine[:, :, 2] = at * (1 - wide)
    frames = (torch.arange(length) * rate[:, None]).floor().long() + torch.arange(batch)[:, None] * length
    device = clips.device
    chosen = clips.flatten(0, 1)[frames.to(device)].flatten(1, 2).float()
    grid = F.affine_grid(affine.to(device), [batch, 1, SIZE, SIZE], align_corners=False)
    seen = F.grid_sample(chosen, grid, align_corners=False, padding_mode="border").unflatten(1, (length, 3))
    pixels = (seen * gain[..., None, None, None].to(device)).clamp_(0, 255)
    return ((pixels - 255 * PRE.mean[0]) / (255 * PRE.std[0])).transpose(1, 2)


class Pupil:
    """One network in training; on a GPU a step is recorded once and replayed."""

    def __init__(self, name: str, device: torch.device, batch: int, steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        backbone, width = NETWORKS[name]
        options = {"width": width, "dropout": 0.1, "max_stride": 16}
        self.name, self.steps, self.device = name, steps, device
        self.net: Any = BACKBONES[backbone](len(CLASSES), **options).to(device).train()
        self.settings = replace(SETTINGS, lr=SETTINGS.lr / (1 if width < 1 else 1.5))
        self.rate = torch.tensor(self.settings.lr, device=device)
        decayed = [value for value in self.net.parameters() if value.dim() > 1]
        spared = [value for value in self.net.parameters() if value.dim() <= 1]
        groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
        on_gpu = device.type == "cuda"
        fast: dict[str, Any] = {"fused": True, "capturable": True} if on_gpu else {"foreach": False}
        self.optimizer = torch.optim.AdamW(
            groups, lr=self.rate, weight_decay=self.settings.weight_decay, **fast
        )
        self.done = 0
        self.video = torch.zeros((batch, 3, FRAMES, SIZE, SIZE), device=device)
        self.label = torch.zeros(batch, dtype=torch.int64, device=device)
        self.result = torch.zeros(2, device=device)  # sums of loss and of right answers
        self.stream = torch.cuda.Stream(device) if on_gpu else None
        self.graph: Any = None

    def _step(self) -> None:
        net = self.net
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.stream is not None):
            features = net.features(self.video)
        features = drop_channels(gather(features.float(), net.pool), net.dropout)
        logits = score(features, net.fc, net.pool)
        loss = F.cross_entropy(logits, self.label, label_smoothing=self.settings.label_smoothing)
        total = loss
        if net.pool != "mean":
            maps = class_response_maps(features, net.fc.weight)
            total = total + QUIET * quiet_loss(maps, net.fc.bias, self.label)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        right = (logits.argmax(1) == self.label).float().mean()
        self.result += torch.stack((loss.detach(), right))

    def step(self, video: Tensor, label: Tensor, spent: float) -> None:
        """``spent``: share of the time, where that is what ends the training."""
        at = max(self.done, int(spent * self.steps))
        self.rate.fill_(self.settings.lr * schedule(at, self.steps, self.settings))
        self.done += 1
        if self.stream is None:
            self.video, self.label = video, label
            self._step()
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.video.copy_(video)
            self.label.copy_(label)
            if self.done <= 4:
                self._step()
            elif self.graph is None:
                torch.cuda.synchronize()
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                    self._step()
                self.graph.replay()
            else:
                self.graph.replay()

    def join(self) -> None:
        """Nothing that comes after this overtakes its steps."""
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)

    def read(self) -> list[float]:
        values: list[float] = self.result.tolist()
        self.result.zero_()
        return values

    def state(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "done": self.done}

    def resume(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.done = state["done"]


def halved(value: Tensor) -> Tensor:
    """Kernels in half precision; batch norms' statistics and biases, which are few, stay as they are."""
    return value.half() if value.dim() > 1 else value


@torch.no_grad()
def tested(pupil: Pupil, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Accuracy on clips that no training shows, in %."""
    pupil.net.eval()
    right = count = 0
    for clips, label in batches:
        video = views(clips.to(pupil.device), None)
        right += int((pupil.net(video).argmax(1).cpu() == label).sum())
        count += len(label)
    pupil.net.train()
    return 100 * right / count


def batches(seed: int, first: int, last: int, size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(
        Composed(seed, first, last), size, num_workers=workers, drop_last=True, prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    yield from loader


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--clips", type=int, default=200_000, help="that are painted")
    parser.add_argument("--again", type=int, default=2, help="how often each is shown")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", type=int, default=1024, help="clips to test on")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--within", type=float, default=1e9, help="minutes in which the learning rate falls")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    until, device = time.time() + 60 * asked.minutes, torch.device(asked.device)
    torch.backends.cudnn.benchmark = True
    asked.out.mkdir(parents=True, exist_ok=True)
    rounds = asked.clips // asked.batch
    pupils = [
        Pupil(name, device, asked.batch, rounds * asked.again, asked.seed)
        for name in asked.networks.split(",")
    ]
    begun = 0
    for pupil in pupils:
        file = asked.out / f"{pupil.name}.pt"
        if file.exists():
            pupil.resume(torch.load(file, map_location=device))
            begun = pupil.done // asked.again
    stored: list[tuple[Tensor, Tensor]] = []
    draw = torch.Generator().manual_seed(asked.seed + begun)
    log = (asked.out / "log.jsonl").open("a")
    began, at, every = time.time(), begun, max(1, 6400 // asked.batch)
    for clips, label in batches(
        asked.seed, begun * asked.batch, rounds * asked.batch, asked.batch, asked.workers
    ):
        fresh = (clips.to(device, non_blocking=True), label.to(device, non_blocking=True))
        stored = [*stored[-63:], fresh]
        for turn in range(asked.again):
            pick = stored[-1] if not turn else stored[int(torch.randint(len(stored), (1,), generator=draw))]
            video = views(pick[0], draw)
            for pupil in pupils:
                pupil.step(video, pick[1], (time.time() - began) / (60 * asked.within))
            for pupil in pupils:
                pupil.join()
        at += 1
        if at % every == 0 or at == rounds:
            count = every * asked.again
            row = {"clips": at * asked.batch, "seconds": round(time.time() - began, 1)}
            for pupil in pupils:
                loss, right = pupil.read()
                row[pupil.name] = [round(loss / count, 3), round(100 * right / count, 1)]
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(json.dumps(row), flush=True)
        if time.time() > until or time.time() - began > 60 * asked.within:
            break
    for pupil in pupils:
        draft = asked.out / f"{pupil.name}.part"
        torch.save(pupil.state(), draft)
        draft.replace(asked.out / f"{pupil.name}.pt")
    held = list(batches(asked.seed + 1000, 0, asked.tests, asked.batch, asked.workers))
    for pupil in pupils:
        print(
            f"{pupil.name}: {tested(pupil, held):.1f}% of {asked.tests} clips that it did not see", flush=True
        )
        weights = {key: halved(value).contiguous().cpu() for key, value in pupil.net.state_dict().items()}
        save_file(weights, asked.out / f"{pupil.name}.safetensors")


if __name__ == "__main__":
    main()
