"""Whether an architecture search beats the network that it starts from, and networks of equal cost drawn at random.

For each seed ``peakzoom search`` looks around ``tcnn_xs`` at half its width under that network's own cost; three more
networks of that cost are drawn from the same space, all alike likely. Then ``peakzoom compare`` trains all of them from
scratch in the same way, with each seed. Both go on where they were stopped; ``searched.jsonl`` is what pages.py reads.

    peakzoom data render clips --train-clips 400 --test-clips 400
    python benchmarks/searched.py clips/clips.csv --out searched
    python benchmarks/searched.py UT_INTERACTION/clips.csv --out ut --folds 5 --search-epochs 100 --epochs 50

With ``--folds`` a list without a split is divided by its groups: each fold is tested once, by networks that were found
and trained on the others. There the search with a seed, the drawing with it and the training with it go together.

``--start`` in its place begins with the weights that come with the package, as a user does, on clips of 8 x 96 x 96:
the network that is found trains from the search's large one and learns from it, and so do, in its place, the given
network ("inherited") and a random one; "given" is trained plainly from the start.

    python benchmarks/searched.py UT_INTERACTION/clips.csv --out ut --folds 2 --search-epochs 60 --epochs 40 --start
    peakzoom data render tempos --tempos --train-clips 400 --test-clips 400 --performers 60 --backgrounds 60
    python benchmarks/searched.py tempos/clips.csv --out tempos-start --search-epochs 8 --epochs 8 --start

``--table-1`` in its place trains the paper's own network, narrow and small, looks around it under its own cost, and
says which frames each block looks at, beside Table 1.

    peakzoom data render easy --difficulty 0 --train-clips 800 --test-clips 120 --performers 40 --backgrounds 40 \\
        --height 96 --width 128
    python benchmarks/searched.py easy/clips.csv --out table-1 --table-1 --search-epochs 20 --seeds 0,1
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import torch

from peakzoom.model.backbones import TCNN, backbone_factory
from peakzoom.model.backbones.architecture import plan_from_dict, plan_to_dict
from peakzoom.model.backbones.space import Space, described
from peakzoom.model.backbones.tcnn import PAPER
from peakzoom.utils.durable import read_csv, write_csv

FRAMES, SIZE, WIDTH, STRIDE = 8, 64, 0.5, 16
START_SIZE = 96  # of the clips that the weights of the package have seen
STARTED = ("given", "found", "inherited", "random")
CLIPS = ["--set", f"preprocess.frames={FRAMES}", "--set", "stride=3", "--size", str(SIZE)]
SCRATCH = ["--init", "none", "--set", "quiet=0"]
SHORT = ["--epochs", "1", "--joint-epochs", "1", "--set", "tcnn.min_steps=0", "--set", "joint.min_steps=0"]


def peakzoom(*words: str) -> None:
    print("peakzoom", *words, flush=True)
    subprocess.run([sys.executable, "-m", "peakzoom", *words], check=True)


def given(name: str, width: float, max_stride: int, frames: int, size: int) -> Space:
    network = backbone_factory(name)(10, width=width, max_stride=max_stride)
    assert isinstance(network, TCNN)
    return Space(network, frames, size)


def allowed(budget: float) -> str:
    """As ``--budget`` takes it, rounded up, so that a network that costs just this is within it."""
    return f"{budget + 5e-7:.6f}G"


def write_plan(space: Space, picks: dict[str, int], file: Path) -> None:
    file.write_text(
        json.dumps(plan_to_dict(space.plan(picks), space.pool), indent=2) + "\n", encoding="utf-8"
    )


def divided(data: Path, folds: int, out: Path) -> list[Path]:
    """A list for each fold: every ``folds``-th group is tested, as they come by length and name."""
    rows = read_csv(data)
    groups = sorted({row["group"] for row in rows}, key=lambda name: (len(name), name))
    lists = []
    for fold in range(folds):
        tested = set(groups[fold::folds])
        lists.append(out / f"fold{fold}" / "clips.csv")
        lists[-1].parent.mkdir(parents=True, exist_ok=True)
        write_csv(
            lists[-1],
            ("path", "label", "group", "split"),
            (
                (
                    row["path"],
                    row["class"],
                    row["group"],
                    "test" if row["group"] in tested else "train",
                )
                for row in rows
            ),
        )
    return lists


def against_random(data: Path, out: Path, options: argparse.Namespace) -> None:
    out.mkdir(parents=True, exist_ok=True)
    space = given("tcnn_xs", WIDTH, STRIDE, FRAMES, SIZE)
    budget = space.cost(space.point(space.given))
    write_plan(space, space.point(space.given), out / "given.json")
    for seed in options.seeds:
        draw = torch.Generator().manual_seed(seed)
        write_plan(space, space.draw(budget, draw), out / f"random{seed}.json")
    lists = divided(data, options.folds, out) if options.folds else [data]
    if options.start:
        collect_started(out, from_start(lists, out, options), options)
        return
    for listed in lists:
        home = listed.parent if options.folds else out
        for seed in options.seeds:
            search(listed, home, seed, budget, options)
        for seeds in together(options):
            compare(listed, out, home, seeds, options)
    collect(out, space, options)


def search(data: Path, home: Path, seed: int, budget: float, options: argparse.Namespace) -> None:
    found, run = home / f"found{seed}.json", home / f"search{seed}"
    if found.exists():
        return
    words = [str(data), "--budget", allowed(budget), "--model", "tcnn_xs", "--set", f"width={WIDTH}"]
    words += [*CLIPS, *SCRATCH, "--search-epochs", str(options.search_epochs), "--seed", str(seed)]
    words += [*SHORT, "--out", str(run), "--root", str(options.data.parent)]
    peakzoom("search", *words, *(["--resume"] if (run / "config.json").exists() else []))
    found.write_bytes((run / "architecture.json").read_bytes())


def from_start(lists: Sequence[Path], out: Path, options: argparse.Namespace) -> Space:
    """The same from the weights of the package, and what the search's large network gives to each."""
    space = given("tcnn_xs", WIDTH, STRIDE, FRAMES, START_SIZE)
    budget = space.cost(space.point(space.given))
    write_plan(space, space.point(space.given), out / "given.json")
    for seed in options.seeds:
        draw = torch.Generator().manual_seed(seed)
        write_plan(space, space.draw(budget, draw), out / f"random{seed}.json")
    how = ["--model", "tcnn_xs", "--set", f"width={WIDTH}", "--set", f"max_stride={STRIDE}"]
    how += ["--set", f"preprocess.frames={FRAMES}", "--size", str(START_SIZE), "--set", "quiet=0"]
    how += ["--set", "tcnn.min_steps=0", "--set", "joint.min_steps=0", "--val-fraction", "0"]
    how += ["--epochs", str(options.epochs), "--joint-epochs", "1", "--root", str(options.data.parent)]
    searching = ["--budget", allowed(budget), "--search-epochs", str(options.search_epochs)]
    for listed in lists:
        home = listed.parent if options.folds else out
        for seed in options.seeds:
            run = {kind: home / f"{kind}{seed}" for kind in STARTED}
            words = {
                kind: [str(listed), *how, "--seed", str(seed), "--out", str(run[kind])] for kind in STARTED
            }
            go_on("train", words["given"], run["given"])
            go_on("search", [*words["found"], *searching], run["found"])
            for kind, plan in (("inherited", "given"), ("random", f"random{seed}")):
                if not run[kind].exists():  # what is found is another network, and all else as it was
                    parts = shutil.ignore_patterns("tcnn", "joint*", "evaluated")
                    shutil.copytree(run["found"], run[kind], ignore=parts)
                    shutil.copy(out / f"{plan}.json", run[kind] / "architecture.json")
                go_on("search", [*words[kind], *searching], run[kind])
            for each in run.values():
                if not (scores := each / "evaluated").exists():
                    peakzoom("evaluate", str(each), "--num-clips", "4", "--crops", "1", "--out", str(scores))
    return space


