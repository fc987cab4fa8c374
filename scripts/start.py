"""Makes the start weights that come with the package, from a seed alone: on clips that are composed while it trains.

Loader processes paint the clips as they are needed, and every network sees the same ones: each clip once as it comes
and then again from a store of the last 64 batches, cropped and slowed anew. A run stops after ``--minutes`` and goes on
where it was when the same command comes again; one that is killed goes on from its last line in log.jsonl.

    python scripts/start.py runs/start --clips 57600 --again 3 --workers 11                # a GPU: 5 minutes
    python scripts/start.py runs/start --clips 57600 --again 3 --workers 2 --minutes 60    # two cores: in pieces, 7 h
    python scripts/start.py runs/more --networks tcnn_xs_local-1 --clips 87104 --again 4 --workers 14

The first made the weights in ``src/peakzoom/weights`` on an H200, in 4.3 minutes beside other work, and the third those
of tcnn_xs_local-1, in 4.5 minutes beside two more networks; two cores would take 4 hours for it. The learning rate then
fell by time (``--within``) and not by clips, so that a repetition comes close to them, but not bit for bit.

Writes NETWORK.pt (what going on needs) and log.jsonl, and at the end what the package holds: NETWORK.safetensors, with
kernels in half precision and without the classifier, and cards.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
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
from peakzoom.training.optimizer import decayed_and_spared, schedule
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
        on_gpu = device.type == "cuda"
        fast: dict[str, Any] = {"fused": True, "capturable": True} if on_gpu else {"foreach": False}
        self.optimizer = torch.optim.AdamW(
            decayed_and_spared(self.net), lr=self.rate, weight_decay=self.settings.weight_decay, **fast
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


def resume(out: Path, pupils: list[Pupil], wanted: dict[str, Any]) -> int:
    """Go on with what is in a folder, if anything is; returns the painted batches that all networks have seen."""
    done = set()
    for pupil in pupils:
        file = out / f"{pupil.name}.pt"
        state = torch.load(file, map_location=pupil.device) if file.exists() else None
        if state and state["wanted"] != wanted:
            sys.exit(f"{file} was begun with {state['wanted']}, not {wanted}: name another folder")
        if state:
            pupil.resume(state)
        done.add(pupil.done)
    if len(done) > 1:  # killed between two files, or another choice of networks
        sys.exit(
            f"the networks in {out} have seen {sorted(done)} batches: train those of one number together"
        )
    return done.pop() // wanted["again"]


def save(out: Path, pupils: list[Pupil], wanted: dict[str, Any]) -> None:
    """All that going on needs, each file whole or not at all."""
    drafts = [out / f"{pupil.name}.part" for pupil in pupils]
    for pupil, draft in zip(pupils, drafts, strict=True):
        torch.save({**pupil.state(), "wanted": wanted}, draft)
    for draft in drafts:
        draft.replace(draft.with_suffix(".pt"))


def publish(out: Path, pupil: Pupil, card: dict[str, Any]) -> None:
    """Write a network's weights without its classifier, and its card into cards.json, as the package holds them."""
    weights = {
        key: halved(value).contiguous().cpu()
        for key, value in pupil.net.state_dict().items()
        if not key.startswith("fc.")
    }
    file, cards = out / f"{pupil.name}.safetensors", out / "cards.json"
    save_file(weights, file)
    network, width = NETWORKS[pupil.name]
    known = json.loads(cards.read_text(encoding="utf-8")) if cards.exists() else {}
    known[pupil.name] = {
        "network": network,
        "width": width,
        "mean": PRE.mean,
        "std": PRE.std,
        "size": SIZE,
        "frames": FRAMES,
        "classes": len(CLASSES),
        **card,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    ordered = {name: known[name] for name in NETWORKS if name in known}
    cards.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="with commas between; all by default")
    parser.add_argument("--clips", type=int, default=57_600, help="that are painted")
    parser.add_argument("--again", type=int, default=3, help="how often each is shown")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", type=int, default=1024, help="clips to test on")
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="after which it stops, to go on another time"
    )
    parser.add_argument(
        "--within",
        type=float,
        default=1e9,
        help="minutes in which the learning rate falls, however many clips",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args(words)
    if unknown := set(asked.networks.split(",")) - set(NETWORKS):
        parser.error(f"--networks has {', '.join(sorted(unknown))}: expected some of {', '.join(NETWORKS)}")
    if asked.clips < asked.batch:
        parser.error(f"--clips is {asked.clips}: expected at least a batch, {asked.batch}")
    return asked


def main(words: Sequence[str] | None = None) -> None:
    asked = arguments(words)
    began, device = time.time(), torch.device(asked.device)
    torch.backends.cudnn.benchmark = True
    asked.out.mkdir(parents=True, exist_ok=True)
    rounds = asked.clips // asked.batch
    wanted = {name: vars(asked)[name] for name in ("clips", "again", "batch", "seed")}
    pupils = [
        Pupil(name, device, asked.batch, rounds * asked.again, asked.seed)
        for name in asked.networks.split(",")
    ]
    at = begun = resume(asked.out, pupils, wanted)
    stored: list[tuple[Tensor, Tensor]] = []
    draw = torch.Generator().manual_seed(asked.seed + begun)
    log = (asked.out / "log.jsonl").open("a")
    every = max(1, 6400 // asked.batch)
    painted = batches(asked.seed, begun * asked.batch, rounds * asked.batch, asked.batch, asked.workers)
    over, since = at == rounds, at
    for clips, label in painted:
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
        minutes = (time.time() - began) / 60
        over = at == rounds or minutes > asked.within
        if over or at % every == 0 or minutes > asked.minutes:
            count = (at - since) * asked.again
            row: dict[str, Any] = {"clips": at * asked.batch, "seconds": round(60 * minutes, 1)}
            for pupil in pupils:
                loss, right = pupil.read()
                row[pupil.name] = [round(loss / count, 3), round(100 * right / count, 1)]
            since = at
            save(asked.out, pupils, wanted)
            print(json.dumps(row), file=log, flush=True)
            print(json.dumps(row), flush=True)
        if over or minutes > asked.minutes:
            break
    log.close()
    if not over:
        print(f"{at * asked.batch} of {asked.clips} clips; the same command goes on")
        return
    held = list(batches(asked.seed + 1000, 0, asked.tests, asked.batch, asked.workers))
    for pupil in pupils:
        accuracy = tested(pupil, held)
        print(f"{pupil.name}: {accuracy:.1f}% of {asked.tests} clips that it did not see", flush=True)
        shown = {"clips": at * asked.batch, "shown": asked.again, "seed": asked.seed}
        publish(asked.out, pupil, {**shown, "tests": asked.tests, "accuracy": round(accuracy, 1)})


if __name__ == "__main__":
    main()
