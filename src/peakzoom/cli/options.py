"""Options that several commands share: each stands here once, and the groups of them are plain dataclasses.

A command takes a group as one parameter, ``recipe: RecipeOptions``, and :func:`grouped` shows Typer its fields as the
command's own options. What the values mean to the library is said by the functions at the end.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from peakzoom.inference.recognizer import Recognizer


class RecipeName(str, Enum):
    """Recipes by name."""

    small = "small"
    paper = "paper"


class Cache(str, Enum):
    """Whether decoded frames are kept on disk."""

    auto = "auto"
    on = "on"
    off = "off"


class Engine(str, Enum):
    """What computes the answers."""

    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


class Precision(str, Enum):
    """What a network computes in; the names are Lightning's."""

    full = "32-true"
    bf16 = "bf16-mixed"
    half = "16-mixed"


class Target(str, Enum):
    """What a model is exported to."""

    onnx = "onnx"
    openvino = "openvino"
    torch = "torch"


class Layout(str, Enum):
    """How a data set is laid out."""

    auto = "auto"
    folder = "folder"
    manifest = "manifest"
    ucf101 = "ucf101"
    hmdb51 = "hmdb51"
    kinetics = "kinetics"


DATA_HELP = (
    "Folder of class subfolders; CSV/TSV manifest (path, label, split, group); UCF101, HMDB51, Kinetics."
)
DataArg = Annotated[Path, typer.Argument(help=DATA_HELP, show_default=False)]
RunArg = Annotated[
    str,
    typer.Argument(
        help="Run folder, saved model, exported file, or owner/name on the hub.", show_default=False
    ),
]
DeviceOpt = Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")]
PrecisionOpt = Annotated[
    Precision, typer.Option(help="Of engine torch; half is faster on GPUs and on some CPUs.")
]
CascadeOpt = Annotated[
    bool, typer.Option("--cascade", help="Look only as far as 'peakzoom calibrate' found necessary.")
]
DecodersOpt = Annotated[int, typer.Option(min=0, help="Decoding processes; 0 decodes without bounds.")]
ValFractionOpt = Annotated[
    float, typer.Option(min=0.0, max=0.9, help="Of the training videos; 0 keeps the last epoch.")
]


@dataclass(frozen=True)
class LayoutOptions:
    """How DATA is read."""

    layout: Annotated[Layout, typer.Option("--format", help="Layout of DATA.")] = Layout.auto
    splits: Annotated[
        Path | None, typer.Option(help="Folder of the official split files (UCF101, HMDB51).")
    ] = None
    root: Annotated[Path | None, typer.Option(help="Folder that the paths of a manifest start from.")] = None


@dataclass(frozen=True)
class DataOptions(LayoutOptions):
    """How DATA is read, of one official split."""

    split_number: Annotated[int, typer.Option("--split-number", help="Which official split: 1, 2 or 3.")] = 1


@dataclass(frozen=True)
class ViewOptions:
    """Which views of a test video are averaged."""

    clips: Annotated[
        str,
        typer.Option("--clips", help="Clip rule: paper, tsm-dense, slowfast, tsn-uniform."),
    ] = "paper"
    num_clips: Annotated[int, typer.Option("--num-clips", help="Clips of a video.")] = 10
    crops: Annotated[int, typer.Option("--crops", help="Crops of a clip.")] = 3


@dataclass(frozen=True)
class EngineOptions:
    """What computes the answers."""

    device: DeviceOpt = "auto"
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="What computes: torch, onnx, openvino. Default: torch, or what an exported file needs."
        ),
    ] = None
    precision: PrecisionOpt = Precision.full

    @property
    def engine_name(self) -> str | None:
        """As the library calls it."""
        return self.engine.value if self.engine else None

    def load(self, run: str, cascade: bool = False) -> Recognizer:
        """The trained model, ready for files.

        Raises:
            UserError: nothing is there, or it cannot be computed so.
        """
        from peakzoom.inference.recognizer import load

        return load(run, self.device, self.engine_name, self.precision.value, cascade)


