"""Whether an architecture search beats the network that it starts from, and networks of equal cost drawn at random.

For each seed ``peakzoom search`` looks around ``tcnn_xs`` at half its width under that network's own cost; three more
networks of that cost are drawn from the same space, all alike likely. Then ``peakzoom compare`` trains all of them from
scratch in the same way, with each seed. Both go on where they were stopped; ``searched.jsonl`` is what pages.py reads.

    peakzoom data render clips --train-clips 400 --test-clips 400
    python benchmarks/searched.py clips/clips.csv --out searched --seeds 0,1,2
    python benchmarks/searched.py WEIZMANN/clips.csv --out searched-weizmann --seeds 0,1,2 --fold GROUP,GROUP ...

``--table-1`` in its place looks around the paper's own network, narrow and small, under its own cost, and says which
frames each block looks at, beside Table 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from peakzoom.model.backbones import TCNN, backbone_factory
from peakzoom.model.backbones.architecture import plan_from_dict, plan_to_dict
from peakzoom.model.backbones.space import Space, described
from peakzoom.model.backbones.tcnn import PAPER
from peakzoom.utils.durable import read_csv

FRAMES, SIZE, WIDTH, STRIDE = 8, 64, 0.5, 16
CLIPS = ["--set", f"preprocess.frames={FRAMES}", "--set", "stride=3", "--size", str(SIZE)]
SCRATCH = ["--init", "none", "--set", "quiet=0"]


def peakzoom(*words: str) -> None:
    print("peakzoom", *words, flush=True)
    subprocess.run([sys.executable, "-m", "peakzoom", *words], check=True)


def given(name: str, width: float, max_stride: int, frames: int, size: int) -> Space:
    network = backbone_factory(name)(10, width=width, max_stride=max_stride)
    assert isinstance(network, TCNN)
    return Space(network, frames, size)


def write_plan(space: Space, picks: dict[str, int], file: Path) -> None:
    file.write_text(
        json.dumps(plan_to_dict(space.plan(picks), space.pool), indent=2) + "\n", encoding="utf-8"
    )


def against_random(data: str, out: Path, options: argparse.Namespace) -> None:
    out.mkdir(parents=True, exist_ok=True)
    space = given("tcnn_xs", WIDTH, STRIDE, FRAMES, SIZE)
    budget = space.cost(space.point(space.given))
    files = [out / "given.json"]
    write_plan(space, space.point(space.given), files[0])
    for seed in options.seeds:
        found, drawn = out / f"found{seed}.json", out / f"random{seed}.json"
        draw = torch.Generator().manual_seed(seed)
        write_plan(space, space.draw(budget, draw), drawn)
        if not found.exists():
            run = out / f"search{seed}"
            words = [data, "--budget", f"{budget:.6f}G", "--model", "tcnn_xs", "--set", f"width={WIDTH}"]
            words += [*CLIPS, *SCRATCH, "--search-epochs", str(options.search_epochs), "--seed", str(seed)]
            words += ["--epochs", "1", "--joint-epochs", "1", "--out", str(run)]
            peakzoom("search", *words, *(["--resume"] if (run / "config.json").exists() else []))
            found.write_bytes((run / "architecture.json").read_bytes())
        files += [found, drawn]
    words = [data, "--out", str(out / "study"), "--models", ",".join(map(str, files)), "--spatial", "none"]
    words += [*CLIPS, *SCRATCH, "--seeds", ",".join(map(str, options.seeds))]
    words += ["--epochs", str(options.epochs), "--joint-epochs", "1", "--equal", "epochs"]
    peakzoom("compare", *words, *(word for fold in options.fold for word in ("--fold", fold)))
    collect(out, space, files)


def collect(out: Path, space: Space, files: Sequence[Path]) -> None:
    """A line of JSON for each network: its cost, and which test videos it got right with which seed."""
    answers: dict[str, dict[str, dict[str, tuple[str, bool]]]] = {}
    for row in read_csv(out / "study" / "answers.csv"):
        of_seed = answers.setdefault(row["model"].partition("-")[0], {}).setdefault(row["seed"], {})
        of_seed[row["video"]] = row["group"], row["fused"] == row["label"]
    lines = []
    for file in files:
        plan, pool = plan_from_dict(json.loads(file.read_text(encoding="utf-8")))
        network = TCNN(10, plan=plan, pool=pool)
        seeds = answers[file.stem]
        videos = sorted(next(iter(seeds.values())))
        row = {
            "network": file.stem,
            "plan": described(plan),
            "G multiply-adds": round(space.cost(space.point(plan)), 6),
            "M parameters": round(sum(value.numel() for value in network.parameters()) / 1e6, 4),
            "group": [next(iter(seeds.values()))[video][0] for video in videos],
            "right": {seed: [int(found[video][1]) for video in videos] for seed, found in seeds.items()},
        }
        lines.append(json.dumps(row))
    (out / "searched.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def near_table_1(data: str, out: Path, options: argparse.Namespace) -> None:
    frames, size, width = 16, 64, 0.125
    space = given("tcnn", width, 32, frames, size)
    budget = space.cost(space.point(space.given))
    for seed in options.seeds:
        run = out / f"table1-{seed}"
        words = [data, "--budget", f"{budget:.6f}G", "--model", "tcnn", "--set", f"width={width}"]
        words += ["--size", str(size), "--set", f"preprocess.frames={frames}", "--set", "stride=2"]
        words += ["--set", "max_stride=32", *SCRATCH, "--search-epochs", str(options.search_epochs)]
        words += ["--epochs", "1", "--joint-epochs", "1", "--seed", str(seed), "--out", str(run)]
        peakzoom("search", *words, *(["--resume"] if (run / "config.json").exists() else []))
        plan, _ = plan_from_dict(json.loads((run / "architecture.json").read_text(encoding="utf-8")))
        for number, (found, printed) in enumerate(zip(plan.stages, PAPER.stages, strict=True), 2):
            wide = found.channels / (printed.channels * width)
            print(
                f"seed {seed}, stage {number}: {found.dilations}, Table 1 {printed.dilations}; {wide:.2f} times as wide"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--seeds", type=lambda text: [int(each) for each in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--search-epochs", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--fold", action="append", default=[])
    parser.add_argument("--table-1", action="store_true")
    options = parser.parse_args()
    (near_table_1 if options.table_1 else against_random)(options.data, options.out, options)


if __name__ == "__main__":
    main()
