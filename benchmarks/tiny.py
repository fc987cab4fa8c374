"""What tests and benchmarks that train share: synthetic clips, a recipe that needs a second, what must be the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from peakzoom.data.synthetic.clips import DatasetSpec, render_dataset
from peakzoom.training.recipes import Recipe, StageSettings
from peakzoom.video.views import Augment, Preprocess


def recipe() -> Recipe:
    """32 x 32 pixels, 8 frames, one epoch of each stage."""
    stage = StageSettings(1, "adamw", 1e-3, 1e-5, warmup=0.1, weight_decay=0.05, label_smoothing=0.1)
    return Recipe(
        name="tiny",
        model="tcnn_xs",
        tcnn=stage,
        joint=replace(stage, lr=5e-4),
        preprocess=Preprocess(size=32, frames=8, canvas=(36, 40)),
        augment=Augment(area=(0.7, 1.0), aspect=(0.9, 1.1), brightness=0.2, contrast=0.2),
        batch_size=6,
        dropout=0.3,
        class_balance=0.5,
        attention_per="clip",
    )


def longer(tcnn: int, joint: int) -> Recipe:
    """The same of so many epochs, with a quarter of the channels."""
    short = recipe()
    stages = replace(short.tcnn, epochs=tcnn), replace(short.joint, epochs=joint)
    return replace(short, width=0.25, tcnn=stages[0], joint=stages[1])


def undrawn(_: object) -> Figure:
    """In the place of a training's curves, which take longer than such a training."""
    return Figure()


def render(folder: Path) -> Path:
    """Three actions, 18 training and 6 test clips of 12 frames, with ``clips.csv``."""
    spec = DatasetSpec(
        train_clips=18,
        test_clips=6,
        classes=("wave", "nod", "kick"),
        height=64,
        width=64,
        frames=12,
        difficulty=0.2,
        performers=8,
    )
    return render_dataset(folder, spec, workers=1)


def made(run: Path) -> dict[str, bytes]:
    """What must be the same of two trainings: weights, the numbers of every epoch, what is said of the videos."""
    names = ("*.safetensors", "metrics.csv", "videos.csv", "problems.csv", "classes.txt", "config.json")
    return {
        str(file.relative_to(run)): file.read_bytes()
        for name in names
        for file in run.rglob(name)
        if file.name != "config.json" or file.parent == run  # a saved model's names no run
    }
