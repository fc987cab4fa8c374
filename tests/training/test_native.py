"""The zoom at the resolution of the videos: which factor, what bounds it, and what a training makes of it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from peakzoom.cli import app
from peakzoom.cli.options import MachineOptions, RecipeOptions
from peakzoom.cli.recipe import recipe_and_options
from peakzoom.data.entries import VideoSet
from peakzoom.inference.recognizer import load
from peakzoom.model.schema import MOST_BYTES, check_preprocess
from peakzoom.training.native import MOST_SOURCE, affordable_factor, batch_bytes, native_factor, with_source
from peakzoom.training.options import Options
from peakzoom.training.recipes import Recipe, paper, spatial
from peakzoom.training.train import train
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views
from peakzoom.video.scan import VideoInfo
from peakzoom.video.views import Preprocess

pytestmark = pytest.mark.usefixtures("no_curves")
SIZES = [(1, 1), (36, 64), (108, 108), (109, 108), (120, 160), (240, 320), (256, 342), (720, 1280), (1080, 1920),
         (1920, 1080), (2160, 3840)]  # fmt: skip


def video(height: int, width: int) -> VideoInfo:
    return VideoInfo(Path("v.mp4"), 10, 10, 25.0, height, width, 0, 1.0, False, "h264", None)


@pytest.mark.parametrize("canvas", [(96, 96), (108, 108), (256, 342)])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_smallest_factor_that_covers_a_video(canvas: tuple[int, int], height: int, width: int) -> None:
    factor = native_factor(Preprocess(size=96, canvas=canvas), height, width)
    covering = [each for each in range(1, 100) if canvas[0] * each >= height and canvas[1] * each >= width]
    assert factor == covering[0]


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
@pytest.mark.parametrize("frames", [8, 16, 64])
@pytest.mark.parametrize("size", [96, 224])
@pytest.mark.parametrize("wanted", [1, 2, 5, 16, 40])
def test_no_batch_is_larger_than_the_bound(batch: int, frames: int, size: int, wanted: int) -> None:
    pre = Preprocess(size=size, frames=frames, canvas=(256, 342))
    found = affordable_factor(pre, batch, wanted)
    assert 1 <= found <= min(wanted, 16)

    def takes(factor: int) -> tuple[int, int]:
        return batch * frames * 3 * (size * factor) ** 2 * 4, frames * 3 * 256 * 342 * factor**2

    assert batch_bytes(replace(pre, zoom_source=found), batch) == takes(found)[0]
    if found > 1:
        assert takes(found)[0] <= MOST_SOURCE and takes(found)[1] <= MOST_BYTES
        check_preprocess(replace(pre, zoom_source=found).to_dict())  # what is trained can be loaded
    if found < min(wanted, 16):
        assert takes(found + 1)[0] > MOST_SOURCE or takes(found + 1)[1] > MOST_BYTES


@pytest.mark.parametrize(
    ("recipe", "shapes", "factor", "said"),
    [
        (spatial(), [(240, 320)], 3, "3 times as large as the input, for the median training video's 320 x 240 pixels"),
        (spatial(), [(100, 90)], 1, "read from the input itself, for"),
        (spatial(), [(1080, 1920), (240, 320), (120, 160)], 3, "320 x 240"),
        (spatial(), [(1080, 1920)], 8, "8 times as large as the input (1.8 GB a batch) and not 18 times (9.2 GB)"),
        (replace(spatial(), batch_size=2), [(1080, 1920)], 16, "16 times as large as the input (0.91 GB a batch) and"),
        (paper(), [(1080, 1920)], 3, "3 times as large as the input (1.4 GB a batch) and not 6 times (5.5 GB)"),
        (replace(paper(), branches=("original",)), [(1080, 1920)], 1, "changes nothing, for no branch zooms"),
    ],
)  # fmt: skip
def test_what_is_chosen_and_said(
    recipe: Recipe,
    shapes: list[tuple[int, int]],
    factor: int,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    infos = [video(*shape) for shape in shapes]
    assert with_source(recipe, recipe.preprocess, infos) == recipe.preprocess and not caplog.messages
    chosen = with_source(replace(recipe, native_source=True), recipe.preprocess, infos)
    assert chosen == replace(recipe.preprocess, zoom_source=factor)
    (line,) = caplog.messages
    assert said in line and "\n" not in line


def test_the_option() -> None:
    def chosen(**given: object) -> Recipe:
        return recipe_and_options(RecipeOptions(recipe="spatial", **given), MachineOptions())[0]  # type: ignore[arg-type]

    assert chosen(zoom_source="4").preprocess.zoom_source == 4 and not chosen().native_source
    native = chosen(zoom_source="native")
    assert native.native_source and "native_source" not in chosen().recorded()
    assert native.recorded()["native_source"] is True
    assert chosen(settings=["native_source=true"]) == native
    for wrong in ("big", "2.5", "-1", ""):
        with pytest.raises(UserError, match="expected a whole number, or native"):
            chosen(zoom_source=wrong)
    with pytest.raises(UserError, match="zoom_source"):
        chosen(zoom_source="17")
    with pytest.raises(UserError, match="--zoom-source 2"):
        chosen(settings=["zoom_source=2"])


def test_a_training_zooms_from_the_videos_own_frames(
    clip_data: VideoSet, tiny: Recipe, tmp_path: Path
) -> None:
    """Clips of 64 x 64 on a canvas of 36 x 40: twice the input. Stage 1 zooms nowhere."""
    out, recipe = tmp_path / "run", replace(tiny, width=0.25, native_source=True)
    options = Options(workers=0, accelerator="cpu", progress=False, val_fraction=0.2)
    train(clip_data, recipe, out, options)
    factors = {
        stage: json.loads((out / stage / "best" / "config.json").read_text())["preprocess"]["zoom_source"]
        for stage in ("tcnn", "joint")
    }
    assert factors == {"tcnn": 1, "joint": 2}
    recognizer = load(out, "cpu")
    assert recognizer.preprocess.source_size == 64
    assert recognizer.predict(clip_data.entries[0].path, Views(clips=1, crops=1)).scores[
        "fused"
    ].sum() == pytest.approx(1)
    train(clip_data, recipe, out, options, resume=True)  # asks for the same
    with pytest.raises(UserError, match="native_source"):
        train(clip_data, replace(recipe, native_source=False), out, options, resume=True)


def test_the_command_knows_it() -> None:
    result = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert "--zoom-source" in result.output
