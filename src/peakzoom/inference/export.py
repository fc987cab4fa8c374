"""Write a trained model as one self-contained graph, and only if it computes what the model does (docs/export.md).

All three branches with the attention inside, from uint8 views to logits, for any number of clips. Class names and
preprocessing are in the file's metadata. The written file is opened again and compared with the trained network on
real clips before it gets its name.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peakzoom.inference.engines.base import Description, trace
from peakzoom.inference.engines.build import open_exported
from peakzoom.model import PeakZoom
from peakzoom.utils.durable import explain_full_disk
from peakzoom.utils.errors import DecodeError, UserError
from peakzoom.utils.system import expect_place
from peakzoom.utils.temporary import temporary_folder
from peakzoom.video.sampling import Views, decode_views
from peakzoom.video.views import Preprocess, to_input

TOLERANCE = 1e-3  # of logits
VIDEOS = 8  # to compare on, where more are at hand
TARGETS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
ABOUT = "peakzoom.json"  # of the metadata in a .pt2 file


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from the model."""

    files: list[Path]
    difference: float  # largest of any logit
    scale: float  # largest logit, to see it against
    clips: int  # compared


def export(
    model: PeakZoom, to: str, file: Path, clips: Iterable[Tensor], tolerance: float = TOLERANCE
) -> Exported:
    """Export a model and check the file.

    Args:
        model: trained, with ``preprocess``.
        to: one of ``TARGETS``.
        file: new; its ending is the target's.
        clips: batches of real uint8 views (B, T, 3, s, s) to compare on.
        tolerance: largest difference of a logit that is let through.

    Raises:
        UserError: the file exists or has another ending, there is no clip, or the logits differ by more.
    """
    check_target(to, file)
    with (
        explain_full_disk(file, "export it again"),
        temporary_folder(".export-", file.parent) as folder,
    ):
        written = folder / file.name
        difference, scale, count = compare(model, _write(model, to, written), clips)
        if not count:
            raise UserError("there is no clip to compare the exported model on: name videos with --check")
        if not difference <= tolerance:  # not >, so that a NaN is refused
            raise UserError(
                f"the exported model differs from the trained one by {difference:.2g} (logits up to {scale:.3g}), "
                f"more than {tolerance:g}, and was not kept; try another --to"
            )
        drafts = sorted(each for each in folder.iterdir() if each.is_file())
        files = [each.replace(file.parent / each.name) for each in drafts]
    return Exported(files, difference, scale, count)


def check_target(to: str, file: Path) -> None:
    """Refuse a file that cannot be written, before the work.

    Raises:
        UserError: as :func:`export`.
    """
    if to not in TARGETS:
        raise UserError(f"target is {to!r}, expected one of {', '.join(TARGETS)}")
    if file.suffix != TARGETS[to]:
        raise UserError(f"{file} does not end in {TARGETS[to]}, as a file for {to} must: name another --out")
    if not file.parent.is_dir():
        raise UserError(f"{file.parent} is no folder: make it first, or name another --out")
    expect_place(file, utf8=True)
    for each in (file, file.with_suffix(".bin")) if to == "openvino" else (file,):
        if each.exists():
            raise UserError(f"{each} exists: name another --out, or remove it")


@torch.inference_mode()
def compare(
    model: PeakZoom, engine: Callable[[Tensor], dict[str, Tensor]], clips: Iterable[Tensor]
) -> tuple[float, float, int]:
    """Largest difference of a logit between an engine and the trained network itself, largest logit, number of clips.

    Every batch is also given clip by clip: no logit may depend on what else is in the batch.
    """
    model = model.eval()
    preprocess = Preprocess.from_dict(model.preprocess)
    device = next(model.parameters()).device
    apart, scale, count = torch.zeros(()), torch.zeros(()), 0
    for batch in clips:
        expected = {
            name: logits.float().cpu()
            for name, logits in model(*to_input(batch.to(device), preprocess)).logits().items()
        }
        alone = [slice(index, index + 1) for index in range(len(batch))]
        for part in (slice(None), *alone):
            found = engine(batch[part])
            for name, logits in expected.items():
                apart = torch.maximum(apart, (found[name] - logits[part]).abs().amax())  # keeps a NaN
                scale = torch.maximum(scale, logits.abs().amax())
        count += len(batch)
    return apart.item(), scale.item(), count


def views_of(paths: Sequence[Path], preprocess: Preprocess, videos: int = VIDEOS) -> Iterator[Tensor]:
    """One batch of views, the crops of the middle clip, of each of up to ``videos`` videos spread over a list.

    A file that cannot be decoded gives none.
    """
    spread = np.linspace(0, len(paths) - 1, min(videos, len(paths))).round().astype(int)
    for index in spread:
        with contextlib.suppress(DecodeError):
            yield from decode_views(paths[index], preprocess, Views(clips=1)).batches()


def _write(model: PeakZoom, to: str, file: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """Write the file, and open it again: from views to logits."""
    if to == "torch":  # PyTorch's reader can unpickle, so peakzoom opens no one else's
        stored = io.BytesIO()  # PyTorch's own writer ends the process where a disk is full
        torch.export.save(trace(model), stored, extra_files={ABOUT: Description.of(model).to_json()})
        file.write_bytes(stored.getbuffer())
        return torch.export.load(file).module()
    if to == "onnx":
        from peakzoom.inference.engines.onnx import to_onnx

        file.write_bytes(to_onnx(model))
    else:
        from peakzoom.inference.engines.openvino import save, to_openvino

        save(to_openvino(model), file)
    return open_exported(file)
