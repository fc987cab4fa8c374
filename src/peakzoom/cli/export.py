"""``peakzoom export`` writes a trained model as one file for other runtimes, ``peakzoom push`` puts it on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from peakzoom.cli.console import print_result, say
from peakzoom.cli.inputs import find_videos
from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted


def export(
    run: Annotated[
        str, typer.Argument(help="Run folder, saved model, or owner/name on the hub.", show_default=False)
    ],
    *,
    to: Annotated[
        Literal["onnx", "openvino", "torch"], typer.Option(help="torch: a program of torch.export.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="New file; default: model.onnx, .xml or .pt2 in RUN.")
    ] = None,
    check: Annotated[
        list[Path] | None,
        typer.Option(help="Videos, or folders, to compare on. Default: the test videos of the run."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest difference of a logit that is let through.")
    ] = 1e-3,
) -> None:
    """Write a trained model as one graph for other runtimes, checked against PyTorch on real clips.

    Examples:
    - `peakzoom export runs/first --to onnx`
    - `peakzoom export runs/first --to openvino --out fast.xml --check clips/`
    """
    from peakzoom.data.runs import run_folder, run_videos
    from peakzoom.inference.export import TARGETS, check_target, views_of
    from peakzoom.inference.export import export as write
    from peakzoom.inference.recognizer import load
    from peakzoom.model.names import expect_on_hub

    if out is None and not Path(run).is_dir():
        if not Path(run).exists():
            expect_on_hub(run)  # or it is a mistyped folder
        raise UserError(f"{run} is no folder here: name the file to write with --out")
    file = out or Path(run) / f"model{TARGETS[to]}"
    check_target(to, file)
    recognizer = load(run, "cpu", "torch")
    if check:
        paths = list(find_videos(check))
    elif (home := run_folder(run)) is not None:
        entries = run_videos(home).entries
        chosen = [each for each in entries if each.split == "test"] or entries
        paths = [each.path for each in chosen]
    else:
        raise UserError(f"{run} does not know its videos: name some to compare on with --check")
    say(f"exporting to {to} and comparing on real clips")
    exported = write(recognizer.model, to, file, views_of(paths, recognizer.preprocess), tolerance)
    print_result(
        f"Largest difference of a logit on {counted(exported.clips, 'clip')}: {exported.difference:.1e} "
        f"(logits up to {exported.scale:.3g}, {tolerance:g} allowed)"
    )
    for each in exported.files:
        print_result(f"{each} ({each.stat().st_size / 1e6:.1f} MB)")


def push(
    run: Annotated[Path, typer.Argument(help="Run folder or saved model.", show_default=False)],
    name: Annotated[str, typer.Argument(help="owner/name on the hub.", show_default=False)],
    *,
    private: Annotated[bool, typer.Option(help="If the repository is new, only you can see it.")] = False,
) -> None:
    """Put a trained model with its card on the Hugging Face hub, where peakzoom.load("owner/name") finds it.

    Example:
    - `peakzoom push runs/first anna/kitchen-actions --private`
    """
    from peakzoom.hub.push import push as upload

    url = upload(run, name, private)
    print_result(f"{url}\nTo load it: peakzoom.load({name!r})")
