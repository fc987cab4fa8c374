"""Every entry of ``peakzoom weights`` at its real size: trained, predicted, explained, saved, loaded; time and memory.

    python benchmarks/entries.py --work FOLDER --out entries.jsonl                       # all that are not in it yet
    python benchmarks/entries.py --work FOLDER --out entries.jsonl kinetics400/videomae_s imagenet/tsm

The files have the real names and shapes and random numbers; a server on this machine gives them under the addresses
of the table. Each entry goes through the command line in a process of its own: two steps of stage 1 and two of stage 2
with three branches, one clip each, ``predict`` and ``explain`` with one view, and the model saved and loaded again,
whose scores are compared. A line of JSON an entry; at the end the table for the log.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import huggingface_hub.constants
import numpy as np
import torch
from blocks import markdown
from published import Shapes, random_state
from stand_ins import TABLES, Server, has_torchvision, write_table

from peakzoom.cli import main as peakzoom
from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
from peakzoom.inference.cost import multiply_adds
from peakzoom.inference.recognizer import load
from peakzoom.model import BACKBONES, public
from peakzoom.model.backbones import TORCHVISION, options_for
from peakzoom.model.load import find_model, read_model
from peakzoom.video.sampling import Views

ONE = ("--num-clips", "1", "--crops", "1", "--device", "cpu")
TRAIN = (
    *(
        "--set",
        "branches=original,discriminative,complementary",
        "--set",
        "accelerator=cpu",
        "--workers",
        "0",
    ),
    *("--val-fraction", "0", "--epochs", "1", "--joint-epochs", "1", "--batch-size", "1"),
)
CHECKPOINTED = ("timesformer", "vivit", "vjepa2_l", "videomae_b", "videomae_l")  # --set checkpoint=true


def file_of(table: Shapes) -> bytes:
    """Random numbers of these names and shapes, as ``torch.save`` writes them."""
    stream = io.BytesIO()
    torch.save(random_state(table), stream)
    return stream.getvalue()


def command(*words: object) -> str:
    """What a command of peakzoom said; SystemExit where it failed."""
    said = io.StringIO()
    sys.argv = ["peakzoom", *map(str, words)]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            peakzoom()
        except SystemExit as left:
            if left.code:
                raise SystemExit(f"{' '.join(sys.argv)}: {said.getvalue()[-2000:]}") from left
    return said.getvalue()


@contextlib.contextmanager
def timed(row: dict[str, Any], name: str) -> Iterator[None]:
    began = time.perf_counter(), time.process_time()
    yield
    row[f"{name} s"] = round(time.perf_counter() - began[0], 1)
    row[f"{name} CPU s"] = round(time.process_time() - began[1], 1)


def walk(name: str, clips: Path, out: Path) -> dict[str, Any]:
    """One entry from its file to its explanation; in a process of its own, whose memory is then its."""
    torch.set_num_threads(1)
    entry, pre = public.public_weights()[name], public.public_weights()[name].preprocess
    with torch.device("meta"):
        network = BACKBONES[entry.network](
            400, **options_for(entry.network, public.STRIDE, pre["frames"], pre["size"])
        )
    row: dict[str, Any] = {"entry": name, "frames": pre["frames"], "size": pre["size"]}
    row["G"] = multiply_adds(network, pre["frames"], pre["size"])
    words = (*TRAIN, "--set", "checkpoint=true") if entry.network in CHECKPOINTED else TRAIN
    with timed(row, "train"):
        said = command("train", clips / "clips.csv", "--weights", name, "--out", out, *words)
    row["loaded"] = next(
        line.split(" tensors")[0].split()[-1] for line in said.splitlines() if " tensors of " in line
    )
    clip = next(clips.rglob("test_*.mp4"))
    with timed(row, "predict"):
        command("predict", out, clip, *ONE, "--jsonl", out / "said.jsonl")
    with timed(row, "explain"):
        command("explain", out, clip, "--out", out / "seen", *ONE)
    line = json.loads((out / "said.jsonl").read_text("utf-8"))
    read_model(find_model(out)).save_pretrained(out / "again")
    again = load(out / "again", "cpu").predict(clip, Views(clips=1, crops=1))
    wanted = np.array([[line["scores"][branch][each] for each in again.classes] for branch in again.scores])
    row["largest difference"] = float(np.abs(wanted - np.stack(list(again.scores.values()))).max())
    row["GB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)
    return row


def alone(name: str, clips: Path, work: Path) -> dict[str, Any]:
    """An entry's walk with a server of its own."""
    folder = work / f"{name.replace('/', '-')}-{time.time_ns()}"
    folder.mkdir()
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    huggingface_hub.constants.HF_HUB_OFFLINE = False  # the server is this machine
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        write_table(server, folder / "weights", file_of, (name,))
        with mock.patch.object(public, "FOLDER", folder / "weights"):
            public.public_weights.cache_clear()
            public.public_weights()[name].file()
            server.files.clear()  # they are in the cache now, and no part of what an entry takes
            row = walk(name, clips, folder / "run")
        server.shutdown()
    shutil.rmtree(folder)
    return row


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def table(rows: list[dict[str, Any]]) -> list[str]:
    """For the log, in the order of ``peakzoom weights``."""
    head = ["entry", "clip", "G", "tensors", "train, CPU s", "predict", "explain", "GB", "saved and loaded"]
    order = {name: number for number, name in enumerate(TABLES)}
    cells = [
        [
            f"`{row['entry']}`", f"{row['frames']} x {row['size']}", f"{row['G']:.1f}", row["loaded"],
            *(f"{row[f'{part} CPU s']:.0f}" for part in ("train", "predict", "explain")), f"{row['GB']:.1f}",
            "equal" if row["largest difference"] < 1e-6 else f"{row['largest difference']:.1g}",
        ]
        for row in sorted(rows, key=lambda row: order[row["entry"]])
    ]  # fmt: skip
    return markdown(head, cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entries", nargs="*", help="names of peakzoom weights; all when not given")
    parser.add_argument("--work", type=Path, required=True, help="folder for clips, weights and runs")
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are added to this file")
    parser.add_argument("--here", action="store_true", help="the one entry, in this process")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    clips = asked.work / "clips"
    if not clips.exists():
        render_dataset(clips, DatasetSpec(2, 2, ("wave", "kick"), frames=16, difficulty=0.2), workers=1)
    if asked.here:
        with asked.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(alone(asked.entries[0], clips, asked.work)) + "\n")
        return
    done = {row["entry"] for row in rows_of(asked.out)}
    for name in asked.entries or TABLES:
        if name in done:
            continue
        if public.public_weights()[name].network in TORCHVISION and not has_torchvision():
            print(f"left out, torchvision does not import: {name}", flush=True)
            continue
        words = [name, "--work", asked.work, "--out", asked.out, "--here"]
        if subprocess.run([sys.executable, __file__, *words], check=False).returncode:
            print(f"failed: {name}", flush=True)
    print("\n".join(table(rows_of(asked.out))))


if __name__ == "__main__":
    main()