@dataclass(frozen=True)
class NetworkOptions:
    """Which video network."""

    model: Annotated[
        str | None,
        typer.Option(help="Network: tcnn (paper), tcnn_s, tcnn_xs, or a peer: r3d_18, tsm, i3d ..."),
    ] = None
    width: Annotated[float | None, typer.Option(min=0.01, help="Factor on the network's channels.")] = None


@dataclass(frozen=True)
class RecipeOptions:
    """A recipe, and what of it is to be otherwise; None leaves it as it is."""

    recipe: Annotated[
        RecipeName, typer.Option("--recipe", help="small: from scratch on small data; paper: Sec. 3.1.")
    ] = RecipeName.small
    epochs: Annotated[int | None, typer.Option(min=1, help="Of the T-CNN.")] = None
    joint_epochs: Annotated[int | None, typer.Option(min=1, help="Of the joint training.")] = None
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips in a batch.")] = None
    lr: Annotated[float | None, typer.Option(help="Highest learning rate of both steps.")] = None
    dropout: Annotated[float | None, typer.Option(min=0.0, max=0.99, help="Before every classifier.")] = None
    size: Annotated[int | None, typer.Option(min=32, help="Side of the input in pixels.")] = None
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip.")] = None
    stride: Annotated[int | None, typer.Option(min=1, help="Frame stride.")] = None
    fps: Annotated[float | None, typer.Option(min=0.01, help="Take every video at this rate.")] = None
    zoom_source: Annotated[
        int | None, typer.Option(min=1, help="Zoom from frames this many times the input.")
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(help="Of red, green, blue between 0 and 1, taken off the pixels: 0.485,0.456,0.406."),
    ] = None
    std: Annotated[str | None, typer.Option(help="By which they are then divided: 0.229,0.224,0.225.")] = None
    attention_per: Annotated[
        str | None, typer.Option(help="One attention per frame (paper) or per clip.")
    ] = None
    response: Annotated[
        str | None, typer.Option(help="Where peaks are sought: gate (paper) or evidence.")
    ] = None
    erase: Annotated[
        float | None,
        typer.Option(help="Reach of a peak that is erased to find further ones, in frames; 0: none (paper)."),
    ] = None
    no_flip: Annotated[
        bool, typer.Option("--no-flip", help="Never mirror: left and right are different classes.")
    ] = False


@dataclass(frozen=True)
class MachineOptions:
    """What a training runs on."""

    cache: Annotated[Cache, typer.Option(help="Keep decoded frames on disk; auto: up to 8 GiB.")] = Cache.auto
    workers: Annotated[int | None, typer.Option(min=0, help="Loader processes.")] = None
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, 16-mixed ...")] = "32-true"
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, mps ...")] = "auto"
    devices: Annotated[
        str, typer.Option(help="How many, or which; a process for each. auto: as torchrun started.")
    ] = "auto"
    sync_batch_norm: Annotated[
        bool, typer.Option("--sync-batch-norm", help="Batch norms over the clips of all processes.")
    ] = False

    def asked(self) -> dict[str, Any]:
        """The same, by the names of :class:`peakzoom.training.options.Options`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "cache": self.cache.value}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its dataclass parameters as options of its own.

    Typer reads a command's options from the signature, so this gives the function one in which every group is
    replaced by its fields; the groups are made again from what comes.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    flat: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if not dataclasses.is_dataclass(kind := hints[name]):
            flat[name] = parameter.replace(annotation=kind, kind=parameter.KEYWORD_ONLY)
            continue
        assert isinstance(kind, type)
        groups[name] = kind
        inner = get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            assert field.name not in flat, f"two options are called {field.name}"
            flat[field.name] = inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=inner[field.name],
            )

    def call(**given: Any) -> None:
        made = {
            name: kind(**{field.name: given.pop(field.name) for field in dataclasses.fields(kind)})
            for name, kind in groups.items()
        }
        command(**given, **made)

    call.__name__, call.__doc__, call.__module__ = command.__name__, command.__doc__, command.__module__
    call.__annotations__ = {name: parameter.annotation for name, parameter in flat.items()}
    call.__signature__ = inspect.Signature(list(flat.values()))  # type: ignore[attr-defined]
    return call