def go_on(command: str, words: Sequence[str], run: Path) -> None:
    """Begin a run, or go on with it."""
    peakzoom(command, *words, *(["--resume"] if (run / "config.json").exists() else []))


def together(options: argparse.Namespace) -> list[list[int]]:
    """Seeds of one study: each network is trained with all; where there are folds, those of a seed with that."""
    return [[seed] for seed in options.seeds] if options.folds else [options.seeds]


def study(home: Path, seeds: Sequence[int], options: argparse.Namespace) -> Path:
    return home / (f"study{seeds[0]}" if options.folds else "study")


def compare(data: Path, out: Path, home: Path, seeds: Sequence[int], options: argparse.Namespace) -> None:
    files = [out / "given.json"]
    for seed in seeds:
        files += [home / f"found{seed}.json", out / f"random{seed}.json"]
    words = [str(data), "--out", str(study(home, seeds, options)), "--models", ",".join(map(str, files))]
    words += ["--spatial", "none", *CLIPS, *SCRATCH, "--seeds", ",".join(map(str, seeds))]
    words += ["--epochs", str(options.epochs), "--joint-epochs", "1", "--equal", "epochs"]
    peakzoom("compare", *words, "--root", str(options.data.parent))


# Of a network, by its seed: of each test video its group, and whether it was right.
Answers = dict[str, dict[str, dict[str, tuple[str, bool]]]]


def homes_of(out: Path, options: argparse.Namespace) -> list[Path]:
    return [out / f"fold{fold}" for fold in range(options.folds)] or [out]


