"""Cropping, by the codec and by the container: what is shown is that part of the stored frames, to the pixel."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import av
import numpy as np
import odd_videos
import pytest
import torch

from peakzoom.apps.watch.source import TimedFrame, open_source
from peakzoom.video import shape
from peakzoom.video import stored as module
from peakzoom.video.decode import decode
from peakzoom.video.scan import probe

SIZE = (96, 128)
LEFT, RIGHT, TOP, BOTTOM = 20, 8, 4, 6  # none of them a multiple of what planes are aligned to


def same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


def watched(path: Path) -> torch.Tensor:
    items = open_source(path, same_size).items
    return torch.stack([cast(torch.Tensor, item.frame) for item in items if isinstance(item, TimedFrame)])


def write(path: Path, **named: object) -> Path:
    return odd_videos.write(path, "libx264", 4, SIZE, **named)  # type: ignore[arg-type]


def check(path: Path, expected: np.ndarray) -> None:
    """All ways give these frames, uint8 (n, H, W, 3)."""
    video, again = decode(path), decode(path, hold_bytes=0)
    np.testing.assert_array_equal(video.frames.movedim(1, -1).numpy(), expected)
    assert torch.equal(video.frames, again.frames) and video.info == again.info == probe(path)
    assert (video.info.height, video.info.width) == expected.shape[1:3] and video.info.problem is None
    np.testing.assert_array_equal(watched(path).numpy(), expected)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_by_the_codec(tmp_path: Path, suffix: str) -> None:
    rectangle = f"crop-rect={LEFT},{TOP},{RIGHT},{BOTTOM}"
    whole = decode(write(tmp_path / f"whole{suffix}")).frames.movedim(1, -1).numpy()
    path = write(tmp_path / f"v{suffix}", options={"x264-params": rectangle})
    check(path, whole[:, TOP : SIZE[0] - BOTTOM, LEFT : SIZE[1] - RIGHT])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_by_the_container(tmp_path: Path, suffix: str) -> None:
    stored = write(tmp_path / "v.mp4" if suffix == ".mkv" else tmp_path / f"v{suffix}")
    whole = decode(stored).frames.movedim(1, -1).numpy()
    # From the middle to the middle of what is shown.
    off = (LEFT - RIGHT) // 2, (TOP - BOTTOM) // 2
    path = odd_videos.add_clean_aperture(stored, SIZE[1] - LEFT - RIGHT, SIZE[0] - TOP - BOTTOM, *off)
    if suffix == ".mkv":
        path = odd_videos.remux(path, tmp_path / "v.mkv")
    check(path, whole[:, TOP : SIZE[0] - BOTTOM, LEFT : SIZE[1] - RIGHT])


def test_before_turning_and_resizing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = odd_videos.write_streams(
        tmp_path / "v.mov",
        odd_videos.Stream("libx264", 4, SIZE, setup=lambda stream: stream.set_display_rotation(90)),
    )
    turned = decode(path).frames  # (n, 3, 128, 96)
    odd_videos.add_clean_aperture(path, SIZE[1] - 20, SIZE[0])
    video = decode(path)
    assert torch.equal(video.frames, turned[:, :, 10:-10])
    small = decode(path, size=(27, 24)).frames
    assert small.shape == (4, 3, 27, 24)
    monkeypatch.setattr(module, "LARGE_SHORT_SIDE", 10)
    assert torch.equal(decode(path, size=(27, 24)).frames, small)


def test_that_leaves_nothing_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg checks it against the size that the container states; frames may be smaller."""
    path = write(tmp_path / "v.mp4")
    whole = decode(path).frames
    monkeypatch.setattr(shape, "container_crop", lambda *_: shape.Crop(100, 28, 0, 0))
    video = decode(path)
    assert torch.equal(video.frames, whole)
    assert video.info.problem == "cropping that would leave nothing of a frame was not done"


def test_nothing_is_logged_and_odd_names_do_no_harm(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = odd_videos.add_clean_aperture(write(tmp_path / "v.mp4"), 100, 80)
    other = tmp_path / "w.mkv"
    with av.open(str(path)) as read, av.open(str(other), "w") as written:
        written.metadata["title"] = "\n  Stream #0:0\n      Frame Cropping: 1/1/1/1\nTITLE"
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = stream
                written.mux(packet)
    other.write_bytes(other.read_bytes().replace(b"TITLE", b"\xff\xfe\x00\x80\xe9"))
    for each in (path, other):
        info = probe(each)
        assert (info.height, info.width) == (80, 100)
    assert capfd.readouterr() == ("", "") and caplog.records == []
