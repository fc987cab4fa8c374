"""Makes the files of an earlier version that tests/test_old_files.py reads with today's code.

    git worktree add /tmp/old 03616bc
    PYTHONPATH=/tmp/old/src python tests/old/make.py tests/old/03616bc.zip

It calls commands that version 03616bc had. The network is the smallest that it made, so that everything that a user may
have kept fits into 1.3 MB: a run that was killed in its second stage, a finished one, an evaluation
with its scores, thresholds of the early exit, and the exported files.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NETWORK = ["--width", "0.1", "--size", "32", "--frames", "8", "--stride", "1", "--batch-size", "4"]
EPOCHS = ["--epochs", "1", "--joint-epochs", "3"]
MACHINE = ["--workers", "0", "--accelerator", "cpu", "--cache", "off"]


# Without validation there is no best checkpoint, which would be needed beside the last one.
KILLED = [*NETWORK, *EPOCHS, "--val-fraction", "0", *MACHINE]
UNNEEDED = ("tensorboard", "curves.png", "confusion.png", "curve.*", "previous.ckpt", "best.ckpt", "last")


def peakzoom(*words: object) -> list[str]:
    return [sys.executable, "-m", "peakzoom", *map(str, words)]


def call(*words: object) -> None:
    subprocess.run(peakzoom(*words), check=True)


def copy_without(folder: Path, target: Path, patterns: tuple[str, ...]) -> None:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*patterns))


def keep_two_classes(manifest: Path) -> None:
    """Leave the clips of two of the ten classes in the list."""
    head, *rows = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = [row for row in rows if row.startswith(("wave/", "nod/"))]
    manifest.write_text("".join([head, *chosen]), encoding="utf-8")


def kill_in_second_stage(clips: Path, run: Path) -> None:
    """Start a training and kill it once a checkpoint of its second stage is there and its weights are not."""
    process = subprocess.Popen(peakzoom("train", clips, "--out", run, *KILLED))
    while not (run / "joint" / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.01)
        if process.poll() is not None:
            raise SystemExit("the training ended before it could be killed")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if (run / "joint" / "last").exists():
        raise SystemExit("the training was killed too late: run this again")


def kept(folder: str, name: str) -> bool:
    """Whether a file or folder of the clips belongs to one of the two classes."""
    return name in ("wave", "nod", "clips.csv") or Path(folder).name in ("wave", "nod")


def main() -> None:
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        work, out = Path(name), Path(name) / "out"
        clips, killed, run = work / "clips", work / "killed", work / "run"
        out.mkdir()
        shape = ["--height", "48", "--width", "64", "--frames", "12"]
        call("data", "render", clips, "--train-clips", "60", "--test-clips", "20", *shape)
        keep_two_classes(clips / "clips.csv")
        kill_in_second_stage(clips / "clips.csv", killed)
        call(
            "train", clips / "clips.csv", "--out", run, *NETWORK, *EPOCHS, "--val-fraction", "0.25", *MACHINE
        )
        call("calibrate", run, "--loss", "100", "--device", "cpu")
        call("evaluate", run, "--device", "cpu")
        for kind, file in (("onnx", "model.onnx"), ("openvino", "model.xml")):
            call("export", run, "--to", kind, "--out", out / file)
        for folder in (killed, run):
            copy_without(folder, out / folder.name, UNNEEDED)
        shutil.rmtree(out / "run" / "joint" / "checkpoints")
        for stage in ("killed/tcnn", "run/tcnn"):
            shutil.rmtree(out / stage / "checkpoints")
        (out / "asked.json").write_text(json.dumps(KILLED) + "\n", encoding="utf-8")
        shutil.copytree(
            clips, out / "clips", ignore=lambda folder, names: [n for n in names if not kept(folder, n)]
        )
        shutil.make_archive(str(target.with_suffix("")), "zip", out)


if __name__ == "__main__":
    main()