def collect(out: Path, space: Space, options: argparse.Namespace) -> None:
    """What ``compare`` found."""
    answers: Answers = {}
    plans: dict[str, list[Path]] = {}
    homes = homes_of(out, options)
    for home in homes:
        for seeds in together(options):
            for row in read_csv(study(home, seeds, options) / "answers.csv"):
                name = row["model"].partition("-")[0]
                plans[name] = [file for each in {out, *homes} if (file := each / f"{name}.json").exists()]
                of_seed = answers.setdefault(name, {}).setdefault(row["seed"], {})
                of_seed[row["video"]] = row["group"], row["fused"] == row["label"]
    write_rows(out, answers, plans, space, options.data.absolute().parent.name)


def collect_started(out: Path, space: Space, options: argparse.Namespace) -> None:
    """What the runs of :func:`from_start` were evaluated to."""
    answers: Answers = {}
    plans: dict[str, list[Path]] = {}
    for home in homes_of(out, options):
        for name, seed in [(f"{kind}{seed}", str(seed)) for kind in STARTED for seed in options.seeds]:
            own = home / name / "architecture.json"
            plans.setdefault(name, []).append(own if own.exists() else out / "given.json")
            of_seed = answers.setdefault(name, {}).setdefault(seed, {})
            for row in read_csv(home / name / "evaluated" / "scores.csv"):
                if row["branch"] == "fused":
                    of_seed[row["path"]] = row["group"], row["predicted"] == row["class"]
    write_rows(out, answers, plans, space, f"{options.data.absolute().parent.name}-start")


def write_rows(
    out: Path, answers: Answers, plans: Mapping[str, Sequence[Path]], space: Space, title: str
) -> None:
    """A line of JSON for each network: its cost, and which test videos it got right with which seed."""
    lines = []
    for name, seeds_of in answers.items():
        read = [plan_from_dict(json.loads(file.read_text(encoding="utf-8"))) for file in sorted(plans[name])]
        networks = [TCNN(10, plan=plan, pool=pool) for plan, pool in read]
        of_first = next(iter(seeds_of.values()))
        videos = sorted(of_first)
        parameters = [sum(each.numel() for each in network.parameters()) for network in networks]
        row = {
            "set": title,
            "network": name,
            "plan": " | ".join(dict.fromkeys(described(plan) for plan, _ in read)),
            "G multiply-adds": round(mean(space.cost(space.point(plan)) for plan, _ in read), 6),
            "M parameters": round(mean(parameters) / 1e6, 4),
            "group": [of_first[video][0] for video in videos],
            "right": {seed: [int(found[video][1]) for video in videos] for seed, found in seeds_of.items()},
        }
        lines.append(json.dumps(row))
    (out / "searched.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def near_table_1(data: Path, out: Path, options: argparse.Namespace) -> None:
    """From the paper's network, trained: which dilations a search takes beside those of Table 1."""
    frames, size, width = 16, 64, 0.25
    space = given("tcnn", width, STRIDE, frames, size)
    printed = space.point(space.given)
    how = ["--model", "tcnn", "--recipe", "quickstart", "--set", f"width={width}", "--set", "stride=2"]
    how += ["--set", f"max_stride={STRIDE}", "--set", f"preprocess.frames={frames}", "--size", str(size)]
    how += ["--set", "quiet=0", "--set", "branches=original", "--set", "tcnn.min_steps=0"]
    how += ["--set", "joint.min_steps=0", "--val-fraction", "0.1", "--joint-epochs", "1"]
    plain = out / "plain"
    go_on("train", [str(data), *how, "--init", "none", "--epochs", "30", "--out", str(plain)], plain)
    for seed in options.seeds:
        run = out / f"search{seed}"
        words = [str(data), *how, "--init", str(plain), "--budget", allowed(space.cost(printed))]
        words += ["--search-epochs", str(options.search_epochs), "--epochs", "1", "--seed", str(seed)]
        go_on("search", [*words, "--out", str(run)], run)
        plan, _ = plan_from_dict(json.loads((run / "architecture.json").read_text(encoding="utf-8")))
        for number, (found, table) in enumerate(zip(plan.stages, PAPER.stages, strict=True), 2):
            wide = found.channels / (table.channels * width)
            print(
                f"seed {seed}, stage {number}: {found.dilations}, Table 1 {table.dilations}; {wide:.2f} times as wide"
            )
        last = list(read_csv(run / "search" / "probabilities.csv"))
        final = [
            row for row in last if row["epoch"] == last[-1]["epoch"] and row["choice"].endswith("dilation")
        ]
        for choice in dict.fromkeys(row["choice"] for row in final):
            value = str(space.choices[choice][printed[choice]])
            chances = {
                row["candidate"]: float(row["probability"]) for row in final if row["choice"] == choice
            }
            shown = ", ".join(f"{look} {chance:.2f}" for look, chance in chances.items())
            print(f"seed {seed}, {choice}: {shown}; Table 1 has {value}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--seeds", type=lambda text: [int(each) for each in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--search-epochs", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--table-1", action="store_true")
    options = parser.parse_args()
    (near_table_1 if options.table_1 else against_random)(options.data, options.out, options)


if __name__ == "__main__":
    main()
