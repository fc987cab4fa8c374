r"""Do class maps follow a person who goes through the picture? On the test videos of a run, filmed by a camera at rest.

What moves is what differs from the median frame of the video; its box, with half a feature cell around it, is where the
highest place of a map should lie. What is shown, the response times the stem's evidence, is compared with the response
alone, placed around the clip's middle or at the centres of its cells' fields; with its mean over the clip, which serves
all frames where a recipe has ``attention_per=clip``; with the evidence of each layer (LayerCAM: Jiang et al., IEEE TIP
2021); and with a random place, whose chance is the box's share of the input.
``--reversed`` shows each clip from its end to its beginning: what the people do differs, and when it is seen must not.
``--untrained`` gives the network random weights: what the measure credits without anything having been learnt (a check
that Adebayo et al., NeurIPS 2018, ask of every such map).

    peakzoom train WEIZMANN/clips.csv --out people --steps tcnn --test-groups daria,eli,ira,lyova,shahar \
        --val-fraction 0
    python benchmarks/moving.py people --moving run,walk,skip,side,jump
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from peakzoom.data.entries import Entry
from peakzoom.data.runs import run_videos
from peakzoom.evaluation.faithfulness import torch_engine
from peakzoom.evaluation.stats import bootstrap_interval
from peakzoom.inference.recognizer import Recognizer, load
from peakzoom.inference.respond import respond
from peakzoom.model import CellGeometry, PeakZoom
from peakzoom.model.geometry import place_response
from peakzoom.video.decode import decode
from peakzoom.video.sampling import Views, decode_views
from peakzoom.video.views import to_input

DIFFERS = 18  # of 255, mean over the colours
LEAST = 40 / 96**2  # of the input: no person otherwise
Maps = dict[str, Tensor]


def layer_outputs(model: PeakZoom, stack: ExitStack) -> dict[str, Tensor]:
    """What the stem's and blocks' last pass gave, filled while the model runs."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _given, output: found.__setitem__(name, output)

    parts: Any = model.backbone
    for name, part in {
        "stem": parts.stem,
        **{f"block {n}": each for n, each in enumerate(parts.blocks)},
    }.items():
        stack.callback(part.register_forward_hook(keep(name)).remove)
    return found


def maps_of(recognizer: Recognizer, view: Tensor) -> Maps:
    """Maps (T, H, W) of a view, each by its name, that are high where the predicted class has its evidence."""
    model, network = recognizer.model, torch_engine(recognizer).network
    video, _ = to_input(view, recognizer.preprocess)
    with ExitStack() as stack, torch.enable_grad():
        layers = layer_outputs(model, stack)
        features = model.backbone.features(video)
        _, slices = model.class_maps(features)
        scores = slices.mean(2)[0]
        evidence = scores.max() - scores.mean()  # the mean says nothing of one class against the others
        gradients = torch.autograd.grad(evidence, list(layers.values()))
    responses = model.slice_responses(features.detach())
    size = video.shape[2:]
    response = placed(responses[0], size, model.cells(responses.shape[1], size[0]))
    with torch.no_grad():
        shown, _ = respond(network, network.first_pass(view))
    found = {
        "shown": shown[0],
        "response": response,
        "response, at the centres of fields": placed(responses[0], size),
        "response, mean of the clip": response.mean(0, keepdim=True).expand_as(response),
    }
    for (name, output), gradient in zip(layers.items(), gradients, strict=True):
        found[f"LayerCAM, {name}"] = placed((gradient.clamp(min=0) * output).sum(1)[0].detach(), size)
    return found


def placed(maps: Tensor, size: torch.Size, cells: CellGeometry | None = None) -> Tensor:
    """A map (T', h, w) at every frame and pixel of the input: a T-CNN's first cell lies on the first of each."""
    frames, height, width = size
    if cells is None:
        strides = [whole // part for whole, part in zip(size, maps.shape, strict=True)]
        cells = CellGeometry((strides[0], strides[1], strides[2]))
    return place_response(maps[None].float(), cells, frames, (height, width), height)[0]


def boxes(
    file: Path, recognizer: Recognizer, corner: tuple[int, int], clip: Any
) -> dict[int, tuple[int, ...]]:
    """Top, bottom, left, right of what moves, in pixels of the input, of the frames of a clip that show it."""
    pre = recognizer.preprocess
    side, (top, left) = pre.source_size, corner
    frames = decode(file, None, pre.test_size).frames[..., top : top + side, left : left + side]
    frames = F.avg_pool2d(frames.float(), pre.zoom_source)
    background = frames.median(0).values
    differs = ((frames[torch.from_numpy(clip)] - background).abs().mean(1) > DIFFERS).float()
    moves = F.avg_pool2d(differs[:, None], 3, 1, 1)[:, 0] > 0.5  # single pixels are noise
    found = {}
    for number, each in enumerate(moves):
        if each.float().mean() >= LEAST:
            down, across = each.nonzero(as_tuple=True)
            found[number] = tuple(int(v) for v in (down.min(), down.max(), across.min(), across.max()))
    return found


def looked_at(recognizer: Recognizer, entry: Entry, backwards: bool) -> dict[str, list[float]]:
    """Of each frame of the middle clip of a video: 1 where a map's highest place lies in the box."""
    decoded = decode_views(entry.path, recognizer.preprocess, Views(clips=1, crops=1))
    view, size = decoded.view(0), recognizer.preprocess.size
    slack = recognizer.model.backbone.cells.stride[1] / 2
    hits: dict[str, list[float]] = defaultdict(list)
    maps = maps_of(recognizer, view.flip(1) if backwards else view)
    for frame, (top, bottom, left, right) in boxes(
        entry.path, recognizer, decoded.offsets[0], decoded.clips[0]
    ).items():
        for name, each in maps.items():
            cells = each[-1 - frame if backwards else frame]
            pixels = (size - 1) / (len(cells) - 1)
            row, column = (pixels * at for at in divmod(int(cells.argmax()), len(cells)))
            inside = top - slack <= row <= bottom + slack and left - slack <= column <= right + slack
            hits[name].append(float(inside))
        hits["a random place"].append(
            min(1.0, (bottom - top + 2 * slack) / size) * min(1.0, (right - left + 2 * slack) / size)
        )
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--moving", default="", help="classes of people who go through the picture")
    parser.add_argument("--reversed", action="store_true")
    parser.add_argument("--untrained", type=int, metavar="SEED", help="random weights in place of the run's")
    asked = parser.parse_args()
    recognizer = load(asked.run, "cpu")
    if asked.untrained is not None:
        torch.manual_seed(asked.untrained)
        trained = recognizer.model
        recognizer = Recognizer.of(PeakZoom(trained.backbone_name, config=trained.config).eval(), "cpu")
    moving = set(filter(None, asked.moving.split(",")))
    hits: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    groups: dict[str, list[str]] = defaultdict(list)
    for entry in run_videos(asked.run).entries:
        if entry.split != "test":
            continue
        kind = "go through the picture" if entry.named(recognizer.classes) in moving else "stay"
        seen = looked_at(recognizer, entry, asked.reversed)
        for name, values in seen.items():
            hits[kind][name] += values
        groups[kind] += [str(entry.group)] * len(seen["a random place"])
    for kind, found in hits.items():
        print(f"\n| {kind}: {len(groups[kind])} frames | highest place on the person |\n|---|---|")
        for name, values in found.items():
            low, high = bootstrap_interval(np.array(values), groups[kind])
            print(f"| {name} | {100 * np.mean(values):.1f} ({100 * low:.0f} to {100 * high:.0f}) |")


if __name__ == "__main__":
    main()
