"""``peakzoom explain``: where, when and how sure, as a video, a figure and JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from peakzoom.cli.console import print_result, say
from peakzoom.cli.grouped import grouped
from peakzoom.cli.inputs import beside
from peakzoom.cli.options import CalibratedOpt, DeviceOpt, RejectOpt, RunArg, ViewOptions, output_option
from peakzoom.utils.errors import printable
from peakzoom.utils.words import counted
from peakzoom.video.guard import start_early


@grouped
def explain(
    run: RunArg,
    video: Annotated[Path, typer.Argument(help="Video file.", show_default=False)],
    *,
    target: Annotated[
        str | None,
        typer.Option(
            "--class", help="Look for what speaks for this class.", show_default="the predicted one"
        ),
    ] = None,
    out: Annotated[
        Path | None, output_option(help="New folder.", show_default="explanations/VIDEO in the run")
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(min=0, help="Which crop: 0 left or top, 1 middle, 2 ...", show_default="the surest one"),
    ] = None,
    views: ViewOptions,
    calibrated: CalibratedOpt = False,
    reject: RejectOpt = False,
    device: DeviceOpt = "auto",
) -> None:
    """Show what the network saw: evidence.mp4, evidence.png and evidence.json.

    Example:
    - `peakzoom explain runs/first clip.mp4 --class wave`
    """
    start_early()
    from peakzoom import explanation
    from peakzoom.inference.prediction import NONE
    from peakzoom.inference.recognizer import load
    from peakzoom.utils.durable import check_new_folder
    from peakzoom.utils.segments import stem_of
    from peakzoom.video.held import HeldVideo

    averaged = views.views()
    name = stem_of(video) if target is None else f"{stem_of(video)}-" + re.sub(r"[^\w.-]", "_", target)
    folder = out or beside(run) / "explanations" / name
    check_new_folder(folder)
    recognizer = load(run, device, calibrated=calibrated, reject=reject)
    with HeldVideo(video) as held:  # decoded once
        evidence = explanation.explain(recognizer, held, target, averaged, crop)
        if evidence.prediction.problem:
            say(f"{video}: {evidence.prediction.problem}")
        files = explanation.save(evidence, folder)
    prediction = evidence.prediction
    if prediction.confidence and prediction.confidence.rejected:
        print_result(f"{NONE} ({prediction.confidence.said})")
    if prediction.thresholds is not None:
        print_result(f"labels: {printable(prediction.label)}")
    for best, score in prediction.top(3):
        print_result(f"{printable(best)}  {score:.4f}")
    index, count = evidence.crop
    print_result(
        f"Evidence for {printable(evidence.target)} in {evidence.end:.1f} s: {counted(len(evidence.peaks), 'peak')}, "
        f"crop {index} of {count} (counted from 0)"
    )
    print_result("\n".join(map(printable, files)))
