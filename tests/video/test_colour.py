"""Colour matrices that FFmpeg's converter refuses: the nearest that it knows is taken, and it is said."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import av
import numpy as np
import odd_videos
import pytest
import torch
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from peakzoom import cli
from peakzoom.apps.watch.records import SourceProblem
from peakzoom.apps.watch.source import TimedFrame, open_here
from peakzoom.data.check import check
from peakzoom.data.entries import Entry, VideoSet
from peakzoom.utils.errors import DecodeError
from peakzoom.video import colour, scan
from peakzoom.video.decode import decode
from peakzoom.video.scan import probe

# By (matrix, primaries), as numbered in ITU-T H.273: the matrix that stands in for it, and its name.
NEAREST = {
    (8, 1): (6, "BT.601"),
    (10, 9): (9, "BT.2020"),
    (11, 1): (9, "BT.2020"),
    (12, 1): (1, "BT.709"),
    (12, 5): (6, "BT.601"),
    (12, 6): (6, "BT.601"),
    (12, 7): (7, "SMPTE 240M"),
    (12, 9): (9, "BT.2020"),
    (12, 2): (1, "BT.709"),
    (13, 9): (9, "BT.2020"),
    (14, 9): (9, "BT.2020"),
    (15, 9): (9, "BT.2020"),
    (16, 1): (6, "BT.601"),
    (17, 1): (6, "BT.601"),
}
KNOWN = [(matrix, 1) for matrix in (0, 1, 2, 4, 5, 6, 7, 9)]


def write(path: Path, matrix: int, primaries: int, pixels: str = "yuv444p") -> Path:
    """Two frames of colours, lossless, whose planes do not depend on the matrix that is stated."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_primaries = primaries
        stream.codec_context.color_range = 1
        for number in range(2):
            frame = av.VideoFrame.from_ndarray(odd_videos.shown(number), format="rgb24").reformat(
                format=pixels
            )
            frame.colorspace, frame.color_primaries, frame.color_range = matrix, primaries, 1
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
@pytest.mark.parametrize(("matrix", "primaries"), NEAREST)
def test_the_nearest_is_taken_and_said(tmp_path: Path, matrix: int, primaries: int, pixels: str) -> None:
    near, name = NEAREST[matrix, primaries]
    path = write(tmp_path / "v.mkv", matrix, primaries, pixels)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert isinstance(frame, av.VideoFrame)
        assert (frame.colorspace, frame.color_primaries) == (matrix, primaries)
        with pytest.raises(OSError, match="not supported"):
            frame.reformat(format="rgb24")
    video, wanted = decode(path), decode(write(tmp_path / "w.mkv", near, primaries, pixels))
    assert torch.equal(video.frames, wanted.frames) and wanted.info.problem is None
    problem = video.info.problem or ""
    assert problem.startswith("colours said to be ") and problem.endswith(f" were taken for {name}")
    opened = open_here(path, same_size)
    items = list(opened.items)
    assert [item.reason for item in items if isinstance(item, SourceProblem)] == [problem]
    frames = [opened.convert(item.frame) for item in items if isinstance(item, TimedFrame)]
    np.testing.assert_array_equal(torch.stack(frames).numpy(), wanted.frames.movedim(1, -1).numpy())


@pytest.mark.parametrize(("matrix", "primaries"), KNOWN)
def test_those_that_are_known_are_their_own(tmp_path: Path, matrix: int, primaries: int) -> None:
    path = write(tmp_path / "v.mkv", matrix, primaries)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert isinstance(frame, av.VideoFrame)
        plain = frame.reformat(format="rgb24", dst_color_range=ColorRange.JPEG)
    video = decode(path)
    np.testing.assert_array_equal(video.frames[0].movedim(0, -1).numpy(), plain.to_ndarray())
    assert video.info.problem is None


def test_a_matrix_that_nobody_has_named_and_what_the_check_of_data_says(tmp_path: Path) -> None:
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.colorspace = 3  # which files cannot state
    assert colour.nearest_matrix(frame) == Colorspace.ITU601
    assert colour.matrix_slip(frame) == "colours said to be of matrix 3 were taken for BT.601"
    path = write(tmp_path / "v.mkv", 14, 9)
    (found,) = check(VideoSet(["a"], [Entry(path, 0)], [], "one", [])).problems
    assert found.reason == "readable, but: colours said to be ICtCp were taken for BT.2020"


def test_nothing_is_accepted_that_cannot_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by ``data check``, which converts nothing else."""
    path = write(tmp_path / "v.mkv", 14, 9)
    monkeypatch.setattr(colour, "nearest_matrix", lambda frame: None)
    for look in (probe, scan.scan, decode):
        with pytest.raises(
            DecodeError, match=r"frame 0 \(yuv444p\) cannot be converted to RGB: Operation not"
        ):
            look(path)


@pytest.mark.parametrize("way", ["predict", "evaluate", "explain", "watch", "train"])
def test_every_way_in_takes_the_nearest_and_says_so(
    way: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command; a training notes it with the file."""
    said = "colours said to be ICtCp were taken for BT.2020"
    run = Path(shutil.copytree(run, tmp_path / "run"))
    names = ["kick", "nod", "wave"]
    for name in names:
        write(tmp_path / f"{name}.mkv", 14, 9)
    rows = [f"{name}.mkv,{name},{'train' if way == 'train' else 'test'}" for name in names]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    file, data, out = tmp_path / "kick.mkv", tmp_path / "list.csv", tmp_path / "out"
    quick = ["--device", "cpu", "--num-clips", "1", "--crops", "1"]
    small = "--epochs 1 --joint-epochs 1 --size 32 --init none --val-fraction 0 --workers 0"
    words = {
        "predict": ["predict", run, file, *quick],
        "evaluate": ["evaluate", run, data, "--out", out, *quick],
        "explain": ["explain", run, file, "--out", out, *quick],
        "watch": ["watch", run, file, "--out", out, "--device", "cpu"],
        "train": [
            "train",
            data,
            "--out",
            out,
            *small.split(),
            "--set",
            "accelerator=cpu",
            "--set",
            "preprocess.frames=8",
        ],
    }[way]
    monkeypatch.setattr(sys, "argv", ["peakzoom", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    shown = capsys.readouterr()
    assert left.value.code in (0, None), shown.err
    noted = "".join(each.read_text() for each in out.glob("problems.csv")) if out.exists() else ""
    assert said in shown.err + shown.out + noted
