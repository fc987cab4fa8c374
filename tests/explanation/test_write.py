"""The video, the figure and the JSON, read back."""

from __future__ import annotations

import base64
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from explanation.colours import middle_of, recognizer, write_squares
from PIL import Image

from peakzoom.display.figures import BRANCH_COLOURS
from peakzoom.explanation import explain, save
from peakzoom.explanation.draw import EvidenceVideo, Painter, draw_figure, draw_middles, headline, write_strip
from peakzoom.utils import durable
from peakzoom.utils.errors import UserError
from peakzoom.video.decode import decode
from peakzoom.video.encode import ticks_of
from peakzoom.video.sampling import Views

ONE = Views(clips=2, crops=1)


def still(number: int) -> list[tuple[str, float, float]]:
    return [("red", 0.4, 0.6)]


@pytest.mark.parametrize(
    "size,setup",
    [
        ((60, 80), None),
        ((61, 83), None),
        ((120, 32), None),
        ((33, 240), None),
        ((60, 80), lambda stream: stream.set_display_rotation(90)),
    ],
)
def test_video(tmp_path: Path, size: tuple[int, int], setup: Callable[..., None] | None) -> None:
    """H.264 that browsers play, every frame of the source once and at its own time."""
    stamps = [0, 40, 80, 200, 240, 280, 320, 700, 740, 780, 820, 860]
    extra = {"setup": setup} if setup else {}
    file = write_squares(tmp_path / "v.mov", still, size=size, pts=stamps, **extra)  # type: ignore[arg-type]
    evidence = explain(recognizer(), file, views=ONE)
    video, picture, data = save(evidence, tmp_path / "out")
    shown = decode(video)
    assert (shown.info.codec, shown.info.frames, shown.info.problem) == ("h264", 12, None)
    assert shown.info.height % 2 == 0 and shown.info.width % 2 == 0
    np.testing.assert_allclose(shown.timestamps, evidence.times, atol=1e-4)
    with av.open(str(video)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    written = video.read_bytes()
    assert written.index(b"moov") < written.index(b"mdat")  # playing starts before all is there
    with Image.open(picture) as figure:
        assert min(figure.size) > 300
    assert json.loads(data.read_text())["class"] == "red"
    with pytest.raises(UserError, match="is not empty"):
        save(evidence, tmp_path / "out")


@pytest.mark.slow
def test_a_killed_process_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = explain(recognizer(), write_squares(tmp_path / "v.mov", still), views=ONE)
    out = tmp_path / "out"

    def dying(done: int, count: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(evidence, out, progress=dying)
    assert not out.exists() and not (tmp_path / "out.part").exists()
    (tmp_path / "out.part").mkdir()  # what is left where no time was to clean up
    (tmp_path / "out.part" / "evidence.json").write_text("half")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", full)
        with pytest.raises(UserError, match=r"(?i)no space left.*: make room and run it again$"):
            save(evidence, out, progress=False)
    assert not out.exists()
    out.mkdir()
    made = save(evidence, out, progress=False)
    assert sorted(made) == sorted(out.iterdir()) and decode(made[0]).info.frames == 12
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "v.mov"]


def test_notebooks_show_the_video(tmp_path: Path) -> None:
    evidence = explain(recognizer(), write_squares(tmp_path / "<i>.mov", still), views=ONE)
    shown = evidence._repr_html_()
    assert "<video" in shown and "<script" not in shown and "<i>" not in shown
    video = tmp_path / "film.mp4"
    video.write_bytes(base64.b64decode(shown.split("base64,")[1].split('"')[0]))
    assert decode(video).info.frames == 12


def test_panes_show_what_was_seen(tmp_path: Path) -> None:
    """The square is enlarged in the discriminative pane; the overlay marks it; the rest of the frame is dark."""
    file = write_squares(tmp_path / "v.mov", lambda number: [("red", 0.5, 0.6)], size=(60, 120))
    evidence = explain(recognizer(), file, views=ONE)
    painter = Painter(evidence, 2.0)
    number, pixels = next(evidence.video.frames(None, painter.size))
    overlay, discriminative, complementary = painter.paint(number, pixels)
    assert overlay.shape == (120, 240, 3)

    def reds(image: np.ndarray) -> int:
        return int((image[..., 0].astype(int) - image[..., 1] > 80).sum())

    view = pixels.numpy()[:, painter.left : painter.left + painter.width]
    assert discriminative.shape == view.shape == complementary.shape
    assert reds(discriminative) > 1.15 * reds(view)
    assert reds(discriminative) > reds(complementary)
    x, y = middle_of("red", pixels.numpy())
    around = overlay[round(y) - 15 : round(y) + 16, round(x) - 15 : round(x) + 16].astype(int)
    colour = [int(BRANCH_COLOURS["discriminative"][at : at + 2], 16) for at in (1, 3, 5)]
    assert (abs(around - colour).max(2) < 8).any()  # the dot of the discriminative side
    assert overlay[5, 5].max() < 60 < pixels.numpy()[5, 5].min()


def test_the_moment_is_marked(tmp_path: Path) -> None:
    file = write_squares(tmp_path / "v.mov", still)
    video = EvidenceVideo(explain(recognizer(), file, views=ONE))
    columns = []
    for _, picture in video.frames():
        assert picture.shape == (video.height, video.width, 3) and picture.dtype == np.uint8
        top = video._line_top
        changed = (picture[top:].astype(int) - video._still[top:]).any((0, 2)).nonzero()[0]
        columns.append((changed.min() + changed.max()) / 2)
    steps = np.diff(columns)
    assert (steps > 0).all() and steps.max() - steps.min() <= 2  # frames of one length: even steps


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    file = write_squares(tmp_path / "v.mov", still)
    model = recognizer()
    names = ["$x_{2}$ <b>&amp;", "a" * 90, "Обнять"]
    model.engine.network.model.classes[:] = model.classes[:] = names
    model.model.classes[:] = names
    evidence = explain(model, file, "Обнять", ONE)
    assert "evidence for Обнять" in headline(evidence) and "$x_{2}$" in headline(evidence)
    assert all(each.exists() for each in save(evidence, tmp_path / "out"))
    figure = draw_middles([evidence, evidence], ["$\\frac$\npredicted: $x$", "other"])
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["$\\frac$\npredicted: $x$", "other"]
    figure.savefig(tmp_path / "middles.png")  # fails where names are read as formulas


@pytest.mark.parametrize(
    "branches",
    [
        ("original", "discriminative", "complementary"),
        ("original", "discriminative"),
        ("original", "complementary"),
        ("original",),
    ],
)
def test_a_picture_of_what_a_model_looks_at(tmp_path: Path, branches: tuple[str, ...]) -> None:
    evidence = explain(recognizer(branches=branches), write_squares(tmp_path / "v.mov", still), views=ONE)
    expected, columns = ["frame", "response, peaks", *branches[1:]], len(branches) + 1
    assert [axis.get_title() for axis in draw_middles([evidence], ["row"]).axes] == expected
    figure = draw_figure(evidence, 2)
    assert [axis.get_ylabel() for axis in figure.axes[: 2 * columns : 2]] == expected
    video = EvidenceVideo(evidence)
    _, picture = next(video.frames())
    assert picture.shape == (video.height, video.width, 3) and len(video._places) == columns - 1
    write_strip(evidence, 0, 64, tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as strip:
        panes = Painter(evidence, 64 / max(evidence.info.height, evidence.info.width))
        assert strip.width == 2 * panes.size[1] + (columns - 2) * panes.width + (columns - 1) * 8
    pointed = draw_middles([evidence, evidence], ["one", "two"], "both", [(0.25, 0.5), (1.0, 0.0)])
    assert pointed.get_suptitle() == "both"
    bars = [axis.patches[0].get_width() for axis in pointed.axes if axis.patches]
    assert len(pointed.axes) == 2 * (columns + 1) and bars == [0.25, 1.0]


@pytest.mark.parametrize("times", [[0.0], [0, 0, 0], [0, 0.04, 0.04, 0.04, 0.08], [0, 1, 2.5]])
def test_ticks_advance(times: list[float]) -> None:
    ticks = ticks_of(np.array(times, dtype=np.float64))
    assert (np.diff(ticks) > 0).all()
    np.testing.assert_allclose(ticks / 90_000, times, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 2])
def test_the_shortest_videos(tmp_path: Path, frames: int) -> None:
    file = write_squares(tmp_path / "v.mov", still, frames=frames)
    evidence = explain(recognizer(), file, views=ONE)
    video = save(evidence, tmp_path / "out")[0]
    assert decode(video).info.frames == frames and evidence.peaks
