"""Options that several commands share: each stands here once, and the groups of them are plain dataclasses.

A command takes a group as one parameter, ``recipe: RecipeOptions`` (:mod:`peakzoom.cli.grouped`). What a group means
to the library is one of its methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from peakzoom.cli.console import say
from peakzoom.utils.processors import processors

if TYPE_CHECKING:
    from peakzoom.data.entries import VideoSet
    from peakzoom.inference.recognizer import Recognizer
    from peakzoom.video.sampling import Views

# Options by the panel of the help that shows them.
data_option = partial(typer.Option, rich_help_panel="Data")
view_option = partial(typer.Option, rich_help_panel="Views")
network_option = partial(typer.Option, rich_help_panel="Network")
training_option = partial(typer.Option, rich_help_panel="Training")
hardware_option = partial(typer.Option, rich_help_panel="Hardware")
output_option = partial(typer.Option, rich_help_panel="Output")

Engine = Literal["torch", "onnx", "openvino"]
Layout = Literal[
    "auto", "folder", "manifest", "ucf101", "hmdb51", "kinetics", "cvat", "label-studio", "via", "activitynet"
]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]  # Lightning's names

DATA_HELP = (
    "Folder of class subfolders; CSV/TSV manifest (path, label, split, group); UCF101, HMDB51, Kinetics; file of CVAT, "
    "Label Studio, VIA 3, ActivityNet."
)
RUN_HELP = (
    "Run folder, saved model, exported file, owner/name on the hub, or public weights as kinetics400/tsm."
)
DataArg = Annotated[Path, typer.Argument(help=DATA_HELP, show_default=False)]
RunArg = Annotated[str, typer.Argument(help=RUN_HELP, show_default=False)]
DeviceOpt = Annotated[str, hardware_option(help="auto, cpu, cuda, mps ...")]
PrecisionOpt = Annotated[
    Precision, hardware_option(help="Precision of engine torch; half is faster on GPUs and on some CPUs.")
]
CalibratedOpt = Annotated[
    bool, typer.Option(help="Scores at the temperature that 'peakzoom calibrate' has found.")
]
RejectOpt = Annotated[
    bool,
    typer.Option(
        "--reject",
        help="Name no class where too little is known, by the threshold of 'peakzoom calibrate --reject'.",
    ),
]
DecodersOpt = Annotated[
    int, hardware_option(min=0, help="Decoding processes; 0 decodes without a time limit.")
]
ModelOpt = Annotated[
    str | None,
    network_option(
        help="tcnn_local (paper), tcnn_s, tcnn_xs_local, a baseline: r3d_18, tsm, i3d ...; your own, as "
        "package.module:factory; or FILE.json, a network's plan.",
        show_default="tcnn_xs_local, paper: tcnn_local",
    ),
]
InitOpt = Annotated[
    str | None,
    network_option(
        help="Trained model to start from (a run, or owner/name on the hub), or none: from scratch. Where none is "
        "named, weights that come with peakzoom are taken if they fit the network."
    ),
]
WeightsOpt = Annotated[
    str | None,
    network_option(
        metavar="NAME|FILE|URL",
        help="Published weights to start from: a name that 'peakzoom weights' lists, which brings its network and "
        "clips; or a file of the --model, .safetensors or PyTorch's.",
    ),
]
VAL_FRACTION: dict[str, Any] = {
    "min": 0.0,
    "max": 0.9,
    "help": "Share of the training videos to validate on; 0: none, the last epoch is kept.",
}
ValFractionOpt = Annotated[
    float | None, data_option(**VAL_FRACTION, show_default="0.15; 0 where a class has fewer than 5")
]


@dataclass(frozen=True)
class LayoutOptions:
    """How DATA is read."""

    layout: Annotated[Layout, data_option("--format", help="Layout of DATA.")] = "auto"
    splits: Annotated[
        Path | None, data_option(help="Folder of the official split files (UCF101, HMDB51).")
    ] = None
    root: Annotated[
        Path | None,
        data_option(help="Folder that the paths of a list or of a tool's file start from."),
    ] = None
    background: Annotated[
        str | None,
        data_option(
            metavar="CLASS",
            help="A further class for time that no row of a manifest with start and end covers.",
            show_default=False,
        ),
    ] = None

    multi_label: Annotated[
        bool,
        data_option(
            "--multi-label", help="A video may have several labels; in a manifest they are separated by ';'."
        ),
    ] = False

    def videos(self, data: Path, split_number: int = 1) -> VideoSet:
        """The labelled videos of DATA, of one official split; how they were read is said."""
        from peakzoom.data.datasets import open_data

        videos = self.beside(
            open_data(data, self.layout, self.splits, split_number, self.root, self.multi_label)
        )
        for note in videos.notes:
            say(note)
        return videos

    def beside(self, videos: VideoSet) -> VideoSet:
        """The videos, with a class for what lies beside the labelled segments if it is wanted."""
        if self.background is None:
            return videos
        from peakzoom.data.background import with_background

        return with_background(videos, self.background, processors())


@dataclass(frozen=True)
class DataOptions(LayoutOptions):
    """How DATA is read, of one official split."""

    split_number: Annotated[int, data_option(help="Which official split: 1, 2 or 3.")] = 1


@dataclass(frozen=True)
class ViewOptions:
    """Which views of a test video are averaged."""

    clips: Annotated[str, view_option(help="Clip rule: paper, tsm-dense, slowfast, tsn-uniform.")] = "paper"
    num_clips: Annotated[int, view_option(help="Clips of a video.")] = 10
    crops: Annotated[int, view_option(help="Crops of a clip.")] = 3

    def given(self) -> dict[str, object]:
        """Whether others than the usual ones are asked for, by their options."""
        return {"--clips, --num-clips or --crops": self != ViewOptions()}

    def views(self) -> Views:
        """The same, as the library takes it."""
        from peakzoom.video.sampling import Views

        return Views(self.clips, self.num_clips, self.crops)


@dataclass(frozen=True)
class EngineOptions:
    """What computes the predictions."""

    device: DeviceOpt = "auto"
    engine: Annotated[
        Engine | None, hardware_option(help="Default: torch, or what an exported file needs.")
    ] = None
    precision: PrecisionOpt = "32-true"

    def load(self, run: str) -> Recognizer:
        """The trained model, ready for files; UserError where nothing is there, or it cannot be computed so."""
        from peakzoom.inference.recognizer import load

        return load(run, **vars(self))


@dataclass(frozen=True)
class CascadeOptions(EngineOptions):
    """What computes the predictions, and how far; and whether they may be rejected."""

    cascade: Annotated[bool, typer.Option(help="Exit early, by the thresholds of 'peakzoom calibrate'.")] = (
        False
    )
    reject: RejectOpt = False

    def given(self) -> dict[str, object]:
        """What changes how a test video is predicted, by its option."""
        return {"--cascade": self.cascade, "--reject": self.reject}


@dataclass(frozen=True)
class CalibratedOptions(CascadeOptions):
    """What computes the predictions, how far, and what their scores mean."""

    calibrated: CalibratedOpt = False


@dataclass(frozen=True)
class ScoreOptions(EngineOptions):
    """What computes the predictions, what their scores mean, and whether they may be rejected."""

    calibrated: CalibratedOpt = False
    reject: RejectOpt = False


@dataclass(frozen=True)
class RecipeOptions:
    """A recipe, and what of it is to be otherwise; None leaves it as it is."""

    recipe: Annotated[
        str | None,
        training_option(
            metavar="NAME|FILE",
            help="small: small data, the network alone; spatial: the same with three branches; finetune: from public "
            "weights; paper: Sec. 3.1; or a TOML file (see 'peakzoom recipe').",
            show_default="small, with --weights: finetune",
        ),
    ] = None
    epochs: Annotated[
        int | None, training_option(help="Epochs of stage 1, the network.", show_default="50, paper: 150")
    ] = None
    joint_epochs: Annotated[
        int | None, training_option(help="Epochs of stage 2.", show_default="75, spatial: 25, paper: 150")
    ] = None
    batch_size: Annotated[int | None, training_option(help="Clips in a batch.", show_default="16")] = None
    lr: Annotated[
        float | None,
        training_option(
            help="Highest learning rate of each stage.", show_default="0.002, then 0.001; paper: 0.1"
        ),
    ] = None
    accumulate: Annotated[
        int | None,
        training_option(help="Batches that make a step, where memory holds no larger one.", show_default="1"),
    ] = None
    augment: Annotated[
        Literal["none", "light", "strong"] | None,
        training_option(
            help="Random changes of clips. strong: also RandAugment, erasing, mixup and cutmix.",
            show_default="the recipe's: light, paper: crops and mirrors",
        ),
    ] = None
    freeze: Annotated[
        bool,
        training_option(
            "--freeze",
            help="Train the classifiers alone, on features that are computed once; the betas too, where it zooms.",
        ),
    ] = False
    lora: Annotated[
        int | None,
        training_option(
            metavar="RANK",
            min=1,
            help="Train low-rank matrices in place of the network's weights, and add them at the end.",
            show_default=False,
        ),
    ] = None
    distill: Annotated[
        bool,
        training_option(
            "--distill",
            help="Let the original branch learn from the fused prediction (--set distill=WEIGHT).",
        ),
    ] = False
    size: Annotated[
        int | None,
        training_option(help="Side of the input in pixels.", show_default="96, paper: 224"),
    ] = None
    zoom_source: Annotated[
        str | None,
        training_option(
            metavar="N|native",
            help="Zoomed videos are read from frames N times as large as the input; native: as large as the videos, if "
            "memory holds.",
            show_default="2; paper, finetune: 1",
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        training_option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key that 'peakzoom recipe small' prints, as stride=4 or accelerator=cpu. May be given again.",
        ),
    ] = None


@dataclass(frozen=True)
class MachineOptions:
    """What a training runs on."""

    workers: Annotated[
        int | None, hardware_option(min=0, help="Loader processes.", show_default="one less than the cores")
    ] = None
    precision: Annotated[str, hardware_option(help="32-true, bf16-mixed, 16-mixed ...")] = "32-true"
    logger: Annotated[
        Literal["tensorboard", "wandb", "mlflow"],
        output_option(help="Where figures go too: Weights & Biases or MLflow, beside TensorBoard's files."),
    ] = "tensorboard"
